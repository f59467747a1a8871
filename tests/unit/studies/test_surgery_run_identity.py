"""A stored run is found again by the same model alone, whatever of it was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.paths import RESOURCES_DIR
from interpflow.plans.layer_plan import LayerPlan
from interpflow.studies.layer_surgery.sweep.laboratory import config_digest, open_laboratory

REFERENCE = RESOURCES_DIR / "reference" / "small_tasks"


def cells(directory: Path, tmp_path: Path) -> dict[str, str]:
    """The cell of a run of each measure."""
    laboratory = open_laboratory(
        "m", ModelSettings(local=str(directory)), LayerSurgerySettings(), 0, items=[], texts=[],
        store_path=tmp_path / "store",
    )  # fmt: skip
    plan = LayerPlan.of(range(laboratory.n_layers))
    return {
        measure: laboratory.spec(plan, measure, []).cell for measure in ("text", "generation")
    }  # fmt: skip


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(REFERENCE, tmp_path / "model")
    return tmp_path / "model"


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


def test_another_configuration_of_the_same_weights_is_another_model(
    copied: Path, tmp_path: Path
) -> None:
    before = cells(copied, tmp_path)
    change(copied / "config.json", rms_norm_eps=0.1)
    after = cells(copied, tmp_path)
    assert before["text"] != after["text"]


def test_other_end_tokens_are_another_generation(copied: Path, tmp_path: Path) -> None:
    before = cells(copied, tmp_path)
    change(copied / "generation_config.json", eos_token_id=[1, 7])
    after = cells(copied, tmp_path)
    assert before["generation"] != after["generation"]
    assert before["text"] == after["text"]


def test_where_a_configuration_lies_does_not_count() -> None:
    one = {"_name_or_path": "a", "transformers_version": "5", "dtype": "float32", "size": 3}
    other = {"_name_or_path": "b", "transformers_version": "6", "size": 3}
    assert config_digest(one) == config_digest(other)
    assert config_digest({**one, "size": 4}) != config_digest(one)
