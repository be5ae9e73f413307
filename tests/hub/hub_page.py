"""The hub's own page in a real browser: going about it as somebody does, with a mouse and keys."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from hub_server import running

from raeburnmemory.hub.server import Pages

CLIENT = Path(__file__).resolve().parents[2] / "raeburnmemory" / "hub" / "client"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="the page is looked at in Chromium")

# Of the elements that fit a selector, those that can be seen and hold a text, the shortest text first.
_FIND = """(selector, text) => [...document.querySelectorAll(selector)]
  .filter((one) => one.checkVisibility() && one.getClientRects().length)
  .map((one) => [one, one.getAttribute("aria-label") ?? one.innerText ?? ""])
  .filter(([, told]) => told.includes(text))
  .sort((a, b) => a[1].length - b[1].length)[0]?.[0]"""


class Page(Browser):
    """A browser that looks at one hub after the other; cookies and what a page keeps are those of its port."""

    port = 0

    def at(self, port):
        """Look at another hub, as a browser that was just opened."""
        self.port = port
        self.size(1280, 860)
        self.dark(False)
        self.said.clear()
        self.requests.clear()

    def go(self, path="/"):
        """Open a page by its address, and wait until it is shown."""
        self.open(f"http://localhost:{self.port}{path}")
        self.settled()

    def settled(self):
        self.until(
            "document.readyState === 'complete' && document.querySelector('main h1') && "
            "!document.querySelector('main[aria-busy], [aria-disabled=true]')"
        )

    def run(self, expression, context=None):
        """Return the value of an expression; a page that goes away meanwhile is asked again when it is there."""
        for _ in range(50):
            try:
                return super().run(expression, context)
            except AssertionError as exc:
                if not any(word in str(exc) for word in ("context was destroyed", "Inspected target navigated")):
                    raise
                time.sleep(0.05)
        raise AssertionError("the page goes away again and again")

    def _js(self, selector, text):
        return f"({_FIND})({json.dumps(selector)}, {json.dumps(text)})"

    def sees(self, text, selector="body", seconds=60):
        """Wait until a text can be seen."""
        here = json.dumps(text)
        self.until(
            f"[...document.querySelectorAll({json.dumps(selector)})].some((one) => one.innerText.includes({here}))",
            seconds,
        )

    def texts(self, selector):
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)")

    def press(self, text, selector="button, a, summary, label"):
        """Click with the mouse on what can be seen and is called so."""
        element = self._js(selector, text)
        where = f"""(() => {{
          const found = {element};
          found?.scrollIntoView({{block: "center", behavior: "instant"}});
          const box = found?.getClientRects()[0];
          return box ? [box.x + box.width / 2, box.y + box.height / 2] : null;
        }})()"""  # at once: what is shown may be made anew at any moment
        end = time.monotonic() + 60
        while (point := self.run(where)) is None:
            assert time.monotonic() < end, f"nothing that fits {selector!r} is called {text!r}"
            time.sleep(0.02)
        x, y = point
        self.click(x, y)

    def fill(self, selector, text):
        """Go to a field, and type into it in place of what it held."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{found} !== null")
        self.run(f"({found}.focus(), {found}.select?.(), true)")
        self.type(text)

    def select(self, selector, label):
        """Choose what a list offers."""
        self.run(f"""(() => {{
          const list = document.querySelector({json.dumps(selector)});
          list.value = [...list.options].find((one) => one.text === {json.dumps(label)}).value;
          list.dispatchEvent(new Event("change", {{bubbles: true}}));
        }})()""")

    def enter(self):
        self.key("Enter", 13, "\r")

    def tab(self, *, back=False):
        self.key("Tab", 9, modifiers=8 if back else 0)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, wish=True):
        value = "dark" if wish else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def whole(self):
        """Return where the page is, with its query."""
        return self.run("location.pathname + location.search")


def code_of(hub):
    return hub.access.credentials.new_code(long=True)


@contextlib.contextmanager
def looked_at(page, folder, *, enter=True, **options):
    """Run a hub with its page, and let the browser in by a code, as the hub prints one."""
    with running(folder, client=Pages(CLIENT), **options) as hub:
        page.at(hub.port)
        try:
            if enter:
                page.go(f"/?code={code_of(hub)}")
            yield hub, page
        finally:
            page.open("about:blank")  # or its streams would keep the hub from ending
