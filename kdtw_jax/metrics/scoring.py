"""How texts are taken apart into words before they are scored: by the language of the references."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sacrebleu.metrics.bleu import BLEU

from kdtw_jax.errors import UserError
from kdtw_jax.text.language import main_language
from kdtw_jax.text.normal import normalize, words

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

BLEU_TOKENIZERS = tuple(BLEU.TOKENIZERS)
_OF_LANGUAGE = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
_OF_LANGUAGE |= dict.fromkeys(("th", "lo", "km", "my", "bo", "dz"), "char")  # no spaces between words
_EXTRAS = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}
_SUSPICIOUS = 100  # lines, as for sacrebleu


class Scoring(NamedTuple):
    """Tokenizers of the metrics that have words; by default those for English."""

    bleu: str = "13a"  # of BLEU_TOKENIZERS, which are sacrebleu's
    rouge: str = "rouge_score"  # or "unicode": words in any script, where rouge_score knows ASCII letters alone


ENGLISH = Scoring()


def choose_scoring(language: str, bleu: str = "") -> Scoring:
    """The tokenizers of BLEU and ROUGE for references in a language.

    BLEU has sacrebleu's tokenizer for Chinese, Japanese and Korean, characters for other languages without spaces
    between words, and 13a for all else; ROUGE has that of the rouge_score package for English, and Unicode for all
    else.

    Args:
      language: a code, "" if unknown.
      bleu: BLEU's tokenizer instead of that.
    """
    main = main_language(language)
    return Scoring(bleu or _OF_LANGUAGE.get(main, "13a"), "rouge_score" if main == "en" else "unicode")


@functools.cache
def bleu_metric(tokenizer: str) -> BLEU:
    """sacrebleu's BLEU with one of BLEU_TOKENIZERS; one for all, so that no reference is taken apart twice.

    Raises:
      UserError: an unknown name, or what the tokenizer needs is not installed or cannot be had.
    """
    if tokenizer not in BLEU_TOKENIZERS:
        raise UserError(f"unknown tokenizer of BLEU {tokenizer!r}; choose from {', '.join(BLEU_TOKENIZERS)}")
    try:
        return BLEU(tokenize=tokenizer)
    # Missing packages, another dictionary, a download that fails: each in its own way, one by ending the program.
    except (Exception, SystemExit) as error:
        if extra := _EXTRAS.get(tokenizer):
            raise UserError(
                f"BLEU's tokenizer {tokenizer} needs its dictionary: pip install '{extra}', "
                "or do without it by --eval.bleu-tokenizer char"
            ) from error
        raise UserError(
            f"BLEU's tokenizer {tokenizer} cannot be had ({' '.join(str(error).split()) or type(error).__name__}); "
            "check the network or choose another --eval.bleu-tokenizer"
        ) from error


def rouge_metric(name: str, tokenizer: str) -> RougeScorer:
    """rouge_score's ROUGE. Raises UserError for a tokenizer that is neither "rouge_score" nor "unicode"."""
    from rouge_score.rouge_scorer import RougeScorer  # which takes a second: not for whoever scores nothing by it
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return words(text)

    if tokenizer not in ("rouge_score", "unicode"):
        raise UserError(f"unknown tokenizer of ROUGE {tokenizer!r}; choose from rouge_score, unicode")
    return RougeScorer([name], use_stemmer=False, tokenizer=Words() if tokenizer == "unicode" else None)


def look_tokenized(references: Sequence[str]) -> bool:
    """Whether a hundred of them end in a full stop with a space before it: what sacrebleu warns of, as BLEU is meant
    for text that is written as people write it."""
    return sum(normalize(text).endswith(" .") for text in references) >= _SUSPICIOUS
