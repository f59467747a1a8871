"""What can go wrong with a call, in the four kinds that are treated differently."""

from __future__ import annotations

from typing import Literal

Kind = Literal["limited", "passing", "fatal", "bad_request"]


class ServiceFailure(Exception):
    """A call that brought no answer. Its message holds no prompt, no answer and no key.

    - limited (429): wait as told, and send fewer at a time.
    - passing (408, 409, 5xx, 529, lost connections): wait and send again; the service is busy, not
      we too fast.
    - fatal (401, 402, 403, a spend limit): nothing more will succeed; stop the run.
    - bad_request (other 4xx): this request will never succeed.
    `maybe_billed`: the service may have finished the answer that did not arrive.
    """

    def __init__(
        self,
        kind: Kind,
        what: str,
        *,
        status: int = 0,
        retry_after_s: float | None = None,
        maybe_billed: bool = False,
        request_id: str = "",
    ) -> None:
        super().__init__(what)
        self.kind, self.what, self.status = kind, what, status
        self.retry_after_s, self.maybe_billed = retry_after_s, maybe_billed
        self.request_id = request_id

    def __reduce__(self) -> tuple:
        return _rebuild, (self.kind, self.what, self.status, self.retry_after_s,
                          self.maybe_billed, self.request_id)  # fmt: skip


def kind_of_status(status: int) -> Kind:
    """The kind of an HTTP status; 0 stands for a connection that broke."""
    if status == 429:
        return "limited"
    if status in (401, 402, 403):
        return "fatal"
    if status in (0, 408, 409) or status >= 500:
        return "passing"
    return "bad_request"


def _rebuild(
    kind: Kind,
    what: str,
    status: int,
    retry_after_s: float | None,
    maybe_billed: bool,
    request_id: str,
) -> ServiceFailure:
    return ServiceFailure(
        kind, what, status=status, retry_after_s=retry_after_s, maybe_billed=maybe_billed,
        request_id=request_id,
    )  # fmt: skip
