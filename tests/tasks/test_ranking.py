"""Ranking labels by an untouched language model: the numbers of one label at a time, whatever is computed together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_tokenizers import BYTE_LEVEL, CHATML, SENTENCE_PIECE, TEMPLATES, tokenizer
from transformers import AutoTokenizer

import pegbox
from made_tasks import made_task
from pegbox.data.records import Conversation, LabelledText, Message, Record
from pegbox.data.render import Renderer
from pegbox.evaluation import systems
from pegbox.finished.verifying import verify
from pegbox.metrics import FloatArray
from pegbox.models import likelihood
from pegbox.models.load import load_model, load_tokenizer
from pegbox.tasks import ranking
from pegbox.tasks.classification import Classification
from pegbox.tasks.ranking import Ranking, Turns
from tiny_folder import causal_folder, chat_recipe, write_rows
from tiny_models import make_double

# one begins another, some begin alike, one is long
LABELS = ("light", "light in the kitchen", "light off", "sleeps", "timer set to 46 minutes")
APART = LABELS[1:]  # none begins another
ALIKE = LABELS[1:3]  # nor here, but all begin with the same word
TEXTS = ("turn on the light", "the dog sleeps, and the fox jumps over", "set it", "hello world", "the lazy dog")


def record(text: str, label: str = "light", pair: str | None = None) -> Record:
    return Record(text, LabelledText(text, label, pair))


ROWS = [record(text) for text in TEXTS]
SHOTS = [record("the light is on", "light"), record("sleep now", "sleeps")]


@pytest.fixture(scope="module", params=["turns", "lines"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, with a chat template and without."""
    made = causal_folder(tmp_path_factory.mktemp(request.param))
    if request.param == "lines":
        (made / "chat_template.jinja").unlink()
        assert load_tokenizer(made).chat_template is None
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    """In float64, its weights larger, so that no two tokens are alike to it."""
    model = load_model(folder, "causal_lm")
    make_double(model)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data *= 4
    return model


def asked_by(folder: Path) -> Renderer:
    return Renderer(load_tokenizer(folder))


@pytest.fixture(scope="module")
def asked(folder: Path) -> Ranking:
    return Ranking(asked_by(folder), LABELS)


def told(asked: Ranking, model: Any, rows: Sequence[Record] = ROWS, shots: Sequence[Record] = ()) -> FloatArray:
    return asked.probabilities(model, rows, shots, lambda rows: None)


# ---- the numbers ----------------------------------------------------------------------------------------------------


def written(
    tokenizer: Any, text: str, labels: Sequence[str], shots: Sequence[Record], *, listed: bool, end: bool
) -> tuple[str, list[str]]:
    """The prompt for a text and what stands behind it for each label, as plain text."""
    names = "\n".join(sorted(labels)) + "\n\n"
    pairs = [(shot.content.text, shot.content.label) for shot in shots]
    if tokenizer.chat_template is None:
        shown = "".join(f"Text: {shot}\nLabel: {label}\n\n" for shot, label in pairs)
        asked = f"Each text has one of these labels:\n{names}" if listed else ""
        prompt = f"{asked}{shown}Text: {text}\nLabel:"
        return prompt, [f" {label}\n\n" if end else f" {label}" for label in labels]
    one_of = f"one of these labels:\n{names}" if listed else "the label\n\n"
    asked = f"Which label fits the text? Answer with nothing but {one_of}"
    turns = []
    for shot, label in pairs:
        turns += [{"role": "user", "content": f"{asked}Text: {shot}"}, {"role": "assistant", "content": label}]
        asked = ""
    turns.append({"role": "user", "content": f"{asked}Text: {text}"})
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return prompt, [f"{label}<|im_end|>" if end else label for label in labels]


def slowly(folder: Path, model: Any, labels: Sequence[str], shots: Sequence[Record], end: bool) -> FloatArray:
    """The definition, one text and one label at a time."""
    spoken = AutoTokenizer.from_pretrained(folder)

    def log_p(text: str, listed: bool) -> FloatArray:
        prompt, answers = written(spoken, text, labels, shots, listed=listed, end=end)
        before, found = spoken.encode(prompt, add_special_tokens=False), []
        for answer in answers:
            ids = before + spoken.encode(answer, add_special_tokens=False)
            with torch.no_grad():
                steps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            found.append(sum(steps[t - 1, ids[t]].item() for t in range(len(before), len(ids))))
        return np.array(found) - np.log(np.sum(np.exp(found)))

    def scores(listed: bool) -> FloatArray:
        prior = np.mean([np.exp(log_p(text, listed)) for text in ("N/A", "[MASK]", "")], axis=0)
        return np.stack([log_p(text, listed) for text in TEXTS]) - np.log(prior)

    weights = np.exp((scores(True) + scores(False)) / 2)
    shares: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize("shots", [(), SHOTS], ids=["zero-shot", "two shots"])
@pytest.mark.parametrize("labels", [LABELS, APART, ALIKE], ids=["one begins another", "apart", "begin alike"])
def test_all_labels_at_once_are_one_at_a_time(
    labels: Sequence[str], shots: Sequence[Record], folder: Path, model: Any
) -> None:
    """The end of a label counts where one begins another, and nowhere else."""
    ended, bare = (slowly(folder, model, labels, shots, end) for end in (True, False))
    wanted, other = (ended, bare) if labels is LABELS else (bare, ended)
    np.testing.assert_allclose(told(Ranking(asked_by(folder), labels), model, shots=shots), wanted, rtol=1e-9)
    assert np.abs(wanted - other).max() > 1e-3


def test_shots_are_read(asked: Ranking, model: Any) -> None:
    """Shots that are ignored would give the same; so would their labels, or their texts."""
    renamed = [replace(shot, content=replace(shot.content, label="light off")) for shot in SHOTS]
    reworded = [replace(shot, content=replace(shot.content, text="hello")) for shot in SHOTS]
    found = [told(asked, model, shots=shots) for shots in ((), SHOTS, SHOTS[::-1], renamed, reworded)]
    for index, one in enumerate(found):
        assert all(np.abs(one - other).max() > 1e-5 for other in found[:index])


def test_a_row_is_answered_as_it_is_alone(asked: Ranking, model: Any) -> None:
    together = told(asked, model, shots=SHOTS)
    alone = [told(asked, model, [row], SHOTS)[0] for row in ROWS]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-9)
    np.testing.assert_allclose(told(asked, model, ROWS[::-1], SHOTS), together[::-1], rtol=1e-9)


def test_the_order_of_the_labels_changes_nothing(folder: Path, asked: Ranking, model: Any) -> None:
    turned = Ranking(asked_by(folder), LABELS[::-1])
    np.testing.assert_allclose(told(turned, model)[:, ::-1], told(asked, model), rtol=1e-12)


def test_rows_in_parts_are_those_at_once(asked: Ranking, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, seen = told(asked, model), list[int]()
    monkeypatch.setattr(likelihood, "PROMPTS_AT_ONCE", 2)
    np.testing.assert_allclose(asked.probabilities(model, ROWS, (), seen.append), wanted, rtol=1e-9)
    assert sum(seen) == len(ROWS) and len(seen) > 3, "a row is told of when it was asked in all ways"


def test_what_is_said_of_any_text_is_taken_off(asked: Ranking, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that says nothing more than the ones that say nothing leaves all labels alike; its likelihoods do not."""
    monkeypatch.setattr(ranking, "SAY_NOTHING", ("N/A",))
    np.testing.assert_allclose(told(asked, model, [record("N/A")]), np.full((1, len(LABELS)), 1 / len(LABELS)))
    assert np.ptp(told(asked, model, [record("turn on the light")])) > 1e-3


def test_labels_that_begin_each_other_exclude_each_other(folder: Path) -> None:
    """No label's ids begin another's, so that the likelihoods are of things of which at most one is said."""
    for labels in (LABELS, APART, ["a", "a b", "a b c"], ["yes?", "yes", "no"], ["1", "10", "100"]):
        for way in Ranking(asked_by(folder), labels)._ways:
            pairs = itertools.permutations(way.answers, 2)
            assert not any(other[: len(one)] == one for one, other in pairs)


def test_many_labels_are_ranked_without_being_listed(folder: Path, model: Any) -> None:
    names = [f"label {number}" for number in range(ranking.LISTED + 30)]
    many = Ranking(asked_by(folder), names)
    found = told(many, model, ROWS[:2])
    assert found.shape == (2, len(names))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    few = Ranking(asked_by(folder), names[:10])
    assert many.prompt_length(ROWS[0], ()) < few.prompt_length(ROWS[0], ())


def test_both_texts_of_a_pair_are_asked_about(asked: Ranking, model: Any) -> None:
    pair = [record("the dog", pair="the fox"), record("the dog", pair="the light"), record("the fox", pair="the dog")]
    found = told(asked, model, pair)
    assert all(np.abs(found[a] - found[b]).max() > 1e-5 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_rows_on_which_two_labels_are_alike_are_counted() -> None:
    assert ranking.count_close(np.array([[0.4, 0.4, 0.2], [0.5, 0.3, 0.2], [0.1, 0.45, 0.450001]])) == 2


# ---- the form -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["byte_level", "metaspace_first"])
def test_a_label_is_asked_for_as_the_template_has_it_learnt(kind: str, template: str) -> None:
    """The served prompt's ids and the label's are those of the whole conversation, whatever the template."""
    renderer = Renderer(tokenizer(kind, template))
    form = Turns(renderer, LABELS)
    for label, question in itertools.product(LABELS, form.questions):
        turns = [("user", question + "Text: one"), ("assistant", "light off"), ("user", "Text: two")]
        messages = [Message(role, content) for role, content in turns]
        whole = renderer.conversation(Conversation((*messages, Message("assistant", label, 1.0))))
        assert (
            form.prompt(question, "Text: two", [("Text: one", "light off")]) + list(form.answer(label, ended=True))
            == whole.input_ids
        )


@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCE_PIECE])
def test_a_label_in_plain_text_is_written_to_the_letter(kind: str) -> None:
    made = tokenizer(kind)
    made.chat_template = None
    form = ranking.Lines(Renderer(made), LABELS)
    for label in LABELS:
        ids = [
            *form.prompt(form.questions[1], "Text: two", [("Text: one", "light off")]),
            *form.answer(label, ended=True),
        ]
        text = made.decode(ids, skip_special_tokens=True)
        assert text.endswith(f"Text: one\nLabel: light off\n\nText: two\nLabel: {label}\n\n")


def test_a_tokenizer_that_cannot_write_a_label_has_no_zero_shot() -> None:
    """Word pieces keep neither case nor white space: what such a model would say is not the label."""
    rows = [record("a dog", "yes"), record("a fox", "no")]
    for kind, heads, able in (
        ("wordpiece", {"causal_lm"}, False),
        ("byte_level", {"causal_lm"}, True),
        ("byte_level", {}, False),
    ):
        task = made_task("classification", Renderer(tokenizer(kind)), rows, heads=heads)
        assert task.zero_shot is able
        assert task.base_head == ("causal_lm" if able else "sequence_classification")


def test_a_text_that_the_template_refuses_is_asked_in_plain_text(folder: Path, model: Any) -> None:
    spoken = load_tokenizer(folder)
    picky = (
        "{% for m in messages %}{% if 'fox' in m['content'] %}{{ raise_exception('no foxes') }}{% endif %}{% endfor %}"
    )
    spoken.chat_template = picky + CHATML
    plain = load_tokenizer(folder)
    plain.chat_template = None
    refused, asked = Ranking(Renderer(spoken), LABELS), Ranking(Renderer(plain), LABELS)
    np.testing.assert_array_equal(told(refused, model), told(asked, model))
    assert np.abs(told(refused, model, ROWS[:1]) - told(asked, model, ROWS[:1])).max() > 1e-5


# ---- rows that are long ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task(folder: Path) -> Classification:
    rows = [record(text, label) for text, label in zip(TEXTS, LABELS, strict=True)]
    made = made_task("classification", Renderer(load_tokenizer(folder)), rows, heads={"causal_lm"})
    assert isinstance(made, Classification)
    return made


def test_long_rows_get_fewer_shots_and_the_prompt_fits(task: Classification) -> None:
    shots = [record("the light is on " * 20, "light") for _ in range(5)]
    one, all_of_them = (task.prompt_length(ROWS[0], shots[:count]) for count in (1, 5))
    kept = systems.fitting_shots(task, shots, ROWS[:1], (one + all_of_them) // 2)
    assert 1 <= len(kept) < 5
    assert task.prompt_length(ROWS[0], kept) <= (one + all_of_them) // 2
    assert systems.fitting_shots(task, shots, ROWS[:1], one - 1) == []
    assert task.prompt_length(ROWS[0], ()) == len(task.encode(ROWS[0]))  # what the new head reads


def test_a_text_beyond_the_models_positions_is_cut_at_its_end(asked: Ranking, model: Any) -> None:
    """The question before it and the opening of the answer behind it stay."""
    way = asked._way(ROWS, ())
    long = "Text: " + "the quick brown fox jumps over the lazy dog " * 200
    question = way.form.questions[0]
    whole, room = way.form.prompt(question, long, ()), 300
    cut = way.prompt(question, long, (), room)
    assert len(whole) > 1024
    assert room - 12 <= len(cut) <= room
    closing = way.form.prompt(question, "Text: ", ())
    shared = next(index for index, pair in enumerate(zip(whole, closing, strict=False)) if pair[0] != pair[1])
    assert cut[:shared] == whole[:shared]
    assert cut[-4:] == whole[-4:]
    limit = model.config.max_position_embeddings
    seen: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(int(kwargs["position_ids"].max())), with_kwargs=True
    )
    told(asked, model, [record(long)])
    hook.remove()
    assert max(seen) < limit


# ---- whole runs -----------------------------------------------------------------------------------------------------


def test_a_run_on_a_model_that_writes_is_measured_against_prompting(folder: Path, tmp_path: Path) -> None:
    words = {"light": "turn on the light", "sleeps": "the lazy dog", "timer": "set the timer"}
    names = list(words)
    rows = [{"text": f"{words[names[n % 3]]} {n}", "label": names[n % 3]} for n in range(60)]
    recipe = chat_recipe(folder, write_rows(tmp_path / "rows.jsonl", rows), task="classification")
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    expected = {"trivial", "bag_of_words", "linear_probe", "base", "base_few_shot", "permuted", "tuned"}
    assert set(run.evaluation["systems"]) == expected
    assert run.receipt["shots"] == 2
    lines = list(run.folder.read_lines("predictions.jsonl"))
    assert {line["answers"][name] for line in lines for name in expected} <= set(words)
    assert all(sum(line["probabilities"]["base"].values()) == pytest.approx(1, abs=1e-4) for line in lines)
    assert any(line["probabilities"]["base"] != line["probabilities"]["base_few_shot"] for line in lines)
    assert verify(run.path, rows=4)["ok"]
