"""Speed of on-policy distillation beside TRL: `python -m benchmarks.distil`.

Steps of generalised knowledge distillation (GKD) wholly on the student's own outputs: writing them, both models'
distributions, the Jensen-Shannon divergence, gradient, clipping, Adam. Theirs is `trl.experimental.gkd.GKDTrainer`, run
by its own `train()`; ours is a step of the method gkd, and an update of the method pcl with its share of collecting
fresh rows. TRL takes decoder-only models: ours are the `small` preset's T5, theirs Llamas as wide and with as many
layers as encoder and decoder together, which read the source as a prompt. So theirs make logits of prompts too, ours
have cross-attention. Outputs have their full length; random weights. One process, our steps between theirs.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import Line, Run, need, report, torch_versions
from benchmarks.train_step import stepper
from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.methods.gkd import divergence_loss
from kdtw_jax.methods.path_terms import coefficients, path_loss
from kdtw_jax.models import Model, Params, count_params, make_model
from kdtw_jax.pipeline.presets import SMALL
from kdtw_jax.replay import Sample
from kdtw_jax.runs import Progress
from kdtw_jax.training.collect import Collector
from kdtw_jax.training.fresh import Sampler, TeacherForward
from kdtw_jax.training.scoring import score_paths
from kdtw_jax.training.state import init_state, make_optimizer, make_update

BANNED = (0, 1, 2, 3)  # the end of sequence too: outputs have their full length


@dataclass(frozen=True)
class Args:
    """What to measure."""

    rows: int = 32
    """rows of a batch"""
    length: int = 32
    """tokens of a source and of an output"""
    vocabulary: int = 4000
    repeats: int = 15
    """rounds after two to warm up; medians are reported"""
    results: Path | None = None
    """folder for distil.json"""


def main(args: Args) -> None:
    """Prints the table, and writes distil.json if asked to."""
    started = time.time()
    need("torch", "transformers", "trl")
    plain: dict[str, Any] = {"vocab_size": args.vocabulary, "dropout_rate": 0.0, "value_heads": True}
    configs = [dataclasses.replace(config, **plain) for config in (SMALL.student, SMALL.teacher)]
    (student, own), (teacher, other) = [(m, m.init(jax.random.key(0))) for m in map(make_model, configs)]
    rng = np.random.default_rng(0)
    source, target = (rng.integers(4, args.vocabulary, (args.rows, args.length)).astype(np.int32) for _ in range(2))
    batch = Batch(np.arange(args.rows, dtype=np.int32), source, target)
    ours = {"gkd": gkd_step((student, own), (teacher, other), batch)}
    ours |= pcl_steps((student, own), (teacher, other), batch)
    times: dict[str, list[float]] = {name: [] for name in (*ours, "trl")}

    def round_of_ours() -> None:
        for name, run in ours.items():
            begun = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - begun)

    sizes = trl_steps(args, configs, batch, times["trl"], round_of_ours)
    ms = {name: 1e3 * float(np.median(values[2:])) for name, values in times.items()}
    ms["pcl"] = ms["update"] + ms["collect"] / SMALL.of("pcl").updates_per_rollout
    what = {
        "trl": "TRL's GKD, a step",
        "gkd": "GKD here, a step",
        "pcl": "PCL here, an update with its share of collecting",
        "update": "of which: the update on replayed rows",
        "collect": "and every fourth time: rollouts, the teacher's samples, scoring",
    }
    table: list[Line] = [
        {"what": words, "ms": ms[name], "times faster": ms["trl"] / ms[name]} for name, words in what.items()
    ]
    numbers: dict[str, Any] = {
        "vs_trl_by_pcl": ms["trl"] / ms["pcl"],
        "updates_per_rollout": SMALL.of("pcl").updates_per_rollout,
    }
    numbers |= {f"parameters, {name}": size for name, size in sizes.items()}
    numbers |= {"parameters, student": count_params(own), "parameters, teacher": count_params(other)}
    title = f"{args.rows} rows of {args.length} + {args.length} tokens, vocabulary {args.vocabulary}"
    ratios = {"vs_trl": ms["trl"] / ms["gkd"]}
    report("distil", title, table, ratios, numbers, args.results, started, compared_with=torch_versions())


def gkd_step(student: tuple[Model, Params], teacher: tuple[Model, Params], batch: Batch) -> Run:
    """A step of the method gkd whose outputs are the student's own."""
    devices = parallel.select_devices(1)
    write, listen = Sampler(student[0], BANNED, devices), TeacherForward(teacher, devices)
    optimizer = make_optimizer(SMALL.training.optimizer, 1000, student[0].role)
    loss = divergence_loss(student[0], teacher[0], SMALL.of("gkd"), BANNED)
    update = parallel.data_parallel(make_update(loss, {"jsd": 1.0}, optimizer), devices, donate=(0,))
    state = parallel.replicate(init_state(student[1], optimizer, 0), devices)
    keys = iter(jax.random.split(jax.random.key(1), 10_000))

    def run() -> Any:
        nonlocal state
        rows = parallel.shard(batch, devices)
        rows = rows._replace(target_BxT=write(state.params, batch, next(keys)))
        state, metrics = update(state, (rows, listen(rows.source_BxS, rows.target_BxT)))
        return metrics

    return run


def pcl_steps(student: tuple[Model, Params], teacher: tuple[Model, Params], batch: Batch) -> dict[str, Run]:
    """An update of the method pcl on replayed rows, and the collection that comes before some of them."""
    devices, config = parallel.select_devices(1), SMALL.of("pcl")
    rows = score_paths(*teacher, *map(jnp.asarray, batch), top_k=config.top_k, banned=BANNED)
    sample = Sample(rows, jnp.zeros(len(batch.example_B), jnp.int32))
    loss = path_loss(student[0], config, BANNED)
    fresh = Collector(student[0], teacher, config, BANNED, devices)
    params = parallel.replicate(student[1], devices)
    key_data = jax.random.key_data(jax.random.key(0, impl="rbg"))

    def collect() -> Any:
        return fresh(params, batch, key_data, 0), [fresh.scored(batch) for _ in range(config.reference_batches - 1)]

    return {"update": stepper(loss, coefficients(config), student, sample, devices), "collect": collect}


def trl_steps(
    args: Args, configs: list[Any], batch: Batch, seconds: list[float], between: Callable[[], None]
) -> dict[str, int]:
    """Runs TRL's trainer, its steps timed into `seconds`, with `between` after each; returns numbers of parameters."""
    import torch
    from transformers import TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    from benchmarks.other import torch_llama, word_tokenizer

    logging.disable(logging.WARNING)
    student, teacher = (torch_llama(config, 2 * args.length) for config in configs)
    prompts, outputs = (torch.from_numpy(np.asarray(x, np.int64)) for x in (batch.source_BxS, batch.target_BxT))

    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        index = torch.tensor([row["index"] for row in rows])
        prompt, output = prompts[index], outputs[index]
        whole = torch.cat([prompt, output], dim=1)
        labels = torch.cat([torch.full_like(prompt, -100), output], dim=1)
        ones = {"attention_mask": torch.ones_like(whole), "prompt_attention_mask": torch.ones_like(prompt)}
        return {"input_ids": whole, "labels": labels, "prompts": prompt, **ones}

    class Clock(TrainerCallback):
        """Times what lies between the beginning and the end of a step."""

        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.begun)
            between()
            bar.update(len(seconds))

    from datasets import Dataset

    with tempfile.TemporaryDirectory() as folder, Progress("rounds", total=args.repeats + 2) as bar:
        settings = GKDConfig(
            output_dir=folder,
            lmbda=1.0,  # always the student's own outputs
            beta=SMALL.of("gkd").beta,
            temperature=1.0,
            max_new_tokens=args.length,
            per_device_train_batch_size=args.rows,
            max_steps=args.repeats + 2,
            learning_rate=1e-4,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
        )
        trainer = GKDTrainer(
            model=student,
            teacher_model=teacher,
            args=settings,
            data_collator=collate,
            train_dataset=Dataset.from_dict({"index": [i % args.rows for i in range(args.rows * (args.repeats + 2))]}),
            processing_class=word_tokenizer(args.vocabulary),
            callbacks=[Clock()],
        )
        trainer.train()
    return {
        f"{name}, TRL": sum(p.numel() for p in m.parameters())
        for name, m in (("student", student), ("teacher", teacher))
    }


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
