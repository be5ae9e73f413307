"""Subtitles (SubRip, WebVTT): what is said, and when each line begins."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

from ..encoding import decode
from ..source import Builder

if TYPE_CHECKING:
    from ..source import Loaded, Source

__all__ = ["cues"]

_TIME = re.compile(r"[ \t]*(?:(\d+):)?(\d\d?):(\d\d)[,.](\d{1,3})[ \t]+-->[ \t]+(?:\d+:)?\d\d?:\d\d[,.]\d{1,3}.*")
_VOICE = re.compile(r"<v(?:\.[^ >]*)?[ \t]+([^>]+)>")
_TAG = re.compile(r"</?[a-zA-Z0-9:.][^<>]*>|\{\\[^}]*\}")


def cues(source: Source) -> Loaded:
    """Return what is said, a line for each cue; the time at which it begins is the name of its block."""
    text = decode(source.data, source.charset, uri=source.uri).replace("\r\n", "\n").replace("\r", "\n")
    builder = Builder()
    for entry in re.split(r"\n[ \t]*\n", text):
        lines = entry.strip("\n").split("\n")
        at = next((at for at, line in enumerate(lines) if _TIME.fullmatch(line)), None)
        if at is None:
            continue  # the number of a cue, a note, a style
        time = _TIME.fullmatch(lines[at])
        assert time is not None
        spoken = _VOICE.sub(r"\1: ", " ".join(line.strip() for line in lines[at + 1 :]))
        begins = f"{int(time[1] or 0):02}:{int(time[2]):02}:{time[3]}"
        builder.add(unescape(_TAG.sub("", spoken)), "cue", separator="\n", name=begins)
    return builder.loaded(metadata={"cues": len(builder.blocks)})
