"""Links between prompts that say the same, against all cosines computed at once."""

from __future__ import annotations

import numpy as np
import pytest
from outside import unit

from raeburnmemory import field_index, linking
from raeburnmemory._optional import installed
from raeburnmemory.embed import PROBE
from raeburnmemory.errors import EmbeddingsMissing, ReadOnly
from raeburnmemory.index import open_index
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Batch

SIMILAR = "semantically_similar"


class Given:
    """An embedder of vectors that were made up before."""

    name, dim = "given", 8

    def __init__(self, known):
        self.known = known

    def embed(self, texts):
        return np.stack([np.eye(8, dtype=np.float32)[0] if t == PROBE else self.known[t] for t in texts])


def opened(path, embedder, **options):
    return MemoryGraph(path, embedder, **{"vector_backend": "exact", **options})


def made_up(count, seed=0):
    """Return texts with vectors of which many are near each other, and two of them the same."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 8)) + 2.5 * rng.standard_normal((6, 8))[rng.integers(0, 6, count)]
    rows[count // 2] = rows[1]
    return dict(zip((f"thing {n}" for n in range(count)), unit(rows), strict=True))


def expected(known, threshold):
    """Return the links, and their scores, between the prompts p0, p1 and so on."""
    rows = np.stack(list(known.values())).astype(np.float64)
    cosines = rows @ rows.T
    return {
        (f"p{i}", f"p{j}"): cosines[i, j]
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j and cosines[i, j] > threshold
    }


def found(memory):
    return {
        (e.source, e.target): e.data["score"] for e in memory._store.links(None, memory.namespace, relation=SIMILAR)
    }


def fill(memory, known):
    memory.add_many([({"id": f"p{n}", "text": text}, {"id": f"r{n}", "text": text}) for n, text in enumerate(known)])


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture(params=["exact", "faiss", "nearest only"])
def backend(request):
    """The two indexes, and one that has no more than the contract asks for."""
    if request.param == "nearest only":
        return NearestOnly
    if request.param == "faiss" and not installed("faiss"):
        pytest.skip("the faiss index needs faiss-cpu")
    return request.param


class NearestOnly:
    """An index that can be asked for the nearest few alone."""

    name = "nearest"

    def __init__(self, dim):
        self._index = open_index("exact", dim)
        for method in ("dim", "add", "remove", "search", "get", "save", "load"):
            setattr(self, method, getattr(self._index, method))

    def __len__(self):
        return len(self._index)

    @property
    def ntotal(self):
        return len(self)


@pytest.mark.parametrize("threshold", [0.85, 0.5, -1.0])
def test_all_pairs_above_the_threshold_are_linked_both_ways(path, backend, threshold):
    known = made_up(150 if threshold > 0 else 70)
    with opened(path, Given(known), vector_backend=backend) as memory:
        fill(memory, known)
        with opened(path, Given(known), vector_backend=backend, namespace="other") as other:
            other.add_many([({"id": f"p{n}", "text": text},) for n, text in enumerate(known)][:20])
        wanted = expected(known, threshold)
        assert memory.link_similar_prompts(threshold) == len(wanted)
        assert found(memory) == pytest.approx(wanted, abs=2e-6)
        assert all(e.namespace == "default" for e in memory._store.links(None, None, relation=SIMILAR))
        memory.unlink("p1", f"p{len(known) // 2}", SIMILAR)
        assert memory.link_similar_prompts(threshold) == 1
        assert memory.link_similar_prompts(threshold) == 0
        assert found(memory) == pytest.approx(wanted, abs=2e-6)


def test_equal_to_the_threshold_is_not_above(path):
    known = {"one": unit([1, 0, 0, 0, 0, 0, 0, 0]), "two": unit([0.6, 0.8, 0, 0, 0, 0, 0, 0])}
    with opened(path, Given(known)) as memory:
        fill(memory, known)
        assert memory.link_similar_prompts(0.6) == 0
        assert memory.link_similar_prompts(0.5999) == 2


class Stop(Exception):
    pass


@pytest.fixture
def small(monkeypatch):
    """Blocks and transactions of a few."""
    monkeypatch.setattr(field_index, "_MOST", 10)
    monkeypatch.setattr(field_index, "_PAIRS", 200)
    monkeypatch.setattr(linking, "_PAIRS", 7)
    monkeypatch.setattr(linking, "_WORK", 150)


def test_interrupted_it_goes_on_where_it_was(path, small):
    known = made_up(100)
    wanted = expected(known, 0.9)
    with opened(path, Given(known)) as memory:
        fill(memory, known)
        told = []

        def stop_at(limit):
            def progress(done, whole):
                told.append((done, whole))
                if done >= limit:
                    raise Stop

            return progress

        with pytest.raises(Stop):
            memory.link_similar_prompts(0.9, progress=stop_at(30))
        assert told[-1][1] == 100
        assert memory._store.meta(linking.LINKING)["default"]["threshold"] == 0.9
    with opened(path, Given(known)) as memory:
        stopped = told[-1][0]
        told.clear()
        with pytest.raises(Stop):
            memory.link_similar_prompts(0.9, progress=stop_at(70))
        assert stopped - 10 < told[0][0] <= stopped + 10, "it began anew"
        new = len(found(memory))
        assert 0 < new < len(wanted)
        assert memory.link_similar_prompts(0.9) == len(wanted) - new
        assert found(memory) == pytest.approx(wanted, abs=2e-6)
        assert memory._store.meta(linking.LINKING) is None
        told.clear()
        assert memory.link_similar_prompts(0.9, progress=stop_at(1000)) == 0
        assert told[0][0] == 10, "what was through is compared again when it is asked for again"


def change_the_node(memory, note):
    memory.update(memory._store.at_rows([note["row"]])[note["row"]].id, metadata={"seen": True})


def note_another(**values):
    def meddle(memory, note):
        memory._store.write(Batch(meta={linking.LINKING: {"default": {**note, **values}}}))

    return meddle


@pytest.mark.parametrize("meddle", [change_the_node, note_another(row=3), note_another(slot=10**6)])
def test_where_it_left_off_is_believed_only_if_it_is_still_there(path, small, meddle):
    """Files that were mended may count their vectors anew; what was compared is compared again then."""
    known, told = made_up(60), []

    def stop(done, whole):
        if done >= 40:
            raise Stop

    with opened(path, Given(known)) as memory:
        fill(memory, known)
        with pytest.raises(Stop):
            memory.link_similar_prompts(0.95, progress=stop)
        note = memory._store.meta(linking.LINKING)["default"]
        assert 10 < note["slot"] < 59
        meddle(memory, note)
        memory.link_similar_prompts(0.95, progress=lambda done, whole: told.append(done))
        assert told[0] == 10
        assert found(memory) == pytest.approx(expected(known, 0.95), abs=2e-6)


def test_what_is_added_or_changed_meanwhile_is_compared_too(path, small):
    known = made_up(60)
    rest = dict(list(known.items())[40:])
    with opened(path, Given(known)) as memory:
        fill(memory, dict(list(known.items())[:40]))

        def progress(done, whole):
            if rest and done >= 20:
                memory.add_many([({"id": f"p{40 + n}", "text": text},) for n, text in enumerate(rest)])
                memory.update("p3", metadata={"seen": True})
                rest.clear()

        assert memory.link_similar_prompts(0.9, progress=progress) == len(expected(known, 0.9))
        assert found(memory) == pytest.approx(expected(known, 0.9), abs=2e-6)


def test_another_threshold_or_other_vectors_begin_anew(path, small):
    known = made_up(60)
    other = dict(zip(known, made_up(60, 5).values(), strict=True))

    def stop(done, whole):
        if done >= 40:
            raise Stop

    with opened(path, Given(known)) as memory:
        fill(memory, known)
        with pytest.raises(Stop):
            memory.link_similar_prompts(0.95, progress=stop)
        before = len(found(memory))
        assert memory.link_similar_prompts(0.9) == len(expected(known, 0.9)) - before
        assert found(memory) == pytest.approx(expected(known, 0.9), abs=2e-6)
        with pytest.raises(Stop):
            memory.link_similar_prompts(0.8, progress=stop)
        for e in memory._store.links(None, "default", relation=SIMILAR):
            memory.unlink(e.source, e.target, SIMILAR)
        moved = Given(other)
        moved.name = "another"
        memory.reembed(moved)
        assert memory._store.meta(linking.LINKING) is None
        assert memory.link_similar_prompts(0.8) == len(expected(other, 0.8))


def test_nothing_of_it_is_read_but_what_is_alike(tmp_path, monkeypatch):
    """Texts of prompts that are like no other stay where they are."""
    known = {f"thing {n}": row for n, row in enumerate(unit(np.random.default_rng(3).standard_normal((400, 8))))}
    with opened(tmp_path / "g.db", Given(known)) as memory:
        fill(memory, known)
        memory.similar("thing 0", 1)  # which looks whose the vectors are
        read = set()
        at_rows = memory._store.at_rows
        monkeypatch.setattr(
            memory._store,
            "at_rows",
            lambda rows: (nodes := at_rows(rows), read.update(n.id for n in nodes.values()))[0],
        )
        monkeypatch.setattr(memory._store, "nodes", None)
        wanted = expected(known, 0.9)
        assert memory.link_similar_prompts(0.9) == len(wanted)
        assert 0 < len(wanted) < 400
        assert read == {one for pair in wanted for one in pair}


def test_lost_vectors_are_said_and_reading_only_is_refused(tmp_path):
    known = made_up(10)
    with opened(tmp_path / "g.json", Given(known)) as memory:
        fill(memory, known)
    with opened(tmp_path / "g.json", Given(known), read_only=True) as memory, pytest.raises(ReadOnly):
        memory.link_similar_prompts()
    for file in tmp_path.glob("g.json.*"):
        if file.name.endswith((".faiss", ".npy")):
            file.unlink()
    with opened(tmp_path / "g.json", Given(known)) as memory:
        with pytest.raises(EmbeddingsMissing, match="reindex"):
            memory.link_similar_prompts()
        memory.reindex()
        assert memory.link_similar_prompts() == len(expected(known, 0.85))


def test_a_memory_without_vectors_has_nothing_to_link(path):
    with opened(path, Given({})) as memory:
        assert memory.link_similar_prompts() == 0
