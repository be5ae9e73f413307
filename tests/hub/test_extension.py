"""The browser extension: what is in its archives, and what it does in a real Chromium with a real hub."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import zipfile

import browser as browsers
import hub_server
import pytest
from extensions import ARTICLE, OTHER, builder, running_again, site, unpacked

LINTER = os.environ.get("RAEBURN_TEST_WEB_EXT") or shutil.which("web-ext")

needs_chromium = pytest.mark.skipif(browsers.CHROMIUM is None, reason="the extension runs in Chromium")

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


# --- in Chromium -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browsers.Browser(extension=unpacked(tmp_path_factory.mktemp("extension"), "chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def extension(chromium):
    return Extension(chromium)


@pytest.fixture(scope="module")
def pages():
    with site({"/bees": ARTICLE, "/pears": OTHER}) as address:
        yield address


class Extension:
    """The extension as somebody uses it: its popup, its settings, and a look into what it keeps."""

    def __init__(self, browser):
        self.browser = browser
        self.origin = f"chrome-extension://{browser.extension}"
        self._worker = browser.session(f"{self.origin}/background.js")
        with browser.within(self._worker):
            browser.until("globalThis.chrome?.storage !== undefined")

    def popup(self, *steps):
        """Open the popup, run *steps* in it, each a piece of JavaScript, close it, and return what the last gave."""
        url = f"{self.origin}/popup.html"
        self.browser.trigger()
        with self.browser.within(self.browser.session(url)):
            self.browser.until("document.documentElement?.dataset.ready === 'yes'", 90)
            found = [self.browser.run(step) for step in steps]
            self.browser.run("setTimeout(() => window.close(), 0)")
        hub_server.until(lambda: self.browser.targets(url) == [], 90)
        return found[-1] if found else None

    def click(self, button, before="0"):
        """Click a button of the popup and return what is said when it is done."""
        return self.popup(
            before,
            f"""(async () => {{
                document.getElementById("{button}").click();
                do await new Promise((done) => setTimeout(done, 20));
                while (document.body.ariaBusy === "true");
                return document.getElementById("said").textContent;
            }})()""",
        )

    def worker(self, expression):
        with self.browser.within(self._worker):
            return self.browser.run(expression)

    def pair(self, address, code):
        """Pair on the page of the settings, and return what is said."""
        self.browser.visit(f"{self.origin}/options.html")
        self.browser.until("document.documentElement?.dataset.ready === 'yes'", 90)
        self.browser.run(
            f"""document.getElementById("said").textContent = "";
            document.getElementById("address").value = {json.dumps(address)};
            document.getElementById("code").value = {json.dumps(code)};
            document.querySelector("#pair button").click();"""
        )
        self.browser.until("document.getElementById('said').textContent !== ''", 90)
        return self.browser.run("document.getElementById('said').textContent")

    def waiting(self):
        return self.worker("chrome.storage.local.get({queue: []}).then((found) => found.queue)")


def code_of(hub):
    return hub.access.credentials.new_code(("read", "write"))


def texts(hub, query, **more):
    found = hub.ask("POST", "/api/v1/search", {"query": query, "k": 3, **more})
    assert found.status == 200, found.body
    return " ".join(hit["text"] for hit in found.json()["hits"])


@needs_chromium
def test_from_pairing_to_what_a_search_finds(extension, chromium, pages, tmp_path):
    with hub_server.running(tmp_path) as hub:
        address = f"http://localhost:{hub.port}"
        # Only this machine is ever asked, a wrong code is said to be one, and the right one is good for this extension.
        assert "this machine" in extension.pair("http://hub.example", "AAAAA-AAAAA")
        assert "not good" in extension.pair(address, "AAAAA-AAAAA")
        assert extension.pair(address, code_of(hub)) == "Paired."
        token = hub.access.credentials.list()[-1]
        assert (token.origin, token.scopes) == (extension.origin, ("read", "write"))

        chromium.visit(f"{pages}/bees")
        assert extension.click("page") == "Saved."
        (kept,) = hub.hub.ingestor(None).list()
        assert (kept.uri, kept.title) == (f"{pages}/bees", "Keeping bees")
        assert "fifteen kilograms" in texts(hub, "How much do honeybees eat in winter?")
        everything = hub.ask("GET", f"/api/v1/sources/{kept.id}/content").body.decode()
        assert [word for word in ("scriptword", "tokenword", "fieldword") if word in everything] == []

        # A selection goes into the project that was chosen; without one there is nothing to click.
        assert extension.popup("document.getElementById('selection').disabled") is True
        project = hub.hub.projects.create("Garden")
        chromium.run("getSelection().selectAllChildren(document.getElementById('first'))")
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


@needs_chromium
def test_what_is_saved_while_the_hub_is_away_arrives_once(extension, chromium, pages, tmp_path):
    with hub_server.running(tmp_path) as hub:
        port = hub.port
        assert extension.pair(f"http://localhost:{port}", code_of(hub)) == "Paired."
    chromium.visit(f"{pages}/pears")
    assert "waits here" in extension.click("page")
    write = """(() => { const note = document.getElementById("note"); note.value = "Ask Ida for rootstocks";
        note.dispatchEvent(new Event("input")); })()"""
    assert "waits here" in extension.click("keep", write)
    assert [one["kind"] for one in extension.waiting()] == ["page", "note"]
    assert extension.worker("chrome.action.getBadgeText({})") == "2"
    before = extension.worker("chrome.storage.local.get(null)")
    assert extension.worker("chrome.alarms.get('retry').then((alarm) => alarm.periodInMinutes)") == 1

    with running_again(tmp_path, port) as hub:
        extension.worker("chrome.alarms.create('retry', {delayInMinutes: 0.001})")  # what comes each minute, sooner
        hub_server.until(lambda: extension.waiting() == [], 120)
        hub_server.until(lambda: extension.worker("chrome.action.getBadgeText({})") == "")
        assert extension.worker("chrome.alarms.get('retry').then((alarm) => alarm ?? null)") is None
        assert "scion wood" in texts(hub, "When is scion wood taken?")
        assert sorted(each.title for each in hub.hub.ingestor(None).list()) == ["Grafting pears", "Grafting pears"]

        # The answer may be lost on its way: the same is sent again, and is kept once all the same.
        extension.worker(f"chrome.storage.local.set({json.dumps(before)})")
        extension.popup()
        hub_server.until(lambda: extension.waiting() == [])
        assert len(hub.hub.ingestor(None).list()) == 2


@needs_chromium
def test_what_the_hub_refuses_is_kept_and_said(extension, chromium, pages, tmp_path):
    with hub_server.running(tmp_path) as hub:
        assert extension.pair(f"http://localhost:{hub.port}", code_of(hub)) == "Paired."
        extension.worker("chrome.storage.local.set({project: 99})")
        chromium.visit(f"{pages}/bees")
        (token,) = hub.access.credentials.list()[-1:]
        said = extension.worker(
            """chrome.storage.local.set({queue: [{id: "one", kind: "note", title: "A note", url: null, tries: 0, said: "",
            created: new Date().toISOString(), refused: false}], "body:one": JSON.stringify({markdown: "x", project: 99})})"""
        )
        assert said is None
        extension.popup()  # which sends what waits
        (kept,) = extension.waiting()
        assert kept["refused"] is True
        assert "99" in kept["said"] or "project" in kept["said"]
        assert extension.worker("chrome.action.getBadgeText({})") == "!"

        # Taken back: nothing is lost, and the settings say what to do.
        hub.access.credentials.revoke(token.id)
        assert "waits here" in extension.click("page")
        chromium.visit(f"{extension.origin}/options.html")
        chromium.until("document.documentElement?.dataset.ready === 'yes'", 90)
        assert "Pair it again" in chromium.run("document.getElementById('paired').textContent")
        assert chromium.run("document.querySelectorAll('#list li').length") == 2
        assert extension.pair(f"http://localhost:{hub.port}", code_of(hub)) == "Paired."
        hub_server.until(lambda: len(extension.waiting()) == 1)
        chromium.run("document.querySelector('#list button[aria-label^=Discard]').click()")
        hub_server.until(lambda: extension.waiting() == [])


@needs_chromium
@pytest.mark.parametrize("page", ["popup.html", "options.html"])
def test_every_control_has_a_name_and_text_stands_out_in_light_and_dark(extension, chromium, page):
    chromium.visit(f"{extension.origin}/{page}")
    chromium.until("document.documentElement?.dataset.ready === 'yes'", 90)
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "checkbox", "combobox", "link"}
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(controls) >= 3
    assert [node for node in controls if not node.get("name", {}).get("value")] == []
    for wish in ("light", "dark"):
        chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": wish}])
        pairs = chromium.run(
            """[...document.querySelectorAll("h1, h2, p, label, button:not(:disabled), input, textarea, code")]
            .filter((one) => one.checkVisibility()).map((one) => {
                let back = one;
                while (back && getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
                return [one.tagName, getComputedStyle(one).color, getComputedStyle(back).backgroundColor];
            })"""
        )
        assert len(pairs) >= 5
        assert [each for each in pairs if contrast(*each[1:]) < 4.5] == [], wish
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])


def contrast(one, other):
    """Return the contrast of two colours as WCAG 2 defines it."""

    def light(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
