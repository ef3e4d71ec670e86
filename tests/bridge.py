"""An application of ours behind a client, without a network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette


class Bridge(httpx.BaseTransport):
    """Hands requests to an application in another thread; `meddle` may change or refuse them and their replies."""

    def __init__(self, portal: BlockingPortal, app: Starlette):
        self._portal, self._inner = portal, httpx.ASGITransport(app)
        self.meddle: Callable[[httpx.Request, Callable[[], httpx.Response]], httpx.Response] = lambda _, go: go()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.meddle(request, lambda: self._portal.call(self._handle, request))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        again = httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
        reply = await self._inner.handle_async_request(again)
        return httpx.Response(reply.status_code, headers=reply.headers, content=await reply.aread())


@contextlib.contextmanager
def bridged(app: Starlette) -> Iterator[Bridge]:
    """The application while it runs."""
    with start_blocking_portal() as portal:
        life: Any = portal.wrap_async_context_manager(app.router.lifespan_context(app))
        with life:
            yield Bridge(portal, app)
