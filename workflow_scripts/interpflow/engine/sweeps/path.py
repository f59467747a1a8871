"""How a model's sweeps are run: proven once per model, and looked at again for foreign hooks."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.passes.blocks import Blocks
from interpflow.engine.proofs.blocks_proof import proven_blocks

_HOOK_TABLES = ("_forward_pre_hooks", "_forward_hooks")
# Hooks of ours, and those by which transformers collects outputs, change nothing.
_KNOWN_HOOKS = (hooks.__name__, "transformers.utils.")


def joining_blocks(model: Model) -> Blocks | None:
    """The model's blocks, if they are proven to run one at a time and nobody else's hook is on
    the model: called one at a time, on rows of several prompts, blocks would pass it by or show it
    states of a shape that it does not expect."""
    if foreign_hook(model.module) is not None:
        return None
    found = proven_blocks(model)
    return found if isinstance(found, Blocks) else None


def why_whole(model: Model) -> str | None:
    """The reason why sweeps on this model run whole passes; None when they do not."""
    where = foreign_hook(model.module)
    if where is not None:
        return f"a hook that is not interpflow's is on {where}"
    found = proven_blocks(model)
    return found if isinstance(found, str) else None


def sweep_path(model: Model) -> str:
    """What whole passes of a sweep may leave out: nothing, where a foreign hook could see it."""
    return "full" if foreign_hook(model.module) is not None else model.fastest_path


def foreign_hook(module: nn.Module) -> str | None:
    """Name of the first module inside `module` with a forward (pre) hook of somebody else."""
    if any(_foreign(getattr(torch_module, f"_global{table}")) for table in _HOOK_TABLES):
        return "every module"
    for name, part in module.named_modules():
        if any(_foreign(getattr(part, table)) for table in _HOOK_TABLES):
            return name or "the whole model"
    return None


def _foreign(table: dict[int, Any]) -> bool:
    # A list: another thread may add a hook of ours in the meantime.
    return any(not _module_of(hook).startswith(_KNOWN_HOOKS) for hook in list(table.values()))


def _module_of(hook: Any) -> str:
    return getattr(hook, "__module__", None) or type(hook).__module__
