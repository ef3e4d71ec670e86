"""A rule in words stands where a user's words stand: in a chat inside the message, elsewhere before the source."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_llama import TEMPLATE, write_vocabulary

from kdtw_jax.constraints import pad_words, word_tokens
from kdtw_jax.data.rule_place import check_read_alike, how_read, rule_encoder, with_rule_place
from kdtw_jax.data.tokenizer import Tokenizer, train_tokenizer
from kdtw_jax.decoding.view import encoder_inputs, instructed
from kdtw_jax.errors import UserError
from kdtw_jax.methods.ask_config import make_rules
from kdtw_jax.models import CausalConfig, T5Config, make_model
from kdtw_jax.pipeline.presets import TRANSLATION
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pretrained.causal_vocabulary import load_prompt_vocabulary
from kdtw_jax.runs import open_run
from kdtw_jax.student import known_constraints, load
from kdtw_jax.training.identity import model_hash
from kdtw_jax.training.saved import save_model

RULES = ["ask the teacher for at most 20% of the words", "do not ask the teacher"]
TEXTS = ["the red house", "\na small tree", "<|stop|> is a word, and  two\nlines of it"]
SYSTEM = "{{ '<|start|>system\nHelp.<|stop|>\n' }}" + TEMPLATE


def chat(folder: Path, template: str = SYSTEM) -> Tokenizer:
    rows = write_vocabulary(folder, template=template)
    return load_prompt_vocabulary(folder, rows + 5)


def rows(tokens: np.ndarray) -> list[list[int]]:
    return [[i for i in row if i] for row in tokens.tolist()]


@pytest.mark.parametrize("template", [SYSTEM, TEMPLATE, ""], ids=["system", "chat", "plain"])
def test_a_rule_in_a_source_is_a_line_of_the_message(template: str, tmp_path: Path) -> None:
    known = chat(tmp_path, template)
    config = with_rule_place(CausalConfig.toy(known.vocab_size, gate_width=4, rule_in_source=True), known)
    assert bool(config.rule_after) == bool(template)
    encode = rule_encoder(known, in_source=True)
    for rule in RULES:
        sources = pad_words([known.prompt(text, 99)[0] for text in TEXTS], 99)
        words = pad_words([word_tokens(rule, encode)] * len(TEXTS), 99)
        read, gate = encoder_inputs(config, jnp.asarray(words), jnp.asarray(sources))
        assert np.array_equal(read, gate)
        found = [known.decode(row) for row in rows(np.asarray(read))]
        whole = [known.prompt(f"{rule}:\n{text}", 999)[0] for text in TEXTS]
        assert found == [known.decode(row) for row in whole]
        assert rows(np.asarray(read))[0] == whole[0]  # and the very tokens where nothing is joined at a seam
        if template:
            assert all(read[:, : len(config.rule_after)].tolist()[i] == [*config.rule_after] for i in range(len(TEXTS)))


def test_a_rule_alone_is_a_prompt_of_its_own(tmp_path: Path) -> None:
    known = chat(tmp_path)
    config = with_rule_place(CausalConfig.toy(known.vocab_size, gate_width=4), known)
    assert config.rule_after == ()
    words = word_tokens(RULES[0], rule_encoder(known, in_source=False))
    assert words == known.prompt(f"{RULES[0]}:", 999)[0] and len(words) > len(known.encode(RULES[0])) + 10
    rules = make_rules(known_constraints(("share",), config), known)
    assert word_tokens(RULES[0], rules.encode) == words and rules.room >= len(words)


def test_where_there_is_no_chat_a_rule_stands_before_the_source_as_ever() -> None:
    own = train_tokenizer(["the red house and the tree", *RULES], vocab_size=60, exact=False)
    for in_source in (True, False):
        assert rule_encoder(own, in_source=in_source)(RULES[0]) == own.encode(RULES[0])
        for config in (T5Config.toy(own.vocab_size), CausalConfig.toy(own.vocab_size)):
            config = replace(config, rule_in_source=in_source)
            assert with_rule_place(config, own) is config and config.rule_after == ()


def test_a_rule_stands_behind_what_a_source_begins_with_of_the_head() -> None:
    head = [8, 9, 7]
    sources = [[8, 9, 7, 4, 5, 1], [8, 9, 4, 5, 1, 0], [4, 8, 9, 7, 1, 0], [8, 9, 7, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    words = [[3, 2, 0], [3, 2, 6], [3, 0, 0], [0, 0, 0], [5, 5, 5]]
    found = instructed(jnp.asarray(words), jnp.asarray(sources), head).tolist()
    for row, rule, source in zip(found, words, sources, strict=True):
        same = next((i for i, (a, b) in enumerate(zip(source, head, strict=False)) if a != b), len(head))
        told = [i for i in rule if i]
        want = [*source[:same], *told, *source[same:]]
        assert row == [*want, *[0] * (9 - len(want))]
    assert instructed(jnp.asarray(words), jnp.asarray(sources)).tolist() != found


def test_the_place_is_kept_with_the_model() -> None:
    config = CausalConfig.toy(rule_in_source=True, rule_after=(4, 5))
    assert CausalConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    for odd in ("ab", [0], [1.5], [True], 3):
        with pytest.raises(UserError, match=r"rule_after is .*; it has to be a list of tokens"):
            CausalConfig.toy(rule_after=odd)


def test_the_place_of_rules_is_no_part_of_what_a_model_is() -> None:
    model = make_model(CausalConfig.toy())
    params = model.init(jax.random.key(0))
    assert model_hash(model, params) == model_hash(make_model(replace(model.config, rule_after=(5,))), params)


def test_a_student_that_learned_to_read_rules_otherwise_is_refused(tmp_path: Path) -> None:
    known = chat(tmp_path)
    size = CausalConfig.toy(known.vocab_size)
    config = replace(TRANSLATION["tiny"].in_family("causal"), teacher=size, student=size, methods=("ask",))
    own = replace(size, gate_width=4)
    params = {width: make_model(c).init(jax.random.key(0)) for width, c in ((0, size), (4, own))}
    for folder, stated in (("old", {}), ("new", how_read(known))):
        run = tmp_path / folder
        with open_run(run, {"task": "translation", **config.identity()}) as opened:
            opened.mark_done("data", {"instruction": "{source}"})
            opened.claim("seed0/ask", {**config.identity_of("ask"), **stated})
            opened.mark_done("seed0/ask")
            refused = pytest.raises(UserError, match="rule_read was")  # by a training that goes on
            with nullcontext() if stated else refused:
                opened.claim("seed0/ask", {**config.identity_of("ask"), **how_read(known)})
        assert restore(run)[1].identity_of("ask") == config.identity_of("ask")
        save_model(run / "teacher" / "model", size, params[0], known)
        save_model(run / "seed0" / "ask" / "model", own, params[4], known)
    assert load(tmp_path / "new", with_teacher=False).encode_rule(RULES[0]) == known.prompt(RULES[0], 999)[0]
    with pytest.raises(UserError, match=r"student of seed 0 .* learned to read rules as plain tokens.*train it aga"):
        load(tmp_path / "old", with_teacher=False)


def test_students_without_prompts_read_rules_as_ever() -> None:
    own = train_tokenizer(["the red house and the tree", *RULES], vocab_size=60, exact=False)
    assert how_read(own) == {}
    check_read_alike("a student", {}, own)
