"""What lenses read over real prompts, token by token and depth by depth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from interpflow.engine.lenses.depth_states import depth_states
from interpflow.engine.lenses.readings import Lens, read_lenses
from interpflow.engine.model import Model
from interpflow.errors import UserError
from interpflow.models.tokens import encode_all

Row = dict[str, Any]

N_ITEMS = 3
WHERE = "layer_surgery.lenses.trajectories"


def shown_prompts(
    own: Sequence[str],
    items: Sequence[Mapping[str, Any]],
    answered: Collection[str],
    tasks: Collection[str],
    texts: Sequence[Mapping[str, Any]],
) -> list[str]:
    """The prompts of the settings; without any, items of three analysed tasks with their answers,
    tasks far apart in their order, and one held-out document.

    items: rows of `surgery_items`; answered: ids of those that the model answers rightly, which are
    preferred; texts: rows of `surgery_texts`.
    """
    if own:
        return list(own)
    names = sorted(tasks)
    places = {round(k * (len(names) - 1) / (N_ITEMS - 1)) for k in range(N_ITEMS)} if names else ()
    shown = []
    for name in [names[place] for place in sorted(places)]:
        of_task = [row for row in items if row["task"] == name]
        right = [row for row in of_task if row["example_id"] in answered]
        chosen = min(right or of_task, key=lambda row: row["example_id"])
        shown.append(chosen["prompt"] + chosen["answer"])
    stories = [row for row in texts if row["use"] == "measure" and row["split"] == "confirm"]
    return shown + [row["text"] for row in stories[:1]]


def trajectory_rows(
    model: Model,
    lenses: Mapping[str, Lens],
    prompts: Sequence[str],
    *,
    max_tokens: int,
    tokens_per_batch: int,
) -> list[Row]:
    """Rows of the table `surgery_trajectories`: at every token of each prompt, cut after
    `max_tokens`, what is read at each depth for the token after it.

    Raises UserError for a prompt that has no token.
    """
    ids = [list(encoded.ids[:max_tokens]) for encoded in encode_all(model.tokenizer, prompts)]
    for prompt, row in zip(prompts, ids, strict=True):
        if not row:
            raise UserError(
                f"the prompt {prompt!r} has no token", where=WHERE, remedy="write it out"
            )
    rows: list[Row] = []
    found = {
        one.number: read_lenses(model, lenses, one.states)
        for one in depth_states(model, ids, batch_tokens=tokens_per_batch)
    }
    for number, (prompt, tokens) in enumerate(zip(prompts, ids, strict=True)):
        words = [model.tokenizer.decode([token]) for token in tokens]
        for lens, read in found[number].items():
            for depth in range(len(read.kl)):
                tops = [model.tokenizer.decode([token]) for token in read.top[depth].tolist()]
                for position, word in enumerate(words):
                    here = (depth, position)
                    rows.append({
                        "prompt": number, "text": prompt, "position": position, "token": word,
                        "lens": lens, "depth": depth, "top_token": tops[position],
                        "probability": float(read.probability[here]), "kl": float(read.kl[here]),
                        "final_rank": float(read.final_rank[here]),
                        "final_probability": float(read.final_probability[here]),
                    })  # fmt: skip
    return rows
