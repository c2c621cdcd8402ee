"""LoRA against PEFT, the oracle: the same folder, the same function, the same gradients (INVARIANTS row 33)."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import Linear as PeftLinear
from safetensors.torch import load_file
from test_lora import IDS, built, layers, logits, prepared

from pegbox.errors import RecipeError
from pegbox.methods import lora, lora_files, lora_layers
from pegbox.models.heads import new_heads
from pegbox.recipe import Lora, Train
from pegbox.runs.checkpoint import trainable
from pegbox.training.schedule import adamw, set_rate

pytestmark = pytest.mark.filterwarnings("ignore:::peft")  # what PEFT says when it saves what is no plain LoRA
KINDS = ["llama", "qwen2", "opt", "bert", "distilbert", "llama classifier"]
SETTINGS = [
    Lora(r=4),
    Lora(r=6, lora_alpha=9, use_rslora=True),
    Lora(r=3, lora_alpha=2.5, lora_dropout=0.3, target_modules=("q_proj", "down_proj")),
    Lora(r=4, use_dora=True),
]
NAMES = ["default", "rslora", "two targets", "dora"]
TOLERANCE = 2e-6  # a few roundings of logits between 1 and 4
SPECIAL = {"bert": ("query", "output.dense"), "distilbert": ("q_lin", "lin2"), "opt": ("q_proj", "fc2")}


def of(kind: str, settings: Lora) -> Lora:
    """The settings with the names that this kind of model has."""
    if settings.target_modules == "all-linear" or kind not in SPECIAL:
        return settings
    return settings.model_copy(update={"target_modules": SPECIAL[kind]})


def peft_model(kind: str, settings: Lora, **options: Any) -> Any:
    """PEFT's own form of these settings on the same base, with A and B drawn at random."""
    base = built(kind)
    heads = list(new_heads(base)) or None
    config = {
        "r": settings.r,
        "lora_alpha": lora_layers.alpha(settings),
        "use_rslora": settings.use_rslora,
        "use_dora": settings.use_dora,
        "lora_dropout": settings.lora_dropout,
        "target_modules": lora.targets(base, settings),
        "modules_to_save": heads,
        "task_type": "SEQ_CLS" if heads else "CAUSAL_LM",
        "init_lora_weights": False,
        **options,
    }
    torch.manual_seed(11)
    return get_peft_model(base, LoraConfig(**config)).eval()


def peft_layers(model: Any) -> dict[str, PeftLinear]:
    prefix = "base_model.model."
    return {n.removeprefix(prefix): m for n, m in model.named_modules() if isinstance(m, PeftLinear)}


def check_peft_reads_ours(kind: str, settings: Lora, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PEFT loads our folder without a word and computes the same."""
    ours = prepared(kind, settings)
    for head in new_heads(ours).values():
        torch.nn.init.normal_(next(head.parameters()), std=0.1)
    lora.save(ours, settings, folder, base="some/model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)  # between PEFT and Transformers, whatever the folder
        theirs = PeftModel.from_pretrained(built(kind), str(folder)).eval()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    torch.testing.assert_close(logits(theirs), logits(ours), rtol=0, atol=TOLERANCE)
    one, other = layers(ours), peft_layers(theirs)
    assert one.keys() == other.keys()
    for name, module in one.items():
        torch.testing.assert_close(module.delta_weight(), other[name].get_delta_weight("default"), rtol=0, atol=1e-7)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_our_folder_and_says_the_same(
    kind: str, settings: Lora, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_peft_reads_ours(kind, of(kind, settings), tmp_path, caplog)


def test_the_check_sees_rslora_that_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = lora.save
    monkeypatch.setattr(
        lora,
        "save",
        lambda m, settings, *rest, **o: real(m, settings.model_copy(update={"use_rslora": False}), *rest, **o),
    )
    with pytest.raises(AssertionError):
        check_peft_reads_ours("llama", Lora(r=4, use_rslora=True), tmp_path, caplog)


def check_we_read_peft(kind: str, settings: Lora, folder: Path, **options: Any) -> None:
    """We load a folder that PEFT wrote, whatever the recipe's settings, and compute the same."""
    theirs = peft_model(kind, settings, **options)
    theirs.save_pretrained(str(folder))
    ours = built(kind)
    lora.restore(ours, Lora(r=1, lora_alpha=100), folder)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=TOLERANCE)
    assert (logits(ours) - logits(built(kind))).abs().max() > 1e-3, "the update does nothing"
    assert layers(ours).keys() == peft_layers(theirs).keys()


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_we_load_a_folder_that_peft_wrote(kind: str, settings: Lora, tmp_path: Path) -> None:
    check_we_read_peft(kind, of(kind, settings), tmp_path)


PEFT_WAYS: dict[str, dict[str, Any]] = {
    "all-linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*layers\.\d\.self_attn\.(q|v)_proj"},
    "some layers": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]},
    "excluded": {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["up_proj"]},
    "no task": {"task_type": None},
    "gaussian": {"init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("way", PEFT_WAYS)
def test_we_load_every_way_in_which_peft_names_its_targets(way: str, tmp_path: Path) -> None:
    if way == "gaussian":
        theirs = peft_model("llama", Lora(r=4), **PEFT_WAYS[way])
        theirs.save_pretrained(str(tmp_path))
        lora.restore(built("llama"), None, tmp_path)
        return
    check_we_read_peft("llama", Lora(r=4), tmp_path, **PEFT_WAYS[way])


def test_the_check_sees_a_rank_scaling_that_follows_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_files, "_settings", lambda told, folder: Lora(r=told["r"]))
    with pytest.raises(AssertionError):
        check_we_read_peft("llama", Lora(r=6, lora_alpha=9, use_rslora=True), tmp_path)


NOT_PLAIN: dict[str, dict[str, Any]] = {
    "rank_pattern": {"rank_pattern": {"q_proj": 2}},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 2}},
    "lora_bias": {"lora_bias": True},
    "bias": {"bias": "all"},
    "init_lora_weights": {"init_lora_weights": "pissa"},
    "modules_to_save": {"modules_to_save": ["embed_tokens"]},
    "lm_head": {"target_modules": ["q_proj", "lm_head"]},  # PEFT saves the base's output layer as well
    "alora_invocation_tokens": {"alora_invocation_tokens": [5]},
}


def check_what_is_no_plain_lora_is_refused(option: str, folder: Path) -> None:
    kind = "qwen2" if option in ("bias", "lora_bias") else "llama"
    targets = ["q_proj", "v_proj"]
    peft_model(kind, Lora(r=4), **{"target_modules": targets, **NOT_PLAIN[option]}).save_pretrained(str(folder))
    try:
        lora.restore(built(kind), None, folder)
    except RecipeError as error:
        assert error.where is not None and error.where.startswith(str(folder))
        return
    raise AssertionError(f"{option} was passed over")


@pytest.mark.parametrize("option", NOT_PLAIN)
def test_an_adapter_that_is_no_plain_lora_is_refused(option: str, tmp_path: Path) -> None:
    check_what_is_no_plain_lora_is_refused(option, tmp_path)


@pytest.mark.parametrize("option", ["alpha_pattern", "init_lora_weights", "alora_invocation_tokens"])
def test_the_check_sees_an_option_that_is_passed_over(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_files, "PASSED_OVER", lora_files.PASSED_OVER | {option})
    monkeypatch.setattr(lora_files, "STARTS", (*lora_files.STARTS, "pissa"))
    with pytest.raises(AssertionError, match="passed over"):
        check_what_is_no_plain_lora_is_refused(option, tmp_path)


def test_another_of_pefts_methods_is_refused(tmp_path: Path) -> None:
    get_peft_model(built("llama"), IA3Config(task_type="CAUSAL_LM")).save_pretrained(str(tmp_path))
    with pytest.raises(RecipeError, match="peft_type"):
        lora.restore(built("llama"), None, tmp_path)


@pytest.mark.parametrize("lack", ["r", "lora_alpha"])
def test_a_config_that_does_not_tell_the_scaling_is_refused(lack: str, tmp_path: Path) -> None:
    lora.save(prepared("llama", Lora(r=4)), Lora(r=4), tmp_path, base="some/model")
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({k: v for k, v in told.items() if k != lack}))
    with pytest.raises(RecipeError, match=lack):
        lora.restore(built("llama"), None, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_learns_and_what_is_saved_is_what_peft_learns_and_saves(kind: str, tmp_path: Path) -> None:
    ours, theirs = prepared(kind, Lora(r=4)), peft_model(kind, Lora(r=4))
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (ours, theirs)]
    assert counts[0] == counts[1] == theirs.get_nb_trainable_parameters()[0]
    lora.save(ours, Lora(r=4), tmp_path / "ours", base="some/model")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    one, other = (load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs"))
    assert {n: (t.shape, t.dtype) for n, t in one.items()} == {n: (t.shape, t.dtype) for n, t in other.items()}


def test_all_linear_is_pefts_all_linear() -> None:
    for kind in ("llama", "qwen2", "opt", "llama classifier"):
        theirs = peft_model(kind, Lora(r=4), target_modules="all-linear")
        assert lora.targets(built(kind), Lora()) == list(peft_layers(theirs))


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_the_config_tells_peft_everything(kind: str, tmp_path: Path) -> None:
    settings = of(kind, Lora(r=3, lora_alpha=5, lora_dropout=0.3, target_modules=("q_proj", "down_proj")))
    lora.save(prepared(kind, settings), settings, tmp_path, base="some/model")
    told = LoraConfig.from_pretrained(str(tmp_path))
    wanted = peft_model(kind, settings).peft_config["default"]
    for field in ("r", "lora_alpha", "lora_dropout", "use_rslora", "bias", "fan_in_fan_out", "task_type", "peft_type"):
        assert getattr(told, field) == getattr(wanted, field), field
    extra = set(wanted.modules_to_save or ()) - set(told.modules_to_save or ())
    assert extra <= {"score"}, "PEFT adds the usual names of heads, whether the model has them or not"
    assert (told.base_model_name_or_path, told.inference_mode) == ("some/model", True)
    raw = json.loads((tmp_path / "adapter_config.json").read_text())
    assert isinstance(raw["lora_alpha"], int) and raw.keys() <= wanted.to_dict().keys()


def trained(model: Any) -> torch.Tensor:
    """The logits after one step of SGD on the update."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=0.05)
    model(IDS).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    return logits(model)


def copied(theirs: Any, ours: Any) -> None:
    """Give PEFT's layers what ours hold."""
    for name, module in peft_layers(theirs).items():
        own = layers(ours)[name]
        module.lora_A["default"].weight.data.copy_(own.lora_A)
        module.lora_B["default"].weight.data.copy_(own.lora_B)
        if module.use_dora["default"]:
            module.lora_magnitude_vector["default"].weight.data.copy_(own.lora_magnitude_vector)


@pytest.mark.parametrize("settings", [*SETTINGS[:2], SETTINGS[3]], ids=["default", "rslora", "dora"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_pefts_step(kind: str, settings: Lora) -> None:
    ours, theirs = prepared(kind, settings), peft_model(kind, settings)
    copied(theirs, ours)
    before = logits(ours)
    torch.testing.assert_close(logits(theirs), before, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(trained(ours), trained(theirs), rtol=0, atol=2 * TOLERANCE)
    assert (logits(ours) - before).abs().max() > 1e-3, "the step does nothing"
    for name, module in peft_layers(theirs).items():
        own = layers(ours)[name]
        pairs = [(own.lora_A, module.lora_A["default"].weight), (own.lora_B, module.lora_B["default"].weight)]
        if settings.use_dora:
            pairs.append((own.lora_magnitude_vector, module.lora_magnitude_vector["default"].weight))
        for mine, peer in pairs:
            torch.testing.assert_close(mine.grad, peer.grad, rtol=1e-5, atol=1e-6)


def test_dropout_of_dora_falls_where_pefts_does() -> None:
    settings = Lora(r=4, use_dora=True, lora_dropout=0.5, target_modules=("down_proj",))
    ours, theirs = prepared("llama", settings).train(), peft_model("llama", settings).train()
    copied(theirs, ours)
    for module in layers(ours).values():
        module.lora_magnitude_vector.data.mul_(1.5)
    copied(theirs, ours)
    drawn = []
    for model in (ours, theirs):
        torch.manual_seed(3)
        drawn.append(logits(model))
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=TOLERANCE)


# ---- PiSSA: the same start as PEFT's, and the same steps, on a weight that stays --------------------------------------

PISSA = ["pissa", "pissa_niter_8"]


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_pissa_starts_and_steps_as_pefts(kind: str) -> None:
    settings = Lora(r=4, init_lora_weights="pissa", use_rslora=kind == "bert")
    ours, theirs = prepared(kind, settings, drawn=False), peft_model(kind, settings, init_lora_weights="pissa")
    torch.testing.assert_close(logits(ours), logits(built(kind)), rtol=0, atol=1e-5)
    for name, module in peft_layers(theirs).items():
        own, peer = layers(ours)[name], module.lora_A["default"].weight
        update = own.scaling * own.lora_B @ own.lora_A
        torch.testing.assert_close(update, module.get_delta_weight("default"), rtol=0, atol=1e-5)
        signs = (own.lora_A * peer).sum(1).sign()  # of a pair of singular vectors either sign may come
        torch.testing.assert_close(own.lora_A * signs[:, None], peer, rtol=0, atol=1e-5)
    torch.testing.assert_close(trained(ours), trained(theirs), rtol=0, atol=2e-5)


def test_pissa_by_rounds_comes_near_the_best_update_of_its_rank() -> None:
    """Of random matrices the singular values lie close, so that not the vectors but what is left of the weight tells."""
    exact, near = (layers(prepared("llama", Lora(r=4, init_lora_weights=start), drawn=False)) for start in PISSA)
    for name, module in exact.items():
        left = [
            torch.linalg.matrix_norm(layer.weight - layer.scaling * layer.lora_B @ layer.lora_A).item()
            for layer in (module, near[name])
        ]
        assert left[0] <= left[1] * (1 + 1e-6) and left[1] < 1.01 * left[0]


@pytest.mark.parametrize("dora", [False, True], ids=["", "dora"])
@pytest.mark.parametrize("rslora", [False, True], ids=["", "rslora"])
def test_peft_loads_what_pissa_has_learnt_over_the_base_as_it_was(
    rslora: bool, dora: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Lora(r=4, lora_alpha=6, init_lora_weights="pissa", use_rslora=rslora, use_dora=dora)
    check_peft_reads_ours("llama", settings, tmp_path, caplog)
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    assert told["r"] == 8 and told["init_lora_weights"] is True
    again = built("llama")
    lora.restore(again, None, tmp_path)
    assert torch.equal(logits(again), logits(prepared("llama", settings)))


def test_the_check_sees_pissa_whose_scaling_is_saved_for_the_old_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lora_files, "alpha", lambda settings: lora_layers.alpha(settings) / 2)
    with pytest.raises(AssertionError):
        check_peft_reads_ours("llama", Lora(r=4, init_lora_weights="pissa"), tmp_path, caplog)


def test_a_rank_beyond_the_singular_values_is_an_error() -> None:
    with pytest.raises(RecipeError, match="32"):
        prepared("llama", Lora(r=33, init_lora_weights="pissa"))


def test_gaussian_a_has_pefts_deviation() -> None:
    ours, theirs = (
        make("llama", Lora(r=16, init_lora_weights="gaussian"), **given)
        for make, given in ((prepared, {"drawn": False}), (peft_model, {"init_lora_weights": "gaussian"}))
    )
    mine = torch.cat([module.lora_A.flatten() for module in layers(ours).values()])
    peers = torch.cat([module.lora_A["default"].weight.flatten() for module in peft_layers(theirs).values()])
    assert mine.std().item() == pytest.approx(1 / 16, rel=0.03) == pytest.approx(peers.std().item(), rel=0.06)
    assert all(not module.lora_B.any() for module in layers(ours).values())


def test_lora_plus_lets_the_same_weights_learn_faster_as_pefts() -> None:
    settings = Lora(r=4, loraplus_lr_ratio=16.0)
    ours, theirs = prepared("bert", settings), peft_model("bert", settings)
    optimizer = adamw(trainable(ours), Train(), lambda name: lora.rate_factor(settings, name))
    set_rate(optimizer, 1e-3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    peer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0)
    wanted = {id(p): group["lr"] for group in peer.param_groups for p in group["params"]}
    for name, module in peft_layers(theirs).items():
        for factor in ("lora_A", "lora_B"):
            mine = rates[id(getattr(layers(ours)[name], factor))]
            assert mine == wanted[id(getattr(module, factor)["default"].weight)]
    assert rates[id(ours.classifier.weight)] == 1e-3
