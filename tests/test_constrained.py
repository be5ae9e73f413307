"""Platforms where networkx, faiss, filelock, typer or fcntl cannot be had: the same answers, by other means."""

from __future__ import annotations

import json
import sys

import pytest
from outside import end, fake, finish, open_memory, run, start

from raeburnmemory._optional import installed

# Two ways in which a package is not there: a finder that does not find it, and None where a test planted it.
BLOCKS = {
    "finder": """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
for name in [n for n in sys.modules if n.partition(".")[0] in blocked]:
    del sys.modules[name]
""",
    "none": """
import sys
for name in blocked:
    sys.modules[name] = None
""",
}
OPTIONAL = ["networkx", "faiss", "filelock", "typer"]


def without(*packages, how="none"):
    return f"blocked = {list(packages)!r}\n" + BLOCKS[how]


# What people do with a memory, and everything that they see of it.
PROGRAM = """
import json, sys
from outside import fake
from raeburnmemory import MemoryGraph
said = []
say = lambda *values: said.append(values)
path = sys.argv[1]
with MemoryGraph(path, fake) as memory:
    for n, text in enumerate(["a red apple", "a green pear", "red wine and green cheese", "white snow"]):
        memory.add_interaction({"id": f"p{n}", "text": text}, {"id": f"r{n}", "text": f"about {text}"}, {"id": "a", "name": "A"}, f"s{n % 2}")
    memory.link("p0", "p2", "next", weight=0.5)
    memory.link("p0", "p2", "like")
    say([(h.id, round(h.score, 5)) for h in memory.similar("red cheese", 3)])
    say(memory.link_similar_prompts(0.3))
with MemoryGraph(path, fake) as memory:
    say([(h.id, round(h.score, 5)) for h in memory.similar("green pears", 3)])
    say(memory.get_similar_prompts("snow", 1), memory.vector_index.ntotal, len(memory), memory.stats().relations)
    graph = memory.graph
    say(list(graph), list(graph.edges), graph.number_of_nodes(), graph.number_of_edges(), graph.is_directed())
    say(graph.nodes["p0"]["text"], dict(graph.edges["p0", "p2"]), "p1" in graph, graph.has_edge("p0", "r0"))
    say(list(graph.successors("p0")), list(graph.predecessors("a")), graph.out_degree("p0"), graph.in_degree("a"))
    graph.add_node("note", type="note", text="by hand")
    graph.add_edge("note", "p1", relation="about", strength=2)
    say([n.id for n in memory.neighbours("note")], memory.get("note").kind)
    graph.remove_node("r3")
    say("r3" in memory, sorted(graph))
    copy = memory.to_networkx()
    copy.add_node("elsewhere")
    say("elsewhere" in memory, len(copy), sorted(copy.nodes["note"].items()))
    say(memory.visualise_prompt_chain("p0"), [n.id for n in memory.thread("s0")])
    forgotten = memory.forget(session="s1")
    say(sorted(forgotten.ids), forgotten.kinds, forgotten.links, forgotten.vectors)
    try:
        graph.remove_node("r3")
    except Exception as error:
        say(str(error) != "")
    memory.export()
with MemoryGraph(path, fake, read_only=True) as memory:
    say(sorted(n.id for n in memory), memory.similar("red", 9).ids)
    data = memory.export(False)
    say([(n["id"], n["type"]) for n in data["nodes"]], [(e["source"], e["target"], e["relation"]) for e in data["edges"]])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """What the program says where everything that is installed may be used."""
    return {name: run(PROGRAM, tmp_path_factory.mktemp("usual") / name) for name in ("g.json", "g.db")}


@pytest.mark.parametrize("how", BLOCKS)
@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_the_same_program_says_the_same_without_any_of_them(tmp_path, usual, name, how):
    assert run(without(*OPTIONAL, how=how) + PROGRAM, tmp_path / name) == usual[name]
    assert usual["g.json"] == usual["g.db"]
    assert not (tmp_path / "g.json.faiss").exists()


def test_a_store_goes_back_and_forth_between_platforms(tmp_path):
    faiss = installed("faiss")
    path = tmp_path / "g.json"
    add = "import sys\nfrom outside import add, open_memory\nwith open_memory(sys.argv[1]) as m: add(m, sys.argv[2])"
    for number in range(6):
        run((without(*OPTIONAL) if number % 2 else "") + add, path, number)
        files = {file.name for file in tmp_path.iterdir()}
        numpy_form = number % 2 or not faiss
        assert ("g.json.vectors.npy" if numpy_form else "g.json.faiss") in files
        assert ("g.json.faiss" if numpy_form else "g.json.vectors.npy") not in files
        with open_memory(path, read_only=True) as memory:
            assert memory.vector_index.ntotal == number + 1
            assert memory.similar(f"thing {number} of s", 1)[0].score == pytest.approx(1, abs=1e-5)


def test_naming_what_is_missing(tmp_path):
    code = """
from raeburnmemory import MemoryGraph
from raeburnmemory.errors import MissingDependency
try:
    MemoryGraph(sys.argv[1], "builtin", vector_backend="faiss")
except MissingDependency as error:
    print(error)
with MemoryGraph(":memory:", "builtin") as memory:
    print(memory.vector_backend, type(memory.graph).__mro__[-2].__module__)
"""
    out = run(without(*OPTIONAL) + code, tmp_path / "g.db").splitlines()
    assert out == [
        "'faiss' is not installed. Install it with: pip install 'faiss-cpu'",
        "exact raeburnmemory.graph",
    ]
    assert list(tmp_path.iterdir()) == []


# --- the command line without typer -----------------------------------------------------------------------------

COMMAND = """
import sys
sys.argv[0] = "raeburnmemory"
from raeburnmemory.__main__ import main
main()
"""


@pytest.mark.parametrize("how", BLOCKS)
@pytest.mark.parametrize("arguments", [[], ["--help"], ["similar", "--text", "x"], ["--db", "g.json", "stats"]])
def test_the_command_line_says_in_one_sentence_what_to_install(tmp_path, how, arguments):
    process = start(without("typer", how=how) + COMMAND, *arguments, cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode not in {0, None}
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "typer" in err
    assert "pip install" in err
    assert list(tmp_path.iterdir()) == []


def test_the_version_needs_no_typer(tmp_path):
    import raeburnmemory

    assert run(without("typer") + COMMAND, "--version").strip() == f"raeburnmemory {raeburnmemory.__version__}"


# --- the lock without fcntl -------------------------------------------------------------------------------------

# Only our own use of it is taken away: filelock needs it here itself.
NO_FCNTL = """
import raeburnmemory.file_lock
raeburnmemory.file_lock.fcntl = None
"""

# A stand-in for Windows' msvcrt, over the byte locks of POSIX: as those, it locks bytes from the file's position on.
MSVCRT = """
import fcntl, os, subprocess, sys, types
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.LK_UNLCK = 2, 0
def locking(fd, mode, count):
    at = os.lseek(fd, 0, os.SEEK_CUR)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if mode == msvcrt.LK_NBLCK else fcntl.LOCK_UN, count, at)
msvcrt.locking = locking
sys.modules["msvcrt"] = msvcrt
"""
# What Windows has not; files are opened there as texts, unless one says otherwise.
NO_POSITIONS = """
import os
for name in ("pread", "pwrite", "preadv", "pwritev", "fdatasync", "statvfs"):
    if hasattr(os, name):
        delattr(os, name)
"""
LOCKS = {
    "filelock": (NO_FCNTL, "_Filelock"),
    "msvcrt": (MSVCRT + without("filelock") + NO_FCNTL, "_Msvcrt"),
}

WRITER = """
import sys
from outside import add, open_memory
with open_memory(sys.argv[1], timeout=100) as memory:
    assert type(memory._store._lock._main).__name__ == sys.argv[4], type(memory._store._lock._main)
    for number in range(int(sys.argv[3])):
        add(memory, f"{sys.argv[2]}-{number}")
"""
HOLDER = """
import sys, time
from outside import add, open_memory
memory = open_memory(sys.argv[1])
add(memory, "held")
with memory._store.exclusive():
    print("held", flush=True)
    time.sleep(600)
"""
WAITER = """
import sys, time
from outside import add, open_memory
from raeburnmemory.errors import LockTimeout
from raeburnmemory.memory_graph import MemoryGraph
started = time.monotonic()
try:
    with open_memory(sys.argv[1], timeout=0.5) as memory:
        add(memory, "waited")
except LockTimeout as error:
    assert time.monotonic() - started >= 0.45
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fcntl to do without")
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_other_locks_lose_no_write_either(tmp_path, name, lock):
    if lock == "filelock":
        pytest.importorskip("filelock", reason="this is about the lock that filelock gives")
    block, kind = LOCKS[lock]
    path, processes, adds = tmp_path / name, 3, 30
    writers = [start(block + WRITER, path, who, adds, kind) for who in range(processes)]
    list(finish(writers))
    with open_memory(path) as memory:
        there = {node.id for node in memory.nodes("prompt")}
        assert there == {f"p{who}-{n}" for who in range(processes) for n in range(adds)}
        assert memory.stats().kinds["response"] == processes * adds


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fcntl to do without")
@pytest.mark.parametrize("lock", LOCKS)
def test_other_locks_time_out_and_are_free_when_their_holder_dies(tmp_path, lock):
    if lock == "filelock":
        pytest.importorskip("filelock", reason="this is about the lock that filelock gives")
    block, _ = LOCKS[lock]
    path = tmp_path / "g.json"
    holder = start(block + HOLDER, path)
    try:
        assert holder.stdout.readline() == "held\n"
        assert "g.json" in run(block + WAITER, path)
    finally:
        end(holder)
    assert run(block + WAITER, path) == ""
    with open_memory(path) as memory:
        assert {"pheld", "pwaited"} <= {node.id for node in memory.nodes("prompt")}


WHERE_NOTHING_IS_READ_AT_A_PLACE = """
import errno, sys
import raeburnmemory
from outside import add, open_memory
from raeburnmemory.errors import StoreWriteFailed
try:
    open_memory(sys.argv[1] + "/g.json")
except StoreWriteFailed as error:
    assert error.errno == errno.ENOTSUP
    print(error)
for durability in ("full", "process"):
    with open_memory(sys.argv[1] + "/g.db", durability=durability) as memory:
        for number in range(50):
            add(memory, f"{durability}-{number}")
        with memory._store.exclusive():
            memory._store._doubtful = True  # as after a sync that failed: all is written again
            before = open(memory._store._wal_path, "rb").read()
            memory._store._sync_log()
            assert before and open(memory._store._wal_path, "rb").read() == before
        assert memory.recall("question 7").ids
        memory.forget(f"p{durability}-3")
with open_memory(sys.argv[1] + "/g.db") as memory:
    print(memory.stats().kinds)
"""


@pytest.mark.parametrize("lock", LOCKS)
def test_sqlite_needs_no_reading_at_a_place_and_json_files_say_that_they_do(tmp_path, lock):
    if lock == "filelock":
        pytest.importorskip("filelock", reason="this is about the lock that filelock gives")
    block, _ = LOCKS[lock]
    said, kinds = run(NO_POSITIONS + block + WHERE_NOTHING_IS_READ_AT_A_PLACE, tmp_path).splitlines()
    assert "g.json" in said
    assert ".db" in said
    assert "'prompt': 98" in kinds
    assert not list(tmp_path.glob("g.json*"))


def test_a_package_that_is_broken_shows_its_own_error(tmp_path):
    """Only the absence of a package is put in our words: a broken one has something else to say."""
    (tmp_path / "typer").mkdir()
    (tmp_path / "typer" / "__init__.py").write_text("import a_package_that_typer_itself_lacks\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n" + COMMAND
    process = start(code, "--help")
    _, err = process.communicate(timeout=60)
    assert process.returncode
    assert "a_package_that_typer_itself_lacks" in err
    assert "pip install 'typer'" not in err


def test_vectors_given_by_hand_need_no_model_that_can_be_loaded(tmp_path):
    """A store of a model that this platform lacks can be read, and written with vectors made elsewhere."""
    code = """
import json, sys
from raeburnmemory import MemoryGraph
from raeburnmemory.errors import MissingDependency
with MemoryGraph(sys.argv[1]) as memory:
    memory.add_interaction({"id": "p1", "text": "two"}, vector=[0.0] * 15 + [1.0])
    said = [len(memory), memory.get("p0").text, memory.vector_index.ntotal]
    for attempt in (lambda: memory.similar("one"), lambda: memory.add_interaction("three")):
        try:
            attempt()
        except MissingDependency as error:
            said.append("outside.elsewhere" in str(error))
    memory.add_interaction({"id": "p2", "text": "three"}, allow_unembedded=True)
    said.append(memory.stats().unembedded)
print(json.dumps(said))
"""

    def elsewhere(texts):
        return fake(texts)

    elsewhere.__module__, elsewhere.__qualname__ = "outside", "elsewhere"
    from raeburnmemory.memory_graph import MemoryGraph

    with MemoryGraph(tmp_path / "g.db", elsewhere) as memory:
        memory.add_interaction({"id": "p0", "text": "one"})
    assert json.loads(run(without(*OPTIONAL) + code, tmp_path / "g.db")) == [2, "one", 2, True, True, 1]
    with MemoryGraph(tmp_path / "g.db", elsewhere) as memory:
        assert memory.reindex().embedded == 1
        assert memory.get_similar_prompts("three", 1) == ["p2"]
