"""Word lists, wordings and settings that cannot be used: one message, naming the file."""

import pytest

from interpflow.config.load import load_config
from interpflow.errors import UserError
from interpflow.tasks.counting.lexicon import load_lexicon
from interpflow.tasks.counting.prompts import load_templates

NOT_UTF8 = b"\xff\xfe\x00"
HEADERS = {
    "categories.csv": "category,plural\n",
    "words.csv": "word,frequency_band\n",
    "memberships.csv": "word,category,ambiguous\n",
}
ROWS = {
    "categories.csv": "fruit,fruits\n",
    "words.csv": "apple,high\n",
    "memberships.csv": "apple,fruit,0\n",
}


def _tables(directory, **changed):
    for name, header in HEADERS.items():
        text = changed.get(name.removesuffix(".csv"), ROWS[name])
        (directory / name).write_text(header + text, encoding="utf-8")
    return directory


def test_a_word_list_in_another_encoding_is_named(tmp_path):
    (tmp_path / "fruit.txt").write_bytes(NOT_UTF8)
    with pytest.raises(UserError, match=r"cannot be read(.|\n)*fruit\.txt"):
        load_lexicon(tmp_path)


def test_lexicon_tables_may_be_neither_empty_nor_doubled(tmp_path):
    assert load_lexicon(_tables(tmp_path)).members("fruit") == ("apple",)
    with pytest.raises(UserError, match="'apple' is listed twice in 'fruit'"):
        load_lexicon(_tables(tmp_path, memberships="apple,fruit,0\napple,fruit,0\n"))
    with pytest.raises(UserError, match=r"empty(.|\n)*memberships\.csv"):
        load_lexicon(_tables(tmp_path, memberships=""))


@pytest.mark.parametrize(
    ("text", "answer", "message"),
    [
        ("{category} {words} {", "{count}", "stray brace"),
        ("{category} {words}", "{count", "stray brace"),
        ("{category} {words}", "{count}{unit}", "alone in its answer"),
        ("{category} {words}", "{{count}}", "alone in its answer"),
    ],
)
def test_a_wording_with_wrong_braces_is_named(tmp_path, text, answer, message):
    path = tmp_path / "wordings.yaml"
    path.write_text(
        f'- id: mine\n  text: "{text}"\n  separator: ", "\n  answer: "{answer}"\n'
        '  terminator: "."\n',
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=f"'mine'.*{message}"):
        load_templates(path)


def test_wordings_and_settings_in_another_encoding_are_named(tmp_path):
    path = tmp_path / "any.yaml"
    path.write_bytes(NOT_UTF8)
    for load in (load_templates, load_config):
        with pytest.raises(UserError, match=r"cannot be read(.|\n)*any\.yaml"):
            load(path)
