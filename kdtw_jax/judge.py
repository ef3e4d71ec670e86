"""What a student's answers are worth, by the metrics of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdtw_jax.answers import Answers
from kdtw_jax.data.pairs import Given, read_pairs
from kdtw_jax.data.task import Task
from kdtw_jax.errors import UserError
from kdtw_jax.metrics.scores import Score, score_all
from kdtw_jax.metrics.scoring import choose_scoring
from kdtw_jax.runs.progress import Progress
from kdtw_jax.student import Keeping, Student


@dataclass(frozen=True)
class Evaluation:
    """Scores by metric, 0 to 100 with 95% bootstrap intervals over pairs, and the answers they are of."""

    scores: Mapping[str, Score]
    answers: Answers
    rule: str | None

    @property
    def share(self) -> float:
        """The teacher's part of the words, or tokens, 0 to 1."""
        return self.answers.share

    def __repr__(self) -> str:
        lines = [f"{s.name} {s.value:.1f} ({s.low:.1f} to {s.high:.1f})" for s in self.scores.values()]
        return "\n".join(
            [*lines, f"{len(self.answers)} pairs; the teacher wrote {self.share:.1%} of the {self.answers.noun}"]
        )


def evaluate(
    student: Student,
    data: Task | Given,
    rule: str | None = None,
    *,
    split: str = "test",
    metrics: Sequence[str] | None = None,
    limit: int | None = None,
    guard: bool = True,
    account: Keeping = "output",
) -> Evaluation:
    """Writes an answer for every source of a task's split (or of text pairs) and scores it against the target.

    Args:
      student: of `kdtw_jax.load` or `kdtw_jax.training`.
      data: a task, or (source, target) pairs.
      rule: when to ask the teacher; by default never.
      split: of the task; choose settings on validation.
      metrics: by default the task's; for pairs bleu and chrf.
      limit: pairs at the most, the first ones.
      guard: as in `Student.stream`.
      account: as in `Student.stream`.

    Raises:
      UserError: no such split or metric, no pairs, and as `Student.stream` does.
    """
    if isinstance(data, Task):
        if split not in data.splits:
            raise UserError(f"split must be one of {', '.join(sorted(data.splits))}, got {split!r}")
        pairs, wanted, language = data.splits[split], tuple(metrics or data.metrics), data.language
    else:
        pairs, wanted, language = read_pairs(data, "data"), tuple(metrics or ("bleu", "chrf")), ""
    chosen = [pairs[i] for i in range(len(pairs) if limit is None else min(limit, len(pairs)))]
    if not chosen:
        raise UserError("there are no pairs to evaluate on; give some")
    answers = []
    with Progress("writing", total=len(chosen)) as progress:
        for answer in student.stream([pair["source"] for pair in chosen], rule, guard=guard, account=account):
            answers.append(answer)
            progress.update(len(answers))
    written, references = [answer.text for answer in answers], [pair["target"] for pair in chosen]
    scores = score_all(wanted, written, references, scoring=choose_scoring(language))
    return Evaluation({score.name: score for score in scores}, Answers(answers), rule)
