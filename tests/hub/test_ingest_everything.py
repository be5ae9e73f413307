"""A folder with one of everything in it, with scans, bombs and traps: the report says of each what became of it."""

from __future__ import annotations

import io
import json
import os
import zipfile

import pytest
from ingesting import held, opened, rebuilt, write

from raeburnmemory.hub import Ingestor
from raeburnmemory.hub.documents import Limits

for package in ("defusedxml", "pypdf", "fpdf", "striprtf", "pathspec", "charset_normalizer"):
    pytest.importorskip(package, reason=f"a folder of everything needs {package}")

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def archive(*members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members:
            made.writestr(name, data)
    return out.getvalue()


def docx(text, *more):
    document = f'<w:document xmlns:w="{WORD}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    relations = (
        '<Relationships><Relationship Id="r1" Type="x/officeDocument" Target="word/document.xml"/></Relationships>'
    )
    parts = (("[Content_Types].xml", "<Types/>"), ("_rels/.rels", relations), ("word/document.xml", document))
    return archive(*parts, *more)


def epub(text):
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="b.opf"/>'
        "</rootfiles></container>"
    )
    book = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata/><manifest><item id="c" href="c.xhtml" '
        'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="c"/></spine></package>'
    )
    page = f'<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{text}</p></body></html>'
    return archive(
        ("mimetype", "application/epub+zip"), ("META-INF/container.xml", container), ("b.opf", book), ("c.xhtml", page)
    )


def pdf(*texts):
    import fpdf

    made = fpdf.FPDF()
    made.set_font("helvetica", size=12)
    for text in texts:
        made.add_page()
        if text:
            made.multi_cell(0, 6, text)
        else:
            made.rect(20, 20, 100, 100)
    return bytes(made.output())


def notebook(text):
    cell = {"cell_type": "markdown", "metadata": {}, "source": [text]}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]})


# Each with a word of its own, by which it is to be found, and what its citation ends with.
GOOD = {
    "a.txt": ("Word alpha here.", "alpha", ":1"),
    "b.md": ("# Title\n\nWord bravo here.\n", "bravo", ":1-3"),
    "c.rst": ("Title\n=====\n\nWord charlie here.\n", "charlie", ":1-4"),
    "d.org": ("* Title\nWord delta here.\n", "delta", ":1-2"),
    "e.csv": ("name,value\necho,1\n", "echo", ":1-2"),
    "f.tsv": ("name\tvalue\nfoxtrot\t1\n", "foxtrot", ":1-2"),
    "g.json": ('{"golf": 1}', "golf", ":1"),
    "h.jsonl": ('{"hotel": 1}\n{"hotel": 2}\n', "hotel", ":1-2"),
    "i.html": ("<html><head><title>T</title></head><body>Word india here.</body></html>", "india", ""),
    "j.eml": ("From: a@b.org\nTo: c@d.org\nSubject: Juliett\n\nWord juliett here.\n", "juliett", " > Juliett"),
    "k.ics": ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Kilo\nEND:VEVENT\nEND:VCALENDAR\n", "kilo", ""),
    "l.srt": ("1\n00:00:01,000 --> 00:00:02,000\nWord lima here.\n", "lima", ""),
    "m.vtt": ("WEBVTT\n\n00:01.000 --> 00:02.000\nWord mike here.\n", "mike", ""),
    "n.ipynb": (notebook("Word november here."), "november", ""),
    "o.py": ("def oscar():\n    return 1\n", "oscar", ":1-2"),
    "p.pdf": (pdf("Nothing.", "Word papa here."), "papa", " pp. 1-2"),
    "q.docx": (docx("Word quebec here."), "quebec", ""),
    "r.epub": (epub("Word romeo here."), "romeo", ""),
    "s.rtf": (r"{\rtf1\ansi Word sierra here.\par}", "sierra", ""),
    "t.bin": ("Word tango here, though its name says otherwise.", "tango", ":1"),
    "latin.txt": ("Größe und Wörter: uniform".encode("cp1252"), "uniform", ":1"),
    "sixteen.txt": ("Word victor here.".encode("utf-16"), "victor", ":1"),
}
BAD = {
    "scan.pdf": (lambda: pdf("", ""), "empty", "no_text"),
    "blank.md": (lambda: "\n \n", "empty", "no_text"),
    "bomb.docx": (lambda: docx("x", ("word/media", bytes(5_000_000))), "failed", "archive_bomb"),
    "many.epub": (lambda: archive(*((f"{n}", "") for n in range(10_001))), "failed", "archive_bomb"),
    "locked.xlsx": (
        lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + "EncryptedPackage".encode("utf-16-le"), "failed",
        "encrypted",
    ),
    "broken.pdf": (lambda: b"%PDF-1.7\nnothing of it", "failed", "unreadable"),
    "cut.docx": (lambda: docx("x")[:100], "failed", "unreadable"),
    "entities.svg": (
        lambda: '<!DOCTYPE s [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><svg xmlns="http://www.w3.org/2000/svg">&c;</svg>',
        "failed", "unreadable",
    ),
    "deep.json": (lambda: "[" * 100_000, "failed", "unreadable"),
    "large.txt": (lambda: "x" * 2_000_001, "failed", "too_large"),
    "half.txt": (lambda: b"\xff\xfe\x00\xd8\x41", "failed", "undecodable"),
    "photo.png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "skipped", "unsupported_type"),
    "old.doc": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "skipped", "unsupported_type"),
    "all.zip": (lambda: archive(("a.txt", "hidden")), "skipped", "unsupported_type"),
    "noise.dat": (lambda: bytes(range(256)) * 20, "skipped", "unsupported_type"),
    "ignored.log": (lambda: "secret", "skipped", "ignored"),
}  # fmt: skip
LIMITS = Limits(size=2_000_000, seconds=30)


@pytest.mark.parametrize("store", ["m.json", "m.db"])
def test_a_folder_with_one_of_everything(tmp_path, store):
    folder = tmp_path / "all"
    write(folder / ".gitignore", "*.log\n")
    for name, (content, _, _) in GOOD.items():
        write(folder / name, content)
    for name, (make, _, _) in BAD.items():
        write(folder / name, make())
    write(tmp_path / "outside.txt", "Word outside here.")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    os.mkfifo(folder / "pipe.txt")
    with opened(tmp_path / store) as memory:
        ingestor = Ingestor(memory, limits=LIMITS)
        report = ingestor.sync(folder)
        found = {os.path.basename(item.name): (item.outcome, item.code) for item in report.items}
        assert found == {
            **dict.fromkeys(GOOD, ("added", None)),
            **{name: (outcome, code) for name, (_, outcome, code) in BAD.items()},
            ".gitignore": ("skipped", "not_read"),
            "link.txt": ("skipped", "not_read"),
            "pipe.txt": ("skipped", "not_read"),
        }
        assert all(item.reason for item in report.items if item.outcome != "added")
        assert "1-2" in next(item.reason for item in report.items if item.name == "all/scan.pdf"), "the pages are named"
        hits = {
            name: memory.recall(word, 1, kinds="fragment", legs="lexical")[0] for name, (_, word, _) in GOOD.items()
        }
        cited = {name: hit.citation for name, hit in hits.items()}
        assert cited == {name: f"all/{name}{ends}" for name, (_, _, ends) in GOOD.items()}
        assert {ingestor.verify_citation(hit).status for hit in hits.values()} == {"valid"}
        shown = str(report)
        assert shown.startswith(f"{len(GOOD)} added, 2 empty, ")
        assert all(name in shown for name in BAD)
        # And again: nothing is read anew, nothing has become a success.
        again = ingestor.sync(folder)
        assert {os.path.basename(item.name): item.outcome for item in again.items} == {
            name: "unchanged" if outcome == "added" else outcome for name, (outcome, _) in found.items()
        }
        assert held(memory) == rebuilt(folder, limits=LIMITS)
