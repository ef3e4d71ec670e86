"""Word problems and their solutions in German.

The sentences are such that nothing is inflected: what is loved and what is counted stands in the plural of the
nominative or accusative, which are the same, is joined to an interest with a hyphen, and has no article.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdtw_jax.classroom.grammar import Grammar, Line, Sharing
from kdtw_jax.classroom.people import people
from kdtw_jax.classroom.specification import UNITS, Kind, Operation

_STARTS: Mapping[Kind, tuple[str, ...]] = {
    "things": (
        "{n} liebt {interest} und hat {a} {items}.",
        "{n} begeistert sich für {interest}. In {s}em Zimmer gibt es {a} {items}.",
        "{n} mag {interest} sehr. In {s}er Kiste liegen {a} {items}.",
    ),
    "measure": (
        "{n} liebt {interest} und hat {a} {items}.",
        "{n} begeistert sich für {interest}. In {s}em Zimmer gibt es {a} {items}.",
    ),
    "money": (
        "{n} liebt {interest} und hat {a} € gespart.",
        "{n} begeistert sich für {interest}. In {s}em Geldbeutel sind {a} €.",
    ),
    "time": (
        "{n} liebt {interest}. Die {short}-Show beginnt um {a} Uhr.",
        "{n} begeistert sich für {interest}. Der {short}-Film beginnt um {a} Uhr.",
    ),
}
_GROUPS = (
    ("{n} liebt {interest} und hat {a} Kisten. In jeder Kiste liegen {b} {items}.", "{n} hat {a} Kisten mit je {b}"),
    (
        "{n} begeistert sich für {interest}. Es gibt {a} Fächer im Regal, und in jedem liegen {b} {items}.",
        "Es gibt {a} Fächer mit je {b}",
    ),
    (
        "{n} mag {interest} sehr und kauft {a} Packungen. In jeder Packung sind {b} {items}.",
        "{n} kauft {a} Packungen mit je {b}",
    ),
)
_STEPS: Mapping[Kind, Mapping[Operation, tuple[Line, ...]]] = {
    "things": {
        "add": (
            ("{P} kauft {b} dazu.", "{n} kauft {b} dazu"),
            ("{f} schenkt {o} {b} weitere.", "{f} schenkt {o} {b} weitere"),
            ("In einer Schublade findet {p} noch {b}.", "{n} findet noch {b}"),
            ("Zum Geburtstag bekommt {p} {b} neue.", "{n} bekommt {b} neue"),
        ),
        "subtract": (
            ("{P} gibt {f} {b} davon.", "{n} gibt {f} {b}"),
            ("Auf dem Schulweg verliert {p} {b} davon.", "{n} verliert {b}"),
            ("Auf dem Flohmarkt verkauft {p} {b} davon.", "{n} verkauft {b}"),
            ("{f} leiht sich {b} davon aus.", "{f} leiht sich {b} aus"),
        ),
        "multiply": (
            ("{P} tauscht alle ein und bekommt für jedes Stück {b} kleinere.", "{n} bekommt für jedes Stück {b}"),
            ("Bei einem Spiel gewinnt {p} so viele dazu, dass {p} {b}-mal so viele hat.", "{n} hat {b}-mal so viele"),
        ),
        "divide": (
            ("{P} verteilt sie gleichmäßig an {b} Kinder.", "{n} verteilt sie an {b} Kinder"),
            ("{P} packt immer {b} in eine Tüte.", "{n} packt immer {b} in eine Tüte"),
        ),
        "keep": (
            ("{P} behält {b} davon und verschenkt den Rest.", "{n} behält {b}"),
            ("{P} behält {b} davon und verkauft die anderen.", "{n} behält {b}"),
        ),
    },
    "measure": {
        "add": (
            ("{P} kauft {b} {u} dazu.", "{n} kauft {b} dazu"),
            ("{f} bringt noch {b} {u} mit.", "{f} bringt noch {b} mit"),
        ),
        "subtract": (
            ("{P} verbraucht {b} {u} für ein Geschenk.", "{n} verbraucht {b}"),
            ("{f} bekommt {b} {u} davon.", "{f} bekommt {b}"),
        ),
        "keep": (("{P} behält {b} davon und verschenkt den Rest.", "{n} behält {b}"),),
    },
    "money": {
        "add": (
            ("{f} gibt {o} {b} €.", "{f} gibt {o} {b} €"),
            ("Mit Gartenarbeit verdient {p} {b} €.", "{n} verdient {b} €"),
            ("In einer Jacke findet {p} {b} €.", "{n} findet {b} €"),
        ),
        "subtract": (
            ("{P} kauft ein {short}-Heft für {b} €.", "{n} bezahlt {b} €"),
            ("Für eine Eintrittskarte bezahlt {p} {b} €.", "{n} bezahlt {b} €"),
            ("{P} leiht {f} {b} €.", "{n} leiht {f} {b} €"),
        ),
    },
    "time": {
        "add": (
            ("Die Vorstellung dauert {b} Minuten.", "Die Vorstellung dauert {b} Minuten"),
            ("Danach redet {n} {b} Minuten lang mit {f}.", "{n} redet {b} Minuten lang"),
            ("Danach dauert der Heimweg {b} Minuten.", "Der Heimweg dauert {b} Minuten"),
        ),
    },
}
_QUESTIONS: Mapping[Kind, tuple[str, str]] = {
    "things": ("Wie viele {u} hat {n} jetzt?", "Wie viele {u} bleiben übrig?"),
    "measure": ("Wie viele {u} hat {n} jetzt?", "Wie viele {u} bleiben übrig?"),
    "money": ("Wie viel Geld hat {n} jetzt?", "Wie viel Geld bleibt übrig?"),
    "time": ("Wie spät ist es dann?", "Wie spät ist es dann?"),
}
_DIVIDED: Mapping[Sharing, str] = {
    "friends": "Wie viele {u} bekommt jedes Kind?",
    "bags": "Wie viele Tüten werden voll?",
}
_LEFT_OVER: Mapping[Sharing, str] = {
    "friends": "Wie viele {u} bekommt jedes Kind, und wie viele bleiben übrig?",
    "bags": "Wie viele Tüten werden voll, und wie viele {u} bleiben übrig?",
}
_DISTRACTORS = (
    "{P} ist {d} Jahre alt.",
    "{P} hat schon {d} Briefe aus {place} bekommen.",
    "{f} wohnt im Haus Nummer {d}.",
    "In {s}er Klasse sind {d} Kinder.",
)
_THINGS = (
    "Sticker Karten Poster Abzeichen Anstecker Bücher Bilder Magnete Briefmarken Comics Münzen Figuren Tassen "
    "Lesezeichen Postkarten Puzzles Bälle Mützen Modelle Buttons Fotos Ringe Shirts Stifte"
)
_MEASURES = {"metres": "Meter", "grams": "Gramm", "litres": "Liter", "pages": "Blatt"}
GERMAN = Grammar(
    language="de",
    people=people(("sie", "ihr", "ihr"), ("er", "ihm", "sein")),
    starts=_STARTS,
    groups=_GROUPS,
    steps=_STEPS,
    questions=_QUESTIONS,
    divided=_DIVIDED,
    left_over=_LEFT_OVER,
    distractors=_DISTRACTORS,
    units={**dict(zip(UNITS, _THINGS.split(), strict=True)), **_MEASURES},
    stuff={"metres": "Seil", "grams": "Knete", "litres": "Farbe", "pages": "Papier"},
    items="{short}-{unit}",
    measured="{unit} {short}-{stuff}",
    answers={
        "things": "{x} {u}",
        "measure": "{x} {u}",
        "money": "{x} €",
        "time": "{x} Uhr",
        "friends": "{x} {u} pro Kind",
        "bags": "{x} Tüten",
        "rest": "{each}, Rest {rest}",
    },
    answer="Antwort:",
    drill="rechne:",
    word="[A-ZÄÖÜa-zäöüß]+",
)
