"""Who may ask the pages' server for what.

A server on this machine can be reached by every page that the browser has open, and by every name
that leads here. So each request must have a secret in its address (:func:`new_token`), a ``Host``
that is ours, and an ``Origin``, where a browser tells one, that is the same. What is sent is
bounded, and answers forbid scripts and styles that are not files of ours.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["HEADERS", "MOST_BODY", "Guard", "Rules", "new_token"]

MOST_BODY = 8 << 20
"""Bytes that a request may carry: numbers of a million photos."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer."""

_LOCAL = ("127.0.0.1", "localhost", "::1")
_METHODS = ("GET", "HEAD", "POST")
_SAME = ("same-origin", "none")  # a page of ours, or a person


def new_token() -> str:
    """A secret that nobody guesses, for the address of the pages."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Rules:
    """What a request must be.

    Attributes:
        token: the first part of its path.
        host: what the server is bound to.
        port: where it listens.
        most: bytes that it may carry.
    """

    token: str
    host: str
    port: int
    most: int = MOST_BODY

    def is_ours(self, host: str) -> bool:
        """Whether ``host``, as a browser names it, is this server.

        Of a server that others can reach, any address in numbers is: the machine may have several,
        and a name that somebody else made lead here is none.
        """
        name, port = _split(host)
        if port != self.port:
            return False
        if name in (*_LOCAL, self.host.strip("[]").lower()):
            return name not in ("", "0.0.0.0", "::")
        if self.host in _LOCAL:
            return False
        return _is_address(name) or name == socket.gethostname().lower()


def _split(host: str) -> tuple[str, int | None]:
    """Name and port of a ``Host``, which is 80 if there is none."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or host.endswith("]"):
        return host.lower().strip("[]"), 80
    return name.strip("[]"), int(port) if port.isascii() and port.isdigit() else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Refused(Exception):
    """Why a request is not answered, with its status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Guard:
    """Lets through to ``app`` what the rules allow, without the token in the path."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page of ours opens anything else
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), *_encoded(HEADERS.items())]
            await send(message)

        try:
            inner = {**scope, "path": self._checked(scope), "raw_path": None, "root_path": ""}
            await self._app(inner, self._bounded(receive), send_guarded)
        except Refused as refused:
            if not begun:
                await _refuse(refused, send_guarded)

    def _checked(self, scope: Message) -> str:
        """The path behind the token; Refused for what the rules forbid."""
        headers: dict[str, list[str]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._rules.is_ours(hosts[0]):
            raise Refused(421, "this server is not called so")
        if scope["method"] not in _METHODS:
            raise Refused(405, "this cannot be done here")
        _, _, rest = scope["path"].partition("/")
        token, slash, path = rest.partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self._rules.token.encode()):
            raise Refused(403, "open the address that tagseg printed: it holds a secret")
        self._check_origin(scope, headers, hosts[0])
        self._check_length(headers.get("content-length", []))
        return f"/{path}"

    def _check_origin(self, scope: Message, headers: dict[str, list[str]], host: str) -> None:
        """Refuse what a page of somebody else asks for; what changes something tells its page."""
        own = f"{scope.get('scheme', 'http')}://{host}".lower()
        origins = headers.get("origin", [])
        if any(origin.lower() != own for origin in origins):
            raise Refused(403, "another page asks for this")
        if not origins and scope["method"] == "POST":
            raise Refused(403, "no page asks for this")
        if any(site not in _SAME for site in headers.get("sec-fetch-site", [])):
            raise Refused(403, "another page asks for this")

    def _check_length(self, lengths: Iterable[str]) -> None:
        for length in lengths:
            if not (length.isascii() and length.isdigit()):
                raise Refused(400, "how long is it?")
            if int(length) > self._rules.most:
                raise Refused(413, f"more than {self._rules.most:,} bytes")

    def _bounded(self, receive: Receive) -> Receive:
        """``receive``, which refuses more bytes than are allowed, told beforehand or not."""
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._rules.most:
                raise Refused(413, f"more than {self._rules.most:,} bytes")
            return message

        return bounded


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(key.encode(), value.encode()) for key, value in headers]


async def _refuse(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.why}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "connection": "close",  # the rest of what was sent is not read
    }
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": _encoded(headers.items()),
        }
    )
    await send({"type": "http.response.body", "body": body})
