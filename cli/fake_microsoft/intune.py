"""Intune's services: ScepActions, and revocation requests for CAs."""

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from cli.fake_microsoft.challenge import ChallengeError
from cli.fake_microsoft.csr import read_csr
from cli.fake_microsoft.exchange import Answer, Call, bearer, intune_error
from cli.fake_microsoft.judge import (
    BadRequestError,
    Known,
    download,
    is_settled,
    judge,
    judge_notification,
    read_action,
    read_base64,
    read_download,
    read_upload,
)
from cli.fake_microsoft.model import (
    REVOCATION_VERSION,
    SCEP_ROLE,
    SCEP_VERSION,
    App,
    Notification,
    Validated,
)
from cli.fake_microsoft.world import World, digest

_CONTEXT: Final = "microsoft.management.services.scepRequestValidationService.api.scepActionResult"
_NAME_MAX: Final = 256
_T = TypeVar("_T")


def app_of_unit(world: World, unit: str) -> App | None:
    """Return the tenant that a scale unit serves or served, or None."""
    for app in world.apps.values():
        if unit == app.unit.id or unit in app.unit.old:
            return app
    return None


def validate(world: World, call: Call) -> Answer:
    """Answer validateRequest."""
    app, members = _action(world, call, "validate")
    transaction, der = members["transactionId"], _csr(members)
    scripted = world.answer_for("validate", transaction)
    code = scripted[0] if scripted else _judge(world, app, der)
    if code == "Success":
        key = (app.name, transaction)
        world.validated[key] = Validated(app.name, transaction, digest(der))
    return _result(call, code, {"transaction_id": transaction, "csr_sha256": digest(der)})


def _judge(world: World, app: App, der: bytes) -> str:
    try:
        csr = read_csr(der)
    except ValueError:
        return "CertificateRequestDecodingFailed"
    if not (csr.challenge or "").strip():
        return "ChallengePasswordMissing"
    assert csr.challenge is not None
    try:
        challenge = world.sealer.open(csr.challenge)
    except ChallengeError as error:
        return str(error)
    known = Known(
        now=world.now(),
        token_tenant=app.id,
        issued=world.challenges.get(challenge.id),
        targeted=challenge.id not in world.untargeted,
        used=world.switches.one_time and challenge.id in world.used,
    )
    code = judge(challenge, csr, known)
    if code == "Success":
        world.used.add(challenge.id)
    return code


def success(world: World, call: Call) -> Answer:
    """Answer successNotification."""
    return _notified(world, call, "success")


def failure(world: World, call: Call) -> Answer:
    """Answer failureNotification."""
    return _notified(world, call, "failure")


def _notified(world: World, call: Call, kind: str) -> Answer:
    app, members = _action(world, call, kind)
    transaction, sha256 = members["transactionId"], digest(_csr(members))
    earlier = [
        each
        for each in world.notifications
        if each.tenant == app.name and each.transaction == transaction and each.code == "Success"
    ]
    validated = world.validated.get((app.name, transaction))
    note = judge_notification(validated, sha256, earlier, kind)
    code = {"": "Success", "repeated success": world.switches.repeated_success}.get(note)
    if code is None:
        code = "Success" if note == "repeated failure" else "Unknown"
    if scripted := world.answer_for(kind, transaction):
        code = scripted[0]
    told = Notification(
        tenant=app.name, kind=kind, transaction=transaction, csr_sha256=sha256, code=str(code),
        thumbprint=members.get("certificateThumbprint", ""),
        serial=members.get("certificateSerialNumber", ""),
        expiration=members.get("certificateExpirationDateUtc", ""),
        issuer=members.get("issuingCertificateAuthority", ""),
        ca_configuration=members.get("caConfiguration") or "",
        authority=members.get("certificateAuthority") or "",
        hresult=members.get("hResult", 0), description=members.get("errorDescription", ""),
    )  # fmt: skip
    world.notifications.append(told)
    notes = {
        "transaction_id": transaction, "csr_sha256": sha256, "note": note,
        "thumbprint": told.thumbprint, "serial": told.serial,
    }  # fmt: skip
    return _result(call, code, notes)


def _result(call: Call, code: Any, notes: dict[str, Any]) -> Answer:
    """Return an answer of ScepActions; a code of None is left out of it."""
    body: dict[str, Any] = {
        "@odata.context": f"{call.base}RACerts/$metadata#{_CONTEXT}",
        "errorDescription": "" if code == "Success" else f"{code}: see the journal of the fake",
    }
    if code is not None:
        body["code"] = code
    return Answer(200, body, notes | {"code": str(code)})


def download_requests(world: World, call: Call) -> Answer:
    """Answer downloadRevocationRequests."""
    app = _admitted(world, call, REVOCATION_VERSION)
    most, issuer = _read(lambda: read_download(_json(call)))
    found = download(world.queues.get(app.name, []), most, issuer)
    names = ("requestContext", "serialNumber", "issuerName", "caConfiguration")
    if world.switches.pascal_case:
        names = ("RequestContext", "SerialNumber", "IssuerName", "CaConfiguration")
    value = [
        dict(zip(names, (r.context, r.serial, r.issuer, r.ca_configuration), strict=True))
        for r in found
    ]
    kind = "microsoft.management.services.api.caRevocationRequest"
    context = f"{call.base}RACerts/StatelessPkiConnectorService/$metadata#Collection({kind})"
    notes = {"code": "Success", "note": f"{len(value)} requests"}
    return Answer(200, {"@odata.context": context, "value": value}, notes)


def upload_results(world: World, call: Call) -> Answer:
    """Answer uploadRevocationResults; a settled request is not delivered again."""
    app = _admitted(world, call, REVOCATION_VERSION)
    results = _read(lambda: read_upload(_json(call)))
    known = world.contexts.get(app.name, set())
    answer: Any = world.switches.upload_answer
    if unknown := [each for each in results if each.context not in known]:
        answer = False
    if answer:
        world.results.setdefault(app.name, []).extend(results)
        settled = {each.context for each in results if is_settled(each)}
        queue = world.queues.get(app.name, [])
        world.queues[app.name] = [each for each in queue if each.context not in settled]
    context = f"{call.base}RACerts/StatelessPkiConnectorService/$metadata#Edm.Boolean"
    note = f"{len(unknown)} unknown contexts" if unknown else f"{len(results)} results"
    notes = {"code": "Success" if answer else "Failure", "note": note}
    return Answer(200, {"@odata.context": context, "value": answer}, notes)


def _action(world: World, call: Call, action: str) -> tuple[App, dict[str, Any]]:
    app = _admitted(world, call, SCEP_VERSION)
    members = _read(lambda: read_action(action, _json(call)))
    if len(members["transactionId"]) > _NAME_MAX:
        raise intune_error(400, "BadRequest", "transactionId is too long")
    return app, members


def _csr(members: dict[str, Any]) -> bytes:
    return _read(lambda: read_base64(members["certificateRequest"]))


def _admitted(world: World, call: Call, version: str) -> App:
    """Check everything but the body; return the tenant."""
    unit = call.path["unit"]
    app = app_of_unit(world, unit)
    if app is None or unit != app.unit.id:
        raise intune_error(app.unit.old_status if app else 404, "NotFound", "no such scale unit")
    token = bearer(world, call)
    if token is None or token.audience != f"{call.base}intune/":
        message = "access token missing, expired or for another resource"
        raise intune_error(401, "Unauthorized", message)
    if token.tenant != app.name:
        raise intune_error(401, "Unauthorized", "access token of another tenant")
    if SCEP_ROLE not in token.roles:
        raise intune_error(403, "Forbidden", f"the token lacks the role {SCEP_ROLE}")
    _check_headers(world, call, version)
    return app


def _check_headers(world: World, call: Call, version: str) -> None:
    if call.headers.get("api-version") != version:
        raise intune_error(400, "BadRequest", f"api-version is not {version}")
    content_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise intune_error(415, "UnsupportedMediaType", "content-type is not application/json")
    if not call.correlation_id:
        raise intune_error(400, "BadRequest", "client-request-id is not a GUID")
    if call.correlation_id in world.request_ids:
        raise intune_error(400, "BadRequest", "client-request-id was used before")
    world.request_ids.add(call.correlation_id)


def _read(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except BadRequestError as error:
        raise intune_error(400, "BadRequest", str(error)) from None


def _json(call: Call) -> Any:
    try:
        return json.loads(call.body)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is not JSON") from None
