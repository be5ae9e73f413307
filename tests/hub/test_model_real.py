"""The same with true inference: llama.cpp's own server, behind a stand-in of each dialect and as it is."""

import math
import signal
import sys

import pytest
from running_models import alive, runnable, wait_for, zombies
from stand_in import APE

from raeburnmemory.hub.models import errors, ports
from raeburnmemory.hub.models.limits import Limits

DIALECTS = ["v1", "v2", "llama-server"]
SLOW = Limits(stall=60.0, start=120.0, grace=3.0)


@pytest.fixture
def manager(bench):
    return bench.manager(limits=SLOW)


def chat(found, **more):
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **more}
    return ports.ask(found.port, "/v1/chat/completions", key=found.key, body=body, timeout=60.0)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_chat_model_behind_each_dialect(bench, manager, tiny_chat_model, dialect):
    file = bench.file(dialect=dialect, begins=APE, real=str(tiny_chat_model), detect=True)
    found = manager.start(file, ctx=256)
    assert found.dialect == dialect
    said = chat(found)
    assert said.status == 200
    assert said.data["usage"]["completion_tokens"] == 4
    assert manager.health("tiny", deep=True).ok
    if found.key:
        assert chat(found).status == 200
        assert ports.ask(found.port, "/props", key="wrong").status == 401
    assert manager.stop("tiny")
    assert not alive(found.pid)
    assert bench.left() == []
    assert zombies() == []


def server(bench):
    """Write a program that is llama.cpp's server, with no llamafile about it."""
    import tiny_model

    path = bench.folder / "llama-server"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "version: 6090 (abc)"; exit 0; }}\n'
                    f'exec "{sys.executable}" "{tiny_model.__file__}" serve "$@"\n')  # fmt: skip
    path.chmod(0o700)
    return path


def test_bare_weights_chat_and_embedding_side_by_side(bench, tiny_chat_model, tiny_embedding_model):
    manager = bench.manager(limits=SLOW, runtime=server(bench), max_running=2)
    talks = manager.start(runnable(tiny_chat_model, "talks", magic="gguf"), ctx=256)
    embeds = manager.start(runnable(tiny_embedding_model, "embeds", kind="embedding", magic="gguf"))

    assert chat(talks).status == 200
    long = "word " * 300  # 1500 tokens: more than the usual batch of 512, which would make the server abort
    answer = ports.ask(embeds.port, "/v1/embeddings", key=embeds.key, body={"input": ["hello", long]}, timeout=60.0)
    vectors = [each["embedding"] for each in answer.data["data"]]
    assert [len(vector) for vector in vectors] == [64, 64]
    assert all(math.isclose(sum(x * x for x in vector), 1.0, rel_tol=1e-3) for vector in vectors)
    assert vectors[0] != vectors[1]
    assert manager.health("embeds", deep=True).ok
    assert manager.status("embeds").process_state == "ready"


def test_weights_that_are_cut_short_never_reach_the_server(bench, tiny_chat_model):
    path = bench.folder / "cut.gguf"
    path.write_bytes(tiny_chat_model.read_bytes()[:-5000])
    with pytest.raises(errors.ModelLoadFailed, match="tensors end at byte"):
        bench.manager(limits=SLOW, runtime=server(bench)).start(runnable(path, magic="gguf"))
    assert bench.left() == []


def test_what_the_real_server_says_about_a_wrong_argument_is_recognised(bench, tiny_chat_model):
    manager = bench.manager(limits=SLOW, runtime=server(bench))
    with pytest.raises(errors.ProcessExited, match="does not know an argument"):
        manager.start(runnable(tiny_chat_model, magic="gguf"), args=("--no-such-flag",))


def test_a_killed_real_server_is_a_crash_and_comes_back(bench, tiny_chat_model):
    import os

    limits = Limits(stall=60.0, start=120.0, grace=3.0, restart="on-failure")
    manager = bench.manager(limits=limits, runtime=server(bench))
    first = manager.start(runnable(tiny_chat_model, magic="gguf"), ctx=256)
    os.kill(first.pid, signal.SIGKILL)
    again = wait_for(lambda: (now := manager.running("tiny")) and now.pid != first.pid and now, 60.0)
    assert chat(again).status == 200
