"""A student whose teacher is llama.cpp's server: `python -m benchmarks.serve_llama RUN --server PROGRAM --model FILE`.

For each rule the same held-out texts are written by the student here and the teacher in another process of the same
machine, with which it shares the cores: quality, nearness to what the teacher writes, seconds, calls and the teacher's
share. First the teacher writes alone; without a rule the student does. The student has to be trained for more than the
cut of `experiments/smollm.py`: outputs of one or two words leave no call to a rule by shares.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.llama_cpp import cores, serving
from kdtw_jax.metrics.scores import score_all
from kdtw_jax.pipeline.prepare import look_up
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import keep_compiled, provenance, write_json
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.in_order import write_in_order
from kdtw_jax.student import Student, load
from kdtw_jax.teachers.named import open_teacher
from kdtw_jax.teachers.protocol import Prefix

METRICS = ("rougeL", "chrf")


@dataclass(frozen=True)
class Args:
    """What to write with."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run whose student asks, of the vocabulary of the model"""
    server: Path
    """the program llama-server"""
    model: Path
    """a GGUF file"""
    texts: int = 100
    """of the run's test split"""
    shares: tuple[int, ...] = (0, 10, 20, 50)
    """of the words that the teacher may write, in percent"""
    gate_offset: float = 0.0
    """nats that are added to what the student's gate expects a call to save: a gate of a few steps' training does not
    ask, and what calls cost is seen all the same; quality by share is then that of asking at no chosen place"""
    rows: int = 8
    """texts that are written side by side"""
    threads: int = 1
    """of the server"""
    slots: int = 4
    """of the server, which share its context"""
    results: Path | None = None
    """folder for llama_cpp.json"""


def main(args: Args) -> None:
    """Runs it, and prints what came out; writes it if asked to."""
    started = time.time()
    keep_compiled()
    _, config = restore(args.run)
    whole = replace(config, results=None, eval=replace(config.eval, limit=0))
    pairs = list(look_up(whole).task.splits["test"])[: args.texts]
    sources, references = [pair["source"] for pair in pairs], [pair["target"] for pair in pairs]
    student = _offset(load(args.run, "ask", with_teacher=False), args.gate_offset)
    tokenizer, rows = student.model.tokenizer, list[dict[str, Any]]()

    def row(name: str, texts: list[str], seconds: float, **more: Any) -> None:
        quality = {score.name: round(score.value, 2) for score in score_all(METRICS, texts, references)}
        near = {f"{score.name}_to_teacher": round(score.value, 2) for score in score_all(METRICS, texts, taught)}
        rows.append({"writer": name, **quality, **near, "seconds": round(seconds, 1), **more})
        print(rows[-1], file=sys.stderr, flush=True)

    how = {"slots": args.slots, "context": 256, "threads": args.threads}
    with contextlib.ExitStack() as stack:
        address = f"llama.cpp+http://{stack.enter_context(serving(args.server, args.model, **how))}"
        teacher = stack.enter_context(closing(open_teacher(address, tokenizer=tokenizer)))
        begun = time.monotonic()
        prompts = [Prefix(tuple(student.encode(text)[0])) for text in sources]
        written = teacher.generate(prompts, student.max_target, tokenizer.banned_ids)
        took = time.monotonic() - begun
        taught = [tokenizer.decode(ids) for ids in written]
        row("teacher alone", taught, took, calls=0, share=1.0, tokens=sum(map(len, written)), degraded=0)
        with closing(Engine(student, rows=args.rows, queue=2 * args.rows, teacher=teacher, patience=120.0)) as engine:
            for rule in (None, "ask the teacher for at most 20% of the words"):  # for the compiler
                list(write_in_order(engine, sources[:2], rule))
            for share in args.shares:
                rule = f"ask the teacher for at most {share}% of the words" if share else None
                begun = time.monotonic()
                done = list(write_in_order(engine, sources, rule, account="auto"))  # as kdtw write has it
                took = time.monotonic() - begun
                found = [one.answer for one in done]
                length = max(sum(answer.length for answer in found), 1)
                row(
                    f"student, at most {share}%",
                    [answer.text for answer in found],
                    took,
                    calls=sum(answer.calls for answer in found),
                    share=round(sum(answer.helped for answer in found) / length, 4),
                    tokens=sum(len(answer.tokens) for answer in found),
                    degraded=sum(one.degraded for one in done),
                )
    report = {
        "texts": len(sources),
        "most_tokens": student.max_target,
        "model": args.model.name,
        "gate_offset": args.gate_offset,
        "cores": cores(),
        "load_of_others": round(os.getloadavg()[0], 1),
        "rows": rows,
    }
    print(json.dumps(report, indent=2))
    if args.results is not None:
        command = ["python", "-m", "benchmarks.serve_llama", *sys.argv[1:]]
        write_json(args.results / "llama_cpp.json", {**report, "provenance": provenance(command, 0, started)})


def _offset(student: Student, nats: float) -> Student:
    """The same student with a gate that expects so much more of a call."""
    gate = student.model.params["gate"]
    out = {**gate["saving_out"], "bias": gate["saving_out"]["bias"] + nats}
    params = {**student.model.params, "gate": {**gate, "saving_out": out}}
    return replace(student, model=student.model._replace(params=params))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
