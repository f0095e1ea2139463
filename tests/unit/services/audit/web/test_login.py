"""Signing in at the page and out: forms, cookies, where one is led, what a session is good for."""

from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from services.audit.store.api_tokens import mark_revoked
from services.audit.store.sessions import csrf_token
from services.audit.store.tables import sessions
from services.audit.web.login import local
from shared.config.sections import Configuration
from tests.support.operator_api import HOUR, PLAIN, TLS, TOKEN, Browser, browser

SHARED: Final = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
HOSTILE: Final = (
    "//evil", "///evil", "/\\evil", "\\\\evil", "/scep@evil", "/scep.evil", "/scepevil",
    "https:", "https:evil", "https://evil", "https:/evil", "HTTPS://evil/scep", "javascript:1",
    "/scep/\\evil", "/scep\\evil", "/scep?\\", "/scep/\nx", "/scep/\r\nset-cookie: a=b",
    "/scep/\tx", "/scep/\x00", "/scep/\x7f", "/scep/\u2028", "/scep#", " /scep/held", "scep",
    "", "/", ".", "/scep:80", "/SCEP/", "/logout", "/scep/\ud800",
)  # fmt: skip
OURS: Final = (
    "/scep", "/scep?tab=activity&search=a%20b%2Fc", "/scep/held", "/scep/enrollments/a.b%2Ac",
    "/scep/held?cursor=WzEsMl0", "/scep?next=//evil", "/scep?x=https://evil",
)  # fmt: skip


def broken() -> Configuration:
    """No test here needs one."""
    pytest.fail("read the configuration")


@pytest.fixture
def deps(engine: Engine) -> Browser:
    return browser(engine, broken)


@pytest.fixture
def tls(engine: Engine) -> Browser:
    """Where operators reach the page by TLS."""
    return browser(engine, broken, public_url=TLS)


def cookie(response: httpx.Response) -> tuple[str, dict[str, str]]:
    """The one that a response sets: its name, its value and attributes."""
    (morsel,) = SimpleCookie(response.headers["set-cookie"]).values()
    return morsel.key, {"value": morsel.value} | {name: str(v) for name, v in morsel.items() if v}


def opened(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(connection.execute(select(sessions)).all())


# Forms


@pytest.mark.parametrize("path", ["/login", "/logout"])
@SHARED
@given(body=st.binary(max_size=300))
@example(b"token=\xff")
@example(b"token=%ff")
@example(b"token=%00")
@example(b"token=%ed%a0%80")
@example(b"token")
@example(b"csrf=%C3%A9")
@example(b"&".join([b"token=a"] * 11))
@example(b"token=" + b"a" * 4091)
@example(b"x" * 100_000)
def test_any_bytes_as_a_form_sign_nobody_in_and_are_answered(
    deps: Browser, path: str, body: bytes
) -> None:
    deps.clock.seconds += 60  # failures of other examples are forgotten
    found = deps.ask("POST", path, content=body, headers=FORM)

    assert found.status_code in (400, 401, 403, 413)
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert "set-cookie" not in found.headers


@SHARED
@given(token=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_no_other_token_signs_in(deps: Browser, token: str) -> None:
    if token.strip() == TOKEN:
        return
    deps.clock.seconds += 60
    assert deps.sign_in(token).status_code == 401


@pytest.mark.parametrize(("size", "status"), [(4096, 401), (4097, 413)])
def test_a_form_has_its_largest_size(deps: Browser, size: int, status: int) -> None:
    body = b"token=".ljust(size, b"a")

    assert deps.ask("POST", "/login", content=body, headers=FORM).status_code == status


def test_a_token_is_taken_with_the_white_space_around_it(deps: Browser) -> None:
    assert deps.sign_in(f"  {TOKEN}\r\n").status_code == 303


def test_a_token_taken_back_signs_nobody_in(deps: Browser, engine: Engine) -> None:
    mark_revoked(engine, "desk", 1)
    found = deps.sign_in()

    assert (found.status_code, opened(engine)) == (401, 0)
    assert 'role="alert"' in found.text


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "anything"])
def test_a_form_of_another_site_signs_nobody_in(deps: Browser, engine: Engine, site: str) -> None:
    found = deps.sign_in(headers={"sec-fetch-site": site})

    assert (found.status_code, opened(engine)) == (403, 0)
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_a_form_of_ours_signs_in(deps: Browser, site: str) -> None:
    assert deps.sign_in(headers={"sec-fetch-site": site}).status_code == 303


# Where one is led


@pytest.mark.parametrize("location", HOSTILE)
def test_a_hostile_place_to_go_on_to_is_the_home_page(location: str) -> None:
    assert local(location) == "/scep"


@pytest.mark.parametrize("location", OURS)
def test_a_page_of_ours_is_gone_on_to(location: str) -> None:
    assert local(location) == location


def followed(location: str) -> str:
    """The URL that a browser makes of it: dots lead up, written as %2e too (WHATWG URL s4.4)."""
    path, question, query = location.partition("?")
    dots = path.replace("%2e", ".").replace("%2E", ".")
    return urljoin(f"{TLS}/login", f"{dots}{question}{query}")


@pytest.mark.parametrize(
    "location",
    ["/scep/..", "/scep/../", "/scep/../..//evil", "/scep/./../x", "/scep/%2e%2e/x", "/scep/.%2E/"],
)
def test_no_dots_lead_out_of_our_pages(location: str) -> None:
    path = urlsplit(followed(local(location))).path

    assert path == "/scep" or path.startswith("/scep/")


@given(
    location=st.text()
    | st.tuples(
        st.sampled_from(["/scep", "/scep/", "/scep?", "//", "https://"]),
        st.text(st.sampled_from("/\\.@:?#%2eE\t\n evil")),
    ).map("".join)
)
def test_whatever_a_link_says_one_stays_on_this_host(location: str) -> None:
    found = local(location)

    assert found.startswith("/scep")
    assert urlsplit(followed(found))[:2] == ("https", "admin.example")


def test_form_and_redirect_go_where_it_is_allowed(deps: Browser, subtests: pytest.Subtests) -> None:
    for location in (*HOSTILE[:-1], *OURS):
        with subtests.test(location):
            question = f"/login?next={quote(location, safe='')}"
            found, shown = deps.sign_in(path=question), deps.get(question)
            assert unquote(found.headers["location"]) == unquote(local(location))
            assert f'action="/login?next={quote(local(location), safe="")}"' in shown.text


@pytest.mark.parametrize("path", ["/scep?tab=activity&search=a%26b", "/scep/held", "/scep"])
def test_who_is_not_signed_in_is_led_to_the_login_and_back(deps: Browser, path: str) -> None:
    led = deps.get(path)
    assert (led.status_code, led.headers["location"][:12]) == (303, "/login?next=")

    assert deps.sign_in(path=led.headers["location"]).headers["location"] == path


def test_a_long_address_leads_to_the_login_too(deps: Browser) -> None:
    """A search is at most 255 characters, which are up to twelve each in an address."""
    led = deps.get(f"/scep?{urlencode({'tab': 'activity', 'search': chr(0x1F512) * 255})}")

    assert deps.get(led.headers["location"]).status_code == 200


# Cookies


def test_a_cookie_is_for_this_host_and_no_script(deps: Browser) -> None:
    name, said = cookie(deps.sign_in())

    assert name == "scepstream"
    assert said.pop("value") == deps.secret
    assert said == {"httponly": "True", "samesite": "lax", "path": "/", "max-age": str(int(HOUR))}


def test_with_tls_the_cookie_is_bound_to_it(tls: Browser) -> None:
    name, said = cookie(tls.sign_in())

    assert name == "__Host-scepstream"
    assert said.pop("value") == tls.secret
    assert said == {
        "httponly": "True", "samesite": "lax", "path": "/", "max-age": str(int(HOUR)),
        "secure": "True",
    }  # fmt: skip
    assert tls.get("/api/v1/enrollments").status_code == 200


def test_with_tls_a_cookie_without_the_prefix_is_none(tls: Browser) -> None:
    tls.sign_in()
    tls.cookies = httpx.Cookies({"scepstream": tls.secret})

    assert tls.get("/api/v1/enrollments").status_code == 401


@pytest.mark.parametrize("public_url", [None, PLAIN, TLS])
def test_signing_out_takes_session_and_cookie_away(engine: Engine, public_url: str | None) -> None:
    found = browser(engine, broken, public_url=public_url)
    name, _ = cookie(found.sign_in())
    secret = found.secret
    response = found.ask("POST", "/logout", data={"csrf": csrf_token(secret)})
    gone, said = cookie(response)

    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert (gone, said["max-age"], said["path"]) == (name, "0", "/")
    assert ("secure" in said) is (public_url == TLS)
    found.cookies = httpx.Cookies({name: secret})
    assert (opened(engine), found.get("/scep").status_code) == (0, 303)


@pytest.mark.parametrize("csrf", ["", "wrong", csrf_token(""), csrf_token("another"), "é"])
def test_another_site_signs_nobody_out(deps: Browser, engine: Engine, csrf: str) -> None:
    deps.sign_in()

    assert deps.ask("POST", "/logout", data={"csrf": csrf}).status_code == 403
    assert (opened(engine), deps.get("/api/v1/enrollments").status_code) == (1, 200)


def test_every_login_is_a_session_of_its_own(deps: Browser, engine: Engine) -> None:
    deps.sign_in()
    first = deps.secret
    deps.sign_in()

    assert deps.secret != first
    assert opened(engine) == 2


# Too many failures


def test_after_ten_failures_even_a_good_token_waits_a_minute(deps: Browser) -> None:
    assert {deps.sign_in("wrong").status_code for _ in range(10)} == {401}
    found = deps.sign_in()
    wait = int(found.headers["retry-after"])

    assert found.status_code == 429
    assert str(wait) in found.text
    other = Browser(deps.app, deps.clock, address="192.0.2.2")
    assert other.sign_in().status_code == 303
    deps.clock.seconds += wait
    assert deps.sign_in().status_code == 303


def test_good_logins_are_no_failures(deps: Browser) -> None:
    assert {deps.sign_in().status_code for _ in range(15)} == {303}
