"""Files of rows as strangers write them, from a seed: valid ones in every kind and style, and mutated ones.

A valid file holds the same values however it is written: key order, white space, line ends, delimiters, quotes,
encodings, compression. A mutant is a valid file that was changed in its grammar (tokens, keys, cells, quotes) or in its
bytes, before it was packed or after.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pyarrow
from pyarrow import feather, ipc, parquet

Values = dict[str, Any]

WORDS = [
    "the",
    "price",
    "of",
    "tea",
    "rose",
    "again",
    "12.5",
    "%",
    "customer",
    "asked",
    "why;",
    "fine,",
    "|thanks|",
    "I'm",
    '"sure"',
    "C:\\new",
]
WESTERN = ["ça", "très", "voilà", "Größe", "señor", "naïve"]
WIDE = [
    "語",
    "это",
    "🙂",
    "e\u0301",
    "a\u2028b",
    "\u0085",
    "\ufeff",
    "\t",
    "\n",
    "\r\n",
    "👩‍👧",
    "\x7f",
    "\u200b",
    "'",
    '"',
]


@dataclass(frozen=True)
class Case:
    """A file, the task whose rows it holds, and their values where they must be read so."""

    name: str
    data: bytes
    task: str
    rows: tuple[Values, ...] | None


# ---- rows ------------------------------------------------------------------------------------------------------------


def some_text(rng: Random, words: list[str]) -> str:
    """A few words; never white space alone."""
    return f"w{' '.join(rng.choices(words, k=rng.randint(0, 12)))}w"


def _turns(rng: Random, words: list[str]) -> list[Values]:
    said = ["user", "assistant"] * rng.randint(1, 3)
    return [{"role": role, "content": some_text(rng, words)} for role in said]


def _tags(rng: Random, words: list[str]) -> Values:
    tokens = [some_text(rng, words) for _ in range(rng.randint(1, 6))]
    return {"tokens": tokens, "tags": [rng.choice(["O", "B-X"]) for _ in tokens]}


ROWS: Mapping[str, Callable[[Random, list[str]], Values]] = {
    "classification": lambda rng, words: {"text": some_text(rng, words), "label": rng.choice(["a", "b"])},
    "regression": lambda rng, words: {"text": some_text(rng, words), "score": round(rng.uniform(-9, 9), 3)},
    "multilabel": lambda rng, words: {"text": some_text(rng, words), "labels": rng.sample(["x", "y", "z"], 2)},
    "completion": lambda rng, words: {"prompt": some_text(rng, words), "completion": some_text(rng, words)},
    "chat": lambda rng, words: {"messages": _turns(rng, words)},
    "token_classification": _tags,
}


# ---- how they are written --------------------------------------------------------------------------------------------


def _lines_of_json(rng: Random, rows: list[Values]) -> str:
    end = rng.choice(["\n", "\r\n", "\r"])
    return "".join(rng.choice(["", " ", "\t"]) + _object(rng, row) + end * rng.randint(1, 2) for row in rows)


def _object(rng: Random, row: Values) -> str:
    keys = rng.sample(list(row), len(row))
    separators = (rng.choice([",", ", ", " ,\t"]), rng.choice([":", ": ", " : "]))
    return json.dumps({key: row[key] for key in keys}, ensure_ascii=rng.random() < 0.5, separators=separators)


def _array(rng: Random, rows: list[Values]) -> str:
    ascii_only, indent = rng.random() < 0.5, rng.choice([None, 2, "\t"])
    return rng.choice(["", "\n "]) + json.dumps(rows, ensure_ascii=ascii_only, indent=indent) + rng.choice(["", "\n"])


def _table(rng: Random, rows: list[Values], own: str) -> str:
    """CSV or TSV. Without a quote within the cells nothing tells backslashes that are escapes from others."""
    out = io.StringIO()
    style = rng.choice(["all", "minimal", "words", "backslash", "apostrophes"])
    if style == "backslash" and not any('"' in text for row in rows for text in row.values()):
        style = "all"
    options: dict[str, Any] = {
        "all": {"quoting": csv.QUOTE_ALL},
        "minimal": {"quoting": csv.QUOTE_MINIMAL},
        "words": {"quoting": csv.QUOTE_NONNUMERIC},
        "backslash": {"quoting": csv.QUOTE_ALL, "doublequote": False, "escapechar": "\\"},
        "apostrophes": {"quoting": csv.QUOTE_ALL, "quotechar": "'"},
    }[style]
    end = rng.choice(["\n", "\r\n"])
    table = csv.writer(out, delimiter=rng.choice([own, *",;\t|"]), lineterminator=end, **options)
    table.writerow(rows[0])
    table.writerows(row.values() for row in rows)
    return out.getvalue() + end * rng.randint(0, 2)


def _as_cells(rows: list[Values]) -> list[Values]:
    """Rows as a table can hold them: numbers as texts, lists as JSON."""
    return [{key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()} for row in rows]


def _paragraphs(rng: Random, rows: list[Values]) -> str:
    end = rng.choice(["\n", "\r\n"])
    return (end * rng.randint(2, 3)).join(row["text"].replace("\n", end) for row in rows) + end * rng.randint(0, 2)


def _parquet(rng: Random, table: Any) -> bytes:
    out = io.BytesIO()
    codec = rng.choice(["none", "snappy", "zstd", "gzip"])
    size, dictionary = rng.randint(1, 8), rng.random() < 0.5
    parquet.write_table(table, out, compression=codec, row_group_size=size, use_dictionary=dictionary)
    return out.getvalue()


def _arrow(rng: Random, table: Any) -> bytes:
    out = io.BytesIO()
    new = rng.choice([ipc.new_stream, ipc.new_file])
    options = ipc.IpcWriteOptions(compression=rng.choice([None, "zstd", "lz4"]))
    with new(out, table.schema, options=options) as file:
        file.write_table(table, max_chunksize=rng.randint(1, 8))
    return out.getvalue()


def _feather(rng: Random, table: Any) -> bytes:
    out = pyarrow.BufferOutputStream()
    feather.write_feather(table, out, compression=rng.choice(["uncompressed", "zstd", "lz4"]))
    return bytes(out.getvalue())


TEXTS: Mapping[str, Callable[[Random, list[Values]], str]] = {
    "jsonl": _lines_of_json,
    "ndjson": _lines_of_json,
    "json": _array,
    "csv": lambda rng, rows: _table(rng, rows, ","),
    "tsv": lambda rng, rows: _table(rng, rows, "\t"),
    "txt": _paragraphs,
    "md": _paragraphs,
}
TABLES: Mapping[str, Callable[[Random, Any], bytes]] = {"parquet": _parquet, "arrow": _arrow, "feather": _feather}


def _packed(rng: Random, name: str, data: bytes) -> tuple[str, bytes]:
    """The file as it is or compressed, and its name then."""
    ways = ["", "", "gz", "zst", "zip"] if name.rpartition(".")[2] in TEXTS else ["", "", "zip"]
    match rng.choice(ways):
        case "gz":
            return f"{name}.gz", gzip.compress(data, rng.randint(1, 9))
        case "zst":
            return f"{name}.zst", pyarrow.compress(data, codec="zstd", asbytes=True)
        case "zip":
            out = io.BytesIO()
            method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
            with zipfile.ZipFile(out, "w", method) as archive:
                archive.writestr(zipfile.ZipInfo(rng.choice(["", "deep/"]) + name), data, method)
            return f"{name}.zip", out.getvalue()
    return name, data


# ---- valid files and mutants -----------------------------------------------------------------------------------------


def valid(seed: int) -> Case:
    """A file that must be read, with its values."""
    rng = Random(seed)
    case = _plain(rng)
    name, data = _packed(rng, case.name, case.data)
    return replace(case, name=name, data=data)


def _plain(rng: Random) -> Case:
    kind, task = rng.choice([*TEXTS, *TABLES]), rng.choice(list(ROWS))
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
    words = WORDS + (WESTERN if encoding == "cp1252" else WESTERN + WIDE)
    if kind in ("csv", "tsv") and task == "chat":  # no cell of a table holds messages
        task = "completion"
    if kind in ("txt", "md"):
        task, words = "masked_lm", [word for word in words if "\n" not in word]
        rows: list[Values] = [{"text": some_text(rng, words)} for _ in range(rng.randint(1, 12))]
    else:
        rows = [ROWS[task](rng, words) for _ in range(rng.randint(1, 12))]
    if kind in ("csv", "tsv"):
        rows = _as_cells(rows)
    if kind in TABLES:
        data = TABLES[kind](rng, pyarrow.Table.from_pylist(rows))
    else:
        data = TEXTS[kind](rng, rows).encode(encoding)
    return Case(f"rows.{kind}", data, task, tuple(rows))


def mutant(seed: int) -> Case:
    """A file that was changed somewhere; nothing is promised of its rows."""
    rng = Random(seed)
    case = _plain(rng)
    data = case.data
    if rng.random() < 0.5 and case.name.rpartition(".")[2] in TEXTS:
        data = _other_grammar(rng, data)
    else:
        data = _other_bytes(rng, data)
    name, data = _packed(rng, case.name, data)
    if rng.random() < 0.2:
        data = _other_bytes(rng, data)
    if rng.random() < 0.05:  # a name that lies
        name = f"rows.{rng.choice([*TEXTS, *TABLES, 'csv.gz', 'jsonl.zst', 'zip'])}"
    return Case(name, data, case.task, None)


TOKENS = (
    *[
        '"',
        "'",
        ",",
        ";",
        ":",
        "{",
        "}",
        "[",
        "]",
        "\\",
        "\n",
        "\r",
        "\t",
        "|",
        "/",
        "null",
        "NaN",
        "Infinity",
        "-0",
        "1e999",
        "true",
        '""',
        "[]",
        "{}",
        "\x00",
    ],
    *("\\ud83d", "\\u0000", "\ud83d", "\ufeff", "\u2028", '"text": 1, ', '"a": {"a": [[]]}, ', "9" * 5000, "[" * 3000),
)


def _other_grammar(rng: Random, data: bytes) -> bytes:
    """A few tokens put in, taken out or exchanged."""
    text = data.decode("utf-8", errors="surrogateescape")
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(text))
        end = rng.choice([start, start + 1, text.find('"', start) + 1, text.find("\n", start) + 1])
        text = text[:start] + rng.choice(["", *TOKENS, text[start : start + 40] * 2]) + text[max(start, end) :]
    # what was no UTF-8 stays what it was; half of a pair of the TOKENS becomes the bytes that careless programs write
    return b"".join(
        letter.encode("utf-8", "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass")
        for letter in text
    )


def _other_bytes(rng: Random, data: bytes) -> bytes:
    """A few bytes flipped, put in, taken out, repeated, or the rest cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        start, length = rng.randint(0, len(changed)), rng.choice([1, 1, 2, 4, 8, 64])
        match rng.randrange(7):
            case 0 if start < len(changed):
                changed[start] ^= 1 << rng.randrange(8)
            case 1:
                changed[start:start] = rng.randbytes(length)
            case 2:
                del changed[start : start + length]
            case 3:
                changed[start:start] = changed[start : start + length] * rng.randint(1, 50)
            case 4:
                del changed[start:]
            case 5:
                changed[start : start + length] = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * length
            case 6:
                changed[start : start + 4] = rng.choice(
                    [b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xed\xa0\x80", b"\r\n\r\n"]
                )
    return bytes(changed)
