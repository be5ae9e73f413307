"""Any history of calls leaves a memory that holds, finds and shows what plain dicts do.

Three handles work on one store: two in the default namespace, one in another. Handles close and open again, and
processes "die": the files are copied as they are, with or without half a line at the end, and go on as the store.
"""

import os
import shutil
import tempfile
import uuid
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from faults import rounds
from graph_model import EMBEDDED, Conflict, Model, compare_graph, exact, fake_embedder, unit_row
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import EmbeddingsMissing, KindConflict, NodeNotFound

# In memory, where there is such a folder: power is not what is cut here, and three quarters of the time went into syncs.
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FILES = {"json": "m.json", "sqlite": "m.db", "postgres": "?", "memory": None}  # None: nothing is kept
SPACES = ["default", "default", "other"]
TIMES = [f"2026-01-0{day}T00:00:00+00:00" for day in range(1, 5)]

handles = st.integers(0, 2)
numbers = st.integers(0, 4)
words = st.lists(st.sampled_from(["ana", "allergy", "peanut", "latex", "plan", "Ünïon", "日本"]), max_size=4)
texts = words.map(" ".join) | st.text(max_size=4)
times = st.sampled_from(TIMES)
values = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=2) | st.lists(st.integers(0, 1), max_size=2)
attributes = st.dictionaries(st.sampled_from(["topic", "n", "ключ"]), values, max_size=2)
named = attributes | st.fixed_dictionaries({"name": st.sampled_from(["Ana", "Peanut Plan", "", None, 7])})
spoken = st.tuples(numbers | st.none(), texts, named, st.sampled_from([""] * 9 + ["a"]))  # now and then an agent's id
agents = st.none() | st.tuples(st.integers(0, 1), attributes)
sessions = st.none() | st.integers(0, 2)
kinds = st.sampled_from("prasmy")  # the first letters of ids: one for each kind of node
relations = st.sampled_from(["about", "cites"])
interactions = st.tuples(spoken, st.none() | spoken, agents, sessions, times)


class Machine(RuleBasedStateMachine):
    def __init__(self, backend, row, server):
        super().__init__()
        self.backend, self.row, self.server = backend, row, server
        self.schema = f"machine{uuid.uuid4().hex}"
        row.rounds += 1
        self.folder = Path(tempfile.mkdtemp(dir=QUICK))
        self.models = {space: Model() for space in SPACES}
        self.made = 0
        self.knows_its_model = False  # from the first vector on
        self.memories = [self.open(at) for at in range(3)] if FILES[backend] else [self.open(0)]

    def open(self, at, **options):
        place = self.folder / FILES[self.backend] if FILES[self.backend] else ":memory:"
        if self.backend == "postgres":
            place = f"{self.server}&schema={self.schema}"
        return MemoryGraph(place, fake_embedder, namespace=SPACES[at], **options)

    def teardown(self):
        try:
            for at in range(len(self.memories)):
                self.check(at)
                self.similar(at, "latex allergy", 9)
                self.graph(at)
        finally:
            for memory in self.memories:
                memory.close()
            shutil.rmtree(self.folder)
            if self.backend == "postgres":
                self.sql("SET client_min_messages = warning; DROP SCHEMA " + self.schema + " CASCADE")

    def sql(self, statement):
        import psycopg

        with psycopg.connect(self.server, autocommit=True) as db:
            db.execute(statement)

    def pick(self, at):
        at %= len(self.memories)
        return self.memories[at], self.models[SPACES[at]]

    def new_id(self, letter, number):
        """Return an id for a node of the kind; for None one that was never used."""
        self.made += number is None
        return f"{letter}{number}" if number is not None else f"{letter}-{self.made}"

    def write(self, at, call, change):
        """Do *call*, and *change* on the model; if it conflicts, the call must refuse and change nothing."""
        memory, model = self.pick(at)
        tried = deepcopy(model)
        try:
            change(tried)
        except Conflict:
            version = memory.stats().version
            with pytest.raises(KindConflict):
                call(memory)
            assert memory.stats().version == version
        else:
            call(memory)
            self.models[memory.namespace] = tried
        self.check(at)

    def check(self, at):
        memory, model = self.pick(at)
        self.knows_its_model = self.knows_its_model or bool(model.vectors(EMBEDDED))
        assert exact(memory.export(False)) == exact(model.node_link())
        assert len(memory) == len(model.nodes)
        if at == 0:  # this one always follows, the others when a rule says so
            compare_graph(memory, model)
            self.check_similar(memory, model, "ana peanut plan", 9)

    def check_similar(self, memory, model, text, k):
        vectors, query = model.vectors(), unit_row(text)
        anywhere = any(self.models[each.namespace].vectors() for each in self.memories)
        prompts = any(node[0] == "prompt" and node[1] is not None for node in model.nodes.values())
        if not anywhere and prompts and not self.knows_its_model:
            with pytest.raises(EmbeddingsMissing):
                memory.similar(text, k)
            return
        hits = memory.similar(text, k)
        assert hits.ids == memory.get_similar_prompts(text, k)
        assert set(hits.skipped) == ({"dense"} if (query is None if anywhere else prompts) else set())
        if query is None:
            assert list(hits) == []
            return
        scores = {node_id: float(row @ query) for node_id, row in vectors.items()}
        best = sorted(scores.values(), reverse=True)[:k]
        assert np.allclose([hit.score for hit in hits], best, atol=1e-4)
        assert np.allclose([scores[hit.id] for hit in hits], best, atol=1e-4)
        assert len(set(hits.ids)) == len(best)
        assert [hit.text for hit in hits] == [model.nodes[hit.id][1] for hit in hits]

    # --- adding -------------------------------------------------------------------------------------------------

    def given(self, prompt, response, agent, session, when):
        """Return an interaction as the model takes it, and as `add_interaction` does."""
        asked, answered = (
            each and {"id": self.new_id(each[3] or letter, each[0]), "text": each[1], "timestamp": when, **each[2]}
            for letter, each in (("p", prompt), ("r", response))
        )
        if answered and answered["id"] in {asked["id"], agent and f"a{agent[0]}"}:
            answered = None  # refused before anything is looked up
        if agent and asked["id"] == f"a{agent[0]}":
            agent = None
        agent = agent and {"id": f"a{agent[0]}", **agent[1]}
        session = None if session is None else f"s{session}"

        def told(node, known):
            # A field of the dataclass that is None was not given; all others are attributes.
            rest = {name: value for name, value in node.items() if value is not None or name not in known}
            return rest.pop("id"), rest.pop("text", None), {k: v for k, v in rest.items() if k != "timestamp"}

        model = told(asked, {"topic"}), answered and told(answered, ()), agent and told(agent, ())[::2], session, when
        return model, {"prompt": asked, "response": answered, "agent": agent, "session_id": session}

    @rule(at=handles, given=interactions)
    def add_interaction(self, at, given):
        told, call = self.given(*given)
        before = deepcopy(call)
        self.write(at, lambda memory: memory.add_interaction(**call), lambda model: model.interaction(*told))
        assert call == before  # what was given is not changed

    @rule(at=handles, several=st.lists(interactions, max_size=4))
    def add_many(self, at, several):
        made = [self.given(*given) for given in several]

        def change(model):
            for told, _ in made:
                model.interaction(*told)

        self.write(at, lambda memory: memory.add_many([call for _, call in made]), change)

    @rule(at=handles, text=texts, role=st.sampled_from(["user", "assistant", "assistant", "system", "tool"]),
          number=numbers | st.none(), session=sessions, name=st.none() | st.just("Ana"), when=times)  # fmt: skip
    def add_message(self, at, text, role, number, session, name, when):
        node_id = self.new_id({"user": "p", "assistant": "r", "system": "y", "tool": "m"}[role], number)
        session = None if session is None else f"s{session}"
        self.write(
            at,
            lambda memory: memory.add_message(text, role, session, name=name, id=node_id, timestamp=when),
            lambda model: model.message(node_id, text, role, session, name, when),
        )

    # --- changing -----------------------------------------------------------------------------------------------

    @rule(at=handles, ends=st.tuples(kinds, numbers, kinds, numbers), relation=relations, data=attributes)
    def link(self, at, ends, relation, data):
        source, target = f"{ends[0]}{ends[1]}", f"{ends[2]}{ends[3]}"
        memory, model = self.pick(at)
        if {source, target} <= set(model.nodes):
            memory.link(source, target, relation, **data)
            model.links[source, target, relation] = data
        else:
            with pytest.raises(NodeNotFound):
                memory.link(source, target, relation, **data)
        self.check(at)

    @rule(at=handles, which=st.integers(0, 100), every=st.booleans())
    def unlink(self, at, which, every):
        memory, model = self.pick(at)
        if not model.links:
            assert memory.unlink("p0", "p1") == 0
            return
        source, target, relation = sorted(model.links)[which % len(model.links)]
        gone = [key for key in model.links if key[:2] == (source, target) and (every or key[2] == relation)]
        assert memory.unlink(source, target, None if every else relation) == len(gone)
        for key in gone:
            del model.links[key]
        self.check(at)

    @rule(at=handles, kind=kinds, number=numbers, text=st.none() | texts, metadata=named,
          remove=st.sets(st.sampled_from(["topic", "timestamp", "name", "nothing"]), max_size=2))  # fmt: skip
    def update(self, at, kind, number, text, metadata, remove):
        node_id = f"{kind}{number}"
        memory, model = self.pick(at)
        if node_id in model.nodes:
            memory.update(node_id, text=text, metadata=metadata, remove=sorted(remove))
            model.update(node_id, text, metadata, remove)
        else:
            with pytest.raises(NodeNotFound):
                memory.update(node_id, text=text, metadata=metadata, remove=sorted(remove))
        self.check(at)

    @rule(
        at=handles,
        conditions=st.one_of(
            st.fixed_dictionaries({"ids": st.lists(st.tuples(kinds, numbers).map("{0[0]}{0[1]}".format), max_size=3)}),
            st.fixed_dictionaries({"session": st.sampled_from(["s0", "s1", "s2"])}),
            st.fixed_dictionaries({"agent": st.sampled_from(["a0", "a1"])}),
            st.fixed_dictionaries({"session": st.just("s0"), "agent": st.just("a0")}),
            st.fixed_dictionaries({"before": times, "where": st.just({"n": 1})}),
            st.fixed_dictionaries({"before": times, "session": st.just("s1")}),
        ),
        secure=st.sampled_from([False, False, True]),
    )
    def forget(self, at, conditions, secure):
        memory, model = self.pick(at)
        report = memory.forget(**conditions, secure=secure)
        chosen = model.chosen(**conditions)
        expected = model.forget(model.with_what_was_made_of_it(chosen) if secure else chosen)
        assert replace(report, rewritten=(), deleted=()).to_dict() == {**expected, "rewritten": (), "deleted": ()}
        assert bool(report) == bool(expected["ids"])
        self.check(at)

    @rule(at=handles, kind=kinds, number=numbers, given=named, text=st.none() | texts, name=st.none() | kinds)
    def graph_add_node(self, at, kind, number, given, text, name):
        given = {**given, **({} if text is None else {"text": text})}
        if name is not None:
            given["type"] = {"p": "prompt", "r": "response", "a": "agent", "s": "session"}.get(name, "thing")
        node_id = f"{kind}{number}"
        self.write(
            at,
            lambda memory: memory.graph.add_node(node_id, **given),
            lambda model: model.graph_node(node_id, given),
        )

    @rule(at=handles, ends=st.tuples(kinds, numbers, kinds, numbers), relation=relations, data=attributes)
    def graph_add_edge(self, at, ends, relation, data):
        source, target = f"{ends[0]}{ends[1]}", f"{ends[2]}{ends[3]}"

        def change(model):
            model.graph_node(source, {})
            model.graph_node(target, {})
            key = (source, target, relation)
            model.links[key] = {**model.links.get(key, {}), **data}

        self.write(at, lambda memory: memory.graph.add_edge(source, target, relation=relation, **data), change)

    @rule(at=handles, which=st.integers(0, 100), nodes=st.booleans())
    def graph_remove(self, at, which, nodes):
        memory, model = self.pick(at)
        if nodes and model.nodes:
            node_id = sorted(model.nodes)[which % len(model.nodes)]
            memory.graph.remove_node(node_id)
            model.forget({node_id})
        elif model.links:
            source, target, _ = sorted(model.links)[which % len(model.links)]
            memory.graph.remove_edge(source, target)
            model.links = {key: data for key, data in model.links.items() if key[:2] != (source, target)}
        self.check(at)

    # --- files and handles --------------------------------------------------------------------------------------

    @precondition(lambda self: FILES[self.backend])
    @rule(at=handles)
    def reopen(self, at):
        self.memories[at].close()
        self.memories[at] = self.open(at)
        self.check(at)

    @precondition(lambda self: FILES[self.backend])
    @rule(torn=st.sampled_from([b"", b"0", b'deadbeef {"version":', b"\0" * 9]))
    def crash(self, torn):
        self.row.injected += 1
        if self.backend == "postgres":  # every session is lost, and nobody is told
            self.sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"
            )
            for at in range(3):
                self.check(at)
            return
        old, dead = self.folder, self.memories
        self.folder = Path(tempfile.mkdtemp(dir=QUICK))
        for path in old.iterdir():
            if not path.name.endswith("-shm"):  # of the living only
                shutil.copy2(path, self.folder)
        if self.backend == "json":
            with (self.folder / "m.json.journal").open("ab") as journal:
                journal.write(torn)
        for memory in dead:
            memory.close()
        shutil.rmtree(old)
        self.memories = [self.open(at) for at in range(3)]
        for at in range(3):
            self.check(at)

    @rule(at=handles)
    def export(self, at):
        memory, model = self.pick(at)
        assert memory.export() == model.node_link()  # writes it as well, where there are files
        self.check(at)

    @precondition(lambda self: FILES[self.backend])
    @rule(at=handles)
    def read_only(self, at):
        with self.open(at, read_only=True) as memory:
            assert memory.export(False) == self.models[SPACES[at]].node_link()

    @rule(at=handles)
    def reindex(self, at):
        memory, _ = self.pick(at)
        models = [
            self.models[space] for space in sorted({self.memories[i].namespace for i in range(len(self.memories))})
        ]
        found = [model.vectors(EMBEDDED) for model in models]
        told = [n for model in models for n in model.nodes.values() if n[0] in EMBEDDED and n[1] is not None]
        indexed = sum(map(len, found))
        assert memory.reindex().to_dict() == {
            "embedded": 0,
            "indexed": indexed,
            "without": len(told) - indexed,
        }

    @rule(at=handles)
    def reembed(self, at):
        memory, _ = self.pick(at)
        spaces = {each.namespace for each in self.memories}
        indexed = sum(len(self.models[space].vectors(EMBEDDED)) for space in spaces)
        report = memory.reembed(fake_embedder)  # the same model, so that all others can go on
        assert (report.embedded, report.indexed) == (indexed, indexed)
        self.knows_its_model = True
        self.check(at)

    # --- finding ------------------------------------------------------------------------------------------------

    @rule(at=handles, text=texts, k=st.integers(0, 6))
    def similar(self, at, text, k):
        self.check_similar(*self.pick(at), text, k)

    @rule(at=handles)
    def graph(self, at):
        compare_graph(*self.pick(at))

    @rule(at=handles, number=st.integers(0, 2))
    def thread(self, at, number):
        memory, model = self.pick(at)
        session = f"s{number}"
        if model.nodes.get(session, ("nothing",))[0] == "session":
            assert [node.id for node in memory.thread(session)] == model.thread(session)
        else:
            with pytest.raises(NodeNotFound, match=session):
                memory.thread(session)

    @rule(at=handles, kind=kinds, number=numbers)
    def look(self, at, kind, number):
        memory, model = self.pick(at)
        node_id = f"{kind}{number}"
        assert (node_id in memory) == (node_id in model.nodes)
        if node_id not in model.nodes:
            for call in (memory.get, memory.neighbours, memory.history, memory.links):
                with pytest.raises(NodeNotFound, match=node_id):
                    call(node_id)
            return
        found = memory.get(node_id)
        assert exact((found.kind, found.text, found.attributes)) == exact(model.nodes[node_id])
        past = [(old.kind, old.text, old.attributes) for old in memory.history(node_id)]
        assert exact(past) == exact(model.past.get(node_id, []))
        for direction in ("out", "in", "both"):
            links = [
                key
                for key in model.links
                if (direction != "in" and key[0] == node_id) or (direction != "out" and key[1] == node_id)
            ]
            got = memory.links(node_id, direction=direction)
            assert [(e.source, e.target, e.relation) for e in got] == links
            assert [e.data for e in got] == [model.links[key] for key in links]
            others = list(dict.fromkeys(t if s == node_id else s for s, t, _ in links))
            assert [node.id for node in memory.neighbours(node_id, direction=direction)] == others

    @rule(at=handles, kind=st.none() | st.sampled_from(["prompt", "response", "session"]), limit=st.none() | numbers)
    def page(self, at, kind, limit):
        memory, model = self.pick(at)
        wanted = [node_id for node_id, node in model.nodes.items() if kind in {None, node[0]}]
        assert [node.id for node in memory.nodes(kind, limit=limit)] == wanted[:limit]
        if wanted:
            middle = wanted[len(wanted) // 2]
            rest = wanted[wanted.index(middle) + 1 :][:limit]
            assert [node.id for node in memory.nodes(kind, after=middle, limit=limit)] == rest
        since, before = TIMES[1], TIMES[3]
        timed = [node_id for node_id in wanted if since <= model.nodes[node_id][2].get("timestamp", "") < before]
        assert [node.id for node in memory.nodes(kind, since=since, before=before, limit=limit)] == timed[:limit]
        counts = memory.stats()
        assert counts.vectors == model.counted_vectors()
        assert (counts.nodes, counts.edges) == (len(model.nodes), len(model.links))


@pytest.mark.parametrize("backend", FILES)
def test_any_history(backend, request):
    server = request.getfixturevalue("postgres_server").uri if backend == "postgres" else None
    how = {"suppress_health_check": list(HealthCheck)}
    if backend == "postgres":  # each call is several journeys to a server
        how["max_examples"] = max(5, settings.default.max_examples // 3)
    with rounds("any history", backend) as count:
        try:
            run_state_machine_as_test(partial(Machine, backend, count.row, server), settings=settings(**how))
        except BaseException:
            count.row.wrong += 1
            raise
