"""Sessions of the page on both databases, and how often one address may fail to open one."""

import hashlib
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from services.audit.api import failed_tokens as attempts
from services.audit.api.failed_tokens import FailureLimiter
from services.audit.roles import Level, Operator
from services.audit.store.api_tokens import add_token, mark_revoked
from services.audit.store.sessions import (
    close_session,
    csrf_token,
    is_csrf_token,
    open_session,
    session_operator,
)
from services.audit.store.tables import sessions
from shared.limits import THROTTLED_SOURCES

SECRET: Final = "a-secret-that-only-one-browser-knows"
OTHER: Final = "a-secret-that-another-browser-knows"
TOKEN: Final = "a-token-that-is-long-enough-for-it"
DESK: Final = Operator("desk", Level.OPERATOR)
NOW: Final = 1_767_225_600.25
HOUR: Final = 3600.0


def whose(engine: Engine, secret: str, now: float) -> Operator | None:
    """Whoever opened it: a token, or an identity provider."""
    return session_operator(engine, secret, now, by_provider=True)


def sign_in(
    engine: Engine, secret: str = SECRET, now: float = NOW, token: str | None = None
) -> None:
    """An hour's session of the desk."""
    open_session(engine, DESK, secret, token=token, now=now, seconds=HOUR)


def rows(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(sessions)).mappings()]


# Sessions


@pytest.mark.parametrize("level", list(Level))
def test_a_session_is_of_who_opened_it(engine: Engine, level: Level) -> None:
    operator = Operator("jörg@host", level)
    open_session(engine, operator, SECRET, token=None, now=NOW, seconds=HOUR)

    assert whose(engine, SECRET, NOW) == operator


@pytest.mark.parametrize(
    "shown", ["", SECRET[:-1], SECRET.upper(), OTHER, "é" * 20, "\0", "\ud800"]
)
def test_another_secret_opens_nothing(engine: Engine, shown: str) -> None:
    sign_in(engine)

    assert whose(engine, shown, NOW) is None


def test_what_is_kept_opens_nothing(engine: Engine) -> None:
    sign_in(engine)
    (row,) = rows(engine)

    assert whose(engine, row["sha256"], NOW) is None


@pytest.mark.parametrize(("after", "signed_in"), [(0, True), (HOUR - 1, True), (HOUR, False)])
def test_a_session_ends_when_its_time_is_over(
    engine: Engine, after: float, *, signed_in: bool
) -> None:
    sign_in(engine)

    assert (whose(engine, SECRET, NOW + after) is not None) is signed_in


def test_a_session_ends_with_the_token_that_opened_it(engine: Engine) -> None:
    add_token(engine, "desk", Level.OPERATOR, TOKEN, 0)
    add_token(engine, "other", Level.OPERATOR, f"{TOKEN}-2", 0)
    sign_in(engine, SECRET, token="desk")
    sign_in(engine, OTHER, token="other")
    mark_revoked(engine, "desk", int(NOW))

    assert whose(engine, SECRET, NOW) is None
    assert whose(engine, OTHER, NOW) == DESK


def test_a_session_that_no_token_opened_outlives_a_token_of_its_name(engine: Engine) -> None:
    """Names of tokens and of people at an OIDC provider are not the same."""
    add_token(engine, "desk", Level.OPERATOR, TOKEN, 0)
    sign_in(engine)
    mark_revoked(engine, "desk", int(NOW))

    assert whose(engine, SECRET, NOW) == DESK


def test_a_logout_ends_this_session_alone(engine: Engine) -> None:
    sign_in(engine, SECRET)
    sign_in(engine, OTHER)
    close_session(engine, SECRET)
    close_session(engine, SECRET)
    close_session(engine, "never opened")

    assert whose(engine, SECRET, NOW) is None
    assert whose(engine, OTHER, NOW) == DESK


def test_no_column_holds_a_secret_or_what_follows_from_it_but_the_digest(engine: Engine) -> None:
    add_token(engine, "desk", Level.OPERATOR, TOKEN, 0)
    sign_in(engine, SECRET, token="desk")
    (row,) = rows(engine)
    digest = hashlib.sha256(SECRET.encode()).hexdigest()

    assert row == {
        "sha256": digest,
        "name": "desk",
        "level": "operator",
        "token": "desk",
        "expires_at": int(NOW + HOUR),
    }
    said = repr(row)
    assert not any(each in said for each in (SECRET, TOKEN, csrf_token(SECRET)))


def test_sessions_whose_time_is_over_are_forgotten_at_the_next_login(engine: Engine) -> None:
    sign_in(engine, "ended", NOW - HOUR)
    sign_in(engine, "nearly ended", NOW - HOUR + 1)
    assert len(rows(engine)) == 2
    sign_in(engine, "ended", NOW)  # a secret comes again only where it is of no use any more

    kept = {row["sha256"]: row["expires_at"] for row in rows(engine)}
    digests = {hashlib.sha256(each.encode()).hexdigest() for each in ("ended", "nearly ended")}
    assert kept.keys() == digests
    assert all(end > NOW for end in kept.values())


# CSRF tokens

# No cookie holds a NUL, by which alone HMAC's padding would make two of them one.
SECRETS: Final = st.text(st.characters(min_codepoint=1, max_codepoint=0xFF))


@given(one=SECRETS, other=SECRETS)
def test_a_csrf_token_is_of_one_session_alone(one: str, other: str) -> None:
    assert is_csrf_token(one, csrf_token(one))
    assert is_csrf_token(one, csrf_token(other)) is (one == other)
    assert csrf_token(one) not in {one, hashlib.sha256(one.encode()).hexdigest()}


@given(shown=st.text() | st.text(st.characters(categories=["Cs"])))
def test_whatever_else_is_shown_is_no_csrf_token(shown: str) -> None:
    assert not is_csrf_token(SECRET, shown)


# FailureLimiter

TRIES: Final = 10
MINUTE: Final = 60
ADDRESSES: Final = int(THROTTLED_SOURCES)


def failing(times: int, now: float = 0.0, address: str = "192.0.2.1") -> FailureLimiter:
    found = FailureLimiter(TRIES)
    for _ in range(times):
        found.failed(address, now)
    return found


@pytest.mark.parametrize("times", range(TRIES))
def test_fewer_than_ten_failures_keep_nobody_waiting(times: int) -> None:
    assert failing(times).wait("192.0.2.1", 0.0) == 0


@pytest.mark.parametrize("now", [0, 0.5, 17, 59, 59.999])
def test_after_ten_failures_an_address_waits_until_a_minute_is_over(now: float) -> None:
    wait = failing(TRIES).wait("192.0.2.1", now)

    assert now + wait >= MINUTE
    assert now + wait < MINUTE + 1, "no second longer than it must"


@pytest.mark.parametrize("now", [60, 60.5, 10**6])
def test_once_the_minute_is_over_all_tries_are_there_again(now: float) -> None:
    found = failing(TRIES)
    assert found.wait("192.0.2.1", now) == 0
    for _ in range(TRIES - 1):
        found.failed("192.0.2.1", now)
        assert found.wait("192.0.2.1", now) == 0
    found.failed("192.0.2.1", now)
    assert found.wait("192.0.2.1", now) > 0


def test_another_address_is_not_concerned() -> None:
    found = failing(TRIES)

    assert found.wait("192.0.2.2", 1.0) == 0
    assert found.wait("", 1.0) == 0
    assert found.wait("192.0.2.1", 1.0) > 0


def test_the_window_slides_with_each_failure() -> None:
    """Failures two seconds apart: each makes room a minute after it was."""
    found = FailureLimiter(TRIES)
    for second in range(0, 2 * TRIES, 2):
        found.failed("a", second)
    assert found.wait("a", 59) > 0
    assert found.wait("a", 60) == 0
    found.failed("a", 60)

    assert found.wait("a", 61) > 0
    assert found.wait("a", 62) == 0


MOMENTS: Final = st.lists(st.integers(0, 300), max_size=60).map(sorted)


@given(moments=MOMENTS, later=st.integers(0, 120))
def test_an_address_waits_when_ten_of_its_failures_are_of_the_last_minute(
    moments: list[int], later: int
) -> None:
    found, counted = FailureLimiter(TRIES), []
    for moment in moments:  # as the login page does: who must wait is not heard
        if not found.wait("a", moment):
            found.failed("a", moment)
            counted.append(moment)
    now = (moments or [0])[-1] + later
    recent = [moment for moment in counted if moment > now - MINUTE]

    assert len(recent) <= TRIES
    assert bool(found.wait("a", now)) is (len(recent) == TRIES)


def test_memory_is_bounded_and_the_address_that_failed_longest_ago_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "FAILURES_IN_ALL", 10**6)
    found = failing(TRIES, address="first")
    for _ in range(TRIES):
        found.failed("second", 0.0)
    found.failed("first", 0.0)
    for number in range(ADDRESSES - 1):
        found.failed(f"address {number}", 1.0)

    assert len(found._failed) == ADDRESSES
    assert found.wait("first", 1.0) > 0
    assert found.wait("second", 1.0) == 0


def test_what_is_remembered_of_one_address_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "THROTTLED_SOURCES", 3)
    found = failing(1000)
    assert {len(times) for times in found._failed.values()} == {TRIES}
    for number in range(10):
        found.failed(str(number), 0.0)
    assert list(found._failed) == ["7", "8", "9"]


def test_guesses_that_come_at_once_are_no_more_than_one_after_another() -> None:
    found = failing(TRIES - 2)
    with found.looking_up("192.0.2.1"):
        assert found.wait("192.0.2.1", 1.0) == 0
        with found.looking_up("192.0.2.1"):
            assert found.wait("192.0.2.1", 1.0) > 0
            assert found.wait("192.0.2.2", 1.0) == 0
    assert found.wait("192.0.2.1", 1.0) == 0

    fresh = FailureLimiter(1)
    with fresh.looking_up("a"):
        assert fresh.wait("a", 0.0) == 1
    assert not fresh._under_way


def test_failures_of_all_together_concern_who_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FAILURES_IN_ALL", 5)
    found = FailureLimiter(TRIES)
    for number in range(5):
        assert found.wait(f"address {number}", 0.0) == 0
        found.failed(f"address {number}", 0.0)
    assert found.wait("address 0", 30.0) == 30
    assert found.wait("honest", 30.0) == 0
    assert found.wait("address 0", 60.0) == 0


def test_asking_of_an_address_remembers_nothing() -> None:
    found = FailureLimiter(TRIES)
    for number in range(100):
        found.wait(str(number), 0.0)

    assert not found._failed


def test_a_session_that_a_provider_opened_ends_with_the_provider(engine: Engine) -> None:
    sign_in(engine)
    add_token(engine, "desk", Level.OPERATOR, TOKEN, int(NOW))
    sign_in(engine, OTHER, token="desk")

    assert session_operator(engine, SECRET, NOW) is None
    assert session_operator(engine, SECRET, NOW, by_provider=True) == DESK
    assert session_operator(engine, OTHER, NOW) == DESK
