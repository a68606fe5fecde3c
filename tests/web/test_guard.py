"""Who may ask for what: each rule by itself, without a server."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tagseg.web.guard import HEADERS, Guard, Rules, new_token

TOKEN = "k3y"


async def inner(scope, receive, send):
    """Answers with the path that it sees and how much it was sent."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{scope['path']} {size}".encode()})


def ask(
    path=f"/{TOKEN}/",
    *,
    method="GET",
    host="127.0.0.1:8765",
    body=(b"",),
    rules=Rules(TOKEN, "127.0.0.1", 8765, most=100),  # noqa: B008
    kind="http",
    **headers,
):
    """Status, headers and body of an answer."""
    given = {"host": host, **{key.replace("_", "-"): value for key, value in headers.items()}}
    encoded = [(k.encode(), v.encode()) for k, v in given.items() if v is not None]
    scope = {"type": kind, "method": method, "path": path, "headers": encoded, "scheme": "http"}
    parts, sent = list(body), []

    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(inner, rules)(scope, receive, send))
    if kind != "http":
        return sent
    start = sent[0]
    told = {key.decode(): value.decode() for key, value in start["headers"]}
    return start["status"], told, b"".join(m.get("body", b"") for m in sent[1:]).decode()


def post(**more):
    return ask(method="POST", **{"origin": "http://127.0.0.1:8765", **more})[0]


def test_what_is_allowed_reaches_the_pages_without_the_secret():
    assert ask(f"/{TOKEN}/api/act")[2] == "/api/act 0"
    assert ask(f"/{TOKEN}/")[2] == "/ 0"
    assert ask(host="localhost:8765")[0] == 200
    assert ask(method="POST", origin="http://localhost:8765", host="localhost:8765")[0] == 200
    assert ask(sec_fetch_site="same-origin")[0] == 200
    assert ask(sec_fetch_site="none")[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "", "/k3y", "/k3/", "/k3ys/", "/K3Y/", "//", "/é/", "/a/k3y/"]
)
def test_without_the_secret_nothing_is_told(path):
    status, headers, body = ask(path)
    assert status == 403
    assert "open the address that tagseg printed" in body
    assert TOKEN not in body + str(headers)


def test_secrets_are_long_and_new():
    assert len({new_token() for _ in range(100)}) == 100
    assert min(len(new_token()) for _ in range(100)) >= 32


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",  # a name that somebody made lead here
        "127.0.0.1:80",
        "127.0.0.1",
        "10.0.0.7:8765",
        "127.0.0.1.evil.example:8765",
        "0.0.0.0:8765",
        "",
        ":8765",
        "127.0.0.1:x",
        None,
    ],
)
def test_another_host_is_refused(host):
    assert ask(host=host)[0] == 421


def test_hosts_of_a_server_that_others_may_reach():
    open_to_all = Rules(TOKEN, "0.0.0.0", 8765)
    assert open_to_all.is_ours("192.168.0.7:8765")
    assert open_to_all.is_ours("[fe80::1]:8765")
    assert open_to_all.is_ours("127.0.0.1:8765")
    assert open_to_all.is_ours(f"{socket.gethostname()}:8765")
    assert not open_to_all.is_ours("evil.example:8765")
    assert not open_to_all.is_ours("0.0.0.0:8765")
    assert Rules(TOKEN, "photos.lan", 8765).is_ours("photos.lan:8765")
    assert Rules(TOKEN, "::1", 80).is_ours("[::1]")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:8765"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_other_pages_are_refused(headers):
    assert ask(**headers)[0] == 403
    assert post(**headers) == 403


def test_what_changes_something_must_tell_its_page():
    assert post() == 200
    assert post(origin=None) == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(method):
    assert ask(method=method)[0] == 405


def test_what_is_sent_is_bounded():
    assert post(body=(b"x" * 100,)) == 200
    assert post(body=(b"x" * 60, b"x" * 60)) == 413  # told or not
    assert post(content_length="101") == 413
    assert post(content_length="1e1") == 400
    assert post(content_length="-1") == 400


def test_every_answer_forbids_what_is_not_ours():
    for headers in (ask()[1], ask("/")[1]):
        assert {key: headers[key] for key in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy


def test_nothing_but_requests_is_answered():
    sent = ask(kind="websocket")
    assert sent == [{"type": "websocket.close", "code": 1008}]
