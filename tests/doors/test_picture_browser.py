"""The interactive picture in a real browser: it draws, it answers hands and keys, it loads and runs nothing else."""

from __future__ import annotations

import json
import os

import pytest
from browser import CHROMIUM, Browser
from test_picture import NASTY, nasty

from raeburnmemory import MemoryGraph

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
    pytest.mark.skipif(os.name != "posix", reason="speaks to the browser through inherited pipes"),
]

MIDDLE = "(r => [r.x + r.width / 2, r.y + r.height / 2])"
PANEL = "document.getElementById('panel').innerText"


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def memory():
    with MemoryGraph(":memory:", "builtin") as memory:
        memory.add_interaction(
            {"id": "p", "text": "Which allergies does Ana have?"},
            {"id": "r", "text": "Peanuts and latex. She carries an adrenaline pen, and knows how to use it."},
            {"id": "nurse", "name": "Intake assistant"},
            "intake",
            timestamp="2026-11-20T09:30:00Z",
        )
        memory.add_interaction(
            {"id": "q", "text": "Who brings Ana home?"}, {"id": "a", "text": "Ines."}, "nurse", "discharge"
        )
        yield memory


@pytest.fixture
def opened(browser, tmp_path):
    """Open a picture; whatever happens then, nothing else is loaded and nobody complains."""

    def opened(picture):
        path = picture.save(tmp_path / "graph.html")
        browser.requests.clear()
        browser.said.clear()
        browser.open(path)
        return browser

    yield opened
    assert [one for one in browser.requests if one != f"file://{tmp_path}/graph.html"] == []
    assert browser.said == []


def where(browser, node_id):
    shape = f"[...document.querySelectorAll('.node')].find(n => n.dataset.id === {json.dumps(node_id)}).querySelector('.shape')"
    return browser.run(f"{MIDDLE}({shape}.getBoundingClientRect())")


def middle(browser, selector):
    return browser.run(f"{MIDDLE}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")


def shown(browser):
    return set(
        browser.run(
            "[...document.querySelectorAll('.node')].filter(n => n.style.display !== 'none').map(n => n.dataset.id)"
        )
    )


def faded(browser):
    return set(browser.run("[...document.querySelectorAll('.node.faded')].map(n => n.dataset.id)"))


def test_it_draws_every_node_and_link_where_they_belong(opened, memory):
    picture = memory.show()
    browser = opened(picture)
    assert shown(browser) == {node.id for node in picture.nodes}
    assert browser.run("document.querySelectorAll('path.link[marker-end]').length") == len(picture.links)
    assert browser.run("document.title") == picture.title
    width, height = browser.run("(s => [s.clientWidth, s.clientHeight])(document.getElementById('stage'))")
    places = {node.id: where(browser, node.id) for node in picture.nodes}
    left, top = browser.run("(r => [r.x, r.y])(document.getElementById('stage').getBoundingClientRect())")
    for x, y in places.values():
        assert left < x < left + width
        assert top < y < top + height
    # The view moves and scales all of them alike.
    (ax, ay), (bx, _) = picture.positions["p"], picture.positions["discharge"]
    scale = (places["discharge"][0] - places["p"][0]) / (bx - ax)
    for node_id, (x, y) in picture.positions.items():
        assert places[node_id] == pytest.approx(
            [places["p"][0] + scale * (x - ax), places["p"][1] + scale * (y - ay)], abs=1
        )
    assert browser.run("[...document.querySelectorAll('.label')].filter(l => l.style.display !== 'none').length") >= 6


def test_a_click_shows_the_text_and_what_is_known_of_it(opened, memory):
    browser = opened(memory.show())
    assert "2026-11-20" not in browser.run(PANEL)
    browser.click(*where(browser, "r"))
    told = browser.run(PANEL)
    for part in ("response", "Peanuts and latex. She carries an adrenaline pen, and knows how to use it.", "intake",
                 "2026-11-20 09:30:00 UTC", "Intake assistant", "Which allergies does Ana have?", "← responded_with"):  # fmt: skip
        assert part in told
    assert faded(browser) == {"intake", "q", "a", "discharge"}
    browser.click(*middle(browser, "#panel li button"))  # the first of its links
    assert "\np\n" in browser.run(PANEL)
    browser.key("Escape", 27)
    assert "Linked the most" in browser.run(PANEL)
    assert faded(browser) == set()


def test_hovering_shows_a_tip(opened, memory):
    browser = opened(memory.show())
    browser.mouse("mouseMoved", *where(browser, "p"))
    browser.until("!document.getElementById('tip').hidden")
    assert browser.run("document.getElementById('tip').innerText") == (
        "prompt · intake · 2026-11-20 09:30:00 UTC\nWhich allergies does Ana have?"
    )
    browser.mouse("mouseMoved", 5, 500)
    browser.until("document.getElementById('tip').hidden")


def test_why_a_hit_was_found(opened, memory):
    hits = memory.recall("What is Ana allergic to?", 2)
    browser = opened(memory.show(hits))
    listed = browser.run("[...document.querySelectorAll('#panel li')].map(l => l.innerText.split('\\n'))")
    assert [[row[0], row[-1]] for row in listed] == [[str(n), f"{hit.score:.2f}"] for n, hit in enumerate(hits, 1)]
    browser.click(*where(browser, hits[0].id))
    told = browser.run(PANEL)
    assert "Why it is hit 1" in told
    for leg, amount in hits[0].why.legs.items():
        assert (f"{leg}\n{amount:.2f}" in told) == (abs(amount) >= 0.005)
    for step in hits[0].why.path:
        assert f"{step.amount:+.2f}" in told


def test_finding_and_hiding(opened, memory):
    browser = opened(memory.show())
    browser.key("/", 191, "/")
    browser.type("ana home")
    assert browser.run("document.getElementById('find').value") == "ana home"
    assert browser.run("document.getElementById('matches').innerText") == "1 found"
    assert faded(browser) == shown(browser) - {"q"}
    browser.key("Enter", 13)
    assert "Who brings Ana home?" in browser.run(PANEL)
    browser.key("Escape", 27)
    browser.key("Escape", 27)
    assert faded(browser) == set()
    buttons = browser.run(
        "[...document.querySelectorAll('#legend button')].map(b => b.innerText.split('\\n').join(' '))"
    )
    assert buttons == [
        "prompt 2",
        "response 2",
        "session 2",
        "agent 1",
        "responded_with 2",
        "belongs_to 2",
        "generated_by 2",
    ]
    before = shown(browser)
    browser.click(*middle(browser, "#legend button"))
    assert shown(browser) == before - {"p", "q"}
    drawn = "[...document.querySelectorAll('path.link[marker-end]')].filter(l => l.style.display !== 'none').length"
    assert browser.run(drawn) == 2  # generated_by
    browser.click(*middle(browser, "#legend button"))
    assert shown(browser) == before
    assert browser.run(drawn) == 6


def test_dragging_zooming_and_coming_back(opened, memory):
    picture = memory.show()
    browser = opened(picture)
    x, y = where(browser, "p")
    other = where(browser, "discharge")
    browser.drag(x, y, (x + 30, y + 30), (x + 80, y + 60))
    assert where(browser, "p") == pytest.approx([x + 80, y + 60], abs=3)
    assert where(browser, "discharge") == pytest.approx(other, abs=30)
    browser.key("r", 82, "r")
    assert where(browser, "p") == pytest.approx([x, y], abs=0.5)
    browser.drag(20, 120, (60, 140), (70, 150))  # the ground
    assert where(browser, "p") == pytest.approx([x + 50, y + 30], abs=0.5)
    browser.key("0", 48, "0")
    assert where(browser, "p") == pytest.approx([x, y], abs=0.5)
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-300)
    browser.until(f"Math.abs({MIDDLE}(document.querySelector('.node').getBoundingClientRect())[0]) >= 0")
    wide = browser.run("document.querySelector('.node .shape').getBoundingClientRect().width")
    browser.key("0", 48, "0")
    assert wide > 1.3 * browser.run("document.querySelector('.node .shape').getBoundingClientRect().width")


def test_the_keyboard_reaches_every_node(opened, memory):
    browser = opened(memory.show())
    at = "document.activeElement.closest && document.activeElement.closest('.node') && document.activeElement.closest('.node').dataset.id"
    for _ in range(12):
        browser.key("Tab", 9)
        if browser.run(at):
            break
    seen = []
    for _ in range(7):
        seen.append(browser.run(at))
        browser.key("PageDown", 34)
    assert sorted(seen) == sorted(shown(browser))
    assert browser.run(at) == seen[0]
    browser.key("PageUp", 33)
    assert browser.run(at) == seen[-1]
    for key, code, axis, sign in (
        ("ArrowLeft", 37, 0, -1),
        ("ArrowUp", 38, 1, -1),
        ("ArrowRight", 39, 0, 1),
        ("ArrowDown", 40, 1, 1),
    ):
        for _ in range(7):
            before = where(browser, browser.run(at))
            browser.key(key, code)
            after = where(browser, browser.run(at))
            assert (after[axis] - before[axis]) * sign > 0 or after == before
        furthest = [sign * where(browser, one)[axis] for one in seen]
        assert sign * after[axis] >= sorted(furthest)[-3]
    browser.key("Enter", 13)
    here = browser.run(at)
    assert f"\n{here}\n" in browser.run(PANEL)
    assert browser.run(
        "[...document.querySelectorAll('.node')].every(n => n.getAttribute('aria-label').includes(': '))"
    )
    assert browser.run("document.querySelectorAll('.node[tabindex=\"0\"]').length") == 1


def test_dark_and_light(opened, memory):
    ground = "getComputedStyle(document.body).backgroundColor"
    theme = "document.documentElement.dataset.theme"
    assert opened(memory.show(theme="dark")).run(theme) == "dark"
    browser = opened(memory.show())
    assert browser.run(theme) == "light"
    light = browser.run(ground)
    browser.key("t", 84, "t")
    assert browser.run(theme) == "dark"
    assert browser.run(ground) != light
    browser.click(*middle(browser, "#theme"))
    assert browser.run(ground) == light


def test_what_is_left_out_is_said(opened, memory):
    browser = opened(memory.show(limit=3))
    assert browser.run("document.getElementById('left').innerText").startswith("Not everything: 4 of 7 nodes and ")
    assert not browser.run("document.getElementById('left').hidden")


def test_no_text_is_more_than_text(opened):
    with nasty() as memory:
        picture = memory.show(title=NASTY[0])
        browser = opened(picture)
        assert shown(browser) == {node.id for node in picture.nodes}
        for number, text in enumerate(NASTY):
            browser.run(
                f"[...document.querySelectorAll('.node')].find(n => n.dataset.id === {json.dumps(f'{text} {number}')}).focus()"
            )
            browser.key("Enter", 13)
            assert browser.run("document.querySelector('#panel .text').textContent") == text
            browser.key("Escape", 27)
        assert browser.run("window.ran") is None
        assert browser.run("document.querySelectorAll('iframe, img, script').length") == 2  # the data and the script
        assert browser.run("document.getElementById('title').textContent") == NASTY[0]


def test_the_policy_holds_even_if_something_got_into_the_page(browser, memory, tmp_path):
    """The second wall: what stands in the page as a script is not run, as an image is not loaded."""
    page = memory.show().html()
    more = "<script>window.ran = 5</script><img src='http://127.0.0.1:9/x.png' onerror='window.ran = 6'><a id=a href='javascript:window.ran=7'>x</a>"
    (tmp_path / "bad.html").write_text(page.replace("</body>", more + "</body>"), encoding="utf-8")
    browser.said.clear()
    browser.requests.clear()
    browser.open(tmp_path / "bad.html")
    browser.run("document.getElementById('a').click()")
    assert browser.run("window.ran") is None
    assert len(shown(browser)) == 7
    assert len([one for one in browser.said if "Content Security Policy" in one]) >= 3
    browser.said.clear()


def test_the_frame_of_a_notebook_draws_and_reaches_nothing(browser, tmp_path):
    with nasty() as memory:
        picture = memory.show()
        (tmp_path / "notebook.html").write_text(
            f"<!DOCTYPE html><meta charset=utf-8><body data-secret=1>{picture._repr_html_()}{memory._repr_html_()}"
            f"{memory.recall(NASTY[1])._repr_html_()}",
            encoding="utf-8",
        )
        browser.requests.clear()
        browser.said.clear()
        browser.open(tmp_path / "notebook.html")
        assert browser.run("window.ran") is None
        (inner,) = [one["id"] for one in browser.contexts if one["origin"] in {"://", "null", ""}][-1:]
        browser.until("document.querySelectorAll('.node').length > 0", context=inner)
        assert browser.run("document.querySelectorAll('.node').length", inner) == len(picture.nodes)
        assert (
            browser.run(
                "(() => { try { return parent.document.body.dataset.secret } catch (e) { return e.name } })()", inner
            )
            == "SecurityError"
        )
        loaded = [one for one in browser.requests if not one.startswith(("data:image/svg+xml", "about:srcdoc"))]
        assert loaded == [f"file://{tmp_path}/notebook.html"]
        assert browser.said == []
