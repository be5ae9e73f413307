"""Chunks: exact, complete, never too large, the same every time, and cut where it hurts least."""

from __future__ import annotations

import io
import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raeburnmemory.errors import InvalidInput
from raeburnmemory.hub.chunking import Part, chunk, chunks, register_chunker
from raeburnmemory.hub.documents import Block, Document, conversation, from_langchain, load

NAMES = ["code", "conversation", "fixed", "markdown", "page", "recursive", "sentence", "table"]


def words(text):
    """Count words: a counter whose numbers can be checked by hand."""
    return len(text.split())


def letters(text):
    """Count characters, blanks too: a counter in which every one matters."""
    return len(text)


def pieces(text):
    """Count as models do that take four letters for a token, and every sign for one; not additive at all."""
    return sum(-(-len(word) // 4) for word in re.findall(r"\w+|[^\w\s]", text)) + text.count("\n\n")


def checked(document, found, *, size, limit, count):
    """Hold every promise that does not depend on where exactly is cut."""
    seen = bytearray(len(document.text))
    for each in found:
        assert document.text[each.start : each.end] == each.text
        assert each.text.strip()
        assert count(each.text) <= size
        assert limit is None or count(each.indexed) <= limit
        seen[each.start : each.end] = b"x" * (each.end - each.start)
        first = document.text.count("\n", 0, each.start) + 1
        lines = (first, first + each.text.count("\n"))
        assert each.lines == (lines if document.verbatim else None)
    assert [at for at, character in enumerate(document.text) if not character.isspace() and not seen[at]] == []
    assert [each.start for each in found] == sorted(each.start for each in found)


# --- for any text -----------------------------------------------------------------------------------------------

WORDS = st.text(alphabet="abcdeéß漢字한🙂.,;!?()|#`-*'\"0 ", max_size=14)
LINES = st.one_of(
    st.lists(WORDS, max_size=12).map(" ".join),
    st.sampled_from(["", "", "# Head", "## Sub", "```", "| a | b |", "| - | - |", "| 1 | 2 |", "def f():", "    return 1"]),
    st.sampled_from(["class A:", "    def m(self):", "        pass", "x" * 200, "。".join(["漢字"] * 30), "\t", "- item", "===", "---"]),
)  # fmt: skip
TEXTS = st.lists(LINES, max_size=40).map("\n".join)
EXTENSIONS = st.sampled_from(["txt", "md", "py", "rs", "csv", "rst", "org", "jsonl"])


@given(
    TEXTS,
    EXTENSIONS,
    st.sampled_from(["auto", *NAMES]),
    st.integers(4, 60),
    st.data(),
    st.sampled_from([words, letters, pieces, None]),
)
def test_chunks_of_any_text_are_exact_complete_and_small_enough(text, extension, chunker, size, data, count):
    from raeburnmemory.tokens import estimate

    size = size if count is not None else size + 8
    overlap = data.draw(st.integers(0, size // 2))
    limit = data.draw(st.one_of(st.none(), st.integers(max(size // 2, 8 if count is None else 4), size * 2)))
    document = load(text.encode(), name=f"x.{extension}")
    options = {"chunker": chunker, "size": size, "overlap": overlap, "count": count, "limit": limit}
    found = chunk(document, **options)
    checked(document, found, size=size, limit=limit, count=count or estimate)
    assert chunk(document, **options) == found
    if (
        document.text.strip()
        and (count or estimate)(document.text) <= min(size, limit or size)
        and chunker == "recursive"
    ):
        assert [each.text for each in found] == [document.text.strip()]


@given(TEXTS, st.integers(5, 40))
def test_overlap_is_a_repetition_of_the_chunk_before(text, size):
    document = load(text.encode(), name="x.txt")
    overlap = size // 3
    without = chunk(document, chunker="recursive", size=size, overlap=0, count=words)
    for before, after in pairwise(without):
        assert before.end <= after.start
    found = chunk(document, chunker="recursive", size=size, overlap=overlap, count=words)
    for before, after in pairwise(found):
        assert after.end > before.end
        repeated = document.text[after.start : before.end]
        assert words(repeated) <= overlap


# --- where is cut -----------------------------------------------------------------------------------------------


def texts(source, name="x.txt", **options):
    return [each.text for each in chunk(load(source.encode(), name=name), **{"count": words, "overlap": 0, **options})]


def test_paragraphs_stay_whole_then_sentences_then_words():
    first, second = "one two three. four five.", "six seven. eight nine ten! eleven"
    assert texts(f"{first}\n\n{second}", size=6) == [first, second]
    assert texts(f"{first}\n\n{second}", size=5) == [first, "six seven. eight nine ten!", "eleven"]
    assert texts(second, size=4) == ["six seven.", "eight nine ten! eleven"]
    assert texts("a b c d e", size=2) == ["a b", "c d", "e"]
    assert texts("first line of it\nsecond line of it", size=4) == ["first line of it", "second line of it"]
    # The end of a sentence is better than the end of a line in the midst of one.
    assert texts("aa bb cc. dd\nee ff. gg", size=4) == ["aa bb cc.", "dd\nee ff. gg"]
    assert texts("- one two\n- three four\n- five six", size=6) == ["- one two\n- three four", "- five six"]
    assert texts("漢字。漢字\uff01漢字", size=3, count=letters) == ["漢字。", "漢字\uff01", "漢字"]


def test_small_paragraphs_share_a_chunk_and_a_long_word_is_cut():
    assert texts("a\n\nb\n\nc\n\nd", size=3) == ["a\n\nb\n\nc", "d"]
    assert texts("x" * 10, size=4, count=letters) == ["xxxx", "xxxx", "xx"]
    assert texts('{"a":1,"b":2,"c":3}', "x.jsonl", size=14, count=letters) == ['{"a":1,"b":2,', '"c":3}']


def test_overlap_begins_with_a_sentence_where_it_can():
    source = "One two three. Four five. Six seven eight. Nine ten eleven twelve."
    assert texts(source, size=8, overlap=3) == [
        "One two three. Four five. Six seven eight.",
        "Six seven eight. Nine ten eleven twelve.",
    ]
    assert texts("a b c d e f g h", size=4, overlap=2) == ["a b c d", "c d e f", "e f g h"]


def test_sentences_fixed_windows_and_pages():
    source = "One two. Three\n\nfour five. Six"
    assert texts(source, chunker="sentence", size=5) == ["One two. Three\n\nfour five.", "Six"]
    assert texts(source, chunker="fixed", size=4) == ["One two. Three\n\nfour", "five. Six"]
    document = Document(
        None, "", "application/pdf", "a b\n\nc d\n\ne", (Block("page", 0, 3, 1), Block("page", 5, 11, 2))
    )
    found = chunk(document, chunker="page", count=words)
    assert [(each.text, each.pages) for each in found] == [("a b", (1, 1)), ("c d\n\ne", (2, 2))]
    assert chunk(document, count=words)[0].pages == (1, 2)


MARKDOWN = """preface

# Top

## Empty

### Full

words under it
and more

| name | age |
| --- | --- |
| Ana | 3 |
| Bo | 4 |

```python
def f():

    return 1
```

## Next
end
"""


def test_markdown_is_cut_by_its_headings():
    found = chunk(load(MARKDOWN.encode(), name="x.md"), count=words, size=60)
    assert [(each.text.split("\n")[0], each.heading_path, each.context) for each in found] == [
        ("preface", (), ""),
        (
            "# Top",
            ("Top", "Empty", "Full"),
            "",
        ),  # nothing stands under the first two, which share a chunk with what follows
        ("## Next", ("Top", "Next"), "Top"),
    ]
    found = chunk(load(MARKDOWN.encode(), name="x.md"), count=words, size=10, overlap=0)
    rest = [each for each in found if each.heading_path == ("Top", "Empty", "Full")]
    assert [(each.text, each.kind) for each in rest] == [
        ("# Top\n\n## Empty\n\n### Full", "text"),
        ("words under it\nand more", "text"),
        ("| name | age |\n| --- | --- |", "table"),
        ("| Ana | 3 |\n| Bo | 4 |", "table"),
        ("```python\ndef f():\n\n    return 1\n```", "code"),
    ]


def test_the_context_of_a_table_is_its_header_and_of_a_section_its_headings():
    rows = "".join(f"| r{n} | {n} |\n" for n in range(30))
    source = f"# Top\n\n## Sub\n\ntext\n\n| name | age |\n| --- | --- |\n{rows}"
    found = chunk(load(source.encode(), name="x.md"), count=words, size=50)
    assert [each.context for each in found] == ["", *["Top > Sub\n| name | age |"] * (len(found) - 1)]
    assert found[1].indexed == f"Top > Sub\n| name | age |\n{found[1].text}"
    assert found[1].text.startswith("| r")
    table = chunk(
        load(("name,age\n" + "".join(f"r{n},{n}\n" for n in range(9))).encode(), name="x.csv"), count=words, size=4
    )
    assert [(each.text.split("\n")[0], each.context, each.lines) for each in table] == [
        ("name,age", "", (1, 4)),
        ("r3,3", "name,age", (5, 8)),
        ("r7,7", "name,age", (9, 10)),
    ]


def test_a_context_is_never_so_long_that_it_leaves_no_room():
    source = f"# {'long ' * 50}\n\n## Near\n\n{'word ' * 100}"
    found = chunk(load(source.encode(), name="x.md"), count=words, size=20, limit=20)
    assert {each.context for each in found[-3:]} == {"Near"}
    header = ",".join(f"column {n}" for n in range(99))
    found = chunk(load(f"{header}\n{'1,' * 30}\n{'2,' * 30}".encode(), name="x.csv"), count=words, size=20, limit=20)
    assert found[-1].context.endswith("…")
    assert words(found[-1].indexed) <= 20


PYTHON = '''"""A module."""
import os


# About f.
@decorated(
    1
)
def f(a,
      b):
    """Text with def g(): in it."""
    return """
def not_one():
"""


class A(B):
    """A class."""

    x = 1

    def m(self):
        def inner():
            pass
        return 1

    async def n(self):
        return 2


if __name__ == "__main__":
    f()
'''


def test_python_is_cut_by_its_definitions():
    found = chunk(load(PYTHON.encode(), name="x.py"), count=words, size=14, overlap=0)
    assert [each.text.split("\n")[0] for each in found] == [
        '"""A module."""',
        "# About f.",
        '    """Text with def g(): in it."""',
        "class A(B):",
        "    async def n(self):",
    ]
    assert [each.context for each in found] == ["", "", "def f(a,", "", "class A(B):"]
    assert {each.kind for each in found} == {"code"}
    assert len(chunk(load(PYTHON.encode(), name="x.py"), count=words)) == 1


@pytest.mark.parametrize(
    "source",
    ["def f(:\n  (((\n\n\nx = 1", "'''open\n\ndef f(): pass", "-" * 50_000, "(" * 5000, "  x\n y\n", "x = '\\d'"],
)
def test_python_that_is_none_is_cut_all_the_same(source):
    document = load(source.encode(), name="x.py")
    checked(document, chunk(document, size=20, overlap=0, count=pieces), size=20, limit=None, count=pieces)


def test_code_keeps_its_indentation_where_there_is_room_for_it():
    assert texts("    abcd", chunker="code", size=8, count=letters) == ["    abcd"]
    assert texts("    abcd", chunker="code", size=4, count=letters) == ["abcd"]


def test_lines_far_indented_are_not_counted_again_and_again():
    from raeburnmemory.tokens import estimate

    text = "".join(f"{' ' * depth}if 1:\n" for depth in range(800))
    counted = []

    def count(piece):
        counted.append(len(piece))
        return estimate(piece)

    found = chunk(load(text.encode(), name="deep.py"), count=count)
    assert all(text[piece.start : piece.end] == piece.text for piece in found)
    assert sum(counted) < 100 * len(text)


def test_other_languages_are_cut_where_blocks_begin():
    source = "use std;\n\n// About it.\nfn one() {\n    a();\n\n    b();\n}\n\nfn two() {\n    c();\n}\n"
    found = chunk(load(source.encode(), name="x.rs"), count=words, size=8, overlap=0)
    assert [each.text.split("\n")[0] for each in found] == ["use std;", "// About it.", "    b();"]
    assert [each.context for each in found] == ["", "", "fn one()…"]  # a quarter of the size at most


def test_conversations_are_cut_between_turns():
    messages = [{"role": "user", "content": f"question {n} is this"} for n in range(4)]
    messages.append({"role": "assistant", "content": "a very long answer " * 5})
    found = chunk(conversation(messages), count=words, size=10, overlap=0)
    assert [each.text.count("user:") for each in found[:2]] == [2, 2]
    assert [each.kind for each in found] == ["conversation"] * len(found)
    assert [each.context for each in found] == ["", "", "", "assistant", "assistant"]
    subtitles = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n + 1:02},000\nline {n}\n\n" for n in range(9))
    found = chunk(load(subtitles.encode(), name="x.srt"), count=words, size=6)
    assert [each.context for each in found] == ["00:00:00", "00:00:03", "00:00:06"]


def test_mails_of_a_mailbox_do_not_share_chunks():
    mails = "".join(f"From a@b.test Mon\nFrom: a@b.test\nSubject: S{n}\n\nText {n}\n\n" for n in range(3))
    found = chunk(load(mails.encode(), name="x.mbox"), count=words)
    assert [each.heading_path for each in found] == [("S0",), ("S1",), ("S2",)]


# --- what a caller may hand in ----------------------------------------------------------------------------------


def test_a_registered_chunker_is_completed_and_cut(monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNKERS", dict(chunks._CHUNKERS))
    register_chunker("mine", lambda document: [Part(6, 11, context=("why",), group=1)])
    document = load(b"alpha beta, gamma delta epsilon zeta eta", name="x.txt")
    found = chunk(document, chunker="mine", count=words, size=4, overlap=0)
    assert [(each.text, each.context) for each in found] == [
        ("alpha", ""),
        ("beta,", "why"),
        ("gamma delta epsilon zeta", ""),
        ("eta", ""),
    ]
    register_chunker("wrong", lambda document: [Part(5, 99)])
    with pytest.raises(InvalidInput, match="no part of a text of 40 characters"):
        chunk(document, chunker="wrong")
    for wrong in [("", list), ("auto", list), ("x", None), (3, list)]:
        with pytest.raises(InvalidInput, match="register_chunker"):
            register_chunker(*wrong)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"chunker": "no"}, "No chunker is called 'no'"),
        ({"chunker": 3}, "No chunker"),
        ({"size": 0}, "size is 0"),
        ({"overlap": -1}, "overlap is -1"),
        ({"limit": True}, "limit is True"),
        ({"count": 3}, "is no tokenizer"),
        ({"size": 1, "overlap": 0, "count": lambda text: 2 * len(text)}, "alone has more than the 1 tokens"),
    ],
)
def test_what_is_refused(options, match):
    with pytest.raises(InvalidInput, match=match):
        chunk(load(b"some text", name="x.txt"), **options)


def test_nothing_has_no_chunks():
    for source in (b"", b" \n\n\t", b"\xef\xbb\xbf"):
        for name in NAMES:
            assert chunk(load(source, name="x.txt"), chunker=name) == []


# --- LangChain --------------------------------------------------------------------------------------------------


def test_text_splitters_of_langchain():
    splitters = pytest.importorskip("langchain_text_splitters")
    source = MARKDOWN * 3 + "one two three four five six seven eight nine ten " * 20
    document = load(source.encode(), name="x.md")
    for splitter in (
        splitters.RecursiveCharacterTextSplitter(chunk_size=200, chunk_overlap=50),
        splitters.CharacterTextSplitter(chunk_size=100, chunk_overlap=0),
        splitters.MarkdownTextSplitter(chunk_size=120, chunk_overlap=0),
    ):
        found = chunk(document, chunker=splitter, count=words)
        checked(document, found, size=350, limit=None, count=words)
        assert [each.text for each in found] == [
            piece.strip() for piece in splitter.split_text(source) if piece.strip()
        ]
    headed = splitters.MarkdownHeaderTextSplitter([("#", "Header 1"), ("##", "Header 2")])
    found = chunk(document, chunker=headed, count=words)
    checked(document, found, size=350, limit=None, count=words)
    assert found[0].text.startswith("preface")
    assert [each.heading_path for each in found[1:3]] == [("Top", "Empty"), ("Top", "Next")]
    small = chunk(document, chunker=headed, count=words, size=12, overlap=0)
    checked(document, small, size=12, limit=None, count=words)


def test_a_splitter_that_writes_something_else_is_refused():
    class Shouting:
        def split_text(self, text):
            return [text.upper()]

    with pytest.raises(InvalidInput, match="Shouting returned 'ABC'"):
        chunk(load(b"abc", name="x.txt"), chunker=Shouting())


def test_loaders_of_langchain(tmp_path):
    base = pytest.importorskip("langchain_core.document_loaders")
    from langchain_core.documents import Document as Theirs

    class Loader(base.BaseLoader):
        def lazy_load(self):
            for page in range(3):
                yield Theirs(f"page {page}", metadata={"source": "/x/a.pdf", "page": page, "total_pages": 3})
            yield Theirs("alone", metadata={"source": "/x/b.txt", "when": tmp_path})
            yield Theirs("nameless")
            yield Theirs("nameless too")

    found = list(from_langchain(Loader()))
    assert [(each.uri, each.title, each.text) for each in found] == [
        ("/x/a.pdf", "a.pdf", "page 0\n\npage 1\n\npage 2"),
        ("/x/b.txt", "b.txt", "alone"),
        (None, "", "nameless"),
        (None, "", "nameless too"),
    ]
    assert [each.page for each in found[0].blocks if each.kind == "page"] == [1, 2, 3]
    assert found[0].metadata == {"total_pages": 3}
    assert found[1].metadata == {"when": str(tmp_path)}
    assert chunk(found[0], chunker="page")[2].pages == (3, 3)
    assert next(iter(from_langchain([Theirs("x", metadata={"source": "s"})]))).uri == "s"
    with pytest.raises(InvalidInput, match="no document of LangChain"):
        list(from_langchain([io.StringIO()]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "# a" + " " * 40_000 + "b"),
        ("b.md", "```" + " " * 80_000 + "`x"),
        ("a.org", "* a" + " " * 40_000 + ":x"),
        ("b.org", "#+begin_src\n" * 20_000),
        ("c.org", "".join(f"{'*' * (at % 300 + 1)} one\n" for at in range(1_200))),
        ("a.py", "```" + " " * 8_000 + "`x"),
    ],
)
def test_reading_and_cutting_take_as_long_as_the_text_is(name, text):
    begun = time.process_time()  # each of these has taken many seconds
    chunk(load(text.encode(), name=name))
    assert time.process_time() - begun < 2
