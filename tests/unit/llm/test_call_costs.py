"""What a response cost where it says what it used, and where it does not."""

from __future__ import annotations

from typing import Any

from interpflow.llm.answers import Reading, Usage
from interpflow.llm.bought.call_costs import cost_usd, load_of, most_usd
from tests.unit.llm.stand_in_service import FlatPrice, StandIn, asks

SERVICE = StandIn(lambda request, n: "")
PRICE: Any = FlatPrice()
REQUEST = SERVICE.request(asks(1, max_tokens=30)[0])


def _cost(usage: Usage, price: Any = PRICE) -> float:
    reading = Reading("ok", usage=usage)
    return cost_usd(price, SERVICE, REQUEST, reading, longest=9, batch=False)


def test_a_response_that_names_no_tokens_costs_the_most_of_its_request() -> None:
    assert _cost(Usage(input_tokens=5, output_tokens=7)) == 7
    assert _cost(Usage(input_tokens=5)) == 0
    assert _cost(Usage()) == most_usd(PRICE, load_of(SERVICE, REQUEST, 9)) == 30
    assert _cost(Usage(), None) == 0
