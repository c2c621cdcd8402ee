"""Test rows as a reader meets them: every system's answer, how it did, and where tuned's differs from the right one.

The twenty most changed rows are part of the page; all rows go into it as data, of which the page's script draws ten at a
time. A text that occurs more than once (a most frequent answer, a shuffled one) is in the data once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pegbox.evaluation.verdict import TUNED
from pegbox.metrics import reference_of
from pegbox.report import metric_words, rows, wording
from pegbox.report.kinds import KINDS, Kind, Pieces
from pegbox.report.task_words import Words, words_of
from pegbox.report.written import LONG, shortened, written


@dataclass(frozen=True)
class Reader:
    """The lines of `predictions.jsonl` with what is said of them.

    `right`: whether tuned's answers are, where that can be said; `targets`: the names of the numbers that are answered.
    """

    lines: Sequence[Mapping[str, Any]]
    compared: rows.Compared
    names: Mapping[str, str]
    order: Sequence[str]
    right: Sequence[bool] | None
    ids: Mapping[str, str]
    task: str
    targets: Sequence[str]

    @property
    def kind(self) -> Kind:
        """What is shown of the task."""
        return KINDS[self.task]

    @property
    def words(self) -> Words:
        """What its answers are called."""
        return words_of(self.task)

    @classmethod
    def of(
        cls,
        lines: Sequence[Mapping[str, Any]],
        evaluation: Mapping[str, Any],
        names: Mapping[str, str],
        state: Mapping[str, Any],
    ) -> Reader:
        """The rows of a run, tuned compared with the rival on which the verdict hangs. `state`: the task's, of the receipt."""
        rival = wording.deciding(evaluation)["against"]
        return cls(
            lines=lines,
            compared=rows.compare(lines, reference_of(evaluation, rows.row_metric(evaluation)), rival),
            names=names,
            order=wording.ranked(evaluation),
            right=rows.right_or_wrong(lines, evaluation),
            ids=rows.short_ids([line["id"] for line in lines]),
            task=evaluation["task"],
            targets=state.get("targets", ()),
        )

    def _written(self, answer: Any, line: Mapping[str, Any]) -> str:
        return written(answer, line["input"], self.targets)

    @property
    def _signs(self) -> Pieces:
        """What stands before the marked piece of a row."""
        return self.kind.marks.signs if self.kind.marks else ()

    def cards(self, chosen: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows, for the page itself."""
        return [self._card(row) for row in chosen]

    def _card(self, row: int) -> dict[str, Any]:
        line = self.lines[row]
        answers = []
        for system in self.order:
            mark, tone = self._mark(system, row)
            text = shortened(self._written(line["answers"][system], line))
            answers.append(
                {"name": self.names[system], "text": text, "mark": mark, "tone": tone, "tuned": system == TUNED}
            )
        return {
            "id": self.ids[line["id"]],
            "kind": self.compared.kinds[row],
            "input": shortened(line["input"]),
            "right": self.words.right,
            "reference": None if self._is_its_own_answer(line) else shortened(self._written(line["reference"], line)),
            "answers": answers,
            "signs": self._signs,
            "difference": self._difference(row),
        }

    def _is_its_own_answer(self, line: Mapping[str, Any]) -> bool:
        return bool(line["reference"] == line["input"])

    def _difference(self, row: int) -> Pieces | None:
        """Where tuned's answer and the right one differ, marked, where the task's answers can show that."""
        line, marks = self.lines[row], self.kind.marks
        if marks is None or self.right is None or (self.right[row] and not marks.always):
            return None
        return marks.of(line["input"], line["reference"], line["answers"][TUNED])

    def _mark(self, system: str, row: int) -> tuple[str, str]:
        """How an answer did (right, wrong, or its score), and its tone."""
        score, metric = float(self.compared.scores[system][row]), self.compared.metric
        if self.compared.all_or_nothing:
            return ("right", "right") if score else ("wrong", "wrong")
        value = wording.number(score if math.isfinite(score) else None, metric)
        return metric_words.row_mark(metric, value, self.task), "plain"

    def filters(self, changed: Sequence[int]) -> list[tuple[str, str, int]]:
        """The choices of rows: (value, words, how many rows). `changed`: those that changed most."""
        kinds = [(kind, kind, count) for kind, count in self.compared.counts.items()]
        found = [("changed", "changed most", len(changed)), ("all", "all", len(self.lines)), *kinds]
        if self.right is None:
            return found
        words = "tuned wrong" if self.compared.all_or_nothing else "tuned not exactly right"
        return [*found, ("wrong", words, len(self.right) - sum(self.right))]

    def data(self, changed: Sequence[int]) -> dict[str, Any]:
        """All rows for the page's script, texts by their place in a list. `changed`: those that changed most."""
        texts: dict[str, int] = {}

        def place(text: str) -> int:
            return texts.setdefault(text, len(texts))

        kinds = self.compared.kinds
        found = [
            {
                "id": self.ids[line["id"]],
                "kind": kinds[row],
                "wrong": self.right is not None and not self.right[row],
                "input": place(line["input"]),
                "reference": None if self._is_its_own_answer(line) else place(self._written(line["reference"], line)),
                "answers": [[place(self._written(line["answers"][s], line)), *self._mark(s, row)] for s in self.order],
                "difference": self._difference(row),
            }
            for row, line in enumerate(self.lines)
        ]
        systems = [{"name": self.names[system], "tuned": system == TUNED} for system in self.order]
        return {
            "texts": list(texts),
            "systems": systems,
            "rows": found,
            "changed": list(changed),
            "most": LONG,
            "right": self.words.right,
            "signs": self._signs,
        }
