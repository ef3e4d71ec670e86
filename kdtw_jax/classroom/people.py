"""Pupils and their friends: first names from many places, with the words that stand for them."""

from __future__ import annotations

from typing import NamedTuple

_SHE = (
    "Mia Ada Lea Ines Amina Zoe Noor Yuki Priya Elif Maya Chloe Sofia Aisha Nora Leila Hana Olga Rosa Tess Vera "
    "Ivy Kira Fatma Salma Greta Dana Lucia Mei"
)
_HE = (
    "Ben Tom Omar Luis Emil Arjun Hugo Ali Leo Jonas Mateo Yusuf Ivan Noah Kenji Pablo Sami Felix Tariq Milo Bruno "
    "Niko Anton Diego Finn Kwame Marek Otto Rafi"
)


class Person(NamedTuple):
    """A first name, and the pronouns that go with it."""

    name: str
    subject: str  # "she"
    object: str  # "her"
    possessive: str  # "her"; where it has endings, what stands before them


def people(she: tuple[str, str, str], he: tuple[str, str, str]) -> tuple[Person, ...]:
    """All persons, in one order in every language.

    Args:
      she: subject, object and possessive of women and girls.
      he: likewise of men and boys.
    """
    return (*(Person(name, *she) for name in _SHE.split()), *(Person(name, *he) for name in _HE.split()))


NAMES = frozenset((*_SHE.split(), *_HE.split()))
