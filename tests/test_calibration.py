"""The level at which a gate asks as often as is wanted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kdtw_jax.evaluation import calibration
from kdtw_jax.evaluation.written import DecodeSpec


@pytest.mark.parametrize(("tokens", "aim", "most"), [(10, 0.25, 1), (10, 0.1, 1), (4000, 0.25, 4)])
def test_use_is_as_near_as_tokens_allow_and_not_tried_further(
    tokens: int, aim: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are those of a gate whose asking changes nothing but, on many tokens, all scores by as much."""
    scores_X = np.random.default_rng(0).permutation(np.arange(1, tokens + 1)) / tokens
    levels: list[float] = []

    def write(decoder: Any, data: Any, buckets: Any, wanted: DecodeSpec) -> Any:
        levels.append(wanted.level)
        found = scores_X if tokens < 100 else 0.9 * scores_X
        use = float((found > wanted.level).mean())
        return SimpleNamespace(used=use, score_NxT=found, tokens_NxT=np.ones(tokens), lengths_N=np.array([tokens]))

    monkeypatch.setattr(calibration, "write_split", write)
    decoder: Any = None
    wanted = DecodeSpec("entropy", np.zeros((1, 1), np.int32), aim)
    level, used, _ = calibration.calibrate(decoder, decoder, [], wanted, scores_X)
    assert level in levels and len(levels) <= most
    assert abs(used - aim) <= max(0.003, 0.5 / tokens) and (tokens < 100 or len(levels) > 1)
