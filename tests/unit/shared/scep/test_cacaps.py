import pytest

from shared.scep.cacaps import Capabilities, read_caps, write_caps

MODERN = {"AES", "POSTPKIOperation", "SCEPStandard", "SHA-256", "SHA-384", "SHA-512"}


def lines(body: bytes) -> list[str]:
    assert body.endswith(b"\n")
    return body.decode("ascii")[:-1].split("\n")


def test_modern_profile_offers_modern_algorithms_only() -> None:
    """SHA-384 is no IANA keyword, but strongSwan 5.9 wants it for AES."""
    found = lines(write_caps(Capabilities()))
    assert set(found) >= MODERN
    assert not {"DES3", "SHA-1"} & set(found)


def test_legacy_profile_offers_legacy_algorithms_too() -> None:
    found = lines(write_caps(Capabilities(legacy=True)))
    assert {*MODERN, "DES3", "SHA-1"} <= set(found)


@pytest.mark.parametrize(
    ("what", "keyword"),
    [(Capabilities(renewal=True), "Renewal"), (Capabilities(next_ca=True), "GetNextCACert")],
)
def test_what_a_profile_can_do_besides_is_said_only_where_it_can(
    what: Capabilities, keyword: str
) -> None:
    assert set(lines(write_caps(what))) - set(lines(write_caps(Capabilities()))) == {keyword}


@pytest.mark.parametrize("legacy", [False, True])
def test_answer_is_short_lines_without_repetition(
    legacy: bool,  # noqa: FBT001
) -> None:
    body = write_caps(Capabilities(legacy, renewal=legacy, next_ca=legacy))
    found = lines(body)
    assert len(body) < 1024
    assert b"\r" not in body
    assert "" not in found
    assert found == [each.strip() for each in found]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"])
def test_answers_of_other_servers_are_read(end: bytes) -> None:
    body = end.join([b"POSTPKIOperation", b"Sha-256", b" aes ", b"x\xff"])
    assert read_caps(body) == {"POSTPKIOPERATION", "SHA-256", "AES", "X"}


def test_empty_answer_offers_nothing() -> None:
    assert read_caps(b"") == read_caps(b"\r\n \n") == frozenset()
