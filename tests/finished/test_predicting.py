"""Batch predictions: the same answers in the same order whatever the chunk, the format and how often it was killed."""

from __future__ import annotations

import csv
import io
import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import pegbox
from pegbox.data import sources
from pegbox.errors import DataError, RecipeError
from pegbox.finished import Run, predicting
from pegbox.finished.answer_files import COLUMNS, WRITERS
from pegbox.finished.predicting import predict
from tiny_folder import causal_folder, chat_recipe, sums, write_rows

COUNT, CHUNK = 30, 4
BAD = {7: '{"prompt": "7 and', 8: '{"question": "8 and 8"}', 20: json.dumps({"prompt": "word " * 1100})}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicting")
    rows = write_rows(folder / "rows.jsonl", sums(90))
    train = {"max_steps": 30, "batch_size": 8, "learning_rate": 3e-2}
    pegbox.train(chat_recipe(causal_folder(folder / "model"), rows, train=train), run_dir=folder / "run")
    asked = [{"prompt": "tell me: " * (n % 5) + row["prompt"]} for n, row in enumerate(sums(COUNT, seed=5))]
    write_rows(folder / "asked.jsonl", asked)
    predict(folder / "run", folder / "asked.jsonl", folder / "whole.jsonl", rows_at_once=CHUNK)
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    """The run, loaded once."""
    return Run(home / "run")


@pytest.fixture(autouse=True)
def one_model(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Tests of this process need not load the model each time."""
    if "run" in request.fixturenames:
        run = request.getfixturevalue("run")
        monkeypatch.setattr(predicting, "Run", lambda path: run)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- what is answered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, CHUNK, COUNT, 1000])
def test_answers_are_those_of_one_batch_in_the_order_of_the_rows(
    home: Path, run: Run, tmp_path: Path, chunk: int
) -> None:
    asked, file = lines(home / "asked.jsonl"), home / "asked.jsonl"
    assert predict(home / "run", file, tmp_path / "out.jsonl", rows_at_once=chunk) == COUNT
    wanted = [
        {"id": f"{file}:{number}", "input": row["prompt"], "answer": answer}
        for number, (row, answer) in enumerate(zip(asked, run.predict(asked), strict=True), start=1)
    ]
    assert lines(tmp_path / "out.jsonl") == wanted
    assert len({line["answer"] for line in wanted}) > 1, "rows out of order would not show"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"], "nothing is left lying about"


def test_a_row_that_cannot_be_answered_says_why_and_the_others_are_answered(
    home: Path, run: Run, tmp_path: Path
) -> None:
    good = (home / "asked.jsonl").read_text().splitlines()
    mixed = [BAD.get(number, line) for number, line in enumerate(good, start=1)]
    (tmp_path / "mixed.jsonl").write_text("\n".join(mixed) + "\n")
    with pytest.raises(DataError, match=f"{len(BAD)} of {COUNT} rows could not be answered") as raised:
        predict(home / "run", tmp_path / "mixed.jsonl", tmp_path / "out.jsonl", rows_at_once=CHUNK)
    assert raised.value.exit_code == 3
    found, whole = lines(tmp_path / "out.jsonl"), lines(home / "whole.jsonl")
    assert [line["id"].rpartition(":")[2] for line in found] == [str(n) for n in range(1, COUNT + 1)]
    errors = {number: line["error"] for number, line in enumerate(found, start=1) if "error" in line}
    assert set(errors) == set(BAD)
    for number, why in {7: "not JSON", 8: "the row has question", 20: "the model takes 1 to 1024"}.items():
        assert why in errors[number]
    for line, other in zip(found, whole, strict=True):
        assert "error" in line or (line["input"], line["answer"]) == (other["input"], other["answer"])


def test_a_file_of_bad_rows_only_is_written_too(home: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("nonsense\n" * 6)
    with pytest.raises(DataError, match="6 of 6"):
        predict(home / "run", tmp_path / "bad.jsonl", tmp_path / "out.jsonl", rows_at_once=CHUNK)
    assert [set(line) for line in lines(tmp_path / "out.jsonl")] == [{"id", "error"}] * 6


def test_never_more_than_a_chunk_is_held(home: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where rows come in and where answers go out, for a file of any length."""
    inside, most = 0, 0

    def counted(files: list[str]) -> Iterator[Any]:
        nonlocal inside, most
        for row in sources.read(files):
            inside += 1
            most = max(most, inside)
            yield row

    right = predicting.Partial.add

    def gone(self: predicting.Partial, found: Any) -> None:
        nonlocal inside
        right(self, found)
        inside -= len(found)

    monkeypatch.setattr(predicting.Partial, "add", gone)
    monkeypatch.setattr(predicting, "_count", lambda file: COUNT)
    monkeypatch.setattr(predicting, "read", counted)
    predict(home / "run", home / "asked.jsonl", tmp_path / "out.jsonl", rows_at_once=CHUNK)
    assert inside == 0
    assert most == CHUNK


# ---- formats ---------------------------------------------------------------------------------------------------------

TRICKY = ['quote " comma , tab \t', "line\nbreak\r\n", "=1+1", "Ärger 北京 👩‍👧 \u2028", ""]


def read_table(path: Path) -> list[dict[str, Any]]:
    delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix]
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file, delimiter=delimiter)]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if v} for row in parquet.read_table(path).to_pylist()]


def read_json(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [{k: v for k, v in row.items() if v} for row in found]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return [{k: v for k, v in json.loads(line).items() if v} for line in text.split("\n") if line]


BACK: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
}


@pytest.mark.parametrize("ending", sorted(WRITERS))
def test_every_format_says_the_same(
    home: Path, run: Run, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read back by others than pegbox; answers hold all that a format might trip over."""
    answers = iter(TRICKY * COUNT)

    def tricky(records: Any, advance: Any) -> Any:
        return type("Answers", (), {"answers": [next(answers) for _ in records]})

    monkeypatch.setattr(run, "served", tricky)
    good = (home / "asked.jsonl").read_text().splitlines()
    (tmp_path / "asked.jsonl").write_text("\n".join([*good[:9], "nonsense", *good[9:]]))
    out = tmp_path / f"out{ending.upper() if ending == '.csv' else ending}"
    with pytest.raises(DataError, match=f"1 of {COUNT + 1}"):
        predict(home / "run", tmp_path / "asked.jsonl", out, rows_at_once=CHUNK)
    found = BACK[ending](out.rename(out.with_suffix(ending)))
    assert [row["id"].rpartition(":")[2] for row in found] == [str(n) for n in range(1, COUNT + 2)]
    assert "error" in found[9]
    assert [row.get("answer", "") for row in found if "error" not in row] == (TRICKY * COUNT)[:COUNT]
    assert {key for row in found for key in row} == set(COLUMNS)


def test_pegbox_reads_the_tables_it_writes(home: Path, run: Run, tmp_path: Path) -> None:
    for ending in WRITERS:
        predict(home / "run", home / "asked.jsonl", tmp_path / f"out{ending}")
        rows = sources.read_all([str(tmp_path / f"out{ending}")])
        assert [row.values["answer"] for row in rows] == [line["answer"] for line in lines(home / "whole.jsonl")]


def test_rows_come_in_any_format_that_is_trained_from(home: Path, run: Run, tmp_path: Path) -> None:
    asked = lines(home / "asked.jsonl")[:6]
    with (tmp_path / "asked.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["prompt"])
        table.writeheader()
        table.writerows(asked)
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    for name in ("asked.csv", "asked.json"):
        predict(home / "run", tmp_path / name, tmp_path / f"{name}.jsonl")
        found = [line["answer"] for line in lines(tmp_path / f"{name}.jsonl")]
        assert found == [line["answer"] for line in lines(home / "whole.jsonl")[:6]]


def test_a_dash_is_stdin_or_stdout(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (home / "asked.jsonl").read_bytes() + b"nonsense\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    with pytest.raises(DataError, match=f"1 of {COUNT + 1}"):
        predict(home / "run", "-", "-", rows_at_once=CHUNK)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in found] == [f"stdin:{number}" for number in range(1, COUNT + 2)]
    assert [line["answer"] for line in found[:-1]] == [line["answer"] for line in lines(home / "whole.jsonl")]


# ---- refused before anything is answered -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "told"),
    [("there.jsonl", "exists already"), ("out.xlsx", r"\.jsonl, \.json, \.csv"), ("no/out.csv", "does not exist")],
)
def test_an_output_that_cannot_be_is_refused_at_once(
    home: Path, run: Run, tmp_path: Path, out: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.jsonl").write_text("mine")
    monkeypatch.setattr(run, "served", None)
    with pytest.raises(RecipeError, match=told):
        predict(home / "run", home / "asked.jsonl", tmp_path / out)
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.jsonl"]


# ---- going on --------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    pass


def part(home: Path, run: Run, folder: Path, chunks: int, raised: type[BaseException] = KilledError) -> Path:
    """The partial file as it stands when so many chunks have been kept."""
    folder.mkdir(parents=True, exist_ok=True)
    told = [0]

    def answers(records: Any, advance: Any) -> Any:
        told[0] += 1
        if told[0] > chunks:
            raise raised
        return Run.answers(run, records, advance)

    run.served = answers  # type: ignore[method-assign]
    try:
        with pytest.raises(raised):
            predict(home / "run", home / "asked.jsonl", folder / "out.jsonl", rows_at_once=CHUNK)
    finally:
        del run.served
    assert not (folder / "out.jsonl").exists()
    return folder / "out.jsonl.partial"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), zeros=st.sampled_from([0, 1, 40, 20000]))
def test_it_goes_on_from_wherever_the_file_ends_to_the_same_bytes(
    home: Path, run: Run, tmp_path_factory: pytest.TempPathFactory, share: float, zeros: int
) -> None:
    """Cut at any byte, also with zeros behind, as a crashed machine may leave it."""
    if not (home / "part").exists():
        part(home, run, home / "part", chunks=5)
    folder = tmp_path_factory.mktemp("cut")
    partial = Path(shutil.copy(home / "part" / "out.jsonl.partial", folder))
    whole = partial.read_bytes()
    cut = round(share * len(whole))
    behind = b"\0" * zeros if cut > whole.index(b"\n") else b""
    partial.write_bytes(whole[:cut] + behind)
    predict(home / "run", home / "asked.jsonl", folder / "out.jsonl", rows_at_once=CHUNK)
    assert (folder / "out.jsonl").read_bytes() == (home / "whole.jsonl").read_bytes()
    assert not partial.exists()


@pytest.mark.parametrize(("lost", "done"), [(0, 5), (1, 4), (200, 4)], ids=["whole", "a line torn", "lines lost"])
def test_what_is_kept_is_not_answered_again_and_the_rest_in_the_same_batches(
    home: Path, run: Run, tmp_path: Path, lost: int, done: int
) -> None:
    """The order of floating-point sums depends on the batch, and close calls on that."""
    partial = part(home, run, tmp_path, chunks=5)
    with partial.open("r+b") as file:
        file.truncate(partial.stat().st_size - lost)
    asked: list[list[int]] = []

    def answers(records: Any, advance: Any) -> Any:
        asked.append([int(record.where.rpartition(":")[2]) for record in records])
        return Run.answers(run, records, advance)

    run.served = answers  # type: ignore[method-assign]
    try:
        predict(home / "run", home / "asked.jsonl", tmp_path / "out.jsonl", rows_at_once=CHUNK)
    finally:
        del run.served
    numbers = list(range(1, COUNT + 1))
    assert asked == [numbers[start : start + CHUNK] for start in range(done * CHUNK, COUNT, CHUNK)]


def test_rows_refused_before_a_stop_are_counted_at_the_end(home: Path, run: Run, tmp_path: Path) -> None:
    good = (home / "asked.jsonl").read_text().splitlines()
    (tmp_path / "asked.jsonl").write_text("\n".join(["nonsense", *good]))
    part(tmp_path, run, tmp_path, chunks=5)
    with pytest.raises(DataError, match=f"1 of {COUNT + 1}"):
        predict(tmp_path / "run", tmp_path / "asked.jsonl", tmp_path / "out.jsonl", rows_at_once=CHUNK)


def test_ctrl_c_keeps_the_answers_and_says_how_to_go_on(
    home: Path, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pegbox"):
        partial = part(home, run, tmp_path, chunks=3, raised=KeyboardInterrupt)
    assert f"{3 * CHUNK} of {COUNT} answers are kept in {partial}" in caplog.text
    assert "same command" in caplog.text


@pytest.mark.parametrize("changed", ["data", "name", "model", "recipe"])
def test_other_data_or_another_model_does_not_go_on(
    home: Path, run: Run, tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = part(home, run, tmp_path, chunks=2)
    before, asked = partial.read_bytes(), home / "asked.jsonl"
    if changed in ("data", "name"):
        asked = tmp_path / "asked.jsonl"
        asked.write_bytes((home / "asked.jsonl").read_bytes() + (b"\n" if changed == "data" else b""))
    else:
        other = shutil.copytree(home / "run", tmp_path / "run")
        file = other / ("recipe.yaml" if changed == "recipe" else "model/adapter_model.safetensors")
        file.write_bytes(file.read_bytes() + b"\n")
        monkeypatch.setattr(run, "path", other)
        monkeypatch.setattr(run, "folder", type(run.folder)(other))
    with pytest.raises(RecipeError, match="other data or another model") as raised:
        predict(home / "run", asked, tmp_path / "out.jsonl", rows_at_once=CHUNK)
    assert raised.value.cure
    assert partial.read_bytes() == before


@pytest.mark.parametrize("text", ["my notes", "my notes\n", '{"answers of": "another"}\n'])
def test_a_file_of_anothers_in_the_way_is_left_alone(home: Path, run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "out.jsonl.partial").write_text(text)
    with pytest.raises(RecipeError):
        predict(home / "run", home / "asked.jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl.partial").read_text() == text


# ---- killed for real -------------------------------------------------------------------------------------------------

SCRIPT = "import sys; from pegbox.finished.predicting import predict; predict(*sys.argv[1:4], rows_at_once=2)"


@pytest.fixture(scope="module")
def long(home: Path) -> tuple[Path, bytes]:
    """A file of rows, and its answers without a stop."""
    asked = write_rows(home / "long.jsonl", sums(80, seed=9))
    predict(home / "run", asked, home / "long.out.jsonl", rows_at_once=2)
    return asked, (home / "long.out.jsonl").read_bytes()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_process_killed_anywhere_ends_in_the_same_bytes(
    home: Path, long: tuple[Path, bytes], tmp_path: Path, seed: int
) -> None:
    (asked, whole), draw = long, random.Random(seed)
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    command = [sys.executable, "-c", SCRIPT, str(home / "run"), str(asked), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wanted, until = draw.randrange(400, len(whole) // 2), time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if partial.exists() and partial.stat().st_size > wanted:
            break
        time.sleep(0.002)
    time.sleep(draw.random() / 100)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists() and not out.exists(), "it was killed too late"
    assert partial.stat().st_size > wanted
    predict(home / "run", asked, out, rows_at_once=2)
    assert out.read_bytes() == whole


def test_sigint_ends_the_command_cleanly_and_it_can_go_on(home: Path, long: tuple[Path, bytes], tmp_path: Path) -> None:
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    words = ["predict", str(home / "run"), "--data", str(long[0]), "--out", str(out)]
    small = "from pegbox.finished.predicting import predict; predict.__kwdefaults__['rows_at_once'] = 2; "
    command = [sys.executable, "-c", small + "from pegbox.cli import main; main()", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 4) and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "same command" in told
    predict(home / "run", long[0], out, rows_at_once=2)
    assert out.read_bytes() == long[1]
