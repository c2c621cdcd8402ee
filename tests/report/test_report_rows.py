"""Which test rows are shown first: those that changed most, wins and losses alike, ties drawn with the seed."""

from __future__ import annotations

from made_run import chat_lines, evaluation, lines_of

from pegbox.report.rows import BETTER, EQUAL, WORSE, Compared, compare, most_changed, right_or_wrong, short_ids


def exact(better: int, worse: int, level: int) -> Compared:
    """Rows in which tuned alone, the rival alone, or both are right."""
    tuned = ["yes"] * better + ["no"] * worse + ["yes"] * level
    base = ["no"] * better + ["yes"] * worse + ["yes"] * level
    rows = len(tuned)
    return compare(lines_of({"base": base, "tuned": tuned}, ["yes"] * rows, ["?"] * rows), "exact_match", "base")


def shown(compared: Compared, seed: int = 42) -> tuple[int, int]:
    """How many gains and losses are shown; gains come first."""
    chosen = most_changed(compared, seed)
    kinds = [compared.kinds[row] for row in chosen]
    assert len(set(chosen)) == len(chosen) and EQUAL not in kinds
    assert kinds == sorted(kinds)
    return kinds.count(BETTER), kinds.count(WORSE)


def test_wins_and_losses_are_shown_in_equal_number_whatever_their_share() -> None:
    compared = exact(200, 70, 100)
    assert compared.counts == {BETTER: 200, WORSE: 70, EQUAL: 100}
    assert shown(compared) == (10, 10)


def test_every_loss_is_shown_where_they_are_few_and_the_room_is_filled() -> None:
    assert shown(exact(200, 7, 100)) == (13, 7)
    assert shown(exact(3, 200, 100)) == (3, 17)
    assert shown(exact(200, 0, 1)) == (20, 0)
    assert shown(exact(2, 1, 50)) == (2, 1)
    assert shown(exact(0, 0, 50)) == (0, 0)


def test_the_greatest_differences_are_taken_and_come_first() -> None:
    words = list("abcdefghijklmnop")
    graded = [" ".join(words[:count]) for count in range(1, 17)]
    lines = lines_of({"base": ["z"] * 32, "tuned": graded * 2}, [" ".join(words)] * 32, ["?"] * 32)
    compared = compare(lines, "token_f1", "base")
    leads = [float(compared.lead[row]) for row in most_changed(compared, 1)]
    assert leads == sorted(leads, reverse=True)
    assert min(leads) >= sorted(compared.lead)[-20]


def test_the_seed_draws_between_equals_and_nothing_else_does() -> None:
    compared = exact(60, 60, 60)
    assert most_changed(compared, 1) == most_changed(compared, 1)
    assert most_changed(compared, 1) != most_changed(compared, 2)
    assert any(not set(range(10)) & set(most_changed(compared, seed)) for seed in range(9))


def test_a_lower_perplexity_counts_as_better_and_an_infinite_one_as_worst() -> None:
    def of(*losses: float) -> list[dict[str, float]]:
        return [{"nll": loss, "tokens": 2} for loss in losses]

    answers = {"base": of(6.0, 2.0, 4.0, float("inf")), "tuned": of(4.0, 4.0, 4.0, 8.0)}
    compared = compare(lines_of(answers, ["a"] * 4, ["a"] * 4), "perplexity", "base")
    assert compared.kinds == [BETTER, WORSE, EQUAL, BETTER]
    assert most_changed(compared, 0) == [3, 0, 1]
    assert not compared.all_or_nothing


def test_scores_are_right_or_wrong_only_where_none_lies_between() -> None:
    lines = lines_of({"base": ["a cat", "dog"], "tuned": ["cat", "dog"]}, ["cat sat", "dog"], ["?"] * 2)
    assert compare(lines, "exact_match", "base").all_or_nothing
    assert not compare(lines, "token_f1", "base").all_or_nothing


def test_a_missing_answer_is_a_wrong_one() -> None:
    lines = lines_of({"base": ["yes"], "tuned": [None]}, ["yes"], ["?"])
    assert compare(lines, "exact_match", "base").kinds == [WORSE]


def test_an_answer_is_right_by_its_value_whatever_the_primary_metric() -> None:
    lines = lines_of(
        {"base": ["x"] * 2, "tuned": ['{"b": 2, "a": 1}', '{"a": 2}']}, ['{"a": 1, "b": 2}'] * 2, ["?"] * 2
    )
    found = evaluation({"tuned": (1.0, 1.0, 1.0)}, {"base": (0.1, 0.0, 0.2, 0.1)}, verdict="better", primary="chrf")
    assert right_or_wrong(lines, found) == [True, False]
    assert right_or_wrong(chat_lines(3), found | {"primary": "perplexity"}) is None


def test_a_row_is_named_by_its_file_alone_unless_two_files_have_one_name() -> None:
    assert short_ids(["/a/x/rows.jsonl:1", "/a/y/more.jsonl:22"]) == {
        "/a/x/rows.jsonl:1": "rows.jsonl:1",
        "/a/y/more.jsonl:22": "more.jsonl:22",
    }
    alike = ["/a/x/rows.jsonl:1", "/a/y/rows.jsonl:1"]
    assert short_ids(alike) == {name: name for name in alike}
