"""The control API under /_fake/, for other processes. See the package's documentation."""

import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cli.fake_microsoft import faults
from cli.fake_microsoft.judge import subject_parts
from cli.fake_microsoft.model import ALL_ROLES, Device, Revocation, Unit, User
from cli.fake_microsoft.world import World, guid
from cli.san import san_parts

_MAX_BODY: Final = 1024 * 1024
Action = Callable[[World, dict[str, Any]], Any]


def mint(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """Issue a challenge; see `FakeMicrosoft.mint`. SANs have the form kind:value."""
    parts = {"key_bits": 2048, "key_usage": None, "eku": None} | body
    subject_parts(parts.get("subject", ""))
    parts["sans"] = read_sans(parts.get("sans", ()))
    for name in ("key_usage", "eku", "registered_keys"):
        if parts.get(name) is not None:
            parts[name] = tuple(parts[name])
    issued, text = world.mint(parts.pop("tenant"), **parts)
    return {"challenge": text, "id": issued.id, "device_id": issued.device}


def read_sans(given: Any) -> tuple[tuple[str, str], ...] | None:
    """Return the SANs as (kind, value); None if Intune does not compare them."""
    if given is None:
        return None
    return tuple(san_parts(s) if isinstance(s, str) else (str(s[0]), str(s[1])) for s in given)


def add_fault(world: World, body: dict[str, Any], names: Sequence[str]) -> None:
    """Inject a fault; options are the remaining members."""
    options = dict(body)
    route, kind = options.pop("route"), options.pop("kind")
    check_route(route, names)
    times, tenant = int(options.pop("times", 1)), options.pop("tenant", "*")
    world.faults.append(faults.new_fault(route, kind, times, tenant, options))


def check_route(route: str, names: Sequence[str]) -> None:
    """Raise `ValueError` for a route that does not exist: the fault would never happen."""
    if route not in ("*", *names):
        raise ValueError(f"unknown route {route}: choose one of *, {', '.join(names)}")


def set_device(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """Add a device, or change the members that are given."""
    changes = dict(body)
    tenant, key = world.app(changes.pop("tenant")).name, changes.pop("id", None) or guid()
    known = world.devices.get(key.lower()) or Device(tenant, key.lower(), guid())
    world.devices[key.lower()] = replace(known, **changes)
    return asdict(world.devices[key.lower()])


def set_user(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """Add a user, or replace the one with this ID."""
    members = {"id": guid()} | body
    added = User(**(members | {"tenant": world.app(members["tenant"]).name}))
    world.users[added.id] = added
    return asdict(added)


def revoke(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """Queue a revocation."""
    members = {"context": guid()} | body
    tenant = members.pop("tenant")
    queued = Revocation(**members)
    world.queue(tenant, queued)
    return asdict(queued)


def answer(world: World, body: dict[str, Any]) -> None:
    """Script the codes of a route or transaction; the last one stays."""
    codes = body["codes"] if "codes" in body else [body["code"]]
    world.answers[body["key"]] = list(codes)


def set_tenant(world: World, body: dict[str, Any]) -> None:
    """Change a tenant: roles, token_lifetime, or members of its unit."""
    changes, unit = dict(body), {}
    tenant = changes.pop("tenant")
    for name in ("uris", "paged", "service_name", "trailing_slash", "next_link"):
        if name in changes:
            unit[name] = changes.pop(name)
    if changes.pop("move", False):
        move(world, tenant)
    if unknown := set(changes) - {"roles", "token_lifetime"}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    if "roles" in changes:
        changes["roles"] = check_roles(changes["roles"])
    world.change(tenant, unit=replace(world.app(tenant).unit, **unit), **changes)


def check_roles(roles: Sequence[str]) -> tuple[str, ...]:
    """Return roles to consent to; `ValueError` if one does not exist."""
    if unknown := set(roles) - set(ALL_ROLES):
        raise ValueError(f"unknown role {', '.join(sorted(unknown))}")
    return tuple(roles)


def move(world: World, tenant: str, old_status: int = 404) -> None:
    """Move a tenant's services to another scale unit; the old one answers `old_status`."""
    unit: Unit = world.app(tenant).unit
    moved = replace(unit, id=guid(), old=(*unit.old, unit.id), old_status=old_status)
    world.change(tenant, unit=moved)


def rotate(world: World, tenant: str, *, keep: bool = False) -> str:
    """Make a new secret; the old ones are expired unless `keep`."""
    secret, app = secrets.token_urlsafe(30), world.app(tenant)
    world.change(
        tenant,
        secrets=(*app.secrets, secret) if keep else (secret,),
        expired_secrets=app.expired_secrets if keep else (*app.expired_secrets, *app.secrets),
    )
    return secret


def switch(world: World, switches: dict[str, Any]) -> None:
    """Change members of `Switches`."""
    world.switches = replace(world.switches, **switches)


def advance(world: World, body: dict[str, Any]) -> dict[str, float]:
    """Move the virtual clock."""
    world.offset += float(body["seconds"])
    return {"time": world.now()}


def routes(world: World, names: Sequence[str]) -> list[BaseRoute]:
    """Return the routes of the control API."""
    posts: dict[str, Action] = {
        "challenges": mint,
        "faults": lambda w, body: add_fault(w, body, names),
        "answers": answer,
        "devices": set_device,
        "users": set_user,
        "revocations": revoke,
        "clock": advance,
        "secrets": lambda w, body: {
            "secret": rotate(w, body["tenant"], keep=bool(body.get("keep")))
        },
        "switches": switch,
        "tenants": set_tenant,
    }
    gets: dict[str, Callable[[World], Any]] = {
        "journal": lambda w: [asdict(each) for each in w.entries],
        "counts": lambda w: dict(w.counts),
        "notifications": lambda w: [asdict(each) for each in w.notifications],
        "devices": lambda w: [asdict(each) for each in w.devices.values()],
        "results": lambda w: {t: [asdict(e) for e in rs] for t, rs in w.results.items()},
        "tenants": lambda w: {a.name: {"tenant_id": a.id, "client_id": a.client_id,
                                       "roles": a.roles} for a in w.apps.values()},
    }  # fmt: skip
    found: list[BaseRoute] = [
        Route(f"/_fake/{name}", _post(world, action), methods=["POST"])
        for name, action in posts.items()
    ]
    found += [Route(f"/_fake/{name}", _get(world, read)) for name, read in gets.items()]
    return [*found, Route("/_fake/faults", _clear(world), methods=["DELETE"])]


def _post(world: World, action: Action) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                return JSONResponse({"error": "the body is too large"}, 413)
        try:
            with world.lock:
                return JSONResponse(action(world, dict(json.loads(bytes(body)))))
        except KeyError as error:
            return JSONResponse({"error": f"missing: {error.args[0]}"}, 400)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            return JSONResponse({"error": str(error)}, 400)

    return endpoint


def _get(world: World, read: Callable[[World], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        with world.lock:
            return JSONResponse(read(world))

    return endpoint


def _clear(world: World) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        with world.lock:
            world.faults.clear()
        return JSONResponse(None)

    return endpoint
