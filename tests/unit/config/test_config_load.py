"""Reading a config: every mistake at once, by key, with the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from interpflow.config.identity import (
    SPLIT_SHARES,
    canonical_json,
    content_hash,
    derived_seed,
    split_of,
)
from interpflow.config.load import load_config, parse_config
from interpflow.config.schema import SCHEMA_PATH, config_schema, schema_text
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.paths import PROJECT_DIR

STUDIES = ("counting", "robustness", "layer_surgery")
MODELS = {"one": {"local": "somewhere"}}


def message(raw: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(raw)
    return str(caught.value)


def test_defaults_make_a_config_of_the_models_alone() -> None:
    config = parse_config({"models": MODELS})
    assert config.seed == 0
    assert config.counting_models() == ["one"]


def test_the_config_of_the_project_says_the_defaults() -> None:
    raw = yaml.safe_load((PROJECT_DIR / "config.yaml").read_text(encoding="utf-8"))
    config = parse_config(raw)
    studies = {name: {"models": raw[name]["models"]} for name in STUDIES}
    bare = parse_config({"models": raw["models"], **studies})
    assert config == bare, "config.yaml states values that are not the defaults"


def test_every_mistake_is_reported_at_once() -> None:
    text = message({"models": MODELS, "seed": -1, "counting": {"pairs": {"n_prefix": "x"}}})
    assert "2 mistakes" in text
    assert "seed: " in text
    assert "counting.pairs.n_prefix: " in text


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"modles": MODELS}, "did you mean 'models'?"),
        ({"models": {"one": {"lokal": ""}}}, "models.one.lokal: unknown key; did you mean 'local'"),
        ({"models": MODELS, "counting": {"dat": {}}}, "did you mean 'data'?"),
        ({"models": MODELS, "counting": {"data": {"lengths": {"mn": 1, "max": 2}}}}, "'min'"),
        ({"models": MODELS, "counting": {"data": {"zzz": 1}}}, "valid keys: source, llm, "),
        ({"models": {"a": {}}}, "models.a: name exactly one of hub, local, reference"),
        ({"models": {"a": {"hub": "x/y"}}}, "needs a pinned revision"),
        ({"models": {"../a": {"local": "x"}}}, "models.../a"),
        ({"models": {"a.json": {"local": "x"}}}, "models"),
        ({"models": {}}, "models"),
        ({"models": MODELS, "seed": "0"}, "(found '0')"),
        ({"models": MODELS, "seed": True}, "seed"),
        ({"models": MODELS, "counting": {"models": ["b"]}}, "no model named 'b'; known: one"),
        ({"models": MODELS, "counting": {"data": {"lengths": {"min": 5, "max": 4}}}}, "lengths"),
        ({"models": MODELS, "counting": {"data": {"categories": ["a", "a"]}}}, "listed twice: a"),
        ({"models": MODELS, "counting": {"data": {"templates": []}}}, "counting.data.templates"),
        ({"models": MODELS, "counting": {"models": []}}, "counting.models"),
        ({"models": MODELS, "counting": {"mediation": {"level": 1.0}}}, "mediation.level"),
        ({"models": MODELS, "counting": {"mediation": {"smallest_effect": float("inf")}}}, "inf"),
        ({"models": MODELS, "counting": {"data": {"lengths": {"min": 3, "max": 10**9}}}}, "max"),
        (None, "must be a mapping"),
        ([], "must be a mapping"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_key(raw: Any, said: str) -> None:
    assert said in message(raw)


def test_a_file_that_is_no_config_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for content in (None, b"a: [", b"- 1", b"", b"\xff\xfe\x00a: \xe9"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            load_config(path)
        assert caught.value.where == str(path)


def test_the_schema_file_is_in_step_with_the_models() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), (
        "run: python -m interpflow.config.schema"
    )


def test_the_schema_accepts_the_config_and_refuses_a_typo() -> None:
    import jsonschema

    raw = yaml.safe_load((PROJECT_DIR / "config.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(raw, config_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**raw, "sed": 1}, config_schema())


def test_every_setting_of_a_study_has_a_description() -> None:
    bare = []
    for name, definition in config_schema()["$defs"].items():
        for key, setting in definition.get("properties", {}).items():
            nested = "$ref" in setting or (
                name in ("CountingSettings", "ReferenceTraining", "Range", "Config")
            )
            if not nested and "description" not in setting:
                bare.append(f"{name}.{key}")
    assert not bare


def test_settings_cannot_be_changed() -> None:
    config = parse_config({"models": MODELS})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    assert Config.model_config["extra"] == "forbid"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=5))
def test_identity_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(turned)
    assert content_hash(value) == content_hash(turned)


@given(st.integers(0, 5), st.integers(0, 5))
def test_swapped_values_have_another_identity(a: int, b: int) -> None:
    same = content_hash({"a": a, "b": b}) == content_hash({"a": b, "b": a})
    assert same == (a == b)


def test_splits_have_their_shares_and_never_change() -> None:
    n = 20_000
    found = [split_of(f"family{i}") for i in range(n)]
    for name, share in SPLIT_SHARES:
        # Six standard errors of a binomial share.
        assert abs(found.count(name) / n - share) < 6 * (share * (1 - share) / n) ** 0.5
    assert found[:4] == [split_of(f"family{i}") for i in range(4)]
    assert sum(share for _, share in SPLIT_SHARES) == pytest.approx(1)


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derived_seed(root, name) for root in range(20) for name in ("a", "b", "c")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, "a", "b") != derived_seed(1, "ab")
