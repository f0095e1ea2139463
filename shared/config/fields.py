"""Field types of the configuration: closed tables, durations, sizes, lists, names, pins."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from cryptography.x509 import ObjectIdentifier
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from shared.bus.servers import checked
from shared.config.addresses import Networks
from shared.x509.name_patterns import read_san_pattern, read_subject_pattern
from shared.x509.name_templates import read_san_template, read_subject_template
from shared.x509.policies import read_policy
from shared.x509.usages import ANY_ATTRIBUTE, EXTENDED_KEY_USAGES, PLAIN_ATTRIBUTES

TOKEN_SCHEME: Final = "pkcs11:"  # noqa: S105 - a URI's scheme
PATH_ID: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_ATTRIBUTES: Final = (*PLAIN_ATTRIBUTES, "OU", "UID", "DC", "emailAddress", "unstructuredName")
_SIZES: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(value: object) -> object:
    """Return the seconds of "250ms", "90s", "60m", "24h", "365d"."""
    if not isinstance(value, str):
        raise ValueError('write a duration as a string: "90s", "60m", "24h"')  # noqa: TRY004 - pydantic collects ValueErrors
    return parse_duration(value)


def parse_duration(text: str) -> float:
    """Return a duration in seconds; `ValueError` says how to write one."""
    found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
    if found is None:
        raise ValueError('not a duration: write "90s", "60m", "24h"')
    return int(found[1]) * _UNITS[found[2]]


def write_duration(seconds: float) -> str:
    """Write a duration for `parse_duration`, in the largest unit that divides it."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{int(seconds / _UNITS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms" if seconds % 1 else f"{int(seconds)}s"


def _size(value: object) -> object:
    """Return the bytes of "256MiB", "16GiB"; 0 (no limit) only for "unlimited"."""
    if isinstance(value, str):
        if value == "unlimited":
            return 0
        if found := re.fullmatch(r"([1-9][0-9]{0,8})(KiB|MiB|GiB|TiB)", value):
            return int(found[1]) * _SIZES[found[2]]
    raise ValueError('write a size as a string: "256MiB", "16GiB", or "unlimited"')


def write_size(size: int) -> str:
    """Write a size for `_size`, in the largest unit that divides it."""
    unit = next((u for u in reversed(_SIZES) if size and size % _SIZES[u] == 0), "")
    return f"{size // _SIZES[unit]}{unit}" if unit else "unlimited"


def _list(value: object) -> object:
    """Wrap a single string in a list."""
    return [value] if isinstance(value, str) else value


def _numbers(value: object) -> object:
    """Wrap a single number in a list."""
    return [value] if isinstance(value, int) else value


def _secrets(value: object) -> object:
    """Accept a secret or a list of them; reject other types without quoting the value."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("write it as a string, or as a list of strings")  # noqa: TRY004 - pydantic collects ValueErrors
    return _list(value)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Reject text that is neither an address nor a network."""
    Networks.of(value)
    return value


def _policies(value: tuple[str, ...]) -> tuple[str, ...]:
    """Reject policies whose OID cannot be encoded, and a second one with the same OID."""
    oids = [read_policy(each).oid for each in value]
    for oid in oids:
        ObjectIdentifier(oid)  # ValueError
    if len(set(oids)) < len(oids):
        raise ValueError("names a policy twice")
    return value


def _readable(read: Callable[[str], object]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Reject texts that `read` rejects."""

    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            read(each)
        return value

    return check


Duration = Annotated[float, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_list), Field(min_length=1)]
Secrets = Annotated[tuple[str, ...], BeforeValidator(_secrets)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list)]
NetworkNames = Annotated[tuple[str, ...], BeforeValidator(_list), AfterValidator(_networks)]
BusUrls = Annotated[
    tuple[str, ...], BeforeValidator(_list), AfterValidator(checked), Field(min_length=1)
]
Pin = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Pins = Annotated[tuple[Pin, ...], BeforeValidator(_list), Field(min_length=1)]
Token = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,32}$")]
KeyType = Annotated[str, Field(pattern="^(rsa:(2048|3072|4096|8192)|ec:(p256|p384|p521))$")]
KeyUsage = Literal["digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment"]
ExtendedKeyUsage = Annotated[
    str, Field(pattern=f"^({'|'.join(EXTENDED_KEY_USAGES)}|[0-2](\\.[0-9]+)+)$")
]
SanKind = Literal["dns", "rfc822", "uri", "ip", "upn", "other"]
KeyTypes = Annotated[tuple[KeyType, ...], BeforeValidator(_list), Field(min_length=1)]
KeyUsages = Annotated[tuple[KeyUsage, ...], BeforeValidator(_list), Field(min_length=1)]
ExtendedKeyUsages = Annotated[
    tuple[ExtendedKeyUsage, ...], BeforeValidator(_list), Field(min_length=1)
]
SanKinds = Annotated[tuple[SanKind, ...], BeforeValidator(_list)]
SubjectAttribute = Annotated[
    str, Field(pattern=rf"^({'|'.join(_ATTRIBUTES)}|[0-2](\.[0-9]+)+|{ANY_ATTRIBUTE})$")
]
SubjectAttributes = Annotated[tuple[SubjectAttribute, ...], BeforeValidator(_list)]
SubjectPatterns = Annotated[
    tuple[Annotated[str, Field(max_length=255)], ...],
    BeforeValidator(_list),
    AfterValidator(_readable(read_subject_pattern)),
    Field(max_length=64),
]
SanPatterns = Annotated[
    tuple[Annotated[str, Field(max_length=255)], ...],
    BeforeValidator(_list),
    AfterValidator(_readable(read_san_pattern)),
    Field(max_length=64),
]
SubjectTemplates = Annotated[
    tuple[Annotated[str, Field(max_length=255)], ...],
    BeforeValidator(_list),
    AfterValidator(_readable(read_subject_template)),
    Field(max_length=16),
]
SanTemplates = Annotated[
    tuple[Annotated[str, Field(max_length=255)], ...],
    BeforeValidator(_list),
    AfterValidator(_readable(read_san_template)),
    Field(max_length=16),
]
HttpUrl = Annotated[str, Field(pattern=r"^http://[!-~]+$", max_length=255)]
HttpUrls = Annotated[tuple[HttpUrl, ...], BeforeValidator(_list), Field(max_length=8)]
Partitions = Annotated[
    tuple[Annotated[int, Field(ge=2, le=256, strict=True)], ...],
    BeforeValidator(_numbers),
    Field(max_length=4),
]
PolicyOids = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[0-2](\.[0-9]+)+$")], ...],
    BeforeValidator(_list),
    AfterValidator(_policies),
]
CertificatePolicies = Annotated[
    tuple[
        Annotated[str, Field(pattern=r"^[0-2](\.[0-9]+)+( https?://[!-~]+)?$", max_length=255)],
        ...,
    ],
    BeforeValidator(_list),
    AfterValidator(_policies),
    Field(max_length=16),
]
Periods = Annotated[
    tuple[str, ...],
    BeforeValidator(_list),
    AfterValidator(_readable(parse_duration)),
    Field(min_length=1, max_length=16),
]
Guid = Annotated[
    str,
    Field(pattern=r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"),
    AfterValidator(str.lower),
]
_DOMAIN: Final = r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
TenantId = Annotated[
    str,
    Field(
        pattern=rf"^([0-9A-Fa-f]{{8}}(-[0-9A-Fa-f]{{4}}){{3}}-[0-9A-Fa-f]{{12}}|{_DOMAIN})$",
        max_length=253,
    ),
    AfterValidator(str.lower),
]
HttpsUrl = Annotated[
    str,
    Field(
        pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/([A-Za-z0-9._~-]+/)*$",
        max_length=255,
    ),
]
HostSuffixes = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)], ...],
    BeforeValidator(_list),
    Field(min_length=1, max_length=16),
]
Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+$", max_length=255)]
Issuer = Annotated[
    str,
    Field(
        pattern=r"^(https://|http://(127\.0\.0\.1|localhost)[:/])[!-~]+$",
        max_length=255,
    ),
]
PathId = Annotated[str, Field(pattern=f"^{PATH_ID}$", max_length=63)]


class Section(BaseModel):
    """Base of all configuration tables: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )


def is_duration(field: FieldInfo) -> bool:
    """Return whether a key holds a duration."""
    return _is_read_by(field, _duration)


def is_size(field: FieldInfo) -> bool:
    """Return whether a key holds a size in bytes."""
    return _is_read_by(field, _size)


def _is_read_by(field: FieldInfo, reader: Callable[[object], object]) -> bool:
    parts = [*field.metadata, *get_args(field.annotation)]
    parts += [each for part in get_args(field.annotation) for each in get_args(part)]
    return any(isinstance(p, BeforeValidator) and p.func is reader for p in parts)


def is_token_uri(path: Path) -> bool:
    """Return whether a configured path is a PKCS#11 URI (RFC 7512)."""
    return str(path).startswith(TOKEN_SCHEME)
