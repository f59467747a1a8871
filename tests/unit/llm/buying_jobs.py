"""Jobs that buy answers from the stub in their own processes, to be killed or run side by side."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.errors import UserError
from interpflow.llm.answers import Answer
from interpflow.llm.asking import answer_with
from interpflow.llm.asks import Ask
from interpflow.llm.providers import open_provider
from tests.unit.llm.stand_in_service import FAST, asks

# Every answer of `reply` is 7 of the stub's tokens; a token costs one dollar, a prompt nothing.
ANSWER_USD = 7
MOST_USD = 100
# The SDK takes seconds to import: the children are forked from a process that has it.
PRELOADED = ["openai", "tests.unit.llm.buying_jobs", "interpflow.llm.providers.openai_compatible"]


def reply(body: dict[str, Any]) -> str:
    return "x" * 4 * ANSWER_USD


def role_at(url: str, **more: Any) -> RoleModel:
    return RoleModel(provider="openai_compatible", model="stub", base_url=url, **more)


def settings_in(folder: Path, **more: Any) -> LlmSettings:
    prices = folder / "prices.csv"
    prices.write_text(
        "provider,model,host,input,cache_write_5m,cache_write_1h,cache_read,output,batch_factor,"
        "valid_from,source\nstub,*,,0,0,0,0,1000000,0.5,2026-01-01,test\n"
    )
    return LlmSettings(store=str(folder / "answers.sqlite"), prices=str(prices), **more)


def buy(url: str, wanted: Sequence[Ask], llm: LlmSettings, timeout_s: float = 60) -> list[Answer]:
    role = role_at(url, timeout_s=timeout_s)
    return answer_with(open_provider(role), wanted, role, llm, purpose="job", clock=FAST)


def job(url: str, first: int, last: int, llm: LlmSettings) -> None:
    """Buy the answers to some of the prompts; being stopped by the cap is no defect."""
    try:
        buy(url, asks(last, max_tokens=MOST_USD)[first:], llm)
    except UserError as error:
        if "llm.max_cost_usd" not in str(error):
            raise


def started(url: str, first: int, last: int, llm: LlmSettings) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=job, args=(url, first, last, llm))
    process.start()
    return process


def rows(folder: Path, query: str) -> list[tuple]:
    with sqlite3.connect(folder / "answers.sqlite", timeout=60) as connection:
        return connection.execute(query).fetchall()


def held_usd(folder: Path) -> float:
    """What counts against the cap: spent, presumed spent, reserved."""
    return rows(folder, "SELECT spent + presumed + reserved FROM money")[0][0] / 1e9
