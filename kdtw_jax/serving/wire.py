"""What goes over the wire: requests and answers in the form of OpenAI's API, and what is added of a teacher's help."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from kdtw_jax.answers import Answer
from kdtw_jax.errors import UserError
from kdtw_jax.serving.asking import Asking, Limits, read_limits
from kdtw_jax.serving.job import Done, Written

OWN = ("rule", "max_teacher_share", "max_teacher_calls", "guard", "account", "truncate", "calculator")
_TOGETHER = 32  # prompts of one request at the most
_FIELDS = 64  # of a body: the API has about 35
_NAME = 40  # characters of a field's name that are compared with the names of our own
_REFUSED: dict[
    str, tuple[object, ...]
] = {  # fields that ask for what there is not, and their values that ask for nothing
    "n": (None, 1),
    "best_of": (None, 1),
    "stop": (None, [], ""),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "functions": (None, []),
    "echo": (None, False),
    "suffix": (None, ""),
    "logit_bias": (None, {}),
}


@dataclass(frozen=True)
class Request:
    """What a client wants, as far as it can be read without the student."""

    texts: tuple[str, ...]
    system: str | None
    limits: Limits
    most: int | None
    """tokens of an output; None: as many as the student writes"""
    stream: bool
    include_usage: bool
    truncate: bool
    """of a text beyond the student's longest one the beginning is read; otherwise it is refused"""
    model: str | None
    chat: bool
    calculator: bool = False
    """the server's calculator writes results"""


def read_request(body: object, *, chat: bool) -> Request:
    """Reads a body of /v1/chat/completions, or of /v1/completions.

    Args:
      body: as JSON.
      chat: which of the two.

    Raises:
      UserError: what is wrong with it, and what would be right.
    """
    if not isinstance(body, Mapping):
        raise UserError("the body is a JSON object")
    for name, values in _REFUSED.items():
        if body.get(name) not in values:
            raise UserError(f"{name} is not supported; leave it out")
    if isinstance(body.get("response_format"), Mapping) and body["response_format"].get("type") != "text":
        raise UserError("response_format is not supported; leave it out")
    if len(body) > _FIELDS:
        raise UserError(f"the body has {len(body)} fields; at most {_FIELDS}")
    for name in body:
        if name not in OWN and (near := get_close_matches(str(name)[:_NAME], OWN, 1, 0.8)):
            raise UserError(f"{str(name)!r:.80} is no field; do you mean {near[0]}?")
    system = None
    texts: tuple[str, ...]
    if chat:
        text, system = _conversation(body.get("messages"))
        texts = (text,)
    else:
        prompt = body.get("prompt")
        texts = (prompt,) if isinstance(prompt, str) else tuple(prompt) if isinstance(prompt, list) else ()
        if not texts or not all(isinstance(text, str) for text in texts):
            raise UserError("prompt is a text or a list of texts")
        if len(texts) > _TOGETHER:
            raise UserError(f"{len(texts)} prompts; at most {_TOGETHER} in one request")
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    most = next((limit for limit in limits if limit is not None), None)
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise UserError(f"max_tokens is a whole number of at least 1, not {most!r:.80}")
    options = body.get("stream_options") or {}
    flags = {name: body.get(name) for name in ("stream", "truncate", "calculator")}
    flags["include_usage"] = options.get("include_usage") if isinstance(options, Mapping) else options
    for name, flag in flags.items():
        if flag is not None and not isinstance(flag, bool):
            raise UserError(f"{name} is true or false, not {flag!r:.80}")
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise UserError(f"model is a name, not {model!r:.80}")
    return Request(
        texts,
        system,
        read_limits(body),
        most,
        bool(flags["stream"]),
        bool(flags["include_usage"]),
        bool(flags["truncate"]),
        model,
        chat,
        bool(flags["calculator"]),
    )


def _conversation(messages: object) -> tuple[str, str | None]:
    """The last text of the user's, and the system's or developer's."""
    if not isinstance(messages, list) or not messages:
        raise UserError('messages is a list such as [{"role": "user", "content": "in 3 days"}]')
    user, system = None, list[str]()
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("system", "developer", "user", "assistant"):
            raise UserError("a message has a role (system, developer, user or assistant) and a content")
        if message["role"] == "user":
            user = _content(message.get("content"))
        elif message["role"] != "assistant":
            system.append(_content(message.get("content")))
    if user is None or messages[-1]["role"] != "user":
        raise UserError("the last message is the user's: it is what the student answers")
    return user, "\n".join(system) if system else None


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        parts = [part.get("text") for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    raise UserError("the content of a message is a text, or a list of parts of type text")


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's API says it.

    Args:
      message: one line.
      kind: of its types, such as "invalid_request_error".
      code: what programs look at.
      param: the field that is wrong.
    """
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def help_of(asking: Asking, answers: Sequence[Done]) -> dict[str, Any]:
    """What there is to say of the teacher's help in one request: `teacher_help`."""
    found = [done.answer for done in answers]
    length = sum(answer.length for answer in found)
    ledger = asking.ledger
    budget = {
        "rule": asking.said,
        "limits": {
            constraint.name: float(f"{float(budget):.6g}")
            for constraint, budget in zip(asking.rule.constraints, asking.rule.budgets, strict=True)
        },
        "from": asking.origin,
        "enforced": asking.guard,
        "max_calls": asking.calls if ledger is None else ledger.calls,
        "account_calls_left": None if ledger is None else ledger.left,
    }
    return {
        "calls": sum(answer.calls for answer in found),
        "tokens": sum(sum(answer.by_teacher) for answer in found),
        "positions": sum(answer.positions for answer in found),
        "share": round(sum(answer.helped for answer in found) / length, 4) if length else 0.0,
        "helped": sum(answer.helped for answer in found),
        "length": length,
        "calculator": sum(answer.by_calculator for answer in found),
        "unit": next((done.answer.unit for done in answers if not done.spent), "token"),
        "budget": budget,
        "assumed": list(asking.assumed),
        "degraded": any(done.degraded for done in answers),
    }


def usage_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Tokens read and written, of those the teacher's."""
    read, written = sum(answer.source_tokens for answer in answers), sum(len(answer.tokens) for answer in answers)
    details = {"teacher_tokens": sum(sum(answer.by_teacher) for answer in answers)}
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "completion_tokens_details": details,
    }


def _writer(written: Written) -> str:
    return "teacher" if written.asked else "calculator" if written.calculated else "student"


class Reply:
    """The answer to one request, whole or in chunks."""

    def __init__(self, request: Request, model: str):
        """Takes a name and a time.

        Args:
          request: which one.
          model: its name.
        """
        self._chat, self._model = request.chat, model
        self._id = f"{'chatcmpl' if request.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def _head(self, chunk: bool) -> dict[str, Any]:
        kind = "chat.completion" + (".chunk" if chunk else "") if self._chat else "text_completion"
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def whole(self, asking: Asking, answers: Sequence[Done]) -> dict[str, Any]:
        """All of it."""
        choices = []
        for index, done in enumerate(answers):
            text: dict[str, Any] = {"text": done.answer.text}
            if self._chat:
                text = {"message": {"role": "assistant", "content": done.answer.text, "refusal": None}}
            writers = [list(pair) for pair in done.answer.writers]
            choices.append(
                {"index": index, **text, "logprobs": None, "finish_reason": _reason(done), "writers": writers}
            )
        usage = usage_of([done.answer for done in answers])
        return {**self._head(False), "choices": choices, "usage": usage, "teacher_help": help_of(asking, answers)}

    def begin(self, index: int) -> dict[str, Any]:
        """The first chunk of a chat, which says whose turn it is.

        Args:
          index: of the choice.
        """
        delta = {"role": "assistant", "content": ""}
        return self._chunk({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})

    def chunk(self, index: int, text: str, piece: str, written: Written) -> dict[str, Any]:
        """A token.

        Args:
          index: of the choice.
          text: what is new of the text; empty while a character is not whole.
          piece: the token, as the vocabulary writes it.
          written: who wrote it.
        """
        part: dict[str, Any] = {"delta": {"content": text}} if self._chat else {"text": text}
        writers = [[piece, _writer(written)]]
        return self._chunk({"index": index, **part, "logprobs": None, "finish_reason": None, "writers": writers})

    def end(self, index: int, rest: str, done: Done, asking: Asking) -> dict[str, Any]:
        """The last chunk of a choice.

        Args:
          index: of the choice.
          rest: of the text.
          done: its output.
          asking: its rule.
        """
        delta = {"content": rest} if rest else {}
        part: dict[str, Any] = {"delta": delta} if self._chat else {"text": rest}
        choice = {"index": index, **part, "logprobs": None, "finish_reason": _reason(done), "writers": []}
        return {**self._chunk(choice), "teacher_help": help_of(asking, [done])}

    def usage(self, asking: Asking, answers: Sequence[Done]) -> dict[str, Any]:
        """The chunk after all others, if it is asked for."""
        usage = usage_of([done.answer for done in answers])
        return {**self._head(True), "choices": [], "usage": usage, "teacher_help": help_of(asking, answers)}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head(True), "choices": [choice]}


def _reason(done: Done) -> str:
    if done.spent:
        return "account_spent"
    return "stop" if done.finished else "length"
