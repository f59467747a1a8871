"""What a user gets to see of a mistake: one message, exit code 1, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from project_copy import MODEL, Run, tiny_config

Change = Callable[[dict[str, Any], Path], None]


def misspelt_key(config: dict[str, Any], place: Path) -> None:
    config["counting"]["pairs"]["n_minmal"] = 8


def wrong_type(config: dict[str, Any], place: Path) -> None:
    config["counting"]["benchmark"]["n_permutations"] = "many"


def no_models(config: dict[str, Any], place: Path) -> None:
    del config["models"]


def unknown_model(config: dict[str, Any], place: Path) -> None:
    config["counting"]["models"] = ["large"]


def unknown_template(config: dict[str, Any], place: Path) -> None:
    config["counting"]["pairs"]["templates"] = ["haiku"]


def impossible_count(config: dict[str, Any], place: Path) -> None:
    config["counting"]["data"]["counts"] = {"min": 7, "max": 9}


def no_weights(config: dict[str, Any], place: Path) -> None:
    (place / "model/model.safetensors").unlink()


def pickled_weights(config: dict[str, Any], place: Path) -> None:
    (place / "model/model.safetensors").rename(place / "model/pytorch_model.bin")


def word_lists(config: dict[str, Any], place: Path, **lists: str) -> None:
    (place / "words").mkdir()
    for category, words in lists.items():
        (place / f"words/{category}.txt").write_text("\n".join(words.split()) + "\n")
    config["counting"]["lexicon"] = str(place / "words")
    config["counting"]["data"]["categories"] = None


def empty_word_list(config: dict[str, Any], place: Path) -> None:
    word_lists(config, place, bird="", fruit="apple pear plum fig lime")


def repeated_word(config: dict[str, Any], place: Path) -> None:
    word_lists(config, place, bird="owl crow owl swan", fruit="apple pear plum fig lime")


def few_non_members(config: dict[str, Any], place: Path) -> None:
    word_lists(config, place, bird="owl crow swan wren duck", fruit="fig")


@pytest.fixture
def broken(project: Path, model_directory: Path, tmp_path: Path) -> Callable[[Change], Run]:
    """broken(change) -> a run whose config or files the change has damaged."""

    def build(change: Change) -> Run:
        shutil.copytree(model_directory, tmp_path / "model")
        config = deepcopy(tiny_config(tmp_path / "model"))
        run = Run(project, tmp_path / "run", config)
        change(config, tmp_path)
        run.write_config(config)
        return run

    return build


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (misspelt_key, ["counting.pairs.n_minmal: unknown key", "'n_minimal'"]),
        (wrong_type, ["counting.benchmark.n_permutations", "'many'"]),
        (no_models, ["models"]),
        (unknown_model, ["counting.models", "'large'", MODEL]),
        (unknown_template, ["counting.pairs.templates", "'haiku'", "parentheses"]),
        (impossible_count, ["counting.data", "counts from 7"]),
        (no_weights, [f"model {MODEL}", "no weights", "model.safetensors"]),
        (pickled_weights, [f"model {MODEL}", "pickles"]),
        (empty_word_list, ["bird.txt", "empty"]),
        (repeated_word, ["bird.txt", "owl"]),
        (few_non_members, ["non-members"]),
    ],
)
@pytest.mark.parametrize("arguments", [("-n",), ("--cores", "1")], ids=["dry", "real"])
def test_a_mistake_is_one_message_before_any_work(
    broken: Callable[[Change], Run],
    request: pytest.FixtureRequest,
    change: Change,
    said: list[str],
    arguments: tuple[str, ...],
) -> None:
    if arguments != ("-n",) and change not in (misspelt_key, no_weights):
        pytest.skip("the same code path as the dry run")
    run = broken(change)
    done = subprocess.run(
        run.command(*arguments), env=run.variables(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("interpflow: ") == 1
    for words in said:
        assert words in done.stderr
    assert not (run.directory / "results").exists()


def test_an_empty_config_is_one_message(broken: Callable[[Change], Run]) -> None:
    run = broken(misspelt_key)
    (run.directory / "config.yaml").write_text("")
    done = run.snakemake("-n", succeeds=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout


def test_a_path_of_an_unknown_model_has_no_rule(complete: Run) -> None:
    for path in ("results/counting/large/benchmark.json", "results/reference_models/x/seedy"):
        done = complete.snakemake("-n", path, succeeds=False)
        assert done.returncode == 1
        assert f"No rule to produce {path}" in done.stdout
        assert "Traceback" not in done.stdout


def test_a_study_that_is_switched_off_says_so(complete: Run, tmp_path: Path) -> None:
    run = Run(complete.project, tmp_path / "run", {**complete.config, "counting": None})
    run.write_config()
    done = run.snakemake("--cores", "1", "results/counting/examples.parquet", succeeds=False)
    assert done.returncode == 1
    assert "switches the study of this rule off" in done.stdout
    assert "Traceback" not in done.stdout


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_sentence(path: Path) -> None:
    document = json.loads(path.read_text())
    document["content"]["sentence"] = "It counts."
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("results/counting/comparison.parquet", truncate, "the table is damaged"),
        (f"results/counting/{MODEL}/verdict.json", edit_sentence, "changed by hand"),
        (f"results/counting/{MODEL}/verdict.json", truncate, "damaged or foreign"),
    ],
)
def test_a_damaged_artifact_is_named_with_its_remedy(
    fork: Callable[[], Run],
    name: str,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    run = fork()
    damage(run.directory / name)
    done = run.snakemake("--cores", "1", "results/counting/summary.json", succeeds=False)
    assert done.returncode == 1
    assert said in done.stdout
    assert name in done.stdout
    assert "delete it and run the same command again" in done.stdout
    assert "Traceback" not in done.stdout
    (run.directory / name).unlink()
    assert "Missing output files" in " ".join(run.planned("results/counting/summary.json").values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """small_disk(directory, size) puts a file system of that size there, or resizes it."""
    mounted: list[Path] = []

    def mount(directory: Path, size: str) -> None:
        options = f"remount,size={size}" if directory in mounted else f"size={size}"
        directory.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True
        )
        if done.returncode != 0:
            pytest.skip("file systems cannot be mounted here")
        mounted.append(directory)

    yield mount
    for directory in set(mounted):
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_is_one_message_and_the_run_goes_on_later(
    complete: Run, tmp_path: Path, small_disk: Callable[[Path, str], None]
) -> None:
    run = Run(complete.project, tmp_path / "run", dict(complete.config))
    run.write_config()
    small_disk(run.directory / "results", "24k")
    target = "results/counting/validation.json"
    done = run.snakemake("--cores", "1", "--", target, succeeds=False)
    assert done.returncode == 1
    assert "no space left on the disk" in done.stdout
    assert "Traceback" not in done.stdout
    assert not run.leftovers()
    small_disk(run.directory / "results", "64m")
    run.snakemake("--cores", "1", "--", target)
    assert run.artifacts().items() <= complete.artifacts().items()


def test_a_disk_full_from_the_start_is_one_message(
    complete: Run, tmp_path: Path, small_disk: Callable[[Path, str], None]
) -> None:
    run = Run(complete.project, tmp_path / "run", dict(complete.config))
    small_disk(run.directory, "64k")
    run.write_config()
    done = run.snakemake("--cores", "1", succeeds=False)
    assert done.returncode == 1
    assert "no space left on the disk" in done.stdout
    assert "Traceback" not in done.stdout
