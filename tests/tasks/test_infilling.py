"""Middles of texts: which are learnt, how they are asked for, what they have to beat, and eight of them learnt by heart."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from infill_tokenizers import MAKERS, with_tokens
from safetensors.torch import load_file
from small_tokenizers import tokenizer

import pegbox
from pegbox.data import infill as infilling
from pegbox.data.infill import USUAL, Cut
from pegbox.data.records import PlainText, PromptCompletion, Record, Row
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.evaluation.score import value_of
from pegbox.finished import Run
from pegbox.finished.comparing import compare
from pegbox.finished.exporting import _typed
from pegbox.metrics import METRICS
from pegbox.models.generation import generate
from pegbox.models.new_tokens import new_rows
from pegbox.pipeline import _refuse_unfit
from pegbox.recipe import load
from pegbox.report import usage
from pegbox.tasks import Predictions, Task, language, task_of
from pegbox.tasks import infilling as task_file
from pegbox.tasks.infilling import MARK, Infilling
from tiny_folder import causal_folder, write_rows
from tiny_models import tiny


def texts_of(count: int) -> list[str]:
    """Functions whose middle can be told from what stands around it."""
    return [f"def f{n}(x):\n    y = x + {n}\n    return y * {n % 7}\n" for n in range(count)]


def made(
    texts: Sequence[str], makers: str = "starcoder", kind: str = "byte_level", seed: int = 42, **settings: Any
) -> tuple[Task, list[Record]]:
    """The task, ready to encode, and the records."""
    recipe = load(
        {
            "model": "some/model",
            "task": {"kind": "completion", **settings},
            "data": {"train": "rows.jsonl"},
            "seed": seed,
        }
    )
    records = [Record(f"rows.jsonl:{n}", PlainText(text)) for n, text in enumerate(texts, start=1)]
    task = task_of(recipe)(Renderer(with_tokens(kind, MAKERS[makers])), recipe)
    task.observe(records)
    task.fit(records)
    return task, records


def order_of(task: Task, record: Record) -> str:
    """How a record is learnt: whole, or by the tokens that stand in its example."""
    ids = task.encode(record).input_ids
    before, behind, middle = task.renderer.tokenizer.convert_tokens_to_ids(list(USUAL))
    if middle not in ids:
        return "whole"
    return "suffix first" if ids[ids.index(before) + 1] == behind else "prefix first"


# ---- which are cut ---------------------------------------------------------------------------------------------------


def check_shares(rate: float, suffix_first: float, count: int = 600) -> None:
    """Of the texts, and of those that are cut."""
    task, records = made(texts_of(count), fim_rate=rate, fim_spm_rate=suffix_first)
    orders = [order_of(task, record) for record in records]
    cut = count - orders.count("whole")
    assert abs(cut / count - rate) < 0.07
    assert abs(orders.count("suffix first") / max(1, cut) - suffix_first) < 0.09


@pytest.mark.parametrize(("rate", "suffix_first"), [(0.5, 0.0), (0.5, 0.5), (1.0, 1.0), (0.1, 0.5)])
def test_as_many_are_cut_as_the_recipe_says_and_as_many_told_suffix_first(rate: float, suffix_first: float) -> None:
    check_shares(rate, suffix_first)


@pytest.mark.parametrize("option", ["fim_rate", "fim_spm_rate"])
def test_an_option_that_is_ignored_is_caught(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Infilling.__init__

    def careless(self: Infilling, *given: Any) -> None:
        honest(self, *given)
        self.settings = self.settings.model_copy(update={option: 1.0})

    monkeypatch.setattr(Infilling, "__init__", careless)
    with pytest.raises(AssertionError):
        check_shares(0.5, 0.5)


def test_without_a_rate_all_is_as_it_was() -> None:
    texts = [*texts_of(9), "say <fim_middle>"]
    plain, records = made(texts)
    assert type(plain).__name__ == "Completion" and plain.primary(records) == "perplexity"
    wanted = [plain.renderer.plain_text(text) for text in texts]
    assert [plain.encode(record).input_ids for record in records] == [tuple(one.input_ids) for one in wanted]


def test_what_is_not_cut_is_learnt_as_plain_text_is() -> None:
    (plain, records), (task, _) = made(texts_of(40)), made(texts_of(40), fim_rate=0.5)
    whole = [record for record in records if order_of(task, record) == "whole"]
    assert 10 < len(whole) < 30
    assert all(task.encode(record) == plain.encode(record) for record in whole)


def check_it_hangs_on_the_seed_and_the_text_alone() -> None:
    task, records = made(texts_of(80), fim_rate=0.5, fim_spm_rate=0.5)
    orders = {record.content: order_of(task, record) for record in records}
    for some in (records[::-1], records[5:9], records[:1]):
        other, again = made(
            [record.content.text for record in some if isinstance(record.content, PlainText)],
            fim_rate=0.5,
            fim_spm_rate=0.5,
        )
        assert {record.content: order_of(other, record) for record in again} == {
            r.content: orders[r.content] for r in some
        }
    seeded, same = made(texts_of(80), fim_rate=0.5, fim_spm_rate=0.5, seed=7)
    assert [order_of(seeded, record) for record in same] != list(orders.values())
    assert [seeded.reference(record) for record in same] == [task.reference(record) for record in records]


def test_it_hangs_on_the_seed_and_the_text_alone() -> None:
    check_it_hangs_on_the_seed_and_the_text_alone()


@pytest.mark.parametrize("bug", ["the order of the rows", "no seed", "a seed in the cut"])
def test_what_hangs_on_something_else_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = infilling.lots, iter(range(10**6))
    if bug == "the order of the rows":
        monkeypatch.setattr(task_file, "lots", lambda text, seed: honest(str(next(calls)), seed))
    elif bug == "no seed":
        monkeypatch.setattr(task_file, "lots", lambda text, seed: honest(text, 0))
    else:
        monkeypatch.setattr(
            Infilling,
            "_parts",
            lambda self, record: infilling.cut(PlainText(record.content.text, (self.recipe.seed % 3, 9))),
        )
    with pytest.raises(AssertionError):
        check_it_hangs_on_the_seed_and_the_text_alone()


def test_the_order_of_the_parts_changes_neither_which_are_cut_nor_where() -> None:
    (first, records), (other, _) = made(texts_of(60), fim_rate=0.5), made(texts_of(60), fim_rate=0.5, fim_spm_rate=1.0)
    cut = [order_of(first, record) != "whole" for record in records]
    assert cut == [order_of(other, record) != "whole" for record in records]
    for record, is_cut in zip(records, cut, strict=True):
        one, two = first.encode(record), other.encode(record)
        moved = is_cut and first.beside(record)["around"][0] != ""  # nothing before the middle stands at either place
        assert (one.input_ids != two.input_ids) == moved and one.loss_weights == two.loss_weights


def test_what_is_served_is_what_a_text_that_is_learnt_prefix_first_begins_with() -> None:
    task, records = made(texts_of(40), fim_rate=1.0)
    assert isinstance(task, Infilling)
    for record in records:
        example, prompt = task.encode(record), task.prompt(record, ())
        assert list(example.input_ids[: len(prompt)]) == prompt
        assert example.loss_weights == (0.0,) * len(prompt) + (1.0,) * (len(example) - len(prompt))
        assert task.said(example.input_ids[len(prompt) :]) == task.reference(record)


def test_a_longest_answer_is_a_middle_and_not_a_whole_text() -> None:
    task, records = made(["ab" * 200, *texts_of(60)], fim_rate=0.5)
    examples = [task.encode(record) for record in records]
    cut = [e for e, record in zip(examples, records, strict=True) if order_of(task, record) != "whole"]
    assert task.longest_answer(examples) == max(sum(example.loss_weights) for example in cut)
    whole = [example for example in examples if example not in cut]
    assert task.longest_answer(whole) == max(sum(example.loss_weights) for example in whole)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_the_tokens_is_refused_with_the_cure() -> None:
    recipe = load({"model": "m/n", "task": {"kind": "completion", "fim_rate": 0.5}, "data": "/rows.jsonl"})
    with pytest.raises(RecipeError, match="no tokens to ask for a middle with") as refusal:
        task_of(recipe)(Renderer(tokenizer("byte_level")), recipe)
    assert refusal.value.where == "task.fim_rate" and '"<fim_prefix>", "<fim_suffix>", "<fim_middle>"' in str(
        refusal.value
    )


def test_an_order_that_the_makers_did_not_define_is_refused() -> None:
    for makers in ("deepseek", "qwen"):
        made(texts_of(3), makers, fim_rate=0.5)
        with pytest.raises(RecipeError, match="did not say how the suffix would stand first"):
            made(texts_of(3), makers, fim_rate=0.5, fim_spm_rate=0.1)
    task, records = made(texts_of(3), "codestral", fim_rate=0.5, fim_spm_rate=1)
    assert isinstance(task, Infilling) and task.prompt(records[0], ())
    for rate in (0.0, 0.9):
        with pytest.raises(RecipeError, match="the suffix always stands first"):
            made(texts_of(3), "codestral", fim_rate=0.5, fim_spm_rate=rate)


def test_rows_that_are_no_plain_text_are_refused() -> None:
    task, records = made(texts_of(3), fim_rate=0.5)
    with pytest.raises(DataError, match="cuts plain text") as refusal:
        task.observe([*records, Record("rows.jsonl:9", PromptCompletion("a", "b"))])
    assert refusal.value.where == "rows.jsonl:9"


@pytest.mark.parametrize("rate", [0.001, 1.0])
def test_a_row_that_cannot_be_asked_is_refused_before_training_whether_it_is_cut_or_not(rate: float) -> None:
    task, _ = made(texts_of(3), fim_rate=rate)
    with pytest.raises(ValueError, match="is empty"):
        task.encode(Record("rows.jsonl:9", PlainText("")))
    found = with_tokens("byte_level", USUAL, special=False)
    other = Infilling(Renderer(found), task.recipe)
    with pytest.raises(ValueError, match="the name of a token that asks for a middle"):
        other.encode(Record("rows.jsonl:9", PlainText("<fim_middle>" * 9)))


def test_the_token_that_ends_a_middle_ends_an_answer() -> None:
    task, _ = made(texts_of(3), "code llama", "prefix_by_normalizer", fim_rate=1.0)
    end = task.renderer.tokenizer.convert_tokens_to_ids("▁<EOT>")
    assert end in task.renderer.stop_ids and task.renderer.tokenizer.eos_token_id in task.renderer.stop_ids


# ---- how it is judged ------------------------------------------------------------------------------------------------


def test_short_middles_are_judged_whole_and_long_ones_by_their_edits() -> None:
    for texts, wanted in (
        (texts_of(40), "exact_match"),
        ([f"{n} " + "word " * 400 for n in range(20)], "edit_similarity"),
    ):
        task, records = made(texts, fim_rate=0.5)
        assert task.primary(records) == wanted and wanted in task.metrics


def test_syntax_is_judged_where_all_training_texts_are_python() -> None:
    for more, wanted in (([], True), (["no code at all"], False)):
        task, _ = made([*texts_of(9), *more], fim_rate=0.5)
        assert ("syntax_validity" in task.metrics) == wanted
        again, _ = made(["no code at all"], fim_rate=0.5)
        again.restore(json.loads(json.dumps(task.state())))
        assert again.metrics == task.metrics and again.state() == task.state()


def test_syntax_can_be_asked_for_where_only_some_texts_are_python() -> None:
    task, records = made([*texts_of(3), "no code at all"], fim_rate=0.5)
    assert "syntax_validity" not in task.metrics
    _refuse_unfit(("exact_match", "syntax_validity"), {"syntax_validity"}, task, records[0])
    right = Predictions(tuple(task.reference(record) for record in records))
    assert value_of(METRICS["syntax_validity"], task, records, right) == 0.75
    plain, same = made(texts_of(3))
    with pytest.raises(RecipeError, match="syntax_validity cannot score the answers of completion"):
        _refuse_unfit(("perplexity", "syntax_validity"), {"perplexity"}, plain, same[0])


def test_the_nearest_whole_line_is_the_trivial_answer() -> None:
    lines = {
        ("a\nb\nc", "d\ne"): "b",
        ("a\n\n  \nc", "d\ne"): "a",
        ("c", "d\ne\nf"): "e",
        ("c", "d"): "",
        ("a\n", ""): "a",
    }
    for (prefix, suffix), wanted in lines.items():
        assert task_file._nearest_line(Cut(prefix, "?", suffix)) == wanted
    task, records = made(texts_of(4), fim_rate=0.5)
    given = task.trivial(records, records).answers
    assert list(given) == [
        task_file._nearest_line(infilling.cut(r.content)) for r in records if isinstance(r.content, PlainText)
    ]


@pytest.mark.parametrize(
    ("answer", "suffix", "wanted"),
    [
        ("x\n    return y\nmore", "\n    return y\n", "x\n"),
        ("x) and )", ")\nend", "x"),
        ("x", "y\nz", "x"),
        ("x", "", "x"),
        ("x", "\n \n", "x"),
        (None, "y", None),
    ],
)
def test_an_answer_from_left_to_right_ends_where_it_says_what_follows(
    answer: str | None, suffix: str, wanted: str | None
) -> None:
    assert task_file._before(answer, suffix) == wanted


class Asked:
    """Notes the prompts that a model is given, and answers with their last token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[list[int]] = []
        monkeypatch.setattr(language, "generate", self)

    def __call__(self, model: Any, prompts: Sequence[Sequence[int]], **_: Any) -> list[Any]:
        from pegbox.models.generation import Answer

        self.prompts = [list(prompt) for prompt in prompts]
        return [Answer([prompt[-1]]) for prompt in prompts]


def asked_of_the_untouched(
    added: bool, monkeypatch: pytest.MonkeyPatch, shots: int = 0
) -> tuple[Infilling, list[Record], Asked]:
    model = {"name": "m/n", "add_tokens": list(USUAL)} if added else "m/n"
    recipe = load({"model": model, "task": {"kind": "completion", "fim_rate": 1.0}, "data": "/rows.jsonl"})
    task = Infilling(Renderer(with_tokens("byte_level", USUAL, special=not added)), recipe)
    records = [Record(f"r:{n}", PlainText(text)) for n, text in enumerate([*texts_of(9), "x"])]
    asked = Asked(monkeypatch)
    task.ask(tiny("llama"), records, shots=records[:shots], max_new_tokens=4, advance=lambda rows: None)
    return task, records, asked


def test_the_untouched_model_is_asked_by_its_own_tokens_and_else_from_left_to_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, records, asked = asked_of_the_untouched(False, monkeypatch)
    assert asked.prompts == [task.prompt(record, ()) for record in records]
    task, records, asked = asked_of_the_untouched(True, monkeypatch)
    prefixes = [infilling.cut(r.content).prefix for r in records if isinstance(r.content, PlainText)]
    assert [task.renderer.decode(ids) for ids in asked.prompts[:-1]] == prefixes[:-1]
    assert prefixes[-1] == "" and asked.prompts[-1] == [task.renderer.tokenizer.eos_token_id]
    assert task.state()["added"]


def test_examples_are_whole_texts_before_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    task, records, asked = asked_of_the_untouched(True, monkeypatch, shots=2)
    shown = "".join(f"{text}\n\n" for text in texts_of(2))
    assert all(task.renderer.decode(ids).startswith(shown) for ids in asked.prompts)
    text = task.renderer.decode(task.prompt(records[5], records[:2]))
    assert text.startswith(f"<fim_prefix>{shown}{infilling.cut(PlainText(texts_of(6)[5])).prefix}<fim_suffix>")
    assert task.prompt_length(records[5], records[:2]) == len(task.prompt(records[5], records[:2]))


def test_a_question_longer_than_the_positions_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    task, records = made(["x = 1 + 2\n" * 40, "y = 2\n"], fim_rate=1.0)
    Asked(monkeypatch)
    told: list[int] = []
    given = task.predict(tiny("llama", max_position_embeddings=30), records, max_new_tokens=4, advance=told.append)
    assert given.answers[0] is None and given.answers[1] is not None and told == [1]


# ---- how it is asked -------------------------------------------------------------------------------------------------


def test_a_row_is_asked_as_prompt_and_suffix_or_with_a_mark_or_as_it_is_trained() -> None:
    task, _ = made(texts_of(3), fim_rate=0.5)
    assert task.question({"text": "ab"}) == task.question({"text": "ab", "prompt": "c"}) == PlainText("ab")
    assert task.question({"completion": "ab"}) is None
    wanted = PlainText("def f(:\n    pass", (6, 6))
    for values in ({"prompt": "def f(", "suffix": ":\n    pass"}, {"prompt": f"def f({MARK}:\n    pass"}):
        assert task.question(values) == wanted
        assert task.shown(Record("r", wanted)) == f"def f({MARK}:\n    pass"
    assert task.question({"prompt": "def f(", "suffix": None}) == PlainText("def f(", (6, 6))
    assert task.question({"prompt": f"a{MARK}", "suffix": "b"}) == PlainText(f"a{MARK}b", (4, 4))
    assert task.question(task.typed(f"a{MARK}b")) == PlainText("ab", (1, 1))
    for values in ({"prompt": 3}, {"prompt": "a", "suffix": 3}):
        with pytest.raises(ValueError, match="must be text"):
            task.question(values)


# ---- whole runs ------------------------------------------------------------------------------------------------------

CHILD = """
import json, sys
from pathlib import Path
import pegbox

root = Path(sys.argv[1])
asked = json.loads((root / "asked.json").read_text())
answers = {name: pegbox.load(root / name).predict(rows) for name, rows in asked.items()}
(root / "answers.json").write_text(json.dumps(answers))
"""
EIGHT = [f"{letter} = [{letter.lower() * (2 + n)}, {n}]\n" for n, letter in enumerate("ABCDEFGH")]


class Learnt:
    """Eight texts learnt by heart by each method: with tokens that are added, and with the model's own."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, dict[str, Run]()
        added, own = causal_folder(root / "added", spread=0.5), causal_folder(root / "own", spread=0.5)
        self.make_own(own)
        rows = str(write_rows(root / "rows.jsonl", [{"text": text} for text in EIGHT]))
        self.train("lora", {"name": str(added), "add_tokens": list(USUAL)}, {"kind": "lora", "r": 8}, 2e-2, rows)
        self.train("full", {"name": str(own)}, "full", 1e-2, rows)

    @staticmethod
    def make_own(folder: Path) -> None:
        """Give a model the tokens, as one that was trained with them has them."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        known, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
        known.add_tokens(list(USUAL), special_tokens=True)
        torch.manual_seed(0)
        model.resize_token_embeddings(len(known), mean_resizing=False)
        known.save_pretrained(folder)
        model.save_pretrained(folder)

    def train(self, name: str, model: Mapping[str, Any], method: Any, rate: float, rows: str) -> None:
        recipe = {
            "model": model,
            "task": {"kind": "completion", "fim_rate": 1.0, "fim_spm_rate": 0.25},
            "data": {"train": rows, "validation": rows, "test": rows, "allow": ["leak", "near_duplicate"]},
            "method": method,
            "train": {"max_steps": 120, "eval_steps": 120, "batch_size": 8, "learning_rate": rate, "report_to": []},
            "evaluate": {"few_shot": 0, "max_new_tokens": 24},
        }
        self.runs[name] = pegbox.train(recipe, run_dir=self.root / name)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    return Learnt(tmp_path_factory.mktemp("infilling"))


@pytest.mark.parametrize("name", ["lora", "full"])
def test_eight_texts_are_learnt_by_heart_and_their_middles_end(name: str, learnt: Learnt) -> None:
    run = learnt.runs[name]
    lines = list(run.folder.read_lines("predictions.jsonl"))
    assert sorted(line["around"][0] + line["reference"] + line["around"][1] for line in lines) == EIGHT
    assert [line["answers"]["tuned"] for line in lines] == [line["reference"] for line in lines]
    assert isinstance(run.task, Infilling)
    prompts = [run.task.prompt(Record("r", PlainText(text)), ()) for text in EIGHT]
    said = generate(run.model, prompts, stop_ids=run.task.renderer.stop_ids, max_new_tokens=24)
    assert all(answer.stopped for answer in said)


@pytest.mark.parametrize("name", ["lora", "full"])
def test_every_system_is_judged_and_told_in_words(name: str, learnt: Learnt) -> None:
    run = learnt.runs[name]
    found = run.evaluation
    assert set(found["systems"]) == {"trivial", "base", "permuted", "tuned"}
    assert found["primary"] == "exact_match"
    assert set(found["systems"]["tuned"]) == {"exact_match", "edit_similarity", "chrf", "syntax_validity"}
    assert found["systems"]["tuned"]["syntax_validity"]["value"] == 1.0
    told = (run.path / "README.md").read_text(encoding="utf-8"), (run.path / "report.html").read_text(encoding="utf-8")
    for page in told:
        assert "copy of the nearest line" in page
        assert ("never saw them" in page) == (name == "lora")
        assert (
            "by the same tokens, which are the model's own"
            in page.replace("&#x27;", "'").replace("&#39;", "'").replace("\\'", "'")
        ) == (name == "full")


def test_it_answers_as_it_was_judged_here_and_in_a_fresh_process(learnt: Learnt) -> None:
    wanted, asked = {}, {}
    for name, run in learnt.runs.items():
        lines = list(run.folder.read_lines("predictions.jsonl"))
        answers = [line["answers"]["tuned"] for line in lines]
        around = [dict(zip(("prompt", "suffix"), line["around"], strict=True)) for line in lines]
        marked = [{"prompt": line["input"]} for line in lines]
        asked[name] = [*({"text": text} for text in EIGHT), *around, *marked]
        wanted[name] = answers * 3
        assert run.predict(asked[name]) == wanted[name]
        assert [run.generate(line["input"], max_new_tokens=24) for line in lines] == answers
    (learnt.root / "asked.json").write_text(json.dumps(asked))
    subprocess.run([sys.executable, "-c", CHILD, str(learnt.root)], check=True, capture_output=True, timeout=300)
    assert json.loads((learnt.root / "answers.json").read_text()) == wanted


def test_the_rows_of_tokens_that_were_added_are_learnt_beside_a_frozen_model(learnt: Learnt) -> None:
    run = learnt.runs["lora"]
    ids = run.task.renderer.tokenizer.convert_tokens_to_ids(list(USUAL))
    base, (layer,) = run.load_base().get_input_embeddings().weight, new_rows(run.model).values()
    assert layer.ids == ids and (layer.rows != base[ids]).any(dim=1).all()
    assert torch.equal(layer.weight[: min(ids)], base[: min(ids)])
    assert any("embed" in name for name in load_file(run.folder.model / "adapter_model.safetensors"))


@pytest.mark.parametrize("name", ["lora", "full"])
def test_the_code_for_the_model_gives_the_runs_answer_with_and_without_pegbox(name: str, learnt: Learnt) -> None:
    run = learnt.runs[name]
    line = next(line for line in run.folder.read_lines("predictions.jsonl") if all(line["around"]))
    for code in (usage.with_pegbox(run.recipe, run.receipt), usage.without_pegbox(run.recipe, run.receipt)):
        for text in line["around"]:
            assert '"..."' in code
            code = code.replace('"..."', repr(text), 1)
        (run.path / "use.py").write_text(code, encoding="utf-8")
        with chdir(run.path), redirect_stdout(StringIO()) as out:
            runpy.run_path("use.py")
        assert out.getvalue() == line["answers"]["tuned"] + "\n"


@pytest.mark.parametrize(
    ("kind", "makers"),
    [("adds_bos", "starcoder"), ("metaspace_first", "code llama"), ("prefix_by_normalizer", "codestral")],
)
def test_the_code_makes_the_ids_that_are_served_whatever_the_tokenizer(kind: str, makers: str) -> None:
    from pegbox.report import usage_code

    task, records = made(texts_of(6), makers, kind, fim_rate=1.0, fim_spm_rate=float(makers == "codestral"))
    assert isinstance(task, Infilling)
    code = usage_code.hole(**task.state()["around"])
    for record in records:
        around = task.beside(record)["around"]
        lines = code
        for text in around:
            lines = lines.replace('"..."', repr(text), 1)
        told: dict[str, Any] = {"tokenizer": task.renderer.tokenizer}
        exec(lines, told)
        if all(around):
            assert told["inputs"]["input_ids"].tolist() == [task.prompt(record, ())]


def test_two_runs_are_compared_by_every_metric(learnt: Learnt) -> None:
    found = compare([run.path for run in learnt.runs.values()], metric="syntax_validity")
    assert found["primary"] == "syntax_validity" and found["rows"] == len(EIGHT)


def test_a_row_that_is_only_known_by_its_prediction_is_asked_the_same(learnt: Learnt) -> None:
    """An export is checked with the test rows, where these are gone with what the predictions show."""
    run = learnt.runs["full"]
    assert isinstance(run.task, Infilling)
    for text, line in zip(EIGHT, run.folder.read_lines("predictions.jsonl"), strict=True):
        again = _typed(run, line)
        assert run.task.prompt(again, ()) == run.task.prompt(Record("r", PlainText(text)), ())


def test_a_row_with_another_name_for_its_text_is_read_as_in_training(learnt: Learnt) -> None:
    run = learnt.runs["full"]
    data = run.recipe.data.model_copy(update={"columns": {"text": "code"}})
    other = Run(run.path)
    other.recipe = run.recipe.model_copy(update={"data": data})
    record = other.task_record(Row("r:1", {"code": EIGHT[0], "prompt": "no"}))
    assert replace(record, where="r") == Record("r", PlainText(EIGHT[0]))
