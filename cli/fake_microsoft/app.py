"""The fake as an ASGI application: its routes, the journal and the faults."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cli.fake_microsoft import control, entra, faults, graph, intune
from cli.fake_microsoft.exchange import Answer, Call, DeniedError, any_bearer
from cli.fake_microsoft.model import Entry, Fault
from cli.fake_microsoft.world import World

MAX_BODY: Final = 1024 * 1024
Handler = Callable[[World, Call], Answer]
_SCEP: Final = f"/{graph.SCEP_PATH}/{{unit}}/ScepActions"
_REVOCATION: Final = f"/{graph.REVOCATION_PATH}/{{unit}}/CertificateAuthorityRequests"
_LIST: Final = "/v1.0/servicePrincipals/appId=0000000a-0000-0000-c000-000000000000/endpoints"
# Route, method, path, handler. The names are those of faults, answers, the journal and the counts.
ROUTES: Final[tuple[tuple[str, str, str, Handler], ...]] = (
    ("openid", "GET", "/{tenant}/v2.0/.well-known/openid-configuration", entra.openid),
    ("token", "POST", "/{tenant}/oauth2/v2.0/token", entra.token),
    ("endpoints", "GET", _LIST, graph.endpoints),
    ("managed-device", "GET", "/v1.0/deviceManagement/managedDevices/{id}", graph.managed_device),
    ("managed-devices", "GET", "/v1.0/deviceManagement/managedDevices", graph.managed_devices),
    ("device", "GET", "/v1.0/devices(deviceId='{id}')", graph.device),
    ("user", "GET", "/v1.0/users/{id}", graph.user),
    ("validate", "POST", f"{_SCEP}/validateRequest", intune.validate),
    ("success", "POST", f"{_SCEP}/successNotification", intune.success),
    ("failure", "POST", f"{_SCEP}/failureNotification", intune.failure),
    ("download", "POST", f"{_REVOCATION}/downloadRevocationRequests", intune.download_requests),
    ("upload", "POST", f"{_REVOCATION}/uploadRevocationResults", intune.upload_results),
)
NAMES: Final = tuple(name for name, *_ in ROUTES)


def build(world: World, base: str) -> Starlette:
    """Return the application; `base` is its own URL, with a slash at the end."""
    routes: list[BaseRoute] = [
        Route(path, _endpoint(world, base, name, handler), methods=[method])
        for name, method, path, handler in ROUTES
    ]
    return Starlette(routes=control.routes(world, NAMES) + routes)


def _endpoint(
    world: World, base: str, name: str, handler: Handler
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body = await bounded(request)
        if body is None:
            return Response(status_code=413)
        call = Call(
            request.method, request.path_params, request.query_params, request.headers, body, base
        )
        with world.lock:
            answer, fault = _answered(world, call, name, handler)
        if answer is None:
            return faults.cut(request)
        if fault is None or fault.kind in faults.INSTEAD:
            return faults.response(answer)
        return await faults.spoiled(answer, fault, request)

    return endpoint


async def bounded(request: Request) -> bytes | None:
    """Return the body of a request, or None if it is larger than MAX_BODY."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


def _answered(
    world: World, call: Call, name: str, handler: Handler
) -> tuple[Answer | None, Fault | None]:
    """Carry out a request unless a fault prevents it, and record it in the journal."""
    tenant = _tenant(world, call)
    fault = world.fault_for(name, tenant)
    answer: Answer | None
    if fault is not None and fault.kind in faults.INSTEAD:
        answer = faults.instead(fault)
    else:
        try:
            answer = handler(world, call)
        except DeniedError as error:
            answer = error.answer
    notes: Mapping[str, str] = answer.notes if answer is not None else {}
    world.record(
        Entry(
            number=0, time=world.now(), tenant=tenant, method=call.method, route=name,
            correlation_id=call.correlation_id, status=answer.status if answer is not None else 0,
            fault=fault.kind if fault is not None else "",
            **notes,
        )
    )  # fmt: skip
    return answer, fault


def _tenant(world: World, call: Call) -> str:
    """Return the name of the tenant that a request is about; empty if there is none."""
    if "tenant" in call.path:
        app = world.app_of(call.path["tenant"])
    elif "unit" in call.path:
        app = intune.app_of_unit(world, call.path["unit"])
    else:
        return any_bearer(world, call)
    return app.name if app is not None else ""
