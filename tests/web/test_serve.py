"""``tagseg tag`` as a process: how it begins and ends, and what it says to what cannot work."""

from __future__ import annotations

import asyncio
import builtins
import json
import signal
import socket
from types import SimpleNamespace

import pytest

from small_runs import tagseg
from tagseg.errors import ConfigError
from tagseg.web import serve
from tagseg.web.serve import PORT, Address, Photos, listen, tag_photos
from web_pages import page_command, tagging_of, write_photos


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path / "photos", "a.jpg", "b.jpg")


def tagging(folder, *words):
    """The command as a process, its pages, and what it said before."""
    return page_command("tag", folder, *words)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped_and_all_is_in_the_tag_file(folder, number):
    with tagging(folder, "--port", "0") as (process, pages, said):
        assert said[0] == f"2 photos in {folder}\n"
        assert pages.url.startswith("http://127.0.0.1:")
        assert len(pages.url.split("/")[3]) >= 32
        pages.post({"act": "class", "name": "dog"})
        pages.post({"act": "tag", "class": 0, "photos": [0, 1]})
        process.send_signal(number)
        rest = process.stdout.read()
        assert rest == "stopped; every tag is on disk; the same command goes on\n"
        assert process.wait(20) in (130, 128 + number)
    assert (folder / "tags.csv").read_text() == "image,tags\na.jpg,dog\nb.jpg,dog\n"


def test_after_a_kill_every_act_that_was_answered_is_there(folder):
    with tagging(folder, "--port", "0") as (process, pages, _):
        pages.post({"act": "class", "name": "dog"})
        assert pages.post({"act": "tag", "class": 0, "photos": [1]}).status == 200
        process.kill()
    assert not (folder / "tags.csv").exists()
    with tagging_of(folder) as again:  # the lock has fallen with its process
        assert again.described([1])[0]["tags"] == (0,)
    assert (folder / "tags.csv").read_text() == "image,tags\nb.jpg,dog\n"


def test_what_cannot_work_gets_one_line(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    write_photos(tmp_path / "bad", "a.jpg")
    (tmp_path / "bad" / "tags.csv").write_bytes(b"\xff\xff\x00")
    (tmp_path / "run").mkdir()
    cases = {
        (tmp_path / "nowhere",): "this folder does not exist",
        (tmp_path / "empty",): "no photos in this folder",
        (folder / "a.jpg",): "this is one file",
        (tmp_path / "bad",): "not text",
        (folder, "--run", tmp_path / "run"): "holds no run",
        (folder, "--tags", tmp_path / "no.csv"): "no such tag file",
        (folder, "--classes", tmp_path / "no.txt"): "cannot be read",
        (folder, "--host", "203.0.113.1"): "cannot listen on 203.0.113.1",
        (folder, "--host", "no such host"): "cannot listen on no such host",
        (folder, "--port", "70000"): "less than or equal to 65535",
        (folder, "--port", "-1"): "greater than or equal to 0",
    }
    for words, why in cases.items():
        done = tagseg("tag", *words, "--no-browser")
        assert done.status == 2, words
        lines = done.err.strip().splitlines()
        assert len(lines) == 1, lines
        assert why in lines[0]
        assert lines[0].startswith("tagseg: error: ")


def test_a_port_that_is_taken(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"port {port}: Address already in use; give another"),
            listen(Address(port=port)),
        ):
            pass
    with listen(Address()) as first, listen(Address()) as second:
        assert first.getsockname()[1] != second.getsockname()[1]  # one of them is not the usual
    assert PORT == 8765


def test_it_listens_on_this_machine_alone(folder):
    with listen(Address(port=0)) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_without_its_packages_it_says_what_to_install(folder, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **more):
        if name in ("starlette", "uvicorn"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(
        ConfigError, match=r"need starlette and uvicorn; pip install 'tagseg\[web\]'"
    ):
        tag_photos(Photos(folder), Address(), say=print)


def test_the_browser_is_opened_once_and_only_with_a_screen(folder, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for key in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    serve._open("http://here/")
    assert not opened
    monkeypatch.setenv("DISPLAY", ":0")
    serve._open("http://here/")
    assert opened == ["http://here/"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/t/"),
        ("0.0.0.0", "http://127.0.0.1:80/t/"),
        ("::1", "http://[::1]:80/t/"),
        ("photos.lan", "http://photos.lan:80/t/"),
    ],
)
def test_the_address(host, url):
    assert serve._url(serve.Rules("t", host, 80)) == url


def test_two_servers_on_one_folder(folder):
    with tagging_of(folder):
        done = tagseg("tag", folder, "--no-browser", "--port", "0")
    assert done.status == 2
    assert "in use by process" in done.err
    assert "wait for it, or end it" in done.err


def test_no_act_is_lost_in_what_is_said(folder):
    with tagging_of(folder) as tagging:
        tagging.act({"act": "class", "name": "dog"})
    entries = (folder / "tags.journal").read_text().splitlines()
    assert json.loads(entries[1])["name"] == "dog"


def test_a_connection_that_came_while_the_server_ended_is_closed():
    """It would be found open when it is collected, in whatever runs by then."""
    closed, known = [], set()

    class Late:
        class transport:
            @staticmethod
            def abort():
                closed.append("late")

    class Server:
        server_state = SimpleNamespace(connections=known)

        async def serve(self, sockets):
            assert sockets == ["sock"]
            asyncio.get_running_loop().call_soon(known.add, Late())

    asyncio.run(serve._served(Server(), "sock"))
    assert closed == ["late"]
