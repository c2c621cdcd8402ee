"""The forms in which a tuned model can be exported: who writes each, how it is loaded, and how far it may be from the model."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pegbox.errors import RecipeError
from pegbox.export import gguf, onnx
from pegbox.finished import whole
from pegbox.finished.run import Run
from pegbox.tasks.language import LanguageTask


@dataclass(frozen=True)
class Format:
    """A form of export. `write` fills a new folder from a run and gives what is loaded of it; `way`: see `export.reload`.

    `mean_kl`: how far its outputs may be (nats; None: nothing is promised); `exact`: no number was rounded.
    """

    write: Callable[[Run, Path], Path]
    way: Callable[[Run], str]
    mean_kl: float | None
    exact: bool = False


def _adapter(run: Run, out: Path) -> Path:
    if (run.folder.model / "config.json").is_file():
        raise RecipeError("the run trained a whole model, and no adapter", where="--format", cure="export it as merged")
    if _way_of_adapter(run) == "peft" and importlib.util.find_spec("peft") is None:
        raise RecipeError("the adapter is checked by PEFT, which is not there", cure="pip install 'pegbox[peft]'")
    shutil.copytree(run.folder.model, out, dirs_exist_ok=True)
    return out


def _merged(dtype: torch.dtype) -> Callable[[Run, Path], Path]:
    def write(run: Run, out: Path) -> Path:
        renderer = run.task.renderer
        model = whole.merged(run)
        whole.save(model, renderer.tokenizer, sorted(renderer.stop_ids), out, dtype=dtype)
        run.task.save_beside(model, out)
        return out

    return write


def _gguf(kind: str) -> Callable[[Run, Path], Path]:
    def write(run: Run, out: Path) -> Path:
        if run.task.head == "seq2seq":
            what = "no encoder-decoder is written as GGUF here"
            raise RecipeError(what, where="--format", cure="export merged, which other tools convert")
        if not isinstance(run.task, LanguageTask):
            raise RecipeError(f"a model of task '{run.task.kind}' writes no text", where="--format", cure="export onnx")
        with tempfile.TemporaryDirectory(dir=out.parent) as work:
            _merged(torch.float32)(run, Path(work))
            file = out / f"{run.path.absolute().name}-{kind}.gguf"
            gguf.write(Path(work), file, kind)
        return file

    return write


def _onnx(run: Run, out: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        _merged(torch.float32)(run, Path(work))
        onnx.write(Path(work), out)
    return out


def _way_of_adapter(run: Run) -> str:
    return "peft" if (run.folder.model / "adapter_config.json").is_file() else "own"


FORMATS: Mapping[str, Format] = {
    "adapter": Format(_adapter, _way_of_adapter, 1e-6, exact=True),
    "merged": Format(_merged(torch.float32), lambda run: "whole", 1e-6, exact=True),
    "merged-bf16": Format(_merged(torch.bfloat16), lambda run: "whole", 1e-3),
    "merged-f16": Format(_merged(torch.float16), lambda run: "whole", 1e-3),
    "gguf": Format(_gguf("f16"), lambda run: "gguf", 1e-3),
    "gguf-q8_0": Format(_gguf("q8_0"), lambda run: "gguf", 5e-2),
    "gguf-q4_0": Format(_gguf("q4_0"), lambda run: "gguf", None),
    "onnx": Format(_onnx, lambda run: "onnx", 1e-6, exact=True),
}
