"""The lens stage of the layer surgery study, on a few texts and items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interpflow.config.identity import content_hash, split_of
from interpflow.config.layer_surgery import LayerSurgerySettings, SurgeryAnalysis, SurgeryTexts
from interpflow.config.model import ModelSettings
from interpflow.engine import load
from interpflow.engine.lenses.lens_files import load_lens
from interpflow.errors import UserError
from interpflow.models.named import load_named
from interpflow.studies.layer_surgery.estimate_rows import Analyst
from interpflow.studies.layer_surgery.lenses.exits import exit_estimates
from interpflow.studies.layer_surgery.lenses.lens_stage import run_lenses
from interpflow.studies.layer_surgery.lenses.lens_texts import contaminated, lens_texts
from interpflow.studies.layer_surgery.lenses.trajectories import shown_prompts, trajectory_rows
from interpflow.studies.layer_surgery.sweep.gate_document import (
    GATES_DOCUMENT,
    analysed_tasks,
    difficulty,
)
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_rows, write_table
from interpflow.tasks.nlp.items import TaskItem
from interpflow.tasks.nlp.stories import stories

MODEL = ModelSettings(reference="word_problems")
SETTINGS = LayerSurgerySettings.model_validate({
    "texts": {"max_tokens": 24},
    "lenses": {"steps": 25, "documents_per_step": 8, "tokens_per_step": 96, "learning_rate": 0.01},
    "analysis": {"n_permutations": 199, "n_resamples": 199},
})  # fmt: skip
N_LAYERS = 4


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def text_row(text: str, use: str, split: str | None = None) -> dict[str, Any]:
    name = content_hash(["document", text])
    return {"document_id": name, "split": split or split_of(name), "use": use, "text": text}


def items() -> list[TaskItem]:
    plain = [TaskItem("adding", f"{k} plus {k} is", f" {2 * k}", kind="even") for k in range(2, 14)]
    odd = [TaskItem("adding", f"{k} plus 1 is", f" {k + 1}", kind="one") for k in range(2, 14)]
    names = [TaskItem("naming", f"the name of friend {k} is", " Tom") for k in range(2, 14)]
    return [*plain, *odd, *names, TaskItem("naming", "an empty answer", "")]


def intact_row(item: TaskItem, answered: bool = True) -> dict[str, Any]:
    return {
        "example_id": item.example_id, "family_id": item.family_id, "split": item.split,
        "task": item.task, "kind": item.kind, "n_tokens": 1, "log_prob": -1.0, "rank": 1.0,
        "answered": answered, "generated": "", "correct": answered,
        "unscored": "" if item.answer else "empty_answer",
    }  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    here = tmp_path_factory.mktemp("given")
    told = stories(74, 5)
    texts = [text_row(text, "lens") for text in told[:40]]
    texts += [text_row(text, "measure", "confirm") for text in told[40:60]]
    texts += [text_row(text, "measure", "develop") for text in told[60:62]]
    texts += [text_row(text, "agent", "confirm") for text in told[62:]]
    # Holds a prompt, so it may teach no lens.
    texts.append(text_row("They said that 5 plus 5 is ten and went home.", "lens"))
    paths = {name: here / f"{name}.parquet" for name in ("items", "texts", "intact")}
    write_table(paths["items"], "surgery_items", [item.to_row() for item in items()])
    write_table(paths["texts"], "surgery_texts", texts)
    rows = [intact_row(item, item.task == "adding") for item in items()]
    write_table(paths["intact"], "surgery_intact", rows)
    gates = here / "gates.json"
    write_document(gates, GATES_DOCUMENT, {"tasks": difficulty(rows, 0.3, 0.95)})
    return {**{f"{name}_path": path for name, path in paths.items()}, "gates_path": gates}


def outputs(here: Path) -> dict[str, Path]:
    names = ("lenses", "exits", "trajectories", "estimates")
    return {
        "lens_path": here / "lens.safetensors", "document_path": here / "lenses.json",
        **{f"{name}_path": here / f"{name}.parquet" for name in names},
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(given: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = outputs(tmp_path_factory.mktemp("made"))
    run_lenses("small", MODEL, SETTINGS, 1, **given, **paths)  # type: ignore[arg-type]
    return paths


def test_the_tuned_lens_is_nearer_to_the_model_at_every_depth(made: dict[str, Path]) -> None:
    document = read_document(made["document_path"], "surgery_lenses")
    assert document["tuned_beats_logit"] is True
    assert document["gates"][0]["passed"]
    assert document["n_documents"] == {"lens": 40, "held_out": 20}
    assert document["documents_left_out"] == {"holds a prompt": 1}
    gains = [row for row in read_rows(made["estimates_path"], "estimates")
             if row["analysis"] == "lens_gain" and row["factor"] == "logit − tuned"]  # fmt: skip
    assert [row["level"] for row in gains] == ["0", "1", "2", "3"]
    assert all(row["estimate"] > 0 for row in gains)
    assert all(row["ci_low"] > 0 and row["p_adjusted"] < 0.05 for row in gains[:3])
    assert {row["n_units"] for row in gains} == {20}


def test_readings_are_of_held_out_documents_at_every_depth(
    made: dict[str, Path], given: dict[str, Path]
) -> None:
    rows = read_rows(made["lenses_path"], "surgery_lenses")
    held_out = {row["document_id"] for row in read_rows(given["texts_path"], "surgery_texts")
                if row["use"] == "measure" and row["split"] == "confirm"}  # fmt: skip
    assert {row["document_id"] for row in rows} == held_out
    assert len(rows) == 20 * (3 * (N_LAYERS + 1) + 1)
    last = [row for row in rows if row["depth"] == N_LAYERS]
    assert {row["lens"] for row in last} == {"logit", "tuned", "bias"}
    assert all(row["kl"] == 0 and row["top1_kept"] == 1 for row in last)
    by_document: dict[str, set[float]] = {}
    for row in last:
        by_document.setdefault(row["document_id"], set()).add(row["loss"])
    assert all(len(losses) == 1 for losses in by_document.values())
    assert {row["depth"] for row in rows if row["lens"] == "unigram"} == {None}


def test_the_last_depth_scores_text_as_the_model_does(
    made: dict[str, Path], given: dict[str, Path]
) -> None:
    module, tokenizer = load_named("small", MODEL)
    text = next(row for row in read_rows(given["texts_path"], "surgery_texts")
                if row["use"] == "measure" and row["split"] == "confirm")  # fmt: skip
    ids = tokenizer(text["text"], return_tensors="pt").input_ids[:, :24]
    with torch.no_grad():
        log_probs = module(ids).logits[0].log_softmax(-1)
    own = -log_probs[1:-1].gather(1, ids[0, 2:, None]).mean().item()
    found = next(
        row
        for row in read_rows(made["lenses_path"], "surgery_lenses")
        if row["document_id"] == text["document_id"] and row["depth"] == N_LAYERS
    )
    assert found["loss"] == pytest.approx(own, abs=1e-4)
    assert found["n_tokens"] == ids.shape[1] - 2


def test_exits_are_read_at_the_end_of_each_prompt(
    made: dict[str, Path], given: dict[str, Path]
) -> None:
    rows = read_rows(made["exits_path"], "surgery_exits")
    assert len(rows) == 2 * 36  # the empty answer has no score
    assert {row["lens"] for row in rows} == {"logit", "tuned"}
    assert all(0 <= row["first_match"] <= row["stable_depth"] <= N_LAYERS for row in rows)
    module, tokenizer = load_named("small", MODEL)
    model = load(module, tokenizer=tokenizer, dtype="float32")
    item = items()[0]
    row = next(
        row for row in rows if (row["example_id"], row["lens"]) == (item.example_id, "logit")
    )
    before = model.capture([item.prompt], "resid_pre").values()
    after = model.capture([item.prompt], "resid_post", [N_LAYERS - 1]).values()
    tops = [int(model.unembed(state[0, -1]).argmax()) for state in (*before, *after)]
    differs = [depth for depth, top in enumerate(tops) if top != tops[-1]]
    assert row["stable_depth"] == (differs[-1] + 1 if differs else 0)
    assert row["first_match"] == tops.index(tops[-1])


def test_trajectories_end_in_the_models_own_token(made: dict[str, Path]) -> None:
    rows = read_rows(made["trajectories_path"], "surgery_trajectories")
    assert len({row["prompt"] for row in rows}) == 2  # the one analysed task, and a story
    last = [row for row in rows if row["depth"] == N_LAYERS]
    assert all(row["kl"] == 0 and row["final_rank"] == 1 for row in last)
    assert all(row["probability"] == row["final_probability"] for row in last)
    first = next(row for row in rows if row["prompt"] == 0)
    assert "plus" in first["text"]


def test_saved_lenses_read_what_the_tables_say(made: dict[str, Path]) -> None:
    module, tokenizer = load_named("small", MODEL)
    model = load(module, tokenizer=tokenizer, dtype="float32")
    lenses = load_lens(made["lens_path"], model)
    assert {name: lens.kind for name, lens in lenses.items()} == {"tuned": "affine", "bias": "bias"}
    rows = [row for row in read_rows(made["trajectories_path"], "surgery_trajectories")
            if row["prompt"] == 0 and row["lens"] == "tuned" and row["depth"] == 2]  # fmt: skip
    states = model.capture([rows[0]["text"]], "resid_pre", [2])
    (state,) = states.values()
    top = lenses["tuned"].logits(model, 2, state[0]).argmax(-1)
    assert [tokenizer.decode([token]) for token in top.tolist()] == [r["top_token"] for r in rows]


def test_the_stage_repeats_itself(
    given: dict[str, Path], made: dict[str, Path], tmp_path: Path
) -> None:
    paths = outputs(tmp_path)
    run_lenses("small", MODEL, SETTINGS, 1, **given, **paths)  # type: ignore[arg-type]
    for name, path in paths.items():
        assert path.read_bytes() == made[name].read_bytes(), name


def test_block_influence_has_a_row_per_block(made: dict[str, Path]) -> None:
    rows = read_rows(made["estimates_path"], "estimates")
    blocks = [row for row in rows if row["analysis"] == "block_influence"]
    assert [row["level"] for row in blocks] == ["0", "1", "2", "3"]
    assert all(0 < row["estimate"] < 2 for row in blocks)
    aligned = [row for row in rows if row["analysis"] == "depth_cka"]
    assert next(row["level"] for row in aligned if row["factor"] == "next depth") == "0-1"


def test_documents_that_hold_what_is_measured_teach_no_lens() -> None:
    rows = [
        text_row(text, "lens")
        for text in ("The sum of 2 +  3 is known.", "12 + 31 is more", "A story.", "Another one.")
    ]
    found = contaminated(rows, ["the sum of 2 + 3", "2 + 3", " "], ["a  STORY."])
    assert list(found.values()) == ["holds a prompt", "is a measured document"]
    _, tokenizer = load_named("small", MODEL)
    with pytest.raises(UserError, match="to train lenses on"):
        lens_texts(tokenizer, rows[:1], ["2 + 3"], SurgeryTexts(), None)
    with pytest.raises(UserError, match="to judge lenses by"):
        lens_texts(tokenizer, rows[2:], [], SurgeryTexts(), None)


def test_difficulty_is_judged_without_confirm_items() -> None:
    def row(task: str, split: str, right: bool | None, unscored: str = "") -> dict[str, Any]:
        return {"task": task, "split": split, "answered": right, "correct": right,
                "unscored": unscored}  # fmt: skip

    rows = [row("a", split, split == "confirm")
            for split in ("discover", "develop", "confirm", "confirm")]  # fmt: skip
    rows += [row("b", "confirm", True), row("b", "discover", None, "merged")]
    assert analysed_tasks({"tasks": difficulty(rows, 0.3, 0.95)}) == ["b"]


def test_a_task_that_settles_later_is_found() -> None:
    rng = np.random.default_rng(0)
    exits = [
        {"example_id": f"{task}{k}", "family_id": f"{task}{k}", "task": task, "split": split,
         "lens": "tuned", "first_match": 0, "kl_depth": 0,
         "stable_depth": int(rng.integers(1, 4)) + (4 if task == "late" else 0)}
        for task in ("early", "late", "middle") for k in range(20)
        for split in ("confirm", "discover")
    ]  # fmt: skip
    analyst = Analyst("m", SurgeryAnalysis(n_permutations=199), 0)
    rows = exit_estimates(analyst, exits, {}, ["early", "late"], 8)
    means = {row["level"]: row for row in rows if row["quantity"].endswith("blocks")}
    assert set(means) == {"early", "late"}
    assert means["late"]["estimate"] - means["early"]["estimate"] > 0.4
    assert means["late"]["n_units"] == 20
    contrast = next(row for row in rows if row["level"] == "late" and "others" in row["quantity"])
    assert contrast["ci_low"] > 0.3
    assert contrast["p_adjusted"] < 0.05


def test_prompts_of_ones_own_are_shown(made: dict[str, Path]) -> None:
    assert shown_prompts(["mine"], [], [], [], []) == ["mine"]
    module, tokenizer = load_named("small", MODEL)
    model = load(module, tokenizer=tokenizer, dtype="float32")
    with pytest.raises(UserError, match="no token"):
        trajectory_rows(model, {}, [""], max_tokens=8, tokens_per_batch=64)
