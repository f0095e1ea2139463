"""`openbao`: the PKI secrets engine of OpenBao or HashiCorp Vault (docs/issuers/openbao.md).

The same CSR sent twice gives two certificates, so orders are searched: by the key, and by the exact
second of notAfter, which is chosen as a tag (`Order.tagged_not_after`).
"""

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field, model_validator

from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    ConnectorKind,
    Issued,
    Order,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
    refuse_suspension,
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
from services.issuer.connectors.wanted import pem, wanted
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate

_PAGE: Final = 500
_MOST_LISTED: Final = 2_000_000
_READS: Final = 16  # at once, of certificates that a search looks at
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = (404, 405)
_FRESH: Final = 0.66  # share of a token's lifetime after which it is renewed
_Mount = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", max_length=128)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


class OpenBaoOptions(HttpOptions):
    """`[issuers.NAME.options]` of `openbao`."""

    mount: _Mount = "pki"
    """Where the PKI engine is mounted."""
    issuer: _Name = "default"
    """The engine's issuer, by name or ID."""
    role: _Name | None = None
    """Role whose rules apply in addition [sign-verbatim, without a role]."""
    namespace: str | None = Field(default=None, max_length=255)
    """Namespace of the server."""
    auth: Literal["token", "approle", "kubernetes", "jwt", "cert"] = "token"
    """How the issuer logs in."""
    auth_mount: _Mount | None = None
    """Where that method is mounted [its own name]."""
    auth_role: _Name | None = None
    """Role to log in as: for kubernetes, jwt and cert."""
    token_path: Path | None = None
    """For `token`: file with a token, mode 0600. It is renewed while the issuer runs."""
    role_id: str | None = None
    """For `approle`: the role ID."""
    secret_id_path: Path | None = None
    """For `approle`: file with the secret ID, mode 0600."""
    jwt_path: Path | None = None
    """For `kubernetes` and `jwt`: file with the JWT, read at every login."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "token": ("token_path",),
            "approle": ("role_id", "secret_id_path"),
            "kubernetes": ("auth_role", "jwt_path"),
            "jwt": ("auth_role", "jwt_path"),
            "cert": ("tls_cert_path", "tls_key_path"),
        }[self.auth]
        if missing := [key for key in needed if getattr(self, key) is None]:
            raise ValueError(f"auth {self.auth} needs {' and '.join(missing)}")
        return self


@dataclass
class Login:
    """The current token: obtained when needed, renewed before it ends, one login at a time."""

    http: HttpClient
    options: OpenBaoOptions
    configuration: Configuration = field(repr=False)
    _token: str = field(default="", init=False, repr=False)
    _until: float = field(default=0.0, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def headers(self) -> dict[str, str]:
        """Return the headers of an authenticated call; raises what a call raises."""
        async with self._lock:
            if not self._token or time.monotonic() >= self._until:
                try:
                    await self._renew()
                except AnswerLostError as error:  # a login orders nothing
                    raise CaUnavailableError(str(error)) from error
            return {**self._namespace(), "x-vault-token": self._token}

    def forget(self) -> None:
        """Log in again before the next call: the server no longer accepts the token."""
        self._token = ""

    async def _renew(self) -> None:
        if self.options.auth == "token":
            await self._renew_token()
            return
        mount = self.options.auth_mount or self.options.auth
        answer = await self.http.call(
            "POST", f"v1/auth/{mount}/login", json=self._credentials(), headers=self._namespace()
        )
        if not answer.ok:
            raise CaUnavailableError(f"the login at auth/{mount} failed: {_said(answer)}")
        auth = _part(answer, "auth")
        self._use(str(auth.get("client_token", "")), auth.get("lease_duration"))

    async def _renew_token(self) -> None:
        """Use the token of the file, and renew it if it can be."""
        assert self.options.token_path is not None
        token = read_secret(self.configuration, self.options.token_path)
        headers = {**self._namespace(), "x-vault-token": token}
        found = _part(await self.http.call("GET", "v1/auth/token/lookup-self", headers=headers))
        ttl = found.get("ttl")
        if found.get("renewable") is True and ttl:
            answer = await self.http.call("POST", "v1/auth/token/renew-self", headers=headers)
            ttl = _part(answer, "auth").get("lease_duration", ttl) if answer.ok else ttl
        self._use(token, ttl)

    def _use(self, token: str, seconds: object) -> None:
        if not token:
            raise CaUnavailableError("the login gave no token")
        lifetime = float(seconds) if isinstance(seconds, int) and seconds > 0 else 3600.0
        self._token, self._until = token, time.monotonic() + lifetime * _FRESH

    def _credentials(self) -> dict[str, Any]:
        """Return the body of a login; the client certificate of `cert` is in the TLS connection."""
        options = self.options
        match options.auth:
            case "approle":
                secret_id = self._secret(options.secret_id_path)
                return {"role_id": options.role_id, "secret_id": secret_id}
            case "cert":
                return {"name": options.auth_role} if options.auth_role else {}
            case _:
                return {"role": options.auth_role, "jwt": self._secret(options.jwt_path)}

    def _secret(self, path: Path | None) -> str:
        assert path is not None
        return read_secret(self.configuration, path)

    def _namespace(self) -> dict[str, str]:
        return {"x-vault-namespace": self.options.namespace} if self.options.namespace else {}


@dataclass(frozen=True)
class OpenBaoConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    login: Login
    options: OpenBaoOptions

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.SEARCHABLE

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: `sign-verbatim`, or `sign` with a role."""
        del prepared
        asked = wanted(order.template, self.current.chain[0])
        body = {
            "csr": pem(order.csr, "CERTIFICATE REQUEST"),
            "not_after": _written(order.tagged_not_after),
            "format": "der",
            "key_usage": [_usage(name) for name in asked.key_usages],
            "ext_key_usage": [],
            "ext_key_usage_oids": list(asked.extended_key_usages),
        }
        verb = f"sign/{self.options.role}" if self.options.role else "sign-verbatim"
        answer = await self._call("POST", f"issuer/{self.options.issuer}/{verb}", json=body)
        if answer.status == _BAD_REQUEST:
            return Refused(_said(answer))
        if answer.status in _NOT_FOUND:
            what = f"{self.options.mount}/issuer/{self.options.issuer}/{verb}"
            raise CaUnavailableError(f"the server has no {what}: check mount, issuer and role")
        try:
            return Issued(base64.b64decode(_part(answer)["certificate"], validate=True))
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise AnswerLostError("the answer contains no certificate") from None

    async def find(self, order: Order, handle: str = "") -> Issued | None:
        """See `Connector.find`: every certificate for the key that ends in the tagged second."""
        del handle
        serials = [serial async for serial in self._ending(_written(order.tagged_not_after))]
        found: list[bytes] = []
        for begin in range(0, len(serials), _READS):
            batch = (self._certificate(serial) for serial in serials[begin : begin + _READS])
            read = await asyncio.gather(*batch)
            found += [der for der in read if der is not None and _is_for(order, der)]
        if not found:
            return None
        found.sort(key=_begins)
        return Issued(found[0], tuple(found[1:]))

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: the engine records no reason, and cannot suspend."""
        del ca, certificate
        refuse_suspension(reason)
        answer = await self._call("POST", "revoke", json={"serial_number": _pairs(serial)})
        if not answer.ok:
            raise RevocationRefusedError(_said(answer))

    async def check(self) -> str:
        """See `Connector.check`: log in, compare the CA, and ask for the needed capabilities."""
        answer = await self._call("GET", f"issuer/{self.options.issuer}")
        if not answer.ok:
            raise CaUnavailableError(
                f"{self.options.mount} has no issuer {self.options.issuer}: {_said(answer)}"
            )
        try:
            text = str(_part(answer)["certificate"])
            ca = x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
            spki = read_certificate(ca).spki
        except (KeyError, ValueError):
            raise CaUnavailableError("the server's answer contains no CA certificate") from None
        if spki != read_certificate(self.current.chain[0]).spki:
            raise CaUnavailableError("the engine's issuer is not the CA of ca_cert_path")
        await self._check_capabilities()
        return f"logged in with {self.options.auth}; the issuer is the pinned CA"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    async def _check_capabilities(self) -> None:
        mount, issuer = self.options.mount, self.options.issuer
        verb = f"sign/{self.options.role}" if self.options.role else "sign-verbatim"
        # Vault has only the second list.
        needed = (
            ("update", (f"{mount}/issuer/{issuer}/{verb}",)),
            ("update", (f"{mount}/revoke",)),
            ("list", (f"{mount}/certs/detailed", f"{mount}/certs")),
            ("read", (f"{mount}/cert/00",)),
        )
        paths = [path for _, several in needed for path in several]
        headers = await self.login.headers()
        answer = await self.http.call(
            "POST", "v1/sys/capabilities-self", json={"paths": paths}, headers=headers
        )
        held = _part(answer)
        for capability, several in needed:
            if not any(_allows(held.get(path), capability) for path in several):
                raise CaUnavailableError(
                    f"the credentials lack the capability {capability} on {several[0]}"
                )

    async def _ending(self, not_after: str) -> AsyncIterator[str]:
        """Yield the serial numbers of the certificates that end in a second.

        HashiCorp Vault has no detailed list: there, yield all of them.
        """
        after, seen = "", 0
        while True:
            params = {"limit": str(_PAGE)} | ({"after": after} if after else {})
            answer = await self._call("LIST", "certs/detailed", params=params)
            if answer.status in _NOT_FOUND and not after:
                async for serial in self._all():
                    yield serial
                return
            keys, details = _listed(answer)
            for serial in keys:
                if details.get(serial, {}).get("not_after") == not_after:
                    yield serial
            seen += len(keys)
            if len(keys) < _PAGE or keys[-1] == after or seen > _MOST_LISTED:
                return
            after = keys[-1]

    async def _all(self) -> AsyncIterator[str]:
        for serial in _listed(await self._call("LIST", "certs"))[0]:
            yield serial

    async def _certificate(self, serial: str) -> bytes | None:
        answer = await self._call("GET", f"cert/{serial}")
        if not answer.ok:
            return None
        try:
            text = str(_part(answer)["certificate"])
            return x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
        except (KeyError, ValueError):
            return None

    async def _call(self, method: str, path: str, **parts: Any) -> Answer:
        try:
            return await self.http.call(
                method,
                f"v1/{self.options.mount}/{path}",
                headers=await self.login.headers(),
                **parts,
            )
        except CaUnavailableError as error:
            if error.denied:
                self.login.forget()
            raise


def _part(answer: Answer, name: str = "data") -> dict[str, Any]:
    """Return an object of the answer; raises `AnswerLostError` if it is not there."""
    found = answer.json()
    part = found.get(name) if isinstance(found, dict) else None
    if not isinstance(part, dict):
        raise AnswerLostError(f"the answer ({answer.status}) has no {name}")
    return part


def _listed(answer: Answer) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the serial numbers of a list, and what it says of each; an empty list is a 404."""
    if answer.status in _NOT_FOUND:
        return [], {}
    part = _part(answer)
    keys, details = part.get("keys"), part.get("key_info")
    if not isinstance(keys, list):
        raise AnswerLostError("the list has no keys")
    known = details if isinstance(details, dict) else {}
    return list(map(str, keys)), {k: v for k, v in known.items() if isinstance(v, dict)}


def _allows(held: object, capability: str) -> bool:
    return isinstance(held, list) and bool({"root", capability} & set(map(str, held)))


def _said(answer: Answer) -> str:
    """Return the server's errors in one line."""
    found = answer.json() if answer.content[:1] == b"{" else None
    errors = found.get("errors") if isinstance(found, dict) else None
    if isinstance(errors, list) and errors:
        return Answer(answer.status, {}, "; ".join(map(str, errors)).encode()).words()
    return answer.words() or f"status {answer.status}"


def _is_for(order: Order, der: bytes) -> bool:
    loaded = x509.load_der_x509_certificate(der)
    ends = int(loaded.not_valid_after_utc.timestamp())
    return ends == order.tagged_not_after and read_certificate(der).spki == order.template.spki


def _begins(der: bytes) -> tuple[float, int]:
    loaded = x509.load_der_x509_certificate(der)
    return loaded.not_valid_before_utc.timestamp(), loaded.serial_number


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _usage(name: str) -> str:
    """Return a key usage as Go spells it."""
    return {"nonRepudiation": "ContentCommitment", "cRLSign": "CRLSign"}.get(
        name, name[0].upper() + name[1:]
    )


def _pairs(serial: str) -> str:
    """Return a serial number (hex of the INTEGER's contents) as pairs with colons."""
    trimmed = serial[2:] if serial.startswith("00") and len(serial) > 2 else serial  # noqa: PLR2004
    return ":".join(trimmed[i : i + 2] for i in range(0, len(trimmed), 2))


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> OpenBaoConnector:
    external = connector_section(name, section)
    options = read_options(OpenBaoOptions, name, external)
    for path in (options.token_path, options.secret_id_path, options.jwt_path):
        if path is not None:
            read_secret(configuration, path)
    http = http_client(configuration, name, options, external.lease)
    return OpenBaoConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http,
        Login(http, options, configuration),
        options,
    )


KIND: Final = ConnectorKind("openbao", _build)
