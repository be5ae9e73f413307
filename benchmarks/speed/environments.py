"""A Python of its own for every peer, made when it is first asked for and kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

__all__ = ["default_cache", "python_for"]


def default_cache() -> Path:
    """Return the folder that environments are kept in if none is named."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home or tempfile.gettempdir(), "raeburnmemory-benchmarks")


def python_for(packages: Sequence[str], cache: Path, limit: float) -> str:
    """Return the Python of an environment with *packages*, that of this process if there are none.

    Raises:
        RuntimeError: They could not be installed within *limit* seconds; the message ends with pip's last words.
    """
    if not packages:
        return sys.executable
    name = f"{packages[0]}-py{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed.json"
    if done.exists() and json.loads(done.read_text("utf-8")) == list(packages):
        return str(python)
    print(f"installing {' '.join(packages)} in {folder}", file=sys.stderr, flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    venv.create(folder, clear=True)  # without a pip of its own, which takes seconds: ours can install there
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, *packages]
    try:
        pip = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"installing {' '.join(packages)} took more than {limit:.0f} s") from None
    if pip.returncode:
        last = (pip.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise RuntimeError(f"installing {' '.join(packages)} failed: {last}")
    done.write_text(json.dumps(list(packages)), "utf-8")
    return str(python)
