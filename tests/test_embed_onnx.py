"""all-MiniLM-L6-v2 through onnxruntime, and how it gets onto this machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import minilm
import numpy as np
import pytest

from raeburnmemory.embed import PROBE, checked_embed, model_name, open_embedder, same_model
from raeburnmemory.embed.builtin import BuiltinEmbedder, wordpiece
from raeburnmemory.errors import ModelUnavailable

TEXTS = minilm.TEXTS

# --- onnx, on the real weights ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Path:
    return minilm.onnx_folder()


@pytest.fixture(scope="module")
def onnx(folder):
    from raeburnmemory.embed.onnx import OnnxEmbedder

    return OnnxEmbedder(folder, name="all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def bert():
    return minilm.numpy_model()


@pytest.fixture(scope="module")
def builtin():
    return BuiltinEmbedder()


LONG = " ".join(f"word{index} tree" for index in range(200))  # more than 256 pieces


@pytest.mark.weights
def test_onnx_agrees_with_the_model_in_plain_numpy(onnx, bert):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm.weights_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    texts = [*TEXTS, LONG]
    rows = checked_embed(onnx, texts)
    assert rows.shape == (len(texts), onnx.dim) == (len(texts), 384)
    for text, row in zip(texts, rows, strict=True):
        mean = bert(np.array([tokenizer.encode(text).ids])).mean(axis=1)[0]
        assert row @ mean / np.linalg.norm(mean) >= 0.999999


@pytest.mark.weights
def test_onnx_rows_have_length_one_and_do_not_depend_on_their_batch(onnx):
    texts = [*TEXTS, LONG, *(f"{text} {index}" for index in range(10) for text in TEXTS)]
    rows = onnx.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    backwards = onnx.embed(texts[::-1])[::-1]
    alone = np.concatenate([onnx.embed([text]) for text in texts[:20]])
    assert (rows * backwards).sum(axis=1).min() >= 0.99999
    assert (rows[:20] * alone).sum(axis=1).min() >= 0.99999
    assert onnx.embed([]).shape == (0, 384)


@pytest.mark.weights
def test_onnx_reads_256_tokens_not_128(onnx):
    # "tree" is one token; [CLS] and [SEP] take two of the 256.
    assert len(wordpiece("tree")) == 1
    full, over, under, half = onnx.embed(
        [
            "tree " * 253 + "password",
            "tree " * 253 + "password" + " banana" * 50,
            "tree " * 253,
            "tree " * 126 + "password",
        ]
    )
    assert full @ over >= 0.999999
    assert full @ under < 0.9999
    assert full @ half < 0.9999


@pytest.mark.weights
def test_builtin_and_minilm_agree_on_what_is_near(onnx, builtin):
    texts = [
        *("How do I reset my password?", "I forgot my login credentials."),
        *("My car needs a new engine.", "The automobile is at the garage for repair."),
        *("She is allergic to peanuts.", "Nuts make her ill, she cannot eat them."),
        *("The meeting is on Thursday morning.", "We will meet this week, before noon on Thursday."),
    ]
    for embedder in (onnx, builtin):
        scores = (rows := embedder.embed(texts)) @ rows.T - 2 * np.eye(len(texts))
        assert scores.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6], embedder


@pytest.mark.weights
def test_onnx_opens_from_a_folder_by_any_spelling(folder, onnx, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for spec in (f"onnx:{folder}", str(folder), f"./{folder.name}", folder.name):
        found = open_embedder(spec)
        assert found.name == model_name(spec) == str(folder)
    assert same_model(found.embed([PROBE])[0], onnx.embed([PROBE])[0])


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the model folder that may be changed."""
    target = tmp_path / "model"
    for file in folder.rglob("*"):
        if file.is_file():
            there = target / file.relative_to(folder)
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, there) if file.suffix == ".onnx" else shutil.copy(file, there)
            except OSError:  # on another disk
                shutil.copy(file, there)
    return target


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def prompt_not_pooled(model: Path) -> None:
    change(model / "1_Pooling" / "config.json", include_prompt=False)
    assert open_embedder(f"onnx:{model}").embed(["a"]).any()  # there is none
    change(model / "config_sentence_transformers.json", prompts={"query": "find: "})


@pytest.mark.weights
def test_onnx_honours_cls_pooling_and_shorter_limits(copy, bert):
    mean, first = {"pooling_mode_mean_tokens": False}, {"pooling_mode_cls_token": True}
    change(copy / "1_Pooling" / "config.json", **mean, **first)
    change(copy / "sentence_bert_config.json", max_seq_length=10)
    row = open_embedder(f"onnx:{copy}").embed(["tree " * 20])[0]
    state = bert(np.array([[101, *wordpiece("tree") * 8, 102]]))[0, 0]
    assert row @ state / np.linalg.norm(state) >= 0.999999


@pytest.mark.weights
def test_onnx_takes_the_pooling_config_of_newer_versions(copy, onnx):
    (copy / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 384, "pooling_mode": "mean"}')
    np.testing.assert_array_equal(open_embedder(f"onnx:{copy}").embed(TEXTS), onnx.embed(TEXTS))


@pytest.mark.weights
@pytest.mark.parametrize(
    ("said", "document", "query"),
    [
        ({"prompts": {"query": "find: ", "passage": "text: "}}, "text: ", "find: "),
        ({"prompts": {"query": "", "document": "", "corpus": "of: "}, "default_prompt_name": "query"}, "of: ", ""),
        ({"prompts": {"query": "find: ", "document": "text: ", "passage": "no"}}, "text: ", "find: "),
        ({"prompts": {"usual": "always "}, "default_prompt_name": "usual"}, "", ""),
        ({"prompts": None}, "", ""),
    ],
)
def test_onnx_puts_the_prompts_of_the_model_before_texts_and_questions(copy, onnx, said, document, query):
    change(copy / "config_sentence_transformers.json", **said)
    model = open_embedder(f"onnx:{copy}")
    np.testing.assert_array_equal(model.embed(TEXTS), onnx.embed([document + text for text in TEXTS]))
    np.testing.assert_array_equal(model.embed_queries(TEXTS), onnx.embed([query + text for text in TEXTS]))


@pytest.mark.weights
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: (model / "onnx" / "model.onnx").unlink(), "no onnx/model.onnx"),
        (lambda model: (model / "tokenizer.json").unlink(), "no tokenizer.json"),
        (shutil.rmtree, "no onnx/model.onnx"),
        (lambda model: (model / "modules.json").write_text("[{"), "cannot be read"),
        (lambda model: change(model / "1_Pooling" / "config.json", pooling_mode_max_tokens=True), r"'mean\+max'"),
        (lambda model: change(model / "1_Pooling" / "config.json", pooling_mode="lasttoken"), "'lasttoken'"),
        (prompt_not_pooled, "a prompt that is left out"),
        (
            lambda model: (model / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]'),
            "modules Dense",
        ),
    ],
)
def test_onnx_refuses_models_it_cannot_compute(copy, damage, message):
    damage(copy)
    with pytest.raises(ModelUnavailable, match=message):
        open_embedder(f"onnx:{copy}")


@pytest.mark.weights
@pytest.mark.parametrize("file", ["onnx/model.onnx", "tokenizer.json"])
def test_onnx_damaged_files_show_at_the_first_embedding(copy, file):
    (copy / file).unlink()  # never write through the link
    (copy / file).write_bytes(b"damaged")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        open_embedder(f"onnx:{copy}").embed(["hello"])


# --- the hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(folder):
    pytest.importorskip("huggingface_hub", reason="fetching needs huggingface-hub")
    hub = minilm.Hub(folder)
    yield hub
    hub.close()


@pytest.mark.weights
def test_default_is_fetched_once_and_then_found_in_the_cache(hub, tmp_path, onnx):
    code = "e = open_default(); print(type(e).__name__, e.name); print(e.embed([PROBE])[0].tolist())"
    first = minilm.elsewhere(code, tmp_path, HF_ENDPOINT=hub.url)
    said = [line for line in first.stderr.splitlines() if "Fetching the embedding model" in line]
    assert len(said) == 1
    assert all(part in said[0] for part in ("onnx/model.onnx", "90 MB", hub.url, str(tmp_path)))
    asked = len(hub.requests)
    assert "GET main/onnx/model.onnx" in hub.requests
    assert not [request for request in hub.requests if "safetensors" in request]
    second = minilm.elsewhere(code, tmp_path, HF_ENDPOINT=hub.url)
    assert (second.stdout, second.stderr, len(hub.requests)) == (first.stdout, "", asked)
    head, numbers = first.stdout.splitlines()
    assert head == "OnnxEmbedder all-MiniLM-L6-v2"
    assert same_model(np.array(json.loads(numbers)), onnx.embed([PROBE])[0])
    # Half a cache is no model: what tells the pooling must be known.
    next(tmp_path.rglob("1_Pooling/config.json")).unlink()
    offline = minilm.elsewhere(
        "try: open_embedder('all-MiniLM-L6-v2')\nexcept ModelUnavailable as exc: print(exc)",
        tmp_path,
        HF_HUB_OFFLINE="1",
    )
    assert "HF_HUB_OFFLINE" in offline.stdout
    third = minilm.elsewhere(code, tmp_path, HF_ENDPOINT=hub.url)
    assert (third.stdout, third.stderr) == (first.stdout, "")
    # Only the missing file, of the revision that is there, after one question for the weights.
    revision = "0123456789" * 4
    assert f"HEAD {revision}/1_Pooling/config.json" in hub.requests[asked:]
    assert not [request for request in hub.requests[asked:] if "onnx" in request and "GET" in request]
    assert not [request for request in hub.requests[asked:] if revision not in request]


@pytest.mark.weights
def test_named_models_that_cannot_be_fetched_raise(hub, tmp_path):
    code = """
for spec in ("onnx:no-such-model", "no-such-model", "someone/else"):
    try: open_embedder(spec)
    except ModelUnavailable as exc: print(exc)
"""
    lines = minilm.elsewhere(code, tmp_path, HF_ENDPOINT=hub.url).stdout.splitlines()
    assert len(lines) == 3
    assert all("has no ONNX file" in line and "raeburnmemory[sentence-transformers]" in line for line in lines)


@pytest.mark.parametrize("offline", [False, True])
def test_default_without_a_network_falls_back_soon(tmp_path, offline):
    for module in ("onnxruntime", "tokenizers", "huggingface_hub"):
        pytest.importorskip(module, reason=f"fetching needs {module}")
    code = """
import time, warnings
start = time.monotonic()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(open_default().name, open_default().name)
ours = [w for w in caught if w.category is EmbedderFallbackWarning]
print(len(ours), ours[0].message)
print(time.monotonic() - start < 30)
"""
    settings = {"HF_HUB_OFFLINE": "1"} if offline else {"HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody listens
    lines = minilm.elsewhere(code, tmp_path, **settings).stdout.splitlines()
    assert lines[0] == "builtin builtin"
    assert lines[1].startswith("1 all-MiniLM-L6-v2 is not available")
    assert ("HF_HUB_OFFLINE" if offline else "http://127.0.0.1:9") in lines[1]
    assert lines[2] == "True"
