"""Client families: few labels, whatever a header holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.user_agents import FAMILIES, family, without_content

# As clients send them.
SENT = {
    "Mozilla/4.0 (compatible; Win32; NDES client 10.0.22621.1/Windows)": "windows",
    "mdmclient/1.0 CFNetwork/1410.0.3 Darwin/22.6.0": "apple",
    "Mozilla/5.0 (X11; CrOS x86_64 15633.69.0) AppleWebKit/537.36": "chromeos",
    "Go-http-client/1.1": "go",
    "Java/17.0.9": "java",
    "curl/8.5.0": "curl",
    "": "none",
    "  ": "none",
    "an agent nobody knows/1": "other",
}


@pytest.mark.parametrize("sent", SENT)
def test_a_client_is_counted_by_its_family(sent: str) -> None:
    assert family(sent) == SENT[sent]


@given(st.text())
def test_any_header_gives_one_of_few(sent: str) -> None:
    assert family(sent) in FAMILIES


@pytest.mark.parametrize(
    ("switch", "client", "absent"),
    [
        ("auto", "cryptlib", True),
        ("auto", "certmonger", False),
        ("auto", "none", False),
        ("present", "cryptlib", False),
        ("absent", "certmonger", True),
    ],
)
def test_content_is_left_out_where_the_profile_or_the_client_wants_it(
    switch: str,
    client: str,
    absent: bool,  # noqa: FBT001 - a case
) -> None:
    assert without_content(switch, client) is absent
