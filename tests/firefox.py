"""A headless Firefox for the tests, spoken to by the protocol that it brings, Marionette: no driver, no package."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)

_PREFERENCES = {
    "marionette.port": 0,  # any that is free; it is written into the profile
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "ui.popup.disable_autohide": True,  # or a popup may close because nobody looks at a headless one
}


class Firefox:
    """One window of a Firefox of its own, with an extension: its archive, and the id that it gives itself.

    `origin` is the address of the extension's pages, which is another one each time.
    """

    def __init__(self, archive, extension):
        self.extension, own = extension, str(uuid.uuid4())
        self.origin = f"moz-extension://{own}"
        self._number = 0
        self._exit = contextlib.ExitStack()
        profile = Path(tempfile.mkdtemp(prefix="firefox-"))
        self._exit.callback(shutil.rmtree, profile, ignore_errors=True)
        wanted = {**_PREFERENCES, "extensions.webextensions.uuids": json.dumps({extension: own})}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in wanted.items()]
        (profile / "user.js").write_text("".join(lines), encoding="utf-8")
        command = [FIREFOX, "--headless", "--no-remote", "--marionette", "--remote-allow-system-access"]
        self._process = subprocess.Popen(
            [*command, "--profile", profile, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile)},
            start_new_session=True,
        )
        self._exit.callback(self._end)
        try:
            self._connect(profile / "MarionetteActivePort")
            self.call("WebDriver:NewSession")
            self.call("WebDriver:SetTimeouts", script=90_000, pageLoad=90_000)
            assert self.call("Addon:Install", path=str(archive), temporary=True)["value"] == extension
        except BaseException:
            self._exit.close()
            raise

    def _connect(self, told, seconds=90):
        end = time.monotonic() + seconds
        while not (told.exists() and (port := told.read_text())):
            assert self._process.poll() is None, f"Firefox ended with {self._process.returncode}"
            assert time.monotonic() < end, "Firefox did not begin to listen"
            time.sleep(0.02)
        self._link = self._exit.enter_context(socket.create_connection(("127.0.0.1", int(port)), timeout=120))
        self._read = self._exit.enter_context(self._link.makefile("rb"))
        assert self._message()["marionetteProtocol"] == 3

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._exit.close()

    def _end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _message(self):
        length = b""
        while (digit := self._read.read(1)) != b":":
            assert digit, "Firefox is gone"
            length += digit
        return json.loads(self._read.read(int(length)))

    def call(self, command, **params):
        """Ask for something, and return the answer."""
        self._number += 1
        sent = json.dumps([0, self._number, command, params]).encode()
        self._link.sendall(b"%d:%s" % (len(sent), sent))
        _, number, error, answer = self._message()
        assert (number, error) == (self._number, None), (command, error)
        return answer

    # --- pages ----------------------------------------------------------------------------------------------------------

    def visit(self, url):
        """Load an address of any kind, also one of the extension, and wait until it is there."""
        self.call("WebDriver:Navigate", url=url)

    def run(self, expression):
        """Return the value of a JavaScript expression in the page; a promise is waited for."""
        return self.call("WebDriver:ExecuteScript", script=f"return ({expression})", args=[], sandbox=None)["value"]

    def until(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def background_tab(self, url):
        """Open an address in a tab that nobody looks at, and return what `within` takes."""
        handle = self.call("WebDriver:NewWindow", type="tab", focus=False)["handle"]
        with self.within(handle):
            self.visit(url)
        return handle

    @contextlib.contextmanager
    def within(self, tab):
        """Speak to another tab; what is looked at is the same as before."""
        before = self.call("WebDriver:GetWindowHandle")["value"]
        self.call("WebDriver:SwitchToWindow", handle=tab, focus=False)
        try:
            yield
        finally:
            self.call("WebDriver:SwitchToWindow", handle=before, focus=False)

    # --- the browser around them ----------------------------------------------------------------------------------------

    def around(self, script, *args):
        """Run a script in the window of the browser, with all its rights, and return what it returns."""
        script = f"return (async () => {{ {script} }})()"
        self.call("Marionette:SetContext", value="chrome")
        try:
            return self.call("WebDriver:ExecuteScript", script=script, args=list(args), sandbox="system")["value"]
        finally:
            self.call("Marionette:SetContext", value="content")

    def trigger(self):
        """Click the extension's button."""
        self.around(
            """const { extension } = WebExtensionPolicy.getByID(arguments[0]);
            extension.apiManager.global.browserActionFor(extension).triggerAction(window);""",
            self.extension,
        )

    def in_popup(self, url, expression):
        """Return a list with the value of an expression in the extension's popup; without a popup it is empty."""
        return self.around(
            """const [url, script] = arguments;
            const all = [...document.querySelectorAll("browser.webextension-popup-browser")];
            const popup = all.find((one) => one.currentURI?.spec === url)?.browsingContext.currentWindowGlobal;
            if (!popup) return [];
            return [await popup.getActor("MarionetteCommands").executeScript(script, [], { sandboxName: null })];""",
            url,
            f"return ({expression})",
        )

    def choose_in_menu(self, x, y, label):
        """Click with the right mouse button at a point of the page, and choose from the menu that opens."""
        moves = {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}
        presses = [{"type": kind, "button": 2} for kind in ("pointerDown", "pointerUp")]
        mouse = {"type": "pointer", "id": "mouse", "actions": [moves, *presses]}
        self.call("WebDriver:PerformActions", actions=[mouse])
        return self.around(
            """const menu = document.getElementById("contentAreaContextMenu");
            while (menu.state !== "open") await new Promise((done) => window.setTimeout(done, 20));
            const entries = [...menu.children].filter((one) => !one.hidden && one.label);
            const chosen = entries.find((one) => one.label === arguments[0]);
            if (chosen) menu.activateItem(chosen);
            else menu.hidePopup();
            return entries.map((one) => one.label);""",
            label,
        )
