"""Connections on which no whole head of a request comes: they end, and keep nobody out."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
from asking import serving, talked, until_ready

pytest.importorskip("fastapi", reason="the service needs fastapi")
uvicorn = pytest.importorskip("uvicorn", reason="the service needs uvicorn")

from raeburnmemory.web import heads  # noqa: E402

WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def slow(scope, receive, send):
    """Answer after a second, when asked for it."""
    if scope["type"] != "http":
        raise RuntimeError
    await asyncio.sleep(1.0 if scope["path"] == "/slow" else 0.0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module", params=[heads.H11, heads.Auto], ids=["h11", "auto"])
def port(request):
    config = uvicorn.Config(
        slow, http=request.param, lifespan="off", log_level="critical", limit_concurrency=20, timeout_keep_alive=5
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "SECONDS", 0.4)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def opened(port, sent=b""):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        if sent:
            link.sendall(sent)
        yield link


def ended(link, within=3.0):
    """Tell whether the other side closes a connection in time."""
    link.settimeout(within)
    try:
        while link.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc", WHOLE + b"GET /"])
def test_a_head_that_does_not_come_ends_its_connection(port, sent):
    with opened(port, sent) as link:
        assert ended(link)


def test_a_head_that_drips_ends_its_connection(port):
    with opened(port, b"GET / HTTP/1.1\r\n") as link:
        until = time.monotonic() + 5
        while not ended(link, 0.05):
            assert time.monotonic() < until
            with contextlib.suppress(ConnectionError):
                link.sendall(b"X-More: 1\r\n")


def test_a_head_that_has_no_end_ends_its_connection(port):
    with opened(port) as link, contextlib.suppress(ConnectionError):
        link.sendall(b"GET / HTTP/1.1\r\n" + b"X-More: 1\r\n" * (heads.MOST // 8))
        link.settimeout(20)
        assert not link.recv(65536).startswith(b"HTTP/1.1 200")


def test_an_answer_may_take_its_time(port):
    asked = WHOLE.replace(b"GET /", b"GET /slow").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert talked(port, asked).endswith(b"\r\n\r\nok")
    both = asked.replace(b"Connection: close\r\n", b"") + asked  # the second was sent while the first was answered
    assert talked(port, both).count(b"ok") == 2


def test_connections_that_say_nothing_keep_nobody_out(port, monkeypatch):
    monkeypatch.setattr(heads, "SECONDS", 60.0)
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(opened(port, WHOLE.replace(b"GET /", b"GET /slow")))
        silent = [stack.enter_context(opened(port, b"GET / HT" * (number % 2))) for number in range(50)]
        assert talked(port, WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert ended(silent[0])
        assert not ended(silent[-1], 0.2)  # those who came last may still say something
        busy.settimeout(20)
        assert busy.recv(65536).startswith(b"HTTP/1.1 200")


def test_the_service_is_kept_open_for_others(tmp_path):
    with serving(tmp_path) as server, contextlib.ExitStack() as stack:
        until_ready(server)
        first = stack.enter_context(opened(server.port, b"GET / HT"))
        for _ in range(510):
            stack.enter_context(opened(server.port))
        assert ended(first)
