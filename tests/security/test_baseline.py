"""Without an attack: what the other tests ask for is there to begin with."""

from tests.security.siege import Siege


def test_honest_devices_are_served_and_recorded(siege: Siege) -> None:
    with siege.attacked():
        pass
    siege.assert_proof_holds()
