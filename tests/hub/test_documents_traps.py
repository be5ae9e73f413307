"""Documents made to do harm: each is refused within its limits, and the process that asked goes on."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib

import pytest

from raeburnmemory.hub.documents import (
    ArchiveBomb,
    DocumentError,
    Limits,
    LoaderError,
    ParseTimeout,
    TooLarge,
    UnsupportedType,
    load,
    parsing,
)
from raeburnmemory.hub.documents.source import Source

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
    # Of a kind that is packed a hundredfold at most.
    block = bytes(range(256)) * 40
    with pytest.raises(ArchiveBomb, match=r"would unpack into 2\d\d,\d{3},\d{3} bytes"):
        load(docx(extra=[(f"m{n}", os.urandom(300_000) + block * 700) for n in range(29)]), limits=SMALL)


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
    packed = zlib.compress(zlib.compress(b"\0" * 400_000_000, 9), 9)
    stream = (
        f"<< /Length {len(packed)} /Filter [/FlateDecode /FlateDecode] >>\nstream\n".encode() + packed + b"\nendstream"
    )
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << >> >>"
    data = pdf_of(CATALOGUE, "<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page, stream)
    assert len(data) < 10_000
    with pytest.raises(DocumentError):
        load(data, name="x.pdf", limits=Limits(seconds=20, memory=1_000_000_000))


def test_a_pdf_of_a_hundred_thousand_pages():
    pytest.importorskip("pypdf")
    kids = " ".join(["3 0 R"] * 100_000)
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
    begun = time.monotonic()
    with pytest.raises(TooLarge, match="100,000 pages; the limit is 2,000"):
        load(pdf_of(CATALOGUE, f"<< /Type /Pages /Kids [{kids}] /Count 100000 >>", page), name="x.pdf")
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


# --- the process that reads -------------------------------------------------------------------------------------


def asked(kind, **limits):
    """Read something by a loader that the process has for tests only: see `misbehaving`."""
    return parsing.parse(Source(b"", mime=kind, limits=Limits(**limits)))


@pytest.fixture
def misbehaving(monkeypatch, tmp_path):
    """Let the process that parses know a loader that does what the name of a type says."""
    (tmp_path / "misbehaviour.py").write_text(MISBEHAVIOUR)
    begin = "import sys; sys.path[:] = {paths!r}; import misbehaviour; from {module} import main; main()"
    monkeypatch.setattr(parsing, "_BEGIN", begin)
    monkeypatch.syspath_prepend(str(tmp_path))
    parsing.close()
    yield
    parsing.close()


MISBEHAVIOUR = """
import os, signal, socket, subprocess, sys, time
from raeburnmemory.hub.documents import registry
from raeburnmemory.hub.documents.source import Loaded

def act(source):
    kind = source.mime.partition("/")[2]
    if kind == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit": os._exit(0)
    if kind == "spin":
        while True: pass
    if kind == "sleep": time.sleep(600)
    if kind == "memory": return Loaded("x" * len(bytearray(10 ** 10)))
    if kind == "recursion": return act(source)
    if kind == "print":
        print("noise" * 10000); sys.stderr.write("noise" * 10000); os.write(1, b"noise")
        return Loaded("quiet")
    if kind == "write": open("written", "w")
    if kind == "connect": socket.create_connection(("127.0.0.1", 9))
    if kind == "start": subprocess.Popen(["true"])
    if kind == "secret": return Loaded(repr(sorted(os.environ)))
    if kind == "surrogate": return Loaded("\\ud800")
    if kind == "lies":
        loaded = Loaded("short"); object.__setattr__(loaded, "title", 7); return loaded
    if kind == "huge": return Loaded("x" * 100)
    return Loaded(f"{os.getpid()}")

registry.loader_of = lambda kind: act
import raeburnmemory.hub.documents.worker as worker
worker.loader_of = lambda kind: act
"""


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        ("crash", LoaderError, f"signal {int(signal.SIGSEGV)}"),
        ("exit", LoaderError, "exit code 0"),
        ("recursion", LoaderError, "nested too deeply"),
        ("memory", TooLarge, "GB of memory"),
        ("write", LoaderError, "may not"),
        ("connect", LoaderError, "may not"),
        ("start", LoaderError, "may not"),
        ("lies", LoaderError, "makes no sense"),
        ("huge", TooLarge, "100 characters"),
    ],
)
def test_what_a_parser_may_do_wrong(misbehaving, kind, error, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=match) as caught:
        asked(f"test/{kind}", characters=50 if kind == "huge" else 1000)
    assert type(caught.value) is error
    assert not (tmp_path / "written").exists()
    assert asked("test/well").text.isdigit()


@pytest.mark.parametrize("kind", ["spin", "sleep"])
def test_a_parser_that_does_not_end_is_ended(misbehaving, kind):
    asked("test/well")
    begun = time.monotonic()
    with pytest.raises(ParseTimeout, match=r"longer than 0\.5 s"):
        asked(f"test/{kind}", seconds=0.5)
    assert time.monotonic() - begun < 15
    assert asked("test/well").text.isdigit()


def test_the_processor_is_limited_where_the_parent_does_not_watch(misbehaving, monkeypatch):
    monkeypatch.setattr(threading.Timer, "start", lambda self: None)
    with pytest.raises(ParseTimeout):
        asked("test/spin", seconds=0.5)


def test_what_a_parser_prints_goes_nowhere(misbehaving, capfd):
    assert asked("test/print").text == "quiet"
    assert capfd.readouterr() == ("", "")


def test_half_characters_do_not_break_the_answer(misbehaving):
    with pytest.raises(LoaderError):
        asked("test/surrogate")


def test_our_keys_stay_here(misbehaving, monkeypatch):
    monkeypatch.setenv("RAEBURN_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    parsing.close()
    names = asked("test/secret").text
    assert "PATH" in names
    assert "KEY" not in names


def test_a_process_is_kept_and_asked_again(misbehaving):
    first = asked("test/well").text
    assert asked("test/well").text == first
    with pytest.raises(LoaderError):
        asked("test/crash")
    assert asked("test/well").text != first


def test_a_process_that_ended_while_it_waited_is_replaced(misbehaving):
    first = int(asked("test/well").text)
    os.kill(first, signal.SIGKILL)
    assert int(asked("test/well").text) != first


def test_threads_ask_processes_of_their_own(misbehaving):
    found = []
    threads = [threading.Thread(target=lambda: found.append(asked("test/well").text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(text.isdigit() for text in found)
    assert len(parsing._waiting) <= 2


def test_modules_of_the_working_folder_are_not_taken_for_ours(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    (tmp_path / "defusedxml.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    parsing.close()
    assert load(docx(), name="x.docx").text == "hello"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_does_not_share_the_parser():
    script = """
import os, sys
from raeburnmemory.hub.documents import load, parsing
page = b"<html><body><p>x</p></body></html>"
assert load(page).text == "x"
ours = parsing._waiting[0]._child.pid
child = os.fork()
if not child:
    assert parsing._waiting == []
    assert load(page).text == "x"
    assert parsing._waiting[0]._child.pid != ours
    parsing.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert load(page).text == "x"
assert parsing._waiting[0]._child.pid == ours
print("well")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_no_process_is_left_behind():
    script = "from raeburnmemory.hub.documents import load, parsing\nload(b'<html><body><p>x</p></body></html>')\nprint(parsing._waiting[0]._child.pid)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_frozen_program_starts_itself(tmp_path):
    """A frozen program is its own interpreter: here a script that runs under the name of one."""
    program = tmp_path / "program"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:] = {[path for path in sys.path if path]!r}\n"
        f"sys.frozen, sys.executable = True, {str(program)!r}\n"
        "from raeburnmemory.hub.documents import freeze_support, load\nfreeze_support()\n"
        'print(load(b"<html><body><p>frozen</p></body></html>").text)\n'
    )
    program.chmod(0o755)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("frozen\n", "")
