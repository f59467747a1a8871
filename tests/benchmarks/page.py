"""Write docs/reference/performance.md from the records in tests/benchmarks/measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from interpflow.paths import PROJECT_DIR
from tests.benchmarks.plan import GPU_DTYPES, GPU_SECTIONS, SECTIONS, Section, gpu_name

MEASURED = PROJECT_DIR / "tests/benchmarks/measured"
PAGE = PROJECT_DIR / "docs/reference/performance.md"
OURS = "interpflow"
LINEARS = "linears"
HEAD = """# Performance

interpflow beside TransformerLens, nnsight, pyvene, lm-evaluation-harness and a plain loop of torch
hooks, on the same work with the same weights (random, seeded), in float32 on one thread unless
said otherwise. Each implementation runs in its own process; rounds are interleaved, and the median
of the three fastest rounds counts. Times are CPU seconds of the whole work, loading excluded.
*Ratio* is the time of a row over interpflow's. *Difference* is the largest absolute difference
from the plain loop's numbers; beside it stands the largest of these numbers. Rows that say so ran
only that many sites or prompts, drawn at random, and are scaled to all.

No other library checks that its interventions act, so *interpflow* is timed with its gates and its
audit off; *interpflow, checked* is what `sweep` does by default.

`make bench` measures all of this and writes this page.
"""
Record = dict[str, Any]


def main() -> None:
    """Write the page from all records."""
    PAGE.write_text(page(read_records(MEASURED)), encoding="utf-8")


def read_records(folder: Path) -> dict[str, Record]:
    """Records by name."""
    files = sorted(folder.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def page(records: dict[str, Record]) -> str:
    """The whole page; sections without a record are left out."""
    blocks = [HEAD]
    used: list[Record] = []
    for section in SECTIONS:
        blocks += section_blocks(section, records, used, level=2)
    cpu = len(used)
    gpu = []
    for dtype in GPU_DTYPES:
        found: list[str] = []
        for section in GPU_SECTIONS:
            named = {
                run.name: records[gpu_name(run, dtype)]
                for run in section.runs
                if gpu_name(run, dtype) in records
            }
            found += section_blocks(section, named, used, level=4)
        if found:
            gpu += [f"### {dtype}\n", *found]
    if gpu:
        blocks += ["## On a GPU\n\nTimes are wall seconds, the device synchronised.\n", *gpu]
    blocks.insert(1, machines(used[:cpu] or used))
    return "\n".join(blocks).rstrip() + "\n"


def section_blocks(
    section: Section, records: dict[str, Record], used: list[Record], level: int
) -> list[str]:
    """Heading, text and tables of the runs that have a record; `used` collects these."""
    present = [(run, records[run.name]) for run in section.runs if run.name in records]
    if not present:
        return []
    used += [record for _, record in present]
    blocks = [f"{'#' * level} {section.title}\n\n{section.text}\n"]
    if section.growth:
        titles = [run.title for run, _ in present]
        blocks.append(growth_table(section.growth, titles, [record for _, record in present]))
        return blocks
    for run, record in present:
        blocks.append(f"**{run.title}.** {rate_sentence(record)}".rstrip() + "\n")
        blocks.append(run_table(record))
    return blocks


def run_table(record: Record) -> str:
    """One line per implementation."""
    rows = [found for found in record["results"] if found["implementation"] != LINEARS]
    ours = seconds_of(record, OURS)
    clock = "CPU s" if record["clock"] == "cpu_s" else "s"
    dump = record["work"] == "activation_dump"
    head = ["implementation", clock, "ratio", "peak MiB", "difference"]
    head += ["tokens/s", "read, ms", "bytes/token"] if dump else []
    head += ["GPU MiB"] if record["device"] == "cuda" else []
    lines = []
    for found in rows:
        name = found["implementation"] + (f" ({found['note']})" if found["note"] else "")
        if "seconds" not in found:
            lines.append([name, "failed", *[""] * (len(head) - 2)])
            continue
        seconds = found["seconds"]
        line = [name, number(seconds), number(seconds / ours) if ours else "–"]
        line += [str(found["peak_rss_mib"]), difference(found)]
        if dump:
            facts = found["facts"]
            line += [f"{facts['tokens'] / seconds:,.0f}", read_time(facts)]
            line.append(str(facts.get("bytes_per_token", "–")))
        if record["device"] == "cuda":
            line.append(str(found.get("peak_gpu_mib", "–")))
        lines.append(line)
    return table(head, lines)


def growth_table(kind: str, titles: Sequence[str], records: Sequence[Record]) -> str:
    """One line per size, of interpflow alone."""
    lines = []
    for title, record in zip(titles, records):
        found = result_of(record, OURS)
        if found is None or "seconds" not in found:
            continue
        seconds, settings = found["seconds"], record["settings"]
        if kind == "prompts":
            lines.append([title, number(seconds), str(found["peak_rss_mib"])])
            continue
        pairs, layers = settings["n_pairs"], record["n_layers"]
        sites = layers * settings["length"]
        per = 1000 * seconds / pairs
        line = [title, number(seconds), number(per), number(per / sites)]
        line.append(number(1000 * per / sites / (layers / 2)))
        lines.append([*line, str(found["peak_rss_mib"])])
    if kind == "prompts":
        return table(["prompts", "CPU s", "peak MiB"], lines)
    head = [kind, "CPU s", "ms per pair", "ms per pair and site", "µs per pair, site and block"]
    return table([*head, "peak MiB"], lines)


def rate_sentence(record: Record) -> str:
    """Operations of a sweep, the rate achieved on the necessary ones, and the best linear's."""
    flops, ours = record.get("flops"), seconds_of(record, OURS)
    if not flops:
        return ""
    tera = {name: value / 1e12 for name, value in flops.items()}
    text = f"{tera['naive']:.2f} TFLOP naively, {tera['necessary']:.3g} necessary"
    if ours:
        rate = flops["necessary"] / ours / 1e9
        text += f"; interpflow runs the necessary ones at {rate:.0f} GFLOP/s"
        best = best_linear(record)
        if best:
            text += f", {rate / best[1]:.2f} of the best linear ({best[0]}, {best[1]:.0f})"
    return text + "."


def best_linear(record: Record) -> tuple[str, float] | None:
    """Name and GFLOP/s of the fastest linear measured in the same rounds."""
    found = result_of(record, LINEARS)
    rates = found["facts"].get("gflops_per_s", {}) if found and "facts" in found else {}
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def machines(records: Iterable[Record]) -> str:
    """Where and with what the records were measured; different machines have a line each."""
    lines: list[str] = []
    for record in records:
        m = record["machine"]
        place = f"{m['processor']}, {m['cores']} cores, {m['vectors']}, {m['system']}"
        with_gpu = f", {m['gpu']}" if "gpu" in m else ""
        names = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
        line = f"- {place}{with_gpu}; Python {m['python']}, {names}"
        if line not in lines:
            lines.append(line)
    return "Measured on:\n\n" + "\n".join(lines) + "\n" if lines else ""


def result_of(record: Record, name: str) -> Record | None:
    """The result of one implementation."""
    return next((r for r in record["results"] if r["implementation"] == name), None)


def seconds_of(record: Record, name: str) -> float | None:
    """Its time, None when it was not run or failed."""
    found = result_of(record, name)
    return found.get("seconds") if found else None


def difference(found: Record) -> str:
    """`largest difference (largest value)`."""
    if not found.get("compared"):
        return "–"
    return f"{found['max_difference']:.1e} ({found['largest_value']:.2g})"


def read_time(facts: Record) -> str:
    """Milliseconds; with a memory map in brackets where that is another way."""
    if "read_ms" not in facts:
        return "–"
    mapped = f" ({number(facts['read_mmap_ms'])} mapped)" if "read_mmap_ms" in facts else ""
    return number(facts["read_ms"]) + mapped


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join("| " + " | ".join(line) + " |\n" for line in [head, rule, *lines])


if __name__ == "__main__":
    main()
