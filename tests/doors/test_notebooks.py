"""The notebooks of the documentation run, and what is in them is what they show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

every_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


class Shown(HTMLParser):
    """What of an output in HTML may not change: its tags and words, and of a picture the nodes and links."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.drawn = [], [], None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "iframe":
            (found,) = re.findall(r'id="graph">(.*?)</script>', dict(attrs)["srcdoc"], re.DOTALL)
            data = json.loads(found)
            links = [(link["s"], link["t"], link["r"]) for link in data["links"]]
            self.drawn = data["title"], data["chosen"], [node["id"] for node in data["nodes"]], links

    def handle_data(self, data):
        # Sizes of files differ between versions of SQLite, and the last digit of a score between processors.
        self.words.append(re.sub(r"[\d,]+\.\d+( MB)?", "…", data))


def outputs(path):
    """Return what each cell put out, without what may differ between machines."""
    found = []
    for cell in cells(path):
        # What a cell prints comes in one piece or in several, as it happens.
        printed = "".join("".join(output.get("text", "")) for output in cell.get("outputs", []))
        found.append((re.sub(r"(\d\.\d)\d+", r"\1", printed), [], [], None))
        for output in cell.get("outputs", []):
            assert output["output_type"] in {"stream", "display_data", "execute_result"}, output
            assert output.get("name") != "stderr", output
            if output["output_type"] == "stream":
                continue
            data = output.get("data", {})
            text = "".join(data.get("text/plain", ""))
            html = Shown("".join(data.get("text/html", "")))
            # An index is what is installed; the digits of scores are compared to one place.
            rounded = re.sub(r"(\d\.\d)\d+", r"\1", text)
            found.append((rounded, html.tags, [re.sub("faiss|exact", "…", one) for one in html.words], html.drawn))
    return found


@every_notebook
def test_a_notebook_shows_what_it_prints(notebook, tmp_path):
    pytest.importorskip("nbclient", reason="running a notebook needs nbclient")
    pytest.importorskip("ipykernel", reason="running a notebook needs ipykernel")
    pytest.importorskip("networkx", reason="the outputs are those of a whole installation")
    pytest.importorskip("Stemmer", reason="the outputs are those of a whole installation")
    target = tmp_path / "run.ipynb"
    command = [sys.executable, ROOT / "scripts" / "notebooks.py", notebook, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert outputs(target) == outputs(notebook)
    assert [cell["source"] for cell in cells(target)] == [cell["source"] for cell in cells(notebook)]


@every_notebook
def test_a_notebook_was_run_from_top_to_bottom_on_no_machine(notebook):
    counts = [cell["execution_count"] for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    text = notebook.read_text(encoding="utf-8")
    assert re.findall(r"/(?:tmp|home|root|Users)/[\w/]*", text) == []
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\s\"'\\]*", text) == []
    assert "ipynb" not in {path.suffix for path in notebook.parent.iterdir() if path not in NOTEBOOKS}


def test_the_notebooks_lead_to_each_other_and_the_docs_to_them():
    linked = " ".join(
        "".join(cell["source"]) for path in NOTEBOOKS for cell in cells(path) if cell["cell_type"] == "markdown"
    )
    for target in re.findall(r"\]\(([\w./-]+)\)", linked):
        assert (ROOT / "docs" / "notebooks" / target).exists()
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"notebooks/{path.stem}.md" in nav


def test_the_pages_hold_the_outputs(tmp_path):
    """Built as the site is, by the hook alone: every output is in the page, and no notebook became Markdown twice."""
    pytest.importorskip("mkdocs", reason="the site needs mkdocs")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import notebook_pages
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    for path in NOTEBOOKS:
        kept = []
        page = notebook_pages._markdown(cells(path), path.stem, kept)
        assert len(kept) == sum(len(cell.get("outputs", [])) for cell in cells(path))
        assert page.count("```python") == sum(cell["cell_type"] == "code" for cell in cells(path))
        for number, output in enumerate(kept):
            assert page.count(notebook_pages._slot(number)) == 1
            assert output.startswith(("<pre><code>", "<div"))  # a bare <pre> is wider than a narrow page
