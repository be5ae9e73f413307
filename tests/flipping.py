"""A memory with one flipped bit, looked at as a whole: by `verify`, by readers, by writers, by `repair`.

Runs in a child process, which may be killed by what it reads; what it found goes out as one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import numpy.ma  # noqa: F401 - else every child imports it
from outside import fake, open_memory

from raeburnmemory import doctor
from raeburnmemory.errors import MemoryGraphError

SECONDS = 60
QUESTIONS = ("a red apple", "what was said as number 7", "the harbour")
LONG = " ".join(f"Sentence {n} tells of the harbour, the boats and the weather of that day." for n in range(30))


def fill(path, *, many=0):
    """Write a memory with something of everything to *path*, and leave its newest changes in the journal or the log."""
    memory = open_memory(path)
    memory.add_many([({"id": f"q{n}", "text": f"word {n} {n % 7} {n % 11}"}, None) for n in range(many)])
    memory.add_many(
        [
            (
                {"id": f"p{n}", "text": f"what was said as number {n}"},
                {"id": f"r{n}", "text": f"a red apple, answer {n}"},
                "ana",
                f"s{n % 3}",
            )
            for n in range(12)
        ]
    )
    memory.add_interaction({"id": "long", "text": LONG}, None, None, "s0")
    memory.update("p1", text="what was said instead")
    memory.fact("Ana", "lives in", "Vienna", id="f1", source="p1")
    memory.single_valued(["lives in"])
    memory.link("p2", "p3", "next", weight=0.5)
    memory.forget("p11")
    with open_memory(path, namespace="work") as work:
        work.add_interaction({"id": "p1", "text": "where is the stapler"}, {"id": "r1", "text": "in the drawer"})
    memory.similar("word")  # which saves an index of many
    memory.recall("word")  # and its words
    memory.close()
    memory = open_memory(path)
    for n in range(20, 24):
        memory.add_interaction({"id": f"p{n}", "text": f"a late apple number {n}"}, {"id": f"r{n}", "text": "late"})
    memory.forget("p21")
    return memory


CALLS = {
    "data": lambda memory: memory.export(False, all_namespaces=True),
    "similar": lambda memory: [[[h.id, round(h.score, 4)] for h in memory.similar(q, 5)] for q in QUESTIONS],
    "history": lambda memory: {
        node.id: [[old.text, dict(old.attributes)] for old in memory.history(node.id)] for node in memory
    },
    "facts": lambda memory: [fact.text for fact in memory.facts()],
    "declared": lambda memory: memory.single_valued(),
    "recall": lambda memory: [h.id for h in memory.recall("what was said as number 7", 5)],
}
FEW = ("data", "similar")


def asked(path, names, **options):
    """Return what calls give in the memory at *path*, by their names; for an error of ours, `"raised …"`."""
    found = {}
    try:
        with open_memory(path, timeout=5, **options) as memory:
            for name in names:
                try:
                    found[name] = json.loads(json.dumps(CALLS[name](memory), default=str))
                except MemoryGraphError as error:
                    found[name] = f"raised {type(error).__name__}: {error}"
    except MemoryGraphError as error:
        return dict.fromkeys(names, f"raised {type(error).__name__}: {error}")
    return found


def verified(path):
    try:
        report = doctor.verify(path, embedding_model=fake)
    except MemoryGraphError as error:
        return {"raised": str(error), "sound": False, "digests": {}, "codes": []}
    return {"raised": "", "sound": report.sound, "digests": report.digests, "codes": sorted(report.codes())}


def repaired(path):
    try:
        report = doctor.repair(path, embedding_model=fake, timeout=5)
    except MemoryGraphError as error:
        return {"raised": f"{type(error).__name__}: {error}", "sound": False, "lost": [], "done": []}
    return {"raised": "", "sound": report.sound, "lost": report.lost, "done": report.done}


def looked(path, name, at, bit, how):
    """Flip a bit of the file *name* beside the memory at *path*, look at it in every way, and say what there was.

    *how* is "all", or "cache" for a file that nothing depends on in a memory that takes long to look at.
    """
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    path = Path(path)
    victim = path.with_name(name)
    raw = bytearray(victim.read_bytes())
    raw[int(at)] ^= 1 << int(bit)
    victim.write_bytes(raw)
    if how == "cache":
        found = {"verify": verified(path), "read": asked(path, ["similar", "recall"], read_only=True)}
    else:
        kept = path.parent.with_name(path.parent.name + "-kept")
        shutil.copytree(path.parent, kept)
        found = {"verify": verified(path), "read": asked(path, CALLS, read_only=True), "write": asked(path, FEW)}
        path = kept / path.name
        found.update(repair=repaired(path), again=verified(path), after=asked(path, FEW))
    os.write(1, json.dumps(found).encode() + b"\n")
