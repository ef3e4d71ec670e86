"""A user's own text: parallel files (line by line) or JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from kdtw_jax.data.json_texts import is_json, json_texts
from kdtw_jax.data.lines import lines_of_file
from kdtw_jax.data.overlap import caseless
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.remarks import remark
from kdtw_jax.data.splits import PairSplits, held_out_share
from kdtw_jax.errors import UserError
from kdtw_jax.text.normal import is_blank


@dataclass(frozen=True)
class FileSpec:
    """Where the texts are.

    A `*_source` ending in .jsonl, .jl, .ndjson or .json has both sides; else `*_target` has as many lines. All of them
    may be packed by gzip, bzip2, xz or lzma. Without validation or test files a share of the training pairs is held
    out, chosen by `seed`.

    Raises:
      UserError: the share, the two keys or the instruction are none that can be used.
    """

    train_source: Path | None = None
    """training sources, one a line, or JSON lines with both sides"""
    train_target: Path | None = None
    """training targets, as many lines"""
    validation_source: Path | None = None
    validation_target: Path | None = None
    test_source: Path | None = None
    test_target: Path | None = None
    source_key: str = "source"
    """key of the source in JSON lines"""
    target_key: str = "target"
    """key of the target in JSON lines"""
    held_out: float = 0.05
    """share of the distinct training sources for each of validation and test that has no file of its own"""
    seed: int = 0
    instruction: str = "{source}"
    """put before the source when the task's instruction is asked for; has {source} in it"""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 0.5:
            raise UserError(f"text.files.held_out must be above 0 and below 0.5, got {self.held_out}")
        if self.source_key == self.target_key:
            raise UserError(f"text.files.source_key and target_key are both {self.source_key!r}; name two keys")
        if self.instruction.count("{source}") != 1:
            raise UserError(f"text.files.instruction must have {{source}} in it once, got {self.instruction!r}")


def file_pairs(spec: FileSpec) -> PairSplits:
    """The pairs of the files, in their order. What validation and test share with other files is said.

    Raises:
      UserError: naming file and line: a file that is missing, empty or not UTF-8, an empty line, one side
        shorter than the other, a line that is no JSON object or lacks a text; or no training file named, or one for
        validation or test whose pairs are all in another, or whose sources are the same.
    """
    if spec.train_source is None:
        raise UserError("files: train_source is not given; name a text file or a .jsonl file of pairs")
    splits: dict[str, list[Pair]] = {}
    for split, source, target in (
        ("train", spec.train_source, spec.train_target),
        ("validation", spec.validation_source, spec.validation_target),
        ("test", spec.test_source, spec.test_target),
    ):
        if source is not None:
            splits[split] = _read_pairs(source, target, spec)
            if all(pair["source"] == pair["target"] for pair in splits[split]):
                remark(f"files: every target in {target or source} for {split} is its source: a student learns to copy")
        elif target is not None:
            raise UserError(f"files: {split}_target is given but {split}_source is not; give both sides")
    _refuse_same(spec, splits)
    return held_out_share(splits, share=spec.held_out, seed=spec.seed)


def _refuse_same(spec: FileSpec, splits: Mapping[str, list[Pair]]) -> None:
    """Sees to it that files of different splits have different texts; says what sources they have in common."""
    path_of = {split: vars(spec)[f"{split}_source"] for split in ("train", "validation", "test")}
    texts_of = {
        split: [(caseless(pair["source"]), caseless(pair["target"])) for pair in pairs]
        for split, pairs in (splits.items() if len(splits) > 1 else ())
    }
    for other, split in combinations(texts_of, 2):
        texts, known = texts_of[split], set(texts_of[other])
        sources, known_sources = [source for source, _ in texts], {source for source, _ in known}
        pairs_found = sum(text in known for text in texts)
        if pairs_found == len(texts) or sources == [source for source, _ in texts_of[other]]:
            raise UserError(
                f"files: {path_of[split]} for {split} has no texts but those that {path_of[other]} for {other} has; "
                "name another file, or none, and a share of the training pairs is held out"
            )
        if found := sum(source in known_sources for source in sources):
            remark(
                f"files: {found} of the {len(texts)} sources in {path_of[split]} for {split} are {other} sources, "
                f"too, {pairs_found} of them with the same target: scores on these are no test"
            )


def _read_pairs(source: Path, target: Path | None, spec: FileSpec) -> list[Pair]:
    if is_json(source):
        if target is not None:
            raise UserError(f"{source}: a file of JSON has both sides; leave out {target}")
        texts = json_texts(source, (spec.source_key, spec.target_key))
        return [Pair(source=one, target=other, group="") for one, other in texts]
    if target is None:
        lines_of_file(source)  # what is wrong with it comes first
        raise UserError(f"{source}: the file with its targets is not given; name it, or use a .jsonl file")
    if source == target or (source.exists() and target.exists() and source.samefile(target)):
        raise UserError(f"{source}: named as source and as target; name the file with its targets")
    if is_json(target):
        raise UserError(f"{target}: a file of JSON has both sides; name it as the source alone, or a text file here")
    lines, others = _texts(source), _texts(target)
    if len(lines) != len(others):
        raise UserError(f"{source} has {len(lines)} lines but {target} has {len(others)}; parallel files have as many")
    return [Pair(source=one, target=other, group="") for one, other in zip(lines, others, strict=True)]


def _texts(path: Path) -> list[str]:
    """The lines, none of them empty."""
    lines = lines_of_file(path)
    for number, line in enumerate(lines, 1):
        if is_blank(line):
            raise UserError(f"{path} line {number}: the line is empty; remove it (on both sides) or fill it")
    return lines
