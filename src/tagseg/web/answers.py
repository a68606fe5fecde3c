"""Answers to what pages ask for: JSON, bytes, and errors on purpose in one line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tagseg.errors import TagsegError, WorkspaceError

__all__ = ["FRESH", "KEPT", "bytes_answer", "in_one_line", "json_answer", "number_in"]

FRESH = {"cache-control": "no-store"}
"""Of answers that are never used twice."""

KEPT = {"cache-control": "private, max-age=3600"}
"""Of answers that a browser may keep: their address has a secret of this start."""

_MOST_DIGITS = 9


def json_answer(value: Mapping[str, Any], status: int = 200) -> Response:
    """An answer in JSON."""
    return JSONResponse(value, status, headers=FRESH)


def bytes_answer(content: bytes, headers: Mapping[str, str] = FRESH) -> Response:
    """An answer of numbers."""
    return Response(content, media_type="application/octet-stream", headers=dict(headers))


def in_one_line(endpoint: Callable[[Any, Request], Awaitable[Response]]) -> Any:
    """An endpoint, a method, whose errors on purpose are told in JSON."""

    @wraps(endpoint)
    async def told(self: Any, request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except TagsegError as problem:
            status = 507 if isinstance(problem, WorkspaceError) else 400
            return json_answer({"error": str(problem)}, status)

    return told


def number_in(word: str) -> int | None:
    """The whole number that a word of an address is; None for anything else."""
    plain = word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS
    return int(word) if plain else None
