"""What is wrong with the study's settings is said before anything runs, by key and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.models.shape import ModelShape, shape_of
from interpflow.studies.robustness.checks import check_built_in_reward, check_study, has_gold
from interpflow.workflow.checks import check_inputs

DECODER = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32,
           "max_position_embeddings": 64, "architectures": ["LlamaForCausalLM"]}  # fmt: skip
REWARD = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "good"}}
CLAUDE = {"provider": "anthropic", "model": "claude-haiku-4-5"}


def directory(place: Path, config: dict[str, Any], *others: str) -> str:
    """A model's directory as far as it can be looked at without loading it."""
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "tokenizer.json", *others):
        (place / name).write_text("{}")
    return str(place)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    directory(tmp_path / "model", DECODER)
    return tmp_path


def config_of(here: Path, study: dict[str, Any], **settings: Any) -> Config:
    raw = {"models": {"m": {"local": str(here / "model")}}, "counting": None, **settings}
    return parse_config(raw | {"robustness": study})


def refused(config: Config) -> str:
    with pytest.raises(UserError) as caught:
        check_inputs(config)
    return str(caught.value)


def write(here: Path, name: str, rows: Any) -> str:
    path = here / name
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
    return str(path)


def test_the_defaults_pass(here: Path) -> None:
    check_inputs(config_of(here, {}))


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"perturbations": {"operators": ["keybord"]}},
         ["robustness.perturbations.operators", "'keybord'", "did you mean 'keyboard'?"]),
        ({"perturbations": {"dose": {"operators": ["transpositon"]}}},
         ["robustness.perturbations.dose.operators", "did you mean 'transposition'?"]),
        ({"perturbations": {"dose": {"operators": ["polite"]}}},
         ["robustness.perturbations.dose.operators", "does not count edits"]),
        ({"perturbations": {"rewrites": {"styles": ["polit"]}}},
         ["robustness.perturbations.rewrites.styles", "'polit'", "did you mean 'polite'?"]),
        ({"perturbations": {"rewrites": {"styles": ["paraphrase"]}}},
         ["robustness.perturbations.rewrites.styles", "offline generator", "llm.roles.generator"]),
        ({"analysis": {"primary": "keybaord"}},
         ["robustness.analysis.primary", "did you mean 'keyboard'?"]),
        ({"perturbations": {"operators": ["case"], "dose": {"operators": ["case"]}}},
         ["robustness.analysis.primary", "'keyboard'", "is no operator that is applied", "case"]),
        ({"data": {"source": "instructions"}, "scoring": {"judge": True}},
         ["robustness.scoring.judge", "llm.roles.judge.0", "has none"]),
        ({"data": {"source": "dataset", "dataset": {"name": "no/such"}}},
         ["robustness.data.dataset.revision", "no/such"]),
        ({"inference": {"activations": {"layers": [0, 2]}}},
         ["robustness.inference.activations.layers", "layer 2", "0 to 1"]),
        ({"inference": {"max_new_tokens": 64}},
         ["robustness.inference.max_new_tokens", "context of m holds 64"]),
        ({"scoring": {"reward_models": ["no/where"]}},
         ["robustness.scoring.reward_models", "no/where@revision"]),
        ({"scoring": {"reward_models": ["/no/where"]}},
         ["robustness.scoring.reward_models", "no such directory"]),
        ({"semantics": {"embedding": "mini"}}, ["robustness.semantics.embedding", "'mini'"]),
        ({"scoring": {"embedding": "a/b"}}, ["robustness.scoring.embedding", "revision"]),
        ({"scoring": {"nli": "minilm"}}, ["robustness.scoring.nli", "what follows"]),
        ({"data": {"source": "file", "path": "missing.json"}},
         ["robustness.data.path", "missing.json", "no such file"]),
    ],
)  # fmt: skip
def test_a_wrong_name_is_told_by_its_key(
    here: Path, study: dict[str, Any], said: list[str]
) -> None:
    message = refused(config_of(here, study))
    assert all(words in message for words in said), message


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("a.json", [{"normal": "a"}, {"other": "b"}] * 3 + [{"nromal": "c"}, {"other": "d"}],
         ["row 7", "'nromal'", "did you mean 'normal'?"]),
        ("a.json", [{"normal": "x", "main": "y"}] * 3 + [{"main": "y"}], ["row 4", "'normal'"]),
        ("a.json", [{"normal": "  "}], ["no prompt can be used", "1 rows: empty prompt"]),
        ("a.json", [{"normal": 7}], ["row 1", "7 is no text"]),
        ("a.json", "[{", ["not valid JSON", "line 1"]),
        ("a.jsonl", '{"question": "a"}\n{"question"\n', ["not valid JSON", "line 2"]),
        ("a.csv", "question,answer\nx,1\ny\n", ["row 2", "fewer fields"]),
        ("a.parquet", "PAR1", ["Parquet file is damaged"]),
        ("a.txt", "x", ["cannot end in '.txt'"]),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_by_its_row(
    here: Path, name: str, rows: Any, said: list[str]
) -> None:
    path = write(here, name, rows)
    message = refused(config_of(here, {"data": {"source": "file", "path": path}}))
    assert all(words in message for words in ["robustness.data.path", path, *said]), message


def test_given_variants_can_be_the_primary_operator(here: Path) -> None:
    path = write(here, "a.json", [{"normal": f"Say {i}.", "swap": f"Syay {i}."} for i in range(9)])
    data = {"source": "file", "path": path}
    check_inputs(config_of(here, {"data": data, "analysis": {"primary": "given:swap"}}))
    message = refused(config_of(here, {"data": data, "analysis": {"primary": "given:swop"}}))
    assert "did you mean 'given:swap'?" in message


def test_the_offline_judge_needs_every_gold_answer(here: Path) -> None:
    path = write(here, "a.json", [{"normal": f"What is {i} + 2?"} for i in range(9)])
    study = {"data": {"source": "file", "path": path}, "scoring": {"judge": True}}
    config = config_of(here, study)
    check_study(config)
    assert has_gold(config)
    write(here, "a.json", [{"normal": "What is 1 + 2?"}, {"normal": "What is love?"}])
    assert "'What is love?' has none" in refused(config)
    assert has_gold(config) is False
    roles = {"judge": [CLAUDE]}
    check_study(config_of(here, study, llm={"roles": roles}))


def test_a_model_writes_in_styles_of_ones_own(here: Path) -> None:
    llm = {"roles": {"generator": CLAUDE}}

    def of(style: str) -> Config:
        study = {"perturbations": {"rewrites": {"styles": [style]}}}
        return config_of(here, study, llm=llm)

    check_study(of("paraphrase"))
    check_study(of("as a pirate"))
    with pytest.raises(UserError, match="did you mean 'paraphrase'"):
        check_study(of("parafrase"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (REWARD | {"id2label": {"0": "bad", "1": "good"}}, "2 outputs (bad, good)"),
        (REWARD | {"architectures": ["BertForMaskedLM"]}, "those of BertForMaskedLM"),
        (REWARD | {"id2label": None}, "2 outputs"),
    ],
)
def test_a_reward_model_gives_one_score(here: Path, config: dict[str, Any], said: str) -> None:
    bad = directory(here / "bad", config)
    good = directory(here / "good", REWARD)
    check_study(config_of(here, {"scoring": {"reward_models": [good]}}))
    message = refused(config_of(here, {"scoring": {"reward_models": [good, bad]}}))
    assert "robustness.scoring.reward_models" in message
    assert bad in message
    assert said in message


def test_the_embedded_reward_model_is_missed_where_it_would_score(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interpflow.models.reward.BUILT_IN_DIRECTORY", "not_there")
    config = config_of(here, {})
    check_inputs(config)  # the target that makes it must start
    with pytest.raises(UserError, match="does not exist"):
        check_built_in_reward(config)
    check_built_in_reward(config_of(here, {"scoring": {"reward_models": ["a/b@c"]}}))


def test_an_encoder_is_no_studied_model(here: Path) -> None:
    encoder = directory(here / "encoder", REWARD)
    raw = {"models": {"m": {"local": encoder}}, "counting": None, "robustness": {}}
    message = refused(parse_config(raw))
    assert "not of a causal decoder" in message
    assert encoder in message


def test_an_inference_model_names_entailment(here: Path) -> None:
    labels = {"0": "CONTRADICTION", "1": "NEUTRAL"}
    bad = directory(here / "bad", REWARD | {"id2label": labels})
    good = directory(here / "good", REWARD | {"id2label": {**labels, "2": "ENTAILMENT"}})
    check_study(config_of(here, {"scoring": {"nli": good}}))
    message = refused(config_of(here, {"scoring": {"nli": bad}}))
    assert "robustness.scoring.nli" in message
    assert "'entailment'" in message


def test_an_embedding_is_made_for_sentences(here: Path) -> None:
    bad = directory(here / "bad", DECODER)
    good = directory(here / "good", DECODER, "modules.json")
    check_study(config_of(here, {"semantics": {"embedding": good}}))
    message = refused(config_of(here, {"semantics": {"embedding": bad}}))
    assert "robustness.semantics.embedding" in message
    assert "modules.json" in message


def test_shapes_by_any_name() -> None:
    assert shape_of({"n_layer": 3, "n_head": 2, "n_embd": 8, "n_positions": 16}) == ModelShape(
        3, 2, 8, 32, 16
    )
    nested = {"text_config": DECODER | {"intermediate_size": 48}, "hidden_size": 5}
    assert shape_of(nested) == ModelShape(2, 4, 32, 48, 64)
    assert shape_of({"hidden_size": 5}) is None
