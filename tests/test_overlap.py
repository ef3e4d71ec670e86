"""Near-duplicates by every way of counting, and what counts as the same text."""

from __future__ import annotations

import random
import tracemalloc
import unicodedata
from collections.abc import Callable

import pytest

from kdtw_jax.data import intersections
from kdtw_jax.data import overlap as module
from kdtw_jax.data.intersections import any_alike
from kdtw_jax.data.overlap import caseless, contained, near_duplicates, normalised, overlap
from kdtw_jax.data.pair import Pair

CODONS = [a + b + c for a in "acgt" for b in "acgt" for c in "acgt"]
TEMPLATE = "translate the following sentence into German please now: "


def codons(rng: random.Random) -> str:
    return " ".join(rng.choices(CODONS[:12], k=rng.randint(0, 20)))


def templates(rng: random.Random) -> str:
    return TEMPLATE * rng.randint(0, 2) + " ".join(rng.choices(CODONS, k=rng.randint(1, 9)))


def names(rng: random.Random) -> str:
    """Words that all have, and one that few have."""
    return " ".join(rng.choices(CODONS[:6], k=8)) + f" name{chr(97 + rng.randrange(20))}"


def alike(one: str, other: str, whole: str) -> bool:
    """The definition, for texts of plain words."""
    a, b = one.lower().replace(":", "").split(), other.lower().replace(":", "").split()
    runs_a = {tuple(a[i : i + 8]) for i in range(len(a) - 7)}
    runs_b = {tuple(b[i : i + 8]) for i in range(len(b) - 7)}
    near = bool(a and b) and len(set(a) & set(b)) >= 0.8 * len(set(a) | set(b))
    common = len(runs_a & runs_b)
    return near or (common > 0 and common >= 0.5 * len(runs_a if whole == "texts" else runs_b))


@pytest.mark.parametrize("whole", ["texts", "others"])
@pytest.mark.parametrize("corpus", [codons, templates, names])
@pytest.mark.parametrize("way", ["one by one", "all at once", "chosen"])
def test_near_duplicates_are_those_of_the_definition(
    corpus: Callable[[random.Random], str], way: str, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "chosen":
        for limit in ("_COMPARED", "_COUNTED"):
            monkeypatch.setattr(module, limit, 1e9 if way == "one by one" else -1)
    monkeypatch.setattr(intersections, "_AT_ONCE", 300)  # several blocks
    for seed, often in enumerate((0, 1 / 256, 0.5, 1)):
        monkeypatch.setattr(intersections, "_OFTEN", often)
        rng = random.Random(seed)
        texts, others = [corpus(rng) for _ in range(60)], [corpus(rng) for _ in range(70)]
        expected = [any(alike(text, other, whole) for other in others) for text in texts]
        assert 0 < sum(expected) < len(texts)
        for fold in (True, False):
            assert near_duplicates(texts, others, whole=whole, fold_digits=fold) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("often", [0, 0.1, 2])
def test_common_elements_are_counted_as_bits_and_by_pairs(often: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intersections, "_OFTEN", often)
    monkeypatch.setattr(intersections, "_AT_ONCE", 50)
    rng = random.Random(0)
    sets = [set(rng.sample(range(200), rng.randint(0, 150))) for _ in range(23)]
    others = [set(rng.sample(range(100, 300), rng.randint(0, 150))) for _ in range(31)]
    for least in (1, 10, 30, 60):
        expected = [any(len(a & b) >= least for b in others) for a in sets]
        assert any_alike(sets, others, lambda common, *_, least=least: common >= least) == expected
    sizes = [10] * len(sets)
    half = any_alike(sets, others, lambda common, size, _: common >= size, sizes=sizes)
    assert half == [any(len(a & b) >= 10 for b in others) for a in sets]
    assert any_alike([], others, lambda common, *_: common > 0) == []
    assert any_alike(sets, [], lambda common, *_: common > 0) == [False] * len(sets)
    assert any_alike([set()], [set()], lambda common, *_: common >= 0) == [False]


def test_few_words_that_all_texts_have_are_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of 64 codons, and texts of one template: as many comparisons as pairs would be made, so none is."""
    rng = random.Random(0)
    calls = []
    counted = any_alike
    monkeypatch.setattr(module, "any_alike", lambda *a, **k: calls.append(len(a[0])) or counted(*a, **k))
    sources = [" ".join(rng.choices(CODONS, k=30)) for _ in range(400)]
    near_duplicates(sources[:100], sources[100:])
    assert calls == [100]
    near_duplicates([TEMPLATE + s for s in sources[:100]], [TEMPLATE + s for s in sources[100:]])
    assert calls == [100, 100, 100]
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(3000)]
    sources = [" ".join(rng.choices(words, k=9)) for _ in range(400)]
    near_duplicates(sources[:100], sources[100:])
    assert len(calls) == 3


def test_counting_all_at_once_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intersections, "_AT_ONCE", 1 << 14)
    sets = [{i % 7, i % 11, i % 13} for i in range(3000)]
    tracemalloc.start()
    any_alike(sets, sets, lambda common, *_: common > 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 / 2  # bytes; one number a pair would be more


def pair(source: str, target: str = "x") -> Pair:
    return Pair(source=source, target=target, group="")


def test_sums_differ_in_their_digits_and_say_so() -> None:
    train, test = [pair(f"{i} + 7", str(i + 7)) for i in range(50)], [pair(f"{i} + 7", "9") for i in range(50, 60)]
    notes = overlap(train, test, fold_digits=False)
    assert (notes["test_source_in_train"], notes["test_source_near_train"]) == (0, 0)
    assert notes["test_target_in_train"] == 1
    assert (
        overlap(train, test)["test_source_in_train"] == contained(train, test, fold_digits=True)["test_source_in_train"]
    )
    assert overlap(train, test)["test_source_in_train"] == 1


@pytest.mark.parametrize("text", ["Straße  Ärger\t12", "ﬁn É 3", "ΑΣ ας", "İstanbul", "日本 語", "plain 1"])
def test_the_same_text_in_other_case_spacing_and_form_is_the_same(text: str) -> None:
    for form in ("NFC", "NFD"):
        other = f" {unicodedata.normalize(form, text)}  ".replace(" ", "\u00a0 ")
        assert caseless(other) == caseless(text) == caseless(caseless(text))
        assert caseless(text.upper()) == caseless(text.casefold().upper())
    assert caseless(text + "1") != caseless(text + "2")
    assert normalised(text + "1") == normalised(text + "2")


def test_texts_without_spaces_are_compared_by_their_characters() -> None:
    one, other = "今天天气很好我们去公园散步吧", "今天天气很好我们去公园散步了"
    assert near_duplicates([one], [other], fold_digits=False) == [True]
    assert near_duplicates([one], ["他昨天买了三本新书"], fold_digits=False) == [False]
    assert near_duplicates(["สวัสดีครับผมชื่อ"], ["สวัสดีครับผมชื่อ"], fold_digits=False) == [True]
