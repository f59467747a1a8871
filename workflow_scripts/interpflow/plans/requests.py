"""Plans by name, as a config, an agent or a notebook asks for them, for a model of any depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpflow.errors import UserError, named
from interpflow.plans.layer_plan import Ablation, LayerPlan, Step

_BLOCK = {"type": "integer", "minimum": 0}
# What a plan can be asked for by; the schema of an agent's tools is made from it.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "n": {"type": "integer", "minimum": 0, "description": "number of blocks kept"},
    "blocks": {"type": "array", "items": _BLOCK, "description": "blocks, counted from 0"},
    "block": {**_BLOCK, "description": "a block, counted from 0"},
    "first": {**_BLOCK, "description": "first block of a range"},
    "last": {**_BLOCK, "description": "last block of a range, included"},
    "times": {"type": "integer", "minimum": 1, "maximum": 8, "description": "times run in a row"},
    "with_block": {**_BLOCK, "description": "the block that changes places with `block`"},
    "seed": {"type": "integer", "minimum": 0, "description": "of a random order"},
    "part": {"enum": ["attention", "mlp", "head", "block"], "description": "what is ablated"},
    "method": {
        "enum": ["zero", "mean", "resample", "patch"],
        "description": "what stands in its place",
    },
    "head": {"type": "integer", "minimum": 0, "description": "with part head"},
    "factor": {"type": "number", "description": "what the block writes is multiplied by it"},
    "steps": {"type": "string", "description": 'a plan written out, such as "0 1 3"'},
}


@dataclass(frozen=True)
class NamedPlan:
    """A plan with the name it is known by, such as "skip 3", and the family it belongs to."""

    label: str
    kind: str
    plan: LayerPlan


def named_plan(
    request: Mapping[str, Any], n_layers: int, n_heads: int, *, where: str = "plan"
) -> NamedPlan:
    """The plan that {"kind": ..., further arguments} asks for, checked against the model's size.

    Raises UserError for an unknown kind, an argument that is missing or not of this kind, and for
    blocks or heads that the model does not have.
    """
    kind = request.get("kind")
    if kind not in KINDS:
        raise UserError(
            f"there is no kind of plan {kind!r}",
            where=where,
            remedy=f"use one of {', '.join(KINDS)}",
        )
    needed, optional, build = KINDS[kind]
    given = {name: value for name, value in request.items() if name != "kind" and value is not None}
    missing = [name for name in needed if name not in given]
    unknown = [name for name in given if name not in (*needed, *optional)]
    if missing or unknown:
        raise UserError(
            f"a plan {kind!r} "
            + (f"needs {', '.join(missing)}" if missing else f"takes no {', '.join(unknown)}"),
            where=where,
            remedy=f"give {', '.join((*needed, *(f'{name} (optional)' for name in optional)))}"
            if needed or optional else "give nothing else",
        )  # fmt: skip
    for name, value in given.items():
        _check_type(name, value, where)
    with named(where):
        label, plan = build(n_layers, **given)
        plan.check(n_layers, n_heads)
    return NamedPlan(label, kind, plan)


def _check_type(name: str, value: Any, where: str) -> None:
    """Raise UserError for a value that the argument's schema does not allow."""
    schema = ARGUMENTS[name]
    kind = schema.get("type")
    numbers = value if kind == "array" and isinstance(value, list) else [value]
    is_right = {
        "string": isinstance(value, str),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": _is_whole(value),
        "array": isinstance(value, list) and bool(value) and all(map(_is_whole, value)),
        None: value in schema.get("enum", ()),
    }[kind]
    low, high = schema.get("minimum", 0), schema.get("maximum")
    if is_right and kind in ("integer", "array"):
        is_right = all(low <= each and (high is None or each <= high) for each in numbers)
    if not is_right:
        words = {
            "string": "text",
            "number": "a number",
            "array": "a list of whole numbers",
            "integer": "a whole number",
            None: f"one of {', '.join(schema.get('enum', ()))}",
        }
        limits = f" from {low}" + (f" to {high}" if high else "")
        raise UserError(
            f"{name} cannot be {value!r}",
            where=where,
            remedy=f"give {words[kind]}{limits if kind in ('integer', 'array') else ''}: "
            f"{schema.get('description', name)}",
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def request_schema() -> dict[str, Any]:
    """JSON schema of a request, for the tools of an agent."""
    return {
        "type": "object",
        "properties": {
            "kind": {
                "enum": list(KINDS),
                "description": "; ".join(
                    f"{kind}({', '.join((*needed, *(f'{name}?' for name in optional)))})"
                    for kind, (needed, optional, _) in KINDS.items()
                ),
            },
            **ARGUMENTS,
        },
        "required": ["kind"],
        "additionalProperties": False,
    }


def _identity(n_layers: int) -> tuple[str, LayerPlan]:
    return "intact", LayerPlan.of(range(n_layers))


def _keep_first(n_layers: int, n: int) -> tuple[str, LayerPlan]:
    _at_most(n, n_layers)
    return f"first {n}", LayerPlan.of(range(n))


def _keep_last(n_layers: int, n: int) -> tuple[str, LayerPlan]:
    _at_most(n, n_layers)
    return f"last {n}", LayerPlan.of(range(n_layers - n, n_layers))


def _skip(n_layers: int, blocks: list[int]) -> tuple[str, LayerPlan]:
    _known(blocks, n_layers)
    kept = [block for block in range(n_layers) if block not in set(blocks)]
    return f"skip {_ranges(blocks)}", LayerPlan.of(kept)


def _repeat(
    n_layers: int, first: int, times: int, last: int | None = None
) -> tuple[str, LayerPlan]:
    last = first if last is None else last
    _range(first, last, n_layers)
    again = [*range(first, last + 1)] * times
    named = _ranges(range(first, last + 1))
    order = [*range(first), *again, *range(last + 1, n_layers)]
    return f"repeat {named} ×{times}", LayerPlan.of(order)


def _swap(n_layers: int, block: int, with_block: int) -> tuple[str, LayerPlan]:
    _known([block, with_block], n_layers)
    order = list(range(n_layers))
    order[block], order[with_block] = with_block, block
    low, high = sorted((block, with_block))
    return f"swap {low} {high}", LayerPlan.of(order)


def _reverse(
    n_layers: int, first: int | None = None, last: int | None = None
) -> tuple[str, LayerPlan]:
    first, last = first or 0, n_layers - 1 if last is None else last
    _range(first, last, n_layers)
    order = [*range(first), *range(last, first - 1, -1), *range(last + 1, n_layers)]
    return f"reverse {first}–{last}", LayerPlan.of(order)


def _permute(
    n_layers: int, seed: int, first: int | None = None, last: int | None = None
) -> tuple[str, LayerPlan]:
    first, last = first or 0, n_layers - 1 if last is None else last
    _range(first, last, n_layers)
    inner = np.random.default_rng(seed).permutation(np.arange(first, last + 1)).tolist()
    order = [*range(first), *inner, *range(last + 1, n_layers)]
    return f"random order {seed} of {first}–{last}", LayerPlan.of(order)


def _parallel(n_layers: int, first: int, last: int) -> tuple[str, LayerPlan]:
    _range(first, last, n_layers)
    steps = [Step((block,)) for block in range(first)]
    steps.append(Step(tuple(range(first, last + 1))))
    steps += [Step((block,)) for block in range(last + 1, n_layers)]
    return f"parallel {first}–{last}", LayerPlan(tuple(steps))


def _ablate(
    n_layers: int, block: int, part: str, method: str, head: int | None = None
) -> tuple[str, LayerPlan]:
    _known([block], n_layers)
    ablation = Ablation(part, method, head)  # type: ignore[arg-type]
    what = part if head is None else f"head {head}"
    return f"{method} {what} of {block}", _changed(n_layers, Step((block,), ablation))


def _scale(n_layers: int, block: int, factor: float) -> tuple[str, LayerPlan]:
    _known([block], n_layers)
    return f"block {block} ×{factor:g}", _changed(n_layers, Step((block,), factor=float(factor)))


def _steps(n_layers: int, steps: str) -> tuple[str, LayerPlan]:
    return steps.strip(), LayerPlan.parse(steps)


def _changed(n_layers: int, step: Step) -> LayerPlan:
    at = step.blocks[0]
    return LayerPlan(tuple(step if i == at else Step((i,)) for i in range(n_layers)))


def _ranges(blocks: Any) -> str:
    """Blocks in words: "1, 3–5"."""
    found: list[list[int]] = []
    for block in sorted(set(blocks)):
        if found and block == found[-1][-1] + 1:
            found[-1].append(block)
        else:
            found.append([block])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in found)


def _known(blocks: Any, n_layers: int) -> None:
    for block in blocks:
        if not 0 <= block < n_layers:
            raise UserError(
                f"there is no block {block}",
                where="layer plan",
                remedy=f"this model has {n_layers} blocks, counted from 0",
            )


def _range(first: int, last: int, n_layers: int) -> None:
    _known([first, last], n_layers)
    if first > last:
        raise UserError(f"a range from {first} to {last} is empty", where="layer plan")


def _at_most(n: int, n_layers: int) -> None:
    if not 0 <= n <= n_layers:
        raise UserError(
            f"{n} blocks cannot be kept", where="layer plan", remedy=f"keep 0 to {n_layers}"
        )


# kind -> (arguments it needs, arguments it may have, how it is built)
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[..., tuple[str, LayerPlan]]]] = {
    "identity": ((), (), _identity),
    "keep_first": (("n",), (), _keep_first),
    "keep_last": (("n",), (), _keep_last),
    "skip": (("blocks",), (), _skip),
    "repeat": (("first", "times"), ("last",), _repeat),
    "swap": (("block", "with_block"), (), _swap),
    "reverse": ((), ("first", "last"), _reverse),
    "permute": (("seed",), ("first", "last"), _permute),
    "parallel": (("first", "last"), (), _parallel),
    "ablate": (("block", "part", "method"), ("head",), _ablate),
    "scale": (("block", "factor"), (), _scale),
    "steps": (("steps",), (), _steps),
}
