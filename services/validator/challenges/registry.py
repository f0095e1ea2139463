"""The kinds of challenges: built in, and of packages that add their own."""

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from services.validator.challenges import one_time, signed, static, webhook
from services.validator.challenges.kind import VerifierKind
from shared.config.load import SettingsError

GROUP: Final = "scepstream.verifiers"
# A challenge goes to the first that recognises it, else to the one that recognises none.
VERIFIERS: Final = (one_time.KIND, signed.KIND, static.KIND, webhook.KIND)
_BUILT_IN: Final = {each.kind: each for each in VERIFIERS}


def find_kind(name: str) -> VerifierKind:
    """Return the kind of this name; `SettingsError` where nothing installed provides it.

    Only the package that a profile names is imported.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise SettingsError(f"verifier {name!r}: no installed package provides it ({GROUP})")
    if len(found) > 1:
        packages = ", ".join(sorted(_package(each) for each in found))
        raise SettingsError(f"verifier {name!r}: provided by several packages: {packages}")
    return _load(found[0])


def _load(entry: EntryPoint) -> VerifierKind:
    try:
        kind = entry.load()
    except Exception as error:
        detail = f"cannot be loaded: {type(error).__name__}"
        raise SettingsError(f"verifier {entry.name!r}: {entry.value} {detail}") from error
    if not isinstance(kind, VerifierKind) or kind.kind != entry.name:
        raise SettingsError(
            f"verifier {entry.name!r}: {entry.value} is no VerifierKind of that name"
        )
    return kind


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value
