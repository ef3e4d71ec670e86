"""Models written in the Hugging Face layout: what comes back is what went out, here and in `transformers`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import BYT5, TEXTS, V10, V11, VARIANTS, pieces, write_folder
from reference import BEAMS, LENGTH, batch, open_with_transformers, run_transformers
from test_parity import needs_torch

from kdtw_jax.cli import main as kdtw
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from kdtw_jax.decoding import beam_search, generate
from kdtw_jax.errors import UserError
from kdtw_jax.models import Params, T5Config, make_model
from kdtw_jax.pipeline.presets import TINY
from kdtw_jax.pretrained import export
from kdtw_jax.pretrained.export import export_model
from kdtw_jax.pretrained.load import open_published, read_published
from kdtw_jax.runs import write_json
from kdtw_jax.training.saved import save_model

BOTH = {
    "v1.0": T5Config.toy(dropout_rate=0.0, gate_width=4),
    "v1.1": T5Config.toy(dropout_rate=0.0, feed_forward="gated-gelu", tie_embeddings=False),
}
both = pytest.mark.parametrize("variant", list(BOTH))


def student(variant: str, tokenizer: Tokenizer) -> tuple[T5Config, Params]:
    """Random."""
    config = dataclasses.replace(BOTH[variant], vocab_size=tokenizer.vocab_size)
    params = jax.tree.map(np.array, make_model(config).init(jax.random.key(1)))
    return config, params


@pytest.fixture(scope="module")
def own() -> Tokenizer:
    return train_tokenizer(TEXTS, vocab_size=50)


@both
def test_there_and_back(variant: str, own: Tokenizer, tmp_path: Path) -> None:
    config, params = student(variant, own)
    save_model(tmp_path / "run" / "seed0" / "pcl" / "model", config, params, own)
    (tmp_path / "run" / "stages" / "seed0").mkdir(parents=True)
    (tmp_path / "run" / "stages" / "seed0" / "pcl.json").write_text("{}")
    write_json(tmp_path / "run" / "config.json", {"task": "translation", **TINY.identity()})
    assert kdtw(["export", str(tmp_path / "run"), "--out", str(tmp_path / "a" / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["out"]
    assert "It has not been evaluated." in (tmp_path / "a" / "out" / "README.md").read_text(encoding="utf8")
    # Our own vocabulary has no sentinels, which the published layout would take to lie above the pieces.
    stated = json.loads((tmp_path / "a" / "out" / "tokenizer_config.json").read_text())
    assert stated["extra_ids"] == 0
    found = open_published(tmp_path / "a" / "out")
    assert found.tokenizer == own
    assert found.config == dataclasses.replace(config, value_heads=False, gate_width=0)
    back = read_published(found, dataclasses.replace(found.config, value_heads=True), jax.random.key(0))
    wanted = {name: part for name, part in params.items() if name != "gate"}
    assert jax.tree.all(jax.tree.map(np.array_equal, back, wanted))


@pytest.mark.long
@needs_torch
@both
def test_transformers_generates_the_same_tokens(variant: str, own: Tokenizer, tmp_path: Path) -> None:
    found = open_published(write_folder(tmp_path / "in", VARIANTS[variant]))
    params = read_published(found, found.config, jax.random.key(0))  # livelier than fresh ones, cut to our vocabulary
    config = dataclasses.replace(found.config, vocab_size=own.vocab_size)
    params["shared"]["embedding"] = params["shared"]["embedding"][: own.vocab_size]
    if "lm_head" in params:
        params["lm_head"]["kernel"] = params["lm_head"]["kernel"][:, : own.vocab_size]
    export_model(tmp_path / "out", config, params, own)
    theirs = run_transformers(tmp_path / "out", None)  # what is never written stands in the folder
    model, source_BxS = make_model(config), jnp.asarray(batch()[0])
    limits = {"max_len": LENGTH, "banned": own.banned_ids}
    greedy = jax.jit(lambda p: generate(model, p, source_BxS, None, **limits).tokens_BxT)(params)
    beam = jax.jit(
        lambda p: beam_search(model, p, source_BxS, beam_size=BEAMS, length_penalty=0.0, **limits).tokens_BxT
    )(params)
    np.testing.assert_array_equal(greedy, theirs["greedy"])
    np.testing.assert_array_equal(beam, theirs["beam"])
    assert (theirs["greedy"] != theirs["beam"]).any() and len(np.unique(theirs["greedy"])) > 3


@pytest.mark.long
@needs_torch
@pytest.mark.parametrize("config", [V10, V11, BYT5], ids=["v1.0", "v1.1", "byt5"])
def test_a_published_model_comes_out_as_it_went_in(config: dict[str, object], tmp_path: Path) -> None:
    found = open_published(write_folder(tmp_path / "in", config))
    params = read_published(found, found.config, jax.random.key(0))
    export_model(tmp_path / "out", found.config, params, found.tokenizer)
    one, other = (open_with_transformers(tmp_path / name).state_dict() for name in ("in", "out"))
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    bytes_alone = found.tokenizer.is_bytes
    for text in [*TEXTS[:20], *(["Straße in 東京, 5 €"] if bytes_alone else [])]:
        assert theirs(text).input_ids == [*found.tokenizer.encode(text), 1]
    last = "<extra_id_124>" if bytes_alone else "<extra_id_99>"
    assert theirs.convert_tokens_to_ids(last) == found.tokenizer.help_id


@pytest.mark.long
@needs_torch
@pytest.mark.parametrize("config", [V11, BYT5], ids=["v1.1", "byt5"])
def test_added_tokens_go_out_with_their_ids(config: dict[str, object], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {**config, "vocab_size": 400} if config is BYT5 else config)
    added = {"\n": 384, "{": 385} if config is BYT5 else {"\n": 140, "{": 141}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    found = open_published(folder)
    params = read_published(found, found.config, jax.random.key(0))
    export_model(tmp_path / "out", found.config, params, found.tokenizer)
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    for text in ["house {\ntree", "{{house<extra_id_0>\n\n", *TEXTS[:3]]:
        assert theirs(text).input_ids == [*found.tokenizer.encode(text), 1]


def test_nothing_is_overwritten_or_left_half(own: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, params = student("v1.0", own)
    (tmp_path / "out").mkdir()  # empty: fine
    export_model(tmp_path / "out", config, params, own)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        export_model(tmp_path / "out", config, params, own)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_tensors", full)
    with pytest.raises(UserError, match=r"cannot write the model to .*other: No space left"):
        export_model(tmp_path / "other", config, params, own)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_may_be_halved(own: Tokenizer, tmp_path: Path) -> None:
    config, params = student("v1.1", own)
    export_model(tmp_path / "out", config, params, own, dtype="bfloat16")
    found = open_published(tmp_path / "out")
    back = read_published(found, found.config, jax.random.key(0))
    embedding = params["shared"]["embedding"]
    np.testing.assert_array_equal(back["shared"]["embedding"], embedding.astype(jnp.bfloat16).astype(np.float32))


def test_a_run_without_that_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(tmp_path), "--method", "ask", "--seed", "4", "--out", str(tmp_path / "out")]
    assert kdtw(words) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not a run's folder; give one that kdtw train has made\n"
    (tmp_path / "config.json").touch()
    assert kdtw(words) == 2
    assert (
        capsys.readouterr().err == f"error: {tmp_path} has no finished seed4/ask; see which are in {tmp_path}/stages\n"
    )


def test_a_published_vocabulary_keeps_its_padding(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(pieces())
    tokenizer = load_tokenizer(tmp_path / "spiece.model").padded_to(148)
    config, params = student("v1.1", tokenizer)
    export_model(tmp_path / "out", config, params, tokenizer)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [0, 2, *range(40, 148)]
    assert open_published(tmp_path / "out").tokenizer == tokenizer
