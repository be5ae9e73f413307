"""The interactive picture: one HTML page that needs nothing from anywhere, and the frame that shows it in a notebook.

Texts come from anywhere. They travel as JSON in a block that browsers do not run, with every character that means
something to HTML written as an escape, and the script puts them into the page as text only. Besides, the page carries
a policy under which browsers run this script, by its digest, and no other, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from .svg import svg

if TYPE_CHECKING:
    from .drawing import Drawing

__all__ = ["frame", "page"]

_SLOT = re.compile(r"\{\{(\w+)\}\}")
_MEANT = {
    ord(char): f"\\u{ord(char):04x}" for char in "<>&'\u2028\u2029"
}  # what HTML or old JavaScript would see in it


def page(drawing: Drawing, title: str, theme: str) -> str:
    """Return the picture as a page of its own."""
    style, script = _part("page.css"), _part("page.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    data = json.dumps(drawing.data(title, theme), ensure_ascii=False, separators=(",", ":")).translate(_MEANT)
    parts = {"policy": policy, "title": escape(title), "style": style, "script": script, "data": data}
    return _SLOT.sub(lambda slot: parts[slot[1]], _part("page.html"))  # in one pass: what is filled in is not looked at


def frame(drawing: Drawing, title: str, theme: str, height: int) -> str:
    """Return the page in a frame, for a notebook, with the static picture behind it.

    The frame may run its own script and reach nothing of the notebook around it. Where a notebook is not trusted, or
    is shown by something that keeps no frames, the static picture is what remains.
    """
    static = base64.b64encode(svg(drawing, title, theme).encode("utf-8")).decode("ascii")
    name = escape(f"{title}: {drawing.counts}")
    return (
        f'<div style="position:relative;min-height:{height}px">'
        f'<img src="data:image/svg+xml;base64,{static}" alt="{name}" style="max-width:100%;max-height:{height}px">'
        f'<iframe srcdoc="{escape(page(drawing, title, theme))}" sandbox="allow-scripts" title="{name}" '
        f'style="position:absolute;inset:0;width:100%;height:{height}px;border:1px solid #8884;border-radius:8px;'
        f'background:#fff"></iframe></div>'
    )


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").strip("\n")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"
