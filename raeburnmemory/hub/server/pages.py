"""The browser client's files, and what a browser may do with them."""

from __future__ import annotations

import base64
import hashlib
import html
import mimetypes
import os
import re
from pathlib import Path
from typing import Any

from ...errors import InvalidInput

__all__ = ["Pages", "described"]

INDEX = "/index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".txt": "text/plain; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".json": "application/json",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".webp": "image/webp",
    ".woff2": "font/woff2", ".map": "application/json", ".webmanifest": "application/manifest+json",
}  # fmt: skip
_SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script\s*>", re.IGNORECASE | re.DOTALL)
# Of our own client nothing is a script but its files, and no text can be made into HTML: its calls that would parse one
# are turned off by the browser, where that knows how to.
_OWN_RULES = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'none'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-src 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_FOREIGN_RULES = (
    "default-src 'self'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_WITHOUT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>RaeburnMemory hub</title></head><body><main>
<h1>The hub runs</h1>
<p>This installation brings no browser client. Start the hub with <code>--client-path FOLDER</code> to serve one that
was built, or use the <a href="/docs">API</a>.</p>
</main></body></html>
"""


class Pages:
    """The files of the client in *folder*; with *foreign* it is one that was built elsewhere, inline scripts and all.

    Which files there are is looked up once: no path that somebody asks for ever reaches the file system.

    Raises:
        InvalidInput: There is no index.html in *folder*.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, *, foreign: bool = False) -> None:
        self._files: dict[str, Path] = {}
        if folder is not None:
            self._files = _files(Path(folder).expanduser())
            if INDEX not in self._files:
                raise InvalidInput(
                    f"There is no index.html in {os.fspath(folder)!r}. Name the folder of a built client."
                )
        self.rules = _OWN_RULES
        if foreign:
            scripts = "".join(f" '{digest}'" for digest in _inline(self._files[INDEX].read_text("utf-8", "replace")))
            self.rules = _FOREIGN_RULES.format(scripts=scripts)

    def find(self, path: str, accept: str) -> tuple[bytes, str] | None:
        """Return the bytes and the type of what is asked for: a file, or the client itself where a page is wanted."""
        file = self._files.get(path)
        if file is None and ("text/html" in accept or path == "/"):
            if not self._files:
                return _WITHOUT.encode(), _TYPES[".html"]
            file = self._files[INDEX]
        if file is None:
            return None
        ending = file.suffix.lower()
        return file.read_bytes(), _TYPES.get(ending) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"


def _files(folder: Path) -> dict[str, Path]:
    root = folder.resolve()
    found = {}
    for at, _, names in os.walk(root):
        for name in names:
            path = Path(at, name)
            if not path.is_symlink():
                found["/" + path.relative_to(root).as_posix()] = path
    return found


def _inline(text: str) -> list[str]:
    """Return the digests of the scripts that stand in a page, as a policy names them."""
    return [
        "sha256-" + base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        for attributes, body in _SCRIPT.findall(text)
        if not re.search(r"\bsrc\s*=", attributes, re.IGNORECASE) and body
    ]


def described(document: dict[str, Any]) -> str:
    """Return a page that lists what the API can do; it needs no script, and nothing from elsewhere."""
    rows = [
        f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(str(about.get('summary', '')))}</td></tr>"
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    ]
    title = html.escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body><main>'
        f'<h1>{title}</h1><p>All of it, for programs: <a href="/openapi.json">openapi.json</a></p>'
        f"<table><thead><tr><th>Method</th><th>Path</th><th>What it does</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></main></body></html>"
    )
