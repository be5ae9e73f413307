"""A headless Chromium for the tests, spoken to over its own pipe: no driver, no port, no package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-dev-shm-usage
--hide-scrollbars --mute-audio --force-color-profile=srgb --remote-debugging-pipe
--disable-features=IsolateSandboxedIframes,Translate,MediaRouter"""  # frames stay within the page's own session

# The browser reads from 3 and writes to 4, whatever the numbers are here.
_START = """
import os, sys
for at, number in enumerate(sys.argv[1:3]):
    os.dup2(int(number), 103 + at)
for number in (3, 4):
    os.dup2(100 + number, number)
    os.close(100 + number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page in a Chromium of its own; `requests` are the addresses it asked for, `said` what it complained about.

    With the folder of an *extension* it has that one; `extension` is its id.
    """

    def __init__(self, width=1280, height=800, dark=False, extension=None):
        self.requests, self.said, self.contexts, self._number = [], [], [], 0
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = _FLAGS.split()
        if extension is not None:
            flags[flags.index("--disable-extensions")] = "--enable-unsafe-extension-debugging"
        command = [CHROMIUM, *flags, f"--user-data-dir={self._folder}", f"--window-size={width},{height}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(to_read), str(to_write), *command, "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._rest, self._session = b"", None
        self._exit = contextlib.ExitStack()
        self._exit.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._exit.callback(self._end)
        try:
            if extension is not None:
                self.extension = self.call("Extensions.loadUnpacked", path=str(extension))["id"]
            self._attach(width, height, dark=dark)
        except BaseException:
            self._exit.close()
            raise

    def _attach(self, width, height, *, dark):
        pages = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        wish = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": wish}])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._exit.close()

    def _end(self):
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    @contextlib.contextmanager
    def within(self, session):
        """Speak to another page or worker in place of the page, or with None to the browser itself."""
        before, self._session = self._session, session
        try:
            yield
        finally:
            self._session = before

    def session(self, url, seconds=20):
        """Wait until a page or a worker has the address *url*, and return a session with it."""
        end = time.monotonic() + seconds
        while not (found := self.targets(url)):
            assert time.monotonic() < end, f"nothing opened {url}"
            time.sleep(0.02)
        with self.within(None):
            return self.call("Target.attachToTarget", targetId=found[0]["targetId"], flatten=True)["sessionId"]

    def targets(self, url):
        """Return the pages and workers with the address *url*."""
        with self.within(None):
            return [one for one in self.call("Target.getTargets")["targetInfos"] if one["url"] == url]

    def visit(self, url):
        """Load an address of any kind, also one of the extension, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def trigger(self):
        """Click the extension's button."""
        with self.within(None):
            tab = self.call("Target.getTargets", filter=[{"type": "tab"}])["targetInfos"][0]["targetId"]
            self.call("Extensions.triggerAction", id=self.extension, targetId=tab)

    def call(self, method, **params):
        """Ask for something and return the answer; what happens meanwhile is kept."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        for answer in self._messages(90):
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
        raise AssertionError(f"the browser did not answer {method}")

    def _messages(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while b"\0" in self._rest:
                line, _, self._rest = self._rest.partition(b"\0")
                message = json.loads(line)
                self._note(message)
                yield message
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            if ready:
                got = os.read(self._read, 1 << 20)
                assert got, "the browser is gone"
                self._rest += got

    def _note(self, message):
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.said.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.said.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled":
                self.said.append(str(params["args"]))
            case "Runtime.executionContextCreated":
                self.contexts.append(params["context"])
            case "Page.javascriptDialogOpening":
                self.said.append(f"dialog: {params['message']}")

    def open(self, path):
        """Load a file, or an address, and wait until it has settled."""
        self.contexts.clear()
        answer = self.call("Page.navigate", url=path if str(path).startswith(("http:", "about:")) else f"file://{path}")
        assert "errorText" not in answer, answer
        self.until("document.readyState === 'complete'")
        self.until("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def run(self, expression, context=None):
        """Return the value of a JavaScript expression in the page, or in another context of it."""
        where = {} if context is None else {"contextId": context}
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **where)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, seconds=60, context=None):
        end = time.monotonic() + seconds
        while not self.run(expression, context):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def click(self, x, y):
        self.drag(x, y)

    def drag(self, x, y, *to):
        """Press at a point, move to others, let go."""
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y)
        for x, y in to:  # noqa: PLR1704
            self.mouse("mouseMoved", x, y)
        self.mouse("mouseReleased", x, y)

    def mouse(self, what, x, y, **more):
        pressed = {"button": "left", "clickCount": 1} if what in {"mousePressed", "mouseReleased"} else {}
        self.call("Input.dispatchMouseEvent", type=what, x=x, y=y, **pressed, **more)

    def key(self, key, code=0, text="", modifiers=0):
        held = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **held)
        self.call("Input.dispatchKeyEvent", type="keyUp", **held)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def choose_files(self, selector, *paths):
        """Choose files in a field for them, as somebody does in the window that it opens."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(path) for path in paths])

    def picture(self):
        """Return what the page looks like, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
