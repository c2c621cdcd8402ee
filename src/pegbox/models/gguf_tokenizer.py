"""A tokenizer from GGUF metadata: byte-level BPE with the model's own pre-tokenizer.

Vocabulary and merges alone do not make a tokenizer. Before any merge the text is cut into pieces that no merge may
cross, and that rule is not in the file: only its name is (`tokenizer.ggml.pre`). With another model's rule every text
still survives the round trip, but the ids are not those that the model was trained on ("x  7": SmolLM2 knows
`x | two spaces | 7`, GPT-2's rule gives `x | space | space | 7`). So each name stands in a table with the rule that its
publisher's tokenizer.json states, and an unknown name is refused. `default` is refused too: it is what a converter
writes that did not recognise the model.

Rules: SmolLM2, GPT-2, Llama 3 and Qwen 2, from the tokenizer.json files on the hub; the names are llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

# GGUF's kinds of token: a piece of text, the unknown, never text, whole wherever it stands, filler, a byte of a character
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


class NotConvertible(ValueError):
    """What cannot be carried over from GGUF or into it, as the end of a sentence: "the file ...", "the model ..."."""


@dataclass(frozen=True)
class PreRule:
    """How text is cut before merging, and what else goes with the name.

    digits: every digit is a piece of its own, before all else. pattern: the pieces; None is GPT-2's pattern.
    nfc: text is brought to Unicode's composed form first. ignore_merges: a piece that is a token is not merged up to.
    add_bos: the first token is the beginning-of-sequence token, where the file does not say.
    """

    digits: bool = False
    pattern: str | None = None
    nfc: bool = False
    ignore_merges: bool = False
    add_bos: bool = False


def _cl100k(numbers: str) -> str:
    """The pattern that Llama 3 and Qwen 2 share, but for how numbers are cut."""
    contractions, words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+"
    symbols, spaces = r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+|\s+(?!\S)|\s+"
    return "|".join((contractions, words, numbers, symbols, spaces))


PRE_RULES: Mapping[str, PreRule] = {
    "smollm": PreRule(digits=True),
    "gpt-2": PreRule(),
    "llama-bpe": PreRule(pattern=_cl100k(r"\p{N}{1,3}"), ignore_merges=True, add_bos=True),
    "qwen2": PreRule(pattern=_cl100k(r"\p{N}"), nfc=True),
}


def build_tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that GGUF's `fields` (key -> value) describe. Raises NotConvertible."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    if (kind := fields.get("tokenizer.ggml.model")) != "gpt2":
        raise NotConvertible(f"has a tokenizer of the kind {kind!r}, not a byte-level BPE ('gpt2')")
    rule = _rule(fields)
    tokens, kinds = _listed(fields, "tokens"), _listed(fields, "token_type")
    vocabulary = {token: i for i, (token, k) in enumerate(zip(tokens, kinds, strict=True)) if k != UNUSED}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in _listed(fields, "merges"))]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule.ignore_merges))
    except Exception as error:  # the library raises nothing narrower
        raise NotConvertible(f"has merges that do not fit its vocabulary ({error})") from error
    if rule.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(rule)
    tokenizer.decoder = decoders.ByteLevel()
    marked = [(t, k) for t, k in zip(tokens, kinds, strict=True) if k in (CONTROL, USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(t, special=k == CONTROL, normalized=False) for t, k in marked])
    if tokenizer.get_vocab() != vocabulary or len(vocabulary) != sum(k != UNUSED for k in kinds):
        raise NotConvertible("lists the same token twice")
    _frame(tokenizer, fields, rule)
    return tokenizer


def pre_tokenizer(rule: PreRule) -> PreTokenizer:
    """The rule as a pre-tokenizer of the tokenizers library; its last step writes bytes as letters."""
    from tokenizers import Regex, pre_tokenizers

    digits = [pre_tokenizers.Digits(individual_digits=True)] if rule.digits else []
    pieces = [pre_tokenizers.Split(Regex(rule.pattern), behavior="isolated")] if rule.pattern else []
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule.pattern is None)
    return pre_tokenizers.Sequence([*digits, *pieces, letters])


def tokenizer_settings(fields: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """tokenizer_config.json. The class named is the generic one: a model's own class may rebuild the pre-tokenizer."""
    tokens, kinds = _listed(fields, "tokens"), _listed(fields, "token_type")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (token_id := special_id(fields, key)) is not None:
            settings[f"{role}_token"] = tokens[token_id]
    if template := fields.get("tokenizer.chat_template"):
        settings["chat_template"] = template
        # Publishers list the marks of their template here; all other control tokens stay special in tokenizer.json.
        marks = [t for t, k in zip(tokens, kinds, strict=True) if k == CONTROL and t in template]
        settings["additional_special_tokens"] = marks
    return settings


def special_id(fields: Mapping[str, Any], role: str) -> int | None:
    """The id of a special token (`bos`, `eos`, `eot`, `unknown`, `padding`), where the file names one."""
    token_id = fields.get(f"tokenizer.ggml.{role}_token_id")
    if token_id is None:
        return None
    if not 0 <= token_id < len(_listed(fields, "tokens")):
        raise NotConvertible(f"names {token_id} as its {role} token, which its vocabulary does not have")
    return int(token_id)


def _rule(fields: Mapping[str, Any]) -> PreRule:
    name = fields.get("tokenizer.ggml.pre")
    rule = PRE_RULES.get(str(name))
    if rule is None:
        raise NotConvertible(f"names the pre-tokenizer {name!r}, whose rule is not known here")
    return rule


def _listed(fields: Mapping[str, Any], key: str) -> list[Any]:
    values = fields.get(f"tokenizer.ggml.{key}")
    if not isinstance(values, list) or (key == "token_type" and len(values) != len(_listed(fields, "tokens"))):
        raise NotConvertible(f"has no usable list tokenizer.ggml.{key}")
    return values


def _frame(tokenizer: Tokenizer, fields: Mapping[str, Any], rule: PreRule) -> None:
    """The tokens that open and close every text, where the model has such."""
    from tokenizers import processors

    first, last = (_added(fields, role, wanted) for role, wanted in (("bos", rule.add_bos), ("eos", False)))
    if not first and not last:
        return
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{t}:1" for t in first), "$B:1", *(f"{t}:1" for t in last)],
        special_tokens=list({**first, **last}.items()),
    )


def _added(fields: Mapping[str, Any], role: str, wanted: bool) -> dict[str, int]:
    """The special token of that role as {token: id} where every text gets it, else nothing."""
    if not fields.get(f"tokenizer.ggml.add_{role}_token", wanted):
        return {}
    if (token_id := special_id(fields, role)) is None:
        raise NotConvertible(f"adds a {role} token to every text but names none")
    return {_listed(fields, "tokens")[token_id]: token_id}
