"""Numbers, money, measures, dates and times for the blanks of `cldr` sentences, as CLDR writes them."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Literal

from babel import Locale, dates, lists, numbers, units

from kdtw_jax.data import cldr_names
from kdtw_jax.data.cldr_names import DE, EN, EN_GB, Slot, clean, plain
from kdtw_jax.data.cldr_nouns import person, thing

_DISTANCES = (
    "length-kilometer",
    "length-mile",
    "length-meter",
    "length-foot",
    "length-light-year",
    "length-yard",
)
_MASSES = ("mass-kilogram", "mass-gram", "mass-pound", "mass-ounce", "mass-milligram")
_TEMPERATURES = ("temperature-celsius", "temperature-fahrenheit")
_MEASURES = (
    *_DISTANCES,
    *_MASSES,
    *_TEMPERATURES,
    *("area-square-meter", "area-square-kilometer", "area-hectare", "area-acre", "area-square-mile"),
    *(
        "volume-liter",
        "volume-cubic-meter",
        "volume-gallon",
        "volume-teaspoon",
        "volume-tablespoon",
        "volume-cup",
    ),
    *("speed-kilometer-per-hour", "speed-mile-per-hour", "speed-meter-per-second", "speed-knot"),
    *("digital-megabyte", "digital-gigabyte", "digital-terabyte", "digital-bit"),
    *(
        "energy-kilowatt-hour",
        "energy-joule",
        "energy-calorie",
        "power-watt",
        "power-kilowatt",
        "power-horsepower",
    ),
    *("frequency-hertz", "frequency-gigahertz", "electric-volt", "electric-ampere", "electric-ohm"),
    *("pressure-hectopascal", "pressure-bar", "angle-degree", "light-lux", "mass-carat"),
)
_MONEY_STYLES: tuple[Literal["name", "standard"], ...] = ("name", "name", "standard")
_STRETCHES = dict(dates.TIMEDELTA_UNITS)
_DAY_FIRST = 0.4  # of English dates: both orders are English, and a reader may type either


def _rare(rng: Random, values: tuple[Slot, ...]) -> Slot:
    """Earlier values more often, the last half as often as the average: names have a tail as in text."""
    return values[int(len(values) * rng.random() ** 2)]


def _quantity(rng: Random, low: float, high: float) -> float:
    """Log-uniform; half of them whole; at least 2, so the plural is right in both languages."""
    value: float = low * (high / low) ** rng.random()
    return max(2, round(value)) if rng.random() < 0.5 else max(2.1, round(value, 1))


def _both(make: Callable[[Locale], str], *names: str) -> Slot:
    return plain(clean(make(EN)), clean(make(DE)), *names)


def _series(rng: Random, values: tuple[Slot, ...], style: Literal["standard", "or"]) -> Slot:
    """A list of two to four different names in words."""
    chosen: list[Slot] = []
    for _ in range(rng.randrange(2, 5)):
        slot = _rare(rng, values)
        if all(slot.names != other.names for other in chosen):
            chosen.append(slot)
    english = lists.format_list([slot.text("en", "") for slot in chosen], style=style, locale=EN)
    german = lists.format_list([slot.text("de", "") for slot in chosen], style=style, locale=DE)
    return plain(english, german, *(name for slot in chosen for name in slot.names))


def _day(rng: Random) -> datetime.date:
    return datetime.date(1950, 1, 1) + datetime.timedelta(days=rng.randrange(36500))


def _date(rng: Random) -> Slot:
    """A day: February 3, 2020 or 3 February 2020. German: "" after am, vom, bis zum ("Montag, dem 3. Februar"), "acc"
    after auf, or "alone"."""
    day, style = _day(rng), rng.choice(("full", "long", "long", "medium"))
    locales = (EN_GB if rng.random() < _DAY_FIRST else EN, DE)
    english, german = (clean(dates.format_date(day, style, locale=locale)) for locale in locales)
    weekday, comma, rest = german.partition(", ")
    if not comma:
        return Slot({"": english}, {"": german, "acc": f"den {german}", "alone": german})
    forms = {"": f"{weekday}, dem {rest}", "acc": f"{weekday}, den {rest}", "alone": german}
    return Slot({"": english}, forms)


def _moment(rng: Random) -> Slot:
    """A date and time, as CLDR writes it."""
    moment = datetime.datetime.combine(_day(rng), datetime.time(rng.randrange(24), rng.randrange(60)))
    style = rng.choice(("medium", "short"))
    return _both(lambda locale: dates.format_datetime(moment, style, locale=locale))


def _time(rng: Random) -> Slot:
    """A time of day: 3:05 PM, 15:05."""
    time = datetime.time(rng.randrange(24), rng.choice((0, 15, 30, 45, rng.randrange(60))))
    return _both(lambda locale: dates.format_time(time, "short", locale=locale))


def _weekday(rng: Random) -> Slot:
    day = rng.randrange(7)
    return plain(EN.days["format"]["wide"][day], DE.days["format"]["wide"][day])


def _month(rng: Random) -> Slot:
    """A month with its year."""
    day = _day(rng)
    return _both(lambda locale: dates.format_skeleton("yMMMM", day, locale=locale))


def _span(rng: Random) -> Slot:
    """A stretch of time: plain, "ago", "ahead" (in 3 days) and "dat" (seit 3 Tagen; taken from "ago")."""
    unit = rng.choice(("minute", "hour", "day", "week", "month", "year"))
    delta = datetime.timedelta(seconds=_STRETCHES[unit] * rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)))

    def forms(locale: Locale) -> dict[str, str]:
        ago = clean(dates.format_timedelta(-delta, add_direction=True, locale=locale))
        ahead = clean(dates.format_timedelta(delta, add_direction=True, locale=locale))
        length = clean(dates.format_timedelta(delta, locale=locale))
        return {"": length, "ago": ago, "ahead": ahead, "dat": ago.removeprefix("vor ")}

    english = forms(EN)
    return Slot({**english, "dat": english[""]}, forms(DE))


def _interval(rng: Random) -> Slot:
    start, skeleton = _day(rng), rng.choice(("yMMMd", "yMMMEd", "MMMd", "yMMM", "yMd"))
    end = start + datetime.timedelta(days=rng.choice((3, 9, 40, 100, 400)))
    return _both(lambda locale: dates.format_interval(start, end, skeleton, locale=locale))


def _number(rng: Random) -> Slot:
    value = round(_quantity(rng, 2, 1e7))
    return _both(lambda locale: numbers.format_decimal(value, locale=locale))


def _decimal(rng: Random) -> Slot:
    value = round(rng.uniform(-1000, 1000) * 10 ** rng.randrange(4), 3)
    return _both(lambda locale: numbers.format_decimal(value, locale=locale))


def _compact(rng: Random) -> Slot:
    """A rounded number: 1.2 million, 1.2M. From a million on: below, English rounds where German does not."""
    value = round(_quantity(rng, 1e6, 1e13))
    style: Literal["long", "short"] = rng.choice(("long", "long", "short"))
    return _both(
        lambda locale: numbers.format_compact_decimal(value, format_type=style, fraction_digits=1, locale=locale)
    )


def _scientific(rng: Random) -> Slot:
    value = round(_quantity(rng, 1e3, 1e9))
    return _both(lambda locale: numbers.format_scientific(value, locale=locale, decimal_quantization=False))


def _percent(rng: Random) -> Slot:
    value = round(rng.uniform(0.02, 0.99), rng.choice((2, 3)))
    return _both(lambda locale: numbers.format_percent(value, locale=locale, decimal_quantization=False))


def _ordinal(rng: Random) -> Slot:
    n = rng.randrange(1, 100)
    suffix = "th" if 10 < n < 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return plain(f"{n}{suffix}", f"{n}.")


def _year(rng: Random) -> Slot:
    year = str(rng.randrange(1800, 2050))
    return plain(year, year)


def _money(rng: Random) -> Slot:
    """An amount with the currency's name, or (more rarely) its symbol."""
    codes = tuple(cldr_names.currency_codes().items())
    code, slot = codes[int(len(codes) * rng.random() ** 2)]
    value, style = _quantity(rng, 2, 1e6), _MONEY_STYLES[rng.randrange(3)]
    return _both(lambda locale: numbers.format_currency(value, code, locale=locale, format_type=style), *slot.names)


@functools.cache
def _known(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Those units that this version of CLDR has in both languages."""
    return tuple(kind for kind in kinds if all(units.get_unit_name(kind, locale=locale) for locale in (EN, DE)))


def _measure(rng: Random, kinds: tuple[str, ...], *lengths: Literal["long", "short"]) -> Slot:
    """A quantity with its unit."""
    value, unit, length = _quantity(rng, 2, 1000), rng.choice(_known(kinds)), rng.choice(lengths)
    return _both(lambda locale: units.format_unit(value, unit, length=length, locale=locale))


def _temperature(rng: Random) -> Slot:
    degrees, unit = rng.choice((-1, 1)) * rng.randrange(2, 50), rng.choice(_TEMPERATURES)
    return _both(lambda locale: units.format_unit(degrees, unit, length="long", locale=locale))


# The blanks a pattern may have; a digit at the end of a blank's name tells two of a kind apart.
KINDS: Mapping[str, Callable[[Random], Slot]] = MappingProxyType(
    {
        "city": lambda rng: _rare(rng, cldr_names.cities()),
        "compact": _compact,
        "currency": lambda rng: _rare(rng, cldr_names.currencies()),
        "date": _date,
        "decimal": _decimal,
        "distance": lambda rng: _measure(rng, _DISTANCES, "long"),
        "interval": _interval,
        "language": lambda rng: _rare(rng, cldr_names.languages()),
        "languages": lambda rng: _series(rng, cldr_names.languages(), "standard"),
        "mass": lambda rng: _measure(rng, _MASSES, "long"),
        "measure": lambda rng: _measure(rng, _MEASURES, "long", "short"),
        "moment": _moment,
        "money": _money,
        "month": _month,
        "number": _number,
        "ordinal": _ordinal,
        "percent": _percent,
        "person": person,
        "place": lambda rng: _rare(rng, cldr_names.places()),
        "region": lambda rng: _rare(rng, cldr_names.regions()),
        "regions": lambda rng: _series(rng, cldr_names.regions(), "or"),
        "scientific": _scientific,
        "script": lambda rng: _rare(rng, cldr_names.scripts()),
        "span": _span,
        "temperature": _temperature,
        "thing": thing,
        "time": _time,
        "weekday": _weekday,
        "year": _year,
        "zone": lambda rng: _rare(rng, cldr_names.time_zones()),
    }
)
