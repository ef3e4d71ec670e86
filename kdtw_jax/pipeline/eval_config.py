"""What models are judged on and by: no part of what a run is, so that it may change from one evaluation to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdtw_jax.decoding.gates import compared_gates
from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.metrics.scores import check_metrics
from kdtw_jax.metrics.scoring import BLEU_TOKENIZERS
from kdtw_jax.ranges import check_ranges
from kdtw_jax.text.language import check_language


@dataclass(frozen=True)
class EvalConfig:
    """What models are judged on and by.

    Raises:
      UserError: values that cannot be.
    """

    split: Literal["validation", "test"] = "test"
    """what models are judged on; choose settings on validation"""
    limit: int = 0
    """pairs of it to judge on at the most; 0: all"""
    ask_limit: int = 0
    """of these, pairs that asking is judged on, in some 150 decodings of them; 0: all"""
    gates: tuple[str, ...] = ()
    """other gates that asking is judged beside, chance apart (entropy, max_prob, oracle_regret ...); by default all.
    The fewer, the fewer decodings; `kdtw compare` needs all"""
    look_ahead: bool = field(default=False, metadata=flags())
    """also judge the gates that look ahead, in some 75 decodings, many of which take ten times as long, and measure
    where help is worth most"""
    watch: int = field(default=0, metadata=flags())
    """texts of validation that a student writes at every checkpoint of its training, for learning curves; 0: none"""
    metrics: tuple[str, ...] = ()
    """of bleu, chrf, rouge1, rouge2, rougeL, exact_match, answer, long_way; by default those of the data (of files:
    bleu and chrf)"""
    language: str = ""
    """code of the targets' language (en, zh, pt_BR ...), by which scores take words apart; by default the data or their
    script says it"""
    bleu_tokenizer: str = ""
    """how BLEU takes texts apart: a tokenizer of sacrebleu (13a, intl, zh, ja-mecab, ko-mecab, char, flores200 ...); by
    default the language of the targets decides"""
    beam_size: int = 4
    """of the beam search by which the teacher is judged, too"""
    length_penalty: float = field(default=0.6, metadata=flags())
    """exponent of its length penalty ((5 + length) / 6)"""

    def __post_init__(self) -> None:
        check_ranges(self, "eval.", limit="[0, inf)", ask_limit="[0, inf)", watch="[0, inf)")
        check_ranges(self, "eval.", beam_size="[1, inf)", length_penalty="[0, inf)")
        for gate in self.gates:
            if gate not in compared_gates():
                raise UserError(f"eval.gates must be some of {', '.join(compared_gates())}, got {gate!r}")
        if self.metrics:
            check_metrics(self.metrics, "eval.metrics")
        check_language(self.language, "eval.language")
        if self.bleu_tokenizer and self.bleu_tokenizer not in BLEU_TOKENIZERS:
            known = ", ".join(BLEU_TOKENIZERS)
            raise UserError(f"eval.bleu_tokenizer must be one of {known}, got {self.bleu_tokenizer!r}")
