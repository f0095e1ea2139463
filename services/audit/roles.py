"""The three roles of operators: viewer, operator, admin. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """An access level; each includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, required: "Level") -> bool:
        """Return whether this level includes `required`."""
        order = list(Level)
        return order.index(self) >= order.index(required)


@dataclass(frozen=True, slots=True)
class Operator:
    """An authenticated operator: name and access level."""

    name: str
    level: Level
