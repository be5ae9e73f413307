"""Check what a graphics card does here: embedding with sentence-transformers, and the layers of a llamafile on it.

    python scripts/check_gpu.py --embedding all-MiniLM-L6-v2 --llamafile PATH

Where there is no card it says so, and ends with 3: nothing was checked. It ends with 1 if a check failed, with 0 if all
that was named passed. `--embedding` needs the extra `sentence-transformers` with a torch for the card, `--llamafile` a
llamafile or, with `--runtime`, a GGUF file for that program; it needs the extra `hub`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = 3
# What tells of a card, and how each is called where models are run.
TOOLS = {
    "nvidia": ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
    "amd": ("rocm-smi", "--showproductname", "--csv"),
}
SENTENCES = [f"Sentence number {n} is about {about}." for n in range(64) for about in ("bees", "pears", "the harbour")]
CLOSE = 0.9999  # the least cosine between one sentence on the card and on the processor


def cards() -> tuple[str, str] | None:
    """Return the vendor and the description of the cards here, None where there are none."""
    for vendor, (name, *options) in TOOLS.items():
        tool = shutil.which(name)
        if tool is None:
            continue
        done = subprocess.run([tool, *options], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0 and done.stdout.strip():
            return vendor, " | ".join(done.stdout.split("\n")).strip(" |")
    return None


def check_embedding(model: str, device: str = "cuda") -> str:
    """Embed on *device* and on the processor, compare, and return what came out. ROCm's torch says cuda, too."""
    from raeburnmemory.embed.sentence_transformers import SentenceTransformersEmbedder

    rows, seconds = {}, {}
    for each in ("cpu", device):
        embedder = SentenceTransformersEmbedder(model, device=each)
        embedder.embed(SENTENCES[:1])  # loads it
        began = time.perf_counter()
        rows[each] = embedder.embed(SENTENCES)
        seconds[each] = time.perf_counter() - began
    least = float(np.min(np.sum(rows["cpu"] * rows[device], axis=1)))
    if least < CLOSE:
        raise RuntimeError(f"a sentence has a cosine of only {least:.6f} to itself on the processor")
    return (
        f"{len(SENTENCES)} sentences in {seconds[device]:.2f} s, {seconds['cpu']:.2f} s on the processor, "
        f"least cosine between them {least:.6f}"
    )


def check_offload(path: Path, vendor: str, runtime: str | None = None) -> str:
    """Run *path* with all its layers on the card, ask it something, and return what it says of its layers.

    The manager ends a model that was to use a card and names no device of that vendor.
    """
    from raeburnmemory.hub.models.manager import LlamafileManager

    with tempfile.TemporaryDirectory() as folder, LlamafileManager(folder, runtime=runtime) as manager:
        name = manager.import_file(path, mode="link").name
        manager.start(name, gpu=vendor, timeout=600)
        lines = [line for line in manager.logs(name, 2000) if "offload" in line.lower()]
        began = time.perf_counter()
        with manager.client(name) as client:
            answer = client.chat("Say one word.", max_tokens=16)
        took = time.perf_counter() - began
        if not lines:
            raise RuntimeError("its log says nothing of layers on the card")
        return f"{lines[-1].strip()}; answered {str(answer)[:60]!r} in {took:.1f} s"


def main(given: list[str] | None = None) -> int:
    """Do what the arguments name, say what came out, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--embedding", metavar="MODEL", help="a name or a folder that sentence-transformers loads")
    parser.add_argument("--llamafile", metavar="PATH", type=Path)
    parser.add_argument("--runtime", metavar="PATH", help="llama-server or a llamafile, for a GGUF file")
    asked = parser.parse_args(given)
    found = cards()
    if found is None:
        tools = " and ".join(tool[0] for tool in TOOLS.values())
        print(f"There is no graphics card here: {tools} are missing or name none. Nothing was checked.")
        return NOTHING
    vendor, about = found
    print(f"card: {about}")
    checks: dict[str, Callable[[], str]] = {}
    if asked.embedding:
        checks["embedding"] = lambda: check_embedding(asked.embedding)
    if asked.llamafile:
        checks["llamafile"] = lambda: check_offload(asked.llamafile, vendor, asked.runtime)
    if not checks:
        print("Nothing was checked: name --embedding MODEL or --llamafile PATH.")
        return NOTHING
    failed = 0
    for name, check in checks.items():
        try:
            print(f"{name}: {check()}")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other check is done too
            print(f"{name}: FAILED: {type(exc).__name__}: {exc}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
