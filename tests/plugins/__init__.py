"""Packages that add to scepstream from outside, as its users write them."""

from pathlib import Path
from typing import Final

PLUGINS: Final = Path(__file__).parent
