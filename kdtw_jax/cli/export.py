"""Write a trained model of a run in the Hugging Face layout: model.safetensors, config.json, the vocabulary.

    kdtw export runs/quickstart --method pcl --seed 0 --out exported/pcl

`transformers` opens it with AutoModelForSeq2SeqLM.from_pretrained (AutoModelForCausalLM where it is decoder-only) and
generates the same tokens; --teacher-model and --student-model open it here. Value and gate have no place in that
layout: what is written does not ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.errors import UserError
from kdtw_jax.models import count_params, family_of
from kdtw_jax.pipeline.card import model_card
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.training.saved import load_model


@dataclass(frozen=True)
class Export:
    """Options of `kdtw export`."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    out: Path
    """a folder to make"""
    method: str = "pcl"
    """the student of this method, the start of all students, or the teacher"""
    seed: int = 0
    """the student of this seed"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the weights in the file"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw export`.

    Raises:
      UserError: the run has no such model, and as `export_model` does.
    """
    options = tyro.cli(Export, prog="kdtw export", description=__doc__, args=arguments)
    load_extensions()
    stage = "teacher" if options.method == "teacher" else f"seed{options.seed}/{options.method}"
    if not (options.run / "config.json").exists():
        raise UserError(f"{options.run} is not a run's folder; give one that kdtw train has made")
    if not (options.run / "stages" / f"{stage}.json").exists():
        raise UserError(f"{options.run} has no finished {stage}; see which are in {options.run / 'stages'}")
    model, params, tokenizer = load_model(options.run / stage / "model")
    left = [name for name in ("value", "gate") if name in params]
    written = count_params(params) - count_params([params[name] for name in left])
    family = family_of(model.config).name
    card = model_card(options.run, options.method, options.seed, parameters=written, dtype=options.dtype, family=family)
    export_model(options.out, model.config, params, tokenizer, dtype=options.dtype, card=card)
    print(f"{options.out}: {written:,} parameters; left out: {', '.join(left) or 'nothing'}")
    print(f"{options.out / 'README.md'} describes the model; state a licence there before you publish it")
