"""Packed examples are examples alone: logits, gradients, and which models may be packed at all (INVARIANTS row 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from pegbox.data.records import Example
from pegbox.kernels import attention
from pegbox.models import batch, outputs, packing
from pegbox.models.batch import Batch, pack, pad
from pegbox.models.load import has_dropout
from pegbox.models.outputs import chosen_logits, learnt_logits, whole_text_logits
from pegbox.models.prefix_tree import lay_out
from tiny_masked import MASKED, masked
from tiny_models import WINDOW, examples, rows, tiny, tiny_classifier

PACKED = ["llama", "qwen2", "mistral", "gpt2", "opt"]
# soft capping; attention sinks; alibi; recurrent; convolutional; chunked; a window that its attention is not told of
UNPACKED = ["gemma2", "gpt_oss", "bloom", "mamba", "lfm2", "llama4", "phimoe"]
PACKED_ENCODERS = ["bert", "roberta", "distilbert", "albert", "electra"]
LENGTHS = [9, 4, 13, 1, 6]


def packable(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny model of this kind that computes packs."""
    model = tiny(name, dtype=dtype)
    assert packing.enable_packing(model, examples(LENGTHS))
    return model


def alone(model: Any, example: Example) -> torch.Tensor:
    """The logits at each place that predicts a learnt token, by the model itself."""
    places = [t - 1 for t, weight in enumerate(example.loss_weights) if weight > 0 and t > 0]
    logits: torch.Tensor = model(torch.tensor([example.input_ids]), use_cache=False).logits[0, places]
    return logits


# ---- logits ----------------------------------------------------------------------------------------------------------


def check_pack_is_alone(model: Any, given: Sequence[Example], *, share_prefix: bool, atol: float) -> None:
    """The logits of each example in a pack are those of the example alone."""
    with torch.no_grad():
        packed = learnt_logits(model, pack(given, share_prefix=share_prefix))
        wanted = torch.cat([alone(model, example) for example in given])
    torch.testing.assert_close(packed, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["fp32", "fp64"])
def test_logits_in_a_pack_are_those_of_the_example_alone(name: str, dtype: torch.dtype, atol: float) -> None:
    model = packable(name, dtype)
    for prefix in (0, 3, 2 * WINDOW):
        for share_prefix in (False, True):
            check_pack_is_alone(model, examples(LENGTHS, prefix=prefix), share_prefix=share_prefix, atol=atol)


def test_packs_of_one_and_of_twins_are_alone_too() -> None:
    model = packable("mistral", torch.float64)
    for given in (examples([7]), examples([7]) * 3, examples([1, 1], prefix=6)):
        check_pack_is_alone(model, given, share_prefix=True, atol=1e-10)


@pytest.mark.parametrize("multiple", [1, 2, 32])
@pytest.mark.parametrize("name", ["mistral", "gpt2"])
def test_what_fills_a_pack_changes_nothing(name: str, multiple: int) -> None:
    model, given = packable(name, torch.float64), examples(LENGTHS, prefix=3)
    filled = pack(given, share_prefix=True, multiple=multiple)
    bare = pack(given, share_prefix=True)
    assert filled.input_ids.shape[1] % multiple == 0 <= filled.input_ids.shape[1] - bare.input_ids.shape[1] < multiple
    with torch.no_grad():
        torch.testing.assert_close(learnt_logits(model, filled), learnt_logits(model, bare), rtol=0, atol=1e-12)
    for name in ("places", "targets", "weights", "starts", "ends"):
        assert torch.equal(getattr(filled, name), getattr(bare, name))


def causal_over_the_pack(query: Any, key: Any, value: Any, pack: Any, *, scale: Any, **asked: Any) -> Any:
    """Bug: one causal sequence, so that an example sees those before it."""
    key, value = (t.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for t in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    return out.transpose(1, 2)


def test_the_check_sees_attention_across_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = packable("llama")
    monkeypatch.setattr(attention, "packed_attention", causal_over_the_pack)
    with pytest.raises(AssertionError):
        check_pack_is_alone(model, examples(LENGTHS), share_prefix=False, atol=1e-5)


def test_the_check_sees_a_window_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    model, causal = packable("mistral"), attention._causal
    monkeypatch.setattr(attention, "_causal", lambda queries, keys, window, device: causal(queries, keys, None, device))
    for share_prefix in (False, True):
        with pytest.raises(AssertionError):
            check_pack_is_alone(model, examples(LENGTHS, prefix=3), share_prefix=share_prefix, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_check_sees_positions_that_do_not_restart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, real = packable(name), Batch.inputs
    assert isinstance(real, property) and real.fget is not None
    inputs: Callable[[Batch], dict[str, Any]] = real.fget

    def running_on(self: Batch) -> dict[str, Any]:
        return inputs(self) | {"position_ids": torch.arange(self.input_ids.shape[1])[None]}

    monkeypatch.setattr(Batch, "inputs", property(running_on))
    if name == "llama":  # rotary positions are relative: with no shared prefix a constant shift changes nothing
        check_pack_is_alone(model, examples(LENGTHS), share_prefix=False, atol=1e-5)
    with pytest.raises(AssertionError):
        check_pack_is_alone(model, examples(LENGTHS, prefix=3), share_prefix=True, atol=1e-5)


# ---- gradients -------------------------------------------------------------------------------------------------------


def check_no_gradient_leaks(model: Any, given: Sequence[Example], *, share_prefix: bool) -> None:
    """What an example's logits depend on: its own tokens and the shared prefix, and no other example's, exactly."""
    made = pack(given, share_prefix=share_prefix)
    kept: list[torch.Tensor] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda module, args, out: kept.append(out))
    logits = learnt_logits(model, made)
    handle.remove()
    places = lay_out([example.input_ids for example in given], share=share_prefix).places
    for at, part in zip(places, logits.split([len(example) - 1 for example in given]), strict=True):
        wave = torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)
        (grad,) = torch.autograd.grad((part * wave).sum(), kept[0], retain_graph=True)
        reached = grad[0].abs().amax(1).nonzero()[:, 0].tolist()
        assert set(reached) <= set(at), f"{at} depends on another example"
        assert set(reached) == set(at[:-1])  # nothing is predicted behind the last token


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("share_prefix", [False, True])
def test_no_gradient_flows_from_one_example_to_another(name: str, share_prefix: bool) -> None:
    given = [Example(e.where, e.input_ids, (1.0,) * len(e)) for e in examples([5, 3, 7], prefix=9)]
    check_no_gradient_leaks(packable(name), given, share_prefix=share_prefix)


def test_the_check_sees_a_gradient_across_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = packable("llama")
    monkeypatch.setattr(attention, "packed_attention", causal_over_the_pack)
    with pytest.raises(AssertionError, match="depends on another"):
        check_no_gradient_leaks(model, examples([5, 3, 7]), share_prefix=False)


def gradients(model: Any, batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """Of the weighted sum of cross-entropies over all batches, for every parameter."""
    model.zero_grad()
    for made in batches:
        losses = cross_entropy(learnt_logits(model, made), made.targets, reduction="none")
        (losses * made.weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def check_gradients_agree(model: Any, given: Sequence[Example]) -> None:
    """Every parameter's gradient is the same packed (prefix shared or not), padded, and one by one."""
    wanted = gradients(model, [pad([example], 0) for example in given])
    whole = torch.stack([grad.norm() for grad in wanted.values()]).norm()
    forms = {
        "padded": pad(given, 0),
        "packed": pack(given, share_prefix=False),
        "packed behind the shared prefix": pack(given, share_prefix=True),
    }
    for form, made in forms.items():
        assert made.weights.sum() == sum(example.weight for example in given)
        for name, grad in gradients(model, [made]).items():
            distance = (grad - wanted[name]).norm() / whole
            assert distance < 1e-10, f"{form}: {name} is {distance:.1e} off"


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("untrained", [0, 3, 6], ids=["prefix trained", "prefix partly trained", "suffixes trained"])
def test_gradients_do_not_depend_on_how_an_update_is_laid_out(name: str, untrained: int) -> None:
    """With `untrained` 0 and 3, trained tokens of the shared prefix count once for each row."""
    check_gradients_agree(packable(name, torch.float64), examples([5, 1, 9, 3], prefix=6, untrained=untrained))


def test_the_check_sees_a_trained_prefix_that_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = batch._learnt

    def first_row_only(given: Sequence[Example], places: Sequence[Sequence[int]]) -> Any:
        seen: set[tuple[int, int]] = set()
        kept = []
        for example, at in zip(given, places, strict=True):
            weights = [0.0 if (at[t], t) in seen else w for t, w in enumerate(example.loss_weights)]
            seen |= {(at[t], t) for t in range(len(example))}
            kept.append(Example(example.where, example.input_ids, tuple(weights)))
        return learnt(kept, places)

    model = packable("llama", torch.float64)
    monkeypatch.setattr(batch, "_learnt", first_row_only)
    with pytest.raises(AssertionError):
        check_gradients_agree(model, examples([5, 1, 9], prefix=6))


def test_the_check_sees_a_suffix_predicted_by_the_suffix_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = batch._learnt

    def shifted(given: Sequence[Example], places: Sequence[Sequence[int]]) -> Any:
        return learnt(given, [[*(place - 1 for place in at[1:]), 0] for at in places])

    model = packable("llama", torch.float64)
    monkeypatch.setattr(batch, "_learnt", shifted)
    with pytest.raises(AssertionError):
        check_gradients_agree(model, examples([5, 1, 9], prefix=6))


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_padded_rows_get_the_logits_that_they_get_alone() -> None:
    for name in (*PACKED, *UNPACKED):
        model, given = tiny(name), examples(LENGTHS)
        with torch.no_grad():
            padded, wanted = learnt_logits(model, pad(given, 0)), torch.cat([alone(model, e) for e in given])
        torch.testing.assert_close(padded, wanted, rtol=0, atol=2e-5, msg=name)


def test_only_learnt_tokens_are_listed_with_the_weight_they_have() -> None:
    given = [
        Example("a", (5, 5, 5, 5, 6, 7), (1.0, 0.0, 0.0, 0.0, 0.0, 0.25)),
        Example("b", (5, 5, 5, 5, 8), (0.0, 0.0, 0.0, 0.0, 2.0)),
        Example("c", (5, 5, 5, 5, 6), (1.0, 0.0, 0.0, 0.0, 0.0)),
    ]
    padded, packed = pad(given, 0), pack(given, share_prefix=True)
    assert packed.input_ids.tolist() == [[5, 5, 5, 5, 6, 8, 6, 7]]
    assert packed.position_ids is not None and packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 4, 4, 5]]
    assert (padded.places.tolist(), packed.places.tolist()) == ([4, 9], [6, 3])
    for made in (padded, packed):
        assert made.targets.tolist() == [7, 8]
        assert made.weights.tolist() == [0.25, 2.0]


def test_a_batch_with_nothing_to_learn_is_empty() -> None:
    made = pack([Example("a", (5, 6), (1.0, 0.0))], share_prefix=True)
    assert len(made.places) == len(made.targets) == len(made.weights) == 0


def test_a_batch_moves_whole() -> None:
    moved = pack(examples([3, 4]), share_prefix=True).to(torch.device("meta"))
    held = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(held) == 8 and all(value.is_meta for value in held)


# ---- which models may be packed --------------------------------------------------------------------------------------


def check_packing_is_right(model: Any, given: Sequence[Example]) -> bool:
    """Either packing was enabled and is right on these examples, or nothing about the model has changed."""
    before = model.config._attn_implementation
    ids = torch.tensor([rows([40])[0]])
    with torch.no_grad():
        wanted = model(ids).logits
    packed = packing.enable_packing(model, given)
    if packed:
        assert packing.shares_prefixes(model, given) != has_dropout(model)
        for share_prefix in (False, True):
            check_pack_is_alone(model, given, share_prefix=share_prefix, atol=1e-5)
    else:
        assert model.config._attn_implementation == before
        with torch.no_grad():
            assert torch.equal(model(ids).logits, wanted)
    return packed


@pytest.mark.parametrize("name", [*PACKED, *UNPACKED])
def test_packing_is_enabled_where_it_is_the_same_maths(name: str) -> None:
    assert check_packing_is_right(tiny(name), examples(LENGTHS, prefix=3)) == (name in PACKED)


def test_packing_is_enabled_for_rows_shorter_than_the_window_that_attention_is_not_told_of() -> None:
    assert check_packing_is_right(tiny("phimoe"), examples([2, 4, 3]))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "roberta"])
def test_a_classifier_gets_in_a_pack_what_it_gets_alone(name: str) -> None:
    model = tiny_classifier(name, num_labels=3)
    model.config.pad_token_id = None  # a text may end in that token, and Transformers looks for it
    whole_rows = [
        Example(f"{i}", ids, token_type_ids=(0, 1) * (len(ids) // 2 * (name == "bert")))
        for i, ids in enumerate(rows([4, 8, 2, 6]))
    ]
    wanted = torch.cat([model(**pad([row], 0).inputs).logits for row in whole_rows])
    assert packing.enable_packing(model, whole_rows)
    packed = whole_text_logits(model, pack(whole_rows, share_prefix=False))
    torch.testing.assert_close(packed, wanted, rtol=0, atol=1e-5)


def test_the_check_sees_rows_that_are_pooled_at_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    made = packing.pack
    monkeypatch.setattr(packing, "pack", lambda given, **asked: replace(b := made(given, **asked), starts=b.starts * 0))
    assert not packing.enable_packing(tiny_classifier("bert"), examples(LENGTHS))


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_language_model_packs_alike_or_not_at_all(name: str) -> None:
    model, given = masked(name), examples(LENGTHS)
    labelled = [replace(example, token_labels=example.input_ids) for example in given]
    wanted = torch.cat([chosen_logits(model, pad([example], 0)) for example in labelled])
    if packing.enable_packing(model, given):
        packed = chosen_logits(model, pack(labelled, share_prefix=False))
        torch.testing.assert_close(packed, wanted, rtol=0, atol=1e-9)
        assert not packing.shares_prefixes(model, given), "an encoder's beginning depends on what follows"
    assert (model.config._attn_implementation == attention.IMPLEMENTATION) == (name in PACKED_ENCODERS)


def test_positions_that_begin_elsewhere_are_seen_by_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_first_position", lambda base: 0)
    assert not packing.enable_packing(masked("roberta"), examples(LENGTHS))
    assert packing.enable_packing(masked("bert"), examples(LENGTHS))


def test_nothing_is_shared_where_training_draws_noise() -> None:
    model = tiny("gpt2", attn_pdrop=0.1)
    assert packing.enable_packing(model, examples(LENGTHS)) and not packing.shares_prefixes(model, examples(LENGTHS))


def test_enabling_works_on_what_examples_there_are() -> None:
    for given in (examples([2]), examples([2, 2]), examples([3]) * 5, examples([90])):
        assert check_packing_is_right(tiny("gpt2", n_positions=90), given)
    assert not packing.enable_packing(tiny("llama"), examples([1]))


def test_models_in_training_are_not_probed() -> None:
    with pytest.raises(AssertionError):
        packing.enable_packing(tiny("llama").train(), examples(LENGTHS))


def test_enabling_draws_nothing_and_leaves_no_gradient() -> None:
    model, state = tiny("llama"), torch.get_rng_state()
    packing.enable_packing(model, examples(LENGTHS))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_saved_config_has_no_trace_of_our_attention() -> None:
    assert attention.IMPLEMENTATION not in packable("llama").config.to_json_string()


def test_the_check_sees_probes_that_are_shorter_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_probes", lambda model, given: sorted(given, key=len)[:2])
    with pytest.raises(AssertionError):
        check_packing_is_right(tiny("phimoe"), examples([3, 3, 30]))


def test_the_check_sees_a_model_that_stays_switched(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("phimoe")
    switch = type(model).set_attn_implementation
    monkeypatch.setattr(
        type(model), "set_attn_implementation", lambda self, name: switch(self, attention.IMPLEMENTATION)
    )
    with pytest.raises(AssertionError):
        check_packing_is_right(model, examples(LENGTHS))


def test_what_an_unfit_model_would_do_is_caught_by_the_probe_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The structural rule alone is not trusted: a convolution that it took for attention still differs."""
    monkeypatch.setattr(packing, "attends_only", lambda model: True)
    assert not check_packing_is_right(tiny("lfm2"), examples(LENGTHS, prefix=3))


def test_soft_capping_is_refused_where_the_probe_could_not_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap far above the scores moves the probe's logits by less than rounding, and those of training by more."""
    model = tiny("gemma2", attn_logit_softcapping=1000.0)
    monkeypatch.setattr(attention, "INERT", attention.INERT | {"softcap"})
    assert not check_packing_is_right(model, examples(LENGTHS))
