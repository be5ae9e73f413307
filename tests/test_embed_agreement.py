"""One model through two runtimes: onnxruntime and torch must agree, so that a store may change between them."""

from __future__ import annotations

import json
import shutil
import sys

import minilm
import numpy as np
import pytest

from raeburnmemory.embed import PROBE, checked_embed, open_default, open_embedder, same_model
from raeburnmemory.errors import MissingDependency, ModelUnavailable

pytestmark = [
    pytest.mark.long,
    pytest.mark.weights,
    # of torch and transformers, raised while they are imported or load a model; nothing we can act on
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

_SENTENCES = [
    "How do I reset my password?",
    "The quick brown fox jumps over the lazy dog.",
    "I saw my physician at the hospital yesterday, and she was not amused.",
    "def f(x):\n\treturn x['key'] -> None  # comment",
    "Straße, naïve café, İstanbul, ΟΔΟΣ, ﬁne, e\u0301, Å",
    "東京タワー is 333 m high 🎉 한국어 漢字 العربية עברית हिन्दी",
    "https://example.org/a/b?c=d&e=f#g user@example.org +49 30 1234567",
    "[CLS] [SEP] [MASK] are literal here, \u200b and this is \x00 dropped",
    "ALL CAPS!!! ... ,,, ??? --- ***",
    "\n\n  white\tspace \r\n around  \u3000 ",
]


def _texts() -> list[str]:
    rng = np.random.default_rng(7)
    words = " ".join(_SENTENCES).split()
    texts = ["", " ", "a", "x" * 150, *_SENTENCES]
    while len(texts) < 100:  # from 1 to 800 words: the limit of 256 tokens is well inside
        length = int(np.exp(rng.uniform(0, np.log(800))))
        texts.append(" ".join(rng.choice(words, length)))
    return texts


@pytest.fixture(scope="module")
def torch_embedder():
    pytest.importorskip("torch", reason="the comparison needs torch")
    pytest.importorskip("sentence_transformers", reason="the comparison needs sentence-transformers")
    return open_embedder(f"sentence_transformers:{minilm.weights_folder()}")


@pytest.fixture(scope="module")
def onnx_embedder():
    return open_embedder(f"onnx:{minilm.onnx_folder()}")


def test_onnx_and_torch_agree(onnx_embedder, torch_embedder, record_property):
    texts = _texts()
    assert sum(len(text.split()) > 256 for text in texts) >= 10
    by_onnx, by_torch = checked_embed(onnx_embedder, texts), checked_embed(torch_embedder, texts)
    assert by_onnx.shape == by_torch.shape == (100, 384)
    cosines = (by_onnx.astype(float) * by_torch).sum(axis=1)
    record_property("smallest_cosine", float(cosines.min()))
    print(f"onnx and torch: smallest cosine over {len(texts)} texts {cosines.min():.8f}")
    assert cosines.min() >= 0.999999
    # Not by all texts being alike: the model tells them apart.
    assert np.median(by_onnx @ by_onnx.T) < 0.9


def test_both_runtimes_are_one_model_to_a_store(onnx_embedder, torch_embedder):
    assert onnx_embedder.dim == torch_embedder.dim == 384
    assert same_model(onnx_embedder.embed([PROBE])[0], torch_embedder.embed([PROBE])[0])


def test_sentence_transformers_object_is_taken_as_it_is(torch_embedder):
    from sentence_transformers import SentenceTransformer

    adapted = open_embedder(SentenceTransformer(str(minilm.weights_folder())))
    texts = _texts()[:20]
    np.testing.assert_allclose(checked_embed(adapted, texts), checked_embed(torch_embedder, texts), atol=1e-6)


@pytest.mark.parametrize(
    "said",
    [
        {"prompts": {"query": "find: ", "passage": "text: "}},
        {"prompts": {"query": "find: ", "document": "text: "}, "default_prompt_name": "query"},
        {"prompts": {"query": "find: ", "usual": "always "}, "default_prompt_name": "usual"},
    ],
)
def test_both_put_the_same_prompts_before_texts_and_questions(said, torch_embedder, tmp_path):
    rows = []
    for folder, runtime in ((minilm.onnx_folder(), "onnx"), (minilm.weights_folder(), "sentence_transformers")):
        model = tmp_path / runtime
        shutil.copytree(folder, model)
        settings = model / "config_sentence_transformers.json"
        known = json.loads(settings.read_text()) if settings.exists() else {}
        settings.write_text(json.dumps({**known, **said}))
        embedder = open_embedder(f"{runtime}:{model}")
        rows.append((embedder.embed(_SENTENCES), embedder.embed_queries(_SENTENCES)))
    for by_onnx, by_torch in zip(*rows, strict=True):
        assert (by_onnx.astype(float) * by_torch).sum(axis=1).min() >= 0.999999
    plain = torch_embedder.embed(_SENTENCES)
    assert (rows[0][1] * plain).sum(axis=1).min() < 0.999  # the prompt is in it


@pytest.mark.parametrize("packages", ["both", "torch alone"])
def test_a_bare_folder_takes_the_runtime_that_can(packages, torch_embedder, monkeypatch):
    exported, trained = minilm.onnx_folder(), minilm.weights_folder()
    if packages == "torch alone":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingDependency, match=r"raeburnmemory\[embeddings\]"):
            open_embedder(str(exported))
    else:
        assert type(open_embedder(str(exported))).__name__ == "OnnxEmbedder"
    assert type(open_embedder(str(trained))).__name__ == "SentenceTransformersEmbedder"


def test_a_name_takes_the_runtime_whose_weights_are_cached(torch_embedder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
        open_embedder("all-MiniLM-L6-v2")
    home = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0123456789" * 4)
    (home / "snapshots").mkdir()
    snapshot = home / "snapshots" / ("0123456789" * 4)
    snapshot.symlink_to(minilm.weights_folder())
    for spec in ("all-MiniLM-L6-v2", "sentence_transformers:all-MiniLM-L6-v2"):
        found = open_embedder(spec)
        assert (type(found).__name__, found.name) == ("SentenceTransformersEmbedder", "all-MiniLM-L6-v2")
    assert same_model(found.embed([PROBE])[0], torch_embedder.embed([PROBE])[0])
    assert open_default().name == "all-MiniLM-L6-v2"
    snapshot.unlink()
    snapshot.symlink_to(minilm.onnx_folder())
    assert type(open_embedder("all-MiniLM-L6-v2")).__name__ == "OnnxEmbedder"


def test_fetching_through_torch(torch_embedder, tmp_path):
    hub = minilm.Hub(minilm.weights_folder())
    code = """
del sys.modules['sentence_transformers']
e = open_embedder('all-MiniLM-L6-v2')  # the hub has no ONNX file
print(type(e).__name__, e.name, e.dim)
"""
    try:
        first = minilm.elsewhere(code, tmp_path, HF_ENDPOINT=hub.url)
        asked = len(hub.requests)
        second = minilm.elsewhere(
            code.replace("open_embedder('", "open_embedder('sentence_transformers:"), tmp_path, HF_ENDPOINT=hub.url
        )
    finally:
        hub.close()
    assert first.stdout == second.stdout == "SentenceTransformersEmbedder all-MiniLM-L6-v2 384\n"
    assert first.stderr.count("Fetching the embedding model") == 1
    assert any(request.startswith("GET") and "model.safetensors" in request for request in hub.requests)
    assert len(hub.requests) == asked


def test_loading_through_torch_prints_nothing(capfd):
    pytest.importorskip("sentence_transformers", reason="the comparison needs sentence-transformers")
    embedder = open_embedder(f"sentence_transformers:{minilm.weights_folder()}")
    assert embedder.embed([]).shape == (0, 384)
    assert capfd.readouterr() == ("", "")
