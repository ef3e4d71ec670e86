"""How a run finds its text and cuts it into pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kdtw_jax.data.features import Features
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.data.vocabulary_training import MOST_PIECES
from kdtw_jax.flags import flags
from kdtw_jax.ranges import check_ranges

# What are flags of these.
FILES = flags(
    "train_source",
    "train_target",
    "validation_source",
    "validation_target",
    "test_source",
    "test_target",
    "source_key",
    "target_key",
    "held_out",
    "instruction",
)
FEATURES = flags("source", "target", "train", "validation", "test")


@dataclass(frozen=True)
class TextConfig:
    """How text is found and cut into pieces."""

    folder: Path = Path("runs/data")
    """where prepared data is kept between runs"""
    files: FileSpec = field(default_factory=FileSpec, metadata=FILES)
    """the files of --data files"""
    features: Features = field(default_factory=Features, metadata=FEATURES)
    """feature names for --data tfds:NAME, where they cannot be derived"""
    limit: int = 0
    """training pairs at the most; 0: all"""
    tokenizer: Path | None = None
    """a sentencepiece model to use, such as T5's spiece.model, or a tokenizer.json, or byt5 for bytes; by default that
    of --teacher-model or --student-model, and without these one trained on the training split"""
    vocab_size: int = 4000
    """pieces of the vocabulary trained here"""
    character_coverage: float = 1.0
    """share of the characters of the text that become pieces of it, 0.9 to 1; below 1 only for scripts of thousands of
    characters, of which the rarest are then unknown"""
    whole_words: bool = field(default=False, metadata=flags())
    """frequent words and numbers are pieces of it whole, apart from punctuation: for text of few different words"""
    max_source: int = 32
    """longest source, in pieces, end of sequence included"""
    max_target: int = 32
    """longest target, in pieces, end of sequence included"""
    on_long: Literal["truncate", "drop", "error"] = "drop"
    """what happens to longer pairs; whatever it is, they are counted and the counts printed"""
    instruct: bool = False
    """put the task's instruction ("translate English to German: ") before the source"""
    batch_tokens: int = 1024
    """positions in a batch, counted on its longer side"""
    buckets: int = 2
    """static shapes that batches come in"""

    def __post_init__(self) -> None:
        check_ranges(self, "text.", limit="[0, inf)")
        check_ranges(self, "text.", max_source="[2, inf)", max_target="[2, inf)", character_coverage="[0.98, 1]")
        check_ranges(self, "text.", batch_tokens="[1, inf)", buckets="[1, inf)", vocab_size=f"[1, {MOST_PIECES}]")
