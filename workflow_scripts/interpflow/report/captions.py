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
    "damage_by_task": (
        "What each plan costs each task: change of the answers' log-probability in nats, and of "
        "the loss on neutral text in nats per token, on held-out items. A dot marks a family-wise "
        "p below 0.05."
    ),
    "retention": (
        "Loss on neutral text when each block is skipped, repeated, or changes places with the "
        "next, with 95 % intervals over documents, beside the band of random orders."
    ),
    "order_distance": (
        "Loss on neutral text of random orders of the blocks against their distance from the "
        "model's own order (Kendall's: pairs of blocks that changed sides); first and last "
        "block in place, or not."
    ),
    "lens_depth": (
        "What each lens reads from the residual stream at every depth: divergence from the "
        "model's own prediction in nats per token, on held-out documents, and the depth at "
        "which each task's answer stays decided."
    ),
    "lens_trajectory": (
        "Token by token over a prompt: the most probable next token as the lens reads it at "
        "every depth, coloured by the probability of the token that the whole model predicts."
    ),
    "minimal_sets": (
        "Smallest sets of blocks that suffice for a task, or without which it fails, found by "
        "search on some items and confirmed on others."
    ),
    "agent_ledger": (
        "The agent's registered tests in their order: the predicted region, the measured effect "
        "with its interval, the level it was tested at, and the verdict."
    ),
    "agent_judging": (
        "Share of planted anomalies that each policy finds with equal budgets, with 95 % "
        "intervals, and its share of runs with a false claim on the unaltered model."
    ),
}
