"""The original's calls, as its client makes them, against a hub on a real port."""

import os
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from file_server import FileServer, model_bytes
from hub_server import described, model, running, send, until
from ingesting import write
from legacy_client import LegacyClient
from scripted import scripted

from raeburnmemory.hub.models.spec import ModelSpec


@pytest.fixture
def notes(tmp_path):
    """A folder of a user."""
    folder = tmp_path / "my notes"
    write(folder / "garden.md", "# Garden\n\nThe roses are watered on Mondays.\n")
    write(folder / "sub" / "kitchen.txt", "The kettle is descaled with vinegar.\n")
    write(folder / ".gitignore", "*.log\nbuild/\n")
    write(folder / "x.log", "noise")
    write(folder / "build" / "y.txt", "made")
    return folder


def test_projects(tmp_path):
    with running(tmp_path) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        assert client.list_projects() == []
        one, two = client.create_project("Notes"), client.create_project("")
        assert (one, two) == (
            {"id": 1, "name": "Notes", "is_removed": False},
            {"id": 2, "name": "New Project", "is_removed": False},
        )
        assert client.update_project(2, "Recipes & co")["name"] == "Recipes & co"
        assert client.delete_project(1) == {"status": "ok"}
        assert [project["id"] for project in client.list_projects()] == [2]
        assert client.create_project("Third")["id"] == 3
        for number in (1, 99):
            assert client.delete_project(number)["status"] == "error"
            client.missing("POST", "update_project", {"project_id": number, "project_name": "x"})
            client.missing("GET", "list_project_directories", {"project_id": number})
            client.missing("DELETE", "delete_project_directory", {"directory_id": number})
            client.missing("GET", f"list_project_files/{number}", None)


def test_malformed_requests_get_the_errors_of_the_framework(tmp_path):
    with running(tmp_path) as hub:
        for method, path, body in [
            ("POST", "/api/v1/create_project", None),
            ("POST", "/api/v1/update_project?project_id=x&project_name=y", None),
            ("DELETE", "/api/v1/delete_project?project_id=-1", None),
            ("GET", "/api/v1/list_project_files/abc", None),
            ("POST", "/api/v1/rag_ask", {"project_id": "x"}),
            ("POST", "/api/v1/rag_ask", {"project_id": 1, "prompt": ["\ud800"]}),
            ("POST", "/api/v1/check_llamafile_status", None),
            ("POST", "/api/v1/update_project?project_id=" + "9" * 5000 + "&project_name=y", None),
        ]:
            answer = hub.ask(method, path, body)
            assert answer.status == 422, (path, answer.body)
            assert {"loc", "msg", "type"} <= set(answer.json()["detail"][0])
        answer = hub.ask("POST", "/api/v1/create_project", query={"project_name": "a\nb"})
        assert answer.status == 422


def test_directories_files_documents_and_search(tmp_path, notes):
    with running(tmp_path) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        client.create_project("House__hold")
        made = client.create_project_directory(1, str(notes))
        assert made == {"id": 1, "path": str(notes), "project_id": 1, "is_removed": False}
        assert client.list_project_directories(1) == [made]
        for path in ("", "relative/path", str(tmp_path / "hub")):
            assert client.create_project_directory(1, path)["status"] == "error"
        assert client.create_project_directory(9, str(notes))["status"] == "error"
        assert client.list_project_files(1) == []
        assert client.sync_project_files(1) == {"status": "ok"}
        files = client.list_project_files(1)
        assert [client.shown(path) for path in files] == [f"{notes}/garden.md", f"{notes}/sub/kitchen.txt"]
        assert client.upload_file("House__hold", "up/load.txt", b"Uploads are kept.\n") == {"status": "ok"}
        assert client.list_project_files(1)[0] == "House_=5Fhold/uploads/up/load.txt"

        assert client.check_ingestion_status(1) is False
        assert client.ingest_project_files(1) == {"num_files": 3, "num_fragments": 3}
        assert client.ingest_project_files(1)["status"] == "ok"
        found = client.vector_db_query(1, "the kettle is descaled")
        assert found[0]["file_path"] == files[1]
        assert found[0]["file_content"] == "The kettle is descaled with vinegar."
        # Bags of words: 4 of 4 and 4 of 6 words in common, but for words that fell into one place.
        assert found[0]["distance"] == pytest.approx(2 - 2 * 4 / (4**0.5 * 6**0.5), abs=1e-5)
        assert client.vector_db_query(1, "") == []
        client.create_project("Empty")
        assert client.vector_db_query(2, "kettle") == []

        write(notes / "sub" / "kitchen.txt", "The oven is cleaned with soda.\n")
        (notes / "garden.md").unlink()
        assert client.sync_project_files(1) == {"status": "ok"}
        assert client.ingest_project_files(1) == {"num_files": 2, "num_fragments": 1}
        texts = {one["file_content"] for one in client.vector_db_query(1, "the roses the kettle the oven")}
        assert texts == {"The oven is cleaned with soda.", "Uploads are kept."}
        assert client.delete_project_directory(1) == {**made, "is_removed": True}
        assert client.list_project_directories(1) == []
        assert client.list_project_files(1) == ["House_=5Fhold/uploads/up/load.txt"]
        assert len(client.vector_db_query(1, "oven")) == 1


def test_syncing_names_the_directory_that_is_not_there(tmp_path, notes):
    with running(tmp_path) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        client.create_project("A")
        client.create_project_directory(1, str(tmp_path / "gone away"))
        client.create_project_directory(1, str(notes))
        said = client.sync_project_files(1)
        assert said["status"] == "error"
        assert "gone away" in said["message"]
        assert len(client.list_project_files(1)) == 2
        assert client.sync_project_files(7)["status"] == "error"
        assert client.ingest_project_files(7)["status"] == "error"


def test_uploads_go_to_one_project_that_is_there(tmp_path):
    with running(tmp_path) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        for name in ("A", "A", "B"):
            client.create_project(name)
        for project, path in [
            ("A", "x"),
            ("C", "x"),
            ("B", "../../x"),
            ("B", "/etc/x"),
            ("B", "a\\..\\..\\x"),
        ]:
            assert client.upload_file(project, path, b"data")["status"] == "error", (project, path)
        assert client.upload_file("B", "__home__ana__notes/x.txt", b"data") == {"status": "ok"}
        [path] = client.list_project_files(3)
        assert client.shown(path) == "/home/ana/notes/x.txt"
        assert sum(len(files) for _, _, files in os.walk(tmp_path / "hub" / "files")) == 1


def test_a_second_ingestion_is_told_that_one_is_under_way(tmp_path, notes):
    with running(tmp_path) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        client.create_project("A")
        client.create_project_directory(1, str(notes))
        held, answers = threading.Event(), []
        embed = hub.hub.memory.model.embed

        def slow(texts):
            held.wait(30)
            return embed(texts)

        hub.hub.memory.model.embed = slow
        first = threading.Thread(target=lambda: answers.append(client.ingest_project_files(1)))
        first.start()
        until(lambda: client.check_ingestion_status(1))
        assert client.ingest_project_files(1)["status"] == "error"
        held.set()
        first.join()
        assert answers == [{"num_files": 2, "num_fragments": 2}]
        assert client.check_ingestion_status(1) is False


def test_asking_a_server_that_was_named(tmp_path, notes):
    with scripted() as server, running(tmp_path, url=server.url) as hub:
        server.says("The roses are watered on Mondays [1].")
        client = LegacyClient(hub.port, hub.cookie())
        client.create_project("A")
        client.create_project_directory(1, str(notes))
        client.sync_project_files(1)
        client.ingest_project_files(1)
        said = client.rag_ask(1, "When are the roses watered?")
        assert said["status"] == "ok"
        assert said["response"] == "The roses are watered on Mondays [1]."
        assert client.check_waiting_for_chat_status(1) is False
        assert client.rag_ask(5, "When?")["status"] == "error"
        assert client.rag_ask(1, "  ")["status"] == "error"

        server.says("Roses on Mondays.")
        [garden, _] = client.list_project_files(1)
        path = garden.removeprefix("A/uploads/")
        made = client.summarize_file(1, path)
        assert made == {
            "status": "ok", "project_name": "A", "summary_file_path": f"A/summaries/{path}.summary.md",
            "summary": "Roses on Mondays.", "message": None,
        }  # fmt: skip
        assert client.list_project_files(1)[-1] == made["summary_file_path"]
        answer = hub.ask("GET", "/files/" + quote(made["summary_file_path"]))
        assert answer.body == b"Roses on Mondays."
        for number, file in ((1, "nothing.txt"), (1, "../../x"), (9, path)):
            said = client.summarize_file(number, file)
            assert said["status"] == "error"
            assert said["summary"] is said["summary_file_path"] is None


def test_waiting_for_an_answer_can_be_seen(tmp_path, notes):
    asked, go = threading.Event(), threading.Event()

    def slow(handler, body):
        asked.set()
        go.wait(30)
        handler.send(500, {"error": {"message": "no"}})

    with scripted() as server, running(tmp_path, url=server.url) as hub:
        server.on("/v1/chat/completions", slow)
        client = LegacyClient(hub.port, hub.cookie())
        client.create_project("A")
        client.create_project_directory(1, str(notes))
        client.ingest_project_files(1)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.rag_ask(1, "When are the roses watered?")))
        thread.start()
        assert asked.wait(30)
        assert client.check_waiting_for_chat_status(1) is True
        assert client.check_waiting_for_chat_status(2) is False
        go.set()
        thread.join()
        assert answers[0]["status"] == "error"
        assert client.check_waiting_for_chat_status(1) is False


def test_models_are_listed_with_six_texts_each(tmp_path):
    known = [
        ModelSpec("a", "a.llamafile", url="https://example.org/a", size=3_970_000_000, license="MIT", title="A model"),
        ModelSpec("b", "b.llamafile"),
    ]
    with running(tmp_path, models=known) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        assert client.list_llamafiles() == [
            {"model": "A model", "size": "3.97 GB", "license": "MIT", "license_url": "", "filename": "a.llamafile",
             "url": "https://example.org/a"},
            {"model": "b", "size": "", "license": "", "license_url": "", "filename": "b.llamafile", "url": ""},
        ]  # fmt: skip
        assert client.check_llamafile_status("a.llamafile") == "absent"
        assert client.check_llamafile_status("never-heard-of") == "error"
        assert client.running_llamafile_info() is None
        for call in (client.start_llamafile, client.download_llamafile_by_name):
            assert call("b.llamafile")["status"] == "error"  # it is not here, and nobody knows where it is
        for call in (
            client.start_llamafile, client.stop_llamafile, client.delete_llamafile, client.download_llamafile_by_name,
        ):  # fmt: skip
            assert call("../../etc/passwd")["status"] == "error"


@pytest.mark.skipif(os.name != "posix", reason="models run on POSIX systems")
def test_models_start_stop_and_go(tmp_path):
    known = [model(tmp_path, "one", loads=1.0), model(tmp_path, "two")]
    with running(tmp_path, models=known) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        assert client.check_llamafile_status("one.llamafile") == "idle"
        assert client.start_llamafile("one.llamafile")["status"] == "success"
        assert client.check_llamafile_status("one.llamafile") == "running"  # the state has changed by the answer
        assert client.running_llamafile_info()["filename"] == "one.llamafile"
        assert client.start_llamafile("two.llamafile")["status"] == "success"
        assert client.check_llamafile_status("one.llamafile") == "idle"
        assert client.running_llamafile_info()["filename"] == "two.llamafile"
        assert client.stop_llamafile("two.llamafile")["status"] == "success"
        assert client.check_llamafile_status("two.llamafile") == "idle"
        assert client.running_llamafile_info() is None
        assert client.delete_llamafile("two.llamafile")["status"] == "success"
        assert client.check_llamafile_status("two.llamafile") == "absent"
        assert not (tmp_path / "models" / "two.llamafile").exists()


@pytest.mark.skipif(os.name != "posix", reason="models run on POSIX systems")
def test_a_question_waits_until_the_model_is_ready(tmp_path, notes, tiny_chat_model):
    with running(tmp_path, models=[model(tmp_path, "tiny", real=str(tiny_chat_model))]) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        client.create_project("A")
        client.create_project_directory(1, str(notes))
        client.ingest_project_files(1)
        assert client.start_llamafile("tiny.llamafile")["status"] == "success"
        said = client.rag_ask(1, "When are the roses watered?")  # at once, while the model is being loaded
        assert said["status"] == "ok", said
        assert said["response"]  # noise: its weights are random
        assert client.check_llamafile_status("tiny.llamafile") == "running"


@pytest.mark.skipif(os.name != "posix", reason="models run on POSIX systems")
def test_a_model_that_is_stopped_while_its_file_is_read_does_not_start(tmp_path):
    with running(tmp_path, models=[model(tmp_path, "tiny")]) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        files = hub.hub.models.manager.files
        held, runnable = threading.Event(), files.runnable

        def slow(name):
            held.wait(30)
            return runnable(name)

        files.runnable = slow
        assert client.start_llamafile("tiny.llamafile")["status"] == "success"
        assert client.check_llamafile_status("tiny.llamafile") == "running"
        assert client.running_llamafile_info()["filename"] == "tiny.llamafile"
        assert client.stop_llamafile("tiny.llamafile")["status"] == "success"
        assert client.check_llamafile_status("tiny.llamafile") == "idle"
        threads = [each for each in threading.enumerate() if each.name == "start tiny"]
        held.set()
        for each in threads:
            each.join(30)
        assert client.check_llamafile_status("tiny.llamafile") == "idle"
        assert client.running_llamafile_info() is None


def test_a_file_that_was_put_there_by_hand_can_be_deleted(tmp_path):
    with running(tmp_path) as hub:
        model(tmp_path, "mine")
        client = LegacyClient(hub.port, hub.cookie())
        assert [one["filename"] for one in client.list_llamafiles()] == ["mine.llamafile"]
        assert client.delete_llamafile("mine.llamafile")["status"] == "success"
        assert client.list_llamafiles() == []


@pytest.mark.skipif(os.name != "posix", reason="models run on POSIX systems")
def test_a_model_that_fails_is_an_error_until_it_is_started_again(tmp_path):
    with running(tmp_path, models=[model(tmp_path, "bad", says=["no memory"], exits=1)]) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        client.start_llamafile("bad.llamafile")
        until(lambda: client.check_llamafile_status("bad.llamafile") == "error")
        assert client.running_llamafile_info() is None
        assert client.rag_ask(client.create_project("A")["id"], "Anything?")["status"] == "error"
        client.stop_llamafile("bad.llamafile")  # a retry is stop, then start
        assert client.check_llamafile_status("bad.llamafile") == "idle"


def test_a_download_is_seen_from_its_first_moment(tmp_path):
    payload = model_bytes(300_000)
    with FileServer(payload, script=[("slow", 60_000, 0.2)]) as server:
        known = [described("big", url=server.url, size=len(payload))]
        with running(tmp_path, models=known) as hub:
            client = LegacyClient(hub.port, hub.cookie())
            assert client.download_llamafile_by_name("big.llamafile")["status"] == "success"
            assert client.check_llamafile_status("big.llamafile") == "downloading"
            assert client.download_llamafile_by_name("big.llamafile")["status"] == "success"
            until(lambda: client.check_llamafile_status("big.llamafile") != "downloading")
            assert client.check_llamafile_status("big.llamafile") == "idle"
            assert (tmp_path / "models" / "big.llamafile").read_bytes() == payload


def test_a_download_that_fails_is_absent_with_a_message(tmp_path):
    no = ("status", 404, {})
    with (
        FileServer(model_bytes(1000), script=[no], head=no) as server,
        running(tmp_path, models=[described("gone", url=server.url)]) as hub,
    ):
        client = LegacyClient(hub.port, hub.cookie())
        client.download_llamafile_by_name("gone.llamafile")
        until(lambda: client.check_llamafile_status("gone.llamafile") != "downloading")
        said = hub.ask("POST", "/api/v1/check_llamafile_status", query={"llamafile_filename": "gone.llamafile"})
        assert said.json()["status"] == "absent"
        assert "404" in said.json()["message"]


def test_files_are_sent_to_be_kept_and_never_run(tmp_path, notes):
    write(notes / "page.html", "<script>alert(1)</script>")
    with running(tmp_path) as hub:
        client = LegacyClient(hub.port, hub.cookie())
        client.create_project("A")
        client.create_project_directory(1, str(notes))
        client.sync_project_files(1)
        for path in client.list_project_files(1):
            answer = hub.ask("GET", "/files/" + quote(path))
            assert answer.status == 200
            assert answer.body == Path(client.shown(path)).read_bytes()
            assert answer.headers["content-disposition"].startswith("attachment;")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]
        known = client.list_project_files(1)[0]
        assert send(hub.port, "GET", "/files/" + quote(known)).status == 401
        for path in (
            "../../../../etc/passwd", "A/uploads/../../../access.json", "%2e%2e/%2e%2e/access.json", "/etc/passwd", "",
            "A/uploads/__etc__passwd", "A/listing.json", "1/listing.json", quote(known) + "%00", "A%2fuploads",
        ):  # fmt: skip
            assert hub.ask("GET", "/files/" + path).status == 404, path
        target = notes / "garden.md"
        target.unlink()
        target.symlink_to("/etc/passwd")
        assert [hub.ask("GET", "/files/" + quote(p)).status for p in client.list_project_files(1)].count(404) == 1


def test_the_document_names_what_clients_are_generated_from(tmp_path):
    renamed = {
        "sync_project_files", "summarize_file", "start_llamafile", "stop_llamafile", "delete_llamafile",
        "running_llamafile_info", "delete_project_directory",
    }  # fmt: skip
    tags = {
        "projects": {"list_projects", "create_project", "update_project", "delete_project", "create_project_directory",
                     "list_project_directories", "delete_project_directory"},
        "files": {"upload_file", "list_project_files", "sync_project_files"},
        "ingest": {"ingest_project_files", "check_ingestion_status"},
        "rag": {"rag_ask", "vector_db_query", "check_waiting_for_chat_status"},
        "summaries": {"summarize_file"},
        "llamafile": {"list_llamafiles", "check_llamafile_status", "download_llamafile_by_name", "start_llamafile",
                      "stop_llamafile", "delete_llamafile", "running_llamafile_info"},
    }  # fmt: skip
    with running(tmp_path) as hub:
        document = send(hub.port, "GET", "/openapi.json").json()  # with no more than plain curl sends
        found = {tag: set() for tag in tags}
        for path, methods in document["paths"].items():
            for method, about in methods.items():
                for tag in {*about.get("tags", ())} & set(tags):
                    name = path.removeprefix("/api/v1/").partition("/")[0]
                    found[tag].add(name)
                    begin = f"api_{name}" if name in renamed else name
                    whole = "".join(letter if letter.isalnum() else "_" for letter in path)
                    assert about["operationId"] == f"{begin}{whole}_{method}"
        assert found == tags
        wanted = {"Project", "ListProjectsResponse", "RagAskRequest", "SummarizeFileRequest", "HTTPValidationError"}
        assert wanted <= set(document["components"]["schemas"])
        page = send(hub.port, "GET", "/docs", {"Accept": "text/html"})
        assert page.status == 200
        assert b"/api/v1/list_projects" in page.body
        assert b"<script" not in page.body
