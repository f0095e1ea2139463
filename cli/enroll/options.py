"""The options of `scepstream enroll`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.enroll.client import CIPHER_NAMES, DIGEST_NAMES, TRANSPORTS
from cli.enroll.families import FAMILIES

_HOW = "Message format"
_ASK = "Other operations"
_RENEW = "Renewal"

Url = Annotated[str, typer.Argument(help="SCEP URL of a profile")]
Cn = Annotated[str, typer.Option(help="common name of the device")]
Challenge = Annotated[str | None, typer.Option(envvar="SCEP_CHALLENGE", help="challenge password")]
ConnectorDir = Annotated[
    Path | None,
    typer.Option(
        "--connector",
        help="directory of the stand-in connector (`scepstream connector init`) that signs the"
        " challenge",
    ),
]
DeviceId = Annotated[str | None, typer.Option(help="with --connector: device ID (default: the CN)")]
Audience = Annotated[str | None, typer.Option(help="with --connector: `aud` of the challenge")]
San = Annotated[list[str] | None, typer.Option(help="dns:, email:, ip:, uri:, upn:")]
KeyKind = Annotated[str, typer.Option(help="rsa:2048|3072|4096, ec:p256|p384|p521")]
SignerKey = Annotated[
    str | None,
    typer.Option(
        help="sign messages with a separate key of this type, as macOS does", rich_help_panel=_HOW
    ),
]
Out = Annotated[Path | None, typer.Option(help="directory for the files (default: ./<cn>)")]
CaFile = Annotated[Path | None, typer.Option(help="the CA to trust, as PEM")]
Fingerprint = Annotated[
    str | None, typer.Option(help="SHA-256 fingerprint of the CA, instead of --ca-file")
]
Force = Annotated[bool, typer.Option("--force", help="overwrite files")]
Poll = Annotated[
    bool,
    typer.Option(
        "--poll",
        help="keep polling while the reply is PENDING; if an earlier run left a pending request,"
        " continue that one",
    ),
]
PollFor = Annotated[int, typer.Option(help="maximum seconds to poll")]
Renew = Annotated[
    bool,
    typer.Option("--renew", help="renew the certificate in the directory", rich_help_panel=_RENEW),
]
ReuseKey = Annotated[bool, typer.Option("--reuse-key", help="keep the key", rich_help_panel=_RENEW)]
AsPkcsReq = Annotated[
    bool,
    typer.Option("--as-pkcsreq", help="send a PKCSReq, as old clients do", rich_help_panel=_RENEW),
]
GetCert = Annotated[
    str | None, typer.Option(help="fetch a certificate by serial (hex)", rich_help_panel=_ASK)
]
GetCrl = Annotated[bool, typer.Option("--get-crl", help="fetch the CRL", rich_help_panel=_ASK)]
NextCa = Annotated[bool, typer.Option("--next-ca", help="fetch the next CA", rich_help_panel=_ASK)]
Caps = Annotated[
    bool, typer.Option("--caps", help="show the capabilities (GetCACaps)", rich_help_panel=_ASK)
]
Cipher = Annotated[str | None, typer.Option(help=", ".join(CIPHER_NAMES), rich_help_panel=_HOW)]
DigestName = Annotated[str | None, typer.Option(help=", ".join(DIGEST_NAMES), rich_help_panel=_HOW)]
Transport = Annotated[str | None, typer.Option(help=", ".join(TRANSPORTS), rich_help_panel=_HOW)]
As = Annotated[
    str | None,
    typer.Option(
        "--as",
        help=f"enroll as these devices do: {', '.join(FAMILIES)}; other options override it",
        rich_help_panel=_HOW,
    ),
]
Pss = Annotated[bool, typer.Option("--pss", help="sign with RSASSA-PSS", rich_help_panel=_HOW)]
Ber = Annotated[
    bool,
    typer.Option(
        "--ber",
        help="encode messages in BER, with indefinite lengths and segmented strings",
        rich_help_panel=_HOW,
    ),
]
Get = Annotated[bool, typer.Option("--get", help="send messages with GET", rich_help_panel=_HOW)]


@dataclass(frozen=True)
class Device:
    """The device: its names, and the kinds of its key and, if separate, of the signing key."""

    cn: str
    challenge: str | None
    sans: tuple[str, ...]
    key: str
    signer_key: str | None = None


@dataclass(frozen=True)
class Questions:
    """The queries to send instead of enrolling."""

    get_cert: str | None
    get_crl: bool
    next_ca: bool
    caps: bool

    def __bool__(self) -> bool:
        """Return whether there is a query."""
        return bool(self.get_cert or self.get_crl or self.next_ca or self.caps)


@dataclass(frozen=True)
class Renewal:
    """Whether and how to renew the certificate in the directory."""

    wanted: bool
    reuse_key: bool
    as_pkcs_req: bool


@dataclass(frozen=True)
class Waiting:
    """Whether to poll while PENDING, and for how many seconds at most."""

    poll: bool
    seconds: int
