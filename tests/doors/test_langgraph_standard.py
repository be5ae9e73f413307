"""The tests that LangGraph ships for its own stores, run against ours.

They are in the source distributions of langgraph-checkpoint and langgraph-checkpoint-sqlite, in the releases that are
installed here. Only the stores are exchanged, see `langgraph_fixtures`; the files are as they were.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("langgraph.store.base", reason="the LangGraph door needs langgraph-checkpoint")
pytest.importorskip("langgraph.store.sqlite", reason="half of LangGraph's tests are about langgraph-checkpoint-sqlite")
pytest.importorskip("pytest_asyncio", reason="half of LangGraph's tests are coroutines")
pytest.importorskip("pytest_mock", reason="LangGraph's tests use pytest-mock")

from outside import environment

FIXTURES = Path(__file__).parent / "langgraph_fixtures.py"

# Files of tests: how many ran when this was written, and which are left out because they are about how SQLite is used
# there and not about a store.
SUITES = {
    ("langgraph-checkpoint", "test_store"): (117, {}),
    ("langgraph-checkpoint-sqlite", "test_store"): (
        96,
        {
            "test_vector_store_initialization": "looks for the tables of SqliteStore",
            "test_nonnull_migrations": "the migrations of SqliteStore",
            "test_list_namespaces_prefix_uses_indexable_condition": "the SQL that SqliteStore makes",
            "test_escape_glob_literal": "a function of SqliteStore's",
            "test_namespace_match_pattern": "a function of SqliteStore's",
            "test_sql_injection_vulnerability": "names that SqliteStore refuses, as it puts them into SQL; here all will do",
        },
    ),
    ("langgraph-checkpoint-sqlite", "test_async_store"): (
        37,
        {
            "test_no_running_loop": "AsyncSqliteStore refuses its other methods where a loop is running; here both will do"
        },
    ),
    ("langgraph-checkpoint-sqlite", "test_ttl"): (11, {}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders with the tests of each package."""
    folder = tmp_path_factory.mktemp("langgraph")
    return {package: _fetched(package, folder / package) for package in dict.fromkeys(one for one, _ in SUITES)}


def _fetched(package, folder):
    """Return a folder with the tests in the source distribution of the release of *package* that is installed."""
    wanted = f"{package}=={importlib.metadata.version(package)}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", package, "-d", folder, wanted]
    if importlib.util.find_spec("hatchling") is not None:
        command.append("--no-build-isolation")  # else pip fetches it again to read the name of the package
    folder.mkdir()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the source of {wanted} did not arrive in five minutes")
    if done.returncode:
        pytest.skip(f"the source of {wanted} cannot be fetched: {done.stderr.strip()[-300:]}")
    (path,) = folder.glob("*.tar.gz")
    suite = folder / "suite"
    with tarfile.open(path) as archive:
        for member in archive:
            # Nothing beside the tests: a folder of the same name would hide the package.
            parts = Path(member.name).parts[1:]
            if member.isfile() and parts[0] == "tests" and ".." not in parts:
                target = suite.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    shutil.copy(FIXTURES, suite / "conftest.py")
    (suite / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nmarkers = flaky\n"
    )
    return suite


def _run(folder, name, left):
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "--assert=plain", "-p", "no:cacheprovider"]
    command += [f"tests/{name}.py", f"--junit-xml={name}.xml"]
    command += [f"--deselect=tests/{name}.py::{test}" for test in left]
    (folder / name).mkdir()
    env = environment(TMPDIR=str(folder / name))
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.parametrize(
    ("package", "name"),
    [pytest.param(*suite, marks=() if suite[1] == "test_store" else pytest.mark.long) for suite in SUITES],
)
def test_ours_is_a_store_as_langgraph_tests_them(folders, package, name):
    folder = folders[package]
    done = _run(folder, name, SUITES[package, name][1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (suite,) = ET.parse(folder / f"{name}.xml").getroot()
    assert [suite.get(what) for what in ("errors", "failures", "skipped")] == ["0", "0", "0"]
    assert int(suite.get("tests")) >= SUITES[package, name][0]
