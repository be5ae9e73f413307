"""The command `raeburnmemory hub`: its start, its end, and what keeps it from starting."""

import contextlib
import os
import signal
import socket
import stat

import pytest
from hub_server import Command, send
from outside import waits_for_the_other_side
from typer.testing import CliRunner

from raeburnmemory.cli import app

TOKEN = "a-long-random-text-of-letters"


def refused(*options, **env):
    """Return the sentence with which a start ends, in this process; none of these gets as far as a port."""
    found = CliRunner().invoke(app, ["hub", "--no-browser", *options], env={"RAEBURN_HUB_TOKEN": None, **env})
    assert found.exit_code != 0, found.output
    assert "Traceback" not in found.output
    return found.exit_code, " ".join(found.output.split())


def test_it_starts_lets_a_browser_in_and_ends(tmp_path):
    home = tmp_path / "hub"
    with Command(home, "--port", "0").ready() as hub:
        assert send(hub.port, "GET", "/api/v1/health").json() == {"status": "ok"}
        answer = send(hub.port, "GET", f"/?code={hub.code}", {"Accept": "text/html"})
        cookie = answer.headers["set-cookie"].partition(";")[0]
        headers = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
        made = send(hub.port, "POST", "/api/v1/create_project?project_name=A", headers)
        assert made.json()["projects"][0]["id"] == 1
        assert not waits_for_the_other_side(hub.port, "GET", "/api/v1/list_projects", headers=headers)
        assert stat.S_IMODE(os.stat(home).st_mode) == 0o700

        with Command(home, "--port", "0") as second:
            code, errors = second.wait()
            assert code == 1
            assert f"http://localhost:{hub.port}" in errors
            assert errors.startswith("Error: A hub runs already")
            assert len(errors.splitlines()) == 1
        with Command(tmp_path / "other", "--port", str(hub.port)) as second:
            code, errors = second.wait()
            assert code == 1
            assert f"port {hub.port}" in errors
            assert len(errors.splitlines()) == 1

        more = CliRunner().invoke(app, ["hub", "--home", str(home), "--new-code"])
        assert more.exit_code == 0
        code = more.output.partition("code=")[2].split()[0]
        assert send(hub.port, "GET", f"/?code={code}", {"Accept": "text/html"}).status == 303
        assert more.output.splitlines()[1].startswith("Or pair with: ")
        status, errors = hub.end()
    assert (status, errors) == (0, "")
    assert (home / "memory.db").exists()
    with Command(home, "--port", "0").ready() as hub:  # what the browser was given lasts
        found = send(hub.port, "GET", "/api/v1/list_projects", {**headers, "Cookie": cookie})
        assert found.status == (200 if f"_{hub.port}=" in cookie else 401)
        assert hub.end(signal.SIGINT)[0] == 0
    again = CliRunner().invoke(app, ["hub", "--home", str(home), "--new-code"])
    assert again.exit_code == 3


def test_programs_that_say_nothing_keep_nobody_out(tmp_path):
    with Command(tmp_path / "hub", "--port", "0").ready() as hub, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", hub.port), 20)) for _ in range(510)]
        assert send(hub.port, "GET", "/api/v1/health").status == 200
        assert silent[0].recv(1) == b""  # those that waited longest are gone


def test_streams_do_not_keep_it_from_ending(tmp_path):
    sent = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with (
        Command(tmp_path / "hub", "--port", "0", RAEBURN_HUB_TOKEN=TOKEN).ready() as hub,
        socket.create_connection(("127.0.0.1", hub.port), timeout=30) as link,
    ):
        link.sendall(sent)
        assert link.recv(12) == b"HTTP/1.1 200"
        assert hub.end(seconds=20)[0] == 0


@pytest.mark.parametrize(
    ("options", "env", "says"),
    [
        (["--host", "0.0.0.0"], {}, "RAEBURN_HUB_TOKEN"),
        (["--host", "0.0.0.0"], {"RAEBURN_HUB_TOKEN": "short"}, "RAEBURN_HUB_TOKEN"),
        (["--chroma-db-path", "x"], {}, "--chroma-db-path"),
        (["--client-path", "x", "--port", "4445"], {}, "4444"),
        (["--client-path", "no-such-folder"], {}, "index.html"),
        (["--embedding-device", "tpu"], {}, "tpu"),
        (["--trust-origin", "*"], {}, "origin"),
        ([], {"RAEBURN_HUB_ORIGINS": "http://a/b"}, "origin"),
        (["--completions-url", "ftp://x"], {}, "ftp"),
        (["--port", "70000"], {}, "65535"),
        (["--host", "no.such.address.invalid"], {"RAEBURN_HUB_TOKEN": TOKEN}, "no.such.address.invalid"),
    ],
)
def test_it_says_in_a_sentence_why_it_does_not_start(tmp_path, options, env, says):
    code, output = refused("--home", str(tmp_path / "hub"), *options, RAEBURN_EMBED_MODEL="builtin", **env)
    assert says in output
    assert code in {1, 2}
    assert TOKEN not in output


def test_the_memory_is_the_one_that_was_named(tmp_path):
    with Command(tmp_path / "hub", "--port", "0", "--sqlite-db-path", str(tmp_path / "mine.db")).ready() as hub:
        hub.end()
    assert (tmp_path / "mine.db").exists()
    assert not (tmp_path / "hub" / "memory.db").exists()
