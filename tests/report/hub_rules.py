"""What the hub refuses in a model card, as far as that is known without asking it.

`ModelCard.validate` posts the card to the hub. The rules here are those of its specification (`modelcard.md` and the list
of licences in the hub's documentation) and of the refusals that users have reported: a licence outside the list, a base
model that is no name of the hub's, a `model-index` without results, an entry without type, name or value, a `config` that
is no text, a field that is null. Names and tasks are checked by the hub's own libraries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id
from transformers.pipelines import get_supported_tasks

LICENCES = r"""apache-2\.0|mit|openrail(\+\+)?|[a-z]+-openrail-m|bigscience-bloom-rail-1\.0|afl-3\.0|artistic-2\.0|bsl-1\.0
|bsd(-[23]-clause(-clear)?)?|c-uda|cc|cc0-1\.0|cc-by(-nc)?(-nd|-sa)?-[234]\.[05]|cdla-(sharing|permissive)-[12]\.0|wtfpl
|e[cp]l-[12]\.0|etalab-2\.0|eupl-1\.[12]|agpl-3\.0|gfdl|l?gpl(-[23]\.[01]|-lr)?|isc|(h|intel)-research|lppl-1\.3c|ms-pl
|apple-(ascl|amlr)|mpl-2\.0|odc-by|odbl|openmdw-1\.[01]|osl-3\.0|postgresql|ofl-1\.1|ncsa|unlicense|zlib|pddl
|deepfloyd-if-license|fair-noncommercial-research-license|llama(2|3|3\.1|3\.2|3\.3|4)|grok2-community|gemma|unknown|other"""
LIBRARIES = (
    "peft",
    "sentence-transformers",
    "transformers",
)  # of those that the hub knows, the ones that can load what pegbox saves
TASKS = (*get_supported_tasks(), "sentence-similarity")  # which the hub has from sentence-transformers
RELATIONS = ("adapter", "finetune", "merge", "quantized")


def hub_faults(card: str) -> list[str]:
    """Why the hub would not take a card; nothing where it would."""
    block = REGEX_YAML_BLOCK.search(card)
    if block is None:
        return ["there is no metadata block"]
    values = yaml.safe_load(block[2])
    return [f"{where} {fault}" for where, fault in (*_nulls(values), *_own(values), *_index(values))]


def _nulls(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        place = f"{where}[{key}]" if isinstance(value, list) else f"{where}.{key}".lstrip(".")
        if part is None or (isinstance(part, float) and not math.isfinite(part)):
            yield place, f"is {part}"
        yield from _nulls(part, place)


def _own(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    licence = values.get("license", "other")
    if not isinstance(licence, str) or not re.fullmatch(LICENCES.replace("\n", ""), licence):
        yield "license", "is not one of the hub's"
    if "license_name" in values and not re.fullmatch(r"[a-z0-9.+-]+", values["license_name"]):
        yield "license_name", "is no identifier"
    if "license_link" in values and not values["license_link"].startswith("https://"):
        yield "license_link", "leads nowhere"
    if "base_model" in values:
        try:
            validate_repo_id(values["base_model"])
        except HFValidationError:
            yield "base_model", "is not valid"
    if values.get("base_model_relation", "adapter") not in RELATIONS or (
        "base_model_relation" in values and "base_model" not in values
    ):
        yield "base_model_relation", "is none"
    if values.get("library_name") not in LIBRARIES:
        yield "library_name", "is unknown"
    if values.get("pipeline_tag") not in TASKS:
        yield "pipeline_tag", "is unknown"
    tags = values.get("tags")
    if (
        not isinstance(tags, list)
        or not all(isinstance(tag, str) and tag for tag in tags)
        or len(set(tags)) < len(tags)
    ):
        yield "tags", "must be texts, each once"
    if "datasets" in values or "language" in values:
        yield "datasets, language", "are not known to a run"


def _index(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for number, entry in enumerate(values.get("model-index", ())):
        where = f"model-index[{number}]"
        yield from _texts(entry, where, needed=("name",))
        if not entry.get("results"):
            yield f"{where}.results", "is required"
        for place, result in enumerate(entry.get("results", ())):
            yield from _result(result, f"{where}.results[{place}]")


def _result(result: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    yield from _texts(result.get("task", {}), f"{where}.task", needed=("type",), more=("name",))
    dataset = result.get("dataset", {})
    yield from _texts(dataset, f"{where}.dataset", needed=("type", "name"), more=("config", "split", "revision"))
    if not isinstance(dataset.get("args", {}), dict):
        yield f"{where}.dataset.args", "must be an object"
    if not isinstance(result.get("metrics"), list) or not result["metrics"]:
        yield f"{where}.metrics", "must be an array"
        return
    for number, metric in enumerate(result["metrics"]):
        place = f"{where}.metrics[{number}]"
        yield from _texts(metric, place, needed=("type",), more=("name", "config"))
        if not isinstance(metric.get("value"), int | float | str) or isinstance(metric["value"], bool):
            yield f"{place}.value", "is required"
        if {"verified", "verifyToken"} & metric.keys():
            yield f"{place}.verified", "is the hub's own"


def _texts(
    values: dict[str, Any], where: str, *, needed: tuple[str, ...], more: tuple[str, ...] = ()
) -> Iterator[tuple[str, str]]:
    for key in (*needed, *more):
        if key in needed and key not in values:
            yield f"{where}.{key}", "is required"
        elif key in values and (not isinstance(values[key], str) or not values[key]):
            yield f"{where}.{key}", "must be a string"
