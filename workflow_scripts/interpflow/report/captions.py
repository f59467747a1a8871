"""What each figure shows, in words that stand under it."""

from __future__ import annotations

FIGURE_CAPTIONS = {
    "accuracy": "Share of prompts whose highest-scoring count is right.",
    "confusion": "What the model answers to each truth.",
    "responses": "How often each count is true and how often it is answered.",
    "position_map": (
        "Effect of patching the residual stream at one place, averaged over minimal pairs: "
        "one word swapped between member and non-member."
    ),
    "layer_importance": "The same effect by layer at the places that the answer is read from.",
    "running_count": (
        "Whether patching the states after word k with those of a list of another running "
        "count moves the answer by the difference; and whether a probe reads the count."
    ),
    "accuracy_cost": (
        "What each perturbation costs: change of accuracy, paired by prompt, with 95 % "
        "intervals by family of prompts; beside it, the distribution over prompts of the "
        "change of the gold answer's log-probability (density, thinned-out points, quartiles "
        "and median)."
    ),
    "dose_response": (
        "Accuracy against the number of edits (or the share of words edited) on the same "
        "prompts, as measured and as a curve that can only fall, with 95 % intervals."
    ),
    "shift_map": (
        "How much further typos move the states of the edited word, of the answer position "
        "and of untouched words than matched edits of other words do, by layer."
    ),
    "attention_map": (
        "Attention to the edited words from the answer and from each number, beyond what "
        "their number of tokens and the matched control words explain, by layer and head."
    ),
    "restoration": (
        "Clean states patched into damaged prompts (restoration) and back (damage), by layer "
        "and place in the prompt; and the restoration by each attention head's output."
    ),
    "restored_tokens": (
        "Restoration by the clean state at each single token of a few damaged prompts, over "
        "the prompts' own tokens."
    ),
}
