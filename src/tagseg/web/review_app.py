"""What the page for reviewing asks for beside what all pages do: masks, regions, candidates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tagseg.data.images import decode_photo
from tagseg.errors import DataError, MaskError
from tagseg.session.run_to_review import regions_of
from tagseg.web.answers import KEPT, bytes_answer, in_one_line, json_answer
from tagseg.web.app import pages_app
from tagseg.web.reviewing import Reviewing
from tagseg.web.shown_masks import over_photo, packed, page_colours
from tagseg.web.thumbnails import SIDES, Thumbnails

__all__ = ["review_app"]

_DEFLATED = {"content-encoding": "deflate"}
_KINDS = ("fill", "outline")


def review_app(reviewing: Reviewing, thumbnails: Thumbnails) -> Starlette:
    """The application for looking through the masks of one run."""
    masks = _Masks(reviewing)
    more = [
        Route("/api/candidates/{photo:int}", masks.candidates),
        Route("/labels/{photo:int}/{which}", masks.labels),
        Route("/over/{kind}/{photo:int}/{which}", masks.over),
        Route("/regions/{photo:int}/{level}", masks.regions),
    ]
    return pages_app(reviewing, thumbnails, "review.html", more)


class _Masks:
    """Endpoints; whatever takes time is done in threads."""

    def __init__(self, reviewing: Reviewing) -> None:
        self._reviewing = reviewing
        self._colours = page_colours(len(reviewing.run.classes))

    @in_one_line
    async def candidates(self, request: Request) -> Response:
        """A photo's size, and for each candidate the first that is the same; null for none."""
        photo = self._photo(request)
        shown = self._reviewing.shown
        height, width = await run_in_threadpool(shown.shape, photo)
        same = await run_in_threadpool(shown.same, photo)
        return json_answer({"height": height, "width": width, "same": same})

    @in_one_line
    async def labels(self, request: Request) -> Response:
        """Labels at the photo's size: width and height, 4 bytes each, then a byte a pixel."""
        photo, which = self._photo(request), self._which(request)
        content = await run_in_threadpool(lambda: packed(self._reviewing.mask(photo, which)))
        return bytes_answer(content, {**KEPT, **_DEFLATED})

    @in_one_line
    async def over(self, request: Request) -> Response:
        """A small picture of a mask, which lies over that of its photo."""
        photo, which = self._photo(request), self._which(request)
        kind = request.path_params["kind"]
        if kind not in _KINDS:
            raise DataError("there is no such picture")

        def made() -> bytes:
            labels = self._reviewing.mask(photo, which)
            return over_photo(labels, SIDES["small"], self._colours, outline=kind == "outline")

        return Response(await run_in_threadpool(made), media_type="image/png", headers=KEPT)

    @in_one_line
    async def regions(self, request: Request) -> Response:
        """Regions of a photo: width and height, 4 bytes each, then 4 bytes a pixel."""
        photo, level = self._photo(request), request.path_params["level"]
        content = await run_in_threadpool(lambda: packed(self._found(photo, level)))
        return bytes_answer(content, {**KEPT, **_DEFLATED})

    def _found(self, photo: int, level: str) -> npt.NDArray[np.int32]:
        run = self._reviewing.run
        if level == "crisp" and run.crisp is not None:
            return run.crisp(run.photos.names[photo]).astype("<i4")
        if level not in ("0", "1", "2"):
            raise DataError("there are no such regions")
        image = decode_photo(self._reviewing.photos.file(photo), white=run.photos.white)
        return regions_of(image)[int(level)].astype("<i4")

    def _photo(self, request: Request) -> int:
        photo: int = request.path_params["photo"]
        if photo >= len(self._reviewing.photos):
            raise DataError("there is no such photo", do="load the page again")
        return photo

    def _which(self, request: Request) -> str:
        which: str = request.path_params["which"]
        known = ("now", *map(str, range(len(self._reviewing.run.maps))))
        if which not in known:
            raise MaskError("there is no such mask", do="load the page again")
        return which
