"""`seq2seq`: what a model's positions allow, and tokenizers that are written in Python (Marian's and M2M100's as published)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_seq2seq import check_examples
from transformers import (
    AutoTokenizer,
    LEDConfig,
    LEDForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
)

import pegbox
from made_seq2seq import PAIRS, TEXTS, Made, Makers, pair, recipe_of
from pegbox.data.codec import Codec
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.finished.exporting import export
from pegbox.models.encoder_decoder import write
from pegbox.models.load import load_tokenizer, max_length, max_written
from pegbox.pipeline import get_ready
from pegbox.recipe import load
from pegbox.tasks import TASKS
from tiny_folder import encoder_decoder_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Makers:
    return Makers(tmp_path_factory.mktemp("models"))


# ---- positions -------------------------------------------------------------------------------------------------------

READ, WRITTEN = 64, 16


def led_folder(folder: Path) -> Path:
    """Longformer's encoder beside BART's decoder, which has fewer positions."""
    made = load_tokenizer(encoder_decoder_folder(folder, "bart"))
    sizes: dict[str, Any] = {
        f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")
    }
    sizes |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    ids = {name: getattr(made, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = LEDConfig(
        vocab_size=len(made),
        d_model=32,
        max_encoder_position_embeddings=READ,
        max_decoder_position_embeddings=WRITTEN,
        attention_window=8,
        dropout=0.0,
        decoder_start_token_id=made.eos_token_id,
        **sizes,
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LEDForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def led(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return led_folder(tmp_path_factory.mktemp("led"))


def of_tokens(task: Any, count: int) -> str:
    """A text of so many tokens, as a source and as a target alike."""
    texts = [f"{'a ' * n}{end}" for n in range(200) for end in ("b", "xy", "q z")]
    return next(text for text in texts if len(task.renderer.source(text)) == len(task.renderer.target(text)) == count)


def test_a_decoder_may_have_fewer_positions_than_its_encoder(led: Path, tmp_path: Path) -> None:
    assert (max_length(led), max_written(led)) == (READ, WRITTEN)
    one = Made(led, "led")
    long, short = of_tokens(one.task, READ), of_tokens(one.task, WRITTEN)
    rows = [{"source": long, "target": short}, {"source": "a", "target": "b"}]
    ready = get_ready(load(recipe_of(led, rows, tmp_path)))
    batch = ready.task.collate(list(ready.data.train), packed=False, share_prefix=False)
    assert torch.isfinite(ready.task.loss(ready.model, batch)[0])
    rows[1]["target"] = of_tokens(one.task, WRITTEN + 1)
    with pytest.raises(DataError, match=f"target of {WRITTEN + 1} tokens, and the model writes {WRITTEN} at most"):
        pegbox.check(recipe_of(led, rows, tmp_path))
    rows[1] = {"source": of_tokens(one.task, READ + 1), "target": "b"}
    with pytest.raises(DataError, match=f"more than {READ} tokens"):
        pegbox.check(recipe_of(led, rows, tmp_path))


def test_an_answer_ends_where_the_decoders_positions_do(led: Path) -> None:
    one = Made(led, "led")
    (answer,) = write(one.model, [one.task.renderer.source("a b")], one.task.manner(one.model, 10 * WRITTEN))
    assert answer.stopped or len(answer.input_ids) == WRITTEN


def test_a_model_of_one_table_writes_as_much_as_it_reads(made: Makers, tmp_path: Path) -> None:
    assert max_length(made("bart").folder) == max_written(made("bart").folder) == 64
    assert max_length(made("t5").folder) == max_written(made("t5").folder) == 1_000_000
    PegasusForConditionalGeneration(
        PegasusConfig(vocab_size=9, d_model=16, encoder_layers=1, decoder_layers=1, max_position_embeddings=40)
    ).save_pretrained(tmp_path)
    assert max_length(tmp_path) == max_written(tmp_path) == 40


# ---- tokenizers in Python --------------------------------------------------------------------------------------------


def test_a_target_that_is_cut_as_a_source_is_caught(made: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Codec.learnt
    monkeypatch.setattr(Codec, "learnt", lambda self, text, role="text": right(self, text))
    with pytest.raises(AssertionError):
        check_examples(made("marian, published"), PAIRS)


def test_no_other_task_takes_such_a_tokenizer(made: Makers) -> None:
    folder = made("marian, published").folder
    for kind in TASKS.keys() - {"seq2seq"}:
        recipe = load({"model": str(folder), "task": kind, "data": "rows.jsonl"})
        with pytest.raises(RecipeError, match="no fast tokenizer"):
            TASKS[kind](Renderer(load_tokenizer(folder)), recipe)


def test_other_pieces_of_the_same_names_are_another_key(made: Makers, tmp_path: Path) -> None:
    one = Renderer(made("marian, published").tokenizer)
    assert one.fingerprint == Renderer(load_tokenizer(made("marian, published").folder)).fingerprint
    other = Path(shutil.copytree(made("marian, published").folder, tmp_path / "model"))
    shutil.copyfile(other / "target.spm", other / "source.spm")
    assert Renderer(load_tokenizer(other)).fingerprint != one.fingerprint


@pytest.mark.parametrize(("kind", "target"), [("m2m100", "fr"), ("mbart50", "fr_XX")])
def test_the_language_of_targets_is_in_the_key(kind: str, target: str, made: Makers) -> None:
    other = Made(made(kind).folder, kind, task={"kind": "seq2seq", "target_lang": target}).task
    assert made(kind).task.renderer.fingerprint == other.renderer.fingerprint
    assert made(kind).task.fingerprint != other.fingerprint


def test_what_is_lost_of_a_target_refuses_its_row(made: Makers) -> None:
    with pytest.raises(ValueError, match="cannot write"):
        made("marian, published").task.encode(pair("a", "灯"))


def test_without_the_package_the_cure_is_told(made: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*given: Any, **options: Any) -> Any:
        raise ImportError("\nMarianTokenizer requires the SentencePiece library but it was not found. See its page.\n")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lacking)
    with pytest.raises(RecipeError, match="(?s)requires the SentencePiece library.*pegbox\\[sentencepiece\\]"):
        load_tokenizer(made("marian, published").folder)


def test_a_published_marian_learns_is_saved_exported_and_asked_elsewhere(made: Makers, tmp_path: Path) -> None:
    rows = [{"source": text, "target": text[::-1]} for text in TEXTS[:12]]
    train = {"max_steps": 100, "eval_steps": 100, "learning_rate": 1e-2}
    changes: dict[str, Any] = {"method": {"kind": "lora", "r": 8}, "evaluate": {"num_beams": 3}}
    run = pegbox.train(
        recipe_of(made("marian, published").folder, rows, tmp_path, train=train, **changes),
        run_dir=tmp_path / "run",
    )
    lines = list(run.folder.read_lines("predictions.jsonl"))
    assert all(line["answers"]["tuned"] == line["reference"] for line in lines)
    told = export(run, ["merged"], tmp_path / "out")["formats"]["merged"]["checked"]
    assert told["mean_kl"] < 1e-6 and told["answers"] == len(rows) and told["answers_that_differ"] == 0
    assert run.predict([{"source": rows[1]["source"]}]) == [rows[1]["target"]]
