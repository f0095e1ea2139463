"""The claims that verifiers prove about a device, for the names of its certificate. Pure.

Each kind of verifier has a closed set. Whatever else a service or a plug-in answers is ignored, and
so are values of another type or beyond the bounds: a profile that needs them refuses the device.
"""

from collections.abc import Mapping
from typing import Final

from shared.limits import CLAIM_CHARACTERS, CLAIM_VALUES
from shared.x509.name_templates import LISTS

# What a signed challenge and a one-time challenge say of the device.
TOKEN_CLAIMS: Final = frozenset({"iss", "sub", "device_name", *LISTS})
ONE_TIME_CLAIMS: Final = frozenset({"device_name", *LISTS})
# What a webhook, a device-state plug-in or a package's verifier may answer.
LOOKED_UP_CLAIMS: Final = frozenset(
    {"device_name", "device_id", "serial_number", "user_name", "department", "sid", *LISTS}
)
_BLANKS: Final = " \t\r\n"


def proved(found: object, allowed: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return the usable claims of an answer: a string each, or strings for those with several.

    A claim with one value may be a string or a sequence of one.

    Blanks around a value are not part of it; a blank value is none.
    """
    if not isinstance(found, Mapping):
        return {}
    usable: dict[str, tuple[str, ...]] = {}
    for name in allowed & found.keys():
        value = found[name]
        values = value if name in LISTS or isinstance(value, list | tuple) else (value,)
        if name not in LISTS and len(values) != 1:
            continue
        if isinstance(values, list | tuple) and len(values) <= CLAIM_VALUES:
            texts = tuple(each.strip(_BLANKS) for each in values if isinstance(each, str))
            if len(texts) == len(values) and all(0 < len(t) <= CLAIM_CHARACTERS for t in texts):
                usable[name] = texts
    return usable
