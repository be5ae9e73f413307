"""Files deleted, cut, flipped, edited by hand, mixed up: an error that names the file, or the same answers. Never wrong ones."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest
from outside import Fake, add, check_vectors, contents, fake, open_memory, start, unit

from raeburnmemory import doctor
from raeburnmemory._optional import installed
from raeburnmemory.errors import (
    EmbeddingsMissing,
    MemoryGraphError,
    StoreCorrupt,
    StoreError,
    StoreMissing,
)
from raeburnmemory.memory_graph import MemoryGraph

TEXTS = {
    "p0": "a red apple falls",
    "p1": "the green pear waits",
    "p2": "blue cheese walks home",
    "p3": "seven grey boats sink",
    "p4": "white snow sings",
    "p5": "a black cat reads",
}
ANSWERS = {"r" + prompt[1:]: f"answer to {text}" for prompt, text in TEXTS.items()}
QUESTIONS = ["the red apple", "green boats", "a cat sings"]


def fill(path, *, fold=True):
    with open_memory(path) as memory:
        for node_id, text in TEXTS.items():
            answer = "r" + node_id[1:]
            memory.add_interaction({"id": node_id, "text": text}, {"id": answer, "text": ANSWERS[answer]}, "agent", "s")
        memory.update("p2", metadata={"mood": "good"})
        memory.update("p2", metadata={"mood": "better"})
        if fold:
            memory.export()
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    for name in ("json/g.json", "db/g.db"):
        (folder / name).parent.mkdir()
        fill(folder / name)
    return folder


@pytest.fixture
def graph(tmp_path, filled):
    """A folded JSON store with an empty journal."""
    shutil.copytree(filled / "json", tmp_path / "store")
    return tmp_path / "store" / "g.json"


@pytest.fixture
def database(tmp_path, filled):
    shutil.copytree(filled / "db", tmp_path / "store")
    return tmp_path / "store" / "g.db"


def put(folder, files):
    """Make *files* all that is in *folder*."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def seen(memory, questions=QUESTIONS, embed=fake):
    """Everything there is, and the answers, which are compared with plain numpy over the texts."""
    data = memory.export(False, all_namespaces=True)
    past = {node.id: [(old.text, dict(old.attributes)) for old in memory.history(node.id)] for node in memory}
    prompts = list(memory.nodes("prompt"))
    rows = unit(embed([node.text for node in prompts]))
    answers = []
    for question in questions:
        hits = memory.similar(question, 4)
        scores = dict(zip([n.id for n in prompts], rows @ unit(embed([question]))[0], strict=True))
        assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], abs=1e-5)
        assert [hit.score for hit in hits] == pytest.approx(
            sorted(scores.values(), reverse=True)[: len(hits)], abs=1e-5
        )
        assert len(hits) == min(4, len(prompts))
        answers.append([round(hit.score, 4) for hit in hits])  # equal scores come in the order of writing
    assert len(check_vectors(memory, embed)) == memory.stats().unembedded
    return data, past, answers


def rewritten(path, change):
    """Edit a `graph.json` by hand."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data, indent=1))


def node_of(data, node_id):
    return next(node for node in data["nodes"] if node["id"] == node_id)


def drop_node(data, node_id):
    data["nodes"] = [node for node in data["nodes"] if node["id"] != node_id]
    for name in ("edges", "links"):
        data[name] = [e for e in data[name] if node_id not in {e["source"], e["target"]}]


# --- vector files of a JSON store -------------------------------------------------------------------------------

VECTORS = ".faiss" if installed("faiss") else ".vectors.npy"
NEIGHBOURS = (VECTORS, f".response{VECTORS}", ".map.json", ".vectors.json")
COMBINATIONS = [c for n in (1, 2, 3, 4) for c in itertools.combinations(NEIGHBOURS, n)]


@pytest.mark.parametrize("gone", COMBINATIONS)
def test_deleted_vector_files(graph, gone):
    with open_memory(graph) as memory:
        expected = seen(memory)
    for name in gone:
        graph.with_name(graph.name + name).unlink()
    before = contents(graph.parent)
    calls = []

    def embed(texts):
        calls.extend(texts)
        return fake(texts)

    embed.__module__, embed.__qualname__ = fake.__module__, fake.__qualname__
    for read_only in (True, False):
        with MemoryGraph(graph, embed, vector_backend="exact", read_only=read_only) as memory:
            assert memory.export(False, all_namespaces=True) == expected[0]
            assert memory.get("p3").text == TEXTS["p3"]
            assert len(memory.thread("s")) == 12
            if gone == (".map.json",):  # it only says what the description says too
                assert seen(memory) == expected
                continue
            with pytest.raises(EmbeddingsMissing, match="reindex") as caught:
                memory.similar(QUESTIONS[0])
            assert any(f"g.json{name}" in str(caught.value) for name in gone)
            assert not set(calls) & {*TEXTS.values(), *ANSWERS.values()}  # nothing is embedded again unasked
    assert contents(graph.parent) == before
    with open_memory(graph) as memory:
        assert memory.reindex().indexed == 12
        assert memory.stats().unembedded == 0
        assert seen(memory) == expected
    with open_memory(graph) as memory:
        assert seen(memory) == expected
        memory.link("p0", "p4", "next")  # so that there is something to fold
    now = contents(graph.parent)
    assert {f"g.json{name}" for name in NEIGHBOURS} <= set(now)
    damaged = sorted(raw for name, raw in now.items() if ".damaged-" in name)
    if gone != (".map.json",):
        assert damaged == sorted(raw for name, raw in before.items() if name.endswith(NEIGHBOURS))


@pytest.mark.parametrize("gone", [[VECTORS], [f".response{VECTORS}"], [VECTORS, f".response{VECTORS}"]])
def test_lost_vectors_are_not_forgotten_when_others_come(graph, gone):
    """Adding folds at the end: the half that is there now must not pass for the whole."""
    for name in gone:
        graph.with_name(f"g.json{name}").unlink()
    for number in range(2):
        with open_memory(graph) as memory:
            memory.add_interaction({"id": f"new{number}", "text": "a purple plum"}, "A plum.")
            with pytest.raises(EmbeddingsMissing, match="reindex"):
                memory.similar("the red apple")
            assert memory.stats().unembedded == 6 * len(gone)
    with open_memory(graph) as memory:
        with pytest.raises(EmbeddingsMissing, match="reindex"):
            memory.similar("the red apple")
        memory.reindex()
        assert memory.stats().unembedded == 0
        seen(memory)


def test_what_is_set_aside_twice_in_a_second_is_there_twice(graph):
    damaged = set()
    for turn in range(3):
        file = graph.with_name(f"{graph.name}{VECTORS}")
        raw = bytearray(file.read_bytes())
        raw[-1 - turn] ^= 1
        file.write_bytes(raw)
        damaged.add(bytes(raw))
        with open_memory(graph) as memory:
            memory.reindex()
    kept = {raw for name, raw in contents(graph.parent).items() if f"{VECTORS}.damaged-" in name}
    assert kept >= damaged


def flips(raw, count, seed=1, head=0):
    """Yield copies of *raw* with one bit flipped: every bit of the first *head* bytes, and *count* at random."""
    dice = random.Random(seed)
    places = [(at, bit) for at in range(min(head, len(raw))) for bit in range(8)]
    places += [(dice.randrange(len(raw)), dice.randrange(8)) for _ in range(count)]
    for at, bit in places:
        flipped = bytearray(raw)
        flipped[at] ^= 1 << bit
        yield at, bytes(flipped)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_flipped_bit_in_a_vector_file_never_gives_a_wrong_answer(graph, name):
    with open_memory(graph) as memory:
        expected = seen(memory)
    victim = graph.with_name(graph.name + name)
    outcomes = set()
    for _, raw in flips(victim.read_bytes(), 60, head=45 if name.endswith(VECTORS) else 3):
        victim.write_bytes(raw)
        with open_memory(graph, read_only=True) as memory:
            assert memory.export(False, all_namespaces=True) == expected[0]
            try:
                assert seen(memory) == expected
                outcomes.add("same")
            except EmbeddingsMissing as exc:
                assert f"g.json{name}" in str(exc) or "g.json.vectors.json" in str(exc)
                outcomes.add("missing")
    assert outcomes == ({"same"} if name == ".map.json" else {"missing"})
    with open_memory(graph) as memory:
        memory.reindex()
        assert seen(memory) == expected
    if name != ".map.json":
        assert victim.read_bytes() != raw
        assert raw in [kept for file, kept in contents(graph.parent).items() if f"{name}.damaged-" in file]


@pytest.mark.parametrize("cut", [0, 1, 4, 44, 45, 100, -1])
def test_a_vector_file_cut_off(graph, cut):
    victim = graph.with_name(f"g.json{VECTORS}")
    victim.write_bytes(victim.read_bytes()[:cut])
    with open_memory(graph) as memory:
        with pytest.raises(EmbeddingsMissing, match=rf"g\.json\{VECTORS}.*reindex"):
            memory.similar("apple")
        memory.reindex()
        seen(memory)


# --- the journal ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def journalled(tmp_path_factory):
    """The files of a folded store whose journal holds four more lines, and what was there after each of them."""
    folder = tmp_path_factory.mktemp("journalled")
    path = fill(folder / "g.json")
    states = []
    with open_memory(path) as memory:
        states.append(seen(memory))
        for change in (
            lambda: memory.add_interaction({"id": "p6", "text": "green plums"}, "an answer", "agent", "s"),
            lambda: memory.forget("p1"),
            lambda: memory.update("p3", text="seven green boats"),
            lambda: memory.link("p0", "p4", "next", weight=0.5),
        ):
            change()
            states.append(seen(memory))
        return contents(folder), states


def test_a_torn_tail_loses_the_last_line_and_nothing_else(tmp_path, journalled):
    files, states = journalled
    journal = files["g.json.journal"]
    lines = journal.splitlines(keepends=True)
    assert len(lines) == 5
    for end in range(len(journal) - len(lines[-1]), len(journal)):
        put(tmp_path / "s", {**files, "g.json.journal": journal[:end]})
        path = tmp_path / "s" / "g.json"
        with open_memory(path, read_only=True) as memory:
            assert memory.stats().edges == len(states[3][0]["edges"])
            if end % 20 == 0:
                assert seen(memory) == states[3]
        assert (tmp_path / "s" / "g.json.journal").read_bytes() == journal[:end]
        if end % 10 == 0:
            with open_memory(path) as memory:
                memory.link("p0", "p4", "next", weight=0.5)
                assert seen(memory) == states[4]
            with open_memory(path) as memory:
                assert seen(memory) == states[4]


def test_sectors_of_the_last_line_that_were_never_written(tmp_path, journalled):
    """Zeros in their place are what a power cut leaves; zeros anywhere else are damage."""
    files, states = journalled
    journal = files["g.json.journal"] + b"".join([b"12345678 {", b"x" * 2000, b"}\n"])
    begin = len(files["g.json.journal"])
    first = -(-begin // 512) * 512  # the first sector that begins in the line
    cases = {
        "its start": (begin, first, True),
        "a sector in it": (first, first + 512, True),
        "sectors in it": (first + 512, first + 1536, True),
        "all up to a sector": (begin, first + 512, True),
        "less than a sector": (first, first + 511, False),
        "across sectors": (first + 1, first + 513, False),
        "one byte": (begin + 40, begin + 41, False),
    }
    for name, (low, high, torn) in cases.items():
        raw = bytearray(journal)
        raw[low:high] = bytes(high - low)
        put(tmp_path / "s", {**files, "g.json.journal": bytes(raw)})
        if torn:
            with open_memory(tmp_path / "s" / "g.json", read_only=True) as memory:
                assert seen(memory) == states[4], name
        else:
            with pytest.raises(StoreCorrupt, match=r"g\.json\.journal"):
                open_memory(tmp_path / "s" / "g.json", read_only=True)


@pytest.mark.parametrize("tail", [b"\0" * 700, b"0", b"\xff\xfe", b"12345678 {"])
def test_what_a_crash_leaves_behind_the_last_line(tmp_path, journalled, tail):
    files, states = journalled
    put(tmp_path / "s", {**files, "g.json.journal": files["g.json.journal"] + tail})
    with open_memory(tmp_path / "s" / "g.json", read_only=True) as memory:
        assert seen(memory) == states[4]
    with open_memory(tmp_path / "s" / "g.json") as memory:
        assert seen(memory) == states[4]
        memory.add_interaction("one more")
    with open_memory(tmp_path / "s" / "g.json") as memory:
        assert len(memory) == len(states[4][0]["nodes"]) + 1


def test_a_flipped_bit_in_the_journal_is_damage(tmp_path, journalled):
    files, _ = journalled
    journal = files["g.json.journal"]
    spaces = [at for at, byte in enumerate(journal) if byte & (byte - 1) == 0]  # one flip away from a zero byte
    cases = [*flips(journal, 250, head=12)]
    for at in [*spaces[:25], *spaces[-25:]]:
        flipped = bytearray(journal)
        flipped[at] = 0
        cases.append((at, bytes(flipped)))
    for at, raw in cases:
        put(tmp_path / "s", {**files, "g.json.journal": raw})
        for read_only in (True, False):
            try:
                memory = open_memory(tmp_path / "s" / "g.json", read_only=read_only)
            except StoreError as exc:
                assert "g.json.journal" in str(exc)
                continue
            memory.close()
            # Zeros are what a crash leaves only where they end with a sector, and here no flip makes so many.
            pytest.fail(f"byte {at}")
        assert (tmp_path / "s" / "g.json.journal").read_bytes() == raw


def test_lines_of_the_journal_taken_out_swapped_or_doubled(tmp_path, journalled):
    files, _ = journalled
    head, *lines = files["g.json.journal"].splitlines(keepends=True)
    orders = {
        "first out": [1, 2, 3],
        "second out": [0, 2, 3],
        "swapped": [1, 0, 2, 3],
        "doubled": [0, 0, 1, 2, 3],
        "last twice": [0, 1, 2, 3, 3],
    }
    for name, order in orders.items():
        put(tmp_path / "s", {**files, "g.json.journal": head + b"".join(lines[i] for i in order)})
        before = contents(tmp_path / "s")
        with pytest.raises(StoreCorrupt, match=r"g\.json\.journal"):
            open_memory(tmp_path / "s" / "g.json")
        assert contents(tmp_path / "s") == before, name
    put(tmp_path / "s", {**files, "g.json.journal": b"".join(lines)})
    with pytest.raises(StoreCorrupt, match=r"g\.json\.journal"):
        open_memory(tmp_path / "s" / "g.json")


@pytest.mark.parametrize("raw", [b"", b"\n", b"{}", b"not a journal\n", b"\0" * 100, b"00000000 {}\n"])
def test_a_journal_that_is_none(tmp_path, journalled, raw):
    files, _ = journalled
    put(tmp_path / "s", {**files, "g.json.journal": raw})
    before = contents(tmp_path / "s")
    for read_only in (True, False):
        with pytest.raises(StoreCorrupt, match=r"g\.json\.journal"):
            open_memory(tmp_path / "s" / "g.json", read_only=read_only)
        assert contents(tmp_path / "s") == before


def test_a_journal_that_is_gone(tmp_path, journalled):
    files, states = journalled
    del (files := dict(files))["g.json.journal"]
    put(tmp_path / "s", files)
    with open_memory(tmp_path / "s" / "g.json", read_only=True) as memory:
        assert seen(memory) == states[0]  # what the graph holds
    with open_memory(tmp_path / "s" / "g.json") as memory:
        memory.add_interaction({"id": "p7", "text": "yellow bees"})
        assert memory.similar("yellow bees", 1).ids == ["p7"]
    with open_memory(tmp_path / "s" / "g.json") as memory:
        assert "p7" in memory
        seen(memory)


def test_a_graph_that_is_gone(tmp_path, journalled):
    files = dict(journalled[0])
    del files["g.json"]
    put(tmp_path / "s", files)
    for read_only in (True, False):
        with pytest.raises(StoreMissing, match=r"g\.json"):
            open_memory(tmp_path / "s" / "g.json", read_only=read_only)
        assert contents(tmp_path / "s") == files


def test_a_journal_of_another_store(tmp_path, journalled, graph):
    files = dict(journalled[0])
    files["g.json.journal"] = graph.with_name("g.json.journal").read_bytes()
    put(tmp_path / "s", files)
    with pytest.raises(StoreCorrupt, match=r"g\.json\.journal"):
        open_memory(tmp_path / "s" / "g.json")
    assert contents(tmp_path / "s") == files


@pytest.mark.parametrize("older", [("g.json",), ("g.json.journal",)])
def test_one_of_the_files_put_back_from_a_backup(tmp_path, older):
    path = fill(tmp_path / "s" / "g.json")
    backup = contents(tmp_path / "s")
    with open_memory(path) as memory:
        add(memory, 77)
        memory.export()
        add(memory, 78)
        now = contents(tmp_path / "s")
    put(tmp_path / "s", {**now, **{name: backup[name] for name in older}})
    before = contents(tmp_path / "s")
    for read_only in (True, False):
        with pytest.raises(StoreCorrupt, match=r"g\.json.*older|older.*g\.json"):
            open_memory(path, read_only=read_only)
        assert contents(tmp_path / "s") == before
    put(tmp_path / "s", backup)  # all of them are as good as new
    with open_memory(path) as memory:
        seen(memory)
        assert "p77" not in memory


def test_vector_files_put_back_from_a_backup_answer_with_what_is_right_or_not_at_all(tmp_path):
    path = fill(tmp_path / "s" / "g.json")
    backup = contents(tmp_path / "s")
    with open_memory(path) as memory:
        memory.update("p0", text="a purple plum")
        add(memory, 77)
        expected = seen(memory)
    now = contents(tmp_path / "s")
    for n in (1, 2, 3, 4):
        for names in itertools.combinations(NEIGHBOURS, n):
            put(tmp_path / "s", {**now, **{f"g.json{name}": backup[f"g.json{name}"] for name in names}})
            with open_memory(path, read_only=True) as memory:
                assert memory.export(False, all_namespaces=True) == expected[0]
                try:
                    assert seen(memory) == expected
                except EmbeddingsMissing as exc:
                    assert "g.json" in str(exc)


# --- edited by hand ---------------------------------------------------------------------------------------------


def edit_text(data):
    node_of(data, "p0")["text"] = "a purple plum"


def edit_new(data):
    data["nodes"].append({"id": "by hand", "type": "note", "text": "hello", "colour": "red"})
    edge = {"relation": "about", "source": "by hand", "target": "p0"}
    data["edges"].append(edge)
    data["links"].append(edge)


def edit_gone(data):
    drop_node(data, "p1")
    drop_node(data, "r1")


def edit_all(data):
    edit_text(data)
    edit_gone(data)
    edit_new(data)
    data["nodes"].append({"id": "second", "type": "prompt", "text": "orange trees"})  # as many as before


def edit_layout(data):
    """Nothing but the spaces and line ends."""


@pytest.mark.parametrize("name", [b'"graph": {', b'"raeburnmemory": {'])
def test_one_wrong_letter_does_not_make_the_graph_that_of_a_stranger(graph, name):
    raw = graph.read_bytes()
    at = raw.index(name) + 1
    for place in range(at, at + name.index(b'"', 1) - 1):
        spoiled = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        graph.write_bytes(spoiled)
        before = contents(graph.parent)
        for read_only in (True, False):
            with pytest.raises(StoreCorrupt, match=r"g\.json.*raeburnmemory"):
                open_memory(graph, read_only=read_only)
        assert contents(graph.parent) == before


EDITS = [edit_text, edit_new, edit_gone, edit_all, edit_layout]


def take_over(data):
    """What the message about a graph that was changed by something else says to do."""
    del data["graph"]["raeburnmemory"]


@pytest.mark.parametrize("edit", EDITS)
def test_a_graph_edited_by_hand_is_refused_until_it_is_taken_over(graph, edit):
    unedited = json.loads(graph.read_text())
    rewritten(graph, edit)
    before = contents(graph.parent)
    for read_only in (True, False):
        with pytest.raises(StoreCorrupt, match=r"g\.json.*raeburnmemory") as caught:
            open_memory(graph, read_only=read_only)
        assert "remove the entry" in str(caught.value) or "delete that entry" in str(caught.value)
        assert contents(graph.parent) == before
    rewritten(graph, take_over)
    check_taken_over(graph, unedited)


@pytest.mark.parametrize("edit", EDITS)
def test_a_graph_edited_by_hand_whose_journal_is_gone(graph, edit):
    unedited = json.loads(graph.read_text())
    graph.with_name("g.json.journal").unlink()
    rewritten(graph, edit)
    before = contents(graph.parent)
    if edit not in {edit_text, edit_layout}:
        with pytest.raises(StoreCorrupt, match=r"g\.json.*delete that entry"):
            open_memory(graph)
        assert contents(graph.parent) == before
        return
    # Nobody can tell that it was edited, but for the texts that the vectors were made of.
    check_taken_over(graph, unedited)


def answers_without(before, after):
    """The ids of answers whose vectors cannot be told any more: only prompts have a map, the others their places."""
    there = [node["id"] for node in before["nodes"]]
    told = [(at, node["id"], node["text"]) for at, node in enumerate(after["nodes"]) if node["type"] == "response"]
    return {i for at, i, text in told if there[at : at + 1] != [i] or ANSWERS.get(i) != text}


def check_taken_over(graph, unedited):
    """What the graph says is what counts."""
    wanted = json.loads(graph.read_text())
    mute = answers_without(unedited, wanted)
    before = contents(graph.parent)
    prompts = {n["id"]: n["text"] for n in wanted["nodes"] if n["type"] == "prompt"}
    unchanged = {i: text for i, text in prompts.items() if TEXTS.get(i) == text}
    for read_only in (True, False):
        with open_memory(graph, read_only=read_only) as memory:
            data = memory.export(False)
            assert (data["nodes"], data["edges"]) == (wanted["nodes"], wanted["edges"])
            # Vectors of texts that changed are missing ones; those of the others still count.
            hits = memory.similar("a red apple falls", 9)
            rows = unit(fake([*unchanged.values(), "a red apple falls"]))
            scores = dict(zip(unchanged, rows[:-1] @ rows[-1], strict=True))
            assert {hit.id: hit.score for hit in hits} == pytest.approx(scores, abs=1e-5)
            assert check_vectors(memory) == (set(prompts) - set(unchanged)) | mute
            assert memory.stats().unembedded == len(prompts) - len(unchanged) + len(mute)
            assert [old.attributes.get("mood") for old in memory.history("p2")] == [None, "good"]
            assert memory.history("p3") == []
    assert contents(graph.parent) == before
    with open_memory(graph) as memory:
        add(memory, 9)
        memory.reindex()
        seen(memory)
        assert memory.stats().unembedded == 0
    with open_memory(graph) as memory:
        seen(memory)
        assert {n["id"] for n in memory.export(False)["nodes"]} == {n["id"] for n in wanted["nodes"]} | {"p9", "r9"}
    if "raeburnmemory" not in wanted["graph"]:
        assert graph.with_name("g.json.original").read_bytes() == before["g.json"]


@pytest.mark.parametrize("edit", EDITS)
def test_a_graph_edited_by_hand_beside_a_journal_with_changes(tmp_path, journalled, edit):
    files, _states = journalled
    put(tmp_path / "s", files)
    path = tmp_path / "s" / "g.json"
    rewritten(path, edit)
    before = contents(tmp_path / "s")
    for read_only in (True, False):
        with pytest.raises(StoreCorrupt, match=r"g\.json.*raeburnmemory"):
            open_memory(path, read_only=read_only)
        assert contents(tmp_path / "s") == before

    # The cure that the message names: without our entry both are merged, the journal after the edit.
    rewritten(path, take_over)
    edited = json.loads(path.read_text())
    with open_memory(path) as memory:
        texts = {n["id"]: n.get("text") for n in edited["nodes"]}
        texts["p6"] = "green plums"
        texts["p3"] = "seven green boats"
        texts.pop("p1", None)
        data = memory.export(False)
        found = {n["id"]: n.get("text") for n in data["nodes"]}
        answer = next(n.id for n in memory.neighbours("p6", "responded_with"))
        assert found == {**texts, answer: "an answer"}
        assert ("p0", "p4") in {(e["source"], e["target"]) for e in data["edges"]}
        changed = {edit_text: {"p0"}, edit_all: {"p0", "second"}}.get(edit, set())
        assert check_vectors(memory) == changed | answers_without(json.loads(files["g.json"]), edited)
        memory.reindex()
        assert check_vectors(memory) == set()
        expected = seen(memory)
    with open_memory(path) as memory:
        assert seen(memory) == expected


def test_an_edit_that_does_not_fit_the_journal(tmp_path, journalled):
    files, _ = journalled
    put(tmp_path / "s", files)
    path = tmp_path / "s" / "g.json"

    def edit(data):
        del data["graph"]["raeburnmemory"]
        drop_node(data, "p4")  # to which the journal adds a link

    rewritten(path, edit)
    before = contents(tmp_path / "s")
    with pytest.raises(StoreCorrupt, match="p4"):
        open_memory(path)
    assert contents(tmp_path / "s") == before


def test_a_flipped_bit_in_the_graph_is_an_error_of_ours(graph):
    raw = graph.read_bytes()
    for _, flipped in flips(raw, 300):
        graph.write_bytes(flipped)
        with pytest.raises(StoreError, match=r"g\.json"):
            open_memory(graph, read_only=True)


# --- moved and copied -------------------------------------------------------------------------------------------


def test_a_store_under_another_name_is_the_same_store(graph):
    with open_memory(graph) as memory:
        expected = seen(memory)
    for file in list(graph.parent.iterdir()):
        file.rename(file.with_name(file.name.replace("g.json", "other.json")))
    with open_memory(graph.with_name("other.json")) as memory:
        assert seen(memory) == expected
        add(memory, 9)
        expected = seen(memory)
    with open_memory(graph.with_name("other.json")) as memory:
        assert seen(memory) == expected
    assert not [p.name for p in graph.parent.iterdir() if p.name.startswith("g.json")]


def test_a_copy_beside_the_store_is_a_store_of_its_own(graph):
    for file in list(graph.parent.iterdir()):
        shutil.copy(file, file.with_name(file.name.replace("g.json", "copy.json")))
    with open_memory(graph) as memory:
        memory.update("p0", text="a purple plum")
        original = seen(memory)
    with open_memory(graph.with_name("copy.json")) as memory:
        copied = seen(memory)
        memory.forget("p1")
        copied = seen(memory)
    with open_memory(graph) as memory:
        assert seen(memory) == original
    with open_memory(graph.with_name("copy.json")) as memory:
        assert seen(memory) == copied


def test_the_graph_alone_is_a_store_without_vectors(tmp_path, graph):
    shutil.copy(graph, tmp_path / "alone.json")
    with open_memory(tmp_path / "alone.json") as memory:
        with pytest.raises(EmbeddingsMissing, match=r"alone\.json.*reindex"):
            memory.similar("apple")
        memory.reindex()
        seen(memory)
    with open_memory(tmp_path / "alone.json") as memory:
        seen(memory)


# --- a fold that was interrupted --------------------------------------------------------------------------------


def grow(memory):
    add(memory, 20)
    add(memory, 21)
    memory.update("p1", text="the purple pear waits")
    memory.forget(["p3", "r3"])


def forget_all(memory):
    memory.forget([node.id for node in memory.nodes("prompt")])


def move(memory):
    add(memory, 22)
    memory.reembed(Fake("other", 24, salt="x"))
    add(memory, 23)


def half_moved(memory):
    """What a reembed leaves that was killed half-way: vectors of a second model waiting."""
    calls = itertools.count()

    class Dies(Fake):
        def embed(self, texts):
            if next(calls) >= 2:
                raise KeyboardInterrupt
            return super().embed(texts)

    add_lot(memory, 0, 300)
    with pytest.raises(KeyboardInterrupt):
        memory.reembed(Dies("other", 24, salt="x"))


def nothing(memory):
    memory.link("p0", "p2", "next") if "p0" in memory else memory.update("s", metadata={"a": 1})


CASES = {
    "the first": (lambda memory: None, grow),
    "a later one": (lambda memory: (grow(memory), memory.export()), lambda memory: add(memory, 30)),
    "without new vectors": (lambda memory: memory.export(), nothing),
    "all forgotten": (lambda memory: memory.export(), forget_all),
    "after all was forgotten": (lambda memory: (forget_all(memory), memory.export()), lambda memory: add(memory, 30)),
    "another model": (lambda memory: memory.export(), move),
    "half of another model": (lambda memory: memory.export(), half_moved),
    "the rest of another model": (
        lambda memory: (half_moved(memory), memory.export()),
        lambda memory: memory.reembed(Fake("other", 24, salt="x")),
    ),
}


@pytest.mark.parametrize(
    ("case", "written_with"),
    [
        *itertools.product(CASES, ["faiss", "numpy"]),
        *itertools.product(["a later one", "another model"], ["faiss, then numpy", "numpy, then faiss"]),
    ],
)
def test_every_state_in_the_middle_of_a_fold_is_whole(tmp_path, monkeypatch, case, written_with):
    if "faiss" in written_with:
        pytest.importorskip("faiss", reason="faiss's files are written where faiss is installed")

    def with_faiss(there):
        if there:
            monkeypatch.undo()
        else:
            monkeypatch.setitem(sys.modules, "faiss", None)

    first, _, then = written_with.partition(", then ")
    with_faiss(first == "faiss")
    folder, path = tmp_path / "s", tmp_path / "s" / "g.json"
    folder.mkdir()
    prepare, change = CASES[case]
    memory = open_memory(path)
    for node_id, text in TEXTS.items():
        memory.add_interaction({"id": node_id, "text": text}, {"id": "r" + node_id[1:], "text": "x"}, "agent", "s")
    prepare(memory)
    change(memory)
    with_faiss((then or first) == "faiss")
    moved = memory.stats().embedder == "other"
    embedder = Fake("other", 24, salt="x") if moved else fake

    def look(memory):
        embed = embedder.embed if moved else fake
        if not list(memory.nodes("prompt")):
            assert memory.similar("x").ids == []
            return memory.export(False, all_namespaces=True)
        return seen(memory, embed=embed)

    expected = look(memory)
    before = contents(folder)
    order = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (replace(a, b), order.append(os.path.basename(b))))
    memory._store.fold()
    monkeypatch.setattr(os, "replace", replace)
    after = contents(folder)
    memory.close()
    assert order[-1] == "g.json.journal"
    assert {name for name in after if after[name] != before.get(name)} <= set(order)

    states = [{**before, **{name: after[name] for name in order[:done]}} for done in range(len(order) + 1)]
    for done, files in enumerate([*states, after]):  # that many renames were done when the power went
        put(folder, files)
        with MemoryGraph(path, embedder, vector_backend="exact", read_only=True) as memory:
            assert look(memory) == expected, order[:done]
        assert contents(folder) == files
        with MemoryGraph(path, embedder, vector_backend="exact") as memory:
            assert look(memory) == expected, order[:done]
            memory.add_interaction({"id": "p99", "text": "one more thing"}, "x", "agent", "s")
            more = look(memory)
            if case == "half of another model":
                memory.reembed(Fake("other", 24, salt="x"))
                seen(memory, embed=Fake("other", 24, salt="x").embed)
        if case != "half of another model":
            with MemoryGraph(path, embedder, vector_backend="exact") as memory:
                assert look(memory) == more, order[:done]
    assert not [name for name in contents(folder) if ".damaged-" in name or ".tmp-" in name]


# --- SQLite -----------------------------------------------------------------------------------------------------


def read_everything(path, read_only):
    with open_memory(path, read_only=read_only) as memory:
        return seen(memory)


def test_a_database_cut_off(database):
    whole = database.read_bytes()
    ends = {
        1,
        15,
        16,
        50,
        99,
        100,
        101,
        512,
        len(whole) - 1,
        *range(4096, len(whole), 4096),
        *range(4000, len(whole), 7001),
    }
    for end in sorted(ends):
        database.write_bytes(whole[:end])
        with pytest.raises(StoreError, match=r"g\.db"):
            read_everything(database, read_only=end % 2 == 0)
        assert database.read_bytes() == whole[:end]
    database.write_bytes(whole)
    assert read_everything(database, read_only=False)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_flipped_bit_in_the_header_of_a_database(database, read_only):
    expected = read_everything(database, read_only)
    errors = 0
    whole = database.read_bytes()
    dice = random.Random(7)
    places = [(at, bit) for at in range(100) for bit in (range(8) if 56 <= at < 72 else dice.sample(range(8), 2))]
    for at, bit in places:  # every bit of the numbers that say whose file it is, two of each other byte
        database.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        try:
            # Some of it means nothing to us, such as the version of SQLite that wrote last.
            assert read_everything(database, read_only) == expected, f"byte {at}"
        except MemoryGraphError as exc:
            assert "g.db" in str(exc)
            errors += 1
        finally:
            for name in ("g.db-wal", "g.db-shm", "g.db-journal"):
                database.with_name(name).unlink(missing_ok=True)
    assert errors > 60


def test_a_flipped_bit_in_a_database_is_an_error_of_ours_at_most(database):
    """SQLite keeps no checksums of its pages, so a flipped letter is another letter; but nothing else may come out."""
    raw = database.read_bytes()
    for _, flipped in flips(raw, 250):
        database.write_bytes(flipped)
        try:
            with open_memory(database, read_only=True) as memory:
                memory.export(False)
                for node in memory:
                    memory.history(node.id)
                memory.stats()
                memory.similar("a red apple falls", 9)
        except MemoryGraphError as exc:
            assert "g.db" in str(exc) or "outside.fake" in str(exc)
        finally:
            for name in ("g.db-wal", "g.db-shm"):
                database.with_name(name).unlink(missing_ok=True)


def test_rows_out_of_order_do_not_lead_round_in_a_circle(database):
    """Reading page by page goes on behind the last key; in a damaged tree that may be where it came from."""
    raw = bytearray(database.read_bytes())
    with closing(sqlite3.connect(database)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'vectors'").fetchone()
    at = (root - 1) * 4096
    assert raw[at] == 0x0D  # a leaf: all keys are in this page, and their places behind its header
    end = at + 8 + 2 * int.from_bytes(raw[at + 3 : at + 5], "big")
    places = [raw[i : i + 2] for i in range(at + 8, end, 2)]
    raw[at + 8 : end] = b"".join(places[::-1])
    database.write_bytes(raw)
    with open_memory(database, read_only=True) as memory:
        for field in ("prompt", "response"):
            with contextlib.suppress(StoreCorrupt):
                assert sum(len(block.rows) for block in memory._store.vectors(field, -1).blocks) <= 6
    assert not doctor.verify(database).sound


def test_a_log_that_is_damaged_in_the_middle_is_not_cut_short(tmp_path):
    """SQLite would go on with what is before the damage. Only the last change may be missing, as after a crash."""
    path, ends, several = tmp_path / "made" / "g.db", [32], 6
    with open_memory(path) as memory:
        add(memory, "first")
        memory._store.checkpoint()
        for number in range(several):
            add(memory, number)
            ends.append(path.with_name("g.db-wal").stat().st_size)
        files = contents(path.parent)
    log, dice = files["g.db-wal"], random.Random(2)
    assert ends == sorted(set(ends))
    for number, (low, high) in enumerate(itertools.pairwise([0, *ends])):  # the header, then the changes one by one
        for at in [low, high - 1, *(dice.randrange(low, high) for _ in range(10))]:
            flipped = bytearray(log)
            flipped[at] ^= 1 << dice.randrange(8)
            put(tmp_path / "s", {**files, "g.db-wal": bytes(flipped)})
            path = tmp_path / "s" / "g.db"
            commit = (
                high - 24 - 4096
            )  # the frame that ends a change; where it says so, it cannot be told if that is hit
            if number == several - 1 and commit + 4 <= at < commit + 16:
                continue
            if number < several:
                for read_only in (True, False):
                    with pytest.raises(StoreCorrupt, match=r"g\.db-wal' is damaged at byte"):
                        open_memory(path, read_only=read_only)
                assert path.with_name("g.db-wal").read_bytes() == flipped
            else:
                with open_memory(path) as memory:
                    there = {node.id for node in memory.nodes("prompt")}
                    assert there == {"pfirst", *(f"p{n}" for n in range(number - 1))}
                    seen(memory, ["thing"])


# --- the saved index of a SQLite store --------------------------------------------------------------------------

MANY = 1200  # so many that the index is worth saving


def add_lot(memory, first, count, words="word"):
    memory.add_many(
        [({"id": f"q{n}", "text": f"{words} {n} {n % 7} {words} {n % 11}"}, None) for n in range(first, first + count)]
    )


def answers(path, **options):
    """The answers of a store, which must be those of plain numpy over its texts."""
    with open_memory(path, **options) as memory:
        prompts = list(memory.nodes("prompt"))
        rows = unit(fake([node.text for node in prompts]))
        found = []
        for question in ("word 5 3", "other 77 1 word", "thing 4"):
            scores = rows @ unit(fake([question]))[0]
            hits = memory.similar(question, 7)
            by_id = {node.id: score for node, score in zip(prompts, scores, strict=True)}
            assert [hit.score for hit in hits] == pytest.approx([by_id[hit.id] for hit in hits], abs=1e-5)
            assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:7], abs=1e-5)
            found.append([(hit.id, hit.score) for hit in hits])
        assert memory.vector_index.ntotal == len(prompts)
        return found


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexed")
    with open_memory(folder / "g.db") as memory:
        add_lot(memory, 0, MANY)
        memory.similar("word")
    assert (folder / "g.db.prompt.index").exists()
    return folder


@pytest.fixture
def large(tmp_path, indexed):
    shutil.copytree(indexed, tmp_path / "store")
    return tmp_path / "store" / "g.db"


def test_an_index_that_is_deleted_or_damaged_is_built_again(large):
    index = large.with_name("g.db.prompt.index")
    raw = index.read_bytes()
    with open_memory(large) as memory:
        assert memory.vector_index.ntotal == MANY
    expected = answers(large)
    index.unlink()
    assert answers(large) == expected
    damaged = [raw[:end] for end in (0, 1, 20, 85, 86, 200, len(raw) // 2, len(raw) - 1)]
    damaged += [raw + b"\0", b"\0" * len(raw), raw[:-100] + b"\0" * 100]
    damaged += [flipped for _, flipped in flips(raw, 25)] + [flipped for _, flipped in flips(raw[:400], 15)]
    for bad in damaged:
        index.write_bytes(bad)
        assert answers(large, read_only=True) == expected
    assert answers(large) == expected
    index.unlink(missing_ok=True)
    index.mkdir()
    assert answers(large, read_only=True) == expected


def test_an_index_of_another_store(tmp_path, large):
    with open_memory(tmp_path / "other.db") as memory:
        add_lot(memory, 0, MANY, "other")
        memory.similar("word")
    expected = answers(large)
    shutil.copy(tmp_path / "other.db.prompt.index", large.with_name("g.db.prompt.index"))
    assert answers(large) == expected


def test_an_index_that_is_older_than_the_store_catches_up(large):
    old = large.with_name("g.db.prompt.index").read_bytes()
    with open_memory(large) as memory:
        memory.forget([f"q{n}" for n in range(0, 300, 3)])
        for n in (1, 2, 1198):
            memory.update(f"q{n}", text=f"thing {n} anew")
        add_lot(memory, 5000, 40, "other")
        memory.reembed(fake)
        memory.forget("q5001")
    large.with_name("g.db.prompt.index").unlink(missing_ok=True)
    expected = answers(large)
    large.with_name("g.db.prompt.index").write_bytes(old)
    assert answers(large, read_only=True) == expected
    assert answers(large) == expected


@pytest.mark.parametrize("index_from", ["the future", "the future, of the same length"])
def test_an_index_beside_a_database_put_back_from_a_backup(large, index_from):
    backup = large.read_bytes()
    with open_memory(large) as memory:
        add_lot(memory, 2000, MANY, "other")
        memory.similar("word")
    future = large.with_name("g.db.prompt.index").read_bytes()
    large.write_bytes(backup)
    answers(large, read_only=True)  # an index of a version that this store has not reached
    with open_memory(large) as memory:
        add_lot(memory, 4000, MANY, "thing")  # the same version again, with something else in it
        if index_from == "the future":
            add_lot(memory, 6000, 10, "word")
    large.with_name("g.db.prompt.index").write_bytes(future)  # as after a crash, which saves no index
    answers(large, read_only=True)
    answers(large)


def test_a_database_copied_without_its_index_or_with_a_wal_file(tmp_path, large):
    expected = answers(large)
    with open_memory(large) as memory:
        add(memory, 1)
        files = contents(large.parent)  # while it is open, so that the -wal file holds commits
        assert files.get("g.db-wal")
    put(tmp_path / "copy", {name: raw for name, raw in files.items() if "index" not in name})
    copied = tmp_path / "copy" / "g.db"
    with open_memory(copied, read_only=True) as memory:
        assert "p1" in memory
    answers(copied)
    with closing(sqlite3.connect(copied)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    put(tmp_path / "copy", {"g.db": files["g.db"]})  # without it, the store as it was when it was last closed
    assert answers(copied) == expected
    assert np.isfinite([score for hits in expected for _, score in hits]).all()


FOLDER_GONE = """
import shutil, sys
from outside import add, open_memory
memory = open_memory(sys.argv[1])
add(memory, 1)
shutil.rmtree(sys.argv[2])
"""


@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_a_memory_whose_folder_was_deleted_ends_without_a_traceback(tmp_path, name):
    folder = tmp_path / "gone"
    folder.mkdir()
    process = start(FOLDER_GONE, folder / name, folder)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert err.count("A memory that nobody closed could not be closed") == (name == "g.db"), err


@pytest.mark.parametrize(
    ("column", "value"),
    [("attributes", None), ("attributes", 7), ("attributes", b"{}"), ("id", 7), ("kind", b"x"), ("text", 3.5)],
)
def test_values_of_a_kind_that_was_never_written(tmp_path, column, value):
    """A damaged type in the header of a record makes SQLite give a number, a blob or nothing in the place of a text."""
    path = tmp_path / "g.db"
    with open_memory(path) as memory:
        memory.add_interaction({"id": "p", "text": "a red apple"}, {"id": "r", "text": "a green pear"})
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema=ON")
        (text,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'nodes'").fetchone()
        loose = re.sub(r"(id|kind|text|attributes) TEXT( NOT NULL)?", r"\1", text)
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'nodes'", (loose,))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE nodes SET {column} = ? WHERE rowid = 1", (value,))
    with open_memory(path, read_only=True) as memory:
        for call in (lambda: list(memory.nodes()), lambda: list(memory.similar("apple", 2))):
            with pytest.raises(StoreCorrupt, match=r"g\.db.*damaged"):
                call()
