"""Revocations of certificates of an external CA: it hears the log's newest status, in the end."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.connector import CaUnavailableError, RevocationRefusedError
from services.issuer.connectors.pinned import PinnedCa, PinnedCas
from shared.log.events.commands import RevocationReason
from shared.runtime.worker import DeferredError
from tests.plugins.registry_ca.scepstream_registry_ca import Register, RegistryConnector
from tests.support import pki
from tests.support.world import ISSUER, STRANGER
from tests.unit.services.issuer.revocations import World, make_world, serial

KEY: Final = ec.derive_private_key(11, ec.SECP256R1())
HOLD: Final = RevocationReason.CERTIFICATE_HOLD
RELEASE: Final = RevocationReason.REMOVE_FROM_CRL


@dataclass(frozen=True)
class Moody(RegistryConnector):
    """The CA of the plug-in, which is away or refuses now and then."""

    says: list[Exception] = field(default_factory=list)
    heard: list[RevocationReason] = field(default_factory=list)

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        if self.says:
            raise self.says.pop(0)
        self.heard.append(reason)
        await super().revoke(serial, ca, reason, certificate)


@pytest.fixture
def connector(tmp_path: Path) -> Moody:
    ca = pki.local_ca(KEY)
    cas = PinnedCas(PinnedCa(ca.chain, ca.ceilings))
    return Moody(cas, 60.0, Register(tmp_path / "register.db"), KEY)


@pytest.fixture
async def world(connector: Moody) -> World:
    found = make_world(pki.local_ca(KEY))
    found.orders.live.current = replace(found.orders.live.current, issuers={ISSUER: connector})
    await found.issue()
    return found


async def test_the_ca_hears_it_before_the_command_is_answered(
    world: World, connector: Moody
) -> None:
    order = await world.order()
    await world.orders.handle(order)

    assert connector.heard == [RevocationReason.SUPERSEDED]
    assert world.answer(order).done
    assert world.answer(order).detail == "revoked"


@pytest.mark.parametrize("fault", [CaUnavailableError("away"), OSError("refused"), TimeoutError()])
async def test_a_ca_that_is_away_hears_it_later_however_often_it_was_tried(
    world: World, connector: Moody, fault: Exception
) -> None:
    connector.says.extend([fault, fault])
    order = await world.order()
    with pytest.raises(DeferredError):
        await world.orders.handle(order)
    with pytest.raises(DeferredError):
        await world.orders.give_up(order)
    await world.orders.give_up(order)

    assert connector.heard == [RevocationReason.SUPERSEDED]
    assert world.answer(order).done


async def test_what_the_ca_refuses_is_the_answer(world: World, connector: Moody) -> None:
    connector.says.append(RevocationRefusedError("this CA suspends nothing"))
    order = await world.order(reason=HOLD)
    await world.orders.handle(order)

    assert not world.answer(order).done
    assert world.answer(order).detail == (
        "recorded, but refused by the CA: this CA suspends nothing"
    )


async def test_a_command_that_comes_again_after_a_later_one_does_not_undo_it(
    world: World, connector: Moody
) -> None:
    connector.says.append(CaUnavailableError("away"))
    hold = await world.order(reason=HOLD)
    with pytest.raises(DeferredError):
        await world.orders.handle(hold)
    await world.orders.handle(await world.order(reason=RELEASE, attempt=1))
    await world.orders.handle(hold)

    assert connector.heard == [RELEASE, RELEASE]


async def test_a_certificate_with_a_forged_record_is_refused_and_answered(
    world: World, connector: Moody
) -> None:
    forged = serial(7)
    await world.issue(forged, by=STRANGER)
    order = await world.order(forged)
    await world.orders.handle(order)

    assert not world.answer(order).done
    assert world.answer(order).detail == "the certificate's record is forged"
    assert connector.heard == []
