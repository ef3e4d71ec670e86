"""Speed of greedy decoding beside transformers and CTranslate2: `python -m benchmarks.generate`.

The `small` preset's student and teacher, or two published sizes (`--t5`), with random weights, exported to the Hugging
Face layout, which the others open: the same weights, inputs and arithmetic, outputs of a fixed length. The share of
tokens that agree is reported. All of it interleaved in one process. The ratios are those of the student, which is what
`export.py` writes; the table has both. On a GPU, and in bfloat16, CTranslate2 is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.common import Dtype, Line, Run, median_seconds, need, pair, report, torch_versions
from benchmarks.other import torch_device
from kdtw_jax.data.tokenizer import Tokenizer, train_tokenizer
from kdtw_jax.decoding import generate
from kdtw_jax.models import Params, T5Config, make_model
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.named import find_model, read_teacher

BATCHES = (1, 8, 32)
EOS = 1


@dataclass(frozen=True)
class Args:
    """What to measure."""

    length: int = 32
    """tokens of a source and of an output"""
    vocabulary: int = 4000
    t5: tuple[str, ...] = ()
    """two published sizes of T5 v1.1, such as small large, in place of the small preset's"""
    dtype: Dtype = "float32"
    repeats: int = 9
    """rounds; medians are reported"""
    results: Path | None = None
    """folder for generate.json"""


def main(args: Args) -> None:
    """Prints the table, and writes generate.json if asked to."""
    started = time.time()
    need("torch", "transformers")
    others = ["transformers"]
    if torch_device() == "cpu" and args.dtype == "float32":
        need("ctranslate2")
        others.append("CTranslate2")
    tokenizer = made_up_words(args.vocabulary)
    functions: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in pair(args.t5, args.dtype, tokenizer.vocab_size).items():
            functions |= decoders(name, config, tokenizer, args.length, Path(scratch) / name, others)
        cases = list(dict.fromkeys(name.rpartition(", ")[0] for name in functions))
        agreement = {
            f"same tokens, {case}, {other}": float(
                np.mean(functions[f"{case}, here"]() == functions[f"{case}, {other}"]())
            )
            for case in cases
            for other in others
        }
        seconds = median_seconds(functions, args.repeats)
    table: list[Line] = []
    for case in cases:
        here = seconds[f"{case}, here"]
        line: Line = {"what": case, "here, ms": 1e3 * here}
        for other in others:
            theirs = seconds[f"{case}, {other}"]
            line |= {f"{other}, ms": 1e3 * theirs, f"times, {other}": theirs / here}
        table.append(line)
    faster = {line["what"]: line for line in table}
    ratios = {f"vs_transformers_b{b}": float(faster[f"student, {b}"]["times, transformers"] or 0) for b in BATCHES}
    if "CTranslate2" in others:
        ratios["vs_ctranslate2_b32"] = float(faster["student, 32"]["times, CTranslate2"] or 0)
    title = f"{args.length} tokens from {args.length}, by rows of a batch, vocabulary {tokenizer.vocab_size}"
    report("generate", title, table, ratios, agreement, args.results, started, compared_with=torch_versions())


def made_up_words(size: int) -> Tokenizer:
    """A vocabulary of that many pieces, from words of random letters."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(2 * size)]
    return train_tokenizer((" ".join(rng.choice(words, 12)) for _ in range(4 * size)), vocab_size=size)


def decoders(
    name: str, config: T5Config, tokenizer: Tokenizer, length: int, folder: Path, others: Sequence[str]
) -> dict[str, Run]:
    """Each library's greedy decoding of the same sources, by "NAME, ROWS, LIBRARY"; returns tokens [rows, length]."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    export_model(folder, config, make_model(config).init(jax.random.key(0)), tokenizer)
    saved = read_teacher(find_model(str(folder)), dtype=config.dtype)
    model, params = saved.model, jax.tree.map(jnp.asarray, saved.params)
    opened = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=getattr(torch, config.dtype))
    opened = opened.eval().to(torch_device())
    if "CTranslate2" in others:
        import ctranslate2
        from ctranslate2.converters import TransformersConverter

        converted = TransformersConverter(str(folder)).convert(str(folder.with_suffix(".ct2")))
        translator = ctranslate2.Translator(converted, device="cpu", inter_threads=1, compute_type="float32")
    pieces = tokenizer.pieces
    number = {piece: i for i, piece in enumerate(pieces)}
    banned = (EOS, *(b for b in tokenizer.banned_ids if b != EOS))  # without an end, every output has its full length
    never = [[pieces[b]] for b in banned]
    found: dict[str, Run] = {}

    @jax.jit
    def ours(params: Params, source: jax.Array) -> jax.Array:
        return generate(model, params, source, None, max_len=length, banned=banned).tokens_BxT

    for rows in BATCHES:
        source = np.random.default_rng(rows).integers(4, tokenizer.vocab_size, (rows, length)).astype(np.int32)
        own, theirs = jnp.asarray(source), torch.from_numpy(source.astype(np.int64)).to(torch_device())
        texts = [[pieces[i] for i in row] for row in source]

        def here(source: jax.Array = own) -> np.ndarray:
            return np.asarray(ours(params, source))

        def by_transformers(source: Any = theirs) -> np.ndarray:
            how = {"do_sample": False, "num_beams": 1, "min_new_tokens": length, "max_new_tokens": length}
            tokens = opened.generate(source, attention_mask=torch.ones_like(source), **how)
            return np.asarray(tokens[:, 1:].cpu())

        def by_ctranslate2(texts: Sequence[Sequence[str]] = texts) -> np.ndarray:
            how = {"beam_size": 1, "min_decoding_length": length, "max_decoding_length": length}
            written = translator.translate_batch(texts, suppress_sequences=never, max_batch_size=0, **how)
            return np.asarray([[number[piece] for piece in one.hypotheses[0]] for one in written])

        runs: dict[str, Run] = {"here": here, "transformers": by_transformers, "CTranslate2": by_ctranslate2}
        found |= {f"{name}, {rows}, {who}": runs[who] for who in ("here", *others)}
    return found


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
