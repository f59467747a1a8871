"""Lists of a language-model service through the whole workflow, killed, resumed, and checked."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from project_copy import Run, tiny_config

from interpflow.config.identity import content_hash
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows
from interpflow.tasks.counting.lexicon import load_lexicon
from tests.service_stub import Faults, ServiceStub

WRONG_LABELS, SENSITIVITY, SPECIFICITY = 0.08, 0.95, 0.93
CATEGORIES = ("bird", "fruit", "mammal")
TARGETS = ("results/counting/validation.json", "results/counting/written_quality.json")
PRICES = (
    "provider,model,host,input,cache_write_5m,cache_write_1h,cache_read,output,batch_factor,"
    "valid_from,source\nstub,*,,1,1,1,1,5,0.5,2026-01-01,test\n"
)


class Service:
    """Writes lists and judges words from the whole lexicon, at known rates of error."""

    def __init__(self) -> None:
        self.lexicon = load_lexicon()
        self.labels: Counter[bool] = Counter()
        self.asked: Counter[str] = Counter()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(body["messages"], ensure_ascii=False).replace('\\"', '"')
        draw = random.Random(content_hash(text))
        category = re.search(r'category "([^"]+)"', text)
        assert category
        judged = re.search(r'Is "([^"]+)" one of', text)
        if judged:
            truth = category[1] in self.lexicon.categories_of(judged[1])
            right = draw.random() < (SENSITIVITY if truth else SPECIFICITY)
            return {"choice": "yes" if truth == right else "no"}
        # Equal texts with another sample are new draws: a service does not repeat itself. The same
        # ones in every run, or one run in many would be left short of a list by its last round.
        self.asked[text] += 1
        draw = random.Random(f"{content_hash(text)} {self.asked[text]}")
        shapes = re.findall(r"List \d+: (\d+) words, of which (\d+) ", text)
        return {"lists": [self._list(category[1], int(n), int(k), draw) for n, k in shapes]}

    def _list(self, category: str, n: int, k: int, draw: random.Random) -> dict[str, Any]:
        words = [(word, True) for word in draw.sample(self.lexicon.members(category), k)]
        words += [(w, False) for w in draw.sample(self.lexicon.non_members(category), n - k)]
        written = []
        for word, truth in words:
            wrong = draw.random() < WRONG_LABELS
            self.labels[wrong] += 1
            written.append(
                {"word": word.capitalize(), "category": "?", "is_member": truth != wrong}
            )
        return {"words": written}


def mixed_config(model_directory: Path, folder: Path, url: str) -> dict[str, Any]:
    """A study whose lexicon lacks every second word, so that the validator has work."""
    lexicon = folder / "lexicon"
    lexicon.mkdir(parents=True)
    for category in CATEGORIES:
        words = load_lexicon().members(category)
        (lexicon / f"{category}.txt").write_text("\n".join(words[::2]), encoding="utf-8")
    (folder / "prices.csv").write_text(PRICES, encoding="utf-8")
    config = tiny_config(model_directory)
    config["counting"]["lexicon"] = str(lexicon)
    config["counting"]["data"] |= {
        "categories": list(CATEGORIES), "source": "mixed", "replicates": 3,
        "llm": {"share": 0.7, "max_rounds": 4, "gold_words": 60},
    }  # fmt: skip
    config["llm"] = {
        "store": str(folder / "answers.sqlite"), "max_cost_usd": 50.0,
        "prices": str(folder / "prices.csv"), "max_concurrency": 16,
        "roles": {
            "generator": {"provider": "anthropic", "model": "claude-stub", "base_url": url},
            "validator": [
                {"provider": "openai_compatible", "model": "llama-stub", "base_url": f"{url}/v1"}
            ],
        },
    }  # fmt: skip
    return config


@pytest.fixture
def service() -> Iterator[tuple[Service, ServiceStub]]:
    made = Service()
    faults = Faults({"429": 0.05, "500": 0.05, "529": 0.02}, seed=1)
    with ServiceStub(faults, made.answer, latency_s=0.01) as stub:
        yield made, stub


def test_a_mixed_set_is_made_resumed_and_its_quality_known(
    project: Path, model_directory: Path, tmp_path: Path, service: tuple[Service, ServiceStub]
) -> None:
    made, stub = service
    run = Run(project, tmp_path / "run", mixed_config(model_directory, tmp_path / "own", stub.url))
    run.environment |= {"ANTHROPIC_API_KEY": "sk-not-to-be-seen"}
    run.write_config()

    planned = run.snakemake("--cores", "1", "estimate").stdout
    assert "generator" in planned
    assert not stub.billed_entries

    # Killed while words are judged: what was bought is not bought again.
    child = subprocess.Popen(
        run.command("--cores", "2", "--", *TARGETS), env=run.variables(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(stub.billed_entries) < 40 and time.monotonic() < deadline:
        time.sleep(0.02)
    subprocess.run(["pkill", "-KILL", "-s", str(child.pid)], check=False)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    before = len(stub.billed_entries)
    assert before >= 40
    run.snakemake("--unlock")
    done = run.snakemake("--cores", "2", "--rerun-incomplete", "--", *TARGETS)
    assert "sk-not-to-be-seen" not in done.stdout

    here = run.directory / "results/counting"
    rows = read_rows(here / "examples.parquet", "counting_examples")
    assert Counter(row["source"] for row in rows) == {"systematic": 24, "llm": 57}
    cells = Counter((row["category"], row["length"], row["count"]) for row in rows)
    assert set(cells.values()) == {3}

    found = {
        row["quantity"]: row
        for row in read_document(here / "written_quality.json", "counting_written_quality")[
            "labels"
        ]
    }
    in_all = found["label accuracy, all words, corrected"]
    true_rate = made.labels[False] / made.labels.total()
    assert in_all["ci_low"] <= true_rate <= in_all["ci_high"]
    assert in_all["ci_high"] - in_all["ci_low"] < 0.25
    assert found["label accuracy, words in the lexicon"]["n_units"] > 50
    assert found["label accuracy, other words, as judged"]["n_units"] > 50

    # Every completion was paid once; at most the calls in flight at the kill twice.
    asked_twice = Counter(stub.billed)
    assert sum(n - 1 for n in asked_twice.values()) <= 16

    # Nothing to do the second time; without results everything comes from the store.
    paid = len(stub.billed_entries)
    assert run.planned("--", *TARGETS) == {}
    run.snakemake("--cores", "2", "--delete-all-output", "--", *TARGETS)
    run.snakemake("--cores", "2", "--", *TARGETS)
    assert len(stub.billed_entries) == paid
