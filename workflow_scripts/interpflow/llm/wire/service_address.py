"""Where a service is and with which key: checked before anything is sent."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from interpflow.errors import UserError

_KEY = re.compile(r"[\x21-\x7e]+\Z")


def key_in(variable: str, where: str) -> str:
    """The API key in an environment variable. Raises UserError where there is none to send."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {variable} holds no API key",
            where=where,
            remedy=f"export {variable}=..., or name another variable in api_key_env, or use the "
            "provider offline",
        )
    if not _KEY.match(key):
        # Sent as it is, the HTTP library would refuse the header and quote it.
        raise UserError(
            f"the environment variable {variable} holds characters that no API key has",
            where=where,
            remedy=f"export {variable}=... with the key alone",
        )
    return key


def checked_base_url(url: str, where: str) -> str:
    """A base URL without a slash at its end. Raises UserError for none, or one with a password."""
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fit, parts = False, urlsplit("")
    if not fit:
        raise UserError(
            "the address of the service is no http or https URL",
            where=where,
            remedy="give it as https://host/path",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            "the address of the service holds a name, a password or a query",
            where=where,
            remedy="put the key into an environment variable and name it in api_key_env",
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
