"""A model with a head, or a bare encoder -> one `model.onnx` that onnxruntime computes without PyTorch.

    input_ids, attention_mask (token_type_ids)  int64 [batch, sequence]   ->   logits   float32
        [batch, labels] of a text, [batch, sequence, labels] of its words or masked tokens;
        of a bare encoder: last_hidden_state [batch, sequence, hidden]

Both axes are free. The weights are written in float32, within the file; a file of that kind (protobuf) ends at 2 GiB, so
those of a larger model lie beside it, in `model.onnx.data`.

PyTorch has two exporters. The one used reads the program (`torch.export`): what hangs on the values of the traced batch
is an error. The older one records what the traced batch did, and would write a model that is right for its sizes alone.
Left out are the notes that the exporter makes on every operation: they are larger than a small model, and hold the paths
of this machine.

A model that writes text is refused: it needs a loop and a cache around it, and other programs have those for GGUF.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.models.load import heads_of, load_model, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Batch = Mapping[str, NDArray[np.int64]]

FILE = "model.onnx"
LARGEST = 2**31 - 2**26  # bytes of weights that fit in one file, with room for the graph
HEADS = {"ForSequenceClassification": "sequence_classification", "ForTokenClassification": "token_classification"}
TRACED = (2, 8)  # no axis of 0 or 1, which an exporter takes for fixed


def write(folder: Path, out: Path) -> None:
    """Write the model in `folder` (the hub's layout) as `out`/model.onnx, with its tokenizer and config beside it.

    Raises RecipeError where the packages are missing, the model writes text or is of no kind that is exported, or
    PyTorch cannot export it; then nothing is written.
    """
    _require_packages()
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    model, tokenizer = _load(folder), load_tokenizer(folder)
    program = _exported(model, _input_names(model, tokenizer.model_input_names), str(folder))
    ClearMetadataAndDocStringPass()(program.model)
    out.mkdir(parents=True, exist_ok=True)
    program.save(out / FILE, external_data=_bytes(model) > LARGEST)
    model.config.save_pretrained(out)
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # or its file leaves them out
    tokenizer.save_pretrained(out)


def outputs(folder: Path, batch: Batch) -> NDArray[np.float32]:
    """What the exported model in `folder` answers to a batch: int64 [B, T] by the names of its inputs, and more."""
    return load(folder)(batch)


def load(folder: Path) -> Callable[[Batch], NDArray[np.float32]]:
    """The exported model in `folder`, for many batches. It takes as many threads as PyTorch has."""
    _require_packages()
    import onnxruntime  # type: ignore[import-untyped]

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3  # errors, and no remarks on the graph
    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(folder / FILE, settings, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def answer(batch: Batch) -> NDArray[np.float32]:
        (found,) = session.run(None, {name: np.asarray(batch[name], dtype=np.int64) for name in names})
        return np.asarray(found, dtype=np.float32)

    return answer


def _require_packages() -> None:
    """Raises RecipeError where the extra `onnx` is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        what = f"writing ONNX needs the package {error.name}"
        raise RecipeError(what, where="onnx", cure="pip install 'pegbox[onnx]'") from error


def _load(folder: Path) -> PreTrainedModel:
    """The folder's model as it was saved, in float32. Raises RecipeError where it is of no kind that is exported."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    architecture = (config.architectures or ["without a name"])[0]
    brought = heads_of(folder)
    if brought & {"causal_lm", "seq2seq"}:
        cure = "export it as gguf, or as merged"
        raise RecipeError(
            f"the model writes text ({architecture}), which needs more than one graph", where=str(folder), cure=cure
        )
    if "masked_lm" in brought:
        return load_model(folder, "masked_lm", kernels=False)
    for end, head in HEADS.items():
        if architecture.endswith(end):
            return load_model(folder, head, kernels=False)
    if not architecture.endswith("Model") or config.is_encoder_decoder:
        cure = "ONNX is for an encoder, or a model that classifies; export this one as merged"
        raise RecipeError(f"no model of the kind {architecture} is written as ONNX", where=str(folder), cure=cure)
    return load_model(folder, "embedding", kernels=False)


def _input_names(model: PreTrainedModel, given: list[str]) -> list[str]:
    """The model's inputs; token types where the tokenizer gives them and the model reads them."""
    read = inspect.signature(model.forward).parameters
    types = ["token_type_ids"] if "token_type_ids" in given and "token_type_ids" in read else []
    return ["input_ids", "attention_mask", *types]


class Answers(nn.Module):
    """A model as a function from its inputs to one tensor."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.output = "last_hidden_state" if model.base_model is model else "logits"

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Inputs [B, T] -> the head's output, or the hidden states."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        answer: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)[self.output]
        return answer


def _exported(model: PreTrainedModel, names: list[str], where: str) -> torch.onnx.ONNXProgram:
    """The model as a graph, from a batch of ones."""
    answers = Answers(model).eval()
    try:
        with _quiet():
            program = torch.onnx.export(
                answers,
                kwargs={name: torch.ones(TRACED, dtype=torch.int64) for name in names},
                dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in names},
                input_names=names,
                output_names=[answers.output],
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        what = f"PyTorch cannot write this model as ONNX: {reason}"
        raise RecipeError(what, where=where, cure="export it as merged") from error
    assert program is not None
    return program


def _bytes(model: PreTrainedModel) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not here and on PyTorch's own code."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
