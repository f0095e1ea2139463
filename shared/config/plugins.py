"""Plug-ins that installed packages provide as entry points; imported only when configured."""

from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from shared.config.load import SettingsError

_T = TypeVar("_T")


def load_plugin(group: str, name: str, kind: type[_T]) -> _T:
    """Return the plug-in of this type and name; `SettingsError` if not exactly one is installed.

    The plug-in's `kind` attribute must equal the entry point's name.
    """
    found = tuple(entry_points(group=group, name=name))
    if not found:
        raise SettingsError(f"{name!r}: no installed package provides it ({group})")
    if len(found) > 1:
        packages = ", ".join(sorted(_package(each) for each in found))
        raise SettingsError(f"{name!r}: provided by several packages: {packages}")
    entry = found[0]
    try:
        plugin = entry.load()
    except Exception as error:
        detail = f"{entry.value} cannot be loaded: {type(error).__name__}"
        raise SettingsError(f"{name!r}: {detail}") from error
    if not isinstance(plugin, kind) or getattr(plugin, "kind", "") != name:
        raise SettingsError(
            f"{name!r}: {entry.value} is not a {kind.__name__} whose kind is {name!r}"
        )
    return plugin


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value
