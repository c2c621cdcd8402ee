"""Files are there whole or not at all, in the safetensors format, and what the disk refuses is told in words.

What the tests of checkpoints on failing disks rest on: `runs.durable` and `runs.tensors`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from small_tokenizers import tokenizer

from pegbox.errors import RecipeError, TrainingError
from pegbox.runs import checkpoint, durable, tensors

# ---- files that are there whole ---------------------------------------------------------------------------------------

PARTS = (b"", b"a", bytes(range(256)) * 40, np.arange(999, dtype=np.uint8), b"end")
WHOLE = b"".join(bytes(part) for part in PARTS)


def check_written_whole(write: Callable[[Path, Iterable[Any]], durable.Written], path: Path) -> None:
    """On a disk that takes at most 100 bytes at once; a longer file stood there before."""
    path.write_bytes(b"x" * 2 * len(WHOLE))
    right = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: right(descriptor, data[:100]))
        written = write(path, PARTS)
    assert path.read_bytes() == WHOLE
    assert written == durable.Written(len(WHOLE), hashlib.sha256(WHOLE).hexdigest())
    assert written.sha256 == checkpoint.sha256(path)


def test_what_the_disk_takes_in_parts_is_written_whole(tmp_path: Path) -> None:
    check_written_whole(durable.write, tmp_path / "file")


def test_the_check_sees_a_write_that_is_not_completed(tmp_path: Path) -> None:
    def written_once(path: Path, parts: Iterable[Any]) -> durable.Written:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        for part in parts:
            os.write(descriptor, memoryview(part))
        os.close(descriptor)
        return durable.Written(len(WHOLE), hashlib.sha256(WHOLE).hexdigest())

    with pytest.raises(AssertionError):
        check_written_whole(written_once, tmp_path / "file")


# ---- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full: 1,000 bytes are needed, 345,678 are free\n  cure: free some space"),
        (errno.EDQUOT, "the disk is full: 1,000 bytes are needed, 345,678 are free\n  cure: free some space"),
        (errno.EROFS, "nothing can be written here (Read-only file system)\n  cure: make the folder writable"),
        (errno.EACCES, "nothing can be written here (Permission denied)\n  cure: make the folder writable"),
        (errno.EIO, "the disk failed (Input/output error)\n  cure: see that the disk is well"),
    ],
)
def test_what_the_disk_refuses_is_told_in_words(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "free", lambda path: 345_678)
    with pytest.raises(TrainingError) as raised, durable.explained(tmp_path, 1000):
        raise OSError(number, os.strerror(number))
    assert str(raised.value).startswith(f"{tmp_path}: {words}, then go on with")
    assert raised.value.exit_code == 4


def test_a_disk_with_too_little_left_is_told_with_both_numbers(tmp_path: Path) -> None:
    durable.refuse_full(tmp_path / "not" / "there", 1)
    with pytest.raises(
        TrainingError, match=r"the disk is full: 1,152,921,504,606,846,976 bytes are needed, [\d,]+ are free"
    ):
        durable.refuse_full(tmp_path / "not" / "there", 1 << 60)


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # as tokenizers raises it
    ],
)
def test_a_full_disk_told_by_another_library_is_a_full_disk(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the disk is full: [\d,]+ are free"), durable.explained(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("header too large"),
        Exception("no such thing"),
        ValueError("os error 28"),
        RecipeError("os error 28"),
    ],
)
def test_what_is_not_of_the_disk_stays_what_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, durable.explained(tmp_path):
        raise error
    assert raised.value is error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_tokenizer_that_the_disk_does_not_take_is_told(tmp_path: Path) -> None:
    """What the library really raises; `model/` is written by it."""
    with pytest.raises(TrainingError, match="the disk is full"), durable.explained(tmp_path):
        tokenizer("byte_level", "default_system").backend_tokenizer.save("/dev/full")


# ---- the safetensors format -------------------------------------------------------------------------------------------

NAMES = ("b", "a", "A", "layer.0.weight", "Gewicht-ä", "重み", "\U0001f3bb", 'quoted "\\" \n\t\x01\x7f')


def made(dtype: torch.dtype, name: str, draw: random.Random) -> torch.Tensor:
    """Numbers of this type in a shape that is drawn: empty, of no dimension, of several, transposed."""
    shape = draw.choice([(), (0,), (0, 4), (1,), (7,), (2, 3), (3, 1, 5)])
    tensor = torch.arange(max(1, int(np.prod(shape)))).to(dtype)[: int(np.prod(shape))].reshape(shape)
    return tensor.T if len(shape) == 2 and draw.random() < 0.5 else tensor


def check_format(parts: Callable[[dict[str, torch.Tensor]], Iterable[Any]], rounds: int = 20) -> None:
    """Byte for byte what the library writes, each type alone and types of several widths together."""
    draw = random.Random(0)
    mixed = (torch.float64, torch.float32, torch.bfloat16, torch.bool)
    for dtypes in [*((dtype,) for dtype in tensors.NAMES), mixed]:
        for _ in range(rounds):
            names = draw.sample(NAMES, draw.randint(0, len(NAMES)))
            given = {name: made(draw.choice(dtypes), name, draw) for name in names}
            held = b"".join(bytes(part) for part in parts(given))
            assert held == save({name: tensor.contiguous() for name, tensor in given.items()}), given


def test_a_file_of_tensors_is_what_the_library_writes() -> None:
    check_format(tensors.parts)


@pytest.mark.parametrize("bug", ["not padded", "names escaped", "not contiguous"])
def test_the_check_sees_another_format(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(given: dict[str, torch.Tensor]) -> Iterable[Any]:
        if bug == "not contiguous":  # as the numbers lie in memory
            given = {name: tensor.T if tensor.dim() == 2 else tensor for name, tensor in given.items()}
        header, *numbers = tensors.parts(given)
        text = bytes(header)[8:]
        if bug == "not padded":
            text = text.rstrip()
        if bug == "names escaped":
            text = json.dumps(json.loads(text), separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
        return [len(text).to_bytes(8, "little") + text, *numbers]

    with pytest.raises(AssertionError):
        check_format(parts)


def test_types_of_one_width_beside_each_other_are_read_back() -> None:
    given = {f"{dtype}": torch.arange(5).to(dtype) for dtype in tensors.NAMES}
    read = load(b"".join(bytes(part) for part in tensors.parts(given)))
    assert read.keys() == given.keys()
    assert all(read[name].dtype == tensor.dtype and torch.equal(read[name], tensor) for name, tensor in given.items())
    assert tensors.size(given) == 5 * sum(tensor.element_size() for tensor in given.values())
