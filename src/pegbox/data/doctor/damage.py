"""Text that was damaged on its way: decoded with the wrong encoding, or with characters that nobody typed.

ftfy finds mojibake and undoes it; its other repairs (quotes, widths, ligatures, entities, normal forms) are off, for they
change what was meant. Control characters but tab and line ends, byte order marks within a text, bidirectional overrides
and zero-width spaces beside ASCII (Thai and Khmer have them between words) are taken out. U+FFFD stands where something
was lost for good. Joiners are left alone: emoji, Persian and Indic scripts are written with them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pegbox.data.doctor.findings import Finding, count_of
from pegbox.data.doctor.texts import whole
from pegbox.data.records import Record
from pegbox.recipe import Recipe

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\u202d\u202e]|(?<=[!-~])\u200b|\u200b(?=[!-~])")
LOST = "\ufffd"
PIECES = re.compile(f"([\n{LOST}])")
RUN = re.compile(r"[^\x00-\x7f]*")
EXAMPLE = 20  # characters


def without_mojibake(text: str) -> str:
    """The text with what was decoded wrongly decoded right, line by line; nothing else is changed.

    ftfy reads U+FFFD as the byte 0x1A, which would hide a loss: it sees what stands between.
    """
    if text.isascii():
        return text
    import ftfy

    pieces = PIECES.split(text)
    return "".join(ftfy.fix_encoding(piece, explain=False, replace_lossy_sequences=False) for piece in pieces)


def mend(text: str) -> str:
    """The text without mojibake and control characters; a control character that is white space becomes a space.

    It is mended until nothing is left to mend: without its control characters mojibake may first be seen.
    """
    before = None
    while text != before and not (text.isascii() and text.isprintable()):
        before, text = text, CONTROLS.sub(_blank, without_mojibake(text))
    return text


def _blank(control: re.Match[str]) -> str:
    return " " if control[0].isspace() else ""


class Encoding:
    """The check `encoding`: which rows are damaged, and how."""

    def __init__(self, recipe: Recipe) -> None:
        self.rows: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.example = ""

    def see(self, record: Record) -> None:
        """Look at everything that a person wrote in the row."""
        text = whole(record.content)
        if text.isascii() and text.isprintable():
            return
        decoded = without_mojibake(text)
        if decoded != text and not self.example:
            self.example = f" (such as {_change(text, decoded)})"
        kinds = {
            "mojibake": decoded != text,
            "control characters": CONTROLS.search(decoded) is not None,
            "lost characters": LOST in decoded,
        }
        self.kinds.update(kind for kind, there in kinds.items() if there)
        if any(kinds.values()):
            self.rows.append(record.where)

    def findings(self) -> Iterator[Finding]:
        """One warning, with the kinds counted by row."""
        if self.rows:
            has = count_of(len(self.rows), "holds", "hold")
            kinds = ", ".join(f"{kind} in {count}" for kind, count in self.kinds.items())
            cure = "read the rows again in the encoding they were written in, or mend them with `pegbox check RECIPE --fix OUT`"
            if self.kinds["lost characters"]:
                cure += "; what U+FFFD stands for is lost in this file"
            message = f"{has} damaged text: {kinds}{self.example}"
            yield Finding("encoding", "warning", tuple(self.rows), message, cure)


def _change(before: str, after: str) -> str:
    """The first stretch beyond ASCII in which two texts differ: too little to tell a secret."""
    at = next((i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), 0)
    old, new = (ascii_free[0][:EXAMPLE] for text in (before, after) if (ascii_free := RUN.match(text, at)))
    return f"{old!r} -> {new!r}"
