"""Documents made to do harm: each is refused within its limits, and the process that asked goes on."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import time
import zipfile
import zlib

import pytest

from raeburnmemory.hub.documents import (
    ArchiveBomb,
    DocumentError,
    Limits,
    LoaderError,
    TooLarge,
    UnsupportedType,
    load,
)

pytest.importorskip("defusedxml", reason="office documents are read with it")

RELATIONS = '<Relationships><Relationship Id="r1" Type="x/officeDocument" Target="word/document.xml"/></Relationships>'
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
TEXT = f'<w:document xmlns:w="{WORD}"><w:body><w:p><w:r><w:t>hello</w:t></w:r></w:p></w:body></w:document>'
SMALL = Limits(seconds=20)


def docx(document=TEXT, extra=(), method=zipfile.ZIP_DEFLATED):
    """Return a Word document with this content, and further members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("_rels/.rels", RELATIONS)
        archive.writestr("word/document.xml", document)
        for name, data in extra:
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture(autouse=True)
def still_reading():
    """After every trap, an honest document is read as ever."""
    yield
    assert load(docx(), name="x.docx").text == "hello"


# --- archives ---------------------------------------------------------------------------------------------------


def test_a_member_that_unpacks_into_far_more_than_it_is():
    with pytest.raises(ArchiveBomb, match=r"'word/media' would unpack into \d+ times its size"):
        load(docx(extra=[("word/media", b"\0" * 5_000_000)]), name="x.docx")


def test_many_members_that_unpack_into_too_much_together():
    with pytest.raises(ArchiveBomb, match=r"would unpack into 2,\d{3},\d{3} bytes; the limit is 2,000,000"):
        load(docx(extra=[(f"m{n}", b"\0" * 900_000) for n in range(3)]), limits=Limits(unpacked=2_000_000))


def test_the_limits_are_those_that_are_promised():
    limits = Limits()
    assert (limits.members, limits.unpacked, limits.ratio, limits.seconds) == (10_000, 200_000_000, 100, 60)


def test_an_archive_that_lies_about_its_sizes():
    data = docx(TEXT.replace("hello", "x" * 3_000_000))
    true, stated = struct.pack("<L", len(TEXT) - 5 + 3_000_000), struct.pack("<L", 400)
    assert data.count(true) == 2
    with pytest.raises(DocumentError) as caught:
        load(data.replace(true, stated), name="x.docx")
    assert isinstance(caught.value, (ArchiveBomb, LoaderError))


def test_too_many_members():
    with pytest.raises(ArchiveBomb, match="10,004 members; the limit is 10,000"):
        load(docx(extra=[(f"m{n}", b"") for n in range(10_001)], method=zipfile.ZIP_STORED))


def overlapping():
    """Return an archive in which many members are one and the same stretch of packed bytes (after D. Fifield, 2019)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b"a" * 900_000) + packer.flush()
    checksum = zlib.crc32(b"a" * 900_000)
    local = (
        struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 33, checksum, len(packed), 900_000, 1, 0) + b"m" + packed
    )
    names = [b"m", *(f"{n:03}".encode() for n in range(150))]
    central = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, checksum, len(packed), 900_000, len(name), 0, 0, 0, 0, 0, 0)
        + name
        for name in names
    )  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(names), len(names), len(central), len(local), 0)
    return local + central + end


def test_members_that_lie_upon_each_other():
    with pytest.raises(ArchiveBomb, match="lies upon another"):
        load(overlapping(), name="x.docx")


def test_an_archive_of_archives_is_never_unpacked():
    inner = docx(extra=[("z", b"\0" * 900_000)])
    for _ in range(5):  # as 42.zip is built
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for n in range(16):
                archive.writestr(f"lib {n}.zip", inner)
        inner = out.getvalue()
    with pytest.raises(UnsupportedType, match="archive, of 16 members"):
        load(inner, name="42.zip")
    document = load(docx(extra=[("word/embeddings/inner.docx", inner)]), name="x.docx")
    assert document.text == "hello"


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape", "..\\escape", "word/../../escape", "C:\\escape"])
def test_names_that_lead_elsewhere_write_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load(docx(extra=[(name, b"x")]), name="x.docx").text == "hello"
    relations = RELATIONS.replace("word/document.xml", f"../../../..{os.sep}etc/passwd")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("_rels/.rels", relations)
    with pytest.raises(UnsupportedType):
        load(out.getvalue(), name="x.docx")
    assert list(tmp_path.iterdir()) == []


def test_two_members_of_one_name_are_refused():
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = docx(extra=[("word/document.xml", TEXT.replace("hello", "other"))])
    with pytest.raises(LoaderError, match="two members of one name"):
        load(data, name="x.docx")


@pytest.mark.parametrize("kind", ["link", "device", "gz"])
def test_archives_of_other_kinds_are_not_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if kind == "gz" else "w") as archive:
        entry = tarfile.TarInfo("evil")
        entry.type = tarfile.CHRTYPE if kind == "device" else tarfile.SYMTYPE
        entry.linkname = "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(UnsupportedType):
        load(out.getvalue(), name="x.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_is_named():
    data = docx()
    for cut in (10, len(data) // 2, len(data) - 5):
        with pytest.raises(LoaderError, match="damaged"):
            load(data[:cut], name="x.docx")
    at = data.index(b"word/document.xml") + 20
    with pytest.raises(LoaderError, match="damaged"):
        load(data[:at] + b"\xff" * 40 + data[at + 40 :], name="x.docx")


# --- XML --------------------------------------------------------------------------------------------------------

LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]>"
)
QUADRATIC = f'<!DOCTYPE x [<!ENTITY a "{"ha" * 50_000}">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
PARAMETER = '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:9/x.dtd"> %a;]>'


def word_with(declaration):
    return docx(declaration + TEXT.replace("hello", "&a;"))


def drawing_with(declaration):
    return f'<?xml version="1.0"?>{declaration}<svg><text>&a;</text></svg>'.encode()


def feed_with(declaration):
    return f'<?xml version="1.0"?>{declaration}<rss><channel><item><title>&a;</title></item></channel></rss>'.encode()


def book_with(declaration):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("META-INF/container.xml", declaration + '<container><rootfile full-path="&a;"/></container>')
    return out.getvalue()


@pytest.mark.parametrize(
    "declaration", [LAUGHS, QUADRATIC, OUTSIDE, PARAMETER], ids=["laughs", "quadratic", "file", "dtd"]
)
@pytest.mark.parametrize("make", [word_with, drawing_with, feed_with, book_with], ids=["docx", "svg", "rss", "epub"])
def test_entities_are_refused(make, declaration):
    name = {word_with: "x.docx", drawing_with: "x.svg", feed_with: "x.rss", book_with: "x.epub"}[make]
    begun = time.monotonic()
    with pytest.raises(LoaderError, match="declares a document type or entities"):
        load(make(declaration), name=name)
    assert time.monotonic() - begun < 20


def test_entities_of_a_web_page_are_text():
    document = load((OUTSIDE + "<html><body><p>&a; &lt;b&gt; &nbsp;x</p></body></html>").encode(), name="x.html")
    assert document.text == "&a; <b> x"


def test_deep_nesting_is_no_crash():
    with pytest.raises(DocumentError):
        load(
            docx(f'<w:document xmlns:w="{WORD}">' + "<w:sdt>" * 100_000 + "</w:sdt>" * 100_000 + "</w:document>"),
            name="x.docx",
        )
    with pytest.raises(LoaderError):
        load(b"[" * 100_000, name="x.json")
    with pytest.raises(LoaderError):
        load(b'{"cells": ' + b"[" * 100_000, name="x.ipynb")


# --- PDF --------------------------------------------------------------------------------------------------------


def pdf_of(*objects):
    """Return a PDF of these objects, numbered from 1; the first is its catalogue."""
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, 2)
    places = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(f"{number} 0 obj\n".encode() + (body if isinstance(body, bytes) else body.encode()) + b"\nendobj\n")
    start = out.tell()
    out.write(f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n".encode())
    for place in places:
        out.write(f"{place:010} 00000 n \n".encode())
    out.write(f"trailer << /Size {len(places) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF".encode())
    return out.getvalue()


CATALOGUE = "<< /Type /Catalog /Pages 2 0 R >>"


@pytest.mark.parametrize(
    "objects",
    [
        [CATALOGUE, "<< /Type /Pages /Kids [2 0 R] /Count 1 >>"],
        [
            CATALOGUE,
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Pages /Kids [2 0 R] /Count 1 /Parent 2 0 R >>",
        ],
        [
            CATALOGUE,
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 3 0 R /Contents 4 0 R >>",
            "4 0 R",
        ],
        ["1 0 R"],
    ],
    ids=["pages in themselves", "pages in each other", "a reference to itself", "a catalogue that is none"],
)
def test_loops_in_a_pdf_end(objects):
    pytest.importorskip("pypdf")
    with pytest.raises(DocumentError):
        load(pdf_of(*objects), name="x.pdf", limits=SMALL)


def test_a_pdf_whose_content_unpacks_into_far_too_much():
    pytest.importorskip("pypdf")
    packed = zlib.compress(zlib.compress(b"\0" * 120_000_000, 9), 9)
    stream = (
        f"<< /Length {len(packed)} /Filter [/FlateDecode /FlateDecode] >>\nstream\n".encode() + packed + b"\nendstream"
    )
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << >> >>"
    data = pdf_of(CATALOGUE, "<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page, stream)
    assert len(data) < 10_000
    with pytest.raises(DocumentError):
        load(data, name="x.pdf", limits=Limits(seconds=20, memory=1_000_000_000))


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_pdf_of_a_hundred_thousand_pages(count):
    pytest.importorskip("pypdf")
    kids = " ".join(["3 0 R"] * count)
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
    begun = time.monotonic()
    with pytest.raises(TooLarge, match=f"{count:,} pages; the limit is 2,000"):
        load(pdf_of(CATALOGUE, f"<< /Type /Pages /Kids [{kids}] /Count {count} >>", page), name="x.pdf")
    assert time.monotonic() - begun < 60


# --- one file, two kinds ----------------------------------------------------------------------------------------


def test_a_polyglot_is_what_it_begins_with():
    pytest.importorskip("pypdf")
    archive = docx()
    both = b"%PDF-1.4\n" + archive
    with pytest.raises(LoaderError):
        load(both, name="x.docx")  # a PDF without pages, and never the archive
    with pytest.raises(UnsupportedType) as caught:
        load(b"GIF89a" + archive, name="x.docx")
    assert caught.value.mime == "image/gif"
    with pytest.raises(LoaderError, match="two things at once"):
        load(b"PK\x03\x04" + b"\0" * 40 + archive, name="x.docx")
    page = b"<html><body><p>page</p></body></html><!--" + archive
    with pytest.raises((UnsupportedType, LoaderError)):
        load(page, name="x.docx")
