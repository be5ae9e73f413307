"""Pictures of a memory: interactive in a notebook or a browser, static as SVG or PNG, and as a Mermaid flowchart.

Nothing in them comes from elsewhere, and nothing that is written in a memory is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from .._optional import extra
from ..errors import InvalidInput
from ..hits import Hits
from ..records import checked_count, checked_ids, checked_text, shown
from .drawing import Drawing
from .mermaid import mermaid
from .page import frame, page
from .select import about as of_what
from .select import everything, found, of_session
from .svg import svg

if TYPE_CHECKING:
    from ..memory_graph import MemoryGraph
    from ..nodes import Link, Node
    from .select import Scene

__all__ = ["MOST", "Picture", "Theme", "show"]

Theme = Literal["auto", "light", "dark"]

MOST = 2000
"""More nodes than this are not drawn, whatever `limit` says: nobody can tell them apart."""

_FORMATS = (".html", ".htm", ".svg", ".png", ".mmd", ".mermaid")


class Picture:
    """A part of a memory as it was when the picture was made.

    In a notebook it shows itself; `save` writes it to a file. `title` stands above it. `chosen` says what was drawn,
    and `left_out` what was not, empty if nothing is missing.
    """

    def __init__(self, scene: Scene, title: str, theme: Theme = "auto", height: int = 600, seed: int = 0) -> None:
        self._drawing = Drawing(scene, seed)
        self.title = title
        self.chosen = scene.chosen
        self.left_out = scene.left_out
        self._theme = theme
        self._height = height

    @property
    def nodes(self) -> list[Node]:
        """The nodes that are drawn."""
        return list(self._drawing.scene.nodes)

    @property
    def links(self) -> list[Link]:
        """The links that are drawn; `supports` leads from a node to a hit whose score it raised."""
        return list(self._drawing.scene.links)

    @cached_property
    def positions(self) -> dict[str, tuple[float, float]]:
        """Where each node lies, by its id: x and y in pixels from the middle, y downwards."""
        return {mark.node.id: (mark.x, mark.y) for mark in self._drawing.marks}

    def html(self) -> str:
        """Return the interactive picture as an HTML page that needs no other file and no network."""
        return page(self._drawing, self.title, self._theme)

    def svg(self) -> str:
        """Return the static picture as SVG; with the theme `"auto"` it is dark where the reader prefers that."""
        return svg(self._drawing, self.title, self._theme)

    def png(self, scale: float = 2.0) -> bytes:
        """Return the static picture as PNG, with *scale* pixels for each of SVG's.

        Raises:
            MissingDependency: The package resvg-py is not installed; it is in the extra `notebook`.
            InvalidInput: *scale* is not a number from 0.1 to 10.
        """
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0.1 <= scale <= 10:
            raise InvalidInput(f"The scale of a PNG must be a number from 0.1 to 10, not {shown(scale)}.")
        with extra("notebook", module="resvg_py"):
            import resvg_py
        static = svg(self._drawing, self.title, "light" if self._theme == "auto" else self._theme)
        return bytes(resvg_py.svg_to_bytes(svg_string=static, zoom=scale))

    def mermaid(self) -> str:
        """Return the picture as a Mermaid flowchart; Mermaid itself draws at most 500 links unless told otherwise."""
        return mermaid(self._drawing, self.title)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to *path* in the format of its ending: .html, .svg, .png, .mmd or .mermaid.

        A file that is there already is replaced.

        Raises:
            InvalidInput: The ending names no format.
            MissingDependency: See `png`.
        """
        target = Path(path)
        match target.suffix.lower():
            case ".html" | ".htm":
                content = self.html().encode("utf-8")
            case ".svg":
                content = self.svg().encode("utf-8")
            case ".png":
                content = self.png()
            case ".mmd" | ".mermaid":
                content = self.mermaid().encode("utf-8")
            case _:
                raise InvalidInput(
                    f"{str(path)!r} ends in no format of a picture. Choose one of: {', '.join(_FORMATS)}."
                )
        target.write_bytes(content)
        return target

    def _repr_html_(self) -> str:
        return frame(self._drawing, self.title, self._theme, self._height)

    def __repr__(self) -> str:
        return f"<Picture: {self.chosen}; {'; '.join(filter(None, [self._drawing.counts, self.left_out]))}>"


def show(
    memory: MemoryGraph,
    about: Any = None,
    *,
    session: str | None = None,
    query: str | None = None,
    k: int = 10,
    depth: int | None = None,
    kinds: str | Sequence[str] | None = None,
    limit: int = 300,
    title: str | None = None,
    theme: Theme = "auto",
    height: int = 600,
    seed: int = 0,
) -> Picture:
    """Return a picture of *memory*: the whole of it, or what one argument says.

    *about* is `Hits`, the id of a node, or several ids; around nodes, what at most *depth* links (2) lead to is drawn.
    *session* draws a conversation, *query* the best *k* hits that `recall` finds, with what supported them. *kinds* of
    nodes are drawn, all if it is None; with a *query*, hits are of these kinds.

    At most *limit* nodes are drawn (2,000 are the most): of a whole memory the newest and what they are linked to
    most, around nodes the nearest. What is left out is said in the picture. *title* stands above it, *theme* is
    `"light"`, `"dark"` or `"auto"`, *height* that in a notebook, in pixels. The places follow from the nodes, the links
    and the *seed* alone.

    Raises:
        InvalidInput: An argument cannot be understood, or does not go with another.
        NodeNotFound: There is no such node or session.
    """
    given = [name for name, what in (("about", about), ("session", session), ("query", query)) if what is not None]
    if len(given) > 1:
        raise InvalidInput(f"A picture is of one thing: pass {' or '.join(given)}, not {' and '.join(given)}.")
    if theme not in get_args(Theme):
        raise InvalidInput(f"{shown(theme)} is no theme. Choose one of: {', '.join(get_args(Theme))}.")
    if not 1 <= checked_count(limit, "the limit") <= MOST:
        raise InvalidInput(f"A picture may have from 1 to {MOST:,} nodes, not {limit!r}.")
    if not 100 <= checked_count(height, "the height") <= 10_000:
        raise InvalidInput(f"The height must be from 100 to 10,000 pixels, not {height!r}.")
    checked_count(seed, "the seed")
    if depth is not None and (about is None or isinstance(about, Hits)):
        raise InvalidInput(f"The depth ({depth!r}) is that around nodes. Pass their ids, or leave it out.")
    if kinds is not None and isinstance(about, Hits):
        raise InvalidInput(f"Hits are drawn whatever kind they are. Search with kinds={kinds!r} instead.")
    wanted = None if kinds is None else checked_ids(kinds, "a kind of node")
    if query is not None:
        scene = found(memory, memory.recall(checked_text(query, "a question"), k, kinds=wanted), query, limit)
    elif session is not None:
        scene = of_session(memory, session, wanted, limit)
    elif about is not None:
        scene = of_what(memory, about, depth, wanted, limit)
    else:
        scene = everything(memory, wanted, limit)
    name = "" if memory.namespace == "default" else f", {memory.namespace}"
    heading = title if title is not None else f"{os.path.basename(memory.db_path) or memory.db_path}{name}"
    return Picture(scene, checked_text(heading, "a title"), theme, height, seed)
