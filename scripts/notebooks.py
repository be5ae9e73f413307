"""Run a notebook of the documentation and write it with its outputs, in place or elsewhere.

    python scripts/notebooks.py docs/notebooks/a-first-memory.ipynb [TARGET]

It runs in an empty folder with a home of its own, offline, and none of this machine's settings. What changes from run
to run without meaning anything (times, versions) is left out. Needs nbclient and ipykernel.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(source: Path, target: Path) -> None:
    """Run the notebook at *source* and write it to *target*."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(source, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in os.environ if name.startswith("RAEBURN_")]:
            del os.environ[name]
        for name in ("HOME", "USERPROFILE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
            os.environ[name] = str(Path(folder) / "home")
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        work = Path(folder) / "work"
        work.mkdir()
        NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(work)}}
        ).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # when it ran
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    shown = nbformat.writes(notebook).replace(f"{work}{os.sep}", "")
    target.write_text(shown + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[-1]))
