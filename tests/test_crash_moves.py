"""Killed, or out of power, while a memory becomes another one: brought up to date, folded, indexed, embedded anew.

What it came from stays as it was until what it becomes is whole and on disk.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from faults import CALLS, acknowledged, points, rounds, tools
from outside import Fake, add, check_vectors, check_whole, contents, fake, open_memory, start, unit
from test_power_loss import lived, replay

from raeburnmemory import doctor
from raeburnmemory.errors import StoreCorrupt
from raeburnmemory.memory_graph import MemoryGraph

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and strace are those of a POSIX system")


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    yield from tools(tmp_path_factory)


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / request.param


# --- what moves -------------------------------------------------------------------------------------------------
#
# Each is a folder that is filled, a life that changes it, and what must hold after any part of that life.


class JsonBecomesSqlite:
    file, life, args = "x.json", "opened", ("sqlite",)

    def fill(self, folder):
        with open_memory(folder / "x.json") as memory:
            texts = [(n, f"thing {n} of s") for n in range(60)]
            memory.add_many(
                [
                    ({"id": f"p{n}", "text": t}, {"id": f"r{n}", "text": f"answer to {t}"}, "agent", "s")
                    for n, t in texts
                ]
            )
            memory.update("p7", metadata={"mood": "good"})  # so that there is a history
        self.before = contents(folder)

    def check(self, folder, acked):
        self.same(contents(folder))
        with open_memory(folder / "x.json", storage_backend="sqlite") as memory:
            check_whole(memory, [f"p{n}" for n in range(60)])
            assert len(memory) == 122
            assert len(memory.history("p7")) == 1
            assert memory.similar("thing 42 of s", 1)[0].score > 0.999
        self.same(contents(folder))
        left = set(contents(folder)) - set(self.before)
        assert left == {"x.db"}, "what the killed process left is swept up"

    def same(self, files):
        assert {name: files[name] for name in self.before} == self.before, "the source was touched"


class OriginalDatabase:
    file, life, args = "g.db", "one_more", ("new",)

    def fill(self, folder):
        rows = fake([f"thing {n} of s" for n in range(60)])
        with closing(sqlite3.connect(folder / "g.db")) as db, db:
            db.execute("CREATE TABLE nodes(id TEXT PRIMARY KEY, type TEXT, data TEXT)")
            db.execute("CREATE TABLE edges(src TEXT, dst TEXT, relation TEXT)")
            db.execute("CREATE TABLE vectors(id TEXT PRIMARY KEY, vector BLOB)")
            db.executemany(
                "INSERT INTO nodes VALUES (?, ?, ?)",
                [("agent", "agent", '{"name": "A"}'), ("s", "session", "{}")]
                + [(f"p{n}", "prompt", json.dumps({"text": f"thing {n} of s"})) for n in range(60)]
                + [(f"r{n}", "response", json.dumps({"text": f"answer to thing {n} of s"})) for n in range(60)],
            )
            for n in range(60):
                ends = [(f"p{n}", f"r{n}"), (f"r{n}", "agent"), (f"p{n}", "s")]
                relations = ["responded_with", "generated_by", "belongs_to"]
                db.executemany(
                    "INSERT INTO edges VALUES (?, ?, ?)", [(*e, r) for e, r in zip(ends, relations, strict=True)]
                )
                db.execute("INSERT INTO vectors VALUES (?, ?)", (f"p{n}", rows[n].astype("<f4").tobytes()))
        (folder / "g.db").chmod(0o640)
        with closing(sqlite3.connect(folder / "g.db")) as db:
            self.before = list(db.iterdump())

    def check(self, folder, acked):
        for _ in range(2):
            with open_memory(folder / "g.db") as memory:
                there = [node.id for node in memory.nodes("prompt")]
                assert {*acked, *(f"p{n}" for n in range(60))} <= set(there)
                assert len(there) <= 61
                for prompt in there:
                    assert memory.get(f"r{prompt[1:]}").text == f"answer to {memory.get(prompt).text}"
                    assert {link.relation for link in memory.links(prompt)} == {"responded_with", "belongs_to"}
                assert memory.similar("thing 42 of s", 1)[0].score > 0.999
        with closing(sqlite3.connect(folder / "g.db.original")) as db:
            assert list(db.iterdump()) == self.before
        assert (folder / "g.db.original").stat().st_mode & 0o777 == (folder / "g.db").stat().st_mode & 0o777


class OriginalGraph:
    file, life, args = "g.json", "one_more", ("new",)

    def fill(self, folder):
        nodes = [{"id": "s", "type": "session"}, {"id": "agent", "type": "agent", "name": "A"}]
        nodes += [{"id": f"p{n}", "type": "prompt", "text": f"thing {n} of s", "mood": "good"} for n in range(40)]
        edges = [{"source": f"p{n}", "target": "s", "relation": "belongs_to"} for n in range(40)]
        data = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "links": edges}
        (folder / "g.json").write_text(json.dumps(data, indent=1))
        self.before = (folder / "g.json").read_bytes()

    def check(self, folder, acked):
        if (folder / "g.json").read_bytes() != self.before:
            assert (folder / "g.json.original").read_bytes() == self.before
        with open_memory(folder / "g.json") as memory:
            there = {node.id: node for node in memory.nodes("prompt")}
            assert {*acked, *(f"p{n}" for n in range(40))} <= set(there)
            assert len(there) <= 41
            assert there["p7"].attributes["mood"] == "good"
            memory.reindex()
            assert memory.similar("thing 7 of s", 1).ids == ["p7"]
        assert (folder / "g.json.original").read_bytes() == self.before


class SavedIndex:
    file, life, args = "g.db", "searched", ()

    def __init__(self):
        self.texts = [f"word {n} {n % 7} other {n % 11}" for n in range(1100)]  # so many that the index is worth saving

    def fill(self, folder):
        with open_memory(folder / "g.db") as memory:
            memory.add_many([({"id": f"p{n}", "text": text},) for n, text in enumerate(self.texts)])

    def check(self, folder, acked):
        for read_only in (True, False):
            with open_memory(folder / "g.db", read_only=read_only) as memory:
                scores = np.sort(unit(fake(self.texts)) @ unit(fake(["word 5 3"]))[0])[::-1]
                assert [hit.score for hit in memory.similar("word 5 3", 7)] == pytest.approx(scores[:7], abs=1e-5)
                assert memory.vector_index.ntotal == len(self.texts)


class EmbeddedAnew:
    life, args = "reembedded", ()

    def __init__(self, file):
        self.file = file
        self.texts = [f"thing {n} of the world {n * n}" for n in range(300)]

    def fill(self, folder):
        with open_memory(folder / self.file) as memory:
            memory.add_many([({"id": f"p{n}", "text": text},) for n, text in enumerate(self.texts)])

    def check(self, folder, acked):
        old, new = fake, Fake("new", 24, salt="new")
        with MemoryGraph(folder / self.file, read_only=True) as memory:
            model = old if memory.stats().embedder == "outside.fake" else new
        for now in [model, new]:
            with MemoryGraph(folder / self.file, now, vector_backend="exact") as memory:
                rows = unit(now(self.texts) if now is old else now.embed(self.texts))
                question = "thing 11 of the world"
                asked = unit(now([question]) if now is old else now.embed([question]))[0]
                found = [hit.score for hit in memory.similar(question, 7)]
                assert found == pytest.approx(np.sort(rows @ asked)[::-1][:7], abs=1e-5)
                left = {name: n for name, n in memory.stats().vectors.items() if name != "prompt.next"}
                assert left == {"prompt": 300}  # and those that were made already, when it was ended in the middle
                if now is old:
                    memory.reembed(new)


class Compacted:
    file, life, args = "g.db", "compacted", ()

    def fill(self, folder):
        with open_memory(folder / "g.db") as memory:
            for n in range(40):
                add(memory, n, "s" * 300)
            memory.forget([f"p{n}" for n in range(10, 40)])

    def check(self, folder, acked):
        with open_memory(folder / "g.db") as memory:
            there = [f"p{n}" for n in range(10)]
            assert [node.id for node in memory.nodes("prompt")] == there
            check_vectors(memory)
            assert memory.similar(memory.get("p7").text, 1)[0].score > 0.999
        assert doctor.verify(folder / "g.db", embedding_model=fake).codes() <= {"leftover"}


class Restored:
    """It is the old one or that of the backup; an exchange that was begun is finished by `repair`, as the error says."""

    life = "restored"

    def __init__(self, file):
        self.file, self.args = file, (f"backup-{file}",)

    def fill(self, folder):
        with open_memory(folder / self.file) as memory:
            for n in range(20):
                add(memory, n)
            doctor.backup(folder / self.file, folder / self.args[0])
            add(memory, "later")
            memory.forget("p3")

    def check(self, folder, acked):
        path = folder / self.file
        try:
            open_memory(path).close()
        except StoreCorrupt as exc:
            assert "repair" in str(exc), exc
            assert doctor.repair(path, embedding_model=fake).sound
        old = {*(f"p{n}" for n in range(20) if n != 3), "plater"}
        backup = {f"p{n}" for n in range(20)}
        with open_memory(path) as memory:
            there = {node.id for node in memory.nodes("prompt")}
            assert there == (backup if "restored" in " ".join(acked) else there)
            assert there in (old, backup)
            assert {node.id for node in memory.nodes("response")} == {f"r{n}" for n in range(20)} | (
                {"rlater"} if there == old else set()
            )
            check_vectors(memory)
            assert memory.similar("thing 7 of s", 1).ids == ["p7"]
        with open_memory(folder / self.args[0], read_only=True) as memory:
            assert {node.id for node in memory.nodes("prompt")} == backup, "the backup was touched"
        assert doctor.verify(path, embedding_model=fake).codes() <= {"leftover"}


MOVES = {
    "JSON becomes SQLite": JsonBecomesSqlite,
    "original database": OriginalDatabase,
    "original graph": OriginalGraph,
    "index saved": SavedIndex,
    "JSON embedded anew": lambda: EmbeddedAnew("g.json"),
    "SQLite embedded anew": lambda: EmbeddedAnew("g.db"),
    "SQLite compacted": Compacted,
    "JSON restored": lambda: Restored("g.json"),
    "SQLite restored": lambda: Restored("g.db"),
}
LONG = {"SQLite compacted", "JSON restored", "SQLite restored"}  # `test_doctor_processes` has some of it in short


@pytest.fixture(params=[pytest.param(each, marks=pytest.mark.long) if each in LONG else each for each in MOVES])
def move(request, tmp_path):
    """A move, with its folder filled: `name`, `source`, and a folder to put copies in, `here`."""
    found = MOVES[request.param]()
    found.name, found.source, found.here = request.param, tmp_path / "source", tmp_path / "here"
    found.source.mkdir()
    found.fill(found.source)
    return found


def copies(strace, move, kind, calls, inject, few, accept):
    """Live the move on copies of its folder, with *inject* done to each of *calls* in turn; *accept* looks at each child."""
    shutil.copytree(move.source, move.here)
    child, counts = strace.count(move.life, move.here / move.file, *move.args)
    assert child.code == 0, child.err
    move.check(move.here, acknowledged(child.out))
    with rounds(kind, move.name) as count:
        for call, number in points(counts, calls, few):
            shutil.rmtree(move.here)
            shutil.copytree(move.source, move.here)
            options = ["-e", f"trace={call}", "-e", f"inject={call}:{inject(call)}:when={number}"]
            child, _ = strace.run(options, move.life, move.here / move.file, *move.args)
            acked = acknowledged(child.out)
            with count.round(f"{call} {number}", acknowledged=len(acked)):
                accept(child)
                move.check(move.here, acked)


def test_killed_while_it_moves(strace, move):
    def accept(child):
        child.clean()
        assert child.code in {0, -9}, child.err

    copies(strace, move, "killed while moving", CALLS, lambda _: "signal=SIGKILL", 2, accept)


def test_refused_while_it_moves(strace, move):
    """An error of ours or none, and after it everything goes on."""

    def accept(child):
        ours = [line for line in child.err.splitlines() if line.startswith("raeburnmemory.errors.Store")]
        if child.code == 0 or not ours:
            child.clean()
        assert child.code == 0 or ours, child.err

    def how(call):
        return "error=EIO" if "sync" in call else "error=ENOSPC"

    copies(strace, move, "refused while moving", CALLS, how, 2, accept)


def test_power_lost_while_it_moves(strace, move):
    shutil.copytree(move.source, move.here)
    recorded = lived(strace, move.here, move.life, move.here / move.file, *move.args)
    replay(
        "power lost while moving",
        move.name,
        move.here,
        recorded,
        move.here,
        12,
        lambda acked: move.check(move.here, acked),
    )


# --- and goes on where it was ------------------------------------------------------------------------------------

REEMBED = """
import sys, time
from outside import Fake, open_memory
class Slow(Fake):
    def embed(self, texts):
        print("EMBED", len(texts), flush=True)
        time.sleep(0.3)
        return super().embed(texts)
open_memory(sys.argv[1]).reembed(Slow("new", 24, salt="new"))
print("done")
"""


@pytest.mark.parametrize(
    "kill_after", [2, pytest.param(1, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)]
)
def test_killed_while_reembedding(path, kill_after):
    texts = [f"thing {n} of the world {n * n}" for n in range(700)]
    with open_memory(path) as memory:
        memory.add_many([({"id": f"p{n}", "text": text},) for n, text in enumerate(texts)])
        question = "thing 11 of the world"
        before = [(hit.id, hit.score) for hit in memory.similar(question, 9)]
    process = start(REEMBED, path)
    for _ in range(kill_after + 1):  # the first is the probe
        assert process.stdout.readline().startswith("EMBED")
    time.sleep(0.1)
    process.kill()
    process.communicate()

    with open_memory(path) as memory:  # the old ones answer
        assert memory.stats().embedder == "outside.fake"
        assert [(hit.id, hit.score) for hit in memory.similar(question, 9)] == before
        memory.add_interaction({"id": "meanwhile", "text": "a parrot sings"})
        memory.update("p5", text="a heron fishes")
        memory.forget("p6")
        assert memory.get_similar_prompts("a parrot sings", 1) == ["meanwhile"]

    counted = []

    class Counting(Fake):
        def embed(self, texts):
            counted.extend(texts)
            return super().embed(texts)

    new = Counting("new", 24, salt="new")
    with open_memory(path) as memory:  # run again, it goes on where it was
        memory.reembed(new)
        known = list(memory.nodes("prompt"))
        again = len([text for text in counted if text.startswith(("thing", "a "))])
        assert again <= 702 - 256 * (kill_after - 1)  # two of the first block changed
        rows = unit(Fake("new", 24, salt="new").embed([node.text for node in known]))
        for question in ("thing 11 of the world", "a parrot", "a heron"):
            scores = rows @ unit(Fake("new", 24, salt="new").embed([question]))[0]
            hits = memory.similar(question, 5)
            assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:5], abs=1e-5)
            by_id = {node.id: score for node, score in zip(known, scores, strict=True)}
            assert [by_id[hit.id] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-5)
        stats = memory.stats()
        assert (stats.embedder, stats.dim, stats.vectors, stats.unembedded) == ("new", 24, {"prompt": 700}, 0)
    with MemoryGraph(path, Fake("new", 24, salt="new"), vector_backend="exact") as memory:
        assert memory.get_similar_prompts("a parrot sings", 1) == ["meanwhile"]
        assert memory.vector_index.ntotal == 700
        assert np.isclose(memory.similar("a heron fishes", 1)[0].score, 1)
