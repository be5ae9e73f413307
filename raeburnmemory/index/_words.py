"""From text to the words that an index holds: folded, without function words, stemmed.

Words are runs of letters, marks and digits in any script. Scripts that are written without spaces (Chinese, Japanese,
Thai and their like, and Korean, whose words carry their endings) give every character and every pair of neighbours, as
search engines do for them.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from typing import TYPE_CHECKING

from .._optional import installed
from ..errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["Words", "stemmers"]

NO_STEMS = "none"
_CACHED = 1 << 17  # chunks of text whose words are remembered
LONG = 40  # characters from which a chunk hardly comes back

_ASCII = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_LETTERS = {"\u0438\u0306", "\u0443\u0306", "\u0456\u0308"}  # marks that make another letter of a Cyrillic one
_RUN = re.compile(r"[^\s']+(?:'[^\s']+)*")
# Han, kana, Hangul, and the scripts of mainland South-East Asia, which know no spaces between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003134f]+"
)

# What English sentences are held together by: articles, pronouns, prepositions, conjunctions, forms of be, do and
# have, modal verbs, question words, and the contractions of these.
_FUNCTION_WORDS = """
a about above after again against all also am an and any are aren't as at be because been before being below
between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each either
few for from further had hadn't has hasn't have haven't having he he'd he'll he's her here here's hers herself him
himself his how how's i i'd i'll i'm i've if in into is isn't it it'd it'll it's its itself just let's me might
more most mustn't my myself neither no nor not now of off on once only onto or other ought our ours ourselves out
over own per quite rather same shall shan't she she'd she'll she's should shouldn't since so some such than that
that's the their theirs them themselves then there there's these they they'd they'll they're they've this those
through to too under until up upon us very was wasn't we we'd we'll we're we've were weren't what what's when
when's where where's which while who who's whom whose why why's will with within without won't would wouldn't you
you'd you'll you're you've your yours yourself yourselves
"""
ENGLISH = frozenset(_FUNCTION_WORDS.split())


# Forms that no rule leads to their base. English only.
_IRREGULAR_FORMS = """
beat beaten/become became/begin began begun/bite bit bitten/blow blew blown/break broke broken/bring brought
build built/buy bought/catch caught/child children/choose chose chosen/come came/deal dealt/dig dug/draw drew drawn
drink drank drunk/drive drove driven/eat ate eaten/fall fell fallen/feed fed/feel felt/fight fought/find found
fly flew flown/foot feet/forget forgot forgotten/forgive forgave forgiven/freeze froze frozen/get got gotten
give gave given/go went gone goes/grow grew grown/hang hung/hear heard/hide hid hidden/hold held/keep kept
know knew known/lead led/leave left/lie lay lain/life lives/lose lost/make made/man men/mean meant/meet met
mouse mice/pay paid/person people/ride rode ridden/rise rose risen/run ran/say said/see saw seen/seek sought
sell sold/send sent/shake shook shaken/shine shone/shoot shot/show shown/sing sang sung/sink sank sunk/sit sat
sleep slept/speak spoke spoken/spend spent/stand stood/steal stole stolen/strike struck/swear swore sworn
swim swam swum/take took taken/teach taught/tear tore torn/tell told/think thought/throw threw thrown/tooth teeth
understand understood/wake woke woken/wear wore worn/wife wives/win won/woman women/write wrote written
"""
IRREGULAR = {
    form: forms.split()[0] for forms in _IRREGULAR_FORMS.replace("\n", "/").split("/") for form in forms.split()[1:]
}


def stemmers() -> ModuleType | None:
    """Return the package that stems here, if there is one."""
    name = next((name for name in ("Stemmer", "snowballstemmer") if installed(name)), None)
    return importlib.import_module(name) if name else None


class Words:
    """The words of texts in one language: a Snowball stemmer by its name, or `"none"` for words as they are.

    Only English has function words that are left out; elsewhere their frequency makes them count for little. PyStemmer
    stems, or snowballstemmer, which has the same rules in Python; where neither is installed words stay as they are,
    which `missing` says. For one thread at a time.

    Raises:
        InvalidInput: There is no stemmer for that language.
    """

    def __init__(self, language: str = "english") -> None:
        self.language = language
        self.missing: str | None = None
        self._stops = ENGLISH if language == "english" else frozenset()
        self._stem = self._stemmer(language)
        # The endings of most languages have accents, so these may go only once the endings did. In English, they stand
        # on words from elsewhere, often left out.
        self._accents = self._stem is not None and language not in {"english", "porter"}
        self._cache: dict[str, tuple[str, ...]] = {}
        self._known: dict[str, tuple[tuple[str, str], ...]] = {}  # of a word, what `pairs` says of it, or nothing

    def _stemmer(self, language: str) -> Callable[[str], str] | None:
        if language == NO_STEMS:
            return None
        package = stemmers()
        if package is None:
            self.missing = (
                "'Stemmer' is not installed, so words are found only as they are written. "
                "Install it with: pip install PyStemmer (from Python 3.15 on: pip install snowballstemmer)"
            )
            return None
        known = sorted(package.algorithms())
        if not isinstance(language, str) or language not in known:
            raise InvalidInput(
                f"There is no stemmer for the language {language!r}. Choose one of: {', '.join([NO_STEMS, *known])}."
            )
        make = package.Stemmer if package.__name__ == "Stemmer" else package.stemmer
        return make(language).stemWord  # type: ignore[no-any-return]

    @property
    def rules(self) -> dict[str, str | None]:
        """What decides how texts become words, besides this file."""
        version: str | None = None
        if self._stem is not None and (package := stemmers()) is not None:
            name = package.__name__
            if name == "Stemmer":
                version = package.version()
            else:
                from importlib import metadata

                version = f"{name} {metadata.version(name)}"
        return {"language": self.language, "stemmer": version, "unicode": unicodedata.unidata_version}

    def of(self, text: str) -> list[str]:
        """Return the words of *text* in their order, ready to be compared."""
        found: list[str] = []
        for chunk in text.split():
            words = self._cache.get(chunk)
            found += self._of_chunk(chunk) if words is None else words
        return found

    def _of_chunk(self, chunk: str) -> tuple[str, ...]:
        words = tuple(ready for ready, _ in self.pairs(chunk))
        if len(chunk) <= LONG:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[chunk] = words
        return words

    def pairs(self, chunk: str) -> list[tuple[str, str]]:
        """Return the words of what stands between two white spaces, ready to be compared, and as they are written."""
        known = self._known
        found: list[tuple[str, str]] = []
        for word in _split(chunk, accents=self._accents):
            found += self._pair(word) if (pair := known.get(word)) is None else pair
        return found

    def shown(self, text: str) -> dict[str, str]:
        """Return the words of *text*, each with how it was first written there."""
        written: dict[str, str] = {}
        for chunk in text.split():
            for word, plain in self.pairs(chunk):
                written.setdefault(word, plain)
        return written

    def _pair(self, word: str) -> tuple[tuple[str, str], ...]:
        """Return a word, ready and as it is written, without the ending of a genitive; nothing if it does not count."""
        bare = word if word in self._stops else word.removesuffix("'s")
        ready = "" if bare in self._stops else self._ready(bare)
        pair = ((ready, bare),) if ready else ()  # nothing is left of accents that stand alone
        if len(word) <= LONG:
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[word] = pair
        return pair

    def _ready(self, word: str) -> str:
        if self._stem is None or not (self._accents or word.isalpha()):
            return word
        base = IRREGULAR.get(word, word) if self._stops else word
        stem = base if any(map(str.isdigit, base)) else self._stem(base)
        return _folded(stem) if self._accents else stem


def _split(chunk: str, *, accents: bool) -> list[str]:
    """Return the folded words of what stands between two white spaces, perhaps with their accents."""
    if chunk.isascii():
        return _ASCII.findall(chunk.lower())
    chunk = chunk.replace("\u2019", "'")
    folded = unicodedata.normalize("NFKC", chunk).casefold() if accents else _folded(chunk)
    words: list[str] = []
    for run in _RUN.findall("".join(char if _in_word(char) else " " for char in folded)):
        start = 0
        for match in _UNSPACED.finditer(run):
            words += _plain(run[start : match.start()])
            part = match.group()
            for index, char in enumerate(part):
                words.append(char)
                if index + 1 < len(part):
                    words.append(part[index : index + 2])
            start = match.end()
        words += _plain(run[start:])
    return words


def _plain(part: str) -> list[str]:
    word = part.strip("'")
    return [word] if word else []


def _in_word(char: str) -> bool:
    return char.isalnum() or char == "'" or unicodedata.category(char)[0] == "M"


def _folded(text: str) -> str:
    """Return *text* without case, width and accents; what tells letters of other scripts apart stays.

    Marks of the combining classes of accents and of Hebrew and Arabic points are dropped (Unicode, table of canonical
    combining classes); the vowel signs of Indic scripts and the voicing marks of kana have others.
    """
    kept: list[str] = []
    for char in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()):
        ccc = unicodedata.combining(char)
        if not (10 <= ccc <= 36 or 200 <= ccc <= 240) or "".join([*kept[-1:], char]) in _LETTERS:
            kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept))
