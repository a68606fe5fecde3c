"""What tests of the pages share: folders of photos, and requests to a server that runs."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.web.photo_folder import PhotoFolder, open_folder
from tagseg.web.tagging import Begin, Tagging


def write_photos(folder: Path, *names: str, side: int = 24) -> Path:
    """Small photos of these names (``a.jpg``), each of a colour of its own."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((side, side + 8, 3), (number * 50) % 256, np.uint8)
        PilImage.fromarray(pixels).save(path)
    return folder


@contextmanager
def tagging_of(folder: Path, begin: Begin = Begin()) -> Iterator[Tagging]:  # noqa: B008
    """Tagging of a folder, closed at the end."""
    tagging = Tagging(open_folder(folder), begin)
    try:
        yield tagging
    finally:
        tagging.close()


def killed(tagging: Tagging) -> PhotoFolder:
    """Let go of the folder as a kill does, with nothing written any more."""
    tagging._closing.set()
    tagging._changed.set()
    tagging._writer.join()
    tagging._held.close()
    return tagging.photos


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Pages:
    """The pages at an address."""

    url: str

    def get(self, path: str = "", **headers: str) -> Answer:
        return self.ask("GET", urlsplit(self.url).path + path, None, headers)

    def post(self, wanted: object, path: str = "api/act", **headers: str) -> Answer:
        parts = urlsplit(self.url)
        body = wanted if isinstance(wanted, bytes) else json.dumps(wanted).encode()
        own = {"Origin": f"{parts.scheme}://{parts.netloc}"}
        return self.ask("POST", parts.path + path, body, {**own, **headers})

    def ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        parts = urlsplit(self.url)
        sent = {key.replace("_", "-"): value for key, value in headers.items() if value}
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
        try:
            connection.request(method, path, body, sent, encode_chunked=hasattr(body, "__next__"))
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()


def _heeding() -> None:
    """SIGINT is ignored where the tests run in the background, and so it would be in a child."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def page_command(
    *words: object,
) -> Iterator[tuple[subprocess.Popen[str], Pages, list[str]]]:
    """A command that serves pages, as a process; its pages, and what it said before."""
    with subprocess.Popen(
        [sys.executable, "-m", "tagseg", *map(str, words), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=_heeding,
    ) as process:
        assert process.stdout is not None
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                found = re.search(r"http://\S+", line)
                if found:
                    process.stdout.readline()
                    yield process, Pages(found[0]), said
                    break
            else:
                pytest.fail("".join(said))
        finally:
            process.kill()
