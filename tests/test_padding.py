"""Models of one vocabulary and different padding go together, and padding changes nothing that they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import PIECES, ROWS, TEXTS, V10, V11, pieces, tensors, write_folder
from rich.console import Console

from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.data.tokenizer import load_tokenizer
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.errors import UserError
from kdtw_jax.models import T5Config, make_model, shift_right
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.plan import sizes
from kdtw_jax.pipeline.prepare import Setup, look_up, prepare
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pretrained.named import Named, find_model, read_student, read_teacher, student_config
from kdtw_jax.runs import open_run
from kdtw_jax.training.saved import load_model, save_model

FEW = PIECES + 100  # rows without padding: pieces and sentinels


def cut(config: dict[str, Any], rows: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same model with fewer rows of padding."""
    weights = tensors(config)
    own = {name: x[:rows].copy() for name, x in weights.items() if name in ("shared.weight", "lm_head.weight")}
    return {**config, "vocab_size": rows}, {**weights, **own}


def small(folder: Path, config: dict[str, Any], layout: str, rows: int = FEW) -> Named:
    found = find_model(str(write_folder(folder, *cut(config, rows))))
    if layout == "published":
        return found
    params = read_student(found, dataclasses.replace(found.config, value_heads=True), jax.random.key(0))
    save_model(folder / "ours", dataclasses.replace(found.config, value_heads=True), params, found.tokenizer)
    return find_model(str(folder / "ours"))


@pytest.mark.parametrize("layout", ["published", "ours"])
@pytest.mark.parametrize("variant", [V10, V11], ids=["tied", "untied"])
def test_padding_changes_no_score_and_no_output(variant: dict[str, Any], layout: str, tmp_path: Path) -> None:
    found = small(tmp_path / "model", variant, layout)
    padded = found.padded_to(ROWS)
    assert (found.config.vocab_size, padded.config.vocab_size) == (FEW, ROWS)
    source_BxS, tokens_BxT = (jax.random.randint(jax.random.key(i), (5, 9), 3, PIECES) for i in (1, 2))
    scores = []
    for named in (found, padded):
        model, params, tokenizer = read_teacher(named, dtype="float32")
        assert model.config.vocab_size == tokenizer.vocab_size == params["shared"]["embedding"].shape[0]

        def score(params: Any, model: Any = model, banned: Any = tokenizer.banned_ids) -> jax.Array:
            decoded = model.decode(params, model.encode(params, source_BxS), shift_right(tokens_BxT))
            return log_policy(decoded.logits_BxTxV, banned)

        scores.append(np.asarray(jax.jit(score)(params)))
    np.testing.assert_allclose(scores[0], scores[1][..., :FEW], rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(scores[0].argmax(axis=-1), scores[1].argmax(axis=-1))
    assert np.isneginf(scores[1][..., FEW:]).all() and np.isfinite(scores[0][..., 3:PIECES]).all()


@pytest.mark.parametrize("layout", ["published", "ours"])
def test_a_student_is_padded_where_it_begins_and_keeps_what_it_was(layout: str, tmp_path: Path) -> None:
    found = small(tmp_path / "model", V11, layout)
    padded = found.padded_to(ROWS)
    config = student_config(padded.config, T5Config.toy(9, gate_width=4))
    params = read_student(padded, config, jax.random.key(0))
    like = jax.eval_shape(make_model(config).init, jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, like)
    weights = tensors(V11)
    np.testing.assert_array_equal(params["shared"]["embedding"][:FEW], weights["shared.weight"][:FEW])
    np.testing.assert_array_equal(params["lm_head"]["kernel"][:, :FEW], weights["lm_head.weight"][:FEW].T)
    assert not np.any(params["shared"]["embedding"][FEW:]) and not np.any(params["lm_head"]["kernel"][:, FEW:])
    device = jax.local_devices()[1]
    assert jnp.shape(jax.device_put(params, device)["lm_head"]["kernel"]) == (16, ROWS)


def test_a_saved_model_is_opened_with_the_rows_of_a_run(tmp_path: Path) -> None:
    small(tmp_path / "model", V10, "ours")
    tokenizer = load_tokenizer(tmp_path / "model" / "spiece.model")
    folder = tmp_path / "model" / "ours"
    model, params, own = load_model(folder, tokenizer=tokenizer.padded_to(ROWS))
    assert own == tokenizer.padded_to(ROWS)
    assert model.config.vocab_size == len(params["shared"]["embedding"]) == ROWS
    load_model(folder, expect=model.config, tokenizer=own)
    assert load_model(folder).model.config.vocab_size == FEW
    small(tmp_path / "larger", V10, "ours", ROWS)
    with pytest.raises(UserError, match=r"another vocabulary \(148 pieces, .* this run's \(140 pieces"):
        load_model(tmp_path / "larger" / "ours", tokenizer=tokenizer)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for side in ("source", "target"):
        (tmp_path / side).write_text("\n".join(text[:40] for text in TEXTS[:60]) + "\n", encoding="utf8")
    return tmp_path


def prepared(corpus: Path, out: str, **changes: Any) -> tuple[Experiment, Setup]:
    tiny = PRESETS["tiny"]
    files = FileSpec(train_source=corpus / "source", train_target=corpus / "target")
    text = dataclasses.replace(tiny.text, folder=corpus / "data", files=files, tokenizer=changes.pop("tokenizer", None))
    config = dataclasses.replace(tiny, data="files", text=text, devices=1, out=corpus / out, **changes)
    with open_run(config.out, json.loads(json.dumps(config.identity(), default=str))) as run:
        return config, prepare(config, run, Console(quiet=True), look_up(config))


@pytest.mark.parametrize(("teacher", "student"), [(FEW, ROWS), (ROWS, FEW)])
@pytest.mark.parametrize("given", [False, True], ids=["", "tokenizer given"])
def test_a_run_has_the_rows_of_its_larger_model(teacher: int, student: int, given: bool, corpus: Path) -> None:
    for name, variant, rows in (("teacher", V11, teacher), ("student", V10, student)):
        write_folder(corpus / name, *cut(variant, rows))
    models = {f"{name}_model": str(corpus / name) for name in ("teacher", "student")}
    more: dict[str, Any] = {"tokenizer": corpus / "teacher" / "spiece.model"} if given else {}
    config, setup = prepared(corpus, "run", **models, **more)
    assert setup.tokenizer.vocab_size == ROWS
    assert {model.vocab_size for model in sizes(config)} == {ROWS}
    for named in (setup.teacher, *setup.students.values()):
        assert named is not None and named.config.vocab_size == ROWS and named.tokenizer == setup.tokenizer


def test_models_of_other_pieces_are_still_refused(corpus: Path) -> None:
    write_folder(corpus / "teacher", *cut(V11, FEW))
    write_folder(corpus / "student", V10)
    (corpus / "student" / "spiece.model").write_bytes(pieces(sentinels=True))
    models = {f"{name}_model": str(corpus / name) for name in ("teacher", "student")}
    with pytest.raises(
        UserError,
        match=r"was trained with another vocabulary .*: id 40 is '▁<extra_id_99>' there and '<extra_id_99>' here",
    ):
        prepared(corpus, "run", **models)
