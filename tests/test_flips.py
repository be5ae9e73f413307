"""One bit flipped anywhere, in any file of either store: found, or without any effect. Never a wrong answer, never a crash.

What "found" means hangs on what a file can tell. A file with a digest raises when it is read, and `verify` says so. A
cache is made again. A SQLite database has no checksums of its pages: there `verify` says so, or its digests differ from
those of before, or nothing differs at all. And the newest change of a log may be missing, because that is what a crash
leaves there. `repair` then makes a memory that `verify` finds sound, and names what is lost.
"""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest
from faults import Traceback, Zygote, rounds
from flipping import CALLS, asked, fill, verified
from outside import LOCKS

from raeburnmemory._optional import installed

FLIPS = int(os.environ.get("RAEBURN_FLIPS", "6"))  # per kind of file
MANY = 1200  # nodes, so that an index is worth saving
VECTORS = ".faiss" if installed("faiss") else ".vectors.npy"

# Kind of file: the memory, the file, and what "found" means for it.
KINDS = {
    "graph": ("g.json", "g.json", "digest"),
    "journal": ("g.json", "g.json.journal", "digest"),
    "vectors": ("g.json", f"g.json{VECTORS}", "digest"),
    "vectors, npy": ("g.npy.json", "g.npy.json.response.vectors.npy", "digest"),
    "description": ("g.json", "g.json.vectors.json", "digest"),
    "map": ("g.json", "g.json.map.json", "for others"),
    "lock": ("g.json", "g.json.lock", "nothing"),
    "database": ("g.db", "g.db", "no digest"),
    "log": ("g.db", "g.db-wal", "log"),
    "shared memory": ("g.db", "g.db-shm", "nothing"),
    "index": ("g.db", "g.db.prompt.index", "cache"),
    "words": ("g.db", "g.db.words.index", "cache"),
}


@pytest.fixture(scope="module")
def zygote():
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    """Return a function that gives a folder with a memory, as a running program has it, or one that was closed."""
    made = {}

    def at(name, *, many=0, running=True):
        key = name, many, running
        if key not in made:
            folder = tmp_path_factory.mktemp("flips")
            with pytest.MonkeyPatch.context() as patch:
                if ".npy." in name:
                    patch.setitem(__import__("sys").modules, "faiss", None)
                memory = fill(folder / name, many=many)
                if running:
                    shutil.copytree(folder, folder.with_name(folder.name + "-running"))
                memory.close()
            made[key] = folder.with_name(folder.name + "-running") if running else folder
        return made[key]

    return at


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit(zygote, memories, tmp_path, kind):
    name, file, meaning = KINDS[kind]
    source = memories(name, many=MANY if meaning == "cache" else 0, running=kind not in {"database", "index", "words"})
    size = (source / file).stat().st_size
    assert size
    shutil.copytree(source, tmp_path / "peace")
    base, expected = verified(tmp_path / "peace" / name), asked(tmp_path / "peace" / name, CALLS, read_only=True)
    assert base["sound"]
    assert not [each for each in expected.values() if str(each).startswith("raised")]
    dice, found = random.Random(f"flips {kind}"), 0
    with rounds(f"a bit flipped, {kind}", name) as count:
        for number in range(FLIPS):
            at, bit = dice.randrange(size), dice.randrange(8)
            here = tmp_path / f"flip-{number}"
            shutil.copytree(
                source, here, ignore=shutil.ignore_patterns(*(f"*{end}" for end in LOCKS if end not in file))
            )
            how = "cache" if meaning == "cache" else "all"
            with zygote.child(tmp_path / f"life-{number}", "looked", here / name, file, at, bit, how) as child:
                pass
            with count.round(f"byte {at}, bit {bit} of {size}", acknowledged=len(expected["data"]["nodes"])):
                if child.code:
                    raise Traceback(f"it ended with {child.code}: {child.err[-2000:]}")
                child.clean()
                found += judge(json.loads(child.out), meaning, base, expected, file)
            for folder in (here, here.with_name(f"{here.name}-kept"), tmp_path / f"life-{number}"):
                shutil.rmtree(folder, ignore_errors=True)
    assert found or meaning in {"nothing", "no digest"}


def judge(told, meaning, base, expected, file):
    """Whether the flip was found; whatever else came of it must be allowed for the kind of file."""
    verify = told["verify"]
    assert not verify["raised"] or file.split(".")[0] in verify["raised"]
    unlike = {
        f"{who}: {what}": answer
        for who in ("read", "write", "after")
        for what, answer in told.get(who, {}).items()
        if answer != expected[what]
    }
    raised = {what for what, answer in unlike.items() if str(answer).startswith("raised ")}
    assert all(file.split(".")[0] in unlike[what] for what in raised), "an error names no file"
    wrong = {what for what in unlike if what not in raised and not what.startswith("after")}
    if meaning in {"nothing", "cache", "for others"}:
        assert not unlike, f"{sorted(unlike)} differ"
        assert meaning != "nothing" or verify["sound"]
        assert meaning == "nothing" or not verify["sound"]
    elif meaning == "digest":
        # With its vectors lost, a memory still recalls by words; that it does so is the answer of `similar`.
        assert not wrong - {"read: recall"}, f"{sorted(wrong)} are wrong"
        assert not verify["sound"]
        assert raised
    elif meaning == "log":
        # The newest change may be missing, and that one alone: it cannot be told from one that was not finished.
        if wrong:
            there = {node["id"] for node in told["read"]["data"]["nodes"]}
            assert {node["id"] for node in expected["data"]["nodes"]} <= there
            assert there - {"p21", "r21"} == {node["id"] for node in expected["data"]["nodes"]} - {"p21", "r21"}
        else:
            assert raised
            assert not verify["sound"]
    elif wrong or raised or verify["digests"] != base["digests"]:
        assert not verify["sound"] or verify["digests"] != base["digests"], f"{sorted(unlike)} and nobody says so"
    if "repair" in told:
        check_repair(told, meaning, unlike)
    return not verify["sound"] or verify["digests"] != base["digests"]


def check_repair(told, meaning, unlike):
    repair = told["repair"]
    if repair["raised"]:  # nothing was changed, and it says what helps
        assert repair["raised"].startswith(("StoreCorrupt", "StoreTooNew"))
        assert "restore" in repair["raised"] or "newer" in repair["raised"], repair["raised"]
        return
    assert repair["sound"], repair
    assert told["again"]["sound"], told["again"]
    after = {what for what in unlike if what.startswith("after")}
    assert not after or repair["lost"] or meaning in {"no digest", "log"}, (
        f"{after} differ, and nothing is named as lost"
    )
