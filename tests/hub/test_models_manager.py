"""The manager of models as a whole: catalogue, folder, files brought in, plans, and what stands before the processes."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import inspect
import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from file_server import FileServer, model_bytes
from outside import environment, run

from raeburnmemory.hub import LlamafileError, LlamafileManager, ModelSpec, ModelStatus
from raeburnmemory.hub.models import errors
from raeburnmemory.hub.models.catalogue import packaged, read_specs
from raeburnmemory.hub.models.progress import progress_line, shown_size, shown_time, text_of
from raeburnmemory.hub.models.spec import SimpleState

pytest.importorskip("httpx", reason="the manager fetches models with httpx")
pytest.importorskip("psutil", reason="the manager looks at memory and processes with psutil")

ROOT = Path(__file__).resolve().parents[2]
SHELL = b"#!/bin/sh\nexit 0\n"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "models"


# --- loading, twins, errors


def test_the_package_is_light_until_it_is_used():
    code = """
import sys
import raeburnmemory.hub
from raeburnmemory.hub import ModelSpec, LlamafileError
ModelSpec("m", "m.gguf")
print([name for name in ("numpy", "httpx", "psutil", "platformdirs") if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_every_method_has_a_twin_that_is_awaited():
    methods = {name: getattr(LlamafileManager, name) for name in dir(LlamafileManager) if not name.startswith("_")}
    twins = {name: method for name, method in methods.items() if inspect.iscoroutinefunction(method)}
    waiting = {name for name in methods if name not in twins} - {"client", "async_client", "leased"}
    assert set(twins) == {f"a{name}" for name in waiting}
    for name in waiting - {"logs"}:  # whose twin follows nothing
        ours, theirs = (inspect.signature(methods[each]).parameters for each in (name, f"a{name}"))
        assert [(each.name, each.kind, each.default) for each in ours.values()] == [
            (each.name, each.kind, each.default) for each in theirs.values()
        ]


def test_the_twins_do_the_same(store):
    async def life():
        async with LlamafileManager(store, catalogue=[]) as models:
            with FileServer(model_bytes(5000)) as server:
                await models.aadd(ModelSpec("m", "m.llamafile", url=server.url))
                assert (await models.aplan("m")).bytes_missing == 5000
                job = await models.adownload("m")
                assert job.done
                assert (await models.averify("m")).file_state == "ready"
                assert [each.name for each in await models.alist()] == ["m"]
                assert await models.astatus("m") == (await models.astatuses())[0]
                assert await models.aspec("m") == (await models.acatalogue())[0]
                server.script = [("stall", 1000)]
                assert await models.aremove("m")
                waiting = asyncio.create_task(models.adownload("m"))
                while not server.gets[1:]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert (await models.astatus("m")).file_state == "paused"

    asyncio.run(life())


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_have_a_code_survive_pickling_and_are_builtins(name):
    kind = getattr(errors, name)
    error = kind("It broke.", model="m", remedy="Mend it.", log_tail=("one", "two"))
    assert isinstance(error, LlamafileError)
    assert str(error) == "It broke. Mend it."
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), vars(again)) == (str(error), vars(error))
    codes = [getattr(errors, each).code for each in errors.__all__]
    assert codes.count(kind.code) == 1
    assert re.fullmatch(r"[a-z_]+", kind.code)


# --- the catalogue


def test_the_packaged_catalogue_holds_what_can_be_known():
    specs = packaged()
    assert len(specs) >= 30
    assert {spec.kind for spec in specs} == {"chat", "embedding"}
    for spec in specs:
        assert urlsplit(spec.url).scheme == "https"
        assert urlsplit(spec.url).path.endswith(f"/{spec.filename}")
        assert spec.license
        assert urlsplit(spec.license_url).scheme == "https"
        assert spec.title
        if spec.sha256:  # a digest is that of one revision, and not of what a branch has by now
            assert re.search(r"/resolve/[0-9a-f]{40}/", spec.url)
    assert sum(spec.sha256 is not None for spec in specs) >= 3


def test_additions_are_kept_and_win(store):
    first = ModelSpec("m", "m.gguf", format="gguf", url="https://example.org/m.gguf")
    mine = ModelSpec("m", "mine.gguf", format="gguf", args=("--temp", "0"))
    with LlamafileManager(store, catalogue=[first]) as models:
        with pytest.raises(errors.InvalidSpec, match="already"):
            models.add(mine)
        models.add(mine, replace=True)
        models.add(mine)  # the same twice is once
        assert models.catalogue() == [mine]
        with pytest.raises(errors.InvalidSpec, match="one file name"):
            models.add(ModelSpec("other", "mine.gguf", format="gguf"))
    with LlamafileManager(store, catalogue=[first]) as models:
        assert models.spec("m") == mine
        assert models.remove("m", forget=True)
        assert models.spec("m") == first
    assert stat.S_IMODE((store / ".raeburn").stat().st_mode) == 0o700
    assert read_specs(store / ".raeburn" / "catalogue.json") == []


def test_additions_of_several_processes_are_all_kept(store):
    code = """
import sys
from raeburnmemory.hub import LlamafileManager, ModelSpec
with LlamafileManager(sys.argv[1], catalogue=[]) as models:
    for number in range(10):
        models.add(ModelSpec(f"{sys.argv[2]}-{number}", f"{sys.argv[2]}-{number}.gguf", format="gguf"))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(store), who], env=environment()) for who in ("ana", "ben")
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    with LlamafileManager(store, catalogue=[]) as models:
        assert sorted(each.name for each in models.catalogue()) == sorted(
            f"{w}-{n}" for w in ("ana", "ben") for n in range(10)
        )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 2, "models": []}', '{"format": 1, "models": [1]}', '{"format": 1, "models": [{}]}',
     '{"format": 1, "models": [{"name": "a", "filename": "../a"}]}', '{"format": 1, "models": [{"name": "a", "filename": "a", "x": 1}]}',
     '{"format": 1, "models": [{"name": "a", "filename": "a"}, {"name": "a", "filename": "b"}]}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_catalogue_is_told_and_left(store, text):
    path = store / ".raeburn" / "catalogue.json"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text(text)
    with LlamafileManager(store, catalogue=[]) as models:
        for call in (models.catalogue, lambda: models.add(ModelSpec("m", "m.gguf"))):
            with pytest.raises(errors.InvalidSpec):
                call()
    assert path.read_text() == text


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "poem"}, {"format": "zip"}, {"dialect": "v9"}, {"size": 0}, {"size": -1}, {"size": True}, {"size": "1 GB"},
     {"sha256": "abc"}, {"sha256": "g" * 64}, {"args": "--temp 0"}, {"args": [1]}, {"args": ["a\0b"]}, {"license": 7},
     {"filename": "m.partial"}, {"filename": "m.lock"}],
    ids=str,
)  # fmt: skip
def test_descriptions_that_make_no_sense(wrong):
    with pytest.raises(errors.InvalidSpec) as refused:
        ModelSpec(**{"name": "m", "filename": "m.gguf", **wrong})
    assert isinstance(refused.value, ValueError)
    assert refused.value.model in {"m", None}


def test_a_description_comes_back_from_json():
    spec = ModelSpec("m", "m.gguf", "https://example.org/m", 7, "A" * 64, "MIT", "https://example.org/l", "embedding", "gguf",
                     "v1", ("-x",), "Title", "7 B")  # fmt: skip
    again = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.sha256 == "a" * 64
    assert set(spec.to_dict()) == {each.name for each in dataclasses.fields(ModelSpec)}


def test_simple_states_are_the_five_of_the_original():
    seen = set()
    for file in ("absent", "queued", "downloading", "paused", "verifying", "ready", "corrupt", "failed"):
        for process in ("stopped", "starting", "loading", "ready", "stopping", "crashed", "failed"):
            seen.add(ModelStatus("m", file_state=file, process_state=process).simple_state)
    assert seen == set(SimpleState.__args__) == {"absent", "downloading", "idle", "running", "error"}


# --- the folder


def test_the_folder_is_that_of_the_variable_or_of_the_system(tmp_path, monkeypatch):
    pytest.importorskip("platformdirs", reason="the usual folder is that of platformdirs")
    monkeypatch.setenv("LLAMAFILES_DIR", str(tmp_path / "named"))
    assert LlamafileManager().folder.root == tmp_path / "named"
    assert LlamafileManager(tmp_path / "passed").folder.root == tmp_path / "passed"
    monkeypatch.delenv("LLAMAFILES_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert LlamafileManager().folder.root == tmp_path / "data" / "raeburnmemory" / "models"
    assert os.listdir(tmp_path) == []  # nothing is made before something is to be kept


def test_reading_makes_nothing(store):
    with LlamafileManager(store) as models:
        assert models.list() == []
        assert {each.file_state for each in models.statuses()} == {"absent"}
        assert models.plan("tinyllama-1.1b-chat-v1.0.q5_k_s", ask=False).bytes_missing == 801_519_714
        assert models.stop() is False
    assert not store.exists()


def test_files_that_lie_there_are_models(store):
    store.mkdir()
    (store / "by hand.llamafile").write_bytes(SHELL)
    (store / "weights.gguf").write_bytes(b"GGUF" + bytes(20))
    (store / "notes.txt").write_bytes(b"x")
    (store / "-rf.gguf").write_bytes(b"GGUF")
    with LlamafileManager(store, catalogue=[]) as models:
        assert [(each.name, each.format) for each in models.list()] == [("by hand", "llamafile"), ("weights", "gguf")]
        assert models.verify("by hand").sha256_verified is None
        assert models.status("weights").simple_state == "idle"
        assert Path(models.files.runnable("by hand").path).read_bytes() == SHELL


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\0" * 100])
def test_files_that_are_no_models_are_not_run(store, content):
    store.mkdir()
    (store / "m.llamafile").write_bytes(content)
    with LlamafileManager(store, catalogue=[]) as models:
        with pytest.raises(errors.InvalidSpec, match="no llamafile"):
            models.files.runnable("m")
        assert models.status("m").file_state == "corrupt"


@pytest.mark.skipif(os.name != "posix", reason="these kinds of files are those of POSIX systems")
@pytest.mark.parametrize("what", ["folder", "fifo", "link to nothing", "link to a folder"])
def test_things_that_are_no_files_are_refused(store, tmp_path, what):
    store.mkdir()
    path = store / "m.llamafile"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        os.symlink(tmp_path / "nothing" if what == "link to nothing" else tmp_path, path)
    models = LlamafileManager(store, catalogue=[ModelSpec("m", "m.llamafile")])
    with models, pytest.raises((errors.UnsafePath, errors.NotDownloaded)):
        models.verify("m")


# --- bringing files in


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_importing(store, tmp_path, mode):
    source = tmp_path / "it's a model.llamafile"
    source.write_bytes(SHELL)
    with LlamafileManager(store, catalogue=[]) as models:
        spec = models.import_file(source, "m", mode=mode, kind="embedding")
        assert models.import_file(source, "m", mode=mode, kind="embedding") == spec  # twice is once
        assert (spec.size, spec.sha256, spec.kind) == (len(SHELL), hashlib.sha256(SHELL).hexdigest(), "embedding")
        there = store / source.name
        assert there.is_symlink() is (mode == "link")
        assert models.status("m").sha256_verified is True
        assert Path(models.files.runnable("m").path).read_bytes() == SHELL
        assert models.remove("m")
        assert source.read_bytes() == SHELL
        assert models.status("m").file_state == "absent"
        assert models.spec("m") == spec
        models.remove("m", forget=True)
        with pytest.raises(errors.UnknownModel):
            models.spec("m")


def test_a_linked_file_that_changes_or_goes_is_noticed(store, tmp_path):
    source = tmp_path / "m.llamafile"
    source.write_bytes(SHELL)
    with LlamafileManager(store, catalogue=[]) as models:
        models.import_file(source, mode="link")
        source.write_bytes(SHELL.replace(b"0", b"1"))
        with pytest.raises(errors.ChecksumMismatch):
            models.files.runnable("m")
        source.unlink()
        with pytest.raises(errors.NotDownloaded):
            models.files.runnable("m")


def test_imports_that_are_refused(store, tmp_path):
    page, first, other = tmp_path / "page.llamafile", tmp_path / "m.llamafile", tmp_path / "elsewhere" / "m.llamafile"
    page.write_bytes(b"<html>")
    first.write_bytes(SHELL)
    other.parent.mkdir()
    other.write_bytes(SHELL + b"#")
    with LlamafileManager(store, catalogue=[]) as models:
        for path, more, error in (
            (page, {}, errors.InvalidSpec),
            (tmp_path / "nothing", {}, errors.NotDownloaded),
            (tmp_path, {}, (errors.InvalidSpec, errors.NotDownloaded)),
            (first, {"mode": "move"}, errors.InvalidSpec),
            (first, {"name": "-x"}, errors.UnsafePath),
            (first, {"kind": "poem"}, errors.InvalidSpec),
        ):
            with pytest.raises(error):
                models.import_file(path, **more)
        models.import_file(first)
        for name in (None, "other"):
            with pytest.raises(errors.InvalidSpec):
                models.import_file(other, name)
        assert (store / "m.llamafile").read_bytes() == SHELL
        assert models.files.runnable("m").sha256 == hashlib.sha256(SHELL).hexdigest()


def test_what_was_downloaded_by_hand_is_what_the_catalogue_means(store, tmp_path):
    source = tmp_path / "download.llamafile"
    source.write_bytes(SHELL)
    spec = ModelSpec("m", "m.llamafile", url="https://example.org/m", sha256=hashlib.sha256(SHELL).hexdigest())
    with LlamafileManager(store, catalogue=[spec]) as models:
        assert models.import_file(source, "m") == spec
        assert (store / "m.llamafile").read_bytes() == SHELL


def test_the_records_may_be_lost_or_damaged(store):
    store.mkdir()
    (store / "m.llamafile").write_bytes(SHELL)
    with LlamafileManager(
        store, catalogue=[ModelSpec("m", "m.llamafile", sha256=hashlib.sha256(SHELL).hexdigest())]
    ) as models:
        assert models.status("m").sha256_verified is None
        models.verify("m")
        record = store / ".raeburn" / "records" / "m.json"
        for text in ("", "{", "[]", "null", '{"inode": 1}'):
            record.write_text(text)
            assert models.status("m").sha256_verified is None
            assert models.files.runnable("m").sha256 == hashlib.sha256(SHELL).hexdigest()
            assert models.status("m").sha256_verified is True
        shutil.rmtree(store / ".raeburn")
        assert models.files.runnable("m").size == len(SHELL)


def test_a_control_folder_of_somebody_else_is_refused(store, tmp_path):
    store.mkdir()
    os.symlink(tmp_path, store / ".raeburn")
    with (
        LlamafileManager(store, catalogue=[]) as models,
        pytest.raises(errors.UnsafePath, match="not a folder of yours"),
    ):
        models.add(ModelSpec("m", "m.gguf"))


# --- plans


def test_a_plan_tells_what_is_missing(store):
    with FileServer(model_bytes(700_000)) as server:
        spec = ModelSpec("m", "m.llamafile", url=server.url)
        with LlamafileManager(store, catalogue=[spec], download_retries=0) as models:
            plan = models.plan("m")
            assert (plan.bytes_total, plan.bytes_missing, plan.fits) == (700_000, 700_000, True)
            assert plan.disk_needed == 700_000 + (256 << 20)
            assert plan.memory_needed == 700_000 + (512 << 20)
            assert models.plan("m", ask=False).bytes_missing is None
            assert server.gets == []
            server.script = [("short", 300_000)]
            with pytest.raises(errors.DownloadError):
                models.download("m")
            had = (store / "m.llamafile.partial").stat().st_size
            assert models.plan("m").bytes_missing == 700_000 - had
            models.download("m")
            assert models.plan("m").bytes_missing == 0
            server.head = ("status", 404, {})
            models.remove("m")
            gone = models.plan("m")
            assert gone.bytes_missing is None
            assert any("404" in problem for problem in gone.problems)


def test_a_plan_names_what_is_not_here(store):
    with LlamafileManager(store, catalogue=[ModelSpec("m", "m.gguf", format="gguf", size=1 << 60)]) as models:
        plan = models.plan("m")
        assert not plan.fits
        told = " ".join(plan.problems)
        assert "runtime=" in told
        assert "import_file" in told
        assert "free bytes" in told
        assert "memory" in told


# --- the line of a download


def test_the_line_of_a_download(capsys):
    assert [shown_size(each) for each in (0, 999, 1000, 801_519_714, 1_199_847_605, 12_345_678, 5e15)] == [
        "0 B", "999 B", "1.00 kB", "802 MB", "1.20 GB", "12.3 MB", "5000 TB",
    ]  # fmt: skip
    assert [shown_time(each) for each in (0, 5.4, 65, 3600, 7261)] == ["0:00", "0:05", "1:05", "1:00:00", "2:01:01"]
    status = ModelStatus(
        "tiny", file_state="downloading", bytes_done=370, bytes_total=1000, speed=12_345_678.0, eta=41.0
    )
    assert text_of(status) == "tiny   37 % of 1.00 kB  12.3 MB/s  0:41 left"
    draw = progress_line(sys.stdout, 30)
    draw(status)
    draw(dataclasses.replace(status, file_state="ready"))
    assert capsys.readouterr().out == "\r\x1b[Ktiny   37 % of 1.00 kB  12.3 \r\x1b[K"


# --- before the processes


@pytest.fixture
def models(store):
    """A manager with two stand-ins of models in its folder, `chat` and `words`."""
    if os.name != "posix":
        pytest.skip("models are run on POSIX systems")
    from stand_in import make_model

    store.mkdir()
    make_model(store / "chat.llamafile")
    make_model(store / "words.llamafile")
    specs = [
        ModelSpec("chat", "chat.llamafile", dialect="llama-server"),
        ModelSpec("words", "words.llamafile", dialect="llama-server", kind="embedding"),
    ]
    with LlamafileManager(store, catalogue=specs, stop_grace=1.0, idle_timeout=None) as made:
        yield made


def test_a_model_that_runs_is_not_pulled_away(models, store):
    running = models.start("chat")
    assert running is models.start("chat")
    status = models.status("chat")
    assert (status.file_state, status.process_state, status.simple_state) == ("ready", "ready", "running")
    assert (status.pid, status.port, status.base_url) == (running.pid, running.port, running.base_url)
    with pytest.raises(errors.ModelInUse, match="'chat' is ready"):
        models.remove("chat")
    with LlamafileManager(store, catalogue=models.catalogue()) as other:
        assert other.status("chat").process_state == "ready"
        with pytest.raises(errors.ModelInUse):
            other.remove("chat")
    assert models.remove("chat", force=True)
    assert models.status("chat").process_state == "stopped"
    assert not (store / "chat.llamafile").exists()
    with pytest.raises(errors.NotDownloaded):
        models.start("chat")


def test_clients_start_what_they_need(models):
    with models.client("chat") as client:
        assert models.status("chat").process_state == "stopped"
        assert str(client.chat("Hello"))
        assert models.status("chat").process_state == "ready"
        models.stop("chat")
        assert str(client.chat("Hello"))  # and again
        with pytest.raises(errors.WrongKind):
            client.embed(["Hello"])
    with models.client("words") as client:  # there is room for one at a time
        assert len(client.embed(["Hello"])) == 1
        assert models.status("chat").process_state == "stopped"
        with pytest.raises(errors.WrongKind):
            client.chat("Hello")
    with models.client("chat", autostart=False, retries=0) as client, pytest.raises(errors.NotRunning):
        client.chat("Hello")
    with pytest.raises(errors.UnknownModel):
        models.client("nobody")

    async def ask():
        async with models.async_client("chat") as client:
            return str(await client.chat("Hello"))

    assert asyncio.run(ask())


def test_what_changed_since_it_was_checked_is_not_started(models, store):
    spec = models.spec("chat")
    models.add(dataclasses.replace(spec, sha256="0" * 64), replace=True)
    with pytest.raises(errors.ChecksumMismatch):
        models.start("chat")
    assert models.status("chat").process_state == "stopped"
    with models.client("chat") as client, pytest.raises(errors.ChecksumMismatch):
        client.chat("Hello")


# --- the example of the documentation


def test_the_example_of_the_documentation(store, tmp_path, tiny_chat_model, tiny_embedding_model):
    """Download from a server of this machine, verify, start two real models, streamed chat, vectors, stop."""
    from stand_in import make_model

    page = (ROOT / "docs" / "how-to" / "local-models.md").read_text(encoding="utf-8")
    (script,) = re.findall(r'^```python title="local_models.py"\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    files = [
        make_model(tmp_path / "a", real=str(tiny_chat_model)),
        make_model(tmp_path / "b", real=str(tiny_embedding_model)),
    ]
    (tmp_path / "local_models.py").write_text(script, encoding="utf-8")
    with FileServer(files[0].read_bytes()) as chat, FileServer(files[1].read_bytes()) as words:
        with LlamafileManager(store) as models:
            models.add(ModelSpec("tiny-chat", "tiny-chat.llamafile", url=chat.url, sha256=chat.sha256))
            models.add(ModelSpec("tiny-words", "tiny-words.llamafile", url=words.url, kind="embedding"))
        done = subprocess.run(
            [sys.executable, str(tmp_path / "local_models.py"), "tiny-chat", "tiny-words"],
            env=environment(LLAMAFILES_DIR=str(store)), capture_output=True, timeout=150, check=False,
        )  # fmt: skip
    printed = done.stdout.decode("utf-8", "replace").splitlines()
    assert done.returncode == 0, done.stderr.decode()
    assert re.fullmatch(rf"tiny-chat: {len(chat.payload)} bytes to fetch, \d+ are free", printed[0])
    assert len("".join(printed[2:-2])) > 0
    assert printed[-2:] == ["(2, 64)", "['stopped', 'stopped']"]
    assert len(chat.gets) == len(words.gets) == 1
