"""Measure the hub's page: how soon something is seen, what it weighs, and what the hub behind it takes.

    python scripts/time_the_page.py [ROUNDS]

It needs what the tests of the hub need. A hub is started as a command, with a few notes. Chromium then opens each page
in every round, with nothing in its cache. *first* is the browser's own entry `first-contentful-paint`, *largest* the
last entry `largest-contentful-paint`: both count from the beginning of the navigation.
"""

import gzip
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "hub")]

from hub_page import CLIENT, Page  # noqa: E402
from hub_server import Command  # noqa: E402
from picture_the_hub import NOTES  # noqa: E402

PAGES = ("/", "/chat", "/search?q=who+waters+the+roses", "/projects/1", "/graph", "/models", "/settings")
_FIRST = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
_LARGEST = """new Promise((told) => new PerformanceObserver((list) => told(list.getEntries().at(-1).startTime))
  .observe({ type: "largest-contentful-paint", buffered: true }))"""
_BYTES = """performance.getEntriesByType("navigation").concat(performance.getEntriesByType("resource"))
  .reduce((sum, one) => sum + one.encodedBodySize, 0)"""


def main() -> None:
    """Measure, and print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home, Command(home, "--port", "0") as hub, Page(1280, 860) as page:
        hub.ready()
        started = time.monotonic() - began
        time.sleep(3)
        idle = resident(hub.process.pid)
        page.at(hub.port)
        page.go(f"/?code={hub.code}")
        sent(page, "projects", {"name": "House"})
        for name, text in NOTES.items():
            sent(page, "ingest/text", {"text": text, "title": name, "uri": f"note:{name}", "project": 1})
        told: dict[str, list[tuple[float, float, int]]] = {path: [] for path in PAGES}
        for _ in range(rounds):
            for path, found in told.items():
                page.open("about:blank")
                page.call("Network.clearBrowserCache")
                page.go(path)
                page.until(f"{_FIRST} > 0")
                found.append((page.run(_FIRST), page.run(_LARGEST), page.run(_BYTES)))
        after = resident(hub.process.pid)
    files = [path.read_bytes() for path in CLIENT.rglob("*") if path.is_file()]
    print(f"the hub: address printed after {started:.1f} s, {idle:.0f} MB then, {after:.0f} MB at the end")
    packed = sum(len(gzip.compress(each)) for each in files)
    print(f"the client: {len(files)} files, {sum(map(len, files)) / 1000:.0f} kB, packed {packed / 1000:.0f} kB")
    print("| page | first, ms | largest, ms | kB |\n| --- | --- | --- | --- |")
    for path, found in told.items():
        first, largest, _ = zip(*found, strict=True)
        print(f"| `{path}` | {shown(first)} | {shown(largest)} | {found[0][2] / 1000:.0f} |")


def shown(taken: tuple[float, ...]) -> str:
    """Return the median, with the least and the most."""
    return f"{statistics.median(taken):.0f} ({min(taken):.0f} to {max(taken):.0f})"


def sent(page: Page, path: str, body: dict) -> None:
    """Let the page send something to the hub."""
    options = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}
    assert page.run(f"fetch('/api/v1/{path}', {json.dumps(options)}).then((answer) => answer.status)") == 201


def resident(process: int) -> float:
    """Return how much memory a process holds, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1000


if __name__ == "__main__":
    main()
