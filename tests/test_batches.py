"""Batches: nothing lost, nothing twice, static shapes, and a stream that continues where it stopped."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from kdtw_jax.data.batches import (
    Batch,
    Bucket,
    EncodedSplit,
    Ragged,
    assign_buckets,
    encode_split,
    evaluation_batches,
    make_buckets,
    training_batches,
)
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.task import Task
from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, Tokenizer, train_tokenizer
from kdtw_jax.errors import UserError

BUCKETS = (Bucket(4, 4, 8), Bucket(8, 6, 5), Bucket(12, 12, 4))


def encoded_of(lengths: list[tuple[int, int]]) -> EncodedSplit:
    """A split whose i-th example is made of i; example ids have gaps, as dropping leaves them."""
    return EncodedSplit(
        sources=Ragged.pack([[100 + i] * (s - 1) + [EOS_ID] for i, (s, _) in enumerate(lengths)]),
        targets=Ragged.pack([[500 + i] * (t - 1) + [EOS_ID] for i, (_, t) in enumerate(lengths)]),
        examples=np.arange(len(lengths), dtype=np.int32) * 2,
        dropped=0,
        truncated_pairs=0,
        truncated_tokens=0,
    )


def many(count: int, seed: int = 0) -> EncodedSplit:
    drawn = np.random.default_rng(seed).integers(1, 13, (count, 2))
    return encoded_of([(int(s), int(t)) for s, t in drawn])


def check_rows(batch: Batch, encoded: EncodedSplit) -> None:
    for example, source, target in zip(*batch, strict=True):
        for row, ragged in ((source, encoded.sources), (target, encoded.targets)):
            expected = np.zeros(len(row), np.int32)
            ids = np.array([EOS_ID], np.int32) if example < 0 else ragged[example // 2]
            expected[: len(ids)] = ids
            np.testing.assert_array_equal(row, expected)


def equal(a: Batch, b: Batch) -> bool:
    return all(x.shape == y.shape and x.dtype == y.dtype and bool((x == y).all()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((32, 32, 2048, 2, 1), ((16, 16, 128), (32, 32, 64))),
        ((32, 32, 2048, 1, 4), ((32, 32, 64),)),
        ((64, 16, 640, 2, 4), ((32, 8, 20), (64, 16, 8))),
        ((6, 6, 2048, 4, 1), ((6, 6, 341),)),
    ],
)
def test_make_buckets(sizes: tuple[int, int, int, int, int], expected: tuple[Bucket, ...]) -> None:
    assert make_buckets(*sizes) == expected


@pytest.mark.parametrize("case", list(itertools.product((7, 40, 96), (5, 33), (64, 1000), (1, 3), (1, 4))))
def test_buckets_nest_cover_and_divide(case: tuple[int, int, int, int, int]) -> None:
    source, target, tokens, count, multiple = case
    buckets = make_buckets(source, target, tokens, count, multiple)
    assert 1 <= len(buckets) <= count
    assert buckets[-1][:2] == (source, target)
    for small, large in itertools.pairwise(buckets):
        assert small.source <= large.source
        assert small.target <= large.target
        assert small.rows >= large.rows
    for bucket in buckets:
        assert bucket.rows % multiple == 0
        assert bucket.rows >= multiple
        longest = max(bucket.source, bucket.target)
        assert bucket.rows == multiple or tokens - multiple * longest < bucket.rows * longest <= tokens


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("wrong", [0, -3])
def test_sizes_below_one_are_refused(position: int, wrong: int) -> None:
    sizes = [32, 32, 2048, 2, 1]
    sizes[position] = wrong
    with pytest.raises(UserError, match=str(wrong)):
        make_buckets(*sizes)


def test_each_example_is_in_the_smallest_bucket_that_holds_it() -> None:
    encoded = many(300)
    shuffled = (BUCKETS[1], BUCKETS[2], BUCKETS[0])
    members = assign_buckets(encoded, shuffled)
    assert sorted(np.concatenate(members)) == list(range(300))
    for bucket, rows in zip(shuffled, members, strict=True):
        for i in rows:
            s, t = len(encoded.sources[i]), len(encoded.targets[i])
            fitting = [b for b in shuffled if s <= b.source and t <= b.target]
            assert bucket == min(fitting, key=lambda b: b.source + b.target)


def test_an_example_that_fits_no_bucket_is_named() -> None:
    with pytest.raises(UserError, match=r"example 2 \(13 source and 2 target tokens\) fits no bucket"):
        assign_buckets(encoded_of([(3, 3), (13, 2)]), BUCKETS)
    with pytest.raises(UserError, match="at least one bucket"):
        assign_buckets(many(3), [])
    with pytest.raises(UserError, match="positive"):
        assign_buckets(many(3), [Bucket(12, 12, 0)])


@pytest.mark.parametrize("count", [0, 1, 97])
def test_evaluation_covers_each_example_once(count: int) -> None:
    encoded = many(count)
    batches = list(evaluation_batches(encoded, BUCKETS))
    examples = np.concatenate([np.zeros(0, np.int32), *(batch.example_B for batch in batches)])
    assert sorted(examples[examples >= 0]) == sorted(encoded.examples)
    for batch in batches:
        shape = Bucket(batch.source_BxS.shape[1], batch.target_BxT.shape[1], len(batch.example_B))
        assert shape in BUCKETS
        assert all(array.dtype == np.int32 for array in batch)
        check_rows(batch, encoded)
        filler = batch.example_B < 0
        assert not filler.all()
        assert (np.diff(filler.astype(int)) >= 0).all()  # at the end only
    assert sum((batch.example_B < 0).any() for batch in batches) <= len(BUCKETS)


def test_training_rows_are_real_and_shapes_static() -> None:
    encoded = many(60)
    for batch in itertools.islice(training_batches(encoded, BUCKETS, seed=3), 40):
        assert (batch.example_B >= 0).all()
        assert Bucket(batch.source_BxS.shape[1], batch.target_BxT.shape[1], len(batch.example_B)) in BUCKETS
        check_rows(batch, encoded)


def test_an_epoch_has_each_example_once_and_the_next_another_order() -> None:
    encoded = encoded_of([(3, 3)] * 24)
    stream = training_batches(encoded, BUCKETS[:1], seed=0)
    epochs = [np.concatenate([next(stream).example_B for _ in range(3)]) for _ in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(encoded.examples)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert tuple(epochs[0]) != tuple(encoded.examples)


def test_batches_of_one_row_go_on_from_epoch_to_epoch() -> None:
    encoded = encoded_of([(3, 3)] * 5 + [(8, 6)] * 5)
    stream = training_batches(encoded, (Bucket(4, 4, 1), Bucket(8, 6, 1)), seed=0)
    epochs = [[next(stream).example_B.item() for _ in range(10)] for _ in range(3)]
    assert all(sorted(epoch) == sorted(encoded.examples) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_every_example_is_seen_equally_often_whatever_its_bucket() -> None:
    lengths = [(2, 2)] * 200 + [(7, 5)] * 30 + [(12, 9)] * 3  # the last bucket has fewer examples than rows
    encoded = encoded_of(lengths)
    epochs = 40
    batches = round(epochs * sum(n / b.rows for n, b in zip((200, 30, 3), BUCKETS, strict=True)))
    seen: Counter[int] = Counter()
    for batch in itertools.islice(training_batches(encoded, BUCKETS, seed=1), batches):
        seen.update(batch.example_B.tolist())
    assert set(seen) == set(encoded.examples.tolist())
    assert all(abs(times - epochs) <= 3 for times in seen.values())


def test_empty_buckets_do_no_harm() -> None:
    encoded = encoded_of([(12, 12)] * 5)
    batch = next(training_batches(encoded, BUCKETS, seed=0))
    assert batch.source_BxS.shape == (4, 12)


def test_the_stream_hangs_on_the_seed_alone() -> None:
    encoded = many(80)
    one, same, other = (list(itertools.islice(training_batches(encoded, BUCKETS, seed=s), 20)) for s in (5, 5, 6))
    assert all(map(equal, one, same))
    assert not all(map(equal, one, other))


@pytest.mark.parametrize("done", [0, 1, 17, 60])
def test_a_restored_stream_continues_bit_for_bit(done: int) -> None:
    encoded = many(50)
    stream = training_batches(encoded, BUCKETS, seed=2)
    for _ in range(done):
        next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    expected = [next(stream) for _ in range(25)]
    fresh = training_batches(encoded, BUCKETS, seed=2)
    next(fresh)
    fresh.set_state(state)
    assert all(map(equal, expected, [next(fresh) for _ in range(25)]))
    stream.set_state(state)
    assert equal(expected[0], next(stream))


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(UserError, match="without examples"):
        training_batches(many(0), BUCKETS, seed=0)
    for seed in (-1, 2**32):
        with pytest.raises(UserError, match="seed"):
            training_batches(many(5), BUCKETS, seed=seed)


TEXTS = ["one two three four", "a", "seven eight nine ten eleven twelve", "{braces} and {source}", "five six"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([f"{text} say:" for text in TEXTS], vocab_size=60, exact=False)


@pytest.fixture(scope="module")
def task() -> Task:
    pairs = [Pair(source=text, target=text.upper() if len(text) > 20 else text, group="g") for text in TEXTS]
    splits = {"train": pairs, "validation": pairs[:1], "test": pairs[:0]}
    return Task(name="toy", splits=splits, metrics=("bleu",), instruction="say: {source}", notes={})


def encode(task: Task, tokenizer: Tokenizer, **options: Any) -> EncodedSplit:
    defaults: dict[str, Any] = {"max_source": 64, "max_target": 64, "on_long": "error", "instruct": False}
    return encode_split(task, "train", tokenizer, **{**defaults, **options})


def test_encoding_keeps_texts_and_ends_with_eos(task: Task, tokenizer: Tokenizer) -> None:
    encoded = encode(task, tokenizer)
    assert len(encoded) == len(TEXTS)
    assert (encoded.dropped, encoded.truncated_pairs, encoded.truncated_tokens) == (0, 0, 0)
    for i, text in enumerate(TEXTS):
        assert encoded.sources[i][-1] == EOS_ID
        assert list(encoded.sources[i]).count(EOS_ID) == 1
        assert PAD_ID not in encoded.sources[i]
        assert encoded.sources[i][:-1].tolist() == tokenizer.encode(text)


def test_the_instruction_goes_into_the_source_only(task: Task, tokenizer: Tokenizer) -> None:
    plain, told = encode(task, tokenizer), encode(task, tokenizer, instruct=True)
    for i, text in enumerate(TEXTS):
        assert told.sources[i][:-1].tolist() == tokenizer.encode(f"say: {text}")
        np.testing.assert_array_equal(told.targets[i], plain.targets[i])


@pytest.mark.parametrize("limits", [(5, 5), (2, 64), (64, 3)])
def test_truncation_keeps_eos_and_conserves_tokens(task: Task, tokenizer: Tokenizer, limits: tuple[int, int]) -> None:
    whole = encode(task, tokenizer)
    cut = encode(task, tokenizer, max_source=limits[0], max_target=limits[1], on_long="truncate")
    kept, given = (len(split.sources.values) + len(split.targets.values) for split in (cut, whole))
    assert kept + cut.truncated_tokens == given
    assert cut.truncated_tokens > 0
    shorter = 0
    for i in range(len(TEXTS)):
        sides = ((cut.sources[i], whole.sources[i], limits[0]), (cut.targets[i], whole.targets[i], limits[1]))
        for short, full, limit in sides:
            assert len(short) == min(len(full), limit)
            assert short[-1] == EOS_ID
            np.testing.assert_array_equal(short[:-1], full[: len(short) - 1])
        shorter += any(len(short) < len(full) for short, full, _ in sides)
    assert cut.truncated_pairs == shorter
    assert (len(cut), cut.dropped) == (len(TEXTS), 0)


def test_dropping_leaves_whole_examples_with_their_ids(task: Task, tokenizer: Tokenizer) -> None:
    whole = encode(task, tokenizer)
    limit = int(np.median(whole.sources.lengths))
    kept = encode(task, tokenizer, max_source=limit, on_long="drop")
    assert kept.dropped + len(kept) == len(TEXTS)
    assert kept.dropped > 0
    assert kept.examples.tolist() == np.flatnonzero(whole.sources.lengths <= limit).tolist()
    for position, example in enumerate(kept.examples):
        np.testing.assert_array_equal(kept.sources[position], whole.sources[example])
        np.testing.assert_array_equal(kept.targets[position], whole.targets[example])


def test_a_long_example_is_named(task: Task, tokenizer: Tokenizer) -> None:
    length = len(tokenizer.encode(TEXTS[0])) + 1
    with pytest.raises(
        UserError, match=rf"example 0 of split 'train' .* source {length} tokens \(limit {length - 1}\)"
    ):
        encode(task, tokenizer, max_source=length - 1)


def test_bad_arguments_are_refused(task: Task, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="no split 'dev'; it has test, train, validation"):
        encode_split(task, "dev", tokenizer, max_source=9, max_target=9, on_long="drop", instruct=False)
    wrongs: tuple[dict[str, Any], ...] = ({"max_source": 1}, {"max_target": -5}, {"on_long": "ignore"})
    for wrong in wrongs:
        with pytest.raises(UserError, match=str(next(iter(wrong)))):
            encode(task, tokenizer, **wrong)


def test_progress_ends_at_the_total(task: Task, tokenizer: Tokenizer) -> None:
    calls: list[tuple[int, int]] = []
    encode(task, tokenizer, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(len(TEXTS), len(TEXTS))]
