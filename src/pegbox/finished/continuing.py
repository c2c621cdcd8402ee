"""What a recipe can go on from: a model, and what earlier training left, which is made into a model first.

A run, a checkpoint of one and a folder of PEFT's may hold just an update of a model. It is merged into that model, once, into
a folder of pegbox's cache: so an update never stands on another, and what is trained next is frozen or learnt as any model's
weights are. What cannot be merged (bottleneck adapters, virtual tokens) is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from pegbox.cache import FORMAT, built_once
from pegbox.errors import RecipeError
from pegbox.finished import whole
from pegbox.finished.run import Run
from pegbox.methods.lora_files import WEIGHTS
from pegbox.models import load as models
from pegbox.models import new_tokens, sources
from pegbox.models.licences import licence_of
from pegbox.models.sources import ADAPTER, CARD, ModelFolder
from pegbox.runs import checkpoint, receipt

HEADS = {"CAUSAL_LM": "causal_lm", "SEQ_CLS": "sequence_classification", "TOKEN_CLS": "token_classification"}
HEADS |= {"SEQ_2_SEQ_LM": "seq2seq", "FEATURE_EXTRACTION": "embedding"}
UNLABELLED = ("causal_lm", "seq2seq", "embedding")
CURE = "give a model, or a run of method full, freeze or lora"


@dataclass(frozen=True)
class Update:
    """What earlier training left of a model: `files` and `base` say which it is, `build` writes the merged model."""

    kind: str
    files: Mapping[str, str]
    base: Mapping[str, str]
    build: Callable[[Path], None]


def resolve(name: str) -> ModelFolder:
    """Find the model `name`; an update of a model is merged into it first. Raises RecipeError, with the cure."""
    update = _update(name)
    if update is None:
        return sources.resolve(name)

    def build(out: Path) -> None:
        update.build(out)
        if fault := sources.fault(out):  # as where another process of several writes for all
            raise RecipeError(f"the merged model {fault}", cure="start the command again")

    key = receipt.text_hash(json.dumps([sorted(update.files.items()), sorted(update.base.items())]))
    try:
        return ModelFolder(name, built_once(f"merged-{key[:32]}-{FORMAT}", build), f"{update.kind}, merged")
    except RecipeError as error:
        raise RecipeError(f"{name}: {error.what}", where="model", cure=error.cure or CURE) from error


def _update(name: str) -> Update | None:
    path = Path(os.path.expanduser(name))
    if not name.strip() or not path.is_dir():
        return None
    if (path / checkpoint.MANIFEST).is_file() and path.absolute().parent.name == "checkpoints":
        return _of_checkpoint(path)
    run = sources.run_of(path)
    if run is not None:
        saved_whole = (run / "model" / "config.json").is_file()
        return None if saved_whole or not (run / "model").is_dir() else _of_run(Run(run))
    if (path / ADAPTER).is_file() and not (path / "config.json").is_file():
        return _of_peft(path)
    return None


def _of_run(run: Run) -> Update:
    files = dict(checkpoint.hashes(run.folder.model))
    return Update("run", files, run.receipt["model"]["files"], lambda out: _save(run, whole.merged(run), out))


def _of_checkpoint(path: Path) -> Update:
    run = Run(path.absolute().parents[1])
    if not checkpoint.verifies(path):
        raise RecipeError(f"the checkpoint {path} is damaged", where="model", cure="give the one before it")
    files = dict(checkpoint.hashes(path)) | {"recipe": checkpoint.sha256(run.path / "recipe.yaml")}
    base = run.receipt["model"]["files"]
    return Update("checkpoint", files, base, lambda out: _save(run, whole.merged_checkpoint(run, path), out))


def _save(run: Run, model: Any, out: Path) -> None:
    renderer = run.task.renderer
    whole.save(model, renderer.tokenizer, sorted(renderer.stop_ids), out)
    _keep_licence(run.receipt["model"].get("licence"), out)


def _keep_licence(known: Mapping[str, str] | None, out: Path) -> None:
    """The base model's licence, where `licence_of` looks for it."""
    if known is not None:
        told = {"license": known["id"], "license_name": known.get("name"), "license_link": known.get("link")}
        block = yaml.safe_dump({key: value for key, value in told.items() if value}, allow_unicode=True)
        (out / CARD).write_text(f"---\n{block}---\n", encoding="utf-8")


# ---- a folder that PEFT wrote -----------------------------------------------------------------------------------------


def _of_peft(path: Path) -> Update:
    try:
        told = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
        name = told["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path / ADAPTER} cannot be read: {error}", where="model", cure=CURE) from None
    if not (path / WEIGHTS).is_file():
        raise RecipeError(f"the folder {path} has no {WEIGHTS}", where="model", cure="pickled weights are never read")
    if not isinstance(name, str) or Path(name).absolute() == path.absolute():
        raise RecipeError(f"{path / ADAPTER} names no base model: {name}", where="model", cure=CURE)
    try:
        base = resolve(name)
    except RecipeError as error:
        what = f"the base of the adapter {path} cannot be had: {error.what}"
        raise RecipeError(what, where="model", cure=error.cure) from error
    files = dict(checkpoint.hashes(path))
    hashes = {name: digest for name, digest in checkpoint.hashes(base.path) if name != CARD}
    return Update("adapter", files, hashes, lambda out: _merge_peft(path, told, base, out))


def _merge_peft(path: Path, told: Mapping[str, Any], base: ModelFolder, out: Path) -> None:
    """By PEFT itself, which knows all that it writes."""
    head = HEADS.get(str(told.get("task_type")))
    if head is None:
        what = f"the adapter is for {told.get('task_type')}, and pegbox merges those for {', '.join(HEADS)}"
        raise RecipeError(what, cure="merge it with PEFT, and give the merged model")
    try:
        from peft import PeftModel
    except ModuleNotFoundError:
        raise RecipeError("merging what PEFT wrote needs PEFT", cure="pip install 'pegbox[peft]'") from None
    before = models.load_tokenizer(base.path)
    tokenizer = models.load_tokenizer(path) if (path / "tokenizer_config.json").is_file() else before
    added = new_tokens.added(before, tokenizer)
    labels = [] if head in UNLABELLED else [f"LABEL_{index}" for index in range(_outputs(path))]
    model: Any = models.load_model(base.path, head, labels=labels, add_tokens=added, kernels=False)
    try:
        wrapper = PeftModel.from_pretrained(model, str(path))
        _refuse_misfit(path, wrapper)
        model = wrapper.merge_and_unload()
    except (AttributeError, KeyError, ValueError, RuntimeError, TypeError) as error:
        what = f"PEFT cannot merge the adapter ({told.get('peft_type')}): {error}"
        raise RecipeError(what, cure="give the base model, or an adapter that can be merged") from error
    whole.save(model, tokenizer, models.stop_ids(path) or models.stop_ids(base.path), out)
    _keep_licence(licence_of(base), out)


def _refuse_misfit(path: Path, wrapper: Any) -> None:
    """Raise RecipeError where a tensor of the adapter has no place, or a place no tensor: PEFT warns, and draws it anew."""
    from peft import get_peft_model_state_dict

    learnt = get_peft_model_state_dict(wrapper, save_embedding_layers=False).keys()
    with safe_open(path / WEIGHTS, "pt") as saved:
        stored = set(saved.keys())
    known = {*learnt, *wrapper.state_dict()}  # embeddings that were saved whole are the base model's
    if odd := sorted((learnt - stored) | (stored - known)):
        raise RecipeError(f"the adapter does not fit its base model: {', '.join(odd[:3])}", cure=CURE)


def _outputs(path: Path) -> int:
    """How many outputs the new head of a saved adapter has: the rows of the last layer that it holds whole."""
    try:
        with safe_open(path / WEIGHTS, "pt") as saved:
            shapes = {name: saved.get_slice(name).get_shape() for name in saved.keys()}  # noqa: SIM118, no mapping
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"the adapter cannot be read: {error}", where=str(path)) from None
    heads = [name for name in shapes if name.endswith(LAST_LAYERS)]
    if not heads:
        raise RecipeError("the adapter holds no head", where=str(path), cure="merge it with PEFT")
    return int(shapes[heads[0]][0])


LAST_LAYERS = (".score.weight", ".classifier.weight", ".out_proj.weight", ".classification_head.out_proj.weight")
