"""Every row that does not arrive is counted and named, before anything is trained; each finding and each way out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import tokenizer

from made_tasks import made_task
from pegbox.data import formats
from pegbox.data.doctor import rows as doctor
from pegbox.data.doctor.findings import Finding
from pegbox.data.prepare import Prepared, prepare
from pegbox.data.records import Example, LabelledText, Record
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.recipe import Recipe, load
from pegbox.tasks.base import Task
from pegbox.tasks.classification import Classification

PLENTY = 1_000


def good(count: int = 60) -> list[dict[str, Any]]:
    return [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(count)]


def lines(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> str:
    """A file of rows; a text stands as it is."""
    path = folder / name
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return str(path)


def task(kind: str = "chat", tokens: str = "byte_level") -> Task:
    return made_task(kind, Renderer(tokenizer(tokens)))


def recipe(files: str | dict[str, Any], kind: str = "chat", **data: Any) -> Recipe:
    given = {"train": files} if isinstance(files, str) else files
    return load({"model": "some/model", "task": kind, "data": {**given, **data}})


def run(folder: Path, rows: Sequence[Any], limit: int = PLENTY, **data: Any) -> Prepared:
    return prepare(recipe(lines(folder, rows), **data), task(), limit)


def found(prepared: Prepared, check: str) -> Finding:
    (finding,) = [finding for finding in prepared.findings if finding.check == check]
    return finding


def numbers(finding: Finding) -> list[int]:
    return [int(where.rpartition(":")[2]) for where in finding.rows]


def all_rows(prepared: Prepared) -> int:
    splits = prepared.splits
    return len(splits.train) + len(splits.validation) + len(splits.test)


def test_good_rows_have_no_findings_and_all_arrive(tmp_path: Path) -> None:
    prepared = run(tmp_path, good())
    assert prepared.findings == ()
    assert all_rows(prepared) == 60
    for side in ("train", "validation"):
        records: tuple[Record, ...] = getattr(prepared.splits, side)
        examples: tuple[Example, ...] = getattr(prepared, side)
        assert [example.where for example in examples] == [record.where for record in records]


# ---- malformed -------------------------------------------------------------------------------------------------------


def test_malformed_rows_are_all_named_with_each_reason_once(tmp_path: Path) -> None:
    rows = [*good(50), "no JSON", {"prompt": "only"}, {"prompt": "only too"}, "[]"]
    with pytest.raises(DataError) as refusal:
        run(tmp_path, rows)
    said = refusal.value.what
    assert said.startswith("malformed: 4 rows cannot be used")
    assert "rows.jsonl:51: not JSON: expecting value at column 1" in said
    assert "rows.jsonl:52 and 1 more: task 'chat' needs messages or prompt+completion or" in said
    assert "rows.jsonl:53" in said and "rows.jsonl:54" in said
    assert "data.allow: [malformed]" in said


def test_malformed_rows_that_are_allowed_are_dropped_and_counted(tmp_path: Path) -> None:
    prepared = run(tmp_path, [*good(50), "no JSON", {"prompt": "only"}], allow=["malformed"])
    assert all_rows(prepared) == 50
    finding = found(prepared, "malformed")
    assert (finding.severity, finding.count, numbers(finding)) == ("error", 2, [51, 52])


def test_a_row_that_the_template_refuses_is_malformed_with_its_line(tmp_path: Path) -> None:
    made = made_task("chat", Renderer(tokenizer("byte_level", "gemma")))
    system = {"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]}
    with pytest.raises(DataError, match=r"rows.jsonl:31: the chat template refuses the conversation: System role"):
        prepare(recipe(lines(tmp_path, [*good(30), system])), made, PLENTY)


def test_nothing_but_malformed_rows_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not JSON"):
        run(tmp_path, ["x", "y"], allow=["malformed"])


def test_a_file_of_blank_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        run(tmp_path, ["", " "])


def test_a_token_beyond_the_models_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    rows, made = good(), task()
    highest = max(token for row in rows for token in made.renderer.encode(row["prompt"]))
    known = max(highest, max(made.renderer.stop_ids)) + 1
    assert all_rows(prepare(recipe(lines(tmp_path, rows)), made, PLENTY, known)) == 60
    with pytest.raises(DataError, match=f"has the token {known - 1}, and the model knows {known - 1} tokens"):
        prepare(recipe(lines(tmp_path, rows)), made, PLENTY, known - 1)


# ---- duplicates and contradictions -----------------------------------------------------------------------------------


def test_repeated_and_contradicting_rows_are_told_apart_and_kept(tmp_path: Path) -> None:
    rows = [
        *good(50),
        {"prompt": "Question 3 ", "completion": "answer 3"},
        {"prompt": "question 7", "completion": "another answer"},
    ]
    prepared = run(tmp_path, rows)
    assert all_rows(prepared) == 52
    assert numbers(found(prepared, "duplicate")) == [4, 51]
    assert numbers(found(prepared, "contradiction")) == [8, 52]
    assert {finding.severity for finding in prepared.findings} == {"warning"}


def test_a_twin_in_another_group_that_is_left_out_is_told(tmp_path: Path) -> None:
    rows = [{**row, "customer": index} for index, row in enumerate(good(80))]
    rows += [{**row, "customer": f"twin {index}"} for index, row in enumerate(good(80))]
    prepared = run(tmp_path, rows, columns={"group": "customer"})
    left = [finding for finding in prepared.findings if "left out" in finding.message]
    assert len(left) == 1 and left[0].count == len(prepared.splits.left_out) == 160 - all_rows(prepared) > 0


# ---- leaks -----------------------------------------------------------------------------------------------------------


def leaking(folder: Path) -> dict[str, str]:
    return {
        "train": lines(folder, good(40)),
        "validation": lines(folder, [{"prompt": "new", "completion": "x"}], "validation.jsonl"),
        "test": lines(
            folder, [{"prompt": "QUESTION 5", "completion": "z"}, {"prompt": "own", "completion": "y"}], "test.jsonl"
        ),
    }


def test_a_row_in_two_of_the_users_files_is_a_leak(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leak: 2 rows stand in more than one of the files") as refusal:
        prepare(recipe(leaking(tmp_path)), task(), PLENTY)
    assert "rows.jsonl:6" in refusal.value.what and "test.jsonl:1" in refusal.value.what


def test_a_leak_that_is_allowed_is_kept_and_counted(tmp_path: Path) -> None:
    prepared = prepare(recipe(leaking(tmp_path), allow=["leak"]), task(), PLENTY)
    assert found(prepared, "leak").count == 2
    assert len(prepared.splits.test) == 2 and len(prepared.splits.train) == 40


def test_a_row_that_leaks_twice_is_counted_once(tmp_path: Path) -> None:
    files = leaking(tmp_path) | {"validation": lines(tmp_path, good(40)[5:6], "validation.jsonl")}
    prepared = prepare(recipe(files, allow=["leak"]), task(), PLENTY)
    assert found(prepared, "leak").count == 3


# ---- too long --------------------------------------------------------------------------------------------------------


def check_the_limit_is_exact(folder: Path) -> None:
    """A row of exactly as many tokens as fit stays, one of a token more is refused by name."""
    rows, made = good(), task()
    long = {"prompt": "question", "completion": "answer " * 30}
    chat = formats.to_record(formats.Row("x:1", long), "chat", {}, None)
    length = len(made.encode(chat).input_ids)
    files = recipe(lines(folder, [*rows, long]))
    for limit in (length, length + 1):
        assert all_rows(prepare(files, made, limit)) == 61
    with pytest.raises(DataError) as refusal:
        prepare(files, made, length - 1)
    said = f"too_long: 1 row has more than {length - 1} tokens (the longest {length}; 1 too many in all)"
    assert said in refusal.value.what and "rows.jsonl:61" in refusal.value.what


def test_the_limit_is_exact(tmp_path: Path) -> None:
    check_the_limit_is_exact(tmp_path)


@pytest.mark.parametrize("by", [-1, 1])
def test_a_limit_that_is_off_by_one_is_caught_when_a_row_just_fits(
    tmp_path: Path, by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Example, "__len__", lambda self: len(self.input_ids) + by)
    with pytest.raises((AssertionError, DataError, pytest.fail.Exception)):
        check_the_limit_is_exact(tmp_path)


def test_too_long_rows_are_refused_unless_dropping_them_is_asked_for(tmp_path: Path) -> None:
    rows = [*good(), {"prompt": "question", "completion": "answer " * 300}]
    with pytest.raises(DataError, match=r"data\.truncation: drop"):
        run(tmp_path, rows, 200)
    dropped = run(tmp_path, rows, 200, truncation="drop")
    assert (found(dropped, "too_long").severity, numbers(found(dropped, "too_long"))) == ("note", [61])
    allowed = run(tmp_path, rows, 200, allow=["too_long"])
    assert (found(allowed, "too_long").severity, numbers(found(allowed, "too_long"))) == ("error", [61])
    for prepared in (dropped, allowed):
        assert all_rows(prepared) == 60
        assert max(len(example) for example in prepared.train) <= 200


def test_a_file_of_which_no_row_is_left_says_where_they_went(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="60 rows have more than 5 tokens") as refusal:
        run(tmp_path, good(), 5, truncation="drop")
    assert refusal.value.where == "data.train"


# ---- no trained token ------------------------------------------------------------------------------------------------

UNTRAINED: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": 0}]},
    {"messages": [{"role": "user", "content": "nobody answers"}]},
]


def check_untrained_rows_are_refused_and_counted(folder: Path) -> None:
    rows = [*good(), *UNTRAINED]
    with pytest.raises(DataError, match="no_trained_token: 2 rows have no trained token") as refusal:
        run(folder, rows)
    assert "rows.jsonl:61" in refusal.value.what and "rows.jsonl:62" in refusal.value.what
    prepared = run(folder, rows, allow=["no_trained_token"])
    assert numbers(found(prepared, "no_trained_token")) == [61, 62]
    assert all_rows(prepared) == 60
    assert all(example.weight > 0 for example in (*prepared.train, *prepared.validation))


def test_rows_without_a_trained_token_are_refused_and_counted(tmp_path: Path) -> None:
    check_untrained_rows_are_refused_and_counted(tmp_path)


def test_an_untrained_row_is_caught_when_a_row_without_weights_counts_as_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weightless = property(lambda self: sum(self.loss_weights[1:]) if self.loss_weights else 1.0)
    monkeypatch.setattr(Example, "weight", weightless)  # as it once was: a row of no tokens at all weighed 1
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_untrained_rows_are_refused_and_counted(tmp_path)


def test_the_first_token_is_never_a_target() -> None:
    assert Example("x:1", (5,), (1.0,)).weight == 0
    assert Example("x:1", (5, 6), (1.0, 0.5)).weight == 0.5
    assert Example("x:1", (5, 6), targets=(1.0,)).weight == 1
    assert Example("x:1", ()).weight == 0


# ---- everything at once ----------------------------------------------------------------------------------------------


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    rows = [*good(), "no JSON", UNTRAINED[0], {"prompt": "question", "completion": "answer " * 300}]
    with pytest.raises(DataError) as refusal:
        run(tmp_path, rows, 200)
    assert [line.partition(":")[0] for line in refusal.value.what.split("\n") if not line.startswith(" ")] == [
        "malformed",
        "too_long",
        "no_trained_token",
    ]


def test_allowing_one_finding_allows_no_other(tmp_path: Path) -> None:
    rows = [*good(), "no JSON", UNTRAINED[0]]
    with pytest.raises(DataError) as refusal:
        run(tmp_path, rows, allow=["malformed"])
    assert refusal.value.what.startswith("no_trained_token")


def test_a_finding_reads_as_the_contract_has_it() -> None:
    rows = tuple(f"rows.jsonl:{number}" for number in range(1, 31))
    finding = Finding("leak", "error", rows, "30 rows stand", "take them out")
    assert finding.to_json() == {
        "check": "leak",
        "severity": "error",
        "rows": list(rows),
        "count": 30,
        "message": "30 rows stand",
        "cure": "take them out",
    }
    assert str(finding).count("rows.jsonl:") == doctor.SHOWN and "and 10 more" in str(finding)


def test_a_role_without_use_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not read 'label'"):
        prepare(recipe(str(tmp_path / "missing.jsonl"), columns={"label": "x"}), task(), PLENTY)


def test_an_instruction_for_plain_text_is_one_error(tmp_path: Path) -> None:
    files = recipe(lines(tmp_path, [{"text": f"text {i}"} for i in range(50)]), "completion", instruction="Be brief.")
    with pytest.raises(RecipeError, match="an instruction needs a conversation, a prompt or a source"):
        prepare(files, task("completion"), PLENTY)


# ---- labels (row 35) -------------------------------------------------------------------------------------------------

LABELS = ["zebra", "10", "apple", "9", "Apple", "éclair"]


def labelled() -> list[Record]:
    return [Record(f"x:{i}", LabelledText(f"text {i}", LABELS[i * 5 % 6])) for i in range(30)]


def check_label_order_is_sorted_and_independent_of_the_rows() -> None:
    names = []
    for order in (1, -1):
        made = made_task("classification", Renderer(tokenizer("wordpiece")), labelled()[::order])
        assert list(made.labels) == sorted(LABELS)
        names.append([made.labels[int(made.encode(record).targets[0])] for record in labelled()])
    assert names[0] == names[1] == [LABELS[i * 5 % 6] for i in range(30)]


def test_the_order_of_the_labels_is_sorted_and_independent_of_the_rows() -> None:
    check_label_order_is_sorted_and_independent_of_the_rows()


def test_the_order_of_the_file_is_caught_when_labels_are_numbered_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_they_come(self: Classification, records: Sequence[Record]) -> None:
        self._labels = tuple(dict.fromkeys(record.content.label for record in records))  # type: ignore[union-attr]

    monkeypatch.setattr(Classification, "observe", as_they_come)
    with pytest.raises(AssertionError):
        check_label_order_is_sorted_and_independent_of_the_rows()
