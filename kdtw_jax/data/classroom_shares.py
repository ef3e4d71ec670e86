"""What is kept out of the training of class material: it hangs on the text only, and is the same for every seed."""

from __future__ import annotations

from kdtw_jax.text.fraction import fixed_fraction

_INTERESTS = 0.05  # of them are nowhere in training


def is_kept_out(interest: str) -> bool:
    """Whether an interest is nowhere in training."""
    return fixed_fraction(f"interest|{interest}") < _INTERESTS
