"""A teacher over HTTP: what `kdtw serve-teacher` runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kdtw_jax.teachers import wire
from kdtw_jax.teachers.batching import Batcher, Full
from kdtw_jax.teachers.http import PROTOCOL
from kdtw_jax.teachers.protocol import Prefix, Teacher, TeacherUnavailable
from kdtw_jax.teachers.requests import check_generate, check_next, check_score

_KNOWN = 128  # requests whose answers are kept, for those who did not get them; those in work come on top
_KEPT = 2**20  # bytes of such an answer at the most; longer ones are made again
_LISTS = 16  # of a message, beside its prefixes and rows


@dataclass(frozen=True)
class Limits:
    """What a server takes."""

    body_bytes: int = 2**24
    """of a request"""
    rows: int = 64
    """prefixes of a request, and of a batch"""
    waiting: int = 256
    """prefixes that wait; who comes then is told to come again"""
    tokens: int = 4096
    """of a prefix with what is asked about it"""
    top_k: int = 1024
    """log-probabilities of a place"""
    numbers: int = 2**22
    """log-probabilities of an answer, in all"""
    retry_s: int = 1
    """after which those who are told to come again shall"""


class _Refused(Exception):
    def __init__(self, status: int, said: str):
        super().__init__(said)
        self.status = status


def make_app(teacher: Teacher, limits: Limits = Limits(), hosts: Sequence[str] = ("*",)) -> Starlette:
    """The application; it answers while its lifespan lasts, and leaves the teacher open.

    A request that comes again, byte for byte, joins the one before it or has its answer.

    Args:
      teacher: who answers, asked by one thread.
      limits: what is taken.
      hosts: names that requests may be addressed to; others are refused, so that no web page reaches a server of the
        same machine under a name of its own.
    """
    about = replace(teacher.about, max_top_k=min(teacher.about.max_top_k, limits.top_k))
    batcher = Batcher(teacher, rows=limits.rows, waiting=limits.waiting)
    known: OrderedDict[bytes, asyncio.Task[list[Any]]] = OrderedDict()

    async def say_about(request: Request) -> Response:
        return JSONResponse({"protocol": PROTOCOL, **asdict(about), "rows": limits.rows})

    async def say_health(request: Request) -> Response:
        told = {"waiting": batcher.waiting, "answered": batcher.answered, "batches": batcher.batches}
        return JSONResponse({"status": "ok", **told})

    async def next_token(message: dict[str, Any], prefixes: list[Prefix]) -> list[Any]:
        top_k = wire.unpack_number(message.get("top_k"))
        _check_size(limits, [len(p.source) + len(p.written) for p in prefixes], [top_k] * len(prefixes))
        check_next(about, prefixes, top_k)
        return wire.pack_top(await batcher.next_token(prefixes, top_k))

    async def score(message: dict[str, Any], prefixes: list[Prefix]) -> list[Any]:
        top_k = wire.unpack_number(message.get("top_k"))
        rows = wire.unpack_rows(message.get("tokens"), limits.rows, limits.tokens)
        lengths = [len(p.source) + len(p.written) + len(row) for p, row in zip(prefixes, rows, strict=False)]
        _check_size(limits, lengths, [len(row) * (top_k + 1) for row in rows])
        check_score(about, prefixes, rows, top_k)
        return wire.pack_scores(await batcher.score(prefixes, rows, top_k))

    async def generate(message: dict[str, Any], prefixes: list[Prefix]) -> list[Any]:
        max_len = wire.unpack_number(message.get("max_len"))
        banned = wire.unpack_ids(message.get("banned"), about.vocab_size)
        _check_size(limits, [len(p.source) + len(p.written) + max_len for p in prefixes], [0])
        check_generate(about, prefixes, max_len, banned)
        return [wire.pack_ids(row) for row in await batcher.generate(prefixes, max_len, banned)]

    def answers(work: Callable[[dict[str, Any], list[Prefix]], Awaitable[list[Any]]]) -> Callable[..., Any]:
        async def answer(body: bytes) -> list[Any]:
            message = wire.unpack(body, 4 * limits.rows + _LISTS)
            prefixes = wire.unpack_prefixes(message.get("prefixes"), limits.rows, limits.tokens)
            if any(prefix.session.startswith("\0") for prefix in prefixes):
                raise _Refused(400, "a session's name begins with NUL")
            return await work(message, prefixes)

        async def endpoint(request: Request) -> Response:
            try:
                body = await _body(request, limits.body_bytes)
                key = hashlib.blake2b(request.url.path.encode() + b"\n" + body).digest()
                if (task := known.get(key)) is None:
                    task = known[key] = asyncio.create_task(answer(body))
                    done = [key for key, one in known.items() if one.done()]
                    for old in done[: max(len(known) - _KNOWN, 0)]:
                        del known[old]
                try:
                    found = await asyncio.shield(task)
                except BaseException:
                    if task.done():  # failures are not kept
                        known.pop(key, None)
                    raise
                content = wire.pack({"vocabulary": about.vocabulary, "model": about.model, "answers": found})
                if len(content) > _KEPT:
                    known.pop(key, None)
                return Response(content, media_type=wire.MEDIA_TYPE)
            except _Refused as error:
                return PlainTextResponse(str(error), error.status)
            except ClientDisconnect:
                return PlainTextResponse("gone", 400)
            except Full as error:
                return PlainTextResponse(str(error), 429, {"retry-after": str(limits.retry_s)})
            except TeacherUnavailable as error:
                return PlainTextResponse(str(error), 503, {"retry-after": str(limits.retry_s)})
            except wire.TooLong as error:
                return PlainTextResponse(str(error), 413)
            except ValueError as error:  # `Malformed` is one
                return PlainTextResponse(str(error), 400)

        return endpoint

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()
        for task in known.values():
            task.cancel()
        await asyncio.gather(running, *known.values(), return_exceptions=True)

    works = {"next_token": next_token, "score": score, "generate": generate}
    routes = [Route("/about", say_about), Route("/health", say_health)]
    routes += [Route(f"/v1/{name}", answers(work), methods=["POST"]) for name, work in works.items()]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan)


async def _body(request: Request, most: int) -> bytes:
    # Of web pages, none may send this type to another site without being asked first (Fetch, "CORS protocol").
    if request.headers.get("content-type") != wire.MEDIA_TYPE:
        raise _Refused(415, f"send {wire.MEDIA_TYPE}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise _Refused(413, f"a request has {most} bytes at the most")
    return bytes(body)


def _check_size(limits: Limits, lengths: Sequence[int], numbers: Sequence[int]) -> None:
    if (longest := max(lengths, default=0)) > limits.tokens:
        raise _Refused(413, f"{longest} tokens in one row; a row has {limits.tokens} at the most, answers included")
    if sum(numbers) > limits.numbers:
        raise _Refused(413, f"the answer would have {sum(numbers)} numbers; ask for less at a time")
