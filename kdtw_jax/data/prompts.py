"""Sources without targets, which a teacher can answer: from a file or a task's own, none of them held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from kdtw_jax.data.json_texts import is_json, json_texts
from kdtw_jax.data.lines import lines_of_file
from kdtw_jax.data.overlap import caseless, near_duplicates, normalised
from kdtw_jax.data.pair import Pair, Source
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.errors import UserError
from kdtw_jax.text.normal import is_blank

# What --prompts can be beside a file; "rest": the sources of training pairs that the teacher has and students have not.
NONE, OWN, REST = "none", "own", "rest"
RECIPE = "prompts 1"  # to be changed with every change of what `clean_prompts` keeps


def read_prompts(path: Path, key: str) -> list[str]:
    """The texts of a file: its lines, but for empty ones; or, of a file of JSON, what its objects have under `key`.

    Raises:
      UserError: as `lines_of_file` and `json_texts` do.
    """
    if is_json(path):
        return [text for (text,) in json_texts(path, (key,))]
    return [line for line in lines_of_file(path) if not is_blank(line)]


def clean_prompts(
    texts: Iterable[str], splits: Mapping[str, Source], *, what: str, fold_digits: bool = False
) -> PairSplits:
    """Takes what is no held-out source, nor near to one, nor a training source, each text once, in order.

    The one split of what comes back is "prompts", with empty targets; the notes count what was left out.

    Args:
      texts: the candidates.
      splits: of the task, whole; those but "train" are held out.
      what: in messages, where the texts are from.
      fold_digits: whether texts that differ in numbers alone are the same.

    Raises:
      UserError: none is left.
    """
    form = normalised if fold_digits else caseless
    held_out = [pair["source"] for split, pairs in splits.items() if split != "train" for pair in pairs]
    same, known = {form(source) for source in held_out}, {form(pair["source"]) for pair in splits["train"]}
    new: dict[str, str] = {}
    left_out = Counter[str](prompts_held_out=0, prompts_near_held_out=0, prompts_in_train=0, prompts_repeated=0)
    for text in texts:
        key = form(text)
        if key in same:
            left_out["prompts_held_out"] += 1
        elif key in known:
            left_out["prompts_in_train"] += 1
        elif key in new:
            left_out["prompts_repeated"] += 1
        else:
            new[key] = text
    kept = list(new.values())
    # Neither may have much of the other: a prompt that is part of a held-out text is as near as one that has it.
    for whole in ("others", "texts"):
        near = near_duplicates(kept, held_out, whole=whole, fold_digits=fold_digits)
        left_out["prompts_near_held_out"] += sum(near)
        kept = [text for text, is_near in zip(kept, near, strict=True) if not is_near]
    if not kept:
        counts = ", ".join(f"{name.removeprefix('prompts_')} {count}" for name, count in left_out.items())
        raise UserError(f"{what}: no prompt is left ({counts}); give texts that the task does not have")
    notes: dict[str, float] = {"prompts": len(kept), **left_out}
    return PairSplits({"prompts": [Pair(source=text, target="", group="") for text in kept]}, notes)
