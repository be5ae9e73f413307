"""Copying a memory from any store to any other: all of it, resumable, compared at the end, and nothing overwritten."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from raeburnmemory import MemoryGraph, doctor
from raeburnmemory.doctor import transfer
from raeburnmemory.errors import InvalidInput, StoreCorrupt, StoreMissing
from raeburnmemory.nodes import Batch, Link, Node, Vector, Where
from raeburnmemory.store import open_store

KINDS = ("json", "sqlite", "postgres")
QUESTIONS = ["what must Ana avoid?", "where is the bicycle", "Which piano?", "keys", "is tea hot", "who is it"]


@pytest.fixture
def at(tmp_path, request):
    """Return a function from a kind of store and a name to a place for it."""

    def place(kind, name):
        if kind == "postgres":
            return request.getfixturevalue("postgres_url") + "_" + name
        return str(tmp_path / f"{name}.{'json' if kind == 'json' else 'db'}")

    return place


def fill(location):
    """Make a memory with two namespaces, several sessions, history, facts, times to live, metadata and odd texts."""
    with MemoryGraph(location, "builtin") as memory:
        for number in range(40):
            memory.add_interaction(
                {
                    "id": f"p{number}",
                    "text": f"Question {number} about a bicycle, the old piano and {'tea' * (number % 3)}",
                },
                {"id": f"r{number}", "text": f"Answer {number}: peanuts \0 and \x1a latex, ünï \U0001f98a"},
                agent={"id": "nurse", "name": "N", "traits": [1, {"deep": None}]},
                session_id=f"s{number % 4}",
                metadata={"weight": number / 7, "tags": ["a", str(number)]},
            )
        for number in range(0, 40, 5):
            memory.update(f"p{number}", text=f"Changed {number}: what must Ana avoid?")
            memory.update(f"p{number}", text=f"Changed again {number}: the keys")
        memory.fact("Ana", "lives_in", "Graz", source="p1")
        memory.fact("Ana", "lives_in", "Wien", source="p2")
        memory.link("p1", "p7", "about", why="both")
        memory.link("p1", "p7", "semantically_similar")
    with MemoryGraph(location, "builtin", namespace="wörk") as memory:
        memory.add_interaction({"id": "p1", "text": "Another p1"}, {"id": "r1", "text": "elsewhere"})
    with contextlib.closing(open_store(location)) as store:
        later, past = time.time() + 9e8, time.time() - 5
        store.write(
            Batch(
                nodes=[Node("later", "note", "stays", {}, expires_at=later), Node("gone", "note", "x", expires_at=past)]
            )
        )
        store.write(Batch(links=[Link("later", "gone", "r"), Link("later", "p1", "r")], meta={"graph": {"title": "T"}}))


def same_answers(locations, questions=QUESTIONS):
    """See that all answer alike, hit by hit; scores may differ where the server adds up in another order."""
    found, scores = [], []
    for location in locations:
        with MemoryGraph(location, "builtin", read_only=True) as memory:
            hits = [memory.recall(question, 8) for question in questions]
            near = [memory.get_similar_prompts(question, 9) for question in questions]
        found.append([[[(hit.id, hit.text) for hit in some] for some in hits], near])
        scores.append([hit.score for some in hits for hit in some])
    for other, values in zip(found[1:], scores[1:], strict=True):
        assert other == found[0]
        np.testing.assert_allclose(values, scores[0], atol=2e-6)


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_every_kind_to_every_kind(source, target, at):
    one, two = at(source, "one"), at(target, "two")
    fill(one)
    steps = []
    done = doctor.copy(one, two, progress=lambda n, of: steps.append((n, of)))
    assert steps[-1][0] == steps[-1][1]
    with contextlib.closing(open_store(one, read_only=True)) as old:
        there = len(list(old.nodes(Where(None))))
        past = [[n.text for n in old.history(f"p{i}", "default")] for i in range(40)]
    assert done.nodes == there
    with contextlib.closing(open_store(two, read_only=True)) as new:
        assert [[n.text for n in new.history(f"p{i}", "default")] for i in range(40)] == past
        assert sum(map(len, past)) == 16
        assert new.get(["gone"], "default") == {}
        assert new.get(["later"], "default")["later"].expires_at > time.time() + 8e8
        assert new.meta("graph") == {"title": "T"}
        assert new.meta("copying") is None
    same_answers([one, two])
    report = doctor.verify(two)
    assert [finding for finding in report.findings if finding.severity == "error"] == []
    with contextlib.closing(open_store(one)) as old:
        old.write(Batch(removed_nodes=[("default", "gone")]))  # which has expired, and is in no copy
    digests = doctor.verify(one).digests
    assert len(set(digests.values())) == 5
    assert report.digests == digests


def test_there_and_back_again(at):
    one, two, three = at("sqlite", "one"), at("postgres", "two"), at("json", "three")
    fill(one)
    with contextlib.closing(open_store(one)) as store:
        store.write(Batch(removed_nodes=[("default", "gone")]))
    doctor.copy(one, two)
    doctor.copy(two, three)
    assert doctor.verify(one).digests == doctor.verify(two).digests == doctor.verify(three).digests
    words = ("tea", "bicycle", "piano", "keys", "Ana", "peanuts", "answer", "old", "changed", "lives")
    questions = [f"{first} and {second}" for first in words for second in words]
    assert len(questions) == 100
    same_answers([one, two, three], questions)


def many(location, count=3500, dim=8):
    """Fill a store with enough for several transactions of each stage."""
    rows = np.random.default_rng(0).standard_normal((count, dim))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    with contextlib.closing(open_store(location)) as store:
        nodes = [Node(f"n{i}", "note", f"text {i}", {"i": i}) for i in range(count)]
        store.write(Batch(nodes=nodes, vectors=[Vector(f"n{i}", "note", row) for i, row in enumerate(rows)]))
        store.write(Batch(nodes=[Node(f"n{i}", "note", f"new {i}") for i in range(0, count, 500)]))
        store.write(Batch(links=[Link(f"n{i}", f"n{i + 1}", "next", {"i": i}) for i in range(count - 1)]))


class Cut(Exception):
    pass


@pytest.mark.parametrize("target", KINDS)
def test_it_goes_on_where_it_was_cut(target, at, monkeypatch):
    """Whichever transaction is the last one, the second run writes only what is missing."""
    one, two = at("sqlite", "one"), at(target, "two")
    many(one)
    whole = doctor.verify(one).digests
    write, written = transfer._Copying._write, []

    def cutting(self, batch, count, **state):
        write(self, batch, count, **state)
        written.append(count)
        if len(written) % 3 == 0:
            raise Cut

    monkeypatch.setattr(transfer._Copying, "_write", cutting)
    runs = 0
    while True:
        runs += 1
        try:
            doctor.copy(one, two)
        except Cut:
            assert runs < 20
        else:
            break
    assert runs > 3
    assert sum(written) == 3500 + 3499 + 3493
    assert doctor.verify(two).digests == whole
    version = written.copy(), doctor.verify(two).version
    doctor.copy(one, two)  # there is nothing to do any more
    assert (written, doctor.verify(two).version) == version


def test_a_process_that_is_killed_in_every_stage(at):
    one, two = at("sqlite", "one"), at("postgres", "two")
    many(one, 5000)
    code = "import sys; from raeburnmemory import doctor; doctor.copy(sys.argv[1], sys.argv[2])"
    open_store(two).close()
    with contextlib.closing(open_store(two, read_only=True)) as store:
        for stage in ("nodes", "edges", "vectors"):
            process = subprocess.Popen([sys.executable, "-c", code, one, two])
            while (found := store.meta("copying")) is None or found["stage"] != stage:
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert store.meta("copying") is not None
    doctor.copy(one, two)
    assert doctor.verify(two).digests == doctor.verify(one).digests


def test_a_source_that_was_written_to_is_copied_anew(at, monkeypatch, caplog):
    one, two = at("sqlite", "one"), at("sqlite", "two")
    many(one, 2500)
    nodes = transfer._Copying._edges
    monkeypatch.setattr(transfer._Copying, "_edges", lambda self: (_ for _ in ()).throw(Cut))
    with pytest.raises(Cut):
        doctor.copy(one, two)
    open_store(two, read_only=True).close()
    assert "copy that was not finished (it got as far as the nodes)" in caplog.text
    with contextlib.closing(open_store(one)) as store:
        store.write(Batch(removed_nodes=[("default", "n3")], nodes=[Node("late", "note", "new")]))
    monkeypatch.setattr(transfer._Copying, "_edges", nodes)
    caplog.clear()
    doctor.copy(one, two)
    assert "not finished" not in caplog.text
    assert doctor.verify(two).digests == doctor.verify(one).digests


def test_what_holds_something_is_refused(at):
    one, two, three = at("sqlite", "one"), at("json", "two"), at("sqlite", "three")
    many(one, 20)
    many(three, 30)
    before = Path(three).read_bytes()
    with pytest.raises(InvalidInput, match="holds a memory already"):
        doctor.copy(one, three)
    assert Path(three).read_bytes() == before
    with pytest.raises(InvalidInput, match="is the memory itself"):
        doctor.copy(one, one)
    with pytest.raises(StoreMissing, match="no memory at"):
        doctor.copy(one + "x.db", two)
    doctor.copy(one, two)
    with contextlib.closing(open_store(two)) as store:
        store.write(Batch(nodes=[Node("mine", "note")]))
    with pytest.raises(InvalidInput, match="holds a memory already"):
        doctor.copy(one, two)


def test_part_of_another_copy_is_refused(at, monkeypatch):
    one, two, three = at("sqlite", "one"), at("sqlite", "two"), at("sqlite", "three")
    many(one, 20)
    many(three, 30)
    with monkeypatch.context() as patch:
        patch.setattr(transfer._Copying, "_vectors", lambda self: (_ for _ in ()).throw(Cut))
        with pytest.raises(Cut):
            doctor.copy(one, two)
    with pytest.raises(InvalidInput, match="part of a copy of another memory"):
        doctor.copy(three, two)


def test_a_copy_that_differs_is_found(at, monkeypatch):
    one, two = at("sqlite", "one"), at("sqlite", "two")
    many(one, 20)
    monkeypatch.setattr(transfer._Copying, "_with_both_ends", lambda self, page: list(page)[:-1])
    with pytest.raises(StoreCorrupt, match="other edges than"):
        doctor.copy(one, two)


def test_the_command(at):
    pytest.importorskip("typer", reason="the commands need typer")
    one, two = at("sqlite", "one"), at("json", "two")
    many(one, 20)
    run = [sys.executable, "-m", "raeburnmemory", "--db", one, "copy", two, "--json"]
    found = subprocess.run(run, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["nodes"] == 20
    again = subprocess.run(run[:-1], capture_output=True, text=True, check=True)
    assert again.stdout.startswith(f"Copied {one} to {two}: 20 nodes, ")
