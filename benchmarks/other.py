"""The same networks in other libraries."""

from __future__ import annotations

from typing import Any

import jax

from kdtw_jax.models import T5Config


def torch_device() -> str:
    """Where the others compute: where JAX does."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def torch_t5(config: T5Config) -> Any:
    """A T5 of `transformers` of the same architecture and sizes with random weights, in float32."""
    import torch
    from transformers import T5Config as TheirConfig
    from transformers import T5ForConditionalGeneration

    settings: dict[str, Any] = {  # some are known to a base class only, by no signature
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "dropout_rate": config.dropout_rate,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "feed_forward_proj": config.feed_forward,
        "tie_word_embeddings": config.tie_embeddings,
        "decoder_start_token_id": 0,
    }
    torch.manual_seed(0)
    network: Any = T5ForConditionalGeneration(TheirConfig(**settings))
    return network.to(torch_device())


def torch_llama(config: T5Config, length: int) -> Any:
    """A decoder-only model of `transformers` near to a T5: as wide, with as many layers as its encoder and decoder have
    together, and gated feed-forward blocks of as many parameters, for texts of `length` tokens. Random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": 2 * config.d_ff // 3,
        "num_hidden_layers": config.num_layers + config.num_decoder_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": length,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,  # outputs have their full length
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**settings))


def word_tokenizer(size: int) -> Any:
    """A tokenizer of `transformers` with that many made-up words, for trainers that want one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w2"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1", unk_token="w2")
