"""Word problems and their solutions in English."""

from __future__ import annotations

from collections.abc import Mapping

from kdtw_jax.classroom.grammar import Grammar, Line, Sharing
from kdtw_jax.classroom.people import people
from kdtw_jax.classroom.specification import MEASURES, UNITS, Kind, Operation

_STARTS: Mapping[Kind, tuple[str, ...]] = {
    "things": (
        "{n} loves {interest} and has {a} {items}.",
        "{n} is a fan of {interest}. There are {a} {items} on {s} shelf.",
        "{n} likes {interest}. In {s} box there are {a} {items}.",
    ),
    "measure": (
        "{n} loves {interest} and has {a} {items}.",
        "{n} is a fan of {interest}. There are {a} {items} in {s} room.",
    ),
    "money": (
        "{n} loves {interest} and has ${a} to spend.",
        "{n} is a fan of {interest}. There are ${a} in {s} wallet.",
    ),
    "time": (
        "{n} loves {interest}. The {short} show begins at {a}.",
        "{n} is a fan of {interest}. The {short} film begins at {a}.",
    ),
}
_GROUPS = (
    ("{n} loves {interest} and has {a} boxes of {b} {items}.", "{n} has {a} boxes of {b}"),
    ("{n} is a fan of {interest}. There are {a} albums with {b} {items} in each.", "There are {a} albums with {b}"),
    ("{n} likes {interest} and buys {a} packs. There are {b} {items} in every pack.", "{n} buys {a} packs of {b}"),
)
_STEPS: Mapping[Kind, Mapping[Operation, tuple[Line, ...]]] = {
    "things": {
        "add": (
            ("{P} buys {b} more.", "{n} buys {b} more"),
            ("{f} gives {o} {b} more.", "{f} gives {o} {b} more"),
            ("In a drawer {p} finds {b} more.", "{n} finds {b} more"),
            ("For {s} birthday {p} gets {b} new ones.", "{n} gets {b} new ones"),
        ),
        "subtract": (
            ("{P} gives {b} of them to {f}.", "{n} gives {b} to {f}"),
            ("On the way to school {p} loses {b} of them.", "{n} loses {b}"),
            ("{P} sells {b} of them at a market.", "{n} sells {b}"),
            ("{f} borrows {b} of them.", "{f} borrows {b}"),
        ),
        "multiply": (
            ("{P} swaps each of them for {b} smaller ones.", "{n} swaps each for {b}"),
            ("At a fair {p} wins so many that {p} has {b} times as many.", "{n} has {b} times as many"),
        ),
        "divide": (
            ("{P} shares them equally among {b} friends.", "{n} shares them among {b} friends"),
            ("{P} puts them into bags of {b}.", "{n} puts them into bags of {b}"),
        ),
        "keep": (
            ("{P} keeps {b} of them and gives the rest away.", "{n} keeps {b}"),
            ("{P} sells the others and keeps {b} of them.", "{n} keeps {b}"),
        ),
    },
    "measure": {
        "add": (
            ("{P} buys {b} {u} more.", "{n} buys {b} more"),
            ("{f} brings {b} {u} more.", "{f} brings {b} more"),
        ),
        "subtract": (
            ("{P} uses {b} {u} for a present.", "{n} uses {b}"),
            ("{f} needs {b} {u} of it.", "{f} needs {b}"),
        ),
        "keep": (("{P} keeps {b} of it and gives the rest away.", "{n} keeps {b}"),),
    },
    "money": {
        "add": (
            ("{f} gives {o} ${b}.", "{f} gives {o} ${b}"),
            ("{P} earns ${b} in the garden.", "{n} earns ${b}"),
            ("In a coat {p} finds ${b}.", "{n} finds ${b}"),
        ),
        "subtract": (
            ("{P} buys a {short} {thing} for ${b}.", "{n} pays ${b}"),
            ("A ticket costs {o} ${b}.", "The ticket costs ${b}"),
            ("{P} lends {f} ${b}.", "{n} lends {f} ${b}"),
        ),
    },
    "time": {
        "add": (
            ("It lasts {b} minutes.", "It lasts {b} minutes"),
            ("Then {n} talks to {f} for {b} minutes.", "{n} talks for {b} minutes"),
            ("Then the way home takes {b} minutes.", "The way takes {b} minutes"),
        ),
    },
}
_QUESTIONS: Mapping[Kind, tuple[str, str]] = {
    "things": ("How many {u} does {n} have now?", "How many {u} are left?"),
    "measure": ("How many {u} does {n} have now?", "How many {u} are left?"),
    "money": ("How much money does {n} have now?", "How much money is left?"),
    "time": ("What time is it then?", "What time is it then?"),
}
_DIVIDED: Mapping[Sharing, str] = {
    "friends": "How many {u} does each friend get?",
    "bags": "How many full bags are there?",
}
_LEFT_OVER: Mapping[Sharing, str] = {
    "friends": "How many {u} does each friend get, and how many are left over?",
    "bags": "How many full bags are there, and how many {u} are left over?",
}
_DISTRACTORS = (
    "{P} is {d} years old.",
    "{P} has been to {place} {d} times.",
    "{f} lives in house number {d}.",
    "{s} class has {d} pupils.",
)
ENGLISH = Grammar(
    language="en",
    people=people(("she", "her", "her"), ("he", "him", "his")),
    starts=_STARTS,
    groups=_GROUPS,
    steps=_STEPS,
    questions=_QUESTIONS,
    divided=_DIVIDED,
    left_over=_LEFT_OVER,
    distractors=_DISTRACTORS,
    units={unit: unit for unit in (*UNITS, *MEASURES)},
    stuff=MEASURES,
    items="{short} {unit}",
    measured="{unit} of {short} {stuff}",
    answers={
        "things": "{x} {u}",
        "measure": "{x} {u}",
        "money": "${x}",
        "time": "{x}",
        "friends": "{x} {u} each",
        "bags": "{x} bags",
        "rest": "{each}, {rest} left over",
    },
    answer="Answer:",
    drill="calculate:",
)
