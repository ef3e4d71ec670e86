"""The vocabulary of a decoder-only model in the Hugging Face layout."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from kdtw_jax.data.added_tokens import CONFIG, FAST, read_object, read_stated
from kdtw_jax.data.chat import Chat
from kdtw_jax.data.cutters import open_cutter
from kdtw_jax.data.further_tokens import with_further_tokens
from kdtw_jax.data.prompt_vocabulary import make_vocabulary, saved
from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, PIECES, Tokenizer, load_vocabulary, open_tokenizer
from kdtw_jax.errors import UserError, told_of
from kdtw_jax.models import CausalConfig
from kdtw_jax.pretrained.causal_layout import write_causal
from kdtw_jax.pretrained.own_vocabulary import is_own, own_vocabulary_files
from kdtw_jax.runs.atomic import explained
from kdtw_jax.text.normal import without_surrogates

TEMPLATE = "chat_template.jinja"
MODEL, GENERATION = "config.json", "generation_config.json"


def load_prompt_vocabulary(folder: Path, rows: int) -> Tokenizer:
    """Reads `tokenizer.json`, and what `tokenizer_config.json` and `chat_template.jinja` say of it.

    A vocabulary that was trained here, and exported with a model, is read of its `spiece.model`.

    Args:
      folder: of the model.
      rows: of its embedding.

    Raises:
      UserError: there is no `tokenizer.json`, a file is damaged, or the chat template fails.
    """
    if (folder / PIECES).is_file() and is_own(own := load_vocabulary(folder)):
        return own.padded_to(rows)
    file = folder / FAST
    if not file.is_file():
        raise UserError(f"{folder} has no {FAST}, which holds a vocabulary; add the model's own")
    stated = read_object(folder / CONFIG)
    jinja = folder / TEMPLATE
    template = _text_of(jinja) if jinja.is_file() else stated.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((_of(entry, "template") for entry in template if _of(entry, "name") == "default"), template)
    template = "" if template is None else template
    if not isinstance(template, str) or without_surrogates(template) != template:
        raise UserError(
            f"{folder / CONFIG} has a chat_template that is no text, nor several of which one is the default; give the "
            "model's own"
        )
    tokens = {name: _content(folder / CONFIG, f"{name}_token", stated) for name in ("bos", "eos", "pad")}
    begins = stated.get("add_bos_token")
    if not isinstance(begins, bool | None):
        raise UserError(f"{folder / CONFIG} has add_bos_token {reprlib.repr(begins)}; it has to be true or false")
    chat = Chat(template, tokens["bos"], tokens["eos"])
    proto = _fast_file(file)
    place = {text: i for i, text in open_cutter("json", proto, str(file)).special.items()}
    with told_of(folder):
        kept = make_vocabulary(
            "json",
            proto,
            str(file),
            rows=rows,
            chat=chat,
            eos=place.get(tokens["eos"]),
            pad=place.get(tokens["pad"]),
            begins=begins,
        )
    return open_tokenizer(kept, str(file))


def check_beside(file: Path, tokenizer: Tokenizer, rows: int) -> None:
    """Checks that a `tokenizer.json` beside a GGUF file, if there is one, is of the vocabulary that the file states.

    Without a `tokenizer_config.json` nothing else says how the model is prompted, and tokens are compared alone.

    Args:
      file: the GGUF file.
      tokenizer: of what it states.
      rows: of the model's embedding.

    Raises:
      UserError: they differ, in what; or as `load_prompt_vocabulary` does.
    """
    beside, known = file.parent / FAST, tokenizer.prompts
    if known is None or not beside.is_file():
        return
    if (file.parent / CONFIG).is_file():
        other = load_prompt_vocabulary(file.parent, rows)
    else:
        other = open_tokenizer(saved("json", known.ids, known.chat, _fast_file(beside)), str(beside))
    if differs := tokenizer.difference(other):
        raise UserError(
            f"{file} and the {FAST} beside it have different vocabularies (there: the GGUF file, here: {FAST}): "
            f"{differs}; put the model's own beside it, or none"
        )


def _fast_file(file: Path) -> bytes:
    """A `tokenizer.json` with the tokens that files beside it add."""
    with explained(file, "read"):
        return with_further_tokens(file.read_bytes(), read_stated(file.parent, beside_fast=True), str(file))


def causal_files(config: CausalConfig, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The JSON files beside the vocabulary of an exported decoder-only model, by name.

    What is never written is suppressed there too, so that `transformers` generates the same tokens.

    Raises:
      UserError: the vocabulary is none of a decoder-only model's nor one that was trained here, or as `write_causal`
        does.
    """
    known = tokenizer.prompts
    if is_own(tokenizer):
        ids = {"pad_token_id": PAD_ID, "eos_token_id": EOS_ID}
        banned = [int(i) for i in tokenizer.banned_ids]
        return {
            MODEL: {**write_causal(config), **ids},
            GENERATION: {**ids, "suppress_tokens": banned, "renormalize_logits": True},
            **own_vocabulary_files(tokenizer),
        }
    if known is None or tokenizer.published_ids is None:
        raise UserError(
            "a decoder-only model with the vocabulary of a T5 model or of bytes has no Hugging Face layout; one that "
            "began as a published model has, and one whose vocabulary was trained here"
        )
    published, pieces = tokenizer.published_ids, known.cutter.pieces
    ids = {"pad_token_id": known.ids.pad, "eos_token_id": known.ids.eos}
    if known.chat.bos in pieces:
        ids["bos_token_id"] = pieces.index(known.chat.bos)
    banned = sorted(int(published[i]) for i in tokenizer.banned_ids)
    stated: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": known.chat.begin}
    stated |= {f"{name[:-9]}_token": pieces[i] for name, i in ids.items() if i < len(pieces)}
    stated |= {"chat_template": known.chat.template} if known.chat.template else {}
    return {
        MODEL: {**write_causal(config), **ids},
        GENERATION: {**ids, "suppress_tokens": banned, "renormalize_logits": True},
        CONFIG: stated,
    }


def _of(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None


def _content(file: Path, name: str, stated: dict[str, Any]) -> str:
    """Of a token, which is a text or has one; "" where there is none."""
    token = stated.get(name)
    found = _of(token, "content") if isinstance(token, dict) else token
    if found is None and not isinstance(token, dict):
        return ""
    if not isinstance(found, str) or without_surrogates(found) != found:
        raise UserError(f"{file} has {name} {reprlib.repr(token)}; it has to be a text or to have a content")
    return found


def _text_of(file: Path) -> str:
    try:
        with explained(file, "read"):
            return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file} is damaged: not UTF-8; fetch or write it again") from None
