"""Make the browser extension's two archives, for Firefox and for Chromium, from the one source in `extension/`.

`manifest.json` holds what both have in common, `manifest.firefox.json` and `manifest.chromium.json` what they differ
in. The archives hold the files as they are, sorted, uncompressed and with one fixed date: whoever builds them from the
same source gets the same bytes, whatever the machine and its zlib.

    python packaging/build_extension.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "extension"
BROWSERS = ("firefox", "chromium")

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that an archive can hold
_FILES = {".html", ".css", ".js", ".png"}  # what goes in; manifests are made, the rest is for developers


def manifest(browser: str) -> bytes:
    """Return the manifest for *browser*, one of `BROWSERS`."""
    common = json.loads((SOURCE / "manifest.json").read_bytes())
    own = json.loads((SOURCE / f"manifest.{browser}.json").read_bytes())
    if both := common.keys() & own.keys():
        raise SystemExit(f"{sorted(both)} stand in manifest.json and in manifest.{browser}.json. Leave one of them.")
    return (json.dumps(common | own, indent=2) + "\n").encode()


def contents(browser: str) -> dict[str, bytes]:
    """Return the files of the extension for *browser* by their names, sorted."""
    found = {
        path.relative_to(SOURCE).as_posix(): path.read_bytes()
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix in _FILES
    }
    found["manifest.json"] = manifest(browser)
    return dict(sorted(found.items()))


def build(folder: Path) -> list[Path]:
    """Write both archives into *folder*, and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for browser in BROWSERS:
        path = folder / f"raeburnmemory-extension-{browser}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents(browser).items():
                about = zipfile.ZipInfo(name, _DATE)
                about.external_attr = 0o100644 << 16
                about.create_system = 3  # or Windows would write another number
                archive.writestr(about, data)
        made.append(path)
    return made


if __name__ == "__main__":
    for written in build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist")):
        print(f"{written}  {written.stat().st_size:,} bytes")
