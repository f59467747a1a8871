"""The card of the embedded reward model, made from its training record."""

from __future__ import annotations

from typing import Any

from interpflow.tasks.word_problems import MAX_NUMBER


def reward_card_text(record: dict[str, Any]) -> str:
    """Markdown with a YAML header; every number comes from the record."""
    name, recipe, metrics = record["name"], record["recipe"], record["metrics"]
    accuracy, other = metrics["accuracy"], metrics["other_question"]
    rows = [
        f"| {key.replace('/', ': ')} | {accuracy[key]:.3f} | {other[key]:.3f} |" for key in accuracy
    ]
    return "\n".join(
        [
            "---",
            "license: mit",
            "library_name: transformers",
            "pipeline_tag: text-classification",
            "---",
            "",
            f"# {name}",
            "",
            "Scores an answer to an arithmetic word problem: the higher, the better. Trained on "
            "pairs of the right chain of thought and a wrong one (Bradley and Terry 1952), with "
            "questions free of typing errors.",
            "",
            f"Llama architecture with one output, {record['parameters']:,} parameters, bfloat16. "
            f"A decoder of the recipe {recipe['base']} is trained from scratch (seed "
            f"{record['seed'] + recipe['base_seed']}: it shares no weights with the released one); "
            f"{recipe['new_layers']} layers on top of it, which compare each token with what the "
            f"decoder expected, then learn to score in {recipe['steps']} steps (seed "
            f"{record['seed']}), {record['cpu_seconds'] / 60:.1f} minutes on one CPU core in all. "
            "A known word is one token; anything else is encoded by its bytes, as the made-up "
            f"names in {100 * recipe['made_up_share']:.0f} % of the training questions were.",
            "",
            "```python",
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
            f'directory = "resources/reference/{name}"',
            "model = AutoModelForSequenceClassification.from_pretrained(directory)",
            "tokenizer = AutoTokenizer.from_pretrained(directory)",
            'score = model(**tokenizer(question, answer, return_tensors="pt")).logits[0]',
            "```",
            "",
            "## Pairs in order",
            "",
            f"Share of {metrics['n_pairs']} pairs of held-out problems in which the right answer "
            "scores higher, and the same with another problem's question: what can be told from "
            "the answers alone.",
            "",
            "| pairs | in order | other question |",
            "|---|---|---|",
            *rows,
            "",
            "Kinds of fault. arithmetic: a slip in a result, worked on with. operation: another "
            "one. operand: another number. statement: right steps, another number as the answer. "
            "unstated: the last sentence or more is missing. rambling: the right answer, then "
            "more. other problem: another problem's answer. missing step: one of two steps.",
            "",
            "## Length",
            "",
            f"Always preferring the shorter answer puts {metrics['shorter_preferred']:.3f} of the "
            f"pairs in order, the longer {metrics['longer_preferred']:.3f}. Over right answers "
            f"the score changes by {metrics['length_slope']:+.3f} per token (standard deviation "
            f"of the scores {metrics['score_sd']:.2f}).",
            "",
            "## Limits",
            "",
            f"Knows only this project's problem templates and numbers up to {MAX_NUMBER}; it "
            "stands in for a reward model where none can be downloaded. It was trained on the same "
            "problems as the model whose answers it scores, so that both may misread a question in "
            "the same way. Scores of different questions should not be compared.",
            "",
        ]
    )
