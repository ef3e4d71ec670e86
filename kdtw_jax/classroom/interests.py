"""What pupils like: some thousands of interests by category, made of words of ours, and names that nobody has.

Of two words in English ("jazz bands"), of one in German ("Jazzbands").
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from kdtw_jax.classroom.german_interests import GERMAN_KINDS

# By category: what kinds there are, and of what (one, several).
_KINDS: Mapping[str, tuple[str, str]] = {
    "music": (
        "jazz rock folk pop brass piano guitar violin drum choir opera street film dance blues flute harp cello",
        "band song concert festival album tour show contest singer dancer club",
    ),
    "games": (
        "board card puzzle racing building farming castle island maze chess pirate robot dungeon word memory village",
        "game world level quest tournament club champion map hero",
    ),
    "sport": (
        "football basketball tennis hockey handball swimming cycling running skiing climbing judo rowing surfing golf",
        "team player match cup star trainer league hero",
    ),
    "animals": (
        "forest jungle desert river mountain polar ocean farm night garden baby giant tiny wild desert clever",
        "fox owl horse turtle dolphin penguin rabbit tiger bear parrot lizard hedgehog otter spider frog cat dog",
    ),
    "cooking": (
        "chocolate lemon apple cherry cheese honey ginger pumpkin berry vanilla garlic tomato rice coconut mango mint",
        "cake pie soup cookie pancake muffin sauce recipe waffle salad",
    ),
    "space": (
        "moon planet comet star galaxy asteroid solar lunar alien cosmic orbit meteor rocket deep far silver",
        "rocket station rover telescope mission explorer pilot shuttle planet robot",
    ),
    "history": (
        "roman viking knight pharaoh castle stone bronze pirate samurai desert mountain island harbour temple",
        "ship king queen legend treasure village sword tower painter builder",
    ),
    "stories": (
        "dragon wizard fairy ghost detective robot mermaid giant monster vampire unicorn ninja secret magic winter",
        "school story film book island forest castle family friend city comic series",
    ),
    "making": (
        "paper clay wood wool glass bead lace origami pottery lego sewing painting knitting model rainbow",
        "tower animal flower bridge boat mask doll lamp kite workshop",
    ),
    "nature": (
        "rose oak pine cactus coral mushroom volcano glacier crystal waterfall rainbow storm cloud seaside cave",
        "garden walk photo trail park picture museum map",
    ),
    "machines": (
        "steam electric racing fire rescue mountain city night police space toy solar diesel freight giant",
        "train tram truck bike tractor crane drone boat plane helicopter robot car",
    ),
    "school": (
        "maths science spelling reading poetry theatre chess weather garden insect planet language drama magic",
        "club fair project week day poster test prize",
    ),
}
CATEGORIES = tuple(_KINDS)
_Words = Mapping[str, tuple[list[str], list[tuple[str, str]]]]  # by category: kinds, and each thing as one and several


def _several(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun if noun == "series" else noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


_ENGLISH: _Words = {
    category: (kinds.split(), [(thing, _several(thing)) for thing in things.split()])
    for category, (kinds, things) in _KINDS.items()
}
_GERMAN: _Words = {
    category: (kinds.split(), [(one, several or one) for one, _, several in (x.partition("/") for x in things.split())])
    for category, (kinds, things) in GERMAN_KINDS.items()
}
_WORDS: Mapping[str, tuple[_Words, str]] = {"en": (_ENGLISH, " "), "de": (_GERMAN, "")}  # what stands between the two
_GERMAN_THINGS = sorted({thing for _, things in _GERMAN.values() for thing in things})
_BEGINNINGS = (
    "ba be bo da de do fa fi ga go ha ka ki ko la le lo lu ma me mi mo na ne no pa po ra re ri ro sa se so ta te to va "
    "ve vi wa ya yo za ze zo"
)
_ENDINGS = (
    "bel den dor fin gar kin la len lia lor mar mo na nell nor ra ran ri rix ro sel sha son ta tan ton va vik wen za"
)
_FIRST, _LAST = _BEGINNINGS.split(), _ENDINGS.split()
_MIDDLE = ["", *_FIRST]
_OWN_NAME = 0.3  # of those that are drawn


class Interest(NamedTuple):
    """Something that a pupil likes."""

    name: str  # "jazz bands": what is loved
    short: str  # "jazz band": as it stands before another noun
    category: str


def named(name: str, language: str = "en") -> Interest:
    """An interest that a person states, which stands before another noun as it is; in German with hyphens.

    Args:
      name: as it is stated.
      language: of the problem.
    """
    return Interest(name, name.replace(" ", "-") if language == "de" else name, "own")


def draw_interest(rng: random.Random, language: str = "en") -> Interest:
    """One of the kinds above, or a name of one or two made-up words, as of a singer or a game.

    Args:
      rng: draws it.
      language: of its words.
    """
    if rng.random() < _OWN_NAME:
        return named(" ".join(_coined(rng) for _ in range(rng.choice((1, 1, 2)))), language)
    category = rng.choice(CATEGORIES)
    words, between = _WORDS[language]
    kinds, things = words[category]
    kind, (one, several) = rng.choice(kinds), rng.choice(things)
    return Interest(f"{kind}{between}{several}", f"{kind}{between}{one}", category)


def are_one(name: str, short: str, language: str = "en") -> bool:
    """Whether what is loved is what stands before another noun: "jazz bands" and "jazz band", "chess" and "chess".

    Args:
      name: what is loved.
      short: as it stands before another noun.
      language: of both.
    """
    if language == "en":
        return name in (short, f"{short}s", f"{short}es", f"{short.removesuffix('y')}ies")
    if short == named(name, language).short:
        return True
    return any(short.endswith(one) and name == short.removesuffix(one) + several for one, several in _GERMAN_THINGS)


def _coined(rng: random.Random) -> str:
    return (rng.choice(_FIRST) + rng.choice(_MIDDLE) + rng.choice(_LAST)).capitalize()
