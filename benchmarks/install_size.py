"""How much an installation takes: `python -m benchmarks.install_size . chromadb mem0ai`.

Each argument is what pip would be given; it is installed into a folder of its own, without compiled Python, and what
came is counted: distributions, bytes of their files, and the version of the first. `--of FOLDER` counts what an
environment holds already. Without a network, or where a package cannot be had, its row says why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# What an environment begins with; nobody installed it for the sake of a package.
_BROUGHT = {"pip", "setuptools", "wheel"}


@dataclass(frozen=True)
class Size:
    """How many distributions there are, of how many bytes, and which versions they have, by name."""

    distributions: int
    bytes: int
    versions: dict[str, str]


def size_of(folder: Path) -> Size:
    """Count what lies in *folder*, the packages of an environment; compiled Python counts for nothing."""
    versions = {
        found.metadata["Name"].lower().replace("_", "-"): found.version
        for found in metadata.distributions(path=[str(folder)])
    }
    for name in _BROUGHT:
        versions.pop(name, None)
    total = sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".pyc"
        and path.relative_to(folder).parts[0].partition("-")[0].lower() not in {*_BROUGHT, "_distutils_hack"}
    )
    return Size(len(versions), total, versions)


def site_of(environment: Path) -> Path:
    """Return the folder with the packages of a virtual environment."""
    (found,) = [*environment.glob("lib/python*/site-packages"), *environment.glob("Lib/site-packages")]
    return found


def installed_size(wanted: str, limit: float) -> Size:
    """Install *wanted* into a folder that goes again, and count it.

    Raises:
        RuntimeError: pip could not; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="install-size-") as folder:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check"]
        try:
            done = subprocess.run(
                [*command, "--target", folder, wanted], capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not installed within {limit:g} s") from None
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or "pip failed").splitlines()[-1])
        return size_of(Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description="How much an installation takes.")
    parser.add_argument("wanted", nargs="*", help="what pip would be given: a name, a folder, a wheel")
    parser.add_argument("--of", metavar="ENVIRONMENT", help="count what this virtual environment holds")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one installation; %(default)s")
    parser.add_argument("--budget", type=float, metavar="MB", help="end with 1 if anything takes more")
    given = parser.parse_args()
    over = False
    print(f"{'what':<24} {'version':<12} {'distributions':>13} {'MB':>7}")
    for wanted in [*([given.of] if given.of else []), *given.wanted]:
        try:
            size = size_of(site_of(Path(wanted))) if wanted == given.of else installed_size(wanted, given.limit)
        except RuntimeError as exc:
            print(f"{wanted:<24} {exc}")
            over = True
            continue
        name = wanted.partition("[")[0].partition("=")[0].lower()
        version = size.versions.get(name, size.versions.get("raeburnmemory", "-"))
        print(f"{wanted:<24.24} {version:<12} {size.distributions:>13} {size.bytes / 1e6:>7.1f}", flush=True)
        over = over or (given.budget is not None and size.bytes > given.budget * 1e6)
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
