"""The report as files: report.json with everything, report.md to be read."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpflow.tables.documents import write_document


def write_report(document: Mapping[str, Any], directory: Path) -> None:
    """report.json and report.md in `directory`."""
    write_document(directory / "report.json", "agent_report", document)
    (directory / "report.md").write_text(markdown(document), encoding="utf-8")


def markdown(document: Mapping[str, Any]) -> str:
    """The report to be read. What an agent wrote is escaped: it is data, not markup."""
    forecasts, funnel = document["forecasts"], document["ledger"]
    verdicts = ", ".join(f"{n} {name}" for name, n in sorted(funnel["verdicts"].items()))
    lines = [
        "# Report of an automated researcher",
        "",
        f"Goal: {_plain(document['goal'])}",
        "",
        f"Policy {_plain(document['policy'])}; ended by: {_plain(document['stopped'])}.",
        "",
        "## Claims",
        "",
        *_claims(document["claims"]),
        "",
        "## Ledger",
        "",
        f"{funnel['proposed']} hypotheses proposed, {funnel['registered']} tests registered, "
        f"{funnel['run']} run ({funnel['placebos']} of them placebos), {funnel['withdrawn']} "
        f"withdrawn, {funnel['unfinished']} unfinished. Verdicts: {verdicts or 'none'}.",
        "",
        *_listed(document["tests"]),
        "",
        "## Placebos",
        "",
        *_listed(
            f"{told['registration']}: {told['verdict']} without an effect"
            for told in document["placebos"]
        ),
        "",
        "## Unverified",
        "",
        *_listed(f"{each['id']}: {each['text']}" for each in document["unverified"]),
        "",
        "## Forecasts",
        "",
        f"Brier score {_number(forecasts['brier'])} over {forecasts['n']} tests; always saying the "
        f"base rate, known in hindsight only: {_number(forecasts['base_rate_brier'])}.",
        "",
        "## Spent",
        "",
        *_listed(f"{name}: {value}" for name, value in document["spent"].items()),
        "",
    ]
    return "\n".join(lines)


def _claims(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for claim in claims:
        refs = ", ".join(claim["refs"])
        found.append(f"- {_plain(claim['text'])} ({_plain(claim['strength'])}; {_plain(refs)})")
        found += [f"  - {_plain(each)}" for each in claim["statements"]]
    return found or ["None."]


def _listed(texts: Any) -> list[str]:
    return [f"- {_plain(text)}" for text in texts] or ["None."]


def _plain(text: str) -> str:
    """One line, without markup."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]|#" else sign for sign in escaped)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"
