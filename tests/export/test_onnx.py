"""A model written as ONNX answers as Transformers does, to batches of any size, and those that write text are refused."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import tiny_models
from pegbox.errors import RecipeError
from pegbox.export import onnx
from tiny_folder import encoder_decoder_folder

TOLERANCE = 1e-4
NAMES = ("input_ids", "attention_mask", "token_type_ids")
LABELS = {0: "no", 1: "perhaps", 2: "yes"}
LENGTHS = ([1], [8, 8], [2, 30, 1, 9, 8])  # a row alone, the traced sizes, ragged rows
ONE = {"num_hidden_layers": 1}
MANY: dict[str, Any] = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}


@dataclass(frozen=True)
class Exported:
    """A model, and the folder that it was written to."""

    model: Any
    out: Path


CASES: Mapping[str, tuple[str, Any, dict[str, Any]]] = {
    "text": ("bert", AutoModelForSequenceClassification, MANY | ONE),
    "words": ("distilbert", AutoModelForTokenClassification, MANY | {"n_layers": 1}),
    "masked": ("roberta", AutoModelForMaskedLM, ONE),
    # pooled at the last token that is no padding, and its config does not say which that is: the tokenizer does
    "decoder": ("llama", AutoModelForSequenceClassification, MANY | ONE | {"pad_token_id": None}),
}


def made(folder: Path, name: str, head: Any, options: Mapping[str, Any]) -> Any:
    """A tiny model in the folder, with a tokenizer that tells segments apart, whether or not the model reads them.

    The class that it names would cut texts otherwise, so that pegbox takes the tokenizer as it was published.
    """
    model = tiny_models.tiny(name, head=head, **options)
    model.save_pretrained(folder)
    tiny_models.save_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps(told | {"tokenizer_class": "BertTokenizer"}), encoding="utf-8")
    return model


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    work = tmp_path_factory.mktemp(request.param)
    model = made(work / "model", *CASES[request.param])
    model.config.pad_token_id = 0
    onnx.write(work / "model", work / "out")
    return Exported(model, work / "out")


def names_of(model: Any) -> tuple[str, ...]:
    """The inputs of the model."""
    return NAMES if model.config.model_type in ("bert", "roberta") else NAMES[:2]


def ragged(lengths: Sequence[int], seed: int = 1) -> dict[str, np.ndarray]:
    """Rows of these lengths, padded on the right with the padding token; the second half is another segment."""
    shape = (len(lengths), max(lengths))
    ids, mask, types = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    for index, row in enumerate(tiny_models.rows(lengths, seed=seed)):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
        types[index, len(row) // 2 : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@torch.no_grad()
def expected(model: Any, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """What Transformers computes."""
    answer: np.ndarray = model(**{name: torch.tensor(batch[name]) for name in names_of(model)})[0].numpy()
    return answer


def largest_difference(model: Any, out: Path) -> float:
    """Over the real tokens (or rows) of all batches."""
    answer, worst = onnx.load(out), 0.0
    for lengths in LENGTHS:
        batch = ragged(lengths)
        ours, theirs = answer(batch), expected(model, batch)
        assert ours.shape == theirs.shape and ours.dtype == np.float32
        apart = np.abs(ours - theirs)
        worst = max(worst, float((apart[batch["attention_mask"] == 1] if apart.ndim == 3 else apart).max()))
    return worst


def test_answers_are_those_of_transformers_for_batches_of_other_sizes(exported: Exported) -> None:
    assert largest_difference(exported.model, exported.out) < TOLERANCE


def test_a_batch_at_once_is_the_rows_alone(exported: Exported) -> None:
    batch = ragged([2, 30, 1, 9, 8])
    together = onnx.outputs(exported.out, batch)
    for index, length in enumerate([2, 30, 1, 9, 8]):
        alone = onnx.outputs(exported.out, {key: value[index : index + 1, :length] for key, value in batch.items()})
        row = together[index, :length] if together.ndim == 3 else together[index]
        np.testing.assert_allclose(row, alone[0], atol=TOLERANCE)


def test_labels_and_tokenizer_lie_beside_the_model(exported: Exported) -> None:
    config = type(exported.model.config).from_pretrained(exported.out)
    assert config.id2label == exported.model.config.id2label
    assert config.architectures == [type(exported.model).__name__]
    tokenizer = AutoTokenizer.from_pretrained(exported.out)
    assert tokenizer.pad_token_id == 0
    assert set(tokenizer("w5 w9")) == set(NAMES) and tokenizer("w5 w9")["input_ids"] == [5, 9]


def test_the_file_is_whole_names_its_axes_and_holds_no_paths(exported: Exported) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.out / "model.onnx")
    axes = ["batch", "sequence"]
    assert [(one.name, one.shape) for one in session.get_inputs()] == [(n, axes) for n in names_of(exported.model)]
    (output,) = session.get_outputs()
    assert output.name == "logits" and output.shape[0] == "batch"
    assert not list(exported.out.glob("*.data"))
    assert str(Path(torch.__file__).parent).encode() not in (exported.out / "model.onnx").read_bytes()


def test_a_bare_encoder_gives_hidden_states_and_large_weights_lie_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = made(tmp_path / "model", "bert", AutoModel, ONE)
    monkeypatch.setattr(onnx, "LARGEST", 0)
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(record=True) as told:
        onnx.write(tmp_path / "model", tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx.data").is_file()
    assert largest_difference(model, tmp_path / "out") < TOLERANCE
    # and without a word, but with the loggers as they were
    assert capfd.readouterr() == ("", "") and told == [] and logging.getLogger("torch.onnx").level == level


def test_the_comparison_sees_an_export_that_ignores_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = onnx.Answers.forward

    def blind(self: Any, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        return forward(self, input_ids, attention_mask | 1, token_type_ids)

    monkeypatch.setattr(onnx.Answers, "forward", blind)
    model = made(tmp_path / "model", *CASES["text"])
    onnx.write(tmp_path / "model", tmp_path / "out")
    assert largest_difference(model, tmp_path / "out") > 100 * TOLERANCE


# --- refusals ---


def refused(folder: Path, out: Path) -> RecipeError:
    """The refusal; it leaves nothing behind."""
    with pytest.raises(RecipeError) as caught:
        onnx.write(folder, out)
    assert not out.exists()
    return caught.value


def test_a_model_that_writes_text_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "causal", "llama", AutoModelForCausalLM, {})
    for folder in (tmp_path / "causal", encoder_decoder_folder(tmp_path / "seq2seq")):
        refusal = refused(folder, tmp_path / "out")
        assert "writes text" in refusal.what and refusal.cure == "export it as gguf, or as merged"


def test_a_head_that_no_task_has_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "model", "bert", AutoModelForQuestionAnswering, {})
    assert "BertForQuestionAnswering" in refused(tmp_path / "model", tmp_path / "out").what


def test_what_the_exporter_cannot_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "model", *CASES["text"])

    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("no such operation\nand a long story")

    monkeypatch.setattr(torch.onnx, "export", fail)
    refusal = refused(tmp_path / "model", tmp_path / "out")
    assert refusal.what.endswith("as ONNX: no such operation") and refusal.cure == "export it as merged"


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refusal = refused(tmp_path, tmp_path / "out")
    assert package in refusal.what and refusal.cure == "pip install 'pegbox[onnx]'"
