"""One complete run of a tiny study, made once; tests work on copies of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from project_copy import MODEL, Run, copy_project, tiny_config
from transformers import LlamaConfig, LlamaForCausalLM

from interpflow.models.reference.tokenizer import build_tokenizer
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates, render


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("project") / "interpflow")


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers whose tokenizer knows the lexicon's words."""
    torch.set_num_threads(1)
    lexicon = load_lexicon()
    wordings = [
        render(template, lexicon, category, ()).text
        for template in load_templates()
        for category in lexicon.categories
    ]
    tokenizer = build_tokenizer(lexicon.words, wordings)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    directory = tmp_path_factory.mktemp("models") / MODEL
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def module_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="session")
def complete(
    project: Path,
    model_directory: Path,
    module_records: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """An undisturbed run on two cores. Not to be changed: take a copy with `fork`."""
    directory = tmp_path_factory.mktemp("complete") / "run"
    run = Run(project, directory, tiny_config(model_directory))
    run.write_config()
    counted = directory.parent
    run.snakemake(
        "--cores", "2",
        INTERPFLOW_TEST_MODULES=str(module_records), INTERPFLOW_TEST_COUNT=str(counted),
    )  # fmt: skip
    return run


@pytest.fixture(scope="session")
def n_renames(complete: Run) -> int:
    """Files that got their name in the undisturbed run."""
    return (complete.directory.parent / "renames").stat().st_size


@pytest.fixture(scope="session")
def loaded_modules(complete: Run, module_records: Path) -> dict[str, set[str]]:
    """Script → library modules that its process had loaded when it ended well."""
    found: dict[str, set[str]] = {}
    for path in module_records.glob("*.json"):
        record = json.loads(path.read_text())
        found.setdefault(record["script"], set()).update(record["modules"])
    return found


@pytest.fixture
def fork(complete: Run, tmp_path: Path) -> Callable[[], Run]:
    """fork() -> a copy of the complete run that the test may change."""
    numbers = itertools.count()
    return lambda: complete.fork(tmp_path / f"run{next(numbers)}")


@pytest.fixture
def edit(project: Path) -> Iterator[Callable[[str, Callable[[str], str]], None]]:
    """edit(path in the project, text -> text); taken back after the test."""
    before: dict[Path, str] = {}

    def change(name: str, how: Callable[[str], str]) -> None:
        path = project / name
        before.setdefault(path, path.read_text(encoding="utf-8"))
        changed = how(path.read_text(encoding="utf-8"))
        assert changed != path.read_text(encoding="utf-8"), f"the edit of {name} changes nothing"
        path.write_text(changed, encoding="utf-8")

    yield change
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")
