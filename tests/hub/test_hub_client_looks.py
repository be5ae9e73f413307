"""What the hub's page is like: who can use it, what it weighs, what it is made of, and how it fits a small screen."""

import gzip
import importlib.util
import re
from pathlib import Path

import pytest
from hub_page import CLIENT, looked_at, needs_chromium
from hub_server import send
from ingesting import write
from scripted import scripted
from test_hub_client import taken_in

from raeburnmemory.hub.server.pages import Pages

_PACKAGE = importlib.util.find_spec("axe_playwright_python")  # it brings axe-core as a file, and is not imported
needs_axe = pytest.mark.skipif(_PACKAGE is None, reason="axe-core comes with the package axe-playwright-python")

FILES = sorted(path for path in CLIENT.rglob("*") if path.is_file())
_CHECK = """axe.run(document, {resultTypes: ["violations"]}).then((found) => found.passes.length < 10 ? "too little" : found.violations.map(
  (one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ") + " " + (node.any[0]?.message ?? "")).join("; ")}`))"""


def test_it_weighs_little():
    """All of it together, packed as a server might, is below 300 kB; so is each page that is opened alone."""
    weight = sum(len(gzip.compress(path.read_bytes(), mtime=0)) for path in FILES)
    assert weight < 300_000, weight


def test_it_is_written_by_hand_and_loads_nothing_from_elsewhere():
    for path in FILES:
        text = path.read_text("utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)<>]+", text)) - {"http://www.w3.org/2000/svg"}
        shown = {one for one in addresses if one.startswith(("https://example.org/", "http://localhost:4444/?code="))}
        assert addresses == shown, path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser", text
        ), path
        assert path.suffix in {".html", ".css", ".js", ".svg"}
    page = (CLIENT / "index.html").read_text("utf-8")
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", page)


def test_every_module_that_is_loaded_is_there():
    for path in FILES:
        for name in re.findall(r"(?:from|import\()\s*\"(\.[^\"]+)\"", path.read_text("utf-8")):
            assert (path.parent / name).resolve() in FILES, (path, name)
    for name in re.findall(r"(?:href|src)=\"/([^\"]+\.\w+)\"", (CLIENT / "index.html").read_text("utf-8")):
        assert CLIENT / name in FILES


def test_what_it_asks_for_is_answered(tmp_path):
    """Each path below /api or /v1 that stands in the client is a route of the hub."""
    pytest.importorskip("fastapi")
    from hub_server import running

    with running(tmp_path) as hub:
        known = [
            re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path))
            for path in send(hub.port, "GET", "/openapi.json").json()["paths"]
        ]
    asked = set()
    for path in FILES:
        asked |= set(re.findall(r"[\"`](/(?:api/v1|v1)/[^\"`?]*)", path.read_text("utf-8")))
    assert len(asked) > 15
    for one in asked:
        filled = re.sub(r"\$\{[^}]+\}", "1", one)
        assert any(path.fullmatch(filled) or path.fullmatch(f"{filled}/1") for path in known), one


def test_its_own_policy_lets_no_text_become_html():
    rules = dict(part.split(" ", 1) for part in Pages(CLIENT).rules.split("; "))
    assert rules["script-src"] == rules["style-src"] == rules["default-src"] == "'self'"
    assert rules["trusted-types"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"


def test_it_is_in_the_wheel():
    """hatchling packs the whole package; what the version control ignores it would leave out."""
    root = Path(__file__).resolve().parents[2]
    ignored = {word.strip("/*") for word in (root / ".gitignore").read_text("utf-8").split()}
    assert not any(ignored & set(path.relative_to(root).parts) for path in FILES)


@needs_chromium
@needs_axe
def test_nothing_keeps_anybody_from_using_it(chromium, tmp_path):
    """Every page, light and dark, wide and narrow, without a violation of what axe-core looks for."""
    axe = (Path(_PACKAGE.submodule_search_locations[0]) / "axe.min.js").read_text("utf-8")
    notes = tmp_path / "notes"
    write(
        notes / "garden.md",
        "# Garden\n\nThe roses are watered on Mondays.\n\n## Tools\n\nThe shears are in the shed.\n",
    )
    write(notes / "broken.pdf", b"%PDF-1.4 nothing")
    with scripted() as server, looked_at(chromium, tmp_path, url=server.url) as (hub, page):
        server.says("They are watered on Mondays [1].\n\n- `water`\n- more")
        taken_in(hub, notes)
        hub.ask("POST", "/api/v1/threads", {"title": "Roses", "project": 1})
        hub.ask("POST", "/api/v1/threads/1/messages", {"content": "When are the roses watered?"})
        [one] = [one for one in hub.ask("GET", "/api/v1/projects/1/sources").json()["sources"] if one["status"] == "ok"]
        fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        for path in ("/", "/projects", "/projects/1", f"/document?id={one['id']}&start=10&end=20", "/search?q=roses", "/chat/1",
                     "/chat", "/graph", "/models", "/settings", "/nowhere"):  # fmt: skip
            page.go(path)
            page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; }), true")
            page.run(f"(() => {{ {axe} }})(), true")
            for dark in (False, True):
                page.dark(dark)
                assert page.run(_CHECK) == [], (path, dark)
            page.size(360, 740)
            assert page.run(fits), path
            page.size(1280, 860)
        page.press("Go home")
        page.go("/projects/1")
        page.run(f"(() => {{ {axe} }})(), true")
        page.press("Remove the folder", "button")  # a question over the page
        assert page.run(_CHECK) == []
