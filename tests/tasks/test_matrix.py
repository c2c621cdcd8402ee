"""Every task on every kind of model by every method: 16 rows learnt by heart, judged, asked, saved, and loaded elsewhere.

A tiny model that cannot learn 16 rows is taught the wrong thing. `TABLE` says which task can have which model; of the
others a run says so before it begins. One fresh process answers for all runs.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import pegbox
from pegbox.errors import RecipeError
from pegbox.finished import Run
from pegbox.tasks import TASKS, Task
from pegbox.tasks.language import LanguageTask
from tiny_tasks import FORMS, MODELS, by_heart, questions, same

KINDS = ("bert", "llama", "t5", "bart")
METHODS = ("full", "lora")
LEARNING_RATE = {"full": 1e-2, "lora": 2e-2}
UPDATES = {"bert": 120, "llama": 70, "t5": 60, "bart": 60}
NEAR_ZERO = 0.05  # nats a token, word, row; of a number's standardised square a fifth of it

# why a task cannot have a kind of model, as the run says it
NO_TAGGING = "cannot be loaded as token_classification"  # Transformers has no such head for BART
TWO_PARTS = "reads by one part and writes by another"
NO_MASKS = "learns no masked tokens"  # a decoder does not see what follows, and T5 and BART fill in spans of any length
NO_WRITING = "the tokenizer changes the text of an answer|sees the text that follows"  # an encoder
NO_DECODER = "no decoder beside an encoder|has no end-of-text token|cannot be loaded as seq2seq"
BOTH_SIDES = (
    "cannot be loaded as causal_lm|lacks weights"  # they write their answer by another part than reads the prompt
)

TABLE: Mapping[str, Mapping[str, str]] = {
    "classification": {},
    "multilabel": {},
    "regression": {},
    "token_classification": {"bart": NO_TAGGING},
    "pairs": {"t5": TWO_PARTS, "bart": TWO_PARTS},
    "scored pairs": {"t5": TWO_PARTS, "bart": TWO_PARTS},
    "masked_lm": {"llama": NO_MASKS, "t5": NO_MASKS, "bart": NO_MASKS},
    "chat": {"bert": NO_WRITING, "t5": BOTH_SIDES, "bart": BOTH_SIDES},
    "completion": {"bert": NO_WRITING, "t5": BOTH_SIDES, "bart": BOTH_SIDES},
    "plain text": {"bert": NO_WRITING, "t5": BOTH_SIDES, "bart": BOTH_SIDES},
    "seq2seq": {"bert": NO_DECODER, "llama": NO_DECODER},
}
HOLES = [(form, kind) for form, holes in TABLE.items() for kind in holes]
CASES = [
    (form, kind, method) for form, holes in TABLE.items() for kind in KINDS if kind not in holes for method in METHODS
]
IDS = [" ".join(case) for case in CASES]
BERTS = {
    "masked_lm": "masked bert",
    "plain text": "masked bert with its head",
}  # where another than the plain one is meant
WRITES = {kind: f"{kind} that writes" for kind in ("t5", "bart")}

SYSTEMS: Mapping[str, set[str]] = {
    "classification": {"trivial", "bag_of_words", "linear_probe", "permuted", "tuned"},
    "multilabel": {"trivial", "bag_of_words", "linear_probe", "permuted", "tuned"},
    "regression": {"trivial", "bag_of_words", "linear_probe", "permuted", "tuned"},
    "token_classification": {"trivial", "permuted", "tuned"},
    "pairs": {"trivial", "bm25", "base", "tuned"},
    "scored pairs": {"bag_of_words", "base", "permuted", "tuned"},  # the trivial answer, the same for all, has no order
    "masked_lm": {"trivial", "tuned"},
    "chat": {"trivial", "base", "permuted", "tuned"},
    "completion": {"trivial", "base", "permuted", "tuned"},
    "plain text": {"trivial", "base", "tuned"},
    "seq2seq": {"trivial", "translation_memory", "base", "permuted", "tuned"},
}
SERVED = ("pairs", "scored pairs")  # forms of which who asks gets vectors
LIKELIHOODS = ("masked_lm", "plain text")  # forms whose answers are likelihoods of the text

CHILD = """
import json, sys
from pathlib import Path
import pegbox

root = Path(sys.argv[1])
asked = json.loads((root / "asked.json").read_text())
answers = {name: pegbox.load(root / name).predict(rows) for name, rows in asked.items()}
(root / "answers.json").write_text(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: made(tmp_path_factory.mktemp("model")) for kind, made in MODELS.items()}


def model_of(models: Mapping[str, Path], form: str, kind: str) -> Path:
    other = BERTS.get(form, kind) if kind == "bert" else WRITES.get(kind, kind) if form == "seq2seq" else kind
    return models[other]


class Trained:
    """The run of each case, and what a fresh process answers."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs, self.asked = root, dict[str, Run](), dict[str, Any]()

    @staticmethod
    def name(form: str, kind: str, method: str) -> str:
        return f"{form}-{kind}-{method}".replace(" ", "-")

    def run(self, models: Mapping[str, Path], form: str, kind: str, method: str) -> None:
        settings = {"max_steps": UPDATES[kind], "eval_steps": UPDATES[kind], "learning_rate": LEARNING_RATE[method]}
        name = self.name(form, kind, method)
        recipe = by_heart(form, model_of(models, form, kind), method, self.root, **settings)
        self.runs[name] = pegbox.train(recipe, run_dir=self.root / name)
        self.asked[name] = questions(form, FORMS[form][2](16))


@pytest.fixture(scope="module")
def trained(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    found = Trained(tmp_path_factory.mktemp("matrix"))
    for case in CASES:
        found.run(models, *case)
    return found


@pytest.fixture(scope="module")
def elsewhere(trained: Trained) -> dict[str, Any]:
    """What a fresh process answers, run by run."""
    (trained.root / "asked.json").write_text(json.dumps(trained.asked))
    subprocess.run([sys.executable, "-c", CHILD, str(trained.root)], check=True, capture_output=True, timeout=300)
    answers: dict[str, Any] = json.loads((trained.root / "answers.json").read_text())
    return answers


def recorded(run: Run, what: str) -> list[Any]:
    """What stands in the lines of `predictions.jsonl`: the `reference` of each, or the answer of a system."""
    lines = run.folder.read_lines("predictions.jsonl")
    return [line["reference"] if what == "reference" else line["answers"][what] for line in lines]


def test_the_table_has_every_task() -> None:
    assert {FORMS[form][0] for form in TABLE} == set(TASKS)
    assert TABLE.keys() == FORMS.keys() == SYSTEMS.keys()


def check_learnt_by_heart(form: str, run: Run) -> None:
    """The loss ends near zero, and the answers are the right ones."""
    lines = run.folder.read_lines("metrics.jsonl")
    loss = [line["loss"] for line in lines if line.get("split") == "validation"][-1]
    assert loss < (NEAR_ZERO / 5 if form == "regression" else NEAR_ZERO)
    answers, references = recorded(run, "tuned"), recorded(run, "reference")
    if form in LIKELIHOODS:
        assert sum(answer["nll"] for answer in answers) < NEAR_ZERO * sum(answer["tokens"] for answer in answers)
    elif form == "pairs":
        assert answers == [{"first": reference, "ranks": [1]} for reference in references]
    elif form in ("regression", "scored pairs"):
        assert answers == pytest.approx(references, abs=0.5)
    else:
        assert answers == references


@pytest.mark.parametrize(("form", "kind", "method"), CASES, ids=IDS)
def test_sixteen_rows_are_learnt_by_heart(form: str, kind: str, method: str, trained: Trained) -> None:
    check_learnt_by_heart(form, trained.runs[trained.name(form, kind, method)])


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("classification", "bert"),
        ("token_classification", "bert"),
        ("completion", "llama"),
        ("seq2seq", "t5"),
    ],
)
def test_what_is_learnt_of_another_row_or_word_is_caught(
    form: str, kind: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(self: Task, model: Any, batch: Any) -> Any:
        outputs, targets, weights = self.scored(model, batch)
        return self.criterion(outputs, targets.roll(1, 0), weights)

    for kind_of_task in (Task, LanguageTask):
        monkeypatch.setattr(kind_of_task, "loss", shifted)
    other = Trained(tmp_path)
    other.run(models, form, kind, "full")
    with pytest.raises(AssertionError):
        check_learnt_by_heart(form, other.runs[other.name(form, kind, "full")])


@pytest.mark.parametrize(("form", "kind", "method"), CASES, ids=IDS)
def test_every_system_is_judged_by_every_metric(form: str, kind: str, method: str, trained: Trained) -> None:
    run = trained.runs[trained.name(form, kind, method)]
    found, task = run.evaluation, run.task
    ranked = {"base"} if (form, kind) == ("classification", "llama") else set()  # a model that writes ranks the labels
    unordered = {"trivial"} if form == "scored pairs" else set()
    assert set(found["systems"]) == set(found["close_calls"]) - unordered == SYSTEMS[form] | ranked
    assert found["primary"] == run.recipe.evaluate.primary
    assert set(found["systems"]["tuned"]) == set(run.recipe.evaluate.metrics or ()) == set(task.metrics)
    assert all(math.isfinite(cell["value"]) for cell in found["systems"]["tuned"].values())
    assert all(found["primary"] in cells for cells in found["systems"].values())
    assert found["verdict"] == "not shown"  # of 16 rows nothing is said
    assert ("per_class" in found) == (bool(task.labels) and form != "regression")
    assert ("calibration" in found) == (form == "classification")
    assert {"report.html", "README.md", "model"} <= {path.name for path in run.path.iterdir()}


@pytest.mark.parametrize(("form", "kind", "method"), CASES, ids=IDS)
def test_it_answers_as_it_was_judged_here_and_elsewhere(
    form: str, kind: str, method: str, trained: Trained, elsewhere: dict[str, Any]
) -> None:
    name = trained.name(form, kind, method)
    here = trained.runs[name].predict(trained.asked[name])
    wanted = here if form in SERVED else recorded(trained.runs[name], "tuned")
    assert same(here, wanted)
    assert same(elsewhere[name], wanted)


@pytest.mark.parametrize(("form", "kind"), HOLES, ids=[" ".join(hole) for hole in HOLES])
def test_a_model_that_a_task_cannot_have_is_refused_before_anything_is_written(
    form: str, kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=TABLE[form][kind]) as told:
        pegbox.train(by_heart(form, model_of(models, form, kind), "full", tmp_path), run_dir=tmp_path / "run")
    assert len(str(told.value)) < 500
    assert not (tmp_path / "run").exists()
