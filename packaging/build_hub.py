"""Bundle the hub into programs that need no Python: one file, and one folder, for the system that this runs on.

    pip install '.[hub,bundle]'
    python packaging/build_hub.py [onedir] [onefile] [--dist FOLDER]

On GNU/Linux it makes `dist/memory-cache-hub-gnu-linux` and, faster to start, the folder
`dist/memory-cache-hub-gnu-linux.d` with a program of the same name in it; elsewhere the names end in `-macos` and
`-windows.exe`. What may be bundled is what is installed, so build in an environment that holds nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "raeburnmemory"
NAME = "memory-cache-hub-" + {"darwin": "macos", "win32": "windows"}.get(sys.platform, "gnu-linux")
SUFFIX = ".exe" if sys.platform == "win32" else ""
KINDS = ("onedir", "onefile")

# The files of our package that are no code. A test compares this with what is there.
DATA = (
    "embed/builtin.npz",  # the vectors of the builtin embedder
    "exporters/jsonl.schema.json",
    "hub/client/**/*",  # the browser client
    "hub/models/catalogue.json",
    "picture/page.*",
    "py.typed",
)
CODE = {".py", ".pyc"}
# Packages that read files of their own and have no hook that says so: boilerplate removal, word lists, domains.
THEIRS = ("trafilatura", "justext", "tld")
# Modules of ours that are imported by a name that is made up at run time.
LAZY = (
    "raeburnmemory.exporters",
    "raeburnmemory.hub",
    "raeburnmemory.importers",
)
# Never needed by the hub, and large: they come in where they happen to be installed.
EXCLUDED = [
    "IPython", "PIL", "PyQt5", "PyQt6", "PySide6", "hypothesis", "langchain_core", "langgraph", "matplotlib", "mkdocs",
    "mypy", "openai", "pandas", "pkg_resources", "pytest", "scipy", "setuptools", "sklearn", "tkinter", "torch",
    "transformers",
]  # fmt: skip


def data_files() -> list[tuple[str, str]]:
    """Return the files of our package that are no code, each with the folder that it has in a bundle."""
    found = {path for pattern in DATA for path in PACKAGE.glob(pattern) if path.is_file() and path.suffix not in CODE}
    return [(str(path), path.parent.relative_to(ROOT).as_posix()) for path in sorted(found)]


def program(kind: str, dist: Path) -> Path:
    """Return where the program of *kind* is."""
    return dist / f"{NAME}.d" / f"{NAME}{SUFFIX}" if kind == "onedir" else dist / f"{NAME}{SUFFIX}"


def build(kinds: list[str], dist: Path, work: Path) -> list[Path]:
    """Make the bundles, and return their programs."""
    command = [
        sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=WARN", f"--distpath={dist}",
        f"--workpath={work}", str(ROOT / "packaging" / "hub.spec"), "--", *kinds,
    ]  # fmt: skip
    # Sets are written in the order of their hashes: with one seed, the same environment gives the same program.
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return [program(kind, dist) for kind in kinds]


def size(path: Path) -> int:
    """Return how many bytes a file, or all files of a folder, have."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file() and not each.is_symlink())


def glibc(folder: Path) -> str | None:
    """Return the version of glibc that what is in *folder* needs, or None where that cannot be told."""
    tool = shutil.which("objdump")
    if sys.platform != "linux" or tool is None:
        return None
    needed = {(2, 0)}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            told = subprocess.run([tool, "-T", str(path)], capture_output=True, text=True, check=False).stdout
            needed |= {(int(one), int(two)) for one, two in re.findall(r"\bGLIBC_(\d+)\.(\d+)", told)}
    return ".".join(map(str, max(needed)))


def main() -> None:
    """Build what the arguments name, start each once, and say how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "kinds", nargs="*", choices=[*KINDS, []], metavar="onedir|onefile", help="both if none is named"
    )
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "hub")
    given = parser.parse_args()
    kinds = given.kinds or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"{sorted(unknown)} are none of {', '.join(KINDS)}")
    for kind, made in zip(kinds, build(kinds, given.dist.resolve(), given.work.resolve()), strict=True):
        subprocess.run([str(made), "--version"], check=True, timeout=120)
        whole = made if kind == "onefile" else made.parent
        print(f"{kind}: {made}, {size(whole) / 1e6:.0f} MB")
        if kind == "onedir" and (version := glibc(whole)):
            print(f"It runs where glibc is {version} or newer.")


if __name__ == "__main__":
    main()
