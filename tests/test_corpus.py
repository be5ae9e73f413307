"""What recall knows of a memory, kept up through any changes, against a plain reading of all nodes and links."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import fake

from raeburnmemory.corpus import _CLOSE, ANSWER, ASKS, DATED, NAMED, STANDING, TEXT, Corpus
from raeburnmemory.errors import KindConflict, NodeNotFound
from raeburnmemory.index._words import Words
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Batch, Link, Node, Where
from raeburnmemory.wanted import Selection

# Texts, whether they ask and whether they name a time.
TEXTS = {
    "": (False, False),
    "Red wine": (False, False),
    "Is it red?": (True, False),
    "\u8d64\u3044\uff1f": (True, False),
    "Wine? No.": (False, False),
    "Red snow on Monday": (False, True),
    "It was 1999, was it?": (True, True),
    "From now on red wine": (False, False),  # what a user wants to stand
}
KNOWN = TEXT | NAMED | ANSWER | ASKS | DATED | STANDING
SPACE = "default"


def expected(store):
    """All of it by the ids of nodes, read from the store in one go and put together as it is said to be."""
    nodes = {node.id: node for node in store.nodes(Where(SPACE))}
    links = [link for link in store.links(None, SPACE) if {link.source, link.target} <= set(nodes)]

    def first(relation, end, other):
        found = {}
        for link in links:
            if link.relation == relation:
                found.setdefault(getattr(link, end), getattr(link, other))
        return found

    def own_name(node_id):
        name = nodes[node_id].attributes.get("name")
        return name.casefold() if isinstance(name, str) and name else None

    asked = first("responded_with", "target", "source")
    agents = first("generated_by", "source", "target")
    session_of = {}
    for link in links:
        if link.relation == "belongs_to" and nodes[link.target].kind == "session":
            session_of.setdefault(link.source, link.target)
    session_of.update({i: session_of[p] for i, p in asked.items() if i not in session_of and p in session_of.copy()})
    members = {}
    for node_id in nodes:
        if node_id in session_of:
            members.setdefault(session_of[node_id], []).append(node_id)
    newer, linked, answers = {}, {}, {}
    order = list(nodes)
    for link in links:
        if link.relation == "supersedes" and link.source != link.target:
            newer[link.target] = max(link.source, newer.get(link.target, link.source), key=order.index)
        if link.relation not in {"responded_with", "generated_by", "belongs_to"}:
            for one, other in ((link.source, link.target), (link.target, link.source)):
                linked.setdefault(one, set()).add((other, link.relation))
        if link.relation == "responded_with" and asked[link.target] == link.source:
            answers.setdefault(link.source, []).append(link.target)
    words, columns, postings = Words("none"), {}, {}
    for node_id, node in nodes.items():
        place = members.get(session_of.get(node_id), []).index(node_id) if node_id in session_of else None
        around = [None, *members[session_of[node_id]], None][place : place + 3] if place is not None else [None] * 3
        agent = agents.get(node_id)
        name = own_name(node_id)
        named = name is not None and node.kind != "agent"
        if name is None and agent is not None and node.kind != "agent":
            name = own_name(agent)
        text = node.text or ""
        asks, dated = TEXTS[text]
        stamp = node.attributes.get("timestamp")
        columns[node_id] = {
            "row": node.row,
            "kind": node.kind,
            "speaker": name,
            "session": session_of.get(node_id),
            "agent": agent,
            "previous": around[0],
            "following": around[2],
            "asked": asked.get(node_id),
            "answer": answers.get(node_id, [None])[0],
            "newer": newer.get(node_id),
            "flags": TEXT * bool(node.text)
            | NAMED * named
            | ANSWER * (node.kind == "response")
            | ASKS * asks
            | DATED * dated
            | STANDING * (node.kind == "prompt" and "From now on" in text),
            "time": None if stamp is None else datetime.fromisoformat(stamp).timestamp(),
            "expires": node.expires_at,
        }
        for word in words.of(f"{node.attributes['name']}: {text}" if named and text else text):
            there = postings.setdefault(word, {})
            there[node_id] = there.get(node_id, 0) + 1
    return {"columns": columns, "members": members, "answers": answers, "linked": linked, "postings": postings}


def held(corpus, vocabulary):
    """The same as a corpus has it, its numbers replaced by ids."""
    alive = [number for number in range(len(corpus)) if corpus.kinds[number] >= 0]
    ids = {number: corpus.ids[number] for number in alive}

    def name(column, number):
        value = int(getattr(corpus, column)[number])
        return None if value < 0 else ids[value]

    columns = {}
    for number, node_id in ids.items():
        assert corpus.number(node_id) == number
        time, expires, speaker = (float(corpus.times[number]), float(corpus.expires[number]), corpus.speakers[number])
        columns[node_id] = {
            "row": int(corpus.rows[number]),
            "kind": corpus.names[corpus.kinds[number]],
            "speaker": corpus.names[speaker] if speaker >= 0 else None,
            "session": name("sessions", number),
            "agent": name("agents", number),
            **{column: name(column, number) for column in ("previous", "following", "asked", "answer", "newer")},
            "flags": int(corpus.flags[number]) & KNOWN,
            "time": None if math.isnan(time) else time,
            "expires": None if math.isinf(expires) else expires,
        }
    postings = {}
    for word in vocabulary:
        numbers, counts = corpus.words.postings(corpus.words.term(word))
        if len(numbers):
            postings[word] = {ids[n]: c for n, c in zip(numbers.tolist(), counts.tolist(), strict=True)}
    assert len(corpus.words) == len(corpus)
    rows = corpus.rows.tolist()
    assert rows == sorted(set(rows))
    assert corpus.numbers(corpus.rows).tolist() == [n if n in ids else -1 for n in range(len(corpus))]
    assert corpus.alive(0.0).tolist() == [n in ids and bool(corpus.flags[n] & TEXT) for n in range(len(corpus))]
    members = {i: [ids[one] for one in corpus.members(number).tolist()] for number, i in ids.items()}
    members = {session: said for session, said in members.items() if said}
    answers = {i: [ids[one] for one in corpus.answers_to(number)] for number, i in ids.items()}
    answers = {node_id: several for node_id, several in answers.items() if several}
    linked = {
        ids[number]: {(ids[other], relation) for other, relation in several}
        for number, several in corpus.linked.items()
        if several
    }
    return {"columns": columns, "members": members, "answers": answers, "linked": linked, "postings": postings}


VOCABULARY = {word for text in TEXTS for word in Words("none").of(text)} | {"ana", "ben", "cy"}


def check(corpus, store, selection=None):
    corpus.catch_up()
    assert corpus.version == store.version()
    wanted = expected(store)
    assert held(corpus, VOCABULARY) == wanted
    texts = [node for node in wanted["columns"].values() if node["flags"] & TEXT]
    assert corpus.words.total == sum(sum(there.values()) for there in wanted["postings"].values())
    assert corpus.words.held == len({i for there in wanted["postings"].values() for i in there}) <= len(texts)
    lengths = Counter()
    for there in wanted["postings"].values():
        lengths.update(there)
    said = {session: sum(lengths[one] for one in some) for session, some in wanted["members"].items()}
    found = corpus.said()
    assert {corpus.ids[n]: found[n] for n in found.nonzero()[0]} == {i: n for i, n in said.items() if n}
    assert len(found) == len(corpus)
    times = [node["time"] for node in wanted["columns"].values() if node["time"] is not None]
    assert corpus.earliest() == min(times) if times else math.isnan(corpus.earliest())
    for one in filter(
        None, (selection, Selection(corpus, store))
    ):  # one that has seen all of it, and one that began now
        mask, numbers, kinds = one.alive()
        alive = {i for i, node in wanted["columns"].items() if node["flags"] & TEXT}
        assert {corpus.ids[n] for n in mask.nonzero()[0]} == alive
        assert numbers is None or numbers.tolist() == mask.nonzero()[0].tolist()
        counted = {corpus.names[code]: count for code, count in enumerate(kinds.tolist()) if count}
        assert counted == Counter(wanted["columns"][i]["kind"] for i in alive)


def begun_anew(corpus, store):
    """Return a corpus that begins with what *corpus* would save."""
    fresh = Corpus(store, SPACE, "none")
    parts = {name: list(part) if isinstance(part, list) else part.copy() for name, part in corpus.to_parts().items()}
    fresh.begin(parts, corpus.version)
    return fresh


numbers = st.integers(0, 3)
texts = st.sampled_from(list(TEXTS))
names = st.sampled_from([None, None, "Ana", "Ben", "", 7])
anything = st.builds("{}{}".format, st.sampled_from("prasnf"), numbers)
relations = st.sampled_from(["responded_with", "generated_by", "belongs_to", "about", "supersedes", "supersedes"])
KINDS = {"p": "prompt", "r": "response", "a": "agent", "s": "session", "n": "note", "f": "fact"}
STEPS = {
    "interaction": st.tuples(numbers, numbers | st.none(), numbers | st.none(), numbers | st.none(), texts, names),
    "message": st.tuples(numbers, st.sampled_from(["user", "assistant", "system"]), numbers | st.none(), texts, names),
    "node": st.tuples(anything, texts | st.none(), names),
    "update": st.tuples(anything, texts | st.none(), names, st.booleans()),
    "forget": st.tuples(st.lists(anything, min_size=1, max_size=3)),
    "forget_session": st.tuples(numbers),
    "forget_agent": st.tuples(numbers),
    "link": st.tuples(anything, anything, relations, st.integers(0, 1)),
    "unlink": st.tuples(anything, anything, relations | st.none()),
    "elsewhere": st.tuples(numbers, texts),
    "expire": st.tuples(anything, st.none() | st.integers(-1, 2)),
    "later": st.tuples(st.integers(1, 2)),
}
LIKELY = [*STEPS, "link", "link", "link"]
steps = st.lists(
    st.one_of([st.tuples(st.just(name), STEPS[name], st.booleans()) for name in LIKELY]), min_size=1, max_size=20
)


class Steps:
    """What may happen to a memory."""

    def __init__(self, memory):
        self.memory = memory
        self.said = 0
        self.now = 1e9

    def when(self):
        self.said += 1
        return f"2026-01-01T00:00:{self.said % 60:02}+00:00"

    def interaction(self, prompt, response, agent, session, text, name):
        named = {} if name is None else {"name": name}
        self.memory.add_interaction(
            {"id": f"p{prompt}", "text": text, **named},
            None if response is None else {"id": f"r{response}", "text": text},
            None if agent is None else {"id": f"a{agent}", "name": ["Ana", "Ben", "Cy", "Ana"][agent]},
            None if session is None else f"s{session}",
            timestamp=self.when(),
        )

    def message(self, number, role, session, text, name):
        name = name if isinstance(name, str) and name else None
        node_id = {"user": "p", "assistant": "r", "system": "y"}[role] + str(number)
        session = None if session is None else f"s{session}"
        self.memory.add_message(text, role, session, name=name, id=node_id, timestamp=self.when())

    def node(self, node_id, text, name):
        given = {"text": text} if text is not None else {}
        self.memory.graph.add_node(node_id, type=KINDS[node_id[0]], **given, **({} if name is None else {"name": name}))

    def update(self, node_id, text, name, without):
        self.memory.update(
            node_id, text=text, metadata={} if name is None else {"name": name}, remove=["name"] if without else []
        )

    def forget(self, ids):
        self.memory.forget(ids)

    def forget_session(self, number):
        self.memory.forget(session=f"s{number}")

    def forget_agent(self, number):
        self.memory.forget(agent=f"a{number}")

    def link(self, source, target, relation, data):
        self.memory.link(source, target, relation, data=data)

    def unlink(self, source, target, relation):
        self.memory.unlink(source, target, relation)

    def elsewhere(self, number, text):
        other = Node(f"p{number}", "prompt", text, {}, "other")
        self.memory._store.write(Batch(nodes=[other], links=[Link(other.id, other.id, "about", {}, "other")]))

    def expire(self, node_id, after):
        node = self.memory.get(node_id)
        self.memory.put([replace(node, row=-1, expires_at=None if after is None else self.now + after)])

    def later(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@given(begun=st.booleans(), steps=steps, saved=st.lists(st.booleans(), min_size=20, max_size=20))
def test_any_changes(backend, begun, steps, saved, tmp_path_factory):
    """At any time it holds what one that was read anew does, and both hold what is there."""
    place = ":memory:" if backend == "memory" else tmp_path_factory.mktemp("corpus") / "m.db"
    with MemoryGraph(place, fake, vector_backend="exact") as memory, pytest.MonkeyPatch.context() as patch:
        do, corpus = Steps(memory), Corpus(memory._store, SPACE, "none")
        patch.setattr(time, "time", lambda: do.now)
        selection = Selection(corpus, memory._store)
        for number in range(3 if begun else 0):  # so that links find something to link
            do.interaction(number, number, number % 2, [None, 0, 1][number], "Red wine", None)
            do.node(f"f{number}", "Is it red?", None)
        check(corpus, memory._store)
        for (name, given_, look), again in zip(steps, saved, strict=False):
            with contextlib.suppress(KindConflict, NodeNotFound):
                getattr(do, name)(*given_)
            if look:
                check(corpus, memory._store, selection)
                if again:  # from here on as whoever opens the memory now
                    corpus = begun_anew(corpus, memory._store)
                    selection = Selection(corpus, memory._store)
        check(corpus, memory._store, selection)
        check(Corpus(memory._store, SPACE, "none"), memory._store)


# --- what chance finds too seldom -------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "json"])
def memory(tmp_path, request):
    place = {"memory": ":memory:", "sqlite": tmp_path / "m.db", "json": tmp_path / "m.json"}[request.param]
    with MemoryGraph(place, fake, vector_backend="exact") as memory:
        yield memory


def after(memory, *changes):
    """Do *changes* one by one under the eyes of a corpus."""
    corpus = Corpus(memory._store, SPACE, "none")
    selection = Selection(corpus, memory._store)
    check(corpus, memory._store, selection)
    for change in changes:
        change()
        check(corpus, memory._store, selection)
    return corpus


def test_a_response_goes_with_its_prompt_until_it_has_a_session_of_its_own(memory):
    link, said = memory.link, Steps(memory)
    corpus = after(
        memory,
        lambda: said.interaction(0, 0, 0, None, "Red wine", None),
        lambda: said.interaction(1, None, None, 1, "Is it red?", None),
        lambda: link("p1", "r0", "responded_with"),  # the second that it answers: no matter
        lambda: said.node("s0", None, None),
        lambda: link("p0", "s0", "belongs_to"),
        lambda: link("r0", "s1", "belongs_to"),
    )
    assert [corpus.ids[n] for n in corpus.members(corpus.number("s1"))] == ["r0", "p1"]
    assert [corpus.ids[n] for n in corpus.members(corpus.number("s0"))] == ["p0"]
    after(memory, lambda: memory.unlink("r0", "s1"), lambda: memory.forget("p0"), lambda: memory.forget("s1"))


def test_an_agent_with_another_name(memory):
    said = Steps(memory)
    after(
        memory,
        lambda: said.interaction(0, 0, 0, 0, "Red wine", None),
        lambda: said.interaction(1, 1, 0, 0, "Is it red?", "Ben"),
        lambda: memory.update("a0", metadata={"name": "Ben"}),
        lambda: memory.update("r0", metadata={"name": "Cy"}),
        lambda: memory.update("r0", remove=["name"]),
        lambda: memory.update("a0", remove=["name"]),
        lambda: memory.link("r1", "a0", "generated_by", data=1),
        lambda: memory.forget("a0"),
    )


def test_what_supersedes_what(memory):
    said = Steps(memory)
    for number in range(4):
        said.node(f"f{number}", "Red wine", None)
    corpus = after(
        memory,
        lambda: memory.link("f2", "f0", "supersedes"),
        lambda: memory.link("f1", "f0", "supersedes"),
        lambda: memory.link("f2", "f0", "supersedes", data=1),
        lambda: memory.link("f0", "f0", "supersedes"),
        lambda: memory.link("f0", "f3", "supersedes"),
        lambda: memory.link("f3", "f0", "supersedes"),
    )
    assert corpus.ids[corpus.newer[corpus.number("f0")]] == "f3"
    after(memory, lambda: memory.forget("f3"), lambda: memory.unlink("f2", "f0"))


def test_what_is_linked_to_others_goes(memory):
    """The parts of a text that changes go all the time: what stays is not read anew for that."""
    said = Steps(memory)
    for number in range(4):
        said.node(f"f{number}", "Red wine", None)
    for number in (1, 2, 3):
        memory.link(f"f{number}", "f0", "part_of")
    memory.link("f2", "f2", "about")
    memory.link("f2", "f3", "about")
    corpus = after(memory)
    words = corpus.words
    for gone in ("f1", ["f2", "f3"]):
        memory.forget(gone)
        check(corpus, memory._store)
    assert corpus.words is words
    assert corpus.linked == {}


def test_what_stays_is_not_read_anew_for_what_goes(memory):
    """Forgetting what somebody said must not make the next question go through everything."""
    said = Steps(memory)
    for number in range(8):
        said.interaction(number, number, number % 2, number % 3, "Red wine", None)
    memory.link("p3", "r0", "responded_with")
    for number in range(5):
        said.node(f"f{number}", "Is it red?", None)
    memory.link("f1", "f0", "supersedes")
    memory.link("f2", "f0", "supersedes")
    memory.link("f3", "f2", "supersedes")
    memory.link("f3", "f4", "about")
    memory.link("f4", "f3", "about")
    corpus = after(memory)
    words = corpus.words
    for change in (
        lambda: memory.forget("p1"),  # its response leaves the session with it
        lambda: memory.forget(["p2", "r2"]),
        lambda: memory.add_message("Red wine", "assistant", "s1", id="r9"),  # another response to p7
        lambda: memory.forget("p7"),
        lambda: memory.forget("s2"),
        lambda: memory.forget(session="s0"),
        lambda: memory.forget(agent="a1"),
        lambda: memory.forget("f2"),
        lambda: memory.unlink("f1", "f0", "supersedes"),
        lambda: memory.unlink("f3", "f4", "about"),  # the one that leads back stays
        lambda: memory.unlink("f4", "f3", "about"),
        lambda: memory.update("a0", metadata={"likes": "tea"}),
        lambda: memory.update("p4", metadata={"name": "Ana"}),
        lambda: memory.update("a0", metadata={"name": "Eva"}),
        lambda: memory.update("a0", remove=["name"]),
        lambda: memory.unlink("p4", "r4", "responded_with"),
        lambda: memory.unlink("p4", "s1", "belongs_to"),
        lambda: memory.unlink("r4", "a0", "generated_by"),
    ):
        change()
        check(corpus, memory._store)
        assert corpus.words is words


def test_what_stands_in_for_a_link_that_goes(memory):
    """Of several prompts, agents and sessions the next one counts, and nothing else is read anew."""
    said, link, unlink = Steps(memory), memory.link, memory.unlink
    for number in range(4):
        said.interaction(number, number, number % 2, number % 3, "Red wine", None)
    corpus = after(memory)
    words = corpus.words
    for change in (
        lambda: (link("p0", "s1", "belongs_to"), unlink("p0", "s0")),  # moves, and its response along
        lambda: (link("r0", "s0", "belongs_to"), unlink("p0", "s1")),
        lambda: (link("p0", "s1", "belongs_to"), unlink("r0", "s0")),  # goes with its prompt again
        lambda: (link("r0", "s2", "belongs_to"), memory.forget("s2")),
        lambda: (unlink("r1", "a1"), link("r1", "a0", "generated_by")),
        lambda: (link("r1", "a1", "generated_by"), memory.forget("a0")),
        lambda: (link("p1", "r3", "responded_with"), unlink("p3", "r3")),
        lambda: (link("p2", "r1", "responded_with"), link("p2", "r0", "responded_with")),
        lambda: unlink("p0", "r0"),  # which p2 has had for longer than what comes now
        lambda: unlink("p1", "r1"),
        lambda: memory.forget("p2"),
        lambda: (unlink("p1", "s1"), link("p1", "s1", "belongs_to")),  # between two looks
    ):
        change()
        check(corpus, memory._store)
        assert corpus.words is words


def test_an_answer_goes_with_its_prompt_when_its_own_session_goes(memory):
    said = Steps(memory)
    after(
        memory,
        lambda: said.interaction(0, 0, None, 0, "Red wine", None),
        lambda: said.node("s1", None, None),
        lambda: memory.link("r0", "s1", "belongs_to"),
        lambda: memory.unlink("p0", "s0"),
        lambda: memory.link("p0", "s0", "belongs_to"),
        lambda: memory.forget("s1"),
    )


def test_more_changes_than_are_recalled(memory, monkeypatch):
    """Who is there, and since when, is told from all of it again where nobody knows what changed."""
    monkeypatch.setattr("raeburnmemory.corpus._RECALLED", 3)
    said = Steps(memory)
    for number in range(4):
        said.interaction(number, number, None, 0, "Red wine", None)
    after(
        memory,
        lambda: memory.forget("p0"),  # the oldest of all
        lambda: memory.forget(["p1", "r1"]),
        lambda: (memory.update("p2", text="Is it red?"), memory.forget("p2")),
        lambda: memory.forget(["p3", "r3", "r0", "r2"]),
    )


def test_words_of_a_text_that_belongs_nowhere(memory):
    said = Steps(memory)
    after(
        memory,
        lambda: said.node("f0", "Red wine", None),
        lambda: said.interaction(0, None, None, 0, "Is it red?", None),  # the session is the last node
        lambda: memory.update("f0", text="Wine? No."),
    )


def test_an_id_that_comes_again(memory):
    """With another kind, row and text, between two looks or not."""
    said = Steps(memory)
    corpus = after(
        memory,
        lambda: said.interaction(0, 0, 0, 0, "Red wine", "Ana"),
        lambda: (memory.forget(["r0"]), memory.add_message("Is it red?", "system", "s0", id="r0")),
        lambda: memory.forget(["r0"]),
        lambda: memory.add_message("Is it red?", "user", "s0", id="r0", timestamp="2026-05-05"),
    )
    assert len(corpus) > len(memory)  # numbers of those that went stay empty


def test_more_nodes_than_there_was_room_for(memory):
    said = Steps(memory)
    after(
        memory,
        lambda: memory.add_many(
            [{"prompt": {"id": f"p{n}", "text": "Red wine"}, "session_id": "s"} for n in range(50)]
        ),
        lambda: memory.forget([f"p{n}" for n in range(1, 40)]),
        lambda: said.interaction(0, 0, 0, 0, "Is it red?", None),
    )


def test_what_expired_stays_out_until_it_is_there_again(memory, monkeypatch):
    """Also where it answered, was answered, spoken by or superseded; and a clock that is set back brings it back."""
    said = Steps(memory)
    monkeypatch.setattr(time, "time", lambda: said.now)
    corpus = after(
        memory,
        lambda: said.interaction(0, 0, 0, 0, "Red wine", None),
        lambda: said.interaction(1, 1, 1, 1, "Is it red?", None),
        lambda: said.link("p1", "p0", "supersedes", 0),
        *(lambda i=i: said.expire(f"{i}1", 1 + "prsa".index(i)) for i in "prsa"),
        *[lambda: said.later(1)] * 4,
    )
    assert sorted(corpus.ids[n] for n in np.flatnonzero(corpus.kinds >= 0)) == ["a0", "p0", "r0", "s0"]
    said.later(-4)
    check(corpus, memory._store)
    assert {corpus.number(f"{i}1") >= 0 for i in "prsa"} == {True}
    said.later(4)
    check(corpus, memory._store)
    said.interaction(1, None, None, None, "Red wine", None)
    check(corpus, memory._store)


def test_what_expires(memory):
    """It is told when; whoever asks compares. One that comes again has the place it had."""
    store, far = memory._store, 4e9
    nodes = [Node("a", "fact", "Red wine", {}, expires_at=far), Node("b", "fact", "Is it red?", {})]
    store.write(Batch(nodes=nodes))
    corpus = after(memory, lambda: store.write(Batch(nodes=[Node("b", "fact", "Red wine", {}, expires_at=far + 1)])))
    assert corpus.alive(far).tolist() == [False, True]
    store.write(Batch(nodes=[Node("a", "fact", "Red wine", {}, expires_at=1.0)]))
    fresh = Corpus(store, SPACE, "none")
    fresh.catch_up()
    assert fresh.number("a") == -1
    store.write(Batch(nodes=[Node("a", "fact", "Red wine", {})]))
    check(fresh, store)
    assert fresh.ids[:] == ["a", "b"]


def test_one_memory_in_two_processes_worth_of_handles(tmp_path):
    """What another handle wrote, folded or not, is there at the next look."""
    with MemoryGraph(tmp_path / "m.json", fake) as one, MemoryGraph(tmp_path / "m.json", fake) as other:
        corpus, said = Corpus(one._store, SPACE, "none"), Steps(other)
        for number in range(4):
            said.interaction(number, number, 0, number % 2, "Red snow on Monday", None)
            check(corpus, one._store)
            other.export()
        said.forget(["p1", "r2"])
        check(corpus, one._store)


def test_names_and_numbers_of_what_is_not_there(memory):
    corpus = after(memory)
    assert (len(corpus), corpus.number("p0"), corpus.code("prompt")) == (0, -1, -1)
    assert corpus.numbers(corpus.rows).tolist() == []
    assert corpus.members(0).tolist() == []


@pytest.mark.parametrize("close", [_CLOSE, 1])
def test_members_of_many_sessions_that_were_saved(memory, close, monkeypatch):
    """Those that joined or left since included, whether they stand close together or are followed from the first one."""
    monkeypatch.setattr("raeburnmemory.corpus._CLOSE", close)
    corpus = after(memory)
    for number in range(200):
        memory.add_message("Red wine", session_id=f"s{number % 90}", id=f"p{number}")
    check(corpus, memory._store)
    corpus = begun_anew(corpus, memory._store)
    memory.add_many({"prompt": {"id": f"q{n}", "text": "Is it red?"}, "session_id": f"s{n}"} for n in range(95))
    memory.forget(["p5", "q7", "p94"])
    check(corpus, memory._store)
