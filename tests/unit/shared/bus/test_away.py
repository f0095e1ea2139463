"""How often a bus that is away is logged, and what of its URLs."""

from structlog.testing import capture_logs

from shared.bus.away import Away


def logged(away: Away, seconds: int) -> list[int]:
    """At which of these seconds a failed attempt is logged."""
    found = []
    for second in range(seconds):
        away.clock = lambda second=second: float(second)  # type: ignore[misc]
        with capture_logs() as lines:
            away.note(OSError("refused"))
        found += [second] * len(lines)
    return found


def test_attempts_are_logged_ever_more_rarely_but_once_a_minute() -> None:
    away = Away(["nats://a:1"])

    assert logged(away, 250) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


def test_after_an_attempt_that_succeeded_the_next_outage_is_logged_at_once() -> None:
    away = Away(["nats://a:1"])
    logged(away, 100)
    away.succeeded()

    assert logged(away, 4) == [0, 1, 3]


def test_a_line_names_every_server_without_its_credentials() -> None:
    away = Away(["nats://user:secret@one.example:4222", "tls://two.example"])
    with capture_logs() as lines:
        away.note(ConnectionRefusedError("refused"))

    (line,) = lines
    assert line["servers"] == ["one.example:4222", "two.example:4222"]
    assert (line["error"], line["detail"]) == ("ConnectionRefusedError", "refused")
