"""The systems that can be measured, and what each needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FULL", "NONE", "OURS", "PROCESS", "SYSTEMS", "Known"]

FULL = "full"  # synced to disk before the call returns: survives a power cut
PROCESS = "process"  # given to the operating system before the call returns: survives kill -9
NONE = "none"  # less than that, or not known


@dataclass(frozen=True)
class Known:
    """One system: its adapter, what it is installed from, and how durable one add is."""

    module: str
    about: str
    durability: str
    packages: tuple[str, ...] = ()  # none: it runs in the Python of the suite
    options: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()  # packages whose versions are reported


_OURS = ("numpy", "faiss-cpu")

SYSTEMS: dict[str, Known] = {
    "ours-sqlite": Known("ours", "this memory in SQLite", FULL, options={"file": "memory.db"}, shown=_OURS),
    "ours-json": Known("ours", "this memory in JSON files", FULL, options={"file": "memory.json"}, shown=_OURS),
    "ours-sqlite-process": Known(
        "ours",
        'this memory in SQLite with durability="process"',
        PROCESS,
        options={"file": "memory.db", "durability": "process"},
        shown=_OURS,
    ),
    "ours-json-process": Known(
        "ours",
        'this memory in JSON files with durability="process"',
        PROCESS,
        options={"file": "memory.json", "durability": "process"},
        shown=_OURS,
    ),
    "sqlite-vec": Known(
        "sqlite_vec",
        "sqlite-vec and FTS5 in one SQLite file, synchronous=FULL, vectors compared one by one",
        FULL,
        # Through apsw: Python's own sqlite3 is often built without extensions.
        ("sqlite-vec", "apsw", "numpy"),
        shown=("sqlite-vec", "apsw"),
    ),
    "raw": Known(
        "raw",
        "sqlite3 (synchronous=FULL) with FTS5, and a flat faiss index in memory, read at opening",
        FULL,
        ("faiss-cpu", "numpy"),
        {"flat": "faiss", "synchronous": "FULL"},
        ("faiss-cpu",),
    ),
    "raw-numpy": Known(
        "raw",
        "the same with numpy instead of faiss: needs no installation",
        FULL,
        options={"flat": "numpy", "synchronous": "FULL"},
        shown=("numpy",),
    ),
    "raw-process": Known(
        "raw",
        "the same as raw-numpy with synchronous=NORMAL",
        PROCESS,
        options={"flat": "numpy", "synchronous": "NORMAL"},
        shown=("numpy",),
    ),
    "qdrant-edge": Known(
        "qdrant_edge_shard",
        "a shard of qdrant-edge: flat vectors, indexes on session and time, BM25 as sparse vectors",
        PROCESS,
        ("qdrant-edge-py", "numpy"),
        {"optimized": False},
        ("qdrant-edge-py",),
    ),
    "qdrant-edge-hnsw": Known(
        "qdrant_edge_shard",
        "the same after optimize(), with an HNSW index",
        PROCESS,
        ("qdrant-edge-py", "numpy"),
        {"optimized": True},
        ("qdrant-edge-py",),
    ),
    "qdrant-edge-wide": Known(
        "qdrant_edge_shard",
        "the same with hnsw_ef=256 instead of 100, which misses less",
        PROCESS,
        ("qdrant-edge-py", "numpy"),
        {"optimized": True, "hnsw_ef": 256},
        ("qdrant-edge-py",),
    ),
    "chromadb": Known(
        "chroma",
        "a persistent chromadb collection, HNSW with its defaults",
        FULL,
        ("chromadb", "numpy"),
        shown=("chromadb",),
    ),
    "chromadb-wide": Known(
        "chroma",
        "the same with ef_search=1000 instead of 100, which misses less",
        FULL,
        ("chromadb", "numpy"),
        {"ef_search": 1000},
        ("chromadb",),
    ),
    "lancedb": Known(
        "lance",
        "a lancedb table, vectors compared one by one, indexes on text, session and time",
        PROCESS,
        ("lancedb", "numpy"),
        shown=("lancedb",),
    ),
    "txtai": Known(
        "txtai_embeddings",
        "txtai with content and keywords, saved after every add",
        NONE,
        ("txtai", "numpy"),
        shown=("txtai",),
    ),
    "langchain": Known(
        "langchain",
        "langchain-core's vector store in memory, dumped to its file after every add",
        NONE,
        ("langchain-core", "numpy"),
        shown=("langchain-core",),
    ),
}
OURS = tuple(name for name in SYSTEMS if name.startswith("ours-"))
