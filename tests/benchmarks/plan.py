"""Everything that the reference page shows, in its order: sections, and the runs of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OURS = ("interpflow",)
LIBRARIES = ("TransformerLens", "nnsight", "pyvene")
# All but the oracle, which runs every site whole.
SWEEPS = ("interpflow", "plain hooks", "hooks, last logits", *LIBRARIES, "linears")
WITH_CHECKS = (*SWEEPS, "interpflow, checked")
FEW = ("interpflow", "plain hooks", "pyvene", "linears")


@dataclass(frozen=True)
class Run:
    """One record: a work on a shape, with fields changed, for all or the named implementations."""

    name: str
    work: str
    shape: str
    title: str
    changes: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Runs that share a heading; `growth` puts them in one table, a line per run."""

    title: str
    text: str
    runs: tuple[Run, ...]
    growth: str = ""


RESIDUAL = Section(
    "Residual sweep",
    "The clean run's residual is put into the corrupted run at every layer and position of 8 pairs "
    "of 32 tokens; the metric is a logit difference at the last position.",
    (
        Run(
            "residual-gpt2",
            "residual_sweep",
            "gpt2",
            "GPT-2 shape, unrelated pairs",
            only=WITH_CHECKS,
        ),
        Run(
            "residual-gpt2-pre",
            "residual_sweep",
            "gpt2",
            "GPT-2 shape, unrelated pairs, before the block (`resid_pre`)",
            {"component": "resid_pre"},
            FEW,
        ),
        Run(
            "residual-gpt2-shared",
            "residual_sweep",
            "gpt2",
            "GPT-2 shape, the first 20 tokens shared within each pair",
            {"shared": 20},
            SWEEPS,
        ),
        Run(
            "residual-gpt2-common",
            "residual_sweep",
            "gpt2",
            "GPT-2 shape, the first 20 tokens the same in all pairs",
            {"shared": 20, "common": True},
            FEW,
        ),
        Run(
            "residual-llama", "residual_sweep", "llama", "Llama shape, unrelated pairs", only=SWEEPS
        ),
        Run("residual-tiny", "residual_sweep", "tiny", "tiny shape, unrelated pairs"),
    ),
)
HEADS = Section(
    "Head sweep",
    "Every head's output at the last position, in every layer, 8 pairs of 32 tokens.",
    (
        Run("heads-gpt2", "head_sweep", "gpt2", "GPT-2 shape", only=SWEEPS),
        Run("heads-llama", "head_sweep", "llama", "Llama shape", only=SWEEPS),
        Run("heads-tiny", "head_sweep", "tiny", "tiny shape"),
    ),
)
DUMP = Section(
    "Activation dump",
    "Prompts of 64 tokens (96; tiny 384): all hidden states in fp16, the top 20 logits at each "
    "position and the final query's attention, written to disk. A plain forward computes all "
    "logits and keeps nothing. Read: one layer of one prompt, the store open, median wall time.",
    (
        Run("dump-gpt2", "activation_dump", "gpt2", "GPT-2 shape"),
        Run("dump-llama", "activation_dump", "llama", "Llama shape"),
        Run("dump-tiny", "activation_dump", "tiny", "tiny shape", {"n_prompts": 384}),
        Run(
            "dump-queries-tiny",
            "activation_dump",
            "tiny",
            "tiny shape, attention of 4 further queries, and what each token is for",
            {"n_prompts": 384, "queries": 4},
            ("interpflow", "plain forward"),
        ),
    ),
)
SCORING = Section(
    "Answer scoring",
    "2,000 prompts, 10 answers each. The harness runs its model's `loglikelihood` alone; task "
    "loading and reporting come on top.",
    (
        Run("scoring-tiny", "scoring", "tiny", "tiny shape, one-token answers"),
        Run(
            "scoring-gpt2",
            "scoring",
            "gpt2",
            "GPT-2 shape, one-token answers",
            {"n_prompts": 192},
        ),
        Run(
            "scoring-six-tiny",
            "scoring",
            "tiny",
            "tiny shape, six-token answers",
            {"answer_tokens": 6, "n_prompts": 200},
        ),
        Run(
            "scoring-shared-tiny",
            "scoring",
            "tiny",
            "tiny shape, six-token answers after a shared prefix of 600 tokens",
            {"answer_tokens": 6, "shared": 600, "n_prompts": 16, "batch": 8},
        ),
    ),
)
SKIPS = Section(
    "Layer skips",
    "No block and each block in turn is left out of the model, on 32 documents of 64 tokens; the "
    "log-probability of a token after each document. Steps that plans begin with in common run "
    "once here; with hooks every plan is a whole forward.",
    (
        Run("skips-gpt2", "layer_skips", "gpt2", "GPT-2 shape"),
        Run("skips-small", "layer_skips", "small", "small shape (8 blocks of d 96)"),
    ),
)
PAIRS = Section(
    "Growth with the number of pairs",
    "Residual sweep, Llama shape of 8 layers and d 128, 32 tokens.",
    tuple(
        Run(f"pairs-{n}", "residual_sweep", "llama-8", str(n), {"n_pairs": n}, OURS)
        for n in (8, 80, 800)
    ),
    "pairs",
)
LAYERS = Section(
    "Growth with depth",
    "Residual sweep of 8 pairs, Llama shapes of d 128, 32 tokens. A site in the middle of n layers "
    "runs n/2 blocks, so time per site and block is what can stay the same.",
    tuple(
        Run(f"layers-{n}", "residual_sweep", f"llama-{n}", str(n), {}, OURS)
        for n in (4, 12, 24, 48)
    ),
    "layers",
)
MEMORY = Section(
    "Memory of a dump",
    "A minute shape, prompts of 16 tokens.",
    tuple(
        Run(
            f"dump-memory-{n}",
            "activation_dump",
            "minute",
            f"{n:,}",
            {"n_prompts": n, "length": 16, "batch": 256},
            OURS,
        )
        for n in (1_000, 10_000, 100_000)
    ),
    "prompts",
)
MEMORY_WITH_QUERIES = Section(
    "Memory of a dump with queries",
    "The same with the attention of 4 further queries, and what each token is for.",
    tuple(
        Run(
            f"dump-queries-memory-{n}",
            "activation_dump",
            "minute",
            f"{n:,}",
            {"n_prompts": n, "length": 16, "batch": 256, "queries": 4},
            OURS,
        )
        for n in (1_000, 10_000, 100_000)
    ),
    "prompts",
)
SECTIONS = (RESIDUAL, HEADS, DUMP, SCORING, SKIPS, PAIRS, LAYERS, MEMORY, MEMORY_WITH_QUERIES)
# 27 GB of float32 weights in each of these processes at once.
ON_7B = ("interpflow", "plain hooks", "nnsight", "linears")
# The same works where a GPU can be had: `run --gpu`, in both types.
GPU_SECTIONS = (
    Section(
        "Residual sweep",
        RESIDUAL.text,
        (
            *RESIDUAL.runs,
            Run(
                "residual-7b",
                "residual_sweep",
                "7b",
                "Llama of 7B parameters, unrelated pairs",
                only=ON_7B,
            ),
        ),
    ),
    Section(
        "Head sweep",
        HEADS.text,
        (
            *HEADS.runs,
            Run("heads-7b", "head_sweep", "7b", "Llama of 7B parameters", only=ON_7B),
        ),
    ),
    DUMP,
    Section("Answer scoring", SCORING.text, SCORING.runs[:2]),
)
GPU_DTYPES = ("float32", "bfloat16")


def gpu_name(run: Run, dtype: str) -> str:
    """The record's name on a GPU."""
    return f"{run.name}-cuda-{dtype}"
