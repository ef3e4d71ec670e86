"""cldr: distinct pairs, splits that test composition, declined German, the same for the same seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from random import Random

import pytest

from kdtw_jax.data import cldr_names
from kdtw_jax.data.cldr import INSTRUCTION, METRICS, SIZES, cldr_pairs
from kdtw_jax.data.cldr_nouns import person, thing
from kdtw_jax.data.cldr_values import KINDS
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.tokenizer import normalize
from kdtw_jax.errors import UserError

Splits = Mapping[str, Sequence[Pair]]
BLANK = re.compile(r"\\\{([a-z]+)\d?(?::[a-z\\-]+)?\\\}")
NAMES = {"region", "place", "language", "script", "currency", "zone", "city"}
LABELS = {"language": "Language: ", "script": "Script: ", "currency": "Currency: ", "zone": "Time zone: "}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return cldr_pairs()


def fillings(pairs: Sequence[Pair], group: str, kind: str) -> set[str]:
    """What fills the only blank of `kind` in the sources of a pattern, found by reading them."""
    pattern = BLANK.sub(lambda match: "(.+)" if match[1] == kind else "(?:.+)", re.escape(group))
    found = [re.fullmatch(pattern, pair["source"], re.IGNORECASE) for pair in pairs if pair["group"] == group]
    assert found
    assert all(found)
    return {match[1] for match in found if match}


def single_name_patterns(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """(pattern, kind) where one blank is a name and none a thing, money or a list (they hold names too)."""
    result = []
    for group in sorted({pair["group"] for pair in pairs if "{" in pair["group"]}):
        kinds = [match[1] for match in BLANK.finditer(re.escape(group))]
        names = [kind for kind in kinds if kind in NAMES]
        if len(names) == 1 and not {"thing", "money", "languages", "regions"} & set(kinds):
            result.append((group, names[0]))
    return result


def test_tens_of_thousands_of_distinct_pairs(splits: Splits) -> None:
    assert {name: len(pairs) for name, pairs in splits.items()} == SIZES
    assert SIZES["train"] >= 20_000
    sources = [pair["source"] for pairs in splits.values() for pair in pairs]
    assert len(set(sources)) == len(sources)


def test_texts_are_clean_short_and_translated(splits: Splits) -> None:
    pairs = [pair for each in splits.values() for pair in each]
    for pair in pairs:
        for text in (pair["source"], pair["target"]):
            assert text == normalize(text) != ""
            assert not re.search(r"[{}\u00ad]|\.\.$", text)
            assert len(text) <= 200
    words = [len(pair["source"].split()) for pair in pairs]
    assert 9 < sum(words) / len(words) < 14
    assert max(words) <= 30
    assert sum(pair["source"] == pair["target"] for pair in pairs) < 0.02 * len(pairs)


def test_sentences_keep_their_capital_and_their_stop(splits: Splits) -> None:
    sentences = [pair for pair in splits["train"] if pair["group"][-1] in ".?"]
    assert len(sentences) > 0.8 * len(splits["train"])
    for pair in sentences:
        assert pair["source"][-1] == pair["target"][-1]
        assert not pair["source"][0].islower()
        assert not pair["target"][0].islower()


def test_english_dates_come_in_both_orders_and_mean_the_same_day() -> None:
    dates = [KINDS["date"](Random(i)) for i in range(400)]
    day_first = [d for d in dates if re.search(r"\b\d\d? [A-Z]", d.text("en", ""))]
    month_first = [d for d in dates if re.search(r"[a-z] \d\d?, \d{4}$", d.text("en", ""))]
    assert len(day_first) + len(month_first) == len(dates)
    assert 0.3 < len(day_first) / len(dates) < 0.5
    written = {d.text("en", ""): d.text("de", "") for d in day_first}
    for english, german in written.items():
        day, year = re.search(r"(\d+) ", english), english[-4:]
        assert day and german.endswith(year)
        assert re.search(rf"\b0?{day[1]}\.", german)


def test_patterns_have_their_share_in_every_split(splits: Splits) -> None:
    for split in ("train", "test"):
        groups = [pair["group"] for pair in splits[split] if pair["group"][-1] in ".?"]
        assert set(groups) == {pair["group"] for pair in splits["train"] if pair["group"][-1] in ".?"}
        assert max(map(groups.count, set(groups))) < 0.15 * len(groups)


def test_a_held_out_name_is_never_trained_on_in_that_pattern(splits: Splits) -> None:
    patterns = single_name_patterns(splits["train"])
    assert len(patterns) >= 8
    for group, kind in patterns:
        trained = fillings(splits["train"], group, kind)
        assert len(trained) > 30
        for split in ("validation", "test"):
            if any(pair["group"] == group for pair in splits[split]):
                assert not fillings(splits[split], group, kind) & trained


def test_a_held_out_name_is_trained_on_elsewhere(splits: Splits) -> None:
    alone = {pair["source"] for pair in splits["train"]}
    checked = 0
    for group, kind in single_name_patterns(splits["train"]):
        if kind in LABELS and any(pair["group"] == group for pair in splits["test"]):
            for name in fillings(splits["test"], group, kind):
                assert LABELS[kind] + name in alone
                checked += 1
    assert checked > 20


def test_another_seed_never_trains_on_what_this_one_tests(splits: Splits) -> None:
    other = cldr_pairs(seed=1, limit=3000)
    tested = {pair["source"] for split in ("validation", "test") for pair in splits[split]}
    assert not tested & {pair["source"] for pair in other["train"]}
    for group, kind in single_name_patterns(splits["train"])[:6]:
        if any(pair["group"] == group for pair in splits["test"]):
            trained = fillings(other["train"], group, kind)
            assert not trained & fillings(splits["test"], group, kind)


def test_the_same_seed_gives_the_same_pairs_and_another_does_not() -> None:
    one, same, other = (
        cldr_pairs(seed=3, limit=150),
        cldr_pairs(seed=3, limit=150),
        cldr_pairs(seed=4, limit=150),
    )
    assert one == same
    assert one["train"] != other["train"]
    assert one["test"] != other["test"]


@pytest.mark.long
def test_another_process_makes_the_same_pairs() -> None:
    command = "from kdtw_jax.data.cldr import cldr_pairs; print(ascii(cldr_pairs(seed=3, limit=20)))"
    run = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == ascii(cldr_pairs(seed=3, limit=20))


@pytest.mark.parametrize("limit", [1, 40])
def test_limit_cuts_every_split(limit: int) -> None:
    assert {name: len(pairs) for name, pairs in cldr_pairs(limit=limit).items()} == dict.fromkeys(SIZES, limit)


@pytest.mark.parametrize(("seed", "limit"), [(-1, None), (0, 0), (0, -5)])
def test_negative_sizes_are_refused(seed: int, limit: int | None) -> None:
    with pytest.raises(UserError, match=str(min(seed, limit if limit is not None else 0))):
        cldr_pairs(seed=seed, limit=limit)


def test_constants() -> None:
    assert METRICS == ("bleu", "chrf", "exact_match")
    assert INSTRUCTION.format(source="a cat") == "translate English to German: a cat"


def test_names_lose_hyphenation_hints_and_odd_spaces() -> None:
    assert cldr_names.clean("Reyk\xadja\xadvík,\u202f3\u2009PM") == "Reykjavík, 3 PM"


def test_well_known_names(splits: Splits) -> None:
    translations = {pair["source"]: pair["target"] for pair in splits["train"]}
    assert translations["Region: Germany"] == "Region: Deutschland"
    assert translations["Language: French"] == "Sprache: Französisch"
    assert translations["Currency: US Dollar"] == "Währung: US-Dollar"
    assert translations["City: Rome"] == "Stadt: Rom"


@pytest.mark.parametrize(
    ("code", "name", "articles", "straight", "bent"),
    [
        ("DE", "Deutschland", "||in|nach|aus", "Deutschland", "Deutschland"),
        ("CH", "Schweiz", "die|der|in der|in die|aus der", "Schweiz", "Schweiz"),
        ("IQ", "Irak", "der|dem|im|in den|aus dem", "Irak", "Irak"),
        ("NL", "Niederlande", "die|den|in den|in die|aus den", "Niederlande", "Niederlanden"),
        ("SC", "Seychellen", "die|den|auf den|auf die|von den", "Seychellen", "Seychellen"),
        ("FO", "Färöer", "die|den|auf den|auf die|von den", "Färöer", "Färöern"),
        (
            *("GB", "Vereinigtes Königreich", "das|dem|im|ins|aus dem"),
            *("Vereinigte Königreich", "Vereinigten Königreich"),
        ),
        (
            *("US", "Vereinigte Staaten", "die|den|in den|in die|aus den"),
            *("Vereinigten Staaten", "Vereinigten Staaten"),
        ),
        (
            *("DO", "Dominikanische Republik", "die|der|in der|in die|aus der"),
            *("Dominikanische Republik", "Dominikanischen Republik"),
        ),
    ],
)
def test_countries_are_declined(code: str, name: str, articles: str, straight: str, bent: str) -> None:
    found = cldr_names.place_forms(code, name)
    nouns = {"": straight, "dat": bent, "in": bent, "to": straight, "from": bent}
    expected = {
        form: f"{article} {noun}".strip()
        for article, (form, noun) in zip(articles.split("|"), nouns.items(), strict=True)
    }
    assert found == expected


def test_people_and_things_are_declined() -> None:
    rng = Random(0)
    people = {slot.text("en", ""): slot for slot in (person(rng) for _ in range(2000))}
    forms = {
        "my sister": "meine Schwester|meine Schwester|meiner Schwester",
        "our uncle": "unser Onkel|unseren Onkel|unserem Onkel",
    }
    for english, german in forms.items():
        assert "|".join(people[english].text("de", form) for form in ("", "acc", "dat")) == german
    things = {slot.text("en", ""): slot for slot in (thing(rng) for _ in range(20_000))}
    forms = {
        "the old ring": "der alte Ring|den alten Ring|ein alter Ring|einen alten Ring|alte Ringe",
        "the new lamp": "die neue Lampe|die neue Lampe|eine neue Lampe|eine neue Lampe|neue Lampen",
        "the red car": "das rote Auto|das rote Auto|ein rotes Auto|ein rotes Auto|rote Autos",
    }
    for english, german in forms.items():
        slot = things[english]
        assert "|".join(slot.text("de", form) for form in ("", "acc", "a", "a-acc", "many")) == german
    assert things["the old ring"].text("en", "a") == "an old ring"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_blank_draws_from_its_generator_alone(kind: str) -> None:
    slots = [KINDS[kind](Random(seed)) for seed in (0, 0, 1, 2, 3, 4, 5, 6)]
    assert slots[0] == slots[1]
    assert len({slot.text("en", "") for slot in slots}) > 1
    for slot in slots:
        for language in ("en", "de"):
            assert normalize(slot.text(language, "")) == slot.text(language, "") != ""


def test_numbers_say_the_same_in_both_languages() -> None:
    swap = str.maketrans(",.", ".,")
    for seed in range(300):
        for kind in ("number", "decimal", "scientific"):
            slot = KINDS[kind](Random(seed))
            assert slot.text("en", "").translate(swap) == slot.text("de", "")
        percent = KINDS["percent"](Random(seed))
        assert percent.text("en", "").translate(swap).rstrip("%") == percent.text("de", "").rstrip(" %")


def test_times_of_day_agree() -> None:
    for seed in range(300):
        time = KINDS["time"](Random(seed))
        match = re.fullmatch(r"(\d+):(\d\d) ([AP])M", time.text("en", ""))
        assert match
        hour = int(match[1]) % 12 + (12 if match[3] == "P" else 0)
        assert time.text("de", "") == f"{hour:02}:{match[2]}"
