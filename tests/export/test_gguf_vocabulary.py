"""A tokenizer written to GGUF gives the same ids, by readers that share no code with the writer, or is refused."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from gguf_folders import SPACE, byte_level, folder_of, sentence_piece
from small_tokenizers import BYTES, CHATML
from small_tokenizers import tokenizer as small
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pegbox.errors import RecipeError
from pegbox.export import gguf as export
from pegbox.export import gguf_vocabulary
from pegbox.models import gguf as reader
from pegbox.models.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

PARTS = (
    *("the", "The light", "don't", "WE'LL", "kitchen", "naïve", "straße", "北京", "москва", "العربية", "e\u0301"),
    *("1", "42", "2024", "3.1416", "0x1F", "½", "٣٤", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", "\u00a0"),
    *("!?", "(", "—", "'s", "€", "😀", "👩‍💻", "def f(n):\n    return n\n", "<|im_start|>", "<|im_end|>\n"),
)


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choice(PARTS) for _ in range(draw.randint(1, 12))) for _ in range(count)]


def keys(folder: Path, made: PreTrainedTokenizerFast, **how: Any) -> dict[str, Any]:
    """GGUF's keys of a model with this tokenizer, without what they all begin with."""
    export.write(folder_of(folder, "llama", made=made, **how), folder / "model.gguf", "f16")
    fields = GGUFReader(folder / "model.gguf").fields.items()
    return {key.removeprefix("tokenizer.ggml."): field.contents() for key, field in fields}


# ---- byte-level BPE --------------------------------------------------------------------------------------------------


def check_our_reader_gives_the_same_ids(folder: Path, pre: str, bos: bool = False) -> None:
    made = byte_level(pre, bos=bos)
    keys(folder / "in", made)
    reader.convert(folder / "in" / "model.gguf", folder / "out")
    back = AutoTokenizer.from_pretrained(folder / "out")
    for text in ["", *texts(300)]:
        assert back(text).input_ids == made(text).input_ids, f"other ids for {text!r}"
    assert back.chat_template == made.chat_template
    assert (back.bos_token, back.eos_token, back.pad_token) == (made.bos_token, made.eos_token, made.pad_token)


@pytest.mark.parametrize("bos", [False, True], ids=["bare", "bos"])
@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_our_reader_gives_the_same_ids(tmp_path: Path, pre: str, bos: bool) -> None:
    check_our_reader_gives_the_same_ids(tmp_path, pre, bos)


@pytest.mark.parametrize(("pre", "wrong"), [("smollm", "gpt-2"), ("gpt-2", "smollm"), ("qwen2", "llama-bpe")])
def test_the_check_sees_the_name_of_another_rule(
    tmp_path: Path, pre: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_vocabulary, "_pre_name", lambda told: wrong)
    with pytest.raises(AssertionError, match="other ids"):
        check_our_reader_gives_the_same_ids(tmp_path, pre)


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_a_rule_is_known_by_what_it_does_and_not_by_how_it_is_written(pre: str) -> None:
    told = json.loads(byte_level(pre).backend_tokenizer.to_str())
    assert gguf_vocabulary._pre_name(told) == pre
    last = told["pre_tokenizer"]["pretokenizers"][-1]
    last["trim_offsets"] = not last["trim_offsets"]
    told["normalizer"] = {"type": "Sequence", "normalizers": [told["normalizer"]] if told["normalizer"] else []}
    told["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [told["pre_tokenizer"]]}
    assert gguf_vocabulary._pre_name(told) == pre


def test_tokens_have_their_kinds_and_ids_without_a_token_a_filler(tmp_path: Path) -> None:
    made = byte_level()
    made.add_tokens([AddedToken("<call>", special=False, normalized=False)])
    found = keys(tmp_path, made, vocab_size=len(made) + 3)
    kinds = dict(zip(found["tokens"], found["token_type"], strict=True))
    assert (kinds["a"], kinds["<|im_end|>"], kinds["<call>"]) == (NORMAL, CONTROL, USER_DEFINED)
    assert [token for token, kind in kinds.items() if kind == UNUSED] == [f"[PAD{len(made) + i}]" for i in range(3)]
    assert found["tokens"][: len(made)] == made.convert_ids_to_tokens(list(range(len(made))))
    assert found["merges"] == [
        " ".join(pair) for pair in json.loads(made.backend_tokenizer.to_str())["model"]["merges"]
    ]


def test_tokens_that_the_model_has_no_embedding_for_are_left_out_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = byte_level()
    size = len(made)
    made.add_tokens([AddedToken("<image>", special=True)])
    with caplog.at_level(logging.WARNING, "pegbox"):
        assert len(keys(tmp_path, made, vocab_size=size)["tokens"]) == size
    assert "left out 1 tokens that the model has no embedding for: <image>" in caplog.text


# ---- SentencePiece's BPE ---------------------------------------------------------------------------------------------


def joined(text: str, found: Mapping[str, Any]) -> list[int]:
    """The ids that llama.cpp gives, written slowly from its description.

    Special tokens are taken out of the text, a space is put before what follows one (or begins the text), spaces
    become U+2581, and of all neighbours that make up a token those with the highest score are joined, the leftmost
    first, until there are none. What is no token then is written as its bytes.
    """
    ids = {token: index for index, token in enumerate(found["tokens"])}
    kinds, scores = found["token_type"], found["scores"]
    whole = sorted((t for t, i in ids.items() if kinds[i] in (CONTROL, USER_DEFINED)), key=len, reverse=True)
    parts: list[Any] = [text] if text else []
    for token in whole:
        parts = [
            cut for part in parts for cut in (_around(part, token, ids[token]) if isinstance(part, str) else [part])
        ]
    out, behind_special = [found["bos_token_id"]] if found["add_bos_token"] else [], True
    for part in parts:
        if isinstance(part, int):
            out.append(part)
        else:
            prefix = " " if found["add_space_prefix"] and behind_special else ""
            out += _merged((prefix + part).replace(" ", SPACE), ids, scores)
        behind_special = isinstance(part, int)
    return out


def _around(text: str, token: str, index: int) -> list[Any]:
    first, *rest = text.split(token)
    return [part for part in [first, *(each for piece in rest for each in (index, piece))] if part != ""]


def _merged(text: str, ids: Mapping[str, int], scores: list[float]) -> list[int]:
    parts = list(text)
    while pairs := [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ids]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    bytes_of = {part: [ids[f"<0x{byte:02X}>"] for byte in part.encode()] for part in parts if part not in ids}
    return [index for part in parts for index in bytes_of.get(part) or [ids[part]]]


def check_llama_cpp_gives_the_same_ids(folder: Path, made: PreTrainedTokenizerFast) -> None:
    found = keys(folder, made)
    assert (found["model"], found["pre"]) == ("llama", "default")
    for text in ["", *texts(300)]:
        assert joined(text, found) == made(text).input_ids, f"other ids for {text!r}"


@pytest.mark.parametrize("prefix", [True, False], ids=["llama-2", "gemma"])
def test_llama_cpp_gives_the_same_ids(tmp_path: Path, prefix: bool) -> None:
    check_llama_cpp_gives_the_same_ids(tmp_path, sentence_piece(prefix=prefix))
    found = keys(tmp_path, sentence_piece(prefix=prefix))
    assert found["add_space_prefix"] is prefix and found["add_bos_token"] and not found["add_eos_token"]


def test_the_check_sees_scores_in_the_order_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tokenizer of the test, ids are in another order than merges."""
    monkeypatch.setattr(gguf_vocabulary, "_scores", lambda told, tokens: [-float(i) for i in range(len(tokens))])
    made = sentence_piece()
    told = json.loads(made.backend_tokenizer.to_str())
    pieces = [token for token in told["model"]["vocab"] if len(token) > 1 and "<" not in token]
    swapped = dict(zip(pieces, reversed([told["model"]["vocab"][piece] for piece in pieces]), strict=True))
    told["model"]["vocab"] |= swapped
    backend = Tokenizer.from_str(json.dumps(told))
    other = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    with pytest.raises(AssertionError, match="other ids"):
        check_llama_cpp_gives_the_same_ids(tmp_path / "bug", other)
    monkeypatch.undo()
    check_llama_cpp_gives_the_same_ids(tmp_path / "mended", other)


def test_bytes_the_unknown_token_and_spaces_have_their_kinds(tmp_path: Path) -> None:
    made = sentence_piece(prefix=False)
    made.add_tokens([AddedToken(SPACE * 2, special=False), AddedToken("\n", special=False)])
    found = keys(tmp_path, made)
    kinds = dict(zip(found["tokens"], found["token_type"], strict=True))
    assert {kinds[byte] for byte in BYTES} == {BYTE}
    assert (kinds["<unk>"], kinds["<s>"], kinds["\n"]) == (UNKNOWN, CONTROL, USER_DEFINED)
    assert kinds[SPACE * 2] == NORMAL, "llama.cpp would write it out as U+2581"
    assert (found["unknown_token_id"], found["bos_token_id"]) == (0, 1)


def metaspace(scheme: str, template: str | None = None) -> PreTrainedTokenizerFast:
    made = sentence_piece()
    made.backend_tokenizer.normalizer = None
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("scheme", "template", "written", "said"),
    [
        ("never", None, False, ""),
        ("always", None, True, "not before one that has a space"),
        ("always", CHATML, True, "not before one that has a space"),
        ("first", None, True, "not before one that has a space"),
        ("first", CHATML, False, "one that opens with plain text"),
    ],
)
def test_metaspace_is_written_as_near_as_can_be_and_what_differs_is_said(
    tmp_path: Path, scheme: str, template: str | None, written: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = metaspace(scheme, template)
    with caplog.at_level(logging.WARNING, "pegbox"):
        found = keys(tmp_path, made)
    assert found["add_space_prefix"] is written
    assert (said in caplog.text) if said else ("space" not in caplog.text)
    plain, templated = ["the light"], ["<|im_start|>user\nthe light", "<|im_start|>the light<|im_end|> x"]
    for text in templated if template and scheme == "first" else plain:
        assert joined(text, found) == made(text).input_ids


# ---- special tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ("<|im_end|>", {"eos": "<|im_end|>"}),
        (["<|im_end|>", "<|endoftext|>"], {"eos": "<|im_end|>", "eot": "<|endoftext|>"}),
        (["<|endoftext|>", "<|im_end|>"], {"eos": "<|im_end|>", "eot": "<|endoftext|>"}),
        (["<|endoftext|>", "<|eot_id|>"], {"eos": "<|endoftext|>", "eot": "<|eot_id|>"}),
        (["<eos>", "<|im_end|>", "</s>"], {"eos": "<|im_end|>", "eot": "<eos>", "eom": "</s>"}),
    ],
    ids=["one", "two", "the-tokenizers-own-first", "without-its-own", "three"],
)
def test_every_token_that_ends_an_answer_travels(tmp_path: Path, stops: Any, expected: dict[str, str]) -> None:
    made = byte_level()
    found = keys(tmp_path, made, stops=made.convert_tokens_to_ids(stops))
    roles = {role: found.get(f"{role}_token_id") for role in ("eos", "eot", "eom")}
    assert {role: made.convert_ids_to_tokens(index) for role, index in roles.items() if index is not None} == expected


def test_without_a_generation_config_the_configs_own_token_ends_an_answer(tmp_path: Path) -> None:
    made = byte_level()
    folder = folder_of(tmp_path, "llama", made=made, eos_token_id=made.convert_tokens_to_ids("</s>"))
    (folder / "generation_config.json").unlink()
    export.write(folder, folder / "model.gguf", "f16")
    fields = GGUFReader(folder / "model.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == made.convert_tokens_to_ids("</s>")


@pytest.mark.parametrize("frame", ["$A", "<s> $A", "$A <|im_end|>", "<s> $A <|im_end|>"])
def test_a_text_is_framed_as_the_tokenizer_frames_it(tmp_path: Path, frame: str) -> None:
    made = byte_level()
    special = [(name, made.convert_tokens_to_ids(name)) for name in ("<s>", "<|im_end|>")]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(frame, f"{frame} $B", special)
    found = keys(tmp_path, made)
    assert (found["add_bos_token"], found["add_eos_token"]) == ("<s>" in frame, "<|im_end|>" in frame)


def test_named_chat_templates_travel_and_none_is_made_up(tmp_path: Path) -> None:
    made = byte_level()
    made.chat_template = {"default": CHATML, "tool_use": "tools"}
    found = keys(tmp_path / "two", made)
    assert found["tokenizer.chat_template"] == CHATML and found["tokenizer.chat_template.tool_use"] == "tools"
    assert found["tokenizer.chat_templates"] == ["tool_use"]
    made.chat_template = None
    assert not any("chat_template" in key for key in keys(tmp_path / "none", made))


# ---- refusals --------------------------------------------------------------------------------------------------------


def changed(made: PreTrainedTokenizerFast, **parts: Any) -> PreTrainedTokenizerFast:
    for name, part in parts.items():
        setattr(made.backend_tokenizer, name, part)
    return made


def edited(made: PreTrainedTokenizerFast, **settings: Any) -> PreTrainedTokenizerFast:
    told = json.loads(made.backend_tokenizer.to_str())
    told["model"] |= settings
    backend = Tokenizer.from_str(json.dumps(told))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")


def swallowing() -> PreTrainedTokenizerFast:
    made = byte_level()
    made.chat_template = CHATML.replace("<|im_start|>", "<|user|>")
    return made


def apart() -> PreTrainedTokenizerFast:
    """A BPE as it is trained, in which some neighbours that make up a token are not joined."""
    told = json.loads(sentence_piece().backend_tokenizer.to_str())["model"]
    (left, right), *_ = (pair for pair in told["merges"] if len("".join(pair)) == 3)
    return edited(sentence_piece(), merges=[pair for pair in told["merges"] if pair != [left, right]])


def no_byte() -> PreTrainedTokenizerFast:
    told = json.loads(sentence_piece().backend_tokenizer.to_str())["model"]
    ids = {name if name != "<0x41>" else "<a byte>": index for name, index in told["vocab"].items()}
    return edited(sentence_piece(), vocab=ids)


REFUSED = [
    (lambda: small("metaspace_first"), "the kind Unigram"),
    (lambda: small("wordpiece"), "the kind WordPiece"),
    (lambda: changed(byte_level(), normalizer=normalizers.Lowercase()), "none of smollm, .*Lowercase"),
    (lambda: changed(byte_level(), pre_tokenizer=pre_tokenizers.Whitespace()), "none of smollm, .*Whitespace"),
    (lambda: edited(byte_level(), ignore_merges=True), 'none of smollm, .*"ignore_merges": true'),
    (lambda: edited(byte_level(), dropout=0.1), "dropout"),
    (lambda: edited(byte_level(), end_of_word_suffix="</w>"), "end_of_word_suffix"),
    (lambda: changed(sentence_piece(), normalizer=normalizers.NFKC()), "no key for: .*NFKC"),
    (lambda: changed(sentence_piece(), pre_tokenizer=pre_tokenizers.Digits()), "no key for: .*Digits"),
    (lambda: changed(metaspace("always"), pre_tokenizer=pre_tokenizers.Metaspace(split=True)), "no key for: .*Meta"),
    (apart, "apart, which llama.cpp would join"),
    (no_byte, "without tokens for some bytes: <0x41>"),
    (swallowing, r"chat template with tokens that take in white space.*<\|user\|>"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(tmp_path: Path, make: Any, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        keys(tmp_path, make())


def test_more_ends_than_gguf_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ends its answers at 4 tokens"):
        keys(tmp_path, byte_level(), stops=[5, 6, 7, 8])


def test_another_frame_is_refused(tmp_path: Path) -> None:
    made = byte_level()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "$A </s>", "$A $B", [("</s>", made.convert_tokens_to_ids("</s>"))]
    )
    with pytest.raises(RecipeError, match="puts tokens around a text"):
        keys(tmp_path, made)


def test_tokens_that_take_in_white_space_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pegbox"):
        keys(tmp_path, byte_level())
    assert "take in the white space beside them, not so in llama.cpp: <|user|>" in caplog.text
