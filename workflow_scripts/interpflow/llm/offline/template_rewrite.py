"""The generator of rewrites: the style's own templates around the question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interpflow.config.identity import content_hash
from interpflow.errors import UserError
from interpflow.llm.offline.items import field
from interpflow.tasks.perturbations.perturb import perturb
from interpflow.tasks.perturbations.styles import STYLES
from interpflow.tasks.perturbations.text import PerturbedText
from interpflow.tasks.word_kinds import source_text

DEFAULT_STRENGTH = 2


def template_rewrite(item: Mapping[str, Any], sample: int) -> dict[str, str]:
    """{"question": item["question"] in item["style"]}, drawn by item["seed"] and the sample.

    item["strength"]: 1 to 3. A question that the style leaves as it is comes back empty. Raises
    UserError for a style without templates.
    """
    question, style = str(field(item, "question")), str(field(item, "style"))
    if style not in STYLES:
        raise UserError(
            f"the offline generator does not write in the style {style!r}",
            where="robustness.perturbations.rewrites.styles",
            remedy=f"choose from {', '.join(STYLES)}, or let a language model play "
            "llm.roles.generator",
        )
    made = perturb(
        source_text(question), style, seed=int(item.get("seed", 0)),
        example_id=content_hash(["robustness_rewrite", question]),
        strength=int(item.get("strength", DEFAULT_STRENGTH)), variant=sample,
    )  # fmt: skip
    return {"question": made.text if isinstance(made, PerturbedText) else ""}
