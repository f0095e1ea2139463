"""`adcs`: Microsoft AD CS through its web enrollment pages over HTTPS (docs/issuers/adcs.md).

The CA gives every request an ID, which is the order's handle and the only way to find it. An order
whose page did not arrive cannot be found: the recovery is `blind`. Each submission makes a new
request, and the template of the CA, not the order, sets the lifetime and the usages.
"""

import base64
import re
import ssl
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlencode, urlsplit

from pydantic import Field, model_validator

from services.issuer.connectors.adcs_auth import Negotiation, kerberos_login, ntlm_login
from services.issuer.connectors.adcs_pages import Disposition, Page, newest_ca, read_page
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    ConnectorKind,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
)
from services.issuer.connectors.http import Answer, HttpClient
from services.issuer.connectors.options import (
    HttpOptions,
    connector_section,
    http_client,
    read_options,
    read_secret,
)
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.wanted import pem
from shared.config.load import SettingsError
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

_AGENT: Final = "Mozilla/5.0 (scepstream)"  # certsrv gives certificates to browsers only
_HANDLE: Final = re.compile(r"[0-9]{1,10}")
_REFUSALS: Final = frozenset({Disposition.ERROR, Disposition.DENIED, Disposition.REVOKED})
# The web server cannot reach the CA (RPC_S_SERVER_UNAVAILABLE), or may not call it.
_NOT_CALLED: Final = frozenset({"0x800706ba", "0x80070005"})
_MALFORMED: Final = re.compile(r"0x8009[34][0-9a-f]{3}")  # CRYPT_E_ASN1_*, CERTSRV_E_*
_REASONS: Final = {  # of certutil -revoke
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.CERTIFICATE_HOLD: 6,
    RevocationReason.REMOVE_FROM_CRL: -1,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
}
_Template = Annotated[str, Field(pattern=r"^[!-9;-~]([ -9;-~]*[!-9;-~])?$", max_length=64)]
_User = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f:]+$", max_length=255)]


class AdcsOptions(HttpOptions):
    """`[issuers.NAME.options]` of `adcs`."""

    template: _Template
    """Certificate template, by its name (not its display name) or OID."""
    auth: Literal["ntlm", "kerberos", "basic"] = "ntlm"
    """How the issuer logs in; NTLM and Kerberos are bound to the TLS connection (EPA)."""
    username: _User | None = None
    r"""Account, DOMAIN\\name or name@realm; for `kerberos` optional [the ticket cache]."""
    password_path: Path | None = None
    """File with its password, mode 0600, read at every login."""
    send_end_date: bool = False
    """Ask for the approved end of validity; the CA heeds it only with EDITF_ATTRIBUTEENDDATE."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.username is None) != (self.password_path is None):
            raise ValueError("username and password_path belong together")
        if self.username is None and self.auth != "kerberos":
            raise ValueError(f"auth {self.auth} needs username and password_path")
        return self


class ForeignRequestError(AnswerLostError):
    """Raised if a request ID turns out to be that of a request for another key."""


@dataclass(frozen=True)
class AdcsConnector(ExternalConnector):
    """See `Connector`. `http` has no credentials: every call brings its own."""

    http: HttpClient
    options: AdcsOptions
    configuration: Configuration = field(repr=False)

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.BLIND

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: submit the CSR, then ask what became of the request."""
        del prepared
        form = {
            "Mode": "newreq",
            "CertRequest": pem(order.csr, "CERTIFICATE REQUEST"),
            "CertAttrib": self._attributes(order),
            "FriendlyType": "Saved-Request Certificate",
            "TargetStoreFlags": "0",
            "SaveCert": "yes",
        }
        page = read_page((await self._call("POST", "certfnsh.asp", form=form)).content)
        handle = page.request_id
        if not handle:
            return _unnumbered(page)
        try:
            return await self.find(order, handle)
        except ForeignRequestError:
            raise
        except (AnswerLostError, CaUnavailableError):
            return Pending(handle)  # the CA has the request, and it can be asked for

    async def find(self, order: Order, handle: str = "") -> Result:
        """See `Connector.find`: the handle is the request's ID."""
        if not _HANDLE.fullmatch(handle):
            raise AnswerLostError("the order has no request ID")
        answer = await self._call("GET", "certnew.cer", query={"ReqID": handle, "Enc": "b64"})
        if (der := _certificate(answer)) is not None:
            return _issued(order, handle, der)
        page = read_page(answer.content)
        if page.disposition is Disposition.UNDER_SUBMISSION:
            return Pending(handle)
        if page.disposition in _REFUSALS:
            return Refused(page.words or "the CA denied the request and gave no reason")
        if page.result in _NOT_CALLED:
            raise CaUnavailableError(f"the web server cannot call the CA: {page.words}")
        raise AnswerLostError(f"the page about request {handle} says nothing of its disposition")

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: web enrollment has no such thing."""
        del ca, certificate
        raise RevocationRefusedError(
            "web enrollment cannot revoke: on the CA run "
            f"certutil -revoke {_plain(serial)} {_REASONS[reason]} and then certutil -CRL"
        )

    async def check(self) -> str:
        """See `Connector.check`: log in, and compare the CA's newest certificate."""
        try:
            number = newest_ca((await self._call("GET", "certcarc.asp")).content)
            if not number:
                raise CaUnavailableError(
                    "certcarc.asp is not the page of web enrollment: check the URL"
                )
            query = {"ReqID": "CACert", "Renewal": number, "Enc": "b64"}
            found = _certificate(await self._call("GET", "certnew.cer", query=query))
        except AnswerLostError as error:  # nothing was ordered
            raise CaUnavailableError(str(error)) from error
        if found is None:
            raise CaUnavailableError("the server did not send the CA's certificate")
        if _spki(found) != _spki(self.current.chain[0]):
            raise CaUnavailableError(
                "the CA's newest certificate has another key than that of ca_cert_path"
            )
        return f"logged in with {self.options.auth}; the CA is the pinned one"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    def _attributes(self, order: Order) -> str:
        lines = [f"CertificateTemplate:{self.options.template}"]
        if self.options.send_end_date:
            ends = datetime.fromtimestamp(order.template.not_after, UTC)
            lines.append(f"ExpirationDate:{format_datetime(ends, usegmt=True)}")
        return "".join(f"{line}\r\n" for line in lines)

    async def _call(
        self,
        method: str,
        page: str,
        *,
        query: dict[str, str] | None = None,
        form: dict[str, str] | None = None,
    ) -> Answer:
        """Fetch a page of certsrv; raises what a call raises, and for statuses other than 2xx."""
        headers = {"user-agent": _AGENT}
        content = None
        if form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            content = urlencode(form).encode("ascii")
        if self.options.auth == "basic":
            headers["authorization"] = self._basic()
            answer = await self.http.call(
                method, f"certsrv/{page}", content=content, params=query, headers=headers
            )
        else:
            answer = await self._negotiated(method, page, content, query, headers)
        if not answer.ok:
            raise CaUnavailableError(
                f"the server does not serve certsrv/{page} ({answer.status}): check the URL, "
                "and that web enrollment is installed"
            )
        return answer

    async def _negotiated(
        self,
        method: str,
        page: str,
        content: bytes | None,
        query: dict[str, str] | None,
        headers: dict[str, str],
    ) -> Answer:
        """Make a call on a connection of its own, which is what NTLM authenticates."""
        login = self._negotiation()
        http = replace(self.http, auth=login)
        try:
            answer = await http.call(
                method, f"certsrv/{page}", content=content, params=query, headers=headers
            )
        except AnswerLostError as error:
            if login.sent:
                raise
            raise CaUnavailableError(f"the login failed: {error}") from error
        finally:
            await http.close()
        if answer.ok and not login.sent:
            raise CaUnavailableError(
                "the server does not ask for credentials: disable anonymous access to certsrv"
            )
        return answer

    def _negotiation(self) -> Negotiation:
        host = urlsplit(self.options.url).hostname or ""
        user, password = self.options.username, self._password()
        if self.options.auth == "kerberos":
            return Negotiation(
                ("Negotiate",), kerberos_login(user, password, host), self.http.timeout
            )
        login = ntlm_login(user or "", password or "", host)
        return Negotiation(("NTLM", "Negotiate"), login, self.http.timeout)

    def _basic(self) -> str:
        pair = f"{self.options.username}:{self._password()}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"

    def _password(self) -> str | None:
        if self.options.password_path is None:
            return None
        try:
            return read_secret(self.configuration, self.options.password_path)
        except SettingsError as error:  # nothing was sent
            raise CaUnavailableError(str(error)) from error


def _plain(serial: str) -> str:
    """Return a serial number as certutil takes it: whole bytes, without the sign's."""
    return serial.removeprefix("00") or serial


def _unnumbered(page: Page) -> Refused:
    """Return the refusal of a page without a request ID; raises if it is none."""
    if page.result in _NOT_CALLED:
        raise CaUnavailableError(f"the web server cannot call the CA: {page.words}")
    if page.disposition in _REFUSALS or _MALFORMED.fullmatch(page.result):
        return Refused(page.words or "the CA denied the request and gave no reason")
    raise AnswerLostError("the page after the submission has no request ID")


def _certificate(answer: Answer) -> bytes | None:
    """Return the certificate (DER) of an answer, None if it is a page."""
    content = answer.content.strip()
    if not content.startswith(b"-----BEGIN CERTIFICATE-----"):
        return None
    try:
        return ssl.PEM_cert_to_DER_cert(content.decode("ascii"))
    except ValueError:
        raise AnswerLostError("the certificate that the server sent is not whole") from None


def _issued(order: Order, handle: str, der: bytes) -> Issued:
    """Return a certificate that is not for another key; whether it fits is checked later."""
    if _spki(der) not in (b"", order.template.spki):
        raise ForeignRequestError(f"request {handle} of the CA is for another key")
    return Issued(der)


def _spki(der: bytes) -> bytes:
    """Return the key of a certificate, b"" if that cannot be read."""
    try:
        return read_certificate(der).spki
    except (ScepError, ValueError):
        return b""


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> AdcsConnector:
    external = connector_section(name, section)
    options = read_options(AdcsOptions, name, external)
    if options.password_path is not None:
        read_secret(configuration, options.password_path)
    _check_packages(options)
    return AdcsConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http_client(configuration, name, options, external.lease),
        options,
        configuration,
    )


def _check_packages(options: AdcsOptions) -> None:
    needed = {
        "basic": (),
        "ntlm": ("spnego",),
        "kerberos": ("spnego", "gssapi", "krb5"),
    }[options.auth]
    if not all(find_spec(each) for each in needed):
        extra = "adcs-kerberos" if options.auth == "kerberos" else "adcs"
        raise SettingsError(f'auth {options.auth} needs: pip install "scepstream[{extra}]"')


KIND: Final = ConnectorKind("adcs", _build)
