"""The HTTP side of a server: routes, refusals, streams."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kdtw_jax.constraints import read_rule
from kdtw_jax.errors import UserError
from kdtw_jax.serving.asking import Asking, open_account, read_asking
from kdtw_jax.serving.classroom import PROBLEMS, SOLVE, CheckedReply, Reach, problems_of
from kdtw_jax.serving.engine import Busy, Engine
from kdtw_jax.serving.job import Done
from kdtw_jax.serving.ledger import AccountSpent, Ledgers
from kdtw_jax.serving.metrics import CONTENT_TYPE, Metrics
from kdtw_jax.serving.page import FILES, Page, page_file
from kdtw_jax.serving.stream import EventStream, Gone, Work, unless_gone
from kdtw_jax.serving.wire import Reply, Request, error_body, read_request

RULE_HEADER = "X-KDTW-Rule"
_LOG = logging.getLogger("kdtw_jax.serving")
_GONE = 499  # as nginx has it: the client closed the connection
_ALONE = 4  # texts that the teacher writes for the page, the one that is written included
_KNOWN_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")


_MakeReply = Callable[[Request, str], Reply]


@dataclass(frozen=True)
class Serving:
    """Settings of a server."""

    model: str
    """the name that clients call it by"""
    rule: str | None = None
    """of requests that say none, in words; None: not to ask"""
    api_key: str = ""
    """that clients have to have; "": none"""
    max_body: int = 1 << 20
    """bytes of a request"""
    accounts: int = 1024
    """that are kept at the most"""
    hosts: tuple[str, ...] = ("*",)
    """names by which clients may call the server"""
    log_prompts: bool = False
    """texts stand in the log"""
    classroom: Reach = ""
    """which word problems of `kdtw_jax.classroom` the student solves: none, small ones, all"""
    language: str = "en"
    """that these are in"""


class _Refused(Exception):
    """A reply in place of an answer."""

    def __init__(self, status: int, body: dict[str, Any], **headers: str):
        self.response = JSONResponse(body, status, {name.replace("_", "-"): said for name, said in headers.items()})


def make_app(engine: Engine, settings: Serving, page: Page | None = None) -> Starlette:
    """The application of an engine, which is closed with it.

    Args:
      engine: who writes.
      settings: of the server.
      page: of the server, at /; None: there is none.

    Raises:
      UserError: the rule is not understood.
    """
    if settings.rule is not None:
        if engine.student.teacher is None:
            raise UserError("this student did not learn to ask: leave the rule out")
        read_rule(settings.rule, engine.student.constraints)
    server = _Server(engine, settings, page)
    routes = [
        Route("/v1/chat/completions", server.endpoint(partial(server.complete, chat=True)), methods=["POST"]),
        Route("/v1/completions", server.endpoint(server.complete), methods=["POST"]),
        Route("/v1/models", server.endpoint(server.models)),
        Route("/v1/models/{name:path}", server.endpoint(server.models)),
        Route("/metrics", server.endpoint(server.metrics_text)),
        Route("/health", server.health),
    ]
    if settings.classroom:
        routes.append(Route(PROBLEMS, server.endpoint(server.problems), methods=["POST"]))
        solve = partial(server.complete, reply=partial(CheckedReply, language=settings.language))
        routes.append(Route(SOLVE, server.endpoint(solve), methods=["POST"]))
    if page is not None:
        routes += [Route(path, page_file) for path in ("/", *(f"/{name}" for name in FILES))]
        routes.append(Route("/page.json", server.endpoint(server.page_facts)))
        routes.append(Route("/page/teacher", server.endpoint(server.teacher_alone), methods=["POST"]))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts), www_redirect=False)
    return Starlette(
        routes=routes,
        middleware=[hosts],
        lifespan=lifespan,
        exception_handlers={404: _no_route, 405: _no_route},
    )


async def _no_route(request: HTTPRequest, error: Any) -> Response:
    said = f"{request.method} {request.url.path} is not served; known are {', '.join(_KNOWN_PATHS)}"
    return JSONResponse(error_body(said, "invalid_request_error", "not_found"), error.status_code)


def _as_sent(header: str | None) -> str | None:
    """A header that was read as Latin-1, in UTF-8 where it is that: clients send either."""
    try:
        return None if header is None else header.encode("latin-1").decode("utf8")
    except UnicodeError:
        return header


class _Server:
    """The endpoints."""

    def __init__(self, engine: Engine, settings: Serving, page: Page | None):
        self._engine, self._settings, self._page = engine, settings, page
        self._ledgers, self._metrics = Ledgers(settings.accounts), Metrics(engine)
        self._alone_turn, self._alone_waiting = asyncio.Semaphore(1), 0

    def endpoint(
        self, answer: Callable[[HTTPRequest], Awaitable[Response]]
    ) -> Callable[[HTTPRequest], Awaitable[Response]]:
        """An endpoint that asks for the key, says what is wrong as OpenAI's API does, and is counted."""

        async def wrapped(request: HTTPRequest) -> Response:
            try:
                self._check_key(request)
                response = await answer(request)
            except _Refused as refused:
                response = refused.response
            except UserError as error:
                response = JSONResponse(error_body(str(error), "invalid_request_error"), 400)
            except AccountSpent as error:  # which trying again does not change
                said = error_body(str(error), "insufficient_quota", "account_spent")
                response = JSONResponse(said, 429, {"x-should-retry": "false"})
            except Busy as error:
                response = JSONResponse(error_body(str(error), "server_error", "busy"), 503, {"retry-after": "1"})
            except (Gone, ClientDisconnect):
                self._metrics.gone()
                response = Response(status_code=_GONE)
            except Exception:
                _LOG.exception("a request failed")
                self._metrics.failed()
                response = JSONResponse(error_body("the server failed at this request", "server_error"), 500)
            path = request.url.path
            self._metrics.answered(path if path in (*_KNOWN_PATHS, PROBLEMS, SOLVE) else "other", response.status_code)
            return response

        return wrapped

    def _check_key(self, request: HTTPRequest) -> None:
        key = self._settings.api_key
        said = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(said.encode("utf8", "replace"), key.encode("utf8", "replace")):
            wrong = error_body("the API key is missing or wrong", "invalid_request_error", "invalid_api_key")
            raise _Refused(401, wrong, www_authenticate="Bearer")

    async def health(self, _: HTTPRequest) -> Response:
        """Whether requests are taken."""
        is_open = self._engine.is_open
        said = {
            "status": "ok" if is_open else "closing",
            "active": self._engine.active,
            "waiting": self._engine.waiting,
        }
        return JSONResponse(said, 200 if is_open else 503)

    async def metrics_text(self, _: HTTPRequest) -> Response:
        """The numbers for Prometheus."""
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def models(self, request: HTTPRequest) -> Response:
        """The one model, alone or as a list."""
        name = self._settings.model
        one = {"id": name, "object": "model", "created": 0, "owned_by": "kdtw_jax"}
        if "name" not in request.path_params:
            return JSONResponse({"object": "list", "data": [one]})
        self._check_model(request.path_params["name"])
        return JSONResponse(one)

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self._settings.model):
            said = f"the model {name!r:.80} is not served; this is {self._settings.model!r}"
            raise _Refused(404, error_body(said, "invalid_request_error", "model_not_found", "model"))

    async def page_facts(self, _: HTTPRequest) -> Response:
        """What the page shows before anything is written."""
        assert self._page is not None
        settings, calculator = self._settings, self._engine.tool is not None
        return JSONResponse(self._page.facts(settings.model, settings.rule, settings.classroom, calculator=calculator))

    async def teacher_alone(self, http: HTTPRequest) -> Response:
        """The teacher's own answer, for the page."""
        assert self._page is not None
        body = await self._body(http)
        if self._alone_waiting >= _ALONE:
            raise Busy(f"{_ALONE} texts wait for the teacher alone already; try again in a second")
        self._alone_waiting += 1
        try:
            text = await unless_gone(self._alone(self._page, body), http.receive)
        finally:
            self._alone_waiting -= 1
        return JSONResponse({"text": text})

    async def _alone(self, page: Page, body: object) -> str:
        """The teacher's own answer, in turn. Who leaves is not written for, but what is begun keeps its turn."""
        await self._alone_turn.acquire()
        writing = asyncio.ensure_future(asyncio.to_thread(page.teacher_writes, body))

        def next_turn(done: asyncio.Future[str]) -> None:
            self._alone_turn.release()
            if not done.cancelled():
                done.exception()  # which is of no interest where the client has left

        writing.add_done_callback(next_turn)
        return await asyncio.shield(writing)

    async def problems(self, http: HTTPRequest) -> Response:
        """Word problems to a person's wishes."""
        body = await self._body(http)
        return JSONResponse(
            await asyncio.to_thread(problems_of, body, self._settings.classroom, self._settings.language)
        )

    async def complete(self, http: HTTPRequest, *, chat: bool = False, reply: _MakeReply = Reply) -> Response:
        """An answer, whole or as a stream."""
        begun = time.monotonic()
        # What takes as long as a text is long has a thread, so that others are answered meanwhile.
        body, header = await self._body(http), _as_sent(http.headers.get(RULE_HEADER))
        while True:
            request, asking, encoded = await asyncio.to_thread(self._read, body, header, chat)
            if asking.account is None or self._ledgers.find(asking.account) in (None, asking.ledger):
                break  # else another request has opened the account meanwhile, and its rule is to be read
        if self._settings.log_prompts:
            _LOG.info("prompts %r under the rule %r", request.texts, asking.said)
        # From here on to the jobs there is no await, so that nobody's account is forgotten between the two.
        asking = open_account(asking, self._ledgers)
        work = Work(self._engine, request, asking, asyncio.get_running_loop())
        finish = partial(self._finish, begun, work)
        try:
            work.begin(encoded)
            if request.stream:
                await work.first(http.receive)
                return EventStream(work, reply(request, self._settings.model), finish)
            answers = await work.all(http.receive)
        except BaseException:
            work.cancel()
            self._metrics.spent(work.jobs)
            raise
        finish(answers)
        return JSONResponse(reply(request, self._settings.model).whole(asking, answers))

    def _finish(self, begun: float, work: Work, end: Sequence[Done] | Exception) -> None:
        self._metrics.spent(work.jobs)
        if isinstance(end, Gone):
            self._metrics.gone()
        elif isinstance(end, Exception):
            self._metrics.failed()
        else:
            self._metrics.written(end, time.monotonic() - begun)

    def _read(
        self, body: object, header: str | None, chat: bool
    ) -> tuple[Request, Asking, list[tuple[list[int], int]]]:
        """A request, its rule and its texts in tokens; all that can be wrong with it alone is found."""
        request, student = read_request(body, chat=chat), self._engine.student
        self._check_model(request.model)
        given = {"header": header, "system": request.system, "default": self._settings.rule}
        asking = read_asking(student, request.limits, self._ledgers, **given)
        if len(request.texts) > self._engine.room:
            raise UserError(f"{len(request.texts)} prompts; this server takes at most {self._engine.room} at a time")
        encoded = [student.encode(text) for text in request.texts]
        if request.calculator and self._engine.tool is None:
            raise UserError("this server has no calculator: leave calculator out")
        for source, cut in encoded:
            if cut and not request.truncate:
                said = (
                    f"the text has {len(source) + cut} tokens with its instruction, and the student reads "
                    f"{student.max_source}; shorten it, or send truncate: true to have its beginning read"
                )
                raise _Refused(400, error_body(said, "invalid_request_error", "context_length_exceeded"))
        return request, asking, encoded

    async def _body(self, http: HTTPRequest) -> object:
        """The body as JSON. Only what says to be JSON is read: a browser asks before it sends that elsewhere."""
        if not http.headers.get("content-type", "").lower().startswith("application/json"):
            raise _Refused(
                415, error_body("the body is JSON: send content-type: application/json", "invalid_request_error")
            )
        most, parts, size = self._settings.max_body, list[bytes](), 0
        async for part in http.stream():
            size += len(part)
            if size > most:
                said = f"the body has more than {most} bytes"
                raise _Refused(413, error_body(said, "invalid_request_error", "body_too_large"), connection="close")
            parts.append(part)
        try:
            return json.loads(b"".join(parts))
        except (ValueError, RecursionError) as error:
            raise UserError(f"the body is no JSON: {error!s:.200}") from None
