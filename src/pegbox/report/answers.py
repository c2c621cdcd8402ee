"""Test rows as a reader meets them: every system's answer, how it did, and where tuned's differs from the right one.

The twenty most changed rows are part of the page; all rows go into it as data, of which the page's script draws ten at a
time. A text that occurs more than once (a most frequent answer, a shuffled one) is in the data once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pegbox.evaluation.verdict import TUNED
from pegbox.report import differences, rows, wording

LONG = 280  # characters of a text that are shown without being asked for


@dataclass(frozen=True)
class Reader:
    """The lines of `predictions.jsonl` with what is said of them. `right`: of tuned's answers, where that can be said."""

    lines: Sequence[Mapping[str, Any]]
    compared: rows.Compared
    names: Mapping[str, str]
    order: Sequence[str]
    right: Sequence[bool] | None
    ids: Mapping[str, str]

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any], names: Mapping[str, str]) -> Reader:
        """The rows of a run, tuned compared with the rival on which the verdict hangs."""
        rival = wording.deciding(evaluation)["against"]
        return cls(
            lines=lines,
            compared=rows.compare(lines, rows.row_metric(evaluation), rival),
            names=names,
            order=wording.ranked(evaluation),
            right=rows.right_or_wrong(lines, evaluation),
            ids=rows.short_ids([line["id"] for line in lines]),
        )

    def cards(self, chosen: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows, for the page itself."""
        return [self._card(row) for row in chosen]

    def _card(self, row: int) -> dict[str, Any]:
        line = self.lines[row]
        answers = []
        for system in self.order:
            mark, tone = self._mark(system, row)
            text = shortened(written(line["answers"][system]))
            answers.append(
                {"name": self.names[system], "text": text, "mark": mark, "tone": tone, "tuned": system == TUNED}
            )
        return {
            "id": self.ids[line["id"]],
            "kind": self.compared.kinds[row],
            "input": shortened(line["input"]),
            "reference": None if self._is_its_own_answer(line) else shortened(written(line["reference"])),
            "answers": answers,
            "difference": self._difference(row),
        }

    def _is_its_own_answer(self, line: Mapping[str, Any]) -> bool:
        return bool(line["reference"] == line["input"])

    def _difference(self, row: int) -> differences.Difference | None:
        """Where tuned's answer is not the right one, the two marked word by word; a label has no words to compare."""
        right, answer = self.lines[row]["reference"], self.lines[row]["answers"][TUNED]
        wrong = self.right is not None and not self.right[row] and self.compared.metric != "accuracy"
        return differences.difference(right, answer) if wrong and isinstance(answer, str) else None

    def _mark(self, system: str, row: int) -> tuple[str, str]:
        """How an answer did (right, wrong, or its score), and its tone."""
        score, metric = float(self.compared.scores[system][row]), self.compared.metric
        if self.compared.all_or_nothing:
            return ("right", "right") if score else ("wrong", "wrong")
        return (
            f"{wording.metric_name(metric)} {wording.number(score if math.isfinite(score) else None, metric)}",
            "plain",
        )

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
                "reference": None if self._is_its_own_answer(line) else place(written(line["reference"])),
                "answers": [[place(written(line["answers"][s])), *self._mark(s, row)] for s in self.order],
                "difference": self._difference(row),
            }
            for row, line in enumerate(self.lines)
        ]
        systems = [{"name": self.names[system], "tuned": system == TUNED} for system in self.order]
        return {"texts": list(texts), "systems": systems, "rows": found, "changed": list(changed), "most": LONG}


def written(answer: Any) -> str:
    """An answer as text."""
    if answer is None:
        return "(no answer)"
    if isinstance(answer, Mapping) and answer.keys() == {"nll", "tokens"}:
        return f"{answer['nll']:,.1f} nats over {answer['tokens']:,} tokens"
    return (answer or "(empty)") if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def shortened(whole: str) -> dict[str, str]:
    """A text; `short` is its beginning where it is long, and empty where it is not."""
    return {"short": whole[:LONG].rstrip() + " …" if len(whole) > LONG else "", "whole": whole or "(empty)"}
