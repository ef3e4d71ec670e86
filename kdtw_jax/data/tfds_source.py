"""Text-pair data sets of tensorflow-datasets, read as array_record files without TensorFlow."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from kdtw_jax.data.pair import Source
from kdtw_jax.data.store import StoredPairs
from kdtw_jax.errors import UserError

_KNOWN = (("document", "summary"), ("article", "highlights"))


@dataclass(frozen=True)
class Features:
    """Names of the features and splits to read; what is left empty follows from the data set."""

    source: str = ""
    """feature to read; by default the first language of a translation, or `document` or `article`"""
    target: str = ""
    """feature to write; by default the second language, or `summary` or `highlights`"""
    train: str = "train"
    validation: str = "validation"
    test: str = "test"


@dataclass(frozen=True)
class TfdsPairs:
    """Splits of a data set and what its texts are."""

    splits: dict[str, Source]
    source: str
    target: str
    is_translation: bool


def tfds_pairs(name: str, features: Features, data_dir: Path) -> TfdsPairs:
    """Reads `name` ("wmt14_translate/de-en", "xsum"), downloading and preparing it first if need be.

    Raises:
      UserError: no such data set, split or feature (the message lists what there is), or it cannot be had.
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
    try:
        tfds.enable_progress_bar()
        builder.download_and_prepare()
    except Exception as e:  # whatever its sources, readers and the network raise
        raise UserError(
            f"tfds:{name}: cannot be prepared in {data_dir} ({_line(e)}); "
            "check the network, or copy a folder prepared elsewhere with file_format array_record"
        ) from e
    splits: dict[str, Source] = {}
    for split in ("train", "validation", "test"):
        wanted = vars(features)[split]
        try:
            data = builder.as_data_source(wanted)
        except (ValueError, KeyError) as e:
            have = ", ".join(sorted(builder.info.splits))
            raise UserError(
                f"tfds:{name} has no split {wanted!r} for {split}; it has {have}, "
                f"and a part of one serves too, as in features.{split}='train[99%:]'"
            ) from e
        splits[split] = StoredPairs(data, source, target, group=None)
    return TfdsPairs(splits, source, target, is_translation)


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
    return chosen[0], chosen[1], is_translation


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
