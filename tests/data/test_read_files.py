"""Folders, archives and compressed files are read as what they hold, member by member; bombs and traps are refused."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from written_tables import TABLES

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, Remark, read, read_all, reading, text
from pegbox.data.sources.files import ENDINGS, LINES, TEXTS
from pegbox.errors import DataError
from pegbox.recipe.sources import FileSource

ROWS = [{"text": f"words {number}", "label": str(number % 3)} for number in range(50)]


def as_bytes(ending: str) -> bytes:
    """The ROWS (or for a text: their texts) as a file of some kind."""
    if ending in TABLES:
        return TABLES[ending](pyarrow.Table.from_pylist(ROWS))
    mark = {".csv": ",", ".tsv": "\t"}.get(ending)
    lines = [json.dumps(row) for row in ROWS]
    if mark:
        lines = [mark.join(cells) for cells in [["text", "label"], *(row.values() for row in ROWS)]]
    elif ending in TEXTS:
        lines = [row["text"] + "\n" for row in ROWS]
    return ("[" + ",".join(lines) + "]" if ending == ".json" else "\n".join(lines)).encode()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


def zipped(path: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def refused(source: str) -> DataError:
    with pytest.raises(DataError) as refusal:
        list(read([source]))
    assert refusal.value.where is not None and refusal.value.where.startswith(source) and refusal.value.cure
    return refusal.value


# ---- kinds -----------------------------------------------------------------------------------------------------------


def test_every_ending_that_is_promised_has_a_reader() -> None:
    assert set(reading.READERS) == set(ENDINGS)


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_is_read_as_it_is_and_the_texts_compressed(tmp_path: Path, ending: str, packed: str) -> None:
    path = tmp_path / f"rows{ending}{packed}"
    path.write_bytes(PACKERS[packed](as_bytes(ending)))
    if packed and ending in TABLES:
        assert "not read yet" in refused(str(path)).what
        return
    rows = read_all([str(path)])
    assert [row.values for row in rows] == ([{"text": row["text"]} for row in ROWS] if ending in TEXTS else ROWS)
    first = {".csv": 2, ".tsv": 2}.get(ending, 1)
    assert rows[0].where == f"{path}:{first}"


def test_an_archive_is_read_member_by_member_with_the_place_within(tmp_path: Path) -> None:
    endings = sorted({*LINES, *TABLES})
    file = zipped(tmp_path / "all.zip", {f"deep/rows{ending}": as_bytes(ending) for ending in endings})
    rows = read_all([file])
    assert [row.values for row in rows] == ROWS * len(endings)
    assert {row.where.rpartition(":")[0] for row in rows} == {f"{file}/deep/rows{ending}" for ending in endings}


def test_a_folder_of_texts_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    for name in ("b.txt", "a/z.md", "a/.hidden.txt", ".git/x.md", "c.md.gz", "picture.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(name.encode()) if name.endswith(".gz") else name.encode())
    (folder / "d.txt").touch()
    told: list[Remark] = []
    rows = list(read([FileSource(path=str(folder))], told))
    assert rows == [Row(f"{folder}/{name}:1", {"text": name}) for name in ("a/z.md", "b.txt", "c.md.gz")]
    assert {remark.where for remark in told} == {str(folder), f"{folder}/d.txt"}
    assert "1 of 5 files" in told[0].message


def test_a_folder_of_tables_is_read_and_its_name_may_end_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "rows.jsonl"
    folder.mkdir()
    for number in (2, 1):
        (folder / f"{number}.jsonl").write_text(f'{{"a": {number}}}')
    assert [row.values["a"] for row in read_all([str(folder)])] == [1, 2]


def test_texts_beside_rows_are_refused_for_it_is_unclear_what_is_meant(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about the rows")
    (tmp_path / "rows.jsonl").write_text("{}")
    assert "README.md" in refused(str(tmp_path)).what
    zipped(tmp_path / "both.zip", {"README.md": b"about", "rows.jsonl": b"{}"})
    assert "README.md" in refused(str(tmp_path / "both.zip")).what


# ---- traps -----------------------------------------------------------------------------------------------------------

TRAPS: dict[str, tuple[dict[str, bytes], str]] = {
    "a name that leads out of it": ({"../rows.jsonl": b"{}"}, "leads out"),
    "an absolute name": ({"/tmp/rows.jsonl": b"{}"}, "leads out"),
    "an archive within": ({"rows.zip": b"PK"}, "an archive within an archive"),
    "a compressed file within": ({"rows.jsonl.gz": gzip.compress(b"{}")}, "an archive within an archive"),
    "nothing to read": ({"picture.png": b"x"}, "no file that can be read"),
    "a bomb": ({"rows.jsonl": b" " * 200_000_000}, "as a bomb does"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_an_archive_is_refused(tmp_path: Path, trap: str) -> None:
    members, what = TRAPS[trap]
    assert what in refused(zipped(tmp_path / "trap.zip", members)).what
    assert os.listdir(tmp_path) == ["trap.zip"]


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    file = zipped(tmp_path / "secret.zip", {"rows.jsonl": b"{}"})
    data = bytearray(Path(file).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    Path(file).write_bytes(data)
    assert "encrypted" in refused(file).what


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("rows.jsonl", "{}")
        archive.writestr("rows.jsonl", "{}")
    assert "same name" in refused(str(tmp_path / "twice.zip")).what


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_bomb_is_refused_before_it_is_out(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"rows.txt{packed}"
    path.write_bytes(PACKERS[packed](b" " * 400_000_000))
    assert "as a bomb does" in refused(str(path)).what


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_much_text_that_compresses_as_rows_do_is_no_bomb(tmp_path: Path, packed: str) -> None:
    rows = "".join(f'{{"text": "customer {n} asks about an order", "label": "a"}}\n\n' for n in range(2_000_000))
    path = tmp_path / f"rows.txt{packed}"
    path.write_bytes(PACKERS[packed](rows.encode()))
    assert len(rows) > 100_000_000
    assert sum(len(piece) for piece in text.Text(next(reading.files_of(str(path), []))).pieces()) == len(rows)


@pytest.mark.parametrize(
    ("packed", "damage"),  # Arrow writes zstd without a checksum: there a changed byte is another text
    [
        (packed, damage)
        for packed in (".gz", ".zst", ".zip")
        for damage in ("cut off", "bytes changed", "something else")
        if (packed, damage) != (".zst", "bytes changed")
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, packed: str, damage: str) -> None:
    path = tmp_path / f"rows.jsonl{packed}"
    noise = b"".join(json.dumps({"a": os.urandom(40).hex()}).encode() + b"\n" for _ in range(5000))
    if packed == ".zip":
        zipped(path, {"rows.jsonl": noise})
    else:
        path.write_bytes(PACKERS[packed](noise))
    data = path.read_bytes()
    middle = len(data) // 2
    changed = data[:middle] + bytes(byte ^ 0x55 for byte in data[middle : middle + 64]) + data[middle + 64 :]
    path.write_bytes({"cut off": data[:middle], "bytes changed": changed, "something else": noise}[damage])
    assert "cannot be unpacked" in refused(str(path)).what


# ---- files that are none ---------------------------------------------------------------------------------------------


def test_what_is_no_file_of_rows_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    assert "device" in refused(str(tmp_path / "rows.jsonl")).what
    (tmp_path / "empty").mkdir()
    assert "no file that can be read" in refused(str(tmp_path / "empty")).what
    assert refused(str(tmp_path / ("long" * 100 + ".jsonl"))).cure
    assert "no such" in refused(f"{tmp_path}/a\0b.jsonl").what
    assert "'.xml.gz' are not read" in _made(tmp_path / "rows.xml.gz", gzip.compress(b"<a/>")).what


def _made(path: Path, data: bytes) -> DataError:
    path.write_bytes(data)
    return refused(str(path))


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", '{{"a": "{long}"}}\n{{"a": "b"}}\n'),
        ("rows.csv", "a,c\n{long},d\nb,d\n"),
        ("rows.csv", 'a,c\n"{lines}",d\nb,d\n'),
        ("rows.txt", "{long}\n\nb\n"),
        ("rows.txt", "{lines}\n\nb\n"),
    ],
)
def test_a_row_beyond_the_limit_is_refused_by_name_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    for module in ("text", "lines", "tables"):
        monkeypatch.setattr(f"pegbox.data.sources.{module}.ROW_LIMIT", 1000)
    path = tmp_path / name
    path.write_text(content.format(long="x" * 5000, lines="xxxx\n" * 1000 + "x"))
    refused, *_, last = read([str(path)])
    assert isinstance(refused, MalformedRow) and refused.where == f"{path}:{2 if name == 'rows.csv' else 1}"
    assert "longer than" in refused.why
    assert isinstance(last, Row) and "b" in last.values.values()


def test_a_value_of_an_array_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.data.sources.arrays.ROW_LIMIT", 1000)
    (tmp_path / "rows.json").write_text(json.dumps([{"a": "b"}, {"a": "x" * 500_000}]))
    assert "row 2 is longer than" in refused(str(tmp_path / "rows.json")).what


@pytest.mark.parametrize("ending", [*ENDINGS, ".jsonl.gz", ".csv.zst", ".zip"])
def test_memory_stays_flat_as_a_file_grows(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, _, packed = ending[1:].partition(".")
    peaks = []
    for count in (2_000, 40_000):
        monkeypatch.setattr("test_read_files.ROWS", [{"text": f"words {n * 7919}", "label": "a"} for n in range(count)])
        path = tmp_path / f"rows{ending}"
        if ending == ".zip":
            zipped(path, {"rows.jsonl": as_bytes(".jsonl")})
        else:
            path.write_bytes(PACKERS[f".{packed}" if packed else ""](as_bytes(f".{kind}")))
        list(zip(range(10), read([str(path)]), strict=False))  # what is imported by need
        tracemalloc.start()
        assert sum(1 for _ in read([str(path)])) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 200_000, peaks


def test_a_table_in_an_archive_is_held_in_memory_only_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pegbox.data.sources.files.WITHIN", 100)
    file = zipped(tmp_path / "rows.zip", {"rows.parquet": as_bytes(".parquet")})
    assert "within an archive" in refused(file).what
