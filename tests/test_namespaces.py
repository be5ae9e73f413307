"""Several namespaces in one store: each finds its own, and pays for its own."""

from __future__ import annotations

import random

import pytest
from outside import STORE_FILES, fake

from raeburnmemory import MemoryGraph

NAMES = ["ana", "ben", "cy"]


@pytest.fixture(params=["json", "sqlite", "postgres"])
def where(request, tmp_path):
    return (
        request.getfixturevalue("postgres_url")
        if request.param == "postgres"
        else tmp_path / STORE_FILES[request.param]
    )


@pytest.fixture
def memories(where):
    opened = {name: MemoryGraph(where, fake, namespace=name) for name in NAMES}
    yield opened
    for memory in opened.values():
        memory.close()


@pytest.mark.parametrize("seed", range(3))
def test_each_finds_its_own_whatever_comes_and_goes(memories, seed):
    chance, own = random.Random(seed), {name: set() for name in NAMES}
    for number in range(120):
        name = chance.choice(NAMES if number > 20 else NAMES[:1])  # of the first it is the only one for a while
        memory, what = memories[name], chance.random()
        if what < 0.6 or not own[name]:
            own[name].add(memory.add_message(f"text number {number}", "user").message)
        elif what < 0.75:
            one = chance.choice(sorted(own[name]))
            memory.update(one, text=f"changed to {number}")  # its vector comes behind all others
        elif what < 0.85:
            one = chance.choice(sorted(own[name]))
            memory.forget(one)
            own[name].remove(one)
        else:
            memory.put([{"id": str(number), "type": "entity", "name": "n"}])  # no text, no vector
        if chance.random() < 0.5:
            asked = chance.choice(NAMES)
            found = memories[asked].similar("text number 7", k=200)
            assert sorted(found.ids) == sorted(own[asked]), (number, asked)
    for name in NAMES:
        assert sorted(memories[name].similar("text number 7", k=200).ids) == sorted(own[name])


def test_asking_after_an_add_reads_nothing_of_the_others(memories, monkeypatch):
    for name in NAMES:
        for number in range(5):
            memories[name].add_message(f"text {number}", "user")
    memory, read = memories["ana"], []
    memory.recall("text 3")
    store = memory._store

    def noted(method):
        before = getattr(store, method)

        def reading(*given):
            read.append((method, given))
            return before(*given)

        monkeypatch.setattr(store, method, reading)

    for method in ("rows", "namespaces", "nodes"):
        noted(method)
    found = []
    for number in range(5, 9):
        memory.add_message(f"text {number}", "user")
        found = memory.recall(f"text {number}", 1).texts
    assert found == ["text 8"]
    assert read == []


@pytest.mark.parametrize("told", [1000, 3])
@pytest.mark.parametrize("file", ["memory.db", "memory.json"])
def test_what_goes_in_one_of_several_is_taken_out_of_what_is_known_of_each(tmp_path, monkeypatch, file, told):
    """Told from what went alone, or read anew where that is too much: as by who opens the memory now."""
    monkeypatch.setattr("raeburnmemory.field_index._TOLD", told)
    with MemoryGraph(tmp_path / file, fake, namespace="one") as one:
        other = one.within("other")
        spaces = {"one": one, "other": other}

        def check():
            with MemoryGraph(tmp_path / file, fake) as fresh:
                for name, memory in spaces.items():
                    found = memory.similar("word 3", 50)
                    assert set(found.ids) == {node.id for node in memory.nodes() if node.kind == "prompt"}
                    again = fresh.within(name).similar("word 3", 50)
                    assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in again]

        for memory in spaces.values():
            memory.add_messages({"text": f"word {n}", "id": f"m{n}"} for n in range(12))
            check()
        for change in (
            lambda: one.forget("m3"),
            lambda: other.forget(["m4", "m11"]),
            lambda: (one.update("m5", text="word 3"), other.add_message("word 3", id="m20")),
            lambda: (other.forget("m20"), one.add_message("word 3", id="m20")),
            lambda: one.forget("m20"),  # the last of all
            lambda: one.forget([f"m{n}" for n in range(12)]),
            lambda: one.add_message("word 3", id="m3"),
        ):
            change()
            check()
