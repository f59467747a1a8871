"""The tokenizer of the embedded reward model."""

from __future__ import annotations

from tokenizers import pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from interpflow.models.reference.problem_corpus import problem_texts
from interpflow.models.reference.tokenizer import EOS, PAD, build_tokenizer
from interpflow.tasks.word_problems import load_parts, prompt_of


def build_pair_tokenizer(max_positions: int) -> PreTrainedTokenizerFast:
    """The word problems' tokenizer for pairs: a question and an answer are put into the prompt's
    frame, with the end-of-text token behind the answer, and padded at the right."""
    parts = load_parts()
    known = build_tokenizer((*parts.names, *parts.items), problem_texts())
    backend = known.backend_tokenizer
    before, after = (part.strip(" ") for part in prompt_of("{}").split("{}"))
    frame = []
    for name, text in (("<question>", before), ("<answer>", after), (EOS, EOS)):
        encoding = backend.encode(text, add_special_tokens=False)
        frame.append({"id": name, "ids": encoding.ids, "tokens": encoding.tokens})
    # As in the prompt, where a space stands before each: a word is the token it is there.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, trim_offsets=False)
    backend.post_processor = TemplateProcessing(
        single=f"<question> $A {EOS}",
        pair=f"<question> $A <answer> $B:1 {EOS}:1",
        special_tokens=frame,
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="right",
        truncation_side="right",
        model_max_length=max_positions,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
