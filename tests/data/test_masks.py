"""What of an answer is trained: read from its row, and set token by token (INVARIANTS rows 8, 10 and 28).

The oracle of the tokens is bytes: each token's own, laid side by side, are the answer's, and a token is trained where one
of its bytes belongs to a trained character.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from small_tokenizers import BYTE_LEVEL, FAITHFUL, tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from pegbox.data import masks
from pegbox.data.codec import Codec
from pegbox.data.formats import to_record
from pegbox.data.records import Conversation, Message, PromptCompletion, Record, Row, Spans
from pegbox.data.render import Renderer

# ---- read from a row -------------------------------------------------------------------------------------------------


def record(answer: dict[str, Any]) -> Record:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "hello you", **answer}]
    return to_record(Row("r:1", {"messages": turns}), "chat", {})


def last(answer: dict[str, Any]) -> Message:
    content = record(answer).content
    assert isinstance(content, Conversation)
    return content.messages[-1]


def span(begin: Any, end: Any, train: Any = True) -> dict[str, Any]:
    return {"begin_offset": begin, "end_offset": end, "train": train}


@pytest.mark.parametrize("key", ["train", "training"])
def test_a_turn_may_say_whether_it_is_trained(key: str) -> None:
    assert [last({key: True}).weight, last({key: False}).weight, last({key: None}).weight] == [1, 0, 1]


def test_spans_are_from_the_first_character_to_the_last() -> None:
    details = [span(6, 8), span(0, 3, False), span(4, 4)]
    assert last({"train_detail": details}).trained == ((4, 5), (6, 9))
    assert last({"train_detail": details, "weight": 0.5}).weight == 0.5


def test_a_turn_of_which_no_character_is_trained_has_no_weight() -> None:
    assert last({"train_detail": [span(0, 8, False)]}).weight == 0
    assert last({"train_detail": [span(0, 8)], "train": False}).weight == 0


def test_share_gpt_and_completions_have_masks_too() -> None:
    turns = [
        {"from": "human", "value": "u", "train": False},
        {"from": "gpt", "value": "abc", "train_detail": [span(1, 1)]},
    ]
    told = to_record(Row("r:1", {"conversations": turns}), "chat", {}).content
    assert isinstance(told, Conversation) and told.messages[1].trained == ((1, 2),)
    values = {"prompt": "p", "completion": "abc", "train_detail": [span(0, 1)]}
    assert to_record(Row("r:1", values), "completion", {}).content == PromptCompletion("p", "abc", ((0, 2),))
    told = to_record(Row("r:1", values), "chat", {}).content
    assert isinstance(told, Conversation) and told.messages[1].trained == ((0, 2),)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"weight": 1, "train": True}, "says twice whether it is trained: weight and train"),
        ({"train": 1}, "has a 'train' that is neither true nor false"),
        ({"train_detail": []}, "not a list of at least one span"),
        ({"train_detail": {}}, "not a list of at least one span"),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 1}]}, "without its begin_offset, end_offset and train"),
        ({"train_detail": [span(0, 9)]}, "does not lie within its 9 characters"),
        ({"train_detail": [span(-1, 2)]}, "does not lie within its 9 characters"),
        ({"train_detail": [span(3, 2)]}, "does not lie within its 9 characters"),
        ({"train_detail": [span(True, 2)]}, "does not lie within its 9 characters"),
        ({"train_detail": [span(0, 4), span(4, 5, False)]}, "overlap at character 4 (end_offset is the last character"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(answer: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refusal:
        record(answer)
    assert "message 2" in str(refusal.value) and said in str(refusal.value)


@pytest.mark.parametrize("mask", [{"train": True}, {"train_detail": [span(0, 0, False)]}])
def test_a_mask_on_a_turn_that_is_never_trained_is_refused(mask: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only an assistant's turn is trained"):
        to_record(Row("r:1", {"messages": [{"role": "user", "content": "u", **mask}]}), "chat", {})


# ---- set token by token ----------------------------------------------------------------------------------------------


@cache
def renderer_of(kind: str) -> Renderer:
    return Renderer(tokenizer(kind))


@cache
def bytes_by_letter() -> dict[str, int]:
    """Byte-level BPE writes each byte as a letter: the printable ones as they are, the others from U+0100 on, in order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
    assert set(letters) == set(ByteLevel.alphabet())
    return letters


def bytes_of(kind: str, name: str) -> bytes:
    if kind in BYTE_LEVEL:
        return bytes(bytes_by_letter()[letter] for letter in name)
    return bytes([int(name[3:5], 16)]) if name.startswith("<0x") else name.replace("▁", " ").encode()


def gold(kind: str, ids: list[int], text: str, spans: Spans) -> list[bool]:
    """Which tokens hold a byte of a trained character."""
    places = [place for place, character in enumerate(text) for _ in character.encode()]
    names = renderer_of(kind).tokenizer.convert_ids_to_tokens(ids)
    found, at = [], 0
    for name in names:
        size = len(bytes_of(kind, name))
        found.append(any(a <= place < b for place in places[at : at + size] for a, b in spans))
        at += size
    assert at == len(places)
    return found


def check_spans(kind: str, prompt: str, text: str, spans: Spans) -> None:
    renderer = renderer_of(kind)
    whole = renderer.prompt_completion(PromptCompletion(prompt, text))
    tokens = renderer.prompt_completion(PromptCompletion(prompt, text, spans))
    assert tokens.input_ids == whole.input_ids
    served = len(renderer.completion_prompt(prompt))
    *said, _ = tokens.input_ids[served:]
    wanted = gold(kind, said, text, spans)
    ends = bool(spans) and spans[-1][1] == len(text)
    assert tokens.loss_weights == [0.0] * served + [float(mark) for mark in (*wanted, ends)]


def check_turns(kind: str, prompt: str, text: str, spans: Spans) -> None:
    renderer = renderer_of(kind)
    content = Conversation((Message("user", prompt), Message("assistant", text, 2.0, spans)))
    tokens, served = renderer.conversation(content), len(renderer.prompt(content.messages[:1]))
    *said, _ = tokens.input_ids[served:]
    ends = bool(spans) and spans[-1][1] == len(text)
    assert tokens.loss_weights[served:] == [2.0 * mark for mark in (*gold(kind, said, text, spans), ends)]


texts = st.text(max_size=20) | st.text("ab é北🙂 \n", max_size=12)


@st.composite
def masked(draw: st.DrawFn) -> tuple[str, Spans]:
    text = draw(texts)
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    return text, tuple(zip(cuts[::2], cuts[1::2], strict=False))


@settings(max_examples=500)
@given(kind=st.sampled_from(FAITHFUL), prompt=texts, answer=masked())
@example(kind="byte_level", prompt="a", answer=("the quick brown", ((3, 4),)))  # the space before a word
@example(kind="metaspace_first", prompt="a", answer=(" 北 b", ((1, 2),)))  # bytes of one character
@example(kind="prefix_by_normalizer", prompt="a", answer=("北京 b", ((0, 1), (2, 3))))
def test_a_token_is_trained_where_any_of_its_characters_is(kind: str, prompt: str, answer: tuple[str, Spans]) -> None:
    assume("▁" not in answer[0] or kind in BYTE_LEVEL)
    check_turns(kind, prompt, *answer)
    assume(prompt or kind == "adds_bos")
    check_spans(kind, prompt, *answer)


def test_offsets_as_the_tokenizer_has_them_are_caught_where_it_leaves_the_space_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_given(self: Codec, text: str) -> list[tuple[int, int]]:
        return list(self._encoding(text, plain=True).offsets)

    made = Renderer(tokenizer("byte_level"))
    assert made._codec._encoding("a b", plain=True).ids  # by itself the space may belong to no token
    monkeypatch.setattr(Codec, "characters", as_given)
    with pytest.raises(AssertionError):
        for kind in FAITHFUL:
            check_spans(kind, "a", " 北京 the  dog\n", ((0, 2), (7, 8)))


def test_a_mask_that_counts_from_elsewhere_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = masks.marks
    monkeypatch.setattr("pegbox.data.render.marks", lambda spans, size, shift=0: honest(spans, size, shift + 1))
    with pytest.raises(AssertionError):
        check_spans("byte_level", "a", "the dog", ((0, 2),))


def test_spans_that_are_forgotten_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.data.render.marks", lambda spans, size, shift=0: [True] * size)
    with pytest.raises(AssertionError):
        check_spans("byte_level", "a", "the dog", ((0, 2),))


def test_spans_count_from_the_content_also_where_the_template_strips_it() -> None:
    renderer = Renderer(tokenizer("byte_level", "llama_3"))
    turns = (Message("user", "u"), Message("assistant", " \n2+2=4 ", 1.0, ((6, 7),)))
    tokens = renderer.conversation(Conversation(turns))
    trained = [token for token, weight in zip(tokens.input_ids, tokens.loss_weights, strict=True) if weight]
    assert renderer.decode(trained) == "4<|eot_id|>"


def test_what_a_template_says_around_an_answer_goes_with_its_ends() -> None:
    renderer = Renderer(tokenizer("byte_level", "llama_2"))  # a space on either side
    for spans, wanted in [(((0, 1),), " a"), (((2, 3),), "c </s>"), (((1, 2),), "b"), ((), "")]:
        content = Conversation((Message("user", "u"), Message("assistant", "abc", 1.0, spans)))
        tokens = renderer.conversation(content)
        trained = [token for token, weight in zip(tokens.input_ids, tokens.loss_weights, strict=True) if weight]
        assert renderer.decode(trained) == wanted
