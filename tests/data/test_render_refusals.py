"""A template that cannot be trained on is refused as a whole; a conversation that a template changes, by itself."""

from __future__ import annotations

import pytest
from small_tokenizers import CHATML, FAITHFUL, GEMMA, tokenizer

from pegbox.data.records import Conversation, Message
from pegbox.data.render import Renderer
from pegbox.data.template import UnstableTemplate
from pegbox.errors import RecipeError

ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURN = "<|im_start|>{{ message['role'] }}\n"

UNUSABLE = {
    "numbers its turns from the end": (
        "{% for message in messages %}{{ loop.revindex }}"
        + TURN
        + "{{ message['content'] }}<|im_end|>{% endfor %}"
        + ASK,
        "prefix-stable",
    ),
    "opens an answer otherwise than it asks for one": (
        CHATML.replace("<|im_start|>assistant\n", "<|im_start|>model\n"),
        "prefix-stable",
    ),
    "has no generation prompt": (CHATML.replace(ASK, ""), "generation prompt"),
    "drops answers": (
        "{% for message in messages %}"
        + TURN
        + "{% if message['role'] != 'assistant' %}{{ message['content'] }}{% endif %}"
        "<|im_end|>\n{% endfor %}" + ASK,
        "drops or rewrites an assistant's answer",
    ),
    "writes answers in capitals": (
        CHATML.replace("message['content']", "message['content'] | upper"),
        "drops or rewrites an assistant's answer",
    ),
    "has no stop token": (CHATML.replace("<|im_end|>", "###"), "without a stop token"),
    "is no template": ("{% for message in messages %}", "fails on a question and its answer"),
    "calls what is not there": ("{{ undefined_function() }}", "fails on a question and its answer"),
    "reaches for Python": (
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "fails on a question and its answer",
    ),
    "adds a number to a text": ("{{ 'a' + 1 }}", "fails on a question and its answer"),
    "divides by zero": ("{{ 1 // 0 }}", "fails on a question and its answer"),
    "refuses everybody": ("{{ raise_exception('no') }}", "fails on a question and its answer"),
}
PAIR = Conversation((Message("user", "question"), Message("assistant", "answer", 1.0)))


@pytest.mark.parametrize("fault", UNUSABLE)
@pytest.mark.parametrize("kind", ["byte_level", "metaspace_first"])
def test_a_template_that_frames_no_answer_is_refused(kind: str, fault: str) -> None:
    template, said = UNUSABLE[fault]
    with pytest.raises(RecipeError, match=said) as refusal:
        Renderer(tokenizer(kind, template)).conversation(PAIR)
    assert refusal.value.where == "model"
    assert refusal.value.cure is not None


def test_a_model_without_a_template_is_refused() -> None:
    bare = tokenizer("byte_level")
    bare.chat_template = None
    with pytest.raises(RecipeError, match="no chat template"):
        Renderer(bare).conversation(PAIR)
    assert Renderer(bare).stop_ids == {bare.eos_token_id}


def test_completions_need_no_template_that_works() -> None:
    renderer = Renderer(tokenizer("byte_level", UNUSABLE["has no stop token"][0]))
    assert renderer.stop_ids == {renderer.tokenizer.eos_token_id}
    assert renderer.plain_text("hello").input_ids[-1] == renderer.tokenizer.eos_token_id


FORGETS_THOUGHTS = CHATML.replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}",
)
QWEN_3 = FORGETS_THOUGHTS.replace(
    "{% else %}",
    "{% elif loop.last and message['role'] == 'assistant' and '</think>' not in message['content'] %}<think>\n\n</think>\n\n{{ message['content'] }}{% else %}",
)


def talk(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, text, float(role == "assistant")) for role, text in turns))


REFUSED = {
    "a thought that later turns no longer show": (
        FORGETS_THOUGHTS,
        talk(("user", "a"), ("assistant", "<think>b</think>c"), ("user", "d"), ("assistant", "e")),
        "not prefix-stable",
    ),
    "a system message that is left out": (
        CHATML.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"),
        talk(("system", "Answer in German."), ("user", "a"), ("assistant", "b")),
        "turn of the system",
    ),
    "a system message that is moved behind the question": (
        "{% for message in messages if message['role'] != 'system' %}" + TURN + "{{ message['content'] }}"
        "{% if loop.first %}{{ messages[0]['content'] if messages[0]['role'] == 'system' }}{% endif %}<|im_end|>\n"
        "{% endfor %}" + ASK,
        talk(("system", "Answer in German."), ("user", "question"), ("assistant", "b")),
        "turn of the user",
    ),
    "a user's turn that is rewritten": (
        CHATML.replace("message['content']", "message['content'] | replace('\n', ' ')"),
        talk(("user", "two\nlines"), ("assistant", "b")),
        "turn of the user",
    ),
    "an answer that is rewritten": (
        CHATML.replace("message['content']", "message['content'] | replace('\n', ' ')"),
        talk(("user", "a"), ("assistant", "two\nlines")),
        "rewrites an answer",
    ),
    "a role that the template refuses": (
        GEMMA,
        talk(("system", "Answer in German."), ("user", "a"), ("assistant", "b")),
        "System role not supported",
    ),
    "an answer to nothing": (CHATML, talk(("assistant", "hello")), "must begin with a turn"),
}


@pytest.mark.parametrize("fault", REFUSED)
@pytest.mark.parametrize("kind", ["byte_level", "metaspace_first"])
def test_a_conversation_that_the_template_changes_is_refused_by_itself(kind: str, fault: str) -> None:
    template, conversation, said = REFUSED[fault]
    renderer = Renderer(tokenizer(kind, template))
    renderer.conversation(PAIR)  # the template as such can be used
    with pytest.raises(ValueError, match=said):
        renderer.conversation(conversation)


@pytest.mark.parametrize("template", [FORGETS_THOUGHTS, QWEN_3])
def test_a_thought_is_trained_where_nothing_comes_after_it(template: str) -> None:
    renderer = Renderer(tokenizer("byte_level", template))
    tokens = renderer.conversation(talk(("user", "a"), ("assistant", "<think>b</think>c")))
    place = tokens.loss_weights.index(1.0)
    assert renderer.reply(tokens.input_ids[place:]) == "<think>b</think>c"


def test_the_empty_thought_that_a_template_writes_is_said_by_the_model_and_no_part_of_its_reply() -> None:
    renderer = Renderer(tokenizer("byte_level", QWEN_3))
    tokens = renderer.conversation(PAIR)
    said = tokens.input_ids[tokens.loss_weights.index(1.0) :]
    assert renderer.answer(said) == "<think>\n\n</think>\n\nanswer"
    assert renderer.reply(said) == "answer"
    assert tokens.input_ids[: -len(said)] == renderer.prompt(PAIR.messages[:1])


@pytest.mark.parametrize("template", [FORGETS_THOUGHTS, QWEN_3])
def test_a_conversation_that_cannot_be_trained_is_served_as_the_template_has_it(template: str) -> None:
    """Few-shot prompts have several turns, and so have people's conversations."""
    renderer = Renderer(tokenizer("byte_level", template))
    thoughtful = talk(
        ("user", "a"), ("assistant", "<think>b</think>c"), ("user", "d"), ("assistant", "e"), ("user", "f")
    )
    turns = [{"role": message.role, "content": message.content} for message in thoughtful.messages]
    served = renderer.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert renderer.prompt(thoughtful.messages) == served
    with pytest.raises(UnstableTemplate):
        renderer.conversation(thoughtful)


def test_a_tool_may_be_rendered_as_json() -> None:
    template = CHATML.replace(
        "message['content'] }}", "message['content'] | tojson if message['role'] == 'tool' else message['content'] }}"
    )
    conversation = talk(("user", "a"), ("assistant", "b"), ("tool", 'say "c"\n'), ("assistant", "d"))
    assert sum(Renderer(tokenizer("byte_level", template)).conversation(conversation).loss_weights) > 0


@pytest.mark.parametrize("kind", FAITHFUL)
def test_the_name_of_a_stop_token_is_plain_text_in_an_answer(kind: str) -> None:
    renderer = Renderer(tokenizer(kind))
    tokens = renderer.conversation(talk(("user", "a"), ("assistant", "x<|im_end|>y<s>")))
    said = tokens.input_ids[tokens.loss_weights.index(1.0) :]
    assert renderer.stop_ids.isdisjoint(said[:-1])
    assert renderer.reply(said) == "x<|im_end|>y<s>"


def test_an_answer_with_a_stop_token_that_is_an_ordinary_one_is_refused() -> None:
    made = tokenizer("byte_level")
    (line_break,) = made.encode("\n", add_special_tokens=False)
    with pytest.raises(ValueError, match="stop token within"):
        Renderer(made, [line_break]).conversation(talk(("user", "a"), ("assistant", "two\nlines")))


@pytest.mark.parametrize("kind", ["metaspace_first", "metaspace_always", "prefix_by_normalizer"])
def test_an_answer_that_the_tokenizer_cannot_write_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="the tokenizer cannot write"):
        Renderer(tokenizer(kind)).conversation(talk(("user", "a"), ("assistant", "SentencePiece's own \u2581")))


def test_a_tokenizer_that_loses_case_and_spaces_reads_but_does_not_write() -> None:
    renderer = Renderer(tokenizer("wordpiece"))
    assert renderer.encode("Hello") == renderer.encode("hello")
    with pytest.raises(RecipeError, match="changes the text of an answer"):
        renderer.conversation(PAIR)
