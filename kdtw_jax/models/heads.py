"""The value head on the decoder state: V, the soft value."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class ValueHead(nn.Module):
    """Linear map from the final-normed decoder state to one scalar a position, float32 in any compute dtype.

    Zero-initialised, so that a fresh head says V = 0, which is the exact value of a student equal to its
    teacher. It reads the state and does not shape it: the errors of V, tens of nats at first, would drown
    what the decoder learns about its policy.
    """

    @nn.compact
    def __call__(self, hidden_BxTxD: jax.Array) -> jax.Array:
        kernel_D = self.param("kernel", nn.initializers.zeros, (hidden_BxTxD.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (), jnp.float32)
        return jax.lax.stop_gradient(hidden_BxTxD).astype(jnp.float32) @ kernel_D + bias
