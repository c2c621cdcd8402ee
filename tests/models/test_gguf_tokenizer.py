"""Tokenizers rebuilt from GGUF metadata cut text as their publishers' do, by an oracle that shares no code with them."""

from __future__ import annotations

from typing import Any

import pytest
from bpe_oracle import LETTERS, PUBLISHED, encode, pieces, ranks_of, strings
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import KINDS, MERGES, SPECIAL, TEMPLATE, TOKENS
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from pegbox.models.gguf_tokenizer import PRE_RULES, PreRule, build_tokenizer, pre_tokenizer, tokenizer_settings

TEXTS = strings(1000)
VOCABULARY = {token: i for i, token in enumerate(TOKENS)}


def fields(**changes: Any) -> dict[str, Any]:
    """GGUF's keys of a small byte-level BPE; `changes` without their prefix, None leaves one out."""
    keys: dict[str, Any] = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": TOKENS,
        "token_type": KINDS,
        "merges": MERGES,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_bos_token": False,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | changes).items() if value is not None}


def cut(rule: PreRule, text: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizer(rule).pre_tokenize_str(text)]


def test_every_rule_in_the_table_has_its_oracle() -> None:
    assert PRE_RULES.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("pre", PUBLISHED)
def test_text_is_cut_as_published(pre: str) -> None:
    for text in TEXTS:
        normal = text if pre != "qwen2" else build_tokenizer(fields(pre=pre)).normalizer.normalize_str(text)
        assert cut(PRE_RULES[pre], normal) == pieces(text, pre), repr(text)


@pytest.mark.parametrize("pre", PUBLISHED)
@pytest.mark.parametrize("other", PUBLISHED)
def test_no_two_rules_cut_the_same_strings_alike(pre: str, other: str) -> None:
    """So that a rule taken for another is found by the strings above."""
    unlike = sum(pieces(text, pre) != pieces(text, other) for text in TEXTS)
    assert unlike == 0 if pre == other else unlike > 100


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "qwen2"])
def test_ids_are_those_of_a_slow_byte_level_bpe(pre: str) -> None:
    tokenizer, ranks = build_tokenizer(fields(pre=pre)), ranks_of(MERGES)
    for text in TEXTS:
        assert tokenizer.encode(text).ids == encode(text, pre, VOCABULARY, ranks), repr(text)


@given(st.text(alphabet=st.characters(codec="utf-8", max_codepoint=0x2FFF), max_size=40))
def test_any_text_comes_back_from_its_ids(text: str) -> None:
    tokenizer = build_tokenizer(fields())
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_patterns_are_those_that_transformers_ships() -> None:
    assert PRE_RULES["qwen2"].pattern == PRETOKENIZE_REGEX
    assert PRE_RULES["llama-bpe"].pattern == TikTokenConverter().pattern


def test_qwen2_composes_characters_first() -> None:
    composed = [VOCABULARY[LETTERS[byte]] for byte in "é".encode()]
    assert build_tokenizer(fields(pre="qwen2")).encode("e\u0301").ids == composed
    assert build_tokenizer(fields(pre="smollm")).encode("e\u0301").ids != composed


@pytest.mark.parametrize(("pre", "alone"), [("llama-bpe", True), ("gpt-2", False)])
def test_only_llama_3_takes_a_whole_word_that_no_merge_reaches(pre: str, alone: bool) -> None:
    tokens, kinds = [*TOKENS, "zebra"], [*KINDS, 1]
    tokenizer = build_tokenizer(fields(pre=pre, tokens=tokens, token_type=kinds))
    assert (tokenizer.encode("zebra").ids == [len(TOKENS)]) is alone


@pytest.mark.parametrize(
    ("changes", "frame"),
    [
        ({"pre": "smollm", "add_bos_token": None}, ([], [])),
        ({"pre": "llama-bpe", "add_bos_token": None}, ([1], [])),
        ({"pre": "llama-bpe", "add_bos_token": False}, ([], [])),
        ({"pre": "smollm", "add_bos_token": True, "add_eos_token": True}, ([1], [2])),
    ],
    ids=["smollm", "llama-bpe", "told-not-to", "told-to"],
)
def test_a_text_is_framed_as_the_model_wants(changes: dict[str, Any], frame: tuple[list[int], list[int]]) -> None:
    first, last = frame
    x, y = VOCABULARY["x"], VOCABULARY["y"]
    tokenizer = build_tokenizer(fields(**changes))
    assert tokenizer.encode("x").ids == [*first, x, *last]
    assert tokenizer.encode("x", "y").ids == [*first, x, *last, *first, y, *last]
    assert tokenizer.encode("x", add_special_tokens=False).ids == [x]


def test_control_tokens_are_whole_and_special_and_the_users_own_are_whole_and_plain() -> None:
    kinds = [4 if token == "<unused>" else kind for token, kind in zip(TOKENS, KINDS, strict=True)]
    tokenizer = build_tokenizer(fields(token_type=kinds))
    text = "".join(SPECIAL)
    assert tokenizer.encode(text).ids == [0, 1, 2, 3]
    assert tokenizer.decode([0, 1, 2, 3], skip_special_tokens=True) == "<unused>"


def test_filler_tokens_take_no_part() -> None:
    tokens, kinds = [*TOKENS, "[PAD0]"], [*KINDS, 5]
    tokenizer = build_tokenizer(fields(tokens=tokens, token_type=kinds, pre="llama-bpe"))
    assert tokenizer.get_vocab_size() == len(TOKENS)
    assert len(TOKENS) not in tokenizer.encode("[PAD0]").ids


def test_without_a_chat_template_none_is_made_up() -> None:
    settings = tokenizer_settings(fields(), 128)
    assert "chat_template" not in settings and "additional_special_tokens" not in settings
    with_one = tokenizer_settings(fields() | {"tokenizer.chat_template": TEMPLATE}, 128)
    assert with_one["additional_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
