"""The page at /, on which people try what is served: static files of the package, and the headers that confine them."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

#: The folder of the page's files, and the path below which they are served.
PREFIX = "/page/"
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
#: The page loads nothing but its own files, talks to nobody but its server, and cannot be framed.
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_page(path: str) -> bool:
    """Return whether a path is the page's or one of its files', which hold no secret and need no key."""
    return path == "/" or path.startswith(PREFIX)


def page_router() -> APIRouter:
    """Return the routes of the page, which the OpenAPI document leaves out."""
    router = APIRouter(include_in_schema=False)
    folder = resources.files("manylens.serving") / "page"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if _suffix(file.name) in _TYPES}

    @router.get("/")
    async def page() -> Response:
        return _answer(files, _INDEX)

    @router.get(PREFIX + "{name}")
    async def file(name: str) -> Response:
        return _answer(files, name)

    return router


def _answer(files: dict[str, bytes], name: str) -> Response:
    if name not in files:
        raise HTTPException(404)
    return Response(files[name], media_type=_TYPES[_suffix(name)], headers=_HEADERS)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
