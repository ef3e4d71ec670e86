"""Why a clause is no rule: what it says that no rule can say."""

from __future__ import annotations

import re

from kdtw_jax.constraints.known import every_constraint

_AT_THE_MOST = "a rule says how much may be asked at the most"
_LEAST = (
    r"\b(?:at least|(?:no|not) (?:less|fewer|under|below)|minimum|min|or more|(?<!no )(?<!not )(?<!never )more than)\b|"
    r"\+"
)
_REASONS = [
    (re.compile(pattern), reason)
    for pattern, reason in (
        (
            r"\d%?(?: words?| times| calls)? ?(?:-|\.\.+|to|or|and|until) ?\d|\bbetween \d",
            f"is a range, and {_AT_THE_MOST}",
        ),
        (r"\d ?e ?[-+]?\d", "has a number with an exponent; write it out"),
        (r"\d(?:/| (?:in|out of|of|per) )0\b(?![.%])", "divides by 0"),
        (r"(?<!\d)-\d", "has a negative number"),
        (r"\d,\d", "has a number that can be read in two ways; write it in digits alone"),
        (
            _LEAST,
            f"says how much is to be asked at the least, and {_AT_THE_MOST}",
        ),
        (
            r"\b(?:about|around|roughly|approximately|approx|circa|ca|some|exactly|precisely|nearly|almost|several)\b|~",
            'sets no limit; say "at most"',
        ),
        (
            r"\b(?:characters?|letters?|bytes?|syllables?|sentences?|lines?|paragraphs?|per second|seconds|minutes?)\b",
            "counts what no rule does; rules count words",
        ),
        (r"\b(?:if|unless|except|or|when|unsure|needed|necessary)\b", "has a condition or a choice, which no rule has"),
        (r"\b(?:must|should|have to|need to|want|always)\b.*\d", 'may be a duty; say "at most"'),
        (r"^\D*\d+(?:\.\d+)?$", "does not say of what"),
    )
]  # fmt: skip


def refusal(said: str) -> str:
    """What is wrong with a clause, as `plain_text` gives it, that no known constraint understands."""
    for constraint in every_constraint():
        if constraint.wording.free(said) is not None:
            return f'is a rule on "{constraint.name}", which is not among those known here'
    return next((reason for pattern, reason in _REASONS if pattern.search(said)), "is not a rule that is understood")
