"""A short name for what a vocabulary is: the same for every file that it may come from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from kdtw_jax.data.added_tokens import SPECIALS
from kdtw_jax.data.pairing import Pairing
from kdtw_jax.data.same_vocabulary import sample_texts
from kdtw_jax.data.tokenizer import Tokenizer

_FORMAT = "vocabulary 1"
_DIGITS = 16


def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """Hashes the content of a vocabulary, `tokenizer`: 16 hexadecimal digits of BLAKE2b (RFC 7693).

    It is over all that `Tokenizer.difference` looks at, so two vocabularies have one hash where that finds no
    difference: tokens by id, added tokens, ids that are never written, and how texts and prompts are cut. The kind of
    file, and rows beyond the tokens, are none of it.
    """
    likeness = tokenizer.likeness
    rules, decided = likeness.rules, {*range(SPECIALS), *likeness.added}
    # As float32, which is what a sentencepiece model keeps; a tokenizer.json has more digits of the same numbers.
    scores = [[i, float(np.float32(x)).hex()] for i, x in enumerate(rules.scores) if i not in decided]
    content: list[Any] = [
        _FORMAT,
        sorted(likeness.texts.items()),
        sorted((i, list(token)) for i, token in likeness.added.items()),
        likeness.help_id,
        sorted(likeness.banned),
        scores,
        sorted(rules.kinds.items()),
        [rules.model, rules.charsmap.hex(), list(rules.more), list(rules.around)],
        _of_pairing(rules.pairing),
        [likeness.encode(text) for text in sample_texts(likeness)],
    ]
    if rules.prompt is not None:  # special tokens may take in what stands beside them, which texts alone do not show
        content.append([rules.prompt(text) for text in sample_texts(likeness)])
    written = json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()
    return hashlib.blake2b(written, digest_size=_DIGITS // 2).hexdigest()


def _of_pairing(pairing: Pairing | None) -> list[Any]:
    if pairing is None:
        return []
    sets = [sorted(pairing.found_first), sorted(pairing.unused), pairing.of_bytes, pairing.words_whole]
    return [[[made.piece, list(made.firsts)] for made in pairing.joined], *sets]
