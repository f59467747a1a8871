"""One model on which plans are measured; whoever measured an item before, it is not run again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from interpflow.config.identity import content_hash, derived_seed
from interpflow.config.layer_surgery import LayerSurgerySettings
from interpflow.config.model import ModelSettings
from interpflow.engine import load
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.experiments.spec import MODEL_NAME, Measure, RunSpec
from interpflow.experiments.store import Store
from interpflow.inference.batching import Progress
from interpflow.inference.generation import end_tokens
from interpflow.inference.surgery.answers import measure_answers
from interpflow.inference.surgery.code_version import measuring_code
from interpflow.inference.surgery.generations import fits, measure_generations
from interpflow.inference.surgery.plan_batches import Surroundings
from interpflow.inference.surgery.rows import Rows, ScoredRow, answer_rows, text_rows
from interpflow.inference.surgery.texts import measure_texts
from interpflow.models.manifest import tokenizer_sha256, weights_revision
from interpflow.models.named import load_named, model_source
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.requests import NamedPlan
from interpflow.tasks.nlp.items import TaskItem, items_of_rows

Row = dict[str, Any]

# Entries of a configuration that change no number; the type of numbers is a part of `RunSpec`.
NO_PART_OF_A_MODEL = ("transformers_version", "torch_dtype", "dtype", "architectures")
# Documents that mean and resample ablations read: of those that lenses are trained on, which no
# measure reads.
N_NEUTRAL, NEUTRAL_USE = 64, "lens"
# Rows under plans that are computed before they are stored: a killed job loses no more than these.
ROWS_AT_ONCE = 100_000

logger = logging.getLogger("layer_surgery.runs")


@dataclass(frozen=True)
class PlanRows:
    """Rows of the items under one plan, in the order asked for, and the runs they are from."""

    rows: list[Row]
    runs: tuple[str, ...]
    n_new: int


def open_laboratory(
    name: str,
    model_settings: ModelSettings,
    settings: LayerSurgerySettings,
    seed: int,
    *,
    items: Sequence[Mapping[str, Any]],
    texts: Sequence[Mapping[str, Any]],
    store_path: Path | str,
    device: str = "cpu",
    tokens_per_batch: int = 8192,
) -> ModelLaboratory:
    """The laboratory of a model that a config names. items, texts: rows of the tables
    `surgery_items` and `surgery_texts`."""
    module, tokenizer = load_named(name, model_settings, device=device)
    dtype = str(module.dtype).removeprefix("torch.")
    identity = {
        MODEL_NAME: name,
        "weights": weights_revision(model_source(name, model_settings)),
        "config": config_digest(module.config.to_dict()),
        "tokenizer": tokenizer_sha256(tokenizer),
    }
    return ModelLaboratory(
        load(module, device=device, dtype=dtype, tokenizer=tokenizer), Store(store_path),
        identity=identity, items=items, texts=texts, settings=settings, seed=seed,
        tokens_per_batch=tokens_per_batch,
    )  # fmt: skip


def config_digest(config: Mapping[str, Any]) -> str:
    """Digest of a model's configuration: the same weights with another rotation, scale or cap are
    another model. Where it was loaded from, by which version and in which type does not count."""
    kept = {
        name: value for name, value in config.items()
        if not name.startswith("_") and name not in NO_PART_OF_A_MODEL
    }  # fmt: skip
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


class ModelLaboratory:
    """A loaded model with its items, its texts and the store of its runs.

    identity: what pins weights and tokenizer (see `RunSpec.model`). forward_tokens: tokens that
    were newly run through the model so far, each plan counting all of its rows' tokens.
    """

    def __init__(
        self,
        model: Model,
        store: Store,
        *,
        identity: Mapping[str, str],
        items: Sequence[Mapping[str, Any]],
        texts: Sequence[Mapping[str, Any]],
        settings: LayerSurgerySettings,
        seed: int,
        tokens_per_batch: int = 8192,
    ) -> None:
        self.model, self.store, self.identity = model, store, dict(identity)
        self.items = {row["example_id"]: dict(row) for row in items}
        self.texts = {row["document_id"]: dict(row) for row in texts}
        self.settings, self.seed = settings, seed
        self.tokens_per_batch = tokens_per_batch
        self.forward_tokens = 0

    @property
    def n_layers(self) -> int:
        return self.model.n_layers

    @property
    def n_heads(self) -> int:
        return self.model.n_heads

    @cached_property
    def answer_rows(self) -> Rows:
        """Tokens of the items, and why some have no score."""
        items = list(self.items.values())
        return answer_rows(self.model.tokenizer, items, self.model.max_length)

    @cached_property
    def text_rows(self) -> Rows:
        """Tokens of the documents, and why some have no score."""
        return text_rows(
            self.model.tokenizer, list(self.texts.values()), self.settings.texts.max_tokens,
            self.model.max_length,
        )  # fmt: skip

    def measure(
        self,
        plans: Sequence[NamedPlan | LayerPlan],
        measure: Measure,
        item_ids: Sequence[str],
        *,
        progress: str = "",
    ) -> dict[str, PlanRows]:
        """By plan, written out: a row for each item, in the order of `item_ids`.

        item_ids: of items for answers and generations, of documents for text. progress: what the
        lines of a long run are headed. Raises UserError for an item that is not there or has no
        score, and for a plan that this model cannot run.
        """
        wanted = list(dict.fromkeys(item_ids))
        specs, n_new = self.run_missing(plans, measure, wanted, progress=progress)
        found = {}
        for spec in specs:
            measured = self.store.stored(spec)
            by_id = {row[spec.item_column]: row for row in measured.rows}
            rows = [by_id[name] for name in wanted]
            found[spec.plan] = PlanRows(rows, measured.runs, n_new[spec.key])
        return found

    def run_missing(
        self,
        plans: Sequence[NamedPlan | LayerPlan],
        measure: Measure,
        item_ids: Sequence[str],
        *,
        progress: str = "",
    ) -> tuple[list[RunSpec], dict[str, int]]:
        """Run what the store does not have: the spec of each plan, whose rows are all there then,
        and by its key how many items were run. Arguments and errors as for `measure`."""
        wanted = list(dict.fromkeys(item_ids))
        self._check(measure, wanted)
        named = list(_distinct(plans).values())
        specs = [self.spec(plan, measure, wanted) for plan in named]
        plan_of = {spec.plan: plan for spec, plan in zip(specs, named)}
        n_missing = sum(len(self.store.missing(spec)) for spec in specs)
        report = Progress(n_missing, progress or measure, logger)

        def run(missing: Sequence[RunSpec]) -> list[list[Row]]:
            return self._run([plan_of[spec.plan] for spec in missing], missing, report)

        n_new: dict[str, int] = {}
        n_plans = max(1, ROWS_AT_ONCE // max(1, len(wanted)))
        for start in range(0, len(specs), n_plans):
            n_new.update(self.store.fill(specs[start : start + n_plans], run))
        return specs, n_new

    def new_tokens(
        self, plans: Sequence[NamedPlan | LayerPlan], measure: Measure, item_ids: Iterable[str]
    ) -> int:
        """Tokens that `measure` would newly run, without running anything."""
        wanted = list(dict.fromkeys(item_ids))
        self._check(measure, wanted)
        return sum(
            self._cost(measure, self.store.missing(self.spec(plan, measure, wanted)))
            for plan in _distinct(plans).values()
        )

    def spec(self, plan: LayerPlan, measure: Measure, item_ids: Iterable[str]) -> RunSpec:
        """The run of one plan on some items."""
        measures = self.settings.measures
        methods = {step.ablation.method for step in plan.steps if step.ablation is not None}
        settings: dict[str, Any] = {
            "answers": {"top_tokens": measures.top_tokens},
            "text": {"max_tokens": self.settings.texts.max_tokens},
            "generation": {"max_new_tokens": measures.max_new_tokens, "ends": self._ends},
        }[measure]
        if methods & {"mean", "resample"}:
            settings = {**settings, "neutral": self._neutral_digest}
        if "patch" in methods:
            settings = {**settings, "donors": self._donors_digest}
        return RunSpec(
            model=self.identity,
            plan=str(plan),
            measure=measure,
            item_ids=tuple(item_ids),
            settings=settings,
            dtype=str(self.model.dtype).removeprefix("torch."),
            device_kind=self.model.device.type,
            # Nothing else is drawn: another seed of the project finds the other runs.
            seed=derived_seed(self.seed, "resample") if "resample" in methods else 0,
            code=measuring_code(),
        )

    @cached_property
    def neutral(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of the documents that ablations read."""
        chosen = sorted(
            name for name, text in self.texts.items()
            if text["use"] == NEUTRAL_USE and name in self.text_rows.rows
        )  # fmt: skip
        rows = self.text_rows.rows
        return tuple((*rows[name].tokens, rows[name].targets[-1]) for name in chosen[:N_NEUTRAL])

    @cached_property
    def donors(self) -> dict[str, tuple[int, ...]]:
        """By item, the prompt of another item of its task that has another answer: what patches
        are read from. An item without such a neighbour has none."""
        scored = [row for name, row in self.items.items() if name in self.answer_rows.rows]
        by_task: dict[str, list[Row]] = {}
        for row in sorted(scored, key=lambda row: row["example_id"]):
            by_task.setdefault(row["task"], []).append(row)
        found = {}
        for row in scored:
            others = [each for each in by_task[row["task"]] if each["answer"] != row["answer"]]
            if others:
                place = derived_seed(0, "donor", row["example_id"]) % len(others)
                donor = self.answer_rows.rows[others[place]["example_id"]]
                found[row["example_id"]] = donor.tokens[: donor.prompt]
        return found

    @cached_property
    def _ends(self) -> list[int]:
        """Tokens that end a text: of the model's settings for generation, not of its weights."""
        return end_tokens(self.model.module, self.model.tokenizer)

    @cached_property
    def _neutral_digest(self) -> str:
        return content_hash(self.neutral)

    @cached_property
    def _donors_digest(self) -> str:
        return content_hash(self.donors)

    @cached_property
    def _tasks(self) -> dict[str, TaskItem]:
        return dict(zip(self.items, items_of_rows(list(self.items.values()))))

    def _rows(self, measure: Measure) -> Rows:
        return self.text_rows if measure == "text" else self.answer_rows

    def _check(self, measure: Measure, item_ids: Sequence[str]) -> None:
        rows, n_new = self._rows(measure), self.settings.measures.max_new_tokens
        for name in item_ids:
            reason = rows.unscored.get(name) or ("" if name in rows.rows else "it is not there")
            if not reason and measure == "generation" and not fits(
                self.model, rows.rows[name], n_new
            ):  # fmt: skip
                reason = f"it leaves no room for {n_new} new tokens"
            if reason:
                raise UserError(
                    f"{name} cannot be measured: {reason}",
                    where=f"measure {measure}",
                    remedy="name items of the tables surgery_items or surgery_texts that the "
                    "intact model scores (surgery_intact, column unscored)",
                )

    def _cost(self, measure: Measure, item_ids: Iterable[str]) -> int:
        rows = [self._rows(measure).rows[name] for name in item_ids]
        if measure != "generation":
            return sum(len(row.tokens) for row in rows)
        return sum(row.prompt + self.settings.measures.max_new_tokens for row in rows)

    def _run(
        self, plans: Sequence[LayerPlan], specs: Sequence[RunSpec], report: Progress
    ) -> list[list[Row]]:
        """Rows of each spec. Plans that lack the same items run together."""
        found: dict[str, list[Row]] = {}
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, spec in enumerate(specs):
            groups.setdefault(spec.item_ids, []).append(number)
        for item_ids, numbers in groups.items():
            measure = specs[numbers[0]].measure
            rows = [self._rows(measure).rows[name] for name in item_ids]
            measured = self._measured([plans[number] for number in numbers], measure, rows, report)
            found.update(zip((specs[number].key for number in numbers), measured))
            self.forward_tokens += self._cost(measure, item_ids) * len(numbers)
        return [found[spec.key] for spec in specs]

    def _measured(
        self,
        plans: Sequence[LayerPlan],
        measure: Measure,
        rows: Sequence[ScoredRow],
        report: Progress,
    ) -> list[list[Row]]:
        around = self._surroundings(plans)
        n_tokens = self.tokens_per_batch
        if measure == "text":
            return measure_texts(
                self.model, plans, rows, around, tokens_per_batch=n_tokens, progress=report
            )
        if measure == "answers":
            return measure_answers(
                self.model, plans, rows, around, tokens_per_batch=n_tokens, progress=report,
                top_tokens=self.settings.measures.top_tokens,
            )  # fmt: skip
        return measure_generations(
            self.model, plans, rows, self._tasks, around, tokens_per_batch=n_tokens,
            progress=report, max_new_tokens=self.settings.measures.max_new_tokens,
        )  # fmt: skip

    def _surroundings(self, plans: Sequence[LayerPlan]) -> Surroundings:
        steps = [step for plan in plans for step in plan.steps]
        methods = {step.ablation.method for step in steps if step.ablation is not None}
        return Surroundings(
            neutral=self.neutral if methods & {"mean", "resample"} else (),
            donors=self.donors if "patch" in methods else {},
            seed=derived_seed(self.seed, "resample"),
        )


def _distinct(plans: Sequence[NamedPlan | LayerPlan]) -> dict[str, LayerPlan]:
    found = [plan.plan if isinstance(plan, NamedPlan) else plan for plan in plans]
    return {str(plan): plan for plan in found}
