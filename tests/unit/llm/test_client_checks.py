"""What counts as an answer to a closed or a structured question."""

from __future__ import annotations

import pytest

from interpflow.errors import UserError
from interpflow.llm.answers import Reading, ToolCall
from interpflow.llm.asks import Ask, Turn
from interpflow.llm.calls.answer_checks import check

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["n"],
    "additionalProperties": False,
}
TURNS = (Turn("user", "secret question"),)
CLOSED = Ask("a", TURNS, choices=("CORRECT", "INCORRECT"))
STRUCTURED = Ask("a", TURNS, schema=SCHEMA)


@pytest.mark.parametrize("text", ["CORRECT", " CORRECT\n", '"CORRECT"', '{"verdict": "CORRECT"}'])
def test_a_choice_in_its_spellings(text: str) -> None:
    assert check(CLOSED, Reading("ok", text)).data == "CORRECT"


@pytest.mark.parametrize(
    "text", ["correct", "It is CORRECT", "", '["CORRECT"]', '{"a": "CORRECT", "b": "CORRECT"}']
)
def test_what_is_no_choice(text: str) -> None:
    checked = check(CLOSED, Reading("ok", text))
    assert (checked.outcome, checked.data) == ("invalid", None)


def test_incorrect_is_not_correct() -> None:
    assert check(CLOSED, Reading("ok", "INCORRECT")).data == "INCORRECT"


@pytest.mark.parametrize("text", ['{"n": 3}', ' {"n":3}\n', '```json\n{"n": 3}\n```'])
def test_json_that_meets_the_schema(text: str) -> None:
    assert check(STRUCTURED, Reading("ok", text)).data == {"n": 3}


@pytest.mark.parametrize(
    "text", ['{"n": 10}', '{"n": "3"}', "{}", '{"n": 3, "m": 1}', "3", "{", "", '{"n": NaN}',
             "[" * 100_000]
)  # fmt: skip
def test_json_that_does_not(text: str) -> None:
    assert check(STRUCTURED, Reading("ok", text)).outcome == "invalid"


def test_the_reason_names_the_rule_and_quotes_nothing() -> None:
    checked = check(STRUCTURED, Reading("ok", '{"n": "private"}'))
    assert checked.why == "breaks the schema at properties/n/type"


def test_other_outcomes_stay_and_tool_calls_and_plain_text_are_answers() -> None:
    assert check(STRUCTURED, Reading("truncated", '{"n": 3}', why="max_tokens")).data is None
    assert check(STRUCTURED, Reading("truncated", '{"n": 3}')).outcome == "truncated"
    call = ToolCall("t", "count", {})
    assert check(STRUCTURED, Reading("ok", "", tool_calls=(call,))).outcome == "ok"
    assert check(Ask("a", TURNS), Reading("ok", "anything")).outcome == "ok"


def test_a_schema_that_is_none_is_the_askers_mistake() -> None:
    with pytest.raises(UserError, match="no JSON schema"):
        check(Ask("a", TURNS, schema={"type": "nonsense"}), Reading("ok", "{}"))
