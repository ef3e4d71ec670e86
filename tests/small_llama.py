"""A small published decoder-only model: a folder with weights, a vocabulary of byte pairs and a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = ["the red house and the tree", "a small house", "the tree is red\n", "Ünïcode, 1234 trees", "  two  spaces"]
SPECIAL = ["<|end|>", "<|start|>", "<|stop|>", "<|unused_a|>", "<|unused_b|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|stop|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def make_tokenizer(special: list[str] = SPECIAL) -> str:
    """A `tokenizer.json`."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokens: Any = [AddedToken(text, special=True, normalized=False) for text in special]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        3 * TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=tokens, initial_alphabet=alphabet)
    )
    return str(made.to_str())


def write_vocabulary(folder: Path, template: str = TEMPLATE, **stated: Any) -> int:
    """Writes it, and what belongs to it; returns how many tokens there are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(make_tokenizer(), encoding="utf8")
    config = {"eos_token": "<|stop|>", "pad_token": "<|stop|>", "bos_token": "<|start|>", "chat_template": template}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", **stated}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf8")
    return int(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size())


def write_model(folder: Path, kind: str = "llama", seed: int = 0, **sizes: Any) -> Any:
    """A random model of `transformers` with that vocabulary, saved there."""
    import torch
    import transformers

    rows = write_vocabulary(folder)
    usual = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
    usual |= {"num_key_value_heads": 2, "vocab_size": rows, "tie_word_embeddings": True, "head_dim": 8}
    stated = transformers.AutoConfig.for_model(kind, **{**usual, **sizes}, eos_token_id=2, bos_token_id=1)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(stated, attn_implementation="eager").eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(tensor + 0.2 * torch.randn(tensor.shape))
    model.save_pretrained(folder)
    return model
