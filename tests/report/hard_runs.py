"""Finished runs that are hard to show: hostile, long, right-to-left and unbroken texts, great and small numbers, all verdicts,
every kind of task."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from made_run import chat_lines, evaluation, lines_of, make_run, recipe_of
from task_runs import entity_lines, masked_lines, number_lines, set_lines

from pegbox.report.html import report
from pegbox.runs.folder import RunFolder

HOSTILE = '</script></style><script>window.hit = 1</script><img src="http://a.example/x" onerror="window.hit = 1">&amp;'
HEBREW = "\u05de\u05d4 \u05e9\u05dc\u05d5\u05de\u05da \u05d4\u05d9\u05d5\u05dd?"
UNBROKEN = "Donaudampfschifffahrtsgesellschaft" * 9
LONG = "A long answer that goes on and on, as models do. " * 80
HARD = (HOSTILE, HEBREW, UNBROKEN, LONG, "\U0001f600\u4f60\u597d", "a\nb\n\nc", "$x_1$ {{ 7 * 7 }} \x07", "plain")


def chat(path: Path) -> RunFolder:
    """Better: hard texts in inputs, answers, ids and groups."""
    rng = random.Random(5)
    rows = 160
    texts = [HARD[i % len(HARD)] for i in range(rows)]
    references = [f"{text} number {i}" for i, text in enumerate(texts)]

    def answers(share: float) -> list[str]:
        return [right if rng.random() < share else f"{rng.choice(HARD)} instead of it" for right in references]

    given: dict[str, list[Any]] = {"trivial": [HARD[0]] * rows, "base": answers(0.02), "base_few_shot": answers(0.3)}
    given["tuned"] = answers(0.8)
    given["permuted"] = given["tuned"][1:] + given["tuned"][:1]
    lines = lines_of(given, references, [f"{text} row {i}" for i, text in enumerate(texts)])
    lines = [line | {"id": f"/data/{UNBROKEN}/rows.jsonl:{i + 1}"} for i, line in enumerate(lines)]
    groups = [f"{text[:90]} {i % 17}" for i, text in enumerate(texts)]
    recipe = recipe_of("chat", "exact_match", "chrf", "token_f1", data={"train": "r.jsonl", "instruction": UNBROKEN})
    finding = {"check": "leak", "severity": "error", "rows": [UNBROKEN], "message": LONG, "cure": HOSTILE, "count": 1}
    costs = {"tokens": 9_702_000_000_000, "peak_memory": {"predicted": 1.5e12, "measured": 12_000}}
    return _written(path, recipe, lines, findings=[finding], groups=groups, data={UNBROKEN: "0" * 64}, **costs)


def labels(path: Path) -> RunFolder:
    """Twenty labels, some of them long or in another script, of texts of one length; and groups named like that."""
    rng = random.Random(7)
    names = [f"{HARD[i % len(HARD)][:60]} {i}" for i in range(20)]
    right = [rng.choice(names) for _ in range(400)]

    def said(share: float) -> list[str]:
        return [label if rng.random() < share else rng.choice(names) for label in right]

    given = {"trivial": [names[0]] * 400, "bag_of_words": said(0.5), "linear_probe": said(0.2), "tuned": said(0.8)}
    recipe = recipe_of("classification", "f1_macro", "accuracy", "balanced_accuracy", method="full")
    lines = lines_of(given, right, [f"text {i:03}" for i in range(400)])
    lines = [line | {"group": HARD[min(i % 9, 7)][:90] if i < 390 else f"rare {i}"} for i, line in enumerate(lines)]
    for line in lines:
        top = rng.uniform(0.2, 1.0)
        line["probabilities"] = {"tuned": {name: (1 - top) / (len(names) - 1) for name in names}}
        line["probabilities"]["tuned"][line["answers"]["tuned"]] = top
    return _written(path, recipe, lines, task={"temperature": 1.7})


def sets(path: Path) -> RunFolder:
    """Sets of labels, of which there are too many to show."""
    lines = set_lines([f"{HARD[i % len(HARD)][:60]} {i}" for i in range(40)], 80)
    return _written(path, recipe_of("multilabel", "f1_macro", "accuracy"), lines)


def numbers(path: Path) -> RunFolder:
    """Several targets with long names, of numbers that lie close together and far from zero."""
    lines = number_lines(4, 60, scale=1e-4, offset=-1990.0)
    recipe = recipe_of("regression", "rmse", "mae", "r2", "pearson")
    return _written(path, recipe, lines, task={"targets": [HOSTILE, HEBREW, UNBROKEN, "$x_1$"]})


def vast(path: Path) -> RunFolder:
    """One target, of vast numbers, with an answer that is missing."""
    lines = number_lines(1, 60, scale=1e9)
    lines[0]["answers"]["bag_of_words"] = None
    return _written(path, recipe_of("regression", "rmse", "mae", "r2", "pearson"), lines)


def tags(path: Path) -> RunFolder:
    """Entities in hard texts, with labels that are hard themselves."""
    lines = entity_lines(60)
    for number, line in enumerate(lines):
        hard = {"PER": HARD[number % 3], "LOC": HARD[4], "ORG": HARD[6]}
        for spans in (line["reference"], *line["answers"].values()):
            spans[:] = [span | {"label": hard[span["label"]]} for span in spans]
        line["input"] = f"{line['input']} {HARD[number % len(HARD)]}"
    return _written(path, recipe_of("token_classification", "f1", "precision", "recall"), lines)


def masked(path: Path) -> RunFolder:
    """Texts whose tokens were masked."""
    return _written(path, recipe_of("masked_lm", "perplexity"), masked_lines())


def text(path: Path) -> RunFolder:
    """Plain text with perplexities that are vast, small and not finite."""
    texts = [HARD[i % len(HARD)] * (1 + i % 3) for i in range(64)]
    given = {
        "trivial": [{"nll": float("inf"), "tokens": 10}] * 64,
        "base": [{"nll": 150.0 + i, "tokens": 10} for i in range(64)],
        "tuned": [{"nll": 1e-6 * i, "tokens": 10} for i in range(64)],
    }
    recipe = recipe_of("completion", "perplexity")
    return _written(path, recipe, lines_of(given, texts, texts), task={"plain": True})


def worse(path: Path) -> RunFolder:
    """Worse than the untouched model."""
    lines = chat_lines(60, tuned=0.2, few_shot=0.9)
    for line in lines:
        line["answers"]["base"] = line["reference"]
    return _written(path, recipe_of("chat", "exact_match", "chrf"), lines)


def not_shown(path: Path) -> RunFolder:
    """Prompting is as good."""
    systems = {"base": (0.01, 0.0, 0.02), "base_few_shot": (0.7, 0.65, 0.75), "tuned": (0.71, 0.66, 0.76)}
    compared = {"base": (0.7, 0.65, 0.75, 0.0002), "base_few_shot": (0.01, -0.02, 0.04, 0.512)}
    found = evaluation(systems, compared, verdict="not shown", prompting_is_as_good=True, units_needed=54304)
    return _written(path, recipe_of(), chat_lines(400, tuned=0.71, few_shot=0.7), found)


RUNS = {made.__name__: made for made in (chat, labels, text, worse, not_shown, sets, numbers, vast, tags, masked)}


def _written(path: Path, recipe: Any, *given: Any, **more: Any) -> RunFolder:
    """A run with its report in its folder."""
    folder = make_run(path, recipe, *given, **more)
    folder.write("report.html", report(folder, recipe))
    return folder
