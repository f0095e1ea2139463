"""The API does what its document says, whatever it is asked, within the document or beside it."""

from collections.abc import Iterator
from string import Formatter
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.integration.test_api import ROUTES
from tests.support.prepared import add_profiles, prepared
from tests.support.requests import Device, Endpoint, ask, enroll, recorded
from tests.support.system import System, running

EXAMPLES: Final = 15
# Documented answers to an order that nobody carried out and to a log that is away.
OTHERS: Final = (502, 503)
TOO_LARGE: Final = 413
# A cursor is opaque: the document says that it is a string, and most strings are answered 400.
# What of a server's errors is documented is told apart here: 502 and 503 are.
EXCLUDED: Final[list[Any]] = [positive_data_acceptance, not_a_server_error]
CHALLENGES: Final = "/api/v1/challenges"
RELOAD: Final = "/api/v1/admin/scep/intune/reload-trust"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("openapi") / "data")
    add_profiles(layout, {"manual": {"approval": "manual"}})
    with running(layout.root, "--validators", "1") as found:
        yield found


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[httpx.Client]:
    """An admin's."""
    headers = {"authorization": f"Bearer {system.run['admin_token']}"}
    with httpx.Client(
        base_url=system.run["admin_url"], headers=headers, trust_env=False, timeout=60
    ) as found:
        yield found


@pytest.fixture(scope="module")
def schema(client: httpx.Client) -> OpenApiSchema:
    return schemathesis.openapi.from_dict(client.get("/api/v1/openapi.json").json())


@pytest.fixture(scope="module")
def there(system: System, client: httpx.Client) -> dict[str, str]:
    """By the names of path parameters: something that is there, and commands can be about."""
    device, waiting = Device.new(), Device.new()
    enroll(Endpoint.of(system), device)
    ask(Endpoint.of(system, "manual"), waiting.enrollment(Endpoint.of(system, "manual")))
    recorded(system, device, "issued")
    recorded(system, waiting, "held")
    (held,) = client.get("/api/v1/enrollments", params={"state": "held"}).json()["enrollments"]
    (first, *_) = client.get("/api/v1/certificates").json()["certificates"]
    challenge = client.post(CHALLENGES, json={"profile": "corp"}).json()["id"]
    return {
        "enrollment": held["enrollment"],
        "issuer": first["issuer"],
        "serial": first["serial"],
        "profile": "corp",
        "challenge": challenge,
    }


def check(system: System, case: Case[Any]) -> int:
    """One request and all that the document says of its answer; the answer's status."""
    headers = {"authorization": f"Bearer {system.run['admin_token']}"}
    response = case.call(base_url=system.run["admin_url"], headers=headers)
    assert response.status_code < 500 or response.status_code in OTHERS, response.text
    # A body that is too large is rejected for that alone, which schemathesis does not expect.
    too_large = [negative_data_rejection] if response.status_code == TOO_LARGE else []
    case.validate_response(response, excluded_checks=[*EXCLUDED, *too_large], headers=headers)
    return int(response.status_code)


def names(path: str) -> set[str]:
    """The parameters of a path."""
    return {name for _, name, _, _ in Formatter().parse(path) if name}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_whatever_is_asked_is_answered_as_the_document_says(
    system: System,
    schema: OpenApiSchema,
    there: dict[str, str],
    route: tuple[str, str],
    mode: GenerationMode,
) -> None:
    """Of what nobody has heard of, and of what is there: commands about it are carried out."""
    method, path = route
    operation, wanted = schema[path][method], names(path)
    cases = operation.as_strategy(generation_mode=mode)
    if wanted and wanted <= there.keys():
        real = {name: there[name] for name in wanted}
        cases |= operation.as_strategy(generation_mode=mode, path_parameters=real)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def asked(case: Case[Any]) -> None:
        check(system, case)

    asked()


# A question that can be answered, for each route that gives a body or a query to be told more.
QUESTIONS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("GET", "/api/v1/enrollments"): {"query": {"limit": 1}},
    ("GET", "/api/v1/audit"): {"query": {"limit": 1}},
    ("GET", "/api/v1/commands"): {"query": {"limit": 5}},
    ("GET", "/api/v1/enrollments/{enrollment}"): {},
    ("GET", "/api/v1/certificates"): {},
    ("GET", "/api/v1/certificates/{issuer}/{serial}"): {},
    ("GET", CHALLENGES): {"query": {"profile": "corp"}},
    ("GET", "/api/v1/admin/scep/profiles"): {},
    ("GET", "/api/v1/admin/scep/intune/stats"): {},
    ("GET", "/api/v1/admin/scep/intune/tenants"): {},
    ("GET", "/api/v1/dead-letters"): {},
    ("POST", CHALLENGES): {"body": {"profile": "corp", "cn": "printer", "sans": ["dns:printer"]}},
    ("POST", RELOAD): {"body": {"path_id": "corp"}},
}


@pytest.mark.parametrize("route", QUESTIONS, ids=" ".join)
def test_a_good_answer_has_the_shape_that_the_document_says(
    system: System, schema: OpenApiSchema, there: dict[str, str], route: tuple[str, str]
) -> None:
    """Else documents of errors alone would do."""
    method, path = route
    given_ = {"path_parameters": {name: there[name] for name in names(path)}} | QUESTIONS[route]
    if "body" in given_:
        given_["media_type"] = "application/json"

    assert check(system, schema[path][method].Case(**given_)) in (200, 201)
