"""A user's own text: parallel files (line by line) or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import PairSplits, held_out_share
from kdtw_jax.errors import UserError


@dataclass(frozen=True)
class FileSpec:
    """Where the texts are. A `*_source` ending in .jsonl has both sides; else `*_target` has as many lines.

    Without validation or test files a share of the training pairs is held out, chosen by `seed`.
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
    """share of the training pairs for each of validation and test that has no file of its own"""
    seed: int = 0
    instruction: str = "{source}"
    """put before the source when the task's instruction is asked for; has {source} in it"""
    metrics: tuple[str, ...] = ("bleu", "chrf")
    """what to report, of bleu, chrf, rouge1, rouge2, rougeL, exact_match"""


def file_pairs(spec: FileSpec) -> PairSplits:
    """The pairs of the files, in their order.

    Raises:
      UserError: naming file and line: a file that is missing, empty or not UTF-8, an empty line, one side
        shorter than the other, a line that is no JSON object or lacks a text; or no training file named.
    """
    if spec.train_source is None:
        raise UserError("files: train_source is not given; name a text file or a .jsonl file of pairs")
    if not 0 < spec.held_out < 0.5:
        raise UserError(f"files: held_out must be above 0 and below 0.5, got {spec.held_out}")
    splits: dict[str, list[Pair]] = {}
    for split, source, target in (
        ("train", spec.train_source, spec.train_target),
        ("validation", spec.validation_source, spec.validation_target),
        ("test", spec.test_source, spec.test_target),
    ):
        if source is not None:
            splits[split] = _read_pairs(source, target, spec)
        elif target is not None:
            raise UserError(f"files: {split}_target is given but {split}_source is not; give both sides")
    return held_out_share(splits, share=spec.held_out, seed=spec.seed)


def _read_pairs(source: Path, target: Path | None, spec: FileSpec) -> list[Pair]:
    if source.suffix == ".jsonl":
        if target is not None:
            raise UserError(f"{source}: a .jsonl file has both sides; leave out {target}")
        keys = (spec.source_key, spec.target_key)
        return [_from_json(line, f"{source} line {n}", keys) for n, line in enumerate(_lines(source), 1)]
    if target is None:
        raise UserError(f"{source}: the file with its targets is not given; name it, or use a .jsonl file")
    lines, others = list(_lines(source)), list(_lines(target))
    if len(lines) != len(others):
        raise UserError(f"{source} has {len(lines)} lines but {target} has {len(others)}; parallel files have as many")
    return [Pair(source=one, target=other, group="") for one, other in zip(lines, others, strict=True)]


def _lines(path: Path) -> Iterator[str]:
    """Lines without the surrounding white space, none of them empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; name one that exists") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); name a readable file") from e
    if not data.strip():
        raise UserError(f"{path}: the file is empty; it needs one text a line")
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as e:
            raise UserError(
                f"{path} line {number}: byte {e.start + 1} is not valid UTF-8; convert the file to UTF-8"
            ) from None
        if not line:
            raise UserError(f"{path} line {number}: the line is empty; remove it (on both sides) or fill it")
        yield line


def _from_json(line: str, where: str, keys: tuple[str, str]) -> Pair:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as e:
        raise UserError(f"{where}: not valid JSON ({e.msg} at column {e.colno}); write one object a line") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: not a JSON object; write one object with the keys {keys[0]} and {keys[1]} a line")
    for key in keys:
        if not isinstance(record.get(key), str) or not record[key].strip():
            have = ", ".join(map(str, record)) or "no keys"
            raise UserError(f"{where}: {key!r} must be a text that is not empty; the object has {have}")
    return Pair(source=record[keys[0]].strip(), target=record[keys[1]].strip(), group="")
