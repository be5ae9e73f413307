"""The MCP door, by the official client: in process in both generations of the protocol, over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip("mcp", reason="the MCP door needs mcp")

import httpx2
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from outside import environment, fake, run, waits_for_the_other_side

from raeburnmemory import MemoryGraph
from raeburnmemory.entities import Entities
from raeburnmemory.errors import InvalidInput
from raeburnmemory.importers import import_file
from raeburnmemory.mcp import GRAPH_URI, http_app, make_server
from raeburnmemory.mcp._tools import tools_of

ERAS = ["auto", "legacy"]
NINE = [
    "create_entities",
    "create_relations",
    "add_observations",
    "delete_entities",
    "delete_observations",
    "delete_relations",
    "read_graph",
    "search_nodes",
    "open_nodes",
]
OTHERS = ["search", "fetch", "remember", "recall", "context", "forget"]


@pytest.fixture(params=["g.json", "g.db"])
def memory(request, tmp_path):
    with MemoryGraph(tmp_path / request.param, fake) as memory:
        yield memory


# Of what does not depend on the store.
one_store = pytest.mark.parametrize("memory", ["g.json"], indirect=True)


def talk(server, conversation, mode="auto"):
    """Connect a client to *server*, have the *conversation* with it, and return what that returned."""

    async def connected():
        async with Client(server, mode=mode, read_timeout_seconds=60) as client:
            return await conversation(client)

    return asyncio.run(connected())


def calls(server, *named, mode="auto"):
    """Call tools one after the other, each given as name and arguments, and return the results."""

    async def conversation(client):
        return [await client.call_tool(name, arguments) for name, arguments in named]

    return talk(server, conversation, mode)


def call(server, name, mode="auto", **arguments):
    """Call one tool that must succeed, and return its content."""
    (result,) = calls(server, (name, arguments), mode=mode)
    assert not result.is_error, result.content
    return result.structured_content


def refused(server, name, arguments):
    (result,) = calls(server, (name, arguments))
    assert result.is_error
    assert result.structured_content is None
    return result.content[0].text


def entity(name, kind="person", *observations):
    return {"name": name, "entityType": kind, "observations": list(observations)}


def relation(source, kind, target):
    return {"from": source, "to": target, "relationType": kind}


# --- what is offered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
def test_every_tool_is_told_with_what_it_takes_and_answers(memory, mode):
    async def conversation(client):
        return client.protocol_version, (await client.list_tools()).tools, client.instructions

    version, tools, instructions = talk(make_server(memory), conversation, mode)
    assert version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
    assert [tool.name for tool in tools] == NINE + OTHERS
    assert "recall" in instructions
    told = {tool.name: tool for tool in tools}
    # What the reference server requires, and calls it; the rest is optional.
    assert {name: told[name].input_schema["required"] for name in NINE} == {
        "create_entities": ["entities"],
        "create_relations": ["relations"],
        "add_observations": ["observations"],
        "delete_entities": ["entityNames"],
        "delete_observations": ["deletions"],
        "delete_relations": ["relations"],
        "read_graph": [],
        "search_nodes": ["query"],
        "open_nodes": ["names"],
    }
    items = told["create_entities"].input_schema["properties"]["entities"]["items"]
    assert items["required"] == ["name", "entityType", "observations"]
    assert told["create_relations"].input_schema["properties"]["relations"]["items"]["required"] == [
        "from",
        "to",
        "relationType",
    ]
    assert {name: set(told[name].output_schema["required"]) for name in NINE} == {
        "create_entities": {"entities"},
        "create_relations": {"relations"},
        "add_observations": {"results"},
        "delete_entities": {"success", "message"},
        "delete_observations": {"success", "message"},
        "delete_relations": {"success", "message"},
        "read_graph": {"entities", "relations"},
        "search_nodes": {"entities", "relations"},
        "open_nodes": {"entities", "relations"},
    }
    reading = {name for name, tool in told.items() if tool.annotations.read_only_hint}
    assert reading == {"read_graph", "search_nodes", "open_nodes", "search", "fetch", "recall", "context"}
    removing = {name for name, tool in told.items() if tool.annotations.destructive_hint}
    assert removing == {"delete_entities", "delete_observations", "delete_relations", "forget"}
    assert list(told["search"].input_schema["properties"]) == told["search"].input_schema["required"] == ["query"]
    assert list(told["fetch"].input_schema["properties"]) == told["fetch"].input_schema["required"] == ["id"]


def test_a_memory_opened_for_reading_offers_no_tool_that_writes(tmp_path):
    with MemoryGraph(tmp_path / "g.db", fake) as memory:
        Entities(memory).create([entity("Ana", "person", "likes tea")])
    with MemoryGraph(tmp_path / "g.db", fake, read_only=True) as memory:
        server = make_server(memory)

        async def conversation(client):
            return [tool.name for tool in (await client.list_tools()).tools]

        assert talk(server, conversation) == [
            "read_graph",
            "search_nodes",
            "open_nodes",
            "search",
            "fetch",
            "recall",
            "context",
        ]
        assert call(server, "open_nodes", names=["Ana"])["entities"] == [entity("Ana", "person", "likes tea")]

        async def wrong(client):
            with pytest.raises(MCPError, match="There is no tool called 'create_entities'"):
                await client.call_tool("create_entities", {"entities": []})

        talk(server, wrong)


# --- the nine tools ---------------------------------------------------------------------------------------------------


class Reference:
    """The reference server's behaviour, told in lists; where ours differs on purpose, ours.

    That is: relations need their entities, and an observation or an entity given twice in one call is there once.
    """

    def __init__(self):
        self.entities, self.relations = [], []

    def named(self, name):
        return next((one for one in self.entities if one["name"] == name), None)

    def create_entities(self, entities):
        made = []
        for one in copy.deepcopy(entities):
            if self.named(one["name"]) is None:
                one["observations"] = list(dict.fromkeys(one["observations"]))
                self.entities.append(one)
                made.append(copy.deepcopy(one))
        return {"entities": made}

    def create_relations(self, relations):
        if any(self.named(one[end]) is None for one in relations for end in ("from", "to")):
            return None
        made = []
        for one in relations:
            if one not in self.relations:
                self.relations.append(one)
                made.append(one)
        return {"relations": made}

    def add_observations(self, observations):
        if any(self.named(one["entityName"]) is None for one in observations):
            return None
        results = []
        for one in observations:
            there = self.named(one["entityName"])["observations"]
            new = [content for content in dict.fromkeys(one["contents"]) if content not in there]
            there += new
            results.append({"entityName": one["entityName"], "addedObservations": new})
        return {"results": results}

    def delete_entities(self, entityNames):  # noqa: N803
        self.entities = [one for one in self.entities if one["name"] not in entityNames]
        self.relations = [one for one in self.relations if not {one["from"], one["to"]} & set(entityNames)]
        return {"success": True, "message": "Entities deleted successfully"}

    def delete_observations(self, deletions):
        for one in deletions:
            there = self.named(one["entityName"])
            if there is not None:
                there["observations"] = [text for text in there["observations"] if text not in one["observations"]]
        return {"success": True, "message": "Observations deleted successfully"}

    def delete_relations(self, relations):
        self.relations = [one for one in self.relations if one not in relations]
        return {"success": True, "message": "Relations deleted successfully"}

    def read_graph(self):
        return {"entities": self.entities, "relations": self.relations}

    def _around(self, entities):
        names = {one["name"] for one in entities}
        return {
            "entities": entities,
            "relations": [one for one in self.relations if {one["from"], one["to"]} & names],
        }

    def search_nodes(self, query):
        sought = query.lower()
        return self._around(
            [
                one
                for one in self.entities
                if any(sought in text.lower() for text in (one["name"], one["entityType"], *one["observations"]))
            ]
        )

    def open_nodes(self, names):
        return self._around([one for one in self.entities if one["name"] in names])


def steps(seed, count):
    """Choose calls of the nine tools at random: name and arguments."""
    rng = random.Random(seed)
    names = ["Ana", "Bo", "Cy", "Ana Maria", "entity/mcp/Ana", "Größe", "猫😀", "%2F"]
    texts = ["likes tea", "Likes TEA", "", "is 7\n\tyears", "猫 hat Größe", '"quoted" \\ back', "knows Ana", "x" * 300]
    kinds, relations = ["person", "Place", ""], ["knows", "part_of", "belongs_to", "lives in", "generated_by"]

    def some(things, most=3):
        return [rng.choice(things) for _ in range(rng.randint(0, most))]

    def relations_of(most):
        return [
            relation(rng.choice(names), rng.choice(relations), rng.choice(names)) for _ in range(rng.randint(0, most))
        ]

    for _ in range(count):
        name = rng.choice([*NINE, "create_entities", "add_observations", "create_relations"])
        yield (
            name,
            {
                "create_entities": lambda: {
                    "entities": [
                        entity(rng.choice(names), rng.choice(kinds), *some(texts)) for _ in range(rng.randint(0, 3))
                    ]
                },
                "create_relations": lambda: {"relations": relations_of(3)},
                "add_observations": lambda: {
                    "observations": [{"entityName": one, "contents": some(texts)} for one in some(names, 2)]
                },
                "delete_entities": lambda: {"entityNames": some(names, 1)},
                "delete_observations": lambda: {
                    "deletions": [{"entityName": one, "observations": some(texts)} for one in some(names, 2)]
                },
                "delete_relations": lambda: {"relations": relations_of(2)},
                "read_graph": dict,
                "search_nodes": lambda: {"query": rng.choice([*names, "TEA", "PERSON", "a", "größe", "nothing"])},
                "open_nodes": lambda: {"names": some(names)},
            }[name](),
        )


@pytest.mark.parametrize("mode", ERAS)
def test_the_nine_tools_answer_as_the_reference_does(memory, mode):
    reference = Reference()

    async def conversation(client):
        for name, arguments in steps(ERAS.index(mode), 120):
            expected = copy.deepcopy(getattr(reference, name)(**copy.deepcopy(arguments)))
            result = await client.call_tool(name, arguments)
            assert result.is_error == (expected is None), (name, arguments, result)
            if expected is None:
                assert "not found" in result.content[0].text
                continue
            assert result.structured_content == expected, (name, arguments)
            said, first = result.content[0].text, next(iter(expected.values()))
            if name.startswith("delete"):
                assert said == expected["message"]
            else:
                assert said == json.dumps(first if len(expected) == 1 else expected, indent=2, ensure_ascii=False)

    talk(make_server(memory), conversation, mode)


@one_store
def test_what_the_reference_is_silent_about_is_said(memory):
    server = make_server(memory)
    results = calls(
        server,
        ("create_entities", {"entities": [entity("Ana", "person", "likes tea"), entity("Bo")]}),
        ("create_entities", {"entities": [entity("Ana", "cat", "likes mice"), entity("Cy"), entity("Cy", "x")]}),
        ("delete_observations", {"deletions": [{"entityName": "Ana", "observations": ["likes tea", "likes coffee"]}]}),
        ("delete_relations", {"relations": [relation("Ana", "knows", "Bo")]}),
        ("delete_entities", {"entityNames": ["Bo", "Dee"]}),
    )
    assert [[part.text for part in result.content[1:]] for result in results] == [
        [],
        [
            (
                "There already, and left as they were: 'Ana'. To add to them call add_observations. "
                "Given more than once, and taken the first time: 'Cy'."
            )
        ],
        ["Not there: 'likes coffee' of 'Ana'."],
        ["Not there: 'Ana' knows 'Bo'."],
        ["Not there: 'Dee'."],
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("create_relations", {"relations": [relation("Ana", "knows", "Bo")]}, "Entity with name Bo not found"),
        (
            "add_observations",
            {"observations": [{"entityName": "Bo", "contents": ["x"]}]},
            "Entity with name Bo not found",
        ),
        ("create_entities", {}, "The call lacks 'entities': The entities to create."),
        ("create_entities", {"entities": "Ana"}, "'entities' must be a list, not 'Ana'."),
        ("create_entities", {"entities": [{"name": "B"}]}, "'entities'[0] lacks 'entityType': The type of the entity."),
        (
            "create_entities",
            {"entities": [entity("B", "x", 7)]},
            "'entities'[0].observations[0] must be a string, not 7.",
        ),
        ("create_entities", {"entities": [entity("")]}, "The name of an entity must be a string that is not empty"),
        (
            "create_entities",
            {"entities": [{**entity("B"), "colour": "red"}]},
            "'entities'[0] has nothing called 'colour'. What there is: name, entityType, observations.",
        ),
        ("create_entities", {"entities": [{**entity("B"), "type": "x"}]}, "says 'entityType' twice, once as 'type'"),
        (
            "open_nodes",
            {"names": ["Ana"], "page": 2},
            "The call has nothing called 'page'. What there is: names, limit",
        ),
        ("read_graph", {"limit": 0}, "'limit' must be 1 or more, not 0."),
        ("read_graph", {"offset": True}, "'offset' must be a whole number, not True."),
        ("recall", {"query": "x", "min_coverage": 2}, "'min_coverage' must be from 0 to 1, not 2."),
        ("recall", {"query": "x", "where": {"a": {"gte": 1, "b": 2}}}, "where"),
        ("recall", {"query": "x", "since": "yesterday"}, "'yesterday' is no time."),
        ("remember", {"text": "x", "role": "king"}, "'role' must be one of user, assistant, system, tool, not 'king'."),
        ("fetch", {"id": "nobody"}, "No node has the id 'nobody'"),
        ("forget", {}, "Say what to forget: 'ids' or 'session', one of them."),
    ],
)
@one_store
def test_errors_are_of_the_tool_and_say_what_is_wrong(memory, name, arguments, complaint):
    server = make_server(memory)
    call(server, "create_entities", entities=[entity("Ana")])
    before = memory.stats().version
    assert complaint in refused(server, name, arguments)
    assert memory.stats().version == before


@one_store
def test_whatever_goes_wrong_inside_the_server_goes_on(memory, monkeypatch, caplog):
    server = make_server(memory)
    monkeypatch.setattr(Entities, "all", lambda self: 1 / 0)
    assert refused(server, "read_graph", {}).startswith("The tool read_graph failed with ZeroDivisionError.")
    assert "division by zero" in caplog.text
    assert call(server, "open_nodes", names=[]) == {"entities": [], "relations": []}


def test_what_models_call_things_is_understood(memory):
    server = make_server(memory)
    call(server, "create_entities", nodes=[{"entityName": "Ana", "type": "person", "contents": ["likes tea"]}])
    call(server, "create_entities", entities=[{"name": "Bo", "entity_type": "cat", "facts": []}])
    call(server, "create_relations", edges=[{"source": "Ana", "target": "Bo", "relation": "feeds"}])
    call(server, "add_observations", observations=[{"name": "Bo", "observations": ["purrs"]}])
    graph = call(server, "read_graph", top_k=10.0, start=None)
    assert graph == {
        "entities": [entity("Ana", "person", "likes tea"), entity("Bo", "cat", "purrs")],
        "relations": [relation("Ana", "feeds", "Bo")],
    }
    assert call(server, "search_nodes", q="purr")["entities"] == graph["entities"][1:]
    assert call(server, "open_nodes", entityNames=["Ana"])["entities"] == graph["entities"][:1]
    assert call(server, "recall", question="tea", k=1, kind="observation")["results"][0]["text"] == "likes tea"
    call(server, "delete_observations", deletions=[{"entity": "Bo", "contents": ["purrs"]}])
    assert call(server, "forget", id="entity/mcp/Bo")["ids"] == ["entity/mcp/Bo"]
    assert call(server, "read_graph") == {"entities": graph["entities"][:1], "relations": []}
    call(server, "delete_entities", names=["Ana"])
    assert len(memory) == 0


# --- large answers ----------------------------------------------------------------------------------------------------


def walk(server, tool, **arguments):
    """Read all pages of a graph as the notes say, and return the entities, the relations and the pages."""
    entities, relations, pages = [], [], []

    async def conversation(client):
        offset, passed = 0, 0
        while offset is not None:
            result = await client.call_tool(tool, {**arguments, "offset": offset, "relations_offset": passed})
            content = result.structured_content
            pages.append(result)
            entities.extend([] if passed else content["entities"])
            relations.extend(content["relations"])
            note = content.get("cut", "")
            assert [part.text for part in result.content[1:]] == ([note] if note else [])
            more = re.search(r"pass relations_offset=(\d+) besides", note)
            further = re.search(rf"call {tool} with offset=(\d+)", note)
            if more:
                passed = int(more[1])
            else:
                offset, passed = (int(further[1]) if further else None), 0

    talk(server, conversation)
    return entities, relations, pages


@one_store
def test_a_large_graph_comes_in_pages_that_leave_nothing_out(memory):
    given = [entity(f"E{n}", "thing", *(f"observation {m} of {n}" for m in range(n % 7))) for n in range(150)]
    ties = [relation(f"E{n}", kind, f"E{n * 7 % 150}") for n in range(150) for kind in ("likes", "knows")[: 1 + n % 2]]
    Entities(memory).create(given)
    Entities(memory).relate(ties)
    server = make_server(memory, max_characters=5000)
    entities, relations, pages = walk(server, "read_graph")
    assert entities == given
    assert sorted(map(str, relations)) == sorted(map(str, ties))
    assert all(len(page.content[0].text) <= 5000 for page in pages)
    assert len(pages) > 5
    entities, _, pages = walk(server, "search_nodes", query="observation 0 of 1", limit=4)
    assert entities == [one for one in given if "observation 0 of 1" in " ".join(one["observations"])]
    assert {len(page.structured_content["entities"]) for page in pages[:-1]} == {4}
    assert call(make_server(memory), "read_graph") == {"entities": given, "relations": ties}


@one_store
def test_one_large_entity_comes_in_parts(memory):
    texts = [f"{n} {'x' * 100}" for n in range(60)]
    graph = Entities(memory)
    graph.create([entity("Big", "thing", *texts), entity("Hub"), *(entity(f"E{n}") for n in range(60))])
    graph.relate(relation("Hub", "knows", f"E{n}") for n in range(60))
    server = make_server(memory, max_characters=2000)
    read, offset = [], 0
    while len(read) < len(texts):
        content = call(server, "open_nodes", names=["Big"], observations_offset=offset)
        (one,) = content["entities"]
        read += one["observations"]
        assert one["observations"]
        assert (f"of {len(texts)} are shown" in content.get("cut", "")) == (len(read) < len(texts))
        offset = len(read)
    assert read == texts
    ties, offset = [], 0
    while len(ties) < 60:
        content = call(server, "open_nodes", names=["Hub"], relations_offset=offset)
        ties += content["relations"]
        assert (f"pass relations_offset={len(ties)}" in content.get("cut", "")) == (len(ties) < 60)
        offset = len(ties)
    assert ties == [relation("Hub", "knows", f"E{n}") for n in range(60)]


@one_store
def test_long_texts_are_cut_and_can_be_had_whole(memory):
    long = " ".join(f"word{n}" for n in range(2000))
    server = make_server(memory, max_characters=3000)
    call(server, "create_entities", entities=[entity("Ana", "person", long)])
    content = call(server, "read_graph")
    (shown,) = content["entities"][0]["observations"]
    assert long.startswith(shown.removesuffix("…"))
    assert shown.endswith("…")
    assert "ends in '…'" in content["cut"]
    found = call(server, "recall", query="word7 word1999", limit=1, kinds="observation")
    (hit,) = found["results"]
    assert long.startswith(hit["text"].removesuffix("…"))
    assert "fetch shows the whole" in found["cut"]
    text, wanted = "", hit["id"]
    while wanted:
        (result,) = calls(server, ("fetch", {"id": wanted}))
        part = result.structured_content
        assert [json.loads(one.text) for one in result.content] == [part], "connectors want one text"
        text += part["text"]
        wanted = part["cut"].split()[-1] if "cut" in part else None
        assert wanted is None or wanted.endswith(f"?offset={len(text)}")
    assert text == long


@one_store
def test_as_many_results_are_shown_as_fit(memory):
    memory.add_many([{"id": f"p{n}", "text": f"question {n} about tea {'x' * 200}"}] for n in range(300))
    memory.put([{"id": "odd", "type": "thing", "text": "an odd thing", "data": "y" * 5000}])
    server = make_server(memory, max_characters=4000)
    for tool, arguments in (("recall", {"query": "tea", "limit": 300}), ("search", {"query": "tea"})):
        (result,) = calls(server, (tool, arguments))
        assert 0 < len(result.structured_content["results"]) < 20
        assert "results are shown; narrow the question" in result.structured_content["cut"]
        assert len(result.content[0].text) < 5000
    memory.put([], [("odd", f"p{n}", "about") for n in range(60)])
    fetched = call(server, "fetch", id="odd")
    assert (fetched["metadata"]["attributes"], len(fetched["metadata"]["related"])) == ({}, 50)
    assert fetched["cut"] == "50 of 60 related ids are shown. The attributes are too long to be shown."
    (result,) = calls(server, ("context", {"query": "tea", "budget": 100_000}))
    assert result.structured_content["tokens"] <= 1000
    assert "The budget is 1000 tokens at most." in result.content[1].text
    (result,) = calls(server, ("forget", {"ids": [f"p{n}" for n in range(300)]}))
    assert len(result.structured_content["ids"]) == 200
    assert result.content[1].text == "200 of 300 ids are shown."


@one_store
def test_nodes_of_others_that_look_like_entities_are_left_to_them(memory):
    memory.put([{"id": "a/b/c", "type": "entity", "text": "not ours"}, {"id": "plain", "type": "entity", "size": 3}])
    server = make_server(memory)
    assert call(server, "fetch", id="a/b/c")["text"] == "not ours"
    assert json.loads(call(server, "fetch", id="plain")["text"]) == {"size": 3}
    assert call(server, "read_graph") == {"entities": [], "relations": []}
    assert call(server, "forget", ids=["a/b/c", "plain"])["ids"] == ["a/b/c", "plain"]


# --- everything else in the memory ------------------------------------------------------------------------------------


def test_what_others_wrote_is_found_and_fetched(memory):
    memory.add_interaction(
        {"id": "p1", "text": "Which allergies does Ana have?"},
        {"id": "r1", "text": "Peanuts and latex."},
        {"id": "nurse", "name": "Intake"},
        "intake",
        timestamp="2026-11-20T09:30:00Z",
    )
    memory.put(
        [{"id": "fragment/handbook/1", "type": "fragment", "text": "Gloves of nitrile", "collection": "handbook"}]
    )
    server = make_server(memory)
    call(server, "create_entities", entities=[entity("Ana", "patient", "may not have satay sauce"), entity("Bo")])
    call(server, "create_relations", relations=[relation("Bo", "cares_for", "Ana")])
    (result,) = calls(server, ("search", {"query": "peanuts and latex"}))
    first = result.structured_content["results"][0]
    assert json.loads(result.content[0].text) == result.structured_content
    assert {key: first[key] for key in ("id", "title", "url", "text", "citation")} == {
        "id": "r1",
        "title": "Peanuts and latex.",
        "url": "memory://node/r1",
        "text": "Peanuts and latex.",
        "citation": "Intake, 2026-11-20 09:30, session intake, id r1",
    }
    assert "words: peanuts" in first["why"]
    fetched = call(server, "fetch", id=first["url"])
    assert (fetched["id"], fetched["text"], fetched["metadata"]["citation"]) == ("r1", first["text"], first["citation"])
    assert fetched["metadata"]["related"] == ["p1", "nurse"]
    assert (
        call(server, "fetch", id="intake")["text"]
        == "prompt: Which allergies does Ana have?\nresponse: Peanuts and latex."
    )
    assert call(server, "fetch", id="entity/mcp/Ana")["text"].splitlines() == [
        "Ana (patient)",
        "may not have satay sauce",
        "Bo cares_for Ana",
    ]
    found = call(server, "recall", query="satay sauce", collection="mcp")["results"]
    assert found[0]["text"] == "may not have satay sauce"
    assert found[0]["citation"].startswith("Ana, ")
    assert {one["kind"] for one in found} <= {"entity", "observation"}
    assert call(server, "recall", query="gloves", collection=["handbook"])["results"][0]["id"] == "fragment/handbook/1"
    told = call(server, "context", query="peanuts and latex", budget=300, session="intake")
    assert "Peanuts and latex." in told["text"]
    assert told["tokens"] <= 300
    assert {source["id"] for source in told["sources"]} == {"p1", "r1"}


def test_what_is_remembered_is_found_by_every_face_and_forgotten(memory):
    server = make_server(memory)
    kept = call(
        server,
        "remember",
        text="The spare key is under the blue pot",
        speaker="Ana",
        session="s1",
        timestamp="2026-11-20T09:30:00Z",
        metadata={"room": "garden"},
    )
    node = memory.get(kept["id"])
    assert (node.kind, node.text, node.attributes["name"], node.attributes["room"]) == (
        "prompt",
        "The spare key is under the blue pot",
        "Ana",
        "garden",
    )
    assert memory.recall("blue pot", 1).ids == [kept["id"]]
    assert [one.id for one in memory.thread("s1")] == [kept["id"]]
    assert call(server, "recall", query="spare key", where={"room": "garden"})["results"][0]["speaker"] == "Ana"
    call(server, "create_entities", entities=[entity("Pot", "thing", "is blue"), entity("Key", "thing")])
    assert call(server, "forget", ids=["entity/mcp/Pot", "nobody"]) == {
        "success": True,
        "message": "Forgot 1: entity/mcp/Pot.",
        "ids": ["entity/mcp/Pot"],
    }
    assert [node.text for node in memory.nodes(["entity", "observation"])] == ["Key (thing)"]
    assert set(call(server, "forget", session="s1", secure=True)["ids"]) == {kept["id"], "s1"}
    assert call(server, "forget", ids="nobody")["success"] is False
    assert [node.id for node in memory.nodes()] == ["entity/mcp/Key"]


def test_a_file_of_the_reference_server_is_the_same_graph_once_it_is_imported(memory, tmp_path):
    entities = [entity("Ana", "person", "likes tea", "猫 hat"), entity("Bo / Cy", "", "")]
    relations = [relation("Bo / Cy", "knows", "Ana")]
    lines = [{"type": "entity", **one} for one in entities] + [{"type": "relation", **one} for one in relations]
    path = tmp_path / "memory.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    import_file(memory, "mcp", path)
    server, version = make_server(memory), memory.stats().version
    assert call(server, "read_graph") == {"entities": entities, "relations": relations}
    assert call(server, "create_entities", entities=entities) == {"entities": []}
    assert call(server, "create_relations", relations=relations) == {"relations": []}
    again = [{"entityName": one["name"], "contents": one["observations"]} for one in entities]
    assert [one["addedObservations"] for one in call(server, "add_observations", observations=again)["results"]] == [
        [],
        [],
    ]
    assert memory.stats().version == version


def test_namespaces_and_collections_are_kept_apart(tmp_path):
    secret = "the code is 4711"
    with MemoryGraph(tmp_path / "g.db", fake) as one, MemoryGraph(tmp_path / "g.db", fake, namespace="two") as two:
        first, second, third = make_server(one), make_server(two), make_server(one, collection="other")
        kept = call(first, "remember", text=secret)["id"]
        call(first, "create_entities", entities=[entity("Safe", "thing", secret)])
        call(second, "create_entities", entities=[entity("Safe", "box", "is empty")])
        for query in (secret, "Safe"):
            for tool in ("search", "recall"):
                assert secret not in str(call(second, tool, query=query))
            assert secret not in call(second, "context", query=query)["text"]
        assert call(second, "read_graph")["entities"] == [entity("Safe", "box", "is empty")]
        assert "No node has the id" in refused(second, "fetch", {"id": kept})
        assert call(second, "forget", ids=[kept])["success"] is False
        call(second, "delete_entities", entityNames=["Safe"])
        assert call(third, "read_graph") == {"entities": [], "relations": []}
        assert "not found" in refused(
            third, "add_observations", {"observations": [{"entityName": "Safe", "contents": []}]}
        )
        assert call(third, "recall", query="code")["results"][0]["text"] == secret, "the rest of the memory is one"
        assert call(first, "read_graph")["entities"] == [entity("Safe", "thing", secret)]


@pytest.mark.parametrize("mode", ERAS)
def test_the_graph_and_every_node_are_resources(memory, mode):
    server = make_server(memory)
    call(server, "create_entities", entities=[entity("Ana / Bo", "pair", "like tea")])

    async def conversation(client):
        (listed,) = (await client.list_resources()).resources
        (template,) = (await client.list_resource_templates()).resource_templates
        graph = await client.read_resource(listed.uri)
        node = await client.read_resource("memory://node/entity%2Fmcp%2FAna%20%2F%20Bo")
        with pytest.raises(MCPError, match="No node has the id 'nobody'"):
            await client.read_resource("memory://node/nobody")
        with pytest.raises(MCPError, match="There is no resource 'memory://else'"):
            await client.read_resource("memory://else")
        return listed.uri, template.uri_template, json.loads(graph.contents[0].text), json.loads(node.contents[0].text)

    uri, template, graph, node = talk(server, conversation, mode)
    assert (uri, template) == (GRAPH_URI, "memory://node/{id}")
    assert graph == {"entities": [entity("Ana / Bo", "pair", "like tea")], "relations": []}
    assert (node["id"], node["text"]) == ("entity/mcp/Ana / Bo", "Ana / Bo (pair)\nlike tea")


@one_store
def test_who_listens_hears_that_the_graph_changed(memory):
    async def conversation(client):
        async with client.listen(resource_subscriptions=[GRAPH_URI]) as heard:
            await client.call_tool("read_graph", {})
            await client.call_tool("create_entities", {"entities": [entity("Ana")]})
            return await asyncio.wait_for(anext(aiter(heard)), 30)

    assert talk(make_server(memory), conversation).uri == GRAPH_URI


@one_store
def test_arguments_that_make_no_sense_are_refused(memory):
    with pytest.raises(InvalidInput, match="A collection must be a string"):
        make_server(memory, collection="")
    with pytest.raises(InvalidInput, match="An answer needs room for 1000 characters, not 10"):
        make_server(memory, max_characters=10)
    server = make_server(memory)
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org", ""):
        with pytest.raises(InvalidInput, match="can be reached from other machines, and there is no key"):
            http_app(server, host=host)
    for key in ("", " ", "schlüssel", "a\nb"):
        with pytest.raises(InvalidInput, match="The key must be of printable ASCII"):
            http_app(server, key=key)


WITHOUT = """
import sys
sys.modules["mcp"] = None
from raeburnmemory.errors import MissingDependency
try:
    from raeburnmemory.mcp import make_server
except MissingDependency as exc:
    print(exc)
"""


def test_without_the_package_one_sentence_says_what_to_install():
    assert run(WITHOUT) == "'mcp' is not installed. Install it with: pip install 'raeburnmemory[mcp]'\n"


# --- over stdio -------------------------------------------------------------------------------------------------------


def command(path, *options):
    """Return how a client starts a server on the memory at *path*."""
    pytest.importorskip("typer", reason="the command line needs typer")
    env = {key: value for key, value in environment(RAEBURN_EMBED_MODEL="none").items() if key != "RAEBURN_API_KEY"}
    return StdioServerParameters(
        command=sys.executable, args=["-m", "raeburnmemory", "--db", str(path), *options], env=env
    )


WRITERS = ("one", "two")


async def write(client, who, count):
    """Create entities that the other writer creates, too; return the names of those that were new."""
    made = []
    for n in range(count):
        result = await client.call_tool("create_entities", {"entities": [entity(f"E{n}", "t", f"made by {who}")]})
        made += [one["name"] for one in result.structured_content["entities"]]
        added = [f"{who} was here", "somebody was here"]
        await client.call_tool("add_observations", {"observations": [{"entityName": f"E{n}", "contents": added}]})
        await client.call_tool("create_relations", {"relations": [relation(f"E{n}", "follows", "E0")]})
        await client.call_tool("remember", {"text": f"{who} saw {n}", "session": "log"})
    return made


def check_written(memory, made, count, collection="mcp"):
    graph = Entities(memory, collection)
    entities = graph.read(list(graph.all()))
    assert sorted(made["one"] + made["two"]) == sorted(f"E{n}" for n in range(count)), "each was made by one of them"
    assert sorted(one["name"] for one in entities) == sorted(f"E{n}" for n in range(count))
    for one in entities:
        maker = "one" if one["name"] in made["one"] else "two"
        assert one["observations"][0] == f"made by {maker}"
        assert sorted(one["observations"][1:]) == ["one was here", "somebody was here", "two was here"]
    assert len(graph.relations(one["name"] for one in entities)) == count
    said = [node.text for node in memory.thread("log")]
    assert sorted(said) == sorted(f"{who} saw {n}" for who in WRITERS for n in range(count))


@pytest.mark.parametrize("file", ["g.db", pytest.param("g.json", marks=pytest.mark.long)])
def test_two_servers_over_stdio_write_at_once_and_nothing_is_lost(tmp_path, file):
    path, count = tmp_path / file, 12

    async def both():
        async with (
            Client(stdio_client(command(path, "mcp")), read_timeout_seconds=120) as one,
            Client(stdio_client(command(path, "mcp")), mode="legacy", read_timeout_seconds=120) as two,
        ):
            made = await asyncio.gather(write(one, "one", count), write(two, "two", count))
            graphs = [(await client.call_tool("read_graph", {})).structured_content for client in (one, two)]
            assert graphs[0] == graphs[1]
            return dict(zip(WRITERS, made, strict=True))

    made = asyncio.run(both())
    with MemoryGraph(path) as memory:
        check_written(memory, made, count)


def test_a_server_that_is_killed_leaves_every_answered_call_whole(tmp_path):
    path = tmp_path / "g.db"
    started = command(path, "mcp")
    process = subprocess.Popen(
        [started.command, *started.args],
        env={**started.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def send(**message):
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        process.stdin.flush()

    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    send(id=0, method="initialize", params=hello)
    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "raeburnmemory"
    send(method="notifications/initialized")
    for n in range(1, 61):
        arguments = {"entities": [entity(f"E{n}-{m}", "t", "first", "second", "third") for m in range(3)]}
        send(id=n, method="tools/call", params={"name": "create_entities", "arguments": arguments})
    answered = [json.loads(process.stdout.readline()) for _ in range(15)]
    process.send_signal(signal.SIGKILL)
    answered += [json.loads(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait(30)
    process.stdin.close()
    process.stdout.close()
    done = {message["id"] for message in answered if not message["result"].get("isError")}
    assert len(done) >= 15
    with MemoryGraph(path) as memory:
        graph = Entities(memory)
        there = {one["name"]: one["observations"] for one in graph.read(list(graph.all()))}
        assert set(there) >= {f"E{n}-{m}" for n in done for m in range(3)}
        for n in {name.partition("-")[0] for name in there}:
            assert [name for name in there if name.startswith(f"{n}-")] == [f"{n}-{m}" for m in range(3)]
        assert set(map(tuple, there.values())) == {("first", "second", "third")}
        assert memory.stats().kinds["observation"] == 3 * len(there)


def test_a_server_over_stdio_ends_at_once_when_it_is_interrupted(tmp_path):
    started = command(tmp_path / "g.db", "mcp")
    process = subprocess.Popen(
        [started.command, *started.args],
        env={**started.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdin.write('{"jsonrpc": "2.0", "id": 1, "method": "server/nothing"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    assert process.stdout.read() == ""
    assert not (tmp_path / "g.db-wal").exists(), "the memory was closed"
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


# --- over HTTP --------------------------------------------------------------------------------------------------------


PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
HEARD = {200, 400}  # what needs no session is answered; what has none is told so


class Served:
    """A server over HTTP in another process."""

    def __init__(self, path, *options, key=None):
        started = command(path, "mcp", "--http", "--port", "0", *options)
        env = {**started.env, **({} if key is None else {"RAEBURN_API_KEY": key})}
        self.process = subprocess.Popen(
            [started.command, *started.args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.url = self.process.stderr.readline().split()[-1]
        assert self.url.startswith("http://127.0.0.1:")

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 128 + signal.SIGTERM
        assert out == ""
        return err

    def post(self, **headers):
        """Send what needs no session, with these headers."""
        given = {"accept": "application/json, text/event-stream", **headers}
        return httpx2.post(self.url, headers=given, json=PING, timeout=30).status_code


def test_clients_over_http_need_the_key_and_write_at_once(tmp_path):
    path, key, count = tmp_path / "g.db", "a key of our own", 6
    served = Served(path, "--collection", "notes", key=key)
    try:

        async def both():
            headers = {"Authorization": f"Bearer {key}"}
            async with (
                httpx2.AsyncClient(headers=headers, timeout=60) as http,
                Client(streamable_http_client(served.url, http_client=http)) as one,
                Client(streamable_http_client(served.url, http_client=http), mode="legacy") as two,
            ):
                return await asyncio.gather(write(one, "one", count), write(two, "two", count))

        made = asyncio.run(both())
        mine = {"authorization": f"Bearer {key}"}
        assert served.post() == 401
        assert served.post(authorization="Bearer another key") == 401
        assert served.post(authorization=key) == 401
        assert served.post(**mine) in HEARD
        assert served.post(authorization=f"bearer {key}") in HEARD
        assert served.post(**mine, host="evil.example") == 421
        assert served.post(**mine, host="127.0.0.1.evil.example:4445") == 421
        assert served.post(**mine, origin="http://evil.example") == 403
        assert served.post(**mine, origin="null") == 403
        assert served.post(**mine, origin="http://localhost:3000") in HEARD
        port, told = int(served.url.split(":")[2].split("/")[0]), {"content-type": "application/json", **mine}
        assert not waits_for_the_other_side(port, "POST", "/mcp", json.dumps(PING), told)
        answer = httpx2.post(served.url, json={})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        with MemoryGraph(path) as memory:
            check_written(memory, dict(zip(WRITERS, made, strict=True)), count, "notes")
    finally:
        said = served.close()
    assert key not in said
    assert not (tmp_path / "g.db-wal").exists(), "the memory was closed"


@one_store
def test_names_that_are_allowed_are_heard_and_others_are_not(memory):
    app = http_app(make_server(memory), allowed_hosts=["memory.example"])

    async def asked():
        codes = []
        async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
            for host, origin in (
                ("127.0.0.1:4445", None),
                ("localhost", "http://localhost:3000"),
                ("[::1]:80", None),
                ("memory.example", "https://memory.example"),
                ("memory.example:8443", None),
                ("evil.example", None),
                ("memory.example.evil.example", None),
                ("memory.example", "https://memory.example.evil.example"),
                ("memory.example", "https://evil.example"),
            ):
                headers = {"host": host, "accept": "application/json, text/event-stream"}
                headers |= {} if origin is None else {"origin": origin}
                answer = await client.post("http://x/mcp", headers=headers, json=PING)
                codes.append(answer.status_code)
        return codes

    codes = asyncio.run(asked())
    assert set(codes[:5]) <= HEARD
    assert codes[5:] == [421, 421, 403, 403]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (["--http", "--host", "0.0.0.0"], 2, "'0.0.0.0' can be reached from other machines, and there is no key."),
        (["--port", "80"], 2, "--port needs --http."),
        (["--allow-host", "x"], 2, "--allow-host needs --http."),
        (["--collection", ""], 2, "A collection must be a string that is not empty"),
        (["--read-only"], 3, "There is no memory at"),
        (["--max-characters", "10"], 2, "--max-characters"),
    ],
)
def test_the_command_refuses_what_makes_no_sense_before_it_makes_a_file(
    tmp_path, monkeypatch, options, code, complaint
):
    pytest.importorskip("typer", reason="the command line needs typer")
    from typer.testing import CliRunner

    from raeburnmemory.cli import app

    monkeypatch.delenv("RAEBURN_API_KEY", raising=False)
    result = CliRunner().invoke(app, ["--db", str(tmp_path / "g.db"), "mcp", *options])
    assert result.exit_code == code, result.output
    assert complaint in result.output
    assert os.listdir(tmp_path) == []


# --- the reference server itself --------------------------------------------------------------------------------------


@pytest.fixture
def reference(tmp_path):
    """How to start the reference server, installed by npm."""
    (tmp_path / "package.json").write_text('{"private": true}')
    try:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "@modelcontextprotocol/server-memory"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            timeout=300,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        pytest.skip(f"npm cannot install the reference server here: {exc}")
    main = tmp_path / "node_modules/@modelcontextprotocol/server-memory/dist/index.js"
    return StdioServerParameters(
        command="node", args=[str(main)], env={"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}
    )


@pytest.mark.long
@pytest.mark.parametrize("memory", ["g.db"], indirect=True)
def test_the_reference_server_answers_the_same(reference, memory):
    """Call by call, but for what differs on purpose; tools, schemas and annotations besides."""
    model = Reference()

    async def both():
        async with (
            Client(stdio_client(reference), mode="legacy") as theirs,
            Client(make_server(memory), mode="legacy") as ours,
        ):
            told = {tool.name: tool for tool in (await ours.list_tools()).tools}
            for tool in (await theirs.list_tools()).tools:
                own = told[tool.name]
                assert own.input_schema.get("required", []) == tool.input_schema.get("required", [])
                assert set(own.output_schema["required"]) == set(tool.output_schema["required"])
                hints = tool.annotations.model_dump(exclude_none=True)
                assert own.annotations.model_dump(exclude_none=True) == hints, tool.name
                assert own.title == tool.title
            compared = 0
            for name, arguments in steps(7, 600):
                for one in arguments.get("entities", []):  # each thing once, as ours has it
                    one["observations"] = list(dict.fromkeys(one["observations"]))
                for one in arguments.get("observations", []):
                    one["contents"] = list(dict.fromkeys(one["contents"]))
                if "entities" in arguments:
                    arguments["entities"] = list({one["name"]: one for one in reversed(arguments["entities"])}.values())
                if name == "create_relations":
                    unique = {json.dumps(one): one for one in arguments["relations"]}
                    arguments["relations"] = [
                        one for one in unique.values() if model.named(one["from"]) and model.named(one["to"])
                    ]
                getattr(model, name)(**copy.deepcopy(arguments))
                results = [await client.call_tool(name, arguments) for client in (theirs, ours)]
                assert results[0].is_error == results[1].is_error, (name, arguments)
                if not results[0].is_error:
                    assert results[0].structured_content == results[1].structured_content, (name, arguments)
                    assert results[0].content[0].text == results[1].content[0].text
                    compared += 1
            return compared

    assert asyncio.run(both()) > 400


def test_much_at_once_is_compared_once():
    """Whether a name was there is not looked up in a list as long as what was given."""

    class Name(str):
        __slots__ = ()
        looks = 0

        def __eq__(self, other):
            Name.looks += 1
            return str.__eq__(self, other)

        def __hash__(self):
            Name.looks += 1
            return str.__hash__(self)

    names = [Name(f"name {number}") for number in range(300)]
    pairs = [{"from": "one", "to": name, "relationType": "knows"} for name in names]
    with MemoryGraph(":memory:", fake) as memory:
        tools = tools_of(memory)
        tools["create_entities"]({"entities": [{"name": "one", "entityType": "", "observations": names}]})
        for call, given in (
            ("create_entities", {"entities": [{"name": name, "entityType": "", "observations": []} for name in names]}),
            ("create_relations", {"relations": pairs}),
            ("delete_relations", {"relations": pairs}),
            ("delete_observations", {"deletions": [{"entityName": "one", "observations": names}]}),
            ("delete_entities", {"entityNames": names}),
        ):
            Name.looks = 0
            assert tools[call](given).notes == (), call
            assert Name.looks < 50 * len(names), call
        answer = tools["delete_relations"]({"relations": pairs[:1]})
        assert answer.notes == ("Not there: 'one' knows 'name 0'.",)
