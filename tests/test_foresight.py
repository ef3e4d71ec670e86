"""What answers are worth by what follows: labels are those of single branches, and a network learns them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.constraints import histories
from kdtw_jax.decoding import generate, log_policy
from kdtw_jax.decoding.ahead import worth_everywhere
from kdtw_jax.decoding.branch import States, Writer, look_ahead
from kdtw_jax.decoding.utility import nearness
from kdtw_jax.decoding.view import encoder_inputs, gate_features, prefixes_and_history
from kdtw_jax.evaluation.rows import spaced_pairs
from kdtw_jax.evaluation.written import write_split
from kdtw_jax.models import shift_right
from kdtw_jax.training.foresight import Labels, features, label_states, train_foresight
from tests.asking import DATA, LENGTH, STUDENT, TEACHER, WIDE, WORLD, decoder, distributions, want

SOURCE = jnp.asarray(DATA.sources.padded(np.arange(12), LENGTH))


def test_every_state_has_the_worth_of_its_own_branch() -> None:
    writers = [Writer(model, params, model.encode(params, SOURCE)) for model, params in (STUDENT, TEACHER)]
    limits: dict[str, Any] = {"banned": WORLD.banned, "max_len": LENGTH}
    tokens, reference = (
        jax.jit(lambda m=m: generate(*m, SOURCE, None, **limits))().tokens_BxT for m in (STUDENT, TEACHER)
    )
    own, other = (x.argmax(-1).astype(jnp.int32) for x in distributions(tokens, SOURCE, SOURCE))

    @jax.jit
    def everywhere() -> jax.Array:
        return worth_everywhere(*writers, tokens, own, other, nearness, reference, banned=WORLD.banned, rows=5)

    @jax.jit
    def at(place: jax.Array) -> jax.Array:
        states = States(tokens, jnp.full(len(tokens), place))
        return look_ahead(*writers, states, own[:, place], other[:, place], nearness, reference, banned=WORLD.banned)

    found = everywhere()
    expected = jnp.where(tokens != 0, jnp.stack([at(jnp.asarray(t)) for t in range(LENGTH)], axis=1), 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(np.unique(np.round(found, 4))) > 7


def test_labels_are_of_states_with_and_without_help_before_them() -> None:
    few = spaced_pairs(DATA, 24)
    banned, seeds = WORLD.banned, (0, 0, 1)
    one, same, other = (label_states(STUDENT, TEACHER, few, WIDE, nearness, banned=banned, seed=s) for s in seeds)
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.features_NxF.shape[0] == len(one.choices_Nx2) == len(one.worth_N) > len(few)
    assert not np.array_equal(one.worth_N, other.worth_N)  # by chance the teacher is asked elsewhere
    assert (one.worth_N > 0).any() and (one.worth_N == 0).any() and (np.abs(one.worth_N) <= 1).all()


def test_the_network_learns_the_mean_of_a_heavy_tail_up_to_a_constant() -> None:
    """A rare large gain counts as its mean, a loss as nothing; the choices are seen, too."""
    rng = np.random.default_rng(0)
    x, choice = rng.normal(size=(6000, 3)).astype(np.float32), rng.integers(0, 4, (6000, 2)).astype(np.int32)
    mean = np.exp(x[:, 0]) * np.where(choice[:, 0] == 2, 4.0, 1.0)
    worth = np.where(rng.random(6000) < 0.2, 5 * mean, -3.0).astype(np.float32)
    learned = train_foresight(Labels(x, choice, worth), 4, seed=0, steps=600)
    again = train_foresight(Labels(x, choice, worth), 4, seed=0, steps=600)
    test = jnp.asarray(rng.normal(size=(500, 3)), jnp.float32), jnp.asarray(rng.integers(0, 4, (500, 2)), jnp.int32)
    found = np.asarray(learned.log_worth(*test))
    np.testing.assert_array_equal(found, again.log_worth(*test))
    true = np.asarray(test[0][:, 0]) + np.log(4.0) * (np.asarray(test[1][:, 0]) == 2)
    assert np.corrcoef(found, true)[0, 1] > 0.9
    nothing = train_foresight(Labels(x, choice, -abs(worth)), 4, seed=0, steps=5)
    assert np.isfinite(nothing.log_worth(*test)).all()


def test_its_gate_says_while_writing_what_the_network_says_of_whole_outputs() -> None:
    """Features of a step are those of a whole pass."""
    few = spaced_pairs(DATA, 24)
    labels = label_states(STUDENT, TEACHER, few, WIDE, nearness, banned=WORLD.banned, seed=0)
    foresight = train_foresight(labels, WORLD.tokenizer.vocab_size, seed=0, steps=50)
    scored = np.asarray(foresight.log_worth(jnp.asarray(labels.features_NxF), jnp.asarray(labels.choices_Nx2)))
    asker, wanted = (
        decoder(gates=("foresight",), foresight=foresight),
        want("foresight", level=float(np.median(scored))),
    )
    written = write_split(asker, few, WIDE, wanted)
    assert 0 < written.calls_N.sum() < written.lengths_N.sum()
    source, tokens = jnp.asarray(few.sources.padded(np.arange(24), LENGTH)), jnp.asarray(written.tokens_NxT)
    words = jnp.asarray(wanted.words_KxR[np.arange(24) % len(wanted.words_KxR)])
    model, params = STUDENT
    read, rule = (model.encode(params, x) for x in encoder_inputs(model.config, words, source))
    decoded = model.decode(params, read, shift_right(tokens))
    before = histories(source, tokens, jnp.asarray(written.asked_NxT))
    log_pi = log_policy(decoded.logits_BxTxV, WORLD.banned)
    view = gate_features(log_pi, decoded.hidden_BxTxD, *prefixes_and_history(tokens, before))
    whole = features(model, params, model.read_rule(params, rule), view)
    mask = written.tokens_NxT != 0
    said = foresight.log_worth(whole[mask], view.choices_BxTx2[mask])
    np.testing.assert_allclose(written.score_NxT[mask], said, atol=1e-3)
    assert written.score_NxT[mask].std() > 0.01
