"""The LangGraph door, beyond the tests that LangGraph ships: against its own stores, and with everything around."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import threading
import time
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import datetime, timezone

import numpy as np
import pytest

pytest.importorskip("langgraph.store.base", reason="the LangGraph door needs langgraph-checkpoint")

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore, _compare_values
from outside import fake, finish, start, unit

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import EmbedderMismatch, InvalidInput
from raeburnmemory.langgraph import RaeburnStore
from raeburnmemory.langgraph._filters import fitting
from raeburnmemory.nodes import Node

FILES = ["g.json", "g.db", ":memory:"]


class Words(Embeddings):
    """Bags of words, as a model of LangChain's."""

    def __init__(self, model="words", dim=16):
        self.model, self.dim = model, dim

    def embed_documents(self, texts):
        return fake(texts, self.dim).tolist()

    def embed_query(self, text):
        return self.embed_documents([text])[0]


def words(texts):
    return fake(texts).tolist()


async def words_async(texts):
    await asyncio.sleep(0)
    return fake(texts).tolist()


def place(tmp_path, name):
    return name if name == ":memory:" else tmp_path / name


@pytest.fixture(params=FILES)
def where(request, tmp_path):
    return place(tmp_path, request.param)


@pytest.fixture
def store(where):
    with RaeburnStore(where, index={"embed": Words(), "dims": 16, "fields": ["text"]}) as store:
        yield store


def keys(items):
    return [item.key for item in items]


# --- op by op, beside InMemoryStore -----------------------------------------------------------------------------

LABELS = st.sampled_from(["a", "b", "A", "a/b", "%", "ü"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
PREFIXES = st.lists(LABELS, max_size=2).map(tuple)
KEYS = st.sampled_from(["k", "l", "m", "a/k", "", "ключ"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "1", "x", "y z", 0.5]))
NAMES = st.sampled_from(["a", "b", "n"])
LEAVES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(NAMES, SCALARS, max_size=2))
JSON = st.one_of(SCALARS, st.lists(LEAVES, max_size=2), st.dictionaries(NAMES, LEAVES, max_size=2))
WORDS = st.lists(st.sampled_from(["red", "green", "blue", "apple", "car", "house"]), min_size=1, max_size=3).map(
    " ".join
)
# InMemoryStore refuses an item, or a batch, in which one text stands twice.
TAGS = st.lists(st.sampled_from(["first", "second one", "third"]), max_size=2, unique=True)
VALUES = st.fixed_dictionaries({}, optional={"text": WORDS, "other": WORDS, "n": JSON, "a": JSON, "tags": TAGS})
INDEX = st.sampled_from([None, None, False, ["other"], ["text", "tags[*]"], ["nothing"]])
COMPARED = st.dictionaries(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), JSON, min_size=1, max_size=2)
CONDITIONS = st.dictionaries(
    st.sampled_from(["n", "a", "text"]),
    st.one_of(JSON, COMPARED, st.dictionaries(st.sampled_from(["a", "b"]), COMPARED, max_size=2), st.lists(COMPARED, max_size=2)),
    max_size=2,
)  # fmt: skip
PATHS = st.lists(st.one_of(LABELS, st.just("*")), min_size=1, max_size=2).map(tuple)
CONDITION = st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), PATHS)

GETS = st.builds(GetOp, NAMESPACES, KEYS)
PUTS = st.builds(PutOp, NAMESPACES, KEYS, st.one_of(st.none(), VALUES, VALUES, VALUES), INDEX, st.none())
SEARCHES = st.builds(
    SearchOp,
    PREFIXES,
    filter=st.one_of(st.none(), CONDITIONS),
    limit=st.integers(0, 30),
    offset=st.integers(0, 3),
    query=st.one_of(st.none(), WORDS),
)
LISTS = st.builds(
    ListNamespacesOp,
    st.one_of(st.none(), st.lists(CONDITION, max_size=2).map(tuple)),
    st.one_of(st.none(), st.integers(1, 3)),
    st.integers(0, 5),
    st.integers(0, 2),
)


def answers(value, conditions):
    """Tell whether InMemoryStore finds that a value fulfils conditions, None where it cannot say."""
    try:
        return all(_compare_values(value.get(name), wanted) for name, wanted in conditions.items())
    except (TypeError, ValueError, OverflowError):
        return None


@given(VALUES, CONDITIONS)
def test_filters_say_what_inmemorystore_says(value, conditions):
    expected = answers(value, conditions)
    fits = fitting(conditions)
    found = fits is None or fits(value)
    assert found == expected if expected is not None else isinstance(found, bool)


class Beside(RuleBasedStateMachine):
    """Any history of batches gives what InMemoryStore gives, and the same again once the memory was closed."""

    FILE = None

    @initialize()
    def begin(self):
        self.folder = self.FILE and self.FILE()
        self.ours, self.theirs = self.opened(), InMemoryStore(index=self.index())
        self.born = {}  # the order in which what is there was put first

    @staticmethod
    def index():
        return {"dims": 16, "embed": words, "fields": ["text", "n.a"]}

    def opened(self):
        return RaeburnStore(self.folder or ":memory:", index=self.index())

    @rule(ops=st.lists(st.one_of(GETS, PUTS, PUTS, SEARCHES, LISTS), min_size=1, max_size=6))
    def batch(self, ops):
        # InMemoryStore keeps namespaces that are empty, and makes those that are only read; and it forgets no vector
        # of what is put again.
        for namespace in [one for one, items in self.theirs._data.items() if not items]:
            del self.theirs._data[namespace]
        known = {(item.namespace, item.key): item for items in self.theirs._data.values() for item in items.values()}
        ops = [
            op
            for op in ops
            if not (isinstance(op, SearchOp) and any(answers(i.value, op.filter or {}) is None for i in known.values()))
        ]
        before = sorted(namespace for namespace, items in self.theirs._data.items() if items)
        vectors = {name: dict(self.theirs._vectors[name[0]].get(name[1], {})) for name in known}
        for op in ops:
            if isinstance(op, PutOp):
                self.theirs._vectors[op.namespace].pop(op.key, None)
        latest = {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}
        expected = []
        for op in ops:
            if isinstance(op, PutOp):
                expected.append(None)
            elif isinstance(op, GetOp):
                expected.append(known.get((op.namespace, op.key)))
            elif isinstance(op, ListNamespacesOp):
                expected.append(InMemoryStore._handle_list_namespaces(_Listing(before), op))
            else:
                expected.append(self.searched(op, known, vectors))
        order = dict(self.born)
        for op in latest.values():
            self.theirs.batch([op])
        for name, op in latest.items():
            if op.value is None:
                self.born.pop(name, None)
            else:
                self.born.setdefault(name, len(self.born) + max(self.born.values(), default=0))
        for op, found, wanted in zip(ops, self.ours.batch(ops), expected, strict=True):
            self.compare(op, found, wanted, order)

    @staticmethod
    def searched(op, known, vectors):
        """Return what fits in the order in which it was put, and of what has vectors the best cosine."""
        size, question = len(op.namespace_prefix), op.query and unit(fake([op.query]))[0]
        found = []
        for (namespace, key), item in known.items():
            if namespace[:size] == op.namespace_prefix and answers(item.value, op.filter or {}):
                own = [unit(np.array(row)) for row in vectors[namespace, key].values()]
                own = [row for row in own if row.any()]
                found.append((item, max(float(row @ question) for row in own) if op.query and own else None))
        return found

    @staticmethod
    def compare(op, found, wanted, order):
        if isinstance(op, GetOp):
            assert (found is None) == (wanted is None)
            assert found is None or (found.value, found.key, found.namespace) == (
                wanted.value,
                wanted.key,
                wanted.namespace,
            )
        elif isinstance(op, SearchOp):
            scores = {(item.namespace, item.key): score for item, score in wanted}
            values = {(item.namespace, item.key): item.value for item, _ in wanted}
            best_first = sorted((-score for _, score in wanted if score is not None))
            names = [(item.namespace, item.key) for item in found]
            unscored = [name for name in names if scores[name] is None]
            assert unscored == sorted(unscored, key=order.get)
            assert len(set(names)) == len(names) == len(range(len(wanted))[op.offset : op.offset + op.limit])
            expected = [*best_first, *[math.nan] * (len(wanted) - len(best_first))][op.offset : op.offset + op.limit]
            for item, best in zip(found, expected, strict=True):
                name = item.namespace, item.key
                assert item.value == values[name]
                assert (item.score is None) == (scores[name] is None) == math.isnan(best)
                if item.score is not None:
                    assert item.score == pytest.approx(scores[name], abs=1e-5)
                    assert item.score == pytest.approx(-best, abs=1e-5)
        else:
            assert found == wanted

    @rule()
    def reopen(self):
        if self.folder:
            everything = self.ours.search((), limit=999)
            self.ours.close()
            self.ours = self.opened()
            assert self.ours.search((), limit=999) == everything

    @rule(prefix=PREFIXES, query=st.one_of(st.none(), WORDS), size=st.integers(1, 3))
    def pages(self, prefix, query, size):
        whole = keys(self.ours.search(prefix, query=query, limit=999))
        pages = (self.ours.search(prefix, query=query, limit=size, offset=at) for at in itertools.count(0, size))
        assert [key for page in itertools.takewhile(len, pages) for key in keys(page)] == whole

    def teardown(self):
        if hasattr(self, "ours"):
            self.ours.close()


class _Listing:
    """What InMemoryStore needs to list namespaces."""

    def __init__(self, namespaces):
        self._data = dict.fromkeys(namespaces)


@pytest.mark.parametrize("name", FILES)
def test_any_history_gives_what_inmemorystore_gives(name, tmp_path_factory):
    class Machine(Beside):
        FILE = None if name == ":memory:" else staticmethod(lambda: tmp_path_factory.mktemp("beside") / name)

    examples = max(settings().max_examples // 5, 1)
    run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=12))


# --- what a batch is ----------------------------------------------------------------------------------------------


def test_a_batch_is_one_transaction_or_none(store):
    store.put(("a",), "gone", {"text": "old"})
    version = store.memory._store.version()
    results = store.batch([
        PutOp(("a",), "k", {"text": "first"}), GetOp(("a",), "k"), PutOp(("a",), "gone", None), GetOp(("a",), "gone"),
        SearchOp(("a",)), PutOp(("a",), "k", {"text": "second"}), ListNamespacesOp(), PutOp(("b",), "l", {}),
    ])  # fmt: skip
    assert [results[place] for place in (0, 1, 2, 5, 7)] == [None] * 5
    assert results[3].value == {"text": "old"}
    assert keys(results[4]) == ["gone"]
    assert results[6] == [("a",)]
    assert store.memory._store.version() == version + 1
    assert {item.key: item.value for item in store.search(())} == {"k": {"text": "second"}, "l": {}}
    for odd in (PutOp(("a",), "m", {"n": math.inf}), PutOp(("a",), "m", {"n": {1}}), PutOp(("a",), "m", "text"),
                PutOp(("a",), "m", {}, None, "soon"), SearchOp((), {"n": {"$in": [1]}}), SearchOp((), limit=-1), "get"):  # fmt: skip
        with pytest.raises(InvalidInput):
            store.batch([PutOp(("a",), "k", None), PutOp(("a",), "x", {}), odd])
    assert store.memory._store.version() == version + 1
    assert store.batch([]) == []


@pytest.mark.parametrize("namespace", [("a.b",), ("a", ""), (1,), ("a\0",)])
def test_labels_that_are_none_are_refused_in_a_batch_too(store, namespace):
    conditions = (MatchCondition("prefix", namespace),)
    for op in (GetOp(namespace, "k"), PutOp(namespace, "k", {}), SearchOp(namespace), ListNamespacesOp(conditions)):
        with pytest.raises(InvalidNamespaceError, match="no label"):
            store.batch([PutOp(("a",), "k", {}), op])


def test_a_condition_on_namespaces_is_about_the_beginning_or_the_end(store):
    store.put(("a",), "k", {})
    with pytest.raises(InvalidInput, match="match type"):
        store.batch([ListNamespacesOp((MatchCondition("middle", ("a",)),))])


def test_filters_compare_what_can_be_compared():
    value = {"n": 3, "s": "10", "d": "2026-11-20", "b": True, "none": None, "l": [1, {"x": 2}], "o": {"x": {"y": 5}}, "a.b": 1,
             "huge": 10**400}  # fmt: skip
    yes = [{"n": {"$gt": 2, "$lt": 3.5}}, {"n": {"$gte": "3"}}, {"s": {"$gt": 9}}, {"d": {"$gte": "2026-11-01"}}, {"b": {"$lte": 1}},
           {"none": None}, {"nobody": None}, {"nobody": {"$ne": 1}}, {"l": [1, {"x": {"$gt": 1}}]}, {"l": (1, {"x": 2})},
           {"o": {"x": {"y": {"$lte": 5}}}}, {"o.x.y": 5}, {"a.b": 1}, {"o.x": {"y": 5}}, {"n": {"$lt": math.inf}}, {"huge": {"$gt": 1}},
           {"l": {"$eq": (1, {"x": 2})}}, {}, None]  # fmt: skip
    no = [{"n": {"$gt": 2, "$lt": 3}}, {"d": {"$gt": 5}}, {"nobody": {"$gt": 0}}, {"none": {"$lt": 5}}, {"o": {"$gt": 1}}, {"l": [1]},
          {"n": {"$eq": math.nan}}, {"o.x.z": 5}, {"n.x": 1}, {"o": {"x": {"y": {"$lt": 5}}}}, {"l": {"0": 1}}, {"n": {"$ne": 3}}]  # fmt: skip
    for conditions in yes:
        assert (fits := fitting(conditions)) is None or fits(value), conditions
    for conditions in no:
        assert not fitting(conditions)(value), conditions
    for conditions in (
        {"n": {"$in": [3]}},
        {"l": [{"$x": 1}]},
        {"o": {"x": {"$regex": "a"}}},
        {"n": {"$gt": 1, "lt": 2}},
    ):
        with pytest.raises(InvalidInput, match="Unsupported operator"):
            fitting(conditions)


def test_no_name_in_a_filter_leads_elsewhere(store):
    """Names that SqliteStore refuses, because it puts them into SQL, are names like all others."""
    store.put(("docs",), "private", {"access": "private"})
    name = "access') = 'public' OR '1'='1' OR json_extract(value, '$."
    assert store.search(("docs",), filter={name: "x"}) == []
    store.put(("docs",), "odd", {name: "x"})
    assert keys(store.search(("docs",), filter={name: "x"})) == ["odd"]


def test_values_come_back_as_they_were_and_are_not_shared(store):
    value = {"text": "red", "größe": [1, 2.5, None, True, {"": {"a.b": "\0 \U0001f60a"}}], "empty": {}, "2": []}
    store.put(("a",), "k", value)
    value["empty"]["x"] = 1
    for found in (store.get(("a",), "k"), store.search(("a",))[0], store.search(("a",), query="red")[0]):
        assert found.value == {**value, "empty": {}}
        found.value["größe"].append("changed")
    assert store.get(("a",), "k").value == {**value, "empty": {}}
    assert isinstance(found.created_at, datetime)
    assert found.created_at.tzinfo == timezone.utc


@pytest.mark.parametrize("index", [None, ["$"], ["when"], False], ids=str)
def test_times_and_tuples_are_stored_as_json_has_them_however_they_are_searched(store, index):
    when = datetime(2026, 5, 7, 9, 30, tzinfo=timezone.utc)
    store.put(("a",), "k", {"when": when, "pair": (1, 2)}, index=index)
    assert store.get(("a",), "k").value == {"when": "2026-05-07T09:30:00+00:00", "pair": [1, 2]}
    for wrong in ({1}, b"x"):
        with pytest.raises(InvalidInput, match="'x' of the value of 'bad' is .*, which JSON cannot hold"):
            store.put(("a",), "bad", {"x": wrong}, index=index)
    assert keys(store.search(("a",))) == ["k"]


def test_an_item_keeps_when_it_was_made(store):
    store.put(("a",), "k", {"n": 1})
    first = store.get(("a",), "k")
    store.put(("a",), "k", {"n": 2})
    second = store.search(("a",))[0]
    assert first.created_at == first.updated_at == second.created_at < second.updated_at
    assert [node.attributes["value"] for node in store.memory.history(store.node_id(("a",), "k"))] == [{"n": 1}]


# --- searching ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embed", [Words(), words, words_async], ids=["model", "function", "coroutine"])
def test_any_model_of_langgraph_embeds(where, embed):
    with RaeburnStore(where, index={"dims": 16, "embed": embed, "fields": ["text", "tags[*]"]}) as store:
        store.put(("a",), "car", {"text": "blue car", "tags": ["fast one", "old thing"]})
        store.put(("a",), "none", {"text": "blue car"}, index=False)
        store.put(("a",), "other", {"text": "green", "note": "red apple"}, index=["note"])
        for query, expected in (("blue car", "car"), ("old thing", "car"), ("red apple", "other")):
            best, *_, last = store.search(("a",), query=query)
            assert (best.key, best.score) == (expected, pytest.approx(1, abs=1e-6))
            assert (last.key, last.score) == ("none", None)
        assert asyncio.run(store.asearch((), query="red apple"))[0].key == "other"

        async def inside():  # where a loop is running already
            return store.search((), query="red apple")

        assert asyncio.run(inside())[0].key == "other"
    if where != ":memory:":
        with RaeburnStore(where, index={"embed": embed}) as store:
            assert store.search((), query="blue car", limit=1)[0].key == "car"


def test_a_put_may_be_searched_by_all_of_its_value(where):
    with RaeburnStore(where, index={"embed": Words(), "fields": ["text"]}) as store:
        store.put(("a",), "field", {"text": "blue car", "note": "red apple"})
        store.put(("a",), "whole", {"text": "blue car", "note": "red apple"}, index=["$"])
        text = '{"note": "red apple", "text": "blue car"}'
        found = {item.key: item.score for item in store.search(("a",), query=text)}
        assert found == {"field": pytest.approx(found["field"]), "whole": pytest.approx(1, abs=1e-6)}
        assert found["field"] < 0.99


def test_a_model_is_named_by_itself_and_held_to(tmp_path):
    path = tmp_path / "g.db"
    for embed, name in (
        (words, "test_langgraph.words"),
        (words_async, "test_langgraph.words_async"),
        (Words("x"), "Words(x)"),
    ):
        with RaeburnStore(index={"embed": embed}) as store:
            assert store.memory.model.name.endswith(name)
    with RaeburnStore(path, index={"embed": words, "dims": 16}) as store:
        store.put(("a",), "k", {"text": "red"})
    with pytest.raises(EmbedderMismatch, match="8 numbers"):
        RaeburnStore(index={"embed": words, "dims": 8})
    with MemoryGraph(path, words) as memory:
        for index in ({"embed": lambda texts: fake(texts)[:, ::-1].tolist()}, {"dims": 17}):
            with pytest.raises(EmbedderMismatch):
                RaeburnStore(memory, index=index)
        assert RaeburnStore(memory, index={"embed": Words(), "dims": 16}).search((), query="red")[0].score is not None


def test_without_an_index_all_of_a_value_is_searched_and_with_false_nothing(where):
    with MemoryGraph(where, Words()) as memory:
        everything, nothing = RaeburnStore(memory), RaeburnStore(memory, index=False, collection="other")
        for store in (everything, nothing):
            store.put(("a",), "car", {"about": {"what": "blue car"}})
            store.put(("a",), "apple", {"about": {"what": "red apple"}})
        assert memory.get(everything.node_id(("a",), "car")).text == '{"about": {"what": "blue car"}}'
        assert memory.get(nothing.node_id(("a",), "car")).text is None
        assert [item.score is None for item in everything.search((), query="apple")] == [False, False]
        assert [(item.key, item.score) for item in nothing.search((), query="apple")] == [
            ("car", None),
            ("apple", None),
        ]
        assert (everything.index_config, nothing.index_config) == ({}, None)


def test_a_question_of_which_the_model_knows_no_word_finds_all_without_scores(store):
    store.put(("a",), "k", {"text": "red"})
    assert [(item.key, item.score) for item in store.search((), query="?")] == [("k", None)]
    with RaeburnStore(MemoryGraph(":memory:", "builtin")) as other:
        other.put(("a",), "k", {"text": "red"})
        assert [(item.key, item.score) for item in other.search((), query="\0")] == [("k", None)]


@pytest.mark.parametrize(
    ("index", "why"),
    [({"field": ["a"]}, "'field'"), ({"fields": "a"}, "'fields'"), ({"fields": [1]}, "'fields'"), ("text", "index is"), (True, "index is")],
)  # fmt: skip
def test_an_index_that_cannot_be_understood(index, why):
    with pytest.raises(InvalidInput, match=why):
        RaeburnStore(index=index)


@pytest.mark.parametrize(
    ("ttl", "why"), [({"ttl": 1}, "'ttl'"), ({"omit_expired": False}, "omit_expired"), (5, "ttl is"), ({"default_ttl": "1"}, "minutes")]
)  # fmt: skip
def test_a_ttl_that_cannot_be_understood(ttl, why):
    with pytest.raises(InvalidInput, match=why):
        RaeburnStore(ttl=ttl)


# --- one memory, many faces ---------------------------------------------------------------------------------------


def test_recall_finds_items_and_the_store_finds_what_the_memory_writes_as_items(where):
    with MemoryGraph(where, Words()) as memory:
        store = RaeburnStore(memory, index={"fields": ["text"]}, collection="prefs")
        store.put(("users", "ana"), "food", {"text": "Ana avoids peanuts", "stars": 5})
        store.put(("users", "ben"), "food", {"text": "Ben eats everything"}, index=False)
        memory.add_interaction("What does Ana avoid?", "Peanuts and latex.", session_id="s")
        hit = memory.recall("Ana peanuts", kinds="item")[0]
        assert (hit.id, hit.text) == ("item/prefs/users.ana/food", "Ana avoids peanuts")
        assert hit.id == store.node_id(("users", "ana"), "food")
        assert hit.node.attributes["namespace"] == ["users", "ana"]
        assert memory.recall("peanuts", collection="prefs", where={"value.stars": {"gte": 5}}).ids == [hit.id]
        assert memory.recall("peanuts", where={"namespace": ["users", "ana"]}).ids == [hit.id]
        assert "Ana avoids peanuts" in str(memory.context("peanuts", kinds="item"))
        assert "food" not in memory.recall("Ben eats everything", kinds="item").texts
        # What was said is no item; a node that is made as one is.
        assert keys(store.search(())) == ["food", "food"]
        memory.put([Node("item/prefs/users.cleo/likes", "item", "Cleo likes walnuts", {"value": {"n": 1}})])
        assert store.get(("users", "cleo"), "likes").value == {"n": 1}
        best = store.search(("users",), query="likes walnuts", limit=1)[0]
        assert (best.namespace, best.key) == (("users", "cleo"), "likes")
        memory.put([Node("item/prefs/a/bare", "item")])
        assert store.get(("a",), "bare").created_at == datetime(1970, 1, 1, tzinfo=timezone.utc)
        memory.forget(hit.id)
        assert store.get(("users", "ana"), "food") is None
        store.delete(("users", "cleo"), "likes")
        assert "item/prefs/users.cleo/likes" not in memory


def test_collections_and_tenants_are_apart(tmp_path):
    path = tmp_path / "g.db"
    with RaeburnStore(path, index={"embed": Words()}, namespace="one") as store:
        store.put(("a",), "k", {"text": "secret plan"})
        beside = RaeburnStore(store.memory, collection="other")
        with RaeburnStore(path, index={"embed": Words()}, namespace="two") as stranger:
            for other in (beside, stranger):
                assert other.get(("a",), "k") is None
                assert other.search((), query="secret plan") == other.search(()) == other.list_namespaces() == []
                other.put(("a",), "k", {"text": "mine"})
                other.delete(("a",), "k")
                assert other.sweep_ttl() == 0
            for number in range(20):  # as near as it gets, and none of them takes a place from ours
                stranger.put(("a",), str(number), {"text": "secret plan"})
        assert [item.key for item in store.search((), query="secret plan", limit=1)] == ["k"]
        assert store.get(("a",), "k").value == {"text": "secret plan"}
        with pytest.raises(InvalidInput, match="'two'"):
            RaeburnStore(store.memory, namespace="two")


@pytest.mark.parametrize("name", FILES[:2])
def test_reopened_it_is_the_same(tmp_path, name):
    index = {"embed": Words(), "fields": ["text", "tags[*]"]}
    with RaeburnStore(tmp_path / name, index=index) as store:
        for number in range(30):
            store.put(
                ("a", str(number % 3)), str(number), {"text": f"thing {number}", "tags": ["red", f"tag {number}"]}
            )
        store.delete(("a", "1"), "4")
        before = [store.search(("a",), query=q, limit=99) for q in (None, "thing 7", "tag 11")], store.list_namespaces()
    with RaeburnStore(tmp_path / name, index=index) as store:
        assert (
            [store.search(("a",), query=q, limit=99) for q in (None, "thing 7", "tag 11")],
            store.list_namespaces(),
        ) == before


WRITER = """
import sys
from outside import fake
from raeburnmemory.langgraph import RaeburnStore
path, who = sys.argv[1:]
with RaeburnStore(path, index={"embed": lambda texts: fake(texts).tolist(), "fields": ["text"]}) as store:
    for number in range(30):
        store.put((who, str(number % 3)), str(number), {"text": f"{who} {number}"})
        store.put(("shared",), str(number), {"text": who})
        assert store.get((who, str(number % 3)), str(number)).value == {"text": f"{who} {number}"}
        assert store.search((who,), query=f"{who} {number}", limit=1)[0].score > 0.99
"""


@pytest.mark.parametrize("name", FILES[:2])
def test_two_processes_write_one_store(tmp_path, name):
    list(finish([start(WRITER, tmp_path / name, who) for who in ("one", "two")]))
    with MemoryGraph(tmp_path / name) as memory:
        store = RaeburnStore(memory)
        for who in ("one", "two"):
            assert sorted(keys(store.search((who,), limit=99)), key=int) == [str(number) for number in range(30)]
        assert len(store.search(("shared",), limit=99)) == 30
        assert len(store.list_namespaces()) == 7


def test_threads_share_a_store(store):
    def work(who):
        for number in range(12):
            store.put(("all", str(who)), str(number), {"text": f"thing {who} {number}"})
            assert store.get(("all", str(who)), str(number)).value["text"] == f"thing {who} {number}"
            assert store.search(("all", str(who)), query=f"thing {who} {number}", limit=50)[0].score > 0.99
            store.list_namespaces()
            store.memory.recall("thing")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(store.search(("all",), limit=999)) == 72


# --- asyncio --------------------------------------------------------------------------------------------------------


async def test_the_loop_goes_on_while_a_model_is_slow(tmp_path):
    def slow(texts):
        time.sleep(0.3)
        return fake(texts).tolist()

    store = await asyncio.to_thread(RaeburnStore, tmp_path / "g.db", index={"embed": slow})
    ticks, going = 0, True

    async def tick():
        nonlocal ticks
        while going:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await store.aput(("a",), "k", {"text": "red"})
    await store.asearch(("a",), query="red")
    going = False
    await ticking
    assert ticks > 15, "two calls of at least 0.3 s each"
    await asyncio.to_thread(store.close)


async def test_many_at_once_and_one_that_is_cancelled(store):
    await asyncio.gather(*(store.aput(("a", str(number % 5)), str(number), {"n": number}) for number in range(40)))
    assert len(await store.asearch(("a",), limit=99)) == 40
    writing = asyncio.create_task(store.abatch([PutOp(("b",), str(number), {}) for number in range(20)]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.aput(("c",), "k", {})
    assert len(await store.asearch(("b",), limit=99)) in {0, 20}
    assert await store.aget(("a", "1"), "1") == store.get(("a", "1"), "1")
    await store.adelete(("a", "1"), "1")
    assert await store.aget(("a", "1"), "1") is None
    assert ("b",) in await store.alist_namespaces() or not await store.asearch(("b",))


# --- time to live ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refresh", [True, False, None])
def test_items_live_as_long_as_in_sqlitestore(tmp_path, refresh):
    """One schedule, at once in both: at each moment the same items are there. SqliteStore counts whole seconds."""
    sqlite = pytest.importorskip("langgraph.store.sqlite", reason="compares with langgraph-checkpoint-sqlite")
    second = 1 / 60
    ttl = {"default_ttl": 4 * second} if refresh is None else {"default_ttl": 4 * second, "refresh_on_read": refresh}
    with (
        sqlite.SqliteStore.from_conn_string(str(tmp_path / "theirs.db"), ttl=ttl) as theirs,
        RaeburnStore(tmp_path / "ours.db", ttl=ttl, index=False) as ours,
    ):
        both = [theirs, ours]
        time.sleep(1 - time.time() % 1 + 0.05)  # at the beginning of a second
        for store in both:
            store.put(("a",), "short", {"n": 1}, ttl=second)
            store.put(("a",), "default", {"n": 2})
            store.put(("a",), "read", {"n": 3})
            store.put(("a",), "found", {"n": 4})
            store.put(("a",), "looked at", {"n": 5})
            store.put(("a",), "put again", {"n": 6}, ttl=second)
            store.put(("a",), "for ever", {"n": 7}, ttl=None)
            store.put(("b",), "for ever in the end", {"n": 8})
        time.sleep(0.3)
        for store in both:
            store.put(("a",), "put again", {"n": 6}, ttl=9 * second)
            store.put(("b",), "for ever in the end", {"n": 8}, ttl=None)
        swept = []
        for wait in (2.7, 3.0):
            time.sleep(wait)
            for store in both:
                swept.append(store.sweep_ttl())
                store.get(("a",), "read")
                store.search(("a",), filter={"n": 4})
                store.get(("a",), "looked at", refresh_ttl=False)
            there = [sorted(keys(store.search((), limit=99, refresh_ttl=False))) for store in both]
            assert there[0] == there[1]
            assert theirs.list_namespaces() == ours.list_namespaces()
        assert swept[::2] == swept[1::2] == ([1, 2] if refresh else [1, 4])
        lasting = ["for ever", "for ever in the end", "put again"]
        assert there[1] == sorted([*lasting, "found", "read"] if refresh else lasting)


def test_a_sweeper_sweeps_until_it_is_stopped(tmp_path):
    with RaeburnStore(tmp_path / "g.db", ttl={"sweep_interval_minutes": 0.001}, index=False) as store:
        running = store.start_ttl_sweeper()
        store.put(("a",), "k", {}, ttl=0.0005)
        deadline = time.monotonic() + 20
        while store.memory._store.counts(None)["kinds"] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert store.memory._store.counts(None)["kinds"] == {}
        again = store.start_ttl_sweeper()
        assert sum(thread.name == "raeburnmemory-ttl-sweeper" for thread in threading.enumerate()) == 1
        assert not running.done()
        assert store.stop_ttl_sweeper(20) is True
        assert running.result(20) is again.result(20) is None
        assert store.stop_ttl_sweeper() is True
        once = store.start_ttl_sweeper(0.001)
        assert once.cancel()
        with pytest.raises(CancelledError):
            once.result(20)
        more = store.start_ttl_sweeper()
        assert not more.done()
    assert more.result(20) is None, "closing stops it"


def test_a_sweeper_does_not_keep_a_store_alive():
    store = RaeburnStore(ttl={}, index=False)
    future, gone = store.start_ttl_sweeper(), weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    assert future.result(20) is None


def test_without_ttl_there_is_nothing_to_sweep():
    with RaeburnStore(index=False) as store:
        assert store.start_ttl_sweeper().result(0) is None
        assert store.stop_ttl_sweeper(0) is True
        store.put(("a",), "k", {}, ttl=-1)
        assert store.get(("a",), "k") is None
        assert store.sweep_ttl() == 1


def test_a_sweep_that_fails_is_logged_and_the_next_one_is_tried(tmp_path, caplog):
    memory = MemoryGraph(tmp_path / "g.db", Words())
    store = RaeburnStore(memory, ttl={"sweep_interval_minutes": 0.0005}, index=False)
    memory.close()
    future = store.start_ttl_sweeper()
    deadline = time.monotonic() + 20
    while len(caplog.messages) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all("could not be removed" in message for message in caplog.messages)
    assert len(caplog.messages) >= 2
    assert not future.done()
    assert store.stop_ttl_sweeper(20)


# --- LangMem and LangGraph ------------------------------------------------------------------------------------------


def test_the_tools_of_langmem_run_on_it(where):
    langmem = pytest.importorskip("langmem", reason="runs the tools of langmem")
    with RaeburnStore(where, index={"embed": Words(), "fields": ["content"]}) as store:
        namespace = ("memories", "{user}")
        manage = langmem.create_manage_memory_tool(namespace, store=store)
        search = langmem.create_search_memory_tool(namespace, store=store, response_format="content")
        config = {"configurable": {"user": "ana"}}
        manage.invoke({"content": "Ana avoids peanuts", "action": "create"}, config)
        asyncio.run(manage.ainvoke({"content": "Ana likes hiking", "action": "create"}, config))
        manage.invoke({"content": "Ben eats everything", "action": "create"}, {"configurable": {"user": "ben"}})
        found = store.search(("memories", "ana"), query="avoids peanuts")
        assert [item.value["content"] for item in found] == ["Ana avoids peanuts", "Ana likes hiking"]
        key = found[0].key
        manage.invoke({"content": "Ana avoids nuts of all kinds", "action": "update", "id": key}, config)
        told = search.invoke({"query": "avoids nuts"}, config)
        assert "nuts of all kinds" in told
        assert "Ben" not in told
        assert "hiking" in asyncio.run(search.ainvoke({"query": "likes hiking", "limit": 1}, config))
        assert store.memory.recall("nuts", kinds="item", k=1).texts == ["Ana avoids nuts of all kinds"]
        manage.invoke({"action": "delete", "id": key}, config)
        assert store.get(("memories", "ana"), key) is None
        assert len(store.search(("memories",))) == 2


def test_a_graph_has_it_as_its_store(where):
    graphs = pytest.importorskip("langgraph.graph", reason="runs a graph of langgraph")
    from langgraph.runtime import Runtime

    def remember(state: dict, runtime: Runtime):
        known = [item.value["text"] for item in runtime.store.search(("facts",), query=state["said"])]
        runtime.store.put(("facts",), str(len(known)), {"text": state["said"]})
        return {**state, "known": known}

    with RaeburnStore(where, index={"embed": Words(), "fields": ["text"]}) as store:
        builder = graphs.StateGraph(dict)
        builder.add_node("remember", remember)
        builder.add_edge(graphs.START, "remember")
        graph = builder.compile(store=store)
        assert graph.invoke({"said": "peanuts are out"})["known"] == []
        assert asyncio.run(graph.ainvoke({"said": "hiking is fun"}))["known"] == ["peanuts are out"]
        assert graph.invoke({"said": "no peanuts"})["known"] == ["peanuts are out", "hiking is fun"]
