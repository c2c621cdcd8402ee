"""`pegbox chat`: a plain loop, for a terminal and for questions from a pipe alike, and its commands."""

from __future__ import annotations

import difflib
import io
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pegbox.cli.conversation import Conversation, printable
from pegbox.errors import DataError, PegboxError
from pegbox.finished import Run
from pegbox.tasks import TASKS

SIDE_BY_SIDE = 100  # columns of a terminal from which on two answers stand beside each other


def chat(run_dir: Path, *, max_new_tokens: int = 256, do_sample: bool = False) -> None:
    """Talk to the model of a run, on the terminal or with the lines of stdin as questions."""
    run, told = Run(run_dir), Console(stderr=True, soft_wrap=True, highlight=False)
    asks = sys.stdin.isatty() and sys.stdout.isatty()
    if asks:
        with suppress(ImportError):  # where it is there, `input` lets a line be edited
            import readline  # noqa: F401
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    told.print(f"loading {run.recipe.model.name}, tuned", style="dim", markup=False)
    told.print(f"{run.model.num_parameters():,} weights, task {run.task.kind}. /help lists the commands", style="dim")
    console = Console(soft_wrap=True, highlight=False)
    talk(run, lambda: input("> " if asks else ""), console, told, max_new_tokens=max_new_tokens, do_sample=do_sample)


def talk(
    run: Run,
    ask: Callable[[], str],
    console: Console,
    told: Console,
    *,
    max_new_tokens: int = 256,
    do_sample: bool = False,
) -> None:
    """Answer what `ask` returns until it raises EOFError. Answers go to `console`, all else to `told`."""
    conversation = Conversation(run, console, told, max_new_tokens, do_sample)
    while not conversation.left:
        try:
            line = ask()
            if line.startswith("/"):
                obey(conversation, line)
            else:
                conversation.hear(line)
        except EOFError:
            return
        except KeyboardInterrupt:  # while a line is typed, or a model is loaded
            conversation.say("\n(Ctrl-D or /quit leaves)")
        except PegboxError as error:
            told.print(str(error), style="red", markup=False)


def obey(talk: Conversation, line: str) -> None:
    """Do one of the commands that the run's task has."""
    name, _, rest = line.strip().partition(" ")
    known = [name for name, command in COMMANDS.items() if talk.kind in command.kinds]
    if name in known:
        COMMANDS[name].do(talk, rest.strip())
        return
    near = difflib.get_close_matches(name, known, n=1)
    why = f"there is no command {name}" + (f": did you mean {near[0]}?" if near else "")
    if name in COMMANDS:
        why = f"{name} has no use in a run of task '{talk.kind}'"
    talk.say(f"{why} /help lists the commands" if near else f"{why}; /help lists the commands")


# ---- commands --------------------------------------------------------------------------------------------------------


def _base(talk: Conversation, rest: str) -> None:
    if not talk.turns:
        talk.say("ask something first")
        return
    talk.say("asking the untouched model")
    tuned = talk.turns[-1]["content"]
    if not talk.console.is_terminal or talk.console.width < SIDE_BY_SIDE:
        for name, pieces in (("tuned", iter([tuned])), ("untouched", talk.pieces(base=True))):
            talk.console.print(name, style="bold")
            talk.show(pieces)
        return
    answers = (tuned, "".join(talk.pieces(base=True)))
    table = Table("tuned", "untouched", expand=True)
    table.add_row(*(Text(printable(answer)) for answer in answers))
    talk.console.print(table)


def _system(talk: Conversation, rest: str) -> None:
    if rest:
        talk.system = talk.run.recipe.data.instruction if rest == "-" else rest
    talk.say("there is no system message" if talk.system is None else f"system message: {talk.system}")


def _save(talk: Conversation, rest: str) -> None:
    if not talk.turns or not rest:
        talk.say("there is nothing to save yet" if rest else "/save needs the name of a file")
        return
    path = Path(rest).expanduser()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps({"messages": talk.messages()}, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise DataError("the file exists already", where=rest, cure="/save under another name") from None
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=rest, cure="/save elsewhere") from None
    talk.say(f"{len(talk.turns)} messages saved in {path}")


def _new(talk: Conversation, rest: str) -> None:
    talk.turns, talk.forgotten = [], 0
    talk.say("a new conversation")


def _help(talk: Conversation, rest: str) -> None:
    for command in COMMANDS.values():
        if talk.kind in command.kinds:
            talk.say(f"  {command.usage:<14} {command.does}")


def _quit(talk: Conversation, rest: str) -> None:
    talk.left = True


@dataclass(frozen=True)
class Command:
    """What is typed, what that does, and in runs of which kinds of task."""

    usage: str
    does: str
    do: Callable[[Conversation, str], None]
    kinds: tuple[str, ...] = tuple(TASKS)


COMMANDS: Mapping[str, Command] = {
    command.usage.split()[0]: command
    for command in (
        Command("/base", "what the untouched model says to the same", _base, ("chat", "completion")),
        Command("/system TEXT", "set the system message; alone: show it; with -: that of training", _system, ("chat",)),
        Command("/save FILE", "keep the conversation as a row to train on, in a new file", _save, ("chat",)),
        Command("/new", "start over; the system message stays", _new, ("chat",)),
        Command("/help", "this list", _help),
        Command("/quit", "leave; so does Ctrl-D. Ctrl-C stops an answer", _quit),
    )
}
