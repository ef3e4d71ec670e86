"""People and things for the blanks of `cldr` sentences, declined.

Every noun here is strong and has one gender, so German articles and adjective endings follow from four
small tables.
"""

from __future__ import annotations

from random import Random

from kdtw_jax.data.cldr_names import Slot

_POSSESSIVES = (("my", "mein"), ("his", "sein"), ("her", "ihr"), ("our", "unser"))
_KIN = (
    ("brother", "Bruder", "m"),
    ("sister", "Schwester", "f"),
    ("father", "Vater", "m"),
    ("mother", "Mutter", "f"),
    ("uncle", "Onkel", "m"),
    ("aunt", "Tante", "f"),
    ("son", "Sohn", "m"),
    ("daughter", "Tochter", "f"),
    ("grandfather", "Großvater", "m"),
    ("grandmother", "Großmutter", "f"),
    ("niece", "Nichte", "f"),
    ("brother-in-law", "Schwager", "m"),
)
_THINGS = (
    ("house", "houses", "Haus", "Häuser", "n"),
    ("book", "books", "Buch", "Bücher", "n"),
    ("letter", "letters", "Brief", "Briefe", "m"),
    ("car", "cars", "Auto", "Autos", "n"),
    ("bicycle", "bicycles", "Fahrrad", "Fahrräder", "n"),
    ("table", "tables", "Tisch", "Tische", "m"),
    ("chair", "chairs", "Stuhl", "Stühle", "m"),
    ("lamp", "lamps", "Lampe", "Lampen", "f"),
    ("bag", "bags", "Tasche", "Taschen", "f"),
    ("painting", "paintings", "Gemälde", "Gemälde", "n"),
    ("ring", "rings", "Ring", "Ringe", "m"),
    ("coat", "coats", "Mantel", "Mäntel", "m"),
    ("carpet", "carpets", "Teppich", "Teppiche", "m"),
    ("piano", "pianos", "Klavier", "Klaviere", "n"),
    ("camera", "cameras", "Kamera", "Kameras", "f"),
    ("map", "maps", "Landkarte", "Landkarten", "f"),
    ("boat", "boats", "Boot", "Boote", "n"),
    ("machine", "machines", "Maschine", "Maschinen", "f"),
    ("suitcase", "suitcases", "Koffer", "Koffer", "m"),
    ("mirror", "mirrors", "Spiegel", "Spiegel", "m"),
    ("bottle", "bottles", "Flasche", "Flaschen", "f"),
    ("key", "keys", "Schlüssel", "Schlüssel", "m"),
    ("umbrella", "umbrellas", "Regenschirm", "Regenschirme", "m"),
    ("vase", "vases", "Vase", "Vasen", "f"),
    ("knife", "knives", "Messer", "Messer", "n"),
    ("box", "boxes", "Kiste", "Kisten", "f"),
    ("shirt", "shirts", "Hemd", "Hemden", "n"),
    ("dress", "dresses", "Kleid", "Kleider", "n"),
)
_ADJECTIVES = (
    ("new", "neu"),
    ("old", "alt"),
    ("big", "groß"),
    ("small", "klein"),
    ("red", "rot"),
    ("blue", "blau"),
    ("green", "grün"),
    ("black", "schwarz"),
    ("white", "weiß"),
    ("brown", "braun"),
    ("cheap", "billig"),
    ("beautiful", "schön"),
    ("heavy", "schwer"),
    ("light", "leicht"),
    ("broken", "kaputt"),
    ("modern", "modern"),
    ("simple", "einfach"),
    ("strange", "seltsam"),
    ("round", "rund"),
    ("dirty", "schmutzig"),
)
# (masculine, feminine, neuter) endings
_EIN = {"nom": ("", "e", ""), "acc": ("en", "e", ""), "dat": ("em", "er", "em")}
_DER = {"nom": ("der", "die", "das"), "acc": ("den", "die", "das")}
_AFTER_DER = {"nom": ("e", "e", "e"), "acc": ("en", "e", "e")}
_AFTER_EIN = {"nom": ("er", "e", "es"), "acc": ("en", "e", "es")}


def person(rng: Random) -> Slot:
    """A relative: German "acc" and "dat"."""
    (en_mine, mine), (en_kin, kin, gender) = rng.choice(_POSSESSIVES), rng.choice(_KIN)
    g = "mfn".index(gender)
    forms = {case: f"{mine}{endings[g]} {kin}" for case, endings in _EIN.items()}
    return Slot({"": f"{en_mine} {en_kin}"}, {**forms, "": forms["nom"]})


def thing(rng: Random) -> Slot:
    """A thing with an adjective: "" is definite, "a" indefinite, "many" plural; "acc", "a-acc" accusative."""
    (en_adjective, adjective), (singular, plural, noun, nouns, gender) = (
        rng.choice(_ADJECTIVES),
        rng.choice(_THINGS),
    )
    g = "mfn".index(gender)
    german = {"many": f"{adjective}e {nouns}"}
    for case, the, a in (("nom", "", "a"), ("acc", "acc", "a-acc")):
        german[the] = f"{_DER[case][g]} {adjective}{_AFTER_DER[case][g]} {noun}"
        german[a] = f"ein{_EIN[case][g]} {adjective}{_AFTER_EIN[case][g]} {noun}"
    article = "an" if en_adjective[0] in "aeiou" else "a"
    phrase = f"{en_adjective} {singular}"
    english = {"": f"the {phrase}", "acc": f"the {phrase}", "many": f"{en_adjective} {plural}"}
    english["a"] = english["a-acc"] = f"{article} {phrase}"
    return Slot(english, german, (f"thing:{phrase}",))
