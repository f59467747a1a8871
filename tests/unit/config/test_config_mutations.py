"""Whatever is wrong with a config: it is accepted, or refused by one message that names a place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from mutated_configs import mutated

from interpflow.config.load import parse_config
from interpflow.errors import UserError
from interpflow.paths import PROJECT_DIR
from interpflow.workflow.checks import check_inputs
from interpflow.workflow.plan import Plan

N_MUTATIONS = 200
# A message names a key by its dotted path, which begins with a section, or a model.
PLACES = ("seed", "models", "execution", "counting", "robustness", "layer_surgery", "llm",
          "reference_models", "config", "model ")  # fmt: skip
MINIMAL_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(scope="module")
def written_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The project's own config with every default spelt out and a model that is there."""
    raw = yaml.safe_load((PROJECT_DIR / "config.yaml").read_text(encoding="utf-8"))
    directory = tmp_path_factory.mktemp("model")
    for name in MINIMAL_FILES:
        (directory / name).write_text("{}")
    raw["models"] = {"one": {"local": str(directory)}, "two": {"local": str(directory)}}
    for study in ("counting", "robustness", "layer_surgery"):
        raw[study]["models"] = ["one"]
    full: dict[str, Any] = parse_config(raw).model_dump()
    return full


def test_the_config_itself_is_valid(written_out: dict[str, Any]) -> None:
    config = parse_config(written_out)
    check_inputs(config)
    assert Plan(config).outputs("counting")


@pytest.mark.parametrize("seed", range(N_MUTATIONS))
def test_a_mutated_config_is_valid_or_one_message(
    written_out: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    raw, done = mutated(written_out, seed)
    error = refusal(raw)
    if error is not None:
        message = str(error)
        assert error.what
        assert error.where
        assert "pydantic" not in message
        assert "Traceback" not in message
        assert any(place in message for place in PLACES), (done, message)


def refusal(raw: Any) -> UserError | None:
    try:
        config = parse_config(raw)
        check_inputs(config)
        # What passes must be plannable: its parameters are what the Snakefile asks for.
        for stage in Plan(config).stages():
            assert set(stage.parameters) == {"spec", "code", "lib"}
    except UserError as error:
        return error
    return None


def test_mutations_reach_both_outcomes(written_out: dict[str, Any]) -> None:
    outcomes = []
    for seed in range(N_MUTATIONS):
        try:
            parse_config(mutated(written_out, seed)[0])
            outcomes.append(True)
        except UserError:
            outcomes.append(False)
    assert N_MUTATIONS / 2 < outcomes.count(False) < N_MUTATIONS
