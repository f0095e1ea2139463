"""Commands whose modules are imported when they are called, not when the program starts.

A service imports only what it runs, and `--help` imports no service: importing all of them takes
longer than a start may.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


class Deferred(TyperCommand):
    """Stands in for a command or group until it is called: its name, its summary, where it is.

    `place` is `module:name` of a command's function or of a group's `Typer`.
    """

    def __init__(self, name: str, summary: str, place: str) -> None:
        """Create a stand-in; nothing is imported."""
        super().__init__(name, help=summary)
        self._place = place

    @cached_property
    def command(self) -> Any:
        """The command or group itself."""
        module, _, name = self._place.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command()(found)
            command = get_command(alone)
        command.name = self.name
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Parse the arguments of the command itself."""
        return self.command.make_context(info_name, args, parent, **extra)


def group(name: str, summary: str, commands: Sequence[Deferred]) -> TyperGroup:
    """Return a group of deferred commands, in this order."""
    return TyperGroup(name=name, help=summary, commands=list(commands), no_args_is_help=True)


def called(command: Any) -> Any:
    """Return the command or group that a stand-in stands for, and any other as it is."""
    return command.command if isinstance(command, Deferred) else command
