"""The bundle of the hub: built, started, and asked, as a program that knows no Python around it.

`RAEBURN_TEST_BUNDLE` names the folder of a bundle that was built already, by an environment with nothing else in it.
"""

import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import running, send, until

from raeburnmemory._optional import installed

ROOT = Path(__file__).resolve().parents[2]
_BUILT = os.environ.get("RAEBURN_TEST_BUNDLE")


def build_hub():
    """Return `packaging/build_hub.py` as a module."""
    about = importlib.util.spec_from_file_location("build_hub", ROOT / "packaging" / "build_hub.py")
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


def test_every_file_of_the_package_that_is_no_code_goes_in():
    package = ROOT / "raeburnmemory"
    there = {
        str(path)
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
    }
    assert {path for path, _ in build_hub().data_files()} == there
    assert {folder for _, folder in build_hub().data_files()} == {
        str(Path(path).parent.relative_to(ROOT)) for path in there
    }


def test_every_module_that_is_imported_by_a_made_up_name_goes_in():
    lazy = build_hub().LAZY
    for path in (ROOT / "raeburnmemory").rglob("*.py"):
        if re.search(r"import_module\(f", path.read_text(encoding="utf-8")):
            # What `__init__` makes up are the homes of public names, which PyInstaller finds where they are used.
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            assert any(name == one or name.startswith(f"{one}.") for one in lazy) or name in {
                "raeburnmemory",
                "raeburnmemory.mcp",  # no part of the hub
            }, name


def test_what_looks_after_the_health_of_the_image_asks_a_route_that_is_open(tmp_path):
    text = (ROOT / "docker" / "Dockerfile.hub").read_text(encoding="utf-8")
    python, *options = json.loads(re.search(r"^HEALTHCHECK.*\\\n +CMD (\[.*\])$", text, re.MULTILINE)[1])
    assert python == "python3"
    with running(tmp_path) as hub:
        command = [sys.executable, *options]  # more patient, for machines that do much at once
        command[-1] = command[-1].replace(":4444/", f":{hub.port}/").replace("timeout=4", "timeout=60")
        subprocess.run(command, check=True, timeout=100)
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode != 0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return the folder of the bundle."""
    if _BUILT is not None:
        return Path(_BUILT)
    if not installed("PyInstaller"):
        pytest.skip("a bundle is built with PyInstaller, or named by RAEBURN_TEST_BUNDLE")
    place = tmp_path_factory.mktemp("bundle")
    subprocess.run(
        [
            sys.executable,
            ROOT / "packaging" / "build_hub.py",
            "onedir",
            "--dist",
            place / "dist",
            "--work",
            place / "work",
        ],
        check=True,
        timeout=1500,
    )
    return place / "dist" / f"{build_hub().NAME}.d"


@pytest.fixture(scope="module")
def program(bundle):
    return bundle / build_hub().program("onedir", bundle).name


class Started:
    """A bundled hub that runs in *home*, and requests to it."""

    def __init__(self, program, home):
        began = time.monotonic()
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LD_LIBRARY_PATH": "/of/the/user"}
        environment["RAEBURN_EMBED_MODEL"] = "builtin"  # or it says that it has no other
        self.process = subprocess.Popen(
            [program, "--no-browser", "--port", "0", "--home", str(home / "hub"), "--llamafile-store-path", str(home / "models")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=home,
        )  # fmt: skip
        for line in self.process.stdout:
            if found := re.search(r"http://localhost:(\d+)/\?code=(\S+)", line):
                break
        self.port, self.seconds = int(found[1]), time.monotonic() - began
        self.cookie = self.ask("GET", f"/?code={found[2]}").headers["Set-Cookie"].partition(";")[0]

    def ask(self, method, path, body=None):
        headers = {} if body is None else {"Content-Type": "application/json"}
        if hasattr(self, "cookie"):
            headers |= {"Cookie": self.cookie, "Origin": f"http://localhost:{self.port}"}
        return send(self.port, method, path, headers, None if body is None else json.dumps(body).encode())

    def resident(self):
        """Return how much memory it holds, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_bundle_serves_reads_pages_and_finds_them(program, tmp_path):
    (tmp_path / "models").mkdir()
    tells = tmp_path / "models" / "tells.llamafile"
    tells.write_text(f'#!/bin/sh\necho "$LD_LIBRARY_PATH" > {tmp_path}/told\nexit 1\n')
    tells.chmod(0o700)
    hub = Started(program, tmp_path)
    try:
        assert hub.ask("GET", "/api/v1/health").json() == {"status": "ok"}
        idle = hub.resident()
        # HTML is read in a process of its own, which is this program once more; the vectors are the builtin ones.
        page = {
            "url": "https://example.com/bees",
            "html": "<!doctype html><html><head><title>Bees</title></head><body><article><h1>Bees</h1>"
            "<p>A colony of honeybees winters on about fifteen kilograms of stores, and clusters when it is cold.</p>"
            "<p>Inspect the hive on a warm afternoon, and smoke it gently beforehand.</p></article></body></html>",
        }
        kept = hub.ask("POST", "/api/v1/capture", page)
        assert (kept.status, kept.json()["outcome"]) == (201, "added"), kept.body
        found = hub.ask("POST", "/api/v1/search", {"query": "How much food do bees need in winter?"}).json()
        assert "fifteen kilograms" in found["hits"][0]["text"]
        assert "dense" in found["legs"]
        assert hub.ask("GET", "/api/v1/models").json()["models"]
        assert hub.ask("GET", "/").status == 200
        # A model gets the library path that was there before, not the bundle's.
        hub.ask("POST", "/api/v1/models/tells/start", {})
        told = tmp_path / "told"
        until(lambda: told.exists() and told.read_text())
        assert told.read_text() == "/of/the/user\n"
        print(
            f"started in {hub.seconds:.2f} s, {idle:.0f} MB idle, {build_hub().size(program.parent) / 1e6:.0f} MB on disk"
        )
        assert idle < 150
    finally:
        code, errors = hub.end()
    assert code == 0
    assert [line for line in errors.splitlines() if "Model 'tells' ended" not in line] == []


@pytest.mark.long
def test_the_bundle_tests_itself(program, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RAEBURN_EMBED_MODEL": "builtin"}
    command = [program, "--no-browser", "--selftest"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="measures processes by wait4")
def test_the_bundle_starts_nearly_as_fast_as_python_does(program):
    def seconds(command):
        taken = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(taken)

    bundled, plain = seconds([program, "--help"]), seconds([sys.executable, "-m", "raeburnmemory", "hub", "--help"])
    print(f"{bundled:.2f} s of CPU bundled, {plain:.2f} s by Python: {bundled / plain:.2f} times")
    assert bundled < 2 * plain
