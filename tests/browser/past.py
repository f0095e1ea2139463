"""What happened on a system before the first test looks at its page, and who may look."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from tests.browser.devices import Asked, Fleet
from tests.support.system import System

ANCHOR_DAYS: Final = 12
CONTOSO: Final = "https://sts.example/contoso"
LIMITED: Final = "PHONE-0511"
_SCANNERS: Final = tuple(f"SCANNER-{number:03}" for number in range(52))
_REFUSED: Final = {
    "PHONE-0388": "expired",
    "PHONE-0419": "signature_invalid",
    "PHONE-0502": "replay",
    LIMITED: "rate_limited",
    "PHONE-0533": "claim_mismatch",
}


@dataclass(frozen=True)
class Past:
    """Enough for a second page, and one of each kind."""

    laptop: Asked
    phone: Asked
    tablet: Asked
    mismatch: Asked
    wrong: Asked
    kiosk: Asked
    renewed: Asked
    held: Asked
    scanners: tuple[str, ...] = _SCANNERS

    @classmethod
    def of(cls, fleet: Fleet) -> "Past":
        """Let it happen."""
        fleet.endpoint("legacy")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: fleet.ask("legacy", name), _SCANNERS))
        kiosk, phone = fleet.succeed("kiosks", "KIOSK-LOBBY-2"), fleet.intune("PHONE-0417")
        refused = {reason: fleet.refuse(reason, name) for name, reason in _REFUSED.items()}
        found = cls(
            laptop=fleet.succeed("demo", "LAPTOP-0142"),
            phone=phone,
            tablet=fleet.intune("TABLET-BRANCH-09", "branch"),
            mismatch=refused["claim_mismatch"],
            wrong=fleet.ask("demo", "LAPTOP-0177", "not the password"),
            kiosk=kiosk,
            renewed=fleet.renew(kiosk),
            held=fleet.hold("switch_" + "of_the_second_basement_" * 2 + "rack_11"),
        )
        found.wrong.record("rejected")
        return found


def add_token(system: System, name: str, level: str) -> str:
    config = ("--config", str(system.config))
    done = system.cli("audit", "token", "add", name, "--level", level, *config)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def take_back(system: System, name: str) -> None:
    done = system.cli("audit", "token", "revoke", name, "--config", str(system.config))
    assert done.returncode == 0, done.stderr
