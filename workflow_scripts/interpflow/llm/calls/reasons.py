"""Why a run of calls stops or fails, in words for the user. Never with a prompt, answer or key."""

from __future__ import annotations

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.errors import UserError
from interpflow.llm.calls.pacing import LONGEST_WAIT_S
from interpflow.llm.failures import ServiceFailure

AGAIN = "everything bought is kept; run the same command again: only what is missing is asked for"


def refused(role: RoleModel, failure: ServiceFailure) -> UserError:
    remedies = {
        401: f"check the key in {_key_of(role)}",
        402: "add credit to the account",
        403: "give the account access to this model, or name another",
    }
    remedy = remedies.get(failure.status, "see the account's spend limit and its rights")
    return UserError(
        f"{_name(role)}: the service refuses every call ({failure.what})",
        where=_where(role), remedy=f"{remedy}; {AGAIN}",
    )  # fmt: skip


def no_such_model(role: RoleModel, failure: ServiceFailure) -> UserError:
    return UserError(
        f"{_name(role)}: the service has no such model, or nothing at this address "
        f"({failure.what})",
        where=_where(role),
        remedy="give the model's id as the service lists it, and check base_url",
    )


def told_to_wait_too_long(role: RoleModel, failure: ServiceFailure) -> UserError:
    return UserError(
        f"{_name(role)}: the service asks to wait {failure.retry_after_s:.0f} s "
        f"({failure.what}); waits over {LONGEST_WAIT_S:.0f} s end the run",
        where=_where(role), remedy=f"wait as long; {AGAIN}",
    )  # fmt: skip


def all_malformed(role: RoleModel, failure: ServiceFailure, n: int) -> UserError:
    return UserError(
        f"{_name(role)}: the service rejected the first {n} requests ({failure.what})",
        where=_where(role),
        remedy="check that the model exists and takes such requests (structured output, tools, "
        "max_tokens)",
    )


def silent(role: RoleModel, failure: ServiceFailure, n: int) -> UserError:
    return UserError(
        f"{_name(role)}: {n} requests in a row got no answer, each sent as often as "
        f"llm.max_attempts allows; at last: {failure.what}",
        where=_where(role), remedy=f"see whether the service is up; {AGAIN}",
    )  # fmt: skip


def cap_reached(llm: LlmSettings, spent_usd: float, bound_usd: float) -> UserError:
    if llm.max_cost_usd is None:
        return UserError(
            f"a call may cost up to {bound_usd:.6g} USD and no cap is set",
            where="llm.max_cost_usd", remedy="say how much the answers may cost at most",
        )  # fmt: skip
    return UserError(
        f"the next call may cost up to {bound_usd:.6g} USD and {spent_usd:.6g} USD of "
        f"{llm.max_cost_usd:.6g} are spent",
        where="llm.max_cost_usd", remedy=f"raise the cap; {AGAIN}",
    )  # fmt: skip


def too_many_failed(
    llm: LlmSettings, purpose: str, n_failed: int, n_for_good: int, n: int, example: str
) -> UserError:
    """n_for_good: those of the failed that no later run asks again under these settings."""
    remedies = [AGAIN] if n_for_good < n_failed else []
    if n_for_good:
        whose = "they" if n_for_good == n_failed else f"{n_for_good} of them"
        remedies.append(
            f"{whose} got answers that cannot be used, which are not bought again: name another "
            "model for the role"
        )
    return UserError(
        f"{purpose}: {n_failed} of {n} requests ended without an answer, one of them: {example}",
        where="llm.max_failed_share", remedy=f"{'; '.join(remedies)}, or allow a larger share",
    )  # fmt: skip


def _name(role: RoleModel) -> str:
    return role.model or role.provider


def _where(role: RoleModel) -> str:
    return f"llm.roles, provider {role.provider}" + (
        f" at {role.base_url}" if role.base_url else ""
    )


def _key_of(role: RoleModel) -> str:
    default = "ANTHROPIC_API_KEY" if role.provider == "anthropic" else "OPENAI_API_KEY"
    return f"the environment variable {role.api_key_env or default}"
