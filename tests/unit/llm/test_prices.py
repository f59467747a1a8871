"""Prices: what a response costs to the last token, which row applies, and what has no price."""

from datetime import date

import pytest

from interpflow.errors import UserError
from interpflow.llm.answers import Usage
from interpflow.llm.bought.prices import PriceTable

HEADER = (
    "provider,model,host,above_prompt_tokens,input,cache_write_5m,cache_write_1h,cache_read,"
    "output,batch_factor,valid_from,source\n"
)
TODAY = date(2026, 11, 21)
ANTHROPIC = "https://api.anthropic.com"


def table(tmp_path, *rows: str, header: str = HEADER) -> PriceTable:
    path = tmp_path / "prices.csv"
    path.write_text("# my prices\n" + header + "".join(f"{row}\n" for row in rows))
    return PriceTable.load(path)


def test_cost_adds_all_kinds_of_tokens():
    price = PriceTable.load().price("claude-sonnet-5-5", ANTHROPIC, TODAY)
    usage = Usage(
        input_tokens=1_000_000, cache_write_tokens=3_000_000, cache_read_tokens=10_000_000,
        output_tokens=100_000, cache_write_1h_tokens=1_000_000,
    )  # fmt: skip
    # 2 + 2 * 2.5 + 4 + 10 * 0.1 + 0.1 * 10
    assert price.cost(usage) == pytest.approx(13.0)
    assert price.cost(usage, batch=True) == pytest.approx(6.5)
    assert price.id == "claude-sonnet-5-5 2026-10-07"


def test_price_of_the_day_applies():
    before = PriceTable.load().price("claude-sonnet-5-5", ANTHROPIC, date(2026, 10, 1))
    read = Usage(cache_read_tokens=1_000_000)
    assert before.cost(read) == pytest.approx(0.20)


def test_long_prompts_are_dearer_on_every_token():
    price = PriceTable.load().price("claude-haiku-5-5", ANTHROPIC, TODAY)
    assert price.cost(Usage(100_000, 0, 0, 1_000)) == pytest.approx(0.01 + 0.0005)
    # The length counts what was read from the cache.
    assert price.cost(Usage(1, 0, 100_000, 1_000)) == pytest.approx(
        0.5e-6 + 100_000 * 0.05e-6 + 0.0025
    )


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "gpt-6.2-sol", "gemini-2.5-pro"])
@pytest.mark.parametrize("prompt", [1, 99_999, 150_000, 300_000])
def test_no_call_costs_more_than_its_upper_bound(model, prompt):
    price = PriceTable.load().price(model, ANTHROPIC, TODAY)
    bound = price.upper_bound(prompt, 500)
    for usage in (
        Usage(prompt, 0, 0, 500),
        Usage(0, prompt, 0, 500),
        Usage(0, prompt, 0, 500, cache_write_1h_tokens=prompt),
        Usage(0, 0, prompt, 500),
        Usage(prompt // 2, 0, 0, 500),
    ):
        assert price.cost(usage) <= bound
        assert price.cost(usage, batch=True) <= price.upper_bound(prompt, 500, batch=True)


def test_snapshots_have_the_price_of_their_model():
    prices = PriceTable.load()
    assert prices.price("claude-sonnet-4-5-20250929", ANTHROPIC, TODAY).id.startswith(
        "claude-sonnet-4-5 "
    )
    assert prices.price("gpt-4o-2024-08-06", "https://api.openai.com/v1", TODAY).id == (
        "gpt-4o 2024-10-01"
    )


def test_every_released_row_is_sound():
    released = PriceTable.load().tables[0]
    assert len(released) > 30
    for row in released:
        price = PriceTable.load().price(row.model, ANTHROPIC, max(TODAY, row.valid_from))
        assert price.rates[0].above_prompt_tokens == 0
        assert all(0 < r.cache_read <= r.input <= r.output for r in price.rates)


def test_own_table_comes_first_and_matches_hosts(tmp_path):
    prices = table(
        tmp_path,
        "self,*,localhost:8000,,0,0,0,0,0,1,2026-01-01,own machine",
        "self,my-model,gpu7,,1,1,1,1,1,1,2026-01-01,",
        "self,my-model,,,5,5,5,5,5,1,2026-01-01,",
        "x,claude-opus-5-5,,,1,1,1,1,1,1,2026-01-01,contract",
    )
    assert prices.price("anything", "http://localhost:8000/v1").free
    assert prices.price("my-model", "http://gpu7:9000/v1").cost(Usage(1_000_000)) == 1
    assert prices.price("my-model", "http://gpu8/v1").cost(Usage(1_000_000)) == 5
    assert prices.price("claude-opus-5-5", ANTHROPIC).cost(Usage(1_000_000)) == 1
    assert prices.price("claude-opus-5", ANTHROPIC, TODAY).cost(Usage(1_000_000)) == 5


def test_longest_pattern_wins(tmp_path):
    prices = table(
        tmp_path,
        "x,my-*,,,1,1,1,1,1,1,2026-01-01,",
        "x,my-large-*,,,9,9,9,9,9,1,2026-01-01,",
    )
    assert prices.price("my-large-2", "http://h").cost(Usage(1_000_000)) == 9
    assert prices.price("my-small", "http://h").cost(Usage(1_000_000)) == 1


@pytest.mark.parametrize("model", ["claude-opus-5-6", "llama", "claude-opus-5-2", "gpt-oss-20b"])
def test_model_without_a_price_is_refused(model):
    with pytest.raises(UserError, match="has no price") as caught:
        PriceTable.load().price(model, "http://user:secret@host:1/v1", TODAY)
    assert caught.value.where == "llm.prices"
    assert "secret" not in str(caught.value)
    assert "\n" not in caught.value.what


def test_price_of_the_future_is_none_yet():
    with pytest.raises(UserError, match="has no price"):
        PriceTable.load().price("claude-haiku-5-5", ANTHROPIC, date(2026, 10, 6))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("x,m,,,one,1,1,1,1,1,2026-01-01,", "input is 'one'"),
        ("x,m,,,1,1,1,1,-1,1,2026-01-01,", "output is '-1'"),
        ("x,m,,,1,1,1,nan,1,1,2026-01-01,", "cache_read is 'nan'"),
        ("x,m,,,1,1,1,1,1,1,yesterday,", "valid_from is 'yesterday'"),
        ("x,m,,-5,1,1,1,1,1,1,2026-01-01,", "above_prompt_tokens is '-5'"),
        ("x,,,,1,1,1,1,1,1,2026-01-01,", "names no model"),
    ],
)
def test_bad_rows_name_their_line(tmp_path, row, says):
    with pytest.raises(UserError, match=says) as caught:
        table(tmp_path, row)
    assert "line 3" in caught.value.where


def test_bad_tables(tmp_path):
    with pytest.raises(UserError, match="lacks the columns cache_read"):
        table(tmp_path, header=HEADER.replace("cache_read,", ""))
    with pytest.raises(UserError, match="cannot be read"):
        PriceTable.load(tmp_path / "none.csv")
