"""vLLM's OpenAI-compatible server as a teacher, by `/v1/completions` with token ids.

After vLLM's documentation of that API (https://docs.vllm.ai/en/v0.28.0/serving/online_serving/openai_compatible_server/
and its `CompletionRequest`); not tried against a running one. `return_token_ids` gives ids of prompts and outputs,
`return_tokens_as_token_ids` names those of `logprobs` "token_id:5"; `prompt_logprobs` says the log-probabilities of a
prompt's own tokens beside the most probable ones, so that a row is read in one call. They have to be those of the model
(`--logprobs-mode raw_logprobs`, the default). There are at most `--max-logprobs` of them, 20 by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.teachers.engines import PROBE, EngineIds, check_probe, check_room, check_rows, ended, log_prob, read_model
from kdtw_jax.teachers.protocol import Prefix, RowScores, TeacherAbout, TopTokens
from kdtw_jax.teachers.replies import read_object
from kdtw_jax.teachers.requests import ENGINE_ROWS, check_generate, check_next, check_score
from kdtw_jax.teachers.resilience import Endpoint, UnfitReply

T = TypeVar("T")
_TAKES = "the server's model (--max-model-len) takes"
ROWS = ENGINE_ROWS["vllm"]
_NEVER = -100.0  # the lowest bias of OpenAI's API; what is written is looked through
_NAMED = "token_id:"
_DIGITS = 10  # of an id at the most


class VllmTeacher:
    """A `Teacher` behind vLLM's server, whose prefix cache serves for sessions."""

    def __init__(self, endpoint: Endpoint, tokenizer: Tokenizer, *, max_top_k: int = 20):
        """Asks the server what it has.

        Args:
          endpoint: of the server.
          tokenizer: of its model, of ours.
          max_top_k: what it was started with (`--max-logprobs`).

        Raises:
          TeacherUnavailable: nobody answers there.
          UserError: its model has another vocabulary, as far as that shows.
        """
        self._endpoint = endpoint
        self._name, self._room = endpoint.ask("GET", "/v1/models", _read_model)
        self._ids = EngineIds(tokenizer, None)
        body = {"model": self._name, "prompt": PROBE, "add_special_tokens": False}
        check_probe(tokenizer, endpoint.ask("POST", "/tokenize", read_object, json=body).get("tokens"), endpoint.url)
        hashed = vocabulary_hash(tokenizer)
        self._about = TeacherAbout(self._name, hashed, tokenizer.vocab_size, True, min(max_top_k, tokenizer.vocab_size))

    @property
    def about(self) -> TeacherAbout:
        """What it is."""
        return self._about

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        """The distributions of the next tokens, `top_k` log-probabilities of each, in nats."""
        check_next(self.about, prefixes, top_k)
        prompts = [self._ids.prompt(prefix) for prefix in prefixes]
        check_room(prompts, 1, self._room, _TAKES)

        def read(choice: dict[str, Any], place: int) -> TopTokens:
            said = choice.get("logprobs")
            tops = said.get("top_logprobs") if isinstance(said, dict) else None
            if not isinstance(tops, list) or len(tops) != 1 or not isinstance(tops[0], dict):
                raise UnfitReply("it has no log-probabilities of one token")
            return self._ids.top([(_number(name, _NAMED), value) for name, value in tops[0].items()], top_k)

        return self._ask(prompts, read, max_tokens=1, logprobs=top_k, return_tokens_as_token_ids=True)

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        """Log-probabilities of the tokens after each prefix, and of the `top_k` most probable ones, in nats."""
        check_score(self.about, prefixes, tokens, top_k)
        prompts = [self._ids.prompt(prefix, row) for prefix, row in zip(prefixes, tokens, strict=True)]
        check_room(prompts, 1, self._room, _TAKES)

        def read(choice: dict[str, Any], place: int) -> RowScores:
            count, prompt = len(tokens[place]), prompts[place]
            said = choice.get("prompt_logprobs")
            if not isinstance(said, list) or len(said) != len(prompt):
                raise UnfitReply("it has not a log-probability of each token of the prompt")
            shown = [] if not count else list(zip(prompt, said, strict=True))[-count:]
            return self._read_row(shown, top_k)

        # It writes a token, too, since it has to.
        return self._ask(prompts, read, max_tokens=1, prompt_logprobs=top_k)

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        """Greedy continuations of at most `max_len` tokens, none of them `banned`."""
        check_generate(self.about, prefixes, max_len, banned)
        prompts = [self._ids.prompt(prefix) for prefix in prefixes]
        check_room(prompts, max_len, self._room, _TAKES)
        bias = {str(i): _NEVER for i in sorted(self._ids.known(banned))}
        rows: list[list[int]] = [[] for _ in prefixes]
        # Its default ends of texts may be others: then a row goes on.
        while left := [i for i, row in enumerate(rows) if not ended(row, max_len)]:
            room = min(max_len - len(rows[i]) for i in left)
            so_far = [[*prompts[i], *self._ids.there(rows[i])] for i in left]
            more = {"ignore_eos": True, "stop_token_ids": [self._ids.eos], "logit_bias": bias}

            def read(choice: dict[str, Any], place: int, room: int = room) -> list[int]:
                return self._read_written(choice, room)

            for i, further in zip(left, self._ask(so_far, read, max_tokens=room, **more), strict=True):
                rows[i] += further
        check_rows(self._endpoint.url, rows, max_len, banned, self.about.vocab_size)
        return rows

    def close(self) -> None:
        """Closes the connections."""
        self._endpoint.close()

    def _read_row(self, shown: Sequence[tuple[int, Any]], top_k: int) -> RowScores:
        """Of tokens with what is said of their places."""
        log_probs, tops = [], []
        for token, said in shown:
            pairs = {_number(name, ""): _value(entry) for name, entry in _items(said)}
            if token not in pairs:
                raise UnfitReply("a token of the prompt has no log-probability")
            log_probs.append(log_prob(pairs[token]))
            tops.append(self._ids.top(list(pairs.items()), top_k) if top_k else None)
        shape = (len(shown), top_k)
        ids = [top.ids_K for top in tops if top is not None]
        values = [top.log_probs_K for top in tops if top is not None]
        return RowScores(
            np.asarray(log_probs, np.float32),
            np.asarray(ids, np.int32).reshape(shape),
            np.asarray(values, np.float32).reshape(shape),
        )

    def _read_written(self, choice: dict[str, Any], room: int) -> list[int]:
        tokens, why = choice.get("token_ids"), choice.get("finish_reason")
        if not isinstance(tokens, list) or why not in ("stop", "length"):
            raise UnfitReply(f"it does not say its tokens, or ended for another reason, {why!r}")
        row = [self._ids.here(token) for token in tokens]
        if why == "stop" and choice.get("stop_reason") == self._ids.eos and tokens[-1:] != [self._ids.eos]:
            row.append(self._ids.here(self._ids.eos))
        if not 1 <= len(row) <= room or (why == "length" and len(row) < room):
            raise UnfitReply("it has not as many tokens as it should")
        return row

    def _ask(self, prompts: list[list[int]], read: Callable[[dict[str, Any], int], T], **more: Any) -> list[T]:
        """What is read of the choice of each prompt, at its place."""
        found: list[T] = []
        for start in range(0, len(prompts), ROWS):
            some = prompts[start : start + ROWS]
            request = {
                "model": self._name,
                "prompt": some,
                "temperature": 0.0,
                "add_special_tokens": False,
                "return_token_ids": True,
                "n": 1,
                **more,
            }

            def reads(body: bytes, some: list[list[int]] = some, start: int = start) -> list[T]:
                choices = _choices(body, some)
                return [read(choice, start + place) for place, choice in enumerate(choices)]

            found += self._endpoint.ask("POST", "/v1/completions", reads, json=request)
        return found


def _choices(body: bytes, prompts: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Of each prompt its own, in order, all of it read."""
    choices = read_object(body).get("choices")
    if not isinstance(choices, list) or len(choices) != len(prompts) or not all(isinstance(c, dict) for c in choices):
        raise UnfitReply(f"not the answers to {len(prompts)} prompts")
    if [choice.get("index") for choice in choices] != list(range(len(prompts))):
        raise UnfitReply("its answers are in another order")
    if any(choice.get("prompt_token_ids") != list(prompt) for choice, prompt in zip(choices, prompts, strict=True)):
        raise UnfitReply("it read another prompt, or does not say which (return_token_ids needs vLLM 0.10.2 or newer)")
    return choices


def _items(said: Any) -> list[tuple[str, Any]]:
    if not isinstance(said, Mapping):
        raise UnfitReply("a place has no log-probabilities")
    return list(said.items())


def _value(entry: Any) -> Any:
    return entry.get("logprob") if isinstance(entry, Mapping) else None


def _number(name: str, before: str) -> int:
    number = name.removeprefix(before)
    if not name.startswith(before) or not (number.isascii() and number.isdigit() and len(number) <= _DIGITS):
        raise UnfitReply(f"{name[:40]!r} names no token")
    return int(number)


def _read_model(body: bytes) -> tuple[Any, ...]:
    """Name and longest row."""
    return read_model(body, "vLLM", lambda model: (model["max_model_len"],))
