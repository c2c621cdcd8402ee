"""Which format a row is read in: why, by whose word, and what is asked where none fits."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from pegbox.data.formats import FORMATS, detect, refuse_idle_roles, to_record, with_placeholder
from pegbox.data.records import Conversation, PromptCompletion, Row
from pegbox.errors import RecipeError
from pegbox.recipe.schema import Format

TURNS = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


def test_the_recipe_knows_every_format_by_its_name() -> None:
    assert set(get_args(Format)) == {form.name for forms in FORMATS.values() for form in forms}


@pytest.mark.parametrize(
    ("task", "values", "name", "why"),
    [
        ("chat", {"messages": TURNS}, "openai", "it has messages"),
        ("chat", {"conversations": []}, "share_gpt", "it has conversations"),
        ("chat", {"instruction": "i", "output": "o"}, "alpaca", "it has instruction and output"),
        ("chat", {"source": "s", "target": "t"}, "source_target", "it has source and target"),
        ("completion", {"text": "t"}, "text", "it has text"),
        ("preference", {"chosen": "t", "rejected": "u"}, "trl_preference", "it has chosen and rejected"),
    ],
)
def test_a_format_is_known_by_its_columns(task: str, values: dict[str, Any], name: str, why: str) -> None:
    found = detect(values, task, {})
    assert (found.name, found.why) == (name, why)


def test_what_else_a_row_could_have_been_is_said() -> None:
    found = detect({"text": "t", "prompt": "p", "completion": "c"}, "completion", {})
    assert found.name == "prompt_completion"
    assert found.why == "it has prompt and completion; text would be read by data.format: text"


def test_a_column_that_has_a_role_counts() -> None:
    found = detect({"question": "p", "answer": "c"}, "completion", {"prompt": "question", "completion": "answer"})
    assert found.name == "prompt_completion"


def test_a_format_that_is_named_is_read_whatever_else_the_row_has() -> None:
    values = {"messages": TURNS, "prompt": "p", "completion": "c"}
    assert detect(values, "chat", {}, "prompt_completion").why == "data.format names it"
    got = to_record(Row("r:1", values), "chat", {}, None, "prompt_completion").content
    assert isinstance(got, Conversation)
    assert got.messages[0].content == "p"
    whole = {"text": "t", "prompt": "p", "completion": "c"}
    assert to_record(Row("r:1", whole), "completion", {}).content == PromptCompletion("p", "c")
    assert to_record(Row("r:1", whole), "completion", {}, None, "text").content != PromptCompletion("p", "c")


def test_a_format_that_is_named_is_the_only_one_that_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"^task 'chat' needs instruction\+output; the row has messages$"):
        to_record(Row("r:1", {"messages": TURNS}), "chat", {}, None, "alpaca")
    asked = with_placeholder({"prompt": "p", "instruction": "i"}, "chat", {}, "alpaca")
    assert asked == {"prompt": "p", "instruction": "i", "output": "?"}


def test_a_format_that_the_task_does_not_read_is_an_error_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="does not read the format 'openai'") as refusal:
        refuse_idle_roles("classification", [], "openai")
    assert (refusal.value.where, refusal.value.cure) == ("data.format", "its formats are text_label")


def test_a_role_that_the_named_format_does_not_read_is_an_error_of_the_recipe() -> None:
    refuse_idle_roles("chat", ["prompt"])
    with pytest.raises(RecipeError, match="data.format: openai does not read 'prompt'"):
        refuse_idle_roles("chat", ["prompt"], "openai")


@pytest.mark.parametrize(
    ("task", "values", "mapping"),
    [
        ("chat", {"Question": "q", "answer": "a", "id": 1}, "{prompt: Question, completion: answer}"),
        ("chat", {"mesages": TURNS}, "{messages: mesages}"),
        ("chat", {"prompt": "q", "response": "a"}, "{completion: response}"),
        ("classification", {"review": "q", "stars": 1, "category": "a"}, "{text: review, label: category}"),
        ("regression", {"text": "q", "rating": 1}, "{score: rating}"),
        ("token_classification", {"words": [], "ner_tags": []}, "{tokens: words, tags: ner_tags}"),
        ("seq2seq", {"article": "q", "summary": "s"}, "{source: article, target: summary}"),
    ],
)
def test_a_near_miss_is_asked_about_with_the_mapping_to_write(task: str, values: dict[str, Any], mapping: str) -> None:
    with pytest.raises(ValueError, match="task") as refusal:
        to_record(Row("r:1", values), task, {})
    assert str(refusal.value).endswith(f"the row has {', '.join(values)}. Are they meant? data.columns: {mapping}")
    given = dict(re.findall(r"(\w+): (\w+)", mapping))
    if task != "token_classification" and "mesages" not in values:
        to_record(Row("r:1", values), task, given)


def test_nothing_is_guessed_where_a_role_has_no_likely_column() -> None:
    with pytest.raises(ValueError, match="the row has question, date$"):
        to_record(Row("r:1", {"question": "q", "date": "d"}), "chat", {})
