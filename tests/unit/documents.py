"""Made-up public keys of the example configuration."""

from typing import Final

import nkeys

from shared.bus.users import User
from shared.log.roles import Role


def _public(number: int) -> str:
    seed = nkeys.encode_seed(bytes([number] * 32), nkeys.PREFIX_BYTE_USER)
    return str(nkeys.from_seed(bytearray(seed)).public_key.decode())


EXAMPLE_USERS: Final = [User(role, _public(number)) for number, role in enumerate(Role, 1)]
