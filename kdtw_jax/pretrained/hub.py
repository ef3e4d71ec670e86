"""Published models by name, through `huggingface_hub` and its cache; the only module that knows it."""

from __future__ import annotations

from pathlib import Path

from kdtw_jax.data.added_tokens import ADDED, FAST, SPECIAL
from kdtw_jax.data.added_tokens import CONFIG as TOKENIZER
from kdtw_jax.data.tokenizer import PIECES
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained.layout import CONFIG
from kdtw_jax.pretrained.tensors import INDEX, SINGLE

PREFIX = "hf:"
_VOCABULARY = (PIECES, FAST, TOKENIZER, ADDED, SPECIAL)
_WEIGHTS = (SINGLE, INDEX, "model-*-of-*.safetensors")  # pickled weights are never even fetched


def fetch(name: str, *, offline: bool = False, weights: bool = True) -> Path:
    """Returns the local folder of a model of the hub, fetched unless it is in the cache.

    What an interrupted fetch has left there is continued.

    Args:
      name: `hf:NAME` or `hf:NAME@REVISION`.
      offline: look into the cache alone, as the environment variable HF_HUB_OFFLINE does.
      weights: without them, only what says what the model is.

    Raises:
      UserError: the library is not installed, the name is none, nothing is cached, or the network or the hub says no.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UserError(f"{name} needs the library huggingface_hub: pip install huggingface_hub") from None
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        found = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[CONFIG, *_VOCABULARY, *(_WEIGHTS if weights else ())],
            local_files_only=offline,
        )
    except HFValidationError as error:
        raise UserError(f"{name} is no name of a model; it has to be like hf:google/flan-t5-small") from error
    except LocalEntryNotFoundError as error:
        where = "and --offline was given" if offline else "and the hub cannot be reached"
        raise UserError(
            f"{name} is not in the local cache {where}; fetch it with a network, or give the path of a folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot fetch {name}: {said}; the same command continues, or give a folder's path") from error
    return Path(found)
