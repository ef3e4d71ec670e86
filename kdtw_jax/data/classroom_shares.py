"""What is kept out of the training of class material: it hangs on the text only, and is the same for every seed."""

from __future__ import annotations

import hashlib

_INTERESTS = 0.05  # of them are nowhere in training


def share_of(text: str) -> float:
    """A fixed number in [0, 1) for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


def is_kept_out(interest: str) -> bool:
    """Whether an interest is nowhere in training."""
    return share_of(f"interest|{interest}") < _INTERESTS
