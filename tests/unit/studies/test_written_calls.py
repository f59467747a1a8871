"""Calls for written lists: no more lists in one than its answer has room for."""

from __future__ import annotations

import pytest

from interpflow.config.counting import CountingData
from interpflow.studies.counting.written_lists import planned_asks
from interpflow.studies.counting.written_state import written_state
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates
from interpflow.tasks.counting.setup import factorial_design


@pytest.mark.parametrize("max_tokens", [600, 4096, 128_000])
def test_lists_of_a_call_fit_into_the_longest_answer(max_tokens: int) -> None:
    data = CountingData.model_validate(
        {"source": "llm", "categories": ["fruit"], "llm": {"lists_per_call": 50, "oversample": 1}}
    )
    lexicon = load_lexicon()
    design = factorial_design(data, 0, lexicon, load_templates())
    state = written_state(data, design, lexicon, [], [])
    planned = planned_asks(state, data.llm, 1, lexicon, 0, longest=max_tokens)
    assert sum(len(shapes) for _, _, shapes in planned) == len(design.entries)
    assert all(ask.max_tokens <= max_tokens or len(shapes) == 1 for ask, _, shapes in planned)
    assert max(len(shapes) for _, _, shapes in planned) <= 50
    # Not one call per list where more have room.
    assert len(planned) < len(design.entries)
    assert len({ask.id for ask, _, _ in planned}) == len(planned)
    assert len({ask.sample for ask, _, _ in planned}) == len(planned)
