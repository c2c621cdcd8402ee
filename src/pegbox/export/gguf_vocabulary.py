"""A tokenizer -> GGUF's keys: tokens and their kinds, merges or scores, special tokens, chat template.

llama.cpp knows two kinds that are BPE here:

- `gpt2`, byte-level BPE: the merges are in the file, the rule that cuts text into pieces is not, only its name is. The
  name is found by comparing the tokenizer's own normalizer and pre-tokenizer with the rules of `PRE_RULES`; a rule
  without a name is refused, for under a wrong one llama.cpp gives other ids. (It never composes Unicode, as Qwen's rule
  does first: a text in decomposed form gets other ids there, whoever wrote the file.)
- `llama`, SentencePiece's BPE with a token for each byte. No merges are in the file: llama.cpp joins any two neighbours
  that make up a token, the highest score first. So a token's score is minus the rank of the first merge that makes it,
  and a tokenizer with a token that llama.cpp would join and its own merges would not is refused.

A text's own space in front (`add_space_prefix`): llama.cpp puts it before the text and behind every special token, as
Llama 2's normalizer does. Metaspace does so only where no space is, with the scheme "first" not behind a special token;
that has no key. A chat template opens with a special token: with one, "first" is written as no space at all, and what
differs is said in a warning.

Generation ends in llama.cpp at `eos_token_id`, `eot_token_id` and `eom_token_id`, so up to three tokens that end it in
generation_config.json travel. (llama.cpp also ends at tokens that it knows by their text, as <|im_end|>.)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase

from pegbox.models.gguf_tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    PRE_RULES,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    NotConvertible,
    PreRule,
    pre_tokenizer,
)

log = logging.getLogger("pegbox")

SPACE = "\u2581"  # SentencePiece's letter for a space
BYTES = dict.fromkeys(f"<0x{byte:02X}>" for byte in range(256))
PROBE = "a"  # the text that shows what is put before and behind any text
STOPS = ("eos", "eot", "eom")
AHEAD = (
    "llama.cpp puts a space before every text and behind special tokens; the tokenizer not before one that has a space"
)
NEVER = "llama.cpp puts no space before a text here; the tokenizer does before one that opens with plain text"
LONGEST = 300  # characters of a pre-tokenizer that are shown


def vocabulary(tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], size: int) -> dict[str, Any]:
    """GGUF's keys under `tokenizer.` for a model of `size` tokens whose generation ends at `stops`.

    Raises NotConvertible.
    """
    if not tokenizer.is_fast:
        raise NotConvertible("has a tokenizer without tokenizer.json")
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    model = told["model"]
    if model["type"] != "BPE":
        raise NotConvertible(f"has a tokenizer of the kind {model['type']}, not BPE")
    if odd := [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]:
        raise NotConvertible(f"has a tokenizer with {', '.join(odd)}, which GGUF has no key for")
    templates = _templates(tokenizer)
    _refuse_swallowing(told, "".join(map(str, templates.values())))
    tokens, kinds = _tokens(told, size)
    keys: dict[str, Any] = {"tokens": tokens, "token_type": kinds}
    if model["byte_fallback"]:
        keys |= {"model": "llama", "pre": "default", "scores": _scores(told, tokens)}
        keys["add_space_prefix"] = _space_prefix(told, bool(tokenizer.chat_template))
    else:
        keys |= {"model": "gpt2", "pre": _pre_name(told), "merges": [" ".join(pair) for pair in _merges(model)]}
    keys |= _special(tokenizer, stops, size)
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()} | templates


def _refuse_swallowing(told: Mapping[str, Any], templates: str) -> None:
    """A token that takes in the white space beside it has no key: refused in a chat template, else told of."""
    odd = [e["content"] for e in told["added_tokens"] if e["lstrip"] or e["rstrip"] or e["single_word"]]
    if used := [text for text in odd if text in templates]:
        what = "has a chat template with tokens that take in white space, which GGUF has no key for"
        raise NotConvertible(f"{what}: {', '.join(used)}")
    if odd:
        log.warning("these tokens take in the white space beside them, not so in llama.cpp: %s", ", ".join(odd[:5]))


def _tokens(told: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """The text of each id below `size`, and its kind; an id without a token gets a filler."""
    added = {entry["id"]: entry for entry in told["added_tokens"]}
    texts = {index: text for text, index in told["model"]["vocab"].items()}
    texts |= {index: entry["content"] for index, entry in added.items()}
    if beyond := [text for index, text in sorted(texts.items()) if index >= size]:
        log.warning("left out %d tokens that the model has no embedding for: %s", len(beyond), ", ".join(beyond[:5]))
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(size)]
    if len(set(tokens)) != size:
        raise NotConvertible("has a token that is called like a filler, [PAD...]")
    kinds = [_kind(index, texts, added, told["model"]) for index in range(size)]
    return tokens, kinds


def _kind(index: int, texts: Mapping[int, str], added: Mapping[int, Any], model: Mapping[str, Any]) -> int:
    """The kind of a token. One of spaces that are also merged is plain, so that it is written out as spaces."""
    if index not in texts:
        return UNUSED
    text = texts[index]
    if model["byte_fallback"]:
        if text in BYTES:
            return BYTE
        if text == model["unk_token"]:
            return UNKNOWN
        if SPACE in text and text in model["vocab"]:
            return NORMAL
    if index not in added:
        return NORMAL
    return CONTROL if added[index]["special"] else USER_DEFINED


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _scores(told: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """Minus the rank of the first merge that makes the token; the lowest score for those that none makes."""
    listed = set(tokens)
    if lacking := [byte for byte in BYTES if byte not in listed]:
        raise NotConvertible(f"has a tokenizer without tokens for some bytes: {', '.join(lacking[:3])}")
    pairs = list(_merges(told["model"]))
    _refuse_unlisted(set(pairs), told)
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, len(pairs))) for token in tokens]


def _refuse_unlisted(pairs: set[tuple[str, str]], told: Mapping[str, Any]) -> None:
    """Raise NotConvertible where two tokens make up a third that the merges do not make of them.

    Added tokens are not looked at: they are taken out of a text before anything is joined.
    """
    vocabulary, added = told["model"]["vocab"], {entry["content"] for entry in told["added_tokens"]}
    for token in vocabulary:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary and (left, right) not in pairs and token not in added:
                what = f"has a tokenizer whose merges leave {left!r} and {right!r} apart"
                raise NotConvertible(f"{what}, which llama.cpp would join to {token!r}")


def _steps(part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as the list of its steps, without what only offsets hang on."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        inner = part.get("normalizers") or part.get("pretokenizers") or []
        return [step for each in inner for step in _steps(each)]
    return [{key: value for key, value in part.items() if key != "trim_offsets"}]


def _rule(told: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a rule of PRE_RULES and a tokenizer are compared by."""
    return _steps(told["normalizer"]), _steps(told["pre_tokenizer"]), bool(told["model"]["ignore_merges"])


def _named(rule: PreRule) -> dict[str, Any]:
    """A rule as tokenizer.json has it."""
    backend = Tokenizer(models.BPE(ignore_merges=rule.ignore_merges))
    backend.pre_tokenizer = pre_tokenizer(rule)
    told: dict[str, Any] = json.loads(backend.to_str())
    return told | {"normalizer": {"type": "NFC"} if rule.nfc else None}


def _pre_name(told: Mapping[str, Any]) -> str:
    """The name in GGUF of the rule by which the tokenizer cuts text. Raises NotConvertible."""
    for name, rule in PRE_RULES.items():
        if _rule(_named(rule)) == _rule(told):
            return name
    parts = {key: told[key] for key in ("normalizer", "pre_tokenizer")} | {
        "ignore_merges": told["model"]["ignore_merges"]
    }
    shown = json.dumps(parts, ensure_ascii=False)[:LONGEST]
    raise NotConvertible(f"cuts text by a rule that is none of {', '.join(PRE_RULES)}: {shown}")


def _space_prefix(told: Mapping[str, Any], has_template: bool) -> bool:
    """Whether llama.cpp puts a space before a text. Raises NotConvertible for any other change of texts."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizer, cuts = _steps(told["normalizer"]), _steps(told["pre_tokenizer"])
    whole = [{"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}]
    if cuts in ([], whole) and normalizer == [{"type": "Prepend", "prepend": SPACE}, replace]:
        return True
    if cuts in ([], whole) and normalizer == [replace]:
        return False
    scheme = cuts[0].get("prepend_scheme") if len(cuts) == 1 and not normalizer else None
    if scheme is None or cuts != [
        {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    ]:
        shown = json.dumps({key: told[key] for key in ("normalizer", "pre_tokenizer")}, ensure_ascii=False)[:LONGEST]
        raise NotConvertible(f"changes or cuts text before merging in a way that GGUF has no key for: {shown}")
    if scheme == "never":
        return False
    written = scheme == "always" or not has_template
    log.warning(AHEAD if written else NEVER)
    return written


def _special(tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], size: int) -> dict[str, Any]:
    """The ids of special tokens, and whether a text is framed by them."""
    ids = {"bos": tokenizer.bos_token_id, "unknown": tokenizer.unk_token_id, "padding": tokenizer.pad_token_id}
    own = tokenizer.eos_token_id
    first = [own] if own is not None and (own in stops or not stops) else []
    ends = [*first, *(stop for stop in dict.fromkeys(stops) if stop not in first)]
    if len(ends) > len(STOPS):
        raise NotConvertible(f"ends its answers at {len(ends)} tokens ({ends}), and GGUF names {len(STOPS)}")
    ids |= dict(zip(STOPS, ends, strict=False))
    named = {f"{role}_token_id": index for role, index in ids.items() if index is not None and index < size}
    return named | _frame(tokenizer, named)


def _frame(tokenizer: PreTrainedTokenizerBase, named: Mapping[str, int]) -> dict[str, bool]:
    bare, framed = (list(tokenizer.encode(PROBE, add_special_tokens=special)) for special in (False, True))
    for bos in (False, True):
        for eos in (False, True):
            ends = ([named.get("bos_token_id")] if bos else []), ([named.get("eos_token_id")] if eos else [])
            if framed == [*ends[0], *bare, *ends[1]]:
                return {"add_bos_token": bos, "add_eos_token": eos}
    raise NotConvertible(f"puts tokens around a text that are not its first and its last one: {framed}")


def _templates(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The chat template; where there are several, the others by their names."""
    template = tokenizer.chat_template
    if not isinstance(template, dict):
        return {"tokenizer.chat_template": template} if template else {}
    others = {name: text for name, text in template.items() if name != "default"}
    keys: dict[str, Any] = {f"tokenizer.chat_template.{name}": text for name, text in others.items()}
    if others:
        keys["tokenizer.chat_templates"] = list(others)
    return keys | ({"tokenizer.chat_template": template["default"]} if "default" in template else {})
