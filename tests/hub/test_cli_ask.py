"""`raeburnmemory ask`: what it prints, where its citations lead, and what it does without a model."""

import json
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("typer", reason="the command line needs typer")
pytest.importorskip("httpx", reason="the hub speaks HTTP with httpx")
pytest.importorskip("platformdirs", reason="local models need platformdirs")

import tiny_model
from scripted import scripted
from stand_in import make_model
from typer.testing import CliRunner

from raeburnmemory import MemoryGraph
from raeburnmemory.cli import app
from raeburnmemory.hub import Ingestor

QUESTION = "What is Ana allergic to?"


@pytest.fixture
def script():
    with scripted() as server:
        yield server


@pytest.fixture
def db(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMAFILES_DIR", str(tmp_path / "models"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "health.md").write_text("# Health\n\nAna is allergic to peanuts\nand latex.\n")
    with MemoryGraph("memory.db", embedding_model="builtin") as memory:
        Ingestor(memory).sync(["notes"])
    return "memory.db"


def run(*arguments):
    return CliRunner().invoke(app, [*arguments], prog_name="raeburnmemory")


def test_it_answers_and_says_where_that_stands(db, script):
    script.says("Ana is allergic to peanuts [1] and cats [3].")
    result = run("--db", db, "ask", QUESTION, "--model", f"openai:{script.url}", "--session", "s")
    assert result.exit_code == 0, result.output
    answer, citation = result.stdout.strip().split("\n\n")
    assert answer == "Ana is allergic to peanuts [1] and cats."
    name, line = re.fullmatch(r"\[1\] (.+):(\d+)  Ana is allergic to peanuts and latex\.", citation).groups()
    with open(name) as file:
        assert file.read().splitlines()[int(line) - 1] == "Ana is allergic to peanuts"
    assert "Warning: The model cited sources that there are not: [3]." in result.stderr
    with MemoryGraph(db) as memory:
        assert [node.text for node in memory.thread("s")] == [QUESTION, answer]


def test_json_and_no_record(db, script):
    script.says("Ana is allergic to peanuts [1].")
    with MemoryGraph(db) as memory:
        before = memory.version
    result = run("--db", db, "ask", QUESTION, "--model", f"openai:{script.url}", "--json", "--no-record")
    told = json.loads(result.stdout)
    assert told["text"] == "Ana is allergic to peanuts [1]."
    assert told["citations"][0]["lines"] == [3, 4]
    assert told["recorded"] is None
    with MemoryGraph(db) as memory:
        assert memory.version == before


def test_what_is_not_known_is_said_without_a_model(db, script):
    result = run("--db", db, "ask", "Who is the president of France?", "--model", f"openai:{script.url}")
    assert result.exit_code == 0
    assert result.stdout.startswith("I don't know: ")
    assert script.asked == []
    assert "[1]" not in result.stdout


def test_a_follow_up_says_what_was_looked_for(db, script):
    script.says("Peanuts [1].", "What allergies does Ana have?", "Latex [1].")
    for question in (QUESTION, "And what else?"):
        result = run("--db", db, "ask", question, "--model", f"openai:{script.url}", "--session", "s")
    assert "Note: Looked for: What allergies does Ana have?" in result.stderr
    assert "Latex [1]." in result.stdout


def test_a_terminal_is_not_played_tricks_on(db, script):
    script.says("\x1b[31mPeanuts\x07 [1].")
    result = run("--db", db, "ask", QUESTION, "--model", f"openai:{script.url}")
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout


def test_without_a_model_it_says_how_to_name_one(db):
    result = run("--db", db, "ask", QUESTION)
    assert result.exit_code == 2
    assert "Name a model with --model" in result.stderr
    assert "There is none in the folder" in result.stderr
    result = run("--db", db, "ask", QUESTION, "--model", "nobody")
    assert result.exit_code != 0
    assert "nobody" in result.stderr
    port = tiny_model.free_port()
    assert "Traceback" not in result.stderr
    result = run("--db", "none.db", "ask", QUESTION, "--model", f"openai:http://127.0.0.1:{port}/v1")
    assert result.exit_code == 3
    assert not os.path.exists("none.db")


def test_it_streams_from_a_real_model(db, tiny_chat_model, tmp_path):
    """The words are noise, and come through as they are; what they cite is nothing, which is said."""
    with tiny_model.running(tiny_chat_model, tmp_path / "log") as server:
        command = [sys.executable, "-m", "raeburnmemory", "--db", db, "ask", QUESTION]
        command += ["--model", f"openai:{server.url}/v1", "--max-tokens", "30"]
        root = os.path.dirname(os.path.dirname(sys.modules["raeburnmemory"].__path__[0] + "/"))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, "PYTHONPATH": root}
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) > 10
    assert "The answer cites nothing." in done.stderr


@pytest.fixture
def local(db, tiny_chat_model, tmp_path):
    """A llamafile called `tiny`, in which a real model speaks."""
    pytest.importorskip("psutil", reason="models are watched with psutil")
    (tmp_path / "models").mkdir()
    make_model(tmp_path / "models" / "tiny.llamafile", real=str(tiny_chat_model))
    return db


@pytest.mark.parametrize("named", [["--model", "tiny"], []])
def test_a_local_model_is_started_asked_and_ended(local, named):
    """The folder has one chat model, which need not be named."""
    result = run("--db", local, "ask", QUESTION, "--max-tokens", "20", *named)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.strip()) > 10
    status = json.loads(run("models", "status", "tiny", "--json").stdout)
    assert "ready" not in json.dumps(status.get("process_state", status))
    with MemoryGraph(local) as memory:
        (response,) = memory.nodes("response")
        assert response.attributes["model"] == "tiny"
