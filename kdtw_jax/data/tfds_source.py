"""Text-pair data sets of tensorflow-datasets, read as array_record files without TensorFlow."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from kdtw_jax.data.features import Features
from kdtw_jax.data.held_out import hold_out
from kdtw_jax.data.pair import Source
from kdtw_jax.data.remarks import remark
from kdtw_jax.data.store import StoredPairs
from kdtw_jax.errors import UserError

_KNOWN = (("document", "summary"), ("article", "highlights"))
_SPLITS = ("train", "validation", "test")
_SHOWN = 12  # parts of a data set, in messages
_SMALL = 500  # pairs of a split of which a hundredth is no test
# What tensorflow-datasets raises for words that name no part of a split.
_NO_PART = (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class TfdsPairs:
    """Splits of a data set and what its texts are."""

    splits: dict[str, Source]
    source: str
    target: str
    is_translation: bool


class _Range(NamedTuple):
    split: str
    first: int
    end: int


def tfds_pairs(name: str, features: Features, data_dir: Path) -> TfdsPairs:
    """Reads `name` ("wmt14_translate/de-en", "xsum"), downloading and preparing it first if need be.

    Raises:
      UserError: no such data set, split or feature (the message lists what there is), or it cannot be had; a set of
        several pairs of languages of which none is named; or parts
        of splits that overlap or are empty. Before the download where tensorflow-datasets knows the splits.
    """
    # Without TensorFlow the import of all data sets stops early and unnoticed; these are the ones with text pairs.
    for module in ("summarization", "text", "text_simplification", "translate"):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"tensorflow_datasets.{module}")
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except (tfds.core.registered.DatasetNotFoundError, ValueError, ImportError) as e:
        raise UserError(f"tfds:{name}: {_line(e)}; see tensorflow.org/datasets/catalog for names") from e
    source, target, is_translation = _names(name, builder.info.features, features)
    if "/" not in name and len(configs := list(builder.builder_configs)) > 1:  # else the first is taken unsaid
        have = ", ".join(configs[:_SHOWN]) + (" ..." if len(configs) > _SHOWN else "")
        if is_translation:
            raise UserError(f"tfds:{name} has several pairs of languages; name one, as in {name}/{configs[0]}: {have}")
        remark(f"tfds:{name} has several parts, {have}; {builder.builder_config.name} is taken")
    _ranges(name, builder.info.splits, features)
    try:
        tfds.enable_progress_bar()
        builder.download_and_prepare()
    except Exception as e:  # whatever its sources, readers and the network raise
        raise UserError(
            f"tfds:{name}: cannot be prepared in {data_dir} ({_line(e)}); "
            "check the network, or copy a folder prepared elsewhere with file_format array_record"
        ) from e
    ranges = _ranges(name, builder.info.splits, features)
    splits: dict[str, Source] = {}
    for split in ranges:
        try:
            data = builder.as_data_source(vars(features)[split])
        except _NO_PART as e:
            raise UserError(
                f"tfds:{name}: {split} cannot be read in {data_dir} ({_line(e)}); "
                "delete what is there of it, or copy a folder prepared with file_format array_record"
            ) from e
        splits[split] = StoredPairs(data, source, target, group=None)
    if missing := [split for split in _SPLITS if split not in splits]:
        infos = [(split, list(info.shard_lengths), info.num_bytes) for split, info in builder.info.splits.items()]
        splits |= hold_out(
            splits["train"],
            missing,
            share=features.held_out,
            seed=features.seed,
            label=f"tfds:{name}: choosing pairs to hold out",
            folder=Path(data_dir),
            recipe=f"{builder.info.full_name} {source} {infos} {ranges['train']}",
        )
        held_out = " and ".join(f"{len(splits[split])} for {split}" for split in missing)
        remark(
            f"tfds:{name} has no split for {' and '.join(missing)}: out of the pairs of {features.train!r}, {held_out} "
            f"are held out; features.{missing[0]} can name another part of {', '.join(builder.info.splits)}"
        )
    return TfdsPairs(splits, source, target, is_translation)


def _ranges(name: str, infos: Mapping[str, Any], features: Features) -> dict[str, list[_Range]]:
    """The parts that are to be read, by split, without those that are to be held out; of no splits known, nothing
    but their names."""
    wanted = {split: vars(features)[split] for split in _SPLITS}
    if not infos:  # not known before the data set is prepared
        return {split: [] for split in _SPLITS}
    largest = max(infos, key=lambda split: infos[split].num_examples)
    one, two = (98, 99) if infos[largest].num_examples >= _SMALL else (80, 90)
    advice = (
        f"as in features.train='{largest}[:{one}%]', features.validation='{largest}[{one}%:{two}%]', "
        f"features.test='{largest}[{two}%:]'"
    )
    found: dict[str, list[_Range]] = {}
    for split, words in wanted.items():
        if split != "train" and words == split and words not in infos:
            continue
        try:
            parts = tfds.core.ReadInstruction.from_spec(words).to_absolute(dict(infos))
        except _NO_PART as e:
            reason = "" if words.isidentifier() else f" ({_line(e)})"
            have = ", ".join(sorted(infos))
            raise UserError(
                f"tfds:{name} has no split {words!r} for {split}{reason}; it has {have}, and parts serve, too, {advice}"
            ) from e
        sizes = {part.splitname: infos[part.splitname].num_examples for part in parts}
        found[split] = [
            _Range(part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
            for part in parts
        ]
        if not all(part.end > part.first for part in found[split]):
            counts = ", ".join(f"{of} has {size} pairs" for of, size in sizes.items())
            raise UserError(f"tfds:{name}: there is nothing in {words!r} for {split} ({counts}); give each split some")
    for split, parts in found.items():
        if any(_common(a, b) for a, b in combinations(parts, 2)):
            raise UserError(f"tfds:{name}: {wanted[split]!r} for {split} has some pairs twice; name each part once")
    for one_split, other in combinations(found, 2):
        common = sum(_common(a, b) for a in found[one_split] for b in found[other])
        if common:
            raise UserError(
                f"tfds:{name}: {wanted[one_split]!r} for {one_split} and {wanted[other]!r} for {other} have {common} "
                f"pairs in common; give parts that do not overlap, {advice}"
            )
    return found


def _common(one: _Range, other: _Range) -> int:
    return max(0, min(one.end, other.end) - max(one.first, other.first)) if one.split == other.split else 0


def _names(name: str, info: Any, features: Features) -> tuple[str, str, bool]:
    have = list(info)
    is_translation = isinstance(info, tfds.features.Translation)
    defaults = ("", "")
    if is_translation:
        # The feature has its languages in the order of the alphabet, the name in the order that is meant.
        pair = name.partition("/")[2]
        first, second = sorted(sorted(info.languages)[:2], key=pair.find)
        defaults = (first, second)
    for known in _KNOWN:
        if set(known) <= set(have):
            defaults = known
    chosen = (features.source or defaults[0], features.target or defaults[1])
    for side, feature in zip(("source", "target"), chosen, strict=True):
        if feature not in have:
            what = f"no feature {feature!r}" if feature else f"no obvious {side} feature"
            raise UserError(f"tfds:{name} has {what}; set features.{side} to one of {', '.join(have)}")
        if not isinstance(info[feature], tfds.features.Text):
            raise UserError(f"tfds:{name}: feature {feature!r} is not text; set features.{side} to one that is")
    if chosen[0] == chosen[1]:
        raise UserError(f"tfds:{name}: features.source and features.target are both {chosen[0]!r}; name two features")
    return chosen[0], chosen[1], is_translation


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
