"""Interchange interventions on the running count: pairs as batches, the swapped forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from interpflow.models.reference.architecture import embed, run_blocks, unembed
from interpflow.models.reference.counting_corpus import CountingCorpus, InterchangePair
from interpflow.models.reference.rows import Batch, Row, encode_rows
from interpflow.tasks.counting.prompts import CountingTemplate


@dataclass(frozen=True)
class PairBatch:
    """Base rows followed by their donor rows, and where the residual stream is swapped.

    `rows`: 2n rows; `swap`: bool [n, position], true from the first token of the first shared word
    to the last token of the list; `shift` int64 [n]: running-count difference, donor − base.
    """

    rows: Batch
    swap: torch.Tensor
    shift: torch.Tensor

    @property
    def n(self) -> int:
        return len(self.shift)


def encode_pairs(
    pairs: Sequence[InterchangePair],
    templates: Sequence[CountingTemplate],
    shortened: Sequence[bool],
    corpus: CountingCorpus,
    tokenizer: PreTrainedTokenizerFast,
) -> PairBatch:
    """Both lists of a pair in the same wording; every list word is one token, so they align."""
    rows: list[Row] = [
        corpus.row(side, template, short)
        for sides in (lambda pair: pair.base, lambda pair: pair.donor)
        for side, template, short in zip(map(sides, pairs), templates, shortened, strict=True)
    ]
    batch = encode_rows(rows, tokenizer)
    swap = torch.zeros(len(pairs), batch.ids.shape[1], dtype=torch.bool)
    for index, pair in enumerate(pairs):
        base, donor = batch.words[index], batch.words[len(pairs) + index]
        if base != donor:
            raise ValueError("base and donor differ in their token positions")
        swap[index, base[pair.start][0] : base[-1][1] + 1] = True
    return PairBatch(batch, swap, torch.tensor([pair.shift for pair in pairs]))


def swapped_streams(
    model: LlamaForCausalLM, batch: PairBatch, after_layer: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Final residual streams [2n, position, hidden] of the plain rows and [n, …] of the patched
    base rows, and the plain rows' stream [2n, …] at the swapped layer.

    The residual stream leaving `after_layer` blocks is replaced, at the positions of `swap`, in
    the base row by the donor's; later blocks run on the mixture.
    """
    n_blocks = model.config.num_hidden_layers
    middle = run_blocks(model, embed(model, batch.rows.ids), 0, after_layer)
    base, donor = middle[: batch.n], middle[batch.n :]
    mixed = torch.where(batch.swap[..., None], donor, base)
    final = run_blocks(model, torch.cat([middle, mixed]), after_layer, n_blocks)
    return final[: 2 * batch.n], final[2 * batch.n :], middle


def interchange_losses(
    model: LlamaForCausalLM, batch: PairBatch, after_layer: int, used: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Summed cross-entropy of the plain and of the patched rows, patched-rows-right [n], and the
    plain rows' residual stream at the swapped layer.

    If the running count is to be used, the patched answer is the base's count plus the difference
    of the running counts. As the words after the prefix are shared, that is the donor's count, so
    the donor's answer is the target. If it is not to be used, the base's answer is.
    """
    plain, patched, middle = swapped_streams(model, batch, after_layer)
    rows = batch.rows
    plain_loss = torch.nn.functional.cross_entropy(
        unembed(model, plain[rows.row, rows.position]), rows.target, reduction="sum"
    )
    of_target = (rows.row >= batch.n) if used else (rows.row < batch.n)
    row, position = rows.row[of_target] % batch.n, rows.position[of_target]
    target = rows.target[of_target]
    logits = unembed(model, patched[row, position])
    patched_loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    return plain_loss, patched_loss, rows_right(logits, target, row, batch.n), middle


def rows_right(
    logits: torch.Tensor, target: torch.Tensor, row: torch.Tensor, n: int
) -> torch.Tensor:
    """Whether every scored token of a row is the most probable one, bool [n].

    Equal to exact match of greedy decoding: a wrong token ends both.
    """
    wrong = torch.zeros(n, dtype=torch.long)
    wrong.index_add_(0, row, (logits.argmax(-1) != target).long())
    return wrong == 0
