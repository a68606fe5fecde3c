"""A server on this machine for as long as somebody works on a page; ``tagseg tag``."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tagseg.errors import ConfigError, WorkspaceError
from tagseg.web.guard import Guard, Rules, new_token

__all__ = [
    "PORT",
    "Address",
    "Opening",
    "Photos",
    "check_installed",
    "listen",
    "serve_page",
    "serving",
    "tag_photos",
]

PORT = 8765
"""Where the pages are if nothing else is said and nobody else is there."""

_PATIENCE = 10.0  # seconds for the server to begin, and for the last answers
_MOST_AT_ONCE = 200  # requests


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        host: an address of this machine, or a name of it.
        port: None for the usual one, or any that is free.
    """

    host: str = "127.0.0.1"
    port: int | None = None


class Opening(NamedTuple):
    """How a page is opened.

    Attributes:
        lines: to be said before its address.
        verb: what is done there.
        browser: whether to open it in the browser.
    """

    lines: Sequence[str]
    verb: str
    browser: bool


class Photos(NamedTuple):
    """What is to be tagged, as the command line has it.

    Attributes:
        folder: of the photos.
        tags: a tag file to begin with.
        classes: a class list.
        exclude: patterns of pictures that are no photos.
        run: a run whose classifier makes suggestions.
    """

    folder: Path
    tags: Path | None = None
    classes: Path | None = None
    exclude: tuple[str, ...] = ()
    run: Path | None = None


def tag_photos(
    photos: Photos, at: Address, *, browser: bool = True, say: Callable[[str], None]
) -> None:
    """Serve the page for tagging until a KeyboardInterrupt, which is the usual end.

    Raises ConfigError if the server's packages are not installed or it cannot listen there, and
    TagsegError if the photos cannot be tagged.
    """
    check_installed()
    from tagseg.web.app import tagging_app
    from tagseg.web.photo_folder import open_folder
    from tagseg.web.tagging import Begin, Tagging
    from tagseg.web.thumbnails import Thumbnails

    with listen(at) as sock:
        folder = open_folder(photos.folder, photos.exclude)
        suggested = None
        if photos.run is not None:
            from tagseg.web.suggestions import suggestions_of

            suggested = suggestions_of(photos.run, folder)
        tagging = Tagging(folder, Begin(photos.tags, photos.classes, suggested))
        try:
            if suggested is not None:
                suggested.start()
            lines = [*tagging.notes, f"{len(folder)} photos in {photos.folder}"]
            with serving(tagging_app(tagging, Thumbnails()), sock, at.host) as url:
                serve_page(url, Opening(lines, "tag them", browser), say)
        finally:
            tagging.close()


def serve_page(url: str, opening: Opening, say: Callable[[str], None]) -> None:
    """Say where the page is, open it, and wait for a KeyboardInterrupt."""
    for line in opening.lines:
        say(line)
    say(f"{opening.verb} here: {url}")
    say("Ctrl-C ends this; every act is on disk before the page says so")
    if opening.browser:
        _open(url)
    threading.Event().wait()


def check_installed() -> None:
    """Raise ConfigError if the server's packages are not there."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the pages need starlette and uvicorn", do="pip install 'tagseg[web]'"
        ) from None


@contextmanager
def listen(at: Address) -> Iterator[socket.socket]:
    """A socket that listens; ConfigError, with what to do, if that cannot be."""
    port = PORT if at.port is None else at.port
    try:
        sock = _bound(at.host, port)
    except OSError as problem:
        if at.port is not None:
            raise ConfigError(
                f"{at.host}, port {port}: {problem.strerror or problem}",
                do="give another --port, or none for one that is free",
            ) from None
        try:
            sock = _bound(at.host, 0)
        except OSError as other:
            raise ConfigError(
                f"cannot listen on {at.host}: {other.strerror or other}",
                do="give an address of this machine with --host",
            ) from None
    try:
        yield sock
    finally:
        sock.close()


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would take the port from another server
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


@contextmanager
def serving(app: Any, sock: socket.socket, host: str) -> Iterator[str]:
    """Serve ``app`` behind a guard in a thread of its own, and give the page's address.

    Signals stay with the main thread. At the end answers that are under way are finished.
    """
    import uvicorn

    rules = Rules(new_token(), host, sock.getsockname()[1])
    config = uvicorn.Config(
        Guard(app, rules),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_AT_ONCE,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(_served(server, sock)), name="pages", daemon=True
    )
    thread.start()
    try:
        _wait_until(lambda: server.started, thread)
        yield _url(rules)
    finally:
        server.should_exit = True
        thread.join(_PATIENCE)


async def _served(server: Any, sock: socket.socket) -> None:
    """Serve until the server is told to end, and leave no connection open.

    One that came while it was ending is known to it only afterwards.
    """
    await server.serve(sockets=[sock])
    await asyncio.sleep(0.01)
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(0.01)


def _wait_until(begun: Callable[[], bool], thread: threading.Thread) -> None:
    until = time.monotonic() + _PATIENCE
    while not begun():
        if not thread.is_alive() or time.monotonic() > until:
            raise WorkspaceError("the server of the pages did not begin", do="try another --port")
        time.sleep(0.01)


def _url(rules: Rules) -> str:
    """The address that leads to the pages from this machine, or by the host's own name."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(rules.host, rules.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{rules.port}/{rules.token}/"


def _open(url: str) -> None:
    """Open a browser with a window, if there is a screen to have one on."""
    screen = (
        sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if screen:
        with suppress(webbrowser.Error, OSError):
            webbrowser.open(url)
