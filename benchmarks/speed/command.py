"""The command `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .catalogue import OURS, SYSTEMS
from .environments import default_cache
from .report import as_json, as_markdown
from .results import MEASURES
from .run import Run
from .stage import Options
from .workload import Clustered, Workload, Written

__all__ = ["main"]

WORKLOADS = {"clustered": Clustered, "written": Written}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write them to a folder if one is named."""
    parser = _parser()
    given = parser.parse_args(arguments)
    peers = [] if given.peers in {"", "none"} else given.peers.split(",")
    systems = _known(parser, [*given.systems.split(","), *peers], SYSTEMS, "system")
    options = Options(
        _sizes(parser, given.sizes),
        systems,
        _known(parser, given.measures.split(","), MEASURES, "measure"),
        given.rounds,
        given.questions,
        given.adds,
        given.limit,
        given.install_limit,
    )
    if min(options.rounds, options.questions, options.adds) < 1 or min(options.limit, options.install_limit) <= 0:
        parser.error("--rounds, --questions, --adds and the limits must be above 0")
    reference = given.reference or (peers or systems)[0]
    _known(parser, [reference], dict.fromkeys(systems), "system of this run")
    before = os.getloadavg()[0]
    workload: Workload = WORKLOADS[given.workload](given.seed)
    with tempfile.TemporaryDirectory(prefix="raeburnmemory-benchmarks-", dir=given.work) as work:
        run = Run(options, workload, Path(work), given.cache)

        def keep() -> str:
            about = _about(options, workload, run.versions, before)
            tables = as_markdown(run.results, about, reference)
            if given.out is not None:
                given.out.mkdir(parents=True, exist_ok=True)
                (given.out / "speed.json").write_text(json.dumps(as_json(run.results, about), indent=1), "utf-8")
                (given.out / "speed.md").write_text(tables, "utf-8")
            return tables

        for size in sorted(options.sizes):
            run.at(size, keep)
    print(keep(), end="")


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:18}{known.about}" for name, known in SYSTEMS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="How fast memories add, find and open, side by side in one run.",
        epilog="\n".join(["systems:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default="1000,10000", help="rows in the stores; default: %(default)s")
    parser.add_argument("--systems", default=",".join(OURS), help="those of our own; default: %(default)s")
    parser.add_argument("--peers", default="sqlite-vec,qdrant-edge,raw", help="default: %(default)s; 'none' for none")
    parser.add_argument("--measures", default=",".join(MEASURES), help="default: %(default)s")
    parser.add_argument("--reference", help="the system that ratios are taken to; default: the first peer")
    parser.add_argument("--workload", choices=WORKLOADS, default="clustered")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=20, help="of each kind in a round; default: %(default)s")
    parser.add_argument("--adds", type=int, default=200, help="in a round; default: %(default)s")
    parser.add_argument(
        "--limit",
        type=float,
        default=300,
        help="seconds that one system may take for one measure at one size; default: %(default)s",
    )
    parser.add_argument("--install-limit", type=float, default=900, help="seconds for installing one peer")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where peers are installed: %(default)s")
    parser.add_argument(
        "--work", type=Path, help="where the stores are made, on the disk to be measured; default: the system's"
    )
    parser.add_argument("--out", type=Path, help="a folder for speed.json and speed.md")
    return parser


def _known(parser: argparse.ArgumentParser, names: Sequence[str], known: Any, what: str) -> list[str]:
    for name in names:
        if name not in known:
            parser.error(f"no {what} is called {name!r}; there are: {', '.join(known)}")
    return list(dict.fromkeys(names))


def _sizes(parser: argparse.ArgumentParser, given: str) -> list[int]:
    try:
        sizes = [int(one) for one in given.split(",")]
    except ValueError:
        parser.error(f"--sizes must be whole numbers separated by commas, not {given!r}")
    if min(sizes) < 100:
        parser.error(f"--sizes must be 100 or more, not {min(sizes)}")
    return sizes


def _about(options: Options, workload: Workload, versions: dict[str, dict[str, str]], before: float) -> dict[str, Any]:
    loads = [before, *os.getloadavg()]
    machine = f"{os.cpu_count()} cores, {platform.system()} on {platform.machine()}, Python {platform.python_version()}"
    return {
        "machine": machine,
        "load": [f"{one:.1f}" for one in (min(loads), max(loads))],
        "workload": workload.name,
        "dim": workload.dim,
        "options": asdict(options),
        "versions": versions,
    }
