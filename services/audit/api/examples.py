"""Examples for the OpenAPI document: one per successful response and per parameter."""

from typing import Any, Final

_ENROLLMENT: Final = "enroll.0.corp.abcdefghijklmnopqrstuvwxyz.zyxwvutsrqponmlkjihgfedcba.0"
_SERIAL: Final = "4a0f3c5d9e1b7a26c8d04f1122334455"
_AT: Final = 1767225600_000_000_000
_ROW: Final[dict[str, Any]] = {
    "enrollment": _ENROLLMENT,
    "profile": "corp",
    "fleet": "corp",
    "transaction_id": "5F0A",
    "action": "scep_pkcsreq_intune",
    "message_type": 19,
    "signer_sha256": "c1" * 32,
    "client_address": "192.0.2.7",
    "gateway": "gateway-0",
    "device": "CN=device-1",
    "sans": '["dns:device-1.example"]',
    "key_type": "rsa",
    "key_bits": 2048,
    "spki_sha256": "5a" * 32,
    "csr_sha256": "7e" * 32,
    "challenge": "signed",
    "device_id": "",
    "claim_issuer": "connector",
    "claim_subject": "device-1",
    "state": "issued",
    "reason": None,
    "detail": None,
    "fail_info": None,
    "renews": None,
    "issuer": "local",
    "serial": _SERIAL,
    "not_after": 1798761600,
    "operator": None,
    "requested_at": _AT,
    "held_at": None,
    "decided_at": None,
    "verdict_at": _AT + 5_000_000,
    "ended_at": _AT + 9_000_000,
}
_CERTIFICATE: Final[dict[str, Any]] = {
    "issuer": "local",
    "serial": _SERIAL,
    "enrollment": _ENROLLMENT,
    "profile": "corp",
    "subject": "CN=device-1",
    "spki_sha256": "5a" * 32,
    "not_before": 1767225000,
    "not_after": 1798761600,
    "ca_spki_sha256": "ab" * 32,
    "renews": None,
    "recorded_at": _AT,
    "revoked_at": None,
    "revocation_reason": None,
    "revoked_by": None,
    "superseded_by": None,
    "superseded_at": None,
    "state": "valid",
    "not_renewed": False,
}
_INTUNE: Final[dict[str, Any]] = {
    "trust_anchor_path": "connector/connector.pem",
    "trust_anchors": [
        {
            "subject": "CN=connector",
            "not_before": "2026-01-01T00:00:00+00:00",
            "not_after": "2027-01-01T00:00:00+00:00",
            "days_to_expiry": 364,
            "expired": False,
        }
    ],
    "anchor_bundles": [
        {
            "issuer": None,
            "path": "connector/connector.pem",
            "state": "valid",
            "anchors": [
                {
                    "subject": "CN=connector",
                    "sha256": "5e" * 32,
                    "not_before": "2026-01-01T00:00:00+00:00",
                    "not_after": "2027-01-01T00:00:00+00:00",
                    "days_to_expiry": 364,
                    "expired": False,
                    "state": "valid",
                }
            ],
        }
    ],
    "anchors_state": "valid",
    "anchors_days_to_expiry": 364,
    "anchors_expired": False,
    "audience": "https://scep.example/scep/corp",
    "challenge_validity_ns": 3600_000_000_000,
    "clock_skew_tolerance_ns": 60_000_000_000,
    "rate_limit_24h": 3,
    "rate_limit_disabled": False,
    "replay_cache_size": 7,
    "counters": {"success": 5, "replay": 1},
}
_PROFILE: Final[dict[str, Any]] = {
    "path_id": "corp",
    "issuer_id": "local",
    "challenge_password_set": False,
    "verifiers": ["signed"],
    "intune_connection": None,
    "ra_cert_subject": "CN=scepstream RA signing",
    "ra_cert_days_to_expiry": 364,
    "ra_cert_expired": False,
    "mtls_enabled": False,
    "mtls_trust_bundle_path": None,
    "replicas": {
        "gateways": ["gateway-0"],
        "validators": ["validator-0"],
        "anchors_agree": True,
        "ra_agree": True,
        "agree": True,
    },
    "intune": _INTUNE,
}
_TENANT: Final[dict[str, Any]] = {
    "connection": "contoso",
    "state": "warning",
    "advice": "The credential expires in 12 days: make a new one in Entra ID and add it to "
    "[intune.contoso].",
    "tenant": "0f7c5a3e-1d2b-4c6a-9e8f-a1b2c3d4e5f6",
    "cloud": "public",
    "credential_kind": "certificate",
    "credential": 1,
    "credential_not_after": 1768262400,
    "credential_days": 12,
    "token_at": 1767225000,
    "token_error": "",
    "discovered_at": 1767225000,
    "last_ok": 1767225590,
    "last_error": "outage: Intune does not answer",
    "last_error_at": 1767139200,
    "breaker_until": None,
    "throttled_until": None,
    "calls": {"success": 41, "refused": 1, "outage": 1},
    "replicas": ["validator-0", "validator-1"],
    "agree": True,
    "profiles": ["corp"],
    "revocations": {"pulled_at": 1767225500, "open": 0, "error": ""},
    "waiting": 0,
    "issued_24h": 40,
    "not_accepted_24h": 0,
    "refused_24h": {"expired": 1},
}
_GENERATED: Final = "2026-01-01T00:00:00+00:00"


def _reloaded(name: str) -> dict[str, Any]:
    replicas = [{"name": name, "reloaded": True, "error": None}]
    return {
        "reloaded": True,
        "path_id": "corp",
        "reloaded_at": _GENERATED,
        "replicas": replicas,
    }


PARAMETERS: Final[dict[str, Any]] = {
    "profile": "corp",
    "state": "issued",
    "action": "scep_pkcsreq_intune",
    "search": "device-1",
    "since": _AT,
    "until": _AT + 86_400_000_000_000,
    "limit": 50,
    "enrollment": _ENROLLMENT,
    "issuer": "local",
    "serial": _SERIAL,
    "challenge": "abcdefghij",
    "stream": "ENROLL_0",
    "sequence": 7,
    "operator": "helpdesk",
    "kind": "revoke",
    "fleet": "corp",
    "view": "expiring",
    "days": 30,
}
ANSWERS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("get", "/admin/scep/profiles"): {
        "profiles": [_PROFILE],
        "profile_count": 1,
        "generated_at": _GENERATED,
    },
    ("get", "/admin/scep/intune/stats"): {
        "profiles": [{"path_id": "corp", "issuer_id": "local", "enabled": True, **_INTUNE}],
        "generated_at": _GENERATED,
    },
    ("get", "/admin/scep/intune/tenants"): {"tenants": [_TENANT], "generated_at": _GENERATED},
    ("post", "/admin/scep/intune/reload-trust"): _reloaded("validator-0"),
    ("post", "/admin/scep/reload-ra"): _reloaded("gateway-0"),
    ("get", "/enrollments"): {"enrollments": [_ROW], "next": None},
    ("get", "/enrollments/{enrollment}"): {
        "enrollment": _ROW,
        "events": [
            {
                "stream": "ENROLL_0",
                "sequence": 1,
                "subject": f"{_ENROLLMENT}.request",
                "type": "EnrollmentRequested",
                "recorded_at": _AT,
                "payload": {"transaction_id": "5F0A", "gateway": "gateway-0"},
            }
        ],
    },
    ("post", "/enrollments/{enrollment}/approve"): {"done": True, "detail": "approved"},
    ("post", "/enrollments/{enrollment}/deny"): {"done": True, "detail": "denied"},
    ("get", "/audit"): {
        "entries": [
            {
                "action": "scep_pkcsreq_intune",
                "at": _AT,
                "profile": "corp",
                "state": "issued",
                "reason": None,
                "device": "CN=device-1",
                "transaction_id": "5F0A",
                "operator": None,
                "enrollment": _ENROLLMENT,
            }
        ],
        "total": 1,
        "next": None,
    },
    ("get", "/commands"): {
        "commands": [
            {
                "kind": "revoke",
                "at": _AT,
                "operator": "helpdesk",
                "profile": None,
                "enrollment": None,
                "device": None,
                "about": f"local {_SERIAL}",
                "note": "keyCompromise",
                "result": "done",
                "reason": None,
                "detail": "revoked; on CRL number 7",
                "expected": 1,
                "answered": 1,
                "refused": 0,
            }
        ],
        "next": None,
    },
    ("get", "/devices/rate-limited"): {
        "devices": [
            {
                "profile": "corp",
                "claim_issuer": "connector",
                "claim_subject": "device-1",
                "device_id": None,
                "device": "CN=device-1",
                "detail": "the device has enrolled too often within 24 hours",
                "enrollment": _ENROLLMENT,
                "last_at": _AT,
                "refusals": 4,
            }
        ],
        "since": _AT - 86_400_000_000_000,
        "is_complete": True,
    },
    ("get", "/certificates"): {"certificates": [_CERTIFICATE], "next": None},
    ("get", "/certificates/{issuer}/{serial}"): _CERTIFICATE,
    ("post", "/certificates/{issuer}/{serial}/revoke"): {
        "done": True,
        "detail": "revoked; on CRL number 12",
    },
    ("get", "/challenges"): {
        "challenges": [
            {
                "id": "abcdefghijklmnopqrstuvwxyz",
                "cn": "printer-7",
                "sans": ["dns:printer-7.example"],
                "operator": "helpdesk",
                "created_at": 1767225600,
                "expires_at": 1767312000,
                "state": "open",
            }
        ]
    },
    ("post", "/challenges"): {
        "id": "abcdefghijklmnopqrstuvwxyz",
        "challenge": "OT-7K2QX-M9FDH-4ZRTB-0WNCE-Y6VJA",
        "expires_at": 1767312000,
    },
    ("delete", "/challenges/{profile}/{challenge}"): {"done": True, "detail": "cancelled"},
    ("get", "/dead-letters"): {
        "dead_letters": [
            {
                "stream": "ENROLL_0",
                "sequence": 7,
                "subject": f"{_ENROLLMENT}.request",
                "role": "validator",
                "deliveries": 13,
                "recorded_at": _AT,
                "retried": None,
                "open": True,
            }
        ]
    },
    ("get", "/orphans"): {
        "orphans": [
            {
                "issuer": "corp",
                "key": "0123456789abcdef0123456789abcdef",
                "enrollment": _ENROLLMENT,
                "device": "CN=printer-7",
                "profile": "corp",
                "placement": 0,
                "spki_sha256": "aa" * 32,
                "suspected_at": _AT,
                "settled_at": None,
                "serials": [],
                "detail": None,
                "operator": None,
                "open": True,
            }
        ]
    },
    ("post", "/orphans/{issuer}/{key}/settle"): {"done": True, "detail": "revoked at the CA"},
    ("post", "/dead-letters/{stream}/{sequence}/retry"): {
        "done": True,
        "detail": "retried as attempt 2",
    },
}
