"""The API's OpenAPI document: errors are problems, of their own media type."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.audit.admin.problems import MEDIA_TYPE

_ERRORS: Final = 400
_UNUSED: Final = "422"  # what FastAPI would answer to what is invalid: here it is a 400


def openapi(app: FastAPI) -> dict[str, Any]:
    """The document of the application's routes, OpenAPI 3.1."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop(_UNUSED, None)
            _name_problems(operation["responses"])
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


def _name_problems(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if int(status) >= _ERRORS:
            response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
