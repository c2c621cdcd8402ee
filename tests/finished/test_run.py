"""A run that is asked: streamed text is never taken back and adds up to the answer; the prompt is that of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import FAITHFUL, TEMPLATES, tokenizer

import pegbox
from made_tasks import made_task
from pegbox.data.records import Row
from pegbox.data.render import Renderer
from pegbox.errors import DataError
from pegbox.finished import Run
from pegbox.models.generation import Kept
from pegbox.tasks.chat import Chat
from pegbox.tasks.completion import Completion
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows

INSTRUCTION = "Say the second number."

# ---- text that is never taken back -----------------------------------------------------------------------------------

TEXTS = ["naïve café", "北京, москва", "👩‍👩‍👧 family", "  two\n\nlines \n", "�", " ", "a </s> b", ""]
So_far = Callable[[Chat | Completion, Sequence[int]], str]


@cache
def task(kind: str, template: str, chat: bool) -> Chat | Completion:
    made = made_task("chat" if chat else "completion", Renderer(tokenizer(kind, template)))
    assert isinstance(made, Chat | Completion)
    return made


def settled(asked: Chat | Completion, ids: Sequence[int]) -> str:
    return asked.said(ids, whole=False)


def check_nothing_is_taken_back(asked: Chat | Completion, ids: Sequence[int], so_far: So_far = settled) -> None:
    told = [so_far(asked, ids[:count]) for count in range(len(ids) + 1)] + [asked.said(ids)]
    assert all(after.startswith(before) for before, after in pairwise(told)), told


KINDS, FORMS, CHAT = st.sampled_from(FAITHFUL), st.sampled_from(sorted(TEMPLATES)), st.booleans()


@settings(max_examples=300)
@given(KINDS, FORMS, CHAT, st.lists(st.integers(0, 10**6), max_size=12))
def test_no_token_takes_back_what_was_told(kind: str, template: str, chat: bool, drawn: list[int]) -> None:
    asked = task(kind, template, chat)
    size = len(asked.renderer.tokenizer)
    check_nothing_is_taken_back(asked, [number % size for number in drawn])


@settings(max_examples=300)
@given(KINDS, FORMS, CHAT, st.lists(st.sampled_from(TEXTS), max_size=4).map("".join), st.integers(0, 3))
def test_no_character_is_cut_in_two(kind: str, template: str, chat: bool, text: str, cut: int) -> None:
    asked = task(kind, template, chat)
    ids = asked.renderer.encode(text)
    ids = ids[: len(ids) - cut]
    check_nothing_is_taken_back(asked, ids)
    for count in range(len(ids) + 1):
        assert settled(asked, ids[:count]).count("�") <= text.count("�"), "a part of a character was told"


@pytest.mark.parametrize("kind", FAITHFUL)
def test_words_are_told_at_once(kind: str) -> None:
    """The way to take nothing back is not to tell nothing: what is held back is no more than a token."""
    asked = task(kind, "chatml", True)
    ids = asked.renderer.encode("The quick brown fox jumps over the lazy dog")
    for count in range(1, len(ids) + 1):
        assert settled(asked, ids[:count]).strip() == asked.said(ids[:count]).strip()


def test_bytes_that_are_no_text_are_told_as_they_come() -> None:
    asked = task("byte_level", "chatml", True)
    lone = asked.renderer.encode("日")[-1:]
    assert asked.said(lone) == "�", "not the second half of a character"
    assert [len(settled(asked, lone * count)) for count in range(1, 9)] == list(range(8))


def without_care(asked: Chat | Completion, ids: Sequence[int]) -> str:
    return asked.said(ids)


def without_bytes(asked: Chat | Completion, ids: Sequence[int]) -> str:
    """Only what is replaced at the end is held back: of a run of bytes that breaks off, all are replaced."""
    return asked.said(ids).rstrip("�")


@pytest.mark.parametrize(
    ("kind", "template", "so_far"),
    [
        ("byte_level", "chatml", without_care),
        ("metaspace_first", "chatml", without_care),
        ("metaspace_first", "chatml", without_bytes),
        ("byte_level", "llama_2", lambda asked, ids: asked.renderer.answer(ids)),
    ],
    ids=["a character in parts", "bytes in parts", "a run of bytes", "the template's space"],
)
def test_the_check_sees_what_is_taken_back(kind: str, template: str, so_far: So_far) -> None:
    asked = task(kind, template, True)
    ids = asked.renderer.encode(" 日本 москва 👩 ")
    with pytest.raises(AssertionError):
        for end in range(len(ids) + 1):
            check_nothing_is_taken_back(asked, ids[:end], so_far)


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    causal_folder(folder / "model")
    write_rows(folder / "rows.jsonl", sums(90))
    return folder


def trained(folder: Path, task: str) -> Run:
    rows = folder / "rows.jsonl"
    data = {"train": str(rows), "validation": 0.2, "test": 0.3, "instruction": INSTRUCTION}
    train = {"max_steps": 30, "batch_size": 8, "learning_rate": 3e-2}
    recipe = chat_recipe(folder / "model", rows, task=task, data=data, train=train)
    return pegbox.train(recipe, run_dir=folder / task)


@pytest.fixture(scope="module")
def chat(folder: Path) -> Run:
    return trained(folder, "chat")


@pytest.fixture(scope="module")
def completion(folder: Path) -> Run:
    return trained(folder, "completion")


@pytest.mark.parametrize("name", ["chat", "completion"])
def test_a_stream_a_call_and_a_batch_give_the_same_answer(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    asked = [row["prompt"] for row in sums(12, seed=5)]
    batch = run.predict([{"prompt": text} for text in asked])
    tokens = run.recipe.evaluate.max_new_tokens
    assert tokens is not None
    kept = Kept()
    for text, answer in zip(asked, batch, strict=True):
        pieces = list(run.stream(text, max_new_tokens=tokens))
        assert all(pieces)
        assert "".join(pieces) == answer == run.generate(text, max_new_tokens=tokens)
        assert "".join(run.stream(text, max_new_tokens=tokens, kept=kept)) == answer


@pytest.mark.parametrize("name", ["chat", "completion"])
def test_a_prompt_is_asked_as_the_rows_of_training_are(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    record = run.task_record(Row("row 1", {"prompt": "3 and 4"}))
    assert run.prompt("3 and 4") == run.task.prompt(record, ())  # type: ignore[attr-defined]
    assert INSTRUCTION in run.task.renderer.decode(run.prompt("3 and 4"))


def test_messages_are_asked_behind_the_instruction_or_ones_own_system_message(chat: Run) -> None:
    asked = [{"role": "user", "content": "3 and 4"}]
    assert chat.prompt(asked) == chat.prompt("3 and 4")
    own = chat.task.renderer.decode(chat.prompt([{"role": "system", "content": "Be brief."}, *asked]))
    assert "Be brief." in own
    assert INSTRUCTION not in own
    longer = [*asked, {"role": "assistant", "content": "4"}, {"role": "user", "content": "5 and 6"}]
    assert chat.prompt(longer)[: len(chat.prompt(asked))] == chat.prompt(asked)


def test_the_untouched_model_is_asked_the_same_and_stays_untouched(chat: Run) -> None:
    run = Run(chat.path)
    tuned = run.generate("3 and 4", max_new_tokens=6)
    untouched = "".join(run.stream("3 and 4", max_new_tokens=6, base=True))
    assert untouched != tuned
    assert "".join(run.stream("3 and 4", max_new_tokens=6)) == tuned
    fresh = chat.load_base().state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in run.base.state_dict().items())
    assert run.base is run.base


def test_drawn_answers_follow_the_seed(chat: Run) -> None:
    def drawn(seed: int) -> str:
        torch.manual_seed(seed)
        return chat.generate("3 and 4", max_new_tokens=12, do_sample=True)

    assert drawn(1) == drawn(1) != drawn(2)


def test_an_answer_is_computed_in_the_runs_precision_and_the_askers_is_left_alone(chat: Run) -> None:
    run, seen = Run(chat.path), set[bool]()
    run.recipe = run.recipe.model_copy(update={"train": run.recipe.train.model_copy(update={"bf16": True})})
    run.model.register_forward_pre_hook(lambda *given: seen.add(torch.is_autocast_enabled("cpu")))
    for _ in run.stream("3 and 4", max_new_tokens=4):
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_inference_mode_enabled()
    assert seen == {True}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([], "at least one message"),
        ([{"role": "user"}], "a text content"),
        ([{"role": "king", "content": "a"}], "no role of"),
        ("word " * 1100, "the model takes 1024"),
    ],
    ids=["nothing", "no content", "unknown role", "too long"],
)
def test_what_cannot_be_asked_is_refused(chat: Run, asked: str | list[dict[str, str]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        chat.generate(asked, max_new_tokens=4)


def test_prompt_and_answer_fit_into_the_model_to_the_token(chat: Run) -> None:
    room = chat.limit - len(chat.prompt("3 and 4"))
    next(chat.stream("3 and 4", max_new_tokens=room))
    with pytest.raises(DataError, match=f"may have {room + 1}"):
        next(chat.stream("3 and 4", max_new_tokens=room + 1))


def test_a_row_longer_than_the_model_takes_is_refused_by_its_place(chat: Run) -> None:
    with pytest.raises(DataError, match="row 2: has .* tokens, and the model takes 1 to 1024"):
        chat.predict([{"prompt": "3 and 4"}, {"prompt": "word " * 1100}])


def test_a_classifier_gives_probabilities_and_no_text(tmp_path: Path) -> None:
    rows = [{"text": row["prompt"], "label": ["yes", "no", "maybe"][n % 3]} for n, row in enumerate(sums(90))]
    recipe = chat_recipe(
        encoder_folder(tmp_path / "model"),
        write_rows(tmp_path / "rows.jsonl", rows),
        task="classification",
        train={"max_steps": 2, "batch_size": 8},
    )
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    with pytest.raises(DataError, match="writes no text"):
        run.generate("3 and 4")
    records = [run.task_record(Row("row", {"text": row["text"]})) for row in rows[:7]]
    told = run.answers(records).probabilities
    shares = np.array([[row[label] for label in run.task.labels] for row in told])
    assert shares.sum(1) == pytest.approx(1, abs=1e-5)
    assert [run.task.labels[index] for index in shares.argmax(1)] == run.predict(
        [{"text": r["text"]} for r in rows[:7]]
    )
    encoded = run.task.renderer.tokenizer(rows[0]["text"], return_tensors="pt")
    with torch.no_grad():
        wanted = (run.model(**encoded).logits / run.receipt["task"]["temperature"]).softmax(-1)[0]
    assert shares[0] == pytest.approx(wanted.numpy(), abs=1e-5)
