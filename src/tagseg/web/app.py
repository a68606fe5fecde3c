"""The pages and what they ask for, as a starlette application."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tagseg.errors import DataError, ImageError
from tagseg.web.answers import (
    FRESH,
    KEPT,
    bytes_answer,
    in_one_line,
    json_answer,
    number_in,
)
from tagseg.web.desk import MOST_SHOWN, Desk
from tagseg.web.tagging import Tagging
from tagseg.web.thumbnails import SIDES, Thumbnails

__all__ = ["pages_app", "tagging_app"]

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_MOST_TEXT = 200  # letters of a search


def tagging_app(tagging: Tagging, thumbnails: Thumbnails) -> Starlette:
    """The application for tagging one folder of photos."""
    return pages_app(tagging, thumbnails, "tag.html")


def pages_app(
    desk: Desk, thumbnails: Thumbnails, page: str, more: Sequence[BaseRoute] = ()
) -> Starlette:
    """The application of a page that works on photos.

    Args:
        page: name of its file.
        more: what it asks for beside what all pages do.
    """
    pages = _Pages(desk, thumbnails, page)
    routes = [
        Route("/", pages.page),
        Route("/static/{name}", pages.static),
        Route("/api/start", pages.start),
        Route("/api/view", pages.view),
        Route("/api/photos", pages.photos),
        Route("/api/news", pages.news),
        Route("/api/act", pages.act, methods=["POST"]),
        Route("/picture/{size}/{photo:int}", pages.picture),
        *more,
    ]
    return Starlette(routes=routes)


class _Pages:
    """Endpoints; whatever takes time is done in threads."""

    def __init__(self, desk: Desk, thumbnails: Thumbnails, page: str) -> None:
        self._desk, self._thumbnails, self._page = desk, thumbnails, page
        # Files of ours are read once; no path that a request names is ever opened.
        folder = files("tagseg.web") / "static"
        self._static = {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}

    async def page(self, request: Request) -> Response:
        """The page."""
        return self._file(self._page)

    async def static(self, request: Request) -> Response:
        """A file that the page is made of."""
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        content = self._static.get(name)
        if content is None:
            return json_answer({"error": "there is no such page"}, 404)
        kind = _TYPES[name.rpartition(".")[2]]
        return Response(content, media_type=kind, headers=FRESH)

    async def start(self, request: Request) -> Response:
        """What does not change while the server runs, and how things stand."""
        news = await run_in_threadpool(self._desk.news, -1)
        return json_answer({**self._desk.started(), **news, "photos": [], "many": False})

    @in_one_line
    async def view(self, request: Request) -> Response:
        """Numbers of the photos to be shown, 4 bytes each, the lowest byte first."""
        asked = request.query_params
        show, order = asked.get("show", "all"), asked.get("order", "name")
        search = asked.get("search", "")[:_MOST_TEXT]
        ids = await run_in_threadpool(self._desk.view, show, search, order)
        return bytes_answer(ids.astype("<i4").tobytes())

    @in_one_line
    async def photos(self, request: Request) -> Response:
        """What is known of the photos ``ids``, up to 500."""
        words = request.query_params.get("ids", "").split(",", MOST_SHOWN)[:MOST_SHOWN]
        ids = [number for number in map(number_in, words) if number is not None]
        return json_answer({"photos": await run_in_threadpool(self._desk.described, ids)})

    @in_one_line
    async def news(self, request: Request) -> Response:
        """What changed after act ``since``."""
        since = number_in(request.query_params.get("since", ""))
        since = -1 if since is None else since
        return json_answer(await run_in_threadpool(self._desk.news, since))

    @in_one_line
    async def act(self, request: Request) -> Response:
        """Do something; the answer comes when it is on disk."""
        try:
            wanted = json.loads(await request.body())
        except (ValueError, RecursionError):
            wanted = None
        if not isinstance(wanted, dict):
            raise DataError("this is no act", do="load the page again")
        since = wanted.get("since")
        return json_answer(
            await run_in_threadpool(self._done, wanted, since if type(since) is int else -1)
        )

    def _done(self, wanted: Mapping[str, Any], since: int) -> dict[str, Any]:
        said = self._desk.act(wanted)
        return {"did": said, **self._desk.news(since)}

    @in_one_line
    async def picture(self, request: Request) -> Response:
        """A small JPEG of a photo of the folder."""
        size, photo = request.path_params["size"], request.path_params["photo"]
        if size not in SIDES or photo >= len(self._desk.photos):
            return json_answer({"error": "there is no such picture"}, 404)
        try:
            picture = await run_in_threadpool(self._picture, photo, size)
        except DataError as problem:
            status = 415 if isinstance(problem, ImageError) else 403
            return json_answer({"error": problem.what}, status)  # without the folder's path
        return Response(picture, media_type="image/jpeg", headers=KEPT)

    def _picture(self, photo: int, size: str) -> bytes:
        return self._thumbnails.of(self._desk.photos.file(photo), size)
