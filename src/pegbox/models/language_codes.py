"""Tokenizers that put a token for a text's language beside it: those of mBART, mBART-50, NLLB and M2M100.

    mBART       source: text </s> en_XX       target: text </s> de_DE
    mBART-50    source: en_XX text </s>       target: de_DE text </s>        (NLLB likewise)
    M2M100      source: __en__ text </s>      target: __de__ text </s>       by the codes en and de

The two codes are settings of the tokenizer, and are saved with it.
"""

from __future__ import annotations

import difflib

from transformers import M2M100Tokenizer, MBart50Tokenizer, MBartTokenizer, NllbTokenizer, PreTrainedTokenizerBase

from pegbox.errors import RecipeError

CODED = (MBartTokenizer, MBart50Tokenizer, NllbTokenizer, M2M100Tokenizer)
ATTRIBUTES = {"source_lang": "src_lang", "target_lang": "tgt_lang"}  # the recipe's names and Transformers'


def set_languages(tokenizer: PreTrainedTokenizerBase, source: str | None, target: str | None) -> None:
    """Set the languages of sources and targets; None leaves what the tokenizer was saved with.

    Raises RecipeError for a code that the tokenizer has not, or where none is known for the targets.
    """
    given = {key: code for key, code in (("source_lang", source), ("target_lang", target)) if code is not None}
    if not isinstance(tokenizer, CODED):
        for key, code in given.items():
            what = f"the model's tokenizer has no tokens for languages, and {key} is {code}"
            cure = "leave it away; data.instruction can say what is asked"
            raise RecipeError(what, where=f"task.{key}", cure=cure)
        return
    for key, code in given.items():
        _refuse_unknown(tokenizer, key, code)
        setattr(tokenizer, ATTRIBUTES[key], code)
    if tokenizer.tgt_lang is None:
        cure = f"say it: `task: {{kind: seq2seq, source_lang: {tokenizer.src_lang}, target_lang: ...}}`"
        raise RecipeError("the model writes several languages, and none is named", where="task.target_lang", cure=cure)


def _refuse_unknown(tokenizer: PreTrainedTokenizerBase, key: str, code: str) -> None:
    known = _codes(tokenizer)
    if code not in known:
        near = difflib.get_close_matches(code, known, n=3) or known[:3]
        cure = f"take one of its codes, such as {', '.join(near)}"
        raise RecipeError(f"the model's tokenizer has no language {code!r}", where=f"task.{key}", cure=cure)


def _codes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Those that the tokenizer knows: special tokens, whose names have a "_" in them, or names of such."""
    if isinstance(tokenizer, M2M100Tokenizer):
        return sorted(tokenizer.lang_code_to_token)
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({token for token in (*tokenizer.all_special_tokens, *added) if "_" in token})
