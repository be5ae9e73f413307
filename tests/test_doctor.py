"""The doctor: every kind of damage is found, mended from what is left, and named where nothing is left."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from outside import LOCKS, contents

from raeburnmemory import MemoryGraph, doctor
from raeburnmemory._optional import installed
from raeburnmemory.errors import InvalidInput, NotAStore, StoreCorrupt, StoreMissing, StoreTooNew
from raeburnmemory.index import open_index
from raeburnmemory.index._parts_file import examine_parts, write_parts
from raeburnmemory.nodes import Node

STORES = ["g.json", "g.db"]
VECTORS = ".faiss" if installed("faiss") else ".vectors.npy"
LONG = " ".join(f"Sentence {n} tells of the harbour, the boats and the weather of that day." for n in range(30))


def open_memory(path, **options):
    return MemoryGraph(path, "builtin", vector_backend="exact", **options)


def fill(path):
    """A memory with everything in it: history, facts, another namespace, passages, an update, a tombstone."""
    with open_memory(path) as memory:
        for n in range(40):
            memory.add_interaction(
                {"id": f"p{n}", "text": f"The red apple number {n} falls from the tree"},
                {"id": f"r{n}", "text": f"Answer number {n} about the green pear"},
                "ana",
                f"s{n % 3}",
                metadata={"n": n, "filler": "x" * 200},
                timestamp="2026-01-02T03:04:05+00:00",
            )
        memory.add_interaction({"id": "long", "text": LONG}, None, None, "s0")
        memory.update("p1", text="A blue apple falls")
        memory.fact("Ana", "lives_in", "Vienna", id="f1", source="p1")
        memory.link("p2", "p3", "next", weight=0.5)
        memory.forget("p39")
        with open_memory(path, namespace="work") as work:
            work.add_interaction({"id": "p1", "text": "Where is the stapler?"}, {"id": "r1", "text": "In the drawer."})


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    for name in STORES:
        (folder / name).mkdir()
        fill(folder / name / name)
    return folder


@pytest.fixture
def made(tmp_path, filled):
    """Return a function that gives a fresh copy of a filled memory by its name."""

    def copy(name):
        shutil.copytree(filled / name, tmp_path / "store")
        return tmp_path / "store" / name

    return copy


@pytest.fixture
def journalled(made):
    """A JSON memory with five changes in its journal."""
    path = made("g.json")
    memory = open_memory(path)
    for n in range(50, 55):
        memory.add_interaction(
            {"id": f"p{n}", "text": f"A late apple number {n}"}, {"id": f"r{n}", "text": "Late pear"}
        )
    copy = path.parent.with_name("journalled")
    shutil.copytree(path.parent, copy)
    memory.close()
    return copy / "g.json"


def ids(path):
    with open_memory(path, read_only=True) as memory:
        return {node["id"] for node in memory.export(False)["nodes"]}


def everything(path):
    with open_memory(path, read_only=True) as memory:
        return memory.export(False, all_namespaces=True)


def edit_json(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def sql(path, *statements, script=None):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        for statement in statements:
            db.execute(*statement) if isinstance(statement, tuple) else db.execute(statement)
        if script:
            db.executescript(script)
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def tells(report, word):
    return [text for text in [*report.lost, *report.done, *map(str, report.findings)] if word in text]


# --- sound memories ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORES)
def test_a_sound_memory_is_found_sound_and_counted(made, name):
    path = made(name)
    before = contents(path.parent)
    report = doctor.verify(path)
    assert report.sound, str(report)
    assert report.backend == {"g.json": "json", "g.db": "sqlite"}[name]
    data = everything(path)
    nodes = data["nodes"] + data["raeburnmemory_namespaces"]["work"]["nodes"]
    assert sum(report.counts["nodes"].values()) == len(nodes)
    assert report.counts["nodes"]["prompt"] == sum(node["type"] == "prompt" for node in nodes)
    assert report.counts["vectors"]["prompt"] == report.counts["nodes"]["prompt"]
    assert report.counts["vectors"]["prompt.passages"] > 1
    assert report.counts["history"] == 1
    assert report.counts["words"] > 20
    assert contents(path.parent) == before
    assert doctor.repair(path).done == []
    assert contents(path.parent) == before


def test_both_stores_have_the_same_digests(made, tmp_path, filled):
    one = doctor.verify(made("g.json"))
    with closing(sqlite3.connect(tmp_path / "x")):
        pass
    from raeburnmemory.store import open_store

    open_store(tmp_path / "store" / "g.json", "sqlite").close()  # copies the JSON memory
    other = doctor.verify(tmp_path / "store" / "g.db")
    assert one.digests == other.digests
    assert one.counts == other.counts
    with open_memory(tmp_path / "store" / "g.db") as memory:
        memory.update("p5", metadata={"n": 6})
    changed = doctor.verify(tmp_path / "store" / "g.db").digests
    assert {name for name in changed if changed[name] != one.digests[name]} == {"nodes", "history"}


@pytest.mark.parametrize("name", STORES)
def test_saved_words_need_not_hold_what_has_expired(made, name):
    path = made(name)
    with open_memory(path) as memory:
        memory.put([Node("gone", "memory", "A blue apple of yesterday", {}, expires_at=1.0)])
    save_words(path)
    assert doctor.verify(path).sound
    assert doctor.repair(path).done == []


@pytest.mark.parametrize("name", STORES)
def test_verify_writes_nothing_not_even_beside_a_log(made, name):
    path = made(name)
    with open_memory(path) as memory:
        memory.add_interaction({"id": "p99", "text": "While it is open"})
        folder = path.parent.with_name("killed")
        shutil.copytree(path.parent, folder)  # as a killed process leaves it
        for each in folder.iterdir():
            if each.name.endswith("-shm"):
                each.unlink()
            else:
                each.chmod(0o400)
        folder.chmod(0o500)
        before = {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in folder.iterdir()}
        report = doctor.verify(folder / name)
        assert report.sound, str(report)
        assert report.counts["nodes"]["prompt"] == 42
        assert {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in folder.iterdir()} == before
        folder.chmod(0o700)


def test_what_is_no_memory(tmp_path):
    with pytest.raises(StoreMissing, match="nothing.db"):
        doctor.verify(tmp_path / "nothing.db")
    (tmp_path / "page").write_text("<html>")
    with pytest.raises(NotAStore, match="page"):
        doctor.repair(tmp_path / "page")
    with pytest.raises(InvalidInput):
        doctor.verify(":memory:")
    (tmp_path / "other.db").write_bytes(b"")
    assert doctor.verify(tmp_path / "other.db").codes() == {"empty"}


# --- the damage matrix ------------------------------------------------------------------------------------------
#
# Each function damages a memory and returns what verify must call it (a code, or several of which one must be there)
# and what must survive: "all", "most" (all but what is named as lost), or "none" (only a backup helps).


def graph_bytes(path, change):
    path.write_bytes(change(path.read_bytes()))


def garble_line(raw, start, number=3):
    """Overwrite the middle of a line behind *start* with what is no JSON."""
    lines = raw.split(b"\n")
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    lines[first + number] = lines[first + number][:25] + b"\x00\xff}{" + lines[first + number][29:]
    return b"\n".join(lines)


def flip(raw, at, bit=0x04):
    changed = bytearray(raw)
    changed[at] ^= bit
    return bytes(changed)


def edit_header(path, change):
    """Change a field in the description of the vectors and make its checksum right again."""
    name = path.with_name(path.name + ".vectors.json")
    header = json.loads(name.read_text())
    change(header)
    header["crc32"] = zlib.crc32(json.dumps([header["fields"], header["lost"]]).encode())
    name.write_text(json.dumps(header))


def other_digit(raw):
    """Return *raw* with another first digit: a 0 would be the right one in one journal of sixteen."""
    return (b"1" if raw[:1] == b"0" else b"0") + raw[1:]


def spoil_vector(path, make):
    """Write other numbers into the file of vectors, with the right digest."""
    from hashlib import sha256

    name = path.with_name(path.name + VECTORS)
    raw = bytearray(name.read_bytes())
    dim = 256
    raw[-4 * dim :] = make(np.frombuffer(bytes(raw[-4 * dim :]), "<f4")).astype("<f4").tobytes()
    name.write_bytes(bytes(raw))
    edit_header(path, lambda h: h["fields"]["prompt"][0].update(sha256=sha256(bytes(raw)).hexdigest()))


def beside(path, ending):
    return path.with_name(path.name + ending)


JSON_DAMAGE = {
    "graph garbled in a node": (
        lambda p: graph_bytes(p, lambda raw: garble_line(raw, b'"nodes"')), {"graph"}, "most"),
    "graph garbled in an edge": (
        lambda p: graph_bytes(p, lambda raw: garble_line(raw, b'],\n"edges"'.split(b"\n")[1])), {"graph"}, "all"),
    "graph garbled in its numbers": (
        lambda p: graph_bytes(p, lambda raw: raw.replace(b'"rows": [[', b'"rows": [[[', 1)), {"graph"}, "all"),
    "graph cut in the middle": (
        lambda p: graph_bytes(p, lambda raw: raw[: len(raw) // 3]), {"graph"}, "most"),
    "graph cut at its end": (
        lambda p: graph_bytes(p, lambda raw: raw[:-3]), {"graph"}, "all"),
    "graph with a tail of zeros": (
        lambda p: graph_bytes(p, lambda raw: raw[:-5000] + bytes(5000)), {"graph"}, "most"),
    "graph flipped in a text": (
        lambda p: graph_bytes(p, lambda raw: raw.replace(b"red apple number 7 ", b"rad apple number 7 ")),
        {"store"}, "most"),
    "graph with other edges than links": (
        lambda p: edit_json(p, lambda d: d["edges"].pop()), {"graph"}, "all"),
    "graph with a node twice": (
        lambda p: edit_json(p, lambda d: d["nodes"].append(dict(d["nodes"][0]))), {"graph"}, "all"),
    "graph with an edge to nowhere": (
        lambda p: edit_json(p, lambda d: [d[k].append({"source": "p2", "target": "gone"}) for k in ("edges", "links")]),
        {"graph"}, "all"),
    "graph with another name for what it begins with": (
        lambda p: graph_bytes(p, lambda raw: raw.replace(b'"graph": {', b'"grapi": {', 1)), {"graph"}, "all"),
    "graph with another name for our entry": (
        lambda p: graph_bytes(p, lambda raw: raw.replace(b'"raeburnmemory": {', b'"raeburnmemosy": {', 1)), {"graph"}, "all"),
    "graph empty": (lambda p: p.write_bytes(b""), {"empty"}, "none"),
    "graph an HTML page": (lambda p: p.write_text("<html><body>502</body></html>"), {"graph"}, "none"),
    "graph another JSON": (lambda p: p.write_text("[1, 2]"), {"graph"}, "none"),
    "graph gone": (lambda p: p.unlink(), {"graph-missing"}, "none"),
    "graph a folder": (lambda p: (p.unlink(), p.mkdir()), {"not-a-file"}, "none"),
    "graph a pipe": (lambda p: (p.unlink(), os.mkfifo(p)), {"not-a-file"}, "none"),
    "graph a link in a circle": (lambda p: (p.unlink(), p.symlink_to(p.name)), {"not-a-file", "graph-missing"}, "none"),
    "a time that is none": (
        lambda p: refold(p, lambda d: d["nodes"][0].update(timestamp="last spring")), {"time"}, "all"),
    "journal with a wrong checksum": (
        lambda p: beside(p, ".journal").write_bytes(other_digit(beside(p, ".journal").read_bytes())), {"journal"}, "all"),
    "journal empty": (lambda p: beside(p, ".journal").write_bytes(b""), {"journal"}, "all"),
    "journal an HTML page": (
        lambda p: beside(p, ".journal").write_bytes(b"<html>\n</html>\n"), {"journal"}, "all"),
    "journal gone": (lambda p: beside(p, ".journal").unlink(), {"journal-missing"}, "all"),
    "journal a folder": (
        lambda p: (beside(p, ".journal").unlink(), beside(p, ".journal").mkdir()), {"not-a-file"}, "all"),
    "journal a pipe": (
        lambda p: (beside(p, ".journal").unlink(), os.mkfifo(beside(p, ".journal"))), {"not-a-file"}, "all"),
    "journal of another memory": (lambda p: other_journal(p, store="0" * 32), {"store"}, "all"),
    "journal of an older graph": (lambda p: other_journal(p, base=3), {"store"}, "all"),
    "journal of a newer graph": (lambda p: other_journal(p, base=999), {"store"}, "all"),
    "vectors gone": (lambda p: beside(p, VECTORS).unlink(), {"vectors-lost"}, "all"),
    "vectors cut": (
        lambda p: graph_bytes(beside(p, VECTORS), lambda raw: raw[:-100]), {"vectors-lost"}, "all"),
    "vectors flipped": (
        lambda p: graph_bytes(beside(p, VECTORS), lambda raw: flip(raw, -99)), {"vectors-lost"}, "all"),
    "vectors of responses gone": (lambda p: beside(p, ".response" + VECTORS).unlink(), {"vectors-lost"}, "all"),
    "vectors a pipe": (
        lambda p: (beside(p, VECTORS).unlink(), os.mkfifo(beside(p, VECTORS))), {"vectors-lost"}, "all"),
    "vectors a folder": (
        lambda p: (beside(p, VECTORS).unlink(), beside(p, VECTORS).mkdir()), {"vectors-lost"}, "all"),
    "description gone": (lambda p: beside(p, ".vectors.json").unlink(), {"vectors-lost"}, "all"),
    "description garbled": (
        lambda p: graph_bytes(beside(p, ".vectors.json"), lambda raw: flip(raw, 300)), {"vectors-lost"}, "all"),
    "a vector that is not finite": (
        lambda p: spoil_vector(p, lambda v: np.full_like(v, np.nan)), {"vector-damaged"}, "all"),
    "a vector of another length": (lambda p: spoil_vector(p, lambda v: v * 3), {"vector-damaged"}, "all"),
    "a vector of nobody": (
        lambda p: edit_header(p, lambda h: h["fields"]["response"][0]["rows"].__setitem__(0, 99999)),
        {"vectors-missing"}, "all"),
    "an impossible span": (
        lambda p: edit_header(p, lambda h: h["fields"]["prompt"][0]["spans"].update({"0": [0, 7, 5000]})),
        {"vector-damaged"}, "all"),
    "map gone": (lambda p: beside(p, ".map.json").unlink(), {"map"}, "all"),
    "map garbled": (lambda p: beside(p, ".map.json").write_text("{"), {"map"}, "all"),
    "map of other rows": (
        lambda p: edit_json(beside(p, ".map.json"), lambda d: d.update(p0=d["p1"])), {"map"}, "all"),
    "vectors that nothing describes": (
        lambda p: beside(p, ".stranger" + VECTORS).write_bytes(b"?"), {"stray-file"}, "all"),
    "a file of a killed process": (
        lambda p: beside(p, ".tmp-999999999-aa").write_bytes(b"?"), {"leftover"}, "all"),
    "a file that everybody may write": (lambda p: p.chmod(0o666), {"mode"}, "all"),
}  # fmt: skip


def refold(path, change):
    """Change the graph, and the digest of it in the journal, as a program with a fault of its own would."""
    from hashlib import sha256

    edit_json(path, change)
    other_journal(path, sha256=sha256(path.read_bytes()).hexdigest())


def other_journal(path, **changes):
    name = beside(path, ".journal")
    head = {**json.loads(name.read_bytes().split(b"\n")[0][9:]), **changes}
    payload = json.dumps(head).encode()
    name.write_bytes(b"%08x %b\n" % (zlib.crc32(payload), payload))


def page_of(path, table):
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]


def leaf_of(path, table):
    """Return a leaf page in the middle of a table, read from its root."""
    raw, root = path.read_bytes(), page_of(path, table)
    page = raw[(root - 1) * 4096 : root * 4096]
    assert page[0] == 0x05, f"{table} has only one page"
    count = struct.unpack(">H", page[3:5])[0]
    cell = struct.unpack(">H", page[12 + 2 * (count // 2) : 14 + 2 * (count // 2)])[0]
    return struct.unpack(">I", page[cell : cell + 4])[0]


def spoil_page(path, number, part=slice(0, 4096)):
    raw = bytearray(path.read_bytes())
    dice = random.Random(number)
    start, stop, _ = part.indices(4096)
    raw[(number - 1) * 4096 + start : (number - 1) * 4096 + stop] = dice.randbytes(stop - start)
    path.write_bytes(bytes(raw))


SQLITE_DAMAGE = {
    "empty": (lambda p: p.write_bytes(b""), {"empty"}, "none"),
    "an HTML page": (lambda p: p.write_text("<html>"), {"database"}, "none"),
    "header garbled": (lambda p: spoil_page(p, 1, slice(0, 60)), {"database"}, "all"),
    "first page garbled": (lambda p: spoil_page(p, 1), {"database"}, "all"),
    "first page garbled after VACUUM": (lambda p: (sql(p, "VACUUM"), spoil_page(p, 1)), {"database"}, "all"),
    "a leaf of the nodes garbled": (
        lambda p: spoil_page(p, leaf_of(p, "nodes")), {"integrity"}, "most"),
    "the root of the nodes garbled": (
        lambda p: spoil_page(p, page_of(p, "nodes")), {"integrity"}, "all"),
    "a leaf of the edges garbled": (lambda p: spoil_page(p, leaf_of(p, "edges")), {"integrity"}, "all"),
    "a leaf of the vectors garbled": (
        lambda p: spoil_page(p, leaf_of(p, "vectors")), {"integrity"}, "all"),
    "the root of an index garbled": (
        lambda p: spoil_page(p, page_of(p, "nodes_kind")), {"integrity"}, "all"),
    "cut at a page": (lambda p: p.write_bytes(p.read_bytes()[: 4096 * 45]), {"database"}, "most"),
    "cut within a page": (lambda p: p.write_bytes(p.read_bytes()[:-1000]), {"database"}, "most"),
    "a tail of zeros": (
        lambda p: p.write_bytes(p.read_bytes()[: -4096 * 3] + bytes(4096 * 3)), {"integrity"}, "most"),
    "an edge to nowhere": (
        lambda p: sql(p, "INSERT INTO edges(namespace, source, target, relation, data) "
                         "VALUES ('default', 'p2', 'gone', 'x', '{}')"), {"dangling-edges"}, "all"),
    "a node gone from under its edges": (
        lambda p: sql(p, "DELETE FROM nodes WHERE id = 'p7' AND namespace = 'default'"),
        {"dangling-edges"}, "most"),
    "attributes that are no JSON": (
        lambda p: sql(p, "UPDATE nodes SET attributes = '{' WHERE id = 'p7'"), {"rows"}, "most"),
    "a text that is no UTF-8": (
        lambda p: sql(p, "UPDATE nodes SET text = CAST(x'ff41' AS TEXT) WHERE id = 'p7'"), {"rows"}, "most"),
    "data of an edge that is no JSON": (
        lambda p: sql(p, "UPDATE edges SET data = '?' WHERE row = 3"), {"rows"}, "most"),
    "a time that is none": (
        lambda p: sql(p, "UPDATE nodes SET attributes = '{\"timestamp\": \"spring\"}' WHERE id = 'p7'"),
        {"time"}, "most"),
    "history of nobody": (
        lambda p: sql(p, "INSERT INTO history(row, kind, text, attributes) VALUES (99999, 'prompt', 'x', '{}')"),
        {"history-of-nobody"}, "all"),
    "a vector of nobody": (
        lambda p: sql(p, "UPDATE vectors SET row = 99999 WHERE key = (SELECT min(key) FROM vectors)"),
        {"vector-of-nobody"}, "all"),
    "a vector gone": (
        lambda p: sql(p, "UPDATE vectors SET row = NULL, vector = NULL WHERE key = (SELECT max(key) FROM vectors)"),
        {"vectors-missing"}, "all"),
    "a vector cut": (
        lambda p: sql(p, "UPDATE vectors SET vector = x'00' WHERE key = (SELECT min(key) FROM vectors)"),
        {"rows"}, "all"),
    "a vector that is not finite": (
        lambda p: sql(p, ("UPDATE vectors SET vector = ? WHERE key = (SELECT min(key) FROM vectors)",
                          (np.full(256, np.nan, "<f4").tobytes(),))), {"vector-damaged"}, "all"),
    "a vector of another length": (
        lambda p: sql(p, ("UPDATE vectors SET vector = ? WHERE key = (SELECT min(key) FROM vectors)",
                          (np.full(256, 0.5, "<f4").tobytes(),))), {"vector-damaged"}, "all"),
    "an impossible span": (
        lambda p: sql(p, 'UPDATE vectors SET start = 5, "end" = 9999 WHERE key = (SELECT min(key) FROM vectors)'),
        {"vector-damaged"}, "all"),
    "a vector twice": (
        lambda p: sql(p, 'INSERT INTO vectors SELECT key + 1000, row, part, start, "end", vector FROM vectors '
                         "WHERE key = (SELECT min(key) FROM vectors)"), {"vector-damaged"}, "all"),
    "vectors of another dimension": (
        lambda p: sql(p, ("UPDATE meta SET value = ? WHERE key = 'embedder'", (json.dumps({
            "name": "builtin", "dim": 3, "named": True,
            "probe": base64.b64encode(np.array([0.6, 0.8, 0], "<f4").tobytes()).decode()}),))),
        {"vector-dim"}, "all"),
    "a record that is no JSON": (
        lambda p: sql(p, "UPDATE meta SET value = '{' WHERE key = 'embedder'"), {"rows"}, "all"),
    "a record of the model with a wrong sign": (
        lambda p: sql(p, ("UPDATE meta SET value = ? WHERE key = 'embedder'", (json.dumps(spoiled_probe(p)),))),
        {"embedder-record"}, "all"),
    "no id": (lambda p: sql(p, "DELETE FROM meta WHERE key = 'store'"), {"store-id"}, "all"),
    "changes missing from the log": (lambda p: sql(p, "DELETE FROM log WHERE version = 7"), {"log"}, "all"),
    "an index missing": (lambda p: sql(p, "DROP INDEX edges_target"), {"indexes"}, "all"),
    "a table missing": (lambda p: sql(p, "DROP TABLE history"), {"tables"}, "most"),
    "another application": (lambda p: sql(p, "PRAGMA application_id = 7"), {"database"}, "all"),
    "a log that is none": (
        lambda p: beside(p, "-wal").write_bytes(b"?" * 5000), {"wal"}, "all"),
    "a saved index that is damaged": (
        lambda p: beside(p, ".prompt.index").write_bytes(b"?" * 500), {"index-damaged"}, "all"),
    "a saved index that is a folder": (lambda p: beside(p, ".prompt.index").mkdir(), {"index-damaged"}, "all"),
    "a saved index of another memory": (lambda p: save_index(p, store="x"), {"index-foreign"}, "all"),
    "a saved index of the future": (lambda p: save_index(p, version=9999), {"index-newer"}, "all"),
    "a saved index of another past": (lambda p: save_index(p, mark="ffffffff"), {"index-other-past"}, "all"),
    "a saved index with ghosts": (lambda p: save_index(p, ghosts=2), {"index-ghosts"}, "all"),
    "a saved index that is short": (lambda p: save_index(p, drop=2), {"index-short"}, "all"),
    "a saved index with other vectors": (lambda p: save_index(p, spoil=True), {"index-differs"}, "all"),
    "a file of a killed process": (
        lambda p: beside(p, ".tmp-999999999").write_bytes(b"?"), {"leftover"}, "all"),
    "a file that everybody may write": (lambda p: p.chmod(0o646), {"mode"}, "all"),
}  # fmt: skip

WORDS_DAMAGE = {
    "saved words that are cut off": (lambda p: save_words(p, cut=9), {"index-damaged"}, "all"),
    "saved words with a flipped bit": (lambda p: save_words(p, bit=2000), {"index-damaged"}, "all"),
    "saved words of another memory": (lambda p: save_words(p, store="x"), {"index-foreign"}, "all"),
    "saved words of another namespace": (lambda p: save_words(p, namespace="work"), {"index-foreign"}, "all"),
    "saved words of the future": (lambda p: save_words(p, version=9999), {"index-newer"}, "all"),
    "saved words of another past": (lambda p: save_words(p, mark="ffffffff"), {"index-other-past"}, "all"),
    "saved words with ghosts": (lambda p: save_words(p, rows=lambda v: v + 1000), {"index-ghosts"}, "all"),
    "saved words that are short": (
        lambda p: save_words(p, kinds=lambda v: np.where(v == v[0], -1, v)), {"index-short"}, "all"),
    "saved words of other texts": (
        lambda p: save_words(p, **{"words.starts": lambda v: v[::-1].copy()}), {"index-differs"}, "all"),
    "saved words with other ids": (lambda p: save_words(p, **{"ids.bytes": lambda v: v[::-1]}), {"index-differs"}, "all"),
}  # fmt: skip


def spoiled_probe(path):
    """Return the record of the model, with the sign of one number of its probe turned."""
    with closing(sqlite3.connect(path)) as db:
        record = json.loads(db.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchone()[0])
    probe = np.frombuffer(base64.b64decode(record["probe"]), "<f4").copy()
    at = int(np.argmax(np.abs(probe)))
    probe[at] = -probe[at]
    return {**record, "probe": base64.b64encode(probe.tobytes()).decode()}


def save_words(path, *, cut=0, bit=None, **changes):
    """Save the words of a memory, and then change the stamp or some parts, each by a function of what it was."""
    name = str(beside(path, ".words.index"))
    with open_memory(path) as memory:
        memory.recall("apple")
        memory._recall._saved.save(memory._recall._corpus, None)
    assert doctor.verify(path).sound
    stamp, parts = examine_parts(name)
    stamp = {key: changes.get(key, value) for key, value in stamp.items()}
    write_parts(name, stamp, {key: changes[key](part) if key in changes else part for key, part in parts.items()})
    raw = bytearray(Path(name).read_bytes())
    if bit is not None:
        raw[bit] ^= 4
    Path(name).write_bytes(raw[: len(raw) - cut])


def save_index(path, *, ghosts=0, drop=0, spoil=False, **stamp):
    """Write an index file that is whole and well stamped, but for what is asked for."""
    with closing(sqlite3.connect(path)) as db:
        store = json.loads(db.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()[0])
        version, changes = db.execute("SELECT version, changes FROM log ORDER BY version DESC").fetchone()
        number = db.execute("SELECT number FROM sets WHERE field = 'prompt'").fetchone()[0]
        found = db.execute(
            "SELECT key - (? << 40), vector FROM vectors WHERE key >> 40 = ? AND row NOT NULL ORDER BY key",
            (number, number),
        ).fetchall()
    found = found[drop:]
    found += [(found[-1][0] + 1 + n, found[0][1]) for n in range(ghosts)]
    rows = np.frombuffer(b"".join(raw for _, raw in found), "<f4").reshape(len(found), -1)
    index = open_index("exact", rows.shape[1])
    index.add(np.array([slot for slot, _ in found]), rows[::-1] if spoil else rows)
    stamp = {"store": store, "field": "prompt", "version": version, "mark": json.loads(changes)["mark"], **stamp}
    index.save(str(beside(path, ".prompt.index")), stamp)


MATRIX = [
    *(pytest.param("g.json", *case, id=f"json: {what}") for what, case in JSON_DAMAGE.items()),
    *(pytest.param("g.db", *case, id=f"sqlite: {what}") for what, case in SQLITE_DAMAGE.items()),
    *(pytest.param(name, *case, id=f"{name}: {what}") for name in STORES for what, case in WORDS_DAMAGE.items()),
]


@pytest.mark.parametrize(("name", "damage", "codes", "survives"), MATRIX)
def test_damage_is_found_and_mended(made, name, damage, codes, survives):
    path = made(name)
    whole, digests = everything(path), doctor.verify(path).digests
    for each in path.parent.iterdir():
        if each.name.endswith(LOCKS):
            each.unlink()
    damage(path)
    before = tree(path.parent)

    found = doctor.verify(path)
    assert not found.sound
    assert found.codes() & codes, str(found)
    assert tree(path.parent) == before

    planned = doctor.repair(path, dry_run=True) if survives != "none" else None
    assert tree(path.parent) == before
    if survives == "none":
        with pytest.raises(StoreCorrupt, match=r"restore"):
            doctor.repair(path)
        assert {key: value for key, value in tree(path.parent).items() if not key.endswith(LOCKS)} == before
        return
    assert planned.done

    report = doctor.repair(path)
    assert report.sound, str(report)
    assert report.done
    again = doctor.verify(path)
    assert again.sound, str(again)
    if found.codes() - {"vectors-missing", "mode", "leftover"}:
        assert set(before.values()) <= set(tree(path.parent).values())  # nothing is thrown away

    now, lost = everything(path), " ".join(report.lost)
    if survives == "all":
        assert named_nodes(now) == named_nodes(whole)
        assert edges_of(now) == edges_of(whole)
        assert {name: again.digests[name] == digests[name] for name in ("vectors", "words")} == {
            "vectors": True, "words": True,
        }  # fmt: skip
    elif survives == "most":
        assert lost or tells(report, "unreadable_")
        gone = set(named_nodes(whole)) - set(named_nodes(now))
        assert len(gone) < 60
        for node in gone:
            assert repr(node) in lost or "nodes behind the end" in lost, node
    with open_memory(path) as memory:
        assert memory.similar("a blue apple falls").ids[0] == "p1"
        memory.add_interaction({"id": "after", "text": "One more after the repair"})
    assert doctor.verify(path).sound

    settled = tree(path.parent)
    second = doctor.repair(path)
    assert (second.done, second.lost, second.sound) == ([], [], True)
    assert tree(path.parent) == settled


def tree(folder):
    """Every file as bytes, and what is no file as what it is."""
    found = {}
    for each in sorted(folder.iterdir()):
        if each.is_symlink():
            found[each.name] = os.readlink(each)
        elif each.is_file():
            if not each.name.endswith((*LOCKS, "-shm")) and not (
                each.name.endswith("-wal") and not each.stat().st_size
            ):
                found[each.name] = each.read_bytes()
        else:
            found[each.name] = "folder" if each.is_dir() else "pipe"
    return found


def named_nodes(data):
    return {node["id"]: node.get("text") for node in data["nodes"]}


def edges_of(data):
    return {
        (e["source"], e["target"], relation) for e in data["edges"] for relation in e.get("relations", [e["relation"]])
    }


# --- journals and logs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_damaged_change_costs_that_change_alone(journalled, at):
    whole = named_nodes(everything(journalled))
    journal = beside(journalled, ".journal")
    lines = journal.read_bytes().split(b"\n")
    spoiled = lines[at].replace(b"late apple", b"lame apple", 1)
    raw = b"\n".join([*lines[:at], spoiled, *lines[at + 1 :]])
    journal.write_bytes(raw)
    assert doctor.verify(journalled).codes() == {"journal"}
    report = doctor.repair(journalled)
    assert report.sound, str(report)
    assert set(whole) - set(named_nodes(everything(journalled))) == {f"p{49 + at}", f"r{49 + at}"}
    assert f"p{49 + at}" in " ".join(report.lost)
    assert raw in [each.read_bytes() for each in journalled.parent.iterdir() if ".journal.damaged-" in each.name]


def test_the_tail_of_a_journal_is_cut_off_and_kept(journalled):
    journal = beside(journalled, ".journal")
    raw = journal.read_bytes()
    at = raw.index(b"late apple number 52")
    journal.write_bytes(raw[:at] + bytes(len(raw) - at - 300) + b"\n" + raw[-300:])
    report = doctor.repair(journalled)
    assert report.sound, str(report)
    nodes = set(named_nodes(everything(journalled)))
    assert {"p50", "p51"} <= nodes
    assert not {"p52", "p53"} & nodes
    assert report.lost
    assert any(".journal.damaged-" in name for name in report.kept)


def test_what_was_forgotten_stays_forgotten_when_a_change_before_it_is_damaged(journalled):
    with open_memory(journalled) as memory:
        memory.add_interaction({"id": "x", "text": "A change that will be damaged"})
        memory.forget("p2")
        copy = {each.name: each.read_bytes() for each in journalled.parent.iterdir() if each.is_file()}
    for name, raw in copy.items():
        (journalled.parent / name).write_bytes(raw)
    journal = beside(journalled, ".journal")
    journal.write_bytes(journal.read_bytes().replace(b"will be damaged", b"will be changed"))
    report = doctor.repair(journalled)
    assert report.sound, str(report)
    assert not {"p2", "x"} & set(named_nodes(everything(journalled)))


def test_a_graph_is_made_again_from_a_journal_that_goes_back_to_the_beginning(tmp_path):
    path = tmp_path / "g.json"
    memory = open_memory(path)
    for n in range(5):
        memory.add_interaction({"id": f"p{n}", "text": f"An apple number {n}"}, {"id": f"r{n}", "text": "Yes"})
    files = contents(tmp_path)
    memory.close()
    for damage in (b"", b"<html>", files["g.json"][:40], None):
        for each in tmp_path.iterdir():
            each.unlink()
        for name, raw in files.items():
            (tmp_path / name).write_bytes(raw)
        path.unlink() if damage is None else path.write_bytes(damage)
        report = doctor.repair(path)
        assert (report.sound, report.lost) == (True, []), str(report)
        assert set(named_nodes(everything(path))) == {f"{kind}{n}" for kind in "pr" for n in range(5)}
        with open_memory(path) as memory:
            assert memory.similar("An apple number 3", 1).ids == ["p3"]


def test_a_graph_that_lies_beside_under_another_name_is_taken_back(journalled):
    whole = everything(journalled)
    shutil.move(journalled, beside(journalled, ".damaged-20260101T000000"))
    journalled.write_text("{")
    report = doctor.repair(journalled)
    assert (report.sound, report.lost) == (True, []), str(report)
    assert everything(journalled) == whole


def test_a_node_that_is_damaged_takes_only_its_edges_along(made):
    path = made("g.json")
    whole = everything(path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"text": "The red apple number 7 ', b'"text": The red apple number 7 '))
    report = doctor.repair(path)
    assert report.sound, str(report)
    now = everything(path)
    assert set(named_nodes(whole)) - set(named_nodes(now)) == {"p7"}
    assert edges_of(whole) - edges_of(now) == {e for e in edges_of(whole) if "p7" in e}
    assert "the node 'p7'" in report.lost
    vectors = doctor.verify(path).counts["vectors"]
    assert vectors["response"] == 41  # those of others were kept
    assert not tells(report, "made the vectors")


@pytest.fixture
def waiting(made):
    """A database whose newest commits are in its log, as a killed process leaves it."""
    path = made("g.db")
    with open_memory(path) as memory:
        for n in range(50, 55):
            memory.add_interaction({"id": f"p{n}", "text": f"A late apple number {n}"})
        copy = path.parent.with_name("waiting")
        shutil.copytree(path.parent, copy)
    beside(copy / "g.db", "-shm").unlink()
    return copy / "g.db"


def test_commits_in_the_log_count(waiting):
    report = doctor.verify(waiting)
    assert report.sound, str(report)
    assert "wal-waiting" in report.codes("note")
    assert report.counts["nodes"]["prompt"] == 46
    before = tree(waiting.parent)
    assert doctor.repair(waiting).done == []
    assert tree(waiting.parent) == before
    beside(waiting, "-wal").unlink()  # a log that is gone leaves no trace: the memory is that of the last checkpoint
    assert doctor.verify(waiting).counts["nodes"]["prompt"] == 41


def test_a_database_that_is_gone_leaves_what_its_log_holds(waiting):
    whole = ids(waiting)
    beside(waiting, "-wal").rename(waiting.with_name("kept"))
    waiting.unlink()
    waiting.with_name("kept").rename(beside(waiting, "-wal"))
    assert doctor.verify(waiting).codes() == {"graph-missing"}
    report = doctor.repair(waiting)
    assert report.sound, str(report)
    assert {f"p{n}" for n in range(50, 55)} <= ids(waiting) < whole
    assert all(repr(node) in " ".join(report.lost) for node in whole - ids(waiting))


@pytest.mark.parametrize("length", [1, 16, 31])
def test_a_log_that_was_begun_when_the_power_failed_is_no_damage(waiting, length):
    doctor.compact(waiting)
    beside(waiting, "-wal").write_bytes(b"\x37\x7f\x06\x82".ljust(length, b"\0")[:length])
    report = doctor.verify(waiting)
    assert report.sound, str(report)
    assert f"has {length} bytes" in str(report)
    with open_memory(waiting) as memory:
        assert "p1" in memory


def test_a_torn_log_is_no_damage_but_a_hole_in_it_is(waiting):
    wal = beside(waiting, "-wal")
    raw = wal.read_bytes()
    wal.write_bytes(raw[:-1000])
    report = doctor.verify(waiting)
    assert report.sound, str(report)
    assert report.counts["nodes"]["prompt"] == 45
    wal.write_bytes(flip(raw, len(raw) // 2))
    report = doctor.verify(waiting)
    assert "wal" in report.codes("error"), str(report)
    report = doctor.repair(waiting)
    assert report.sound, str(report)
    assert {"p1", "p50"} <= ids(waiting)
    assert "p54" not in ids(waiting)
    assert [each for each in waiting.parent.iterdir() if "-wal.damaged-" in each.name]


def test_a_log_of_another_database_is_taken_away(waiting, tmp_path):
    other = tmp_path / "other.db"
    memory = open_memory(other)
    for n in range(80):
        memory.add_interaction({"id": f"x{n}", "text": f"Of another memory {n}"})
    foreign = beside(other, "-wal").read_bytes()
    memory.close()
    whole = ids(tmp_path / "store" / "g.db")
    beside(waiting, "-wal").unlink()
    kept = ids(waiting)
    assert kept < whole
    for name in ("-wal", "-shm"):
        beside(waiting, name).unlink(missing_ok=True)
    beside(waiting, "-wal").write_bytes(foreign)
    assert doctor.verify(waiting).codes("error") & {"wal-foreign", "integrity"}
    report = doctor.repair(waiting)
    assert report.sound, str(report)
    assert ids(waiting) == kept
    assert foreign in [each.read_bytes() for each in waiting.parent.iterdir() if "-wal.damaged-" in each.name]


def test_a_change_that_was_not_finished_is_undone(made):
    path = made("g.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    db = sqlite3.connect(path)
    db.execute("PRAGMA cache_size = 1")
    db.execute("PRAGMA cache_spill = 1")
    db.execute("UPDATE nodes SET text = 'spoiled ' || text || hex(zeroblob(3000))")
    folder = path.parent.with_name("hot")
    shutil.copytree(path.parent, folder)
    db.rollback()
    db.close()
    hot = folder / "g.db"
    assert beside(hot, "-journal").stat().st_size > 0
    before = tree(folder)
    assert doctor.verify(hot).codes() == {"hot-journal"}
    assert tree(folder) == before
    report = doctor.repair(hot)
    assert report.sound, str(report)
    assert named_nodes(everything(hot))["p1"] == "A blue apple falls"


# --- pages of a database ----------------------------------------------------------------------------------------


def test_every_page_of_a_database_may_be_damaged(made, tmp_path):
    """Whatever page is garbled, it is found or holds nothing; what is lost is lost with that page, and named."""
    path = made("g.db")
    whole = path.read_bytes()
    nodes = set(named_nodes(everything(path)))
    folder = tmp_path / "one"
    sounds = 0
    for number in range(1, len(whole) // 4096 + 1):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "g.db").write_bytes(whole)
        spoil_page(folder / "g.db", number)
        if doctor.verify(folder / "g.db").sound:
            sounds += 1
            continue
        report = doctor.repair(folder / "g.db")
        assert report.sound, (number, str(report))
        gone = nodes - set(named_nodes(everything(folder / "g.db")))
        assert len(gone) <= 20, number
        assert all(repr(node) in " ".join(report.lost) for node in gone), (number, gone, report.lost)
    assert sounds <= 3  # free pages


def test_what_was_forgotten_is_not_dug_up_from_free_pages(made):
    path = made("g.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA secure_delete = OFF")
        for n in range(40):
            db.execute("DELETE FROM nodes WHERE id IN (?, ?)", (f"p{n}", f"r{n}"))
            db.execute("DELETE FROM edges WHERE source IN (?, ?) OR target IN (?, ?)", (f"p{n}", f"r{n}") * 2)
        db.execute("DELETE FROM history")
        db.execute("UPDATE vectors SET row = NULL, vector = NULL WHERE row NOT IN (SELECT row FROM nodes)")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    kept = ids(path)
    spoil_page(path, page_of(path, "edges"))
    assert not doctor.verify(path).sound
    report = doctor.repair(path)
    assert report.sound, str(report)
    assert ids(path) == kept
    assert b"red apple number 7" not in path.read_bytes()


@pytest.mark.parametrize("name", STORES)
def test_flipped_bits_are_found_or_mean_nothing(made, tmp_path, name):
    """Where a flip is not found, the memory opens and says of every node what it said, or the flip is in a value."""
    path = made(name)
    whole = path.read_bytes()
    dice = random.Random(5)
    folder = tmp_path / "flipped"
    found = 0
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(path.parent, folder)
        (folder / name).write_bytes(flip(whole, dice.randrange(len(whole)), 1 << dice.randrange(8)))
        report = doctor.verify(folder / name)
        if report.sound:
            assert name == "g.db"  # JSON has a digest of all
            continue
        found += 1
        try:
            assert doctor.repair(folder / name).sound
        except (StoreCorrupt, StoreTooNew) as exc:
            assert name in str(exc)
    assert found >= (40 if name == "g.json" else 5)


# --- formats ----------------------------------------------------------------------------------------------------


def newer_graph(path):
    edit_json(path, lambda data: data["graph"]["raeburnmemory"].update(format=99))


NEWER = {
    "graph": ("g.json", newer_graph),
    "journal": ("g.json", lambda p: other_journal(p, format=99)),
    "description of vectors": (
        "g.json",
        lambda p: edit_json(beside(p, ".vectors.json"), lambda d: d.update(format=99)),
    ),
    "database": ("g.db", lambda p: sql(p, "PRAGMA user_version = 99")),
}


@pytest.mark.parametrize("what", NEWER)
def test_newer_files_are_named_and_left_alone(made, what):
    name, change = NEWER[what]
    path = made(name)
    assert doctor.schema(path).state == "current"
    change(path)
    before = tree(path.parent)
    for call in (doctor.verify, doctor.repair, doctor.compact, lambda p: doctor.schema(p, migrate=True)):
        with pytest.raises(StoreTooNew, match="pip install"):
            call(path)
    found = doctor.schema(path)
    assert found.state == "newer"
    assert [file.format for file in found.files if file.format == 99] == [99]
    assert tree(path.parent) == before


def original_json(path):
    data = {
        "directed": True, "multigraph": False, "graph": {},
        "nodes": [{"type": "prompt", "text": "Hello", "id": "p1"}, {"type": "response", "text": "Hi", "id": "r1"}],
        "links": [{"relation": "responded_with", "source": "p1", "target": "r1"}],
    }  # fmt: skip
    path.write_text(json.dumps(data))


def original_sqlite(path):
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE nodes(id TEXT PRIMARY KEY, type TEXT, data TEXT);"
            "CREATE TABLE edges(src TEXT, dst TEXT, relation TEXT);"
            "INSERT INTO nodes VALUES ('p1', 'prompt', '{\"text\": \"Hello\"}'), ('r1', 'response', '{\"text\": \"Hi\"}');"
            "INSERT INTO edges VALUES ('p1', 'r1', 'responded_with');"
        )


@pytest.mark.parametrize(("name", "make"), [("g.json", original_json), ("g.db", original_sqlite)])
def test_older_files_are_migrated_when_that_is_asked_for(tmp_path, name, make):
    path = tmp_path / name
    make(path)
    raw = path.read_bytes()
    found = doctor.schema(path)
    assert found.state == "older"
    assert doctor.verify(path).codes() >= {"older"}
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {name: raw}
    if name == "g.db":
        with pytest.raises(InvalidInput, match="schema --migrate"):
            doctor.restore(path, tmp_path / "other.db")
    done = doctor.schema(path, migrate=True)
    assert (done.state, done.kept) == ("current", [f"{path}.original"])
    assert beside(path, ".original").exists()
    if name == "g.json":
        assert beside(path, ".original").read_bytes() == raw
    assert doctor.verify(path).codes() <= {"vectors-missing", "map"}
    assert doctor.schema(path, migrate=True).kept == []
    assert named_nodes(everything(path)) == {"p1": "Hello", "r1": "Hi"}


# --- reports ----------------------------------------------------------------------------------------------------


def test_reports_are_plain_data_and_text(made):
    path = made("g.db")
    sql(path, "DELETE FROM nodes WHERE id = 'p7' AND namespace = 'default'")
    report = doctor.verify(path)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["sound"] is False
    (dangling,) = [finding for finding in data["findings"] if finding["code"] == "dangling-edges"]
    assert dangling["ids"] == ["p7"]
    assert dangling["severity"] == "error"
    text = str(report)
    assert text.startswith(f"{path} (sqlite, version ")
    assert text.endswith("not sound")
    assert f"error: {dangling['message']}" in text


@pytest.mark.parametrize("name", STORES)
def test_a_model_of_the_program_is_not_replaced_by_another(tmp_path, name):
    from outside import Fake

    path = tmp_path / name
    with MemoryGraph(path, Fake(), vector_backend="exact") as memory:
        memory.add_interaction({"id": "p1", "text": "one apple"}, {"id": "r1", "text": "two pears"})
        memory.add_interaction({"id": "none", "text": "?"})  # the model knows no word of it
    assert doctor.verify(path).codes() == {"vectors-missing"}
    assert doctor.verify(path, embedding_model=Fake()).sound
    if name == "g.db":
        sql(path, "UPDATE vectors SET row = NULL, vector = NULL")
    else:
        beside(path, VECTORS).unlink()
    report = doctor.repair(path)
    assert not report.sound
    assert tells(report, "vectors, for now")
    report = doctor.repair(path, embedding_model=Fake())
    assert report.sound, str(report)
    assert report.counts["vectors"] == {"prompt": 1, "response": 1}
