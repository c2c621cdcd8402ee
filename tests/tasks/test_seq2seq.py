"""`seq2seq`: what an encoder-decoder learns of a source and its target, what does not fit, and what it has to beat.

INVARIANTS row 3, decoder inputs and loss against Transformers' own; row 4, one stop token is learnt; row 10, a source and a
target that do not fit; row 28, what weighs nothing. Each with its bug put in. Rows 1 and 12 over this task: `test_task_updates`,
`test_task_invariants`; by heart, saved, elsewhere: `test_matrix`; answers and methods: `test_seq2seq_answers`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import M2M100ForConditionalGeneration
from transformers.models.m2m_100.modeling_m2m_100 import shift_tokens_right

import pegbox
from made_seq2seq import LANGUAGES, MADE, PAIRS, TEXTS, Made, Makers, pair, recipe_of
from pegbox.data.records import Example, Record
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.models import encoder_decoder
from pegbox.models.encoder_decoder import shifted
from pegbox.models.load import load_tokenizer
from pegbox.recipe import load
from pegbox.tasks.seq2seq import COPY, FREQUENT
from pegbox.tasks.translation_memory import recalled
from tiny_folder import causal_folder
from tiny_languages import coded_folder

EVERY = pytest.mark.parametrize("kind", MADE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Makers:
    return Makers(tmp_path_factory.mktemp("models"))


def theirs(one: Made, record: Record) -> tuple[list[int], list[int]]:
    """The ids of source and target by the tokenizer's own call."""
    given = one.tokenizer(one.task.shown(record), text_target=one.task.reference(record))
    return list(given["input_ids"]), list(given["labels"])


# ---- what is learnt --------------------------------------------------------------------------------------------------


def check_examples(one: Made, records: Sequence[Record]) -> None:
    """Source and target are the tokenizer's; of a target the text and one stop token are learnt, and nothing else."""
    for record in records:
        example = one.task.encode(record)
        source, target = theirs(one, record)
        end = target.index(one.tokenizer.eos_token_id) + 1
        assert list(example.input_ids) == source + target[:end]
        assert example.lengths == (len(source), end)
        learnt = [t for t, w in zip(example.input_ids, example.loss_weights, strict=True) if w > 0]
        bare = one.tokenizer(text_target=one.task.reference(record), add_special_tokens=False)["input_ids"]
        assert learnt == [*bare, one.tokenizer.eos_token_id]
        assert one.task.renderer.written(learnt) == one.task.reference(record)
        assert example.weight == len(learnt)


@EVERY
def test_an_example_is_what_the_tokenizer_serves_with_one_stop_token_learnt(kind: str, made: Makers) -> None:
    check_examples(made(kind), PAIRS)


def test_a_stop_token_that_is_learnt_twice_is_caught(made: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Renderer.target
    monkeypatch.setattr(Renderer, "target", lambda self, text: [*right(self, text), self.tokenizer.eos_token_id])
    with pytest.raises(AssertionError):
        check_examples(made("t5"), PAIRS)


def test_a_target_that_holds_the_stop_token_or_an_unknown_character_is_refused(made: Makers) -> None:
    holding = "b </s> c"  # as a text its letters are learnt, and no stop token
    assert made("t5").task.encode(pair("a", holding)).input_ids.count(made("t5").tokenizer.eos_token_id) == 2
    with pytest.raises(ValueError, match="cannot write"):
        made("mbart").task.encode(pair("a", "灯"))


def labels_of(one: Made, records: Sequence[Record]) -> torch.Tensor:
    """What Transformers' data collator would make of the targets."""
    rows = [theirs(one, record)[1] for record in records]
    size = max(map(len, rows))
    return torch.tensor([row + [-100] * (size - len(row)) for row in rows])


def check_decoder_inputs(one: Made, records: Sequence[Record]) -> None:
    """Up to the stop token what `prepare_decoder_input_ids_from_labels` makes of the labels."""
    batch = one.task.collate([one.task.encode(record) for record in records], packed=False, share_prefix=False)
    given = encoder_decoder.shifted(batch.target_ids, one.task._start(one.model))
    labels = labels_of(one, records)
    if isinstance(one.model, M2M100ForConditionalGeneration):  # which does so within its forward
        wanted = shift_tokens_right(labels, one.tokenizer.pad_token_id, one.model.config.decoder_start_token_id)
    else:
        wanted = one.model.prepare_decoder_input_ids_from_labels(labels)
    for row, record in enumerate(records):
        size = one.task.encode(record).lengths[1]
        assert given[row, :size].tolist() == wanted[row, :size].tolist()


@EVERY
def test_the_decoder_is_given_what_transformers_gives_it(kind: str, made: Makers) -> None:
    check_decoder_inputs(made(kind), PAIRS)


def check_loss(one: Made, records: Sequence[Record]) -> None:
    """The mean over the learnt tokens is Transformers' own loss, of labels that are -100 where nothing is learnt."""
    batch = one.task.collate([one.task.encode(record) for record in records], packed=False, share_prefix=False)
    total, weight = one.task.loss(one.model, batch)
    labels = torch.full_like(batch.target_ids, -100)
    for row, record in enumerate(records):
        example = one.task.encode(record)
        target = zip(example.input_ids[example.lengths[0] :], example.loss_weights[example.lengths[0] :], strict=True)
        for place, (token, learnt) in enumerate(target):
            labels[row, place] = token if learnt else -100
    given = shifted(batch.target_ids, one.task._start(one.model))
    out = one.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, decoder_input_ids=given, labels=labels
    )
    assert weight == (labels >= 0).sum()
    assert float(total.detach()) / weight == pytest.approx(float(out.loss), abs=1e-6)


@EVERY
def test_the_loss_is_transformers_own(kind: str, made: Makers) -> None:
    check_loss(made(kind), PAIRS)


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_from_the_labels_alone_it_is_the_same(kind: str, made: Makers) -> None:
    one = made(kind)
    batch = one.task.collate([one.task.encode(record) for record in PAIRS], packed=False, share_prefix=False)
    total, weight = one.task.loss(one.model, batch)
    out = one.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels_of(one, PAIRS))
    assert float(total.detach()) / weight == pytest.approx(float(out.loss), abs=1e-6)


def test_a_missing_shift_is_caught(made: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_decoder, "shifted", lambda target_ids, start: target_ids)
    for check in (check_decoder_inputs, check_loss):
        with pytest.raises(AssertionError):
            check(made("bart"), PAIRS)


def padding_learnt(examples: Sequence[Example], pad_id: int) -> Any:
    """Bug: every target is as long as the longest."""
    size = max(example.lengths[1] for example in examples)
    longer = []
    for example in examples:
        more = size - example.lengths[1]
        ids, weights = (*example.input_ids, *[pad_id] * more), (*example.loss_weights, *[1.0] * more)
        longer.append(replace(example, input_ids=ids, loss_weights=weights, lengths=(example.lengths[0], size)))
    return right_pad(longer, pad_id)


right_pad = encoder_decoder.pad_pairs


def test_padding_that_is_learnt_is_caught(made: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.tasks.seq2seq.pad_pairs", padding_learnt)
    with pytest.raises(AssertionError):
        check_loss(made("t5"), PAIRS)


# ---- what does not fit, what stands before ---------------------------------------------------------------------------


LONG = "kitchen light " * 40


@pytest.mark.parametrize("role", ["source", "target"])
@pytest.mark.parametrize("truncation", ["refuse", "cut"])
def test_a_source_and_a_target_that_do_not_fit_are_refused_each_by_itself(
    role: str, truncation: str, made: Makers, tmp_path: Path
) -> None:
    rows = [{"source": text, "target": text} for text in TEXTS[:9]]
    rows[4][role] = LONG
    recipe = recipe_of(made("bart").folder, rows, tmp_path, data={"truncation": truncation})
    if (role, truncation) == ("source", "cut"):
        data = pegbox.pipeline.get_ready(load(recipe)).data
        longest = max((example for example in data.train), key=lambda example: example.lengths[0])
        assert longest.lengths[0] <= 64 < made("bart").task.prompt_length(pair(LONG, "x"), ())
        assert any("inputs of 3 rows" in finding.message for finding in data.findings)
        return
    with pytest.raises(DataError, match=r"too_long: 3 rows have more than 64 tokens") as told:
        pegbox.check(recipe)
    assert "rows.jsonl:5" in str(told.value) or "rows.jsonl" in str(told.value)


def test_both_may_be_as_long_as_the_model_allows(made: Makers, tmp_path: Path) -> None:
    one = made("bart")
    text = next(t for n in range(1, 200) if len(one.task.renderer.source(t := "a " * n)) == 64)
    assert one.task.encode(pair(text, text)).longest == 64
    recipe = recipe_of(one.folder, [{"source": text, "target": text}, {"source": "a", "target": "b"}], tmp_path)
    assert len(pegbox.pipeline.get_ready(load(recipe)).data.train) == 2


@pytest.mark.parametrize(("instruction", "lead"), [("translate to x: ", "translate to x: "), ("to x:", "to x: ")])
def test_an_instruction_stands_before_every_source_and_nowhere_else(instruction: str, lead: str, made: Makers) -> None:
    one = Made(made("t5").folder, "t5", data={"train": "rows.jsonl", "instruction": instruction})
    record = pair("the light", "light the", instruction=instruction)
    example = one.task.encode(record)
    assert list(example.input_ids[: example.lengths[0]]) == one.tokenizer(f"{lead}the light")["input_ids"]
    assert (one.task.shown(record), one.task.reference(record)) == ("the light", "light the")
    assert one.task.prompt_length(record, ()) == example.lengths[0]


# ---- rivals ----------------------------------------------------------------------------------------------------------


def test_the_trivial_rival_is_the_better_of_two_on_the_training_rows(made: Makers) -> None:
    task = Made(made("t5").folder, "t5").task
    task.fit([pair("the light is on", "the light is off"), pair("a dog", "a dog"), pair("x", "y")])
    assert task.state() == {"trivial": COPY}
    assert task.trivial(PAIRS, PAIRS).answers == tuple(task.shown(record) for record in PAIRS)
    frequent = [pair("the light", "yes"), pair("the dog", "yes"), pair("a fox", "no")]
    task.fit(frequent)
    assert task.state() == {"trivial": FREQUENT}
    assert task.trivial(frequent, PAIRS).answers == ("yes",) * len(PAIRS)
    task.restore({"trivial": COPY})
    assert task.trivial(frequent, PAIRS[:1]).answers == (task.shown(PAIRS[0]),)


def test_a_translation_memory_recalls_the_target_of_the_nearest_source() -> None:
    train = [("turn on the light", "Licht an"), ("turn off the light", "Licht aus"), ("open the door", "Tür auf")]
    asked_for = ["turn on the lights", "open this door", "turn off a light", "the door: open it!"]
    assert recalled(train, asked_for) == ("Licht an", "Tür auf", "Licht aus", "Tür auf")
    assert recalled([("", "a"), (" ", "b")], ["x", "y"]) == ("a", "a")
    assert recalled([*train, ("turn on the light", "other")], ["turn on the light"]) == ("Licht an",)


def grams(text: str) -> dict[str, int]:
    """Character 2- to 4-grams of each word between two spaces; of a short word the whole once."""
    found: dict[str, int] = {}
    for word in text.lower().split():
        padded = f" {word} "
        for size in (2, 3, 4):
            for begin in range(max(1, len(padded) - size + 1)):
                found[padded[begin : begin + size]] = found.get(padded[begin : begin + size], 0) + 1
            if len(padded) <= size:
                break
    return found


def test_the_nearest_is_that_of_the_greatest_cosine_by_brute_force() -> None:
    train = [(text, str(n)) for n, text in enumerate(TEXTS[:60])]
    counts = [grams(source) for source, _ in train]
    seen = {gram: sum(gram in one for one in counts) for one in counts for gram in one}

    def vector(text: str) -> dict[str, float]:
        raw = {
            gram: count * (math.log((1 + len(train)) / (1 + seen[gram])) + 1)
            for gram, count in grams(text).items()
            if gram in seen
        }
        size = math.sqrt(sum(value**2 for value in raw.values())) or 1.0
        return {gram: value / size for gram, value in raw.items()}

    memory = [vector(source) for source, _ in train]
    for text in TEXTS[60:100]:
        one = vector(text)
        cosines = [sum(value * other.get(gram, 0.0) for gram, value in one.items()) for other in memory]
        found = int(recalled(train, [text])[0])
        assert cosines[found] == pytest.approx(max(cosines), abs=1e-6)


# ---- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LANGUAGES)
def test_a_language_begins_what_the_decoder_writes(kind: str, made: Makers) -> None:
    one = made(kind)
    source, target = (f"__{code}__" if kind == "m2m100" else code for code in LANGUAGES[kind])
    manner = one.task.manner(one.model, 4)
    assert one.tokenizer.convert_ids_to_tokens(manner.opening)[-1] == target
    assert len(manner.opening) == (1 if kind == "mbart" else 2)
    ids = one.tokenizer.convert_ids_to_tokens(one.task.encode(PAIRS[0]).input_ids)
    assert source in ids and (target in ids) == (kind != "mbart")


@pytest.mark.parametrize(
    ("kind", "codes", "why"),
    [
        ("mbart", {}, "writes several languages, and none is named"),
        ("mbart", {"target_lang": "de_XX"}, "has no language 'de_XX'.*such as"),
        ("mbart", {"source_lang": "x", "target_lang": "de_DE"}, "has no language 'x'"),
        ("m2m100", {}, "writes several languages, and none is named"),
        ("m2m100", {"target_lang": "de_DE"}, "has no language 'de_DE'.*such as"),
    ],
)
def test_a_language_that_is_not_known_is_refused(kind: str, codes: dict[str, str], why: str, made: Makers) -> None:
    with pytest.raises(RecipeError, match=f"(?s){why}"):
        Made(made(kind).folder, kind, task={"kind": "seq2seq", **codes})


def test_a_language_has_no_effect_on_a_tokenizer_without_codes(made: Makers) -> None:
    with pytest.raises(RecipeError, match="has no tokens for languages, and target_lang is de_DE"):
        Made(made("t5").folder, "t5", task={"kind": "seq2seq", "target_lang": "de_DE"})


def test_a_published_normalizer_is_kept_and_the_languages_too(made: Makers, tmp_path: Path) -> None:
    folder = coded_folder(tmp_path / "model", "mbart50")
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text())
    told["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(told))
    tokenizer: Any = load_tokenizer(folder)
    tokenizer.src_lang, tokenizer.tgt_lang = "fr_XX", "de_DE"
    shown = tokenizer.convert_ids_to_tokens(tokenizer("AB")["input_ids"])
    assert shown == ["fr_XX", "▁a", "b", "</s>"]


def test_a_decoder_is_refused_with_the_task_that_it_can_have(tmp_path: Path) -> None:
    rows = [{"source": "a", "target": "b"}] * 3
    with pytest.raises(RecipeError, match="a decoder learns the same rows by `task: chat`"):
        pegbox.check(recipe_of(causal_folder(tmp_path / "model"), rows, tmp_path))
