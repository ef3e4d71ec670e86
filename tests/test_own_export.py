"""A decoder-only model with a vocabulary of our own, exported: the same texts there and here, before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.cli import main as kdtw
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from kdtw_jax.decoding import generate
from kdtw_jax.errors import UserError
from kdtw_jax.models import CausalConfig, Params, make_model
from kdtw_jax.pipeline.presets import TINY, models
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.runs import write_json
from kdtw_jax.training.saved import save_model

TEXTS = ["the red house and the tree", "a small house, 12 trees", "Ünïcode of ▅ and e\u0301, I'm told", "⁇ <help> me"]
PROMPTS = [*TEXTS, "  the\t\ttree\n", "unknown 東京 here", "", "<reserved_1><help>", "house\u2581tree\u0085\u200b a"]
LENGTH = 10


@pytest.fixture(scope="module")
def own() -> Tokenizer:
    return train_tokenizer(TEXTS, vocab_size=90, exact=False)


def model(tokenizer: Tokenizer, **changes: Any) -> tuple[CausalConfig, Params]:
    """Random, and lively: what it writes depends on what it reads."""
    config = replace(CausalConfig.toy(tokenizer.vocab_size, gate_width=4), **changes)
    params = jax.device_get(make_model(config).init(jax.random.key(3)))
    rng = np.random.default_rng(0)
    return config, jax.tree.map(lambda x: np.asarray(x + 0.4 * rng.standard_normal(x.shape), np.float32), params)


def written(config: CausalConfig, params: Params, tokenizer: Tokenizer) -> list[list[int]]:
    rows = [tokenizer.prompt(text, 99)[0] for text in PROMPTS]
    source = jnp.asarray([row + [0] * (99 - len(row)) for row in rows])
    how: dict[str, Any] = {"max_len": LENGTH, "banned": tokenizer.banned_ids}
    found = jax.jit(lambda params: generate(make_model(config), params, source, None, **how).tokens_BxT)(params)
    return [[i for i in row if i] for row in np.asarray(found).tolist()]


def test_a_folder_is_read_again_as_the_model_that_it_was(own: Tokenizer, tmp_path: Path) -> None:
    config, params = model(own, tie_embeddings=False)
    save_model(tmp_path / "run" / "seed0" / "pcl" / "model", config, params, own)
    (tmp_path / "run" / "stages" / "seed0").mkdir(parents=True)
    (tmp_path / "run" / "stages" / "seed0" / "pcl.json").write_text("{}")
    tiny = replace(TINY, family="causal", **models("tiny", "causal"))
    write_json(tmp_path / "run" / "config.json", {"task": "translation", **tiny.identity()})
    assert kdtw(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    names = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} - names == {
        *("spiece.model", "tokenizer.json", "tokenizer_config.json")
    }
    found = find_model(str(tmp_path / "out"))
    assert found.tokenizer == own and found.tokenizer.help_id == own.help_id
    again = read_teacher(found, dtype="float32")
    bare = {name: part for name, part in params.items() if name not in ("value", "gate")}
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, bare))
    assert again.model.config == replace(config, value_heads=False, gate_width=0)


def test_the_file_of_the_vocabulary_cuts_texts_as_the_model_was_trained_to(own: Tokenizer, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    config, params = model(own)
    export_model(tmp_path / "out", config, params, own)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for text in PROMPTS:
        assert theirs.encode(text).ids == own.prompt(text, 999)[0], text
        ids = own.encode(text)
        assert theirs.decode(ids).strip() == own.decode(ids) or 2 in ids  # where another sign is shown
    chars = sorted({*"".join(TEXTS)})
    rng = np.random.default_rng(1)
    for _ in range(200):
        text = "".join(rng.choice([*chars, " ", "\n", "\u00a0", "x", "東"], 30))
        assert theirs.encode(text).ids == own.prompt(text, 999)[0], text


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_folder_and_writes_the_same(tied: bool, own: Tokenizer, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, params = model(own, tie_embeddings=tied)
    export_model(tmp_path / "out", config, params, own)
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    mine, found = written(config, params, own), []
    for text, row in zip(PROMPTS, mine, strict=True):
        given = tokenizer(text, return_tensors="pt")
        ids = given["input_ids"][0].tolist()
        assert ids == own.prompt(text, 99)[0]
        with torch.no_grad():
            out = there.generate(**{k: given[k] for k in ("input_ids", "attention_mask")}, max_new_tokens=LENGTH,
                                 do_sample=False)[0, len(ids) :].tolist()  # fmt: skip
        found.append(out)
        assert tokenizer.decode(out, skip_special_tokens=True).strip() == own.decode(row).strip()
    assert found == mine and len({tuple(row) for row in mine}) > 3


def test_the_vocabulary_of_a_t5_model_has_no_such_layout(tmp_path: Path) -> None:
    bytes_ = load_tokenizer("byt5")
    config, params = model(bytes_)
    with pytest.raises(UserError, match="with the vocabulary of a T5 model or of bytes has no Hugging Face layout"):
        export_model(tmp_path / "out", config, params, bytes_)
    assert not (tmp_path / "out").exists()
