"""The browser extension: what is in its archives, and what it does in a real Chromium and a real Firefox with a real hub."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import zipfile

import hub_server
import pytest
from browser import CHROMIUM
from extensions import ARTICLE, OTHER, READY, InChromium, InFirefox, builder, running_again, site
from firefox import FIREFOX

LINTER = os.environ.get("RAEBURN_TEST_WEB_EXT") or shutil.which("web-ext")

# --- the archives ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    made = builder().build(tmp_path_factory.mktemp("extension"))
    return {re.search(r"-(\w+)\.zip", path.name)[1]: path for path in made}


def files(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_same_source_gives_the_same_bytes(archives, tmp_path):
    time.sleep(2.1)  # archives know time in steps of two seconds
    again = builder().build(tmp_path)
    assert sorted(path.read_bytes() for path in again) == sorted(path.read_bytes() for path in archives.values())


def test_both_browsers_get_the_same_code_and_a_manifest_of_their_own(archives):
    firefox, chromium = files(archives["firefox"]), files(archives["chromium"])
    manifests = [json.loads(each.pop("manifest.json")) for each in (firefox, chromium)]
    assert firefox == chromium
    assert manifests[0].pop("background") == {"scripts": ["background.js"], "type": "module"}
    assert manifests[1].pop("background") == {"service_worker": "background.js", "type": "module"}
    assert manifests[0].pop("browser_specific_settings")["gecko"]["id"] == "extension@raeburnmemory"
    assert {"key", "minimum_chrome_version"} == manifests[1].keys() - manifests[0].keys()


@pytest.mark.parametrize("browser", ["firefox", "chromium"])
def test_it_may_do_no_more_than_it_needs(archives, browser):
    manifest = json.loads(files(archives[browser])["manifest.json"])
    assert manifest["manifest_version"] == 3
    assert manifest["host_permissions"] == ["http://localhost/*", "http://127.0.0.1/*"]
    allowed = {"activeTab", "alarms", "contextMenus", "scripting", "storage", "unlimitedStorage"}
    assert set(manifest["permissions"]) == allowed
    assert not manifest.keys() & {
        "content_scripts", "externally_connectable", "optional_host_permissions", "update_url", "web_accessible_resources",
    }  # fmt: skip
    policy = dict(part.split(" ", 1) for part in manifest["content_security_policy"]["extension_pages"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "http://localhost:* http://127.0.0.1:*"


def test_no_code_comes_from_elsewhere_and_text_is_never_read_as_markup(archives):
    for name, data in files(archives["chromium"]).items():
        if name.endswith((".js", ".html", ".css")):
            text = data.decode()
            assert re.findall(r"https?://(?!localhost|127\.0\.0\.1)[\w.]+", text) == [], name
            risky = r"\beval\b|new Function|innerHTML|insertAdjacentHTML|document\.write|import\(|importScripts| on\w+="
            assert re.search(risky, text.replace("outerHTML", "")) is None, name
    for page in ("popup.html", "options.html"):
        text = files(archives["chromium"])[page].decode()
        assert re.findall(r"<script(?![^>]* src=)", text) == []


def test_every_file_that_is_named_is_there_and_every_one_there_is_named(archives):
    found = files(archives["chromium"])
    named = {"manifest.json"}
    for name, data in found.items():
        if name.endswith((".js", ".html", ".json")):
            named |= set(re.findall(r"""["'](?:\./)?([\w/]+\.(?:js|html|css|png))["']""", data.decode()))
    assert named == found.keys()


def test_the_id_in_chromium_is_that_of_the_key(archives):
    import base64

    key = base64.b64decode(json.loads(files(archives["chromium"])["manifest.json"])["key"], validate=True)
    digits = hashlib.sha256(key).hexdigest()[:32]
    assert digits.translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop")) == "bjamcdklmghepjmpkccjmkkjjmibhlkp"


@pytest.mark.long
@pytest.mark.skipif(LINTER is None, reason="web-ext is not installed")
def test_the_linter_of_mozilla_has_nothing_to_say(archives, tmp_path):
    shutil.unpack_archive(archives["firefox"], tmp_path)
    command = [LINTER, "lint", "--source-dir", str(tmp_path), "--warnings-as-errors", "--no-config-discovery"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout


# --- in the browsers -------------------------------------------------------------------------------------------------

BROWSERS = [
    pytest.param(InChromium, id="chromium", marks=pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")),
    pytest.param(InFirefox, id="firefox", marks=pytest.mark.skipif(FIREFOX is None, reason="there is no Firefox")),
]


@pytest.fixture(scope="module", params=BROWSERS)
def extension(request, tmp_path_factory):
    made = request.param(tmp_path_factory.mktemp("extension"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser(extension):
    return extension.browser


@pytest.fixture(scope="module")
def pages():
    with site({"/bees": ARTICLE, "/pears": OTHER}) as address:
        yield address


def code_of(hub):
    return hub.access.credentials.new_code(("read", "write"))


def texts(hub, query, **more):
    found = hub.ask("POST", "/api/v1/search", {"query": query, "k": 3, **more})
    assert found.status == 200, found.body
    return " ".join(hit["text"] for hit in found.json()["hits"])


def test_from_pairing_to_what_a_search_finds(extension, browser, pages, tmp_path):
    with hub_server.running(tmp_path) as hub:
        address = f"http://localhost:{hub.port}"
        # Only this machine is ever asked, a wrong code is said to be one, and the right one is good for this extension.
        assert "this machine" in extension.pair("http://hub.example", "AAAAA-AAAAA")
        assert "not good" in extension.pair(address, "AAAAA-AAAAA")
        assert extension.pair(address, code_of(hub)) == "Paired."
        token = hub.access.credentials.list()[-1]
        assert (token.origin, token.scopes) == (extension.origin, ("read", "write"))

        browser.visit(f"{pages}/bees")
        assert extension.click("page") == "Saved."
        (kept,) = hub.hub.ingestor(None).list()
        assert (kept.uri, kept.title) == (f"{pages}/bees", "Keeping bees")
        assert "fifteen kilograms" in texts(hub, "How much do honeybees eat in winter?")
        everything = hub.ask("GET", f"/api/v1/sources/{kept.id}/content").body.decode()
        assert [word for word in ("scriptword", "tokenword", "fieldword") if word in everything] == []

        # A selection goes into the project that was chosen; without one there is nothing to click.
        assert extension.popup("document.getElementById('selection').disabled") is True
        project = hub.hub.projects.create("Garden")
        browser.run("getSelection().selectAllChildren(document.getElementById('first'))")
        choose = f"""(() => {{ const choice = document.getElementById("project"); choice.value = "{project.id}";
            choice.dispatchEvent(new Event("change")); }})()"""
        assert extension.click("selection", choose) == "Saved."
        assert "honeybees winters" in texts(hub, "honeybees winters", project=project.id)
        assert "Inspect the hive" not in texts(hub, "honeybees winters", project=project.id)

        # What is written is kept while the popup is closed, and goes when it is saved.
        write = """(() => { const note = document.getElementById("note"); note.value = "Order queen excluders for spring";
            note.dispatchEvent(new Event("input")); })()"""
        extension.popup(write)
        draft = "document.getElementById('note').value"
        assert extension.popup(draft) == "Order queen excluders for spring"
        assert extension.click("keep") == "Saved."
        assert extension.popup(draft) == ""
        assert "queen excluders" in texts(hub, "queen excluders", project=project.id)
        assert extension.waiting() == []


def test_what_is_saved_while_the_hub_is_away_arrives_once(extension, browser, pages, tmp_path):
    with hub_server.running(tmp_path) as hub:
        port = hub.port
        assert extension.pair(f"http://localhost:{port}", code_of(hub)) == "Paired."
    browser.visit(f"{pages}/pears")
    assert "waits here" in extension.click("page")
    write = """(() => { const note = document.getElementById("note"); note.value = "Ask Ida for rootstocks";
        note.dispatchEvent(new Event("input")); })()"""
    assert "waits here" in extension.click("keep", write)
    assert [one["kind"] for one in extension.waiting()] == ["page", "note"]
    assert extension.look("chrome.action.getBadgeText({})") == "2"
    before = extension.look("chrome.storage.local.get(null)")
    assert extension.look("chrome.alarms.get('retry').then((alarm) => alarm.periodInMinutes)") == 1

    with running_again(tmp_path, port) as hub:
        extension.look("chrome.alarms.create('retry', {delayInMinutes: 0.001})")  # what comes each minute, sooner
        hub_server.until(lambda: extension.waiting() == [], 120)
        hub_server.until(lambda: extension.look("chrome.action.getBadgeText({})") == "")
        assert extension.look("chrome.alarms.get('retry').then((alarm) => alarm ?? null)") is None
        assert "scion wood" in texts(hub, "When is scion wood taken?")
        assert sorted(each.title for each in hub.hub.ingestor(None).list()) == ["Grafting pears", "Grafting pears"]

        # The answer may be lost on its way: the same is sent again, and is kept once all the same.
        extension.look(f"chrome.storage.local.set({json.dumps(before)})")
        extension.popup()
        hub_server.until(lambda: extension.waiting() == [])
        assert len(hub.hub.ingestor(None).list()) == 2


def test_what_the_hub_refuses_is_kept_and_said(extension, browser, pages, tmp_path):
    with hub_server.running(tmp_path) as hub:
        assert extension.pair(f"http://localhost:{hub.port}", code_of(hub)) == "Paired."
        extension.look("chrome.storage.local.set({project: 99})")
        browser.visit(f"{pages}/bees")
        (token,) = hub.access.credentials.list()[-1:]
        said = extension.look(
            """chrome.storage.local.set({queue: [{id: "one", kind: "note", title: "A note", url: null, tries: 0, said: "",
            created: new Date().toISOString(), refused: false}], "body:one": JSON.stringify({markdown: "x", project: 99})})"""
        )
        assert said is None
        extension.popup()  # which sends what waits
        (kept,) = extension.waiting()
        assert kept["refused"] is True
        assert "99" in kept["said"] or "project" in kept["said"]
        assert extension.look("chrome.action.getBadgeText({})") == "!"

        # Taken back: nothing is lost, and the settings say what to do.
        hub.access.credentials.revoke(token.id)
        assert "waits here" in extension.click("page")
        browser.visit(f"{extension.origin}/options.html")
        browser.until(READY, 90)
        assert "Pair it again" in browser.run("document.getElementById('paired').textContent")
        assert browser.run("document.querySelectorAll('#list li').length") == 2
        assert extension.pair(f"http://localhost:{hub.port}", code_of(hub)) == "Paired."
        hub_server.until(lambda: len(extension.waiting()) == 1)
        browser.run("document.querySelector('#list button[aria-label^=Discard]').click()")
        hub_server.until(lambda: extension.waiting() == [])


def test_the_menu_saves_the_page_and_what_is_selected(extension, browser, pages, tmp_path):
    on_the_button = """chrome.tabs.query({active: true}).then(([{id}]) => Promise.all([
        chrome.action.getBadgeText({tabId: id}), chrome.action.getTitle({tabId: id})]))"""
    with hub_server.running(tmp_path) as hub:
        assert extension.pair(f"http://localhost:{hub.port}", code_of(hub)) == "Paired."
        extension.look("chrome.storage.local.set({project: null})")
        browser.visit(f"{pages}/bees")
        assert extension.look(on_the_button)[0] == ""
        extension.choose("page", "h1")
        hub_server.until(lambda: extension.look(on_the_button) == ["✓", "RaeburnMemory: Saved."])
        (kept,) = hub.hub.ingestor(None).list()
        assert (kept.uri, kept.title) == (f"{pages}/bees", "Keeping bees")

        browser.visit(f"{pages}/pears")
        browser.run("getSelection().selectAllChildren(document.querySelector('p'))")
        extension.choose("selection", "p")
        hub_server.until(lambda: extension.look(on_the_button) == ["✓", "RaeburnMemory: Saved."])
        (kept,) = (each for each in hub.hub.ingestor(None).list() if each.id != kept.id)
        assert kept.title == "Grafting pears"
        text = hub.ask("GET", f"/api/v1/sources/{kept.id}/content").json()["text"]
        assert text.startswith("Take scion wood in January")


@pytest.mark.parametrize("extension", BROWSERS[:1], indirect=True)
@pytest.mark.parametrize("page", ["popup.html", "options.html"])
def test_every_control_has_a_name_and_text_stands_out_in_light_and_dark(extension, browser, page):
    browser.visit(f"{extension.origin}/{page}")
    browser.until(READY, 90)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "checkbox", "combobox", "link"}
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(controls) >= 3
    assert [node for node in controls if not node.get("name", {}).get("value")] == []
    for wish in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": wish}])
        pairs = browser.run(
            """[...document.querySelectorAll("h1, h2, p, label, button:not(:disabled), input, textarea, code")]
            .filter((one) => one.checkVisibility()).map((one) => {
                let back = one;
                while (back && getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
                return [one.tagName, getComputedStyle(one).color, getComputedStyle(back).backgroundColor];
            })"""
        )
        assert len(pairs) >= 5
        assert [each for each in pairs if contrast(*each[1:]) < 4.5] == [], wish
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])


def contrast(one, other):
    """Return the contrast of two colours as WCAG 2 defines it."""

    def light(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
