"""InfoNCE over a whole update: however it is cut, packed and spread over ranks, the same gradient in float64.

The reference is ten lines: every text by itself, unpadded, one graph, and what is no wrong answer found a text at a time.
Two ranks are started as torchrun does, from a process of its own, which writes down what each of them had.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_tokenizers import tokenizer
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import functional
from transformers import AutoModel

from made_tasks import made_task
from pegbox import runtime
from pegbox.data.records import Example
from pegbox.data.render import Renderer
from pegbox.models import pooling
from pegbox.models.batch import Batch
from pegbox.models.packing import enable_packing
from pegbox.runtime import ALONE, Ranks, joined_ranks
from pegbox.tasks import Task, contrastive
from pegbox.tasks.embedding import Embedding
from pegbox.tasks.pairs import Matching
from pegbox.training import gradient
from pegbox.training.batching import cut
from tiny_models import rows as random_rows
from tiny_models import tiny

HERE = Path(__file__).resolve()
PATHS = (HERE.parents[2] / "src", HERE.parents[1], HERE.parents[1] / "data")
EXACT = 1e-10
CUTS = (1, 4, 32)
DROPPED = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
Rows = Sequence[Sequence[tuple[int, ...]]]  # the texts of each row, as tokens
Found = tuple[float, torch.Tensor]  # the loss of an update, and its gradient by all weights


def made_rows(count: int, *, triplets: bool = True) -> Rows:
    """Pairs, every third with a negative, of texts that all differ."""
    texts = random_rows([3 + n % 7 for n in range(3 * count)], seed=count)
    every = [texts[3 * n : 3 * n + 3] for n in range(count)]
    return [row if triplets and n % 3 == 0 else row[:2] for n, row in enumerate(every)]


def entangled_rows(count: int, seed: int) -> Rows:
    """Rows that share texts: questions asked twice, answers of several questions, questions that are answers, too."""
    draw, texts = random.Random(seed), random_rows([3, 4, 5, 3, 4, 6], seed=seed)
    return [[draw.choice(texts) for _ in range(2 + (n % 2))] for n in range(count)]


def as_examples(rows: Rows) -> list[Example]:
    whole = [tuple(token for text in row for token in text) for row in rows]
    return [Example(f"row {n}", whole[n], lengths=tuple(map(len, row))) for n, row in enumerate(rows)]


def task_of(**settings: Any) -> Embedding:
    task = made_task("embedding", Renderer(tokenizer("wordpiece"), ()), task={"kind": "embedding", **settings})
    assert isinstance(task, Embedding)
    return task


def model_of(kind: str = "bert", **options: Any) -> Any:
    return tiny(kind, head=AutoModel, dtype=torch.float64, vocab_size=len(tokenizer("wordpiece")), **options)


def batches_of(task: Task, rows: Rows, at_once: int, *, packed: bool = False, share: bool = False) -> list[Batch]:
    parts = cut(as_examples(rows), tokens=10**9, rows=at_once)
    return [task.collate(part, packed=packed, share_prefix=share) for part in parts]


def gradient_of(model: Any) -> torch.Tensor:
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([grad.flatten() for grad in grads])


def updated(task: Task, model: Any, batches: Sequence[Batch], ranks: Ranks = ALONE) -> Found:
    model.zero_grad()
    loss, weight = task.update_loss(model, batches, lambda part: part.backward(), ranks)
    assert weight == sum(len(batch.labels) for batch in batches)
    return loss, gradient_of(model)


POOLED: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda tokens: tokens.mean(0),
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
}


def excused(rows: Rows) -> list[list[bool]]:
    """By the rule, a text at a time: which columns (pairs, then negatives) stand in no sum of a row."""
    columns = [(n, row[1]) for n, row in enumerate(rows)] + [(None, row[2]) for row in rows if len(row) > 2]
    found = []
    for n, row in enumerate(rows):
        right = [other[1] for other in rows if other[0] == row[0]]
        found.append([owner != n and (text == row[0] or text in right) for owner, text in columns])
    return found


def reference(model: Any, rows: Rows, pooled: str = "mean", temperature: float = 0.05) -> Found:
    """Each text by itself; then the cross-entropy of each row's own pair among all pairs and negatives."""
    model.zero_grad()
    vectors = [[POOLED[pooled](model(torch.tensor([text])).last_hidden_state[0]) for text in row] for row in rows]
    queries, pairs = (torch.stack([row[n] for row in vectors]) for n in (0, 1))
    every = torch.stack([*pairs, *(row[2] for row in vectors if len(row) > 2)])
    scores = functional.cosine_similarity(queries[:, None], every[None], dim=-1) / temperature
    scores = scores.masked_fill(torch.tensor(excused(rows)), -torch.inf)
    loss = functional.cross_entropy(scores, torch.arange(len(rows)), reduction="sum")
    loss.backward()
    return loss.item(), gradient_of(model)


def check(found: Found, wanted: Found) -> None:
    assert found[0] == pytest.approx(wanted[0], abs=EXACT), "loss"
    assert (found[1] - wanted[1]).abs().max() < EXACT, "gradient"


# ---- the update ------------------------------------------------------------------------------------------------------


def check_every_cut(task: Embedding, model: Any, rows: Rows, **how: Any) -> None:
    wanted = reference(model, rows, **how)
    assert wanted[1].abs().max() > 1e-3
    for at_once in CUTS:
        check(updated(task, model, batches_of(task, rows, at_once)), wanted)


def test_negatives_are_those_of_the_whole_update_however_it_is_cut() -> None:
    check_every_cut(task_of(), model_of(), made_rows(36))


@pytest.mark.parametrize(("pooled", "temperature"), [("cls", 0.05), ("last", 0.05), ("mean", 0.5)], ids=str)
def test_so_they_are_with_every_pooling_and_temperature(pooled: str, temperature: float) -> None:
    task = task_of(pooling=pooled, temperature=temperature)
    check_every_cut(task, model_of(), made_rows(9), pooled=pooled, temperature=temperature)


@pytest.mark.parametrize("pooled", ["mean", "last"])
def test_so_they_are_in_a_pack_whether_or_not_what_texts_begin_with_is_shared(pooled: str) -> None:
    rows = [[(5, 6, *text) for text in row] for row in made_rows(9)]
    task, model = task_of(pooling=pooled), model_of("llama")
    wanted = reference(model, rows, pooled)
    assert enable_packing(model, as_examples(rows))
    for at_once in CUTS:
        for share in (False, True):
            check(updated(task, model, batches_of(task, rows, at_once, packed=True, share=share)), wanted)


def test_one_pair_has_nothing_to_be_told_from_and_one_triplet_has() -> None:
    task, model = task_of(), model_of()
    loss, gradient = updated(task, model, batches_of(task, made_rows(1, triplets=False), 1))
    assert loss == 0 and gradient.abs().max() == 0
    check_every_cut(task, model, made_rows(1))


def test_the_order_of_the_rows_does_not_matter() -> None:
    task, model, rows = task_of(), model_of(), list(made_rows(8))
    wanted = updated(task, model, batches_of(task, rows, 3))
    random.Random(1).shuffle(rows)
    check(updated(task, model, batches_of(task, rows, 3)), wanted)


def test_negatives_of_the_micro_batch_alone_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedding, "update_loss", Task.update_loss)
    with pytest.raises(AssertionError, match="loss"):
        check_every_cut(task_of(), model_of(), made_rows(9))


def test_negatives_that_are_left_out_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Matching.outputs

    def paired(self: Matching, texts: contrastive.Texts, rows: slice = slice(None)) -> Any:
        kept = texts.roles != contrastive.NEGATIVE
        return right(self, contrastive.Texts(texts.vectors[kept], texts.roles[kept], texts.keys[kept]), rows)

    monkeypatch.setattr(Matching, "outputs", paired)
    with pytest.raises(AssertionError, match="loss"):
        check_every_cut(task_of(), model_of(), made_rows(9))


def test_a_graph_that_is_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: vectors are not computed again, and only those of the last micro-batch have a graph."""

    def lost(embed: Any, parts: Any, gradient: torch.Tensor, backward: Any) -> None:
        shares = gradient.split([len(part.texts.keys) for part in parts])
        backward(sum((part.texts.vectors * share).sum() for part, share in zip(parts, shares, strict=True)))

    monkeypatch.setattr(contrastive, "_second_pass", lost)
    with pytest.raises(AssertionError, match="gradient"):
        check_every_cut(task_of(), model_of(), made_rows(9))


def test_no_more_than_one_micro_batch_has_a_graph_at_a_time() -> None:
    task, model, seen = task_of(), model_of(), list[bool]()
    model.register_forward_hook(lambda module, given, out: seen.append(out.last_hidden_state.requires_grad))
    updated(task, model, batches_of(task, made_rows(9), 3))
    assert seen == [False, False, True, True, True]  # the last graph is used before the next is made
    seen.clear()
    updated(task, model, batches_of(task, made_rows(9), 9))
    assert seen == [True]  # what fits at once is computed once


# ---- the noise -------------------------------------------------------------------------------------------------------


def in_one_pass(task: Embedding, model: Any, batches: Sequence[Batch]) -> Found:
    """The same draws, all graphs kept."""
    model.zero_grad()
    texts = contrastive.Texts.joined([contrastive.Texts.of(batch, pooling.vectors(model, batch)) for batch in batches])
    assert isinstance(task.pairs, Matching)
    loss, _ = task.criterion(*task.pairs.outputs(texts))
    loss.backward()
    return loss.item(), gradient_of(model)


def check_same_noise() -> None:
    task, model = task_of(), model_of(**DROPPED).train()
    batches = batches_of(task, made_rows(9), 2)
    runtime.seed_noise(7, 3)
    wanted = in_one_pass(task, model, batches)
    runtime.seed_noise(7, 3)
    check(updated(task, model, batches), wanted)
    runtime.seed_noise(7, 4)
    assert in_one_pass(task, model, batches)[0] != wanted[0]  # there is noise


def test_both_passes_draw_the_same_noise() -> None:
    check_same_noise()


def test_every_weight_learns_in_bfloat16_too() -> None:
    """What autocast keeps of the pass without a graph must not be used in the pass with one."""
    task, model = task_of(), model_of().float()
    batches = batches_of(task, made_rows(9), 2)
    with runtime.autocast(model.device, bf16=True):
        loss, wanted = in_one_pass(task, model, batches)
        told, found = updated(task, model, batches)
    assert told == pytest.approx(loss, rel=1e-3) and functional.cosine_similarity(found, wanted, dim=0) > 0.999
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "pooler" not in name)


def test_noise_that_is_drawn_anew_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "draw_again", lambda state, device: None)
    with pytest.raises(AssertionError, match="gradient"):
        check_same_noise()


# ---- what is no wrong answer -----------------------------------------------------------------------------------------


def check_excused(rows: Rows) -> None:
    task, model = task_of(), model_of()
    batch = task.collate(as_examples(rows), packed=False, share_prefix=False)
    texts = contrastive.Texts.of(batch, pooling.vectors(model, batch))
    assert torch.isinf(contrastive.similarities(texts, 0.05)).tolist() == excused(rows)
    check_every_cut(task, model, rows)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_known_to_match_is_no_wrong_answer(seed: int) -> None:
    rows = entangled_rows(7, seed)
    assert any(map(any, excused(rows)))
    check_excused(rows)


def test_a_right_answer_that_counts_as_wrong_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = lambda texts: torch.zeros(1, 1, dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr(contrastive, "no_wrong_answers", nothing)
    with pytest.raises(AssertionError):
        check_excused(entangled_rows(7, 0))


# ---- two ranks -------------------------------------------------------------------------------------------------------

SPREAD: Mapping[str, Rows] = {
    "seven rows": made_rows(7),
    "one row": made_rows(1),  # so that a rank has none
    "rows that share texts": entangled_rows(7, 0),
}


def launch(folder: Path) -> None:
    config = LaunchConfig(
        *(1, 1, 2),
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        run_id="contrastive",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, work)(folder)


def spread(rows: Rows, ranks: Ranks, at_once: int = 2) -> torch.Tensor:
    """The loss, the weight and the gradient."""
    task, model = task_of(), model_of()
    batches = batches_of(task, rows[ranks.share(len(rows))], at_once)
    settings: dict[str, Any] = {"seed": 1, "step": 0, "max_grad_norm": 1e9, "bf16": False}
    found = gradient.find_gradient(model, task, batches, lambda part: part.backward(), ranks=ranks, **settings)
    return torch.cat([torch.tensor([found.loss, found.weight], dtype=torch.float64), gradient_of(model)])


def averaged(self: Ranks, parameters: Any) -> None:
    given = list(parameters)
    SUMMED(self, given)
    for parameter in given:
        parameter.grad /= self.world


def only_own(self: Ranks, rows: torch.Tensor) -> list[torch.Tensor]:
    return [rows if rank == self.rank else rows[:0] for rank in range(self.world)]


SUMMED = Ranks.sum_gradients
BUGS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "averaged": ("sum_gradients", averaged),
    "each for itself": ("gather", only_own),
}


@contextmanager
def put_in(bug: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ranks, *BUGS[bug])
        yield


def work(folder: Path) -> None:
    """One rank; the first writes what it found, and what it finds where a bug is put in."""
    with joined_ranks() as ranks:
        found = {f"{name}, {at_once}": spread(SPREAD[name], ranks, at_once) for name in SPREAD for at_once in CUTS}
        for bug in BUGS:
            with put_in(bug):
                found[bug] = spread(SPREAD["seven rows"], ranks)
        if ranks.is_first:
            save_file(found, folder / "found.safetensors")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("ranks")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([sys.executable, str(HERE), str(folder)], check=True, timeout=120, env=environment)
    return dict(load_file(folder / "found.safetensors"))


def check_spread(found: torch.Tensor, rows: Rows) -> None:
    loss, grads = reference(model_of(), rows)
    assert found[1] == len(rows)
    check((found[0].item(), found[2:]), (loss / len(rows), grads / len(rows)))


@pytest.mark.parametrize("at_once", CUTS)
@pytest.mark.parametrize("name", SPREAD)
def test_two_ranks_have_the_negatives_of_both(name: str, at_once: int, of_two: dict[str, torch.Tensor]) -> None:
    check_spread(of_two[f"{name}, {at_once}"], SPREAD[name])


@pytest.mark.parametrize(("bug", "shows"), [("averaged", "gradient"), ("each for itself", "loss")])
def test_gradients_that_are_averaged_and_negatives_of_one_rank_are_caught(
    bug: str, shows: str, of_two: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(AssertionError, match=shows):
        check_spread(of_two[bug], SPREAD["seven rows"])


if __name__ == "__main__":
    launch(Path(sys.argv[1]))
