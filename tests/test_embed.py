"""What every embedder goes through: the checks, the adapters for foreign objects, the choice by name."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from raeburnmemory import embed
from raeburnmemory.embed import (
    PROBE,
    Embedder,
    checked_embed,
    model_name,
    open_default,
    open_embedder,
    same_model,
)
from raeburnmemory.embed.builtin import BuiltinEmbedder, wordpiece
from raeburnmemory.errors import (
    EmbedderFallbackWarning,
    EmbeddingError,
    InvalidInput,
    MissingDependency,
    ModelUnavailable,
    UnknownBackend,
)

ROOT = Path(__file__).resolve().parent.parent

# --- the checked gate ---------------------------------------------------------------------------------------


class Fixed:
    """An embedder that answers what it was given."""

    name, dim = "fixed", 3

    def __init__(self, answer) -> None:
        self.answer = answer

    def embed(self, texts):
        return self.answer


def test_checked_embed_brings_rows_to_length_one_and_changes_nothing_of_the_embedders():
    own = np.array([[3, 0, 4], [0, 0, 0], [1e-13, 0, 0], [0, -2, 0]], np.float32)
    before = own.copy()
    rows = checked_embed(Fixed(own), ["a", "b", "c", "d"])
    np.testing.assert_allclose(rows, [[0.6, 0, 0.8], [0, 0, 0], [0, 0, 0], [0, -1, 0]], atol=1e-7)
    assert rows.dtype == np.float32
    rows[:] = 7
    np.testing.assert_array_equal(own, before)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int64, list])
def test_checked_embed_takes_numbers_of_any_kind(kind):
    answer = [[1, 2, 2], [0, 0, 5]]
    rows = checked_embed(Fixed(answer if kind is list else np.array(answer, kind)), ["a", "b"])
    np.testing.assert_allclose(rows, [[1 / 3, 2 / 3, 2 / 3], [0, 0, 1]], atol=1e-6)


def test_checked_embed_survives_very_large_numbers():
    rows = checked_embed(Fixed([[3e300, 0, 4e300], [3.0, 0, 4.0]]), ["a", "b"])
    np.testing.assert_allclose(rows, [[0.6, 0, 0.8]] * 2, atol=1e-6)
    big = np.full((1, 3), np.finfo(np.float32).max)
    np.testing.assert_allclose(checked_embed(Fixed(big), ["a"]), [[3**-0.5] * 3], atol=1e-6)


def test_checked_embed_of_nothing():
    assert checked_embed(Fixed(None), []).shape == (0, 3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[1, 2, 3], [1, float("nan"), 3]], r"'fixed' answered text 1 \('second'\).*not finite"),
        (np.array([[np.inf, 0, 0], [1, 2, 3]]), r"text 0 \('first'\).*not finite"),
        ([[1, 2, 3], [1, 2]], r"text 1 \('second'\) with 2 numbers"),
        ([[1, 2, 3], None], r"text 1 \('second'\) with null"),
        ([[1, None, 3], [1, 2, 3]], r"text 0 \('first'\)"),
        ([[1, 2, 3], ["a", "b", "c"]], r"text 1 \('second'\)"),
        ([[[1, 2, 3]], [[1, 2, 3]]], r"text 0 \('first'\)"),
        ([[1, 2, 3]], "2 texts with 1 rows"),
        (np.ones((3, 3)), "2 texts with 3 rows"),
        (np.ones((2, 4)), "rows of 4 numbers; its dim is 3"),
        (np.ones((2, 0)), "rows of no numbers"),
        ([1.0, 2.0, 3.0], r"text 0 \('first'\)"),
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((2, 3), bool), "bool"),
        (None, "NoneType"),
        ("rows", "str"),
        ({"a": [1, 2, 3]}, "dict"),
        ([], "2 texts"),
    ],
)
def test_checked_embed_refuses_what_is_no_vector(answer, message):
    with pytest.raises(EmbeddingError, match=message):
        checked_embed(Fixed(answer), ["first", "second"])


def test_same_model():
    probe = np.arange(1, 5, dtype=np.float32)
    assert same_model(probe, probe * 2)
    assert same_model(probe, probe + np.float32(0.01))
    assert not same_model(probe, probe[::-1])
    assert not same_model(probe, probe[:3])
    assert not same_model(probe * 0, probe * 0)
    # cos(2 degrees) is 0.99939, cos(3 degrees) 0.99863
    east = np.array([1, 0], np.float32)
    assert same_model(east, np.array([np.cos(np.radians(2)), np.sin(np.radians(2))], np.float32))
    assert not same_model(east, np.array([np.cos(np.radians(3)), np.sin(np.radians(3))], np.float32))


def test_probe_is_known_to_the_builtin_embedder():
    # Vectors of this very text are in people's stores.
    assert hashlib.sha256(PROBE.encode()).hexdigest()[:16] == "c5dfe0bdf033cd2f"
    assert 100 not in wordpiece(PROBE)  # [UNK]
    assert np.linalg.norm(BuiltinEmbedder().embed([PROBE])) == pytest.approx(1)


# --- foreign objects ----------------------------------------------------------------------------------------


def letters(texts):
    """Count a, b and c: vectors that can be told by hand."""
    return [[text.count(letter) for letter in "abc"] for text in texts]


class Encoder:
    def encode(self, texts, batch_size=32):
        return np.array(letters(texts), np.float64)


class LangChainEmbeddings:
    model = "sentence-transformers/some-model"

    def embed_documents(self, texts):
        return letters(texts)

    def embed_query(self, text):
        return letters([text + "c"])[0]


class Asymmetric:
    """As sentence-transformers 5 and later."""

    def encode(self, texts):
        raise AssertionError("neither for texts nor for questions")

    def encode_document(self, texts):
        return letters(texts)

    def encode_query(self, texts):
        return letters([text + "c" for text in texts])


class Generating:
    model_name = "generating"

    def embed(self, texts):
        return (np.array(row, np.float32) for row in letters(texts))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Encoder(), f"{__name__}.Encoder"),
        (LangChainEmbeddings(), "LangChainEmbeddings(some-model)"),
        (Generating(), "generating"),
        (letters, f"{__name__}.letters"),
    ],
)
def test_foreign_objects_become_embedders(source, name):
    adapted = open_embedder(source)
    assert isinstance(adapted, Embedder)
    assert adapted.name == name
    rows = checked_embed(adapted, ["abb", "c"])
    np.testing.assert_allclose(rows, [[5**-0.5, 2 * 5**-0.5, 0], [0, 0, 1]], atol=1e-6)
    assert checked_embed(adapted, []).shape == (0, 3)
    assert open_embedder(source).dim == 3  # before the first embedding


@pytest.mark.parametrize("source", [LangChainEmbeddings(), Asymmetric()])
def test_foreign_objects_with_a_way_of_their_own_for_questions(source):
    adapted = open_embedder(source)
    np.testing.assert_array_equal(checked_embed(adapted, ["b"]), [[0, 1, 0]])
    np.testing.assert_allclose(checked_embed(adapted, ["b", ""], queries=True), [[0, 0.5**0.5, 0.5**0.5], [0, 0, 1]])
    assert checked_embed(adapted, [], queries=True).shape == (0, 3)


def test_questions_are_embedded_as_texts_where_there_is_no_other_way():
    for source in (letters, Encoder(), Generating()):
        row = checked_embed(open_embedder(source), ["abb"], queries=True)
        np.testing.assert_allclose(row, [[5**-0.5, 2 * 5**-0.5, 0]], atol=1e-6)


def test_recall_asks_by_the_way_for_questions_and_similar_by_that_for_texts():
    from raeburnmemory import MemoryGraph

    class Reversed(Fixed):
        """Texts point to the left, and questions to where the texts of others are."""

        def embed(self, texts):
            return np.array([[1, 0, 0] if "tea" in text else [0, 1, 0] for text in texts], np.float32)

        def embed_queries(self, texts):
            return self.embed(texts)[:, [1, 0, 2]]

    with MemoryGraph(":memory:", Reversed([[0, 0, 1]])) as memory:
        memory.add_interaction({"id": "tea", "text": "tea"})
        memory.add_interaction({"id": "milk", "text": "milk"})
        assert memory.similar("tea", 1).ids == ["tea"]
        assert memory.recall("tea", 1, legs="dense").ids == ["milk"]


def test_foreign_embedder_of_our_own_shape_stays_itself():
    own = Fixed([[0, 0, 1]])
    assert open_embedder(own) is own
    assert open_embedder(BuiltinEmbedder()).name == "builtin"


def test_foreign_dim_is_looked_at_without_loading_anything():
    class Lazy(Fixed):
        @property
        def dim(self):
            raise AssertionError("loaded")

    assert isinstance(open_embedder(Lazy([[1]])), Lazy)


def test_foreign_embedder_that_changes_its_mind_about_the_length():
    adapted = open_embedder(lambda texts: np.ones((len(texts), len(texts))))
    assert checked_embed(adapted, ["a", "b"]).shape == (2, 2)
    with pytest.raises(EmbeddingError, match="rows of 3 numbers; its dim is 2"):
        checked_embed(adapted, ["a", "b", "c"])


def test_foreign_errors_pass_through():
    def broken(texts):
        raise ConnectionError("the service is down")

    with pytest.raises(ConnectionError, match="the service is down"):
        checked_embed(open_embedder(broken), ["a"])


@pytest.mark.parametrize("source", [3, object(), [1, 2], Encoder])
def test_what_is_no_embedder_is_refused(source):
    with pytest.raises(InvalidInput, match="embedder"):
        open_embedder(source)


# --- names and choices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (None, "builtin"),
        ("none", "builtin"),
        ("None", "builtin"),
        ("NONE", "builtin"),
        ("builtin", "builtin"),
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        (" all-MiniLM-L6-v2 ", "all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("onnx:all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("onnx:sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("sentence_transformers:BAAI/bge-small-en", "BAAI/bge-small-en"),
        ("onnx:/models/mine", "/models/mine"),
        ("onnx:~/mine", os.path.expanduser("~/mine")),
    ],
)
def test_model_name(spec, name):
    assert model_name(spec) == name


def test_model_name_of_a_folder_is_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert model_name("models/mine") == "models/mine"  # nothing in it: a name on the hub
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    assert model_name("models/mine") == model_name("onnx:./models/mine/") == str(tmp_path / "models" / "mine")


@pytest.mark.parametrize("spec", ["", "  ", "onnx:", "sentence_transformers: "])
def test_model_without_a_name_is_refused(spec):
    with pytest.raises(InvalidInput):
        model_name(spec)
    with pytest.raises(InvalidInput):
        open_embedder(spec)


@pytest.mark.parametrize("spec", [None, "none", "None", "builtin"])
def test_open_builtin(spec):
    assert isinstance(open_embedder(spec), BuiltinEmbedder)


def test_open_unknown_runtime():
    with pytest.raises(UnknownBackend, match=r"'tensorflow'.*builtin, onnx, sentence_transformers, openai"):
        open_embedder("tensorflow:some-model")


@pytest.fixture
def without(monkeypatch):
    """Make packages unimportable."""

    def plant(*modules):
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)

    return plant


@pytest.mark.parametrize(
    ("spec", "extra"),
    [
        ("all-MiniLM-L6-v2", "embeddings"),
        ("onnx:all-MiniLM-L6-v2", "embeddings"),
        ("sentence_transformers:all-MiniLM-L6-v2", "sentence-transformers"),
        ("onnx:/nowhere", "embeddings"),
    ],
)
def test_open_named_model_without_the_packages(without, spec, extra):
    without("onnxruntime", "tokenizers", "huggingface_hub", "sentence_transformers")
    with pytest.raises(MissingDependency, match=rf"pip install 'raeburnmemory\[{extra}\]'") as caught:
        open_embedder(spec)
    assert not isinstance(caught.value, ModelUnavailable)


def test_default_falls_back_to_builtin_and_says_so_once(without, monkeypatch):
    without("onnxruntime", "sentence_transformers")
    monkeypatch.setattr(embed, "_fell_back", False)
    with pytest.warns(EmbedderFallbackWarning, match=r"pip install 'raeburnmemory\[embeddings\]'") as caught:
        assert open_default().name == "builtin"
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_default().name == "builtin"


def test_importing_embed_imports_no_package():
    code = (
        "import sys, raeburnmemory.embed as e; e.model_name('onnx:x')\n"
        "print(sorted({'numpy', 'onnxruntime', 'tokenizers', 'huggingface_hub', 'torch'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT, timeout=60)
    assert run.stdout.strip() == "[]"
