"""The kinds of challenges: the built-in ones, and those that packages add."""

from typing import Final

from services.validator.challenges import intune, one_time, signed, static, webhook
from services.validator.challenges.kind import VerifierKind
from shared.config.plugins import load_plugin

GROUP: Final = "scepstream.verifiers"
# A challenge goes to the first kind that recognises it, else to the one without a format.
VERIFIERS: Final = (one_time.KIND, signed.KIND, intune.KIND, static.KIND, webhook.KIND)
_BUILT_IN: Final = {each.kind: each for each in VERIFIERS}


def is_built_in(name: str) -> bool:
    """Return whether a kind is built in."""
    return name in _BUILT_IN


def find_kind(name: str) -> VerifierKind:
    """Return the kind of this name; raises `SettingsError` if nothing installed provides it."""
    return _BUILT_IN.get(name) or load_plugin(GROUP, name, VerifierKind)
