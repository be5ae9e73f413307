"""A hook of MkDocs: every notebook below docs/ becomes a page, with the outputs that are in it.

mkdocs-jupyter was turned down: its pages load MathJax from another host, and it brings nbconvert, jupytext and what
these need. What our notebooks hold is Markdown, code, and outputs as text or HTML, which fits in a page of Markdown.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"\]\(([\w/.-]+)\.ipynb\)")
_outputs: dict[str, list[str]] = {}  # of each page, put in once the Markdown is HTML


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook; the notebook itself stays, to be downloaded."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            uri = file.src_uri.removesuffix(".ipynb") + ".md"
            outputs = _outputs[uri] = []
            with open(file.abs_src_path or "", encoding="utf-8") as handle:
                content = _markdown(json.load(handle)["cells"], file.name, outputs)
            files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to notebooks lead to their pages."""
    if page.file.src_uri in _outputs:
        return markdown
    return _LINK.sub(r"](\1.md)", markdown)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Put the outputs in."""
    for number, output in enumerate(_outputs.get(page.file.src_uri, [])):
        html = html.replace(_slot(number), f'<div class="output">{output}</div>')
    return html


def _slot(number: int) -> str:
    return f'<div data-output="{number}"></div>'


def _markdown(cells: list[dict[str, Any]], name: str, outputs: list[str]) -> str:
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_LINK.sub(r"](\1.md)", source))  # from page to page
            if len(parts) == 1:
                parts.append(f"*This page is a notebook: [{name}.ipynb]({name}.ipynb).*")
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            text = "".join(data.get("text/plain", output.get("text", "")))
            outputs.append(
                "".join(data["text/html"]) if "text/html" in data else f"<pre><code>{escape(text)}</code></pre>"
            )
            parts.append(_slot(len(outputs) - 1))
    return "\n\n".join(parts) + "\n"
