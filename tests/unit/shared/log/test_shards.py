import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.log.shards import Epoch, all_shards, shards_for
from tests.support.world import NOW

DAY = 86400
OLD = Epoch(0, ("a",))
MIDDLE = Epoch(NOW - 2 * DAY, ("b",))
NEW = Epoch(NOW - 100, ("c",))


def test_a_pinned_profile_lives_on_its_shard_whatever_the_transaction() -> None:
    epoch = Epoch(0, ("a", "b"), {"fleet": "vip"})

    assert {epoch.shard("fleet", f"t{i}") for i in range(20)} == {"vip"}
    assert {epoch.shard("other", f"t{i}") for i in range(20)} == {"a", "b"}


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_a_transaction_always_lives_on_the_same_of_the_shards(
    transaction: str, names: list[str]
) -> None:
    epoch = Epoch(0, tuple(names))

    assert epoch.shard("p", transaction) == epoch.shard("q", transaction)
    assert epoch.shard("p", transaction) in names


def test_transactions_are_spread_evenly() -> None:
    epoch = Epoch(0, ("a", "b", "c", "d"))
    found = [epoch.shard("p", str(i)) for i in range(4000)]

    assert all(800 < found.count(shard) < 1200 for shard in epoch.shards)


def test_the_hash_is_the_one_that_logs_were_written_with() -> None:
    """Another one would look for old transactions in the wrong places."""
    epoch = Epoch(0, ("a", "b", "c"))

    assert [epoch.shard("p", t) for t in ("one", "two", "three", "four")] == ["c", "c", "c", "b"]


def test_the_newest_epoch_in_effect_takes_appends() -> None:
    epochs = (NEW, OLD, Epoch(NOW + 1, ("future",)))

    assert shards_for(epochs, "p", "t", NOW, 0) == ("c",)
    assert shards_for(epochs, "p", "t", NOW + 2, 0) == ("future",)


def test_shards_of_an_epoch_are_looked_up_for_one_window_after_its_end() -> None:
    epochs = (OLD, NEW)

    assert shards_for(epochs, "p", "t", NOW, 100) == ("c", "a")
    assert shards_for(epochs, "p", "t", NOW, 99) == ("c",)


def test_epochs_that_ended_longer_ago_are_not_looked_up() -> None:
    epochs = (OLD, MIDDLE, NEW)

    assert shards_for(epochs, "p", "t", NOW, DAY) == ("c", "b")
    assert shards_for(epochs, "p", "t", NOW, 3 * DAY) == ("c", "b", "a")


def test_a_shard_that_did_not_change_is_looked_up_once() -> None:
    epochs = (OLD, Epoch(NOW - 10, ("a", "b"), {"fleet": "a"}))

    assert shards_for(epochs, "fleet", "t", NOW, DAY) == ("a",)


def test_without_an_epoch_in_effect_there_is_no_shard() -> None:
    with pytest.raises(ValueError, match="no shard map"):
        shards_for((Epoch(NOW + 1, ("a",)),), "p", "t", NOW, DAY)


def test_all_shards_are_named_once_in_order() -> None:
    assert all_shards((OLD, Epoch(1, ("b", "a")), NEW)) == ("a", "b", "c")


def test_a_shard_that_only_a_pin_names_is_one_of_all_shards() -> None:
    """Its stream must be made and its consumers run, or the pinned fleet gets no answer."""
    assert set(all_shards((Epoch(0, ("a",), {"fleet": "vip"}),))) == {"a", "vip"}
