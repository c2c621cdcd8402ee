"""The pages that a reader may copy from: their code blocks, and what each needs around it to run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from source_tree import REPOSITORY

DOCS = REPOSITORY / "docs"
FENCE = re.compile(r"^( *)(`{3,})(.*?)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
CAPTION = re.compile(r"\A:caption: (\S+)\n\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the words behind that, what it holds, and the file that it says it is."""

    language: str
    marks: tuple[str, ...]
    text: str
    file: str | None

    @property
    def runs(self) -> bool:
        return "no-run" not in self.marks

    @property
    def exit_code(self) -> int:
        """That of the block's last command; the others end with 0."""
        return next((int(mark.removeprefix("exit=")) for mark in self.marks if mark.startswith("exit=")), 0)

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block; a line that ends in a backslash goes on."""
        lines = self.text.replace("\\\n", " ").split("\n")
        words = [shlex.split(line, comments=True) for line in lines]
        return [command for command in words if command]


def pages() -> list[Path]:
    """Every page with text of our own."""
    return sorted([*DOCS.rglob("*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"])


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks_of(text: str) -> Iterator[Block]:
    for indent, _, info, body in FENCE.findall(text):
        language, *marks = info.replace("{code-block} ", "").split() or [""]
        unindented = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        caption = CAPTION.match(unindented)
        file = caption.group(1) if caption else None
        yield Block(language, tuple(marks), CAPTION.sub("", unindented), file)
