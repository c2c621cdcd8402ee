"""A proposal, and the commented recipe that it becomes.

What was decided stands in the recipe; every other key stands behind a `#` with its default and its meaning, which are
those of the recipe's own models, so that the file lists all that can be asked for. Names of columns and files are
whatever strangers chose: as values they are quoted and escaped, in comments made printable.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from pegbox.proposal.guess import Sureness
from pegbox.proposal.settings import Settings
from pegbox.recipe import PROMPTED, Data, Evaluate, Lora, Model, Task, Train

PLAIN = re.compile(r"[A-Za-z][\w-]*(?:[./][\w-]+)*", re.ASCII)
WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # which YAML 1.1 takes for something else
WIDTH = 110


@dataclass(frozen=True)
class Proposal:
    """What the rows look like, how sure that is, and why; `to_yaml` makes it a recipe.

    `columns`: role -> column, where a column does not have its role's name. `rows`: how many were looked at, `complete`
    where these were all. `reasons`: why this task and these columns. `unknown`: what is not known, and what to look at.
    `group`: a column whose rows may belong together; `instruction`: what a constant column says. Both are only offered.
    """

    task: str
    columns: Mapping[str, str | tuple[str, ...]]
    model: str
    files: tuple[str, ...]
    rows: int
    complete: bool
    sureness: Sureness
    reasons: tuple[str, ...]
    unknown: tuple[str, ...]
    settings: Settings
    group: str | None = None
    instruction: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, for `--json`."""
        return json.loads(json.dumps(asdict(self) | {"columns": dict(self.columns)}))  # type: ignore[no-any-return]

    def to_yaml(self, folder: Path) -> str:
        """The recipe for a file in `folder`: `pegbox train` takes it unedited. Files are named as seen from there."""
        model = self.model
        if os.path.exists(os.path.expanduser(model)) or model.startswith((".", "~")):
            model = _seen_from(folder, os.path.expanduser(model))
            model = model if model.startswith((".", "/")) else f"./{model}"
        lines = [*self._head(), "", f"model: {_value(model)}{_meaning(Model, 'name')}"]
        lines += [f"task: {self.task}{_about(self.task)}", "", "data:", *self._data(folder)]
        lines += ["", "method:", f"  kind: {Lora().kind}  # or full: every weight learns", *_defaults(Lora, {"kind"})]
        sizes = {"num_train_epochs": self.settings.num_train_epochs, "batch_size": self.settings.batch_size}
        chosen = [f"  {name}: {size}{_meaning(Train, name)}" for name, size in sizes.items()]
        lines += ["", "train:", *chosen, *_defaults(Train, set(sizes))]
        lines += ["", "# evaluate:", *(f"# {line.replace('# ', '', 1)}" for line in _defaults(Evaluate, set()))]
        lines += ["", "# seed: 42  # fixes everything that is drawn"]
        return "\n".join(lines) + "\n"

    def _head(self) -> list[str]:
        files = ", ".join(Path(name).name for name in self.files)
        read = f"all {self.rows} rows" if self.complete else f"{self.rows} of the rows"
        lines = [
            f"A proposal of `pegbox init`, from {read} of {files}.",
            f"How sure it is of the task: {self.sureness}.",
        ]
        lines += ["Why:", *(f"- {reason}" for reason in self.reasons)]
        if self.unknown:
            lines += ["What it does not know, for you to look at:", *(f"- {line}" for line in self.unknown)]
        lines += ["`pegbox check` looks at every row; `pegbox train` takes this file as it is."]
        return [wrapped for line in lines for wrapped in _comment(line)]

    def _data(self, folder: Path) -> list[str]:
        files = [_value(_seen_from(folder, name)) for name in self.files]
        lines = [f"  train: {files[0] if len(files) == 1 else '[' + ', '.join(files) + ']'}"]
        shares = {"validation": self.settings.validation, "test": self.settings.test}
        lines += [f"  {name}: {share}{_meaning(Data, name)}" for name, share in shares.items()]
        given = [f"    {role}: {_value(column)}" for role, column in self.columns.items()]
        offered = f"{_value(self.group)}  # its rows then stay in one split" if self.group is not None else None
        if given:
            lines += ["  columns:", *given, *([f"    # group: {offered}"] if offered else [])]
        elif offered:
            lines += ["  # columns:", f"  #   group: {offered}"]
        done = {"train", "validation", "test", "columns"}
        if self.task not in PROMPTED:  # where an instruction would be an error
            done |= {"instruction"}
        if self.instruction is not None:
            done |= {"instruction"}
            lines += [f"  # instruction: {_value(self.instruction)}{_meaning(Data, 'instruction')}"]
        if self.settings.near_apart:
            done |= {"allow"}
            lines += [f"  allow: [near_duplicate]{_meaning(Data, 'allow')}"]
        return [*lines, *_defaults(Data, done)]


# ---- YAML ------------------------------------------------------------------------------------------------------------


def _value(value: Any) -> str:
    """A value that YAML reads back as it was, whatever a text holds."""
    if isinstance(value, str):
        if PLAIN.fullmatch(value) and value.casefold() not in WORDS:
            return value
        return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**9).rstrip("\n")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


def _comment(text: str) -> list[str]:
    """Lines of a comment; what cannot be printed is shown as a question mark."""
    printable = "".join(c if c.isprintable() else "?" for c in text)
    indent = "  " if text.startswith("- ") else ""
    wrapped = textwrap.wrap(printable, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [f"# {line}" for line in wrapped]


def _defaults(model: type[BaseModel], done: set[str]) -> list[str]:
    """Every other key, behind a `#`, with its default and its meaning."""
    fields = {name: field for name, field in model.model_fields.items() if name not in done}
    return [f"  # {name}: {_value(field.default)}{_meaning(model, name)}" for name, field in fields.items()]


def _meaning(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.description:
        return f"  # {field.description}"
    return f"  # {', '.join(get_args(field.annotation))}" if get_origin(field.annotation) is Literal else ""


def _about(task: str) -> str:
    """The first sentence about a task."""
    kinds = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Task)[0])}
    return "  # " + str(kinds[task].__doc__).split(".")[0]


def _seen_from(folder: Path, name: str) -> str:
    """A file's name as a recipe in `folder` gives it: relative unless it was given absolutely and lies elsewhere."""
    whole = os.path.abspath(name)
    relative = os.path.relpath(whole, os.path.abspath(folder))
    if os.path.isabs(name) and relative.startswith(os.pardir):
        return whole
    return os.path.join(os.curdir, relative) if relative.startswith("~") else relative
