"""What the tests share that kill a memory, or fail its system calls, and then look whether it kept its word.

Each of them counts what it did in `LEDGER`, which pytest shows at the end as one table. A round that goes wrong does
not end the others: it is counted as what it is (lost, failed open, wrong answer, traceback), and the test fails when
all rounds are over. `RAEBURN_CRASH_ROUNDS` sets how many random kills there are per store, `RAEBURN_CRASH_POINTS` how
many system calls of each kind are failed (`all` for every one).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from outside import HERE, add, check_whole, end, environment, open_memory

from raeburnmemory.errors import MemoryGraphError, StoreMissing

ROUNDS = int(os.environ.get("RAEBURN_CRASH_ROUNDS", "12"))
SHOWN = int(os.environ.get("RAEBURN_CRASH_SHOWN", "3"))
POINTS = os.environ.get("RAEBURN_CRASH_POINTS", "few")

# Stores to be treated badly; one with vectors in numpy's files (see `lives.child`) in the long form.
STORES = ["g.json", "g.db", pytest.param("g.npy.json", marks=pytest.mark.long)]

# What a life may do to the disk.
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "openat")


# --- the ledger -------------------------------------------------------------------------------------------------


class Lost(AssertionError):
    """Something acknowledged is not there, or not whole."""


class FailedOpen(AssertionError):
    """The memory did not open by itself."""


class Traceback(AssertionError):
    """An error that is none of ours came out."""


@dataclass
class Row:
    """One line of the table: a kind of fault and a store."""

    rounds: int = 0
    injected: int = 0
    acknowledged: int = 0
    lost: int = 0
    failed_opens: int = 0
    wrong: int = 0
    tracebacks: int = 0
    problems: list[str] = field(default_factory=list)


LEDGER: dict[tuple[str, str], Row] = {}


class Rounds:
    """The rounds of one test."""

    def __init__(self, row):
        self.row = row

    @contextlib.contextmanager
    def round(self, what, *, faults=1, acknowledged=0):
        """Count one round; what goes wrong in the block is counted too, and does not come out."""
        self.row.rounds += 1
        self.row.injected += faults
        self.row.acknowledged += acknowledged
        try:
            yield
        except AssertionError as exc:
            name = {Lost: "lost", FailedOpen: "failed_opens", Traceback: "tracebacks"}.get(type(exc), "wrong")
            setattr(self.row, name, getattr(self.row, name) + 1)
            self.row.problems.append(f"{what}: {type(exc).__name__}: {exc}")
        except Exception as exc:  # noqa: BLE001 - whatever came out of the library
            self.row.tracebacks += 1
            self.row.problems.append(f"{what}: {exc!r}")


@contextlib.contextmanager
def rounds(kind, store):
    """Yield what counts the rounds of one kind of fault; at the end none may have gone wrong."""
    row = LEDGER.setdefault((kind, store), Row())
    before = len(row.problems)
    yield Rounds(row)
    found = row.problems[before:]
    assert not found, f"{len(found)} of {row.rounds} rounds went wrong, the first of them:\n" + "\n".join(
        each[:2000] for each in found[:SHOWN]
    )


def table():
    """Return the ledger as lines of text."""
    heads = ["fault", "store", "rounds", "injected", "acknowledged", "lost", "failed opens", "wrong", "tracebacks"]
    lines = [
        [kind, store, r.rounds, r.injected, r.acknowledged, r.lost, r.failed_opens, r.wrong, r.tracebacks]
        for (kind, store), r in sorted(LEDGER.items())
    ]
    total = ["all", "", *(sum(line[i] for line in lines) for i in range(2, len(heads)))]
    cells = [[str(cell) for cell in line] for line in [heads, *lines, total]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return [
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]


# --- looking afterwards -----------------------------------------------------------------------------------------


def acknowledged(out):
    return ["p" + line.split()[1] for line in out.splitlines() if line.startswith("ACK ")]


def check_after(path, acked, at_most_more):
    """Open the store as anybody would; return the ids of its prompts."""
    for read_only in (True, False):  # whoever only reads comes first: nobody has tidied up yet
        try:
            memory = open_memory(path, read_only=read_only, timeout=10)
        except StoreMissing as exc:
            if not read_only or acked:
                raise FailedOpen(str(exc)) from exc
            continue
        except (MemoryGraphError, OSError) as exc:
            raise FailedOpen(f"{'to read' if read_only else 'to write'}: {exc!r}") from exc
        with memory:
            there = [node.id for node in memory.nodes("prompt")]
            if not set(acked) <= set(there):
                raise Lost(f"{sorted(set(acked) - set(there))} of {len(acked)}")
            assert len(there) <= len(acked) + at_most_more, f"{sorted(set(there) - set(acked))} are there as well"
            if there:
                check_whole(memory, there)
                text = memory.get(there[-1]).text
                assert memory.similar(text, 1)[0].score > 0.999
            else:
                assert len(memory) == 0
    with open_memory(path, timeout=10) as memory:
        add(memory, "after the crash")
        assert memory.similar("thing after the crash", 1).ids == ["pafter the crash"]
        memory.forget(["pafter the crash", "rafter the crash"])
        if not there:
            memory.forget("agent")
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    else:
        json.loads(path.read_text())
    return there


# --- lives in processes of their own ----------------------------------------------------------------------------


class Zygote:
    """A process that has imported everything and whose children live the functions of `lives`."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "lives.py")],
            env=environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _read(self):
        line = self._process.stdout.readline()
        assert line, "the process that makes the others is gone"
        return line.strip()

    @contextlib.contextmanager
    def child(self, folder, life, *args, stopped=False):
        """Start *life*; what it says goes to *folder*. At the end of the block it must be over, or about to be."""
        found = Child(folder)
        job = {"life": life, "args": [str(arg) for arg in args], "out": str(found.out_path), "stopped": stopped}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        found.pid = int(self._read())
        if stopped:
            assert self._read() == "stopped"
        yield found
        found.code = int(self._read())
        found.out, found.err = (path.read_text() if path.exists() else "" for path in (found.out_path, found.err_path))

    def close(self):
        end(self._process)


class Child:
    """A life: how it ended, and what it said until then."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.out_path, self.err_path = folder / "out", folder / "out.err"
        self.pid, self.code, self.out, self.err = 0, None, "", ""

    def said(self):
        """Whether it has said anything yet."""
        with contextlib.suppress(OSError):
            return os.stat(self.out_path).st_size > 0
        return False

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def clean(self):
        """No error of its own making came out."""
        if "Traceback" in self.err:
            raise Traceback(self.err[-3000:])


class Strace:
    """A strace that attaches to a stopped life, and fails, kills or counts its system calls."""

    def __init__(self, command, zygote, folder):
        self.command, self.zygote, self.folder = command, zygote, folder
        self._number = 0

    def run(self, options, life, *args):
        """Live *life* under strace with *options*; return the child and what strace logged."""
        self._number += 1
        here = self.folder / f"life-{self._number}"
        log = here / "log"
        with self.zygote.child(here, life, *args, stopped=True) as child:
            tracer = subprocess.Popen(
                [*self.command, "-o", str(log), *options, "-p", str(child.pid)], stderr=subprocess.PIPE, text=True
            )
            try:
                line = tracer.stderr.readline()
                assert "attached" in line, line
                os.kill(child.pid, signal.SIGCONT)
                tracer.wait(120)
            finally:
                child.kill()
                end(tracer)
        lines = log.read_text(errors="replace")
        shutil.rmtree(here)
        return child, lines

    def count(self, life, *args):
        """Live in peace; return the child and how many system calls of each kind it made."""
        child, log = self.run(["-e", f"trace={','.join(CALLS)}"], life, *args)
        assert child.code == 0, child.err
        names = [line.split(None, 1)[1].partition("(")[0] for line in log.splitlines() if "(" in line]
        return child, Counter(name for name in names if name in CALLS)


def tools(tmp_path_factory):
    """Yield a `Strace`; skip where there is none, or none that works."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed: apt install strace")
    command = [found, "-f"]  # without --seccomp-bpf, with which strace 6.1 injects no signals
    trial = subprocess.run(
        [*command, "-qq", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=9", "-o", os.devnull, "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode:
        pytest.skip(f"strace does not work here: {trial.stderr.strip()}")
    zygote = Zygote()
    try:
        yield Strace(command, zygote, tmp_path_factory.mktemp("lives"))
    finally:
        zygote.close()


def points(counts, names, few):
    """Return (name, number) pairs: every call of *names*, or *few* of each spread over them."""
    chosen = []
    for name in names:
        n = counts.get(name, 0)
        some = n if POINTS == "all" else min(n, few)
        chosen += [(name, number) for number in sorted({int(n * (i + 0.7) / some) + 1 for i in range(some)})]
    return chosen
