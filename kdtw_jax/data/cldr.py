"""English to German out of CLDR: a translation task made on the spot, with no network and no corpus.

Sentence patterns of ours are filled with names, numbers, dates, money and measures that CLDR (through
`babel`) knows in both languages. The German is determined by the English, so exact match is a fair metric;
but it takes articles, cases, word order and some two thousand names, of which the rarer are seen a few
times only: a small model cannot hold them all.

What is tested is composition. A share of the pairings of a pattern and a name ("lernt seit ..." and
"Welsh") is kept out of training altogether, though the name occurs in other patterns and every name stands
alone in training once; patterns without names keep out a share of their fillings. The choice hangs on the
text only: it is the same for every seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from kdtw_jax.data import cldr_names
from kdtw_jax.data.cldr_names import Slot
from kdtw_jax.data.cldr_values import KINDS
from kdtw_jax.data.pair import Pair
from kdtw_jax.errors import UserError
from kdtw_jax.text.fraction import fixed_fraction

METRICS = ("bleu", "chrf", "exact_match")
INSTRUCTION = "translate English to German: {source}"
SIZES = {"train": 45_000, "validation": 1_000, "test": 2_000}
_KEPT_OUT = 0.04  # of the pairings of pattern and name
_PHRASES_SHARE = 0.1

# (English, German) with blanks {kind:form}; a digit after the kind tells two apart. Capitals are added.
_SENTENCES = (
    ("{person} moved {place:to} {span:ago}.", "{person} ist {span:ago} {place:to} gezogen."),
    (
        "The plane {place:to} leaves at {time} on {date}.",
        "Am {date} fliegt die Maschine {place:to} um {time} Uhr ab.",
    ),
    ("{person} has been learning {language} for {span}.", "{person} lernt seit {span:dat} {language}."),
    ("{person} speaks {languages}.", "{person} spricht {languages}."),
    ("In {year}, {number} people lived in {place}.", "Im Jahr {year} lebten {place:in} {number} Menschen."),
    ("{thing} costs {money}.", "{thing} kostet {money}."),
    (
        "{person} bought {thing:a} in {place} for {money}.",
        "{person} hat {place:in} für {money} {thing:a-acc} gekauft.",
    ),
    (
        "We know that {person} comes from {place} and speaks {language}.",
        "Wir wissen, dass {person} {place:from} kommt und {language} spricht.",
    ),
    (
        "If {person} arrives by {time}, we will read the letter in {language}.",
        "Wenn {person} bis {time} Uhr ankommt, lesen wir den Brief auf {language:dat}.",
    ),
    ("The currency of the invoice is called “{currency}”.", "Die Währung der Rechnung heißt „{currency}“."),
    ("The exhibition in {city}: {interval}.", "Die Ausstellung in {city}: {interval}."),
    (
        "The distance between {place1} and {place2} is {distance}.",
        "Die Entfernung zwischen {place1:dat} und {place2:dat} beträgt {distance}.",
    ),
    (
        "{percent} of the people in {place} understand {language}.",
        "{percent} der Menschen {place:in} verstehen {language}.",
    ),
    (
        "The translation will be available in {language1} and {language2} {span:ahead}.",
        "Die Übersetzung liegt {span:ahead} auf {language1:dat} und {language2:dat} vor.",
    ),
    (
        "The letter is written in {language}, but in the script “{script}”.",
        "Der Brief ist auf {language:dat} geschrieben, aber in der Schrift „{script}“.",
    ),
    (
        "Neither {person1} nor {person2} has ever been to {place}.",
        "Weder {person1} noch {person2} ist jemals {place:in} gewesen.",
    ),
    (
        "The meeting in {city} was moved from {date1} to {date2}.",
        "Die Sitzung in {city} wurde vom {date1} auf {date2:acc} verschoben.",
    ),
    (
        "On {weekday} the temperature in {place} fell to {temperature}.",
        "Am {weekday} sank die Temperatur {place:in} auf {temperature}.",
    ),
    (
        "Although {thing} weighs only {mass}, {person} needs {span} for it.",
        "Obwohl {thing} nur {mass} wiegt, braucht {person} dafür {span}.",
    ),
    (
        "Has {person} already paid the {ordinal} invoice for {money}?",
        "Hat {person} die {ordinal} Rechnung über {money} schon bezahlt?",
    ),
    (
        "{thing} from {place} must be delivered to {city} by {date}.",
        "{thing} {place:from} muss bis zum {date} nach {city} geliefert werden.",
    ),
    (
        "{person1} is sending {person2} {thing:a} from {place}.",
        "{person1} schickt {person2:dat} {thing:a-acc} {place:from}.",
    ),
    (
        "In {month}, {number} {thing:many} were sold in {place}.",
        "Im {month} wurden {place:in} {number} {thing:many} verkauft.",
    ),
    (
        "Compared with {year}, exports {place:to} rose by {percent} to {compact}.",
        "Im Vergleich zu {year} stiegen die Exporte {place:to} um {percent} auf {compact}.",
    ),
    ("What is more expensive, {thing1:a} or {thing2:a}?", "Was ist teurer, {thing1:a} oder {thing2:a}?"),
    (
        "The journey from {place1} {place2:to} takes {span}.",
        "Die Reise {place1:from} {place2:to} dauert {span}.",
    ),
    (
        "Please wait: {person} is coming from {city} {span:ahead} and is bringing {thing}.",
        "Bitte warten Sie: {person} kommt {span:ahead} aus {city} und bringt {thing:acc} mit.",
    ),
    (
        "Because {person1} does not understand {language}, {person2} has to translate the {ordinal} page.",
        "Weil {person1} {language} nicht versteht, muss {person2} die {ordinal} Seite übersetzen.",
    ),
    (
        "The next bus leaves for {city} at {time} ({zone}).",
        "Der nächste Bus fährt um {time} Uhr ({zone}) nach {city} ab.",
    ),
    (
        "{money} were changed into the currency “{currency}”.",
        "{money} wurden in die Währung „{currency}“ umgetauscht.",
    ),
    ("Choose a region: {regions}.", "Wählen Sie eine Region: {regions}."),
)
_PHRASES = (
    ("{date}", "{date:alone}"),
    ("{moment}", "{moment}"),
    ("{interval}", "{interval}"),
    ("{span:ago}", "{span:ago}"),
    ("{span:ahead}", "{span:ahead}"),
    ("{decimal}", "{decimal}"),
    ("{compact}", "{compact}"),
    ("{scientific}", "{scientific}"),
    ("{measure}", "{measure}"),
    ("{money}", "{money}"),
    ("{regions}", "{regions}"),
    ("{languages}", "{languages}"),
    ("{region}, {year}", "{region}, {year}"),
    ("{city}, {date}", "{city}, {date:acc}"),
    ("{weekday}, {time}, {zone}", "{weekday}, {time} Uhr, {zone}"),
)
# Every name of these stands alone in training once, under its label.
_LABELS = (
    ("Region: ", "Region: ", cldr_names.regions),
    ("Language: ", "Sprache: ", cldr_names.languages),
    ("Script: ", "Schrift: ", cldr_names.scripts),
    ("Currency: ", "Währung: ", cldr_names.currencies),
    ("Time zone: ", "Zeitzone: ", cldr_names.time_zones),
    ("City: ", "Stadt: ", cldr_names.cities),
)
_BLANK = re.compile(r"\{([a-z]+\d?)(?::([a-z-]+))?\}")


class _Pattern(NamedTuple):
    name: str  # its English template
    sentence: bool
    blanks: tuple[str, ...]
    english: str
    german: str

    def fill(self, rng: random.Random) -> tuple[Pair, tuple[str, ...]]:
        """A pair and the names of CLDR in it; no two blanks hold the same."""
        while True:
            slots = {blank: KINDS[blank.rstrip("0123456789")](rng) for blank in self.blanks}
            if len({slot.text("en", "") for slot in slots.values()}) == len(slots):
                break
        source, target = self._render("en", slots), self._render("de", slots)
        names = tuple(name for slot in slots.values() for name in slot.names)
        return {"source": source, "target": target, "group": self.name}, names

    def _render(self, language: str, slots: dict[str, Slot]) -> str:
        template = self.english if language == "en" else self.german
        text = _BLANK.sub(lambda match: slots[match[1]].text(language, match[2] or ""), template)
        if not self.sentence:
            return text
        text = text[0].upper() + text[1:]
        return text[:-1] if text.endswith("..") else text  # an abbreviation's full stop ends the sentence too


def _compile(templates: tuple[tuple[str, str], ...], *, sentence: bool) -> tuple[_Pattern, ...]:
    return tuple(
        _Pattern(
            english,
            sentence,
            tuple(sorted({match[1] for match in _BLANK.finditer(english)})),
            english,
            german,
        )
        for english, german in templates
    )


def cldr_pairs(seed: int = 0, limit: int | None = None) -> dict[str, list[Pair]]:
    """The splits "train", "validation" and "test": distinct pairs whose `group` is their pattern.

    Args:
      seed: which fillings are drawn; what is kept out of training does not depend on it.
      limit: at most this many pairs a split.

    Raises:
      UserError: a negative seed, or a limit below 1.
    """
    if seed < 0 or (limit is not None and limit < 1):
        raise UserError(f"seed must be at least 0 and limit at least 1, got {seed} and {limit}")
    sizes = {split: size if limit is None else min(size, limit) for split, size in SIZES.items()}
    rng = random.Random(seed)
    alone = list(_names_alone())
    rng.shuffle(alone)
    splits: dict[str, list[Pair]] = {split: [] for split in sizes}
    splits["train"] = alone[: len(alone) * sizes["train"] // SIZES["train"]]
    sources = {pair["source"] for pair in alone}
    sentences, phrases = _compile(_SENTENCES, sentence=True), _compile(_PHRASES, sentence=False)
    while any(len(splits[split]) < size for split, size in sizes.items()):
        pattern = rng.choice(phrases if rng.random() < _PHRASES_SHARE else sentences)
        pair, names = pattern.fill(rng)
        split = _split_of(pattern.name, pair["source"], names)
        if pair["source"] not in sources and len(splits[split]) < sizes[split]:
            sources.add(pair["source"])
            splits[split].append(pair)
    rng.shuffle(splits["train"])
    return splits


def _split_of(pattern: str, source: str, names: tuple[str, ...]) -> str:
    if not any(fixed_fraction(f"{pattern}|{name}") < _KEPT_OUT for name in names or (source,)):
        return "train"
    return "validation" if fixed_fraction(f"validation|{source}") < 1 / 3 else "test"


def _names_alone() -> Iterator[Pair]:
    for english, german, values in _LABELS:
        for slot in values():
            name, translation = slot.text("en", ""), slot.text("de", "")
            yield {"source": english + name, "target": german + translation, "group": english.strip()}
