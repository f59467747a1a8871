"""Layer plans do what they say, on many architectures, against the models' own forward passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pytest
import torch
from tiny_models import VOCABULARY, hook_count, tiny_model, tiny_pairs
from torch import Tensor, nn

from interpflow.engine.layers import execute, plan_gates
from interpflow.engine.layers.execute import PlanRunner
from interpflow.engine.layers.plan_gates import check_plan_execution
from interpflow.engine.layers.row_batches import row_batches
from interpflow.engine.model import Model
from interpflow.engine.passes import hooks
from interpflow.engine.sites import Site
from interpflow.errors import UserError
from interpflow.plans.layer_plan import LayerPlan
from interpflow.plans.requests import named_plan

# Serial and parallel blocks, grouped heads, windows of one kind and mixed, norms after the parts,
# multipliers, learned and ALiBi positions, experts, attention of the model's own, recurrence.
FAMILIES = ("gpt2", "llama", "gpt_neox", "qwen2", "qwen3", "gemma2", "gemma3", "mistral_window",
            "opt", "phi3", "bloom", "falcon_new", "falcon_alibi", "granite", "gpt_oss",
            "mixtral")  # fmt: skip
RECURRENT = ("jamba", "lfm2")
# transformers computes some steps in float32 whatever the model's type.
LOOSE = {"gemma2": 1e-5, "gemma3": 1e-5, "mistral_window": 1e-5, "gpt_oss": 1e-5, "mixtral": 1e-5}
INTACT = LayerPlan.of(range(3))


def some_rows(n: int = 3) -> list[list[int]]:
    return tiny_pairs(n)[0]


def documents(n: int = 4, length: int = 14) -> list[list[int]]:
    generator = torch.Generator().manual_seed(8)
    return torch.randint(1, VOCABULARY, (n, length), generator=generator).tolist()


def run(
    model: Model,
    plans: Sequence[str | LayerPlan],
    rows: Sequence[Sequence[int]] | None = None,
    donors: Sequence[Sequence[int]] | None = None,
    **settings: object,
) -> list[Tensor]:
    """Per plan the states [row, position, d_model] of all positions, rows of one length."""
    rows = some_rows() if rows is None else rows
    parsed = [LayerPlan.parse(plan) if isinstance(plan, str) else plan for plan in plans]
    runner = PlanRunner(model, parsed, **{"fast": False, **settings})  # type: ignore[arg-type]
    # Where a plan patches, the first place is the end of the prompt.
    last = len(rows[0]) - 1
    places = [[last, *range(last)] for _ in rows]
    found: dict[int, dict[int, Tensor]] = {}
    for each in runner.states(rows, places, donors):
        for row, states in each.by_row():
            found.setdefault(each.plan, {})[row] = states.roll(-1, 0)
    return [torch.stack([found[i][row] for row in range(len(rows))]) for i in range(len(plans))]


def logits_of(model: Model, states: Tensor) -> Tensor:
    with torch.no_grad():
        return model.architecture.unembed(states)


def own_forward(
    model: Model,
    rows: Sequence[Sequence[int]],
    change: Callable[[list], None] = lambda _handles: None,
) -> Tensor:
    """Logits of the model's own forward, with hooks that `change` attaches."""
    with torch.no_grad(), hooks.removed_afterwards() as handles:
        change(handles)
        return model.module(input_ids=torch.tensor(rows), use_cache=False).logits


def close(found: Tensor, wanted: Tensor, name: str) -> bool:
    return torch.allclose(found, wanted.to(found), atol=LOOSE.get(name, 1e-11), rtol=1e-6)


def digest(model: Model) -> str:
    found = hashlib.sha256()
    for name, value in model.module.state_dict().items():
        found.update(name.encode() + value.numpy().tobytes())
    found.update(repr([name for name, _ in model.module.named_modules()]).encode())
    return found.hexdigest()


@pytest.mark.parametrize("name", [*FAMILIES, *RECURRENT])
def test_the_intact_plan_is_the_model_bit_for_bit(name: str) -> None:
    model = tiny_model(name, "float32")
    rows = some_rows()
    whole = own_forward(model, rows)
    intact, again = run(model, [INTACT, named_plan({"kind": "identity"}, 3, 4).plan], rows)
    assert torch.equal(logits_of(model, intact), whole)
    assert torch.equal(intact, again)
    swapped = run(model, [LayerPlan.of([2, 1, 0])], rows)[0]
    assert not torch.allclose(swapped, intact, atol=1e-2)
    fast = run(model, [INTACT], rows, fast=True)[0]
    assert torch.allclose(fast, intact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*FAMILIES, *RECURRENT])
def test_skipping_is_taking_back_what_a_block_adds(name: str) -> None:
    model = tiny_model(name)
    rows = some_rows()
    for block in range(3):
        module = model.architecture.blocks[block].block

        def without(handles: list, module: nn.Module = module) -> None:
            inputs: list[Tensor] = []
            handles.append(hooks.on_input(module, lambda state: inputs.append(state)))
            handles.append(hooks.on_output(module, lambda _: inputs[0]))

        steps = [str(each) for each in range(3)]
        rest = " ".join(step for step in steps if step != str(block))
        steps[block] = f"{block}~zero_block"
        zeroed = " ".join(steps)
        steps[block] = f"{block}*0"
        skipped, ablated, factor, intact = run(model, [rest, zeroed, " ".join(steps), INTACT], rows)
        assert torch.equal(skipped, ablated)
        assert torch.equal(skipped, factor)
        assert not torch.allclose(skipped, intact, atol=1e-3)
        assert torch.equal(logits_of(model, skipped), own_forward(model, rows, without))


@pytest.mark.parametrize("name", [*FAMILIES, *RECURRENT])
def test_keeping_the_first_blocks_is_the_logit_lens(name: str) -> None:
    model = tiny_model(name)
    rows = some_rows()
    with torch.no_grad():
        whole = model.module(torch.tensor(rows), use_cache=False, output_hidden_states=True)
    plans = [named_plan({"kind": "keep_first", "n": n}, 3, 4).plan for n in range(4)]
    found = run(model, plans, rows)
    for n in range(3):  # transformers' last hidden state is normed already
        assert torch.equal(found[n], whole.hidden_states[n])
        assert torch.equal(logits_of(model, found[n]), model.unembed(whole.hidden_states[n]))
    assert torch.equal(logits_of(model, found[3]), whole.logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_orders_repeats_and_blocks_side_by_side_by_hand(name: str) -> None:
    """Each block called on its own, in a module list put together anew for each plan."""
    model = tiny_model(name)
    rows = some_rows()
    own = {i: parts.block for i, parts in enumerate(model.architecture.blocks)}

    def block(i: int, states: Tensor) -> Tensor:
        """The block's own call in the model's own forward, its input exchanged."""
        seen: list[Tensor] = []

        def change(handles: list) -> None:
            handles.append(hooks.on_input(own[i], lambda _: states))
            handles.append(hooks.on_output(own[i], lambda state: seen.append(state)))

        own_forward(model, rows, change)
        return seen[0]

    h = run(model, ["-"], rows)[0]
    plans = ["2 1 0", "0 1 1 1 2", "(0|1|2) 1", "0 1*-0.5 2", "2 2 2 2 2 2 2"]
    by_hand = [
        block(0, block(1, block(2, h))),
        block(2, block(1, block(1, block(1, block(0, h))))),
        block(1, block(0, h) + block(1, h) + block(2, h) - 2 * h),
        block(2, 1.5 * block(0, h) - 0.5 * block(1, block(0, h))),
    ]
    again = h
    for _ in range(7):
        again = block(2, again)
    for plan, found, wanted in zip(plans, run(model, plans, rows), [*by_hand, again]):
        assert close(found, wanted, name), plan


@pytest.mark.parametrize("name", FAMILIES)
def test_ablations_are_those_of_a_hook_on_the_module(name: str) -> None:
    model = tiny_model(name)
    rows, texts, donors = some_rows(), documents(), [[5, 6, 7], [9, 8], [3, 4, 1, 2]]
    last = len(rows[0]) - 1
    for component, part in (("attn_out", "attention"), ("mlp_out", "mlp"), ("head_out", "head1")):
        module, is_input = model.architecture.hook_place(Site(component, 1))
        width = model.head_dim if part == "head1" else model.d_model
        features = slice(width, 2 * width) if part == "head1" else slice(None)

        def seen_on(
            texts: list[list[int]],
            module: nn.Module = module,
            is_input: bool = is_input,
            features: slice = features,
        ) -> Tensor:
            seen: list[Tensor] = []
            attach = hooks.on_input if is_input else hooks.on_output
            # A copy: Falcon goes on to add to what its MLP gives.
            keep = lambda state: seen.append(state.clone())  # noqa: E731
            own_forward(model, texts, lambda handles: handles.append(attach(module, keep)))
            return seen[0].view(len(texts), len(texts[0]), -1)[..., features]

        def hooked(
            values: Tensor,
            at: int | None = None,
            module: nn.Module = module,
            is_input: bool = is_input,
            features: slice = features,
        ) -> Tensor:
            def write(state: Tensor) -> Tensor:
                shaped = state.clone().view(len(rows), len(rows[0]), -1)
                shaped[:, slice(None) if at is None else slice(at, at + 1), features] = values
                return shaped.view(state.shape)

            attach = hooks.on_input if is_input else hooks.on_output
            return own_forward(model, rows, lambda handles: handles.append(attach(module, write)))

        neutral = seen_on(texts)
        mean = neutral[:, 1:].mean((0, 1)).expand(last + 1, -1).clone()
        mean[0] = neutral[:, 0].mean(0)
        patch = torch.stack([seen_on([donor])[0, -1] for donor in donors])[:, None]
        plans = [f"0 1~{method}_{part} 2" for method in ("zero", "mean", "resample", "patch")]
        zero, averaged, resampled, patched = (
            logits_of(model, states)
            for states in run(model, plans, rows, donors, neutral=texts, seed=1)
        )
        assert close(zero, hooked(torch.zeros(())), name)
        assert close(averaged, hooked(mean[None]), name)
        assert close(patched, hooked(patch, last), name)
        # One of the documents, at the same positions.
        candidates = [hooked(text[None, : last + 1]) for text in neutral]
        for row in range(len(rows)):
            assert any(close(resampled[row], found[row], name) for found in candidates)
        intact = own_forward(model, rows)
        for found in (zero, averaged, resampled, patched):
            assert not torch.allclose(found, intact, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "granite", "jamba"])
def test_what_a_whole_block_adds_is_replaced(name: str) -> None:
    model = tiny_model(name)
    rows, texts = some_rows(), documents()
    before, after = run(model, ["0", "0 1"], texts)
    added = after - before
    mean = added[:, 1:].mean((0, 1)).expand(len(rows[0]), -1).clone()
    mean[0] = added[:, 0].mean(0)
    donors = [row[:5] for row in texts[: len(rows)]]
    h, averaged, patched, intact = run(
        model, ["0", "0 1~mean_block", "0 1~patch_block", "0 1"], rows, donors, neutral=texts
    )
    assert close(averaged, h + mean, name)
    wanted = intact.clone()
    wanted[:, -1] = h[:, -1] + added[: len(rows), 4]
    assert close(patched, wanted, name)


def test_resampling_depends_on_the_row_alone() -> None:
    model = tiny_model("llama")
    rows, texts = some_rows(6), documents(12)
    whole = run(model, ["0 1~resample_mlp 2"], rows, neutral=texts)[0]
    alone = run(model, ["0 1~resample_mlp 2"], rows[4:5], neutral=texts)[0]
    small = run(model, ["0 1~resample_mlp 2"], rows, neutral=texts, tokens_per_pass=20)[0]
    other = run(model, ["0 1~resample_mlp 2"], rows, neutral=texts, seed=5)[0]
    assert torch.allclose(whole[4], alone[0])
    assert torch.allclose(whole, small)
    assert not torch.allclose(whole, other)
    # A row is never resampled from the document that it is.
    same = [texts[0][:11]]
    intact = run(model, ["0 1 2"], same)[0]
    for seed in range(6):
        found = run(model, ["0 1~resample_mlp 2"], same, neutral=texts[:2], seed=seed)[0]
        assert not torch.allclose(found, intact, atol=1e-3)


def test_a_row_longer_than_all_documents_is_resampled_from_several() -> None:
    model = tiny_model("llama")
    row, (first, second) = some_rows(1), [text[:7] for text in documents()[:2]]
    assert len(row[0]) > 7
    plan = ["0 1~resample_mlp 2"]
    joined = [run(model, plan, row, neutral=[one])[0]
              for one in (first + second, second + first)]  # fmt: skip
    drawn = [run(model, plan, row, neutral=[first, second], seed=seed)[0] for seed in range(6)]
    matches = [[torch.allclose(one, other) for other in joined] for one in drawn]
    assert all(sum(found) == 1 for found in matches)
    assert len({tuple(found) for found in matches}) == 2


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "bloom", "gpt_oss", "lfm2"])
def test_padding_and_batches_change_nothing(name: str) -> None:
    model = tiny_model(name)
    rows = [row[: 4 + 3 * (i % 3)] for i, row in enumerate(tiny_pairs(7)[0])]
    places = [[len(row) - 2, 0] for row in rows]
    plans = [LayerPlan.of(range(3)), LayerPlan.parse("0 2 (0|1)")]
    runs = []
    for tokens in (10_000, 11, 25):
        runner = PlanRunner(model, plans, tokens_per_pass=tokens, fast=False)
        found = {}
        for each in runner.states(rows, places):
            for row, states in each.by_row():
                assert (each.plan, row) not in found
                found[each.plan, row] = states
        assert len(found) == 2 * len(rows)
        runs.append(found)
    for key, states in runs[0].items():
        assert all(close(other[key], states, name) for other in runs[1:])
    one = own_forward(model, [rows[2]])[0]
    assert close(logits_of(model, runs[0][0, 2]), one[[len(rows[2]) - 2, 0]], name)


def test_batches_hold_every_row_once_and_waste_little() -> None:
    model = tiny_model("gpt2")
    lengths = [5, 60, 5, 7, 61, 64, 6] * 20
    batches = list(row_batches(lengths, 512, model))
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert max(len(b) * max(lengths[i] for i in b) for b in batches) <= 512
    places = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert places < 1.15 * sum(lengths)
    rotating = tiny_model(
        "llama",
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    )
    for batch in row_batches(lengths, 512, rotating):
        assert len({lengths[number] for number in batch}) == 1


def test_common_steps_run_once_and_the_first_plan_comes_first() -> None:
    model = tiny_model("gpt2")
    calls = [0, 0, 0]

    def count(block: int) -> Callable[[Tensor], None]:
        def add(_state: Tensor) -> None:
            calls[block] += 1

        return add

    texts = ["0 1 2", "0 1", "0 1 2 2", "-", "0 1 2", "2 1"]
    runner = PlanRunner(model, [LayerPlan.parse(text) for text in texts], fast=False)
    rows = some_rows()
    with hooks.removed_afterwards() as handles:
        for block, parts in enumerate(model.architecture.blocks):
            assert parts.mlp is not None
            handles.append(hooks.on_output(parts.mlp, count(block)))
        order = [each.plan for each in runner.states(rows, [[3]] * len(rows))]
    assert order[0] == 0
    assert sorted(order) == list(range(6))
    assert calls == [1, 2, 3]
    assert (runner.n_steps_run, runner.n_steps_shared) == (6, 14 - 6)
    assert runner.blocks_executed == [3, 2, 4, 0, 3, 2]
    assert runner.n_block_tokens == 6 * 3 * 4  # positions after the last that is read do not run


def test_a_plan_may_be_longer_than_the_models_own_loop() -> None:
    model = tiny_model("llama")
    runner = PlanRunner(model, [LayerPlan.of([0, 1, 2] * 8)])
    list(runner.states(some_rows(), [[3]] * 3))
    assert runner.blocks_executed == [24]
    with pytest.raises(UserError, match="at most 24"):
        PlanRunner(model, [LayerPlan.of([0] * 25)])


def test_the_model_is_as_before_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2", "float32")
    rows = some_rows()
    before, whole, n_hooks = digest(model), own_forward(model, rows), hook_count(model)
    real = execute.run_step
    seen: list[int] = []

    def failing(*args: object) -> Tensor:
        seen.append(1)
        if len(seen) > 3:
            raise RuntimeError("planted")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(execute, "run_step", failing)
    with pytest.raises(RuntimeError, match="planted"):
        run(model, ["0 1 2", "0 1~zero_mlp 2"], rows, fast=True)
    monkeypatch.undo()

    def broken(_state: Tensor) -> Tensor:
        raise ValueError("inside a block")

    handle = hooks.on_output(model.architecture.blocks[1].mlp, broken)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inside a block"):
        run(model, ["0 1~zero_attention 2"], rows)
    handle.remove()
    # Left in the middle: nothing of it is on the model between two plans.
    runner = PlanRunner(model, [INTACT, LayerPlan.parse("0 1~zero_mlp 2")])
    started = runner.states(rows, [[3]] * 3)
    next(started)
    assert hook_count(model) == n_hooks
    assert torch.equal(own_forward(model, rows), whole)
    del started
    assert (digest(model), hook_count(model)) == (before, n_hooks)


@pytest.mark.parametrize("name", [*FAMILIES, *RECURRENT])
def test_the_gates_pass(name: str) -> None:
    report = check_plan_execution(tiny_model(name, "float32"), some_rows())
    assert report.passed
    assert len(report.rows) == 9
    exact = {row.name for row in report.rows if "bit for bit" in row.detail}
    assert {"identity", "skip", "keep_first", "untouched"} <= exact


@pytest.mark.parametrize(
    ("fault", "gate"),
    [
        (lambda entry, step, states, _: states, "moved"),
        (lambda entry, step, states, _: entry.run(0, states)[0], "identity"),
        (lambda entry, step, states, _: entry.run(step.blocks[0], states)[0], "zero_block"),
        (
            lambda entry, step, states, _: entry.run(
                step.blocks[0], entry.run(step.blocks[0], states)[0]
            )[0],
            "n_blocks",
        ),
    ],
)
def test_a_gate_fails_when_steps_do_something_else(
    fault: Callable[..., Tensor], gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "run_step", fault)
    with pytest.raises(RuntimeError, match=gate):
        check_plan_execution(tiny_model("gpt2", "float32"), some_rows())
    monkeypatch.undo()
    assert plan_gates.check_plan_execution(tiny_model("gpt2", "float32"), some_rows()).passed


def test_bad_input_is_named() -> None:
    model = tiny_model("gpt2")
    rows = some_rows()
    with pytest.raises(UserError, match="no block 3"):
        PlanRunner(model, [LayerPlan.of([0, 3])])
    with pytest.raises(UserError, match="no head 4"):
        PlanRunner(model, [LayerPlan.parse("0~zero_head4")])
    with pytest.raises(UserError, match="mean needs neutral"):
        PlanRunner(model, [LayerPlan.parse("0~mean_mlp")])
    with pytest.raises(UserError, match="patches from donors"):
        run(model, ["0~patch_mlp"], rows)
    with pytest.raises(UserError, match="other than the row; none of 1"):
        run(model, ["0~resample_mlp"], rows[:1], neutral=[rows[0][:9]])
    with pytest.raises(UserError, match="cannot be read in a row of 11"):
        list(PlanRunner(model, [INTACT]).states(rows, [[11]] * 3))
    with pytest.raises(UserError, match="do not belong together"):
        list(PlanRunner(model, [INTACT]).states(rows, [[1]]))
    with pytest.raises(UserError, match=r"vocabulary|token"):
        list(PlanRunner(model, [INTACT]).states([[VOCABULARY]], [[0]]))
    with pytest.raises(UserError, match="cannot be used on this model"):
        PlanRunner(tiny_model("jamba"), [LayerPlan.parse("0~zero_mlp 1 2")])
    model.module.config.num_kv_shared_layers = 1
    with pytest.raises(UserError, match="keys and values of earlier blocks"):
        PlanRunner(model, [INTACT])
