"""The embedder that ships: its vectors, its WordPieces, and the data file they come from."""

from __future__ import annotations

import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import minilm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raeburnmemory.embed import Embedder
from raeburnmemory.embed import builtin as builtin_module
from raeburnmemory.embed.builtin import BuiltinEmbedder, wordpiece
from raeburnmemory.errors import EmbeddingError

ROOT = minilm.ROOT
DATA = Path(builtin_module.__file__).with_name("builtin.npz")
TEXTS = minilm.TEXTS

# --- builtin ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builtin() -> BuiltinEmbedder:
    return BuiltinEmbedder()


@pytest.fixture(scope="module")
def script():
    return minilm.distil_script()


@pytest.fixture(scope="module")
def bert():
    return minilm.numpy_model()


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    with np.load(DATA, allow_pickle=False) as file:
        return dict(file)


def test_builtin_is_an_embedder_of_256_numbers(builtin):
    assert isinstance(builtin, Embedder)
    assert (builtin.name, builtin.dim) == ("builtin", 256)
    rows = builtin.embed(TEXTS)
    assert rows.shape == (len(TEXTS), 256)
    assert rows.dtype == np.float32


def test_builtin_vectors_are_the_sum_of_the_rows_of_the_file(builtin, data):
    vocabulary = bytes(data["vocabulary"]).decode().split("\n")
    # Cut by hand: "unhappiness" has no entry of its own.
    pieces = ["hello", ",", "unhappiness", "hello"]
    assert "unhappiness" not in vocabulary
    pieces[2:3] = ["un", "##ha", "##pp", "##iness"]
    total = np.zeros(256)
    for piece in pieces:
        index = vocabulary.index(piece)
        total += data["rows"][index].astype(float) * float(data["scales"][index])
    expected = total / np.sqrt((total * total).sum())
    np.testing.assert_allclose(builtin.embed(["Hello, unhappiness HELLO"])[0], expected, atol=1e-6)


def test_builtin_rows_have_length_one_or_are_zero(builtin):
    lengths = np.linalg.norm(builtin.embed([*TEXTS, "word " * 5000]), axis=1)
    assert lengths[1] == 0
    np.testing.assert_allclose(np.delete(lengths, 1), 1, atol=1e-6)


@pytest.mark.parametrize("text", ["", "  \n\t", "\u200b\x00", "[CLS] [SEP][PAD]", "x" * 101, "\U0001f9ff", "[UNK]"])
def test_builtin_text_without_a_known_word_is_all_zeros(builtin, text):
    assert not builtin.embed([text]).any()


def test_builtin_unknown_words_change_nothing(builtin):
    plain, mixed = builtin.embed(["reset the password", "reset [MASK] the \U0001f9ff password " + "x" * 101])
    np.testing.assert_array_equal(plain, mixed)


def test_builtin_is_the_same_in_any_batch_and_any_process(builtin):
    # The block of rows that are gathered at once is passed several times over.
    many = [TEXTS[index % len(TEXTS)] * (index % 50) for index in range(600)]
    together = builtin.embed(many)
    np.testing.assert_array_equal(together[::-1], builtin.embed(many[::-1]))
    for index in (0, 1, 58, 599):
        np.testing.assert_array_equal(together[index], builtin.embed([many[index]])[0])
    code = "import sys, raeburnmemory.embed.builtin as b; sys.stdout.buffer.write(b.BuiltinEmbedder().embed(%r))"
    run = subprocess.run([sys.executable, "-c", code % TEXTS], capture_output=True, check=True, cwd=ROOT, timeout=60)
    assert run.stdout == builtin.embed(TEXTS).tobytes()


def test_builtin_long_texts_are_summed_like_short_ones(builtin):
    short = "the password of my garden computer"
    long = f"{short} " * 2000  # 12,000 pieces: beyond the block
    np.testing.assert_allclose(builtin.embed([long])[0], builtin.embed([short])[0], atol=1e-5)


def test_builtin_embeds_nothing_to_an_empty_array(builtin):
    assert builtin.embed([]).shape == (0, 256)


@pytest.mark.parametrize(
    ("query", "near", "far"),
    [
        ("password reset", "How do I reset my password?", "The weather will be sunny tomorrow."),
        ("password reset", "Change your login credentials", "My cat likes tuna."),
        ("car repair", "automobile maintenance", "a recipe for tomato soup"),
        ("doctor's appointment", "I saw my physician at the hospital", "The stock market fell again."),
        ("Where does she live?", "Her home is in Berlin.", "He plays the guitar."),
        ("reading a file in Python", "open() returns a file object", "The river flooded the valley."),
    ],
)
def test_builtin_knows_what_is_alike(builtin, query, near, far):
    query, near, far = builtin.embed([query, near, far])
    assert query @ near > query @ far + 0.15


@pytest.mark.parametrize("damage", ["cut", "flipped", "absent", "other version", "no archive"])
def test_builtin_damaged_data_file_is_an_error(damage, tmp_path, monkeypatch, data):
    broken = tmp_path / "builtin.npz"
    whole = DATA.read_bytes()
    if damage == "cut":
        broken.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":  # one bit inside the rows
        broken.write_bytes(whole[:4_000_000] + bytes([whole[4_000_000] ^ 1]) + whole[4_000_001:])
    elif damage == "other version":
        np.savez(broken, **{**data, "format": np.array(99)})
    elif damage == "no archive":
        broken.write_bytes(b"hello")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    loaders = (builtin_module._table, builtin_module._vocabulary)
    for loader in loaders:
        loader.cache_clear()
    try:
        with pytest.raises(EmbeddingError, match=r"builtin\.npz.*force-reinstall"):
            BuiltinEmbedder().embed(["hello"])
    finally:
        for loader in loaders:
            loader.cache_clear()


# --- WordPiece ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """The tokenizer of the packaged model, without truncation, padding and special tokens around a text."""
    tokenizers = pytest.importorskip("tokenizers", reason="the comparison needs tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(minilm.weights_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _same_in_all_versions(char: str) -> bool:
    """Tell whether Unicode 3.2 and today's agree on *char*: the reference's tables are years old."""
    category = unicodedata.ucd_3_2_0.category(char)
    return category == unicodedata.category(char) and category not in {"Cn", "Cs"}


_WORDS = bytes(np.load(DATA)["vocabulary"]).decode().split("\n")
_CHARACTERS = st.characters(exclude_categories=["Cs"]).filter(_same_in_all_versions)
_SPACES = st.sampled_from(" \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u200b\u202f\u3000\ufeff\ufffd")
_PIECES = st.one_of(
    st.sampled_from(_WORDS).map(lambda word: word.removeprefix("##")),
    st.sampled_from(["[CLS]", "[cls]", "[MASK]", "[", "Σ", "İ", "ß", "ﬁ", "Å", "e\u0301", "한국어", "漢字", "🎉", "‽"]),
    st.text(_CHARACTERS, max_size=6),
    _SPACES,
    st.sampled_from(["a" * 99, "a" * 100, "a" * 101, "xyz" * 40]),
)


@pytest.mark.weights
@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=12).map("".join), st.booleans())
def test_wordpiece_cuts_as_tokenizers_does(reference, text, upper):
    text = text.upper() if upper else text
    assert wordpiece(text) == reference(text)


@pytest.mark.weights
def test_wordpiece_cuts_every_old_character_as_tokenizers_does(reference):
    # Between letters, each on its own line of one text: a character is dropped, split off, or part of the word.
    # From the Chinese blocks on, a sample of them does.
    codes = [*range(0x3400), *range(0x3400, 0x30000, 19)]
    chars = [char for char in map(chr, codes) if _same_in_all_versions(char)]
    assert len(chars) > 10_000
    text = "\n".join(f"a{char}b" for char in chars)
    if wordpiece(text) != reference(text):
        assert [c for c in chars if wordpiece(f"a{c}b") != reference(f"a{c}b")] == []
    assert len(wordpiece(text)) > len(chars)


def test_wordpiece_without_the_reference():
    vocabulary = {word: index for index, word in enumerate(_WORDS)}
    pieces = ["pass", "##wo", "##rter", "aren", "'", "t", "ﬁ", "##ne", "[UNK]", "x"]
    assert [_WORDS[index] for index in wordpiece("Passwörter aren't\x00\nﬁne 🎉 X")] == pieces
    assert wordpiece("hello " * 3) == [vocabulary["hello"]] * 3
    assert wordpiece("漢字") == wordpiece("漢 字")
    assert wordpiece("ΟΔΟΣ") == wordpiece("οδοσ")  # letter by letter: no final sigma
    assert wordpiece("hello [SEP]hello") == [vocabulary[word] for word in ("hello", "[SEP]", "hello")]


def test_wordpiece_forgets_words_when_it_knows_too_many(monkeypatch):
    monkeypatch.setattr(builtin_module, "_CACHED_WORDS", 10)
    text = " ".join(_WORDS[2000:2100])
    first = wordpiece(text)
    assert len(builtin_module._cache) <= 10
    assert wordpiece(text) == first


def test_a_word_without_an_end_takes_time_by_its_letters():
    def seconds(letters):
        took = []
        for _ in range(3):
            began = time.thread_time()
            assert builtin_module._words("한" * letters) == ["\u1112\u1161\u11ab" * letters]
            took.append(time.thread_time() - began)
        return min(took)

    seconds(1_000)
    assert seconds(160_000) < 25 * seconds(20_000)  # 8 times as many; squares make that 50 and more


# --- the data file ------------------------------------------------------------------------------------------


def test_data_file_is_what_the_script_makes_of_its_rows(script, data):
    assert set(data) == {"format", "rows", "scales", "vocabulary"}
    assert int(data["format"]) == script.FORMAT == builtin_module.FORMAT
    assert data["rows"].shape == (len(_WORDS), 256)
    assert data["rows"].dtype == np.int8
    empty = ~data["rows"].any(axis=1)
    special = [word in script.SPECIAL or word.startswith("[unused") for word in _WORDS]
    np.testing.assert_array_equal(empty, special)
    np.testing.assert_array_equal(np.abs(data["rows"][~empty].astype(int)).max(axis=1), 127)
    assert script.compare(data, DATA) == pytest.approx(1)
    assert DATA.stat().st_size < 8.5e6


def test_data_file_check_notices_other_rows(script, data):
    turned = {**data, "rows": np.roll(data["rows"], 1, axis=1)}
    assert script.compare(turned, DATA) < 0.9
    with pytest.raises(SystemExit, match="lengths"):
        script.compare({**data, "scales": data["scales"] * 2}, DATA)
    with pytest.raises(SystemExit, match="vocabulary"):
        script.compare({**data, "vocabulary": data["vocabulary"][::-1]}, DATA)


@pytest.mark.weights
def test_data_file_rows_come_from_the_weights(bert, data):
    # A sample of the recipe: the shipped rows keep the angles between what the model says of single words.
    words = ["password", "user", "banana", "apple", "doctor", "physician", "car", "automobile", "##ing", "the"]
    chosen = [_WORDS.index(word) for word in words]
    sample = np.random.default_rng(0).choice(np.arange(1000, len(_WORDS)), 500, replace=False)
    ids = np.array([[101, index, 102] for index in [*chosen, *sample]])
    exact = bert(ids).mean(axis=1).astype(float)
    exact -= exact[len(chosen) :].mean(axis=0)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    shipped = data["rows"][[*chosen, *sample]].astype(float)
    shipped /= np.linalg.norm(shipped, axis=1, keepdims=True)
    correlation = np.corrcoef((exact @ exact.T).ravel(), (shipped @ shipped.T).ravel())[0, 1]
    assert correlation > 0.95


@pytest.mark.long
@pytest.mark.weights
def test_data_file_is_reproduced_from_the_weights(script):
    assert script.compare(script.distil(minilm.weights_folder()), DATA) >= 0.9999
