"""Every family of chat models: the mask is the one made by hand, and what is trained begins with what is served.

In the masks by hand what stands between « and » is trained. They were written from what is known of the templates, not
copied from what the renderer makes of them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from functools import cache

import pytest
from families import FAMILIES, family_tokenizer

from pegbox.data.codec import Codec
from pegbox.data.records import Conversation, Message, ToolCall
from pegbox.data.render import Renderer, Tokens
from pegbox.data.template import UnstableTemplate
from source_tree import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import prefixes


@cache
def renderer_of(family: str) -> Renderer:
    return Renderer(family_tokenizer(family))


def marked(renderer: Renderer, tokens: Tokens) -> str:
    """The text of the tokens, with « and » around what is trained."""
    pieces, run, on = [], list[int](), False
    for token, weight in [*zip(tokens.input_ids, tokens.loss_weights, strict=True), (-1, -1.0)]:
        if weight < 0 or (weight > 0) != on:
            pieces.append(f"«{renderer.decode(run)}»" if on else renderer.decode(run))
            run, on = [], weight > 0
        run.append(token)
    return "".join(pieces)


def asked(text: str) -> Message:
    return Message("user", text)


def said(text: str, weight: float = 1.0, *spans: tuple[int, int]) -> Message:
    return Message("assistant", text, weight, spans or None)


TOOL = json.dumps({"type": "function", "function": {"name": "time", "parameters": {}}})
CALL = Message("assistant", "", 1.0, tool_calls=(ToolCall("time", '{"zone": "Rome"}', "abcdefghi"),))
TIME = Message("tool", "12:00", tool_call_id="abcdefghi")
TALK = Conversation((Message("system", "Be brief."), asked("Hi"), said("Hello"), asked("And?"), said("Bye")))
UNLEARNT = Conversation((asked("Hi"), said("Hello", 0.0), asked("And?"), said("Bye")))
SPANS = Conversation((asked("Sum?"), said("2+2=4", 1.0, (0, 1), (4, 5)), asked("So?"), said("4 it is", 1.0, (0, 1))))
CALLED = Conversation((asked("Time?"), CALL, TIME, said("Noon.")), (TOOL,))

LLAMA_TOP = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
LLAMA_DATE = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
LLAMA_ASK = "<|start_header_id|>user<|end_header_id|>\n\n"
LLAMA_SAY = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
LLAMA_TOOL = (
    '{\n    "type": "function",\n    "function": {\n        "name": "time",\n        "parameters": {}\n    }\n}\n\n'
)
GOLD: dict[str, dict[str, str]] = {
    "chatml": {
        "talk": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "«Hello<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«Bye<|im_end|>»",
        "unlearnt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«Bye<|im_end|>»",
        "spans": "<|im_start|>user\nSum?<|im_end|>\n<|im_start|>assistant\n«2»+2=«4<|im_end|>»\n"
        "<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n«4» it is<|im_end|>",
    },
    "llama_3_1": {
        "talk": f"{LLAMA_TOP}{LLAMA_DATE}Be brief.<|eot_id|>{LLAMA_ASK}Hi{LLAMA_SAY}«Hello<|eot_id|>»"
        f"{LLAMA_ASK}And?{LLAMA_SAY}«Bye<|eot_id|>»",
        "unlearnt": f"{LLAMA_TOP}{LLAMA_DATE}<|eot_id|>{LLAMA_ASK}Hi{LLAMA_SAY}Hello<|eot_id|>"
        f"{LLAMA_ASK}And?{LLAMA_SAY}«Bye<|eot_id|>»",
        "spans": f"{LLAMA_TOP}{LLAMA_DATE}<|eot_id|>{LLAMA_ASK}Sum?{LLAMA_SAY}«2»+2=«4<|eot_id|>»"
        f"{LLAMA_ASK}So?{LLAMA_SAY}«4» it is<|eot_id|>",
        "called": f"{LLAMA_TOP}Environment: ipython\n{LLAMA_DATE}<|eot_id|>{LLAMA_ASK}"
        f"Answer with a call of one of these functions.\n\n{LLAMA_TOOL}Time?{LLAMA_SAY}"
        '«{"name": "time", "parameters": {"zone": "Rome"}}<|eot_id|>»'
        f'<|start_header_id|>ipython<|end_header_id|>\n\n"12:00"{LLAMA_SAY}«Noon.<|eot_id|>»',
    },
    "gemma_3": {
        "talk": "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n«Hello<end_of_turn>»\n"
        "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n«Bye<end_of_turn>»",
        "unlearnt": "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n«Bye<end_of_turn>»",
        "spans": "<bos><start_of_turn>user\nSum?<end_of_turn>\n<start_of_turn>model\n«2»+2=«4<end_of_turn>»\n"
        "<start_of_turn>user\nSo?<end_of_turn>\n<start_of_turn>model\n«4» it is<end_of_turn>",
    },
    "mistral_2": {  # its tokenizer puts a space before a text behind every control
        "talk": "<s> [INST] Be brief.\n\nHi [/INST]« Hello</s>» [INST] And? [/INST]« Bye</s>»",
        "unlearnt": "<s> [INST] Hi [/INST] Hello</s> [INST] And? [/INST]« Bye</s>»",
        "spans": "<s> [INST] Sum? [/INST]« 2»+2=«4</s>» [INST] So? [/INST]« 4» it is</s>",
    },
    "mistral_3": {
        "unlearnt": "<s>[INST] Hi[/INST] Hello</s>[INST] And?[/INST]« Bye</s>»",
        "spans": "<s>[INST] Sum?[/INST]« 2»+2=«4</s>»[INST] So?[/INST]« 4» it is</s>",
        "called": '<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "time", "parameters": {}}}]'
        "[/AVAILABLE_TOOLS][INST] Time?[/INST]"
        '«[TOOL_CALLS] [{"name": "time", "arguments": {"zone": "Rome"}, "id": "abcdefghi"}]</s>»'
        '[TOOL_RESULTS] {"content": 12:00, "call_id": "abcdefghi"}[/TOOL_RESULTS]« Noon.</s>»',
    },
    "qwen_2_5": {
        "talk": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "«Hello<|im_end|>»\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«Bye<|im_end|>»",
        "unlearnt": "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«Bye<|im_end|>»",
        "spans": "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nSum?<|im_end|>\n"
        "<|im_start|>assistant\n«2»+2=«4<|im_end|>»\n"
        "<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n«4» it is<|im_end|>",
        "called": "<|im_start|>system\nYou are Qwen.\n\n# Tools\n<tools>\n"
        '{"type": "function", "function": {"name": "time", "parameters": {}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nTime?<|im_end|>\n<|im_start|>assistant\n"
        '«<tool_call>\n{"name": "time", "arguments": {"zone": "Rome"}}\n</tool_call><|im_end|>»\n'
        "<|im_start|>user\n<tool_response>\n12:00\n</tool_response><|im_end|>\n<|im_start|>assistant\n«Noon.<|im_end|>»",
    },
    "qwen_3": {
        "unlearnt": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nBye<|im_end|>»",
    },
    "phi_3_5": {  # its controls take the line break behind them, and its tokenizer puts a space before a text
        "talk": "<|system|> Be brief.<|end|><|user|> Hi<|end|><|assistant|>«Hello<|end|>»"
        "<|user|> And?<|end|><|assistant|>«Bye<|end|>»",
        "unlearnt": "<|user|> Hi<|end|><|assistant|>Hello<|end|><|user|> And?<|end|><|assistant|>«Bye<|end|>»",
        "spans": "<|user|> Sum?<|end|><|assistant|>«2»+2=«4<|end|>»<|user|> So?<|end|><|assistant|>«4» it is<|end|>",
    },
    "phi_4": {
        "talk": "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>«Hello<|im_end|>»<|im_start|>user<|im_sep|>And?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>«Bye<|im_end|>»",
        "unlearnt": "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>Hello<|im_end|>"
        "<|im_start|>user<|im_sep|>And?<|im_end|><|im_start|>assistant<|im_sep|>«Bye<|im_end|>»",
        "spans": "<|im_start|>user<|im_sep|>Sum?<|im_end|><|im_start|>assistant<|im_sep|>«2»+2=«4<|im_end|>»"
        "<|im_start|>user<|im_sep|>So?<|im_end|><|im_start|>assistant<|im_sep|>«4» it is<|im_end|>",
    },
    "phi_4_mini": {
        "talk": "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>«Hello<|end|>»"
        "<|user|>And?<|end|><|assistant|>«Bye<|end|>»",
        "unlearnt": "<|user|>Hi<|end|><|assistant|>Hello<|end|><|user|>And?<|end|><|assistant|>«Bye<|end|>»",
        "spans": "<|user|>Sum?<|end|><|assistant|>«2»+2=«4<|end|>»<|user|>So?<|end|><|assistant|>«4» it is<|end|>",
    },
}
CASES = {"talk": TALK, "unlearnt": UNLEARNT, "spans": SPANS, "called": CALLED}
BY_HAND = [(family, case) for family, cases in GOLD.items() for case in cases]


def check_gold(family: str, case: str) -> None:
    renderer = renderer_of(family)
    assert marked(renderer, renderer.conversation(CASES[case])) == GOLD[family][case]


@pytest.mark.parametrize(("family", "case"), BY_HAND)
def test_the_mask_is_the_one_made_by_hand(family: str, case: str) -> None:
    check_gold(family, case)


def test_every_family_has_masks_made_by_hand() -> None:
    assert set(GOLD) == set(FAMILIES)


@pytest.mark.parametrize("case", ["unlearnt", "spans"])
def test_a_mask_that_ignores_the_weight_is_caught(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANTS row 28."""

    def everything(self: Tokens, ids: Sequence[int], weights: float | Sequence[float] = 0.0) -> None:
        self.input_ids.extend(ids)
        self.loss_weights.extend([1.0] * len(ids))

    monkeypatch.setattr(Tokens, "add", everything)
    monkeypatch.setattr(Tokens, "add_each", everything)
    with pytest.raises(AssertionError):
        check_gold("chatml", case)


REFUSED = {
    "Mistral's system message, which is gone once the answer stands there": ("mistral_3", TALK, "stands before it"),
    "Qwen 3's empty thought, which later turns do not show": ("qwen_3", TALK, "only the last answer can be trained"),
    "tools of a template that shows none": ("phi_4_mini", CALLED, "cannot show tools"),
    "tools of Gemma": ("gemma_3", CALLED, "cannot show tools"),
    "calls without tools, of a template that drops them": (
        "chatml",
        Conversation(CALLED.messages),
        "does not show the calls of tools",
    ),
    "two calls where the template shows one": (
        "llama_3_1",
        Conversation((asked("Time?"), Message("assistant", "", 1.0, tool_calls=CALL.tool_calls * 2)), (TOOL,)),
        "one call at a time",
    ),
    "the name of a control in a call": (
        "qwen_2_5",
        Conversation(
            (asked("?"), Message("assistant", "", 1.0, tool_calls=(ToolCall("time", '{"a": "<|im_end|>"}'),))), (TOOL,)
        ),
        "the name of a control token",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_template_cannot_show_is_refused_by_its_row(reason: str) -> None:
    family, content, words = REFUSED[reason]
    with pytest.raises(ValueError, match=words):
        renderer_of(family).conversation(content)


def test_the_last_answer_is_learnt_from_what_is_served_where_earlier_turns_are_shown_otherwise() -> None:
    thought = said("<think>\nhm\n</think>\n\nHello", 0.0)
    content = Conversation((asked("Hi"), thought, asked("And?"), said("<think>\nso\n</think>\n\nBye")))
    renderer = renderer_of("qwen_3")
    tokens, served = renderer.conversation(content), renderer.prompt(content.messages[:3])
    assert tokens.input_ids[: len(served)] == served
    assert tokens.loss_weights == [0.0] * len(served) + [1.0] * (len(tokens.input_ids) - len(served))
    assert renderer.reply(tokens.input_ids[len(served) :]) == content.messages[3].content
    with pytest.raises(UnstableTemplate):
        renderer.conversation(Conversation((asked("Hi"), said(thought.content), *content.messages[2:])))


# ---- serving is the reference (INVARIANTS rows 7 and 8) --------------------------------------------------------------


def test_what_is_trained_begins_with_what_is_served_in_every_family() -> None:
    """A fraction of `make campaigns`."""
    found = prefixes.campaign(600)
    assert set(found) == set(FAMILIES)
    assert all(one["compared"] == 60 for one in found.values())


def compare_some(family: str) -> None:
    rng, renderer = random.Random(0), Renderer(family_tokenizer(family))
    for _ in range(60):
        prefixes.compare(renderer, prefixes.random_conversation(rng), FAMILIES[family].strips)


def test_tools_that_are_not_served_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Renderer.prompt
    monkeypatch.setattr(Renderer, "prompt", lambda self, messages, tools=(): honest(self, messages))
    with pytest.raises(AssertionError, match="do not begin with what is served"):
        compare_some("qwen_2_5")


def test_a_call_that_is_learnt_otherwise_than_it_is_shown_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Codec.learnt_call
    monkeypatch.setattr(Codec, "learnt_call", lambda self, text: honest(self, text.replace("{", "{ ", 1)))
    with pytest.raises(AssertionError):
        check_gold("qwen_2_5", "called")


def check_controls_of_a_call() -> None:
    renderer = renderer_of("mistral_3")
    assert renderer.tokenizer.convert_tokens_to_ids("[TOOL_CALLS]") in renderer.conversation(CALLED).input_ids


def test_controls_of_a_call_that_are_learnt_as_text_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    check_controls_of_a_call()
    monkeypatch.setattr(Codec, "learnt_call", Codec.learnt_behind)
    with pytest.raises(AssertionError):
        check_controls_of_a_call()


def test_remembered_parts_are_those_of_the_whole() -> None:
    """The quick way to encode a prompt gives the ids that the tokenizer gives."""
    rng = random.Random(1)
    for family in ("chatml", "llama_3_1", "qwen_3", "phi_4"):
        renderer, codec = renderer_of(family), Codec(family_tokenizer(family))
        assert codec._controls is not None
        for _ in range(60):
            text = "".join(
                rng.choice(["<|im_end|>", "<|im", "_end|>", "<think>", prefixes.random_text(rng)]) for _ in "123"
            )
            assert renderer.encode(text) == renderer.tokenizer.encode(text, add_special_tokens=False)


def test_a_tool_is_judged_by_what_the_template_writes_for_its_call() -> None:
    for family, wanted in [
        ("qwen_2_5", '<tool_call>\n{"name": "time", "arguments": {"zone": "Rome"}}\n</tool_call>'),
        ("mistral_3", '[{"name": "time", "arguments": {"zone": "Rome"}, "id": "abcdefghi"}]'),
    ]:
        assert renderer_of(family).turn(CALLED, 1).strip() == wanted
        assert renderer_of(family).turn(CALLED, 3) == "Noon."
