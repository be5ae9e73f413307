"""`raeburnmemory hub --selftest`, and what a hub costs that nobody asks."""

import os
import socket
import subprocess
import time

import pytest
from hub_server import Command, send
from typer.testing import CliRunner

from raeburnmemory.cli import app
from raeburnmemory.hub.models.dialect import Traits, probe
from raeburnmemory.hub.server import stand_in
from raeburnmemory.hub.server.selftest import selftest

STEPS = [
    "start", "page", "pairing", "model", "project", "upload", "capture", "search", "memories", "answer", "thread",
    "summary", "openai", "embedding", "original", "events", "restart", "token",
]  # fmt: skip
IDLE = 150_000_000  # bytes


def run(*options):
    return CliRunner().invoke(app, ["hub", "--no-browser", "--no-plugins", "--selftest", *options])


@pytest.mark.skipif(os.name != "posix", reason="stand-ins of models run on POSIX systems")
def test_it_does_one_of_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("RAEBURN_HUB_HOME", str(tmp_path / "untouched"))
    found = run()
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [f"ok      {step}" for step in STEPS]
    assert "stand-in" in next(line for line in lines if line.startswith("ok      model"))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="stand-ins of models run on POSIX systems")
def test_the_stand_in_says_what_it_is_and_ends(tmp_path):
    """Or the hub would wait until its patience is over, and somebody's port would be taken meanwhile."""
    program = tmp_path / "stand-in.llamafile"
    program.write_bytes(stand_in.script())
    program.chmod(0o700)
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "version: 0 (stand-in)\n"
    assert probe(str(program), "script") == Traits("llama-server")


def test_a_step_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = run("--completions-url", f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
    assert found.exit_code == 1, found.output
    assert found.output.splitlines()[-1].startswith("failed  The step 'model' failed.")
    assert os.listdir(tmp_path) == []


@pytest.mark.long
def test_a_server_that_was_named_takes_the_part_of_the_model():
    said = []
    with stand_in.serving() as url:
        selftest(lambda name, done: said.append((name, done)), completions_url=url)
    assert [name for name, _ in said] == [step for step in STEPS if step != "embedding"]
    assert ("model", f"{url} has stand-in") in said


@pytest.mark.long
def test_a_hub_that_nobody_asks_takes_little_memory(tmp_path):
    psutil = pytest.importorskip("psutil", reason="memory is measured with psutil")
    token = "a-long-random-text-of-letters"
    bearer = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with Command(tmp_path / "hub", "--port", "0", RAEBURN_HUB_TOKEN=token).ready() as hub:
        for n in range(20):  # what it loads when it is first used counts
            body = b'{"text": "The tide at Leith turns %d minutes later each day."}' % n
            assert send(hub.port, "POST", "/api/v1/remember", bearer, body).status == 201
        assert send(hub.port, "POST", "/api/v1/search", bearer, b'{"query": "the tide"}').status == 200
        assert send(hub.port, "GET", "/openapi.json", bearer).status == 200
        time.sleep(2.0)
        taken = psutil.Process(hub.process.pid).memory_info().rss
        assert hub.end()[0] == 0
    print(f"{taken:,} bytes")
    assert taken < IDLE
