"""How far notices have come: one replica at a time, and nobody moves for another."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from sqlalchemy import Engine

from services.audit.store.expiry_notices import Hold, move, take

DAY: Final = 86400


def test_who_lost_its_turn_moves_nothing(engine: Engine) -> None:
    mine, others = Hold(DAY, "a", 100), Hold(DAY, "b", 300)
    assert take(engine, mine, 50) == (0, "", "")
    assert move(engine, mine, (7, "local", "0a"))
    assert take(engine, others, 100) is None
    assert take(engine, replace(mine, seconds=7 * DAY), 100) == (0, "", "")
    assert take(engine, others, 101) == (7, "local", "0a")
    assert not move(engine, mine, (9, "local", "0b"))

    assert take(engine, replace(mine, until=900), 301) == (7, "local", "0a")


def test_of_all_that_begin_at_once_one_holds(engine: Engine) -> None:
    def begin(number: int) -> bool:
        return take(engine, Hold(DAY, f"replica-{number}", 100), 50) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(8))) == 1
