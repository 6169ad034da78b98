"""Code that browsers load once and cache. The server has it in memory or in another package, so that the lab's own
folders need not be writable.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",  # another content has another name
    "X-Content-Type-Options": "nosniff",
}
_files: dict[str, Path | bytes] = {}


def address(name: str, content: Path | bytes) -> str:
    """The address of a script on the lab's server, below the address of its home page.

    Args:
        name: Of the script; another content has another name.
        content: The script, or the file that holds it.
    """
    _files[name] = content
    return f"app/code/{name}"


def route(base: str) -> Route:
    """The route of all scripts. base: Streamlit's `server.baseUrlPath`."""
    prefix = f"/{base.strip('/')}".rstrip("/")
    return Route(f"{prefix}/app/code/{{name}}", _answer)


async def _answer(request: Request) -> Response:
    content = _files.get(request.path_params["name"])
    if content is None:
        return PlainTextResponse("There is no such script.", status_code=404)
    if isinstance(content, Path):
        return FileResponse(content, media_type="text/javascript", headers=_HEADERS)
    return Response(content, media_type="text/javascript", headers=_HEADERS)
