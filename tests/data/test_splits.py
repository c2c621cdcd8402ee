"""The split is seeded, keeps its sides when rows are appended, and never parts what belongs together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from pegbox.data import splits
from pegbox.data.records import Conversation, LabelledText, Message, PlainText, PromptCompletion, Record
from pegbox.data.splits import SPLITS, Splits, parts, split, twin_key
from pegbox.errors import DataError

SHARES = {"validation": 0.1, "test": 0.2}


def rows(count: int, group: Callable[[int], str | None] = lambda index: None) -> list[Record]:
    return [
        Record(f"rows.jsonl:{i + 1}", PromptCompletion(f"question {i}", f"answer {i}"), group(i)) for i in range(count)
    ]


def sides(done: Splits) -> dict[str, str]:
    return {record.where: name for name in SPLITS for record in getattr(done, name)}


def cut(
    records: Sequence[Record], seed: int = 42, given: Mapping[str, Sequence[Record]] | None = None, **shares: float
) -> Splits:
    return split(records, given or {}, shares or SHARES, seed)


def test_every_row_stands_on_one_side_in_its_order() -> None:
    records = rows(300)
    done = cut(records)
    assert sorted(sides(done)) == sorted(record.where for record in records)
    for name in SPLITS:
        side = getattr(done, name)
        assert list(side) == [record for record in records if record in set(side)]


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    assert sides(cut(rows(300))) == sides(cut(rows(300)))
    assert sides(cut(rows(300), 1)) != sides(cut(rows(300), 2))


def test_the_shares_are_right_over_many_rows() -> None:
    """Three standard deviations of a binomial; the seeds are fixed, so this is no game of chance."""
    for seed in range(5):
        done = cut(rows(4000), seed)
        for name, share in SHARES.items():
            assert abs(len(getattr(done, name)) - 4000 * share) < 3 * (4000 * share * (1 - share)) ** 0.5


def test_another_share_of_validation_leaves_the_test_rows_alone() -> None:
    assert cut(rows(500), validation=0.1, test=0.2).test == cut(rows(500), validation=0.4, test=0.2).test


# ---- stability -------------------------------------------------------------------------------------------------------


def check_appended_rows_change_no_side() -> None:
    whole = sides(cut(rows(400)))
    assert all(whole[where] == side for where, side in sides(cut(rows(250))).items())


def check_order_changes_no_side() -> None:
    assert sides(cut(rows(200))) == sides(cut(rows(200)[::-1]))


def test_a_row_keeps_its_side_when_rows_are_appended() -> None:
    check_appended_rows_change_no_side()


def test_the_order_of_the_rows_changes_no_side() -> None:
    check_order_changes_no_side()


def test_a_moving_split_is_caught_when_the_side_depends_on_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter(range(10**6))
    monkeypatch.setattr(splits, "_position", lambda seed, key: next(counter) * 0.6180339887 % 1)
    with pytest.raises(AssertionError):
        check_appended_rows_change_no_side()
    with pytest.raises(AssertionError):
        check_order_changes_no_side()


# ---- what belongs together -------------------------------------------------------------------------------------------


def check_groups_stay_together() -> None:
    records = rows(600, lambda index: f"customer {index % 60}")
    where = sides(cut(records))
    for group in {record.group for record in records}:
        assert len({where[record.where] for record in records if record.group == group}) == 1
    assert set(where.values()) == set(SPLITS)


def check_twins_stay_together() -> None:
    first = rows(300)
    again = [Record(f"more.csv:{i}", PromptCompletion(f"  QUESTION\u00a0{i}\n", "other")) for i in range(300)]
    done = cut([*first, *again])
    where = sides(done)
    assert not done.left_out
    for index in range(300):
        assert where[f"rows.jsonl:{index + 1}"] == where[f"more.csv:{index}"]


def test_a_group_is_never_divided() -> None:
    check_groups_stay_together()


def test_twins_are_never_divided() -> None:
    check_twins_stay_together()


def test_a_divided_group_is_caught_when_rows_are_split_by_their_input(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = splits._position
    count = iter(range(10**6))
    monkeypatch.setattr(splits, "_position", lambda seed, key: honest(seed, f"{key}{next(count)}"))
    with pytest.raises(AssertionError):
        check_groups_stay_together()


def test_divided_twins_are_caught_when_case_and_spaces_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "twin_key", lambda content: str(content))
    with pytest.raises(AssertionError):
        check_twins_stay_together()


def test_a_twin_in_a_group_on_another_side_is_left_out() -> None:
    records = rows(200, lambda index: f"group {index % 40}")
    twins = [Record(f"twin:{r.where}", r.content, f"another {i}") for i, r in enumerate(records)]
    done = cut([*records, *twins])
    where = sides(done)
    assert len(where) + len(done.left_out) == 400
    assert done.left_out and all(record.where.startswith("twin:") for record in done.left_out)
    key_sides: dict[str, set[str]] = {}
    for name in SPLITS:
        for record in getattr(done, name):
            key_sides.setdefault(twin_key(record.content), set()).add(name)
    assert all(len(found) == 1 for found in key_sides.values())


# ---- files of the user's own -----------------------------------------------------------------------------------------


def test_rows_of_a_given_file_stay_where_they_were_put() -> None:
    mine = [Record(f"test.jsonl:{i}", PromptCompletion(f"mine {i}", "a")) for i in range(5)]
    done = split(rows(100), {"test": mine}, {"validation": 0.1}, 42)
    assert list(done.test) == mine
    assert len(done.train) + len(done.validation) == 100


@pytest.mark.parametrize(("given", "shares"), [({}, {"test": 0.5}), ({"validation": []}, {"test": 0.5})])
def test_an_empty_split_is_refused(given: dict[str, list[Record]], shares: dict[str, float]) -> None:
    with pytest.raises(DataError, match="the split 'validation' has no rows") as refusal:
        split(rows(50), given, shares, 42)
    assert refusal.value.where == "data.validation"


def test_one_group_alone_cannot_be_split() -> None:
    with pytest.raises(DataError, match="50 rows are a group, and the split .test. was to hold 10"):
        cut(rows(50, lambda index: "one"))


# ---- what a row is asked ---------------------------------------------------------------------------------------------


def chat(*turns: tuple[str, str, float]) -> Conversation:
    return Conversation(tuple(Message(*turn) for turn in turns))


DIFFERENT = [
    LabelledText("a b", "x"),
    LabelledText("a", "x", "b"),
    LabelledText("b", "x", "a"),
    LabelledText("a", "x", ""),
    PromptCompletion("c", "x"),
    PlainText("d"),
    chat(("user", "u", 0), ("assistant", "x", 1)),
    chat(("system", "u", 0), ("assistant", "x", 1)),
    chat(("user", "u", 0), ("assistant", "v", 1), ("user", "w", 0), ("assistant", "x", 1)),
]


def test_different_inputs_are_no_twins() -> None:
    assert len({twin_key(content) for content in DIFFERENT}) == len(DIFFERENT)


def test_the_input_is_all_before_the_last_trained_turn_and_the_answer_is_that_turn() -> None:
    untrained_end = chat(("user", "u", 0), ("assistant", "v", 1), ("user", "w", 0), ("assistant", "x", 0))
    assert parts(untrained_end) == ("user: u", "v")
    assert parts(chat(("user", "u", 0)))[1] == ""
    assert parts(LabelledText("t", "good"))[1] == "good"
    assert parts(PromptCompletion("p", "c")) == ("p", "c")


@pytest.mark.parametrize("other", ["straße ①", "STRASSE 1", " strasse\t1\n", "strasse \u00a01"])
def test_case_white_space_and_unicodes_form_make_no_difference(other: str) -> None:
    assert twin_key(PlainText("Straße 1")) == twin_key(PlainText(other))
