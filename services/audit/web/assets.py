"""Static files (script, style, icon) under a version made from their contents."""

from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse

from services.audit.api.problems import ProblemError
from services.audit.web.rendering import STATIC, VERSION

router = APIRouter(include_in_schema=False)
_KINDS: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


@router.get("/static/{version}/{name}")
async def static(version: str, name: str) -> FileResponse:
    """Serve a static file. Browsers may cache it only under the current version."""
    if name not in _KINDS:
        raise ProblemError(404, "no such file")
    kept = "public, max-age=31536000, immutable" if version == VERSION else "no-store"
    headers = {"cache-control": kept, "x-content-type-options": "nosniff"}
    return FileResponse(STATIC / name, media_type=_KINDS[name], headers=headers)
