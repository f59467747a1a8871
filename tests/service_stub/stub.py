"""The stub in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.service_stub.faults import Faults
from tests.service_stub.http_wire import Connection, HttpRequest
from tests.service_stub.replies import Answerer
from tests.service_stub.service import Service, StubSettings

BACKLOG = 1024


class Listener:
    """The sockets of a service, in the running loop. It can go down and come back on its port."""

    def __init__(self, service: Service, port: int = 0) -> None:
        self.service, self.port = service, port
        self._server: asyncio.Server | None = None
        self._opened: set[Connection] = set()

    async def up(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self.service.handle, self._opened),
            "127.0.0.1",
            self.port,
            backlog=BACKLOG,
            reuse_address=True,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """No new connections, and those that are open break."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._opened):
            if connection.transport is not None:
                connection.transport.abort()


class ServiceStub:
    """A real HTTP server on loopback that speaks the Messages and the chat-completions protocols.

        with ServiceStub(faults=Faults(rates={"429": 0.1})) as stub:
            RoleModel(provider="anthropic", model="claude-stub", base_url=stub.url)
            RoleModel(provider="openai_compatible", model="m", base_url=stub.openai_url)

    `answer(body)` gives what is answered (text, an object sent as JSON, or a Reply); it runs in the
    stub's thread. See StubSettings for the rest. `billed` counts the completions billed by the
    digest of their body (`digest_of`), `requests` holds every request as it arrived, `down()` and
    `up()` let the service die and come back.
    """

    def __init__(
        self,
        faults: Faults | None = None,
        answer: Answerer | None = None,
        *,
        key: str | None = None,
        journal: Path | str | None = None,
        latency_s: float = 0.0,
        headers: dict[str, str] | None = None,
        batch_polls: int = 1,
        port: int = 0,
    ) -> None:
        self.service = Service(
            StubSettings(
                faults or Faults(), answer, key, journal, latency_s, headers or {}, batch_polls
            )
        )
        self._listener = Listener(self.service, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> ServiceStub:
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.service.billing.close()

    @property
    def url(self) -> str:
        """Base URL of the Messages API."""
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def openai_url(self) -> str:
        """Base URL of the chat-completions API."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[HttpRequest]:
        return self.service.requests

    @property
    def billed(self) -> Counter[str]:
        return self.service.billing.counts()

    @property
    def billed_entries(self) -> list[dict[str, Any]]:
        """digest, time, fault ("ok" where the answer was sent whole) and batch of each."""
        return list(self.service.billing.entries)

    def up(self) -> None:
        self._run(self._listener.up())

    def down(self) -> None:
        self._run(self._listener.down())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)
