"""What the tests of the extension share: the built extension, unpacked, and pages to save."""

import contextlib
import http.server
import importlib.util
import threading
import zipfile
from pathlib import Path

import hub_server
import pytest

from raeburnmemory.hub.server.running import listening

ROOT = Path(__file__).resolve().parents[2]

ARTICLE = """<!doctype html><html lang="en"><head><title>Keeping bees</title><style>p { color: red }</style>
<script>window.secret = "scriptword";</script></head><body><h1>Keeping bees</h1>
<p id="first">A colony of honeybees winters on about fifteen kilograms of stores.</p>
<p>Inspect the hive on a warm afternoon, and smoke it gently beforehand.</p>
<form><input type="hidden" name="csrf" value="tokenword"><input value="fieldword"></form></body></html>"""
OTHER = """<!doctype html><html lang="en"><head><title>Grafting pears</title></head><body><h1>Grafting pears</h1>
<p>Take scion wood in January and keep it damp and cool until the sap rises in the rootstock.</p></body></html>"""


def builder():
    """Return `packaging/build_extension.py` as a module."""
    about = importlib.util.spec_from_file_location("build_extension", ROOT / "packaging" / "build_extension.py")
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


def unpacked(folder, browser):
    """Build the extension, and return the folder with what is in the archive for *browser*."""
    path = next(path for path in builder().build(folder) if browser in path.name)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / browser)
    return folder / browser


@contextlib.contextmanager
def site(pages):
    """Serve *pages*, a dict from path to HTML, on a port of this machine, and give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = pages.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def running_again(folder, port):
    """Run a hub on *folder* once more, at the port that it had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_server, "listening", lambda host, _: listening(host, port))
        with hub_server.running(folder) as hub:
            yield hub
