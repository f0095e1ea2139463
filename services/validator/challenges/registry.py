"""The kinds of challenges: built in, and of packages that add their own."""

from typing import Final

from services.validator.challenges import one_time, signed, static, webhook
from services.validator.challenges.kind import VerifierKind
from shared.config.plugins import load_plugin

GROUP: Final = "scepstream.verifiers"
# A challenge goes to the first that recognises it, else to the one that recognises none.
VERIFIERS: Final = (one_time.KIND, signed.KIND, static.KIND, webhook.KIND)
_BUILT_IN: Final = {each.kind: each for each in VERIFIERS}


def is_built_in(name: str) -> bool:
    """Return whether a kind is one of ours."""
    return name in _BUILT_IN


def find_kind(name: str) -> VerifierKind:
    """Return the kind of this name; `SettingsError` where nothing installed provides it."""
    return _BUILT_IN.get(name) or load_plugin(GROUP, name, VerifierKind)
