"""Files as every version wrote them, the original's included: they open, hold what they held, and take writes.

scripts/format_fixtures.py made them, each folder once. What they hold is said here by hand.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from outside import contents

import raeburnmemory
from raeburnmemory import MemoryGraph, doctor
from raeburnmemory.importers import import_file

ROOT = Path(__file__).resolve().parent.parent
FORMATS = ROOT / "tests" / "fixtures" / "formats"
VERSIONS = sorted(path.name for path in FORMATS.iterdir() if path.name != "original")
OURS = [(version, kind) for version in VERSIONS for kind in ("json", "journal", "sqlite")]
ORIGINALS = ["json-faiss", "json-npy", "json-zeros", "sqlite-float32", "sqlite-pgvector"]

needs_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="vectors in a file of faiss need faiss"
)


@pytest.fixture
def taken(tmp_path):
    def take(*where):
        shutil.copytree(FORMATS.joinpath(*where), tmp_path / "taken")
        for path in (tmp_path / "taken").iterdir():
            os.chmod(path, 0o600)
        (found,) = [path for path in (tmp_path / "taken").iterdir() if path.name in {"graph.json", "graph.db"}]
        return found

    return take


def test_every_release_has_its_files():
    """Whoever raises the version runs scripts/format_fixtures.py, or formats go untested from then on."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = set(re.findall(r"^## \[(\d[^\]]*)\]", text, re.MULTILINE))
    assert released <= set(VERSIONS)
    assert raeburnmemory.__version__ in VERSIONS
    for version in VERSIONS:
        assert {path.name for path in (FORMATS / version).iterdir()} == {"json", "journal", "sqlite", "postgres"}


def check(memory, *, late=False, history=True):
    said = {node.id: node for node in memory}
    there = {"p1", "r1", "a1", "s1", "f1", "f2", "long", "s2", "soon"}
    assert set(said) == there | ({"late", "late-r"} if late else set())
    assert said["p1"].text == "Where is the spare key?"
    assert said["p1"].attributes["topic"] == "house"
    assert said["p1"].timestamp.replace("Z", "+00:00") == "2026-11-20T09:30:00+00:00"
    assert said["r1"].text == "Under the blue pot. 😀"
    assert [node.text for node in memory.history("r1")] == (["Under the pot."] if history else [])
    assert said["a1"].attributes["traits"] == ["kind", {"calm": True}]
    assert {(link.target, link.relation, link.data.get("by")) for link in memory.links("p1", direction="out")} == {
        ("r1", "responded_with", None),
        ("r1", "checked_by", "ben"),
        ("s1", "belongs_to", None),
    }
    assert [fact.id for fact in memory.facts("Ana", "lives_in", as_of="2021-06-01")] == ["f1"]
    assert [fact.id for fact in memory.facts("Ana", "lives_in")] == ["f2"]
    assert said["soon"].expires_at == 32503680000.0
    assert memory.recall("the key", k=1)[0].id == "p1"
    assert memory.similar("Word150 is here.", k=1)[0].id == "long"


@needs_faiss
@pytest.mark.parametrize(("version", "kind"), OURS, ids=lambda value: value)
def test_files_of_every_version(version, kind, taken):
    path = taken(version, kind)
    before = contents(path.parent)
    with MemoryGraph(path, read_only=True) as memory:
        check(memory, late=kind == "journal")
        with MemoryGraph(path, namespace="work", read_only=True) as work:
            assert {node.text for node in work} == {"Where is the stapler?", "On the desk."}
    assert contents(path.parent) == before
    assert doctor.verify(path).sound
    with MemoryGraph(path) as memory:
        memory.add_interaction({"id": "new", "text": "Which ladder?"}, {"id": "new-r", "text": "The long one."})
        assert memory.fact("Ana", "lives_in", "Graz", valid_from="2025-01-01").id
        assert [fact.attributes["object"] for fact in memory.facts("Ana", "lives_in")] == ["Graz"]
    with MemoryGraph(path) as memory:
        assert memory.recall("the ladder", k=1)[0].id == "new"
        assert memory.get("p1").text == "Where is the spare key?"
    assert doctor.verify(path).sound
    assert doctor.schema(path).state == "current"


@pytest.fixture
def brought_back(postgres_server):
    """Return a function that brings the dump of a version into a real server, and its URL."""
    import psycopg

    schema = "raeburnmemory_formats"  # as it is in the dumps

    def bring(version):
        dump = (FORMATS / version / "postgres" / "schema.sql").read_text(encoding="utf-8")
        with psycopg.connect(postgres_server.uri) as db:
            db.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")  # no dump of a schema brings it
            db.execute(dump)
        return f"{postgres_server.uri}&schema={schema}"

    yield bring
    with psycopg.connect(postgres_server.uri, autocommit=True) as db:
        db.execute("SET client_min_messages = warning")
        db.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def rows_of(url):
    """Return every row of every table of the schema."""
    import psycopg

    tables = ("edges", "history", "log", "meta", "nodes", "sets", "state", "vectors")
    schema = url.rpartition("=")[2]
    with psycopg.connect(url.partition("&schema=")[0]) as db:
        return {name: sorted(map(repr, db.execute(f"SELECT * FROM {schema}.{name}"))) for name in tables}


@pytest.mark.parametrize("version", VERSIONS)
def test_postgres_schemas_of_every_version(version, brought_back):
    url = brought_back(version)
    before = rows_of(url)
    with MemoryGraph(url, read_only=True) as memory:
        check(memory)
        with MemoryGraph(url, namespace="work", read_only=True) as work:
            assert {node.text for node in work} == {"Where is the stapler?", "On the desk."}
    assert rows_of(url) == before
    assert doctor.verify(url).sound
    with MemoryGraph(url) as memory:
        memory.add_interaction({"id": "new", "text": "Which ladder?"}, {"id": "new-r", "text": "The long one."})
        memory.update("r1", text="Under the red pot.")  # its history goes on where the dump's numbers end
        assert memory.fact("Ana", "lives_in", "Graz", valid_from="2025-01-01").id
        assert [fact.attributes["object"] for fact in memory.facts("Ana", "lives_in")] == ["Graz"]
    with MemoryGraph(url) as memory:
        assert memory.recall("the ladder", k=1)[0].id == "new"
        assert [node.text for node in memory.history("r1")] == ["Under the pot.", "Under the blue pot. 😀"]
    assert doctor.verify(url).sound


@pytest.mark.parametrize("version", VERSIONS)
def test_exports_of_every_version(version, tmp_path):
    with MemoryGraph(tmp_path / "back.db", embedding_model="builtin") as memory:
        import_file(memory, "jsonl", FORMATS / version / "sqlite" / "export.jsonl")
        check(memory, history=False)  # an export is of what there is now


def dump(path):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        return list(db.iterdump())


@pytest.mark.parametrize("kind", ORIGINALS)
def test_files_of_the_original(kind, taken):
    if kind in {"json-faiss", "json-zeros"} and importlib.util.find_spec("faiss") is None:
        pytest.skip("vectors in a file of faiss need faiss")
    path = taken("original", kind)
    written = path.read_bytes()
    assert doctor.schema(path).state == "older"
    with MemoryGraph(path, embedding_model="builtin") as memory:
        assert [node.id for node in memory] == ["p1", "r1", "a1", "s1", "p2"]
        assert dict(memory.get("r1").attributes) == {"model": "m", "agent_id": "a1", "score": 0.25}
        assert memory.get("s1").attributes["start_time"] == 1714557600
        assert {(link.source, link.target, link.relation) for node in memory for link in memory.links(node.id)} == {
            ("p1", "r1", "responded_with"),
            ("r1", "a1", "generated_by"),
            ("p1", "s1", "belongs_to"),
        }
        memory.reindex() if kind == "json-zeros" else memory.reembed("builtin")  # its model is not here
        assert memory.get_similar_prompts("where is a key", top_k=1) == ["p2"]
    kept = Path(f"{path}.original")
    if kind.startswith("json"):
        assert kept.read_bytes() == written
    else:
        assert dump(kept) == dump(FORMATS / "original" / kind / "graph.db")
    assert doctor.schema(path).state == "current"
    assert doctor.verify(path).sound
    with MemoryGraph(path) as memory:
        assert json.dumps(memory.get("a1").attributes["traits"]) == '["kind"]'
