"""A fake of AD CS web enrollment, as its pages and its known clients show it.

It has the pages certfnsh.asp, certnew.cer and certcarc.asp, in the structure of the real ones with
sentences of our own, behind HTTP Basic or NTLM. NTLM is checked by the server side of `spnego`,
per connection, with the channel binding of the TLS certificate.
"""

import base64
import datetime as dt
import html
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qs

import spnego
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.issuers.authority import FakeCa
from tests.support import pki

TEMPLATE: Final = "ScepDevice"
DENIED: Final = "denied.example"
_TEMPLATE_OID: Final = "1.3.6.1.4.1.311.21.8.1.2.3"
_FIELDS: Final = {
    "Mode",
    "CertRequest",
    "CertAttrib",
    "FriendlyType",
    "TargetStoreFlags",
    "SaveCert",
}

ISSUED, DENIED_BY, PENDING = 3, 2, 5
_NEGOTIATE, _AUTHENTICATE = 1, 3
WORDS: Final[dict[str, dict[str, str]]] = {
    "en": {
        "error": "Error",
        "issued": "Certificate Issued",
        "pending": "Certificate Pending",
        "denied": "Certificate Request Denied",
        "waits": "An administrator has to issue it. Your Request Id is {id}.",
        "refused": 'It was denied. Your Request Id is {id}. The disposition message is "{said}".',
        "submitted": "Taken Under Submission",
        "policy": "Denied by Policy Module  0x80094800, the template does not permit this name.",
        "unsupported": "The requested certificate template is not supported by this CA.",
        "ok": "The operation completed successfully. 0x0 (WIN32: 0)",
        "down": "The RPC server is unavailable. 0x800706ba (WIN32: 1722 RPC_S_SERVER_UNAVAILABLE)",
        "badasn": "ASN1 bad tag value met. 0x8009310b (ASN: 267 CRYPT_E_ASN1_BADTAG)",
    },
    "de": {
        "error": "Fehler",
        "issued": "Zertifikat ausgestellt",
        "pending": "Zertifikat ausstehend",
        "denied": "Zertifikatanforderung verweigert",
        "waits": "Ein Administrator muss es ausstellen. Ihre Anforderungs-ID lautet {id}.",
        "refused": "Verweigert. Ihre Anforderungs-ID lautet {id}. Die Meldung lautet „{said}“.",
        "submitted": "Zur Verarbeitung übernommen",
        "policy": "Vom Richtlinienmodul verweigert  0x80094800, der Name ist unzulässig.",
        "unsupported": "Die Zertifizierungsstelle unterstützt die Vorlage nicht.",
        "ok": "Der Vorgang wurde erfolgreich beendet. 0x0 (WIN32: 0)",
        "down": "Der RPC-Server ist nicht verfügbar. 0x800706ba (WIN32: 1722)",
        "badasn": "Falscher ASN.1-Tagwert. 0x8009310b (ASN: 267 CRYPT_E_ASN1_BADTAG)",
    },
}


@dataclass
class Received:
    """A request in the CA's database."""

    csr: x509.CertificateSigningRequest
    disposition: int
    said: str
    certificate: bytes = b""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeAdcs:
    """certsrv and the CA behind it; `approval` says that a manager has to approve requests."""

    ca: FakeCa = field(default_factory=FakeCa)
    language: str = "en"
    approval: bool = False
    reachable: bool = True
    heeds_end_date: bool = False
    requests: dict[int, Received] = field(default_factory=dict)
    lifetime: dt.timedelta = dt.timedelta(days=60)

    def app(self) -> Starlette:
        """The pages, without authentication."""
        return Starlette(
            routes=[
                Route("/certsrv/certfnsh.asp", self._submit, methods=["POST"]),
                Route("/certsrv/certnew.cer", self._fetch, methods=["GET"]),
                Route("/certsrv/certcarc.asp", self._authority, methods=["GET"]),
            ]
        )

    async def approve(self, handle: str) -> None:
        """What an administrator does with a pending request."""
        found = self.requests[int(handle)]
        assert found.disposition == PENDING
        self._issue(found)

    def deny(self, handle: str) -> None:
        """The opposite."""
        found = self.requests[int(handle)]
        found.disposition, found.said = DENIED_BY, self.words("policy")

    def words(self, name: str) -> str:
        return WORDS[self.language][name]

    async def _submit(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        form = {k: v[0] for k, v in parse_qs((await request.body()).decode("ascii")).items()}
        if set(form) != _FIELDS or form["Mode"] != "newreq" or form["TargetStoreFlags"] != "0":
            return self._error(-1, "", "badasn")
        if not self.reachable:
            return self._error(-1, "", "down")
        try:
            csr = x509.load_pem_x509_csr(form["CertRequest"].encode())
        except ValueError:
            return self._error(-1, "", "badasn")
        lines = filter(None, form["CertAttrib"].split("\r\n"))
        attributes = dict(line.split(":", 1) for line in lines)
        number = len(self.requests) + 41
        received = self.requests[number] = Received(csr, PENDING, self.words("submitted"))
        received.attributes = attributes
        name = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        if attributes.get("CertificateTemplate") != TEMPLATE:
            received.disposition, received.said = DENIED_BY, self.words("unsupported")
        elif name == DENIED or not csr.is_signature_valid:
            received.disposition, received.said = DENIED_BY, self.words("policy")
        elif not self.approval:
            self._issue(received)
        return self._finished(number, received)

    def _finished(self, number: int, received: Received) -> Response:
        if received.disposition == ISSUED:
            body = (
                f"<P ID=locPageTitle> <B> {self.words('issued')} </B>\n"
                '<Script Language="JavaScript">\nfunction download(sEnc){\n'
                f'\tlocation="certnew.cer?ReqID={number}&"+sEnc;\n}}\n'
                f'function chain(sEnc){{\n\tlocation="certnew.p7b?ReqID={number}&"+sEnc;\n}}\n'
                "</Script>\n"
            )
        elif received.disposition == PENDING:
            body = (
                f"<P ID=locPageTitle> <B> {self.words('pending')} </B>\n"
                f"<P> {self.words('waits').format(id=number)}\n"
            )
        else:
            said = self.words("refused").format(id=number, said=received.said)
            body = f"<P ID=locPageTitle> <B> {self.words('denied')} </B>\n<P> {said}\n"
        return self._page(body)

    async def _fetch(self, request: Request) -> Response:
        query = request.query_params
        if query.get("Enc") != "b64":
            return self._error(-1, "", "badasn")
        if query["ReqID"] == "CACert":
            assert query["Renewal"] == "0"
            return self._certificate(request, pki.der(self.ca.certificate))
        received = self.requests.get(int(query["ReqID"]))
        if received is None:
            return self._error(-1, "", "badasn")
        if received.disposition == ISSUED:
            return self._certificate(request, received.certificate)
        return self._error(received.disposition, received.said, "ok")

    async def _authority(self, request: Request) -> Response:
        del request
        return self._page('<Script Language="VBScript">\nvar nRenewals=0;\n</Script>\n')

    def _certificate(self, request: Request, der: bytes) -> Response:
        text = base64.encodebytes(der).decode("ascii").replace("\n", "\r\n")
        pem = f"-----BEGIN CERTIFICATE-----\r\n{text}-----END CERTIFICATE-----\r\n"
        browser = "Mozilla" in request.headers.get("user-agent", "")
        return Response(pem, media_type="application/pkix-cert" if browser else "text/html")

    def _error(self, disposition: int, said: str, result: str) -> Response:
        return self._page(
            f"<P ID=locPageTitle1><Font Color=#FF0000><B>{self.words('error')}</B></Font>\n"
            "<DL><DD>\n\t<DL>\n"
            "\t<DT ID=locDispLabel><Font Size=-1><B>Disposition:</B></Font></DT><DD>\n"
            f"\t\t{disposition} <LocID ID=locDispSpacer>-</LocID>\n"
            "\t\t\t<LocID ID=locDispUnknown>(unknown)</LocID>\n\t</DD>\n"
            "\t<DT ID=locDispMsgLabel><Font Size=-1><B>Meldung/Message:</B></Font></DT><DD>\n"
            f"\t\t{html.escape(said)}\n\t</DD>\n"
            "\t<DT ID=locResultLabel><Font Size=-1><B>Result:</B></Font></DT><DD>\n"
            f"\t\t{html.escape(self.words(result))}\n\t</DD>\n"
            "\t<DT ID=locLastStatLabel><Font Size=-1><B>LastStatus:</B></Font></DT><DD>\n"
            f"\t\t{html.escape(self.words(result))}\n\t</DD></DL>\n</DD></DL>\n"
        )

    def _page(self, body: str) -> Response:
        return Response(
            "<HTML>\n<Head>\n\t<Title>Microsoft Active Directory Certificate Services</Title>\n"
            "</Head>\n<Body BgColor=#FFFFFF><Font ID=locPageFont Face=Arial>\n"
            "<Table><TR><TD><LocID ID=locMSCertSrv>&nbsp;--&nbsp; Issuing CA ID 2 &nbsp;</LocID>"
            f"</TD></TR></Table>\n{body}<!-- ReqID=999& --></Font>\n</Body>\n</HTML>\n",
            media_type="text/html; charset=utf-8",
        )  # fmt: skip

    def _issue(self, received: Received) -> None:
        """Sign as the template says; with EDITF_ATTRIBUTEENDDATE the request may ask for less."""
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        begins, ends = now - dt.timedelta(minutes=10), now + self.lifetime
        if self.heeds_end_date and (asked := received.attributes.get("ExpirationDate")):
            assert asked.endswith(" GMT")
            ends = min(ends, parsedate_to_datetime(asked))
        received.certificate = _signed(self.ca, received.csr, begins, ends)
        received.disposition, received.said = ISSUED, "Issued"


def _signed(
    ca: FakeCa, csr: x509.CertificateSigningRequest, begins: dt.datetime, ends: dt.datetime
) -> bytes:
    """A certificate with the extensions of AD CS, less the application policies."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (pki.key_usage("digital_signature", "key_encipherment"), True),
        (x509.ExtendedKeyUsage([x509.ObjectIdentifier(pki.CLIENT_AUTH)]), False),
        (x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), False),
        (_issuers_at("http://pki.example/ca.crt"), False),
        (x509.MSCertificateTemplate(x509.ObjectIdentifier(_TEMPLATE_OID), 100, 4), False),
    ]
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(ca.certificate.subject)
        .subject_name(csr.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(names.value, critical=False)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    signed = builder.sign(ca.key, hashes.SHA256())
    der = signed.public_bytes(Encoding.DER)
    ca.made[f"{signed.serial_number:x}"] = der
    return der


def _issuers_at(url: str) -> x509.AuthorityInformationAccess:
    method = x509.AuthorityInformationAccessOID.CA_ISSUERS
    access = x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
    return x509.AuthorityInformationAccess([access])


@dataclass
class Basic:
    """HTTP Basic in front of an application."""

    app: Any
    pair: str

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        expected = b"Basic " + base64.b64encode(self.pair.encode())
        if dict(scope["headers"]).get(b"authorization") == expected:
            await self.app(scope, receive, send)
        else:
            await _unauthorized('Basic realm="ca"')(scope, receive, send)


@dataclass
class Ntlm:
    """NTLM in front of an application, per connection, as IIS has it.

    `bound` is the data of the channel binding, which clients must then prove. The accounts are in
    the file of the environment variable NTLM_USER_FILE. `early` are contents that came before the
    last message of the login.
    """

    app: Any
    bound: bytes = b""
    scheme: str = "NTLM"
    early: list[bytes] = field(default_factory=list)
    logins: int = 0
    _contexts: dict[Any, spnego.ContextProxy] = field(default_factory=dict)
    _done: set[Any] = field(default_factory=set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        peer = scope["client"]
        text = dict(scope["headers"]).get(b"authorization", b"").decode()
        answer = self._answer(peer, text)
        if answer is None:
            await self.app(scope, receive, send)
            return
        content = (await receive()).get("body", b"")
        if content and _message(text) != _AUTHENTICATE:
            self.early.append(content)
        await _unauthorized(*answer)(scope, receive, send)

    def _answer(self, peer: Any, text: str) -> tuple[str, ...] | None:
        """The challenges of a 401, None if the connection is authenticated."""
        scheme, _, token = text.partition(" ")
        if scheme != self.scheme:
            return None if peer in self._done else ("Negotiate-Other", self.scheme)
        raw = base64.b64decode(token)
        if _message(text) == _NEGOTIATE:
            bindings = GssChannelBindings(application_data=self.bound) if self.bound else None
            self._contexts[peer] = spnego.server(
                protocol="ntlm",
                channel_bindings=bindings,
                options=spnego.NegotiateOptions.use_ntlm,
            )
            challenge = self._contexts[peer].step(raw)
            assert challenge is not None
            return (f"{self.scheme} {base64.b64encode(challenge).decode()}",)
        context = self._contexts.pop(peer, None)
        try:
            if context is not None:
                context.step(raw)
        except SpnegoError:
            return ("Negotiate-Other", self.scheme)
        if context is None or not context.complete:
            return ("Negotiate-Other", self.scheme)
        self._done.add(peer)
        self.logins += 1
        return None


def _message(text: str) -> int:
    """The type of the NTLM message in a header, 0 without one."""
    raw = base64.b64decode(text.partition(" ")[2])
    return int.from_bytes(raw[8:12], "little") if raw.startswith(b"NTLMSSP\0") else 0


def _unauthorized(*challenges: str) -> Callable[..., Any]:
    response = Response("<html>401 - Unauthorized</html>", 401, media_type="text/html")
    for each in challenges:
        response.headers.append("www-authenticate", each)
    return response
