"""Rows that join and leave all the time get the answers that they get alone, and nothing is computed that need not be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch

from pegbox import runtime
from pegbox.kernels.shared_attention import IMPLEMENTATION
from pegbox.kernels.slots import SlotCache
from pegbox.models import aside, decoding, generation, waiting
from pegbox.models.decoding import Known, Rows
from pegbox.models.generation import CLOSE, Answer, best, generate
from pegbox.models.likelihood import log_likelihoods
from tiny_models import rows, tiny

KINDS = ["llama", "qwen2", "mistral", "gemma2", "gpt_oss", "gpt2", "opt"]
SHARE = ["llama", "qwen2", "gpt2"]  # take what is shared aside
COPY = ["mistral", "gemma2", "gpt_oss"]  # a window, a cap, sinks
NEW = 24
STOPS = frozenset(range(3, 9))


def ragged(seed: int, count: int = 45) -> list[tuple[int, ...]]:
    """Prompts of 1 to 30 tokens; two thirds of them begin with one of two texts."""
    make = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 31, (count,), generator=make).tolist()
    groups = [rows(lengths[part::3], prefix=18 * (part > 0), seed=10 * seed + part) for part in range(3)]
    return [prompt for group in groups for prompt in group]


@torch.no_grad()
def alone(model: Any, prompts: Sequence[Sequence[int]]) -> list[Answer]:
    """Each prompt by itself: the whole text again for every token, no cache."""
    answers = []
    for prompt in prompts:
        answer, ids = Answer(), list(prompt)
        while len(answer.input_ids) < NEW and not answer.stopped:
            tokens, margins = best(model(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[:, -1])
            answer.add(int(tokens), margins[0], STOPS)
            ids.append(int(tokens))
        answers.append(answer)
    return answers


@pytest.fixture(scope="module")
def wanted() -> Any:
    known: dict[str, Any] = {}

    def of(name: str) -> tuple[Any, list[tuple[int, ...]], list[Answer]]:
        if name not in known:
            model, prompts = tiny(name, tie_word_embeddings=False), ragged(KINDS.index(name))
            known[name] = model, prompts, alone(model, prompts)
        return known[name]

    return of


def differences(got: Sequence[Answer], expected: Sequence[Answer]) -> int:
    """How many rows have another answer, of those that are clear; nearly all must be."""
    clear = [(one, other) for one, other in zip(got, expected, strict=True) if other.margin > CLOSE]
    assert len(clear) >= 0.9 * len(expected), "the test's own rows are too close to tell"
    return sum((one.input_ids, one.stopped) != (other.input_ids, other.stopped) for one, other in clear)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int, int]]]:
    """Every pass of a model: what it was for, its rows, and its tokens of each."""
    seen: list[tuple[str, int, int]] = []
    run, join, read = Rows._run, Rows.join, waiting.read
    joins = [0]

    def running(self: Rows, ids: torch.Tensor, *rest: Any, **options: Any) -> Any:
        seen.append(("join" if joins[0] else "step", *ids.shape))
        return run(self, ids, *rest, **options)

    def joining(self: Rows, new: Any) -> torch.Tensor:
        joins[0] = 1
        try:
            return join(self, new)
        finally:
            joins[0] = 0

    def reading(model: Any, ids: Sequence[int], known: Known) -> Known:
        seen.append(("read", 1, len(ids) - known.length))
        return read(model, ids, known)

    monkeypatch.setattr(Rows, "_run", running)
    monkeypatch.setattr(Rows, "join", joining)
    monkeypatch.setattr(waiting, "read", reading)
    yield seen


@pytest.mark.parametrize("name", KINDS)
def test_rows_that_join_while_others_go_on_get_the_answers_that_they_get_alone(
    name: str, wanted: Any, passes: list[tuple[str, int, int]]
) -> None:
    model, prompts, expected = wanted(name)
    lengths = {len(answer.input_ids) for answer in expected}
    assert min(lengths) <= 2 and max(lengths) >= 12, "the answers are of like length"
    for size in (6, 17):
        passes.clear()
        assert differences(generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW, batch_size=size), expected) == 0
        kinds = [kind for kind, *_ in passes]
        assert sum(one == "step" and other == "join" for one, other in pairwise(kinds)) >= 3
        assert max(count for _, count, _ in passes) <= size


def test_no_row_is_computed_that_has_finished_and_no_token_twice(
    wanted: Any, passes: list[tuple[str, int, int]]
) -> None:
    """Each pass gives each of its rows one token; what is not a row's pass is a beginning that is read."""
    model, prompts, _ = wanted("llama")
    given: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, options: given.append((args[0] if args else options["input_ids"]).numel()),
        with_kwargs=True,
    )
    answers = generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW, batch_size=8)
    hook.remove()
    said = sum(len(answer.input_ids) + answer.stopped for answer in answers)
    assert sum(count for kind, count, _ in passes if kind != "read") == said
    assert sum(count for kind, count, _ in passes if kind == "join") == len(prompts)
    assert {tokens for kind, _, tokens in passes if kind == "step"} == {1}
    assert given == [count * tokens for _, count, tokens in passes], "a pass that was not seen"
    reads = [tokens for kind, _, tokens in passes if kind == "read"]
    assert reads == [18, 18], "the two texts, once each"
    own = sum(len(prompt) for prompt in prompts) - 18 * 2 * len(prompts) // 3
    joined = sum(count * tokens for kind, count, tokens in passes if kind == "join")
    assert own <= joined <= 1.35 * own, "padding"


def test_the_count_sees_rows_that_stay_although_they_have_finished(
    wanted: Any, passes: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, expected = wanted("llama")
    leave = Rows.leave

    def one_by_one(self: Rows, places: Sequence[int]) -> None:
        leave(self, [place for place, row in enumerate(self.live) if not row.left][:1])

    monkeypatch.setattr(Rows, "leave", one_by_one)
    monkeypatch.setattr(generation, "_hear", lambda *given: _heard_by_the_unfinished(*given))
    generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW, batch_size=8)
    said = sum(len(answer.input_ids) + answer.stopped for answer in expected)
    assert sum(count for kind, count, _ in passes if kind != "read") > said


def _heard_by_the_unfinished(logits: torch.Tensor, given: Any, answers: Any, stop_ids: Any) -> None:
    tokens, margins = best(logits)
    for row, answer, token, margin in zip(given, answers, tokens.tolist(), margins, strict=True):
        if row.left:
            answer.add(token, margin, stop_ids)
        row.ids.append(token)
        row.left = 0 if answer.stopped else max(0, row.left - 1)


def test_a_long_history_leaves_attention_no_longer_than_the_longest_row(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that no row uses any more are not seen, and buffers do not grow."""
    monkeypatch.setattr("pegbox.kernels.slots.ROOM", 7)
    model, prompts, expected = wanted("mistral")
    seen: list[tuple[int, int, int]] = []
    step = Rows.step

    def stepping(self: Rows) -> torch.Tensor:
        out = step(self)
        seen.append((self.end - self.start, max(row.filled for row in self.live), self.cache.capacity))
        return out

    monkeypatch.setattr(Rows, "step", stepping)
    assert differences(generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW, batch_size=5), expected) == 0
    assert len(seen) > 60 and all(width == longest for width, longest, _ in seen)
    most = max(len(prompt) for prompt in prompts) + NEW + 7
    assert max(capacity for *_, capacity in seen) <= most


def test_what_a_row_left_in_its_slot_does_not_reach_the_next(wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what is no number: masked, it would still be multiplied by zero."""
    model, prompts, expected = wanted("llama")
    leave, clear = Rows.leave, SlotCache.clear

    def spoil(self: Rows, places: Sequence[int]) -> None:
        leave(self, places)
        for layer in self.cache.layers:
            for buffer in layer.buffers:
                buffer[len(self.live) :] = torch.nan

    monkeypatch.setattr(Rows, "leave", spoil)
    assert differences(generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW, batch_size=6), expected) == 0
    monkeypatch.setattr(SlotCache, "clear", lambda self, rows, end: None)
    assert differences(generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW, batch_size=6), expected) > 0
    monkeypatch.setattr(SlotCache, "clear", clear)


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
def test_memory_that_runs_out_on_the_way_costs_no_answer(
    most: int, wanted: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After some tokens no pass has room for more rows; some have then given the token to the first layer only."""
    model, prompts, expected = wanted("mistral")
    layer, calls, told = model.model.layers[1].mlp, [0], list[int]()

    def short(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        calls[0] += 1
        if calls[0] > 9 and len(given[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = layer.register_forward_pre_hook(short)
    options = {"stop_ids": STOPS, "max_new_tokens": NEW, "batch_size": 12}
    try:
        assert differences(generate(model, prompts, advance=told.append, **options), expected) == 0
    finally:
        hook.remove()
    assert sum(told) == len(prompts)
    counts = [int(line.split("memory for ")[1].split()[0]) for line in caplog.messages if "half as many" in line]
    assert counts[0] > most and all(other <= one // 2 for one, other in pairwise(counts))


def test_memory_that_is_short_when_rows_leave_answers_none_again(wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, expected = wanted("llama")
    put, calls, told = SlotCache.put, [0], list[int]()

    def short(self: SlotCache, *given: Any) -> None:
        calls[0] += 1
        if calls[0] in (2, 5):
            raise MemoryError
        put(self, *given)

    monkeypatch.setattr(SlotCache, "put", short)
    options = {"stop_ids": STOPS, "max_new_tokens": NEW, "batch_size": 16}
    assert differences(generate(model, prompts, advance=told.append, **options), expected) == 0
    assert sum(told) == len(prompts) and calls[0] > 5


def test_a_single_row_without_room_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*given: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Rows, "_run", short)
    with pytest.raises(runtime.OutOfMemoryError, match="for a single row") as told:
        generate(tiny("llama"), rows([3, 4, 5]), stop_ids=STOPS, max_new_tokens=2)
    assert told.value.cure

    def wrong(*given: Any, **options: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Rows, "_run", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        generate(tiny("llama"), rows([3, 4, 5]), stop_ids=STOPS, max_new_tokens=2)


def test_no_more_rows_are_answered_at_once_than_memory_has_room_for(
    wanted: Any, passes: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, expected = wanted("llama")
    columns = max(map(len, prompts)) + NEW + decoding.ROOM
    bytes_of_a_row = 2 * 2 * 2 * 8 * 4 * columns  # keys and values, layers, heads, width, float32
    monkeypatch.setattr(runtime, "available_memory", lambda device: 4 * (3 * bytes_of_a_row + 1))
    assert differences(generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW), expected) == 0
    assert max(count for kind, count, _ in passes if kind != "read") == 3
    monkeypatch.setattr(runtime, "available_memory", lambda device: 1)
    assert decoding.affordable(model, 10) == 1


# ---- what all rows begin with, aside ---------------------------------------------------------------------------------


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was aside whenever rows began to be answered."""
    found: list[int] = []
    init = Rows.__init__

    def begun(self: Rows, model: Any, slots: int, aside: Known = decoding.NOTHING) -> None:
        found.append(aside.length)
        init(self, model, slots, aside)

    monkeypatch.setattr(Rows, "__init__", begun)
    monkeypatch.setattr(aside, "TOKENS", 12)
    return found


@pytest.mark.parametrize("name", [*SHARE, *COPY])
def test_what_all_rows_begin_with_is_held_once_where_the_model_takes_it_so(name: str, sizes: list[int]) -> None:
    model = tiny(name, tie_word_embeddings=False)
    prompts = [(*rows([14])[0], *prompt[: 1 + len(prompt) // 2]) for prompt in ragged(4, 33)]
    before, expected = model.config._attn_implementation, alone(model, prompts)
    answers = generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW, batch_size=9)
    assert differences(answers, expected) == 0
    assert sizes[-1] == (14 if name in SHARE else 0)
    assert model.config._attn_implementation == before != IMPLEMENTATION


def test_it_is_left_where_two_rows_get_other_logits(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose attention does not ask Transformers for its form would not see what is shared."""
    model = tiny("llama", tie_word_embeddings=False)
    prompts = rows([4, 5, 6] * 4, prefix=20)
    expected = alone(model, prompts)
    right = aside.attention_that_shares
    monkeypatch.setattr(aside, "attention_that_shares", lambda model: torch.no_grad())
    assert differences(generate(model, prompts, stop_ids=STOPS, max_new_tokens=NEW), expected) == 0
    assert sizes[-1] == 0
    monkeypatch.setattr(aside, "attention_that_shares", right)
    generate(model, prompts[:7], stop_ids=STOPS, max_new_tokens=2)
    assert sizes[-1] == 0, "of few rows each holds its copy"
    generate(model, prompts, stop_ids=STOPS, max_new_tokens=2)
    assert sizes[-1] == 20


def test_likelihoods_behind_what_is_aside_are_the_same(sizes: list[int]) -> None:
    model, prompts = tiny("qwen2", dtype=torch.float64), rows([4, 5, 1, 9] * 3, prefix=20)
    answers = [(7,), (8, 9), (8, 9, 10, 11)]
    got = log_likelihoods(model, prompts, answers)
    assert sizes[-1] == 20
    for row, prompt in zip(got, prompts, strict=True):
        assert abs(row - log_likelihoods(model, [prompt], answers)[0]).max() < 1e-10
