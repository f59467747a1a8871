"""Who may play which role: families by name, clashes, contamination; what a purchase needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interpflow.config.load import parse_config
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm import preflight, roles
from interpflow.llm.families import family_of, identity_of
from interpflow.llm.preflight import check_purchase, check_services
from interpflow.llm.roles import Use, check_roles, contamination
from interpflow.paths import PROJECT_DIR

HUB_REVISION = "0" * 40
CLAUDE = {"provider": "anthropic", "model": "claude-sonnet-5-5"}
GPT = {"provider": "openai_compatible", "model": "gpt-5", "base_url": "https://api.openai.com/v1"}


def served(model: str, **more: Any) -> dict[str, Any]:
    """A model at a server of one's own."""
    url = "http://localhost:8000/v1"
    return {"provider": "openai_compatible", "model": model, "base_url": url, **more}


def hub(name: str) -> dict[str, Any]:
    return {"hub": name, "revision": HUB_REVISION}


def config_of(
    source: str = "llm", models: dict[str, Any] | None = None, llm: dict[str, Any] | None = None,
    **played: Any,
) -> Config:  # fmt: skip
    return parse_config(
        {
            "models": models or {"m": {"reference": "count_parallel"}},
            "counting": {"data": {"source": source}},
            "llm": {"roles": played, **(llm or {})},
        }
    )


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("claude-sonnet-5-5", "claude"),
        ("gpt-5-mini", "gpt"),
        ("openai/gpt-oss-20b", "gpt"),
        ("o3-mini", "gpt"),
        ("openai-community/gpt2", "gpt"),
        ("EleutherAI/gpt-neox-20b", "eleuther"),
        ("EleutherAI/gpt-j-6b", "eleuther"),
        ("EleutherAI/pythia-70m", "eleuther"),
        ("gemini-3-flash", "gemini"),
        ("google/gemma-3-4b-it", "gemma"),
        ("google/codegemma-7b", "gemma"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama"),
        ("Qwen/Qwen2.5-0.5B", "qwen"),
        ("Qwen/QwQ-32B", "qwen"),
        ("mistralai/Mixtral-8x7B-v0.1", "mistral"),
        ("mistralai/Ministral-8B-Instruct-2410", "mistral"),
        ("microsoft/phi-2", "phi"),
        ("microsoft/Phi-3-mini", "phi"),
        ("deepseek-ai/DeepSeek-V3", "deepseek"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek"),
        ("allenai/OLMo-2-1124-7B", "olmo"),
        ("/data/models/my-qwen3-tuned", "qwen"),
        ("dolphin-2.9", "dolphin"),
        ("sapphire3", "sapphire"),
        ("7seas", "7seas"),
    ],
)
def test_families_by_name(model: str, family: str) -> None:
    assert family_of(model) == family
    assert family_of(model) in identity_of(model).families


def test_words_inside_words_are_no_families() -> None:
    for name in ("graphite-1", "adopt-7b", "yield-3b", "egpt-2"):
        assert not identity_of(name).is_known


def test_a_distilled_model_is_of_both_families() -> None:
    assert identity_of("DeepSeek-R1-Distill-Qwen-7B").families == {"deepseek", "qwen"}
    assert identity_of("anything", family=" LLaMA ").families == {"llama"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", True),
        ("org/Some-Model", "/disk/some-model/", True),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", False),
        ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B", False),
        ("gpt2", "gpt-5", False),
        ("Mixtral-8x7B", "Mistral-7B", False),
    ],
)
def test_two_names_of_one_model(one: str, other: str, same: bool) -> None:
    assert identity_of(one).same_model(identity_of(other)) is same


def test_offline_roles_and_other_families_pass() -> None:
    check_roles(config_of())
    check_roles(config_of(generator=CLAUDE))  # the lexicon validates
    check_roles(config_of(generator=CLAUDE, validator=[GPT]))
    check_roles(config_of(generator=CLAUDE, validator=[GPT, served("llama-3.1-70b")]))


def test_a_generator_does_not_validate_itself() -> None:
    clash = {"generator": CLAUDE, "validator": [GPT, {**CLAUDE, "model": "claude-haiku-5-5"}]}
    with pytest.raises(UserError, match="validate what its own family wrote") as caught:
        check_roles(config_of(**clash))
    assert caught.value.where == "llm.roles.generator and llm.roles.validator.1"
    assert "claude-haiku-5-5 (family claude)" in caught.value.what
    check_roles(config_of(source="systematic", **clash))  # nothing is asked


def test_the_stated_family_overrules_the_name() -> None:
    tuned = served("claude-like", family="llama")
    check_roles(config_of(generator=CLAUDE, validator=[tuned]))
    with pytest.raises(UserError, match="own family"):
        check_roles(config_of(generator=served("llama-70b"), validator=[tuned]))


def test_an_unknown_family_is_said_to_be_guessed() -> None:
    with pytest.raises(UserError, match="family dolphin, taken from its name"):
        check_roles(config_of(generator=served("dolphin-1"), validator=[served("dolphin-2")]))


def test_two_votes_of_one_family_are_refused() -> None:
    both = [served("qwen3-8b"), served("qwen3-32b")]
    with pytest.raises(UserError, match="not independent") as caught:
        check_roles(config_of(generator=CLAUDE, validator=both))
    assert caught.value.where == "llm.roles.validator.0 and llm.roles.validator.1"
    with pytest.raises(UserError, match="offline lexicon"):
        check_roles(config_of(generator=CLAUDE, validator=[{}, {}]))


def test_the_offline_validator_has_no_vote_beside_others() -> None:
    # It knows the lexicon only, and words of the lexicon are never put to a vote: with one model
    # beside it, no word would ever have more than half of the votes.
    with pytest.raises(UserError, match="lexicon") as error:
        check_roles(config_of(generator=CLAUDE, validator=[{}, GPT]))
    assert error.value.where == "llm.roles.validator.0"
    check_roles(config_of(generator=CLAUDE, validator=[{}]))
    check_roles(config_of(source="systematic", validator=[{}, GPT]))


LLAMA = {"llama": hub("meta-llama/Llama-3.1-8B"), "other": hub("Qwen/Qwen3-8B")}


def test_a_model_is_not_measured_on_what_it_wrote() -> None:
    writer = served("Llama-3.1-8B-Instruct")
    with pytest.raises(UserError, match="writes the data on which llama is measured") as caught:
        check_roles(config_of(models=LLAMA, generator=writer))
    assert caught.value.where == "models.llama and llm.roles.generator"
    allowed = config_of(models=LLAMA, generator=writer, llm={"allow_contaminated": True})
    check_roles(allowed)
    assert contamination(allowed) == {
        "llama": "Llama-3.1-8B-Instruct writes the data on which llama is measured"
    }
    assert contamination(allowed, "counting") == contamination(allowed)
    assert contamination(allowed, "robustness") == {}
    assert contamination(config_of(models=LLAMA)) == {}
    assert contamination(config_of("systematic", models=LLAMA, generator=writer)) == {}


def test_a_local_model_is_told_by_its_name_under_models() -> None:
    player = {"provider": "local", "model": "llama"}
    assert contamination(config_of(models=LLAMA, validator=[player])) == {
        "llama": "llama validates the data on which llama is measured"
    }
    with pytest.raises(UserError, match="no model named 'lama'") as caught:
        check_roles(config_of(models=LLAMA, generator={"provider": "local", "model": "lama"}))
    assert caught.value.where == "llm.roles.generator.model"
    assert "llama, other" in str(caught.value)


def test_several_clashes_are_one_message() -> None:
    with pytest.raises(UserError, match="2 roles") as caught:
        check_roles(
            config_of(models=LLAMA, generator=served("llama-8b"), validator=[served("llama-70b")])
        )
    assert "models.llama and llm.roles.generator" in str(caught.value)


def test_a_judge_is_of_another_family_than_the_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    judging = [Use("some study", ("judge",), ("llama", "other"))]
    monkeypatch.setattr(roles, "uses", lambda config: judging)
    check_roles(config_of(models=LLAMA, judge=[CLAUDE]))
    with pytest.raises(UserError, match="judge a model of its own family: other") as caught:
        check_roles(config_of(models=LLAMA, judge=[CLAUDE, served("qwen3-235b")]))
    assert caught.value.where == "models.other and llm.roles.judge.1"


def test_keys_of_used_roles_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    capped = {"max_cost_usd": 1.0}
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY") as caught:
        check_purchase(config_of(generator=CLAUDE, llm=capped))
    assert "llm.roles.generator" in caught.value.where
    named = {**CLAUDE, "api_key_env": "MY_KEY"}
    with pytest.raises(UserError, match="MY_KEY"):
        check_purchase(config_of(generator=named, llm=capped))
    monkeypatch.setenv("MY_KEY", "k")
    check_purchase(config_of(generator=named, llm=capped))
    check_purchase(config_of("systematic", generator=CLAUDE))
    check_purchase(config_of(judge=[CLAUDE]))  # no study asks a judge


def test_a_paid_role_needs_a_cap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    with pytest.raises(UserError, match="there is no cap") as caught:
        check_purchase(config_of(generator=CLAUDE))
    assert caught.value.where == "llm.max_cost_usd"
    check_purchase(config_of(generator=CLAUDE, llm={"max_cost_usd": 0.0}))
    own = tmp_path / "prices.csv"
    own.write_text(
        "model,host,input,cache_write_5m,cache_write_1h,cache_read,output,batch_factor,valid_from\n"
        "my-llm,localhost:8000,0,0,0,0,0,1,2026-01-01\n"
    )
    check_purchase(config_of(generator=served("my-llm"), llm={"prices": str(own)}))


def test_a_model_without_a_price_is_named_with_its_role() -> None:
    with pytest.raises(UserError, match="has no price") as caught:
        check_services(config_of(validator=[{}, served("my-llm")]))
    assert caught.value.where == "llm.roles.validator.1.model and llm.prices"


def test_the_address_is_checked() -> None:
    with pytest.raises(UserError, match="no http or https URL") as caught:
        check_services(config_of(generator={**CLAUDE, "base_url": "claude.example"}))
    assert caught.value.where == "llm.roles.generator.base_url"


def test_the_store_lies_on_a_local_disk_outside_results(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="lost with the results"):
        check_services(config_of(generator=CLAUDE, llm={"store": "results/answers.sqlite"}))

    def refuse(path: Path) -> None:
        raise UserError("on nfs", where=f"llm.store: {path}")

    monkeypatch.setattr(preflight, "require_local", refuse)
    with pytest.raises(UserError, match="on nfs"):
        check_services(config_of(generator=CLAUDE))
    check_services(config_of())  # offline: there is no store


def test_the_checks_load_no_sdk() -> None:
    program = (
        "import sys; from interpflow.llm import preflight, roles; "
        "print([m for m in ('torch', 'anthropic', 'openai', 'httpx2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(PROJECT_DIR / "workflow_scripts")},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
