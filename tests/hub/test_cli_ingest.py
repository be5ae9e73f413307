"""The commands about documents, as a user sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from ingesting import write
from outside import end, environment

from raeburnmemory.memory_graph import MemoryGraph

pytest.importorskip("typer", reason="the command line needs typer")

from typer.testing import CliRunner

from raeburnmemory import cli


def raeburn(*args, code=0, db="m.db"):
    """Run a command here, in this very process, and return what it printed, errors after all else."""
    done = CliRunner().invoke(cli.app, ["--db", db, *args])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAEBURN_EMBED_MODEL", "builtin")
    write(tmp_path / "docs/guide.md", "# Guide\n\nTake salt for red wine.\n")
    write(tmp_path / "docs/list.txt", "Bread\n")
    return tmp_path


def test_documents_come_change_and_go(place):
    assert "2 added" in raeburn("ingest", "docs", "--dry-run")
    assert not (place / "m.db").exists()
    assert raeburn("ingest", "docs").startswith("2 added\nfragments: 2 added")
    found = json.loads(raeburn("recall", "salt", "--json"))["hits"]
    assert found[0]["place"]["lines"] == [1, 3]
    assert found[0]["place"]["name"] == "docs/guide.md"
    write(place / "docs/list.txt", "Butter\n")
    said = json.loads(raeburn("sync", "--json"))
    assert (said["updated"], said["unchanged"], said["chunks_removed"]) == (1, 1, 1)
    os.remove(place / "docs/list.txt")
    os.remove(place / "docs/guide.md")
    assert "kept" in raeburn("sync")
    assert "2 pruned" in raeburn("sync", "--force", "--dry-run")
    assert "2 skipped" in raeburn("sync", "--force", "--no-prune")
    assert "2 pruned" in raeburn("sync", "--force")
    assert raeburn("sources") == ""


def test_what_fails_ends_with_1(place):
    write(place / "docs/broken.txt", b"\xff\xfe\x00\xd8\x41")
    assert "1 failed" in raeburn("ingest", "docs", code=1)
    said = json.loads(raeburn("sources", "--status", "failed", "--json"))
    assert [(one["name"], one["attempts"]) for one in said] == [("docs/broken.txt", 1)]
    assert "docs/broken.txt" in raeburn("sync", code=1)
    assert "Removed documents: 1, with fragments: 0." in raeburn("sources", "--remove", "docs/broken.txt")
    assert "No document" in raeburn("sources", "--remove", "docs/broken.txt", code=3)
    assert "There is nothing at this path" in raeburn("ingest", "nowhere", code=1)
    assert "Leave one of them out" in raeburn("ingest", "docs", "--watch", "--dry-run", code=2)


def test_an_address_of_this_network_must_be_allowed(place):
    pytest.importorskip("httpcore", reason="the web is asked by httpcore")
    assert "blocked_url" in raeburn("ingest", "http://127.0.0.1:9/x", "--json", code=1)
    said = raeburn("ingest", "http://127.0.0.1:9/x", "--json", "--allow-host", "127.0.0.1:9", "--force", code=1)
    assert "fetch_failed" in said


def test_collections(place):
    raeburn("ingest", "docs/guide.md", "--collection", "mine")
    assert raeburn("sources") == ""
    assert raeburn("sources", "--collection", "mine").split()[:3] == ["ok", "1", "guide.md"]


def test_watching_until_it_is_interrupted(place):
    pytest.importorskip("watchfiles", reason="folders are watched by watchfiles")
    process = subprocess.Popen(
        [sys.executable, "-m", "raeburnmemory", "--db", "m.db", "ingest", "docs", "--watch"],
        cwd=place, env=environment(RAEBURN_EMBED_MODEL="builtin"), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "2 added\n"
        write(place / "docs/new.txt", "Something new.")
        process.stdout.readline()
        assert process.stdout.readline() == "1 added, 2 unchanged\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in {0, 130}
    finally:
        end(process)
    with MemoryGraph(place / "m.db") as memory:
        assert memory.recall("something new", kinds="fragment")[0].citation == "docs/new.txt:1"
