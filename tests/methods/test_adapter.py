"""Bottleneck adapters: where they are put, what they compute and learn, what comes back from disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPTJConfig,
    GPTNeoXConfig,
    LEDConfig,
    MobileBertConfig,
    ModernBertConfig,
    PhiConfig,
    T5Config,
)

import pegbox
from pegbox import methods
from pegbox.errors import RecipeError
from pegbox.kernels import linear as fast_linear
from pegbox.methods import adapter
from pegbox.methods import saved as on_disk
from pegbox.methods.adapter import CONFIG, WEIGHTS, AdaptedLinear
from pegbox.models.batch import pack, pad
from pegbox.models.heads import new_parts
from pegbox.models.load import has_dropout
from pegbox.models.outputs import learnt_logits
from pegbox.models.packing import enable_packing
from pegbox.recipe import Adapter, load
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows
from tiny_models import VOCABULARY, examples, rows, tiny, tiny_classifier

IDS = torch.tensor(rows([9, 9]))
WIDTH, SIZE = 32, 5  # of the models' hidden states, and inside of the adapters
SMALL = Adapter(bottleneck_size=SIZE)

LLAMA = {"model.layers": ("self_attn.o_proj", "mlp.down_proj")}
GPT2 = {"transformer.h": ("attn.c_proj", "mlp.c_proj")}
BERT = ("attention.output.dense", "output.dense")
# the layers of each kind with the last linear layers of their sublayers, the feed-forward's at the end
PLACES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("llama", "qwen2", "mistral", "gemma2", "llama classifier"), LLAMA),
    "opt": {"model.decoder.layers": ("self_attn.out_proj", "fc2")},
    **dict.fromkeys(("gpt2", "gpt2 classifier"), GPT2),
    "bloom": {"transformer.h": ("self_attention.dense", "mlp.dense_4h_to_h")},
    "bert": {"bert.encoder.layer": BERT},
    "bert masked": {"bert.encoder.layer": BERT},
    "roberta": {"roberta.encoder.layer": BERT},
    "mpnet": {"mpnet.encoder.layer": ("attention.attn.o", "output.dense")},
    "distilbert": {"distilbert.transformer.layer": ("attention.out_lin", "ffn.lin2")},
    "t5": {
        "encoder.block": ("layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo"),
        "decoder.block": ("layer.0.SelfAttention.o", "layer.1.EncDecAttention.o", "layer.2.DenseReluDense.wo"),
    },
    "bart": {
        "model.encoder.layers": ("self_attn.out_proj", "fc2"),
        "model.decoder.layers": ("self_attn.out_proj", "encoder_attn.out_proj", "fc2"),
    },
}
KINDS = list(PLACES)


def expected(kind: str, variant: str) -> list[str]:
    return [
        f"{stack}.{index}.{name}"
        for stack, names in PLACES[kind].items()
        for index in range(2)
        for name in (names if variant == "houlsby" else names[-1:])
    ]


def built(kind: str, *, kernels: bool = False, **options: Any) -> Any:
    name, _, form = kind.partition(" ")
    if name in ("t5", "bart"):
        model = encoder_decoder(name)
    elif form == "masked":
        model = tiny(name, head=AutoModelForMaskedLM, **options)
    elif form or name in ("bert", "roberta", "mpnet", "distilbert"):
        model = tiny_classifier(name, num_labels=3, **options)
    else:
        model = tiny(name, **options)
    if kernels:
        fast_linear.install(model)
    return model


def encoder_decoder(name: str) -> Any:
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": WIDTH}
    if name == "t5":
        config: Any = T5Config(**sizes, **ids, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0)
    else:
        sizes |= {f"{side}_{part}": 2 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")}
        sizes |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 96}
        config = BartConfig(**sizes, **ids, bos_token_id=1, dropout=0.0, init_std=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForSeq2SeqLM.from_config(config).eval()


def prepared(kind: str, settings: Adapter = SMALL, *, drawn: bool = True, **options: Any) -> Any:
    """The model with its adapters; `drawn`: all that starts at zero drawn at random, too, so that they do something."""
    model = built(kind, **options)
    adapter.prepare(model, settings, seed=3)
    generator = torch.Generator().manual_seed(0)
    for module in layers(model).values():
        for parameter in (module.down.bias, module.up.weight, module.up.bias):
            if drawn:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model


def layers(model: Any) -> dict[str, AdaptedLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}


def computed(model: Any) -> torch.Tensor:
    more = {"decoder_input_ids": IDS.flip(1)} if model.config.is_encoder_decoder else {}
    out: torch.Tensor = model(IDS, **more).logits
    return out


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return computed(model)


# ---- at the start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_starts_as_it_was(kind: str, kernels: bool) -> None:
    adapted = prepared(kind, drawn=False, kernels=kernels)
    assert torch.equal(logits(adapted), logits(built(kind, kernels=kernels)))


def test_the_start_follows_the_seed_and_leaves_the_callers_generator_alone() -> None:
    state = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        model = built("llama")
        adapter.prepare(model, SMALL, seed)
        drawn.append(torch.cat([module.down.weight.flatten() for module in layers(model).values()]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_way_down_is_drawn_as_a_linear_layer_and_all_else_is_zero() -> None:
    bound = 1 / math.sqrt(WIDTH)
    for module in layers(prepared("llama", Adapter(bottleneck_size=64), drawn=False)).values():
        drawn = module.down.weight.detach()
        assert drawn.abs().max() <= bound
        assert drawn.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not any(zero.any() for zero in (module.down.bias, module.up.weight, module.up.bias))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_adapter_is_at_least_float32_and_its_output_as_the_layers(dtype: torch.dtype, autocast: bool) -> None:
    model = prepared("llama", drawn=False, dtype=dtype)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {wanted}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = computed(model)
        assert torch.equal(out, computed(built("llama", dtype=dtype)))
    out.logsumexp(-1).sum().backward()
    assert all(module.up.weight.grad.count_nonzero() for module in layers(model).values())  # type: ignore[union-attr]


# ---- what it computes ------------------------------------------------------------------------------------------------

FORMULAS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": lambda x: x * (x > 0),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


def by_hooks(kind: str, settings: Adapter, learnt: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """The untouched model's logits, where each layer's output goes through the formula."""

    def behind(name: str) -> Any:
        down, b_down, up, b_up = (learnt[f"{name}.{w}"] for w in ("down.weight", "down.bias", "up.weight", "up.bias"))
        return lambda module, args, h: h + FORMULAS[settings.non_linearity](h @ down.T + b_down) @ up.T + b_up

    model = built(kind).to(dtype)
    for name in expected(kind, settings.variant or "houlsby"):
        model.get_submodule(name).register_forward_hook(behind(name))
    return logits(model)


def check_it_computes_the_formula(kind: str, settings: Adapter, kernels: bool = False) -> None:
    dtype, tolerance = (torch.float32, 1e-5) if kernels else (torch.float64, 1e-6)
    model = prepared(kind, settings, kernels=kernels).to(dtype)
    out = logits(model)
    torch.testing.assert_close(out, by_hooks(kind, settings, model.state_dict(), dtype), rtol=0, atol=tolerance)
    assert (out - logits(built(kind))).abs().max() > 0.01, "the adapters do nothing"


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_the_formula_behind_the_last_layers(kind: str, variant: Any) -> None:
    check_it_computes_the_formula(kind, Adapter(bottleneck_size=SIZE, variant=variant))


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("non_linearity", list(FORMULAS))
def test_the_non_linearity_is_the_one_that_was_asked_for(non_linearity: Any, kernels: bool) -> None:
    check_it_computes_the_formula("bert", Adapter(bottleneck_size=SIZE, non_linearity=non_linearity), kernels)


def without_residual(self: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = self.up(torch.relu(self.down(self.base(x))))
    return out


def test_the_check_sees_an_adapter_without_its_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdaptedLinear, "forward", without_residual)
    with pytest.raises(AssertionError, match="not close"):
        check_it_computes_the_formula("bert", SMALL)


# ---- where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_weights_is_the_closed_form(kind: str, variant: Any) -> None:
    model = prepared(kind, Adapter(bottleneck_size=SIZE, variant=variant))
    assert list(layers(model)) == expected(kind, variant)
    heads = sum(weight.numel() for weight in new_weights(model).values())
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learnt == heads + len(expected(kind, variant)) * (2 * WIDTH * SIZE + WIDTH + SIZE)


def new_weights(model: Any) -> dict[str, nn.Parameter]:
    """The weights of new heads, by name."""
    found = {}
    for name, part in new_parts(model):
        own = part.named_parameters() if isinstance(part, nn.Module) else [("", part)]
        found.update({f"{name}.{inner}".rstrip("."): weight for inner, weight in own})
    return {name: weight for name, weight in model.named_parameters() if name in found}


# further names of last layers, in models of one layer; MobileBERT's holds several feed-forward sublayers, and a linear layer
# called attention.dense on the way into attention
NAMES: Mapping[str, tuple[Any, list[str]]] = {
    "gpt-j": (GPTJConfig(n_layer=1, rotary_dim=4), ["h.0.attn.out_proj", "h.0.mlp.fc_out"]),
    "gpt-neox": (GPTNeoXConfig(num_hidden_layers=1), ["layers.0.attention.dense", "layers.0.mlp.dense_4h_to_h"]),
    "phi": (PhiConfig(num_hidden_layers=1), ["layers.0.self_attn.dense", "layers.0.mlp.fc2"]),
    "modernbert": (ModernBertConfig(num_hidden_layers=1), ["layers.0.attn.Wo", "layers.0.mlp.Wo"]),
    "albert": (
        AlbertConfig(),
        [f"encoder.albert_layer_groups.0.albert_layers.0.{name}" for name in ("ffn_output", "attention.dense")],
    ),
    "led": (
        LEDConfig(encoder_layers=1, decoder_layers=1),
        ["encoder.layers.0.self_attn.output", "encoder.layers.0.fc2"]
        + [f"decoder.layers.0.{name}" for name in ("self_attn.out_proj", "encoder_attn.out_proj", "fc2")],
    ),
    "mobilebert": (
        MobileBertConfig(num_hidden_layers=1, num_feedforward_networks=2),
        [f"encoder.layer.0.{name}" for name in ("attention.output.dense", "output.dense", "ffn.0.output.dense")],
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layers_are_known_by_many_names(name: str) -> None:
    config, wanted = NAMES[name]
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert sorted(adapter.targets(model, Adapter())) == sorted(wanted)


# why no place is found, by kind of model and variant
LOST = {
    ("gpt_oss", "houlsby"): "mixture of experts",
    ("llama4", "pfeiffer"): "mixture of experts",  # with a shared expert, which has a down_proj
    ("phimoe", "pfeiffer"): "mixture of experts",
    ("mamba", "houlsby"): "no last layer of the attention in backbone.layers.0",
    ("lfm2", "houlsby"): "no last layer of the attention in model.layers.0",  # which is convolutional
}


@pytest.mark.parametrize(("kind", "variant"), LOST, ids="-".join)
def test_a_layer_that_is_not_found_is_an_error_that_lists_the_candidates(kind: str, variant: Any) -> None:
    model = tiny(kind)
    with pytest.raises(RecipeError, match=LOST[kind, variant]) as refusal:
        adapter.prepare(model, Adapter(variant=variant), seed=0)
    last = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert refusal.value.where == "method.target_modules"
    assert refusal.value.cure == f"choose among {', '.join(sorted(last - {'lm_head'}))}"


def test_feed_forward_layers_are_found_where_there_is_no_attention() -> None:
    assert adapter.targets(tiny("lfm2"), Adapter(variant="pfeiffer")) == [
        "model.layers.0.feed_forward.w2",
        "model.layers.1.feed_forward.w2",
    ]


def test_named_layers_replace_those_that_would_be_found() -> None:
    settings = Adapter(target_modules=("o_proj", "model.layers.1.self_attn.v_proj"), bottleneck_size=SIZE)
    model = prepared("gpt_oss", settings)
    found = {name: module.up.out_features for name, module in layers(model).items()}
    name = "model.layers.{}.self_attn.{}"
    assert found == {name.format(0, "o_proj"): 32, name.format(1, "v_proj"): 16, name.format(1, "o_proj"): 32}
    assert not torch.equal(logits(model), logits(built("gpt_oss")))


@pytest.mark.parametrize("wanted", [("nothing",), ("o_proj", "nothing"), ("proj",), ("lm_head",)])
def test_a_target_that_matches_nothing_is_an_error_that_lists_the_candidates(wanted: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=f"no linear layer of the model is called {wanted[-1]}") as refusal:
        adapter.prepare(built("llama"), Adapter(target_modules=wanted), seed=0)
    assert refusal.value.where == "method.target_modules"
    assert "down_proj" in str(refusal.value.cure) and "lm_head" not in str(refusal.value.cure)


def test_a_new_head_is_no_target() -> None:
    with pytest.raises(RecipeError, match="classifier"):
        adapter.prepare(built("distilbert"), Adapter(target_modules=("classifier",)), seed=0)


def test_a_variant_beside_named_layers_is_refused() -> None:
    recipe = {"model": "some/model", "task": "chat", "data": "/rows.jsonl"}
    method = {"kind": "adapter", "target_modules": ["o_proj"]}
    assert load({**recipe, "method": method}).method == Adapter(target_modules=("o_proj",))
    with pytest.raises(RecipeError, match="method.variant has no effect beside method.target_modules"):
        load({**recipe, "method": {**method, "variant": "houlsby"}})


# ---- what learns -----------------------------------------------------------------------------------------------------


def digests(model: Any, learnt: bool) -> dict[str, str]:
    return {
        name: hashlib.sha256(parameter.detach().numpy().tobytes()).hexdigest()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad == learnt
    }


def check_just_the_adapters_learn(kind: str, kernels: bool = False) -> None:
    """Within two steps every adapter and new head has had a gradient and has moved; nothing else has (row 32)."""
    model = prepared(kind, drawn=False, kernels=kernels).train()
    frozen, start = digests(model, learnt=False), digests(model, learnt=True)
    own = {f"{name}.{w}" for name in layers(model) for w in ("down.weight", "down.bias", "up.weight", "up.bias")}
    assert start.keys() == own | new_weights(model).keys()
    reached = set()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        out = computed(model).flatten(0, -2)
        cross_entropy(out, torch.arange(len(out)) % 3).backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
        optimizer.step()
        optimizer.zero_grad()
    assert reached == set(start), f"reached by no gradient, or by one too many: {sorted(reached ^ set(start))}"
    assert digests(model, learnt=False) == frozen
    assert not set(digests(model, learnt=True).items()) & set(start.items())


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_within_two_steps_all_that_learns_has_moved_and_nothing_else(kind: str, kernels: bool) -> None:
    check_just_the_adapters_learn(kind, kernels)


def unfrozen(model: Any, settings: Any, seed: int, prepare: Any = adapter.prepare) -> None:
    prepare(model, settings, seed)
    model.get_input_embeddings().weight.requires_grad_(True)


def cut_off(self: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
    h: torch.Tensor = self.base(x)
    return h + self.up(torch.relu(self.down(h)).detach())  # type: ignore[no-any-return]


def test_the_check_sees_a_base_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "prepare", unfrozen)
    with pytest.raises(AssertionError, match="embed_tokens"):
        check_just_the_adapters_learn("llama")


def test_the_check_sees_an_adapter_that_no_gradient_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdaptedLinear, "forward", cut_off)
    with pytest.raises(AssertionError, match="down"):
        check_just_the_adapters_learn("llama")


def test_gradients_do_not_depend_on_how_an_update_is_laid_out() -> None:
    model = prepared("mistral", dtype=torch.float64)
    given = examples([5, 1, 9], prefix=6)
    assert enable_packing(model, given) and not has_dropout(model)
    found = []
    for parts in (
        [pad([example], 0) for example in given],
        [pad(given, 0)],
        [pack(given, share_prefix=False)],
        [pack(given, share_prefix=True)],
    ):
        model.zero_grad()
        for made in parts:
            losses = cross_entropy(learnt_logits(model, made), made.targets, reduction="none")
            (losses * made.weights).sum().backward()
        found.append(gradient(model))
    for other in found[1:]:
        assert (other - found[0]).norm() / found[0].norm() < 1e-10


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def test_the_kernel_computes_the_plain_forms_gradients() -> None:
    grads = []
    for kernels in (False, True):
        model = prepared("qwen2", kernels=kernels).train()
        kind = fast_linear.FastLinear if kernels else nn.Linear
        assert {type(part) for module in layers(model).values() for part in (module.down, module.up)} == {kind}
        computed(model).logsumexp(-1).sum().backward()
        grads.append(gradient(model))
    assert (grads[1] - grads[0]).norm() / grads[0].norm() < 1e-5


def test_all_weights_learn_alike_at_the_papers_rate() -> None:
    assert adapter.FREEZES and adapter.learning_rate(SMALL) == 3e-4
    assert {adapter.rate_factor(SMALL, name) for name, _ in prepared("bert").named_parameters()} == {1.0}


# ---- on disk ---------------------------------------------------------------------------------------------------------


def check_every_learnt_weight_is_saved(model: Any, folder: Path) -> None:
    """Each parameter that learns stands in the file under its own name, to the bit (row 22)."""
    adapter.save(model, SMALL, folder, base="some/model")
    saved = load_file(folder / WEIGHTS)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert name in saved, f"{name} is not saved"
            assert torch.equal(saved[name], parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_every_learnt_weight_is_saved(kind: str, tmp_path: Path) -> None:
    check_every_learnt_weight_is_saved(prepared(kind), tmp_path)


def test_the_check_sees_a_head_that_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared("distilbert")
    real = on_disk.new_heads
    # bug: the names that are usual, and not those that this model has
    monkeypatch.setattr(on_disk, "new_heads", lambda m: {n: h for n, h in real(m).items() if n == "classifier"})
    with pytest.raises(AssertionError, match="pre_classifier"):
        check_every_learnt_weight_is_saved(model, tmp_path)


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_comes_back_to_the_bit(kind: str, kernels: bool, tmp_path: Path) -> None:
    """Into a model with another head, and without the settings: the folder says what it is."""
    settings = Adapter(bottleneck_size=SIZE, non_linearity="silu", variant="pfeiffer")
    model, fresh = prepared(kind, settings, kernels=kernels), built(kind, kernels=kernels)
    adapter.save(model, settings, tmp_path, base="some/model")
    for weight in new_weights(fresh).values():
        nn.init.normal_(weight)
    adapter.restore(fresh, None, tmp_path)
    assert torch.equal(logits(model), logits(fresh))
    states = model.state_dict(), fresh.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0].keys() | states[1].keys())
    assert digests(fresh, learnt=True) == digests(model, learnt=True)


def test_the_folder_says_what_it_is(tmp_path: Path) -> None:
    adapter.save(prepared("bert"), SMALL, tmp_path, base="some/model")
    assert json.loads((tmp_path / CONFIG).read_text()) == {
        "kind": "bottleneck_adapter",
        "format_version": 1,
        "base_model_name_or_path": "some/model",
        "variant": "houlsby",
        "bottleneck_size": SIZE,
        "non_linearity": "relu",
        "modules": expected("bert", "houlsby"),
    }
    named = Adapter(bottleneck_size=SIZE, target_modules=("attention.output.dense",))
    adapter.save(prepared("bert", named), named, tmp_path, base="some/model")
    told = json.loads((tmp_path / CONFIG).read_text())
    assert told["variant"] is None and told["modules"] == expected("bert", "houlsby")[::2]


def lost(part: str) -> Any:
    return lambda saved: {name: tensor for name, tensor in saved.items() if part not in name}


OTHER = "distilbert.transformer.layer.0.ffn.lin2"
TENSORS: Mapping[str, tuple[str, Any]] = {
    "a down lost": ("down.weight", lost("layer.0.ffn.lin2.down.weight")),
    "an up's bias lost": ("up.bias", lost("layer.0.ffn.lin2.up.bias")),
    "an adapter lost": (OTHER, lost(OTHER)),
    "a head lost": ("pre_classifier", lost("pre_classifier")),
    "a tensor too many": ("other.weight", lambda saved: saved | {"other.weight": torch.zeros(2)}),
    "a width of one": ("bias", lambda saved: {n: t[:1].clone() if n.endswith("bias") else t for n, t in saved.items()}),
}
SETTINGS: Mapping[str, tuple[str, Any]] = {
    "another kind": ("kind", {"kind": "lora"}),
    "a format of later": ("format_version", {"format_version": 2}),
    "an unknown key": ("scaling", {"scaling": 2.0}),
    "an unknown function": ("non_linearity", {"non_linearity": "tanh"}),
    "no width": ("bottleneck_size", {"bottleneck_size": 0}),
    "another width": ("down", {"bottleneck_size": SIZE + 1}),
    "no layers": ("modules", {"modules": []}),
    "a layer twice": (OTHER, {"modules": [OTHER, OTHER]}),
    "a layer of another model": ("layer.9", {"modules": [OTHER.replace("0", "9")]}),
    "a layer that is none": ("ffn", {"modules": [OTHER.removesuffix(".lin2")]}),
    "a head": ("classifier", {"modules": ["classifier"]}),
    "a layer less": ("attention.out_lin", {"modules": [OTHER]}),
}


def check_restore_is_strict(folder: Path, damage: str) -> None:
    """What does not fit is an error that names it."""
    adapter.save(prepared("distilbert"), SMALL, folder, base="some/model")
    if damage in TENSORS:
        named, change = TENSORS[damage]
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    else:
        named, change = SETTINGS[damage]
        told = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(told | change))
    try:
        adapter.restore(built("distilbert"), SMALL, folder)
    except RecipeError as error:
        assert str(error.where).startswith(str(folder)) and named in error.what and "http" not in error.what
        return
    raise AssertionError("it was passed over in silence")


@pytest.mark.parametrize("damage", [*TENSORS, *SETTINGS])
def test_restore_is_strict(damage: str, tmp_path: Path) -> None:
    """A width of one would fit every other by broadcasting."""
    check_restore_is_strict(tmp_path, damage)


def test_the_check_sees_a_tensor_that_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "restore", lambda model, settings, folder: adapter.prepare(model, settings, 0))
    with pytest.raises(AssertionError, match="silence"):
        check_restore_is_strict(tmp_path, "a head lost")


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff\xfe", b"null"])
@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_folder_that_cannot_be_read_is_a_clear_error(file: str, content: bytes | None, tmp_path: Path) -> None:
    adapter.save(prepared("llama"), SMALL, tmp_path, base="some/model")
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(RecipeError, match="cannot be (read|followed)"):
        adapter.restore(built("llama"), SMALL, tmp_path)


def test_a_merge_is_refused_with_the_reason() -> None:
    with pytest.raises(RecipeError, match="not linear") as refusal:
        adapter.merge(prepared("llama"), SMALL)
    assert "pegbox.load" in str(refusal.value.cure) and "lora" in str(refusal.value.cure)


# ---- a whole run -----------------------------------------------------------------------------------------------------


def trained(recipe: Mapping[str, Any], run_dir: Path) -> Any:
    """A run by an adapter, which must have learnt, been saved without its base model, and come back."""
    method = {"kind": "adapter", "bottleneck_size": 8}
    run = pegbox.train({**recipe, "method": method}, run_dir=run_dir)
    losses = [line["loss"] for line in run.folder.read_lines("metrics.jsonl")]
    assert losses[-1] < losses[0] / 2
    assert {CONFIG, WEIGHTS} <= {path.name for path in run.folder.model.iterdir()}
    assert not list(run.folder.model.glob("model*.safetensors")), "the base model was saved, too"
    again = pegbox.load(run.path)
    assert len(layers(again.model)) == 4 and not layers(again.base)
    return again


def test_a_decoder_learns_to_answer_by_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.METHODS, "adapter", adapter)  # type: ignore[arg-type]
    given = [{"prompt": row["prompt"], "completion": "7 7"} for row in sums(60)]
    model = causal_folder(tmp_path / "model", spread=0.3)
    recipe = chat_recipe(model, write_rows(tmp_path / "rows.jsonl", given))
    recipe["train"]["num_train_epochs"] = 8
    run = trained(recipe, tmp_path / "run")
    assert run.predict([{"prompt": "1 and 2"}, {"prompt": "33 and 4"}]) == ["7 7", "7 7"]


def test_an_encoder_learns_to_classify_by_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.METHODS, "adapter", adapter)  # type: ignore[arg-type]
    given = [{"text": f"{word} {n}", "label": word} for word in ("good", "bad") for n in range(40)]
    model = encoder_folder(tmp_path / "model", spread=0.1)
    recipe = chat_recipe(model, write_rows(tmp_path / "rows.jsonl", given), task="classification", evaluate={})
    recipe["train"]["num_train_epochs"] = 12  # with half of them or three times the spread, one seed in two learns it
    run = trained(recipe, tmp_path / "run")
    assert run.predict([{"text": "good 55"}, {"text": "bad 66"}]) == ["good", "bad"]
