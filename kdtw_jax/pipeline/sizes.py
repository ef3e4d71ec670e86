"""How large the models of each preset are; a family makes its configs from that."""

from __future__ import annotations

from typing import Any, Literal

from kdtw_jax.models import Size, find_family

Preset = Literal["tiny", "quickstart", "ways", "small", "wide", "smollm", "base", "paper"]

# Teacher and student. Those of base and paper are published ones of T5; smollm's stand for SmolLM2-135M and six of its
# layers.
SIZES: dict[str, tuple[Size, Size]] = {
    "tiny": (Size(32, 4, 1), Size(16, 2, 1)),
    "quickstart": (Size(128, 4, 2), Size(64, 4, 1)),
    "classroom": (Size(128, 4, 2), Size(64, 4, 2)),
    "ways": (Size(128, 4, 2), Size(48, 3, 1)),
    "small": (Size(192, 6, 3, dropout_rate=0.2), Size(80, 4, 1)),
    "wide": (Size(384, 6, 6, dropout_rate=0.2), Size(80, 4, 1)),
    "smollm": (Size(576, 9, 15), Size(576, 9, 3)),
    "base": (Size(768, 12, 12, dropout_rate=0.1), Size(512, 6, 8)),
    "paper": (Size(2048, 32, 24, dropout_rate=0.1, dtype="bfloat16"), Size(512, 6, 8, dtype="bfloat16")),
}


def models(preset: str, family: str = "t5") -> dict[str, Any]:
    """Teacher and student of a preset, by these names; the vocabulary is filled in from the tokenizer.

    Raises:
      UserError: for a family that nobody has registered.
    """
    teacher, student = map(find_family(family).sized, SIZES[preset])
    return {"teacher": teacher, "student": student}
