"""The hub's page in Chromium: from the first start to a citation that is opened, models, pairing, and what goes wrong."""

import json
import os
import re

import pytest
from file_server import FileServer
from hub_page import code_of, looked_at, needs_chromium
from hub_server import described, model, until
from ingesting import write
from scripted import chunk, scripted, talking
from stand_in import make_model

pytestmark = needs_chromium

# What would show that a text became more than a text.
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script><b id=taken>\"'&lt;"
JAVASCRIPT = "javascript:document.title='taken'"


def done(hub, job):
    return until(lambda: (now := hub.ask("GET", f"/api/v1/jobs/{job['id']}").json())["finished_at"] and now)


def taken_in(hub, folder, name="House"):
    """Make a project of a folder, and wait until its documents are in the memory."""
    project = hub.ask("POST", "/api/v1/projects", {"name": name}).json()["id"]
    hub.ask("POST", f"/api/v1/projects/{project}/directories", {"path": str(folder)})
    assert done(hub, hub.ask("POST", f"/api/v1/projects/{project}/sync").json())["state"] == "done"
    return project


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    # Characters beyond the first plane count as one in Python and as two in a browser.
    write(
        folder / "garden.md",
        "\U0001f339" * 20 + "\n\nThe roses are watered on Mondays.\n\nThe lawn is cut on Fridays.\n",
    )
    write(folder / "kitchen.txt", "The kettle is descaled with vinegar.\n")
    return folder


def nothing_wrong(page):
    assert [one for one in page.said if "404" not in one] == []
    assert page.texts(".notice.bad") == []


def test_from_the_first_start_to_a_citation_that_is_opened(chromium, tmp_path, notes):
    with scripted() as server, looked_at(chromium, tmp_path, url=server.url) as (hub, page):
        server.says("They are watered on **Mondays** [1].")
        assert page.whole() == "/"  # the code is not kept in the address
        page.press("Make a project")
        page.fill("input[name=name]", "House")
        page.enter()
        page.sees("Folders", "h2")
        assert page.whole() == "/projects/1"
        page.fill("input[name=path]", str(notes))
        page.press("Add", "button")
        page.sees("garden.md", "table")
        page.sees("2 added")
        page.press("Ask")
        page.until("document.querySelector('select[name=project]')?.value === '1'")
        page.fill("textarea", "When are the roses watered?")
        page.enter()
        page.sees("The roses are watered on Mondays.", ".sources")
        assert page.whole() == "/chat/1"
        assert page.texts(".theirs strong")[0] == "Mondays"
        page.press("1", ".said a.cite")
        page.sees("The lawn is cut on Fridays.", "dialog")
        assert page.texts("dialog mark") == ["The roses are watered on Mondays."]
        inside = "(() => { const m = document.querySelector('dialog mark').getBoundingClientRect(); return m.top > 0 && m.bottom < innerHeight; })()"
        assert page.run(inside)
        page.press("Open as a page")
        page.sees("The roses are watered on Mondays.", "main mark")
        assert page.whole().startswith("/document?id=")
        page.go("/chat/1")  # and again from what was recorded
        page.press("1", ".said a.cite")
        page.sees("The lawn is cut on Fridays.", "dialog")
        assert page.texts("dialog mark") == ["The roses are watered on Mondays."]
        page.key("Escape", 27)
        page.until("!document.querySelector('dialog')")
        assert page.run("document.activeElement.className") == "cite"
        nothing_wrong(page)
        outside = [one for one in page.requests if not one.startswith((f"http://localhost:{hub.port}/", "data:"))]
        assert outside == []


def test_uploads_are_taken_in_one_after_the_other(chromium, tmp_path):
    first, second = write(tmp_path / "a.txt", "The first file."), write(tmp_path / "b & c.txt", "The second file.")
    with looked_at(chromium, tmp_path) as (hub, page):
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        page.go("/projects/1")
        page.choose_files("#files", first, second)
        page.sees("b & c.txt", "table")
        page.sees("a.txt", "table")
        page.press("a.txt", "td button")
        page.press("Remove", "dialog button")
        page.until("!document.querySelector('table').innerText.includes('a.txt')")
        page.fill("input[name=filter]", "nothing like that")
        page.until("document.querySelectorAll('tbody tr').length === 0")
        page.press("Name and removal")
        page.press("Remove this project")
        page.press("Remove", "dialog button.danger")
        page.sees("There is no project yet")
        assert hub.ask("GET", "/api/v1/projects").json() == {"projects": []}
        nothing_wrong(page)


def test_what_is_under_way_survives_a_reload(chromium, tmp_path, notes):
    """A long answer and a running ingestion are there again, and go on, when the page is opened anew."""
    pieces = ["They are ", "watered ", "on Mondays [1]."]

    def slowly(handler, body):
        if not body.get("stream"):  # the question by itself, once there is a conversation
            talking("When are the roses watered?")(handler, body)
            return
        handler.begin()
        for piece in pieces:
            handler.wfile.write(b"data: " + json.dumps(chunk(piece)).encode() + b"\n\n")
            handler.wfile.flush()
            until(lambda piece=piece: piece != "watered " or (go and go.pop()))  # one answer for each that is put there
        handler.wfile.write(b"data: " + json.dumps(chunk(finish="stop")).encode() + b"\n\ndata: [DONE]\n\n")

    go = []
    with scripted() as server, looked_at(chromium, tmp_path, url=server.url) as (hub, page):
        taken_in(hub, notes)
        server.on("/v1/chat/completions", slowly)
        page.go("/chat?project=1")
        page.fill("textarea", "When are the roses watered?")
        page.enter()
        page.sees("They are watered", ".theirs")
        page.fill("textarea", "A draft")
        page.open(f"http://localhost:{hub.port}{page.whole()}")
        page.sees("They are watered", ".theirs")
        assert page.run("document.querySelector('textarea').value") == "A draft"
        assert page.texts(".mine .typed") == ["When are the roses watered?"]
        twice = hub.ask("POST", "/api/v1/threads/1/messages", {"content": "And now?", "stream": True, "keep": True})
        assert (twice.status, twice.json()["code"]) == (409, "already_under_way")
        # Enter while an answer comes asks when it is there,
        page.fill("textarea", "When are the roses watered?")
        page.enter()
        assert len(page.texts(".mine")) == 1
        go.append(True)
        page.sees("They are watered on Mondays 1.", ".theirs")
        page.sees("The roses are watered on Mondays.", ".sources")
        page.until("document.querySelectorAll('.theirs')[1]?.innerText.startsWith('They are watered')")
        assert page.texts(".mine .typed") == ["When are the roses watered?"] * 2
        assert page.run("document.querySelector('textarea').value") == ""
        # and not if what was typed changes meanwhile.
        page.fill("textarea", "And the lawn?")
        page.enter()
        page.fill("textarea", "And the")
        page.press("Stop", "button")
        page.sees("It was stopped.")  # though the model says no other word
        go.append(True)
        until(lambda: hub.ask("GET", "/api/v1/threads/1").json()["answering"] is None)
        page.settled()
        assert (len(page.texts(".mine")), page.run("document.querySelector('textarea').value")) == (2, "And the")
        kept = hub.ask("GET", "/api/v1/threads/1").json()["messages"]
        assert kept[2]["text"] == "When are the roses watered?"
        assert kept[3]["text"].rstrip() == "They are watered"
        nothing_wrong(page)


@pytest.mark.skipif(os.name != "posix", reason="models run on POSIX systems")
def test_a_model_is_downloaded_started_asked_and_stopped(chromium, tmp_path):
    payload = make_model(tmp_path / "made", "llama-server", says=["hello from tiny"]).read_bytes() + b"#" * 200_000
    with FileServer(payload) as server:
        server.script = [("slow", 2048, 0.1)]  # ten seconds, if nobody lets it rest
        about = described("tiny", url=server.url, size=len(payload), sha256=server.sha256)
        with looked_at(chromium, tmp_path, models=[about]) as (hub, page):
            page.go("/models")
            page.press("Download", "button")
            page.until("document.querySelector('progress')?.value > 0")
            page.go("/")
            page.sees("Downloading tiny")
            page.press("Stop: Downloading tiny", "button")
            page.until("!document.body.innerText.includes('Downloading tiny')")
            page.go("/models")
            page.sees("paused", ".pill")
            page.press("Go on", "button")
            page.press("Start", "button")
            page.sees("It is ready.")
            page.press("Logs")
            page.sees("hello from tiny", "pre")
            hub.ask("POST", "/api/v1/capture", {"text": "The tiny model lives in the shed."})
            page.go("/chat")
            page.fill("textarea", "Is the tiny model in the shed?")
            page.enter()
            page.until("document.querySelector('.theirs .when') !== null")
            assert "llama-server heard" in page.texts(".theirs")[0], page.texts(".theirs")
            page.go("/models")
            page.press("Stop", "button")
            page.sees("here", ".pill")
            assert hub.ask("GET", "/api/v1/models").json()["running"] is None
            page.press("Remove", "button")
            page.press("Remove", "dialog button.danger")
            page.sees("not here", ".pill")
            nothing_wrong(page)


def test_pairing_gives_a_token_that_can_be_revoked(chromium, tmp_path):
    with looked_at(chromium, tmp_path, trusted=["http://localhost:1234"], legacy_open=True) as (hub, page):
        page.go("/settings")
        page.press("Make a code")
        page.until("document.querySelector('output') !== null")
        code = page.run("document.querySelector('output').innerText")
        assert re.fullmatch(r"\w{5}-\w{5}", code)
        token = hub.ask("POST", "/api/v1/pair", {"code": code, "name": "a notebook"}).json()["token"]
        assert hub.ask("GET", "/api/v1/info", token=token).json()["scopes"] == ["read", "write"]
        page.sees("a notebook")
        page.press("Revoke a notebook", "button")
        page.press("Revoke", "dialog button.danger")
        page.until("!document.querySelector('main').innerText.includes('a notebook')")
        assert hub.ask("GET", "/api/v1/info", token=token).status == 401
        page.sees("this browser", ".pill")
        page.sees("http://localhost:1234", "dd")
        page.sees("any program of this machine", "dd")
        page.press("Dark")
        assert page.run("getComputedStyle(document.body).colorScheme") == "dark"
        page.go("/settings")
        assert page.run("getComputedStyle(document.body).colorScheme") == "dark"
        nothing_wrong(page)
        page.press("Revoke the page in this browser", "button")
        page.press("Revoke", "dialog button.danger")
        page.sees("Let this browser in", "h1")
        page.fill("input[name=address]", f"http://localhost:{hub.port}/?code={code_of(hub)}")
        page.enter()
        page.sees("First steps")


def test_a_browser_that_nobody_let_in_is_told_how(chromium, tmp_path):
    with looked_at(chromium, tmp_path, enter=False) as (hub, other):
        other.go("/projects")
        other.sees("raeburnmemory hub --new-code")
        other.fill("input[name=address]", "nothing like a code")
        other.enter()
        other.sees("There is no code in that.", ".notice")
        other.go("/?code=" + "x" * 32)
        other.sees("not good, or not any more")
        code = code_of(hub)
        other.fill("input[name=address]", f"http://localhost:{hub.port}/?code={code}")
        other.enter()
        other.sees("First steps")
        assert other.whole() == "/"


def test_the_graph_is_walked_by_its_list_by_keys_and_with_a_mouse(chromium, tmp_path, notes):
    with looked_at(chromium, tmp_path) as (hub, page):
        taken_in(hub, notes)
        page.go("/graph")
        page.sees("has the part", ".panel h3")
        document = page.texts(".panel h2")[0]
        held = len(page.texts(".panel .walk li"))
        assert held == page.run("document.querySelectorAll('.stage .node').length") - 1 > 0
        part = page.texts(".panel .walk li")[0]
        page.press(part, ".panel button")
        page.sees("is part of", ".panel h3")
        assert page.texts(".panel h2")[0].startswith(part[:20])
        assert page.run("document.activeElement.className").endswith("panel")
        here = page.whole()
        page.go(here)  # a reload shows it again
        page.sees("is part of", ".panel h3")
        page.run("document.querySelector('.node.chosen').focus()")
        name = "document.activeElement.getAttribute('aria-label')"
        first = page.run(name)
        assert first.startswith("fragment: ")
        for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):  # wherever the other one was put
            page.key(key)
            if page.run(name) != first:
                break
        assert page.run(name) == f"document: {document}"
        page.enter()
        page.sees("has the part", ".panel h3")
        assert page.run("document.querySelector('.node.chosen').getAttribute('aria-label')") == f"document: {document}"
        page.until("new Promise((done) => setTimeout(() => done(true), 700))")  # until nothing moves
        page.press(first, ".node")
        page.sees("is part of", ".panel h3")
        before = page.run("document.querySelector('.stage > g').getAttribute('transform')")
        page.key("+", 187, "+")
        assert page.run("document.querySelector('.stage > g').getAttribute('transform')") != before
        page.fill("input[name=q]", "kettle")
        page.enter()
        page.press("kettle", ".walk.card button")
        page.sees("The kettle is descaled", ".panel h2")
        nothing_wrong(page)


def test_stored_text_never_runs(chromium, tmp_path):
    """Markup in names, documents, addresses, answers and logs is shown as it is, everywhere."""
    folder = tmp_path / "notes"
    write(
        folder / "hostile <b id=taken>.md", f"# {HOSTILE}\n\nThe roses {HOSTILE} are watered.\n\n[here]({JAVASCRIPT})\n"
    )
    write(folder / "broken.pdf", b"%PDF-1.4 " + HOSTILE.encode())
    found = model(tmp_path, "tiny", says=[HOSTILE])
    bad = described("other", title=HOSTILE, license=HOSTILE, license_url=JAVASCRIPT)
    with scripted() as server, looked_at(chromium, tmp_path, url=server.url, models=[found, bad]) as (hub, page):
        server.says(
            f"The roses are watered [1]. {HOSTILE} `{HOSTILE}` **{HOSTILE}** [x]({JAVASCRIPT})\n- {HOSTILE}\n# {HOSTILE}\n```\n{HOSTILE}\n```"
        )
        taken_in(hub, folder, HOSTILE)
        hub.ask(
            "POST", "/api/v1/capture", {"url": JAVASCRIPT, "title": HOSTILE, "text": f"Lilies {HOSTILE}", "project": 1}
        )
        hub.ask("POST", "/api/v1/threads", {"title": HOSTILE, "project": 1})
        hub.ask("POST", "/api/v1/threads/1/messages", {"content": f"The roses? {HOSTILE}"})
        hub.ask("POST", "/v1/messages", {"role": "user", "text": HOSTILE, "session_id": HOSTILE})
        hub.access.credentials.redeem(hub.access.credentials.new_code(), HOSTILE)
        hub.ask("POST", "/api/v1/models/tiny/start", {})
        until(lambda: hub.ask("GET", "/api/v1/models/tiny").json()["status"]["process_state"] == "ready")
        sources = hub.ask("GET", "/api/v1/projects/1/sources").json()["sources"]
        one = next(one for one in sources if one["name"].endswith(".md"))
        lilies = next(
            one
            for one in sources
            if "Lilies" in hub.ask("GET", f"/api/v1/sources/{one['id']}/content").json().get("text", "")
        )
        for path, there in [
            ("/", HOSTILE), ("/projects", HOSTILE), ("/projects/1", "hostile <b id=taken>.md"), ("/models", HOSTILE),
            ("/search?q=roses+lilies", HOSTILE), ("/chat/1", HOSTILE), ("/settings", HOSTILE),
            (f"/graph?id={one['id']}", HOSTILE), (f"/document?id={one['id']}", HOSTILE), (f"/document?id={lilies['id']}", HOSTILE),
        ]:  # fmt: skip
            page.go(path)
            page.sees(there)
            if path == "/models":
                page.press("Logs")
                page.sees(HOSTILE, "pre")
            assert page.run("document.querySelector('#taken, main img, main script, a[href^=javascript]')") is None, (
                path
            )
            assert "taken" not in page.run("document.title").replace(HOSTILE, ""), path
        assert page.said == []
        # And were there a mistake, the browser itself would refuse.
        page.run(
            "(() => { try { document.body.innerHTML = '<b id=taken>'; } catch (error) { window.refused = error.name; } })()"
        )
        assert page.run("window.refused") == "TypeError"
        assert page.run("document.querySelector('#taken')") is None


def test_what_goes_wrong_is_said(chromium, tmp_path, notes):
    with looked_at(chromium, tmp_path) as (hub, page):
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        page.go("/projects/1")
        page.fill("input[name=path]", "relative")
        page.enter()
        page.sees("absolute", ".notice.bad")
        page.press("Put this notice away", ".notice button")
        page.until("!document.querySelector('.notice.bad')")
        hub.ask("POST", "/api/v1/projects", {"name": "A"})  # uploads go by the number, which is no other's
        broken, fine = write(tmp_path / "broken.pdf", b"%PDF-1.4 nothing"), write(tmp_path / "b.txt", "Fine.")
        page.choose_files("#files", broken, fine)
        page.sees("broken.pdf: The PDF is damaged", ".notice.bad")
        page.sees("failed", "table .pill")
        assert page.texts("tbody th") == ["uploads/broken.pdf", "uploads/b.txt\nb.txt"]
        page.go("/chat")
        page.sees("No model runs that could answer.")
        page.fill("textarea", "Who?")
        page.enter()
        page.sees("No model runs", ".notice.bad")
        assert page.run("document.querySelector('textarea').value") == "Who?"  # nothing typed is lost
        page.go("/projects/99")
        page.sees("There is no project 99", ".notice.bad")
        page.go("/nowhere")
        page.sees("There is no such page", "h1")
        assert hub.ask("GET", "/api/v1/threads").json()["threads"][0]["title"] == "Who?"


def test_when_the_hub_is_away_the_page_says_so_and_comes_back(chromium, tmp_path):
    with looked_at(chromium, tmp_path) as (hub, page):
        page.go("/projects")
        page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        page.fill("input[name=name]", "House")
        page.enter()
        page.sees("The hub does not answer. Look whether it still runs.", ".notice")
        hub.hub.events.close()  # a stream that is open does not notice
        page.sees("Trying again", "#away")
        hub.hub.events._closed = False
        page.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        page.until("document.querySelector('#away').innerText === ''")
        page.settled()
        assert hub.ask("GET", "/api/v1/projects").json() == {"projects": []}


def test_the_page_is_used_with_keys_alone(chromium, tmp_path, notes):
    with looked_at(chromium, tmp_path) as (hub, page):
        taken_in(hub, notes)
        page.go("/projects")
        page.tab()
        assert page.run("document.activeElement.className") == "skip"
        page.enter()
        page.until("document.activeElement.id === 'main'")
        page.tab()
        assert page.run("document.activeElement.name") == "name"
        page.tab(back=True)
        assert page.run("document.activeElement.innerText") == "Settings"
        for _ in range(4):
            page.tab(back=True)
        page.enter()
        page.until("document.activeElement.name === 'q'")  # where one begins on the page for searching
        page.type("the roses")
        page.enter()
        page.sees("watered", ".hit")
        assert page.texts(".hit:first-child mark")[0] == "roses"
        assert page.whole() == "/search?q=the+roses"
        page.run("document.querySelector('.hit summary').focus()")
        page.enter()
        page.sees("Similarity", ".hit")
        unreachable = """[...document.querySelectorAll("main a, main button, main input, main summary, main select")]
          .filter((one) => one.checkVisibility() && (one.tabIndex < 0 || !(one.innerText || one.ariaLabel || one.labels?.length))).length"""
        assert page.run(unreachable) == 0
        page.run("history.back()")
        page.sees("House", ".link")
        nothing_wrong(page)
