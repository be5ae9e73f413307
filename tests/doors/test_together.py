"""One memory, many faces: what one of them writes the others find, and processes of different faces lose nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from outside import environment

from raeburnmemory import MemoryGraph

pytest.importorskip("langchain_core", reason="one of the faces needs langchain-core")
pytest.importorskip("langgraph", reason="one of the faces needs langgraph-checkpoint")
pytest.importorskip("mcp", reason="one of the faces needs mcp")
pytest.importorskip("fastapi", reason="one of the faces needs fastapi")
pytest.importorskip("httpx", reason="one of the faces needs httpx")

from langchain_core.messages import AIMessage, HumanMessage
from mcp import Client, StdioServerParameters

from raeburnmemory.api import create_app
from raeburnmemory.compat.mem0 import Memory
from raeburnmemory.exporters import export_file
from raeburnmemory.importers import import_file
from raeburnmemory.langchain import RaeburnChatMessageHistory, RaeburnRetriever, RaeburnVectorStore
from raeburnmemory.langgraph import RaeburnStore
from raeburnmemory.mcp import make_server
from raeburnmemory.web import Settings

# --- every face writes, every face reads -------------------------------------------------------------------------------


def told(server, name, **arguments):
    async def ask():
        async with Client(server) as client:
            result = await client.call_tool(name, arguments)
            assert not result.is_error, result.content
            return result.structured_content

    return asyncio.run(ask())


def asked(app, path, **body):
    import httpx

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()

    return asyncio.run(ask())


def by_documents(memory, folder):
    RaeburnVectorStore(memory, collection="papers").add_texts(["The walrus paper is about whiskers."])


def by_chat(memory, folder):
    history = RaeburnChatMessageHistory("zoo", memory)
    history.add_messages([HumanMessage("Where do penguins nest?"), AIMessage("On the southern shore.")])


def by_graph_store(memory, folder):
    RaeburnStore(memory).put(("users", "ana"), "pet", {"text": "Ana keeps a chameleon."})


def by_mcp_entities(memory, folder):
    told(
        make_server(memory),
        "create_entities",
        entities=[{"name": "Bo", "entityType": "person", "observations": ["Bo feeds the otters."]}],
    )


def by_mcp_remember(memory, folder):
    told(make_server(memory), "remember", text="The giraffe house closes at noon.")


def by_mem0(memory, folder):
    Memory(memory).add("I am afraid of tarantulas", user_id="ana", infer=False)


def by_recording(memory, folder):
    @memory.record(session_id="calls", agent="bot")
    def ask(question):
        return "Flamingos eat shrimp."

    ask("What do they eat?")


def by_http(memory, folder):
    asked(create_app(memory, Settings()), "/v1/interactions", prompt="Which hamster is the oldest?")


def by_import(memory, folder):
    path = folder / "chat.csv"
    path.write_text("role,text,session\nuser,How heavy is a hippopotamus?,weights\n", encoding="utf-8")
    import_file(memory, "csv", path)


def by_fact(memory, folder):
    memory.fact("the okapi", "lives_in", "the Congo")


FACES = {
    by_documents: ("walrus", "fragment"),
    by_chat: ("penguins", "prompt"),
    by_graph_store: ("chameleon", "item"),
    by_mcp_entities: ("otters", "observation"),
    by_mcp_remember: ("giraffe", "prompt"),
    by_mem0: ("tarantulas", "memory"),
    by_recording: ("shrimp", "response"),
    by_http: ("hamster", "prompt"),
    by_import: ("hippopotamus", "prompt"),
    by_fact: ("okapi", "fact"),
}


@pytest.fixture(params=["m.json", "m.db"])
def memory(request, tmp_path):
    with MemoryGraph(tmp_path / request.param, "builtin", vector_backend="exact") as found:
        yield found


def test_what_one_face_writes_every_face_finds(memory, tmp_path):
    for write in FACES:
        write(memory, tmp_path)
    app, server, retriever = create_app(memory, Settings()), make_server(memory), RaeburnRetriever(memory, k=1)
    copy = tmp_path / "all.jsonl"
    export_file(memory, "jsonl", copy)
    exported = copy.read_text(encoding="utf-8")
    with MemoryGraph(tmp_path / "again.db", "builtin", vector_backend="exact") as again:
        import_file(again, "jsonl", copy)
        for word, kind in FACES.values():
            (hit,) = memory.recall(word, 1)
            assert (hit.node.kind, word in hit.text) == (kind, True), hit
            assert [document.metadata["id"] for document in retriever.invoke(word)] == [hit.id]
            assert [one["node"]["id"] for one in asked(app, "/v1/recall", query=word, k=1)["hits"]] == [hit.id]
            found = told(server, "recall", query=word, limit=1)["results"]
            assert [one["id"] for one in found] == [hit.id]
            assert word in told(server, "fetch", id=told(server, "search", query=word)["results"][0]["id"])["text"]
            assert word in memory.context(word, 200, k=1).text
            assert word in exported
            assert again.recall(word, 1).ids == [hit.id]
    assert {node.id for node in memory.show().nodes} == {node.id for node in memory}


def test_faces_with_collections_keep_to_their_own(memory, tmp_path):
    for write in FACES:
        write(memory, tmp_path)
    mine = Memory(memory)
    assert [one["memory"] for one in mine.get_all(user_id="ana")["results"]] == ["I am afraid of tarantulas"]
    assert len(RaeburnStore(memory).search(())) == 1
    assert [one["name"] for one in told(make_server(memory), "read_graph")["entities"]] == ["Bo"]
    assert len(RaeburnVectorStore(memory, collection="papers").similarity_search("walrus whiskers", k=10)) == 1
    mine.delete_all(user_id="ana")
    for word, kind in FACES.values():
        assert (memory.recall(word, 1, kinds=kind).ids != []) == (kind != "memory"), word


def test_a_namespace_is_seen_by_no_face_of_another(memory, tmp_path):
    for write in FACES:
        write(memory, tmp_path)
    with MemoryGraph(memory.db_path, "builtin", vector_backend="exact", namespace="other") as other:
        assert Memory(other).get_all(user_id="ana")["results"] == []
        assert RaeburnStore(other).search(()) == []
        assert told(make_server(other), "read_graph")["entities"] == []
        assert RaeburnVectorStore(other, collection="papers").similarity_search("walrus") == []
        assert RaeburnChatMessageHistory("zoo", other).messages == []
        assert RaeburnRetriever(other).invoke("walrus") == []
        assert asked(create_app(other, Settings()), "/v1/recall", query="walrus")["hits"] == []
        assert asked(create_app(memory, Settings()), "/v1/recall?namespace=other", query="walrus")["hits"] == []


# --- processes -----------------------------------------------------------------------------------------------------------

NOTEBOOK = """
import sys
import nbformat
from nbclient import NotebookClient

path, count = sys.argv[1:]
cells = [
    f"from raeburnmemory import MemoryGraph; memory = MemoryGraph({path!r}, 'builtin')",
    f"for n in range({count}): memory.add_interaction(f'notebook asks {{n}}', f'notebook hears {{n}}', session_id='nb')",
    "memory.show(); memory.close()",
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
"""


@pytest.mark.parametrize("file", ["m.json", "m.db"])
def test_two_mcp_servers_and_a_notebook_write_at_once_and_lose_nothing(tmp_path, file):
    pytest.importorskip("nbclient", reason="a notebook process needs nbclient")
    pytest.importorskip("ipykernel", reason="a notebook process needs ipykernel")
    pytest.importorskip("typer", reason="the MCP server is a command")
    path, count = tmp_path / file, 8
    env = environment(RAEBURN_EMBED_MODEL="builtin")
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "raeburnmemory", "--db", str(path), "mcp"], env=env
    )

    async def write(client, who):
        for n in range(count):
            one = {"name": f"{who} {n}", "entityType": "thing", "observations": [f"seen by {who}"]}
            for name, arguments in (
                ("create_entities", {"entities": [one]}),
                ("remember", {"text": f"{who} says {n}", "session": who}),
            ):
                assert not (await client.call_tool(name, arguments)).is_error

    async def both():
        async with Client(server, read_timeout_seconds=240) as one, Client(server, read_timeout_seconds=240) as two:
            await asyncio.gather(write(one, "one"), write(two, "two"))

    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK, str(path), str(count)], env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        asyncio.run(both())
        _, errors = notebook.communicate(timeout=300)
    finally:
        notebook.kill()
        notebook.wait()
    assert notebook.returncode == 0, errors[-3000:]
    with MemoryGraph(path) as memory:
        assert memory.stats().kinds["entity"] == memory.stats().kinds["observation"] == 2 * count
        for who in ("one", "two"):
            assert [node.text for node in memory.thread(who)] == [f"{who} says {n}" for n in range(count)]
        said = [text for n in range(count) for text in (f"notebook asks {n}", f"notebook hears {n}")]
        assert [node.text for node in memory.thread("nb")] == said
