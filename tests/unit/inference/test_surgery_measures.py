"""Measures under layer plans: known answers, the intact model, and plain forwards with hooks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from interpflow.engine import load
from interpflow.engine.model import Model
from interpflow.inference.surgery import readings
from interpflow.inference.surgery.answers import measure_answers
from interpflow.inference.surgery.plan_batches import Surroundings
from interpflow.inference.surgery.readings import PlaceReader
from interpflow.inference.surgery.rows import ScoredRow
from interpflow.inference.surgery.texts import measure_texts
from interpflow.plans.layer_plan import LayerPlan

VOCABULARY = 60


def tiny(kind: str) -> Model:
    torch.manual_seed(3)
    if kind == "gpt2":
        module: Any = GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64,
                       initializer_range=0.3, bos_token_id=0, eos_token_id=0)
        )  # fmt: skip
    else:
        module = LlamaForCausalLM(
            LlamaConfig(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48,
                        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                        max_position_embeddings=64, initializer_range=0.3)
        )  # fmt: skip
    return load(module.eval())


def blocks_of(model: Model) -> list[nn.Module]:
    return [each.block for each in model.architecture.blocks]


def some_rows(n: int = 9, n_scored: int | None = None) -> list[ScoredRow]:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(n):
        length = 5 + number % 4
        ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
        places = range(length - 1)[-(n_scored or length - 2) :]
        rows.append(
            ScoredRow(
                f"r{number}", tuple(ids[:-1]), tuple(places), tuple(ids[p + 1] for p in places)
            )
        )
    return rows


def plain_logits(model: Model, row: ScoredRow, skipped: int | None = None) -> Tensor:
    """float64 logits [place, vocab] of the model's own forward, one block's update taken back."""

    def take_back(_module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    handles = []
    if skipped is not None:
        block = blocks_of(model)[skipped]
        handles.append(block.register_forward_hook(take_back, with_kwargs=True))
    with torch.no_grad():
        logits = model.module(torch.tensor([row.tokens]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return logits[list(row.places)].double()


def mid_rank(logits: Tensor, target: int) -> float:
    higher = int((logits > logits[target]).sum())
    return (1 + higher + int((logits >= logits[target]).sum())) / 2


class OneLayerOfLogits:
    """States that are their own logits."""

    vocab_size = 4
    architecture = SimpleNamespace(
        unembedding=nn.Linear(4, 4, bias=False), normalized=lambda x: x, scaled=lambda x: x,
        unembed=torch.clone,
    )  # fmt: skip


@pytest.mark.parametrize("hooked", [False, True])
def test_known_answers(hooked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = OneLayerOfLogits()
    with torch.no_grad():
        model.architecture.unembedding.weight.copy_(torch.eye(4))
    if hooked:
        monkeypatch.setattr(model.architecture.unembedding, "_forward_hooks", {0: None})
    intact = torch.tensor([[2.0, 1.0, 0.0, 0.0]] * 2)
    corrupted = torch.tensor([[1.0, 1.0, 1.0, 0.0]] * 2)
    reader = PlaceReader(model, intact, torch.tensor([0, 1]))
    before, after = reader.read(intact), reader.read(corrupted)
    assert after.kl.tolist() == pytest.approx([0.2481727] * 2, abs=1e-6)
    loss = (before.log_prob - after.log_prob).tolist()
    assert loss == pytest.approx([0.7204716, -0.2795284], abs=1e-6)
    assert after.rank.tolist() == [2.0, 2.0]
    assert before.rank.tolist() == [1.0, 2.0]
    assert before.kl.tolist() == [0.0, 0.0]
    assert before.top1_kept.tolist() == [1.0, 1.0]
    back = PlaceReader(model, corrupted, torch.tensor([0, 1])).read(intact)
    assert back.kl.tolist() == pytest.approx([0.2795284] * 2, abs=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_intact_plan_differs_by_exactly_nothing(kind: str) -> None:
    model = tiny(kind)
    plans = [LayerPlan.of([1, 0, 2]), LayerPlan.of(range(3)), LayerPlan.parse("0 1*1.0 2")]
    for rows in (measure_texts(model, plans, some_rows()),):
        assert {row["delta_loss"] for row in rows[1]} == {0.0}
        assert {row["kl"] for row in rows[1]} == {0.0}
        assert {row["top1_kept"] for row in rows[1]} == {1.0}
        assert all(row["delta_loss"] != 0.0 and row["kl"] > 0 for row in rows[0])
    answers = measure_answers(model, plans, some_rows(n_scored=2), top_tokens=4)
    assert {row["delta_log_prob"] for row in answers[1]} == {0.0}
    assert all(row["gained"] == row["lost"] == [] for row in answers[1])
    assert all(len(row["gained"]) == len(row["lost"]) == 4 for row in answers[0])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_texts_equal_a_plain_forward_with_a_hook(kind: str) -> None:
    model, rows = tiny(kind), some_rows()
    found = measure_texts(model, [LayerPlan.of([0, 2])], rows)[0]
    assert [row["document_id"] for row in found] == [row.item_id for row in rows]
    for row, got in zip(rows, found):
        before, after = plain_logits(model, row), plain_logits(model, row, skipped=1)
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        targets = torch.tensor(row.targets)[:, None]
        loss, old = -q.gather(1, targets).mean().item(), -p.gather(1, targets).mean().item()
        assert got["loss"] == pytest.approx(loss, abs=1e-4)
        assert got["delta_loss"] == pytest.approx(loss - old, abs=1e-4)
        kl = (p.exp() * (p - q)).sum(-1).mean().item()
        assert got["kl"] == pytest.approx(kl, abs=1e-4)
        kept = (before.argmax(-1) == after.argmax(-1)).double().mean().item()
        assert got["top1_kept"] == pytest.approx(kept)
        ranks = [mid_rank(logits, t) for logits, t in zip(after, row.targets)]
        assert got["rank"] == pytest.approx(sum(ranks) / len(ranks))
        assert got["n_tokens"] == len(row.targets)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_answers_equal_a_plain_forward_with_a_hook(kind: str) -> None:
    model, rows = tiny(kind), some_rows(n_scored=2)
    # One answer that the model without its second block does give.
    first = plain_logits(model, rows[0], skipped=1)[0].argmax().item()
    row = rows[0]
    ids = (*row.tokens[:-1], first)
    second = plain_logits(model, ScoredRow("r0", ids, row.places, (0, 0)), 1)[1].argmax().item()
    rows[0] = ScoredRow("r0", ids, row.places, (int(first), int(second)))
    found = measure_answers(model, [LayerPlan.of([0, 2])], rows, top_tokens=3)[0]
    for row, got in zip(rows, found):
        before, after = plain_logits(model, row), plain_logits(model, row, skipped=1)
        targets = torch.tensor(row.targets)[:, None]
        total = after.log_softmax(-1).gather(1, targets).sum().item()
        old = before.log_softmax(-1).gather(1, targets).sum().item()
        assert got["log_prob"] == pytest.approx(total, abs=1e-4)
        assert got["delta_log_prob"] == pytest.approx(total - old, abs=1e-4)
        ranks = [mid_rank(logits, t) for logits, t in zip(after, row.targets)]
        assert got["rank"] == max(ranks)
        assert got["answered"] == (max(ranks) == 1.0)
        change = (after.softmax(-1) - before.softmax(-1))[0]
        assert got["gained"] == [str(t) for t in change.topk(3).indices.tolist()]
        assert got["lost"] == [str(t) for t in (-change).topk(3).indices.tolist()]
    assert found[0]["answered"]
    assert not all(row["answered"] for row in found)


def test_tiles_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows, plans = tiny("llama"), some_rows(), [LayerPlan.of([2, 1, 0])]
    whole = measure_texts(model, plans, rows)[0]
    monkeypatch.setattr(readings, "TILE_BYTES", 4)
    monkeypatch.setattr(readings, "MIN_TILE_ROWS", 2)
    parts = measure_texts(model, plans, rows, tokens_per_batch=8)[0]
    for one, other in zip(whole, parts):
        for column in ("loss", "delta_loss", "kl", "top1_kept", "rank"):
            assert other[column] == pytest.approx(one[column], abs=1e-5)


def test_softcapped_logits_are_read_as_the_model_gives_them() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0,
        max_position_embeddings=64, initializer_range=0.3, sliding_window=4,
    )  # fmt: skip
    model, rows = load(Gemma2ForCausalLM(config).eval()), some_rows(3)
    found = measure_texts(model, [LayerPlan.of(range(3))], rows)[0]
    for row, got in zip(rows, found):
        p = plain_logits(model, row).log_softmax(-1)
        loss = -p.gather(1, torch.tensor(row.targets)[:, None]).mean().item()
        assert got["loss"] == pytest.approx(loss, abs=1e-4)


def test_ablations_read_their_surroundings() -> None:
    model, rows = tiny("llama"), some_rows(4)
    generator = torch.Generator().manual_seed(5)
    documents = torch.randint(1, VOCABULARY, (6, 12), generator=generator).tolist()
    plans = [LayerPlan.parse("0 1~mean_mlp 2"), LayerPlan.parse("0 1~patch_mlp 2")]
    donors = {row.item_id: documents[0] for row in rows}
    first = measure_texts(model, plans, rows, Surroundings(documents, donors))
    other = measure_texts(
        model, plans, rows, Surroundings(documents[:2], dict.fromkeys(donors, documents[1]))
    )
    for here, there in zip(first, other):
        assert all(a["loss"] != b["loss"] for a, b in zip(here, there))
