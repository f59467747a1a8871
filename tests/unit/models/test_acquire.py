from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from interpflow.errors import UserError
from interpflow.models import acquire
from interpflow.models.acquire import ModelSource, check_source_files, load_transformer, locate
from interpflow.models.manifest import build_manifest, tokenizer_sha256


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def local(directory: Path, **options) -> ModelSource:
    return ModelSource("tiny", "local", str(directory), **options)


def test_the_check_imports_neither_torch_nor_transformers(model_dir):
    code = (
        "import sys; from interpflow.models.acquire import ModelSource, check_source_files\n"
        f"check_source_files(ModelSource('m', 'local', {str(model_dir)!r}))\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    room = Path(acquire.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=room)


@pytest.mark.parametrize("as_reference", [True, False])
def test_loads_what_was_saved(model_dir, tmp_path, as_reference):
    source = ModelSource("tiny", "reference", "tiny") if as_reference else model_dir
    model, tokenizer = load_transformer(source, resources_dir=tmp_path)
    assert not model.training
    assert model.dtype == torch.float32
    assert tokenizer.is_fast
    saved = load_file(model_dir / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[name], saved[name])


def test_dtype_of_source_and_of_call(model_dir):
    source = local(model_dir, dtype="bfloat16")
    assert load_transformer(source)[0].dtype == torch.bfloat16
    assert load_transformer(source, dtype="float32")[0].dtype == torch.float32


def test_locate():
    assert locate(ModelSource("m", "hub", "o/n", "main")) == "o/n"
    assert locate(ModelSource("m", "reference", "x"), Path("/r")) == Path("/r/reference/x")
    assert locate(ModelSource("m", "local", "here")) == Path("here")


def remove(name):
    return lambda directory: (directory / name).unlink()


def to_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def half_sharded(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (remove("config.json"), "no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "damaged"),
        (lambda d: (d / "config.json").write_text("[]"), "not a JSON object"),
        (remove("model.safetensors"), "no weights"),
        (to_pickle, "only there as pickles"),
        (half_sharded, "1 of 2 weight files are missing: model-00002"),
        (lambda d: (d / "model.safetensors.index.json").write_text("{}"), "index.json is damaged"),
        (remove("tokenizer.json"), "no tokenizer"),
        (lambda d: edit_config(d, is_encoder_decoder=True), "encoder-decoder"),
    ],
)
def test_file_checks(model_dir, damage, match):
    damage(model_dir)
    with pytest.raises(UserError, match=match) as caught:
        check_source_files(local(model_dir))
    assert "tiny" in caught.value.where
    with pytest.raises(UserError, match=match):
        load_transformer(model_dir)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (ModelSource("m", "local", "/no/such/place"), "does not exist"),
        (ModelSource("m", "hub", "owner/name"), "needs a revision"),
        (ModelSource("m", "hub", "just-a-name", "main"), "not a hub id"),
        (ModelSource("m", "local", ".", dtype="float8"), "unknown dtype"),
        (ModelSource("m", "disk", "."), "unknown kind"),  # type: ignore[arg-type]
    ],
)
def test_source_checks(source, match):
    with pytest.raises(UserError, match=match):
        check_source_files(source)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "t5"}, "not a causal decoder"),
        ({"model_type": "unheard"}, "unknown to the installed"),
        ({"model_type": "unheard", "auto_map": {"AutoConfig": "x.Y"}}, "trust_remote_code: true"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "those of BertForMaskedLM"),
    ],
)
def test_architecture_checks(model_dir, changes, match):
    edit_config(model_dir, **changes)
    with pytest.raises(UserError, match=match):
        load_transformer(model_dir)


def test_missing_and_misshapen_weights_are_not_random(model_dir):
    path = model_dir / "model.safetensors"
    weights = load_file(path)
    gone = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj"):
        load_transformer(model_dir)
    weights["model.layers.1.mlp.up_proj.weight"] = gone[:-1].clone()
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"up_proj"):
        load_transformer(model_dir)


def test_damaged_weights_and_foreign_tokenizer(model_dir, make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"new{i}" for i in range(3)])
    tokenizer.save_pretrained(model_dir)
    with pytest.raises(UserError, match="embedding"):
        load_transformer(model_dir)
    (model_dir / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_transformer(model_dir)


def test_absent_device(model_dir):
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is there")
    with pytest.raises(UserError, match="not available"):
        load_transformer(model_dir, device="cuda")


HUB = ModelSource("m", "hub", "owner/name", "abc123")


def response(status: int):
    import httpx2 as http

    return http.Response(status, request=http.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("failure", "match"),
    [
        (lambda: errors.LocalEntryNotFoundError("gone"), "offline or cannot be reached"),
        (lambda: errors.OfflineModeIsEnabled("offline"), "offline or cannot be reached"),
        (lambda: errors.RepositoryNotFoundError("x", response=response(404)), "no such model"),
        (lambda: errors.RevisionNotFoundError("x", response=response(404)), "no such revision"),
        (lambda: errors.GatedRepoError("x", response=response(403)), "granted on request"),
        (lambda: ConnectionError("refused"), "cannot be reached: refused"),
    ],
)
def test_hub_failures(monkeypatch, failure, match):
    def fail(*_args, **_options):
        raise failure()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=match) as caught:
        load_transformer(HUB)
    assert "owner/name" in caught.value.where
    assert caught.value.remedy


def test_hub_offline_for_real(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="offline or cannot be reached"):
        load_transformer(HUB)


def test_hub_download_is_pinned_and_safe(monkeypatch, model_dir):
    asked = {}

    def download(repo, **options):
        asked.update(options, repo=repo)
        return str(model_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model, tokenizer = load_transformer(HUB)
    assert asked["repo"] == "owner/name"
    assert asked["revision"] == "abc123"
    assert not {"*.bin", "*.pt", "*.py", "*"} & set(asked["allow_patterns"])
    document = build_manifest(HUB, model, tokenizer)
    assert document["commit"] == model_dir.name
    load_transformer(replace(HUB, trust_remote_code=True))
    assert "*.py" in asked["allow_patterns"]


def test_manifest(model_dir, make_tokenizer):
    source = local(model_dir)
    model, tokenizer = load_transformer(source)
    document = build_manifest(source, model, tokenizer)
    assert json.loads(json.dumps(document)) == document
    assert str(model_dir.parent) not in json.dumps(document)
    expected = {
        "name": "tiny",
        "kind": "local",
        "location": "tiny",
        "commit": None,
        "architecture": "LlamaForCausalLM",
        "n_layers": 2,
        "d_model": 16,
        "n_heads": 4,
        "n_kv_heads": 2,
        "vocab_size": len(tokenizer),
        "dtype": "float32",
        "max_positions": 64,
        "chat_template": False,
        "bos": "one",
        "trust_remote_code": False,
        "n_params": sum(w.numel() for w in load_file(model_dir / "model.safetensors").values()),
    }
    assert {key: document[key] for key in expected} == expected
    weights = load_file(model_dir / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, model_dir / "model.safetensors", metadata={"format": "pt"})
    changed = build_manifest(source, model, tokenizer)
    assert changed["weights_sha256"] != document["weights_sha256"]
    assert changed["tokenizer_sha256"] == document["tokenizer_sha256"]


def test_tokenizer_digest_depends_on_rules_only(make_tokenizer):
    tokenizer = make_tokenizer()
    digest = tokenizer_sha256(tokenizer)
    tokenizer.pad_token = "</s>"
    tokenizer(["a", "pear"], padding=True)
    assert tokenizer_sha256(tokenizer) == digest == tokenizer_sha256(make_tokenizer())
    assert tokenizer_sha256(make_tokenizer(bos=False)) != digest
    assert tokenizer_sha256(make_tokenizer(template="{{ messages }}")) != digest
