"""Text to token ids and back to characters, with one rule for special tokens.

The rule: a sequence begins with the special tokens that the tokenizer itself puts first (for
most models one BOS, for some none), exactly once, and nothing is appended. A chat template that
already spells the BOS does not get a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal

from interpflow.errors import UserError
from interpflow.models.token_cuts import TokenCuts

# Some templates print today's date (Llama 3.1 reads `date_string`, others call strftime_now),
# which would change every prompt overnight. 26 July 2024 is Llama 3.1's own fallback date.
TEMPLATE_DATE = datetime(2024, 7, 26)
# Shadows the renderer's clock; the renderer accepts no function from outside.
FIXED_DATE_MACRO = (
    "{%- macro strftime_now(form) -%}{{ form"
    + "".join(
        f" | replace('{sign}', '{TEMPLATE_DATE.strftime(sign)}')"
        for sign in ("%d", "%b", "%B", "%m", "%Y", "%y", "%A", "%a", "%H", "%M", "%S")
    )
    + " }}{%- endmacro -%}"
)
SENTINEL = "interpflow user text"
# Tokenized together; what the tokenizer keeps of each is many times its ids.
TEXTS_AT_ONCE = 4096
# A cut lies between any text that ends in a letter or digit and one that begins like this.
AFTER_WORD, BEFORE_WORD = "a", " a"

TemplatePolicy = Literal["auto", "never"]


@dataclass(frozen=True)
class Encoded:
    """One text as tokens: `ids[i]` covers the characters `offsets[i]` (half-open) of `text`;
    the special tokens put in front cover (0, 0)."""

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Templated:
    """The text a model reads; character i of the user's text is character `start + i` of `text`."""

    text: str
    start: int


def special_prefix(tokenizer: Any) -> tuple[int, ...]:
    """The special token ids that the tokenizer puts before a text: () or usually (BOS,)."""
    _require_fast(tokenizer)
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for at in range(len(full) - len(bare) + 1):
        if full[at : at + len(bare)] == bare:
            return tuple(full[:at])
    raise UserError(
        "the tokenizer changes a text's tokens when it adds special tokens",
        where=str(tokenizer.name_or_path),
        remedy="use a tokenizer whose special tokens only stand before or after the text",
    )


def encode(tokenizer: Any, text: str) -> Encoded:
    """Encode one text; see `encode_all`."""
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: Any, texts: Sequence[str]) -> list[Encoded]:
    """Encode texts with the special tokens in front exactly once and none behind.

    A text that spells these tokens itself (from a chat template) is left as it is.
    Raises UserError for a tokenizer without character offsets.
    """
    if not texts:
        return []
    prefix = special_prefix(tokenizer)
    batch = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    encoded = []
    for text, ids, offsets in zip(texts, batch["input_ids"], batch["offset_mapping"]):
        missing = () if tuple(ids[: len(prefix)]) == prefix else prefix
        spans = [(0, 0)] * len(missing) + [(int(start), int(end)) for start, end in offsets]
        encoded.append(Encoded(text, (*missing, *ids), tuple(spans)))
    return encoded


def span_tokens(encoded: Encoded, char_spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Token positions that share a non-space character with each half-open character span.

    A token with a leading space (" apple") belongs to "apple" only, and the bytes of one
    character all belong to its word. Raises UserError for a span that no token covers.
    """
    found: list[list[int]] = []
    for start, end in char_spans:
        positions = [
            index
            for index, (token_start, token_end) in enumerate(encoded.offsets)
            if encoded.text[max(start, token_start) : min(end, token_end)].strip()
        ]
        if not positions:
            raise UserError(
                f"no token covers the characters {start} to {end}, "
                f"{encoded.text[start:end]!r}, of a prompt",
                remedy="give spans of words inside the text that is encoded",
            )
        found.append(positions)
    return found


def apply_template(tokenizer: Any, text: str, policy: TemplatePolicy = "auto") -> Templated:
    """Wrap a user's text in the chat template, if there is one and the policy is "auto".

    The result ends where the model's turn begins. Encoded by `encode` it has exactly one BOS for
    every tokenizer that adds one. Dates in templates are fixed and a template's thinking mode is
    off, so that a prompt is the same every day and its answer comes first.
    Raises UserError when the template does not contain the user's text once and unchanged
    (surrounding white space may be trimmed).
    """
    if policy == "never" or not getattr(tokenizer, "chat_template", None):
        return Templated(text, 0)
    frame = _rendered(tokenizer, SENTINEL)
    rendered = _rendered(tokenizer, text)
    head, *tail = frame.split(SENTINEL)
    for kept in (text, text.strip()):
        if len(tail) == 1 and rendered == head + kept + tail[0]:
            trimmed = len(text) - len(text.lstrip()) if kept != text else 0
            return Templated(rendered, len(head) - trimmed)
    raise UserError(
        "the chat template does not repeat the user's text once and unchanged",
        where=str(tokenizer.name_or_path),
        remedy="set the template policy of this model to 'never'",
    )


def joined_answers(tokenizer: Any, prompt: str, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of each answer as the continuation of the prompt; see `joined_answers_all`."""
    return joined_answers_all(tokenizer, [prompt], answers)[0]


def joined_answers_all(
    tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]
) -> list[list[list[int]]]:
    """Continuation ids [prompt][answer], each proven: ids(prompt) + ids(answer) is ids(both).

    Raises UserError naming the first pair for which no such ids exist: an empty answer, or one
    whose first characters merge with the end of the prompt into one token.
    """
    return prompts_with_answers(tokenizer, prompts, answers)[1]


def prompts_with_answers(
    tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]
) -> tuple[list[list[int]], list[list[list[int]]]]:
    """The ids of each prompt, as `encode_all` gives them, and `joined_answers_all`.

    Only what follows a prompt's last cut (see `token_cuts`) is tokenized with the answers, once
    for all prompts that end in the same way: these share one list of continuations.
    """
    prefix, cuts = list(special_prefix(tokenizer)), TokenCuts(tokenizer)
    apart = {
        answer: next(_ids(tokenizer, [cuts.after(answer)]))
        for answer in answers
        if cuts.between(AFTER_WORD, answer)
    }

    def begun(ids: list[int]) -> list[int]:
        return ids if ids[: len(prefix)] == prefix else [*prefix, *ids]

    def continuations(end: _End, ids: list[int], joined: Iterator[list[int]], prompt: str):
        found, size = [], len(ids)
        for answer in answers:
            if end.is_word and answer in apart:
                found.append(apart[answer])
                continue
            whole = next(joined) if end.is_cut else begun(next(joined))
            if whole[:size] != ids or len(whole) == size:
                raise _not_a_continuation(tokenizer, prompt, answer)
            found.append(whole[size:])
        return found

    bare = list(_ids(tokenizer, prompts))
    encoded = [begun(ids) for ids in bare]
    ends = _ends(tokenizer, cuts, prompts, bare, every_answer_apart=len(apart) == len(answers))
    result: dict[_End, list[list[int]]] = {}
    first = dict(zip(reversed(ends), reversed(range(len(ends)))))
    distinct = list(dict.fromkeys(ends))
    joined = _ids(
        tokenizer,
        (
            end.text + answer
            for end in distinct
            for answer in answers
            if not (end.is_word and answer in apart)
        ),
    )
    for end in distinct:
        at = first[end]
        ids = bare[at][len(bare[at]) - end.n_tokens :] if end.is_cut else encoded[at]
        result[end] = continuations(end, ids, joined, prompts[at])
    return encoded, [result[end] for end in ends]


@dataclass(frozen=True)
class _End:
    """What of a prompt is tokenized again with an answer: the text after its last cut, which has
    been found to be its last `n_tokens` tokens, or all of it (is_cut False). is_word: an answer
    that begins with a cut is tokenized without any of it."""

    text: str
    n_tokens: int
    is_cut: bool
    is_word: bool


def _ends(
    tokenizer: Any,
    cuts: TokenCuts,
    prompts: Sequence[str],
    bare: Sequence[list[int]],
    *,
    every_answer_apart: bool,
) -> list[_End]:
    """The end of each prompt, given its ids without special tokens."""
    tails: list[str | None] = []
    for prompt in prompts:
        if every_answer_apart and cuts.between(prompt, BEFORE_WORD):
            tails.append("")
        else:
            cut = cuts.last(prompt)
            tails.append(None if cut is None else cuts.after(prompt, cut))
    texts = list(dict.fromkeys(tail for tail in tails if tail is not None))
    ids_of = dict(zip(texts, _ids(tokenizer, texts)))
    ends = []
    for prompt, tail, ids in zip(prompts, tails, bare):
        is_word = cuts.between(prompt, BEFORE_WORD)
        if tail is not None and ids[len(ids) - len(ids_of[tail]) :] == ids_of[tail]:
            ends.append(_End(tail, len(ids_of[tail]), True, is_word))
        else:
            ends.append(_End(prompt, len(ids), False, is_word))
    return ends


def _ids(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of each text without special tokens; so many at a time that memory is bounded."""
    # Offsets cost more than the ids themselves, and joined texts may outnumber the prompts.
    backend: Callable | None = getattr(
        getattr(tokenizer, "backend_tokenizer", None), "encode_batch_fast", None
    )
    waiting = iter(texts)
    while some := list(islice(waiting, TEXTS_AT_ONCE)):
        if backend is None:
            yield from tokenizer(some, add_special_tokens=False)["input_ids"]
        else:
            tokenizer("a", padding=False, truncation=False)  # leaves the backend without either
            yield from (item.ids for item in backend(some, add_special_tokens=False))


def _not_a_continuation(tokenizer: Any, prompt: str, answer: str) -> UserError:
    shown = prompt if len(prompt) <= 60 else "…" + prompt[-60:]
    if not answer:
        what = f"an empty answer cannot be scored (prompt {shown!r})"
    else:
        what = (
            f"the answer {answer!r} is not a continuation of the prompt {shown!r} in tokens: "
            "the two merge over their border"
        )
    return UserError(
        what,
        where=f"tokenizer {tokenizer.name_or_path}",
        remedy="move the space between prompt and answer to the other side of the border, "
        "or end the prompt with punctuation",
    )


def render_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], *, is_complete: bool = False
) -> str:
    """Messages ({"role", "content"}) in the chat template, up to where the model's turn begins; a
    conversation that is complete has no further turn.

    Dates are fixed and thinking is off, as in `apply_template`. What the template itself refuses
    (many know no system message) raises jinja2.TemplateError.
    """
    template = tokenizer.get_chat_template()
    return tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        chat_template=FIXED_DATE_MACRO + template if "strftime_now" in template else template,
        tokenize=False,
        add_generation_prompt=not is_complete,
        date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
        enable_thinking=False,
    )


def _rendered(tokenizer: Any, text: str) -> str:
    return render_chat(tokenizer, [{"role": "user", "content": text}])


def _require_fast(tokenizer: Any) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            "the tokenizer gives no character offsets",
            where=str(getattr(tokenizer, "name_or_path", "tokenizer")),
            remedy="use a model directory with a tokenizer.json (a 'fast' tokenizer)",
        )
