"""Servers of others as they are documented, with distributions that are drawn from the prompt.

llama.cpp: tools/server/README.md ("POST /completion", "GET /props") and what build 11434 was seen to do. vLLM:
https://docs.vllm.ai/en/v0.28.0/serving/online_serving/openai_compatible_server/ and its `CompletionRequest`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.teachers.resilience import Endpoint, Patience

PATIENCE = Patience(attempts=2, failures=50)


class Engine:
    """What both have in common. `spoil` may change a reply."""

    def __init__(self, tokenizer: Tokenizer, rows: int):
        self.tokenizer, self.rows = tokenizer, rows
        assert tokenizer.published_ids is not None
        self.published = tokenizer.published_ids
        self.eos = int(self.published[1])
        self.requests: list[tuple[str, Any]] = []
        self.spoil: Callable[[Any], Any] = lambda value: value

    def log_probs(self, prompt: list[int]) -> np.ndarray:
        logits = 3 * np.random.RandomState(zlib.crc32(repr(prompt).encode())).standard_normal(self.rows)
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    def ours(self, prompt: list[int]) -> np.ndarray:
        """Likewise by our ids, -inf for those that the engine has not."""
        theirs = self.log_probs(prompt)
        return np.asarray([theirs[there] if there < self.rows else -np.inf for there in self.published])

    def endpoint(self) -> Endpoint:
        transport = httpx.MockTransport(self._handle)
        return Endpoint("http://engine", PATIENCE, transport=transport, sleep=lambda _: None)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.requests.append((request.url.path, body))
        try:
            return httpx.Response(200, json=self.spoil(self.answer(request.url.path, body)))
        except ValueError as error:
            return httpx.Response(400, json={"error": str(error)})

    def answer(self, path: str, body: Any) -> Any:
        raise NotImplementedError

    def _cut(self, text: str) -> list[int]:
        return [int(self.published[i]) for i in self.tokenizer.encode(text)]

    def _greedy(self, prompt: list[int], count: int, bias: dict[int, float], stops: set[int]) -> list[int]:
        row: list[int] = []
        while len(row) < count and row[-1:] not in [[stop] for stop in stops]:
            logits = self.log_probs([*prompt, *row])
            for i, value in bias.items():
                logits[i] += value
            row.append(int(logits.argmax()))
        return row


class LlamaCpp(Engine):
    """`partial`: tokens that are no whole characters, which have no entry; `ends`: further ends of texts."""

    partial: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()

    def answer(self, path: str, body: Any) -> Any:
        if path == "/props":
            return {"total_slots": 2, "default_generation_settings": {"n_ctx": 64}}
        if path == "/v1/models":
            return {"data": [{"id": "small", "meta": {"n_vocab": self.rows, "n_ctx": 64}}]}
        if path == "/tokenize":
            return {"tokens": self._cut(body["content"])}
        assert path == "/completion"
        replies = [self._complete(i, prompt, body) for i, prompt in enumerate(body["prompt"])]
        return replies[0] if len(replies) == 1 else replies

    def _complete(self, index: int, prompt: list[int], body: Any) -> Any:
        bias = {i: -np.inf if value is False else value for i, value in body["logit_bias"]}
        stops = {self.eos, *self.ends}
        row = self._greedy(prompt, body["n_predict"], bias, stops)
        places = []
        for at, token in enumerate(row):
            log_probs = self.log_probs([*prompt, *row[:at]])
            top = np.argsort(-log_probs)[: body["n_probs"]].tolist()
            tops = [{"id": i, "token": "?", "bytes": [], "logprob": log_probs[i]} for i in top]
            if token not in self.partial:
                places.append({"id": token, "token": "?", "logprob": log_probs[token], "top_logprobs": tops})
        reply = {"index": index, "content": "?", "tokens": row if body["return_tokens"] else [], "truncated": False}
        reply |= {"tokens_evaluated": len(prompt), "stop_type": "eos" if row[-1] in stops else "limit"}
        return {**reply, "completion_probabilities": places} if body["n_probs"] else reply


class Vllm(Engine):
    """`ends`: further ends of texts, by its own settings."""

    ends: frozenset[int] = frozenset()

    def answer(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "small", "object": "model", "max_model_len": 64}]}
        if path == "/tokenize":
            tokens = self._cut(body["prompt"])
            return {"count": len(tokens), "max_model_len": 64, "tokens": tokens}
        assert path == "/v1/completions" and body["temperature"] == 0.0
        choices = [self._complete(i, prompt, body) for i, prompt in enumerate(body["prompt"])]
        return {"id": "cmpl-1", "object": "text_completion", "model": "small", "choices": choices}

    def _complete(self, index: int, prompt: list[int], body: Any) -> Any:
        bias = {int(i): value for i, value in body.get("logit_bias", {}).items()}
        stops = {*body.get("stop_token_ids", []), *self.ends}
        row = self._greedy(prompt, body["max_tokens"], bias, stops)
        stopped = bool(row) and row[-1] in stops
        choice: dict[str, Any] = {"index": index, "text": "?", "finish_reason": "stop" if stopped else "length"}
        choice |= {"stop_reason": row[-1] if stopped else None, "logprobs": None, "prompt_logprobs": None}
        choice |= {"token_ids": row, "prompt_token_ids": prompt}
        if (count := body.get("logprobs")) is not None:
            log_probs = self.log_probs(prompt)
            top = {f"token_id:{i}": log_probs[i] for i in {*np.argsort(-log_probs)[:count].tolist(), row[0]}}
            choice["logprobs"] = {"tokens": [f"token_id:{row[0]}"], "top_logprobs": [top], "text_offset": [0]}
        if (count := body.get("prompt_logprobs")) is not None:
            said: list[Any] = [None]
            for at in range(1, len(prompt)):
                log_probs = self.log_probs(prompt[:at])
                ids = {*np.argsort(-log_probs)[:count].tolist(), prompt[at]}
                said.append({str(i): {"logprob": log_probs[i], "rank": 1, "decoded_token": "?"} for i in ids})
            choice["prompt_logprobs"] = said
        return choice
