"""Tiny models and rows with nothing to learn, for `null_runs.py tasks`: what is right was drawn without a look at the row.

Of tasks with answers: texts of five words, and answers that follow from them before they are shuffled over all rows. Of
tasks of which the text is the answer: letters drawn independently, each as often as its rank says (Zipf), and the end of a
text like one more letter; so a unigram model is all that there is to know.

A letter is a token: a model learns nothing of spelling either.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

Rows = list[dict[str, Any]]

CONTROLS = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPREAD = 0.1  # of the matrices: large enough that a tiny model learns in a few passes
WORDS = ("red", "old", "big", "hot", "dry", "sea", "sun", "oak", "ice", "fog", "hen", "ant", "bee", "cow", "owl", "elk")
ENDS = 1 / 24  # the chance that a text ends behind a letter
ANSWERED = 5  # words of a text that has an answer


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each letter, the space and the line break, and those that a chat or an encoder needs.

    With an `A`, by which pegbox finds out whether a tokenizer keeps capitals.
    """
    letters = [*CONTROLS, *string.ascii_lowercase, "A", " ", "\n"]
    backend = Tokenizer(models.WordLevel({letter: index for index, letter in enumerate(letters)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROLS])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{f"{role}_token": f"<{role}>" for role in ("pad", "unk", "cls", "sep", "mask")},
        eos_token="<|im_end|>",
    )
    made.chat_template = CHATML
    return made


def encoder(folder: Path, seed: int) -> Path:
    """A BERT of two layers with its head."""
    made = tokenizer()
    ends = [(name, made.convert_tokens_to_ids(name)) for name in ("<cls>", "<sep>")]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=ends
    )
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    rest: dict[str, Any] = {"vocab_size": len(made), "max_position_embeddings": 512, "initializer_range": SPREAD}
    return _saved(lambda: BertForMaskedLM(BertConfig(**sizes, **rest)), made, folder, seed)


def decoder(folder: Path, seed: int) -> Path:
    """A Llama of two layers."""
    made = tokenizer()
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    ids: dict[str, Any] = {"eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id, "bos_token_id": None}
    rest: dict[str, Any] = {"vocab_size": len(made), "max_position_embeddings": 1024, "initializer_range": SPREAD}
    return _saved(lambda: LlamaForCausalLM(LlamaConfig(**sizes, **ids, **rest)), made, folder, seed)


def _saved(make: Callable[[], PreTrainedModel], made: PreTrainedTokenizerFast, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make().save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


# ---- rows ------------------------------------------------------------------------------------------------------------


def texts(count: int, draw: random.Random) -> list[str]:
    """Different texts of words."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(WORDS, k=ANSWERED))] = None
    return list(found)


def letters(count: int, draw: random.Random) -> list[str]:
    """Different texts of letters, all independent."""
    alphabet, found = draw.sample(string.ascii_lowercase, 26), dict[str, None]()
    weights = [1 / rank for rank in range(1, 27)]
    while len(found) < count:
        text = draw.choices(alphabet, weights)[0]
        while draw.random() > ENDS:
            text += draw.choices(alphabet, weights)[0]
        found[text] = None
    return list(found)


def answered(
    role: str, answer: Callable[[Sequence[str]], Any], asked: str = "text"
) -> Callable[[int, random.Random], Rows]:
    """Rows of a text and the answer to another's words."""

    def rows(count: int, draw: random.Random) -> Rows:
        given = texts(count, draw)
        answers = [answer(text.split()) for text in given]
        draw.shuffle(answers)
        return [{asked: text, role: value} for text, value in zip(given, answers, strict=True)]

    return rows


def tagged(count: int, draw: random.Random) -> Rows:
    """Words with tags that were shuffled over all words of all rows."""
    given = [text.split() for text in texts(count, draw)]
    tags = [("B-cold", "B-warm", "B-mild", "O")[WORDS.index(word) % 4] for words in given for word in words]
    draw.shuffle(tags)
    return [{"tokens": words, "tags": [tags.pop() for _ in words]} for words in given]


def plain(count: int, draw: random.Random) -> Rows:
    """Texts of letters."""
    return [{"text": text} for text in letters(count, draw)]


Made = tuple[Callable[[Path, int], Path], Callable[[int, random.Random], Rows]]
# task -> what makes its model, and its rows
TASKS: Mapping[str, Made] = MappingProxyType(
    {
        "classification": (encoder, answered("label", lambda words: words[0][0])),
        "multilabel": (encoder, answered("labels", lambda words: sorted({word[0] for word in words[:2]} & set("hos")))),
        "regression": (encoder, answered("score", lambda words: float(sum(map(WORDS.index, words))))),
        "token_classification": (encoder, tagged),
        "masked_lm": (encoder, plain),
        "chat": (decoder, answered("completion", lambda words: words[0][0], asked="prompt")),
        "completion": (decoder, plain),
    }
)
