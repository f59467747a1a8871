"""A language model as the agent, through the real providers: tool calls, mistakes, kills."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from interpflow.agent.conduct import Outcome, run_agent
from interpflow.agent.policies.language_model import WHOLE, LanguageModelPolicy, turns_of
from interpflow.agent.policies.scientist import scientist
from interpflow.agent.record.ledger import Ledger
from interpflow.agent.record.transcript import Transcript
from interpflow.agent.rules.actions import Action
from interpflow.agent.work.session import LEDGER, TRANSCRIPT, Session
from interpflow.config.llm import LlmSettings, RoleModel
from interpflow.errors import UserError
from tests.service_stub import Faults, Reply, ServiceStub
from tests.unit.agent.fake_laboratory import FakeLaboratory, settings

TURNS = 120
PLAN = {"kind": "swap", "block": 3, "with_block": 4}
CLAIM = {"kind": "swapped", "blocks": [3, 4]}
SCRIPT: list[Reply] = [
    Reply("Let me look.", tool_calls=(("describe", {}),)),
    Reply("I think that block 3 does nothing."),  # no call
    Reply(tool_calls=(("explore", {"plans": [PLAN], "measure": "words"}),)),
    Reply(tool_calls=(("explore", {"plans": [PLAN], "measure": "text"}), ("list", {"what": "x"}))),
    Reply(tool_calls=(("hypothesize", {"text": "Two blocks are exchanged.", "scope": "text",
                                       "probability": 0.9, "claim": CLAIM}),)),
    Reply(tool_calls=(("preregister", {
        "hypothesis": "H1", "plan": PLAN, "measure": "text", "metric": "delta_loss",
        "prediction": {"sign": "decrease", "smallest_effect": 0.02}, "probability": 0.95}),)),
    Reply(tool_calls=(("run", {"registration": "R1"}),)),
    Reply(tool_calls=(("report", {"claims": [
        {"text": "It falls by 0.1.", "refs": ["R1"], "strength": "confirmed"}]}),)),
    Reply(tool_calls=(("report", {"claims": [
        {"text": "{{H1.claim}}: {{R1.delta_loss}}.", "refs": ["R1"], "strength": "confirmed"}
    ]}),)),
]  # fmt: skip


def scripted(body: dict[str, Any]) -> Reply:
    """The reply of the turn that the last observation shows; its budget says which."""
    said = json.dumps(body["messages"][-1])
    found = said.rpartition("turns")[2]
    left = "".join(sign for sign in found[:12] if sign.isdigit())
    return SCRIPT[TURNS - int(left)] if left and len(body["messages"]) > 1 else SCRIPT[0]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "sk-secret")


@pytest.fixture
def stub() -> Iterator[ServiceStub]:
    with ServiceStub(answer=scripted) as running:
        yield running


def policy(stub: ServiceStub, folder: Path, service: str = "anthropic") -> LanguageModelPolicy:
    url = stub.url if service == "anthropic" else stub.openai_url
    role = RoleModel.model_validate(
        {"provider": service, "model": "claude-x", "base_url": url, "api_key_env": "STUB_KEY"}
    )
    prices = folder / "prices.csv"
    prices.write_text(
        "provider,model,host,input,cache_write_5m,cache_write_1h,cache_read,output,batch_factor,"
        "valid_from,source\nstub,*,,1,1,1,1,1,0.5,2026-01-01,test\n"
    )
    store = folder / "answers.sqlite"
    llm = LlmSettings(store=str(store), prices=str(prices), max_cost_usd=10.0)
    return LanguageModelPolicy(role, llm)


def work(
    stub: ServiceStub, folder: Path, lab: FakeLaboratory, service: str = "anthropic", **more: Any
) -> Outcome:
    made = settings(placebo_share=0, **more)
    return run_agent(made, lab, policy(stub, folder, service), folder / "agent", 1)


@pytest.mark.parametrize("service", ["anthropic", "openai_compatible"])
def test_a_model_works_by_tools_and_reads_its_mistakes(
    stub: ServiceStub, tmp_path: Path, service: str
) -> None:
    outcome = work(stub, tmp_path, FakeLaboratory("swapped", (3, 4)), service)
    assert outcome.stopped == "report"
    assert [str(claim) for _, claim in outcome.confirmed] == ["swapped 3 and 4"]
    assert outcome.claims[0].text.startswith("swapped 3 and 4: -")
    assert len(stub.requests) == len(SCRIPT)
    assert set(stub.billed.values()) == {1}
    bodies = [json.loads(request.body) for request in stub.requests]
    names = [tool.get("name") or tool["function"]["name"] for tool in bodies[0]["tools"]]
    assert "preregister" in names
    assert bodies[0]["tool_choice"] == ({"type": "any"} if service == "anthropic" else "required")
    said = [json.dumps(body["messages"][-1]) for body in bodies]
    assert "no action was called" in said[2]
    assert "'words' is not one of" in said[3]
    assert "bare number" in said[8]
    assert outcome.spent.llm_tokens > 1000
    assert outcome.spent.cost_usd == pytest.approx(outcome.spent.llm_tokens * 1e-6)
    transcript = Transcript(tmp_path / "agent" / TRANSCRIPT).recorded
    assert len(transcript) == len(SCRIPT)
    assert transcript[0].said == ("Let me look." if service == "anthropic" else "")
    assert "sk-secret" not in (tmp_path / "agent" / TRANSCRIPT).read_text()


class Killed(BaseException):
    pass


def _killing(owner: Any, name: str, at: int, after: bool) -> Callable[..., Any]:
    """The method, killed in its call number `at`: before it does anything, or after."""
    kept, calls = getattr(owner, name), [0]

    def called(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == at and not after:
            raise Killed
        found = kept(*args, **more)
        if calls[0] == at:
            raise Killed
        return found

    return called


@pytest.mark.parametrize(
    ("owner", "name", "at", "after"),
    [
        (Session, "act", 5, False),  # bought, not done
        (FakeLaboratory, "measure", 1, True),  # explored, not written down
        (FakeLaboratory, "measure", 2, False),  # registered, not run
        (FakeLaboratory, "measure", 2, True),  # run, not written down
        (Ledger, "append", 3, True),  # registered, not in the transcript
        (Ledger, "append", 4, True),  # decided, not in the transcript
        (Transcript, "append", 9, True),  # ended, not reported
    ],
)
def test_a_killed_agent_goes_on_and_nothing_is_bought_or_run_twice(
    stub: ServiceStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, at: int, after: bool,
) -> None:  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    undisturbed = FakeLaboratory("swapped", (3, 4))
    wanted = work(stub, whole, undisturbed)
    lab, before = FakeLaboratory("swapped", (3, 4)), len(stub.requests)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, _killing(owner, name, at, after))
        with pytest.raises(Killed):
            work(stub, broken, lab)
    found = work(stub, broken, lab)
    bodies = [request.body for request in stub.requests[before:]]
    assert len(bodies) == len(set(bodies)) == len(SCRIPT)
    assert lab.done == undisturbed.done
    assert found.tests == wanted.tests
    assert found.claims == wanted.claims
    assert found.document["ledger"] == wanted.document["ledger"]
    kinds = [json.loads(line)["kind"] for line in (broken / "agent" / LEDGER).open()]
    assert kinds == ["opening", "hypothesis", "registration", "result"]


def test_a_transcript_cut_in_a_line_and_a_foreign_one(tmp_path: Path) -> None:
    lab = FakeLaboratory("swapped", (3, 4))
    wanted = run_agent(settings(), lab, scientist(), tmp_path / "a", 1)
    path = tmp_path / "a" / TRANSCRIPT
    path.write_bytes(path.read_bytes()[:-40])
    found = run_agent(settings(), lab, scientist(), tmp_path / "a", 1)
    assert found.tests == wanted.tests
    assert found.spent.forward_tokens == wanted.spent.forward_tokens
    with pytest.raises(UserError, match="ledger is not what"):  # another budget, another chain
        run_agent(settings(budget={"turns": 50}), lab, scientist(), tmp_path / "a", 1)
    (tmp_path / "a" / LEDGER).unlink()
    with pytest.raises(UserError, match="another result"):
        run_agent(settings(), FakeLaboratory("swapped", (2, 3)), scientist(), tmp_path / "a", 1)


def test_the_part_of_the_budget_for_the_model_ends_the_work_with_a_partial_report(
    stub: ServiceStub, tmp_path: Path
) -> None:
    outcome = work(stub, tmp_path, FakeLaboratory(), budget={"llm_tokens": 15_000})
    assert outcome.stopped == "budget: llm_tokens"
    assert outcome.spent.llm_tokens < 30_000
    assert (tmp_path / "agent" / "report.md").exists()


def test_a_service_that_is_silent_stops_the_run_and_it_can_be_resumed(tmp_path: Path) -> None:
    lab = FakeLaboratory("swapped", (3, 4))
    with ServiceStub(faults=Faults(rates={"400": 1.0}), answer=scripted) as down:
        with pytest.raises(UserError):
            work(down, tmp_path, lab)
        assert (tmp_path / "agent" / LEDGER).exists()


@pytest.mark.parametrize("service", ["anthropic", "openai_compatible"])
def test_a_call_that_was_cut_off_is_not_made(tmp_path: Path, service: str) -> None:
    cut = Reply("So:", tool_calls=(("list", {"what": "notes"}),), stop="max_tokens")
    with ServiceStub(answer=lambda body: cut) as stub:
        lab = FakeLaboratory("swapped", (3, 4))
        outcome = work(stub, tmp_path, lab, service, max_errors=2)
    assert outcome.stopped == "errors"
    first = Transcript(tmp_path / "agent" / TRANSCRIPT).recorded[0]
    assert first.action.name == ""
    assert "cut off after" in first.said


def test_a_call_of_no_tool_is_told_as_text() -> None:
    session = Session(settings(), FakeLaboratory(), None, 1, clock=lambda: 0.0)
    session.act(Action("python", {"code": "1"}))
    turns = turns_of(session.view())
    assert [type(turn.content) for turn in turns] == [str, str, str]


def test_the_context_stays_bounded() -> None:
    session = Session(settings(), FakeLaboratory(), None, 1, clock=lambda: 0.0)
    skip = {"kind": "skip", "blocks": [3]}
    sizes = []
    for _ in range(60):
        session.act(Action("explore", {"plans": [skip], "measure": "text"}), said="so")
        turns = turns_of(session.view())
        assert turns[0].speaker == "user"
        assert all(a.speaker != b.speaker for a, b in pairwise(turns))
        sizes.append(len(turns))
    assert max(sizes) <= 1 + 2 * 2 * WHOLE
    opening = str(turns_of(session.view())[0].content)
    assert "X12 skip 3 delta_loss" in opening
    assert "X60" not in opening
