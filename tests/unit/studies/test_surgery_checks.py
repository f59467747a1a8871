"""Settings of the layer surgery study that cannot work are found before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from interpflow.config.load import parse_config
from interpflow.errors import UserError
from interpflow.studies.layer_surgery.checks import check_layer_surgery

MODEL = "small_tasks"


def check(study: dict[str, Any], **agent: Any) -> None:
    check_layer_surgery(
        parse_config(
            {
                "models": {MODEL: {"reference": MODEL}},
                "layer_surgery": {"models": [MODEL], **study},
                "llm": {"roles": {"agent": agent or {"provider": "offline"}}},
            }
        )
    )


def patch(**request: Any) -> dict[str, Any]:
    return {"plans": {"own": [{"kind": "identity"}, request]}}


def test_the_defaults_pass() -> None:
    check({})
    check({"measures": {"generate": ["all"]}})
    check({"measures": {"generate": []}, "agent": None, "texts": {"n_agent": 0}})


@pytest.mark.parametrize(
    ("study", "where", "said"),
    [
        ({"measures": {"generate": ["skip_eech"]}}, "measures.generate", "skip_each"),
        ({"judging": {"with_agent": True}}, "judging.with_agent", "offline"),
        ({"texts": {"n_agent": 31}}, "texts.n_agent and layer_surgery.agent.n_units", "512"),
        ({"texts": {"n_agent": 40}, "judging": {"n_units": 41}}, "judging.n_units", "656"),
        ({"tasks": {"written": {"tasks": {"colours": "x"}}}}, "written.tasks", "opposites"),
        (patch(kind="ablate", block=1, part="mlp", method="patch"), "plans.own[1]", "patch"),
        (patch(kind="steps", steps="0 1~patch_mlp 2"), "plans.own[1]", "patch"),
    ],
)
def test_what_only_a_job_would_find(study: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(UserError) as found:
        check(study)
    assert where in str(found.value)
    assert said in str(found.value)


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ({"provider": "local", "model": MODEL}, "calling tools"),
        ({"provider": "anthropic", "model": "claude-x", "batch": True}, "one action at a time"),
    ],
)
def test_who_cannot_play_the_agent(agent: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check({}, **agent)
