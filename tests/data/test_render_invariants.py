"""What must hold of every rendered conversation, over all tokenizers and templates (INVARIANTS rows 3 to 8 and 28).

Each invariant is a function `check_...`; beside the test on the real code stands the proof that it fails when the bug is
put in. The oracles are Transformers' own rendering of the whole, and the names of the stop tokens in our table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from small_tokenizers import BOS, BYTE_LEVEL, FAITHFUL, SENTENCE_PIECE, TEMPLATES, TRIMMING, tokenizer

from pegbox.data.codec import Codec
from pegbox.data.records import Conversation, Example, Message
from pegbox.data.render import Renderer, Tokens
from pegbox.models import batch as batches

PAIRS = [(kind, template) for kind in FAITHFUL for template in TEMPLATES]
everywhere = pytest.mark.parametrize(("kind", "template"), PAIRS)
# Where Transformers' rendering of the whole is not what it serves, segment by segment. Two put a space before a text behind
# every control token, in which this generation prompt ends; one merges the prompt's last line breaks, but not before a word.
SEAMS = {("metaspace_always", "phi_3"), ("prefix_by_normalizer", "phi_3"), ("line_breaks_merge", "llama_3")}


@cache
def renderer_of(kind: str, template: str) -> Renderer:
    return Renderer(tokenizer(kind, template))


def chat(*turns: str, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Conversation:
    """Turns of user and assistant in alternation."""
    roles = ["user", "assistant"] * len(turns)
    trained = iter(weights)
    return Conversation(
        tuple(
            Message(role, turn, next(trained) if role == "assistant" else 0.0)
            for role, turn in zip(roles, turns, strict=False)
        )
    )


PLAIN = [  # nothing merges where an answer begins
    chat("Turn on the light", "hello world"),
    chat(
        "question", '{"intent": "HassTurnOn", "minutes": 12.5}', "And  now?\n", "two\n\n  lines", "why", "naïve 北京 🙂"
    ),
]
AWKWARD = [
    chat("question", ""),
    chat("question", "  answer "),
    chat("question", "\n\nanswer\n", " \n", "answer"),
    chat("question", "say </s> and <|im_end|> and <|end|>", "<|no token|>", "<s>[INST]"),
    chat("", "é e\u0301 \u2028\u00a0\u200b\ufeff\x00"),
    chat("question", "one", "two", "three", "four", "five", weights=(0.0, 2.0, 0.5)),
]


def dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def answers(conversation: Conversation) -> list[int]:
    return [index for index, message in enumerate(conversation.messages) if message.role == "assistant"]


def trained_runs(tokens: Tokens) -> list[list[int]]:
    """The ids that carry a weight, cut where ids without one stand between."""
    runs: list[list[int]] = [[]]
    for token, weight in zip(tokens.input_ids, tokens.loss_weights, strict=True):
        if weight > 0:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


# ---- row 7: what is trained is what is served ------------------------------------------------------------------------


def check_serving_is_the_reference(renderer: Renderer, conversation: Conversation) -> None:
    """The prompt of every answer is, id by id, what the training ids begin with."""
    ids = renderer.conversation(conversation).input_ids
    for index in answers(conversation):
        prompt = renderer.prompt(conversation.messages[:index])
        shorter = renderer.conversation(Conversation(conversation.messages[: index + 1])).input_ids
        assert ids[: len(prompt)] == prompt
        assert ids[: len(shorter)] == shorter
        assert len(prompt) < len(shorter)


def check_transformers_serves_the_same(renderer: Renderer, conversation: Conversation) -> None:
    """Transformers renders the same ids, of the prompt and of the whole (which may go on behind the last stop token)."""
    turns = dicts(conversation.messages)
    whole = renderer.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    ids = renderer.conversation(conversation).input_ids
    assert whole[: len(ids)] == ids
    assert renderer.tokenizer.decode(whole[len(ids) :]).strip() == ""
    asked = turns[: answers(conversation)[-1]]
    prompt = renderer.tokenizer.apply_chat_template(asked, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert renderer.prompt(conversation.messages[: len(asked)]) == prompt


@everywhere
def test_every_prompt_is_a_prefix_of_what_is_trained(kind: str, template: str) -> None:
    for conversation in [*PLAIN, *AWKWARD]:
        check_serving_is_the_reference(renderer_of(kind, template), conversation)


@everywhere
def test_the_ids_are_those_of_transformers(kind: str, template: str) -> None:
    for conversation in PLAIN:
        if (kind, template) not in SEAMS:
            check_transformers_serves_the_same(renderer_of(kind, template), conversation)


@everywhere
def test_the_prompt_is_that_of_transformers_whatever_the_user_writes(kind: str, template: str) -> None:
    renderer = renderer_of(kind, template)
    for text in ("", " ", "\n\n x \t", "北京 é ☃", "naïve  two", "<|im_end|>"):
        asked = [Message("user", text)]
        wanted = renderer.tokenizer.apply_chat_template(dicts(asked), add_generation_prompt=True, return_dict=False)
        assert renderer.prompt(asked) == wanted


@pytest.mark.parametrize(("kind", "template"), [pair for pair in PAIRS if pair[1] != "gemma"])  # it refuses one
def test_a_system_message_is_served_as_transformers_serves_it(kind: str, template: str) -> None:
    system = (Message("system", "Answer briefly."), *PLAIN[0].messages)
    if (kind, template) not in SEAMS:
        check_transformers_serves_the_same(renderer_of(kind, template), Conversation(system))
    check_serving_is_the_reference(renderer_of(kind, template), Conversation(system))


def jointly(self: Renderer, content: Conversation) -> Tokens:
    """The bug: the whole is tokenised, and masked by the length of a second tokenisation of the prompt."""
    last = answers(content)[-1]
    prompt = self.encode(self._template(content.messages[:last], True))
    ids = self.encode(self._template(content.messages, False))
    return Tokens(ids, [0.0] * len(prompt) + [1.0] * (len(ids) - len(prompt)))


def test_a_joint_tokenisation_is_caught_when_an_answer_begins_with_white_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renderer = renderer_of("line_breaks_merge", "chatml")
    awkward = chat("question", "\n\n  indented")
    check_serving_is_the_reference(renderer, awkward)
    monkeypatch.setattr(Renderer, "conversation", jointly)
    with pytest.raises(AssertionError):
        check_serving_is_the_reference(renderer, awkward)


def test_another_template_at_serving_is_caught_when_it_says_more(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(tokenizer("byte_level", "chatml"))
    honest = renderer.prompt

    def other(messages: Sequence[Message]) -> list[int]:
        return [*renderer.encode("<|im_start|>system\nYou are helpful.<|im_end|>\n"), *honest(messages)]

    monkeypatch.setattr(renderer, "prompt", other)
    with pytest.raises(AssertionError):
        check_serving_is_the_reference(renderer, PLAIN[0])


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
def test_a_space_that_sentencepiece_adds_is_caught_when_answers_have_no_anchor(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(tokenizer(kind, "chatml"))
    monkeypatch.setattr(Codec, "learnt_behind", Codec.learnt)
    with pytest.raises(AssertionError):
        check_transformers_serves_the_same(renderer, PLAIN[0])


# ---- rows 4 and 5: one stop token a turn, trained, and served as one --------------------------------------------------


def check_one_trained_stop_a_turn(renderer: Renderer, conversation: Conversation, end: str) -> None:
    """Every trained turn ends in the template's stop token, which is trained there and nowhere else, and stops serving."""
    stop = renderer.tokenizer.convert_tokens_to_ids(end)
    runs = trained_runs(renderer.conversation(conversation))
    assert [run[-1] for run in runs] == [stop] * sum(message.weight > 0 for message in conversation.messages)
    assert stop in renderer.stop_ids
    assert all(renderer.stop_ids.isdisjoint(run[:-1]) for run in runs)


@everywhere
def test_every_trained_turn_ends_in_one_trained_stop_token(kind: str, template: str) -> None:
    for conversation in [*PLAIN, *AWKWARD]:
        check_one_trained_stop_a_turn(renderer_of(kind, template), conversation, TEMPLATES[template][1])


def test_a_real_stop_token_is_attended_to_where_padding_is_the_same_token() -> None:
    renderer = renderer_of("pad_is_eos", "chatml")
    assert renderer.tokenizer.pad_token_id == renderer.tokenizer.eos_token_id
    examples = [as_example(renderer.conversation(conversation)) for conversation in PLAIN]
    batch = batches.pad(examples, int(renderer.tokenizer.pad_token_id))
    assert batch.attention_mask is not None
    assert batch.attention_mask.sum(1).tolist() == [len(each) for each in examples]
    stops = sum(int(target == renderer.tokenizer.pad_token_id) for target in batch.targets)
    assert stops == sum(len(answers(conversation)) for conversation in PLAIN)


def test_a_masked_stop_token_is_caught_when_padding_is_the_same_token(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(tokenizer("pad_is_eos", "chatml"))
    honest = Tokens.add

    def masking(self: Tokens, ids: Sequence[int], weight: float = 0.0) -> None:
        for token in ids:
            honest(self, [token], 0.0 if token == renderer.tokenizer.pad_token_id else weight)

    monkeypatch.setattr(Tokens, "add", masking)
    with pytest.raises(AssertionError):
        check_one_trained_stop_a_turn(renderer, PLAIN[0], "<|im_end|>")


def test_a_stop_token_that_serving_does_not_know_is_caught_when_only_the_models_own_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renderer = Renderer(tokenizer("byte_level", "chatml_of_a_base_model"))
    monkeypatch.setattr(Renderer, "stop_ids", property(lambda self: self._model_stops))
    with pytest.raises(AssertionError):
        check_one_trained_stop_a_turn(renderer, PLAIN[0], "<|im_end|>")


def test_a_second_stop_token_is_caught_when_names_in_an_answer_are_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(tokenizer("byte_level", "chatml"))
    monkeypatch.setattr(Codec, "learnt_behind", Codec.encode)
    monkeypatch.setattr(Renderer, "_without_stop", lambda self, ids: ids)
    with pytest.raises(AssertionError):
        check_one_trained_stop_a_turn(renderer, chat("question", "say <|im_end|> twice"), "<|im_end|>")


# ---- row 6: BOS once ---------------------------------------------------------------------------------------------------


def check_bos_once(renderer: Renderer, conversation: Conversation, bos: str | None) -> None:
    """As many BOS as the template writes: one in front where it writes one, none where it does not."""
    token = renderer.tokenizer.bos_token_id
    written = renderer.tokenizer.apply_chat_template(dicts(conversation.messages), tokenize=False)
    for ids in (renderer.conversation(conversation).input_ids, renderer.prompt(conversation.messages[:1])):
        assert ids[:2] != [token, token]
        assert (ids[0] == token) == (bos is not None)
    assert renderer.conversation(conversation).input_ids.count(token) == (written.count(bos) if bos else 0)


@everywhere
def test_no_conversation_begins_with_two_bos(kind: str, template: str) -> None:
    for conversation in PLAIN:
        check_bos_once(renderer_of(kind, template), conversation, BOS.get(template))


@pytest.mark.parametrize("template", ["chatml", "llama_3"])
def test_a_second_bos_is_caught_when_the_tokenizer_may_add_its_own(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(tokenizer("adds_bos", template))
    check_bos_once(renderer, PLAIN[0], BOS.get(template))
    monkeypatch.setattr(Renderer, "encode", lambda self, text: self.tokenizer.encode(text))
    with pytest.raises(AssertionError):
        check_bos_once(renderer, PLAIN[0], BOS.get(template))


# ---- row 8: the seam ---------------------------------------------------------------------------------------------------


def check_seam(renderer: Renderer, asked: str, answer: str, lead: str, trail: str, bytes_kept: bool) -> None:
    """What is not trained is the prompt, what is trained is exactly the answer (in its frame) and one stop token."""
    messages = (Message("user", asked), Message("assistant", answer, 1.0))
    tokens = renderer.conversation(Conversation(messages))
    place = tokens.loss_weights.index(1.0)
    assert all(weight == 1.0 for weight in tokens.loss_weights[place:])
    *said, stop = tokens.input_ids[place:]
    assert stop in renderer.stop_ids
    assert renderer.decode(said) == lead + answer + trail
    assert renderer.reply([*said, stop]) == answer
    opened = renderer.tokenizer.apply_chat_template(dicts(messages[:1]), tokenize=False, add_generation_prompt=True)
    assert tokens.input_ids[:place] == renderer.tokenizer.encode(opened, add_special_tokens=False)
    if bytes_kept:
        assert renderer.tokenizer.decode(tokens.input_ids[:place]) == opened


LEADS = {"mistral": (" ", ""), "llama_2": (" ", " ")}
seams = st.text(max_size=30) | st.text(alphabet=" \n\t\u2028a<|é\u0301", max_size=12)


@settings(max_examples=1500)
@given(pair=st.sampled_from(PAIRS), asked=seams, answer=seams)
@example(pair=("line_breaks_merge", "chatml"), asked="a", answer="\n\n  b")
@example(pair=("metaspace_always", "llama_2"), asked="a", answer="  b ")
@example(pair=("metaspace_first", "phi_3"), asked="a\n", answer="\n<|end|>")
@example(pair=("prefix_by_normalizer", "chatml"), asked="\n", answer=" \n")
def test_the_trained_text_is_the_answer_and_the_rest_is_the_prompt(
    pair: tuple[str, str], asked: str, answer: str
) -> None:
    kind, template = pair
    assume("▁" not in answer or kind in BYTE_LEVEL)  # SentencePiece takes this character for a space: refused, below
    if template in TRIMMING:
        answer = answer.strip()
    bytes_kept = kind in BYTE_LEVEL and template != "phi_3"  # the others put a space before a text, or take one away
    check_seam(renderer_of(kind, template), asked, answer, *LEADS.get(template, ("", "")), bytes_kept)


def test_a_mask_by_a_second_tokenisation_is_caught_when_the_seam_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = renderer_of("line_breaks_merge", "chatml")
    check_seam(renderer, "question", "\n\n  b", "", "", True)
    monkeypatch.setattr(Renderer, "conversation", jointly)
    with pytest.raises(AssertionError):
        check_seam(renderer, "question", "\n\n  b", "", "", True)


def test_a_stripped_answer_is_caught_when_it_begins_with_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = renderer_of("byte_level", "chatml")
    honest = Codec.learnt_behind
    monkeypatch.setattr(Codec, "learnt_behind", lambda self, text: honest(self, text.strip()))
    with pytest.raises(AssertionError):
        check_seam(renderer, "question", " answer", "", "", True)


# ---- row 28: weights ---------------------------------------------------------------------------------------------------


def check_weights(renderer: Renderer, conversation: Conversation) -> None:
    """Each turn's tokens carry its own weight, whichever turn it is, and the total is their sum."""
    tokens = renderer.conversation(conversation)
    wanted: list[float] = []
    for index in answers(conversation):
        prompt = renderer.prompt(conversation.messages[:index])
        shorter = renderer.conversation(Conversation(conversation.messages[: index + 1])).input_ids
        wanted += [0.0] * (len(prompt) - len(wanted))
        wanted += [conversation.messages[index].weight] * (len(shorter) - len(prompt))
    assert tokens.loss_weights == wanted


@everywhere
def test_each_turn_is_trained_by_its_own_weight(kind: str, template: str) -> None:
    for weights in [(1, 1, 1), (0, 1, 1), (1, 0, 0), (0.5, 0, 2), (0, 0, 0)]:
        conversation = chat("one", "hello", "two", "world", "three", "answer", weights=weights)
        check_weights(renderer_of(kind, template), conversation)


def last_turn_only(honest: Callable[[Renderer, Conversation], Tokens]) -> Any:
    def conversation(self: Renderer, content: Conversation) -> Tokens:
        tokens = honest(self, content)
        start = len(self.prompt(content.messages[: answers(content)[-1]]))
        return Tokens(tokens.input_ids, [0.0] * start + tokens.loss_weights[start:])

    return conversation


def test_training_the_last_turn_only_is_caught_when_earlier_turns_have_a_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Renderer, "conversation", last_turn_only(Renderer.conversation))
    with pytest.raises(AssertionError):
        check_weights(renderer_of("byte_level", "chatml"), PLAIN[1])


# ---- row 3: the shift --------------------------------------------------------------------------------------------------


def as_example(tokens: Tokens) -> Example:
    return Example("rows.jsonl:1", tuple(tokens.input_ids), tuple(tokens.loss_weights))


def check_shift(batch: batches.Batch, examples: Sequence[Example]) -> None:
    """Token t is learnt where token t - 1 stands: by hand, for rows padded on the right."""
    width = max(len(each) for each in examples)
    wanted = [
        (row * width + place - 1, each.input_ids[place], each.loss_weights[place])
        for row, each in enumerate(examples)
        for place in range(1, len(each))
        if each.loss_weights[place] > 0
    ]
    got = zip(batch.places.tolist(), batch.targets.tolist(), batch.weights.tolist(), strict=True)
    assert list(got) == wanted
    given_ids = batch.input_ids.flatten().tolist()
    assert all(given_ids[place + 1] == target for place, target, _ in wanted)


@everywhere
def test_a_token_is_learnt_where_the_one_before_it_stands(kind: str, template: str) -> None:
    renderer = renderer_of(kind, template)
    examples = [as_example(renderer.conversation(conversation)) for conversation in PLAIN]
    check_shift(batches.pad(examples, 0), examples)


@pytest.mark.parametrize("by", [-1, 1])
def test_a_shift_is_caught_when_it_is_made_twice_or_not_at_all(by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = batches._learnt

    def shifted(*given: Any) -> Any:
        places, targets, weights = honest(*given)
        return places + by, targets, weights

    monkeypatch.setattr(batches, "_learnt", shifted)
    examples = [as_example(renderer_of("byte_level", "chatml").conversation(PLAIN[0]))]
    with pytest.raises(AssertionError):
        check_shift(batches.pad(examples, 0), examples)
