"""What a power cut may leave of a recorded life, after the manner of ALICE (Pillai and others, OSDI 2014).

A life is recorded by strace, with all it wrote. From the start of that record up to any point the disk may hold
whatever was synced, and of the rest nothing, everything or anything: names that were made, renamed or removed without
a sync of their folder, bytes that were written without a sync of their file, sector by sector.
"""

from __future__ import annotations

import os
import posixpath
import random
import re
from dataclasses import dataclass, field

SECTOR = 512

TRACED = (
    "openat,creat,write,pwrite64,writev,pwritev,ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,"
    "mkdir,mkdirat,link,linkat,symlink,symlinkat,fsync,fdatasync,close,fcntl,dup,dup2,dup3,copy_file_range,sendfile"
)
OPTIONS = ["-xx", "-s", "100000000", "-e", f"trace={TRACED}"]

_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Event:
    """One thing that happened: `what` it was done to is a file's number for data, a path for names."""

    kind: str  # write, truncate; make, rename, link, remove, folder; sync, sync names; say
    what: object
    at: int = 0
    data: bytes = b""
    to: str = ""


@dataclass
class Record:
    """A life as events, and the files that were there before it."""

    before: dict[str, bytes]
    events: list[Event]


def record(log, base, before):
    """Parse what strace logged of a life below *base*, in which the files *before* were already."""
    return _Parser(str(base), before).parse(log)


@dataclass
class _Parser:
    base: str
    before: dict[str, bytes]
    events: list[Event] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)  # path -> number
    handles: dict[int, list] = field(default_factory=dict)  # descriptor -> [number or folder, offset, appends]
    sizes: dict[int, int] = field(default_factory=dict)

    def parse(self, log):
        for number, (path, raw) in enumerate(sorted(self.before.items())):
            self.files[posixpath.join(self.base, path)] = number
            self.sizes[number] = len(raw)
        assert "<unfinished" not in log, "the life had a thread of its own"
        for line in log.splitlines():
            found = _LINE.match(line)
            if found is None or int(found[3]) < 0:
                continue
            strings = [bytes.fromhex(s.replace("\\x", "")) for s in _STRING.findall(found[2])]
            rest = _STRING.sub("S", found[2]).split(", ")
            self.call(found[1], rest, strings, int(found[3]))
        return Record(self.before, self.events)

    def inside(self, path):
        return path.startswith(self.base + "/")

    def call(self, name, rest, strings, result):
        paths = [os.fsdecode(s) for s in strings]
        if name == "openat":
            path, flags = paths[0], rest[2]
            if self.inside(path) and "O_DIRECTORY" not in flags and not os.path.isdir(path):
                if path not in self.files:
                    self.files[path] = len(self.sizes)
                    self.sizes[self.files[path]] = 0
                    self.events.append(Event("make", path, self.files[path]))
                number = self.files[path]
                if "O_TRUNC" in flags and self.sizes[number]:
                    self.sizes[number] = 0
                    self.events.append(Event("truncate", number, 0))
                self.handles[result] = [number, 0, "O_APPEND" in flags]
            elif path == self.base or self.inside(path):
                self.handles[result] = [path, 0, False]
            else:
                self.handles.pop(result, None)
        elif name in {"write", "pwrite64"} and int(rest[0]) in self.handles:
            handle = self.handles[int(rest[0])]
            number, data = handle[0], strings[0][:result]
            at = int(rest[3]) if name == "pwrite64" else self.sizes[number] if handle[2] else handle[1]
            if name == "write":
                handle[1] = at + len(data)
            self.sizes[number] = max(self.sizes[number], at + len(data))
            self.events.append(Event("write", number, at, data))
        elif name == "write" and int(rest[0]) == 1:
            self.events.append(Event("say", None, data=strings[0]))
        elif name == "ftruncate" and int(rest[0]) in self.handles:
            number = self.handles[int(rest[0])][0]
            self.sizes[number] = int(rest[1])
            self.events.append(Event("truncate", number, int(rest[1])))
        elif name in {"fsync", "fdatasync"} and int(rest[0]) in self.handles:
            what = self.handles[int(rest[0])][0]
            self.events.append(Event("sync names" if isinstance(what, str) else "sync", what))
        elif name == "rename" and self.inside(paths[0]):
            self.files[paths[1]] = self.files.pop(paths[0])
            self.events.append(Event("rename", paths[0], to=paths[1]))
        elif name in {"link", "linkat"} and self.inside(paths[0]):
            self.files[paths[1]] = self.files[paths[0]]
            self.events.append(Event("link", paths[0], to=paths[1]))
        elif name == "unlink" and self.inside(paths[0]):
            self.files.pop(paths[0])
            self.events.append(Event("remove", paths[0]))
        elif name == "mkdir" and self.inside(paths[0]):
            self.events.append(Event("folder", paths[0]))
        elif name == "close":
            self.handles.pop(int(rest[0]), None)
        elif (name.startswith("dup") or (name == "fcntl" and "F_DUPFD" in rest[1])) and int(rest[0]) in self.handles:
            self.handles[result] = self.handles[int(rest[0])]
        elif name not in {"write", "pwrite64", "ftruncate", "fsync", "fdatasync", "fcntl", "dup", "dup2", "dup3"} and (
            any(map(self.inside, paths)) or (rest[0].isdigit() and int(rest[0]) in self.handles)
        ):
            raise AssertionError(f"{name}({rest}, {paths}) is not understood")


DATA = {"write", "truncate"}
NAMES = {"make", "rename", "link", "remove", "folder"}


def pending(events):
    """Return the indices of what no sync has made durable by the end of *events*."""
    data: dict[object, list[int]] = {}
    names: dict[str, list[int]] = {}
    for at, event in enumerate(events):
        if event.kind in DATA:
            data.setdefault(event.what, []).append(at)
        elif event.kind in NAMES:
            names.setdefault(posixpath.dirname(event.what), []).append(at)
        elif event.kind == "sync":
            data.pop(event.what, None)
        elif event.kind == "sync names":
            names.pop(event.what, None)
    return {at for several in [*data.values(), *names.values()] for at in several}


def pieces(event):
    """Split a write into the sectors that reach the disk each by itself."""
    at, data = event.at, event.data
    while data:
        length = SECTOR - at % SECTOR
        yield Event("write", event.what, at, data[:length])
        at, data = at + length, data[length:]


def rebuilt(base, before, events, keep):
    """Return the files, by path, after those of *events* that *keep* lets through (it gets index and event, gives events)."""
    names = {posixpath.join(base, path): number for number, path in enumerate(sorted(before))}
    files = {number: bytearray(before[path]) for number, path in enumerate(sorted(before))}
    folders = {base, *(posixpath.dirname(path) for path in names)}
    for at, event in enumerate(events):
        for kept in keep(at, event):
            if kept.kind == "make":
                names[kept.what] = kept.at
            elif kept.kind == "folder":
                folders.add(kept.what)
            elif kept.kind == "remove":
                names.pop(kept.what, None)
            elif kept.kind in {"rename", "link"}:
                # The old name may be one whose making was lost: the file is what the renaming moved all the same.
                number = names.get(kept.what)
                if kept.kind == "rename":
                    names.pop(kept.what, None)
                names[kept.to] = _number(events[:at], kept.what, before, base) if number is None else number
            elif kept.kind in DATA:
                raw = files.setdefault(kept.what, bytearray())
                if kept.kind == "truncate":
                    del raw[kept.at :]
                    raw.extend(bytes(kept.at - len(raw)))
                else:
                    raw.extend(bytes(max(0, kept.at + len(kept.data) - len(raw))))
                    raw[kept.at : kept.at + len(kept.data)] = kept.data
    return {
        posixpath.relpath(path, base): bytes(files.get(number, b""))
        for path, number in names.items()
        if posixpath.dirname(path) in folders
    }


def _number(events, path, before, base):
    """Return the number of the file that had the name *path* after *events*, all of them."""
    names = {posixpath.join(base, name): number for number, name in enumerate(sorted(before))}
    for event in events:
        if event.kind == "make":
            names[event.what] = event.at
        elif event.kind == "rename":
            names[event.to] = names.pop(event.what)
        elif event.kind == "link":
            names[event.to] = names[event.what]
        elif event.kind == "remove":
            del names[event.what]
    return names[path]


def variants(open_ones, events, dice):
    """Yield (name, keep) for what may become of the *open_ones*."""

    def those(accept):
        return lambda at, event: [event] if at not in open_ones or accept(at, event) else []

    yield "nothing unsynced", those(lambda *_: False)
    yield "everything", those(lambda *_: True)
    yield "names before data", those(lambda _, event: event.kind in NAMES)
    yield "data before names", those(lambda _, event: event.kind in DATA)
    yield "all but the last", those(lambda at, _: at != max(open_ones))

    def torn(half):
        def keep(at, event):
            if at in open_ones and event.kind == "write" and at == max(open_ones):
                several = list(pieces(event))
                middle = (len(several) + 1) // 2
                if len(several) == 1:  # a sector is written whole or not at all, but its end may be what is new
                    return [Event("write", event.what, event.at, event.data[: len(event.data) // 2])]
                return several[:middle] if half == "first" else several[middle:]
            return [event]

        return keep

    yield "first half of the last write", torn("first")
    yield "second half of the last write", torn("second")

    def anything(at, event):
        if at not in open_ones:
            return [event]
        if event.kind == "write":
            return [piece for piece in pieces(event) if dice.random() < 0.5]
        return [event] if dice.random() < 0.5 else []

    for number in range(2):
        yield f"anything {number}", anything


def crash_states(base, recorded, seed=0):
    """Yield (where, variant, acknowledged, files) for every point of the record and what may be left then, each once."""
    dice, seen = random.Random(seed), set()
    for end in range(len(recorded.events) + 1):
        events = recorded.events[:end]
        if events and events[-1].kind == "say":
            continue  # the same disk as before; what was said counts from the next point on, and at the end
        said = b"".join(event.data for event in recorded.events[:end] if event.kind == "say").decode()
        if end < len(recorded.events) and recorded.events[end].kind == "say":
            # What is said right after this point was true at this point.
            said += recorded.events[end].data.decode()
        open_ones = pending(events)
        for name, keep in variants(open_ones, events, dice):
            if not open_ones and name != "everything":
                continue
            files = rebuilt(base, recorded.before, events, keep)
            key = (said, tuple(sorted((path, hash(raw)) for path, raw in files.items())))
            if key not in seen:
                seen.add(key)
                yield end, name, said, files
