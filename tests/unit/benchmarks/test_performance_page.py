"""The page of figures is made of the records alone."""

from __future__ import annotations

import json

import pytest

from interpflow.paths import PROJECT_DIR
from tests.benchmarks import page as pages
from tests.benchmarks.peers.registry import implementations
from tests.benchmarks.plan import GPU_SECTIONS, SECTIONS
from tests.benchmarks.rounds import quiet, seconds, spread
from tests.benchmarks.works import SweepWork, work


def record(**changes):
    results = [
        {"implementation": "interpflow", "seconds": 2.0, "note": "", "peak_rss_mib": 500}
        | {"compared": 4, "max_difference": 1.5e-6, "largest_value": 0.25, "facts": {}},
        {"implementation": "plain hooks", "seconds": 30.0, "peak_rss_mib": 400, "facts": {}}
        | {"note": "24 of 384 sites, scaled"},
        {"implementation": "pyvene", "note": "", "error": "no such module"},
        {"implementation": "linears", "seconds": 1.0, "note": "", "peak_rss_mib": 100}
        | {"facts": {"gflops_per_s": {"torch.linear": 90.0, "oneDNN": 125.0}}},
    ]
    machine = {"processor": "P", "cores": 2, "vectors": "v", "system": "L", "python": "3.11"}
    flops = {"naive": 2e12, "last_logits": 1e12, "necessary": 2e11, "tight": 1.9e11}
    base = {"work": "residual_sweep", "clock": "cpu_s", "device": "cpu", "n_layers": 12}
    settings = {"n_pairs": 8, "length": 32}
    shown = {"machine": machine, "versions": {"torch": "2.13.0"}, "flops": flops}
    return {**base, **shown, "settings": settings, "results": results, **changes}


def test_a_run_becomes_a_table_with_ratios_and_a_rate():
    text = pages.page({"residual-gpt2": record()})
    assert "| interpflow | 2.00 | 1.00 | 500 | 1.5e-06 (0.25) |" in text
    assert "| plain hooks (24 of 384 sites, scaled) | 30.0 | 15.0 | 400 | – |" in text
    assert "| pyvene | failed |  |  |  |" in text
    assert "at 100 GFLOP/s, 0.80 of the best linear (oneDNN, 125)" in text
    assert "P, 2 cores, v, L; Python 3.11, torch 2.13.0" in text
    assert "linears" not in text


def test_growth_has_a_line_per_size():
    text = pages.page({"layers-4": record(n_layers=4), "layers-48": record(n_layers=48)})
    # 2 s for 8 pairs: 250 ms a pair, 4 × 32 sites, 2 blocks run by a site in the middle.
    assert "| 4 | 2.00 | 250 | 1.95 | 977 | 500 |" in text
    assert "| 48 | 2.00 | 250 | 0.163 | 6.78 | 500 |" in text


def test_a_gpu_record_stands_under_its_type():
    on_gpu = record(device="cuda", clock="wall_s")
    text = pages.page({"residual-7b-cuda-bfloat16": on_gpu})
    assert "## On a GPU" in text
    assert "### bfloat16" in text
    assert "### float32" not in text
    assert "| implementation | s | ratio |" in text


def test_the_page_in_the_documentation_is_that_of_the_records():
    records = pages.read_records(pages.MEASURED)
    if not records:
        pytest.skip("nothing has been measured yet")
    assert pages.PAGE.read_text(encoding="utf-8") == pages.page(records)


def test_no_record_names_a_place_or_a_day():
    for file in pages.MEASURED.glob("*.json"):
        text = json.dumps(json.loads(file.read_text(encoding="utf-8")))
        assert str(PROJECT_DIR) not in text
        assert "/tmp" not in text
        assert "error" not in text, file.name


def test_every_planned_run_exists():
    for section in (*SECTIONS, *GPU_SECTIONS):
        for run in section.runs:
            chosen = work(run.work, run.shape, run.changes)
            assert set(run.only) <= set(implementations(chosen))


def test_prompts_of_a_pair_share_what_they_should():
    pairs = SweepWork(work("residual_sweep", "tiny", {}).shape, shared=20).pairs()
    for pair in pairs:
        same = [a == b for a, b in zip(pair["clean"], pair["corrupted"])]
        assert same == [True] * 20 + [False] * 12
    assert pairs[0]["clean"][:20] != pairs[1]["clean"][:20]
    common = SweepWork(work("residual_sweep", "tiny", {}).shape, shared=20, common=True).pairs()
    assert common[0]["clean"][:20] == common[1]["corrupted"][:20]


def test_a_smaller_sample_is_part_of_a_larger_one():
    sweep = SweepWork(work("residual_sweep", "gpt2", {}).shape)
    assert sweep.sample(16) == sweep.sample(24)[:16]
    assert len(set(sweep.sample(1000))) == 12 * 32


def test_the_quietest_rounds_count_and_samples_are_scaled():
    assert quiet([5.0, 1.0, 1.1, 0.9, 9.0]) == [0.9, 1.0, 1.1]
    assert spread([1.0, 1.1, 1.2]) == pytest.approx(0.2 / 1.1)
    parts = [{"cpu_s": 1.0, "scale": 1.0}, {"cpu_s": 0.5, "scale": 24.0}]
    assert seconds({"parts": parts}) == 13.0
