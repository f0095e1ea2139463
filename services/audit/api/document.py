"""The API's OpenAPI document, with examples, and errors as application/problem+json."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.audit.api.examples import ANSWERS, PARAMETERS
from services.audit.api.problems import MEDIA_TYPE

_ERRORS: Final = 400
_PREFIX: Final = "/api/v1"
_UNUSED: Final = "422"  # FastAPI's status for invalid input; this API answers 400


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the application's routes."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            operation["responses"].pop(_UNUSED, None)
            _name_problems(operation["responses"])
            _exemplify(operation, ANSWERS[method, path.removeprefix(_PREFIX)])
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


def _exemplify(operation: dict[str, Any], answer: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        if (example := PARAMETERS.get(parameter["name"])) is not None:
            parameter["example"] = example
    for status, response in operation["responses"].items():
        if int(status) < _ERRORS:
            response["content"]["application/json"]["example"] = answer


def _name_problems(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if int(status) >= _ERRORS:
            response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
