"""`kubernetes`: signers of a cluster, and cert-manager (docs/issuers/kubernetes.md).

An order is an object whose name contains the order's key, so the cluster takes it once. Controllers
approve and sign it. A cluster deletes CertificateSigningRequests about an hour after the decision:
the name is a token that expires. CertificateRequests of cert-manager remain until someone deletes
them.
"""

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass, field
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
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    RevocationRefusedError,
)
from services.issuer.connectors.http import Answer, HttpClient
from services.issuer.connectors.options import (
    CaUrl,
    HttpOptions,
    connector_section,
    http_client,
    read_options,
    read_secret,
)
from services.issuer.connectors.pinned import ExternalConnector, read_pinned
from services.issuer.connectors.wanted import pem, wanted
from shared.config.fields import Duration
from shared.config.load import SettingsError
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now
from shared.scep.errors import ScepError
from shared.x509.csr import read_csr

_PAUSES: Final = (0.05, 0.1, 0.2)  # seconds: many controllers sign within that
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_INVALID: Final = (400, 406, 422)  # 406: cert-manager's admission webhook
# How messages of 403 begin that are about the account or the namespace, whatever is ordered: RBAC,
# quotas, the namespace's end. Further on, a message may quote what the device chose.
_NOT_THE_ORDERS: Final = re.compile(
    r'(?:[a-z0-9./-]+ )?(?:"[^"]*" )?(?:is )?forbidden: (?:User "|exceeded quota: |failed quota: '
    r"|status unknown for quota: |insufficient quota |not yet ready |unable to create new content )"
)
_SHORTEST: Final = 600  # seconds, of expirationSeconds
_KEPT: Final = 3600.0  # seconds, of a decided CertificateSigningRequest
_PROBE: Final = "scepstream-check"
_REVIEWS: Final = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
# What messages may quote of spec.request: Go's byte slices, and base64.
_QUOTED: Final = re.compile(
    r"\[\]byte\{[^}]*\}?|(?:0x[0-9a-f]+[, ]*){8,}|(?:[0-9]+[, ]+){16,}|[A-Za-z0-9+/=]{48,}"
)
# Kubernetes' names of usages; cert-manager has the same.
_USAGES: Final = {
    "digitalSignature": "digital signature",
    "nonRepudiation": "content commitment",
    "keyEncipherment": "key encipherment",
    "dataEncipherment": "data encipherment",
    "keyAgreement": "key agreement",
    "keyCertSign": "cert sign",
    "cRLSign": "crl sign",
    "2.5.29.37.0": "any",
    "1.3.6.1.5.5.7.3.1": "server auth",
    "1.3.6.1.5.5.7.3.2": "client auth",
    "1.3.6.1.5.5.7.3.3": "code signing",
    "1.3.6.1.5.5.7.3.4": "email protection",
    "1.3.6.1.5.5.7.3.5": "ipsec end system",
    "1.3.6.1.5.5.7.3.6": "ipsec tunnel",
    "1.3.6.1.5.5.7.3.7": "ipsec user",
    "1.3.6.1.5.5.7.3.8": "timestamping",
    "1.3.6.1.5.5.7.3.9": "ocsp signing",
    "1.3.6.1.4.1.311.10.3.3": "microsoft sgc",
    "2.16.840.1.113730.4.1": "netscape sgc",
}
_Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_Subdomain = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class KubernetesOptions(HttpOptions):
    """`[issuers.NAME.options]` of `kubernetes`."""

    url: CaUrl
    """URL of the API server, https; http only on loopback."""
    token_path: Path | None = None
    """File with a service account's token, mode 0600, read at every call [client certificate]."""
    resource: Literal["certificatesigningrequest", "certificaterequest"]
    """What is created: Kubernetes' own requests, or those of cert-manager."""
    name_prefix: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$")] = (
        "scepstream"
    )
    """Names of objects begin with it and a hyphen."""
    signer_name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[!-~]+$", max_length=255)] | None = (
        None
    )
    """For `certificatesigningrequest`: the signer, such as "example.org/devices"."""
    namespace: _Label | None = None
    """For `certificaterequest`: where requests are created."""
    issuer_name: _Subdomain | None = None
    """For `certificaterequest`: the issuer in cert-manager."""
    issuer_kind: Annotated[str, Field(pattern=r"^[A-Za-z]{1,63}$")] = "Issuer"
    """Its kind: `Issuer`, `ClusterIssuer`, or that of an external issuer."""
    issuer_group: _Subdomain = "cert-manager.io"
    """Its API group."""
    decision_time: Annotated[Duration, Field(ge=0)] = 3600.0
    """How long a decision may take: lifetimes count from the signature, so less is asked for."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        own = self.resource == "certificatesigningrequest"
        needed = ("signer_name",) if own else ("namespace", "issuer_name")
        if missing := [key for key in needed if getattr(self, key) is None]:
            raise ValueError(f"{self.resource} needs {' and '.join(missing)}")
        if self.token_path is None and self.tls_cert_path is None:
            raise ValueError("set token_path, or a client certificate")
        return self


class _Requests:
    """One kind of request: where it is, what it says, and what its conditions mean."""

    group: str
    resource: str
    kind: str

    def __init__(self, options: KubernetesOptions) -> None:
        self.options = options

    @property
    def namespaced(self) -> str:
        """The part of the path that names a namespace."""
        return ""

    @property
    def path(self) -> str:
        """The path of the collection."""
        return f"apis/{self.group}/v1/{self.namespaced}{self.resource}"

    def target(self) -> dict[str, Any]:
        """Return the part of the specification that selects the CA."""
        raise NotImplementedError

    def lifetime(self, seconds: int) -> dict[str, Any]:
        """Return the part of the specification that limits the validity."""
        raise NotImplementedError

    def refusal(self, conditions: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        """Return the condition that says that there will be no certificate."""
        raise NotImplementedError

    def is_done(self, conditions: dict[str, dict[str, Any]]) -> bool:
        """Return whether a certificate in the status is final."""
        raise NotImplementedError


class _SigningRequests(_Requests):
    """CertificateSigningRequests, which belong to the cluster."""

    group = "certificates.k8s.io"
    resource = "certificatesigningrequests"
    kind = "CertificateSigningRequest"

    def target(self) -> dict[str, Any]:
        return {"signerName": self.options.signer_name}

    def lifetime(self, seconds: int) -> dict[str, Any]:
        return {"expirationSeconds": seconds}

    def refusal(self, conditions: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        return conditions.get("Denied") or conditions.get("Failed")

    def is_done(self, conditions: dict[str, dict[str, Any]]) -> bool:
        return "Approved" in conditions


class _CertManagerRequests(_Requests):
    """CertificateRequests of cert-manager, which belong to a namespace."""

    group = "cert-manager.io"
    resource = "certificaterequests"
    kind = "CertificateRequest"

    @property
    def namespaced(self) -> str:
        return f"namespaces/{self.options.namespace}/"

    def target(self) -> dict[str, Any]:
        options = self.options
        reference = {"name": options.issuer_name, "kind": options.issuer_kind}
        return {"issuerRef": {**reference, "group": options.issuer_group}}

    def lifetime(self, seconds: int) -> dict[str, Any]:
        return {"duration": f"{seconds}s"}

    def refusal(self, conditions: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        ready = conditions.get("not Ready", {})
        failed = ready if ready.get("reason") in {"Failed", "Denied"} else None
        return conditions.get("InvalidRequest") or conditions.get("Denied") or failed

    def is_done(self, conditions: dict[str, dict[str, Any]]) -> bool:
        return "Ready" in conditions


_KINDS: Final = {
    "certificatesigningrequest": _SigningRequests,
    "certificaterequest": _CertManagerRequests,
}


@dataclass(frozen=True)
class KubernetesConnector(ExternalConnector):
    """See `Connector`."""

    http: HttpClient
    requests: _Requests = field(repr=False)
    options: KubernetesOptions
    configuration: Configuration = field(repr=False)

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`: a name is known for as long as its object is kept."""
        own = self.options.resource == "certificatesigningrequest"
        return Recovery.SHORT_TOKEN if own else Recovery.NAMED

    @property
    def token_lifetime(self) -> float:
        """See `Connector.token_lifetime`: the cluster deletes decided requests after an hour."""
        return _KEPT

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: Kubernetes knows usages by its own names only."""
        try:
            unknown = [usage for usage in self._usages(order) if usage not in _USAGES.values()]
        except (ValueError, ScepError) as error:
            return Refused(str(error))
        if unknown:
            return Refused(f"Kubernetes has no name for the extended key usage {unknown[0]}")
        return Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`: create the object, and look at it a few times."""
        del prepared
        seconds = int(order.template.not_after - now() - self.options.decision_time)
        if seconds < _SHORTEST:
            return Refused(f"less than {_SHORTEST} s of validity remain after decision_time")
        answer = await self._call(
            "POST", self.requests.path, json=self._object(order, seconds), answers=(_FORBIDDEN,)
        )
        if answer.status == _FORBIDDEN and not _is_about_the_order(answer):
            raise CaUnavailableError(f"the cluster does not permit this (403): {_said(answer)}")
        if answer.status in (*_INVALID, _FORBIDDEN):
            return await self._existing(order) or Refused(_said(answer))
        if answer.status == _NOT_FOUND:
            raise CaUnavailableError(f"the API server has no {self.requests.path}")
        exists = answer.status == _CONFLICT and _status(answer).get("reason") == "AlreadyExists"
        if not (answer.ok or exists):
            raise AnswerLostError(f"the API server answered {answer.status}: {_said(answer)}")
        return await self._watched(order, self._result(order, answer.json()) if answer.ok else None)

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """See `Connector.find`: read the object of the order's name."""
        del handle
        answer = await self._call("GET", f"{self.requests.path}/{self._name(order)}")
        if answer.status == _NOT_FOUND:
            self._require_api(answer, self._name(order))
            return None
        if not answer.ok:
            raise AnswerLostError(f"the API server answered {answer.status}: {_said(answer)}")
        return self._result(order, answer.json())

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`: neither API can revoke."""
        del serial, ca, reason, certificate
        raise RevocationRefusedError(
            "Kubernetes cannot revoke certificates; the CA behind the signer may be able to"
        )

    async def check(self) -> str:
        """See `Connector.check`: ask for the needed permissions, and whether the API is there."""
        try:
            for verb in ("create", "get"):
                await self._check_permission(verb)
            answer = await self._call("GET", f"{self.requests.path}/{_PROBE}")
            if answer.status == _NOT_FOUND:
                self._require_api(answer, _PROBE)
        except AnswerLostError as error:
            raise CaUnavailableError(str(error)) from error
        return f"may create and get {self.requests.resource}; Kubernetes does not show who signs"

    async def close(self) -> None:
        """See `Connector.close`."""
        await self.http.close()

    def _name(self, order: Order) -> str:
        return f"{self.options.name_prefix}-{order.key}"

    def _object(self, order: Order, seconds: int) -> dict[str, Any]:
        """Return the object to create; the token's account must not set more."""
        csr = pem(order.csr, "CERTIFICATE REQUEST").encode()
        return {
            "apiVersion": f"{self.requests.group}/v1",
            "kind": self.requests.kind,
            "metadata": {
                "name": self._name(order),
                "labels": {"app.kubernetes.io/managed-by": "scepstream"},
            },
            "spec": {
                "request": base64.b64encode(csr).decode("ascii"),
                "usages": self._usages(order),
                **self.requests.target(),
                **self.requests.lifetime(seconds),
            },
        }

    def _usages(self, order: Order) -> list[str]:
        """Return the template's usages by Kubernetes' names, or as OIDs where it has none."""
        asked = wanted(order.template, self.current.chain[0])
        return [_USAGES.get(u, u) for u in (*asked.key_usages, *asked.extended_key_usages)]

    async def _existing(self, order: Order) -> Result | None:
        """Return what became of an order that was placed before the cluster began to refuse it."""
        try:
            return await self.find(order)
        except CaUnavailableError as error:
            raise AnswerLostError(str(error)) from error

    async def _watched(self, order: Order, result: Result | None) -> Result:
        """Look at an object that exists a few times; what goes wrong now leaves it pending."""
        for pause in _PAUSES:
            if result is not None and not isinstance(result, Pending):
                return result
            await asyncio.sleep(pause)
            try:
                result = await self.find(order)
            except (AnswerLostError, CaUnavailableError):
                break
        return result or Pending(self._name(order))

    def _result(self, order: Order, found: Any) -> Result:
        """Return what an object says; refuse one of our name that is not ours."""
        spec = _part(found, "spec")
        if _requested_key(spec) != order.template.spki or not self._is_target(spec):
            return Refused("the cluster has another request of the order's name")
        status = found.get("status")
        status = status if isinstance(status, dict) else {}
        conditions = _conditions(status)
        if refusal := self.requests.refusal(conditions):
            said = refusal.get("message") or refusal.get("reason") or "no reason given"
            return Refused(f"{refusal['type']}: {_words(said)}")
        if status.get("certificate") and self.requests.is_done(conditions):
            return Issued(_certificate(status["certificate"]))
        return Pending(self._name(order))

    def _is_target(self, spec: dict[str, Any]) -> bool:
        """Return whether a specification selects this CA; servers add defaults to it."""
        (key, value), *_ = self.requests.target().items()
        found = spec.get(key)
        if isinstance(found, dict):
            found = {name: found.get(name) for name in value}
        return bool(found == value)

    async def _check_permission(self, verb: str) -> None:
        attributes = {"group": self.requests.group, "resource": self.requests.resource}
        if self.requests.namespaced:
            attributes["namespace"] = str(self.options.namespace)
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "verb": verb}},
        }
        answer = await self._call("POST", _REVIEWS, json=review)
        if _part(answer.json(), "status").get("allowed") is not True:
            raise CaUnavailableError(
                f"the account may not {verb} {self.requests.resource}: see RBAC"
            )

    def _require_api(self, answer: Answer, name: str) -> None:
        """Raise `CaUnavailableError` unless only the object of a name is missing."""
        details = _status(answer).get("details")
        if not isinstance(details, dict) or details.get("name") != name:
            raise CaUnavailableError(f"the API server has no {self.requests.path}")

    async def _call(
        self, method: str, path: str, json: Any = None, answers: tuple[int, ...] = ()
    ) -> Answer:
        return await self.http.call(
            method, path, json=json, headers=self._credentials(), answers=answers
        )

    def _credentials(self) -> dict[str, str]:
        """Return the token as it is now: the cluster renews the file."""
        if self.options.token_path is None:
            return {}
        try:
            token = read_secret(self.configuration, self.options.token_path)
        except SettingsError as error:
            raise CaUnavailableError(str(error)) from None
        return {"authorization": f"Bearer {token}"}


def _status(answer: Answer) -> dict[str, Any]:
    """Return the Status object of a failed call, {} if the answer is none."""
    if answer.content[:1] != b"{":
        return {}
    found = answer.json()
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def _is_about_the_order(forbidden: Answer) -> bool:
    """Return whether an answer 403 is admission's, about this object, and not RBAC's."""
    status = _status(forbidden)
    return bool(status) and not _NOT_THE_ORDERS.match(str(status.get("message") or ""))


def _said(answer: Answer) -> str:
    return _words(_status(answer).get("message") or f"status {answer.status}")


def _words(said: object) -> str:
    """Return a message in one line, without what it may quote of the CSR."""
    return Answer(0, {}, _QUOTED.sub("...", str(said)).encode()).words()


def _part(found: Any, name: str) -> dict[str, Any]:
    part = found.get(name) if isinstance(found, dict) else None
    if not isinstance(part, dict):
        raise AnswerLostError(f"the API server's object has no {name}")
    return part


def _conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the conditions by type; those that are not true as "not TYPE"."""
    found = status.get("conditions")
    every = [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []
    return {
        f"{'' if each.get('status') == 'True' else 'not '}{each.get('type')}": each
        for each in every
    }


def _requested_key(spec: dict[str, Any]) -> bytes:
    """Return the SubjectPublicKeyInfo of a request's CSR."""
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"], validate=True))
        return read_csr(csr.public_bytes(Encoding.DER)).spki
    except (KeyError, TypeError, ValueError, binascii.Error, ScepError):
        raise AnswerLostError("the API server's object contains no CSR") from None


def _certificate(text: object) -> bytes:
    """Return the first certificate of a status as DER: the device's."""
    try:
        found = x509.load_pem_x509_certificates(base64.b64decode(str(text), validate=True))
        return found[0].public_bytes(Encoding.DER)
    except (ValueError, IndexError, binascii.Error):
        raise AnswerLostError("the status contains no certificate") from None


def _build(
    configuration: Configuration, name: str, section: AnyIssuerSection
) -> KubernetesConnector:
    external = connector_section(name, section)
    options = read_options(KubernetesOptions, name, external)
    if options.token_path is not None:
        read_secret(configuration, options.token_path)
    return KubernetesConnector(
        read_pinned(configuration, section),
        external.lease,
        external.pending_limit,
        http_client(configuration, name, options, external.lease),
        _KINDS[options.resource](options),
        options,
        configuration,
    )


KIND: Final = ConnectorKind("kubernetes", _build)
