"""What a person reads on the terminal: findings, tokens, the table of systems, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pegbox.demo.run import asked
from pegbox.finished import Run

DOZEN = 12
COLOURS = {"better": "bold green", "worse": "bold red", "not shown": "bold yellow"}


def check(found: Mapping[str, Any]) -> None:
    """The doctor's findings and the plan."""
    console = Console(soft_wrap=True)
    for finding in found["findings"]:
        console.print(f"[bold]{finding['severity']}[/bold] {finding['check']}: {escape(finding['message'])}")
        console.print(f"  rows: {escape(', '.join(finding['rows'][:10]))}\n  cure: {escape(finding['cure'])}")
    rows = ", ".join(f"{count} {name}" for name, count in found["rows"].items())
    console.print(f"rows: {rows}\nmodel: {escape(found['model']['name'])} ({escape(found['model']['source'])})")
    console.print(f"plan: {found['plan']['summary']}")


def preview(examples: Sequence[Mapping[str, Any]]) -> None:
    """Tokens; those that are trained in green, and between angle quotes where there is no colour."""
    console = Console(soft_wrap=True)
    for example in examples:
        console.print(Text(f"{example['id']}: {example['tokens']} tokens, {example['trained']} trained", "bold"))
        line = Text()
        for trained, pieces in groupby(example["pieces"], key=lambda piece: piece["weight"] > 0):
            shown = "".join(piece["text"] for piece in pieces).replace("\n", "\\n\n")
            quoted = f"«{shown}»" if trained and not console.is_terminal else shown
            line.append(quoted, "black on green" if trained else "dim")
        console.print(line, "")


def evaluation(found: Mapping[str, Any]) -> None:
    """The systems with their intervals, and the verdict."""
    console, primary = Console(soft_wrap=True), found["primary"]
    names = list(dict.fromkeys([primary, *(name for system in found["systems"].values() for name in system)]))
    table = Table(title=f"{found['rows']} test rows; 95 % intervals in brackets", title_justify="left")
    table.add_column("system", no_wrap=True)
    for name in names:
        table.add_column(f"{name} (primary)" if name == primary else name, justify="right")
    order = sorted(found["systems"], key=lambda name: name == "tuned")
    for system in order:
        scores = [found["systems"][system].get(name) for name in names]
        cells = [_interval(scores[0]), *map(_value, scores[1:])]
        table.add_row(system, *cells, style="bold" if system == "tuned" else "")
    console.print(table)
    least = found["comparison"]
    console.print(Text(f"verdict: {found['verdict']}", COLOURS[found["verdict"]]))
    difference = _interval({"value": least["difference"], "low": least["low"], "high": least["high"]})
    console.print(f"tuned - {least['against']} (least favourable), {primary}: {difference}, p = {least['p_value']:.4f}")
    console.print(escape(found["reason"]))


def _value(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else "?" if found["value"] is None else f"{found['value']:.3f}"


def _interval(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    value, low, high = (("?" if found[key] is None else f"{found[key]:.3f}") for key in ("value", "low", "high"))
    return f"{value} [dim]({low} .. {high})[/dim]"


def verdict(run: Run) -> None:
    """The end of a run."""
    evaluation(run.evaluation)
    Console().print(f"report: {escape(str(run.path / 'report.html'))}\nmodel:  {escape(str(run.folder.model))}")


def demo(run: Run) -> None:
    """A dozen commands before and after (evenly spaced through the file, not chosen by score), the table, the verdict."""
    console, commands = Console(soft_wrap=True), asked(run)
    for command in commands[:: max(1, len(commands) // DOZEN)][:DOZEN]:
        answers = command.line["answers"]
        console.print(f"[bold]{escape(command.line['input'])}[/bold]")
        console.print(f"  before  {escape(_short(answers['base']))}", style="dim")
        console.print(f"  after   {escape(_short(answers['tuned']))}", style="green" if command.right else "red")
        if not command.right:
            console.print(f"  right   {escape(command.line['reference'])}")
    verdict(run)
    for label, unseen in (("all names seen in training", False), ("a name never seen in training", True)):
        right = [command.right for command in commands if command.unseen_names is unseen]
        console.print(f"exact answers, {label}: {sum(right)} of {len(right)}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:99] + "…"
