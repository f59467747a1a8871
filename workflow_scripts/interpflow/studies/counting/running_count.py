"""The study's question: is there a state that holds the running count while the list is read?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interpflow.config.counting import CountingMediation
from interpflow.studies.counting.probing import run_probes
from interpflow.studies.counting.slopes import (
    assess_windows,
    ceiling,
    hybrid_check,
    slope_rows,
)
from interpflow.studies.counting.verdict import Evidence, answer, sentence
from interpflow.tables.documents import read_document, write_document
from interpflow.tables.parquet import read_table, write_table
from interpflow.tables.provenance import Provenance


def assess_running_count(
    name: str,
    effects_path: Path | str,
    gates_path: Path | str,
    activations_path: Path | str,
    examples_path: Path | str,
    settings: CountingMediation,
    seed: int,
    *,
    slopes_path: Path | str,
    probes_path: Path | str,
    verdict_path: Path | str,
    provenance: Provenance | None = None,
) -> None:
    """Write the tables `running_count` and `probes` and the document `counting_verdict`."""
    gates = read_document(gates_path, "counting_gates")
    if gates["status"] == "refused":
        write_table(slopes_path, "running_count", [], provenance)
        write_table(probes_path, "probes", [], provenance)
        document = {
            "model": name,
            "verdict": "not run",
            "sentence": f"Whether {name} uses a running count was not tested: {gates['reason']}.",
        }
        write_document(verdict_path, "counting_verdict", document, provenance)
        return
    table = read_table(effects_path, "pair_effects").to_pandas()
    prefix = table[table["kind"] == "prefix"]
    rows, probe = run_probes(name, activations_path, examples_path, settings, seed)
    evidence = Evidence(
        tests=tuple(assess_windows(name, prefix, settings, seed)),
        ceiling=ceiling(prefix, settings),
        probe=probe,
        bound=settings.smallest_effect,
    )
    write_table(slopes_path, "running_count", list(slope_rows(name, prefix, settings)), provenance)
    write_table(probes_path, "probes", rows, provenance)
    document = _document(name, evidence, hybrid_check(prefix))
    write_document(verdict_path, "counting_verdict", document, provenance)
    print(document["sentence"])


def _document(name: str, evidence: Evidence, hybrid: dict[str, Any]) -> dict[str, Any]:
    if not hybrid["passed"]:
        raise RuntimeError(
            f"{hybrid['name']}: differs by {hybrid['value']:.3g} counts, allowed "
            f"{hybrid['threshold']:g}; the patch does not do what it says"
        )
    found = answer(evidence)
    probe = evidence.probe
    return {
        "model": name,
        "verdict": found,
        "sentence": sentence(name, found, evidence),
        "ceiling": evidence.ceiling.to_row(),
        "windows": [
            {
                "window": test.window,
                "layer": test.layer,
                "slope": test.slope.to_row(),
                "controls": {donor: found.to_row() for donor, found in test.controls.items()},
                "controls_absent": test.controls_absent,
                "absent": test.absent,
                "shifted_interchange_accuracy": test.shifted.to_row(),
                "smallest_detectable_slope": test.smallest_detectable,
            }
            for test in evidence.tests
        ],
        "checks": [hybrid],
        "probe": None
        if probe is None
        else {
            "layer": probe.layer,
            "partial_r2": probe.score.to_row(),
            "control_mean": probe.control_mean,
            "control_max": probe.control_max,
            "decodable": probe.decodable,
        },
    }
