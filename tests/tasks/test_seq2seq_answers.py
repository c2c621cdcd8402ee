"""`seq2seq`: what an encoder-decoder answers, greedily and by beams, by which methods it learns, and what is saved.

INVARIANTS row 5, answers stop; row 11, a batch answers as each row alone, with its bug put in. What each method promises:
`tests/methods/contract.py`, whose models are among others T5 and BART as they write.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

import pegbox
from made_seq2seq import TEXTS, Made, Makers, recipe_of
from pegbox.errors import RecipeError
from pegbox.finished import Run
from pegbox.finished.comparing import compare
from pegbox.finished.exporting import export
from pegbox.methods import METHODS
from pegbox.methods.lora_layers import LoraLinear
from pegbox.models import encoder_decoder
from pegbox.models.encoder_decoder import Manner, write
from pegbox.models.load import load_model
from pegbox.recipe import Lora, load
from tiny_folder import causal_folder
from tiny_tasks import asked


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Makers:
    return Makers(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Makers:
    return Makers(tmp_path_factory.mktemp("taught"), taught=True)


# ---- answers ---------------------------------------------------------------------------------------------------------


def sources_of(one: Made, count: int) -> list[list[int]]:
    return [one.task.renderer.source(text) for text in TEXTS[:count]]


def by_generate(one: Made, source: Sequence[int], manner: Manner) -> list[int]:
    """One prompt by Transformers alone, with no setting but what is meant."""
    settings = GenerationConfig(
        num_beams=manner.num_beams,
        do_sample=False,
        max_new_tokens=manner.max_new_tokens,
        eos_token_id=sorted(manner.stop_ids),
        pad_token_id=manner.pad_id,
        decoder_start_token_id=manner.opening[0],
        suppress_tokens=[manner.pad_id],
    )
    opening = torch.tensor([list(manner.opening)])
    said = one.model.generate(torch.tensor([list(source)]), decoder_input_ids=opening, generation_config=settings)
    ids = said[0, opening.shape[1] :].tolist()
    return next((ids[:n] for n, token in enumerate(ids) if token in manner.stop_ids), ids)


def by_hand(one: Made, source: Sequence[int], manner: Manner) -> list[int]:
    """Greedy, with no cache and no batch: the whole model anew for every token."""
    given, ids = list(manner.opening), torch.tensor([list(source)])
    while len(given) < manner.max_new_tokens + len(manner.opening):
        with torch.no_grad():
            logits = one.model(input_ids=ids, decoder_input_ids=torch.tensor([given]), use_cache=False).logits[0, -1]
        logits[list(manner.never)] = -torch.inf
        if (token := int(logits.argmax())) in manner.stop_ids:
            break
        given.append(token)
    return given[len(manner.opening) :]


def check_greedy(one: Made, count: int = 16) -> None:
    """Together in batches of any size each row has the answer that it has alone, by hand and by Transformers."""
    sources, manner = sources_of(one, count), one.task.manner(one.model, 12)
    wanted = [by_hand(one, source, manner) for source in sources]
    assert wanted == [by_generate(one, source, manner) for source in sources]
    for size in (1, 5, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encoder_decoder, "AT_ONCE", size)
            assert [answer.input_ids for answer in write(one.model, sources, manner)] == wanted
    assert len({tuple(answer) for answer in wanted}) > 5 and len(set(map(len, wanted))) > 2


@pytest.mark.parametrize("kind", ["t5, untied", "bart", "marian", "mbart", "nllb"])
def test_greedy_answers_are_those_of_each_row_alone(kind: str, taught: Makers) -> None:
    check_greedy(taught(kind))


def test_padding_that_the_encoder_reads_is_caught(taught: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    right = encoder_decoder._padded

    def unmasked(rows: Sequence[Sequence[int]], pad_id: int) -> Any:
        ids, mask = right(rows, pad_id)
        return ids, torch.ones_like(mask)

    monkeypatch.setattr(encoder_decoder, "_padded", unmasked)
    with pytest.raises(AssertionError):
        check_greedy(taught("t5, untied"))


def check_beams(one: Made, count: int) -> None:
    """Of answers that end at various places, and are others than greedy ones on some."""
    manner = replace(one.task.manner(one.model, 6), num_beams=4)
    sources = sources_of(one, count)
    found = [answer.input_ids for answer in write(one.model, sources, manner)]
    assert found == [by_generate(one, source, manner) for source in sources]
    greedy = [answer.input_ids for answer in write(one.model, sources, replace(manner, num_beams=1))]
    assert sum(one != other for one, other in zip(found, greedy, strict=True)) > count // 20
    assert len({len(answer) for answer in found}) > 2


def test_no_setting_of_the_models_own_bears_on_beams(taught: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    one = taught("t5, untied")
    own = GenerationConfig(no_repeat_ngram_size=2, min_new_tokens=5, length_penalty=3.0, repetition_penalty=2.0)
    manner = replace(one.task.manner(one.model, 6), num_beams=4)
    wanted = [by_generate(one, source, manner) for source in sources_of(one, 20)]
    monkeypatch.setattr(one.model, "generation_config", own)
    assert [answer.input_ids for answer in write(one.model, sources_of(one, 20), manner)] == wanted
    assert one.model.generation_config is own


def test_beam_search_on_200_prompts_is_transformers_own(taught: Makers) -> None:
    check_beams(taught("t5, untied"), 200)


@pytest.mark.parametrize("setting", [{"length_penalty": -2.0}, {"no_repeat_ngram_size": 1}], ids=str)
def test_a_penalty_is_caught(setting: dict[str, Any], taught: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Manner.settings.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Manner, "settings", property(lambda self: right(self) | setting))
    with pytest.raises(AssertionError):
        check_beams(taught("t5, untied"), 40)


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_lora_changes_every_layer_of_both_sides_and_of_what_joins_them(kind: str, made: Makers) -> None:
    model: Any = load_model(made(kind).folder, "seq2seq", kernels=False)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    METHODS["lora"].prepare(model, Lora(r=4), 0)
    changed = {name for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    assert changed == linear
    across = [name for name in changed if "EncDecAttention" in name or "encoder_attn" in name]
    assert len(across) == 2 * 4 and sum("encoder." in name for name in changed) == 2 * 6


# ---- runs ------------------------------------------------------------------------------------------------------------

REVERSED = [{"source": text, "target": " ".join(reversed(text.split()))} for text, _, _ in asked(12)]


@pytest.fixture(scope="module")
def run(made: Makers, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tied T5 that learns by heart to turn texts round, judged with beams."""
    folder = tmp_path_factory.mktemp("run")
    train = {"max_steps": 60, "eval_steps": 60, "learning_rate": 1e-2}
    changes = {"method": "full", "evaluate": {"num_beams": 3}}
    return pegbox.train(recipe_of(made("t5").folder, REVERSED, folder, train=train, **changes), run_dir=folder / "run")


def test_a_toy_language_is_learnt_by_heart_and_every_answer_stops(run: Run) -> None:
    lines = run.folder.read_lines("predictions.jsonl")
    assert all(line["answers"]["tuned"] == line["reference"] for line in lines)
    task: Any = run.task
    sources = [task.renderer.source(row["source"]) for row in REVERSED]
    manner = task.manner(run.model, run.recipe.evaluate.max_new_tokens or 0)
    for beams in (1, 3):
        assert all(answer.stopped for answer in write(run.model, sources, replace(manner, num_beams=beams)))
    assert run.evaluation["primary"] == "chrf"
    assert {"base", "tuned", "trivial", "translation_memory", "permuted"} == set(run.evaluation["systems"])
    assert run.evaluation["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_the_saved_folder_answers_as_it_was_measured_without_pegbox(run: Run) -> None:
    folder = run.folder.model
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.num_beams == 3 and model.generation_config.max_new_tokens
    for row in REVERSED:
        said = model.generate(**tokenizer(row["source"], return_tensors="pt"))
        assert tokenizer.decode(said[0], skip_special_tokens=True) == row["target"]


def test_the_recipes_beams_are_those_of_every_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_with: list[int] = []
    right = encoder_decoder._by_beams
    monkeypatch.setattr(
        encoder_decoder, "_by_beams", lambda *given: asked_with.append(given[-1].num_beams) or right(*given)
    )
    run.predict([{"source": "the light"}])
    assert asked_with == [3]


def test_the_report_says_how_its_numbers_were_computed(run: Run) -> None:
    signatures = run.evaluation["signatures"]
    assert set(signatures) == set(run.task.metrics) - {"exact_match"}
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert all(signature in page for signature in signatures.values())


def test_the_same_rows_are_learnt_by_a_decoder_through_chat(run: Run, tmp_path: Path) -> None:
    model = causal_folder(tmp_path / "model")
    judged = {"metrics": ["chrf", "bleu", "ter", "rougeL", "length_ratio"], "primary": "chrf", "few_shot": 0}
    recipe = recipe_of(model, REVERSED, tmp_path, method="full", evaluate=judged) | {"task": "chat"}
    recipe["data"]["instruction"] = "Turn the words round."
    other = pegbox.train(recipe, run_dir=tmp_path / "run")
    lines = {name: list(one.folder.read_lines("predictions.jsonl")) for name, one in (("a", run), ("b", other))}
    assert [line["reference"] for line in lines["a"]] == [line["reference"] for line in lines["b"]]
    assert [line["input"] for line in lines["a"]] == [row["source"] for row in REVERSED]
    assert all(line["input"].endswith(row["source"]) for line, row in zip(lines["b"], REVERSED, strict=True))
    assert set(other.evaluation["systems"]["tuned"]) == set(judged["metrics"])
    remembered = [[line["answers"]["translation_memory"] for line in lines[name]] for name in ("a", "b")]
    assert remembered[0] == remembered[1]
    told = compare([run.path, other.path], metric="chrf")
    assert (told["primary"], told["task"]) == ("chrf", "chat, seq2seq")


def test_as_gguf_it_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no encoder-decoder is written as GGUF"):
        export(run, ["gguf"], tmp_path / "other")


def test_a_lora_run_is_loaded_by_peft_and_gone_on_from(made: Makers, tmp_path: Path) -> None:
    codes = {"kind": "seq2seq", "source_lang": "en_XX", "target_lang": "de_DE"}
    rows = [{"source": a, "target": b} for a, b in zip("abcdefgh", "hgfedcba", strict=True)]
    train = {"max_steps": 60, "eval_steps": 60, "learning_rate": 3e-2}
    changes: dict[str, Any] = {"method": {"kind": "lora", "r": 8}, "train": train}
    first = pegbox.train(
        recipe_of(made("mbart50").folder, rows, tmp_path, **changes) | {"task": codes}, run_dir=tmp_path / "run"
    )
    lines = list(first.folder.read_lines("predictions.jsonl"))
    assert all(line["answers"]["tuned"] == line["reference"] for line in lines)
    told = json.loads((first.folder.model / "adapter_config.json").read_text())
    assert told["task_type"] == "SEQ_2_SEQ_LM"
    from peft import AutoPeftModelForSeq2SeqLM

    model, tokenizer = (c.from_pretrained(first.folder.model) for c in (AutoPeftModelForSeq2SeqLM, AutoTokenizer))
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", "de_DE")
    settings = GenerationConfig.from_pretrained(first.folder.model)
    said = model.generate(**tokenizer("a", return_tensors="pt"), generation_config=settings)
    assert tokenizer.decode(said[0], skip_special_tokens=True) == "h"
    for name in (first.path, first.folder.model):
        ready = pegbox.pipeline.get_ready(
            load(recipe_of(tmp_path, rows, tmp_path) | {"task": codes, "model": str(name)})
        )
        batch = ready.task.collate(list(ready.data.train), packed=False, share_prefix=False)
        total, weight = ready.task.loss(ready.model, batch)
        assert float(total.detach()) / weight < 0.1
