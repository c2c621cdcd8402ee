"""Each row of a batch gets the answer that it gets alone (INVARIANTS row 11), and nothing else is touched (row 19)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from pegbox.kernels.slots import SlotCache
from pegbox.models import waiting
from pegbox.models.decoding import Known, Rows, batches
from pegbox.models.generation import CLOSE, Answer, Kept, count_close, generate, stream
from tiny_models import WINDOW, rows, tiny

BATCHED = ["llama", "qwen2", "mistral", "gemma2", "gpt_oss", "gpt2", "opt"]
ROW_BY_ROW = ["bloom", "mamba", "lfm2", "llama4"]
NEW = 9
NO_STOP: frozenset[int] = frozenset()


@pytest.fixture(autouse=True)
def whatever_is_shared_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LEAST", 1)


@torch.no_grad()
def plain_answer(model: Any, prompt: Sequence[int], stop_ids: frozenset[int]) -> Answer:
    """The whole text again for every token: no cache, no padding, no batch."""
    answer, ids = Answer(), list(prompt)
    for _ in range(NEW):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        first, second = logits.sort(descending=True).values[:2].tolist()
        answer.margin = min(answer.margin, first - second)
        ids.append(int(logits.argmax()))
        if ids[-1] in stop_ids:
            return Answer(ids[len(prompt) : -1], True, answer.margin)
    return Answer(ids[len(prompt) :], False, answer.margin)


def transformers_answer(model: Any, prompt: Sequence[int], stop_ids: frozenset[int]) -> tuple[list[int], bool]:
    given = torch.tensor([list(prompt)])
    options = {"max_new_tokens": NEW, "eos_token_id": sorted(stop_ids) or None, "pad_token_id": 0}
    ids = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, **options)[0, len(prompt) :]
    stopped = bool(len(ids)) and int(ids[-1]) in stop_ids
    return ids[: len(ids) - stopped].tolist(), stopped


def check_answers_are_those_alone(
    model: Any, prompts: Sequence[Sequence[int]], stop_ids: frozenset[int], sizes: Sequence[int] = (1, 2, 3, 7, 64)
) -> list[Answer]:
    """At every batch size: the answers of the plain loop and of Transformers, token by token, and the plain margins."""
    wanted = [plain_answer(model, prompt, stop_ids) for prompt in prompts]
    assert min(answer.margin for answer in wanted) > CLOSE, "the test's own rows are too close to tell"
    for prompt, answer in zip(prompts, wanted, strict=True):
        assert transformers_answer(model, prompt, stop_ids) == (answer.input_ids, answer.stopped)
    for size in sizes:
        told: list[int] = []
        got = generate(model, prompts, stop_ids=stop_ids, max_new_tokens=NEW, batch_size=size, advance=told.append)
        assert sum(told) == len(prompts)
        for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
            assert (one.input_ids, one.stopped) == (other.input_ids, other.stopped), f"row {index}, {size} at once"
            assert one.margin == pytest.approx(other.margin, abs=CLOSE)
    return wanted


def stops(model: Any, prompts: Sequence[Sequence[int]]) -> frozenset[int]:
    """Stop tokens that end the first row's answer at once and another's in its midst."""
    first, *others = (plain_answer(model, prompt, NO_STOP).input_ids for prompt in prompts)
    later = (t for ids in others for t in ids[1:] if ids[0] not in (t, first[0]))
    return frozenset({first[0], next(later)})


def unequal(prefix: int) -> list[tuple[int, ...]]:
    """Seven prompts of very unequal length; one is just what the others begin with, two are the same."""
    made = rows([4, 13, 1, 2, 25, 7], prefix=prefix, seed=3)
    return [*made[:5], made[0], made[4][:prefix] or made[2]]


@pytest.mark.parametrize("name", [*BATCHED, *ROW_BY_ROW])
@pytest.mark.parametrize("prefix", [0, 2 * WINDOW + 3], ids=["nothing shared", "shared prefix"])
def test_batched_answers_are_those_given_alone(name: str, prefix: int) -> None:
    model, prompts = tiny(name, tie_word_embeddings=False), unequal(prefix)
    assert batches(model) == (name in BATCHED)
    stop_ids = stops(model, prompts)
    answers = check_answers_are_those_alone(model, prompts, stop_ids, (1, 2, 3, 7, 64) if name in BATCHED else (2,))
    assert answers[0].stopped and not answers[0].input_ids, "no row stops at once"
    assert any(answer.stopped and answer.input_ids for answer in answers), "no row stops in its midst"
    check_answers_are_those_alone(model, prompts, NO_STOP, sizes=(3,))  # every row runs to max_new_tokens


@pytest.mark.parametrize("name", ["llama", "mistral", "mamba"])
def test_single_and_identical_prompts(name: str) -> None:
    model, (prompt,) = tiny(name), rows([12])
    for prompts in ([prompt], [prompt] * 3, [prompt[:1]], [prompt, prompt[:1]], [prompt, prompt[:6]]):
        check_answers_are_those_alone(model, prompts, NO_STOP, sizes=(1, 2, 64))


def test_packed_attention_leaves_generation_as_it_is() -> None:
    from pegbox.models.packing import enable_packing
    from tiny_models import examples

    model = tiny("mistral")
    assert enable_packing(model, examples([9, 4, 13]))
    check_answers_are_those_alone(model, unequal(6), NO_STOP, sizes=(3, 64))


def test_answers_come_in_the_order_of_the_prompts() -> None:
    model, prompts = tiny("llama"), unequal(0)
    answers = generate(model, prompts, stop_ids=NO_STOP, max_new_tokens=3)
    turned = generate(model, prompts[::-1], stop_ids=NO_STOP, max_new_tokens=3)
    assert [answer.input_ids for answer in turned] == [answer.input_ids for answer in answers][::-1]
    assert generate(model, [], stop_ids=NO_STOP, max_new_tokens=3) == []


def test_the_models_own_generation_settings_do_not_bend_a_greedy_answer() -> None:
    for name in ("llama", "mamba"):
        model, prompts = tiny(name), unequal(0)
        wanted = [plain_answer(model, prompt, NO_STOP).input_ids for prompt in prompts]
        own = model.generation_config = GenerationConfig(repetition_penalty=5.0, do_sample=True, num_beams=3)
        got = generate(model, prompts, stop_ids=NO_STOP, max_new_tokens=NEW)
        assert [answer.input_ids for answer in got] == wanted
        assert model.generation_config is own


# ---- the bugs, put back ----------------------------------------------------------------------------------------------

RUN, FILL, PUT, JOIN = Rows._run, SlotCache.fill, SlotCache.put, Rows.join


def positions_count_padding(
    self: Rows, ids: Any, cache: Any, mask: torch.Tensor, positions: Any, **options: Any
) -> Any:
    places = torch.arange(mask.shape[1])[None].expand(len(ids), -1)[:, -ids.shape[1] :]
    return RUN(self, ids, cache, mask, places, **options)


def padding_is_seen(self: Rows, ids: Any, cache: Any, mask: torch.Tensor, positions: Any, **options: Any) -> Any:
    return RUN(self, ids, cache, torch.ones_like(mask), positions, **options)


def the_prefix_is_a_column_off(self: SlotCache, row: int, end: int, columns: Any) -> None:
    FILL(self, row, end, [tuple(part.roll(1, dims=2) for part in layer) for layer in columns])


def the_wrong_rows_stay(self: SlotCache, rows: Sequence[int], into: Sequence[int], start: int, end: int) -> None:
    """Finished rows leave the list of rows but not the cache."""


def later(positions: torch.Tensor, live: int) -> torch.Tensor:
    return positions + (live > 0)


def rows_that_join_are_a_position_late(self: Rows, rows: Any) -> torch.Tensor:
    run, live = self._run, len(self.live)
    self._run = lambda ids, cache, mask, positions, **o: run(ids, cache, mask, later(positions, live), **o)  # type: ignore[method-assign]
    try:
        return JOIN(self, rows)
    finally:
        self._run = run  # type: ignore[method-assign]


def the_mask_of_rows_that_joined_is_shifted(
    self: Rows, ids: Any, cache: Any, mask: torch.Tensor, positions: Any, **options: Any
) -> Any:
    """Of the row that is last in the batch, once there was another."""
    if len(mask) > 1 and ids.shape[1] == 1:
        mask = torch.cat([mask[:-1], mask[-1:].roll(1)])
    return RUN(self, ids, cache, mask, positions, **options)


@pytest.mark.parametrize(
    ("owner", "method", "bug", "name", "prefix"),
    [
        (Rows, "_run", positions_count_padding, "gpt2", 0),
        (Rows, "_run", positions_count_padding, "gpt2", 15),
        (Rows, "_run", padding_is_seen, "llama", 0),
        (Rows, "_run", padding_is_seen, "llama", 15),
        (SlotCache, "fill", the_prefix_is_a_column_off, "mistral", 15),
        (SlotCache, "put", the_wrong_rows_stay, "llama", 0),
        (Rows, "join", rows_that_join_are_a_position_late, "gpt2", 0),
        (Rows, "_run", the_mask_of_rows_that_joined_is_shifted, "llama", 0),
        (Rows, "_run", the_mask_of_rows_that_joined_is_shifted, "mistral", 0),
    ],
)
def test_the_check_sees_a_wrong_layout(
    owner: type, method: str, bug: Any, name: str, prefix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = tiny(name), unequal(prefix)
    stop_ids = stops(model, prompts)
    monkeypatch.setattr(owner, method, bug)
    with pytest.raises(AssertionError, match=r"at once|comparison failed"):
        check_answers_are_those_alone(model, prompts, stop_ids, sizes=(2, 3, 7))


def test_the_check_sees_a_prefix_that_the_window_has_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cache made from the model's config keeps of the prefix: its last columns only."""
    read = waiting.read

    def forgetful(model: Any, ids: Sequence[int], known: Known) -> Known:
        kept = [[t[:, :, -WINDOW + 1 :] for t in layer] for layer in read(model, ids, known).columns]
        zeros = torch.zeros(1, 2, len(ids) - WINDOW + 1, 8)
        return Known(len(ids), [(torch.cat([zeros, k], 2), torch.cat([zeros, v], 2)) for k, v in kept])

    monkeypatch.setattr(waiting, "read", forgetful)
    model, prompts = tiny("mistral"), unequal(15)
    with pytest.raises(AssertionError, match=r"at once|comparison failed"):
        check_answers_are_those_alone(model, prompts, NO_STOP)


# ---- close calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_rows_that_hang_on_rounding_are_counted(name: str) -> None:
    model, prompts = tiny(name, tie_word_embeddings=False), unequal(0)
    clear = generate(model, prompts, stop_ids=NO_STOP, max_new_tokens=NEW)
    assert list(count_close(clear)) == []
    torch.nn.init.zeros_(model.lm_head.weight)  # every token is as likely as any other
    tied = generate(model, prompts, stop_ids=NO_STOP, max_new_tokens=2)
    assert [answer.input_ids for answer in tied] == [[0, 0]] * len(prompts), "of equals the first, as Transformers"
    assert list(count_close(tied)) == list(range(len(prompts)))
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    broken = generate(model, prompts, stop_ids=NO_STOP, max_new_tokens=2)
    assert list(count_close(broken)) == list(range(len(prompts)))


def test_close_is_below_a_ten_thousandth_and_keeps_the_least() -> None:
    answer = Answer()
    for token, margin in ((5, 0.3), (6, 2e-4), (2, 0.5)):
        answer.add(token, margin, frozenset({2}))
    assert (answer.input_ids, answer.stopped, answer.margin) == ([5, 6], True, 2e-4)
    given = [answer, Answer(margin=9.9e-5), Answer(), Answer(margin=1e-4)]
    assert list(count_close(given)) == [1]


# ---- side effects ----------------------------------------------------------------------------------------------------


def check_generation_touches_nothing(model: Any) -> None:
    """Random state, gradients, training flags, weights, settings and the attention in use are as before."""
    torch.manual_seed(5)
    model(torch.tensor([rows([6])[0]])).logits.sum().backward()
    model.get_input_embeddings().train()  # a flag set on purpose must survive as well

    def state() -> list[Any]:
        tensors = [t.clone() for p in model.parameters() for t in (p, p.grad)]
        flags = [module.training for module in model.modules()]
        held = [p.requires_grad for p in model.parameters()]
        return [torch.get_rng_state(), *tensors, flags, held, model.generation_config, model.config.to_dict()]

    before = state()
    generate(model, unequal(4), stop_ids=frozenset({2}), max_new_tokens=NEW, batch_size=2)
    for one, other in zip(before, state(), strict=True):
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same, "generation has left a trace"
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("name", ["llama", "gpt2", "mamba"])
def test_generation_leaves_training_alone(name: str) -> None:
    check_generation_touches_nothing(tiny(name))


def test_training_goes_on_after_generation() -> None:
    model = tiny("llama")
    generate(model, unequal(4), stop_ids=NO_STOP, max_new_tokens=2)
    model.train()(torch.tensor([rows([6])[0]])).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "bug", [lambda model: torch.rand(1), lambda model: model.eval(), lambda model: model.zero_grad()]
)
def test_the_check_sees_what_generation_might_touch(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Rows.join

    def touching(self: Rows, joining: Any) -> Any:
        bug(self.model)
        return real(self, joining)

    monkeypatch.setattr(Rows, "join", touching)
    with pytest.raises((AssertionError, AttributeError)):
        check_generation_touches_nothing(tiny("llama"))


def test_a_model_in_training_is_not_asked() -> None:
    model = tiny("llama").train()
    with pytest.raises(AssertionError):
        generate(model, [[3]], stop_ids=NO_STOP, max_new_tokens=1)
    with pytest.raises(AssertionError):
        next(stream(model, [3], stop_ids=NO_STOP, max_new_tokens=1))


def test_an_empty_prompt_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        generate(tiny("llama"), [[3], []], stop_ids=NO_STOP, max_new_tokens=1)


# ---- drawn answers ---------------------------------------------------------------------------------------------------


def test_a_drawn_answer_follows_the_seed_the_stop_tokens_and_the_models_own_settings() -> None:
    model, (prompt,) = tiny("llama"), rows([8])

    def drawn(seed: int, stop_ids: frozenset[int] = NO_STOP) -> list[int]:
        torch.manual_seed(seed)
        return list(stream(model, prompt, stop_ids=stop_ids, max_new_tokens=NEW, do_sample=True))

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(drawn(1)) == NEW
    assert drawn(1, frozenset({drawn(1)[4]})) == drawn(1)[: drawn(1).index(drawn(1)[4])]
    model.generation_config.top_k = 1  # leaves the likeliest token only
    assert drawn(1) == drawn(2) == plain_answer(model, prompt, NO_STOP).input_ids


# ---- one answer, token by token --------------------------------------------------------------------------------------


def streamed(model: Any, prompt: Sequence[int], stop_ids: frozenset[int] = NO_STOP, **options: Any) -> list[int]:
    return list(stream(model, prompt, stop_ids=stop_ids, max_new_tokens=NEW, **options))


@pytest.mark.parametrize("name", [*BATCHED, *ROW_BY_ROW])
def test_streamed_tokens_are_the_answer_and_leave_no_trace(name: str) -> None:
    model, prompts = tiny(name, tie_word_embeddings=False), unequal(0)
    own, threads = model.generation_config, threading.active_count()
    for stop_ids in (stops(model, prompts), NO_STOP):
        for prompt in prompts:
            assert streamed(model, prompt, stop_ids) == plain_answer(model, prompt, stop_ids).input_ids
    assert model.generation_config is own
    assert threading.active_count() == threads
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_stream_gives_each_token_before_the_next_is_computed() -> None:
    for name in ("llama", "mamba"):
        model, (prompt,), calls = tiny(name), rows([8]), [0]
        model.register_forward_pre_hook(lambda *given, calls=calls: calls.__setitem__(0, calls[0] + 1))
        tokens = stream(model, prompt, stop_ids=NO_STOP, max_new_tokens=NEW)
        for heard in (1, 2, 3):
            next(tokens)
            time.sleep(0.05)
            assert calls[0] == heard, f"{name}: computed before it was asked for"
        tokens.close()
        assert calls[0] == 3, f"{name}: nobody listened, and it went on"


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_drawn_tokens_are_those_that_transformers_draws(name: str) -> None:
    model, (prompt,) = tiny(name), rows([8])
    model.generation_config = GenerationConfig(temperature=1.5, top_k=9, repetition_penalty=1.3)
    given = torch.tensor([list(prompt)])
    torch.manual_seed(3)
    drawn = model.generate(given, attention_mask=torch.ones_like(given), do_sample=True, max_new_tokens=NEW)
    torch.manual_seed(3)
    assert streamed(model, prompt, do_sample=True) == drawn[0, len(prompt) :].tolist()


def test_what_goes_wrong_in_the_thread_is_raised_where_the_tokens_are_heard() -> None:
    model, threads = tiny("mamba"), threading.active_count()

    def fail(*given: Any) -> None:
        raise MemoryError("no room")

    model.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError, match="no room"):
        streamed(model, [3, 4])
    assert threading.active_count() == threads


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_stream_computes_in_the_precision_of_who_asks(name: str) -> None:
    model, seen = tiny(name), set[bool]()
    model.register_forward_pre_hook(lambda *given: seen.add(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        streamed(model, [3, 4])
    assert seen == {True}


def turns(model: Any, kept: Kept | None, *, leave_after: int = NEW) -> list[list[int]]:
    """Three turns, each behind the one before and its answer; the last goes back to the first and asks otherwise."""
    asked = rows([9, 4, 3], seed=8)
    history: list[int] = []
    answers = []
    for prompt in ([*asked[0]], [*asked[1]], [*asked[2]]):
        history += prompt
        tokens = stream(model, history, stop_ids=NO_STOP, max_new_tokens=NEW, kept=kept)
        answers.append([token for token, _ in zip(tokens, range(leave_after), strict=False)])
        history += answers[-1]
    answers.append(streamed(model, [*asked[0][:5], *asked[1]], kept=kept))
    return answers


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("leave_after", [NEW, 4, 0], ids=["whole answers", "left off", "left at once"])
def test_what_is_kept_from_turn_to_turn_changes_no_answer(name: str, leave_after: int) -> None:
    model = tiny(name, tie_word_embeddings=False)
    assert turns(model, Kept(), leave_after=leave_after) == turns(model, None, leave_after=leave_after)


def test_what_is_kept_is_not_computed_again() -> None:
    model, given = tiny("llama"), list[int]()
    model.register_forward_pre_hook(
        lambda module, args, options: given.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    kept, prompt = Kept(), list(rows([40])[0])
    answer = streamed(model, prompt, kept=kept)
    assert given == [40] + [1] * (NEW - 1)
    given.clear()
    streamed(model, [*prompt, *answer, 5, 6], kept=kept)
    assert given[0] <= 4, "of the new turn: two tokens, the answer's last, and one more"
    given.clear()
    streamed(model, rows([12], seed=5)[0], kept=kept)
    assert given[0] == 12, "a conversation that begins otherwise shares nothing"


@pytest.mark.parametrize("layer", [0, 1])
def test_an_answer_that_breaks_off_within_the_model_leaves_what_is_kept_usable(layer: int) -> None:
    """Ctrl-C is raised anywhere: also when one layer has taken the token and the next has not."""
    model, prompt = tiny("llama", tie_word_embeddings=False), list(rows([9])[0])
    wanted = streamed(model, [*prompt, 7, 8])
    kept, calls = Kept(), [0]

    def interrupt(*given: Any) -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt

    hook = model.model.layers[layer].mlp.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        streamed(model, prompt, kept=kept)
    hook.remove()
    assert len(kept.ids) == len(prompt) + 2
    assert streamed(model, [*prompt, 7, 8], kept=kept) == wanted


@pytest.mark.parametrize("wrong", [lambda ids: [5, *ids[1:]], lambda ids: [*ids[1:], 5]], ids=["another", "shifted"])
def test_the_check_sees_keys_of_other_ids(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the keys that are kept are taken for those of the prompt, whatever it begins with."""
    monkeypatch.setattr(Kept, "ids", property(lambda self: self.seen, lambda self, ids: None), raising=False)
    model, (prompt,) = tiny("llama", tie_word_embeddings=False), rows([12])
    kept = Kept()
    kept.seen = prompt  # type: ignore[attr-defined]
    streamed(model, wrong(list(prompt)), kept=kept)
    assert streamed(model, prompt, kept=kept) != streamed(model, prompt)
