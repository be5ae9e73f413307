"""Anything that can be asked becomes one kind of client: URLs, clients of the package openai, models of LangChain."""

import asyncio
import logging

import pytest

pytest.importorskip("httpx", reason="the hub speaks HTTP with httpx")

import tiny_model
from scripted import awaited, scripted

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput, MissingDependency
from raeburnmemory.hub import Ingestor, ModelClient, aask, ask, open_client, summarise
from raeburnmemory.hub.models.client import AsyncModelClient
from raeburnmemory.hub.models.errors import ClientError, ContextExceeded, NotRunning
from raeburnmemory.hub.models.interface import ChatClient
from raeburnmemory.tokens import estimate

CHAT = "/v1/chat/completions"
KEY = "sesame-0123456789"
QUESTION = "What is Ana allergic to?"


@pytest.fixture
def script():
    with scripted() as server:
        yield server


@pytest.fixture
def memory():
    with MemoryGraph(":memory:", embedding_model="builtin") as graph:
        Ingestor(graph).add_text("Ana is allergic to peanuts and latex.\nShe carries a pen.\n", title="Health")
        yield graph


# --- names ------------------------------------------------------------------------------------------------------


def test_an_address_opens_a_client(script):
    script.says("Hi.")
    client = open_client(f"openai:{script.url}#qwen", api_key=KEY)
    assert isinstance(client, ChatClient)
    assert client.chat("Hello").text == "Hi."
    assert script.bodies()[0]["model"] == "qwen"
    assert script.asked[0][2]["Authorization"] == f"Bearer {KEY}"
    assert client.name == f"openai:{script.url}#qwen"
    assert open_client(client) is client
    client.close()


@pytest.mark.parametrize("wrong", ["", "tiny", "http://127.0.0.1/v1", 7, None, object(), "openai:", "openai:ftp://x"])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(InvalidInput):
        open_client(wrong)


def test_a_gguf_file_needs_its_package(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingDependency, match=r"raeburnmemory\[llama\]"):
        open_client(str(tmp_path / "model.gguf"))


# --- the package openai -----------------------------------------------------------------------------------------


@pytest.fixture
def openai():
    return pytest.importorskip("openai", reason="takes clients of the package openai")


def test_a_client_of_openai_answers(openai, memory, script):
    script.says("Peanuts and latex [1].")
    theirs = openai.OpenAI(base_url=script.url, api_key=KEY, max_retries=0)
    answer = ask(memory, QUESTION, theirs, model="gpt-x")
    assert answer.citations[0].verified
    assert script.bodies()[0]["model"] == "gpt-x"
    assert answer.tokens["prompt"] == 7  # as the server counted
    assert answer.estimated  # as nobody but the server can count
    assert summarise(memory, answer.citations[0].place.document, theirs, model="gpt-x").calls == 1


def test_the_only_model_is_found_and_of_several_one_must_be_named(openai, script):
    script.says("Hi.")
    theirs = openai.OpenAI(base_url=script.url, api_key=KEY, max_retries=0)
    script.on(
        "/v1/models", {"object": "list", "data": [{"id": "only", "object": "model", "created": 1, "owned_by": "x"}]}
    )
    assert open_client(theirs).chat("Hello").text == "Hi."
    assert script.bodies()[0]["model"] == "only"
    script.on(
        "/v1/models",
        {"object": "list", "data": [{"id": n, "object": "model", "created": 1, "owned_by": "x"} for n in ("a", "b")]},
    )
    with pytest.raises(InvalidInput, match="2 models: a, b"):
        open_client(theirs).chat("Hello")


def test_errors_of_openai_are_ours(openai, script, monkeypatch):
    theirs = openai.OpenAI(base_url=script.url, api_key=KEY, max_retries=0, timeout=0.5)
    client = open_client(theirs, model="m")
    script.on(CHAT, (401, {"error": {"message": f"Bad key {KEY}"}}))
    with pytest.raises(ClientError) as raised:
        client.chat("Hello")
    assert raised.value.status == 401
    assert KEY not in str(raised.value)
    words = "This model's maximum context length is 10 tokens"
    script.on(CHAT, (400, {"error": {"message": words}}))
    with pytest.raises(ContextExceeded):
        client.chat("Hello")
    script.on(CHAT, lambda handler, body: handler.sleep(1.5))
    with pytest.raises(ClientError, match="in time"):
        client.chat("Hello")
    gone = openai.OpenAI(base_url=f"http://127.0.0.1:{tiny_model.free_port()}/v1", api_key=KEY, max_retries=0)
    with pytest.raises(NotRunning):
        open_client(gone, model="m").chat("Hello")


@awaited
async def test_a_client_of_openai_that_is_awaited(openai, memory, script):
    script.says("Peanuts and latex [1].")
    async with openai.AsyncOpenAI(base_url=script.url, api_key=KEY, max_retries=0) as theirs:
        answer = await aask(memory, QUESTION, theirs, model="gpt-x")
        assert answer.citations[0].verified
        with pytest.raises(InvalidInput, match=r"aask\(\)"):
            ask(memory, QUESTION, theirs)
    async with AsyncModelClient(script.url) as ours:
        with pytest.raises(InvalidInput, match=r"aask\(\)"):
            ask(memory, QUESTION, ours)


def test_a_client_that_records_goes_on_recording(openai, memory, script):
    """What `MemoryGraph.wrap` returns is a client of openai's as any other."""
    script.says("Peanuts [1].")
    theirs = memory.wrap(openai.OpenAI(base_url=script.url, api_key=KEY, max_retries=0), session_id="calls")
    ask(memory, QUESTION, theirs, model="m", record=False)
    assert len(memory.thread("calls")) >= 2


# --- LangChain --------------------------------------------------------------------------------------------------


@pytest.fixture
def langchain():
    return pytest.importorskip("langchain_core", reason="takes models of langchain-core")


@pytest.fixture
def fake(langchain):
    from langchain_core.language_models import GenericFakeChatModel

    return lambda *says: GenericFakeChatModel(messages=iter(says))


def test_a_chat_model_of_langchain_answers(fake, memory):
    pieces = []
    answer = ask(memory, QUESTION, fake("Ana is allergic to peanuts [1] and cats [4]."), on_token=pieces.append)
    assert answer.text == "Ana is allergic to peanuts [1] and cats."
    assert len(pieces) > 3  # it was streamed
    assert answer.citations[0].quote == "Ana is allergic to peanuts and latex."
    assert answer.model == "GenericFakeChatModel"
    assert answer.estimated


def test_any_runnable_that_takes_messages_will_do(langchain, memory):
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.runnables import RunnableLambda

    heard = []

    def speak(messages):
        heard.extend(messages)
        return "Peanuts [1]."

    answer = ask(memory, QUESTION, RunnableLambda(speak) | StrOutputParser())
    assert answer.text == "Peanuts [1]."
    assert [role for role, _ in heard] == ["system", "user"]
    with pytest.raises(InvalidInput, match="no message"):
        ask(memory, QUESTION, RunnableLambda(lambda _: 7))


def test_usage_and_context_of_a_langchain_model_are_taken(langchain, memory):
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    usage = {"input_tokens": 11, "output_tokens": 2, "total_tokens": 13}
    said = AIMessage("Peanuts [1].", usage_metadata=usage, response_metadata={"model_name": "gpt-y"})
    reply = open_client(GenericFakeChatModel(messages=iter([said]))).chat("Hello")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.model) == (11, 2, "gpt-y")
    model = GenericFakeChatModel(messages=iter([]), profile={"max_input_tokens": 900})
    assert open_client(model).context_length() == 900
    assert open_client(GenericFakeChatModel(messages=iter([]))).context_length() is None


def test_a_tokenizer_can_be_given(fake, memory):
    client = open_client(fake(), tokenizer=len)
    assert client.count_tokens("four") == 4
    assert not client.count_tokens("four").estimated
    assert open_client(fake()).count_tokens("How many?") == estimate("How many?")
    answer = ask(memory, QUESTION, fake("Peanuts [1]."), tokenizer=len, context=2000)
    assert 500 < answer.tokens["prompt"] < 2000


@pytest.fixture
def retriever(langchain):
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class Fixed(BaseRetriever):
        found: list

        def _get_relevant_documents(self, query, *, run_manager):
            asked.append(query)
            return self.found

    asked = []
    document = Document(
        "Ben is allergic to bees.\n", metadata={"source": "/data/ben.pdf", "page": 2, "start_index": 40}
    )
    made = Fixed(found=[document, Document("Ben is allergic to bees.\n"), Document("Ben likes tea.")])
    return made, asked


def test_any_retriever_will_do(retriever, fake, memory):
    theirs, asked = retriever
    answer = ask(memory, "What is Ben allergic to?", fake("Ben is allergic to bees [1]."), retriever=theirs)
    assert asked == ["What is Ben allergic to?"]
    assert len(answer.sources) == 2  # equal texts are one
    (citation,) = answer.citations
    assert citation.verified
    assert citation.id is None  # it is not in the memory
    assert citation.quote == "Ben is allergic to bees."
    assert (citation.uri, citation.pages, citation.start, citation.end) == ("/data/ben.pdf", (3, 3), 40, 64)
    assert memory.links(answer.recorded.response, "cites") == []
    # What a retriever found is trusted, unless somebody says how near it must be.
    assert not ask(memory, "Something else entirely?", fake("No [1]."), retriever=theirs).refused
    assert ask(memory, "Something else entirely?", fake("No [1]."), retriever=theirs, min_coverage=0.5).refused
    empty = theirs.model_copy(update={"found": []})
    assert ask(memory, "What is Ben allergic to?", fake("No."), retriever=empty).refused
    with pytest.raises(InvalidInput, match="no retriever"):
        ask(memory, "What is Ben allergic to?", fake("No."), retriever=7)


def test_what_our_own_retriever_finds_is_cited_as_the_memorys(fake, memory):
    from raeburnmemory.langchain import RaeburnRetriever

    answer = ask(memory, QUESTION, fake("Ana is allergic to peanuts [1]."), retriever=RaeburnRetriever(memory))
    (citation,) = answer.citations
    assert citation.lines == (1, 1)
    assert memory.links(answer.recorded.response, "cites", "out")[0].target == citation.id


def test_asking_is_a_runnable(fake, memory):
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.output_parsers import StrOutputParser

    from raeburnmemory.hub import RaeburnAsk

    door = RaeburnAsk(memory, fake("Peanuts [1].", "Latex [1].", "Peanuts [1]."), record=False)
    message = door.invoke(QUESTION)
    assert message.content == "Peanuts [1]."
    assert message.response_metadata["citations"][0]["verified"] is True
    assert (door | StrOutputParser()).invoke({"question": QUESTION, "k": 1}) == "Latex [1]."
    pieces = list(door.stream(QUESTION))
    assert "".join(piece.content for piece in pieces) == "Peanuts [1]."
    assert sum(pieces[1:], pieces[0]).response_metadata["citations"]

    talk = RaeburnAsk(memory, fake("What does Ana carry?", "A pen [1]."), record=False)
    chat = [HumanMessage(QUESTION), AIMessage("Peanuts."), HumanMessage("And what does she carry?")]
    answered = talk.invoke({"messages": chat})
    assert answered.content == "A pen [1]."
    assert answered.response_metadata["query"] == "What does Ana carry?"
    with pytest.raises(InvalidInput, match="no question"):
        talk.invoke(7)
    with pytest.raises(InvalidInput):
        talk.invoke({"nothing": 1})


@awaited
async def test_the_runnable_is_awaited_too(fake, memory):
    from raeburnmemory.hub import RaeburnAsk

    door = RaeburnAsk(memory, fake("Peanuts [1].", "Latex [1]."))
    assert (await door.ainvoke(QUESTION)).content == "Peanuts [1]."
    assert "".join([piece.content async for piece in door.astream(QUESTION)]) == "Latex [1]."


def test_the_runnable_tells_langchains_tracers(fake, memory):
    from langchain_core.tracers import BaseTracer

    from raeburnmemory.hub import RaeburnAsk

    class Seen(BaseTracer):
        def __init__(self):
            super().__init__()
            self.runs = []

        def _persist_run(self, run):
            self.runs.append(run)

    seen = Seen()
    RaeburnAsk(memory, fake("Peanuts [1].")).invoke(QUESTION, {"callbacks": [seen]})
    assert [run.name for run in seen.runs if run.parent_run_id is None][-1] == "RaeburnAsk"


# --- an embedding server as the model of a memory ---------------------------------------------------------------


def test_the_server_of_an_embedding_model_embeds_a_memory(tiny_embedding_model, tmp_path, caplog):
    log = tmp_path / "log"
    with tiny_model.running(tiny_embedding_model, log, "--embeddings", "-b", "512", "-ub", "512") as server:
        address = f"openai:{server.url}/v1"
        path = tmp_path / "memory.db"
        with MemoryGraph(path, embedding_model=address) as memory:
            memory.add_interaction({"id": "p", "text": "aaaa bbbb"}, "cccc")
            memory.add_interaction({"id": "q", "text": "zzzz yyyy"}, "xxxx")
            with caplog.at_level(logging.INFO, "raeburnmemory"):
                Ingestor(memory).add_text("long " * 300, title="Longer than what it takes at once")
            with ModelClient(server.url + "/v1") as client:
                (row,) = client.embed(["aaaa bbbb"])
            (stored,) = memory.vectors(["p"]).values()
            assert stored.shape == (tiny_model.WIDTH,)
            assert abs(float(stored @ row)) == pytest.approx(1, abs=1e-4)
            assert memory.get_similar_prompts("aaaa bbbb")[0] == "p"
            assert memory.stats().embedder == address
        with MemoryGraph(path) as again:  # the memory knows where its model is
            assert again.similar("zzzz yyyy", 1).ids == ["q"]


def test_a_chat_server_is_no_embedder(tiny_chat_model, tmp_path):
    from raeburnmemory.errors import EmbeddingError, ModelUnavailable

    with (
        tiny_model.running(tiny_chat_model, tmp_path / "log") as server,
        pytest.raises((EmbeddingError, ModelUnavailable), match="embeddings"),
        MemoryGraph(":memory:", embedding_model=f"openai:{server.url}/v1") as memory,
    ):
        memory.add_interaction("Hello")


def test_nothing_is_left_running(memory, script):
    """What was opened from a name is closed, also where nobody reads a stream to its end."""
    script.says("Peanuts [1].")
    stream = ask(memory, QUESTION, "openai:" + script.url, stream=True)
    next(stream)
    stream.close()

    async def cancelled():
        task = asyncio.ensure_future(aask(memory, QUESTION, "openai:" + script.url))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
