"""The likelihoods of answers behind prompts are those of one sequence at a time, whatever is computed once for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pegbox.models import likelihood
from pegbox.models.decoding import Rows, batches
from pegbox.models.likelihood import log_likelihoods
from tiny_models import WINDOW, rows, tiny

KEEP_COLUMNS = ["llama", "qwen2", "mistral", "gemma2", "gpt_oss", "gpt2", "opt"]
READ_WHOLE = ["llama4", "lfm2", "bloom", "mamba"]
# of one token, one that begins others, long ones
ANSWERS = [(7,), (8, 9), (8,), (8, 9, 10, 11, 12, 13, 14), (20, 21, 22), (8, 9, 11)]


def alone(model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
    """The definition: a forward for each prompt and answer, and a sum over the answer's tokens."""
    found = np.zeros((len(prompts), len(answers)))
    for p, prompt in enumerate(prompts):
        for a, answer in enumerate(answers):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double()
            for t, token in enumerate(answer, start=len(prompt)):
                found[p, a] += (logits[t - 1, token] - logits[t - 1].exp().sum().log()).item()
    return found


@pytest.mark.parametrize("name", [*KEEP_COLUMNS, *READ_WHOLE])
@pytest.mark.parametrize("prefix", [0, 2 * WINDOW + 3], ids=["nothing shared", "shared prefix"])
def test_every_kind_of_model_gives_each_answer_what_it_gets_alone(name: str, prefix: int) -> None:
    model = tiny(name)
    assert batches(model) == (name in KEEP_COLUMNS)
    prompts = rows([4, 13, 1, 2], prefix=prefix, seed=3)
    prompts.append(prompts[0][: prefix or 1])  # just what the others begin with
    np.testing.assert_allclose(log_likelihoods(model, prompts, ANSWERS), alone(model, prompts, ANSWERS), atol=2e-4)


def test_in_float64_they_are_exact_and_do_not_hang_on_the_other_prompts() -> None:
    model = tiny("qwen2", dtype=torch.float64)
    prompts = rows([4, 13, 1, 2], prefix=9, seed=3)
    wanted = alone(model, prompts, ANSWERS)
    np.testing.assert_allclose(log_likelihoods(model, prompts, ANSWERS), wanted, rtol=1e-10)
    for row, prompt in zip(wanted, prompts, strict=True):
        np.testing.assert_allclose(log_likelihoods(model, [prompt], ANSWERS)[0], row, rtol=1e-10)
        np.testing.assert_allclose(log_likelihoods(model, [prompt, prompt], ANSWERS[:1])[:, 0], row[0], rtol=1e-10)


@pytest.mark.parametrize(("name", "value"), [("ANSWERS_AT_ONCE", 2), ("KEYS_AT_ONCE", 1), ("KEYS_AT_ONCE", 60)])
def test_answers_in_parts_are_those_at_once(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = tiny("llama", dtype=torch.float64), rows([4, 13], prefix=5)
    wanted = log_likelihoods(model, prompts, ANSWERS)
    monkeypatch.setattr(likelihood, name, value)
    np.testing.assert_allclose(log_likelihoods(model, prompts, ANSWERS), wanted, rtol=1e-10)


def test_prompts_and_what_they_begin_with_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model is given, rows and tokens of each: the prefix, the rests of the prompts together, and answers of like
    length but for their last tokens."""
    model, seen = tiny("llama"), list[tuple[int, int]]()
    monkeypatch.setattr(likelihood, "PROMPTS_AT_ONCE", 2)
    prompts = rows([4, 6, 5], prefix=50)
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple((args[0] if args else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    told: list[int] = []
    log_likelihoods(model, prompts, [(7, 8, 9), (3, 4, 5, 6, 7), (9, 10, 11)], told.append)
    behind = [(2 * 2, 2), (2, 4), (1, 4), (2, 2), (1, 4)]
    assert seen == [(1, 50), (2, 6), *behind[:2], (1, 4), behind[3], behind[4]]
    assert told == [2, 1]
    seen.clear()
    log_likelihoods(model, prompts, [(7,), (9,)])
    assert seen == [(1, 50), (2, 6), (1, 4)]


def test_memory_that_is_short_costs_no_likelihood() -> None:
    model, prompts = tiny("qwen2", dtype=torch.float64), rows([4, 13, 1, 2], prefix=9, seed=3)
    wanted, told = log_likelihoods(model, prompts, ANSWERS), list[int]()

    def short(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) > 6:
            raise MemoryError

    model.model.layers[1].mlp.register_forward_pre_hook(short)
    np.testing.assert_allclose(log_likelihoods(model, prompts, ANSWERS, told.append), wanted, rtol=1e-10)
    assert told == [2, 2]


@pytest.mark.parametrize("bug", ["mask", "positions"])
def test_the_check_sees_answers_that_stand_a_place_too_far(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Rows._run

    def wrong(self: Rows, ids: Any, cache: Any, mask: Any, positions: Any, **options: Any) -> Any:
        behind = "logits_to_keep" not in options
        if behind and bug == "mask":
            mask = mask.roll(1, -1)
        return run(self, ids, cache, mask, positions + (behind and bug == "positions"), **options)

    model, prompts = tiny("gpt2"), rows([4, 13, 1, 2], seed=3)
    wanted = log_likelihoods(model, prompts, ANSWERS)
    monkeypatch.setattr(Rows, "_run", wrong)
    assert np.abs(log_likelihoods(model, prompts, ANSWERS) - wanted).max() > 0.01
