from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpflow.errors import UserError
from interpflow.models.tokens import (
    apply_template,
    encode,
    encode_all,
    joined_answers,
    joined_answers_all,
    span_tokens,
    special_prefix,
)

CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
NO_BOS = CHAT.replace("{{ bos_token }}", "")


@pytest.mark.parametrize("template", [None, CHAT, NO_BOS])
@pytest.mark.parametrize("policy", ["auto", "never"])
def test_exactly_one_bos(make_tokenizer, template, policy):
    tokenizer = make_tokenizer(bos=True, template=template)
    text = apply_template(tokenizer, "an apple", policy).text
    ids = encode(tokenizer, text).ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in ids


def test_no_bos_where_the_tokenizer_adds_none(make_tokenizer):
    tokenizer = make_tokenizer(bos=False)
    assert special_prefix(tokenizer) == ()
    assert tokenizer.bos_token_id not in encode(tokenizer, "an apple").ids


def test_every_row_is_checked_for_its_bos(make_tokenizer):
    tokenizer = make_tokenizer(bos=True)
    rows = encode_all(tokenizer, ["<s>apple", "apple", "<s>x", "x"])
    assert [row.ids.count(tokenizer.bos_token_id) for row in rows] == [1, 1, 1, 1]
    assert rows[0].ids == rows[1].ids
    assert rows[1].offsets == ((0, 0), (0, 5))
    assert rows[0].offsets == ((0, 3), (3, 8))


@pytest.mark.parametrize("template", [CHAT, NO_BOS, CHAT.replace("m.content", "m.content | trim")])
def test_template_keeps_the_place_of_the_users_text(make_tokenizer, template):
    tokenizer = make_tokenizer(template=template)
    user = "  List: apple pear\nuser user "
    whole = apply_template(tokenizer, user)
    at = user.index("pear")
    assert whole.text[whole.start + at : whole.start + at + 4] == "pear"
    assert whole.text.endswith("[assistant] ")
    assert whole.text != user


def test_template_that_changes_the_text_is_refused(make_tokenizer):
    for template in (CHAT.replace("m.content", "m.content | upper"), CHAT + CHAT, "fixed"):
        with pytest.raises(UserError, match="once and unchanged"):
            apply_template(make_tokenizer(template=template), "an apple")


def test_template_does_not_change_with_the_day(make_tokenizer):
    dated = "{{ strftime_now('%d %b %Y') }} {{ date_string }} " + CHAT
    text = apply_template(make_tokenizer(template=dated), "apple").text
    assert text.startswith("26 Jul 2024 26 Jul 2024 ")


def test_spans_with_leading_spaces_and_bytes(make_tokenizer):
    tokenizer = make_tokenizer(bos=True)
    text = "an apple, é pear"
    encoded = encode(tokenizer, text)
    tokens = tokenizer.convert_ids_to_tokens(list(encoded.ids))
    spans = [(text.index(word), text.index(word) + len(word)) for word in ("an", "apple", "é")]
    an, apple, accent = span_tokens(encoded, spans)
    assert [tokens[i] for i in an] == ["a", "n"]
    assert [tokens[i] for i in apple] == ["Ġapple"]
    assert len(accent) == 2
    comma = tokens.index(",")
    assert comma not in apple + accent


def test_space_tokens_belong_to_no_word(make_tokenizer):
    tokenizer = make_tokenizer(bos=False)
    encoded = encode(tokenizer, "a pear")
    assert span_tokens(encoded, [(0, 2), (1, 6), (2, 6)]) == [[0], [2, 3, 4, 5], [2, 3, 4, 5]]


def test_span_without_a_token(make_tokenizer):
    encoded = encode(make_tokenizer(), "a pear")
    with pytest.raises(UserError, match="no token covers"):
        span_tokens(encoded, [(1, 2)])


@settings(max_examples=30, deadline=None)
@given(words=st.lists(st.text("aple é😀", min_size=1).filter(str.strip), min_size=1, max_size=6))
def test_spans_cover_every_word(words):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    words = [word.strip() for word in words]
    text, spans = "", []
    for word in words:
        spans.append((len(text) + 1, len(text) + 1 + len(word)))
        text += " " + word
    found = span_tokens(encode(tokenizer, text), spans)
    n_bytes = [len(word.replace(" ", "").encode()) for word in words]
    assert [len(positions) for positions in found] == n_bytes
    assert len({p for positions in found for p in positions}) == sum(n_bytes)


def test_answers_join(make_tokenizer):
    tokenizer = make_tokenizer()
    three, ten = joined_answers(tokenizer, "Answer: ", ["3)", "10)"])
    assert tokenizer.convert_ids_to_tokens(three) == ["3", ")"]
    assert tokenizer.convert_ids_to_tokens(ten) == ["1", "0", ")"]
    whole = encode(tokenizer, "Answer: 10)").ids
    assert tuple(encode(tokenizer, "Answer: ").ids) + tuple(ten) == whole


def test_a_spelled_bos_is_not_doubled_in_the_join(make_tokenizer):
    tokenizer = make_tokenizer(template=CHAT)
    prompt = apply_template(tokenizer, "an apple").text
    assert joined_answers(tokenizer, prompt, ["3"]) == joined_answers(tokenizer, "x", ["3"])


def test_merges_over_the_border_name_the_pair(make_tokenizer):
    with pytest.raises(UserError, match=r"answer '3\)'.*Answer: \('"):
        joined_answers_all(make_tokenizer(), ["Answer: ", "Answer: ("], ["1)", "3)"])


def test_empty_answer(make_tokenizer):
    with pytest.raises(UserError, match="empty answer"):
        joined_answers(make_tokenizer(), "Answer: ", [""])


def test_padding_left_over_in_the_tokenizer_does_not_matter(make_tokenizer):
    tokenizer = make_tokenizer()
    before = joined_answers(tokenizer, "Answer: ", ["3)", "10)"])
    tokenizer.pad_token = "</s>"
    tokenizer(["a", "apple pear"], padding=True, truncation=True, max_length=3)
    assert joined_answers(tokenizer, "Answer: ", ["3)", "10)"]) == before
