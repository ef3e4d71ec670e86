"""What `transformers` makes of the tiny published folders: the arrays that parity is measured against.

    python tests/reference.py   # writes them to tests/golden/, for those who have no torch

Outputs alone are kept: weights are drawn again from their seed (`published.tensors`).
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SOURCES, LENGTH, BEAMS = 6, 19, 3  # beyond the last bucket of positions
KEPT = 2  # rows of states and logits in the golden files
Arrays = dict[str, np.ndarray]


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Padded sources and decoder inputs, ids of pieces; the first input is the start token."""
    drawn = np.random.RandomState(1)
    source_BxS = drawn.randint(3, 40, (SOURCES, LENGTH)).astype(np.int32)
    for row, length in enumerate((LENGTH, 4, 9, 1, 15, 7)):
        source_BxS[row, length - 1] = 1
        source_BxS[row, length:] = 0
    inputs_BxT = drawn.randint(3, 40, (SOURCES, LENGTH)).astype(np.int32)
    inputs_BxT[:, 0] = 0
    return source_BxS, inputs_BxT


def open_with_transformers(folder: Path) -> Any:
    """The model in float32. The network is never asked."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    assert AutoConfig.from_pretrained(folder).model_type in ("t5", "mt5")
    return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def run_transformers(folder: Path, banned: tuple[int, ...] | None) -> Arrays:
    """Encoder states, logits, greedy and beam outputs; `banned` as None leaves that to the folder's generation
    config."""
    import torch

    model = open_with_transformers(folder)
    source, inputs = (torch.from_numpy(x.astype(np.int64)) for x in batch())
    given = {"input_ids": source, "attention_mask": (source != 0).long()}
    limits: dict[str, Any] = {"max_new_tokens": LENGTH, "do_sample": False}
    if banned is not None:
        limits |= {"suppress_tokens": list(banned), "renormalize_logits": True}
    with torch.no_grad():
        states = model.get_encoder()(**given).last_hidden_state
        logits = model(**given, decoder_input_ids=inputs).logits
        greedy = model.generate(**given, **limits, num_beams=1)
        beam = model.generate(**given, **limits, num_beams=BEAMS, length_penalty=0.0, early_stopping=True)
    found = {"states": states, "logits": logits, "greedy": greedy[:, 1:], "beam": beam[:, 1:]}
    arrays = {name: x.numpy() for name, x in found.items()}
    for name in ("greedy", "beam"):
        tokens = np.pad(arrays[name], ((0, 0), (0, LENGTH - arrays[name].shape[1])))
        ended = np.cumsum(tokens == 1, axis=1) - (tokens == 1) > 0
        arrays[name] = np.where(ended, 0, tokens).astype(np.int16)  # some releases repeat the end of the sequence
    return arrays


def golden(variant: str) -> Arrays:
    """What is kept of `run_transformers`."""
    with np.load(GOLDEN / f"{variant}.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def main() -> None:
    import transformers
    from published import VARIANTS, write_folder

    from kdtw_jax.pretrained.named import find_model

    GOLDEN.mkdir(exist_ok=True)
    for variant, config in VARIANTS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = write_folder(Path(scratch) / variant, config)
            arrays = run_transformers(folder, find_model(str(folder)).tokenizer.banned_ids)
        few = {name: x[:KEPT] if name in ("states", "logits") else x for name, x in arrays.items()}
        np.savez_compressed(GOLDEN / f"{variant}.npz", allow_pickle=False, **few)
    (GOLDEN / "made_with.json").write_text(json.dumps({"transformers": transformers.__version__}) + "\n", "utf8")


if __name__ == "__main__":
    main()
