"""What the labels of a teacher at an address cost in questions, said before it is asked any."""

from __future__ import annotations

import math
from typing import NamedTuple

from kdtw_jax.data.batches import make_buckets
from kdtw_jax.methods import find
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.teacher_cache import reads_rows_elsewhere, wanted
from kdtw_jax.teachers.ahead import rows_at_once
from kdtw_jax.teachers.named import PLACE_BY_PLACE
from kdtw_jax.teachers.requests import ENGINE_ROWS

OUTPUTS = 1000  # for which it is said
_ROWS = 64  # of a request to kdtw serve-teacher


class Questions(NamedTuple):
    """For some outputs of the longest length, of the longest sources."""

    writing: int  # requests
    scoring: int
    positions: int  # tokens that the teacher reads or writes, padding left out


def questions(address: str, outputs: int, max_source: int, max_target: int, top_k: int) -> Questions:
    """Counts what writing and reading `outputs` takes.

    An engine that goes place by place has a request for each token of a score. Where it still holds what stood before,
    each reads one token, so that positions are the same.

    Args:
      address: which says what kind of server it is.
      outputs: how many.
      max_source: tokens of each source.
      max_target: tokens of each output.
      top_k: log-probabilities of a place; 0: outputs are not read.
    """
    by_place, most = engine_of(address) in PLACE_BY_PLACE, rows_of(address)
    at_once = min(most, rows_at_once(max_target, top_k))
    scoring = outputs * max_target if by_place else math.ceil(outputs / at_once)
    passes = 2 if top_k else 1
    writing = outputs if by_place else math.ceil(outputs / most)
    return Questions(writing, scoring if top_k else 0, outputs * passes * (max_source + max_target))


def engine_of(address: str) -> str:
    """The engine of others that an `address` names; "" is kdtw serve-teacher."""
    return address.partition("://")[0].rpartition("+")[0]


def rows_of(address: str) -> int:
    """How many rows a request holds to the server at an `address`, at the most."""
    return ENGINE_ROWS.get(engine_of(address), _ROWS)


def elsewhere_lines(config: Experiment) -> list[str]:
    """Says what the teacher of a run at an address is asked, for each set of labels; none where it is here."""
    found, text, address = list[str](), config.text, str(config.teacher_model)
    if not config.teacher_elsewhere:
        return found
    how_read = "place by place, a request for each token" if address.startswith(PLACE_BY_PLACE) else "a row in one call"
    for how, kept in dict.fromkeys(one for method in config.methods for one in wanted(config, method)):
        top_k = kept.top_k if kept else 0
        asked = questions(address, OUTPUTS, text.max_source, text.max_target, top_k)
        read = f", {asked.scoring} to read them ({how_read})" if top_k else ""
        found.append(
            f"the teacher at {address} is asked, for {OUTPUTS} {how} outputs of the longest length: {asked.writing} "
            f"requests to write them{read}; {asked.positions} positions"
        )
    bucket = make_buckets(text.max_source, text.max_target, text.batch_tokens, text.buckets)[-1]
    for method in filter(lambda name: reads_rows_elsewhere(config, name), config.methods):
        kept, cost = find(method).rows_kept(config.of(method)), find(method).cost(config.of(method))
        steps, at_rest = config.training.loop.steps, cost.at_rest * cost.further_steps
        rows = round(((cost.teacher + cost.helped) * steps + at_rest) * bucket.rows)
        asked = questions(address, rows, *bucket[:2], kept.top_k if kept else 0)
        found.append(
            f"and while a student of {method} is trained, to read up to {rows} rows: {asked.scoring or rows} requests "
            f"({how_read}), for which it waits; {rows * sum(bucket[:2])} positions"
        )
        if writings := math.ceil(cost.writings * steps + at_rest):
            tokens = writings * bucket.target * math.ceil(bucket.rows / rows_of(address))
            found.append(
                f"and while it writes with help, up to {tokens} requests for next tokens (one after the other, of all "
                f"rows that ask there), for which it waits, too; up to {writings * bucket.rows * sum(bucket[:2])} "
                "positions"
            )
    return found
