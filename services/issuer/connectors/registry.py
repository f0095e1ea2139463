"""The kinds of connectors: `local`, and those that packages add."""

from typing import Final

from services.issuer.connectors import local
from services.issuer.connectors.connector import Connector, ConnectorKind, Recovery
from shared.config.load import SettingsError
from shared.config.plugins import load_plugin
from shared.config.sections import Configuration

GROUP: Final = "scepstream.issuers"
CONNECTORS: Final = (local.KIND,)
_BUILT_IN: Final = {each.kind: each for each in CONNECTORS}


def read_connector(configuration: Configuration, name: str) -> Connector:
    """Read an issuer's connector; raises `SettingsError` naming what is wrong."""
    section = configuration.issuers[name]
    kind = _BUILT_IN.get(section.kind) or load_plugin(GROUP, section.kind, ConnectorKind)
    try:
        found = kind.build(configuration, name, section)
    except SettingsError:
        raise
    except Exception as error:
        detail = f"cannot be built: {type(error).__name__}"
        raise SettingsError(f"issuers.{name}: {section.kind} {detail}") from error
    if found.recovery is not Recovery.NAMED:
        raise SettingsError(
            f"issuers.{name}: {section.kind} cannot find an order by its name "
            f"({found.recovery}): such connectors are not supported"
        )
    return found
