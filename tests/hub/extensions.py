"""What the tests of the extension share: the extension in a browser, and pages to save."""

import contextlib
import http.server
import importlib.util
import json
import threading
import zipfile
from pathlib import Path

import hub_server
import pytest
from browser import Browser
from firefox import Firefox

from raeburnmemory.hub.server.running import listening

ROOT = Path(__file__).resolve().parents[2]
READY = "document.documentElement?.dataset.ready === 'yes'"

ARTICLE = """<!doctype html><html lang="en"><head><title>Keeping bees</title><style>p { color: red }</style>
<script>window.secret = "scriptword";</script></head><body><h1>Keeping bees</h1>
<p id="first">A colony of honeybees winters on about fifteen kilograms of stores.</p>
<p>Inspect the hive on a warm afternoon, and smoke it gently beforehand.</p>
<form><input type="hidden" name="csrf" value="tokenword"><input value="fieldword"></form></body></html>"""
OTHER = """<!doctype html><html lang="en"><head><title>Grafting pears</title></head><body><h1>Grafting pears</h1>
<p>Take scion wood in January and keep it damp and cool until the sap rises in the rootstock.</p></body></html>"""


def builder():
    """Return `packaging/build_extension.py` as a module."""
    about = importlib.util.spec_from_file_location("build_extension", ROOT / "packaging" / "build_extension.py")
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


def built(folder, browser):
    """Build the extension, and return the archive for *browser*."""
    return next(path for path in builder().build(folder) if browser in path.name)


def unpacked(folder, browser):
    """Build the extension, and return the folder with what is in the archive for *browser*."""
    with zipfile.ZipFile(built(folder, browser)) as archive:
        archive.extractall(folder / browser)
    return folder / browser


class Extension:
    """The extension as somebody uses it: its popup, its settings, its menu, and a look into what it keeps.

    `browser` is what it runs in, `origin` where its pages are. Each browser has its own way to
    `popup(*steps)`: open the popup, run *steps* in it, each a piece of JavaScript, close it, and return what the last gave,
    `look(expression)`: return the value of an expression with what an extension may ask of its browser, and
    `choose(entry, selector)`: choose an entry from the menu over an element of the page.
    """

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

    def pair(self, address, code):
        """Pair on the page of the settings, and return what is said."""
        self.browser.visit(f"{self.origin}/options.html")
        self.browser.until(READY, 90)
        self.browser.run(
            f"""(() => {{
                document.getElementById("said").textContent = "";
                document.getElementById("address").value = {json.dumps(address)};
                document.getElementById("code").value = {json.dumps(code)};
                document.querySelector("#pair button").click();
            }})()"""
        )
        self.browser.until("document.getElementById('said').textContent !== ''", 90)
        return self.browser.run("document.getElementById('said').textContent")

    def waiting(self):
        return self.look("chrome.storage.local.get({queue: []}).then((found) => found.queue)")

    def close(self):
        self.browser.__exit__(None, None, None)


class InChromium(Extension):
    """The extension in Chromium."""

    def __init__(self, folder):
        self.browser = Browser(extension=unpacked(folder, "chromium"))
        self.origin = f"chrome-extension://{self.browser.extension}"
        self._worker = self.browser.session(f"{self.origin}/background.js")
        with self.browser.within(self._worker):
            self.browser.until("globalThis.chrome?.storage !== undefined")

    def popup(self, *steps):
        url = f"{self.origin}/popup.html"
        self.browser.trigger()
        with self.browser.within(self.browser.session(url)):
            self.browser.until(READY, 90)
            found = [self.browser.run(step) for step in steps]
            self.browser.run("setTimeout(() => window.close(), 0)")
        hub_server.until(lambda: self.browser.targets(url) == [], 90)
        return found[-1] if found else None

    def look(self, expression):
        with self.browser.within(self._worker):
            return self.browser.run(expression)

    def choose(self, entry, selector):
        # Nothing reaches the menus of a headless Chromium: that the entry is there is asked, and the click is told.
        text = self.browser.run("getSelection().toString()")
        about = {"menuItemId": entry, "frameId": 0, **({"selectionText": text} if text else {})}
        self.look(
            f"""chrome.contextMenus.update("{entry}", {{enabled: true}})
            .then(() => chrome.tabs.query({{active: true, lastFocusedWindow: true}}))
            .then(([tab]) => chrome.contextMenus.onClicked.dispatch({json.dumps(about)}, tab))"""
        )


class InFirefox(Extension):
    """The extension in Firefox."""

    def __init__(self, folder):
        self.browser = Firefox(built(folder, "firefox"), "extension@raeburnmemory")
        self.origin = self.browser.origin
        self._tab = self.browser.background_tab(f"{self.origin}/options.html")

    def popup(self, *steps):
        def run(step):
            return self.browser.in_popup(url, step)

        url = f"{self.origin}/popup.html"
        self.browser.trigger()
        hub_server.until(lambda: run(READY) == [True], 90)
        found = [run(step) for step in steps]
        run("setTimeout(() => window.close(), 0)")
        hub_server.until(lambda: run("0") == [], 90)
        return found[-1][0] if found else None

    def look(self, expression):
        with self.browser.within(self._tab):
            return self.browser.run(expression)

    def choose(self, entry, selector):
        where = f"document.querySelector({json.dumps(selector)}).getClientRects()[0]"
        x, y = self.browser.run(f"(({{x, y}}) => [x + 20, y + 8])({where})")
        label = {"page": "Save this page to RaeburnMemory", "selection": "Save the selection to RaeburnMemory"}[entry]
        assert label in self.browser.choose_in_menu(x, y, label)


@contextlib.contextmanager
def site(pages):
    """Serve *pages*, a dict from path to HTML, on a port of this machine, and give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = pages.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def running_again(folder, port):
    """Run a hub on *folder* once more, at the port that it had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_server, "listening", lambda host, _: listening(host, port))
        with hub_server.running(folder) as hub:
            yield hub
