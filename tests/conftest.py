"""What all tests share: Hypothesis profiles, and an environment that says nothing to the library."""

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

from raeburnmemory.store import open_store

# Examples are drawn afresh at every run but for "fast", which finds the same today and tomorrow.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("fast", max_examples=25, stateful_step_count=20, derandomize=True, **_COMMON)
settings.register_profile("ci", max_examples=100, stateful_step_count=30, **_COMMON)
settings.register_profile("nightly", max_examples=2000, stateful_step_count=50, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

STORE_FILES = {
    "json": "memory.json",
    "json-npy": "memory.json",
    "sqlite": "memory.db",
    "sqlite-pgvector": "memory.db",
}


@pytest.fixture(scope="session", autouse=True)
def _quiet_environment():
    """Let no variable of whoever runs the tests name a model or a memory."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAEBURN_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a function from a backend to an opener of one place; what is open when the test ends is closed."""
    opened = []

    def at(backend):
        if backend == "json-npy":
            monkeypatch.setitem(sys.modules, "faiss", None)
        elif backend == "sqlite-pgvector":
            pytest.importorskip("pgvector", reason="vectors in its form need pgvector to begin with")
        elif backend == "json":
            pytest.importorskip("faiss", reason="vectors in faiss's files need faiss-cpu")

        def opener(*, read_only=False):
            store = open_store(
                tmp_path / STORE_FILES[backend] if backend in STORE_FILES else ":memory:",
                read_only=read_only,
                vector_format="pgvector" if backend == "sqlite-pgvector" else None,
            )
            opened.append(store)
            return store

        return opener

    yield at
    for store in opened:
        store.close()


def pytest_terminal_summary(terminalreporter):
    """Show what was done to stores by force, and what came of it."""
    faults = sys.modules.get("faults")
    if faults is not None and faults.LEDGER:
        terminalreporter.section("faults injected")
        for line in faults.table():
            terminalreporter.write_line(line)
