"""The metadata block of the model card: YAML that the hub reads, validates and searches by.

The specification is `modelcard.md` of the hub's documentation. What the hub refuses, and what follows for this block:
a `license` outside its list (another is `other` with its `license_name`); a `base_model` that is not the name of a model
on the hub (a folder's or a file's is left out); a `model-index` whose entries lack a type, a value or a name (a value that
is not finite is left out, and with the last of them the index); null anywhere. `verified` is the hub's own to set.
`datasets` must name data sets of the hub: files are told under `pegbox`, a key of our own, by name and SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from pegbox.data.fingerprint import belongs
from pegbox.evaluation.verdict import TUNED
from pegbox.recipe import Recipe
from pegbox.recipe.sources import Source
from pegbox.report import wording
from pegbox.tasks import TASKS

# the identifiers that the hub takes for `license`, by its documentation of August 2026
LICENCES = """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
    cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research intel-research isc lgpl
    lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by
    ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl postgresql unlicense wtfpl zlib
"""
# the hub's identifiers of metrics, where they differ from ours, and what an identifier alone leaves open
ON_HUB = {
    "auroc": "roc_auc",
    "f1_macro": "f1",
    "f1_weighted": "f1",
    "pearson": "pearsonr",
    "r2": "r_squared",
    "spearman": "spearmanr",
}
AVERAGED = {"f1_macro": {"average": "macro"}, "f1_weighted": {"average": "weighted"}}
# by what else the hub finds models of a kind
TAGS: Mapping[str, tuple[str, ...]] = {"embedding": ("sentence-transformers", "feature-extraction")}
HUB_LICENCES = frozenset(LICENCES.split())


class _Dumper(yaml.SafeDumper):
    """YAML for readers of 1.1 and of 1.2, who differ in what is a number: text that begins like one is quoted."""


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if re.match(r"[-+.\d]", value) else None)


_Dumper.add_representer(str, _text)


def metadata_block(name: str, recipe: Recipe, evaluation: Mapping[str, Any], receipt: Mapping[str, Any]) -> str:
    """The block between its two lines of dashes; `name` is the model's. Everything stands in the receipt."""
    saved_as = recipe.method.saved_as
    base = {
        "base_model": receipt["model"]["name"],
        "base_model_relation": "finetune" if saved_as == "model" else "adapter",
    }
    values = {
        **_licence(receipt["model"].get("licence")),
        **(base if is_on_hub(receipt) else {}),
        "library_name": _library(recipe),
        "pipeline_tag": _pipeline_tag(recipe),
        "tags": ["pegbox", recipe.task.kind, recipe.method.kind, *TAGS.get(recipe.task.kind, ())],
        **_model_index(name, recipe, evaluation, receipt),
        "pegbox": {"version": receipt["versions"]["pegbox"], "data": _data(recipe, receipt)},
    }
    return f"---\n{yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)}---"


def is_on_hub(receipt: Mapping[str, Any]) -> bool:
    """Whether the name is one of the hub's, wherever the files came from."""
    return str(receipt["model"]["source"]).startswith(("hub", "package"))


def _library(recipe: Recipe) -> str:
    """What loads the saved model."""
    if recipe.task.kind == "embedding" and recipe.method.saved_as == "model":
        return "sentence-transformers"
    return {"model": "transformers", "peft": "peft", "pegbox": "pegbox"}[recipe.method.saved_as]


def _pipeline_tag(recipe: Recipe) -> str:
    return TASKS[recipe.task.kind].pipeline_tag


def _licence(known: Mapping[str, str] | None) -> dict[str, str]:
    """The base model's; a link that is no address would point into a repository that this is not."""
    if known is None:
        return {}
    if known["id"] in HUB_LICENCES - {"other"}:
        return {"license": known["id"]}
    name = known.get("name", "") if known["id"] == "other" else known["id"]
    named = re.sub(r"[^a-z0-9.+-]+", "-", name.lower()).strip("-")  # the hub wants an identifier
    link = known.get("link", "")
    return {
        "license": "other",
        **({"license_name": named} if named else {}),
        **({"license_link": link} if link.startswith("https://") else {}),
    }


def _model_index(
    name: str, recipe: Recipe, evaluation: Mapping[str, Any], receipt: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """The tuned model's values on the test rows, each with its interval."""
    metrics = [
        {
            "type": ON_HUB.get(metric, metric),
            "name": f"{wording.metric_name(metric, evaluation['task'])}, 95 % interval {wording.bounds(found, metric)}",
            "value": found["value"],
            "args": {
                **AVERAGED.get(metric, {}),
                "confidence": 0.95,
                **{end: found[end] for end in ("low", "high") if found[end] is not None},
            },
        }
        for metric, found in evaluation["systems"][TUNED].items()
        if found["value"] is not None
    ]
    sources = recipe.data.train if isinstance(recipe.data.test, float) else recipe.data.test
    files = _known(sources, receipt)
    dataset = {
        "type": "local",
        "name": ", ".join(PurePath(file).name for file in files),
        "split": "test",
        "args": {"rows": evaluation["rows"], "sha256": [receipt["data"][file] for file in files]},
    }
    task = {"type": _pipeline_tag(recipe), "name": recipe.task.kind}
    results = [{"task": task, "dataset": dataset, "metrics": metrics}]
    return {"model-index": [{"name": name, "results": results}]} if metrics else {}


def _data(recipe: Recipe, receipt: Mapping[str, Any]) -> list[dict[str, str]]:
    """The files of rows, without their folders; a split that is a share of train has none of its own."""
    return [
        {"file": PurePath(file).name, "split": split, "sha256": receipt["data"][file]}
        for split, sources in recipe.data.given.items()
        for file in _known(sources, receipt)
    ]


def _known(sources: Sequence[Source], receipt: Mapping[str, Any]) -> list[str]:
    """The files of the sources that the run read."""
    return [name for name in receipt["data"] if any(belongs(name, source) for source in sources)]
