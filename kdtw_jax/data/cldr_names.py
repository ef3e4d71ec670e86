"""The names of CLDR (through `babel`) in English and German, in every grammatical form a sentence asks for.

CLDR does not say that "Switzerland" is "die Schweiz", and so "in der Schweiz", "in die Schweiz", "aus der
Schweiz": a table of genders of ours does. Names whose grammar is not certain are used only where none is
needed (`regions`).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from babel import Locale

EN, EN_GB, DE = Locale("en"), Locale("en", "GB"), Locale("de")


class Slot(NamedTuple):
    """What goes into a blank, in both languages. A form that a language lacks is its plain form, ""."""

    en: Mapping[str, str]
    de: Mapping[str, str]
    names: tuple[str, ...] = ()  # which names of CLDR it holds, "language:Welsh"; empty for numbers and dates

    def text(self, language: str, form: str) -> str:
        forms = self.en if language == "en" else self.de
        return forms[form] if form in forms else forms[""]


def plain(en: str, de: str, *names: str) -> Slot:
    """A slot of one form in each language."""
    return Slot({"": en}, {"": de}, names)


# Countries with an article in German, by code; all others of PLACES take none.
_FEMININE = "AQ CF CH DO EH EU EZ MD MN SK TR UA VA"
_MASCULINE = "IQ IR LB NE SD SN SS TD YE"
_NEUTER = "GB"
_PLURAL = "AE BQ NL US"
_ISLANDS = "AX BS CC CK FK FO IC KM KY MH MP MV PH PN SB SC TC VG VI"  # one is *on* them
_UNCERTAIN = "AC BL BM BV CP CQ CX DG GG GS HK HM IM IO JE KN LC MF MO NF PM PS QO SH SJ TA TF UM UN VC XA XB ZZ"
_ENGLISH_THE = "AE BQ BS CF DO EU EZ GB IC KM MV NL PH SC US"

# code group -> (nominative article, dative article, in, to, from)
_ARTICLES = {
    _FEMININE: ("die", "der", "in der", "in die", "aus der"),
    _MASCULINE: ("der", "dem", "im", "in den", "aus dem"),
    _NEUTER: ("das", "dem", "im", "ins", "aus dem"),
    _PLURAL: ("die", "den", "in den", "in die", "aus den"),
    _ISLANDS: ("die", "den", "auf den", "auf die", "von den"),
}


def place_forms(code: str, name: str) -> dict[str, str]:
    """German forms of a country: "dat" (after zwischen), "in", "to", "from"."""
    for codes, (nominative, dative, inside, to, origin) in _ARTICLES.items():
        if code in codes.split():
            *adjectives, noun = name.split(" ")
            plural = (nominative, dative) == ("die", "den")
            weak = [a.removesuffix("s") if codes == _NEUTER else a for a in adjectives]  # das Vereinigte Königreich
            bent = [a + "n" if a.endswith("e") else a for a in weak]  # after der and dem; in the plural always
            noun_dat = noun + "n" if plural and noun[-1] not in "ns" else noun
            straight, oblique = " ".join([*(bent if plural else weak), noun]), " ".join([*bent, noun_dat])
            return {
                "": f"{nominative} {straight}",
                "dat": f"{dative} {oblique}",
                "in": f"{inside} {oblique}",
                "to": f"{to} {straight}",
                "from": f"{origin} {oblique}",
            }
    return {"": name, "dat": name, "in": f"in {name}", "to": f"nach {name}", "from": f"aus {name}"}


def clean(text: str) -> str:
    """A text of CLDR without hints and with single spaces."""
    return " ".join(text.replace("\xad", "").split())  # hyphenation hints, and CLDR's many kinds of space


def _shared(english: Mapping[str, str], german: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(code, English, German) of names both have, the English distinct, in a fixed arbitrary order."""
    taken: set[str] = set()
    codes = sorted(english)
    random.Random(7).shuffle(codes)
    for code in codes:
        name = clean(english[code])
        if code in german and name != code and name not in taken:
            taken.add(name)
            yield code, name, clean(german[code])


@functools.cache
def regions() -> tuple[Slot, ...]:
    """Every territory and part of the world, without grammar."""
    pairs = _shared(EN.territories, DE.territories)
    return tuple(plain(en, de, f"territory:{en}") for code, en, de in pairs if code not in ("XA", "XB"))


@functools.cache
def places() -> tuple[Slot, ...]:
    """Countries and islands whose German grammar is certain."""
    found = []
    for code, en, de in _shared(EN.territories, DE.territories):
        if code.isalpha() and code not in _UNCERTAIN.split():
            name = f"the {en}" if code in _ENGLISH_THE.split() or en.endswith("Islands") else en
            found.append(Slot({"": name, "to": f"to {name}"}, place_forms(code, de), (f"territory:{en}",)))
    return tuple(found)


@functools.cache
def languages() -> tuple[Slot, ...]:
    """Languages; German form "dat" follows auf: "auf Klassischem Chinesisch"."""
    found = []
    for code, en, de in _shared(EN.languages, DE.languages):
        first, _, rest = de.partition(" ")
        if code not in ("mul", "und", "zxx", "zbl") and "sprache" not in de:
            dative = f"{first.removesuffix('s')}m {rest}" if first.endswith("es") and rest else de
            found.append(Slot({"": en}, {"": de, "dat": dative}, (f"language:{en}",)))
    return tuple(found)


@functools.cache
def scripts() -> tuple[Slot, ...]:
    """Scripts such as Cyrillic."""
    return tuple(plain(en, de, f"script:{en}") for _, en, de in _shared(EN.scripts, DE.scripts))


@functools.cache
def currency_codes() -> Mapping[str, Slot]:
    """Currencies by their codes of ISO 4217."""
    return {code: plain(en, de, f"currency:{en}") for code, en, de in _shared(EN.currencies, DE.currencies)}


@functools.cache
def currencies() -> tuple[Slot, ...]:
    """Currencies such as the Swiss franc."""
    return tuple(currency_codes().values())


@functools.cache
def time_zones() -> tuple[Slot, ...]:
    """Zones such as Central European Summer Time."""
    english, german = (
        {
            f"{zone}/{kind}": name
            for zone, lengths in locale.meta_zones.items()
            for kind, name in lengths.get("long", {}).items()
        }
        for locale in (EN, DE)
    )
    return tuple(plain(en, de, f"zone:{en}") for _, en, de in _shared(english, german))


@functools.cache
def cities() -> tuple[Slot, ...]:
    """Cities that CLDR spells in German, by time zone; without islands and countries: other grammar."""
    continents = ("Africa/", "America/", "Asia/", "Australia/", "Europe/")
    countries = set(DE.territories.values())
    german = {
        zone: names["city"]
        for zone, names in DE.time_zones.items()
        if zone.startswith(continents) and zone != "Europe/Vatican" and "city" in names
    }
    english = {zone: EN.time_zones.get(zone, {}).get("city", zone.split("/")[-1].replace("_", " ")) for zone in german}
    kept = (
        (en, de)
        for _, en, de in _shared(english, german)
        if de not in countries and not en.startswith("St. ") and "," not in en
    )
    return tuple(plain(en, de, f"city:{en}") for en, de in kept)
