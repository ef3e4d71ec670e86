"""The README.md of an exported model: what it is, what it was trained on and how, what it is worth, what it lacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdtw_jax.constraints import known_constraints
from kdtw_jax.constraints.wording import phrase
from kdtw_jax.methods import METHODS
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs.atomic import read_json

_SHOWN_RULES = 3
_ROLES = {
    "teacher": "the teacher of a run: maximum likelihood",
    "warmup": "the start of a run's students, before any method",
}
_REST = """
## Use

```python
from transformers import {loader}, AutoTokenizer

model, tokenizer = {loader}.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```

## Licence and limits

No licence comes with these weights from the code that made them: what you may do with them follows from the licences of
the data above and of the models it was started and taught from. State yours here before you publish.

It writes texts like those of its training data, of at most {max_source} pieces in and {max_target} out, and has been
judged on nothing else. It can be wrong and does not say so.
"""
_ASKS = """\
In its run it asks its teacher under rules in words. Its gate has no place in this layout: these files write alone. It
was trained for rules such as
"""


class _Kind(NamedTuple):
    """How a family is called, what hubs call its use, and what opens it."""

    name: str
    use: str
    loader: str


_KINDS = {
    "t5": _Kind("T5", "text2text-generation", "AutoModelForSeq2SeqLM"),
    "causal": _Kind("decoder-only", "text-generation", "AutoModelForCausalLM"),
}


def model_card(run: Path, method: str, seed: int, *, parameters: int, dtype: str, family: str = "t5") -> str:
    """The card of a model of a run, in Markdown with the front matter that model hubs read.

    Args:
      run: the folder of a run that has been evaluated, or has not: then there are no scores.
      method: the student's, or "teacher" or "warmup".
      parameters: how many are in the file.
      dtype: of these.
      family: of the model.

    Raises:
      UserError: as `restore` does.
    """
    task, config = restore(run)
    found = read_json(run / "results.json", "") if (run / "results.json").exists() else {}
    data, language = found.get("data", {}), found.get("data", {}).get("language", "")
    how = METHODS[method].describe if method in METHODS else _ROLES[method]
    teacher = config.teacher_model or f"trained in the same run ({config.teacher.d_model} wide)"
    kind = _KINDS.get(family, _KINDS["t5"])
    front = ["library_name: transformers", f"pipeline_tag: {kind.use}", "license: other"]
    front += [f"language: {language}"] if language else []
    front += ["tags:", *(f"- {tag}" for tag in ("kdtw_jax", family, "knowledge-distillation", task, method))]
    pairs = f" ({data['train_pairs']:,} training pairs)" if "train_pairs" in data else ""
    facts = {
        "architecture": f"{kind.name}, {parameters / 1e6:.2f} M parameters, weights in {dtype}",
        "task": task,
        "data": f"{config.data}{pairs}",
        "trained as": how,
        "teacher": "" if method == "teacher" else teacher,
        "started from": "" if method in ("teacher", "warmup") else _start(config),
        "seed": str(seed),
        "commit of the code": str(found.get("commit") or "not recorded"),
        "command": f"`{shlex.join(found['command'])}`" if "command" in found else "not recorded",
    }
    lines = ["---", *front, "---", "", f"# {method} of {task} on {config.data}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items() if value]
    lines += ["", "## Scores", "", *_scores(found, method, seed)]
    lines += ["", "## Asking for help", "", *_rules(config, method)]
    rest = _REST.format(loader=kind.loader, max_source=config.text.max_source, max_target=config.text.max_target)
    return "\n".join([*lines, rest])


def _start(config: Experiment) -> str:
    if config.student_from_teacher:
        return f"{config.student_from_teacher} layers of the teacher"
    return config.student_model or "a warm-up by likelihood"


def _scores(found: Mapping[str, Any], method: str, seed: int) -> list[str]:
    def rows(of: str, seeds: tuple[int, ...]) -> dict[str, Mapping[str, Any]]:
        own = [row for row in found.get("rows", ()) if row["method"] == of and row["seed"] in seeds]
        return {row["metric"]: row for row in own if row["metric"] in found["signatures"]}

    own = rows(method, (seed,))
    if not own:
        return ["It has not been evaluated."]
    every = tuple(row["seed"] for row in found["rows"])
    teacher = rows("teacher", every) if method != "teacher" else {}
    pairs = found.get("data", {}).get("test_pairs")
    split = found.get("config", {}).get("eval", {}).get("split", "test")
    head = f"Greedy outputs for {pairs} {split} pairs, with 95% bootstrap intervals over them."
    lines = [
        head,
        "",
        f"| metric | this model |{' its teacher |' if teacher else ''}",
        f"|---|---|{'---|' if teacher else ''}",
    ]
    for name, row in own.items():
        last = f" {_value(teacher[name])} |" if name in teacher else " |" if teacher else ""
        lines.append(f"| {name} | {_value(row)} |{last}")
    return [*lines, "", *(f"- {name}: {signature}" for name, signature in found.get("signatures", {}).items())]


def _value(row: Mapping[str, Any]) -> str:
    return (
        f"{row['value']:.1f} ({row['low']:.1f} to {row['high']:.1f})"
        if row["low"] is not None
        else f"{row['value']:.1f}"
    )


def _rules(config: Any, method: str) -> list[str]:
    if method != "ask":
        return ["It does not ask: it has no gate."]
    known = known_constraints(config.of("ask").constraints, config.teacher)
    lines = [_ASKS]
    for rule in known:
        number = 0.5 * (rule.low + rule.high)
        lines += [f"- {phrase(rule.wording, number, template)}" for template in rule.wording.templates[:_SHOWN_RULES]]
    return lines
