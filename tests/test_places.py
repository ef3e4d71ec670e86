"""Where a student asks, and how what the teacher wrote is shown."""

from __future__ import annotations

import numpy as np
import pytest

from kdtw_jax.evaluation.places import by_class, by_decile, by_position, piece_classes
from kdtw_jax.marks import marked


def test_help_rates_by_decile_class_and_position() -> None:
    kl = np.arange(40)[::-1].astype(float)
    deciles = by_decile(kl, kl >= 34)
    assert [g.states for g in deciles] == [4] * 10
    assert [g.help_rate for g in deciles] == [0] * 8 + [0.5, 1.0]

    pieces = ["<pad>", "</s>", "<unk>", "▁Haus", "bau", "▁7", ".", "▁selten"]
    training = np.array([3] * 40 + [4] * 30 + [5] * 12 + [6] * 17 + [7] + [1] * 50)
    classes = piece_classes(pieces, training)
    members = {
        name: [p for p, inside in zip(pieces, member, strict=True) if inside] for name, member in classes.items()
    }
    assert members["first piece of a word"] == ["▁Haus", "▁7", "▁selten"]
    assert members["digit"] == ["▁7"]
    assert members["punctuation"] == ["."]
    assert "bau" in members["later piece"] and "." not in members["later piece"]
    assert {"▁7", "▁selten"} <= set(members["rare"]) and not {"▁Haus", "bau", ".", "</s>"} & set(members["rare"])
    rates = {
        g.group: (g.states, g.help_rate) for g in by_class(np.array([3, 3, 5, 1]), np.array([1, 0, 1, 0]), classes)
    }
    assert rates["first piece of a word"] == (3, pytest.approx(2 / 3))
    assert rates["punctuation"] == (0, None)
    assert rates["end of sequence"] == (1, 0.0)

    tokens = np.where(np.arange(24)[None, :] < np.array([[24], [4]]), 5, 0)
    positions = {
        g.group: (g.states, g.help_rate) for g in by_position(tokens, np.arange(24)[None, :] == np.array([[0], [2]]))
    }
    assert positions == {"1-2": (4, 0.25), "3-5": (5, 0.2), "6-10": (5, 0.0), "11-20": (10, 0.0), ">20": (4, 0.0)}


def test_the_teachers_tokens_are_marked_in_samples() -> None:
    assert marked(["▁ein", "▁Haus", "bau", ".", "</s>"], [False, True, True, False, True]) == "ein ⟦Hausbau⟧.⟦∎⟧"
    assert marked(["▁ein", "▁Haus", "bau", "</s>"], [True, False, True, False]) == "⟦ein⟧ Haus⟦bau⟧"
    assert marked(["▁ein", "▁", "bau"], [False, True, False]) == "ein⟦ ⟧bau"
