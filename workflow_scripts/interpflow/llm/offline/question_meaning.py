"""The validator of variants: do two questions ask for the same, as far as a rule can tell?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interpflow.llm.offline.items import field
from interpflow.tasks.rewriting import Meaning, rule_meaning


def question_meaning(item: Mapping[str, Any], sample: int) -> Meaning:
    """Does item["variant"] ask for the same as item["original"]? Unclear where no rule can tell."""
    return rule_meaning(str(field(item, "original")), str(field(item, "variant")))
