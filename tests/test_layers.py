"""The floors of the house: imports point down only, and what is heavy is loaded by whoever needs it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from outside import run

import raeburnmemory

PACKAGE = Path(raeburnmemory.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A module imports from lower floors only, and within its own folder. A file that is not here has no place yet:
# give it one. Floors between whole numbers are for modules of one storey that stand on each other.
FLOORS = {
    "errors": 0.0,
    "_collector": 0.0,
    "nodes": 1.0,
    "_optional": 1.0,
    "flat_vectors": 1.0,
    "hits": 1.2,  # made of nodes
    "mutex": 1.0,
    "file_lock": 1.1,  # asks _optional whether filelock is there
    "lock": 1.2,  # made of file locks
    "graph": 2.0,
    "embed": 2.0,
    "store": 2.0,
    "index": 2.0,
    "passages": 2.1,  # cuts long texts by the pieces of an embedder
    "records": 3.0,
    "when": 3.0,
    "live_graph": 3.0,
    "provenance": 3.05,  # checks what it is asked for
    "payloads": 3.02,  # what an index elsewhere is told; times as records has them
    "places": 3.02,  # reads links and nodes for hits
    "field_index": 3.05,  # one index, kept up with the store
    "dense": 3.1,  # the meeting of embedder, index and store
    "corpus": 3.1,
    "saved_words": 3.15,  # what corpus and related words begin with
    "filters": 3.1,  # checks conditions as records checks data
    "related": 3.0,
    "evidence": 3.2,  # looks into the corpus
    "matching": 3.25,  # looks words up with the places of evidence
    "ranking": 3.3,  # weighs the evidence
    "wanted": 3.15,  # chooses from the corpus
    "answers": 3.35,  # shows what the ranking puts first
    "recall": 3.4,
    "tokens": 3.1,  # checks what it is given as records does
    "context": 3.2,  # counts tokens
    "new_vectors": 3.15,  # asks dense for vectors
    "writer": 3.2,  # resolves records
    "facts": 3.3,  # written by the writer
    "items": 3.3,  # likewise
    "documents": 3.3,  # likewise
    "erasure": 3.4,  # forgets facts, too
    "reembed": 3.2,
    "linking": 3.15,  # asks dense which vectors are alike
    "reader": 3.2,  # asks dense what the store's model is
    "export": 3.2,
    "graph_view": 3.3,  # the writer writes for it
    "memory_graph": 4.0,
    "testing": 5.0,
    "environment": 4.9,  # part of the doctor, which the command line asks without numpy
    "doctor": 5.0,
    "evaluate": 5.0,
    "picture": 5.0,
    "exporters": 5.0,
    "importers": 5.1,  # read what exporters write
    "tune": 5.1,  # measures before and after
    "entities": 5.0,  # a graph in a collection of a memory
    "demo": 6.0,
    "web": 5.0,
    "api": 6.0,
    "client": 6.0,
    "langchain": 6.0,
    "mcp": 6.0,
    "compat": 6.0,
    "recording": 6.0,
    "langgraph": 6.1,  # opens a memory as the door for LangChain does
    "hub": 6.2,  # local models, documents, answers
    "_terminal": 6.5,  # what the commands share
    "_target": 6.6,  # opens what the commands are about
    "cli_ask": 6.9,
    "cli_doctor": 6.9,
    "cli_hub": 6.9,
    "cli_ingest": 6.9,
    "cli_transfer": 6.9,
    "cli_mcp": 6.9,
    "cli_models": 6.9,
    "cli_serve": 6.9,
    "cli_reading": 6.9,  # commands that cli puts together
    "cli": 7.0,
    "__main__": 7.1,  # the one door that says what to install where typer is missing
}
# Methods of the memory that are doors to a floor above it; they open it when they are called.
UPWARD = {("memory_graph", "evaluate"), ("memory_graph", "tune"), ("memory_graph", "doctor")}
UPWARD |= {("memory_graph", "recording")}
UPWARD |= {("memory_graph", "picture"), ("hits", "picture")}  # what a notebook shows of them
ROOT = "__init__"  # the public names; loaded first of all, so nothing of it but its version is imported by others

# What a file may import of other people when it is imported itself: a backend is only imported once it is chosen.
THIRD_PARTY = {
    "cli": {"typer"},
    "cli_reading": {"typer"},
    "cli_transfer": {"typer"},
    "cli_ask": {"typer"},
    "cli_doctor": {"typer"},
    "cli_hub": {"typer"},
    "cli_ingest": {"typer"},
    "cli_mcp": {"typer"},
    "cli_models": {"typer"},
    "mcp/_http": {"mcp", "uvicorn"},
    "mcp/_server": {"anyio", "mcp"},
    "cli_serve": {"typer"},
    "api/__init__": {"fastapi", "prometheus_client"},
    "api/answers": {"fastapi"},
    "api/application": {"fastapi", "starlette"},
    "api/serving": {"fastapi"},
    "api/metrics": {"prometheus_client"},
    "api/original": {"fastapi", "starlette"},
    "api/routes": {"fastapi", "starlette"},
    "api/schemas": {"pydantic"},
    "api/scope": {"fastapi"},
    "api/strict": {"fastapi"},
    "_target": {"typer"},
    "_terminal": {"typer"},
    "hub/asking/runnable": {"langchain_core"},
    "hub/models/_settings": {"numpy"},
    "hub/models/_wire": {"numpy"},
    "hub/models/llama_cpp": {"numpy"},
    "dense": {"numpy"},
    "field_index": {"numpy"},
    "payloads": {"numpy"},
    "linking": {"numpy"},
    "flat_vectors": {"numpy"},
    "exporters/parquet": {"pyarrow"},
    "importers/_restore": {"numpy"},
    "importers/jsonl": {"numpy"},
    "embed/adapters": {"numpy"},
    "embed/builtin": {"numpy"},
    "embed/onnx": {"numpy"},
    "embed/openai": {"numpy"},
    "embed/sentence_transformers": {"numpy"},
    "corpus": {"numpy"},
    "answers": {"numpy"},
    "related": {"numpy"},
    "evidence": {"numpy"},
    "matching": {"numpy"},
    "ranking": {"numpy"},
    "recall": {"numpy"},
    "wanted": {"numpy"},
    "evaluate": {"numpy"},
    "doctor/content": {"numpy"},
    "doctor/model": {"numpy"},
    "doctor/index_files": {"numpy"},
    "doctor/sqlite_file": {"numpy"},
    "tune": {"numpy"},
    "picture/layout": {"numpy"},
    "items": {"numpy"},
    "langgraph/_embedding": {"langchain_core", "langgraph"},
    "langgraph/_filters": {"langgraph"},
    "langgraph/store": {"langgraph"},
    "langchain/_documents": {"langchain_core"},
    "langchain/callback": {"langchain_core"},
    "langchain/chat_history": {"langchain_core"},
    "langchain/embeddings": {"langchain_core"},
    "langchain/retriever": {"langchain_core"},
    "langchain/vector_store": {"langchain_core"},
    "hub/_network": {"httpcore"},
    "hub/server/__init__": {"fastapi", "prometheus_client", "python_multipart"},
    "hub/server/access": {"starlette"},
    "hub/server/application": {"fastapi", "starlette"},
    "hub/server/files": {"fastapi"},
    "hub/server/legacy": {"fastapi", "pydantic"},
    "hub/server/passed": {"starlette"},
    "hub/server/routes/_shared": {"anyio", "fastapi", "pydantic"},
    "hub/server/routes/answers": {"fastapi"},
    "hub/server/routes/capture": {"fastapi", "pydantic"},
    "hub/server/routes/chat": {"fastapi", "pydantic"},
    "hub/server/routes/memories": {"fastapi", "pydantic"},
    "hub/server/routes/models": {"fastapi", "pydantic"},
    "hub/server/routes/openai": {"fastapi", "pydantic"},
    "hub/server/routes/projects": {"fastapi", "pydantic"},
    "hub/server/routes/system": {"fastapi", "pydantic"},
    "hub/server/rules": {"fastapi"},
    "web/heads": {"uvicorn"},
    "index/lexical": {"numpy"},
    "index/_arrays": {"numpy"},
    "index/_codes": {"numpy"},
    "index/_columns": {"numpy"},
    "index/_file": {"numpy"},
    "index/_names": {"numpy"},
    "index/_parts_file": {"numpy"},
    "index/_flat": {"numpy"},
    "index/_ladder": {"numpy"},
    "index/_self_check": {"numpy"},
    "index/_signs": {"numpy"},
    "index/_rows": {"numpy"},
    "index/pgvector": {"numpy"},
    "index/faiss": {"numpy"},
    "index/_given": {"numpy"},
    "index/qdrant": {"numpy", "qdrant_client"},
    "index/_qdrant_collection": {"numpy", "qdrant_client"},
    "index/_qdrant_place": {"grpc", "httpx", "portalocker", "qdrant_client"},
    "store/_copies": {"numpy"},
    "store/postgres": {"psycopg"},
    "store/postgres_batch": {"numpy"},
    "store/postgres_erasing": {"psycopg"},
    "store/postgres_reading": {"numpy"},
    "store/postgres_schema": {"psycopg"},
    "store/postgres_sessions": {"psycopg"},
    "store/journal": {"numpy"},
    "store/memory": {"numpy"},
    "store/sqlite_reading": {"numpy"},
    "store/_wal": {"numpy"},
    "store/sqlite_vectors": {"numpy"},
    "store/sqlite_original": {"numpy"},
    "store/state": {"numpy"},
    "store/vector_files": {"numpy"},
    "testing/_ledger": {"numpy"},
    "testing/embedder": {"numpy"},
    "testing/index": {"numpy"},
    "testing/vectors": {"numpy"},
}

# And what it needs because of what it imports of ours.
THROUGH_OTHERS = {
    "api/serving": {"prometheus_client"},
    "api/metrics": {"fastapi"},
    "api/once": {"fastapi", "prometheus_client"},
    "api/schemas": {"fastapi"},
    "langchain/__init__": {"langchain_core"},
    "langchain/_opening": {"langchain_core"},
    "langgraph/__init__": {"langgraph"},
    "doctor/postgres_server": {"psycopg"},
    "store/postgres_batch": {"psycopg"},
    "store/postgres_reading": {"psycopg"},
}


def name_of(file):
    return file.relative_to(PACKAGE).with_suffix("").as_posix()


def parts_of(file):
    parts = name_of(file).split("/")
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def storey(parts):
    """Return the module at the top of the package, or its folder, that *parts* lie in."""
    return parts[0]


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree):
    """Yield every import statement, and whether it runs when the module is imported."""

    def walk(node, runs):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield child, runs
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield from walk(child, False)
            elif is_type_checking(child):
                yield from ((each, False) for part in child.body for each, _ in walk(ast.Module([part], []), False))
                yield from walk(ast.Module(child.orelse, []), runs)
            else:
                yield from walk(child, runs)

    yield from walk(tree, True)


def own_targets(file, statement):
    """Return the modules of this package that an import statement names, as paths within it."""
    if isinstance(statement, ast.Import):
        return []
    if not statement.level:
        return []
    folder = list(file.relative_to(PACKAGE).parent.parts)
    base = folder[: len(folder) - (statement.level - 1)]
    assert len(folder) >= statement.level - 1, f"{name_of(file)} imports from outside the package"
    if statement.module:
        return [base + statement.module.split(".")]
    found = []
    for alias in statement.names:
        path = PACKAGE.joinpath(*base, alias.name)
        is_module = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
        found.append([*base, alias.name] if is_module else (base or [ROOT]))
    return found


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_down(file):
    own = storey(parts_of(file))
    assert own == ROOT or own in FLOORS, f"{name_of(file)} stands on no floor: give it one in FLOORS"
    for statement, runs in imports(ast.parse(file.read_text())):
        for target in own_targets(file, statement):
            other = storey(target)
            if (own, other) in UPWARD and not runs:
                continue
            if other == ROOT:
                names = {alias.name for alias in statement.names}
                assert names == {"__version__"}, f"{name_of(file)} imports {names} from the package itself"
                continue
            same_folder = other == own and (PACKAGE / own).is_dir()
            assert same_folder or own == ROOT or FLOORS[other] < FLOORS[own], (
                f"{name_of(file)} (floor {FLOORS[own]}), line {statement.lineno}, imports {'.'.join(target)} "
                f"(floor {FLOORS[other]})"
            )


def test_every_floor_is_used():
    assert set(FLOORS) == {storey(parts_of(file)) for file in FILES} - {ROOT}
    assert set(THIRD_PARTY) <= {name_of(file) for file in FILES}


# The memory, what goes in and comes out of it, what can be asked, and the guard before services.
KNOWN_TO_DOORS = {ROOT, "memory_graph", "entities", "nodes", "hits", "context", "records", "filters", "errors"}
KNOWN_TO_DOORS |= {"_optional", "web"}


@pytest.mark.parametrize("file", [f for f in FILES if FLOORS.get(storey(parts_of(f))) == 6.0], ids=name_of)
def test_doors_know_the_memory_the_nodes_and_the_errors(file):
    own = storey(parts_of(file))
    targets = [t for statement, _ in imports(ast.parse(file.read_text())) for t in own_targets(file, statement)]
    assert {storey(target) for target in targets} <= {*KNOWN_TO_DOORS, own}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_third_party_packages_are_imported_by_backends_only(file):
    found = set()
    for statement, runs in imports(ast.parse(file.read_text())):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            names = [] if statement.level else [statement.module]
        roots = {name.partition(".")[0] for name in names}
        assert "raeburnmemory" not in roots, "imports within the package are relative"
        if runs:
            found |= roots - sys.stdlib_module_names - {"__future__"}
    assert found == THIRD_PARTY.get(name_of(file), set())


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_says_what_it_is_for(file):
    tree = ast.parse(file.read_text())
    assert len((ast.get_docstring(tree) or "").split()) >= 3
    first = [node for node in tree.body if not isinstance(node, ast.Expr)][:1]
    assert not first or ast.unparse(first[0]) == "from __future__ import annotations"


# From Python 3.15 on, the last says what was left out of Python when it was built.
FRESH = """
import sys
before = set(sys.modules)
__import__(sys.argv[1])
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(roots - sys.stdlib_module_names - {"raeburnmemory", "_missing_stdlib_info"}))
"""


@pytest.mark.parametrize(
    "module",
    [
        "raeburnmemory",
        "raeburnmemory.errors",
        "raeburnmemory.nodes",
        "raeburnmemory.lock",
        "raeburnmemory.store",
        "raeburnmemory.index",
        "raeburnmemory.embed",
        "raeburnmemory.graph",
        "raeburnmemory.live_graph",
        "raeburnmemory.records",
        "raeburnmemory.demo",
        "raeburnmemory.__main__",
    ],
)
def test_nothing_of_others_is_loaded_before_it_is_used(module):
    assert run(FRESH, module).split() == []


def test_the_memory_itself_loads_numpy_and_nothing_else():
    found = run(FRESH, "raeburnmemory.memory_graph").split()
    # Older numpy registers what Cython gave it as modules of their own.
    assert [name for name in found if "cython" not in name] == ["numpy"]


USED = """
import sys
import numpy
before = set(sys.modules)  # older numpy loads numpy.ma with itself
from raeburnmemory import MemoryGraph
with MemoryGraph(sys.argv[1], "builtin", vector_backend=sys.argv[2] or None) as memory:
    memory.add_interaction("hello world", "yes", "agent", "s")
    memory.similar("hello"), memory.recall("hello there, hello world"), memory.thread("s"), memory.export(False)
print(*sorted({"asyncio", "numpy.ma", "networkx", "faiss", "typer", "filelock", "onnxruntime", "tokenizers", "huggingface_hub", "qdrant_client", "pgvector"} & (set(sys.modules) - before)))
"""


@pytest.mark.parametrize("backend", ["exact", ""])
@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_adding_and_asking_load_nothing_that_they_do_not_need(tmp_path, name, backend):
    """Not even faiss, where it is installed, as long as there are few vectors; it takes as long as all of ours."""
    assert run(USED, tmp_path / name, backend).split() == []


ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "raeburnmemory"]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""


def test_every_module_can_be_the_first_to_be_imported():
    """No module works only because another one was imported before it."""
    optional = {
        "faiss",
        "fastapi",
        "langchain_core",
        "langgraph",
        "mcp",
        "psycopg",
        "pyarrow",
        "qdrant_client",
        "typer",
        "uvicorn",
    }
    missing = {name for name in optional if not _installed(name)}
    doors = {storey(parts_of(file)) for file in FILES if FLOORS.get(storey(parts_of(file)), 0) >= 6.0}
    names = [
        ".".join(["raeburnmemory", *([] if parts_of(file) == [ROOT] else parts_of(file))])
        for file in FILES
        # What is in the folder of a door cannot be imported before the door itself.
        if not (storey(parts_of(file)) in doors and len(parts_of(file)) > 1)
        if not (THIRD_PARTY.get(name_of(file), set()) | THROUGH_OTHERS.get(name_of(file), set())) & missing
        and name_of(file) != "__main__"
    ]
    run(ALONE, *names, timeout=600)


def _installed(name):
    from raeburnmemory._optional import installed

    return installed(name)
