"""What becomes of rows on their way: kept or filtered, cut or split, mixed by weight, placed beside their near twins."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tokenizers import tokenizer

from made_tasks import made_task
from pegbox.data import splits, twins
from pegbox.data.doctor.findings import Finding
from pegbox.data.prepare import Prepared, prepare
from pegbox.data.records import Content, Conversation, PromptCompletion, Record
from pegbox.data.render import Renderer
from pegbox.data.shorten import Fits, cut
from pegbox.data.splits import SPLITS, Traits, normal, parts, place
from pegbox.data.twins import near_twins
from pegbox.errors import DataError, RecipeError
from pegbox.recipe import load

WORDS = [
    "river",
    "stone",
    "market",
    "winter",
    "engine",
    "paper",
    "garden",
    "candle",
    "bridge",
    "doctor",
    "orange",
    "silver",
    "window",
    "planet",
    "thunder",
]


def sentence(draw: random.Random, words: int = 9) -> str:
    return " ".join(draw.choice(WORDS) + str(draw.randrange(100)) for _ in range(words))


def questions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [{"prompt": sentence(draw), "completion": f"answer {i}", "stars": i % 5} for i in range(count)]


def written(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def prepared(files: Any, kind: str = "chat", limit: int = 1000, words: str = "byte_level", **data: Any) -> Prepared:
    given = files if isinstance(files, dict) and "train" in files else {"train": files}
    recipe = load({"model": "a/b", "task": kind, "data": {**given, **data}})
    return prepare(recipe, made_task(kind, Renderer(tokenizer(words))), limit)


def found(done: Prepared, check: str) -> Finding:
    (finding,) = [finding for finding in done.findings if finding.check == check]
    return finding


def everywhere(done: Prepared) -> list[Record]:
    return [record for side in SPLITS for record in getattr(done.splits, side)]


def line(record: Record | str) -> int:
    return int((record if isinstance(record, str) else record.where).rpartition(":")[2].partition("#")[0])


# ---- which rows are kept ---------------------------------------------------------------------------------------------


def test_only_rows_that_the_filter_wants_are_kept_and_the_others_are_listed(tmp_path: Path) -> None:
    rows = [{**row, "stars": str(row["stars"])} for row in questions(100)]  # as a table has them
    done = prepared(written(tmp_path, rows), filter={"stars": [1, "2"]})
    assert {(line(record) - 1) % 5 for record in everywhere(done)} == {1, 2}
    left = found(done, "filtered")
    assert (left.severity, left.count) == ("note", 60)
    assert len(everywhere(prepared(written(tmp_path, rows), filter={"stars": {"min": 3}}))) == 40
    assert len(everywhere(prepared(written(tmp_path, rows), filter={"stars": {"max": 0}}))) == 20


def test_a_row_that_the_filter_cannot_judge_is_malformed(tmp_path: Path) -> None:
    rows = [
        *questions(50),
        {"prompt": "no stars", "completion": "x"},
        {"prompt": "p", "completion": "x", "stars": "many"},
    ]
    with pytest.raises(DataError, match="has no column 'stars', which data.filter asks for") as refusal:
        prepared(written(tmp_path, rows), filter={"stars": {"min": 0}})
    assert "'stars' must be a finite number" in refusal.value.what


def test_true_is_not_one_for_a_filter(tmp_path: Path) -> None:
    rows = [{**row, "good": i % 2 == 0 if i % 3 else 1} for i, row in enumerate(questions(120))]
    kept = {line(record) - 1 for record in everywhere(prepared(written(tmp_path, rows), filter={"good": True}))}
    assert kept == {i for i in range(120) if i % 3 and i % 2 == 0}


@pytest.mark.parametrize(
    ("body", "said"), [("row['star'] > 1", "KeyError"), ("1", "must return True or False, not int")]
)
def test_a_filter_of_the_users_own_that_fails_is_one_message(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(f"def keep(row):\n    return {body}\n")
    with pytest.raises(RecipeError, match=said) as refusal:
        prepared(written(tmp_path, questions(50)), filter=f"{tmp_path}/mine.py:keep")
    assert refusal.value.where == "data.filter"


# ---- rows that are too long ------------------------------------------------------------------------------------------


def check_the_answer_survives_the_cut(tmp_path: Path) -> None:
    rows = [*questions(60), {"prompt": "long " * 200, "completion": "the whole answer"}]
    done = prepared(written(tmp_path, rows), limit=200, truncation="cut")
    (record,) = [record for record in everywhere(done) if line(record) == 61]
    asked, answer = parts(record.content)
    assert (
        answer == "the whole answer"
        and asked != "user: " + "long " * 200
        and ("user: " + "long " * 200).startswith(asked)
    )
    note = found(done, "cut")
    assert (note.severity, list(map(line, note.rows))) == ("note", [61]) and "tokens in all" in note.message
    task = made_task("chat", Renderer(tokenizer("byte_level")))
    assert 195 <= len(task.encode(record)) <= 200


def test_an_input_is_cut_from_its_end_and_the_answer_stays(tmp_path: Path) -> None:
    check_the_answer_survives_the_cut(tmp_path)


def _cut_tail(content: Content, fits: Fits) -> Content | None:
    """What others do (row 10): the end of the row goes first, and the end is the answer."""
    assert isinstance(content, Conversation)
    *before, last = content.messages
    return cut(replace(content, messages=(*before, replace(last, content=last.content[:4]))), fits)


def test_a_cut_answer_is_caught_when_rows_are_cut_from_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pegbox.data.preparing.cut", _cut_tail)
    with pytest.raises(AssertionError):
        check_the_answer_survives_the_cut(tmp_path)


def test_an_answer_that_is_too_long_is_refused_under_every_policy(tmp_path: Path) -> None:
    rows = [*questions(60), {"prompt": "short", "completion": "long " * 200}]
    for truncation in ("refuse", "cut", "split"):
        with pytest.raises(DataError, match="too_long: 1 row has more than 200 tokens"):
            prepared(written(tmp_path, rows), limit=200, truncation=truncation)
    done = prepared(written(tmp_path, rows), limit=200, truncation="cut", allow=["too_long"])
    assert 61 not in set(map(line, everywhere(done)))


def test_a_text_is_split_into_pieces_that_stay_on_one_side_and_lose_nothing(tmp_path: Path) -> None:
    draw = random.Random(1)
    texts = [{"text": sentence(draw, 40)} for _ in range(60)]
    done = prepared(written(tmp_path, texts), "completion", limit=90, truncation="split")
    for side in SPLITS:
        whole: dict[int, str] = {}
        for record in getattr(done.splits, side):
            whole[line(record)] = whole.get(line(record), "") + parts(record.content)[0]
        assert all(text == texts[number - 1]["text"] for number, text in whole.items())
    assert max(map(len, done.train)) <= 90
    assert found(done, "split").count == 60
    names = [record.where for record in everywhere(done)]
    assert len(set(names)) == len(names) > 120 and names[0].endswith("#1")


def test_what_is_read_for_a_check_is_what_was_cut(tmp_path: Path) -> None:
    """The histogram of lengths tells of rows that were dropped, too."""
    rows = [*questions(60), {"prompt": "long " * 200, "completion": "x"}]
    done = prepared(written(tmp_path, rows), limit=300, truncation="drop")
    assert done.shape["tokens"]["longer"] == 1 and done.shape["rows"] == 61


# ---- mixing ----------------------------------------------------------------------------------------------------------


def test_an_epoch_learns_a_source_as_often_as_its_weight_says(tmp_path: Path) -> None:
    first, second = written(tmp_path, questions(400, 1), "a.jsonl"), written(tmp_path, questions(400, 2), "b.jsonl")
    plain = prepared([first, second])
    mixed = prepared([{"path": first, "weight": 2.5}, {"path": second, "weight": 0.25}])
    times = Counter(record.where for record in mixed.splits.train)
    assert [example.where for example in mixed.train] == [record.where for record in mixed.splits.train]
    whole = [record.where for record in plain.splits.train]
    mine = [where for where in whole if where.startswith(first)]
    assert {times[where] for where in mine} == {2, 3}
    assert abs(sum(times[where] for where in mine) / len(mine) - 2.5) < 0.1
    others = [where for where in whole if where.startswith(second)]
    assert {times[where] for where in others} == {0, 1}
    assert abs(sum(times[where] for where in others) / len(others) - 0.25) < 0.08
    assert mixed.splits.test == plain.splits.test  # what is judged does not change with what is learnt


# ---- near twins (row 29) ---------------------------------------------------------------------------------------------


def with_near_twins(count: int = 300, seed: int = 3) -> list[dict[str, Any]]:
    """Every row once more with another last word."""
    draw = random.Random(seed)
    rows = [{**row, "prompt": sentence(draw, 20)} for row in questions(count)]
    return [*rows, *({**row, "prompt": f"{row['prompt'].rpartition(' ')[0]} {draw.choice(WORDS)}"} for row in rows)]


def sides(done: Prepared) -> dict[int, str]:
    return {line(record): side for side in SPLITS for record in getattr(done.splits, side)}


def check_near_twins_stay_together(folder: Path) -> None:
    at = sides(prepared(written(folder, with_near_twins())))
    assert set(at.values()) == set(SPLITS)
    assert all(at[number] == at[number + 300] for number in range(1, 301) if {number, number + 300} <= set(at))
    assert len(at) > 590


def test_near_twins_stay_on_one_side(tmp_path: Path) -> None:
    check_near_twins_stay_together(tmp_path)


def test_parted_near_twins_are_caught_when_only_exact_ones_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pegbox.data.preparing.place", lambda traits, shares, near, rows: place(traits, shares, rows=rows)
    )
    with pytest.raises(AssertionError):
        check_near_twins_stay_together(tmp_path)


def test_an_appended_row_joins_its_twins_side_and_moves_no_other(tmp_path: Path) -> None:
    rows = with_near_twins()
    before = sides(prepared(written(tmp_path, rows[:300])))
    after = sides(prepared(written(tmp_path, rows)))
    assert all(after[number] == side for number, side in before.items())


def test_a_row_between_twins_on_two_sides_is_left_out_and_listed() -> None:
    traits = Traits(7)
    texts = [f"question number {number}" for number in range(400)]
    for number, text in enumerate(texts):
        traits.see(Record(f"x:{number}", PromptCompletion(text, "a")))
    alone = place(traits, {"validation": 0.2, "test": 0.2})
    low, high = np.flatnonzero(alone == 0)[0], np.flatnonzero(alone == 2)[0]
    late = 399
    both = place(traits, {"validation": 0.2, "test": 0.2}, np.array([[low, late], [high, late]]))
    assert both[late] == splits.LEFT_OUT and (np.delete(both, late) == np.delete(alone, late)).all()
    one = place(traits, {"validation": 0.2, "test": 0.2}, np.array([[high, late]]))
    assert one[late] == 2


def test_neighbours_of_neighbours_are_not_drawn_along() -> None:
    """B is near A and C, which are not near each other: A and C keep their own sides; B alone gives way."""
    traits = Traits(7)
    for number in range(400):
        traits.see(Record(f"x:{number}", PromptCompletion(f"question number {number}", "a")))
    shares = {"validation": 0.2, "test": 0.2}
    alone = place(traits, shares)
    a, c = (int(np.flatnonzero(alone == side)[-1]) for side in (0, 2))
    b = max(a, c) + 1 if max(a, c) < 399 else min(a, c) - 1
    done = place(traits, shares, np.sort(np.array([[a, b], [b, c]]), axis=1))
    assert (done[a], done[c]) == (alone[a], alone[c]) or b < max(a, c)


def test_the_labels_have_their_shares_in_every_split_in_expectation(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [{"text": sentence(draw), "label": "rare" if i % 10 == 0 else "common"} for i in range(4000)]
    done = prepared(written(tmp_path, rows), "classification", words="wordpiece")
    for side, share in (("validation", 0.1), ("test", 0.1)):
        rare = sum(line(record) % 10 == 1 for record in getattr(done.splits, side))
        assert abs(rare - 400 * share) < 3 * (400 * share * (1 - share)) ** 0.5


def test_rows_that_are_nearly_all_the_same_are_one_error_with_the_way_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"please tell me the price of the article number {i}", "completion": str(i)} for i in range(200)]
    path = written(tmp_path, [*rows, {"prompt": "and this is another beginning of all", "completion": "x"}])
    for name in range(20):  # where the first of them falls decides whether a split is too small for them
        try:
            prepared(path, validation=0.05 + name / 100)
        except DataError as error:
            assert "near twins of each other" in error.what or "has no rows" in error.what
            break
    else:
        pytest.fail("a split of near twins was taken for one")
    done = prepared(path, allow=["near_duplicate"])
    assert len(everywhere(done)) == 201 and "stand on two sides" in found(done, "near_duplicate").message


def test_near_twins_in_the_users_own_files_are_a_leak(tmp_path: Path) -> None:
    rows = with_near_twins(40)
    files = {"train": written(tmp_path, rows[:40]), "test": written(tmp_path, rows[70:80], "test.jsonl")}
    with pytest.raises(DataError, match="leak: 20 rows are nearly the same as others in more than one of the files"):
        prepared(files)
    grouped = {
        name: written(tmp_path, [{**row, "who": f"{name} {i}"} for i, row in enumerate(given)], f"{name}.jsonl")
        for name, given in (("train", rows[:40]), ("test", rows[70:80]))
    }
    done = prepared(grouped, columns={"group": "who"})  # the user said what belongs together: told, not refused
    assert found(done, "near_duplicate").count == 20


def test_what_all_rows_share_makes_no_twins(tmp_path: Path) -> None:
    """A long instruction before each input, or a system's message, says nothing of a row."""
    long = "You are a careful assistant of the town. Answer the question of the citizen in one word. Question: " * 4
    rows = questions(100)
    system = [
        {
            "messages": [
                {"role": "system", "content": long},
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": "x"},
            ]
        }
        for row in rows
    ]
    instructed = [{"prompt": long + row["prompt"], "completion": "x"} for row in rows]
    for given in (system, instructed):
        done = prepared(written(tmp_path, given), limit=4000)
        assert not [finding for finding in done.findings if finding.check == "near_duplicate"]


def test_near_twins_are_those_of_brute_force() -> None:
    rows = [Record(f"x:{i}", PromptCompletion(row["prompt"], "a")) for i, row in enumerate(with_near_twins(120))]
    traits = Traits(1)
    for record in rows:
        traits.see(record)

    def grams(record: Record) -> set[str]:
        text = normal(parts(record.content)[0])
        return {text[i : i + 5] for i in range(len(text) - 4)}

    every = list(map(grams, rows))
    truth = {
        (i, j) for j in range(len(rows)) for i in range(j) if len(every[i] & every[j]) >= 0.8 * len(every[i] | every[j])
    }
    pairs = {(int(a), int(b)) for a, b in near_twins(rows, traits).pairs}
    assert len(truth) > 80 and pairs <= truth and len(pairs) >= 0.99 * len(truth)


def test_short_texts_have_exact_twins_only() -> None:
    rows = [Record(f"x:{i}", PromptCompletion(f"what is 1{i} + 2", "a")) for i in range(50)]
    traits = Traits(1)
    for record in rows:
        traits.see(record)
    assert len(near_twins(rows, traits).pairs) == 0 < twins.LEAST


def test_a_source_that_is_read_twice_gives_its_rows_names_of_their_own(tmp_path: Path) -> None:
    """As two queries to one database are: one for train, one for the test."""
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE rows (id INTEGER, prompt TEXT, completion TEXT)")
        given = [(i, row["prompt"], row["completion"]) for i, row in enumerate(questions(90))]
        database.executemany("INSERT INTO rows VALUES (?, ?, ?)", given)
    database.close()
    query = "SELECT prompt, completion FROM rows WHERE id {} ORDER BY id"
    files = {
        "train": {"path": str(tmp_path / "shop.db"), "query": query.format("< 60")},
        "test": {"path": str(tmp_path / "shop.db"), "query": query.format(">= 60")},
    }
    done = prepared(files, validation=0.2)
    assert [record.where for record in done.splits.test][:2] == [f"{tmp_path}/shop.db[2]:1", f"{tmp_path}/shop.db[2]:2"]
    assert len({record.where for record in everywhere(done)}) == 90


def test_rows_that_hold_a_text_that_must_not_be_learnt_are_listed(tmp_path: Path) -> None:
    rows = questions(60)
    draw = random.Random(9)
    exam = [{"question": sentence(draw, 30), "answers": ["yes", {"why": sentence(draw, 20)}]} for _ in range(5)]
    rows[7]["prompt"] = "what of this: " + exam[2]["question"].replace(" ", ", ").upper()
    rows[9]["completion"] = exam[3]["answers"][1]["why"]
    path, names = written(tmp_path, rows), written(tmp_path, exam, "exam.jsonl")
    done = prepared(path, benchmarks=names)
    assert [line(row) for row in found(done, "benchmark_overlap").rows] == [8, 10]
    assert "benchmark_overlap" not in {finding.check for finding in prepared(path).findings}
    (tmp_path / "exam.jsonl").write_text("{")
    with pytest.raises(DataError, match="exam.jsonl:1"):
        prepared(path, benchmarks=names)


def test_near_twins_are_one_unit_where_they_are_kept_together() -> None:
    records = [Record(f"x:{i}", PromptCompletion(row["prompt"], "a")) for i, row in enumerate(with_near_twins(40))]
    near = twins.together(records)
    pairs = near_twins_of(records)
    assert len(pairs) > 30 and all(near[a] == near[b] for a, b in pairs)
    assert len(set(near.tolist())) == 80 - len(pairs)  # each has one near twin, so every pair is one unit less
    assert len(set(twins.together(records, near=False).tolist())) == 80
    grouped = [replace(record, group=str(i // 2)) for i, record in enumerate(records)]
    assert twins.together(grouped).tolist() == twins.together(grouped, near=False).tolist()
    assert len(set(twins.together(grouped).tolist())) == 40


def near_twins_of(records: Sequence[Record]) -> list[tuple[int, int]]:
    traits = Traits(0)
    for record in records:
        traits.see(record)
    return [(int(a), int(b)) for a, b in near_twins(records, traits).pairs]


def test_how_the_rows_were_read_is_told_with_the_reason(tmp_path: Path) -> None:
    talk = [
        {"conversations": [{"from": "human", "value": row["prompt"]}, {"from": "gpt", "value": "x"}]}
        for row in questions(90)
    ]
    files = [written(tmp_path, questions(90, 1)), written(tmp_path, talk, "talk.jsonl")]
    formats = prepared(files).shape["formats"]
    assert formats == {"prompt_completion": "it has prompt and completion", "share_gpt": "it has conversations"}
    both = [{**row, "instruction": row["prompt"].upper(), "output": "that"} for row in questions(90)]
    told = prepared(written(tmp_path, both)).shape["formats"]
    assert told == {
        "prompt_completion": "it has prompt and completion; instruction and output would be read by data.format: alpaca"
    }
    named = prepared(written(tmp_path, both), format="alpaca")
    assert named.shape["formats"] == {"alpaca": "data.format names it"}
    assert {parts(record.content)[1] for record in everywhere(named)} == {"that"}


def test_a_word_with_which_many_begin_is_no_instruction() -> None:
    draw = random.Random(2)
    traits = Traits(1)
    for i in range(100):
        traits.see(Record(f"x:{i}", PromptCompletion(f"the {sentence(draw)}", "a")))
    assert traits.opening == ""
    for i in range(30):
        traits.see(Record(f"x:{i}", PromptCompletion(f"Translate into German, please: {sentence(draw)}", "a")))
    assert traits.opening == "translate into german, please: "
