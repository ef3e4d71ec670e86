"""Human text of Debian: package descriptions and their translations, or their synopses."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from kdtw_jax.data.debian_apt import Indices, stanzas
from kdtw_jax.data.overlap import SHINGLE
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import PairSplits, distinct, family, split_by_group

# To be changed with every change of what this module, `splits` or `overlap` makes of the same indices.
RECIPE = "debian 3"
MINIMUM = {"test": 1500, "validation": 1000}

_BULLET = re.compile(r"^(?:[-*+•·#=>|~o]|\(?\d+[.)]|\[?\w\])(?:\s|$)")
_MARKUP = re.compile(r"https?://\S+|www\.\S+|<[^>]*>|\S+@\S+\.\S+")
_LETTER = re.compile(r"[^\W\d_]")
# A full stop after one of these does not end a sentence; single letters never do.
_ABBREVIATION = re.compile(
    r"abb|abk|approx|bspw|bzgl|bzw|ca|cf|dr|ebd|eg|engl|etc|evtl|fig|ggf|ie|inc|incl|inkl|jr|ltd|max|min|mr|mrs|ms|"
    r"nr|no|prof|resp|sog|st|usf|usw|vgl|vol|vs|o\.g|z\.b|d\.h|u\.a|i\.e|e\.g|p\.ej|p\.ex|c\.-à-d"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\")»“”']?\s+(?=[\"(«„“'¿¡]?[A-ZÀ-ÖØ-Þ0-9])")


class Description(NamedTuple):
    """A package description without its markup."""

    synopsis: str
    paragraphs: tuple[str, ...]


def translation_pairs(indices: Indices, source: str, target: str) -> PairSplits:
    """Synopses and sentences of two languages, split by source package.

    Raises:
      UserError: too few pairs to hold some out.
    """
    families = _families(indices)
    translated = dict(_descriptions(indices.translations[target], target))
    pairs = []
    for md5, text in _descriptions(indices.translations[source], source):
        if md5 in translated and md5 in families:
            for one, other in align(parse(text), parse(translated[md5])):
                if is_translation(one, other):
                    pairs.append(Pair(source=one, target=other, group=families[md5]))
    return split_by_group(distinct(pairs), minimum=MINIMUM, salt=f"debian/{source}-{target}")


def summary_pairs(indices: Indices) -> PairSplits:
    """Long English descriptions and the synopses their maintainers wrote, split by source package.

    Raises:
      UserError: too few pairs to hold some out.
    """
    families = _families(indices)
    pairs = []
    for md5, text in _descriptions(indices.translations["en"], "en"):
        description = parse(text)
        long, short = " ".join(description.paragraphs), description.synopsis
        if md5 in families and is_summary(long, short):
            pairs.append(Pair(source=long, target=short, group=families[md5]))
    return split_by_group(distinct(pairs), minimum=MINIMUM, salt="debian/summarize")


def translation_prompts(indices: Indices, language: str, held_out: Collection[str]) -> Iterator[str]:
    """Yields the synopses and sentences of a language, but for those of the families in `held_out`."""
    for description in _others(indices, language, held_out):
        parts = (part for paragraph in description.paragraphs for part in sentences(paragraph))
        yield from filter(_in_words, (description.synopsis, *parts))


def summary_prompts(indices: Indices, held_out: Collection[str]) -> Iterator[str]:
    """Yields English descriptions and their paragraphs, of a few words at least; none of the families in `held_out`."""
    for description in _others(indices, "en", held_out):
        for text in (" ".join(description.paragraphs), *description.paragraphs):
            if len(text.split()) >= SHINGLE and _in_words(text):
                yield text


def _others(indices: Indices, language: str, held_out: Collection[str]) -> Iterator[Description]:
    families = _families(indices)
    for md5, text in _descriptions(indices.translations[language], language):
        if md5 in families and families[md5] not in held_out:
            yield parse(text)


def parse(text: str) -> Description:
    """A Description field: synopsis, then lines that start with one space for running text, more if verbatim.

    Verbatim lines and list items are left out; they and lines of " ." part paragraphs.
    """
    synopsis, *lines = text.split("\n")
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        content = line[1:]
        running = content[:1] not in ("", " ", "\t") and content.strip() != "." and not _BULLET.match(content)
        if running:
            paragraphs[-1].append(content.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    joined = (" ".join(" ".join(p).split()) for p in paragraphs if p)
    return Description(" ".join(synopsis.split()), tuple(joined))


def align(one: Description, other: Description) -> Iterator[tuple[str, str]]:
    """Texts that correspond: synopses, and paragraphs if there are as many.

    Paragraphs of as many sentences are given sentence by sentence.
    """
    yield one.synopsis, other.synopsis
    if len(one.paragraphs) != len(other.paragraphs):
        return
    for paragraph, translated in zip(one.paragraphs, other.paragraphs, strict=True):
        left, right = sentences(paragraph), sentences(translated)
        if len(left) == len(right):
            yield from zip(left, right, strict=True)
        else:
            yield paragraph, translated


def sentences(paragraph: str) -> list[str]:
    """Cuts a paragraph after full stops, question and exclamation marks that a capital or number follows.

    By hand, since pysbd cuts 3440 of the 128106 English paragraphs of Debian 12 otherwise, some of them within names of
    files, in 400 times the time: the pairs would no longer be those of which results are published.
    """
    parts, start = [], 0
    for match in _SENTENCE_END.finditer(paragraph):
        words = paragraph[start : match.start()].rstrip(".").split()
        last = words[-1].lstrip("(\"'„«").casefold() if words else ""
        abbreviated = len(last) < 2 or last.isdigit() or _ABBREVIATION.fullmatch(last)
        if paragraph[match.start() - 1] == "." and abbreviated:
            continue
        parts.append(paragraph[start : match.end()].strip())
        start = match.end()
    return [part for part in (*parts, paragraph[start:].strip()) if part]


def is_translation(source: str, target: str) -> bool:
    """Whether the two can be translations: both in words, not the same words, and of similar length."""
    if not (_in_words(source) and _in_words(target)):
        return False
    short, long = sorted((len(source), len(target)))
    if long > 2.5 * short + 15:
        return False
    left = re.findall(r"[^\W\d_]{2,}", source.casefold())
    right = re.findall(r"[^\W\d_]{2,}", target.casefold())
    # Names may stay as they are in a translation; a text most of whose words do is not translated.
    kept = sum(word in set(left) for word in right)
    return len(left) > 0 and len(right) > 0 and kept <= (0.6 if len(right) > 8 else 0.8) * len(right)


def is_summary(long: str, short: str) -> bool:
    """Whether `short` is a summary in words of a longer text that does not simply contain it."""
    if not (_in_words(long) and _in_words(short)):
        return False
    left = re.findall(r"\w+", long.casefold())
    right = re.findall(r"\w+", short.casefold())
    return len(right) >= 2 and len(left) > len(right) and " ".join(right) not in " ".join(left)


def _in_words(text: str) -> bool:
    """Whether there is text beside addresses and signs, none of it a mark of something not yet translated."""
    rest = _MARKUP.sub(" ", text)
    letters = len(_LETTER.findall(rest))
    return "<trans>" not in text and letters >= 3 and letters >= 0.5 * len(text.replace(" ", ""))


def _families(indices: Indices) -> dict[str, str]:
    """Family of the source package by description hash; of several the first in the alphabet."""
    found: dict[str, str] = {}
    for index in indices.packages:
        for stanza in stanzas(index, ("Package", "Source", "Description-md5")):
            md5, package = stanza.get("Description-md5"), stanza.get("Package")
            if md5 and package:
                name = family(stanza.get("Source") or package)
                found[md5] = min(found.get(md5, name), name)
    return found


def _descriptions(texts: Iterable[str], language: str) -> Iterator[tuple[str, str]]:
    """Distinct (hash, description) of the indices of a language."""
    field, seen = f"Description-{language}", set()
    for index in texts:
        for stanza in stanzas(index, ("Description-md5", field)):
            md5, text = stanza.get("Description-md5"), stanza.get(field)
            if md5 and text and md5 not in seen:
                seen.add(md5)
                yield md5, text
