"""`embedding`: rows and settings, whole runs, their verdict, and the saved layout, which sentence-transformers loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from small_tokenizers import tokenizer
from test_contrastive import CUTS, check, gradient_of, made_rows, model_of, reference, updated
from torch.nn import functional
from transformers import BartModel

import pegbox
from made_tasks import made_task
from pegbox import pipeline
from pegbox.data.formats import to_record
from pegbox.data.records import Example, MatchedTexts, Record, Row
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.evaluation.score import value_of
from pegbox.finished import Run
from pegbox.finished.comparing import compare
from pegbox.finished.forms import FORMATS
from pegbox.finished.verifying import verify
from pegbox.metrics import METRICS
from pegbox.models import pooling
from pegbox.tasks.embedding import Embedding
from pegbox.training import loop
from pegbox.training.batching import cut
from tiny_folder import causal_folder, encoder_decoder_folder, encoder_folder, write_rows
from tiny_tasks import asked


def task_of(records: Sequence[Record], **settings: Any) -> Embedding:
    task = made_task("embedding", Renderer(tokenizer("wordpiece"), ()), records, task={"kind": "embedding", **settings})
    assert isinstance(task, Embedding)
    return task


# ---- scored pairs ----------------------------------------------------------------------------------------------------


def scored_records(scores: Sequence[float]) -> list[Record]:
    return [Record(f"row {n}", MatchedTexts("dog", "fox", score=score)) for n, score in enumerate(scores)]


@pytest.mark.parametrize("scores", [[0.0, 2.5, 5.0, 1.0], [-2.0, 1.0, 0.5, 2.0], [0.0] * 4], ids=str)
def test_the_cosine_of_a_pair_is_drawn_to_its_share_of_the_largest_score(scores: list[float]) -> None:
    task, model, rows = task_of(scored_records(scores)), model_of(), made_rows(4, triplets=False)
    scale = max(map(abs, scores)) or 1.0
    vectors = [[model(torch.tensor([text])).last_hidden_state[0].mean(0) for text in row] for row in rows]
    cosines = torch.stack([functional.cosine_similarity(a, b, dim=0) for a, b in vectors])
    model.zero_grad()
    loss = (cosines - torch.tensor(scores, dtype=torch.float64) / scale).square().sum()
    loss.backward()
    wanted = loss.item(), gradient_of(model)
    examples = [
        Example(f"row {n}", (*one, *other), targets=(scores[n],), lengths=(len(one), len(other)))
        for n, (one, other) in enumerate(rows)
    ]
    for at_once in CUTS:
        parts = cut(examples, tokens=10**9, rows=at_once)
        batches = [task.collate(part, packed=False, share_prefix=False) for part in parts]
        check(updated(task, model, batches), wanted)


def test_a_label_is_a_score_of_one_or_none() -> None:
    pair = {"text": "a", "text_pair": "b"}
    for label, score in ((1, 1.0), ("0", 0.0), (True, 1.0)):
        content = to_record(Row("r", pair | {"label": label}), "embedding", {}).content
        assert content == MatchedTexts("a", "b", score=score)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        to_record(Row("r", pair | {"label": "spam"}), "embedding", {})


def test_rows_of_every_form_are_read() -> None:
    values = {"q": "a", "yes": "b", "no": "c", "score": 3}
    for columns, wanted in (
        ({"text": "q", "text_pair": "yes"}, MatchedTexts("a", "b", score=3.0)),
        ({"text": "q", "text_pair": "yes", "negative": "no"}, MatchedTexts("a", "b", "c")),
    ):
        assert to_record(Row("r", values), "embedding", columns).content == wanted
    plain = to_record(Row("r", values), "embedding", {"text": "q", "text_pair": "yes"}, format="text_pair")
    assert plain.content == MatchedTexts("a", "b")
    for cell in ("", None):
        content = to_record(Row("r", {"text": "a", "text_pair": "b", "negative": cell}), "embedding", {}).content
        assert content == MatchedTexts("a", "b")
    with pytest.raises(ValueError, match="'negative' must be text"):
        to_record(Row("r", {"text": "a", "text_pair": "b", "negative": 3}), "embedding", {})


# ---- settings and rows that do not fit -------------------------------------------------------------------------------


def test_scores_on_some_rows_only_are_refused_and_so_are_settings_without_effect() -> None:
    scored, plain = scored_records([1.0])[0], Record("rows:2", MatchedTexts("dog", "fox"))
    with pytest.raises(DataError, match="mixed") as told:
        task_of([scored, plain])
    assert told.value.where == "rows:2"
    with pytest.raises(RecipeError, match="temperature has no effect"):
        task_of([scored], temperature=0.1)
    for records, loss in (([scored], "info_nce"), ([plain], "cosine")):
        with pytest.raises(RecipeError, match=f"{loss} is not for rows"):
            made_task("embedding", Renderer(tokenizer("wordpiece"), ()), records, train={"loss": loss})


@pytest.mark.parametrize("bare", [False, True])
def test_a_model_of_two_parts_is_refused(bare: bool, tmp_path: Path) -> None:
    folder = encoder_decoder_folder(tmp_path / "model", "bart")
    if bare:
        BartModel.from_pretrained(folder).save_pretrained(folder)
        assert json.loads((folder / "config.json").read_text())["architectures"] == ["BartModel"]
    with pytest.raises(RecipeError, match="reads by one part and writes by another") as told:
        pegbox.train(recipe_of(folder, tmp_path, PAIRED), run_dir=tmp_path / "run")
    assert told.value.cure is not None and "give an encoder" in told.value.cure


def test_an_empty_text_and_one_that_is_too_long_are_told_by_their_own_length() -> None:
    task = made_task("embedding", Renderer(tokenizer("byte_level", "default_system"), ()))
    with pytest.raises(ValueError, match="empty"):
        task.encode(Record("r", MatchedTexts("dog", "")))
    example = task.encode(Record("r", MatchedTexts("the dog", "the quick brown fox", "fox")))
    assert example.longest == max(example.lengths) < len(example) == sum(example.lengths)
    assert example.room == 3 * example.longest
    assert task.prompt_length(Record("r", MatchedTexts("the dog", "fox")), ()) == example.lengths[0]


# ---- whole runs ------------------------------------------------------------------------------------------------------

PAIRED = [{"text": text, "text_pair": f"{area} {thing} two"} for text, thing, area in asked(16)]
ALIKE = [row | {"score": float(n % 4)} for n, row in enumerate(PAIRED)]


def recipe_of(model: Path, folder: Path, rows: Sequence[Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    file = str(write_rows(folder / "rows.jsonl", rows))
    return {
        "model": str(model),
        "task": "embedding",
        "data": {"train": file, "validation": file, "test": file, "allow": ["leak"]},
        "method": "full",
        "train": {"batch_size": 16, "learning_rate": 1e-2, "max_steps": 30, "eval_steps": 30, "report_to": []},
        **changes,
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {"bert": encoder_folder, "llama": causal_folder}
    return {kind: write(tmp_path_factory.mktemp(kind), spread=0.5) for kind, write in made.items()}


@pytest.fixture(scope="module")
def searched(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("searched")
    return pegbox.train(recipe_of(folders["bert"], folder, PAIRED), run_dir=folder / "run")


def test_a_toy_search_is_learnt_by_heart(searched: Run) -> None:
    found = searched.evaluation["systems"]
    assert set(found) == {"trivial", "bm25", "base", "tuned"}
    assert found["tuned"]["recall_at_1"]["value"] == found["tuned"]["ndcg"]["value"] == 1.0
    assert found["base"]["recall_at_1"]["value"] < 1 and found["trivial"]["recall_at_1"]["value"] < 0.5
    line = next(iter(searched.folder.read_lines("predictions.jsonl")))
    assert line["answers"]["tuned"] == {"first": line["reference"], "ranks": [1]}


def test_what_was_measured_is_what_is_there_and_vectors_are_what_is_served(searched: Run) -> None:
    checks = {check["check"]: check["ok"] for check in verify(searched.path, rows=5)["checks"]}
    assert checks["answers"] and checks["evaluation"] and checks["model files"]
    assert "1_Pooling/config.json" in searched.receipt["model_files"]
    texts = [row["text"] for row in PAIRED]
    together = np.array(searched.predict([{"text": text} for text in texts]))
    alone = np.array([searched.predict([{"text": text}])[0] for text in texts[:3]])
    assert together.shape == (16, 32) and np.abs(together[:3] - alone).max() < 1e-5
    records = [searched.task_record(Row("r", row)) for row in PAIRED]
    assert value_of(METRICS["ndcg"], searched.task, records, searched.answers(records)) == 1.0


def test_a_run_that_is_judged_by_its_search_is_resumed_to_the_same_bytes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, negatives of two micro-batches, the best by ndcg, and an end before the last update."""
    noisy = Path(shutil.copytree(folders["bert"], tmp_path / "model"))
    config = json.loads((noisy / "config.json").read_text())
    (noisy / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.1}))
    settings = {"batch_size": 6, "micro_batch_size": 4, "learning_rate": 1e-2, "max_steps": 40, "save_steps": 3}
    settings |= {"eval_steps": 3, "early_stopping_patience": 2, "metric_for_best_model": "ndcg", "report_to": []}
    recipe = recipe_of(noisy, tmp_path, PAIRED, train=settings)
    whole, right = pegbox.train(recipe, run_dir=tmp_path / "whole"), loop.take_update

    def killed(job: Any, optimizer: Any, step: int) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return right(job, optimizer, step)

    monkeypatch.setattr(loop, "take_update", killed)
    with pytest.raises(KeyboardInterrupt):
        pegbox.train(recipe, run_dir=tmp_path / "run")
    monkeypatch.undo()
    resumed = pipeline.resume(tmp_path / "run")
    assert resumed.receipt["resumed_at"] == 3
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    lines = list(whole.folder.read_lines("metrics.jsonl"))
    judged = [line["ndcg"] for line in lines if line.get("split") == "validation"]
    assert lines[-1]["step"] < 40 and max(judged) not in judged[-2:]  # it was over when two had brought no gain
    assert whole.receipt["best_validation"]["value"] == max(judged)


def test_runs_are_compared_where_they_searched_the_same_texts_and_refused_where_not(
    searched: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    again = shutil.copytree(searched.path, tmp_path / "again")
    assert compare([searched.path, again], metric="mrr")["rows"] == 16
    fewer = pegbox.train(recipe_of(folders["bert"], tmp_path, PAIRED[:12]), run_dir=tmp_path / "run")
    with pytest.raises(RecipeError, match="have not the same rows"):
        compare([searched.path, fewer.path])


def test_pairs_with_a_score_are_judged_by_its_order(folders: dict[str, Path], tmp_path: Path) -> None:
    run = pegbox.train(recipe_of(folders["bert"], tmp_path, ALIKE), run_dir=tmp_path / "run")
    found = run.evaluation
    assert set(found["systems"]) == {"bag_of_words", "base", "permuted", "tuned"}  # equal scores have no order
    assert found["primary"] == "spearman" and found["systems"]["tuned"]["spearman"]["value"] > 0.9
    lines = list(run.folder.read_lines("predictions.jsonl"))
    said, right = ([line[key] for line in lines] for key in ("answers", "reference"))
    told = stats.spearmanr([answers["tuned"] for answers in said], right).statistic
    assert found["systems"]["tuned"]["spearman"]["value"] == pytest.approx(told)
    assert {"report.html", "README.md"} <= {path.name for path in run.path.iterdir()}


def test_by_an_error_the_trivial_score_is_a_rival_too(folders: dict[str, Path], tmp_path: Path) -> None:
    settings = {"batch_size": 16, "learning_rate": 1e-2, "max_steps": 2, "report_to": []}
    recipe = recipe_of(folders["bert"], tmp_path, ALIKE, train=settings, evaluate={"primary": "rmse"})
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    assert set(run.evaluation["systems"]) == {"trivial", "bag_of_words", "base", "permuted", "tuned"}
    line = next(iter(run.folder.read_lines("predictions.jsonl")))
    assert line["answers"]["trivial"] == np.mean([row["score"] for row in ALIKE])
    assert "mean of the training rows" in (run.path / "README.md").read_text().casefold()


def test_test_rows_whose_scores_are_all_the_same_are_refused_before_training(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = recipe_of(folders["bert"], tmp_path, ALIKE)
    recipe["data"]["test"] = str(write_rows(tmp_path / "test.jsonl", [row | {"score": 1} for row in ALIKE]))
    with pytest.raises(RecipeError, match="all the same: there is no spearman") as told:
        pegbox.train(recipe, run_dir=tmp_path / "run")
    assert told.value.where == "data.test" and not (tmp_path / "run").exists()


def validation_of(run: Run) -> float:
    lines = run.folder.read_lines("metrics.jsonl")
    return [float(line["loss"]) for line in lines if line.get("split") == "validation"][-1]


def test_validation_is_in_groups_as_large_as_an_update(folders: dict[str, Path], tmp_path: Path) -> None:
    """16 rows in groups of 6, 6 and 4; a loss among all of them would be another."""
    settings = {"batch_size": 6, "learning_rate": 1e-12, "max_steps": 1, "report_to": []}
    run = pegbox.train(recipe_of(folders["bert"], tmp_path, PAIRED, train=settings), run_dir=tmp_path / "run")
    task = run.task
    assert isinstance(task, Embedding)
    examples = [task.encode(run.task_record(Row("r", row))) for row in PAIRED]

    def summed(size: int) -> float:
        texts = [[one.input_ids for one in pooling.separate(example)] for example in examples]
        groups = [texts[start : start + size] for start in range(0, 16, size)]
        return sum(reference(run.model, group)[0] for group in groups) / 16

    run.model.requires_grad_(True)
    assert validation_of(run) == pytest.approx(summed(6), rel=1e-4)
    assert validation_of(run) != pytest.approx(summed(16), rel=1e-2)


CASES = [*product(["bert"], ["mean", "cls"], ["full", "lora"]), ("llama", "last", "lora"), ("llama", "mean", "full")]


def loaded(folder: Path) -> Any:
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu")


def metrics_of(model: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What sentence-transformers' own evaluator says of the rows."""
    from sentence_transformers.sentence_transformer import evaluation

    asked, texts = ({str(n): row[role] for n, row in enumerate(rows)} for role in ("text", "text_pair"))
    k = [1, 5, 10]
    evaluator = evaluation.InformationRetrievalEvaluator(
        asked, texts, {n: {n} for n in asked}, mrr_at_k=[len(rows)], precision_recall_at_k=k
    )
    evaluator.score_functions = {"cosine": model.similarity}
    told = evaluator.compute_all_metrics(model)["cosine"]
    recalls = {f"recall_at_{n}": told["recall@k"][n] for n in k}
    return {"ndcg": told["ndcg@k"][10], "mrr": told["mrr@k"][len(rows)], **recalls}


@pytest.mark.parametrize(("kind", "pooled", "method"), CASES, ids=[" ".join(case) for case in CASES])
def test_sentence_transformers_loads_the_folder_and_gives_the_same_vectors_and_metrics(
    kind: str, pooled: str, method: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"batch_size": 8, "learning_rate": 1e-2, "max_steps": 2, "report_to": []}
    task = {"kind": "embedding", "pooling": pooled}
    recipe = recipe_of(folders[kind], tmp_path, PAIRED, method=method, train=settings, task=task)
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    texts = [row["text"] for row in PAIRED]
    ours, theirs = np.array(run.predict([{"text": text} for text in texts])), loaded(run.folder.model)
    assert np.abs(ours - theirs.encode(texts)).max() < 1e-5
    told = {name: cell["value"] for name, cell in run.evaluation["systems"]["tuned"].items()}
    assert metrics_of(theirs, PAIRED) == pytest.approx(told)
    if method == "lora":
        merged = tmp_path / "merged"
        merged.mkdir()
        FORMATS["merged"].write(run, merged)
        assert np.abs(ours - loaded(merged).encode(texts)).max() < 1e-5
    other = {"mean": "cls", "cls": "mean", "last": "mean"}[pooled]
    pooling.save_layout(run.folder.model, pooling=other, width=32, max_length=None)
    assert np.abs(ours - loaded(run.folder.model).encode(texts)).max() > 1e-3  # the layout is what decides


def test_the_layout_is_the_published_one(tmp_path: Path) -> None:
    pooling.save_layout(tmp_path, pooling="cls", width=7, max_length=128)
    told = json.loads((tmp_path / "1_Pooling" / "config.json").read_text())
    assert told["word_embedding_dimension"] == 7
    assert [key for key, value in told.items() if value is True] == ["pooling_mode_cls_token"]
    assert json.loads((tmp_path / "sentence_bert_config.json").read_text())["max_seq_length"] == 128
    assert [module["path"] for module in json.loads((tmp_path / "modules.json").read_text())] == ["", "1_Pooling"]


def test_no_weight_is_random_that_no_vector_needs(folders: dict[str, Path], tmp_path: Path) -> None:
    """BERT's pooler, which a checkpoint for masked tokens lacks, is neither needed nor drawn."""
    from tiny_masked import masked_folder

    for name, folder in (("bare", folders["bert"]), ("masked", masked_folder(tmp_path / "masked", head=True))):
        recipe = recipe_of(folder, tmp_path, PAIRED, train={"batch_size": 16, "max_steps": 1, "report_to": []})
        run = pegbox.train(recipe, run_dir=tmp_path / f"run {name}")
        assert not any("pooler" in key for key in load_file(run.folder.model / "model.safetensors"))
