"""The three roles of operators: viewer, operator, admin. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """What a token is good for, each level including those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, wanted: "Level") -> bool:
        """Whether it is as much as is wanted."""
        order = list(Level)
        return order.index(self) >= order.index(wanted)


@dataclass(frozen=True, slots=True)
class Operator:
    """Who a token stands for."""

    name: str
    level: Level
