"""What pupils like: some thousands of interests by category, made of words of ours, and names that nobody has."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

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
_WORDS = {category: (kinds.split(), things.split()) for category, (kinds, things) in _KINDS.items()}
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


def named(name: str) -> Interest:
    """An interest that a person states, which stands before another noun as it is."""
    return Interest(name, name, "own")


def draw_interest(rng: random.Random) -> Interest:
    """One of the kinds above, or a name of one or two made-up words, as of a singer or a game."""
    if rng.random() < _OWN_NAME:
        return named(" ".join(_coined(rng) for _ in range(rng.choice((1, 1, 2)))))
    category = rng.choice(CATEGORIES)
    kinds, things = _WORDS[category]
    kind, thing = rng.choice(kinds), rng.choice(things)
    return Interest(f"{kind} {_several(thing)}", f"{kind} {thing}", category)


def _coined(rng: random.Random) -> str:
    return (rng.choice(_FIRST) + rng.choice(_MIDDLE) + rng.choice(_LAST)).capitalize()


def _several(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun if noun == "series" else noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
