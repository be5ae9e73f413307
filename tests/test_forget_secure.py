"""Forgetting, provable: after forget(..., secure=True) no file and no call holds 8 bytes of it in a row.

The scanner is proven as well: each story is told once more with a plain forget, and then it must find something.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from erasing import Noise, Secrets, forget_planted, open_noise, plant
from hypothesis import given
from hypothesis import strategies as st
from outside import LOCKS, end, run, start

from raeburnmemory import doctor
from raeburnmemory.doctor import copies, switch
from raeburnmemory.errors import (
    ErasureIncomplete,
    InvalidInput,
    LockTimeout,
    NodeNotFound,
    ReadOnly,
    StoreCorrupt,
    StoreWriteFailed,
)
from raeburnmemory.lock import StoreLock
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Batch, Node
from raeburnmemory.store import open_store
from raeburnmemory.store.snapshot import Snapshot
from raeburnmemory.store.sqlite import SqliteStore

FILES = {"json": "g.json", "json-npy": "g.json", "sqlite": "g.db"}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and flock are those of a POSIX system")


@pytest.fixture(params=FILES)
def path(request, tmp_path, monkeypatch):
    if request.param == "json-npy":
        monkeypatch.setitem(sys.modules, "faiss", None)
    elif request.param == "json":
        pytest.importorskip("faiss", reason="vectors in faiss's files need faiss-cpu")
    return tmp_path / FILES[request.param]


# --- what a memory may have gone through before ------------------------------------------------------------------


def reopened(memory, secrets, gone):
    memory.close()
    return open_noise(memory.db_path)


def exported(memory, secrets, gone):
    memory.export()


def reembedded(memory, secrets, gone):
    memory.reembed(Noise("other", 40))
    secrets.learn(memory, gone)


def half_reembedded(memory, secrets, gone):
    """Killed while it moved to another model: the new vectors of some texts wait beside the old ones."""

    class Dying(Noise):
        blocks = 0

        def embed(self, texts):
            self.blocks += len(texts) > 1
            if self.blocks == 2:
                raise KeyboardInterrupt
            return super().embed(texts)

    with pytest.raises(KeyboardInterrupt):
        memory.reembed(Dying("other", 40))
    assert "prompt.next" in memory._store.counts(None)["vectors"]
    secrets.learn(memory, gone)


def rewritten(memory, secrets, gone):
    """What it once said lies in the history, and what it said after in the node."""
    for node_id in (gone[0], gone[3]):
        memory.update(node_id, text=secrets.text(), metadata={"old": secrets.word()})
        secrets.learn(memory, gone)
        memory.update(node_id, text=secrets.text(), remove=["old"])
    memory.unlink("r1", gone[0])
    secrets.learn(memory, gone)


def forgotten_before(memory, secrets, gone):
    """Forgotten as one usually does, so that only the files know of it any more."""
    memory.forget(gone)
    assert not set(gone) & {node.id for node in memory.nodes()}


LIVES = {
    "just added": lambda memory, secrets, gone: None,
    "reopened": reopened,
    "exported": exported,
    "reembedded": reembedded,
    "half reembedded": half_reembedded,
    "rewritten": rewritten,
    "forgotten before": forgotten_before,
}


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("secure", [True, False])
def test_nothing_is_left_of_it(path, life, secure):
    secrets = Secrets(f"{path.name} {life}")
    with contextlib.ExitStack() as stack:
        memory = stack.enter_context(open_noise(path))
        gone = plant(memory, secrets)
        memory = stack.enter_context(LIVES[life](memory, secrets, gone) or memory)
        kept = {node.id: node for node in memory.nodes() if node.id not in gone}
        if life == "forgotten before":
            report = memory.forget(gone, secure=secure)
            assert not report
        else:
            report = forget_planted(memory, gone, secure=secure)
            kept.pop("p2", None) if secure else None  # it cites one of them
        files = secrets.found(path.parent)
        if not secure:
            assert files, "the scanner finds what is there"
            assert report.rewritten == report.deleted == ()
            return
        assert files == {}
        if report:
            assert set(report.ids) == {*gone, "p2"}
        assert str(path) in report.rewritten
        assert secrets.shown(memory) == []
    assert secrets.found(path.parent) == {}  # nor does closing bring anything back
    model = Noise("other", 40) if life == "reembedded" else Noise()
    with open_noise(path, embedding_model=model) as memory:
        assert secrets.shown(memory) == []
        assert {node.id: node for node in memory.nodes()} == kept
        assert memory.similar("what was said as number 7", 1).ids == ["p7"]
        assert memory.recall("answer 9")[0].id in {"r9", "p9"}
        assert memory.stats().unembedded == 0
        assert memory._store.meta("erasing") is None
        memory.add_interaction({"id": "after", "text": "something else"})
        assert memory.similar("something else", 1).ids == ["after"]
    assert secrets.found(path.parent) == {}


# --- copies beside it --------------------------------------------------------------------------------------------


def original_graph(path, secrets, form):
    """Write a graph with vectors as the original wrote it; return the ids of what is secret in it."""
    from raeburnmemory.flat_vectors import write_faiss_flat, write_npy

    gone, answer = secrets.word(), secrets.word()
    texts = {f"p{n}": f"what was said as number {n}" for n in range(9)} | {gone: secrets.text()}
    nodes = [{"type": "prompt", "text": text, "id": i} for i, text in texts.items()]
    nodes += [{"type": "response", "text": secrets.text(), "id": answer, "model": secrets.word()}]
    edges = [
        {"relation": "responded_with", "source": gone, "target": answer},
        {"relation": "r", "source": "p1", "target": gone},
    ]
    data = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "links": edges}
    path.write_text(json.dumps(data, indent=1))
    values = Noise().embed([*texts.values(), secrets.text()])  # the last row is named by nobody: it was replaced once
    with open(f"{path}.{form}", "wb") as file:
        {"faiss": write_faiss_flat, "vectors.npy": write_npy}[form](file, values)
    with open(f"{path}.map.json", "w") as file:
        json.dump({i: n for n, i in enumerate(texts)}, file)
    secrets.vectors += [values[9], values[10], *(v / np.linalg.norm(v) for v in values[9:])]
    return [gone, answer]


def original_database(path, secrets):
    gone, answer = secrets.word(), secrets.word()
    texts = {f"p{n}": f"what was said as number {n}" for n in range(9)} | {gone: secrets.text()}
    values = Noise().embed(list(texts.values()))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE nodes(id TEXT PRIMARY KEY, type TEXT, data TEXT)")
        db.execute("CREATE TABLE edges(src TEXT, dst TEXT, relation TEXT)")
        db.execute("CREATE TABLE vectors(id TEXT PRIMARY KEY, vector BLOB)")
        rows = [(i, "prompt", json.dumps({"text": text})) for i, text in texts.items()]
        rows.append((answer, "response", json.dumps({"text": secrets.text()}, ensure_ascii=False)))
        db.executemany("INSERT INTO nodes VALUES (?, ?, ?)", rows)
        db.execute("INSERT INTO edges VALUES (?, ?, 'responded_with')", (gone, answer))
        db.execute("INSERT INTO edges VALUES ('p1', ?, 'r')", (gone,))
        db.executemany(
            "INSERT INTO vectors VALUES (?, ?)",
            [(i, v.astype("<f4").tobytes()) for i, v in zip(texts, values, strict=True)],
        )
        unused = secrets.text()
        db.execute("INSERT INTO nodes VALUES ('dropped', 'prompt', ?)", (unused,))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM nodes WHERE id = 'dropped'")  # it lies on in a free piece of its page
    secrets.vectors += [values[9], values[9] / np.linalg.norm(values[9])]
    return [gone, answer]


def of_our_json(folder, secrets):
    with open_noise(folder / "g.json") as memory:
        gone = plant(memory, secrets)
        memory.export()
        memory.update(gone[0], text=secrets.text())
        secrets.learn(memory, gone)
    return folder / "g.json", "sqlite", gone


def of_our_json_with_a_journal(folder, secrets):
    memory = open_noise(folder / "g.json")
    gone = plant(memory, secrets)
    shutil.copytree(folder, folder / "while it is open")
    memory.close()
    for file in (folder / "while it is open").iterdir():
        shutil.move(file, folder / file.name)
    (folder / "while it is open").rmdir()
    return folder / "g.json", "sqlite", gone


def of_the_originals_json(folder, secrets, form="vectors.npy"):
    return folder / "g.json", "sqlite", original_graph(folder / "g.json", secrets, form)


def of_the_originals_json_with_faiss(folder, secrets):
    return of_the_originals_json(folder, secrets, "faiss")


def from_the_originals_json(folder, secrets, form="vectors.npy"):
    return folder / "g.json", None, original_graph(folder / "g.json", secrets, form)


def from_the_originals_json_with_faiss(folder, secrets):
    return from_the_originals_json(folder, secrets, "faiss")


def from_the_originals_database(folder, secrets):
    return folder / "g.db", None, original_database(folder / "g.db", secrets)


def beside_an_export(folder, secrets):
    with open_noise(folder / "g.db") as memory:
        gone = plant(memory, secrets)
        memory.export()
    return folder / "g.db", None, gone


def beside_a_backup(folder, secrets):
    """A copy that was made by hand is one, too, by the id of the store in it; free pages and all."""
    with open_noise(folder / "g.db") as memory:
        gone = plant(memory, secrets)
        memory.forget(gone[3])
    shutil.copy(folder / "g.db", folder / "g.db.friday")
    shutil.copy(folder / "g.db", folder / "g.db.before-restore-20260101T000000")
    return folder / "g.db", None, gone


def beside_a_backup_in_json(folder, secrets):
    with open_noise(folder / "g.json") as memory:
        gone = plant(memory, secrets)
        memory.update(gone[0], text=secrets.text())
        secrets.learn(memory, gone)
        for file in list(folder.iterdir()):  # with its journal
            shutil.copy(file, folder / file.name.replace("g.json", "g.json.before-restore-20260101T000000"))
    for file in list(folder.glob("*.lock*")):
        file.unlink()
    shutil.copy(folder / "g.json", folder / "g.json.friday")
    return folder / "g.json", None, gone


COPIES = [
    of_our_json,
    of_our_json_with_a_journal,
    of_the_originals_json,
    of_the_originals_json_with_faiss,
    from_the_originals_json,
    from_the_originals_json_with_faiss,
    from_the_originals_database,
    beside_an_export,
    beside_a_backup,
    beside_a_backup_in_json,
]


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("secure", [True, False])
def test_copies_are_written_anew(tmp_path, copies, secure):
    secrets = Secrets(copies.__name__)
    path, backend, gone = copies(tmp_path, secrets)
    with open_noise(path, storage_backend=backend) as memory:
        memory.add_interaction({"id": "later", "text": "something else"})
        names = {file.name for file in tmp_path.iterdir() if not file.name.endswith(LOCKS)}
        report = memory.forget(gone, secure=secure)
        kept = {node.id for node in memory.nodes()}
        vectors = memory.stats().vectors
    files = secrets.found(tmp_path)
    if not secure:
        assert files
        return
    assert files == {}
    there = {file.name for file in tmp_path.iterdir() if not file.name.endswith(LOCKS)}
    deleted = {os.path.basename(name) for name in report.deleted}
    assert all(name.endswith((".faiss", ".vectors.npy")) for name in deleted), "of kinds of which nothing is left"
    assert {n for n in names - there if not n.endswith(("-wal", "-shm"))} == deleted, "copies stay"
    folded = {name for name in there - names if "before-restore" in name and ".tmp" not in name}
    assert there - folded <= names, "nothing new lies about"
    assert {os.path.dirname(name) for name in report.rewritten} == {str(tmp_path)}
    with open_noise(path, storage_backend=backend) as memory:
        assert {node.id for node in memory.nodes()} == kept
        assert memory.stats().vectors == vectors
        assert memory.similar("what was said as number 7", 1)[0].score == pytest.approx(1, abs=1e-5)
    # What is left in a copy is a memory as it was, without what is gone.
    others = [
        tmp_path / n
        for n in there
        if n.endswith((".original", ".friday", "g.db.json", "T000000")) or (backend and n == "g.json")
    ]
    assert others
    for other in others:
        shutil.copytree(tmp_path, tmp_path / "look")
        look = tmp_path / "look" / other.name
        with open_noise(look) as memory:
            assert {f"p{n}" for n in range(9) if n != 2} <= {node.id for node in memory.nodes()}
            assert not set(gone) & {node.id for node in memory.nodes()}
            if backend:
                assert memory.similar("what was said as number 7", 1)[0].score == pytest.approx(1, abs=1e-5)
        shutil.rmtree(tmp_path / "look")
    assert secrets.found(tmp_path) == {}


@pytest.mark.parametrize("path", ["json", "json-npy"], indirect=True)
def test_damaged_files_are_named_and_deleted_if_allowed(path):
    """What cannot be read may hold anything: the call does all the rest, raises, and says so."""
    secrets = Secrets(path.name)
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
    vectors = next(file for file in path.parent.iterdir() if file.name in {"g.json.faiss", "g.json.vectors.npy"})
    raw = bytearray(vectors.read_bytes())
    raw[200] ^= 1
    vectors.write_bytes(raw)
    with open_noise(path) as memory:
        if "npy" not in vectors.name:  # in the other one nobody made them again before
            memory.reindex()
        with pytest.raises(ErasureIncomplete, match="are forgotten.*may still stand in.*backups=True") as caught:
            forget_planted(memory, gone, secure=True)
        error = caught.value
        assert isinstance(error, RuntimeError)
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.report, again.files) == (str(error), error.report, error.files)
        assert set(error.report.ids) == {*gone, "p2"}
        assert str(path) in error.report.rewritten
        assert {os.path.basename(name).partition(".damaged-")[0] for name in error.files} >= {vectors.name}
        assert all(repr(name) in str(error) for name in error.files)
        found = set(secrets.found(path.parent))
        assert found <= {os.path.basename(name) for name in error.files}
        assert vectors.name in {name.partition(".damaged-")[0] for name in found}
        memory.reindex()
        assert secrets.shown(memory) == []
        with pytest.raises(ErasureIncomplete):  # it stays so
            memory.forget(gone, secure=True)
        report = memory.forget(gone, secure=True, backups=True)
        assert set(error.files) == set(report.deleted)
        assert not report
        memory.forget(gone, secure=True)
    assert secrets.found(path.parent) == {}
    with open_noise(path) as memory:
        assert memory.similar("what was said as number 7", 1).ids == ["p7"]


@pytest.mark.parametrize("readable", [True, False])
def test_stores_that_were_set_aside(path, readable):
    """Those that can be read are written anew, the others deleted if that is allowed."""
    secrets = Secrets(path.name)
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        memory.export()
        aside = path.with_name(path.name + ".damaged-20260101T000000")
        if path.suffix == ".db":
            memory._store.checkpoint()
        shutil.copy(path, aside)
        if not readable:
            aside.write_bytes(aside.read_bytes()[:-5000])
        if readable:
            assert str(aside) in forget_planted(memory, gone, secure=True).rewritten
        else:
            with pytest.raises(ErasureIncomplete, match="damaged-20260101") as caught:
                forget_planted(memory, gone, secure=True)
            assert caught.value.files == (str(aside),)
            assert set(secrets.found(path.parent)) <= {aside.name}
            assert memory.forget(gone, secure=True, backups=True).deleted == (str(aside),)
            assert not aside.exists()
    assert secrets.found(path.parent) == {}


FORBIDDEN = """
import sys
from erasing import open_noise
from raeburnmemory.errors import ErasureIncomplete
with open_noise(sys.argv[1]) as memory:
    try:
        memory.forget(sys.argv[2:], secure=True, backups=True)
    except ErasureIncomplete as error:
        print(*error.files)
"""


@POSIX
@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_a_copy_that_may_not_be_read_is_named_and_never_deleted(tmp_path, name):
    found = shutil.which("setpriv") if not os.geteuid() else None
    if found is None and not os.geteuid():
        pytest.skip("modes mean nothing to root, and setpriv is not installed: apt install util-linux")
    without_power = [found, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if found else []
    secrets, path = Secrets(name), tmp_path / name
    make = {
        "g.json": lambda: original_graph(path, secrets, "vectors.npy"),
        "g.db": lambda: original_database(path, secrets),
    }
    gone = make[name]()
    with open_noise(path) as memory:
        memory.add_interaction("taken over")
    copy = tmp_path / f"{name}.original"
    copy.chmod(0)
    try:
        assert run(FORBIDDEN, path, *gone, before=without_power) == f"{copy}\n"
    finally:
        copy.chmod(0o600)
    assert set(secrets.found(tmp_path)) == {copy.name}
    assert run(FORBIDDEN, path, *gone, before=without_power) == ""
    assert secrets.found(tmp_path) == {}
    assert copy.exists()


def test_other_memories_are_left_alone(path):
    """A neighbour whose name begins likewise, or whose ids are the same, keeps what it has."""
    secrets = Secrets(path.name)
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        neighbours = [
            path.with_name(path.name + ending) for ending in (".other", ".other.json", ".other.db", "-old.db")
        ]
        leftover = path.with_name(path.name + ".other.faiss.tmp-7-abcdef01")
        leftover.write_bytes(b"of a neighbour that is just folding")
        for neighbour in neighbours:
            with open_noise(neighbour) as other:
                other.add_many([({"id": node_id, "text": f"theirs is {n}"},) for n, node_id in enumerate(gone)])
        notes = path.with_name(path.name + ".txt")
        notes.write_text(gone[0])
        forget_planted(memory, gone, secure=True)
        for neighbour in neighbours:
            with open_noise(neighbour) as other:
                assert [other.get(i).text for i in gone] == [f"theirs is {n}" for n in range(len(gone))]
                assert other.similar("theirs is 3", 1).ids == [gone[3]]
                assert other._store.vectors_lost() is None
        assert notes.read_text() == gone[0]
        assert leftover.exists()


def test_a_source_that_became_a_memory_of_its_own_is_named(tmp_path):
    secrets = Secrets("source")
    gone = original_graph(tmp_path / "g.json", secrets, "vectors.npy")
    open_noise(tmp_path / "g.json", storage_backend="sqlite").close()
    with open_noise(tmp_path / "g.json") as other:
        other.add_interaction({"id": "of its own", "text": "here"})
    with open_noise(tmp_path / "g.db") as memory:
        with pytest.raises(ErasureIncomplete, match="memory of its own") as caught:
            memory.forget(gone, secure=True, backups=True)
        assert caught.value.files == (str(tmp_path / "g.json"),)
        with open_noise(tmp_path / "g.json") as other:
            assert gone[0] in other
            other.forget(gone, secure=True)
        memory.forget(gone, secure=True)
    assert secrets.found(tmp_path) == {}


@pytest.mark.parametrize("own", ["json", "broken"])
def test_a_source_that_cannot_be_read_is_named(tmp_path, own):
    secrets = Secrets("broken source")
    gone = original_graph(tmp_path / "g.json", secrets, "vectors.npy")
    open_noise(tmp_path / "g.json", storage_backend="sqlite").close()
    broken = tmp_path / ("g.json" if own == "json" else "g.json.map.json")
    broken.write_bytes(broken.read_bytes()[:-9])
    with open_noise(tmp_path / "g.db") as memory:
        with pytest.raises(ErasureIncomplete) as caught:
            memory.forget(gone, secure=True)
        assert str(broken) in caught.value.files
        assert {*secrets.found(tmp_path)} <= {os.path.basename(name) for name in caught.value.files}
        assert {*memory.forget(gone, secure=True, backups=True).deleted} == {*caught.value.files}
    assert secrets.found(tmp_path) == {}


def test_saved_indexes_go_and_do_not_come_back(tmp_path):
    """Nor from another one that still has the old index when it is closed."""
    secrets, path = Secrets("index"), tmp_path / "g.db"
    other = open_noise(path)
    with open_noise(path) as memory:
        gone = plant(memory, secrets, others=1200)
        for each in (memory, other):
            assert each.similar("what was said as number 7", 1).ids == ["p7"]
    index = tmp_path / "g.db.prompt.index"
    assert index.name in secrets.found(tmp_path)
    with open_noise(path) as memory:
        assert str(index) in forget_planted(memory, gone, secure=True).deleted
        assert secrets.found(tmp_path) == {}
        other.close()
        assert not index.exists()
        assert memory.similar("what was said as number 7", 1).ids == ["p7"]
    assert index.exists()
    assert secrets.found(tmp_path) == {}


def test_leftovers_of_killed_processes_go(path):
    secrets = Secrets(path.name)
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        for ending in (
            ".tmp-7-abcdef01",
            ".journal.tmp-7-abcdef01",
            ".prompt.faiss.tmp-7-0",
            ".original.tmp-1",
            ".tmp-7-journal",
        ):
            path.with_name(path.name + ending).write_text(secrets.strings[0])
        if path.suffix == ".db":
            path.with_name(path.name + ".prompt.index.a1b2.tmp").write_bytes(secrets.vectors[0].tobytes())
            path.with_name(path.name + ".json.tmp-7").write_text(secrets.strings[0])
        forget_planted(memory, gone, secure=True)
    assert secrets.found(path.parent) == {}
    assert not [name for name in os.listdir(path.parent) if "tmp" in name]


@pytest.mark.parametrize("ending", [".fact.faiss", ".prompt.passages.vectors.npy", ".prompt.next.faiss"])
def test_vectors_of_a_field_that_is_gone_go(tmp_path, ending):
    """A power cut may bring back a file that was deleted: nothing says what it is any more."""
    path, secrets = tmp_path / "g.json", Secrets("strays")
    stray = tmp_path / f"g.json{ending}"
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        memory.export()
        memory.forget([node.id for node in memory.nodes("fact")])
        memory.export()
        stray.write_bytes(b"of what was" + secrets.vectors[0].tobytes())
        forgotten = forget_planted(memory, gone, secure=True)
        assert str(stray) in forgotten.deleted
    assert not stray.exists()


# --- others who have it open ---------------------------------------------------------------------------------------

OTHER = """
import sys
from erasing import open_noise
memory = open_noise(sys.argv[1])
def ask():
    hits = memory.recall("what was said", 500).ids + memory.similar("what was said", 500).ids
    texts = [node.text for node in memory.nodes()] + [str(data) for _, data in memory.graph.nodes(data=True)]
    facts = [fact.text for fact in memory.facts(include_superseded=True)]
    history = [old.text for node in memory.nodes() for old in memory.history(node.id)]
    words = memory._recall._corpus.words.written
    print(repr([hits, texts, facts, history, words, sorted(memory._recall._corpus.ids), memory.export(False)]), flush=True)
ask()
for line in sys.stdin:
    ask()
memory.close()
"""


def test_a_process_that_has_it_open_lets_go_of_it_at_its_next_call(path):
    secrets = Secrets(path.name)
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        other = start(OTHER, path, stdin=subprocess.PIPE)
        try:
            before = other.stdout.readline()
            assert all(string in before for string in gone)
            forget_planted(memory, gone, secure=True)
            assert secrets.found(path.parent) == {}
            other.stdin.write("again\n")
            other.stdin.flush()
            after = other.stdout.readline()
            assert "what was said as number 7" in after
            assert [s for s in secrets.strings if s[:8] in after or s[-8:] in after] == []
            other.stdin.close()
            other.stdin = None
            assert other.wait(60) == 0
        finally:
            end(other)
        assert secrets.found(path.parent) == {}


def test_two_objects_in_one_process(path):
    secrets = Secrets(path.name)
    with open_noise(path) as memory, open_noise(path) as other:
        gone = plant(memory, secrets)
        assert other.get(gone[0]).text
        assert secrets.shown(other)
        forget_planted(memory, gone, secure=True)
        assert secrets.shown(other) == []
        assert other.similar("what was said as number 7", 1).ids == ["p7"]
        other.add_interaction({"id": "new", "text": "after it"})
        assert secrets.found(path.parent) == {}
    assert secrets.found(path.parent) == {}


READER = """
import sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM nodes").fetchone()
print("reading", flush=True)
sys.stdin.readline()
db.execute("COMMIT")
db.close()
"""


def test_whoever_reads_from_a_database_is_waited_for_and_named(tmp_path):
    secrets, path = Secrets("reader"), tmp_path / "g.db"
    with open_noise(path, timeout=0.5) as memory:
        gone = plant(memory, secrets)
        reader = start(READER, path, stdin=subprocess.PIPE)
        try:
            assert reader.stdout.readline() == "reading\n"
            who = f"process {reader.pid}," if os.path.exists("/proc/locks") else "somebody"
            with pytest.raises(LockTimeout, match=who):
                forget_planted(memory, gone, secure=True)
            assert secrets.shown(memory) == []  # it is gone from the memory,
            assert secrets.found(tmp_path)  # and not yet from its files
            size = (tmp_path / "g.db-wal").stat().st_size
            for _ in range(3):
                with open_noise(path, timeout=0.1) as other:  # tried again at every opening; it does no harm
                    assert len(other) == len(memory)
            assert (tmp_path / "g.db-wal").stat().st_size < size + 100_000
            timer = threading.Timer(0.2, lambda: (reader.stdin.write("\n"), reader.stdin.flush()))
            timer.start()
            memory.forget(gone[0], secure=True)  # waits
            timer.join()
            assert secrets.found(tmp_path) == {}
        finally:
            end(reader)
    with open_noise(path, timeout=0.5) as memory, open_noise(path) as other:
        who = "this process" if os.path.exists("/proc/locks") else "somebody"
        with other._store.snapshot(), pytest.raises(LockTimeout, match=who):
            memory.forget("p1", secure=True)
    with open_noise(path) as memory:
        assert memory._store.meta("erasing") is None
        assert "p1" not in memory


FOLDER = """
import os, sys
from erasing import open_noise
memory = open_noise(sys.argv[1])
list(memory.nodes())
real = os.fsync
def fsync(fd):
    real(fd)
    os.fsync = real
    print("folding", flush=True)
    sys.stdin.readline()
os.fsync = fsync
memory.export()
print(len(memory), flush=True)
"""


@pytest.mark.parametrize("path", ["json", "json-npy"], indirect=True)
def test_files_that_another_process_is_writing_right_now(path):
    """It holds no lock while it folds; what it writes is nobody's any more, and no file is left of it."""
    secrets = Secrets(path.name)
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        folder = start(FOLDER, path, stdin=subprocess.PIPE)
        try:
            assert folder.stdout.readline() == "folding\n"
            assert any(".tmp-" in name for name in secrets.found(path.parent))
            forget_planted(memory, gone, secure=True)
            assert secrets.found(path.parent) == {}
            out, err = folder.communicate("\n", timeout=60)
            assert (out, err) == (f"{len(memory)}\n", "")
        finally:
            end(folder)
        assert secrets.found(path.parent) == {}
        assert not [name for name in os.listdir(path.parent) if ".tmp" in name]


def test_writers_are_waited_for(path):
    secrets = Secrets(path.name)
    with open_noise(path, timeout=0.3) as memory:
        gone = plant(memory, secrets)
        with open_noise(path) as other, other._store.exclusive(), pytest.raises(LockTimeout):
            forget_planted(memory, gone, secure=True)
        assert gone[0] in memory  # nothing was done


# --- killed on the way ---------------------------------------------------------------------------------------------

FORGETTING = """
import json, os, sys
from erasing import open_noise
memory = open_noise(sys.argv[1])
memory.forget(json.loads(sys.argv[2]), secure=True)
os.write(1, b"done")
memory.close()
"""


CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "ftruncate", "unlink")
POINTS = os.environ.get("RAEBURN_CRASH_POINTS", "few")  # of each kind of system call; "all" for every one


def traced(options, path, chosen):
    """Run FORGETTING under strace with *options*; return how it ended and what it said."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed: apt install strace")
    process = start(FORGETTING, path, chosen, before=[found, "-f", "-qq", *options])
    out, err = process.communicate(timeout=120)
    if "strace: " in err and process.returncode not in {0, -9}:
        pytest.skip(f"strace does not work here: {err.strip()}")
    assert process.returncode in {0, -9}, err
    return process.returncode, out


def calls_to_kill_at(log):
    """Return (name, number) pairs: every call in the log of a run in peace, or two of each kind."""
    lines = [line.split(None, 1)[1] for line in log.read_text().splitlines()]
    counts = Counter(line.partition("(")[0] for line in lines if line.startswith(CALLS))
    chosen = []
    for name, n in sorted(counts.items()):
        numbers = range(1, n + 1) if POINTS == "all" else {max(1, n // 3), max(1, 3 * n // 4)}
        chosen += [(name, number) for number in sorted(numbers)]
    return chosen


@POSIX
@pytest.mark.parametrize("name", ["g.json", "g.db", "migrated"])
def test_killed_at_system_calls(tmp_path, name):
    """Whatever it was killed at, the memory opens, and once it is open nothing is left of what was begun."""
    secrets, source = Secrets(name), tmp_path / "source"
    source.mkdir()
    if name == "migrated":
        name = "g.db"
        path, backend, gone = of_our_json(source, secrets)
        with open_noise(path, storage_backend=backend) as memory:
            memory.export()
    else:
        with open_noise(source / name) as memory:
            gone = plant(memory, secrets)
            memory.export()
    before = set(os.listdir(source))
    with open_noise(source / name) as memory:
        kept = {node.id: node for node in memory.nodes() if node.id not in {*gone, "p2"}}
    chosen = json.dumps([gone[0], gone[1], gone[3]])
    peace = tmp_path / "peace"
    shutil.copytree(source, peace)
    log = tmp_path / "calls"
    assert traced(["-o", log, "-e", f"trace={','.join(CALLS)}"], peace / name, chosen) == (0, "done")
    assert secrets.found(peace) == {}
    begun = []

    def check(here, out):
        with open_noise(here / name, read_only=True) as memory:
            assert {i for i in kept if i in memory} == set(kept)
        with open_noise(here / name) as memory:
            if gone[0] in memory:
                assert "done" not in out
                assert all(node_id in memory for node_id in gone)
                forget_planted(memory, gone, secure=True)
            else:
                begun.append(here)
            assert {node.id: node for node in memory.nodes()} == kept
            assert memory.similar("what was said as number 7", 1).ids == ["p7"]
            assert memory._store.meta("erasing") is None
            assert secrets.found(here) == {}
            assert secrets.shown(memory) == []
        assert secrets.found(here) == {}
        # After all was done, closing may have been cut short: files with what is kept, which are swept up later.
        assert "done" in out or not [file for file in os.listdir(here) if ".tmp" in file]
        assert {file for file in before if not file.endswith("-wal")} - set(os.listdir(here)) <= {
            f"{stem}.{field}.{form}"
            for stem in ("g.json",)
            for field in ("fact", "fragment", "prompt.passages", "response.passages")
            for form in ("faiss", "vectors.npy")
        }

    killed = []
    for call, number in calls_to_kill_at(log):
        here = tmp_path / f"{call}-{number}"
        shutil.copytree(source, here)
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        code, out = traced(["-o", os.devnull, "-e", f"trace={call}", "-e", inject], here / name, chosen)
        killed.append(code == -9)
        try:
            check(here, out)
        except BaseException as exc:
            raise AssertionError(f"killed at {call} number {number}, after it said {out!r}") from exc
        shutil.rmtree(here)
    assert begun
    # Now and then a run makes a call less than the one in which they were counted.
    assert sum(killed) >= 0.8 * len(killed) > 5


# --- after any history ---------------------------------------------------------------------------------------------

SLOTS = st.integers(0, 4)  # of which 0 to 2 are secret
STEPS = st.one_of(
    st.tuples(st.sampled_from(["add", "long", "update", "fact", "forget", "secure"]), SLOTS),
    st.tuples(st.sampled_from(["link", "unlink"]), SLOTS, SLOTS),
    st.tuples(st.sampled_from(["export", "reopen", "reembed", "migrate"])),
)


class History:
    """A memory that lives through steps, and what of it is secret."""

    def __init__(self, path):
        self.secrets = Secrets(path)
        self.path, self.backend, self.model = path, None, Noise()
        self.memory = self.open()
        self.slots = [self.secrets.word() for _ in range(3)] + ["plain 3", "plain 4"]
        self.secret = set(self.slots[:3])
        self.count = 0

    def open(self):
        return open_noise(self.path, storage_backend=self.backend, embedding_model=self.model)

    def said(self, slot, words=2):
        self.count += 1
        return self.secrets.text(words) if slot < 3 else f"plainly said as number {self.count}"

    def take(self, step, *slots):
        ids = [self.slots[slot] for slot in slots]
        if step in {"update", "fact", "link"} and not all(node_id in self.memory for node_id in ids):
            step = "add"
        getattr(self, step)(*slots)
        self.secrets.learn(self.memory, self.secret)

    def add(self, slot, *_):
        self.memory.add_interaction({"id": self.slots[slot], "text": self.said(slot)}, session_id="s")

    def long(self, slot):
        self.memory.add_interaction({"id": self.slots[slot], "text": self.said(slot, 12)}, "an answer")

    def update(self, slot):
        self.memory.update(self.slots[slot], text=self.said(slot))

    def fact(self, slot):
        node = self.memory.fact("Ana", "said", self.said(slot), source=self.slots[slot])
        if slot < 3:
            self.secret.add(node.id)
            self.secrets.strings.append(node.id[-12:])  # of the time in front many ids have a part

    def forget(self, slot):
        self.memory.forget(self.slots[slot])

    def secure(self, slot):
        self.memory.forget(self.slots[slot], secure=True)

    def link(self, one, two):
        word = self.secrets.word() if min(one, two) < 3 else "plain"
        self.memory.link(self.slots[one], self.slots[two], word, note=word)

    def unlink(self, one, two):
        self.memory.unlink(self.slots[one], self.slots[two])

    def export(self):
        self.memory.export()

    def reopen(self):
        self.memory.close()
        self.memory = self.open()

    def reembed(self):
        self.model = Noise("other" if self.model.name == "noise" else "noise")
        self.memory.reembed(self.model)

    def migrate(self):
        self.backend = "sqlite"
        self.reopen()


@given(steps=st.lists(STEPS, min_size=3, max_size=14), suffix=st.sampled_from([".json", ".db"]))
def test_any_history(tmp_path_factory, steps, suffix):
    folder = tmp_path_factory.mktemp("history")
    history = History(folder / f"g{suffix}")
    try:
        history.take("add", 0)
        for step in steps:
            history.take(*step)
        memory = history.memory
        kept = {node.id: node for node in memory.nodes() if node.id not in history.secret}
        memory.forget(history.secret, secure=True)
        assert history.secrets.found(folder) == {}
        assert history.secrets.shown(memory) == []
        assert {node.id: node for node in memory.nodes()} == {i: n for i, n in kept.items() if i != "s" or i in memory}
        history.reopen()
        assert history.secrets.shown(history.memory) == []
    finally:
        history.memory.close()
    assert history.secrets.found(folder) == {}
    shutil.rmtree(folder)


# --- the rest of the promise -----------------------------------------------------------------------------------------


def test_what_was_made_of_it_goes_along(tmp_path):
    """Over any number of steps, and with any number of other sources; a plain forget leaves it."""
    with open_noise(tmp_path / "g.db") as memory:
        for name in ("a", "b", "c", "d", "e", "other"):
            memory.add_interaction({"id": name, "text": f"{name} was said"})
        one = memory.fact("x", "is", "y", source=["a", "other"])
        two = memory.fact("x", "is", "z", source=one.id)
        memory.link("b", two.id, "cites")
        memory.link("c", "b", "part_of")
        memory.link("a", "c", "derived_from")  # and round again
        memory.link("d", "a", "links_to")
        memory.link("a", "e", "cites")  # e is what a was made of
        assert memory.forget("other").ids == ("other",)
        assert one.id in memory
        assert set(memory.forget("a", secure=True).ids) == {"a", one.id, two.id, "b", "c"}
        assert {node.id for node in memory.nodes()} == {"d", "e"}


def test_declared_predicates_that_nothing_else_has_go_along(path):
    secrets = Secrets(path.name)
    with open_noise(path) as memory:
        one, two = (memory.fact("Ana", secrets.word(), "x", id=name) for name in "ab")
        kept = memory.fact("Ana", two.attributes["predicate"].upper(), "y")
        memory.single_valued([one.attributes["predicate"], two.attributes["predicate"], "lives_in"])
        memory.forget(["a", "b"], secure=True)
        assert memory.single_valued() == [two.attributes["predicate"], "lives_in"]
        assert kept.id in memory
        secrets.strings.remove(two.attributes["predicate"])
        assert secrets.found(path.parent) == {}
        memory.forget(kept.id, secure=True)
        assert memory.single_valued() == ["lives_in"]


def test_other_namespaces_keep_what_has_the_same_id(path):
    secrets = Secrets(path.name)
    with open_noise(path) as memory, open_noise(path, namespace="work") as work:
        secret = secrets.word()
        work.add_interaction({"id": "p", "text": secrets.text()})
        memory.add_interaction({"id": "p", "text": "plainly said"})
        work.forget("p", secure=True)
        assert memory.get("p").text == "plainly said"
        assert memory.similar("plainly said", 1).ids == ["p"]
        assert "p" not in work
        work.add_interaction({"id": secret, "text": "mine"})
        memory.forget(secret, secure=True)
        assert work.get(secret).text == "mine"


def test_conditions_find_what_plain_forgetting_finds(path):
    for conditions in ({"session": "s1"}, {"agent": "a1"}, {"before": "2025-01-01"}, {"where": {"topic": "tea"}}):
        reports = []
        for name in ("plain", "secure"):
            with open_noise(path.with_name(f"{name}-{path.name}")) as memory:
                memory.forget([node.id for node in memory.nodes()])
                for n in range(6):
                    memory.add_interaction(
                        {"id": f"p{n}", "text": f"said {n}"},
                        {"id": f"r{n}", "text": f"answered {n}"},
                        f"a{n % 2}",
                        f"s{n % 3}",
                        timestamp=f"202{n}-01-01",
                        metadata={"topic": "tea" if n % 2 else "coffee"},
                    )
                report = memory.forget(**conditions, secure=name == "secure")
                reports.append((report.ids, report.kinds, report.links, report.vectors, [n.id for n in memory.nodes()]))
        assert reports[0] == reports[1]
        assert reports[0][0]


def test_what_has_expired_is_found_by_its_id(path):
    secrets = Secrets(path.name)
    store = open_store(path)
    store.write(Batch(nodes=[Node("old", "note", secrets.text(), {}, expires_at=1.0), Node("new", "note", "kept")]))
    store.close()
    with open_noise(path) as memory:
        assert "old" not in memory
        assert not memory.forget("old", secure=True)
        assert "new" in memory
    assert secrets.found(path.parent) == {}


def test_in_memory():
    secrets = Secrets("memory")
    with open_noise(":memory:") as memory:
        graph = memory.graph
        gone = plant(memory, secrets)
        assert secrets.shown(memory)
        assert gone[0] in memory.graph
        report = forget_planted(memory, gone, secure=True, backups=True)
        assert set(report.ids) == {*gone, "p2"}
        assert report.rewritten == report.deleted == ()
        assert gone[0] not in graph  # without being asked for again
        assert secrets.shown(memory) == []
        assert memory.similar("what was said as number 7", 1).ids == ["p7"]


def test_taking_back_says_nothing_of_a_fact_that_is_gone(tmp_path):
    with open_noise(tmp_path / "g.db") as memory:
        fact = memory.fact("Ana", "likes", "tea")
        memory.forget(fact.id, secure=True)
        with pytest.raises(NodeNotFound) as caught:
            memory.undo()
        assert fact.id not in str(caught.value)


def test_what_makes_no_sense_is_refused(path):
    with open_noise(path) as memory:
        memory.add_interaction({"id": "p", "text": "said"})
        with pytest.raises(InvalidInput, match="secure=True"):
            memory.forget("p", backups=True)
        with pytest.raises(InvalidInput, match="needs ids"):
            memory.forget(secure=True)
        assert "p" in memory
    with open_noise(path, read_only=True) as memory, pytest.raises(ReadOnly):
        memory.forget("p", secure=True)


def test_an_export_that_was_begun_before_is_made_again(tmp_path, monkeypatch):
    """It holds no lock while it writes; what was forgotten meanwhile is not in the file that it leaves."""
    secrets, path = Secrets("export"), tmp_path / "g.db"
    with open_noise(path) as memory, open_noise(path) as other:
        gone = plant(memory, secrets)
        real = os.fsync

        def fsync(fd):
            real(fd)
            if (tmp_path / f"g.db.json.tmp-{os.getpid()}").exists():
                monkeypatch.undo()
                assert "g.db.json" in "".join(secrets.found(tmp_path))
                forget_planted(memory, gone, secure=True)
                assert secrets.found(tmp_path) == {}

        monkeypatch.setattr(os, "fsync", fsync)
        data = other.export()
        assert gone[0] not in str(data)
        assert json.loads((tmp_path / "g.db.json").read_text()) == data
        assert secrets.found(tmp_path) == {}
        assert not [name for name in os.listdir(tmp_path) if ".tmp" in name]


# --- backups beside it that are just being made ---------------------------------------------------------------------


def backed_up(memory, path, target, by, **options):
    """Back up as a program does that has the memory open, one that only reads it, and one that knows where it is."""
    if by == "memory":
        return memory.backup(target, **options)
    if by == "reader":
        with open_noise(path, read_only=True) as reader:
            return reader.backup(target, **options)
    return doctor.backup(path, target, **options)


@pytest.mark.parametrize(
    ("step", "by", "overwrite"),
    [
        ("begun", "memory", False),
        ("begun", "path", True),
        ("written", "path", False),
        ("written", "reader", True),
        ("verified", "memory", True),
    ],
)
def test_a_backup_that_was_begun_before_is_made_again(path, monkeypatch, step, by, overwrite):
    secrets, target = Secrets("backup"), path.with_name(f"{path.name}.monday")
    name = "_checked" if step != "begun" else "_state" if path.suffix == ".json" else "_copy_database"
    real = getattr(copies, name)

    def erase():
        monkeypatch.undo()
        forget_planted(memory, gone, secure=True)
        assert secrets.found(path.parent) == {}

    def stopped(*args, **options):
        if step == "written":
            erase()
        found = real(*args, **options)
        if step != "written":
            erase()
        return found

    with open_noise(path) as memory, open_noise(path) as other:
        gone = plant(memory, secrets)
        if overwrite:
            other.backup(target)
        monkeypatch.setattr(copies, name, stopped)
        done = backed_up(other, path, target, by, overwrite=overwrite)
        assert done.nodes == len(memory)
        assert secrets.found(path.parent) == {}
        assert not [name for name in os.listdir(path.parent) if ".tmp" in name]
        assert doctor.verify(target).sound
        with open_noise(target) as copy:
            assert {node.id: node for node in copy.nodes()} == {node.id: node for node in memory.nodes()}
            assert secrets.shown(copy) == []


@pytest.mark.parametrize("by", ["memory", "reader", "path"])
def test_a_backup_is_put_in_place_while_nobody_erases(path, monkeypatch, by):
    secrets, target = Secrets("backup"), path.with_name(f"{path.name}.monday")
    real = copies.switch

    def switch(*args, **options):
        with pytest.raises(LockTimeout):
            other.forget(gone, secure=True)
        real(*args, **options)

    with open_noise(path) as memory, open_noise(path, timeout=0.2) as other:
        gone = plant(memory, secrets)
        monkeypatch.setattr(copies, "switch", switch)
        backed_up(memory, path, target, by)
        assert target.name in "".join(secrets.found(path.parent))
        forget_planted(other, gone, secure=True)
        assert secrets.found(path.parent) == {}
        with memory._store.exclusive():  # its own lock keeps nobody from it
            memory.backup(target, overwrite=True)
        assert doctor.verify(target).sound


@pytest.mark.parametrize("by", ["memory", "path"])
def test_a_backup_that_is_overtaken_again_and_again_comes_to_an_end(path, monkeypatch, by):
    target = path.with_name(f"{path.name}.monday")
    real, tried = copies._checked, []

    def checked(*args):
        tried.append(len(tried))
        with contextlib.suppress(LockTimeout):
            other.forget(f"m{tried[-1]}", secure=True)
        return real(*args)

    with open_noise(path) as memory, open_noise(path, timeout=0.2) as other:
        memory.add_messages([{"id": f"m{n}", "text": f"message {n}"} for n in range(9)])
        monkeypatch.setattr(copies, "_checked", checked)
        backed_up(memory, path, target, by)
        assert len(tried) == copies._TRIES + 1
        assert doctor.verify(target).sound
        with open_noise(target, read_only=True) as copy:
            assert [f"m{n}" in copy for n in range(9)] == [n >= copies._TRIES for n in range(9)]


def test_who_may_not_lock_a_memory_can_copy_it(path, monkeypatch):
    target = path.with_name(f"{path.name}.monday")
    with open_noise(path) as memory:
        plant(memory, Secrets("backup"))

    def enter(lock, timeout=None):
        raise StoreWriteFailed(13, "no")

    monkeypatch.setattr(StoreLock, "enter", enter)
    doctor.backup(path, target)
    assert doctor.verify(target).sound


def test_a_database_that_is_copied_while_it_is_written_anew(tmp_path, monkeypatch):
    """What was forgotten long ago is gone from its rows by then, but not from its free pages, which are copied, too."""
    secrets, path = Secrets("backup"), tmp_path / "g.db"
    copy, truncate = copies._copy_database, SqliteStore._truncate
    copied, erased = threading.Event(), threading.Event()
    backup = threading.Thread(target=doctor.backup, args=(path, tmp_path / "g.db.monday"))

    def copying(*args):
        copy(*args)
        copied.set()
        erased.wait(60)

    def truncating(*args):
        if not backup.ident:
            backup.start()
            assert copied.wait(60)
            assert any(".tmp-" in name for name in secrets.found(tmp_path))
        truncate(*args)

    with open_noise(path) as memory:
        memory.add_interaction({"id": "p", "text": "kept"})
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA secure_delete=OFF")
        db.execute("CREATE TABLE old (value)")
        db.executemany("INSERT INTO old VALUES (?)", [(secrets.text(30),) for _ in range(200)])
        db.commit()
        db.execute("DROP TABLE old")
    with open_noise(path) as memory:
        monkeypatch.setattr(copies, "_copy_database", copying)
        monkeypatch.setattr(SqliteStore, "_truncate", truncating)
        memory.forget("gone before", secure=True)
        assert secrets.found(tmp_path) == {}
        erased.set()
        backup.join(60)
        assert secrets.found(tmp_path) == {}
    assert doctor.verify(tmp_path / "g.db.monday").sound


def test_files_that_are_put_beside_it_without_its_lock_are_no_bug_of_ours(tmp_path, monkeypatch):
    path = tmp_path / "g.json"
    with open_noise(path) as memory:
        plant(memory, Secrets("backup"))
    journal, real = tmp_path / "g.json.journal", Snapshot.write
    journal.rename(tmp_path / "aside")

    def write(*args):
        shutil.copy(tmp_path / "aside", journal)
        return real(*args)

    with closing(open_store(path)) as store:
        monkeypatch.setattr(Snapshot, "write", write)
        with pytest.raises(StoreCorrupt, match="another program"):
            store.write(Batch(meta={"x": 1}))


def test_a_full_disk_refuses_and_it_is_done_once_there_is_room(path):
    secrets = Secrets(path.name)
    code = """
import resource, sys
from erasing import open_noise
from raeburnmemory.errors import StoreWriteFailed
memory = open_noise(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
try:
    memory.forget(sys.argv[2], secure=True)
except StoreWriteFailed as error:
    assert sys.argv[1] in str(error), error
else:
    sys.exit("it was not full")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
memory.forget(sys.argv[2], secure=True)
assert sys.argv[2] not in memory
"""
    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        memory.forget(gone[1:])
    run(code, path, gone[0])
    assert secrets.found(path.parent) == {}


@pytest.mark.parametrize("name", ["m.json", "m.db"])
def test_a_memory_that_was_closed_is_backed_up_under_a_name_beside_it(tmp_path, name):
    with MemoryGraph(tmp_path / name, "builtin") as memory:
        memory.add_message("kept")
    doctor.backup(memory, tmp_path / f"{name}.monday")
    with MemoryGraph(tmp_path / f"{name}.monday", "builtin", read_only=True) as copy:
        assert [node.text for node in copy.nodes("prompt")] == ["kept"]


def test_a_backup_whose_process_was_killed_as_it_was_put_in_place_is_named(path, monkeypatch):
    secrets, target = Secrets("backup"), path.with_name(f"{path.name}.monday")
    real = switch._carry_out

    def interrupted(name):
        raise KeyboardInterrupt

    def killed(*args):
        monkeypatch.setattr(switch.os, "unlink", interrupted)
        real(*args)

    with open_noise(path) as memory:
        gone = plant(memory, secrets)
        monkeypatch.setattr(switch, "_carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            memory.backup(target)
        monkeypatch.undo()
        assert target.with_name(target.name + ".switching").exists()
        assert target.name in "".join(secrets.found(path.parent))
        with pytest.raises(ErasureIncomplete) as caught:
            forget_planted(memory, gone, secure=True)
        assert caught.value.files == (str(target),)
        forget_planted(memory, gone, secure=True, backups=True)
        assert secrets.found(path.parent) == {}
        memory.backup(target)
        assert doctor.verify(target).sound
