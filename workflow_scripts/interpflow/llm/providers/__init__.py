"""Providers by name. A new one is one file here with a `provider` function, and its name below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Protocol, runtime_checkable

from interpflow.config.llm import ProviderName, RoleModel
from interpflow.config.model import ModelSettings
from interpflow.llm.answers import RawResponse, Reading
from interpflow.llm.asks import Ask
from interpflow.llm.requests import Request

MODULES: dict[ProviderName, str] = {
    "anthropic": "interpflow.llm.providers.anthropic",
    "openai_compatible": "interpflow.llm.providers.openai_compatible",
    "local": "interpflow.llm.providers.local",
    "offline": "interpflow.llm.providers.offline",
}


class Provider(Protocol):
    """One service (or local stand-in) for one model. Made by its module's `provider(settings)`.

    `stored`: whether answers are kept in the store (offline algorithms answer anew: they are free
    and their code may change). `priced`: whether the model needs a price before anything is sent.
    """

    stored: bool
    priced: bool

    def request(self, ask: Ask) -> Request:
        """The whole request in the provider's wire format."""
        ...

    async def send(self, request: Request, timeout_s: float) -> RawResponse:
        """One attempt, without retries. Raises ServiceFailure."""
        ...

    def read(self, raw: RawResponse) -> Reading:
        """Outcome, text and usage of a raw response; must not fail on any bytes."""
        ...

    def estimated_input_tokens(self, request: Request) -> int:
        """Upper estimate without a call, for reservations and `snakemake estimate`."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class SendsMany(Protocol):
    """A provider that answers many requests best together: a model on this machine."""

    def send_all(self, requests: Sequence[Request]) -> Iterable[tuple[Request, RawResponse]]:
        """Every request with its response, in any order, each as soon as it is there.

        No time limit and no retries: what fails raises UserError.
        """
        ...


@runtime_checkable
class ChecksModel(Protocol):
    """A provider that can ask its service whether the model exists."""

    async def check_model(self) -> None:
        """Raise UserError for an unknown or retired model, ServiceFailure without an answer."""
        ...


def open_provider(
    settings: RoleModel, models: Mapping[str, ModelSettings] | None = None
) -> Provider:
    """The provider that a role's settings name; its SDK is imported here and not before.

    `models`: the models of the config, of which the provider `local` runs one. Raises UserError for
    a missing key or a setting that the provider cannot use.
    """
    module = import_module(MODULES[settings.provider])
    if settings.provider == "local":
        return module.provider(settings, models or {})
    return module.provider(settings)
