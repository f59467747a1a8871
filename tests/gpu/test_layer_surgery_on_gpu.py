"""Layer plans and lenses on a GPU give the numbers they give on a CPU, to float32 rounding."""

import numpy as np
import pytest
import torch

from interpflow import engine
from interpflow.engine.layers.generate import generate_with_plan
from interpflow.engine.layers.plan_gates import check_plan_execution
from interpflow.inference.surgery.rows import text_rows
from interpflow.inference.surgery.texts import measure_texts
from interpflow.models.acquire import load_transformer
from interpflow.paths import RESOURCES_DIR
from interpflow.plans.layer_plan import LayerPlan
from interpflow.tasks.nlp.stories import stories

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

PLANS = [
    LayerPlan.parse(text)
    for text in ("0 1 2 3 4 5 6 7", "0 1 2 4 5 6 7", "0 1 (2|3) 4 4 5 6 7", "0 2 1 3 4 5*0.5 6 7")
]
TEXTS = [{"document_id": str(i), "text": text} for i, text in enumerate(stories(12, 1))]


def loaded(device, dtype="float32"):
    module, tokenizer = load_transformer(RESOURCES_DIR / "reference" / "small_tasks", device=device)
    return engine.load(module, device=device, dtype=dtype, tokenizer=tokenizer)


def rows_of(model):
    return list(text_rows(model.tokenizer, TEXTS, 48, model.max_length).rows.values())


def test_losses_under_plans_agree():
    found = []
    for device in ("cpu", "cuda"):
        model = loaded(device)
        measured = measure_texts(model, PLANS, rows_of(model))
        found.append([[row["delta_loss"] for row in rows] for rows in measured])
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)
    assert not np.any(found[1][0])  # the intact model beside itself


def test_text_under_a_plan_agrees():
    said = []
    for device in ("cpu", "cuda"):
        model = loaded(device)
        prompts = [list(row.tokens[:12]) for row in rows_of(model)[:4]]
        said.append(generate_with_plan(model, PLANS[1], prompts, max_new_tokens=8))
    assert said[0] == said[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_plans_are_proven_on_a_gpu(dtype):
    model = loaded("cuda", dtype)
    rows = [row.tokens[:24] for row in rows_of(model)[:3]]
    tolerance = 1e-3 if dtype == "float32" else None
    assert check_plan_execution(model, rows, tolerance=tolerance).rows
