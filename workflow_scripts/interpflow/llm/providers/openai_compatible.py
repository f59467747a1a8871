"""Chat completions through the openai SDK: OpenAI, vLLM, llama.cpp, Gemini's endpoint."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

from interpflow.config.llm import RoleModel
from interpflow.llm.answers import RawResponse, Reading
from interpflow.llm.asks import Ask
from interpflow.llm.requests import Request, canonical_body
from interpflow.llm.wire.openai_chat import chat_body, chat_reading
from interpflow.llm.wire.sdk_calls import SdkCalls
from interpflow.llm.wire.service_address import checked_base_url, key_in
from interpflow.llm.wire.values import most_input_tokens

OPENAI = "api.openai.com"
KEY_VARIABLE = "OPENAI_API_KEY"
COMPLETIONS = "/chat/completions"


def provider(settings: RoleModel) -> OpenAICompatibleProvider:
    """A key is needed where `api_key_env` names one, and for OpenAI itself.

    OPENAI_API_KEY goes to OpenAI only: any other host gets the key that is named for it, or none.
    Raises UserError for a missing key or an address that is none.
    """
    where = "llm.roles, provider openai_compatible"
    host = checked_base_url(settings.base_url or "", f"{where}, base_url")
    variable = settings.api_key_env or (KEY_VARIABLE if urlsplit(host).hostname == OPENAI else "")
    key = key_in(variable, f"{where}, api_key_env") if variable else ""
    return OpenAICompatibleProvider(settings, host, key)


class OpenAICompatibleProvider:
    """One model at one server. Its connections belong to the event loop that first sends."""

    stored = True
    priced = True

    def __init__(self, settings: RoleModel, host: str, key: str) -> None:
        self.model = settings.model or ""
        self.host = host
        self._longest = settings.max_tokens
        self._has_key = bool(key)
        self._calls = SdkCalls(host, partial(_opened, host, key))
        # OpenAI's reasoning models refuse the old name; other servers may not know the new one.
        new = urlsplit(host).hostname == OPENAI
        self._limit_name = "max_completion_tokens" if new else "max_tokens"

    def request(self, ask: Ask) -> Request:
        body = canonical_body(chat_body(ask, self.model, self._longest, self._limit_name))
        return Request(
            "openai_compatible", self.model, COMPLETIONS, self.host, "", (), body, ask.sample
        )

    async def send(self, request: Request, timeout_s: float) -> RawResponse:
        import openai

        # The SDK wants some text for a key; without one the header is left out.
        headers = None if self._has_key else {"Authorization": openai.omit}
        return await self._calls.post(COMPLETIONS, request.body, timeout_s, headers)

    def read(self, raw: RawResponse) -> Reading:
        return chat_reading(raw)

    def estimated_input_tokens(self, request: Request) -> int:
        """A bound, for prose about four times too much."""
        return most_input_tokens(request.body)

    async def close(self) -> None:
        await self._calls.close()


def _opened(host: str, key: str, http_options: dict[str, Any]) -> Any:
    import openai

    # Set here, as the SDK would take them from the environment (OPENAI_CUSTOM_HEADERS): another key
    # to this host, and betas that would change answers unseen by keys.
    headers: dict[str, Any] = {"OpenAI-Beta": openai.omit}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    if urlsplit(host).hostname != OPENAI:  # whose account is nobody else's business
        headers |= {"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit}
    return openai.AsyncOpenAI(
        api_key=key or "none",
        base_url=host,
        max_retries=0,
        default_headers=headers,
        http_client=openai.DefaultAsyncHttpxClient(**http_options),
    )
