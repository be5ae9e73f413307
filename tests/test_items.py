"""Items: JSON values by path and key, their texts' vectors, and what becomes of those that expire."""

from __future__ import annotations

import time

import numpy as np
import pytest
from outside import Fake, fake, unit

from raeburnmemory.doctor import verify
from raeburnmemory.errors import InvalidInput, KindConflict
from raeburnmemory.items import Get, Put, Search
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Node, collected_id, collection_of
from raeburnmemory.passages import parts, pieces

every_place = pytest.mark.parametrize("place", ["m.json", "m.db", ":memory:"])


def opened(tmp_path, place, **options):
    return MemoryGraph(place if place == ":memory:" else tmp_path / place, Fake(), **options)


def put(items, path, key, value, texts=(), ttl=None):
    items.write([Put(path, key, value, texts, ttl)])


def get(items, path, key, refresh=False):
    ((*found,),) = items.read([Get(path, key, refresh)])
    return found[0] if found else None


def vectors_of(memory, node_id):
    """Return every vector of a node, with the characters it is of."""
    row, found = memory.get(node_id).row, {}
    for field in ("item", "item.passages"):
        for block in memory._store.vectors(field, -1).blocks:
            for at, values, (_, start, end) in zip(block.rows, block.values, block.spans.tolist(), strict=True):
                if at == row:
                    found[start, end] = values
    return found


@every_place
def test_each_text_of_an_item_has_a_vector_of_its_own(tmp_path, place):
    texts = ["red apple", "a blue car", "red apple", "  ", "green house. " * 60]
    with opened(tmp_path, place) as memory:
        items = memory._items("c")
        put(items, ("a",), "k", {"n": 1}, texts)
        node = memory.get(items.id(("a",), "k"))
        long = texts[4]
        assert node.text == f"red apple\na blue car\n{long}"
        spans = [(0, 9), (10, 20), (21, 21 + len(long))]
        assert parts(node) == tuple(spans)
        found = vectors_of(memory, node.id)
        assert set(spans) < set(found), "the long one has passages besides"
        inner = sorted(set(found) - set(spans))
        assert inner[0][0] == 21
        assert {node.text[start:end].count("red") for start, end in inner} == {0}
        for (start, end), values in found.items():
            np.testing.assert_allclose(values, unit(fake([node.text[start:end]]))[0], atol=1e-6)
        assert memory.stats().unembedded == 0
        # The best of them is what counts.
        (hit,) = memory.similar("a blue car", kinds="item")
        assert hit.score == pytest.approx(1, abs=1e-6)
        put(items, ("a",), "k", {"n": 1}, ["one text"])
        assert set(vectors_of(memory, node.id)) == {(0, -1)}
        assert parts(memory.get(node.id)) == ()


@pytest.mark.parametrize("place", ["m.json", "m.db"])
def test_vectors_of_several_texts_are_made_again_as_they_were(tmp_path, place):
    with opened(tmp_path, place) as memory:
        items = memory._items("c")
        put(items, ("a",), "k", {}, ["red apple", "a blue car", "green house. " * 60])
        put(items, ("a",), "l", {}, ["one text"])
        ids = [items.id(("a",), key) for key in "kl"]
        before = [vectors_of(memory, node_id) for node_id in ids]
        memory.reembed(Fake("other", salt="x"))
        moved = [vectors_of(memory, node_id) for node_id in ids]
        assert [set(some) for some in moved] == [set(some) for some in before]
        for one, two in zip(before, moved, strict=True):
            assert not any(np.allclose(one[span], two[span]) for span in one)
        memory.reembed(Fake())
        for one, two in zip(before, [vectors_of(memory, node_id) for node_id in ids], strict=True):
            for span in one:
                np.testing.assert_allclose(one[span], two[span], atol=1e-6)
    assert verify(tmp_path / place).sound


@pytest.mark.parametrize(
    "odd", [None, "0-9", [], [[0, 9]], [[0, 9], [4]], [[0, 5], [3, 99]], [[5, 2], [0, 1]], [[0, True]]]
)
def test_parts_that_cannot_be_are_none(odd):
    node = Node("i", "item", "red apple, blue car", {"parts": odd})
    assert [piece.text for piece in pieces(node)] == ["red apple, blue car"]
    assert len(parts(node)) < 2


def test_parts_mean_nothing_for_other_kinds():
    node = Node("i", "fragment", "red apple, blue car", {"parts": [[0, 9], [11, 19]]})
    assert [piece.text for piece in pieces(node)] == ["red apple, blue car"]


def test_ids_say_collection_path_and_key_and_no_two_are_alike(tmp_path):
    with opened(tmp_path, ":memory:") as memory:
        names = [
            ((), "k"), ((), ""), (("a",), "k"), (("a", "b"), "k"), (("a/b",), "k"), (("a",), "b/k"), (("a%2Fb",), "k"),
            (("a",), "/k"), (("%",), "k"), (("%25",), "k"), (("ü", "日本"), "\0 \n"),
        ]  # fmt: skip
        several = [memory._items("c"), memory._items("c/d"), memory._items("c%2Fd")]
        ids = {items.id(*name): (items, *name) for items in several for name in names}
        assert len(ids) == len(several) * len(names)
        for number, (items, path, key) in enumerate(ids.values()):
            put(items, path, key, {"n": number})
        for number, (node_id, (items, path, key)) in enumerate(ids.items()):
            assert collection_of(node_id) == items.collection
            assert memory.get(node_id).attributes["value"] == {"n": number}
            assert get(items, path, key).value == {"n": number}
        for items in several:
            ((*found,),) = items.read([Search((), limit=99)])
            assert [(item.path, item.key) for item in found] == names
            assert sorted(items.paths()) == sorted({path for path, _ in names})


@every_place
def test_an_item_keeps_when_it_was_first_written_and_its_earlier_values(tmp_path, place):
    with opened(tmp_path, place) as memory:
        items = memory._items("c")
        put(items, ("a",), "k", {"n": 1})
        first = memory.get(items.id(("a",), "k")).attributes
        put(items, ("a",), "k", {"n": 2})
        second = memory.get(items.id(("a",), "k")).attributes
        assert first["timestamp"] == first["updated_at"] == second["timestamp"] < second["updated_at"]
        assert [node.attributes["value"] for node in memory.history(items.id(("a",), "k"))] == [{"n": 1}]
        put(items, ("a",), "k", None)
        put(items, ("a",), "k", {"n": 3})
        third = memory.get(items.id(("a",), "k")).attributes
        assert third["timestamp"] == third["updated_at"] > second["updated_at"], "it is another item"
        assert memory.history(items.id(("a",), "k")) == []


@every_place
def test_what_is_written_together_is_written_whole_or_not_at_all(tmp_path, place):
    with opened(tmp_path, place) as memory:
        items = memory._items("c")
        put(items, ("a",), "gone", {"n": 0})
        version = memory._store.version()
        items.write([
            Put(("a",), "k", {"n": 1}), Put(("a",), "gone", None), Put(("a",), "l", {"n": 2}), Put(("a",), "k", {"n": 3}),
            Put(("a",), "nobody", None),
        ])  # fmt: skip
        assert memory._store.version() == version + 1
        assert [item.value for item in items.read([Search(("a",))])[0]] == [{"n": 3}, {"n": 2}]
        for odd in (Put(("a",), "x", {"n": float("nan")}), Put(("a",), "x", {"n": object()}), Put(("a.b",), "x", {}),
                    Put(("a", ""), "x", {}), Put(("a",), 5, {}), Put(("a",), "x", {}, ttl="1"), Put(("a",), "x", {}, ttl=True)):  # fmt: skip
            with pytest.raises(InvalidInput):
                items.write([Put(("a",), "m", {"n": 4}), Put(("a",), "k", None), odd])
        memory.put([Node(items.id(("a",), "taken"), "entity")])
        version = memory._store.version()
        with pytest.raises(KindConflict, match="taken"):
            items.write([Put(("a",), "m", {"n": 4}), Put(("a",), "taken", {})])
        assert memory._store.version() == version
        assert [item.key for item in items.read([Search(())])[0]] == ["k", "l"]


@every_place
def test_what_others_write_as_an_item_is_one(tmp_path, place):
    with opened(tmp_path, place) as memory:
        items = memory._items("c")
        put(items, ("a",), "k", {"n": 1})
        items.read([Search(())])
        memory.put([
            Node(collected_id("item", "c", "a.b/x"), "item", "red apple", {"value": {"n": 2}}),
            Node(collected_id("item", "c", "a/y"), "item", "no value"),
            Node(collected_id("item", "c", "no key"), "item", "no item"),
            Node(collected_id("item", "other", "a/z"), "item", "of another collection"),
            Node("item", "item", "nor this"),
            Node(collected_id("fragment", "c", "a/w"), "fragment", "nor this"),
        ])  # fmt: skip
        ((*found,),) = items.read([Search(())])
        assert [(item.path, item.key, item.value) for item in found] == [
            (("a",), "k", {"n": 1}), (("a", "b"), "x", {"n": 2}), (("a",), "y", {})
        ]  # fmt: skip
        ((*near,),) = items.read([Search((), question="red apple", limit=1)])
        assert [(item.key, pytest.approx(item.score, abs=1e-6)) for item in near] == [("x", 1)]
        memory.forget(collected_id("item", "c", "a.b/x"))
        assert [item.key for item in items.read([Search(("a", "b"))])[0]] == []


# --- expiring -------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told; the stores read it, too."""

    class Clock:
        now = time.time()

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


@every_place
def test_what_has_expired_is_gone_at_once_and_from_the_files_when_it_is_swept(tmp_path, place, clock):
    with opened(tmp_path, place) as memory:
        items, other = memory._items("c"), memory._items("other")
        put(items, ("a",), "short", {"n": 1}, ["red apple"], ttl=1)
        put(items, ("b",), "long", {"n": 2}, ["blue car"], ttl=2.5)
        put(items, ("b",), "for ever", {"n": 3}, ["green house"])
        put(other, ("a",), "short", {"n": 4}, ttl=1)
        clock.now += 59
        assert items.sweep() == 0
        assert get(items, ("a",), "short").value == {"n": 1}
        clock.now += 1
        assert get(items, ("a",), "short") is None
        assert [item.key for item in items.read([Search(())])[0]] == ["long", "for ever"]
        assert [item.key for item in items.read([Search((), question="red apple")])[0]] == ["long", "for ever"]
        assert items.paths() == [("b",)]
        assert memory.recall("red apple", kinds="item", legs="lexical").texts == ["blue car", "green house"]
        assert len(memory._store.vector_slots("item")[0]) == 3
        assert items.sweep() == 1
        assert items.sweep() == 0
        assert len(memory._store.vector_slots("item")[0]) == 2
        assert memory._store.expired("default", "item") == [other.id(("a",), "short")]
        clock.now += 3600
        assert items.sweep() == 1
        assert [item.key for item in items.read([Search(())])[0]] == ["for ever"]
        # What is put again is another item, swept before or not.
        for items in (memory._items("c"), other):
            put(items, ("a",), "short", {"n": 5})
            assert get(items, ("a",), "short").value == {"n": 5}
            assert [item.value for item in items.read([Search(("a",))])[0]] == [{"n": 5}]


@pytest.mark.parametrize("place", ["m.json", "m.db"])
def test_what_expired_before_a_memory_was_opened_is_swept(tmp_path, place, clock):
    with opened(tmp_path, place) as memory:
        put(memory._items("c"), ("a",), "k", {"secret": "xyzzy"}, ["xyzzy"], ttl=1)
    clock.now += 61
    with opened(tmp_path, place) as memory:
        assert memory._items("c").sweep() == 1
        assert memory._store.counts(None)["kinds"] == {}


@every_place
def test_reading_lets_an_item_live_longer_if_that_is_asked_for(tmp_path, place, clock):
    with opened(tmp_path, place) as memory:
        items = memory._items("c")
        put(items, ("a",), "k", {"n": 1}, ["red apple", "blue car"], ttl=10)
        put(items, ("a",), "for ever", {"n": 2})
        node_id = items.id(("a",), "k")
        end, updated = memory.get(node_id).expires_at, memory.get(node_id).attributes["updated_at"]
        clock.now += 300
        version = memory._store.version()
        get(items, ("a",), "k")
        items.read([Search(("a",))])
        assert memory._store.version() == version, "reading writes nothing"
        assert get(items, ("a",), "k", refresh=True).value == {"n": 1}
        assert memory.get(node_id).expires_at == end + 300
        assert memory.get(node_id).attributes["updated_at"] == updated
        assert len(vectors_of(memory, node_id)) == 2
        clock.now += 5.9  # less than a hundredth of ten minutes
        version = memory._store.version()
        get(items, ("a",), "k", refresh=True)
        items.read([Search((), refresh=True), Get(("a",), "for ever", True), Get(("a",), "nobody", True)])
        assert memory._store.version() == version, "and neither does what makes no difference"
        clock.now += 0.2
        items.read([Search((), question="blue car", limit=1, refresh=True)])
        assert memory.get(node_id).expires_at == pytest.approx(end + 306.1)
        clock.now += 601
        assert get(items, ("a",), "k", refresh=True) is None
        assert items.sweep() == 1


@every_place
def test_another_object_sees_what_was_written_at_its_next_call(tmp_path, place):
    with opened(tmp_path, place) as memory:
        one, two = memory._items("c"), memory._items("c")
        for number in range(30):
            put(one, (str(number % 3),), str(number), {"n": number})
            if number % 4 == 3:
                put(two, (str(number % 3),), str(number), None)
            for items in (one, two):
                there = [n for n in range(number + 1) if n % 4 != 3]
                assert [item.value["n"] for item in items.read([Search((), limit=99)])[0]] == there
                assert sorted(items.paths()) == sorted({(str(n % 3),) for n in there})
