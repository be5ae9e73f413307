"""The commands of the doctor: what they print, what they exit with, and that each error is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from raeburnmemory import MemoryGraph

pytest.importorskip("typer", reason="the command line needs typer")

from commands import CliRunner

from raeburnmemory.cli import app


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(params=["graph.json", "graph.db"])
def memory(request):
    with MemoryGraph(request.param, embedding_model="builtin") as made:
        made.add_interaction(
            {"id": "p1", "text": "Where is the key?"}, {"id": "r1", "text": "Under the pot."}, "ana", "s"
        )
    return request.param


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [*arguments], prog_name="raeburnmemory")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    if code not in {0, 1}:
        assert result.stdout == ""
        assert re.fullmatch(r"Error: [^\n]+\n", result.stderr), result.stderr
    return result.stdout if code in {0, 1} else result.stderr


def damage(memory):
    path = Path(memory)
    if memory == "graph.db":
        raw = bytearray(path.read_bytes())
        raw[100:140] = b"?" * 40
        path.write_bytes(bytes(raw))
    else:
        path.write_bytes(path.read_bytes()[:-4])


def test_verify_and_repair(memory):
    assert run("--db", memory, "verify").endswith("\nsound\n")
    assert "Note: There is nothing to mend" in CliRunner().invoke(app, ["--db", memory, "repair"]).stderr
    damage(memory)
    before = Path(memory).read_bytes()
    assert run("--db", memory, "verify", code=1).endswith("\nnot sound\n")
    found = json.loads(run("--db", memory, "verify", "--json", code=1))
    assert found["sound"] is False
    assert {finding["severity"] for finding in found["findings"]} >= {"error"}
    assert "would be done: write " in run("--db", memory, "repair", "--dry-run", code=1)
    assert Path(memory).read_bytes() == before
    report = json.loads(run("--db", memory, "repair", "--json"))
    assert report["sound"]
    assert [
        Path(name).read_bytes() for name in report["kept"] if name.startswith(str(Path(memory).resolve()) + ".damaged")
    ] == [before]
    assert run("--db", memory, "get", "p1").startswith("id ")
    assert "Files of before are kept" in run("--db", memory, "verify", "--model", "builtin")


def test_backup_and_restore(memory):
    copy = f"copy{Path(memory).suffix}"
    assert run("--db", memory, "backup", copy).startswith("Copied ")
    assert "already" in run("--db", memory, "backup", copy, code=2)
    assert json.loads(run("--db", memory, "backup", copy, "--force", "--json"))["nodes"] == 4
    run("--db", memory, "forget", "--id", "p1", "--yes")
    assert "NodeNotFound" not in run("--db", memory, "get", "p1", code=3)
    done = json.loads(run("--db", memory, "restore", copy, "--json"))
    assert done["nodes"] == 4
    assert run("--db", memory, "get", "p1").startswith("id ")
    assert run("--db", memory, "restore", copy).count("kept: ") >= 1
    assert "no memory" in run("--db", memory, "restore", "nothing.db", code=3)
    damage(memory)
    assert (
        "repair"
        in run("--db", memory, "backup", f"second{Path(memory).suffix}", code=1)
        + CliRunner().invoke(app, ["--db", memory, "backup", f"second{Path(memory).suffix}"]).stderr
    )


@pytest.mark.parametrize("name", ["compact", "vacuum"])
def test_compact(memory, name):
    assert re.search(r": \d+ bytes before, \d+ after\n$", run("--db", memory, name))
    done = json.loads(run("--db", memory, name, "--json"))
    assert done["after"] <= done["before"]


def test_schema(memory, tmp_path):
    assert run("--db", memory, "schema").rstrip().endswith("current")
    found = json.loads(run("--db", memory, "schema", "--json"))
    assert [file["format"] for file in found["files"]] == ([1, 1, 1] if memory == "graph.json" else [1])
    (tmp_path / "old.json").write_text('{"directed": true, "multigraph": false, "graph": {}, "nodes": [], "links": []}')
    assert run("--db", "old.json", "schema").rstrip().endswith("older")
    assert "kept: " in run("--db", "old.json", "schema", "--migrate")
    assert run("--db", "old.json", "schema").rstrip().endswith("current")


@pytest.mark.parametrize("name", ["verify", "repair", "compact", "schema"])
def test_a_memory_that_is_not_there(name):
    assert "nothing.db" in run("--db", "nothing.db", name, code=3)
    assert not list(Path().iterdir())
