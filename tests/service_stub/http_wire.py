"""As much of HTTP/1.1 as the SDKs speak: keep-alive, bodies of known length, broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True)
class HttpRequest:
    """`headers` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpReply:
    """`cut_at`: the connection breaks after so many bytes of the body; -1: before anything."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_at: int | None = None

    def encoded(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if "content-type" not in self.headers:
            lines.append("content-type: application/json")
        lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    """The request line and the headers by lower-case name."""
    line, *fields = head.decode("latin-1").split("\r\n")
    pairs = (one.partition(":") for one in fields)
    return line, {name.strip().lower(): value.strip() for name, _, value in pairs}


class Connection(asyncio.Protocol):
    """One client connection; requests are answered one after another.

    `opened` holds every open connection, so that a server that dies can drop them all.
    """

    def __init__(
        self, handler: Callable[[HttpRequest], HttpReply], opened: set[Connection]
    ) -> None:
        self._handler, self._opened = handler, opened
        self._buffer = bytearray()
        self._whole = 0  # bytes of the next request; 0: its head is not complete
        self._busy = False
        self._line, self._body_at = "", 0
        self._headers: dict[str, str] = {}
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        if self._busy or self.transport is None:
            return
        if not self._whole:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._line, self._headers = _parsed(bytes(self._buffer[:end]))
            self._body_at = end + 4
            self._whole = self._body_at + int(self._headers.get("content-length", 0))
        if len(self._buffer) < self._whole:
            return
        body = bytes(self._buffer[self._body_at : self._whole])
        del self._buffer[: self._whole]
        self._whole = 0
        self._busy = True
        method, target, _ = self._line.split(" ", 2)
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        reply = self._handler(HttpRequest(method, url.path, query, self._headers, body))
        if reply.delay_s > 0:
            asyncio.get_running_loop().call_later(reply.delay_s, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: HttpReply) -> None:
        self._busy = False
        if self.transport is None:
            return
        if reply.cut_at is None:
            self.transport.write(reply.encoded())
            self._next()
            return
        if reply.cut_at >= 0:
            whole = reply.encoded()
            self.transport.write(whole[: len(whole) - len(reply.body) + reply.cut_at])
            self.transport.close()
        else:
            self.transport.abort()
