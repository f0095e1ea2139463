"""What a replica says of its pull of revocations: only the one that pulls knows."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import REGISTRY

from services.validator.connections import measure_pulls
from services.validator.microsoft.calls import Microsoft
from services.validator.microsoft.model import RevocationAsked, RevocationResult
from services.validator.revocation_pull import PullStatus, RevocationPull
from shared.log.events.state import TenantReport
from tests.support.messages import Identity
from tests.support.validators import World, validating

REPORT = TenantReport(
    connection="contoso", tenant="0f7c", cloud="public", credential_kind="secret", credential=1
)


@dataclass
class Asking:
    """Intune with nothing to revoke; it fails while `problem` is set."""

    problem: str = ""
    uploaded: list[RevocationResult] = field(default_factory=list)

    async def download_revocations(self, maximum: int) -> tuple[RevocationAsked, ...]:
        del maximum
        if self.problem:
            raise OSError(self.problem)
        return ()

    async def upload_results(self, results: Sequence[RevocationResult]) -> None:
        self.uploaded += results


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        yield found


def pull_of(world: World, replica: str, asking: Asking) -> RevocationPull:
    microsoft = cast(Microsoft, asking)
    return RevocationPull(world.evaluator, "contoso", microsoft, replica, world.clock)


async def test_a_pull_that_fails_is_told_until_one_succeeds(world: World) -> None:
    asking = Asking("permission")
    pull = pull_of(world, "validator-0", asking)
    with pytest.raises(OSError, match="permission"):
        await pull.pull()
    failed = pull.status
    asking.problem = ""
    await pull.pull()

    assert (failed.error, failed.at) == ("permission", world.clock())
    assert pull.status == PullStatus(world.clock(), 0)


async def test_a_replica_that_pulls_no_longer_tells_nothing(world: World) -> None:
    await pull_of(world, "validator-0", Asking()).pull()
    other = pull_of(world, "validator-1", Asking())
    other.status = PullStatus(world.clock(), 3, "an old error")
    await other.pull()

    assert other.status == PullStatus()


def exported(name: str, connection: str) -> Any:
    return REGISTRY.get_sample_value(name, {"connection": connection})


def test_pulls_are_exported_and_those_that_ended_are_not() -> None:
    changed = {"connection": "fabrikam", "pull_open": 2, "pull_error": "permission"}
    values = {name: getattr(REPORT, name) for name in REPORT.__struct_fields__}
    measure_pulls([REPORT, TenantReport(**(values | changed))])
    names = ("scepstream_revocation_requests_open", "scepstream_revocation_pull_failing")
    found = {c: [exported(n, c) for n in names] for c in ("contoso", "fabrikam")}
    measure_pulls([REPORT])

    assert found == {"contoso": [0, 0], "fabrikam": [2, 1]}
    assert exported(names[0], "fabrikam") is None
