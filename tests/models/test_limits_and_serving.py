"""What a model's folder says of its limits, its stop tokens and its noise; what is served stops (INVARIANTS 5, 37)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pegbox.models.load import has_dropout, load_model, load_tokenizer, max_length, save_serving, stop_ids
from tiny_models import POSITIONS, rows, save_tokenizer, tiny, tiny_classifier

# ---- limits ----------------------------------------------------------------------------------------------------------


def check_limit_is_the_models(name: str, folder: Path) -> None:
    """Rows up to the limit are computed; where positions are a table, a longer one cannot be."""
    model = tiny(name, head=AutoModel)
    model.save_pretrained(folder)
    limit = max_length(folder)
    for length in (limit - 1, limit, limit + 1):
        ids = torch.tensor(rows([length]))
        try:
            with torch.no_grad():
                model(ids, attention_mask=torch.ones_like(ids))
            assert length <= limit, f"{length} tokens fit into {name}"
        except (IndexError, RuntimeError):
            assert length > limit, f"{length} tokens do not fit into {name}"


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert", "gpt2"])
def test_the_limit_is_the_most_tokens_that_the_position_table_holds(name: str, tmp_path: Path) -> None:
    check_limit_is_the_models(name, tmp_path)


def test_the_check_sees_a_limit_that_forgets_robertas_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "max_length", lambda folder: POSITIONS)
    with pytest.raises(AssertionError):
        check_limit_is_the_models("roberta", tmp_path)


@pytest.mark.parametrize(
    ("name", "limit"), [("llama", POSITIONS), ("opt", POSITIONS), ("bloom", 1_000_000), ("mamba", 1_000_000)]
)
def test_the_limit_without_a_table_is_the_configs(name: str, limit: int, tmp_path: Path) -> None:
    tiny(name).config.save_pretrained(tmp_path)
    assert max_length(tmp_path) == limit


# ---- serving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "wanted"), [({"eos_token_id": 7}, [7]), ({"eos_token_id": [7, 9]}, [7, 9]), ({}, []), (None, [])]
)
def test_stop_tokens_are_the_generation_configs(
    config: dict[str, Any] | None, wanted: list[int], tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert stop_ids(tmp_path) == wanted


PUBLISHED = [
    {},
    {"temperature": 0.6, "top_p": 0.9},
    {"do_sample": True, "temperature": 0.6},
    {"repetition_penalty": 1.1},
]


def check_serving(settings: dict[str, Any], base: Path, out: Path) -> None:
    """What is saved stops at the trained stop tokens in plain Transformers; its other settings are the publisher's."""
    model = tiny("llama")
    model.generation_config = GenerationConfig(eos_token_id=5)
    model.save_pretrained(base)
    save_tokenizer(base)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 5, **settings}))
    loaded = load_model(base, "causal_lm")
    loaded.save_pretrained(out)
    save_serving(load_tokenizer(base), loaded, [5, 11], out)
    told = json.loads((out / "generation_config.json").read_text())
    assert told["eos_token_id"] == [5, 11] and stop_ids(out) == [5, 11]
    assert {key: told[key] for key in settings} == settings
    assert loaded.generation_config.eos_token_id == 5, "the model in memory has changed"
    served = AutoModelForCausalLM.from_pretrained(out)
    assert served.generation_config.eos_token_id == [5, 11]
    assert AutoTokenizer.from_pretrained(out)("w7 w9")["input_ids"] == [7, 9]


@pytest.mark.parametrize("settings", PUBLISHED, ids=str)
def test_what_is_saved_stops_where_training_did(settings: dict[str, Any], tmp_path: Path) -> None:
    check_serving(settings, tmp_path / "base", tmp_path / "out")


def test_plain_transformers_stops_at_a_trained_stop_token(tmp_path: Path) -> None:
    model, prompt = tiny("llama"), torch.tensor(rows([6]))
    free = model.generate(prompt, do_sample=False, max_new_tokens=8, eos_token_id=None, pad_token_id=0)[0, 6:].tolist()
    model.save_pretrained(tmp_path)
    save_serving(save_tokenizer(tmp_path), model, [2, free[3]], tmp_path)
    served = AutoModelForCausalLM.from_pretrained(tmp_path)
    stopped = served.generate(prompt, do_sample=False, max_new_tokens=8, pad_token_id=0)[0, 6:].tolist()
    assert stopped == free[: free.index(free[3]) + 1]


def test_the_check_sees_a_stop_token_that_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "save_serving", lambda tokenizer, model, stops, out: tokenizer.save_pretrained(out))
    with pytest.raises(AssertionError):
        check_serving({}, tmp_path / "base", tmp_path / "out")


def test_a_classifier_has_no_generation_config(tmp_path: Path) -> None:
    save_serving(save_tokenizer(tmp_path), tiny_classifier("bert"), [2], tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


# ---- noise -----------------------------------------------------------------------------------------------------------

NOISE = [
    ("llama", {}),
    ("llama", {"attention_dropout": 0.3}),
    ("gpt2", {}),
    ("gpt2", {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
    ("opt", {}),  # 0.1, by a function and not by a module
    ("opt", {"dropout": 0.0}),
    ("opt", {"dropout": 0.0, "attention_dropout": 0.3}),
    ("bloom", {}),
    ("bloom", {"hidden_dropout": 0.3}),
    ("bert", {}),
    ("bert", {"hidden_dropout_prob": 0.3}),
    ("bert", {"attention_probs_dropout_prob": 0.3}),
    ("bert", {"classifier_dropout": 0.3}),
    ("phimoe", {"router_jitter_noise": 0.0, "input_jitter_noise": 0.0}),
]


def check_noise_is_seen(name: str, options: dict[str, Any]) -> None:
    """`has_dropout` says whether two training passes over the same rows differ."""
    model = tiny_classifier(name, **options) if name == "bert" else tiny(name, **options)
    ids = torch.tensor(rows([12, 12, 12]))
    with torch.random.fork_rng(devices=[]):
        model.train()
        one, other = (model(ids, attention_mask=torch.ones_like(ids)).logits for _ in range(2))
    assert has_dropout(model.eval()) == (not torch.equal(one, other))


@pytest.mark.parametrize(("name", "options"), NOISE, ids=str)
def test_a_model_that_draws_noise_in_training_is_known(name: str, options: dict[str, Any]) -> None:
    check_noise_is_seen(name, options)


def test_the_check_sees_dropout_that_is_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        globals(),
        "has_dropout",
        lambda model: any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules()),
    )
    with pytest.raises(AssertionError):
        check_noise_is_seen("opt", {})
