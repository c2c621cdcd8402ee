"""Masked tokens: which are chosen, what is learnt of them, what a text is judged by, and the run as the next one's model.

INVARIANTS rows 1, 2, 16, 20, 22 and 24; the bugs put back.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, BertForSequenceClassification

import pegbox
from made_tasks import made_task
from pegbox import pipeline
from pegbox.data.records import Example, PlainText, Record
from pegbox.data.render import Renderer
from pegbox.errors import RecipeError
from pegbox.finished import Run
from pegbox.finished.continuing import resolve
from pegbox.finished.verifying import verify
from pegbox.models.load import heads_of, load_model, load_tokenizer
from pegbox.models.packing import enable_packing, shares_prefixes
from pegbox.runs.checkpoint import hashes
from pegbox.runtime import Ranks
from pegbox.tasks.masked_lm import MOST_SCORED, MaskedLM
from pegbox.training import gradient
from pegbox.training.plan import Plan
from tiny_folder import causal_folder, encoder_folder, write_rows
from tiny_masked import masked_folder

SENTENCE = "the quick brown fox jumps over lazy dog and sleeps turn on light in kitchen set timer to minutes"
WORDS = SENTENCE.split()


def texts(count: int, low: int = 3, high: int = 12, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(low, high))) for _ in range(count)]


def record(text: str, where: str = "") -> Record:
    return Record(where or text, PlainText(text))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head for masked tokens."""
    return masked_folder(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one."""
    return masked_folder(tmp_path_factory.mktemp("headed"), head=True)


def task_of(folder: Path, **changes: Any) -> MaskedLM:
    made = made_task("masked_lm", Renderer(load_tokenizer(folder)), heads=heads_of(folder), **changes)
    assert isinstance(made, MaskedLM)
    return made


@pytest.fixture(scope="module")
def task(headed: Path) -> MaskedLM:
    return task_of(headed)


# ---- which tokens are chosen, and what becomes of them ---------------------------------------------------------------


def check_shares(task: MaskedLM, share: float) -> None:
    """Over many draws: each place with the share, 80 % masked, 10 % random and 10 % kept, within four deviations."""
    examples, updates = [task.encode(record(text)) for text in texts(12, 12, 20)], 300
    fates, by_place, words = Counter[str](), Counter[tuple[str, int]](), Counter[int]()
    for example in examples:
        for step in range(updates):
            drawn = task.drawn(example, step)
            for place, weight in enumerate(drawn.loss_weights):
                now, right = drawn.input_ids[place], drawn.token_labels[place]
                if weight == 0:
                    assert now == right == example.input_ids[place]
                    continue
                by_place[example.where, place] += 1
                masked = now == task.renderer.tokenizer.mask_token_id
                fates["masked" if masked else "kept" if now == right else "random"] += 1
                words.update([now] if not masked and now != right else [])
    total, same = fates.total(), 0.1 / len(task.words)  # a random token may be the right one

    def close(count: float, of: int, wanted: float) -> bool:
        return abs(count / of - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / of)

    assert close(fates["masked"], total, 0.8)
    assert close(fates["random"], total, 0.1 - same) and close(fates["kept"], total, 0.1 + same)
    learnable = [(e.where, place) for e in examples for place, weight in enumerate(e.loss_weights) if weight > 0]
    assert close(sum(by_place.values()), updates * len(learnable), share)
    odd = [place for place in learnable if not close(by_place[place], updates, share)]
    assert len(odd) <= 2, "each place as often as any other"
    assert set(words) <= set(task.words) and len(words) > 0.9 * len(task.words)


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_tokens_are_chosen_masked_changed_and_kept_by_their_shares(headed: Path, share: float) -> None:
    check_shares(task_of(headed, task={"kind": "masked_lm", "mlm_probability": share}), share)


def test_the_check_sees_another_share(task: MaskedLM) -> None:
    with pytest.raises(AssertionError):
        check_shares(task, 0.2)


def test_of_a_short_text_one_token_is_chosen(task: MaskedLM) -> None:
    example = task.encode(record("the fox"))
    drawn = [task.drawn(example, step) for step in range(60)]
    assert {sum(weight > 0 for weight in d.loss_weights) for d in drawn} == {1}
    assert {d.loss_weights.index(1.0) for d in drawn} == {1, 2}


def test_special_tokens_are_never_chosen_nor_drawn(task: MaskedLM) -> None:
    """Whoever put them there: the tokenizer, or the text."""
    special = task.renderer.special
    for text in ("the fox [SEP] jumps [MASK] over", "<s> turn on </s> the light 北", *texts(5)):
        example = task.encode(record(text))
        assert example.input_ids[0] in special and example.input_ids[-1] in special
        for step in range(50):
            drawn = task.drawn(example, step)
            for token, right, weight in zip(drawn.input_ids, drawn.token_labels, drawn.loss_weights, strict=True):
                assert right not in special or (weight == 0 and token == right)
    assert special.isdisjoint(task.words)


def test_masks_are_of_the_seed_the_update_and_the_text_alone(headed: Path, task: MaskedLM) -> None:
    text = SENTENCE
    example = task.encode(record(text))
    masks = [task.drawn(example, step).input_ids for step in range(-1, 20)]
    assert len(set(masks)) == len(masks), "dynamic: every update draws anew"
    assert masks == [task_of(headed).drawn(example, step).input_ids for step in range(-1, 20)]
    assert masks[3] == task.drawn(task.encode(record(text, "another file:7")), 2).input_ids
    assert masks[3] != task_of(headed, seed=1).drawn(example, 2).input_ids
    other = task.encode(record(" ".join([*WORDS[1:], WORDS[0]])))
    chosen = [[weight > 0 for weight in task.drawn(e, 2).loss_weights] for e in (example, other)]
    assert chosen[0] != chosen[1], "each text draws its own"


def plan_of(rows: int = 100, tokens: int = 10_000) -> Plan:
    of_a_run = {"updates": 10, "packed": False, "share_prefix": False, "prefix": 0, "tokens": 0, "memory": 0}
    counted = {"trainable_parameters": 1, "parameters": 1, "available_memory": 1, "seconds": 0.0}
    return Plan(micro_batch_tokens=tokens, micro_batch_rows=rows, **of_a_run, **counted)  # type: ignore[arg-type]


def served(task: MaskedLM, examples: Sequence[Example], step: int, rows: int = 100) -> Iterator[tuple[Any, ...]]:
    """Every row as the model is given it: its ids, and where which tokens are learnt."""
    for batch in gradient.micro_batches(task, plan_of(rows), examples, step):
        size = batch.input_ids.shape[1]
        for row, (ids, real) in enumerate(zip(batch.input_ids, batch.attention_mask, strict=True)):
            mine = [i for i, place in enumerate(batch.places.tolist()) if place // size == row]
            at = [(int(batch.places[i]) % size, int(batch.targets[i]), float(batch.weights[i])) for i in mine]
            yield tuple(ids[real.bool()].tolist()), tuple(at)


def test_masks_are_the_same_however_the_update_is_cut_and_on_whatever_rank(task: MaskedLM) -> None:
    examples = [task.encode(record(text)) for text in texts(11)]
    wanted = sorted(served(task, examples, 5))
    for rows in (1, 2, 8):
        assert sorted(served(task, examples, 5, rows)) == wanted
    for world in (2, 3):
        shares = [examples[Ranks(rank, world).share(len(examples))] for rank in range(world)]
        assert sorted(row for share in shares for row in served(task, share, 5)) == wanted


def test_validation_masks_stay(task: MaskedLM) -> None:
    examples = [task.encode(record(text)) for text in texts(11)]
    assert list(served(task, examples, -1)) == list(served(task, examples, -1)) != list(served(task, examples, 0))


# ---- the loss --------------------------------------------------------------------------------------------------------


def check_loss_is_over_the_chosen_tokens(model: Any, task: MaskedLM) -> None:
    """The loss and its weight are those of Transformers' own forward, told where nothing is learnt."""
    drawn = [task.drawn(task.encode(record(text)), 3) for text in texts(7)]
    batch = task.collate(drawn, packed=False, share_prefix=False)
    loss, weight = task.loss(model, batch)
    labels = torch.full_like(batch.input_ids, -100)
    for row, example in enumerate(drawn):
        for place, (right, learnt) in enumerate(zip(example.token_labels, example.loss_weights, strict=True)):
            labels[row, place] = right if learnt > 0 else -100
    assert weight == (labels >= 0).sum() and weight < batch.attention_mask.sum() / 3
    assert loss.item() / weight == pytest.approx(model(**batch.inputs, labels=labels).loss.item(), rel=1e-5)


def test_the_loss_is_over_the_chosen_tokens_alone(headed: Path, task: MaskedLM) -> None:
    check_loss_is_over_the_chosen_tokens(load_model(headed, "masked_lm"), task)


def test_the_check_sees_a_loss_over_all_tokens(headed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, right = task_of(headed), MaskedLM.drawn
    monkeypatch.setattr(
        MaskedLM, "drawn", lambda self, e, step: replace(right(self, e, step), loss_weights=e.loss_weights)
    )
    with pytest.raises(AssertionError):
        check_loss_is_over_the_chosen_tokens(load_model(headed, "masked_lm"), task)


def test_a_text_of_which_nothing_is_learnt_changes_nothing(headed: Path, task: MaskedLM) -> None:
    model = load_model(headed, "masked_lm")
    nothing = task.encode(record("[SEP] €"))
    assert nothing.weight == 0
    drawn = [task.drawn(example, 0) for example in (task.encode(record("the quick fox")), nothing)]
    alone, both = (
        task.loss(model, task.collate(rows, packed=False, share_prefix=False)) for rows in (drawn[:1], drawn)
    )
    assert both[1] == alone[1] and both[0].item() == pytest.approx(alone[0].item(), rel=1e-5)
    loss, weight = task.loss(model, task.collate(drawn[1:], packed=False, share_prefix=False))
    assert loss.item() == weight == 0


def parameters_after(folder: Path, updates: int, rows: int, task: MaskedLM) -> torch.Tensor:
    model = load_model(folder, "masked_lm", kernels=False).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    examples = [task.encode(record(text)) for text in texts(8)]
    for step in range(updates):
        batches = list(gradient.micro_batches(task, plan_of(rows), examples, step))
        settings = {"seed": 0, "step": step, "max_grad_norm": 1.0, "ranks": Ranks(), "bf16": False}
        found = gradient.find_gradient(model, task, batches, lambda loss: loss.backward(), **settings)
        assert found.weight > 0
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def check_cuts_agree(folder: Path, task: MaskedLM) -> None:
    wanted = parameters_after(folder, 8, 8, task)
    for rows in (1, 2):
        assert (parameters_after(folder, 8, rows, task) - wanted).abs().max() < 1e-10


def test_the_update_does_not_depend_on_how_it_is_cut(headed: Path, task: MaskedLM) -> None:
    check_cuts_agree(headed, task)


def test_the_check_sees_masks_that_depend_on_the_order_of_drawing(
    headed: Path, task: MaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, real = random.Random(0), task.drawn
    monkeypatch.setattr(task, "drawn", lambda example, step: real(example, shared.randrange(1000)))
    with pytest.raises(AssertionError):
        check_cuts_agree(headed, task)


def test_sixteen_texts_are_learnt_by_heart(headed: Path, task: MaskedLM) -> None:
    """Each is two words again and again, so that what is masked stands elsewhere in the text."""
    pairs = [(WORDS[i], WORDS[(3 * i + 5) % len(WORDS)]) for i in range(16)]
    examples = [task.encode(record(f"{one} {other} " * 4)) for one, other in pairs]
    model = load_model(headed, "masked_lm")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 400)
        (batch,) = gradient.micro_batches(task, plan_of(), examples, step)
        loss, weight = task.loss(model, batch)
        (loss / weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        batches = [
            batch for step in range(1000, 1020) for batch in gradient.micro_batches(task, plan_of(), examples, step)
        ]
        found = [task.loss(model, batch) for batch in batches]  # one draw masks too few tokens to say much
    assert sum(loss.item() for loss, _ in found) / sum(weight for _, weight in found) < 0.1


def test_an_encoder_packs_and_shares_no_beginning(headed: Path, task: MaskedLM) -> None:
    model, rows = load_model(headed, "masked_lm"), [task.encode(record(text)) for text in texts(4)]
    assert enable_packing(model, rows) and not shares_prefixes(model, rows)


# ---- how a text is judged --------------------------------------------------------------------------------------------


def one_at_a_time(model: Any, task: MaskedLM, text: str) -> tuple[float, list[int]]:
    """Salazar et al.'s sum by Transformers' own forward, a forward pass a token; and where the tokens stand."""
    tokenizer = task.renderer.tokenizer
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    places, nll = task.scored_places(task.encode(record(text))), 0.0
    for place in places:
        masked = ids.clone()
        masked[0, place] = tokenizer.mask_token_id
        with torch.no_grad():
            nll -= torch.log_softmax(model(input_ids=masked).logits[0, place], -1)[ids[0, place]].item()
    return nll, places


def test_pseudo_perplexity_is_that_of_each_token_masked_by_itself(headed: Path, task: MaskedLM) -> None:
    model, plain = load_model(headed, "masked_lm"), AutoModelForMaskedLM.from_pretrained(headed)
    given = [*texts(6), " ".join(texts(1, 40, 41)), "fox"]
    answers = task.predict(model, [record(text) for text in given]).answers
    for text, answer in zip(given, answers, strict=True):
        nll, places = one_at_a_time(plain, task, text)
        assert answer["tokens"] == len(places)
        assert answer["nll"] == pytest.approx(nll, rel=1e-5)
    assert answers[6]["tokens"] == MOST_SCORED
    assert answers[0]["tokens"] == sum(weight > 0 for weight in task.encode(record(given[0])).loss_weights)


def test_an_answer_does_not_depend_on_the_texts_beside_it(
    headed: Path, task: MaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = load_model(headed, "masked_lm"), [record(text) for text in texts(8)]
    together = task.predict(model, rows).answers
    assert together == tuple(task.predict(model, [row]).answers[0] for row in rows)
    assert together[::-1] == task.predict(model, rows[::-1]).answers
    monkeypatch.setattr("pegbox.tasks.masked_lm.TOKENS_AT_ONCE", 20)
    for one, other in zip(together, task.predict(model, rows).answers, strict=True):
        assert one["tokens"] == other["tokens"] and one["nll"] == pytest.approx(other["nll"], rel=1e-5)


def test_the_scored_tokens_are_the_same_in_every_run(headed: Path, task: MaskedLM) -> None:
    example = task.encode(record(" ".join(texts(1, 45, 46))))
    places = task.scored_places(example)
    assert len(set(places)) == MOST_SCORED < sum(weight > 0 for weight in example.loss_weights)
    assert task_of(headed, seed=1).scored_places(replace(example, where="elsewhere:1")) == places


def test_a_text_without_a_token_to_score_is_no_error(headed: Path, task: MaskedLM) -> None:
    assert task.predict(load_model(headed, "masked_lm"), [record("")]).answers == ({"nll": 0.0, "tokens": 0},)


def test_the_trivial_rival_knows_how_often_each_token_occurs(task: MaskedLM) -> None:
    train, test = [record("the fox the dog"), record("the light")], [record("the fox"), record("kitchen")]
    answers = task.trivial(train, test).answers
    ids = [token for row in train for token in task.encode(row).input_ids[1:-1]]
    for row, answer in zip(test, answers, strict=True):
        scored = task.encode(row).input_ids[1:-1]
        shares = [(ids.count(token) + 1) / (len(ids) + len(task.renderer.tokenizer)) for token in scored]
        assert answer == {"nll": pytest.approx(-sum(map(math.log, shares))), "tokens": len(scored)}


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_models_that_cannot_learn_masked_tokens_are_refused(tmp_path: Path) -> None:
    for folder, complaint in (
        (encoder_folder(tmp_path / "no mask"), "mask token"),
        (causal_folder(tmp_path / "decoder"), "writes text"),
    ):
        with pytest.raises(RecipeError, match=complaint) as caught:
            task_of(folder)
        assert caught.value.cure


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = masked_folder(tmp_path, head=True)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["pegbox"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(RecipeError, match="pegbox"):
        load_model(folder, "masked_lm")


# ---- whole runs ------------------------------------------------------------------------------------------------------


def recipe(model: Path, rows: Path, method: str, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "task": "masked_lm",
        "data": {"train": str(rows), "validation": 0.2, "test": 0.3},
        "method": method,
        "train": {"max_steps": 6, "eval_steps": 3, "batch_size": 8, "learning_rate": 5e-3},
        **changes,
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = [{"text": text, "label": "yes" if "fox" in text else "no"} for text in texts(120)]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", given)


@pytest.fixture(scope="module")
def runs(bare: Path, headed: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    made = {"full": (bare, "full"), "lora": (bare, "lora"), "with its head": (headed, "lora")}
    return {
        name: pegbox.train(recipe(model, rows, method), run_dir=root / name) for name, (model, method) in made.items()
    }


def test_the_untouched_model_is_a_rival_only_where_it_has_a_head(runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        wanted = {"trivial", "tuned"} | ({"base"} if name == "with its head" else set())
        assert set(run.evaluation["systems"]) == wanted
        assert run.evaluation["primary"] == "perplexity" and run.verdict in ("better", "worse", "not shown")
        lines = list(run.folder.read_lines("predictions.jsonl"))
        assert all(len({answer["tokens"] for answer in line["answers"].values()}) == 1 for line in lines)
        assert run.receipt["shots"] == 0


def test_a_run_stands_up_to_verification(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert verify(run.path)["ok"] is True


CHILD = """
import json, sys
from pathlib import Path
from pegbox.finished import Run
root, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
print(json.dumps({path.name: Run(path).predict([{"text": text} for text in texts]) for path in root.iterdir()}))
"""


def test_a_fresh_process_says_the_same(runs: dict[str, Run]) -> None:
    given = texts(5, seed=3)
    root = runs["full"].path.parent
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root), json.dumps(given)], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {name: run.predict([{"text": text} for text in given]) for name, run in runs.items()}


def test_what_was_learnt_lies_in_the_model_folder_and_nothing_tied_twice(runs: dict[str, Run]) -> None:
    model = runs["full"].model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not any("decoder" in name for name in load_file(runs["full"].folder.model / "model.safetensors"))
    adapter = load_file(runs["lora"].folder.model / "adapter_model.safetensors")
    assert any("transform" in name for name in adapter) and any(name.endswith("predictions.bias") for name in adapter)
    assert not any("embeddings" in name or "decoder" in name for name in adapter)


def test_a_run_that_was_stopped_ends_in_the_same_bits(runs: dict[str, Run], tmp_path: Path) -> None:
    whole, stopped = runs["full"].path, tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "checkpoints" / "step-6")
    shutil.rmtree(stopped / "model")
    again = pipeline.resume(stopped)
    assert again.receipt["resumed_at"] == 3
    assert again.receipt["model_files"] == runs["full"].receipt["model_files"]
    assert (stopped / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert again.evaluation == runs["full"].evaluation


# ---- the run as the model of the next --------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [lambda path: path, lambda path: path / "model"], ids=["the run", "its model"])
def test_a_run_is_the_model_of_the_next(
    runs: dict[str, Run], rows: Path, tmp_path: Path, named: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    first, given = runs["full"], named(runs["full"].path)
    with caplog.at_level("INFO", logger="pegbox"):
        run = pegbox.train(recipe(given, rows, "full", task="classification"), run_dir=tmp_path / "next")
    assert run.receipt["model"] | {"name": str(given), "source": "run"} == run.receipt["model"]
    assert run.receipt["model"]["files"] == dict(hashes(first.folder.model)) == first.receipt["model_files"]
    assert "pooler" in caplog.text, "it is said that the pooler is new"
    untouched, learnt = run.load_base(), load_file(first.folder.model / "model.safetensors")
    assert isinstance(untouched, BertForSequenceClassification)
    for name, tensor in untouched.bert.state_dict(prefix="bert.").items():
        assert "pooler" in name or torch.equal(tensor, learnt[name])
    assert Run(run.path).predict([{"text": "the fox"}])[0] in ("yes", "no")
    assert verify(run.path)["ok"] is True


def test_a_run_can_be_read_on_from_with_the_head_that_it_learnt(
    runs: dict[str, Run], rows: Path, tmp_path: Path
) -> None:
    run = pegbox.train(recipe(runs["full"].path, rows, "lora"), run_dir=tmp_path / "next")
    assert "base" in run.evaluation["systems"]
    before, after = (list(r.folder.read_lines("predictions.jsonl")) for r in (runs["full"], run))
    for one, other in zip(before, after, strict=True):
        assert one["answers"]["tuned"] == pytest.approx(other["answers"]["base"], rel=1e-6)


def test_an_adapters_run_is_merged_and_an_unfinished_one_is_no_model(
    runs: dict[str, Run], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(runs["full"].path / "recipe.yaml", unfinished)
    (unfinished / "receipt.json").write_text(json.dumps({"began": "now"}))
    for path in (runs["lora"].path, runs["lora"].path / "model"):
        assert resolve(str(path)).source == "run, merged"
        pegbox.check(recipe(path, rows, "full"))
    with pytest.raises(RecipeError, match="no model yet") as caught:
        pegbox.check(recipe(unfinished, rows, "full"))
    assert "--resume" in str(caught.value.cure)
