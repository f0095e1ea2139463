"""The connections to tenants of Microsoft Intune: what validators report, and what to do. Pure.

A report is signed, but a validator that is taken over may write anything: names that are none are
left out, texts are cut, and numbers that are no times or counts become 0.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from msgspec.structs import asdict, replace

from shared.log.events.state import Heartbeat, TenantReport
from shared.log.reasons import Reason

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NAME_CHARACTERS: Final = 63
_TEXT: Final = 300
_MOST: Final = 200  # connections that are listed
_MOST_RESULTS: Final = 12
_COUNT: Final = 2**53  # larger numbers are not exact in JSON
_LAST_TIME: Final = 253402300799  # the end of the year 9999
_DAY: Final = 86400
_SOON_DAYS: Final = 30
_TIMES: Final = (
    "credential_not_after", "token_at", "discovered_at", "last_ok", "last_error_at",
    "breaker_until", "throttled_until", "pulled_at",
)  # fmt: skip
_SAME: Final = ("tenant", "cloud", "credential_kind", "credential", "credential_not_after")
SUCCESS: Final = "success"
_UNREPORTED: Final = (
    "No validator reports this connection: check that validators run, that they have its table, "
    "and that the event log answers."
)


class TenantState(StrEnum):
    """How a connection does; `UNKNOWN` if nothing tells."""

    OK = "ok"
    WARNING = "warning"
    FAILING = "failing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of the read model: withheld certificates that wait, ends of the last day by result."""

    waiting: int = 0
    results: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Figures") -> "Figures":
        """Return the figures of both together."""
        names = (*self.results, *other.results)
        summed = {n: self.results.get(n, 0) + other.results.get(n, 0) for n in names}
        return Figures(self.waiting + other.waiting, summed)


Reports = Sequence[tuple[str, TenantReport]]


def describe_tenants(
    connections: Mapping[str, str],
    figures: Mapping[str, Figures],
    validators: Sequence[Heartbeat],
    now: float,
) -> list[dict[str, Any]]:
    """Describe every connection that a profile uses or a validator reports, sorted by name.

    `connections` maps profiles to their connections, `figures` profiles to their counts; `now` and
    all times are in Unix seconds, None for never.
    """
    reported = _reported(validators)
    names = sorted({*connections.values(), *reported})
    found = []
    for name in names[:_MOST]:
        profiles = sorted(each for each, used in connections.items() if used == name)
        counts = sum((figures.get(each, Figures()) for each in profiles), Figures())
        tenant = _merged(reported.get(name, ())) | _counted(counts)
        tenant |= {"connection": name, "profiles": profiles}
        end = tenant["credential_not_after"]
        tenant["credential_days"] = int((end - now) // _DAY) if end else None
        state, advice = assess(tenant, now)
        found.append(tenant | {"state": state, "advice": advice})
    return found


def assess(tenant: Mapping[str, Any], now: float) -> tuple[TenantState, str]:
    """Return the state of a described connection, and what to do about it in one sentence."""
    if not tenant["replicas"]:
        return TenantState.UNKNOWN, _UNREPORTED
    if (advice := next(_failures(tenant, now), None)) is not None:
        return TenantState.FAILING, advice
    for warnings in (_access_warnings(tenant, now), _work_warnings(tenant)):
        if (advice := next(warnings, None)) is not None:
            return TenantState.WARNING, advice
    if tenant["last_ok"] is None:
        return TenantState.UNKNOWN, f"Microsoft has not been asked yet: run {_doctor(tenant)}."
    return TenantState.OK, "Nothing to do."


def _doctor(tenant: Mapping[str, Any]) -> str:
    return f"scepstream doctor intune {tenant['connection']}"


def _failures(tenant: Mapping[str, Any], now: float) -> Iterator[str]:
    """Yield what keeps devices from enrolling, what explains the others first."""
    name, end = tenant["connection"], tenant["credential_not_after"]
    if end is not None and end <= now:
        yield (
            "The credential has expired: make a new one in Entra ID, add it to "
            f"[intune.{name}] and reload the validators."
        )
    if (tenant["last_error_at"] or 0) <= (tenant["last_ok"] or 0):
        return
    if tenant["token_error"]:
        yield (
            f"Microsoft issues no token ({tenant['token_error']}): correct the credential and run "
            f"{_doctor(tenant)}."
        )
    if tenant["breaker_until"] is not None:
        yield (
            "A service of Microsoft fails repeatedly, so devices are refused at once: check the "
            "network and Microsoft's service health."
        )
    yield (
        f"No call has succeeded since the last error ({tenant['last_error']}): run "
        f"{_doctor(tenant)}."
    )


def _access_warnings(tenant: Mapping[str, Any], now: float) -> Iterator[str]:
    """Yield what may keep devices from enrolling soon."""
    days, name = tenant["credential_days"], tenant["connection"]
    if tenant["token_error"] or tenant["breaker_until"] is not None:
        yield (
            "A part of Microsoft's services does not answer a validator: if it lasts, run "
            f"{_doctor(tenant)}."
        )
    if (tenant["throttled_until"] or 0) > now:
        yield (
            "Microsoft throttles this app, so devices may be refused: enroll fewer at once, or "
            "look for another service that uses the app."
        )
    if (tenant["credential"] or 0) > 1:
        yield (
            f"Credential {tenant['credential']} is in use because Microsoft refuses those before: "
            f"remove or replace them in [intune.{name}]."
        )
    if days is not None and days < _SOON_DAYS:
        yield (
            f"The credential expires in {days} day{'' if days == 1 else 's'}: make a new one in "
            f"Entra ID and add it to [intune.{name}]."
        )
    if not tenant["agree"]:
        yield (
            "Validators differ in tenant, cloud or credential: give all of them the same files "
            "and reload them."
        )


def _work_warnings(tenant: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not done."""
    pull = tenant["revocations"]
    if pull["error"]:
        yield (
            f"Revocations that Intune asks for are not carried out ({pull['error']}): run "
            f"{_doctor(tenant)}."
        )
    if pull["open"]:
        yield (
            "Revocations that Intune asks for wait for an issuer: if that lasts, check that the "
            "issuers run."
        )
    if tenant["not_accepted_24h"]:
        yield (
            "Intune did not accept every certificate: see the recent failures, and let the "
            "devices synchronize with Intune."
        )


def _reported(validators: Sequence[Heartbeat]) -> dict[str, list[tuple[str, TenantReport]]]:
    """Return what replicas report, bounded, by connection."""
    found: dict[str, list[tuple[str, TenantReport]]] = {}
    for seen in validators:
        for report in seen.tenants[:_MOST]:
            name = report.connection
            if len(name) <= _NAME_CHARACTERS and NAME.fullmatch(name):
                found.setdefault(name, []).append((seen.name[:_TEXT], _bounded(report)))
    return found


def _bounded(report: TenantReport) -> TenantReport:
    texts = {n: v[:_TEXT] for n, v in asdict(report).items() if isinstance(v, str)}
    times = {n: v if 0 <= (v := getattr(report, n)) <= _LAST_TIME else 0 for n in _TIMES}
    counts = {n: _count(getattr(report, n)) for n in ("credential", "pull_open")}
    calls = {n[:_TEXT]: _count(v) for n, v in sorted(report.calls.items())[:_MOST_RESULTS]}
    return replace(report, **texts, **times, **counts, calls=calls)


def _count(value: int) -> int:
    return min(max(value, 0), _COUNT)


def _merged(reports: Reports) -> dict[str, Any]:
    """Return one description of what all replicas report.

    Errors and credentials are those of the replica that is worst off, revocations those of the
    replica that pulled last: only one of them does.
    """
    all_ = [report for _, report in reports]
    worst = max(all_, key=lambda r: (r.credential, -r.credential_not_after), default=None)
    failed = max(all_, key=lambda r: r.last_error_at, default=None)
    pull = max(all_, key=lambda r: r.pulled_at, default=None)
    return {
        "tenant": worst and worst.tenant,
        "cloud": worst and worst.cloud,
        "credential_kind": worst and worst.credential_kind,
        "credential": worst and worst.credential,
        "credential_not_after": _first_end(all_),
        "token_at": _latest(all_, "token_at"),
        "token_error": next((r.token_error for r in all_ if r.token_error), ""),
        "discovered_at": _latest(all_, "discovered_at"),
        "last_ok": _latest(all_, "last_ok"),
        "last_error": failed.last_error if failed else "",
        "last_error_at": _latest(all_, "last_error_at"),
        "breaker_until": _latest(all_, "breaker_until"),
        "throttled_until": _latest(all_, "throttled_until"),
        "calls": _calls(all_),
        "replicas": [name for name, _ in reports],
        "agree": len({tuple(getattr(r, n) for n in _SAME) for r in all_}) <= 1,
        "revocations": {
            "pulled_at": _latest(all_, "pulled_at"),
            "open": pull.pull_open if pull else 0,
            "error": pull.pull_error if pull else "",
        },
    }


def _first_end(reports: Sequence[TenantReport]) -> int | None:
    """Return when the first credential in use expires, None if none is known to."""
    return min((r.credential_not_after for r in reports if r.credential_not_after), default=None)


def _latest(reports: Sequence[TenantReport], name: str) -> int | None:
    return max((int(getattr(each, name)) for each in reports), default=0) or None


def _calls(reports: Sequence[TenantReport]) -> dict[str, int]:
    names = sorted({name for each in reports for name in each.calls})[:_MOST_RESULTS]
    return {name: sum(each.calls.get(name, 0) for each in reports) for name in names}


def _counted(figures: Figures) -> dict[str, Any]:
    refused = {n: v for n, v in figures.results.items() if n not in (SUCCESS, Reason.NOT_CONFIRMED)}
    return {
        "waiting": figures.waiting,
        "issued_24h": figures.results.get(SUCCESS, 0),
        "not_accepted_24h": figures.results.get(Reason.NOT_CONFIRMED, 0),
        "refused_24h": dict(sorted(refused.items())),
    }
