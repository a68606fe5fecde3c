"""The pages and what they ask for, as a starlette application."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tagseg.errors import DataError, ImageError, TagsegError, WorkspaceError
from tagseg.web.tagging import MOST_SHOWN, Tagging
from tagseg.web.thumbnails import SIDES, Thumbnails

__all__ = ["tagging_app"]

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_MOST_TEXT = 200  # letters of a search
_FRESH = {"cache-control": "no-store"}
_KEPT = {"cache-control": "private, max-age=3600"}  # the address has a secret of this start

Endpoint = Callable[[Request], Awaitable[Response]]


def tagging_app(tagging: Tagging, thumbnails: Thumbnails) -> Starlette:
    """The application for one folder of photos."""
    pages = _Pages(tagging, thumbnails)
    routes = [
        Route("/", pages.page),
        Route("/static/{name}", pages.static),
        Route("/api/start", pages.start),
        Route("/api/view", pages.view),
        Route("/api/photos", pages.photos),
        Route("/api/news", pages.news),
        Route("/api/act", pages.act, methods=["POST"]),
        Route("/picture/{size}/{photo:int}", pages.picture),
    ]
    return Starlette(routes=routes)


def _in_one_line(endpoint: Callable[[Any, Request], Awaitable[Response]]) -> Any:
    """An endpoint whose errors on purpose are told in JSON."""

    @wraps(endpoint)
    async def told(self: Any, request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except TagsegError as problem:
            status = 507 if isinstance(problem, WorkspaceError) else 400
            return _json({"error": str(problem)}, status)

    return told


class _Pages:
    """Endpoints; whatever takes time is done in threads."""

    def __init__(self, tagging: Tagging, thumbnails: Thumbnails) -> None:
        self._tagging, self._thumbnails = tagging, thumbnails
        # Files of ours are read once; no path that a request names is ever opened.
        folder = files("tagseg.web") / "static"
        self._static = {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}

    async def page(self, request: Request) -> Response:
        """The page."""
        return self._file("tag.html")

    async def static(self, request: Request) -> Response:
        """A file that the page is made of."""
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        content = self._static.get(name)
        if content is None:
            return _json({"error": "there is no such page"}, 404)
        kind = _TYPES[name.rpartition(".")[2]]
        return Response(content, media_type=kind, headers=_FRESH)

    async def start(self, request: Request) -> Response:
        """What does not change while the server runs, and how things stand."""
        tagging = self._tagging
        about = tagging.suggested.about if tagging.suggested is not None else ""
        news = await run_in_threadpool(tagging.news, -1)
        fixed = {"folder": tagging.photos.home.absolute().name, "suggestedBy": about}
        return _json({**fixed, **news, "notes": tagging.notes, "photos": [], "many": False})

    @_in_one_line
    async def view(self, request: Request) -> Response:
        """Numbers of the photos to be shown, 4 bytes each, the lowest byte first."""
        asked = request.query_params
        show, order = asked.get("show", "all"), asked.get("order", "name")
        search = asked.get("search", "")[:_MOST_TEXT]
        ids = await run_in_threadpool(self._tagging.view, show, search, order)
        return Response(ids.astype("<i4").tobytes(), media_type=_BYTES, headers=_FRESH)

    @_in_one_line
    async def photos(self, request: Request) -> Response:
        """What is known of the photos ``ids``, up to 500."""
        words = request.query_params.get("ids", "").split(",", MOST_SHOWN)[:MOST_SHOWN]
        ids = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 10]
        return _json({"photos": await run_in_threadpool(self._tagging.described, ids)})

    @_in_one_line
    async def news(self, request: Request) -> Response:
        """What changed after act ``since``."""
        word = request.query_params.get("since", "")
        since = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else -1
        return _json(await run_in_threadpool(self._tagging.news, since))

    @_in_one_line
    async def act(self, request: Request) -> Response:
        """Do something; the answer comes when it is on disk."""
        try:
            wanted = json.loads(await request.body())
        except (ValueError, RecursionError):
            wanted = None
        if not isinstance(wanted, dict):
            raise DataError("this is no act", do="load the page again")
        since = wanted.get("since")
        return _json(
            await run_in_threadpool(self._done, wanted, since if type(since) is int else -1)
        )

    def _done(self, wanted: Mapping[str, Any], since: int) -> dict[str, Any]:
        said = self._tagging.act(wanted)
        return {"did": said, **self._tagging.news(since)}

    @_in_one_line
    async def picture(self, request: Request) -> Response:
        """A small JPEG of a photo of the folder."""
        size, photo = request.path_params["size"], request.path_params["photo"]
        if size not in SIDES or photo >= len(self._tagging.photos):
            return _json({"error": "there is no such picture"}, 404)
        try:
            picture = await run_in_threadpool(self._picture, photo, size)
        except DataError as problem:
            status = 415 if isinstance(problem, ImageError) else 403
            return _json({"error": problem.what}, status)  # without the folder's path
        return Response(picture, media_type="image/jpeg", headers=_KEPT)

    def _picture(self, photo: int, size: str) -> bytes:
        return self._thumbnails.of(self._tagging.photos.file(photo), size)


_BYTES = "application/octet-stream"


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return JSONResponse(value, status, headers=_FRESH)
