"""Tasks of text pairs in memory."""

from __future__ import annotations

import pytest

from kdtw_jax import Task, UserError

TRAIN = [(f"source {i // 2}", f"target {i}") for i in range(80)]


def test_any_iterable_of_tuples_or_mappings_will_do() -> None:
    from_list = Task.from_pairs(TRAIN, [("x", "y")])
    made = Task.from_pairs(({"source": s, "target": t} for s, t in TRAIN), iter([["x", "y"]]), metrics=["rouge1"])
    assert {split: list(pairs) for split, pairs in made.splits.items()} == {
        split: list(pairs) for split, pairs in from_list.splits.items()
    }
    assert made.fingerprint == from_list.fingerprint != Task.from_pairs(TRAIN[1:], [("x", "y")]).fingerprint
    assert (from_list.metrics, made.metrics, made.language) == (("bleu", "chrf"), ("rouge1",), "")
    assert Task.from_pairs([(s, "あいう" + t) for s, t in TRAIN]).language == "ja"


def test_what_is_not_given_is_held_out_by_source() -> None:
    task = Task.from_pairs(TRAIN)
    sources = [{pair["source"] for pair in task.splits[split]} for split in ("train", "validation", "test")]
    assert [len(part) for part in sources] == [36, 2, 2]  # a twentieth of 40 each
    assert len(set.union(*sources)) == 40
    given = Task.from_pairs(TRAIN, [("x", "y")], validation=[("v", "w")])
    assert len(given.splits["train"]) == len(TRAIN) and len(given.splits["validation"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": [("a", "b"), "ab"]}, r"train\[1\] must be a \(source, target\) pair of texts, got 'ab'"),
        ({"train": [("a", 1)]}, r"train\[0\] must be"),
        ({"train": [("a", "b", "c")]}, r"train\[0\] must be"),
        ({"train": TRAIN, "test": [{"source": "a"}]}, r"test\[0\] must be"),
        ({"train": []}, "train has no pairs"),
        ({"train": TRAIN, "test": []}, "test has no pairs"),
        ({"train": TRAIN, "test": TRAIN[:1]}, "1 of the 1 sources of test are in train, too, as 'source 0'"),
        ({"train": TRAIN, "metrics": ["bleu4"]}, "metrics: unknown metric .bleu4.; known are bleu, "),
        ({"train": TRAIN, "metrics": []}, r"metrics must be distinct, at least one of .*got \(\)"),
        ({"train": TRAIN, "instruction": "say"}, "instruction must have {source}"),
        ({"train": TRAIN[:2]}, "too few"),
    ],
)
def test_what_is_wrong_is_named_by_argument_and_place(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Task.from_pairs(**arguments)  # type: ignore[arg-type]
