"""Checks a solution against what its problem asks for, sentence by sentence, also while it is still being written.

What is called right is exactly what the problem asks for, at its place; whatever else stands there is marked. Of a
problem that is not understood the arithmetic is all that can be checked, and nothing is called right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kdtw_jax.classroom.arithmetic import Calculation, calculations
from kdtw_jax.classroom.languages import GRAMMARS
from kdtw_jax.classroom.notation import NOTATIONS
from kdtw_jax.classroom.understanding import Understood
from kdtw_jax.classroom.workings import workings

What = Literal["calculation", "answer", "words"]
Verdict = Literal["right", "wrong", "unexpected", "unchecked"]
# A sentence ends at a full stop before a space: the points of "7.50" and "14.35" are none.
_SENTENCE = re.compile(r"\S(?:.*?)(?:\.(?= )|$)", re.DOTALL)
_STEP = re.compile(r"(?P<words>[^=]*?): (?P<body>.*)\.?", re.DOTALL)
_SIGNS = str.maketrans({"−": "-", "x": "×", "*": "×"})
_GOES_ON = re.compile(r"[.,:/]?\d| ?%")  # what makes another number of a result before it
_BINARY = re.compile(r"(\d+) ?([-+]) ?(\d+)")


@dataclass(frozen=True)
class Span:
    """A part of a solution, and what is to be thought of it."""

    start: int
    """characters from the beginning of the solution"""
    end: int
    what: What
    verdict: Verdict
    note: str = ""
    """what would be right, where it is not"""


@dataclass(frozen=True)
class Checked:
    """A solution that was looked through."""

    spans: tuple[Span, ...]
    """in order, apart from each other"""
    checked_to: int
    """characters that are checked for good: what is written after them changes none of their verdicts"""
    missing: tuple[str, ...]
    """calculations and the answer, if they do not come (yet)"""
    is_understood: bool
    """the problem is: what it asks for is known"""
    is_right: bool
    """all that the problem asks for stands there, in order, and nothing else; False while it is being written"""

    @property
    def is_answer_alone(self) -> bool:
        """The right answer stands there and nothing else: its steps miss."""
        return bool(self.missing) and [(span.what, span.verdict) for span in self.spans] == [("answer", "right")]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        spans = [
            {"start": span.start, "end": span.end, "what": span.what, "verdict": span.verdict, "note": span.note}
            for span in self.spans
        ]
        return {
            "spans": spans,
            "checked_to": self.checked_to,
            "missing": list(self.missing),
            "is_understood": self.is_understood,
            "is_right": self.is_right,
            "is_answer_alone": self.is_answer_alone,
        }


def check_solution(text: str, problem: Understood | None, *, finished: bool = True, language: str = "en") -> Checked:
    """Looks a solution through.

    Args:
      text: of the solution, or its beginning.
      problem: what is asked for; None: it is not known, and nothing is called right.
      finished: nothing comes any more. Otherwise the last sentence, which may go on, is not checked yet.
      language: of a solution whose problem is not known.
    """
    language = language if problem is None else problem.language
    mark = GRAMMARS[language].answer
    sentences = [(match.start(), match.end()) for match in _SENTENCE.finditer(text)]
    if not finished and sentences:
        sentences.pop()
    spans, step, answered = list[Span](), 0, False
    for start, end in sentences:
        sentence = text[start:end]
        if sentence.startswith(mark):
            spans.append(_answer_span(start, sentence, mark, problem, step, answered))
            answered = True
            continue
        found, counted = _sentence_spans(start, sentence, language, problem, step, answered)
        spans += found
        step += counted
    missing = _missing(problem, step, answered)
    is_right = problem is not None and finished and not missing and all(span.verdict == "right" for span in spans)
    to = sentences[-1][1] if sentences else 0
    return Checked(tuple(spans), len(text) if finished else to, missing, problem is not None, is_right)


def _missing(problem: Understood | None, step: int, answered: bool) -> tuple[str, ...]:
    if problem is None:
        return ()
    return (*problem.expressions[step:], *(() if answered else ("the answer",)))


def _answer_span(start: int, sentence: str, mark: str, problem: Understood | None, step: int, answered: bool) -> Span:
    """The answer line: right if it says what is asked, after all calculations."""
    end = start + len(sentence)
    said = sentence.removeprefix(mark).strip().removesuffix(".")
    if problem is None:
        return Span(start, end, "answer", "unchecked", "the problem is not understood: the answer is not checked")
    if said != problem.answer or not sentence.endswith("."):
        return Span(start, end, "answer", "wrong", f"right is {problem.answer}")
    if answered:
        return Span(start, end, "answer", "unexpected", "there is an answer already")
    return Span(start, end, "answer", "right")


def _sentence_spans(
    start: int, sentence: str, language: str, problem: Understood | None, step: int, answered: bool
) -> tuple[list[Span], int]:
    """Words and calculations of a sentence, and how many steps of the problem it takes the place of."""
    found = calculations(sentence, language)
    split = _STEP.fullmatch(sentence)
    expected = problem is not None and step < len(problem.results) and not answered
    if not found:
        why = _expectation(problem, step, answered)
        return [Span(start, start + len(sentence), "words", "unchecked" if problem is None else "unexpected", why)], 0
    # Without words, or with others than a step has, what stands before the first calculation is no step's words.
    words, body = (split["words"], split["body"]) if split else (sentence[: _begin(sentence, found[0])], "")
    words_end = start + (len(words) or _begin(sentence, found[0]))  # so that ": " alone is seen to have none
    if problem is None:
        spans = [Span(start, words_end, "words", "unchecked")]
    elif expected and words == problem.clauses[step]:
        spans = [Span(start, words_end, "words", "right")]
    else:
        note = f'the problem says "{problem.clauses[step]}"' if expected else _expectation(problem, step, answered)
        spans = [Span(start, words_end, "words", "unexpected", note)]
    is_alone = _is_alone(body, sentence, found)
    is_wanted = problem is not None and expected and is_alone and _comes_to(found, problem, step)
    if problem is not None and expected and body in _workings(problem, step):
        is_alone = is_wanted = True
    if problem is not None:
        why = _expectation(problem, step, answered)
    elif is_alone:
        why = "the arithmetic is right; whether the problem asks for it is not checked"
    else:
        why = "more stands here than calculations: this is not checked"
    for number, one in enumerate(found):
        begin = len(words) + len(": ") if is_wanted and not number else _begin(sentence, one)
        span = Span(start + begin, start + _end(one), "calculation", "right")
        if not _is_carried_out(one) or _GOES_ON.match(sentence, _end(one)):
            span = replace(span, verdict="wrong", note=_correction(one, problem, step, answered))
        elif problem is not None and one.written != one.result:  # as 042 or 7.5 for 7.50
            span = replace(span, verdict="unexpected", note=f"one writes {one.result}")
        elif not is_wanted:
            span = replace(span, verdict="unchecked" if problem is None else "unexpected", note=why)
        spans.append(span)
    after = _end(found[-1])
    if sentence[after:].strip(" ."):
        rest = Span(start + after, start + len(sentence), "words", "unchecked" if problem is None else "unexpected")
        spans.append(rest)
    return list(_apart(spans)), 1


def _correction(one: Calculation, problem: Understood | None, step: int, answered: bool) -> str:
    """What is right instead of a calculation that does not come out."""
    result = one.result
    wanted = problem.expressions[step] if problem is not None and step < len(problem.results) else ""
    if problem is None or _plain(one.expression, problem) == _plain(wanted, problem):
        return "this does not come out" if result is None else f"right is {result}"
    why = _expectation(problem, step, answered)
    return why if result is None else f"that is {result}, and {why}"


def _is_carried_out(one: Calculation) -> bool:
    """Whether the result is right, as a time too: 14:75 is none."""
    if match := re.fullmatch(r"(\d+):(\d+)", one.written):
        return one.is_right and int(match[1]) < 24 and int(match[2]) < 60
    return one.is_right


def _begin(sentence: str, one: Calculation) -> int:
    return sentence.rindex(one.expression, 0, one.start)


def _end(one: Calculation) -> int:
    return one.start + len(one.written)


def _is_alone(body: str, sentence: str, found: Sequence[Calculation]) -> bool:
    """Whether nothing but the calculations stands after the words."""
    return body == ", ".join(sentence[_begin(sentence, one) : _end(one)] for one in found) + "."


def _comes_to(found: Sequence[Calculation], problem: Understood, step: int) -> bool:
    """Whether calculations are the one that a step asks for, or two that do the same: over the next ten and back."""
    wanted = _plain(problem.expressions[step], problem)
    if len(found) == 1:
        return _plain(found[0].expression, problem) == wanted
    if len(found) != 2 or (meant := _BINARY.fullmatch(wanted)) is None:
        return False
    there, back = (_BINARY.fullmatch(_plain(one.expression, problem)) for one in found)
    if there is None or back is None or back[1] != found[0].written:
        return False
    # From the same number to the same result: where both come out, they do the same.
    return there[1] == meant[1] and found[1].written == problem.results[step]


def _plain(expression: str, problem: Understood) -> str:
    plain = NOTATIONS[problem.language].plain(expression)
    return re.sub(r" ?([-+×÷]) ?", r" \1 ", plain.translate(_SIGNS).replace(" : ", " ÷ "))


def _workings(problem: Understood, step: int) -> set[str]:
    """The ways in which a step's calculation is written, with a full stop."""
    notation = NOTATIONS[problem.language]
    ways = workings(notation.plain(problem.expressions[step]))
    return {f"{notation.written(way)}." for way in ways.values()}


def _expectation(problem: Understood | None, step: int, answered: bool) -> str:
    """What would stand there."""
    if problem is None:
        return "the problem is not understood: this is not checked"
    if answered:
        return "nothing comes after the answer"
    if step < len(problem.results):
        return f"the problem asks for {problem.expressions[step]} here"
    return "the answer comes here: there is nothing more to calculate"


def _apart(spans: Sequence[Span]) -> Iterator[Span]:
    """The spans that are not empty, in order; none begins before the one before it ends."""
    at = 0
    for span in spans:
        if span.end > max(span.start, at):
            yield Span(max(span.start, at), span.end, span.what, span.verdict, span.note)
            at = span.end
