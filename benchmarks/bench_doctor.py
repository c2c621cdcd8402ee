"""What the data doctor finds of defects planted in 5,000 real rows, beside what it says of the rows that are clean.

Film reviews (`real_rows.films`), a label for each. Planted, each in rows of its own: lines that are no rows; exact
copies, with other case and white space; near copies, edited until their character 5-grams have a Jaccard index from 0.8
to 0.95; keys, tokens, e-mail addresses, and IBANs and card numbers with right check digits; letters decoded wrongly; and
a test file of near copies of rows of train. The truth about near twins is brute force over all pairs of rows. Labels
that were changed are measured on four sets (`label_noise`). Writes a table to `benchmarks/doctor.md` and the figures to
`benchmarks/results/doctor.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import label_noise
import numpy as np
import real_rows
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from pegbox.data.prepare import Prepared
from pegbox.data.splits import normal
from pegbox.data.twins import LEAST
from pegbox.pipeline import read_rows
from pegbox.recipe import ALLOWABLE, load

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
ROWS, COPIES, SPOILT, HIDDEN, LEAKED = 5_000, 200, 100, 200, 100
NEAR = (0.8, 0.95)
LETTERS = string.ascii_letters + string.digits

Row = dict[str, Any]


# ---- what is planted -------------------------------------------------------------------------------------------------


def _spoilt(draw: random.Random, row: Row) -> str:
    """A line that is no row of text and label."""
    line = json.dumps(row, ensure_ascii=False)
    ways: Sequence[Callable[[], str]] = (
        lambda: line[: draw.randrange(1, len(line) - 1)],
        lambda: line.replace('"text"', '"test"', 1),
        lambda: json.dumps({**row, "label": None}),
        lambda: json.dumps({**row, "text": [row["text"]]}),
        lambda: json.dumps([row["text"], row["label"]]),
        lambda: line[:-1] + ', "label": "positive"}',
        lambda: line.replace("}", ', "score": NaN}'),
        lambda: line.replace('": "', "': '", 1),
    )
    return draw.choice(ways)()


def _copied(draw: random.Random, text: str) -> str:
    """The text with another case and other white space."""
    return draw.choice((text.upper(), f"  {text} ", text.replace(" ", "  ", 3), text.capitalize(), text))


def _edited(draw: random.Random, text: str, words: Sequence[str]) -> str | None:
    """The text with a few edits, its Jaccard index to the old one within NEAR; None where that fails."""
    for _ in range(20 if text.count(" ") > 5 else 0):
        parts = text.split()
        for _ in range(draw.randrange(1, 4)):
            place = draw.randrange(len(parts))
            kind = draw.randrange(3)
            parts[place : place + (kind != 0)] = [] if kind == 1 else [draw.choice(words)]
        edited = " ".join(parts)
        if NEAR[0] <= _jaccard(normal(text), normal(edited)) <= NEAR[1]:
            return edited
    return None


def _jaccard(one: str, other: str) -> float:
    a, b = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (one, other))
    return len(a & b) / max(len(a | b), 1)


def _drawn(draw: random.Random, alphabet: str, count: int) -> str:
    return "".join(draw.choices(alphabet, k=count))


def _iban(draw: random.Random) -> str:
    """A German or a Dutch one, in groups of four or in one piece; ISO 7064 mod 97-10."""
    country, body = draw.choice(
        [("DE", _drawn(draw, string.digits, 18)), ("NL", "ABNA" + _drawn(draw, string.digits, 10))]
    )
    number = "".join(str(int(letter, 36)) for letter in f"{body}{country}00")
    code = f"{country}{98 - int(number) % 97:02d}{body}"
    return draw.choice([code, " ".join(code[i : i + 4] for i in range(0, len(code), 4))])


def _card(draw: random.Random) -> str:
    """A Visa or Mastercard number with Luhn's check digit."""
    body = draw.choice(["4", "51", "55"])
    body += _drawn(draw, string.digits, 15 - len(body))
    doubled = sum(
        sum(divmod(2 * int(digit), 10)) if i % 2 == 0 else int(digit) for i, digit in enumerate(reversed(body))
    )
    number = f"{body}{-doubled % 10}"
    return draw.choice([number, " ".join(number[i : i + 4] for i in range(0, 16, 4))])


SECRETS: Mapping[str, Callable[[random.Random], str]] = {
    "AWS": lambda draw: "AKIA" + _drawn(draw, string.ascii_uppercase + "234567", 16),
    "GitHub": lambda draw: "gh" + draw.choice("pousr") + "_" + _drawn(draw, LETTERS, 36),
    "Slack": lambda draw: f"xoxb-{_drawn(draw, string.digits, 12)}-{_drawn(draw, LETTERS, 24)}",
    "Stripe": lambda draw: "sk_live_" + _drawn(draw, LETTERS, 24),
    "Google": lambda draw: "AIza" + _drawn(draw, LETTERS + "-_", 35),
    "Hugging Face": lambda draw: "hf_" + _drawn(draw, string.ascii_letters, 34),
    "in a URL": lambda draw: f"postgres://admin:{_drawn(draw, LETTERS, 12)}@db.shop.fr/main",
    "password": lambda draw: f'password = "{_drawn(draw, LETTERS + "!#%&", 14)}"',
}
NUMBERS: Mapping[str, Callable[[random.Random], str]] = {
    "IBAN": _iban,
    "card": _card,
    "e-mail": lambda draw: f"{_drawn(draw, string.ascii_lowercase, 7)}@{_drawn(draw, string.ascii_lowercase, 6)}.org",
    "phone": lambda draw: f"+49 {draw.randrange(150, 180)} {draw.randrange(10**6, 10**7)}",
}


@dataclass
class Planted:
    """The lines of a file, and in which of them what was planted (numbers from 1)."""

    lines: list[str] = field(default_factory=list)
    at: dict[str, set[int]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    def add(self, what: str, line: Row | str) -> int:
        """Append a line; its number."""
        self.lines.append(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False))
        number = len(self.lines)
        self.at.setdefault(what, set()).add(number)
        if not isinstance(line, str):
            self.texts[number] = line["text"]
        return number


def plant(rows: Sequence[Row], draw: random.Random) -> tuple[Planted, list[Row]]:
    """The file of train with all that is planted, and the rows of a test file that leak from it."""
    done, words = Planted(), [word for row in rows[:500] for word in row["text"].split()]
    for row in rows:
        done.add("clean", row)
    originals = iter(draw.sample(range(len(rows)), len(rows)))
    for _ in range(COPIES):
        row = rows[next(originals)]
        done.add("copy", {**row, "text": _copied(draw, row["text"])})
    while len(done.at.get("near", ())) < COPIES:
        row = rows[next(originals)]
        if (edited := _edited(draw, row["text"], words)) is not None:
            done.add("near", {**row, "text": edited})
    for kinds, what in ((SECRETS, "secret"), (NUMBERS, "personal")):
        for i in range(HIDDEN):
            kind, row = list(kinds)[i % len(kinds)], rows[next(originals)]
            head, _, tail = row["text"].partition(" ")
            done.add(f"{what}: {kind}", {**row, "text": f"{head} {kinds[kind](draw)} {tail} {i}"})
    for i in range(SPOILT):
        row = rows[next(originals)]
        done.add("mojibake", {**row, "text": f"{row['text']} {'café naïve über'.encode().decode('cp1252')} {i}"})
        done.add("malformed", _spoilt(draw, row))
    leaked: list[Row] = []
    while len(leaked) < LEAKED:
        row = rows[next(originals)]
        if (edited := _edited(draw, row["text"], words)) is not None:
            leaked.append({**row, "text": edited})
    return done, leaked


# ---- what is found ---------------------------------------------------------------------------------------------------


def examined(folder: Path, planted: Planted, leaked: Sequence[Row]) -> tuple[Prepared, float]:
    """The rows as training would have them, and the seconds that took; nothing is refused."""
    (folder / "train.jsonl").write_text("\n".join(planted.lines), encoding="utf-8")
    (folder / "test.jsonl").write_text("\n".join(json.dumps(row) for row in leaked), encoding="utf-8")
    data = {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), "allow": list(ALLOWABLE)}
    recipe = load({"model": MODEL, "task": "classification", "data": data})
    began = time.perf_counter()
    return read_rows(recipe)[2], time.perf_counter() - began


def _found(done: Prepared, check: str, file: str = "train.jsonl") -> set[int]:
    rows = [row for finding in done.findings if finding.check == check for row in finding.rows]
    return {int(row.rpartition(":")[2]) for row in rows if row.rpartition(":")[0].endswith(file)}


def near_truth(texts: Mapping[int, str]) -> set[int]:
    """The rows that have a near twin, by brute force: every pair, on sets of 5-grams (exact twins are none)."""
    first: dict[str, int] = {}
    for number, text in texts.items():
        first.setdefault(normal(text), number)
    numbers = [number for text, number in first.items() if len(text) >= LEAST]
    grams = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, lowercase=False, dtype=np.int32)
    sets: csr_matrix = grams.fit_transform([normal(texts[number]) for number in numbers])
    sizes = np.asarray(sets.sum(axis=1)).ravel()
    found: set[int] = set()
    for begin in range(0, len(numbers), 500):
        shared = (sets[begin : begin + 500] @ sets.T).toarray()
        near = shared >= NEAR[0] * (sizes[begin : begin + 500, None] + sizes[None, :] - shared) - 1e-9
        np.fill_diagonal(near[:, begin:], False)
        found |= {numbers[begin + row] for row in np.flatnonzero(near.any(axis=1))}
    return found


def measure(seed: int) -> dict[str, Any]:
    """Plant, look, and compare."""
    draw = random.Random(seed)
    planted, leaked = plant(real_rows.films()[:ROWS], draw)
    with tempfile.TemporaryDirectory() as folder:
        done, seconds = examined(Path(folder), planted, leaked)
    others = {-number: row["text"] for number, row in enumerate(leaked, start=1)}  # a twin may stand in the test file
    truth, at = {number for number in near_truth(planted.texts | others) if number > 0}, planted.at
    near = _found(done, "near_duplicate")
    marked = {
        what: {n for kind, rows in at.items() if kind.startswith(what) for n in rows} for what in ("secret", "personal")
    }
    secret, personal = _found(done, "secret"), _found(done, "personal_data")
    clean = at["clean"]

    def share(rows: set[int], among: set[int]) -> float:
        return len(rows & among) / len(among)

    return {
        "rows": len(planted.lines),
        "seconds": round(seconds, 1),
        "malformed rows": share(_found(done, "malformed"), at["malformed"]),
        "exact copies": share(_found(done, "duplicate"), at["copy"]),
        "near copies that were planted": share(near, at["near"]),
        "rows with a near twin by brute force": share(near, truth),
        "rows said to have one that have none": len(near & set(planted.texts) - truth) / max(len(near), 1),
        "near copies in a test file": len(_found(done, "leak", "test.jsonl")) / LEAKED,
        "keys and tokens": share(secret, marked["secret"]),
        "IBANs, cards, addresses, phone numbers": share(personal, marked["personal"]),
        "letters decoded wrongly": share(_found(done, "encoding"), at["mojibake"]),
        "clean rows: malformed": share(_found(done, "malformed"), clean),
        "clean rows: key or token": share(secret, clean),
        "clean rows: personal data": share(personal, clean),
        "clean rows: letters decoded wrongly": share(_found(done, "encoding"), clean),
    }


def table(found: Sequence[Mapping[str, Any]], noise: Mapping[str, Mapping[str, float]]) -> str:
    """Both tables as Markdown: the mean over the seeds and the worst."""
    lines = ["| | mean | worst |", "|---|---|---|"]
    for name in list(found[0])[2:]:
        values = [one[name] for one in found]
        alarm = name.startswith(("clean", "rows said"))
        lines.append(f"| {name} | {100 * np.mean(values):.2f} % | {100 * (max if alarm else min)(values):.2f} % |")
    lines += [
        "",
        "| labels changed in | words' accuracy | found among the first 15 % | by a scorer that knew them | clean rows accused |",
    ]
    lines += ["|---|---|---|---|---|"]
    for name, one in noise.items():
        told = [one["accuracy"], one["found"], one["clean_scorer"], one["accused"]]
        lines.append(f"| {name} | " + " | ".join(f"{100 * value:.1f} %" for value in told) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(1, parser.parse_args().seeds + 1)
    found = [measure(seed) for seed in seeds]
    noise: dict[str, dict[str, float]] = {}
    for name in label_noise.SETS:
        texts, labels = label_noise.judged(name)
        each = [label_noise.measure(texts, labels, seed) for seed in seeds]
        noise[name] = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    results = {"date": str(date.today()), "planted": found, "label_noise": noise}
    (HERE / "results" / "doctor.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    told = table(found, noise)
    text = (
        f"# What the data doctor finds\n\n`make bench-doctor`, {results['date']}: defects planted in {ROWS:,} film reviews "
        f"(see `bench_doctor.py`), the mean and the worst of {len(found)} seeds; then labels changed in four sets.\n\n{told}\n"
    )
    (HERE / "doctor.md").write_text(text, encoding="utf-8")
    print(told)


if __name__ == "__main__":
    main()
