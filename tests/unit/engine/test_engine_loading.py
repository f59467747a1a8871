"""Loading by name, prompts as text, and what comes of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_models import hook_count, tiny_model, tiny_module, tiny_pairs
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interpflow.engine import Patch, Scale, Site, ZeroAblation, load
from interpflow.engine.model import Model
from interpflow.engine.passes import attention, hooks
from interpflow.engine.passes.attention import IMPLEMENTATION, attention_configs
from interpflow.errors import UserError

SITE = Site("resid_post", 1)
WORDS = ["<s>", "</s>", "a", "b", "c", "?"]


def word_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    tiny_module("llama").save_pretrained(path)
    word_tokenizer().save_pretrained(path)
    return path


def test_a_directory_is_loaded(directory: Path) -> None:
    expected = tiny_model("llama", "float32").last_logits([[0, 2, 3]])
    for name in (str(directory), directory):
        model = load(name)
        assert model.dtype == torch.float32
        if model.device.type == "cpu":
            assert torch.equal(model.last_logits([[0, 2, 3]]), expected)
    assert load(str(directory), dtype="bfloat16", device="cpu").dtype == torch.bfloat16


def test_text_gets_the_special_tokens_once(directory: Path) -> None:
    model = load(directory, device="cpu")
    ids = model.batch("a b a").input_ids
    assert ids.tolist() == [[0, 2, 3, 2]]
    expected = model.last_logits([[0, 2, 3, 2]])
    for prompts in ("a b a", ["a b a"], [0, 2, 3, 2], torch.tensor([[0, 2, 3, 2]])):
        assert torch.equal(model.last_logits(prompts), expected)
        assert torch.equal(model.patch(prompts, [Scale(SITE, factor=1.0)]), expected)
        assert model.capture(prompts, SITE, positions="answer")[SITE].shape == (1, 1, 32)
    mixed = model.batch(["a", [0, 3, 3]])
    assert mixed.input_ids.tolist() == [[0, 2, 0], [0, 3, 3]]
    assert mixed.lengths.tolist() == [2, 3]
    donated = model.patch("a b", [Patch(SITE, donor="b a")])
    assert torch.allclose(donated, model.last_logits("b a"), atol=1e-5)
    assert torch.equal(donated, model.patch([0, 2, 3], [Patch(SITE, donor=[0, 3, 2])]))


@pytest.mark.parametrize(
    ("prompts", "match"),
    [
        ("a b", "has no tokenizer"),
        ([[1, 50]], "there is no token 50"),
        ([[1, -1]], "there is no token -1"),
        ([[1, True]], "a text or a list of token ids"),
        ([[1, 2.0]], "a text or a list of token ids"),
        ([[1] * 65], "has 65 tokens, the model has 64 positions"),
        ([[]], "no empty row"),
        ([], "no empty row|at least one row"),
        (torch.ones(2, 3), "a tensor of prompts holds integers"),
    ],
)
def test_bad_prompts_are_named(prompts: object, match: str) -> None:
    with pytest.raises(UserError, match=match):
        tiny_model("llama").last_logits(prompts)  # type: ignore[arg-type]


def write_pickle(path: Path) -> None:
    (path / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, path / "pytorch_model.bin")


def write_config(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (write_pickle, "only there as pickles"),
        (lambda p: write_config(p, model_type="new", auto_map={"AutoConfig": "x.Y"}), "runs code"),
        (lambda p: write_config(p, is_encoder_decoder=True), "an encoder-decoder"),
        (lambda p: (p / "config.json").unlink(), r"no config\.json"),
    ],
)
def test_unsafe_and_foreign_files_are_refused(directory: Path, spoil, match: str) -> None:
    spoil(directory)
    with pytest.raises(UserError, match=match):
        load(str(directory))


def test_what_is_no_model_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interpflow.models import memory

    with pytest.raises(UserError, match="no such directory and no such reference model"):
        load("no/such/model")
    with pytest.raises(UserError, match="only a model of the hub has a revision"):
        load(str(directory), revision="abc")
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    with pytest.raises(UserError, match=r"needs about .* GB in float32, main memory has 0\.0 GB"):
        load(str(directory))


def test_states_that_are_not_finite_are_named() -> None:
    model = tiny_model("llama")
    base, _ = tiny_pairs(3)
    table = model.module.get_input_embeddings()
    strange = next(token for token in range(1, 50) if all(token not in row for row in base))
    base[1][4] = strange
    clean = model.capture(base, "resid_pre", [1])
    assert clean[Site("resid_pre", 1)].isfinite().all()
    table.weight.data[strange] = float("inf")
    with pytest.raises(UserError, match=r"states of embed are not finite\n.*layer 0, prompt 1"):
        model.capture(base, ["resid_post", "embed"])
    with pytest.raises(UserError, match="the logits are not finite"):
        model.last_logits(base)
    # Other prompts are sound, and may be captured.
    found = model.capture(base, SITE, allow_nonfinite=True)[SITE]
    assert found[[0, 2]].isfinite().all()
    assert not found[1, 4].isfinite().all()
    # What was not asked for does not count, but the logits do.
    with pytest.raises(UserError, match="the logits are not finite"):
        model.capture(base, SITE, positions=[[0], [], [0]])


def test_names_of_components_stand_for_their_sites() -> None:
    model = tiny_model("llama_grouped")
    base, _ = tiny_pairs(1)
    names = {str(site) for site in model.capture(base, ["embed", "k", "mlp_out"], layers=[0, 2])}
    assert names == {"embed", "k.L0.H0", "k.L0.H1", "k.L2.H0", "k.L2.H1", "mlp_out.L0",
                     "mlp_out.L2"}  # fmt: skip
    assert len(model.capture(base, "resid_pre")) == 3
    assert set(model.capture(base, "head_out.L1.H3")) == {Site("head_out", 1, 3)}
    for sites, layers, match in (
        ("resid_pre", [3], r"no site resid_pre\.L3"),
        ("nonsense", None, "does not name a site"),
        (SITE, [0], "layers are named, but no component"),
        ("head_out.L0.H4", None, r"no site head_out\.L0\.H4|3 layers of 4 heads"),
    ):
        with pytest.raises(UserError, match=match):
            model.capture(base, sites, layers)


def implementations(model: Model) -> list[str]:
    return [config._attn_implementation for config in attention_configs(model.module)]


@pytest.mark.parametrize("where", ["attention", "write", "model"])
def test_a_pass_that_breaks_off_leaves_everything_as_it_was(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama_grouped")
    base, _ = tiny_pairs(2)
    before = implementations(model)
    users = []
    kept = [
        model.module.model.layers[1].register_forward_hook(lambda *_: users.append("output")),
        model.module.model.layers[1].mlp.register_forward_pre_hook(lambda *_: users.append("in")),
    ]
    sites = [Site(c, 1) for c in ("q", "pattern", "mlp_act", "resid_post")]
    expected = model.run(base, [ZeroAblation(Site("k", 1), -1)], sites)[0]
    assert users == ["in", "output"]

    def broken(*_args: object, **_kwargs: object) -> Tensor:
        assert IMPLEMENTATION in implementations(model)
        raise ValueError("broken")

    target = {
        "attention": (attention, "_pattern"),
        "write": (hooks, "write_states"),
        "model": (model.module.model.layers[2], "forward"),
    }[where]
    with monkeypatch.context() as patched:
        patched.setattr(*target, broken)
        with pytest.raises(ValueError, match="broken"):
            model.run(base, [ZeroAblation(Site("k", 1), -1)], sites)
    assert implementations(model) == before
    assert hook_count(model) == len(kept)
    users.clear()
    again = model.run(base, [ZeroAblation(Site("k", 1), -1)], sites)[0]
    assert torch.equal(again, expected)
    assert users == ["in", "output"]
    for handle in kept:
        handle.remove()


def test_only_the_rows_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The final query's pattern alone: no square of positions anywhere."""
    model = tiny_model("llama_grouped")
    base, _ = tiny_pairs(2)
    shapes = []
    real = attention._pattern

    def watched(query: Tensor, *args: object) -> Tensor:
        found = real(query, *args)  # type: ignore[arg-type]
        shapes.append(tuple(found.shape))
        return found

    monkeypatch.setattr(attention, "_pattern", watched)
    site = Site("pattern", 1)
    found = model.capture(base, site, positions="answer")[site]
    assert shapes == [(2, 4, 1, 11)]
    assert found.shape == (2, 1, 4, 11)
    monkeypatch.undo()
    assert torch.allclose(found, model.capture(base, site)[site][:, -1:], atol=1e-14)
