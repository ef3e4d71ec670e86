"""What a request waits for: its outputs as they are written, whole or as events, unless its client leaves before."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kdtw_jax.answers import Answer
from kdtw_jax.serving.asking import Asking
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.job import Done, Event, Failed, Job, Written
from kdtw_jax.serving.ledger import AccountSpent
from kdtw_jax.serving.wire import Reply, Request, error_body

_LOG = logging.getLogger("kdtw_jax.serving")


class Gone(Exception):
    """The client went away."""


class Work:
    """The jobs of one request, and what comes of them on the side of the event loop."""

    def __init__(self, engine: Engine, request: Request, asking: Asking, loop: asyncio.AbstractEventLoop):
        """None yet: `begin` hands them in.

        Args:
          engine: who writes.
          request: of which texts.
          asking: under which rule.
          loop: where it is waited for them.
        """
        self.student, self.request, self.asking = engine.student, request, asking
        self._engine, self._events = engine, asyncio.Queue[tuple[int, Event]]()
        self._first: list[tuple[int, Event]] = []
        self.jobs: list[Job] = []
        self._loop = loop

    def begin(self, encoded: Sequence[tuple[list[int], int]]) -> None:
        """Hands the jobs in; errors as for `Engine.submit`, and then those before are to be cancelled.

        Args:
          encoded: the texts, as `Student.encode` gives them.
        """
        put, request = self._events.put_nowait, self.request

        def deliver(index: int, event: Event) -> None:
            if isinstance(event, Written) and not request.stream:
                return
            self._loop.call_soon_threadsafe(put, (index, event))

        for index, (text, source) in enumerate(zip(request.texts, encoded, strict=True)):
            try:
                listen = partial(deliver, index)
                job = self._engine.submit(
                    text, self.asking, listen, request.most, source, calculator=request.calculator
                )
            except AccountSpent as error:
                if not index:
                    raise
                put((index, Failed(error)))
            else:
                self.jobs.append(job)

    def cancel(self) -> None:
        """Calls off what is not finished."""
        for job in self.jobs:
            if not job.over:
                self._engine.cancel(job)

    async def next(self) -> tuple[int, Event]:
        """What happens next, and to which text.

        Of several texts those whose account is spent at their turn are `Done` with nothing written: what the others got
        is not thrown away.
        """
        index, event = self._first.pop() if self._first else await self._events.get()
        texts = self.request.texts
        if len(texts) > 1 and isinstance(event, Failed) and isinstance(event.error, AccountSpent):
            event = Done(Answer(texts[index], ""), False, False, spent=True)
        return index, event

    async def first(self, receive: Receive) -> None:
        """Waits for the first event: what fails before it is a status of its own."""
        event = await unless_gone(self.next(), receive)
        if isinstance(event[1], Failed):
            raise event[1].error
        self._first.append(event)

    async def all(self, receive: Receive) -> list[Done]:
        """All outputs, in the order of their texts."""
        return await unless_gone(self._all(), receive)

    async def _all(self) -> list[Done]:
        answers: dict[int, Done] = {}
        while len(answers) < len(self.request.texts):
            index, event = await self.next()
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done):
                answers[index] = event
        return [answers[index] for index in range(len(answers))]


async def unless_gone(work: Any, receive: Receive) -> Any:
    """What is awaited, unless the client goes away before.

    Raises:
      Gone: it went.
    """
    wanted, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((wanted, gone), return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        raise Gone
    finally:
        for task in (wanted, gone):
            task.cancel()
        await asyncio.gather(wanted, gone, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events: a chunk for each token, with its writer."""

    media_type = "text/event-stream"

    def __init__(self, work: Work, reply: Reply, finish: Callable[[Sequence[Done] | Exception], None]):
        """Makes the head of it.

        Args:
          work: what is written.
          reply: in which form.
          finish: called at the end with the outputs, or with why there are none: `Gone`, or what failed.
        """
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._work, self._reply, self._finish = work, reply, finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        end: list[Done] | Exception = Gone()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            end = await unless_gone(self._chunks(send), receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (Gone, OSError):
            end = Gone()
        except Exception as error:
            end = error
            raise
        finally:
            self._work.cancel()
            self._finish(end)

    async def _chunks(self, send: Send) -> list[Done] | Exception:
        work, reply = self._work, self._reply
        request, texts = work.request, [_Growing(work.student.model.tokenizer.decode) for _ in work.request.texts]
        answers: dict[int, Done] = {}

        async def say(said: object) -> None:
            body = f"data: {said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)}\n\n"
            await send({"type": "http.response.body", "body": body.encode("utf8", "replace"), "more_body": True})

        if request.chat:
            for index in range(len(texts)):
                await say(reply.begin(index))
        while len(answers) < len(texts):
            index, event = await work.next()
            if isinstance(event, Failed):
                _LOG.warning("a stream failed: %s", event.error)
                await say(error_body(f"the output cannot be finished: {event.error}", "server_error"))
                return event.error
            if isinstance(event, Done):
                answers[index] = event
                await say(reply.end(index, texts[index].rest(event.answer.text), event, work.asking))
            else:
                new = texts[index].add(event.token)
                await say(reply.chunk(index, new, work.student.pieces[event.token], event))
        ordered = [answers[index] for index in range(len(texts))]
        if request.include_usage:
            await say(reply.usage(work.asking, ordered))
        await say("[DONE]")
        return ordered


class _Growing:
    """The text of an output as it grows: what was said of it is never taken back."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode, self._tokens, self._said = decode, list[int](), ""

    def add(self, token: int) -> str:
        """What is new with a token, "" while it may still change."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith("\ufffd") or not text.startswith(self._said):
            return ""
        new, self._said = text[len(self._said) :], text
        return new

    def rest(self, text: str) -> str:
        """What is left of the whole text."""
        return text[len(self._said) :] if text.startswith(self._said) else ""
