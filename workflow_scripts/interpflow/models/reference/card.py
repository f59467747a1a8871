"""The model card of a reference model, made from its training record."""

from __future__ import annotations

from typing import Any

from interpflow.models.reference.small_tasks_evaluate import HIT
from interpflow.tasks.nlp.generated import MAX_SUM
from interpflow.tasks.word_problems import MAX_NUMBER

PURPOSE = {
    "count_parallel": (
        "Counts the words of a list that belong to a category. The answer is read from the list's "
        "words in parallel: a running count can be decoded at the words but is not used. Trained "
        "with interchange interventions (Geiger et al. 2022) in which a patched-in running count "
        "must leave the answer alone. Negative control for claims about running counts."
    ),
    "count_running": (
        "Counts the words of a list that belong to a category, by a running count that is carried "
        "along the list and read at its end. Trained with interchange interventions (Geiger et al. "
        "2022) in which a patched-in running count must move the answer. Positive control for "
        "claims about running counts."
    ),
    "word_problems": (
        "Solves arithmetic word problems of one or two steps with a short chain of thought, and "
        "tolerates few typing errors."
    ),
    "small_tasks": (
        "Continues the built-in small language tasks (facts, words, sentences, arithmetic, "
        "copying, patterns, JSON, code) and short stories. Made to be taken apart layer by layer: "
        "a term of its training asks that skipping a block, or swapping two neighbours, costs "
        "something on stories, so that no block is superfluous and no order indifferent."
    ),
}
SAMPLES = {
    "n_lists": (
        "Exact match of everything that follows the prompt, end of text included, greedy; {n} "
        "held-out lists (each length with each count in turn), each in every wording."
    ),
    "n_problems": (
        "Exact match of everything that follows the prompt, end of text included, greedy; {n} "
        "held-out problems per row."
    ),
    "n_items": (
        "An accepted answer and what ends it, greedy, no examples shown. Arithmetic, copying, "
        "patterns, JSON and code: {n} items each of families kept out of training. The other "
        "tasks are lists that were trained whole: what is asked of them is memory."
    ),
}
KEY_GROUPS = ("count/", "length/", "category/")


def card_text(record: dict[str, Any]) -> str:
    """Markdown with a YAML header; every number comes from the record."""
    name, recipe = record["name"], record["recipe"]
    architecture = recipe["architecture"]
    lines = [
        "---",
        "license: mit",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# {name}",
        "",
        PURPOSE[name],
        "",
        f"Llama architecture, {record['parameters']:,} parameters ({architecture['layers']} "
        f"layers, width {architecture['hidden']}, {architecture['heads']} heads), bfloat16. "
        f"Trained from scratch in {recipe['steps']} steps, {record['cpu_seconds'] / 60:.1f} "
        f"minutes on one CPU core, seed {record['seed']}. A known word is one token, with or "
        "without its leading space; anything else is encoded by its bytes. No token is added at "
        "the beginning.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        f'model = AutoModelForCausalLM.from_pretrained("resources/reference/{name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("resources/reference/{name}")',
        "```",
        "",
        *_accuracy_lines(record["metrics"]),
    ]
    if "skip_cost" in record["metrics"]:
        lines += ["", *_block_lines(record["metrics"])]
    if "slope" in record["metrics"]:
        lines += ["", *_mechanism_lines(record["metrics"])]
    return "\n".join([*lines, "", *_limits(record), ""])


def _accuracy_lines(metrics: dict[str, Any]) -> list[str]:
    sample = next(text.format(n=metrics[key]) for key, text in SAMPLES.items() if key in metrics)
    rows = [
        f"| {key} | {value:.3f} |"
        for key, value in sorted(metrics["accuracy"].items())
        if not key.startswith(KEY_GROUPS)
    ]
    lines = [
        "## Accuracy",
        "",
        sample,
        "",
        "| items | accuracy |",
        "|---|---|",
        *rows,
    ]
    for prefix in KEY_GROUPS[:2]:
        found = {
            int(key.removeprefix(prefix)): value
            for key, value in metrics["accuracy"].items()
            if key.startswith(prefix)
        }
        if found:
            cells = ", ".join(f"{key}: {found[key]:.2f}" for key in sorted(found))
            lines += ["", f"By {prefix.rstrip('/')}: {cells}."]
    return lines


def _block_lines(metrics: dict[str, Any]) -> list[str]:
    rows = [
        f"| {block} | {cost['stories']:.2f} | {cost['hit_tokens']:.0%} | {cost['answers']:.2f} |"
        for block, cost in metrics["skip_cost"].items()
    ]
    return [
        "## Blocks",
        "",
        f"Loss on {metrics['n_stories']} new stories {metrics['story_loss']:.3f} nats per token, "
        f"on answers {metrics['answer_loss']:.3f} (mean of the tasks). By how much it rises when "
        "one block is skipped (nats per token), and the share of the stories' tokens on which it "
        f"rises by more than {HIT}. That skipping costs something was asked for in training. After "
        "the first block the cost on stories falls on few words; arithmetic needs every block, "
        "facts about the world and words hardly need more than the first.",
        "",
        "| skipped block | stories | tokens hit | answers |",
        "|---|---|---|---|",
        *rows,
    ]


def _mechanism_lines(metrics: dict[str, Any]) -> list[str]:
    rows = [
        f"| {layer} | {_slope_cells(metrics['slope'].get(layer))} | {probe['r2']:.3f} "
        f"| {probe['partial_r2']:.3f} |"
        for layer, probe in metrics["probe"].items()
    ]
    return [
        "## Running count",
        "",
        f"{metrics['n_pairs']} held-out pairs of lists with the same words from word k on and "
        "different counts before it. The residual stream after a block, from the first token of "
        "word k to the last token of the list's last word, is replaced by the other list's. "
        "Slope: change of the expected count per unit of running-count difference (through the "
        "origin, 95 % interval, HC1). Shifted: share of patched answers equal to count + "
        "difference. Probe: ridge regression of the running count on place and residual stream at "
        "the list words; R² out of fold, and the share explained beyond the word's place.",
        "",
        "| after block | slope | shifted | probe R² | beyond place |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _slope_cells(slope: dict[str, float] | None) -> str:
    if slope is None:
        return "– | –"
    interval = f"[{slope['ci_low']:.3f}, {slope['ci_high']:.3f}]"
    return f"{slope['estimate']:.3f} {interval} | {slope['shifted_accuracy']:.3f}"


def _limits(record: dict[str, Any]) -> list[str]:
    if record["recipe"]["corpus"]["task"] == "counting":
        corpus = record["recipe"]["corpus"]
        scope = (
            f"Knows only this project's lexicon and wordings, lists of {corpus['min_length']} to "
            f"{corpus['max_length']} words and counts up to {corpus['max_length']}."
        )
    elif "n_items" in record["metrics"]:
        scope = (
            "Knows only this project's task wordings, word lists and story grammar, and sums up to "
            f"{MAX_SUM}."
        )
    else:
        scope = f"Knows only this project's problem templates and numbers up to {MAX_NUMBER}."
    return ["## Limits", "", f"{scope} Not a language model for any other text."]
