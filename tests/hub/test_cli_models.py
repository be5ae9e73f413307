"""The commands about local models: what they print, what they exit with, and that a model outlives no one it should not."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time

import pytest

typer = pytest.importorskip("typer", reason="the command line needs typer")
pytest.importorskip("httpx", reason="models are fetched with httpx")
pytest.importorskip("psutil", reason="the manager looks at memory and processes with psutil")

from commands import CliRunner  # noqa: E402
from file_server import FileServer, model_bytes  # noqa: E402
from outside import environment  # noqa: E402
from stand_in import make_model  # noqa: E402

from raeburnmemory.cli import app  # noqa: E402

pytestmark = pytest.mark.skipif(os.name != "posix", reason="models are run on POSIX systems")


@pytest.fixture
def store(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    monkeypatch.setenv("LLAMAFILES_DIR", str(folder))
    return folder


def run(*words):
    return CliRunner().invoke(app, ["models", *map(str, words)])


def good(*words):
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert result.stderr == "" or words[0] in {"plan", "start", "list"}
    return result.stdout


def data(*words):
    return json.loads(good(*words, "--json"))


def bad(code, *words):
    result = run(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture
def here(store):
    """Two stand-ins of models in the folder."""
    store.mkdir()
    make_model(store / "chat.llamafile")
    make_model(store / "words.llamafile")
    yield store
    run("stop", "--all")


# --- help


def commands():
    return typer.main.get_command(app).commands["models"].commands


@pytest.mark.parametrize("name", commands())
def test_every_command_has_examples_that_can_be_typed(name):
    command = commands()[name]
    examples = [line.strip() for line in command.help.partition("Example")[2].splitlines() if line.startswith("  ")]
    assert examples
    for line in examples:
        program, group, *words = shlex.split(line)
        assert (program, group, words[0]) == ("raeburnmemory", "models", name)
        assert len(line) < 78
        words = words[: words.index("--")] if "--" in words else words
        command.make_context(name, list(words[1:]), resilient_parsing=True)
        assert {each for each in words if each.startswith("-")} <= {opt for p in command.params for opt in p.opts}
    for parameter in command.params:
        assert parameter.param_type_name == "argument" or parameter.help, parameter.name


def test_the_group_shows_its_help():
    shown = CliRunner().invoke(app, ["models"])
    assert shown.exit_code == 0
    assert shown.stderr == ""
    assert all(name in shown.stdout for name in commands())


# --- files


def test_from_the_catalogue_to_the_file_and_back(store):
    with FileServer(model_bytes(300_000)) as server:
        assert good("add", "tiny", server.url, "--file", "tiny.llamafile", "--sha256", server.sha256) == (
            "Added tiny to the catalogue\n"
        )
        assert "Added words" in good(
            "add", "words", "https://example.org/some/words.gguf?download=true", "--kind", "embedding"
        )
        added = {each["name"]: each for each in data("list")}
        assert (added["words"]["filename"], added["words"]["format"]) == ("words.gguf", "gguf")
        assert re.search(r"^tiny +absent +chat +- +-$", good("list"), re.MULTILINE)
        planned = data("plan", "tiny")
        assert planned["bytes_missing"] == 300_000
        assert "bytes_missing  300 kB" in good("plan", "tiny")
        path = store / "tiny.llamafile"
        assert good("download", "tiny") == f"tiny is in {path}: 300 kB, its SHA-256 is right\n"
        assert path.read_bytes() == server.payload
        assert data("download", "tiny")["file_state"] == "ready"
        assert good("verify", "tiny") == "tiny is as it should be\n"
        assert [each["name"] for each in data("list", "--here")] == ["tiny"]
        assert data("status", "tiny")["simple_state"] == "idle"
        assert "sha256_verified  true" in good("status", "tiny")
        assert good("remove", "tiny") == "Removed tiny\n"
        assert good("remove", "tiny") == "Of tiny there was nothing here\n"
        assert data("remove", "tiny", "--forget") == {"removed": True}
        assert "'tiny'" in bad(3, "status", "tiny")
        assert len(server.gets) == 1


def test_importing(store, tmp_path):
    source = make_model(tmp_path / "mine.llamafile")
    assert good("import", source) == "Imported mine\n"
    assert (
        data("import", source, "--name", "mine", "--kind", "chat")["sha256"]
        == hashlib.sha256(source.read_bytes()).hexdigest()
    )
    assert not (store / "mine.llamafile").is_symlink()
    good("remove", "mine", "--forget")
    good("import", source, "--link", "--name", "linked")
    assert (store / "mine.llamafile").is_symlink()


def test_errors_are_one_line_and_a_code(store, tmp_path):
    page = tmp_path / "page.llamafile"
    page.write_text("<html>")
    assert "'nothing'. Known are: " in bad(3, "download", "nothing")
    assert "begins with" in bad(2, "import", page)
    assert "cannot be read" in bad(3, "import", tmp_path / "nothing")
    assert "https" in bad(2, "add", "m", "http://example.org/m.gguf")
    assert "'-x'" in bad(2, "add", "--", "-x", "https://example.org/m.gguf")
    assert "--all" in bad(2, "stop")
    assert "download()" in bad(3, "start", "tinyllama-1.1b-chat-v1.0.q5_k_s")
    assert "download()" in bad(3, "verify", "tinyllama-1.1b-chat-v1.0.q5_k_s")
    assert "one of" in bad(2, "download", "tinyllama-1.1b-chat-v1.0.q5_k_s", "--verify", "never")
    with FileServer(model_bytes(300_000)) as server:
        good("add", "m", server.url, "--sha256", "0" * 64)
        line = bad(1, "download", "m")
        assert server.sha256 in line
        assert "0" * 64 in line


def test_a_model_that_somebody_works_on_exits_with_5(store):
    from raeburnmemory.hub import LlamafileManager, ModelSpec

    with FileServer(model_bytes(300_000)) as server:
        server.script = [("stall", 1000)]
        with LlamafileManager() as models:
            models.add(ModelSpec("m", "m.llamafile", url=server.url))
            models.download("m", wait=False)
            while not server.gets:
                time.sleep(0.01)
            assert str(os.getpid()) in bad(5, "remove", "m")


def test_a_plan_that_does_not_fit_exits_with_1(store):
    good("add", "huge", "https://example.org/huge.gguf", "--size", 1 << 60)
    result = run("plan", "huge", "--offline")
    assert result.exit_code == 1
    assert "fits           false" in result.stdout
    assert "Warning: The disk has" in result.stderr


def test_a_terminal_shows_how_far_it_is_and_ctrl_c_pauses(store):
    """In a terminal of its own: the line is drawn, and the next download goes on where Ctrl-C came."""
    with FileServer(model_bytes(2_000_000)) as server:
        server.script = [("slow", 64 << 10, 0.05)]
        good("add", "m", server.url)
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "raeburnmemory", "models", "download", "m"],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment(COLUMNS="100"), start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        shown = read_until(ours, "left")
        process.send_signal(signal.SIGINT)
        shown += read_until(ours, "goes on with it")
        assert process.wait(20) == 130
        os.close(ours)
        assert re.search(r"\r\x1b\[Km +\d+ % of 2.00 MB  [\d.]+ [kM]B/s  \d:\d\d left", shown)
        assert "Note: Paused." in shown
        assert data("status", "m")["file_state"] == "paused"
        good("download", "m")
        assert server.ranges()[1] > 0
    assert (store / "file.llamafile").read_bytes() == server.payload


def read_until(terminal, text, seconds=40):
    shown, until = "", time.monotonic() + seconds
    while text not in shown:
        assert time.monotonic() < until, shown
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 4096).decode("utf-8", "replace")
            except OSError:  # the other end is gone
                break
    assert text in shown
    return shown


# --- processes


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def wait_until(what, seconds=20):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def real(here, tiny_chat_model):
    """The model `chat` says something: it is a real one."""
    make_model(here / "chat.llamafile", real=str(tiny_chat_model))
    return here


def test_a_detached_model_is_found_asked_and_stopped_by_others(real):
    told = data("start", "chat", "--detach", "--ctx", "512")
    try:
        assert alive(told["pid"])
        assert data("status", "chat", "--deep")["ok"] is True
        assert f"chat answers on {told['base_url']}" in good("start", "chat", "--detach")  # it runs already
        assert good("chat", "chat", "Hello", "--max-tokens", "8").strip()
        assert alive(told["pid"])
        assert re.search(r"^chat +ready ", good("list"), re.MULTILINE)
        assert "'chat' is ready" in bad(1, "remove", "chat")
        assert len(good("logs", "chat", "-n", "1").splitlines()) <= 1
    finally:
        assert good("stop", "chat") == "Stopped chat\n"
    wait_until(lambda: not alive(told["pid"]))
    assert good("stop", "--all") == "Nothing ran\n"
    result = run("status", "chat", "--deep")
    assert result.exit_code == 1
    assert "it is stopped" in result.stdout


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL]
)
def test_a_model_in_the_foreground_ends_with_the_command(here, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "raeburnmemory", "models", "start", "chat", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    told = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    assert alive(told["pid"])
    assert data("status", "chat")["pid"] == told["pid"]
    process.send_signal(number)
    code = process.wait(20)
    process.communicate()
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    wait_until(lambda: not alive(told["pid"]))


def test_what_another_command_stops_ends_the_one_that_waits(here):
    process = subprocess.Popen(
        [sys.executable, "-m", "raeburnmemory", "models", "start", "chat"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert "chat answers on http://127.0.0.1:" in process.stdout.readline()
    assert good("stop", "chat") == "Stopped chat\n"
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 0, complaint


def test_a_chat_line_by_line(real):
    result = CliRunner().invoke(
        app,
        ["models", "chat", "chat", "--system", "Be brief.", "--max-tokens", "8", "--seed", "1"],
        input="Hello\n\nAnd you?\n",
    )
    assert result.exit_code == 0, result.output
    assert len(result.stdout.strip().splitlines()) >= 2
    assert data("status", "chat")["process_state"] == "stopped"  # it was started for this


def test_a_model_that_fails_says_why(store):
    store.mkdir()
    (store / "broken.llamafile").write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    assert "code 3" in bad(1, "start", "broken")
    assert "out of luck" in good("logs", "broken")
