"""The pre-registered claims: read from their file, checked, and their plans found in a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from interpflow.errors import UserError
from interpflow.paths import RESOURCES_DIR
from interpflow.plans.requests import NamedPlan, named_plan

CLAIMS_FILE = RESOURCES_DIR / "claims" / "layer_surgery.yaml"
# rule -> (keys it needs, keys it may have)
RULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "costs_more": (("by", "dearer", "cheaper"), ()),
    "retention": (("plan",), ("tasks", "at_least", "at_most")),
    "top1_kept": (("plan",), ("at_least", "at_most")),
    "echoes": (("plan",), ("at_least", "at_most")),
    "earlier": (("share", "groups"), ()),
}
_ALWAYS = ("name", "text", "source", "rule")
FAMILY_KEYS: dict[str, tuple[str, ...]] = {
    "skip_each": ("at",),
    "swap": ("at",),
    "repeat": ("at", "times"),
    "keep_first": ("n", "depth", "all_but"),
}


@dataclass(frozen=True)
class Claim:
    """An observation with the rule that decides it; `given`: what the rule is told."""

    name: str
    text: str
    source: str
    rule: str
    given: Mapping[str, Any]


def read_claims(path: Path | str = CLAIMS_FILE) -> list[Claim]:
    """The claims of a file. Raises UserError naming the file and the claim that is at fault."""
    try:
        listed = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"the claims cannot be read: {error}", where=str(path)) from error
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise UserError("the claims are no list", where=str(path), remedy="- name: …")
    claims = [_claim(entry, f"{path}, claim {place + 1}") for place, entry in enumerate(listed)]
    names = [claim.name for claim in claims]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two claims are named {twice!r}", where=str(path))
    return claims


def chosen_plans(selector: Mapping[str, Any], n_layers: int) -> list[list[NamedPlan]]:
    """Groups of plans that a selector means in a model of this depth: one group of several plans
    for a mean, else a group for each plan; without plans in a model that is too small."""
    if "mean" in selector:
        plans = [plan for (plan,) in chosen_plans(selector["mean"], n_layers)]
        return [plans] if plans else []
    requests = _requests(selector, n_layers)
    return [[named_plan(request, n_layers, 1, where="claim")] for request in requests]


def _claim(entry: dict[str, Any], where: str) -> Claim:
    missing = [key for key in _ALWAYS if key not in entry]
    if missing:
        raise UserError(f"a claim without {', '.join(missing)}", where=where)
    rule = entry["rule"]
    if rule not in RULES:
        raise UserError(
            f"there is no rule {rule!r}", where=where, remedy=f"use one of {', '.join(RULES)}"
        )
    needed, optional = RULES[rule]
    given = {key: value for key, value in entry.items() if key not in _ALWAYS}
    wrong = [key for key in needed if key not in given]
    wrong += [key for key in given if key not in (*needed, *optional)]
    bounds = [key for key in ("at_least", "at_most") if key in given]
    if wrong or ("at_least" in optional and len(bounds) != 1):
        raise UserError(
            f"the rule {rule} needs {', '.join(needed)}"
            + (" and one of at_least, at_most" if "at_least" in optional else "")
            + (f"; at fault: {', '.join(wrong)}" if wrong else ""),
            where=where,
        )
    selectors = [*given.get("dearer", ()), *given.get("cheaper", ())]
    for selector in [*selectors, *([given["plan"]] if "plan" in given else [])]:
        _check_selector(selector, where)
    return Claim(entry["name"], entry["text"], entry["source"], rule, given)


def _check_selector(selector: Any, where: str) -> None:
    inner = selector.get("mean", selector) if isinstance(selector, dict) else None
    family = inner.get("family") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or family not in FAMILY_KEYS:
        raise UserError(
            f"{selector!r} names no plans",
            where=where,
            remedy=f"give a family: one of {', '.join(FAMILY_KEYS)}",
        )
    given = [key for key in inner if key != "family"]
    allowed = FAMILY_KEYS[family]
    complete = len(given) == 1 if family == "keep_first" else set(given) == set(allowed)
    if not complete or any(key not in allowed for key in given):
        raise UserError(
            f"plans of {family} are chosen by {', '.join(allowed)}, not by {', '.join(given)}",
            where=where,
        )


def _requests(selector: Mapping[str, Any], n_layers: int) -> list[dict[str, Any]]:
    family = selector["family"]
    if family == "keep_first":
        if "n" in selector:
            n = selector["n"]
        elif "all_but" in selector:
            n = n_layers - selector["all_but"]
        else:
            n = round(selector["depth"] * n_layers)
        return [{"kind": "keep_first", "n": n}] if 0 <= n < n_layers else []
    places = _places(selector["at"], n_layers - 1 if family == "swap" else n_layers)
    if family == "skip_each":
        return [{"kind": "skip", "blocks": [block]} for block in places]
    if family == "swap":
        return [{"kind": "swap", "block": block, "with_block": block + 1} for block in places]
    return [{"kind": "repeat", "first": block, "times": selector["times"]} for block in places]


def _places(at: str | list[float], n: int) -> list[int]:
    """Blocks (or first blocks of pairs) of n. Shares are of the middle of each, (i + ½)/n, and mean
    inner ones only: the first and the last have claims of their own."""
    if at == "first":
        return [0] if n else []
    if at == "last":
        return [n - 1] if n > 1 else []
    if at == "inner":
        return [*range(1, n - 1)]
    low, high = at
    return [place for place in range(1, n - 1) if float(low) <= (place + 0.5) / n < float(high)]
