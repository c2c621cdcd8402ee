"""Which test rows are shown: wins and losses alike, drawn with the seed."""

from __future__ import annotations

from collections import Counter

from made_run import lines_of

from pegbox.report.rows import Choice, choose


def exact(better: int, worse: int, level: int, seed: int = 42) -> Choice:
    """Rows in which tuned alone, the rival alone, or both are right."""
    tuned = ["yes"] * better + ["no"] * worse + ["yes"] * level
    base = ["no"] * better + ["yes"] * worse + ["yes"] * level
    rows = len(tuned)
    return choose(lines_of({"base": base, "tuned": tuned}, ["yes"] * rows, ["?"] * rows), "exact_match", "base", seed)


def ids(choice: Choice) -> list[str]:
    return [line["id"] for line, _, _ in choice.rows]


def test_wins_and_losses_are_shown_in_equal_number_whatever_their_share() -> None:
    choice = exact(200, 7, 100)
    assert Counter(kind for _, kind, _ in choice.rows) == {"tuned better": 5, "tuned worse": 5, "no difference": 2}
    assert choice.counts == {"tuned better": 200, "tuned worse": 7, "no difference": 100}
    assert choice.shown == {"tuned better": 5, "tuned worse": 5, "no difference": 2}


def test_every_loss_is_shown_where_they_are_few_and_the_room_is_filled() -> None:
    assert exact(200, 2, 100).shown == {"tuned better": 5, "tuned worse": 2, "no difference": 5}
    assert exact(200, 0, 1).shown == {"tuned better": 11, "tuned worse": 0, "no difference": 1}
    assert exact(2, 1, 0).shown == {"tuned better": 2, "tuned worse": 1, "no difference": 0}


def test_the_seed_draws_the_rows_and_nothing_else_does() -> None:
    assert ids(exact(60, 60, 60, seed=1)) == ids(exact(60, 60, 60, seed=1))
    assert ids(exact(60, 60, 60, seed=1)) != ids(exact(60, 60, 60, seed=2))
    first_rows = {f"rows.jsonl:{number}" for number in range(1, 6)}
    assert any(not first_rows & set(ids(exact(60, 60, 60, seed=seed))) for seed in range(9))


def test_a_lower_perplexity_counts_as_better_and_an_infinite_one_as_worst() -> None:
    def of(*losses: float) -> list[dict[str, float]]:
        return [{"nll": loss, "tokens": 2} for loss in losses]

    answers = {"base": of(6.0, 2.0, 4.0, float("inf")), "tuned": of(4.0, 4.0, 4.0, 8.0)}
    choice = choose(lines_of(answers, ["a"] * 4, ["a"] * 4), "perplexity", "base", 0)
    kinds = {line["id"]: kind for line, kind, _ in choice.rows}
    assert kinds == {
        "rows.jsonl:1": "tuned better",
        "rows.jsonl:2": "tuned worse",
        "rows.jsonl:3": "no difference",
        "rows.jsonl:4": "tuned better",
    }
    assert not choice.all_or_nothing


def test_scores_are_right_or_wrong_only_where_none_lies_between() -> None:
    lines = lines_of({"base": ["a cat", "dog"], "tuned": ["cat", "dog"]}, ["cat sat", "dog"], ["?"] * 2)
    assert choose(lines, "exact_match", "base", 0).all_or_nothing
    assert not choose(lines, "token_f1", "base", 0).all_or_nothing


def test_a_missing_answer_is_a_wrong_one() -> None:
    lines = lines_of({"base": ["yes"], "tuned": [None]}, ["yes"], ["?"])
    assert [kind for _, kind, _ in choose(lines, "exact_match", "base", 0).rows] == ["tuned worse"]
