"""Training of the tuned lens: the divergence from the model's own next-token distribution.

Loss as in Belrose et al. (2023): the mean over tokens of KL(model ‖ lens), every depth by itself,
no labels. Adam in the place of their SGD, which needs far more tokens. Norm and unembedding stay
as they are. At each validation a depth's parameters are kept if they are its best so far, the
untrained ones among them: no depth ends worse than the logit lens on the validation documents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interpflow.engine.lenses.lens_divergence import descent, divergence
from interpflow.engine.lenses.state_pool import StatePool
from interpflow.engine.lenses.tuned_lens import LensKind, TunedLens
from interpflow.engine.model import DEFAULT_BATCH_TOKENS, Model
from interpflow.models.reference.train import deterministic_single_thread

Progress = Callable[[str], None]

DEFAULT_TOKENS = 192
# Of the documents, to choose a step by; at most MAX_VALIDATION, and none of fewer than MIN_SPLIT.
VALIDATION_SHARE = 0.1
MAX_VALIDATION = 32
MIN_SPLIT = 10
VALIDATION_TOKENS = 512
VALIDATIONS = 10
# Validations in a row without any depth getting better, after which training ends.
PATIENCE = 3
PROGRESS_SECONDS = 5.0


def train_tuned_lens(
    model: Model,
    documents: Sequence[Sequence[int]] | StatePool,
    *,
    steps: int,
    documents_per_step: int,
    tokens_per_step: int = DEFAULT_TOKENS,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    kind: LensKind = "affine",
    progress: Progress | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> LensFit:
    """Train a lens on documents (token ids, or their states) for at most `steps` steps.

    A step reads `tokens_per_step` places of `documents_per_step` documents. The learning rate falls
    to 0; the decay pulls towards the identity. On a CPU the result is the same bytes whatever the
    number of cores. Raises UserError when no document has two tokens.
    """
    with reproducible(model.device):
        pool = documents
        if not isinstance(pool, StatePool):
            pool = StatePool(model, pool, batch_tokens=batch_tokens)
        rate = _Rate(steps, learning_rate, weight_decay)
        draw = _Draws(pool, documents_per_step, tokens_per_step, seed)
        return _train(model, TunedLens.identity(model, kind), draw, rate, progress)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """One thread on a CPU: sums in another order give other weights."""
    if device.type != "cpu":
        yield
        return
    with deterministic_single_thread():
        yield


def _train(
    model: Model, identity: TunedLens, draw: _Draws, rate: _Rate, progress: Progress | None
) -> LensFit:
    scale = _Scale.of(draw.first_states(), model.d_model)
    raw = identity
    parameters = [part for part in (raw.weight, raw.bias) if part is not None]
    optimizer = torch.optim.AdamW(parameters, lr=rate.first, weight_decay=rate.decay)
    held = draw.validation_states()
    best = _Best(identity)
    history: list[dict[str, float | list[float]]] = []
    every = max(1, rate.steps // VALIDATIONS)
    began = shown = time.monotonic()
    step, idle, kl = 0, 0, torch.zeros(identity.n_depths, dtype=torch.float64)
    for step in range(rate.steps + 1):
        lens = scale.applied(raw)
        if step % every == 0 or step == rate.steps:
            found = kl / every if held is None else divergence(model, lens, held)
            better = best.offer(lens, found, always=held is None)
            idle = 0 if better else idle + 1
            history.append({"step": step, "kl": found.tolist()})
            kl = torch.zeros_like(kl)
        if step == rate.steps or idle >= PATIENCE:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate.first * (1 - step / rate.steps)
        at = descent(model, lens, draw.places())
        scale.put_gradients(raw, at.weight, at.bias)
        optimizer.step()
        kl += at.kl
        if progress and time.monotonic() - shown >= PROGRESS_SECONDS:
            shown = time.monotonic()
            left = (shown - began) / (step + 1) * (rate.steps - step - 1)
            progress(
                f"{identity.kind} lens: step {step + 1} of {rate.steps}, "
                f"KL {float(at.kl.mean()):.3f} nats per token, {left:.0f} s left"
            )
    return LensFit(
        lens=best.lens,
        history=history,
        n_steps=step,
        training=tuple(draw.training),
        validation=tuple(draw.validation),
    )


@dataclass(frozen=True)
class _Rate:
    steps: int
    first: float
    decay: float


@dataclass(frozen=True, eq=False)
class _Scale:
    """What one unit of each trained number is worth in the lens.

    A step of Adam is as large for every number. Coordinates of the state that are far larger than
    usual (outlier dimensions) have smaller weights, and biases are counted in states.
    """

    columns: Tensor  # [depth, 1, d_model]
    bias: Tensor  # [depth, 1]

    @classmethod
    def of(cls, states: Tensor, d_model: int) -> _Scale:
        """From states [depth, n, d_model]."""
        size = states.float().square().mean(dim=1).sqrt()
        usual = size.median(dim=1, keepdim=True).values.clamp_min(1e-6)
        return cls((usual / torch.maximum(size, usual))[:, None, :], usual * d_model**0.5)

    def applied(self, raw: TunedLens) -> TunedLens:
        weight = None if raw.weight is None else raw.weight * self.columns
        return TunedLens(weight, raw.bias * self.bias)

    def put_gradients(self, raw: TunedLens, weight: Tensor | None, bias: Tensor) -> None:
        raw.bias.grad = bias * self.bias
        if raw.weight is not None and weight is not None:
            raw.weight.grad = weight * self.columns


class _Draws:
    """Which documents and places each step reads, decided by the seed alone."""

    def __init__(self, pool: StatePool, n_documents: int, n_tokens: int, seed: int) -> None:
        self.pool, self.n_documents, self.n_tokens = pool, n_documents, n_tokens
        self.generator = torch.Generator().manual_seed(seed % 2**63)
        order = self._shuffled(range(pool.n_documents))
        n_held = round(VALIDATION_SHARE * len(order)) if len(order) >= MIN_SPLIT else 0
        n_held = min(MAX_VALIDATION, n_held)
        self.validation, self.training = order[:n_held], order[n_held:]
        self._waiting: list[int] = []

    def first_states(self) -> Tensor:
        """States [depth but the last, n, d_model] of the first documents."""
        return self.pool.states(self.training[:MAX_VALIDATION])[:-1]

    def validation_states(self) -> Tensor | None:
        """States [depth, n, d_model] of the validation documents; None without any."""
        if not self.validation:
            return None
        return self._some(self.pool.states(self.validation), VALIDATION_TOKENS)

    def places(self) -> Tensor:
        """States [depth, n, d_model] that the next step reads."""
        wanted = min(self.n_documents, len(self.training))
        if len(self._waiting) < wanted:
            self._waiting = self._shuffled(self.training)
        chosen, self._waiting = self._waiting[:wanted], self._waiting[wanted:]
        return self._some(self.pool.states(chosen), self.n_tokens)

    def _some(self, states: Tensor, n: int) -> Tensor:
        if states.shape[1] <= n:
            return states
        chosen = torch.randperm(states.shape[1], generator=self.generator)[:n].sort().values
        return states[:, chosen.to(states.device)]

    def _shuffled(self, numbers: Sequence[int]) -> list[int]:
        order = torch.randperm(len(numbers), generator=self.generator).tolist()
        return [numbers[place] for place in order]


class _Best:
    """The parameters of each depth with the least divergence so far."""

    def __init__(self, identity: TunedLens) -> None:
        weight = None if identity.weight is None else identity.weight.clone()
        self.lens = TunedLens(weight, identity.bias.clone())
        self.kl = torch.full((identity.n_depths,), float("inf"), dtype=torch.float64)

    def offer(self, lens: TunedLens, kl: Tensor, *, always: bool) -> bool:
        """Take over the depths at which a lens is better (or all); whether there were any."""
        better = torch.ones_like(kl, dtype=torch.bool) if always else kl < self.kl
        self.kl = torch.where(better, kl, self.kl)
        chosen = better.to(lens.bias.device)
        self.lens.bias[chosen] = lens.bias[chosen]
        if self.lens.weight is not None and lens.weight is not None:
            self.lens.weight[chosen] = lens.weight[chosen]
        return bool(better.any())


@dataclass(frozen=True, eq=False)
class LensFit:
    """A trained lens. history: at each validation the step and the KL of every depth, on the
    validation documents, or, without any, on the training documents since the last one. training,
    validation: numbers of the documents of the pool."""

    lens: TunedLens
    history: list[dict[str, float | list[float]]] = field(default_factory=list)
    n_steps: int = 0
    training: tuple[int, ...] = ()
    validation: tuple[int, ...] = ()
