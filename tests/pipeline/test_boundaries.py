"""Rows at the edge of what a model takes: the longest that fits is learnt, one token more is refused by its line.

INVARIANTS row 37, over whole runs, where positions are a table. What the limit is of which model:
`models/test_limits_and_serving`; rows that are cut, split or left out: `data/test_shorten` and `data/test_preparing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokenizers import tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    OPTConfig,
    RobertaConfig,
)

import pegbox
from pegbox import pipeline
from pegbox.errors import DataError
from pegbox.models import load as models
from tiny_folder import chat_recipe, write_rows

TOKENS = 40  # what each of the models takes
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@dataclass(frozen=True)
class Kind:
    """A kind of model whose positions are a table; `offset`: how many of the table are never used."""

    config: Callable[..., Any]
    offset: Callable[[Any], int] = lambda words: 0
    writes: bool = False
    method: str = "lora"


KINDS: Mapping[str, Kind] = {
    "bert": Kind(lambda n, **ids: BertConfig(**SIZES, max_position_embeddings=n, **ids)),
    "roberta": Kind(
        lambda n, **ids: RobertaConfig(**SIZES, max_position_embeddings=n, type_vocab_size=1, **ids),
        offset=lambda words: int(words.pad_token_id) + 1,
    ),
    "gpt2": Kind(
        lambda n, **ids: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=n, **ids), writes=True, method="full"
    ),
    "opt": Kind(
        lambda n, **ids: OPTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=48,
            word_embed_proj_dim=32,
            max_position_embeddings=n,
            **ids,
        ),
        writes=True,
    ),
}


def made_model(name: str, folder: Path) -> Path:
    kind = KINDS[name]
    words = tokenizer("byte_level" if kind.writes else "wordpiece")
    ids = {"vocab_size": len(words), "pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
    head = AutoModelForCausalLM if kind.writes else AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head.from_config(kind.config(TOKENS + kind.offset(words), **ids)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def row(name: str, number: int, tokens: int, words: Any, answer: str = "!") -> dict[str, str]:
    """One that differs from the others and becomes so many tokens, the one that ends a completion among them."""
    if KINDS[name].writes:
        room = tokens - len(words(f"{number} z")["input_ids"]) - len(words(answer)["input_ids"]) - 1
        return {"prompt": f"{number} z" + "z" * room, "completion": answer}
    text = f"{number} dog"
    return {"text": text + " dog" * (tokens - len(words(text)["input_ids"])), "label": "ab"[number % 2]}


def recipe_of(name: str, model: Path, lengths: list[int], folder: Path) -> dict[str, Any]:
    """Train has rows of these lengths among short ones; row 31 is the first of them."""
    words = AutoTokenizer.from_pretrained(model)
    short = [row(name, 100 + n, 9 + n % 5, words) for n in range(42)]
    parts = {"validation": short[30:36], "test": short[36:]}
    parts["train"] = [*short[:30], *(row(name, 900 + n, tokens, words) for n, tokens in enumerate(lengths))]
    data = {part: str(write_rows(folder / f"{part}.jsonl", rows)) for part, rows in parts.items()}
    return chat_recipe(
        model,
        Path(),
        task="completion" if KINDS[name].writes else "classification",
        data={**data, "allow": ["leak"]},
        method={"kind": KINDS[name].method},
        train={"num_train_epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "report_to": []},
        evaluate={"few_shot": 0} | ({"max_new_tokens": 2} if KINDS[name].writes else {}),
    )


def check_what_fits_is_learnt_and_no_more(name: str, folder: Path) -> None:
    model = made_model(name, folder / "model")
    run = pegbox.train(recipe_of(name, model, [TOKENS - 1, TOKENS], folder), run_dir=folder / "run")
    assert run.verdict
    learnt = sorted(map(len, pipeline.read_rows(run.recipe)[2].train))
    assert learnt[-2:] == [TOKENS - 1, TOKENS] and len(learnt) == 32
    assert sum(line.get("rows", 0) for line in run.folder.read_lines("metrics.jsonl")) == 32
    try:
        pegbox.train(recipe_of(name, model, [TOKENS, TOKENS + 1], folder), run_dir=folder / "longer")
    except DataError as refusal:
        assert f"more than {TOKENS} tokens" in refusal.what and "train.jsonl:32" in refusal.what
        assert "train.jsonl:31" not in refusal.what
        assert not (folder / "longer").exists()
        return
    except (IndexError, RuntimeError) as crash:
        raise AssertionError("a row that is too long was tried") from crash
    raise AssertionError("a row that is too long was learnt")


@pytest.mark.parametrize("name", KINDS)
def test_the_longest_row_that_fits_is_learnt_and_one_token_more_is_refused_by_its_line(
    name: str, tmp_path: Path
) -> None:
    check_what_fits_is_learnt_and_no_more(name, tmp_path)


@pytest.mark.parametrize(("name", "slack"), [("roberta", 0), ("bert", 1), ("bert", -1), ("opt", 1)])
def test_a_limit_that_is_off_is_caught(name: str, slack: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: RoBERTa's offset is forgotten; one more; one less, so that a row that fits is refused."""

    def wrong(folder: Path) -> int:
        return int(AutoConfig.from_pretrained(str(folder)).max_position_embeddings) + slack

    monkeypatch.setattr(models, "max_length", wrong)
    with pytest.raises((AssertionError, DataError)):
        check_what_fits_is_learnt_and_no_more(name, tmp_path)


# ---- the vocabulary --------------------------------------------------------------------------------------------------


def check_a_token_that_the_model_has_not_is_refused(name: str, folder: Path) -> None:
    """The tokenizer was given a token, as an older version of it had not, and one row has it."""
    model = made_model(name, folder / "model")
    words = AutoTokenizer.from_pretrained(model)
    words.add_tokens(["kitchenette"])
    words.save_pretrained(model)
    recipe = recipe_of(name, model, [20], folder)
    rows = (folder / "train.jsonl").read_text(encoding="utf-8")
    (folder / "train.jsonl").write_text(rows.replace("900 ", "900 kitchenette "), encoding="utf-8")
    known = len(words) - 1
    try:
        pegbox.train(recipe, run_dir=folder / "run")
    except DataError as refusal:
        assert f"has the token {known}, and the model knows {known} tokens" in refusal.what
        assert "train.jsonl:31" in refusal.what and not (folder / "run").exists()
        return
    except (IndexError, RuntimeError) as crash:
        raise AssertionError("a token that the model has not was tried") from crash
    raise AssertionError("a token that the model has not was learnt")


@pytest.mark.parametrize("name", ["bert", "opt"])
def test_a_token_that_the_model_has_not_is_refused_by_its_line(name: str, tmp_path: Path) -> None:
    check_a_token_that_the_model_has_not_is_refused(name, tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_an_answer_that_would_end_beyond_the_last_position_is_no_crash(name: str, tmp_path: Path) -> None:
    """A row of the test that fits, and whose answer may be longer than its own: by default a quarter longer."""
    model, answer = made_model(name, tmp_path / "model"), "!?!?!?!?"
    words, recipe = AutoTokenizer.from_pretrained(model), recipe_of(name, model, [20], tmp_path)
    for part, lengths in {"train": [20 + n % 9 for n in range(30)], "test": [TOKENS]}.items():
        rows = [row(name, 300 + n + 100 * len(part), tokens, words, answer) for n, tokens in enumerate(lengths)]
        write_rows(tmp_path / f"{part}.jsonl", rows)
    assert pegbox.train({**recipe, "evaluate": {"few_shot": 0}}, run_dir=tmp_path / "run").verdict
