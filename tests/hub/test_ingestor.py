"""Single documents of every kind, what is cited of them, and what becomes of them."""

from __future__ import annotations

import asyncio
import http.server
import inspect
import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from ingesting import held, opened, write
from outside import Fake

from raeburnmemory.errors import InvalidInput, MissingDependency, NodeNotFound
from raeburnmemory.hits import Place
from raeburnmemory.hub import Ingestor
from raeburnmemory.hub.documents import EncryptedDocument, Limits, TooLarge, UnsupportedType
from raeburnmemory.hub.fetching import UrlPolicy
from raeburnmemory.memory_graph import MemoryGraph

every_store = pytest.mark.parametrize("store", ["m.json", "m.db"])


@pytest.fixture
def memory(tmp_path):
    with opened(tmp_path / "m.db") as memory:
        yield memory


def cited(memory, question):
    return memory.recall(question, kinds="fragment")[0].citation


# --- what is taken in -----------------------------------------------------------------------------------------------


@every_store
def test_a_text_and_what_is_known_of_it(tmp_path, store):
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        item = ingestor.add_text("The key is under the mat.", title="House", metadata={"room": "hall", "n": [1]})
        assert (item.outcome, item.fragments) == ("added", 1)
        assert ingestor.add_text("The key is under the mat.", title="House").outcome == "unchanged"
        info = ingestor.get(item.id)
        assert (info.title, info.source, info.mime, info.status) == ("House", "text", "text/plain", "ok")
        assert info.metadata == {"room": "hall", "n": [1]}
        assert info == ingestor.get(item.uri) == ingestor.list()[0]
        assert info.to_dict()["uri"] == item.uri
        hit = memory.recall("where is the key?", kinds="fragment")[0]
        assert hit.citation == "House:1"
        assert hit.place == Place(
            item.id, item.uri, "House", "House", 0, 25, (1, 1), None, (), hit.node.attributes["content_hash"], hit.text
        )
        assert memory.similar("key", kinds="fragment")[0].citation == "House:1"
        assert hit.to_dict()["place"]["lines"] == [1, 1]
        assert 'source="House:1"' in str(memory.context("where is the key?", 200))
        other = ingestor.add_text("Now it is in the drawer.", uri=item.uri, title="House")
        assert (other.outcome, other.id) == ("updated", item.id)
        assert ingestor.text(item.uri) == "Now it is in the drawer."
        assert len(held(memory)) == 1


def test_notes_bytes_pages_and_conversations(memory, tmp_path):
    ingestor = Ingestor(memory)
    note = ingestor.add_note("# Trip\n\nPack the tent.\n", title="Trip")
    assert note.uri.startswith("note:")
    assert ingestor.add_note("# Trip\n\nPack the boots.\n", title="Trip", uri=note.uri).outcome == "updated"
    assert cited(memory, "boots") == "Trip:1-3"
    assert ingestor.add_bytes(b"a,b\n1,2\n", "table.csv").outcome == "added"
    assert ingestor.add_bytes(b"a,b\n1,3\n", "table.csv").outcome == "updated"
    assert ingestor.get("bytes:table.csv").mime == "text/csv"
    page = "<html><head><title>Wine</title></head><body>Salt & patience < soap\nfor a stain</body></html>"
    assert ingestor.add_html("HTTP://Example.org:80/wine#top", page).uri == "http://example.org/wine"
    assert ingestor.get("http://example.org/wine").title == "Wine"
    assert "patience < soap" in ingestor.text("http://example.org/wine")
    messages = [{"role": "user", "content": "Is the tent dry?"}, {"role": "assistant", "text": "Not yet."}]
    talk = ingestor.add_conversation(messages, title="On the phone")
    assert ingestor.text(talk.id) == "user: Is the tent dry?\n\nassistant: Not yet."
    assert ingestor.get(talk.id).source == "conversation"
    path = write(tmp_path / "note.txt", "A file of its own.")
    assert ingestor.add_file(path).outcome == "added"
    assert ingestor.get(str(path)).uri == path.as_uri()
    write(path, "Another file.")
    assert ingestor.sync().counts["updated"] == 1, "it is asked for again"
    for wrong in ("ftp://example.org/x", "example.org", "http://", 3, "http://[::1"):
        with pytest.raises(InvalidInput):
            ingestor.add_html(wrong, page)
    with pytest.raises(InvalidInput, match="no text"):
        ingestor.add_conversation([messages[0], {"role": "user"}])
    with pytest.raises(InvalidInput, match="surrogate"):
        ingestor.add_text("\ud800")


def test_what_cannot_be_read_is_an_error_and_leaves_nothing(memory, tmp_path):
    ingestor = Ingestor(memory, limits=Limits(size=100))
    with pytest.raises(UnsupportedType):
        ingestor.add_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20), "a.png")
    with pytest.raises(TooLarge):
        ingestor.add_text("x" * 101)
    with pytest.raises(TooLarge):
        ingestor.add_file(write(tmp_path / "a.txt", "x" * 101))
    with pytest.raises(EncryptedDocument):
        Ingestor(memory).add_bytes(
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + "EncryptedPackage".encode("utf-16-le"), "a.docx"
        )
    with pytest.raises(FileNotFoundError):
        ingestor.add_file(tmp_path / "nothing.txt")
    assert len(memory) == 0
    assert ingestor.add_text("  \n").outcome == "empty"


def test_documents_of_langchain(memory):
    ingestor = Ingestor(memory)
    documents = [
        SimpleNamespace(page_content=f"Page {n} is about thing {n}.", metadata={"source": "book.pdf", "page": n})
        for n in range(2)
    ]
    documents.append(SimpleNamespace(page_content="Alone.", metadata={"source": "note.txt", "by": "Ana"}))

    class Loader:
        def lazy_load(self):
            yield from documents

    assert ingestor.add_documents(Loader()).added == 2
    assert ingestor.add_documents(documents).counts["unchanged"] == 2
    assert ingestor.get("documents:note.txt").metadata == {"by": "Ana"}
    assert cited(memory, "thing 1") == "book.pdf pp. 1-2"
    with pytest.raises(InvalidInput, match="page_content"):
        ingestor.add_documents(["text"])


def test_a_real_loader_and_splitter_of_langchain(memory, tmp_path):
    pytest.importorskip("langchain_core", reason="it is one of LangChain's")
    splitters = pytest.importorskip("langchain_text_splitters", reason="it is one of LangChain's")
    splitter = splitters.CharacterTextSplitter(separator=" ", chunk_size=20, chunk_overlap=0)
    item = Ingestor(memory, chunker=splitter).add_text("one two three four five six seven eight nine ten")
    assert item.fragments > 2


def test_fragments_are_found_by_the_headings_above_them(memory):
    text = "# Wine\n\n" + "First of all this. " * 40 + "\n\n## Stains\n\n" + "Take salt at once and wait. " * 40
    Ingestor(memory, size=60, overlap=0).add_note(text, title="House")
    hit = memory.recall("stains", kinds="fragment")[0]
    assert hit.place.headings == ("Wine", "Stains")
    assert hit.coverage == 1.0
    below = [h for h in memory.recall("stains", 20, kinds="fragment") if "Stains" not in h.text and h.coverage == 1.0]
    assert below, "also those that the heading does not stand in"
    assert below[0].node.attributes["context"] == "Wine > Stains"


def test_async_twins_have_all_of_it():
    twins = [name for name in dir(Ingestor) if name.endswith("_async")]
    assert set(twins) == {
        f"{name}_async"
        for name in ("add_text", "add_note", "add_bytes", "add_file", "add_html", "add_url", "add_conversation", "sync")
    }
    assert all(inspect.iscoroutinefunction(getattr(Ingestor, name)) for name in twins)


def test_async_calls_and_cancelling_a_sync(tmp_path):
    asyncio.run(_cancelled(tmp_path))


async def _cancelled(tmp_path):
    for number in range(200):
        write(tmp_path / f"docs/{number}.txt", f"About {number}.")
    with opened(tmp_path / "m.db") as memory:
        ingestor = Ingestor(memory)
        assert (await ingestor.add_text_async("One.")).outcome == "added"
        begun = threading.Event()
        task = asyncio.create_task(
            ingestor.sync_async(tmp_path / "docs", progress=lambda *what: what[1] > 3 and begun.set())
        )
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = -1
        while before != len(memory):  # it ends after the file that it was at
            before = len(memory)
            await asyncio.sleep(0.3)
        assert 4 < before < 400
        assert (await ingestor.sync_async(tmp_path / "docs")).counts["added"] > 0
        assert len(held(memory)) == 201


# --- citations ------------------------------------------------------------------------------------------------------


@every_store
def test_a_citation_is_valid_moved_or_gone(tmp_path, store):
    path = write(tmp_path / "docs/guide.md", "# Guide\n\nTake salt.\n\n# Other\n\nNo wine.\n")
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        ingestor.sync(tmp_path / "docs")
        hit = memory.recall("salt", kinds="fragment")[0]
        assert hit.citation == "docs/guide.md:1-3"
        for citation in (hit, hit.place, hit.id):
            found = ingestor.verify_citation(citation)
            assert (found.status, found.place) == ("valid", hit.place)
        write(path, "Above.\n\n" + path.read_text())
        found = ingestor.verify_citation(hit)
        assert (found.status, found.place.lines) == ("moved", (3, 5))
        lines = path.read_text().splitlines()
        assert "\n".join(lines[2:5]) == found.place.quote == hit.text
        assert found.to_dict()["place"]["lines"] == [3, 5]
        ingestor.sync(tmp_path / "docs")
        path.rename(tmp_path / "docs/new.md")
        assert ingestor.verify_citation(hit).status == "gone"
        ingestor.sync(tmp_path / "docs")
        found = ingestor.verify_citation(hit)  # the document is elsewhere, and is known to be
        assert (found.status, str(found.place)) == ("moved", "docs/new.md:3-5")
        write(tmp_path / "docs/new.md", "Nothing of it.")
        found = ingestor.verify_citation(hit)
        assert (found.status, found.place, bool(found)) == ("gone", None, False)
        ingestor.remove(hit.place.document)
        assert ingestor.verify_citation(hit).status == "gone"


def test_of_several_places_the_nearest_is_meant(memory, tmp_path):
    path = write(tmp_path / "a.txt", "one\n\nwords\n\ntwo\n")
    ingestor = Ingestor(memory)
    ingestor.add_file(path)
    place = memory.recall("words", kinds="fragment")[0].place
    quoted = Place(place.document, place.uri, place.name, "", 5, 10, (3, 3), quote="words")
    assert ingestor.verify_citation(quoted).status == "valid"
    write(path, "words\n\nxxxxxxxxxxxxxxx\nwords\n\n\n\n\n\nwords")
    assert ingestor.verify_citation(quoted).place.lines == (1, 1)


def test_a_citation_of_what_was_passed_in(memory):
    ingestor = Ingestor(memory)
    note = ingestor.add_note("# One\n\nTake salt.\n", title="Note")
    hit = memory.recall("salt", kinds="fragment")[0]
    assert ingestor.verify_citation(hit).status == "valid"
    ingestor.add_note("# Zero\n\nNo.\n\n# One\n\nTake salt.\n", title="Note", uri=note.uri)
    found = ingestor.verify_citation(hit)
    assert (found.status, str(found.place)) == ("moved", "Note:5-7")
    ingestor.add_note("# Zero", uri=note.uri)
    assert ingestor.verify_citation(hit).status == "gone"
    memory.add_message("Take salt.", id="said")
    for wrong, error in (("said", InvalidInput), ("nobody", NodeNotFound), (3, InvalidInput)):
        with pytest.raises(error):
            ingestor.verify_citation(wrong)
    with pytest.raises(InvalidInput):
        ingestor.verify_citation(memory.recall("salt", kinds="prompt")[0])


# --- removing -------------------------------------------------------------------------------------------------------


@every_store
def test_a_document_goes_with_its_fragments_and_nothing_else(tmp_path, store):
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory)
        text = "# A\n\nOne.\n\n# B\n\nTwo.\n"
        one, two = ingestor.add_note(text, title="one"), ingestor.add_note(text, title="two")
        asked = memory.add_interaction("What is one?", "One.")
        for fragment in memory.links(one.id, "part_of", "in"):
            memory.link(asked.response, fragment.source, "cites")
        kept = held(memory)[two.uri]
        report = memory.forget(one.id)
        assert report.kinds == {"document": 1, "fragment": 2}
        assert held(memory) == {two.uri: kept}
        assert memory.get(asked.response).text == "One."
        assert ingestor.remove(two.uri) == 2
        with pytest.raises(NodeNotFound):
            ingestor.remove(two.uri)
        assert {node.kind for node in memory} == {"prompt", "response"}
        assert memory.recall("two", kinds="fragment").ids == []


def test_a_vector_store_sees_what_was_taken_in(memory):
    pytest.importorskip("langchain_core", reason="the vector store is LangChain's")
    from raeburnmemory.langchain import RaeburnVectorStore

    Ingestor(memory, collection="books").add_text("Salt for wine.", title="A")
    (found,) = RaeburnVectorStore(memory, collection="books").similarity_search("wine")
    assert found.page_content == "Salt for wine."
    assert found.metadata["document"].startswith("document/books/")


# --- the web --------------------------------------------------------------------------------------------------------


class _Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("If-None-Match")))
        status, body, tag = self.server.pages.get(self.path, (404, b"", None))
        if tag is not None and self.headers.get("If-None-Match") == tag:
            status, body = 304, b""
        self.send_response(status)
        if tag is not None:
            self.send_header("ETag", tag)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    pytest.importorskip("httpcore", reason="the web is asked by httpcore")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.pages, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.policy = UrlPolicy(allow_hosts=(f"127.0.0.1:{server.server_port}",))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_asked_whether_it_changed(memory, site):
    ingestor = Ingestor(memory, url_policy=site.policy)
    url = f"{site.url}/a"
    site.pages["/a"] = (200, b"Salt for wine.", '"1"')
    assert ingestor.add_url(url).outcome == "added"
    assert cited(memory, "salt") == f"{url}:1"
    assert ingestor.sync().counts["unchanged"] == 1
    assert site.asked == [("/a", None), ("/a", '"1"')]
    assert ingestor.verify_citation(memory.recall("salt", kinds="fragment")[0]).status == "valid"
    site.pages["/a"] = (200, b"Soap for wine.", '"2"')
    report = ingestor.sync(url)
    assert (report.updated, report.bytes, ingestor.text(url)) == (1, 14, "Soap for wine.")
    site.pages["/a"] = (500, b"", None)
    assert [(item.outcome, item.code) for item in ingestor.sync().items] == [("failed", "fetch_failed")]
    asked = len(site.asked)
    assert ingestor.sync().failed == 1
    assert len(site.asked) == asked, "not again so soon"
    site.pages["/a"] = (404, b"", None)
    assert ingestor.sync(force=True).failed == 1
    assert ingestor.text(url) == "Soap for wine.", "it may be back tomorrow"
    site.pages["/a"] = (410, b"", None)
    assert ingestor.sync(force=True, prune=False).failed == 1
    assert ingestor.sync(force=True).pruned == 1
    assert len(memory) == 0


def test_an_address_that_is_refused_is_never_asked(memory, site):
    report = Ingestor(memory).sync([f"{site.url}/a", "http://localhost/"])
    assert [item.code for item in report.items] == ["blocked_url"] * 2
    assert site.asked == []


# --- watching -------------------------------------------------------------------------------------------------------


def test_a_watch_follows_and_ends(tmp_path):
    pytest.importorskip("watchfiles", reason="folders are watched by watchfiles")
    folder = tmp_path / "docs"
    write(folder / "a.txt", "About a.")
    reports, stop = [], threading.Event()
    with opened(folder / "m.db") as memory:  # in the very folder: its own writing must not wake it up
        thread = threading.Thread(
            target=Ingestor(memory).watch,
            args=([folder],),
            kwargs={"stop": stop, "on_report": reports.append, "quiet": 0.2},
        )
        thread.start()
        try:
            until(lambda: len(reports) == 1)
            write(folder / "b.txt", "About b.")
            until(lambda: len(reports) == 2)
            os.remove(folder / "a.txt")
            until(lambda: len(reports) == 3)
            time.sleep(1)
            assert [report.counts["added"] for report in reports] == [1, 1, 0]
            assert reports[2].pruned == 1
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()
        with pytest.raises(InvalidInput, match="nothing at"):
            Ingestor(memory).watch(tmp_path / "nowhere")


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_watching_needs_its_package(memory, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingDependency, match=r"raeburnmemory\[hub\]"):
        Ingestor(memory).watch(tmp_path)


def test_a_memory_without_its_model_is_left_alone(tmp_path):
    with MemoryGraph(tmp_path / "m.db", Fake("one")) as memory:
        Ingestor(memory).add_text("One.")
    with MemoryGraph(tmp_path / "m.db") as memory:  # an object of another program, which is not there
        ingestor = Ingestor(memory)
        assert len(ingestor.list()) == 1
        with pytest.raises(MissingDependency):
            ingestor.add_text("Two.")
        assert len(ingestor.list()) == 1
