"""What a provider offers so that requests can be answered in batches at half the price."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from interpflow.llm.answers import RawResponse
from interpflow.llm.providers import Provider
from interpflow.llm.requests import Request

RowKind = Literal["succeeded", "errored", "canceled", "expired"]


@dataclass(frozen=True)
class BatchState:
    """`counts` by processing, succeeded, errored, canceled, expired; final only once `ended`."""

    ended: bool
    counts: dict[str, int]


@dataclass(frozen=True)
class BatchSummary:
    """A batch as the service lists it: `n` requests, created at seconds since the epoch."""

    id: str
    created_at: float
    n: int


@runtime_checkable
class BatchService(Protocol):
    """The batch side of a provider. Every method is one attempt and raises ServiceFailure.

    The entry of a request has `custom_id = request.key`. A create whose connection broke fails with
    `maybe_billed=True`: the batch may exist.
    """

    async def create_batch(self, requests: Sequence[Request]) -> str:
        """The new batch's id. At most 100,000 requests and 256 MB of JSON."""
        ...

    async def batch_state(self, batch_id: str) -> BatchState: ...

    async def batches_since(self, time: float) -> list[BatchSummary]:
        """Every batch created at or after `time` (seconds since the epoch), of any state."""
        ...

    def batch_results(
        self, batch_id: str
    ) -> AsyncIterator[tuple[str, RowKind, RawResponse | None]]:
        """(custom_id, kind, response) of every entry of an ended batch, in any order, streamed.

        Succeeded: the response is the same body that a single call would have brought, its channel
        the batch's id. Errored: the body is the error object and `status` the HTTP status of its
        type (400 for invalid_request_error, 500 for api_error, ...). Else null. A failure with
        status 404 or 410 says that the results are no longer kept.
        """
        ...


class BatchProvider(Provider, BatchService, Protocol):
    """A provider that also takes batches."""
