"""Validation stops on data that is wrong, unbalanced, leaking or repeated."""

import pytest

from interpflow.config.base import Range
from interpflow.config.counting import CountingData, CountingPairs, CountingValidation
from interpflow.errors import UserError
from interpflow.studies.counting.generation import generate
from interpflow.studies.counting.validation import validate
from interpflow.tables.documents import read_document
from interpflow.tables.parquet import read_rows, write_table

DATA = CountingData(categories=["fruit", "bird", "fish", "city"], lengths=Range(min=3, max=6))
PAIRS = CountingPairs(n_minimal=40, n_prefix=20, lengths=Range(min=4, max=6))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    here = tmp_path_factory.mktemp("data")
    generate(
        DATA, PAIRS, 0, lexicon_path=None, templates_path=None,
        examples_path=here / "examples.parquet", pairs_path=here / "pairs.parquet",
    )  # fmt: skip
    return here


def check(here, examples=None, pairs=None, **limits):
    """Validate the made tables, with rows of either replaced."""
    for name, rows in (("examples", examples), ("pairs", pairs)):
        source = here / f"{name}.parquet"
        rows = read_rows(source, f"counting_{name}") if rows is None else rows
        write_table(here / f"tried-{name}.parquet", f"counting_{name}", rows)
    validate(
        here / "tried-examples.parquet", here / "tried-pairs.parquet",
        CountingValidation(**limits), 0, lexicon_path=None,
        table_path=here / "validation.parquet", document_path=here / "validation.json",
    )  # fmt: skip
    return read_document(here / "validation.json", "counting_validation")


def test_good_data_passes_every_gate(made):
    document = check(made)
    assert all(gate["passed"] for gate in document["gates"])
    assert document["invalid"] == {}
    assert {row["valid"] for row in document["validity_by"]["count"]} == {1.0}
    assert len(read_rows(made / "validation.parquet", "counting_validation")) > 100


def test_a_wrong_label_stops_the_run(made):
    rows = read_rows(made / "examples.parquet", "counting_examples")
    flipped = [not rows[5]["is_match"][0], *rows[5]["is_match"][1:]]
    rows[5] = {**rows[5], "is_match": flipped}
    with pytest.raises(UserError, match="invalid prompts"):
        check(made, examples=rows)


def test_an_unbalanced_design_stops_the_run(made):
    rows = read_rows(made / "examples.parquet", "counting_examples")
    kept = [row for i, row in enumerate(rows) if row["category"] != "fruit" or i % 3 == 0]
    with pytest.raises(UserError, match="flat over category"):
        check(made, examples=kept)


def test_a_category_that_tells_the_count_stops_the_run(made):
    rows = read_rows(made / "examples.parquet", "counting_examples")
    kept = [
        row for row in rows if (row["count"] > row["length"] / 2) == (row["category"] == "bird")
    ]
    with pytest.raises(UserError, match="count against category"):
        check(made, examples=kept)


def test_repeated_lists_stop_the_run(made):
    rows = read_rows(made / "examples.parquet", "counting_examples")
    copies = []
    for row in rows[:20]:
        words = row["words"][::-1]
        copies.append({**row, "family_id": row["family_id"][::-1], "words": words,
                       "is_match": row["is_match"][::-1]})  # fmt: skip
    with pytest.raises(UserError, match="duplicates"):
        check(made, examples=rows + copies, max_invalid_share=1.0, max_imbalance=1.0)


def test_words_of_another_length_in_the_swap_are_noticed(made):
    pairs = read_rows(made / "pairs.parquet", "counting_pairs")
    changed = []
    for pair in pairs:
        if pair["kind"] == "minimal":
            words = list(pair["corrupted_words"])
            words[pair["position"]] = "electroencephalograph"
            pair = {**pair, "corrupted_words": words}
        changed.append(pair)
    with pytest.raises(UserError, match="pair balance: word length"):
        check(made, pairs=changed, max_invalid_share=1.0)
