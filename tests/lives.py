"""Short lives of a memory, to be ended by force: each is a function of a path that says `ACK <id>` once an add returned.

They run in children of one process that has imported everything (`zygote`), so that a life costs its own system calls
and nothing else: the imports of Python would be a hundred times as many.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

from erasing import Secrets, forget_planted, open_noise, plant
from flipping import looked  # noqa: F401 - a life
from outside import Fake, add, fake, open_memory

from raeburnmemory import doctor
from raeburnmemory.errors import ErasureIncomplete, MemoryGraphError, StoreError
from raeburnmemory.memory_graph import MemoryGraph

ADDS = 15


def say(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\n")  # not print, which may write a line in several pieces


def life(path, adds=ADDS):
    """Opened, *adds* adds, a fold after a third of them, closed and opened again after two thirds, closed."""
    memory = open_memory(path)
    for number in range(int(adds)):
        add(memory, number)
        say("ACK", number)
        if number == int(adds) // 3:
            memory.export()
        if number == 2 * int(adds) // 3:
            memory.close()
            memory = open_memory(path)
    memory.close()


def unsynced_life(path, adds=ADDS):
    """The same without a fold in between, by a process that need not survive a power cut until it closes."""
    memory = open_memory(path, durability="process")
    for number in range(int(adds)):
        add(memory, number)
        say("ACK", number)
        if number == 2 * int(adds) // 3:
            memory.close()
            say("CLOSED", number)
            memory = open_memory(path, durability="process")
    memory.close()
    say("CLOSED", int(adds) - 1)


def group_life(path, groups=3, adds=4):
    """Several adds that share a sync, and the same again; none is acknowledged before all of them are."""
    memory = open_memory(path)
    for group in range(int(groups)):
        numbers = range(group * int(adds), (group + 1) * int(adds))
        with memory._store.exclusive():
            for number in numbers:
                add(memory, number)
        say("\n".join(f"ACK {number}" for number in numbers))
    os._exit(0)  # not closed: that would fold


def mixed_life(path, adds=ADDS):
    """Adds by two objects of one memory, of which every fourth is synced, and with it all before; never closed."""
    quick, safe = open_memory(path, durability="process"), open_memory(path)
    for number in range(int(adds)):
        synced = number % 4 == 2
        add(safe if synced else quick, number)
        say("ACK", number)
        if synced:
            say("SYNCED", number)
    os._exit(0)


def endless_unsynced(path, who):
    endless(path, who, durability="process")


class Told:
    """What a life was told, said at the end and until it gets through: the answers are written by failing calls, too."""

    def __init__(self):
        self._lines = []

    def tried(self, what, call):
        """Return what *call* gives; None if it was refused, by an error of ours."""
        try:
            result = call()
        except MemoryGraphError as error:
            self._lines.append(f"REFUSED {what} {type(error).__name__} {error}")
            return None
        self._lines.append(f"ACK {what}" if what.isdigit() else f"DONE {what}")
        return result

    def opened(self, call):
        """Return what *call* opens, which may be refused once."""
        return self.tried("open", call) or self.tried("open", call)

    def say(self):
        for _ in range(20):
            with contextlib.suppress(OSError):
                say("\n".join([*self._lines, "END"]))
                break


def stubborn_life(path, adds=ADDS):
    """The same, going on with the same memory after whatever was refused; it says which call that was, and the error."""
    told = Told()
    memory = told.opened(lambda: open_memory(path))
    for number in range(int(adds)):
        if memory is None:
            break
        told.tried(f"{number}", partial(add, memory, number))
        if number == int(adds) // 3:
            told.tried("fold", memory.export)
        if number == 2 * int(adds) // 3:
            told.tried("close", memory.close)
            memory = told.opened(lambda: open_memory(path))
    if memory is not None:
        told.tried("close", memory.close)
    told.say()


def forgetful_life(path, chosen, again=""):
    """Forgets *chosen*, a JSON list of ids, for good; if that is refused, once more with *again*; and closes."""
    told, ids = Told(), json.loads(chosen)

    def forget():
        try:
            return memory.forget(ids, secure=True)
        except ErasureIncomplete as error:
            ids.extend(error.report.ids)  # with what was made of them, which the memory does not know any more
            raise

    memory = told.opened(lambda: open_noise(path))
    for _ in range(2 if again else 1):
        if memory is not None and told.tried("forget", forget):
            break
    if memory is not None:
        told.tried("close", memory.close)
    told.say()


def forgotten(path, chosen):
    """The same in peace; says so before it closes."""
    memory = open_noise(path)
    memory.forget(json.loads(chosen), secure=True)
    say("ACK forgotten")
    memory.close()


def forgetful_limited(path, chosen, limit):
    """Forgets for good while no file may grow beyond *limit* bytes; then once more without a limit."""
    told, limits = Told(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_noise(path) as memory:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), limits[1]))
        first = told.tried("forget", partial(memory.forget, json.loads(chosen), secure=True))
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if first is None:
            told.tried("forget", partial(memory.forget, json.loads(chosen), secure=True))
    told.say()


def limited(path, limit):
    """Ten adds, a fold and a close, no file of which may grow beyond *limit* bytes; then the rest without one."""
    answers, limits = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    for soft in (int(limit), limits[1]):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, limits[1]))
            with open_memory(path) as memory:
                for number in range(10):
                    if f"ACK {number}" in answers:
                        continue
                    try:
                        add(memory, number)
                    except StoreError as error:
                        answers.append(f"REFUSED {error}")
                    else:
                        answers.append(f"ACK {number}")
                memory.export()
        except StoreError as error:
            answers.append(f"REFUSED {error}")
    say("\n".join(answers))


def endless(path, who, **options):
    """Adds, folds and opens again until somebody ends it."""
    memory = open_memory(path, **options)
    say("open")
    for number in itertools.count():
        add(memory, f"{who}-{number}")
        say(f"ACK {who}-{number}")
        if number % 8 == 7:
            memory.export()
        if number % 20 == 19:
            memory.close()
            memory = open_memory(path, **options)


def ended(path, way):
    memory = open_memory(path)
    for number in range(3):
        add(memory, number)
        say("ACK", number)
    if way == "at once":
        os._exit(7)
    if way == "in the middle":
        with memory._store.exclusive():
            os._exit(7)
    signal.signal(getattr(signal, way), signal.SIG_DFL)  # whoever started us may have had it ignored
    os.kill(os.getpid(), getattr(signal, way))
    time.sleep(60)


def opened(path, *options):
    """Open and close, which recovers, migrates or adopts what is there."""
    with MemoryGraph(path, fake, vector_backend="exact", **({"storage_backend": options[0]} if options else {})):
        pass


def one_more(path, name):
    """Open what a crash left, add one, and close."""
    with open_memory(path) as memory:
        add(memory, name)
        with contextlib.suppress(OSError):  # the answer may be the call that fails
            say("ACK", name)


def searched(path):
    """Open, search, which builds what index there is, and close, which saves it."""
    with open_memory(path) as memory:
        memory.similar("word", 3)


def reindexed(path):
    with open_memory(path) as memory:
        memory.reindex()


def reembedded(path):
    with open_memory(path) as memory:
        memory.reembed(Fake("new", 24, salt="new"))


def compacted(path):
    doctor.compact(path)


def restored(path, backup):
    doctor.restore(path.with_name(backup), path)
    with contextlib.suppress(OSError):  # the answer may be the call that fails
        say("ACK restored")


def zygote():
    """Read `{"life", "args", "out", "stopped"}` a line, and say the pid of the child that lives it, then how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        quiet, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        for name in ("g.json", "g.db"):  # so that no child imports anything
            stubborn_life(Path(folder) / name, 3)
            with open_memory(Path(folder) / name, read_only=True) as memory:
                memory.similar("thing")
            with open_memory(Path(folder) / name) as memory:
                memory.reindex()
            with open_noise(Path(folder) / f"noise-{name}") as memory:
                forget_planted(memory, plant(memory, Secrets(name), others=3), secure=True)
        opened(Path(folder) / "x.json")
        opened(Path(folder) / "x.json", "sqlite")
        os.dup2(quiet, 1)
    logging.raiseExceptions = False  # standard error, too, is written by calls that fail
    jobs = os.fdopen(os.dup(0), "r")
    for line in jobs:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            child(job)
        say(pid)
        if job["stopped"]:
            os.waitpid(pid, os.WUNTRACED)
            say("stopped")
        while not os.WIFEXITED(status := os.waitpid(pid, 0)[1]) and not os.WIFSIGNALED(status):
            pass
        say(os.waitstatus_to_exitcode(status))


def child(job):
    code = 1
    try:
        out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(os.open(job["out"] + ".err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        os.close(out)
        if ".npy." in job["args"][0]:
            sys.modules["faiss"] = None  # as if it were not installed: the vectors go into numpy's files
        if job["stopped"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        globals()[job["life"]](Path(job["args"][0]), *job["args"][1:])
        code = 0
    except BaseException:  # noqa: BLE001 - told by what it leaves in its error file
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    zygote()
