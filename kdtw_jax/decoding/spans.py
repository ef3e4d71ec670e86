"""What a lazy teacher has not read yet, some positions at a time.

The teacher answers only where it is asked. It has not seen what the student wrote since, so a call first processes
these tokens, `SPAN` at once, as in the verification of speculative decoding (arXiv 2211.17192).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdtw_jax.models import Cache, Decoded, Model, Params

SPAN = 8  # positions that the teacher processes at once; a longer span takes several passes


def decoder_inputs(tokens_BxT: jax.Array) -> jax.Array:
    """What the decoder reads of these tokens, int32 [B, 1 + T + SPAN]: the start token, which is padding, comes first.

    A span may begin at any token and is whole also where it reaches past the end.
    """
    return jnp.pad(tokens_BxT, ((0, 0), (1, SPAN)))


def read_span(
    network: tuple[Model, Params], cache: Cache, inputs_BxX: jax.Array, place_BxN: jax.Array
) -> tuple[Decoded, Cache]:
    """Feeds a model the inputs at N successive places of every row; its answers to each, and its cache thereafter.

    Args:
      inputs_BxX: as `decoder_inputs` gives them.
      place_BxN: int32, of which each row goes up by 1; rows may begin at different places.
    """
    model, params = network
    span_BxN = jnp.take_along_axis(inputs_BxX, place_BxN, axis=1)
    decoded, cache = model.extend(params, cache, span_BxN, place_BxN[:, 0])
    return decoded, cache


def successive(first_B: jax.Array, count: int) -> jax.Array:
    """The `count` places from `first_B` on, int32 [B, count]."""
    return first_B[:, None] + jnp.arange(count, dtype=jnp.int32)[None, :]


def catch_up(
    network: tuple[Model, Params],
    cache: Cache,
    tokens_BxT: jax.Array,
    read_B: jax.Array,
    place: jax.Array,
    heard_B: jax.Array,
) -> tuple[jax.Array, Cache]:
    """Feeds a model what it has not read, in rows where it is to be heard: its logits at a place, and its cache.

    Args:
      network: the model.
      cache: filled up to `read_B`.
      tokens_BxT: int32, what was written.
      read_B: int32, positions that it has processed.
      place: int32 [], the token it is heard about.
      heard_B: bool.

    Returns:
      float32 [B, V], 0 in the other rows; and the cache, filled up to that place.
    """
    inputs_BxX = decoder_inputs(tokens_BxT)

    def behind(carry: tuple[jax.Array, jax.Array, Cache]) -> jax.Array:
        return jnp.any(heard_B & (carry[0] <= place))

    def read(carry: tuple[jax.Array, jax.Array, Cache]) -> tuple[jax.Array, jax.Array, Cache]:
        read_B, logits_BxV, cache = carry
        decoded, cache = read_span(network, cache, inputs_BxX, successive(read_B, SPAN))
        place_B = place - read_B  # of the position that answers, within the span or beyond it
        last_B = jnp.clip(place_B, 0, SPAN - 1)
        found_BxV = jnp.take_along_axis(decoded.logits_BxTxV, last_B[:, None, None], axis=1)[:, 0]
        here_B = heard_B & (place_B >= 0) & (place_B < SPAN)
        logits_BxV = jnp.where(here_B[:, None], found_BxV, logits_BxV)
        read_B = jnp.where(heard_B, jnp.minimum(read_B + SPAN, place + 1), read_B)
        return read_B, logits_BxV, cache

    nothing_BxV = jnp.zeros((len(heard_B), network[0].config.vocab_size), jnp.float32)
    _, logits_BxV, cache = jax.lax.while_loop(behind, read, (read_B, nothing_BxV, cache))
    return logits_BxV, cache
