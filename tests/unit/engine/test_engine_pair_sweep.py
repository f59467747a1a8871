"""The public sweep over pairs: shapes, signs, metrics, alignment, checks, and bad input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, PARTLY_FLOAT32, tiny_model, tiny_pairs

from interpflow.engine import Pair, Patch, Site, sweep
from interpflow.engine.passes import prompt_states
from interpflow.engine.sweeps import site_sweep
from interpflow.errors import UserError


def some_pairs(n: int = 3) -> list[dict]:
    corrupted, clean = tiny_pairs(n)
    return [
        {"clean": c, "corrupted": d, "answers": (1 + i, 20 + i), "values": (3.0, 8.0)}
        for i, (c, d) in enumerate(zip(clean, corrupted))
    ]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("component", ["resid_post", "attn_out", "mlp_out"])
def test_fast_equals_oracle(name: str, component: str) -> None:
    model, pairs = tiny_model(name), some_pairs(2)
    names = ("logit_diff", "probability", "kl", "expected_value")
    fast = sweep(model, pairs, component, metrics=names, check="off")
    slow = sweep(model, pairs, component, metrics=names, oracle=True)
    for metric in names:
        assert fast.effects[metric].shape == (2, model.n_layers, 11)
        atol = 1e-5 if name in PARTLY_FLOAT32 else 1e-10
        np.testing.assert_allclose(fast.effects[metric], slow.effects[metric], atol=atol, rtol=0)
        np.testing.assert_allclose(
            fast.baseline_clean[metric], slow.baseline_clean[metric], atol=atol, rtol=0
        )
    assert np.abs(fast.effects["logit_diff"]).max() > 0.1
    assert fast.result.path == "joining"
    assert slow.result.path == "full"


def test_a_full_patch_gives_the_donors_metric_and_no_ops_are_exactly_zero() -> None:
    model, pairs = tiny_model("llama_grouped"), some_pairs()
    for direction in ("denoise", "noise"):
        everywhere = [[list(range(11))]] * 3
        found = sweep(model, pairs, positions=everywhere, direction=direction, check="audit")
        donor = found.baseline_clean if direction == "denoise" else found.baseline_corrupted
        base = found.baseline_corrupted if direction == "denoise" else found.baseline_clean
        expected = (donor["logit_diff"] - base["logit_diff"])[:, None]
        effect = found.effects["logit_diff"][:, :, 0]
        np.testing.assert_allclose(effect, np.broadcast_to(expected, effect.shape), atol=1e-10)
        assert found.audit is not None
        assert found.audit.relative < 1e-9
    single = sweep(model, pairs, check="off")
    assert (single.effects["logit_diff"][:, :, :2] == 0).all()
    assert not single.ran[:, :, :2].any()


def test_baselines_and_values_are_the_models_own_logits() -> None:
    model, pairs = tiny_model("gpt2"), some_pairs()
    found = sweep(model, pairs, "attn_out", positions=[-3], check="off")
    for i, pair in enumerate(pairs):
        a, b = pair["answers"]
        for ids, baseline in (
            (pair["clean"], found.baseline_clean),
            (pair["corrupted"], found.baseline_corrupted),
        ):
            logits = model.last_logits([ids])[0]
            assert baseline["logit_diff"][i] == pytest.approx(float(logits[a] - logits[b]))
        site = Site("attn_out", 1)
        state = model.capture([pair["clean"]], [site])[site]
        logits = model.patch([pair["corrupted"]], [Patch(site, [[8]], state)])[0]
        assert found.values["logit_diff"][i, 1, 0] == pytest.approx(float(logits[a] - logits[b]))


def test_heads_have_an_axis_of_their_own() -> None:
    model, pairs = tiny_model("llama_grouped"), some_pairs()
    at_answer = sweep(model, pairs, "head_out", positions="answer", check="off")
    assert at_answer.effects["logit_diff"].shape == (3, model.n_layers, model.n_heads)
    everywhere = sweep(model, pairs, "head_out", check="off")
    assert everywhere.effects["logit_diff"].shape == (3, model.n_layers, model.n_heads, 11)
    np.testing.assert_allclose(
        everywhere.effects["logit_diff"][..., -1], at_answer.effects["logit_diff"], atol=1e-12
    )


@pytest.mark.parametrize("component", ["q", "k", "v", "pattern", "mlp_act", "head_out"])
@pytest.mark.parametrize("name", ["llama_grouped", "gpt2", "gemma2", "mistral_window"])
def test_inner_components_equal_the_oracle(name: str, component: str) -> None:
    model, pairs = tiny_model(name), some_pairs(2)
    fast = sweep(model, pairs, component, check="off")
    slow = sweep(model, pairs, component, oracle=True)
    atol = 1e-5 if name in PARTLY_FLOAT32 else 1e-10
    np.testing.assert_allclose(
        fast.effects["logit_diff"], slow.effects["logit_diff"], atol=atol, rtol=0
    )
    assert np.nanmax(np.abs(fast.effects["logit_diff"])) > 1e-3


def test_prompts_that_share_tokens_give_the_same_numbers_as_alone() -> None:
    model, pairs = tiny_model("gpt2"), some_pairs()
    for pair in pairs[1:]:
        for side in ("clean", "corrupted"):
            pair[side] = pairs[0][side][:2] + pair[side][2:]
    prompts = [pair[side] for pair in pairs for side in ("clean", "corrupted")]
    assert prompt_states.shared_length(prompts) == 2
    together = sweep(model, pairs, check="off").effects["logit_diff"]
    alone = [sweep(model, [pair], check="off").effects["logit_diff"][0] for pair in pairs]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-12)


def test_pairs_of_several_lengths_and_small_passes() -> None:
    model, pairs = tiny_model("llama"), some_pairs()
    pairs[1] = {**pairs[1], "clean": pairs[1]["clean"][:8], "corrupted": pairs[1]["corrupted"][:8]}
    found = sweep(model, pairs, check="off").effects["logit_diff"]
    small = sweep(model, pairs, check="off", batch_tokens=13).effects["logit_diff"]
    np.testing.assert_allclose(found, small, atol=1e-12)
    assert np.isnan(found[1, :, 8:]).all()
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize("oracle", [False, True])
def test_unequal_prompts_are_patched_through_their_alignment(oracle: bool) -> None:
    model, pair = tiny_model("llama"), some_pairs(1)[0]
    longer = [*pair["clean"][:4], 7, *pair["clean"][4:]]
    alignment = [(p, p) for p in range(4)] + [(p + 1, p) for p in range(4, 11)]
    aligned = Pair(longer, pair["corrupted"], pair["answers"], alignment=alignment)
    found = sweep(model, [aligned], check="audit" if not oracle else "off", oracle=oracle)
    site = Site("resid_post", 1)
    state = model.capture([longer], [site])[site]
    moved = torch.zeros(1, 11, state.shape[-1], dtype=state.dtype)
    moved[0, 6] = state[0, 7]
    logits = model.patch([pair["corrupted"]], [Patch(site, [[6]], moved)])[0]
    expected = float(logits[pair["answers"][0]] - logits[pair["answers"][1]])
    assert found.values["logit_diff"][0, 1, 6] == pytest.approx(expected, abs=1e-10)
    with pytest.raises(UserError, match="alignment"):
        sweep(model, [{"clean": longer, "corrupted": pair["corrupted"], "answers": (1, 2)}])


def test_the_table_has_a_row_for_every_place() -> None:
    model, pairs = tiny_model("gpt2"), some_pairs()
    found = sweep(model, pairs, metrics=("logit_diff", "kl"), layers=[0, 2])
    table = found.to_table()
    assert table.num_rows == 3 * 2 * 11 * 2
    row = table.to_pylist()[0]
    assert row["effect"] == pytest.approx(row["value"] - row["baseline_corrupted"])
    assert row["noise_floor"] < 1e-9
    assert found.gates is not None
    assert found.gates.passed


def test_a_disconnected_sweep_is_caught_by_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    real = site_sweep.run_joined_rows

    def without_effect(setting, blocks, out, pairs, rows, progress):
        real(setting, blocks, out, pairs, rows, progress)
        for name, base in out.base.items():
            out.values[name][:] = base[:, None, None]

    monkeypatch.setattr(site_sweep, "run_joined_rows", without_effect)
    with pytest.raises(RuntimeError, match="misses the model's own pass"):
        sweep(tiny_model("llama"), some_pairs(), check="audit", audit=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"component": "resid_pst"}, "no component"),
        ({"layers": [7]}, "no site"),
        ({"positions": [30]}, "outside"),
        ({"positions": "answers"}, "unknown positions"),
        ({"direction": "both"}, "unknown direction"),
        ({"metrics": ("logit",)}, "unknown metric"),
        ({"pairs": []}, "no pairs"),
        ({"layers": []}, "no layer"),
        ({"metrics": ()}, "no metric"),
        ({"check": "x"}, "unknown check"),
        ({"audit": 2.0}, "not a share"),
        ({"batch_tokens": 0}, "batch_tokens"),
        (
            {"pairs": [{"clean": [1] * 70, "corrupted": [2] * 70, "answers": (1, 2)}]},
            "64 positions",
        ),
        (
            {
                "pairs": [
                    {"clean": [1], "corrupted": [2], "answers": (1, 2), "values": (1, float("nan"))}
                ]
            },
            "finite",
        ),
        ({"pairs": [{"clean": [1, 2]}]}, "corrupted"),
        ({"pairs": [{"clean": [1], "corrupt": [2]}]}, "unknown key"),
        ({"pairs": [{"clean": [1, 2], "corrupted": [1]}]}, "tokens"),
        ({"pairs": [{"clean": [1, 99], "corrupted": [1, 2]}]}, "no token 99"),
        ({"pairs": [{"clean": [1, 3], "corrupted": [1, 2]}]}, "needs 2 answers"),
        ({"pairs": [{"clean": "a", "corrupted": [2], "answers": (1, 2)}]}, "tokenizer"),
    ],
)
def test_bad_input_is_one_clear_message(change: dict, message: str) -> None:
    arguments = {"pairs": some_pairs(), **change}
    with pytest.raises(UserError, match=message):
        sweep(tiny_model("llama"), **arguments)


def test_infinite_states_are_refused_without_any_check() -> None:
    model = tiny_model("llama")
    model.module.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(UserError, match="NaN or infinite"):
        sweep(model, some_pairs(), check="off")


def test_a_prompt_of_one_token_can_be_swept() -> None:
    pair = {"clean": [4], "corrupted": [9], "answers": (1, 2)}
    found = sweep(tiny_model("llama"), [pair], metrics="logit_diff")
    change = found.baseline_clean["logit_diff"] - found.baseline_corrupted["logit_diff"]
    np.testing.assert_allclose(found.effects["logit_diff"][:, :, 0], change[:, None].repeat(3, 1))


def test_threads_take_turns() -> None:
    model, pairs = tiny_model("llama"), some_pairs(2)
    expected = sweep(model, pairs, check="off").effects["logit_diff"]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: sweep(model, pairs, check="off"), range(6)))
    for one in found:
        np.testing.assert_array_equal(one.effects["logit_diff"], expected)
    assert model.module.config._attn_implementation != "interpflow"


def test_bfloat16_passes_with_its_noise_stated() -> None:
    found = sweep(tiny_model("llama_grouped", dtype="bfloat16"), some_pairs())
    assert found.gates is not None
    assert 1e-4 < found.noise_floor["logit_diff"] < 5


def test_a_model_in_training_mode_is_refused() -> None:
    model = tiny_model("gpt2")
    model.module.train()
    with pytest.raises(UserError, match="training mode"):
        sweep(model, some_pairs(), check="off")
    with pytest.raises(UserError, match="training mode"):
        model.last_logits([[1, 2, 3]])


def test_the_gates_run_on_the_pairs_that_need_no_alignment() -> None:
    pairs = some_pairs()
    pairs[1] = {**pairs[1], "alignment": [(p, p) for p in range(11)]}
    found = sweep(tiny_model("llama"), pairs)
    assert found.gates is not None
    plain = sweep(tiny_model("llama"), some_pairs(), check="off")
    np.testing.assert_allclose(found.effects["logit_diff"], plain.effects["logit_diff"], atol=1e-10)
