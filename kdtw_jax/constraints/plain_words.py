"""What people type, brought to plain words: small letters, plain punctuation, numbers in digits."""

from __future__ import annotations

import re
import unicodedata

from kdtw_jax.constraints.german_words import in_english

_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: i for i, word in enumerate(["zero", *_ONES, *_TEENS])} | {
    word: 20 + 10 * i for i, word in enumerate(_TENS)
}
_PARTS = {
    "half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "fifteenth": 15, "twentieth": 20, "thirtieth": 30,
    "fortieth": 40, "fiftieth": 50, "hundredth": 100,
}  # fmt: skip
_PLACES = {"second": 2} | {word: n for word, n in _PARTS.items() if word not in ("half", "halve", "quarter")}

_ONE = "|".join(_ONES)
_SMALL = rf"(?:{'|'.join(_TENS)})(?: (?:{_ONE}))?|{'|'.join(_TEENS)}|{_ONE}|zero"
_NUMBER = re.compile(
    rf"\b(?:(?:(?P<many>{_ONE}|a) )?(?P<hundred>hundred)(?: (?:and )?(?P<rest>{_SMALL}))?|(?P<small>{_SMALL}))\b"
)
_PART = re.compile(rf"\b(?:(an?|\d+) ({'|'.join(_PARTS)})s?|(half|quarter))\b")
_PLACE = re.compile(rf"\bthe (?:(\d+)(?:st|nd|rd|th)|({'|'.join(_PLACES)})) (?:word|token)\b")
_EVERY = re.compile(rf"\bevery (?:(\d+)(?:st|nd|rd|th)|(other|{'|'.join(_PLACES)})) (?=(?:word|token)\b)")
_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d+)(?![\d,])")

_WORDS = [  # in this order, before numbers are in digits
    (re.compile(pattern), new)
    for pattern, new in (
        (r"[’‘ʼ´`′]", "'"),
        (r"[\"“”„‟«»()\[\]*]", " "),
        (r"<=|=<|[≤⩽≦]", " at most "),
        (r">=|[≥⩾≧]", " at least "),
        (r"<", " less than "),
        (r">", " more than "),
        (r"\bdont\b", "do not"),
        (r"\bcan't\b|\bcannot\b", "can not"),
        (r"n't\b", " not"),
        (r"\bi'd\b", "i would"),
        (r"\bmax\.", "max"),
        (r"\bas you please\b", "as you like"),
        (r"(?<=[a-z\d])-(?=[a-z])", " "),
        (r"\s+-+\s+(?=[a-z])", " , "),
        (r"٪|\bper ?cents?\b|\bpercentage\b|\bpct\b", "%"),
        (r"\bonce\b", "1 times"),
        (r"\btwice\b", "2 times"),
        (r"\bthrice\b", "3 times"),
        (r"\b(?:a|one) single\b", "1"),
        (r"\bminus\s+(?=\S)", "-"),
        (r"(?<![\d.])\.(?=\d)", "0."),
        (r"\s+", " "),
    )
]
_COUNTED = r"(?:calls?|times?|questions?|words?|tokens?|requests?|queries|answers?|hints?)\b"
_DIGITS = [  # and after that
    (re.compile(pattern), new)
    for pattern, new in (
        (rf"(?<![\d.,])([1-9]\d{{0,2}})\.(\d{{3}}) (?={_COUNTED})", r"\1,\2 "),  # a thousand, to many
        (r"\b(\d+) point (\d)\b(?! \d)", r"\1.\2"),
        (r"\b(\d+) (?:and )?1/2\b", r"\1.5"),
        (r"\b(\d+) (?:and )?1/4\b", r"\1.25"),
        (r"(?<=\d/\d) (?:of )?(?:a |1 )?%", "%"),
        (r"(?<=\d/\d\d) (?:of )?(?:a |1 )?%", "%"),
        (r"\b50(?:/| )50\b", "50%"),  # half and half, and no ratio
        (r"\ba ?%", "1%"),
        (r" %", "%"),
        (r"(?<![\d%])% ?(\d+(?:\.\d+)?)(?![\d.,%]| ?%)", r" \1%"),  # as Turkish and Basque have it
        (r"\bfirst (?=(?:word|token)\b)", "first 1 "),
        (
            r"\b(?:please|kindly|thanks|thank you|i (?:want|would like|expect) you to|(?:could|can|would|will) you)\b",
            " ",
        ),
        (r"(?<!\d)[,.:!?]+|[,.:!?]+(?!\d)", " "),
        (r"\s+", " "),
    )
]

# In raw text: an "and" within a number ("one and a half") or a range ("10 and 20%") joins no clauses.
_NUMBERISH = rf"(?:\d+(?:[.,]\d+)?|{'|'.join((*_VALUES, 'hundred'))})"
_WITHIN = re.compile(  # and one of "now and then" neither
    rf"\b(now\s+|ab\s+|hin\s+)(?:and|und)(?=\s+(?:then|again|zu|wieder)\b)|"
    rf"\b((?:between|zwischen)\s+{_NUMBERISH}[^;]{{0,30}}?\s+|{_NUMBERISH}\s+)(?:and|und)(?=\s+(?:an?\s+)?"
    rf"(?:{_NUMBERISH}|{'|'.join(_PARTS)}))",
    re.IGNORECASE,
)
_JOINT = re.compile(r";|\b(?:and|und)\b", re.IGNORECASE)
_JOINTS = re.compile(r",?\s+(?:but|plus|as\s+well\s+as|aber|sowie)\s+|,\s+|[.!?]\s+", re.IGNORECASE)


def plain_text(text: str) -> str:
    """A clause in small letters, with plain quotes and dashes, numbers and simple fractions in digits, "%" for percent,
    and without commas, polite words and what stands at its end; from German word by word.

    Numbers that may be read in two ways ("1,500") stay as they are, which is no form of any rule.
    """
    said = in_english("".join(map(_character, unicodedata.normalize("NFC", text))).casefold())
    for pattern, new in _WORDS:
        said = pattern.sub(new, said)
    said = _COMMA.sub(lambda n: n[0] if len(n[2]) == 3 and n[1] != "0" else f"{n[1]}.{n[2]}", said)
    said = _PLACE.sub(lambda n: f"word {n[1] or _PLACES[n[2]]}", said)
    said = _EVERY.sub(lambda n: f"1 in {n[1] or _PLACES.get(n[2], 2)} ", said)
    said = _NUMBER.sub(_in_digits, said)
    said = _PART.sub(lambda n: f"1/{_PARTS[n[3]]}" if n[3] else f"{n[1] if n[1][0] != 'a' else 1}/{_PARTS[n[2]]}", said)
    for pattern, new in _DIGITS:
        said = pattern.sub(new, said)
    return said.strip()


def free_clauses(text: str) -> list[str]:
    """The parts of a rule in free words, joined by "and" or ";", but for an "and" that belongs to a number or range."""
    ends = [0]  # of what lies between joints
    for joint in _JOINT.finditer(text):
        if not any(found.start() < joint.start() < found.end() for found in _WITHIN.finditer(text)):
            ends += joint.span()
    parts = [text[start:end] for start, end in zip(ends[::2], [*ends[1::2], len(text)], strict=True)]
    return [part.strip() for part in parts if part.strip(" .")]


def finer_clauses(clause: str) -> list[str]:
    """What commas, full stops, "but" and "plus" join; only where the whole means nothing."""
    return [part.strip() for part in _JOINTS.split(clause) if plain_text(part)]


def _character(character: str) -> str:
    category, parts = unicodedata.category(character), unicodedata.decomposition(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Pd" or character == "\u2212":
        return "-"
    if category == "Cf":  # invisible: soft hyphens, marks of direction
        return ""
    if category[0] == "Z" or category == "Cc":
        return " "
    if parts.startswith("<fraction>"):
        return f" {unicodedata.normalize('NFKC', character).replace(chr(0x2044), '/')} "
    if category[0] in "LPS" and category != "So" and not parts.startswith(("<super>", "<sub>")):
        return unicodedata.normalize("NFKC", character)  # full width, ligatures
    return character


def _in_digits(found: re.Match[str]) -> str:
    def value(words: str | None) -> int:
        return sum(_VALUES[word] for word in words.split()) if words else 0

    if found["hundred"]:
        many = found["many"]
        return str(100 * (_VALUES[many] if many and many != "a" else 1) + value(found["rest"]))
    return str(value(found["small"]))
