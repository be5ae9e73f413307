"""A tiny random model in GGUF, and llama.cpp's own HTTP server to run it: true inference, of noise.

The server is the one inside the wheel `xllamacpp`, which needs no compiler; the file is made with the package `gguf`.
As a script this is a `llama-server` with the flags that a llamafile's stand-in passes on:

    python tests/hub/tiny_model.py make --model tiny.gguf [--kind embedding] [--context 2048] [--seed 0]
    python tests/hub/tiny_model.py serve --model tiny.gguf --host 127.0.0.1 --port 8080 [--api-key-file F] [--embeddings]

What the model says is printable and never ends by itself: a chat runs until `max_tokens` or until the context is full.
A character of ASCII is one token; any other is one token per byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 128
CONTEXT = 2048
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # llama.cpp's kinds of token


def vocabulary() -> tuple[list[str], list[int]]:
    """The tokens with their kinds: three marks, the 256 bytes, the space and the printable characters of ASCII."""
    tokens = ["<unk>", "<s>", "</s>"]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    kinds += [_BYTE] * 256
    printable = ["\u2581", *map(chr, range(33, 127))]
    return tokens + printable, kinds + [_NORMAL] * len(printable)


def write_model(
    path: str | Path, *, kind: str = "chat", context: int = CONTEXT, seed: int = 0, template: str = TEMPLATE
) -> Path:
    """Write the model, about 600 kB, to *path*; *kind* `embedding` gives one that pools the mean."""
    import gguf
    import numpy as np

    random = np.random.default_rng(seed)
    tokens, kinds = vocabulary()

    def weights(*shape: int, scale: float = 0.1) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(f"tiny-{kind}")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    if kind == "embedding":
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)

    writer.add_tensor("token_embd.weight", weights(len(tokens), WIDTH, scale=1.0))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    # Marks and bytes get the logit zero, characters one far from it: what is said is text, and never the end.
    output = weights(len(tokens), WIDTH, scale=2.0)
    output[: 3 + 256] = 0
    writer.add_tensor("output.weight", output)
    for block in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{norm}.weight", np.ones(WIDTH, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{block}.{name}.weight", weights(WIDTH, WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_gate.weight", weights(FEED_FORWARD, WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_up.weight", weights(FEED_FORWARD, WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_down.weight", weights(WIDTH, FEED_FORWARD))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def _flags() -> argparse.ArgumentParser:
    """Those of llama-server that the hub passes; any other is refused, as llama-server does."""
    flags = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    flags.add_argument("-m", "--model", required=True)
    flags.add_argument("--server", action="store_true", help="llamafile's mode flag; this is always a server")
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8080)
    flags.add_argument("--api-key")
    flags.add_argument("--api-key-file")
    flags.add_argument("--embeddings", "--embedding", action="store_true")
    flags.add_argument("--pooling", choices=["none", "mean", "cls", "last", "rank"])
    flags.add_argument("-a", "--alias")
    flags.add_argument("-c", "--ctx-size", type=int, default=0)
    flags.add_argument("-np", "--parallel", type=int, default=1)
    flags.add_argument("-t", "--threads", type=int, default=1)
    flags.add_argument("-b", "--batch-size", type=int, default=2048)
    flags.add_argument("-ub", "--ubatch-size", type=int, default=512)
    flags.add_argument("-ngl", "--gpu-layers", "--n-gpu-layers", type=int, default=0)
    flags.add_argument("--gpu", choices=["auto", "nvidia", "amd", "apple", "vulkan", "disable"], default="auto")
    flags.add_argument("--no-webui", action="store_true")
    flags.add_argument("--metrics", action="store_true")
    flags.add_argument("--slots", action="store_true")
    return flags


def serve(arguments: Sequence[str]) -> int:
    """Run the server until SIGTERM or SIGINT; its log goes to standard error."""
    import xllamacpp

    given, unknown = _flags().parse_known_args(arguments)
    if unknown:
        print(f"error: invalid argument: {unknown[0]}", file=sys.stderr)
        return 1
    parameters = xllamacpp.CommonParams()
    parameters.model.path = given.model
    parameters.hostnames = [given.host]
    parameters.port = given.port
    keys = [given.api_key] if given.api_key else []
    if given.api_key_file:
        keys += [line.strip() for line in Path(given.api_key_file).read_text().splitlines() if line.strip()]
    parameters.api_keys = keys
    parameters.embedding = given.embeddings
    if given.pooling:
        parameters.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{given.pooling.upper()}")
    if given.alias:
        parameters.model_alias = {given.alias}
    parameters.n_ctx = given.ctx_size
    parameters.n_parallel = given.parallel
    parameters.n_batch = given.batch_size
    parameters.n_ubatch = given.ubatch_size
    parameters.cpuparams.n_threads = given.threads
    parameters.cpuparams_batch.n_threads = given.threads
    parameters.n_gpu_layers = given.gpu_layers
    parameters.n_threads_http = 4
    parameters.fit_params = False
    parameters.endpoint_metrics = given.metrics
    parameters.endpoint_slots = given.slots
    parameters.warmup = False

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:  # it has said what is wrong
        print(error, file=sys.stderr)
        return 1
    print(f"server is listening on {server.listening_address}", file=sys.stderr, flush=True)
    while not stop.wait(0.1):
        pass
    # Its threads are in C++, and joining them waits for an answer that is being written: a server that was told to
    # stop need not.
    os._exit(0)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    url: str
    pid: int
    log: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(model: str | Path, log: Path, *flags: str, port: int | None = None) -> Iterator[Running]:
    """The real server over *model*, once `/health` says that it is ready; stopped at the end."""
    port = port or free_port()
    command = [sys.executable, __file__, "serve", "--model", str(model), "--port", str(port), *flags]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 120
            while not _ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield Running(url, process.pid, log, process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "serve":
        return serve(arguments[1:])
    if arguments and arguments[0] == "make":
        flags = argparse.ArgumentParser(prog="tiny_model.py make")
        flags.add_argument("--model", required=True)
        flags.add_argument("--kind", choices=["chat", "embedding"], default="chat")
        flags.add_argument("--context", type=int, default=CONTEXT)
        flags.add_argument("--seed", type=int, default=0)
        given = flags.parse_args(arguments[1:])
        print(write_model(given.model, kind=given.kind, context=given.context, seed=given.seed))
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
