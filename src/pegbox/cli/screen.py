"""What a person reads on the terminal: findings, tokens, tables of systems and runs, the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pegbox.data.doctor.findings import listed
from pegbox.data.doctor.shape import summary

if TYPE_CHECKING:  # heavy, and most tables need neither
    from pegbox.demo.run import Asked
    from pegbox.finished import Run

DOZEN = 12
WIDE = 200  # columns of a table that no terminal shows
COLOURS = {"better": "bold green", "worse": "bold red", "not shown": "bold yellow"}


def check(found: Mapping[str, Any]) -> None:
    """The doctor's findings and the plan."""
    console = Console(soft_wrap=True)
    if fixed := found.get("fixed"):
        told = (
            ", ".join(f"{count} {change}" for change, count in fixed["changes"].items()) or "nothing had to be changed"
        )
        console.print(f"cleaned copy: {escape(told)}; each stands in {escape(fixed['list'])}")
        console.print(f"next: pegbox train {escape(shlex.quote(fixed['recipe']))}\nof the copy:", highlight=False)
    for finding in found["findings"]:
        console.print(f"[bold]{finding['severity']}[/bold] {finding['check']}: {escape(finding['message'])}")
        if finding["rows"]:
            console.print(f"  rows: {escape(listed(finding['rows'], 10))}")
        console.print(f"  cure: {escape(finding['cure'])}")
    rows = ", ".join(f"{count} {name}" for name, count in found["rows"].items())
    console.print(f"rows: {rows}\nmodel: {escape(found['model']['name'])} ({escape(found['model']['source'])})")
    for name, why in found["shape"]["formats"].items():
        console.print(f"format: {name}, for {escape(why)}")
    console.print(f"shape: {escape(summary(found['shape']))}\nplan: {found['plan']['summary']}")


def proposal(found: Mapping[str, Any]) -> None:
    """What `init` saw, how sure it is, and what to do next."""
    console = Console(soft_wrap=True)
    console.print(f"[bold]{found['task']}[/bold] ({found['sureness']}), {found['rows']:,} rows read")
    for reason in found["reasons"]:
        console.print(f"  {escape(reason)}")
    for open_question in found["unknown"]:
        console.print(f"[bold yellow]look at this:[/bold yellow] {escape(open_question)}")
    recipe = shlex.quote(found["recipe"])
    console.print(f"recipe: {escape(recipe)}\nnext:   pegbox check {escape(recipe)}", highlight=False)
    console.print(f"        pegbox train {escape(recipe)}", highlight=False)


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
    told = f"{_interval(least)}, p = {least['p_value']:.4f}"
    console.print(f"tuned - {least['against']} (least favourable), {primary}: {told}")
    console.print(escape(found["reason"]))


def _short_name(model: str) -> str:
    """A model without its owner or its folder."""
    return model.rstrip("/").rsplit("/", 1)[-1]


def _value(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else "?" if found["value"] is None else f"{found['value']:.3f}"


def _interval(found: Mapping[str, Any] | None) -> str:
    """A value, or a difference, with its interval."""
    if found is None:
        return ""
    ends = [found.get("value", found.get("difference")), found["low"], found["high"]]
    value, low, high = ("?" if end is None else f"{end:.3f}" for end in ends)
    return f"{value} [dim]({low} .. {high})[/dim]"


def comparison(found: Mapping[str, Any]) -> None:
    """Which run is ahead, every run's score, every pair's difference, and what a reader should know of them."""
    console, primary = Console(soft_wrap=True), found["primary"]
    table = Table(title=f"{found['rows']} rows that all runs share; 95 % intervals in brackets", title_justify="left")
    for name in ("run", "model", "method", "own verdict"):
        table.add_column(name, overflow="fold")
    table.add_column(primary, justify="right", no_wrap=True)
    for run in found["runs"]:
        score = _interval(run["metrics"][primary])
        table.add_row(escape(run["name"]), escape(_short_name(run["model"])), run["method"], run["verdict"], score)
    console.print(table)
    for pair in found["differences"]:
        by = f"{_interval(pair)}, p = {pair['p_adjusted']:.4f} (Holm)"
        console.print(f"{escape(pair['run'])} - {escape(pair['against'])}, {primary}: {by}")
    for told in found["notes"]:
        console.print(f"{told['severity']}: {escape(told['message'])}", style="bold" * (told["severity"] == "warning"))
    console.print(escape(found["reason"]), style="bold")


def verdict(run: Run) -> None:
    """The end of a run."""
    evaluation(run.evaluation)
    Console().print(f"report: {escape(str(run.path / 'report.html'))}\nmodel:  {escape(str(run.folder.model))}")


def runs(found: Sequence[Mapping[str, Any]]) -> None:
    """A line a run; what went wrong with one stands in its place."""
    console = Console()
    console = console if console.is_terminal else Console(width=WIDE)
    table = Table(box=None, pad_edge=False)
    for name in ("run", "when (UTC)", "model", "method", "metric", "tuned", "verdict"):
        table.add_column(name, overflow="fold")
    for run in found:
        if "problem" in run:
            table.add_row(escape(run["run"]), "", "", "", "", "", Text(run["problem"], "red"))
            continue
        verdict = run["verdict"] or f"unfinished, update {run['updates']} of {run['planned']}"
        when = run["began"].replace("T", " ")[:16]
        score = _interval(run) if run["verdict"] else ""
        told = Text(verdict, COLOURS.get(verdict, "dim"))
        table.add_row(
            escape(run["run"]), when, escape(_short_name(run["model"])), run["method"], run["primary"], score, told
        )
    console.print(table if found else "no runs here yet: pegbox demo, or pegbox train RECIPE")


def verified(found: Mapping[str, Any]) -> None:
    """A line a check; where one failed, what to do."""
    console = Console(soft_wrap=True)
    words = {True: "[green]holds [/green]", False: "[bold red]FAILED[/bold red]", None: "[yellow]open  [/yellow]"}
    for check in found["checks"]:
        console.print(f"{words[check['ok']]} {check['check']}: {escape(check['message'])}")
        if check["ok"] is not True and check["cure"]:
            console.print(f"       cure: {escape(check['cure'])}")


def exported(found: Mapping[str, Any]) -> None:
    """A line an export: where it is, how far it is from the model that was measured, what rounding its numbers costs."""
    console = Console(soft_wrap=True)
    for name, told in found["formats"].items():
        checked, score = told["checked"], told.get("score")
        answers = f"; {checked['answers_that_differ']} of {checked['answers']} answers differ" * bool(
            checked["answers"]
        )
        console.print(f"{escape(str(Path(found['out']) / name))}: {told['bytes'] / 1e6:,.1f} MB", style="bold")
        console.print(
            f"  {checked['rows']} test rows: largest difference of a logit {checked['largest_difference']:.2g}"
            f" (of {checked['largest_logit']:.3g}), mean KL {checked['mean_kl']:.2g}{answers}"
        )
        if "not_scored" in told:
            console.print(f"  not scored: {told['not_scored']}")
        if score is not None:
            console.print(f"  {score['metric']} on {score['rows']} test rows: {_interval(score['exported'])},", end=" ")
            console.print(f"a loss of {_interval(score['loss'])} against {_interval(score['tuned'])}")


def demo(run: Run, commands: Sequence[Asked]) -> None:
    """A dozen commands before and after, the table, the verdict."""
    console = Console(soft_wrap=True)
    for command in _dozen(commands):
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


def opinions(run: Run, lines: Sequence[Mapping[str, Any]]) -> None:
    """A dozen tweets, what a bag of words and the tuned model make of them; the table, the verdict."""
    console = Console(soft_wrap=True)
    for line in _dozen(lines):
        console.print(f"[bold]{escape(line['input'])}[/bold]")
        for name, told in (("bag_of_words", "bag of words"), ("tuned", "after")):
            said = line["answers"][name]
            sure = line["probabilities"][name][said]
            colour = "green" if said == line["reference"] else "red"
            console.print(f"  {told:13} {escape(said)} ({sure:.0%})", style=colour if name == "tuned" else "dim")
    verdict(run)


Shown = TypeVar("Shown")


def _dozen(rows: Sequence[Shown]) -> Sequence[Shown]:
    """Twelve, evenly spaced through the file, not chosen by score."""
    return rows[:: max(1, len(rows) // DOZEN)][:DOZEN]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:99] + "…"
