"""Small tokenizers of every family that segments texts in its own way, and the chat templates of the common models.

Every tokenizer knows the control tokens of every template, so that each can be tried with each. The templates are
ours; in what they do they follow the published ones that they are named after.
"""

from __future__ import annotations

import json
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "Turn on the light in the kitchen and set the timer to 46 minutes.",
    "question answer assistant system user model hello world  two   spaces",
    '{"intent": "HassTurnOn", "area": "kitchen", "minutes": 12.5}',
    "Ärger über große Öfen; naïve café, 北京 and москва.",
    "hello\n\nworld\n  indented\n",
]
LINE_BREAKS = ["line breaks merge\n\n\n\n", "with each other\n\n\n\n"]
CONTROLS = [
    "<s>",
    "</s>",
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
]
SWALLOWING = ["<|user|>", "<|assistant|>", "<|end|>"]  # as Phi-3's: they take the white space behind them
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
LLAMA_3 = (
    "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "<s>{% for message in messages %}{% if message['role'] == 'assistant' %} {{ message['content'] | trim }}</s>"
    "{% elif message['role'] == 'system' %}[INST] {{ message['content'] }}\n\n"
    "{% else %}{% if loop.index0 == 0 or messages[loop.index0 - 1]['role'] != 'system' %}[INST] {% endif %}"
    "{{ message['content'] }} [/INST]{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %} {{ message['content'] }} </s>"
    "{% else %}<s>[INST] {{ message['content'] }} [/INST]{% endif %}{% endfor %}"
)
PHI_3 = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# a template's text, the text of the token that ends its answers, the model's own end-of-text token
TEMPLATES = {
    "chatml": (CHATML, "<|im_end|>", "<|im_end|>"),
    "chatml_of_a_base_model": (CHATML, "<|im_end|>", "<|endoftext|>"),
    "default_system": (DEFAULT_SYSTEM + CHATML, "<|im_end|>", "<|im_end|>"),
    "llama_3": (LLAMA_3, "<|eot_id|>", "<|eot_id|>"),
    "gemma": (GEMMA, "<end_of_turn>", "<eos>"),
    "mistral": (MISTRAL, "</s>", "</s>"),
    "llama_2": (LLAMA_2, "</s>", "</s>"),
    "phi_3": (PHI_3, "<|end|>", "<|endoftext|>"),
}
TRIMMING = {"llama_3", "gemma", "mistral"}
BOS = {"llama_3": "<|begin_of_text|>", "gemma": "<bos>", "mistral": "<s>", "llama_2": "<s>"}

BYTE_LEVEL = ("byte_level", "pad_is_eos", "adds_bos", "line_breaks_merge")
SENTENCE_PIECE = ("metaspace_first", "metaspace_always", "prefix_by_normalizer")
FAITHFUL = (*BYTE_LEVEL, *SENTENCE_PIECE)


def tokenizer(kind: str, template: str = "chatml") -> PreTrainedTokenizerFast:
    """A tokenizer of a family with a template of the table (or a text); a new one each time."""
    text, _, eos = TEMPLATES.get(template, (template, "", "<|im_end|>"))
    backend = Tokenizer.from_str(_BACKENDS[kind]())
    bos = BOS.get(template, "<s>")
    if kind == "adds_bos":
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos if kind == "pad_is_eos" else "<pad>",
        unk_token=None if kind in BYTE_LEVEL else "[UNK]" if kind == "wordpiece" else "<unk>",
    )
    made.chat_template = text
    return made


def _with_controls(backend: Tokenizer) -> str:
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROLS])
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False, rstrip=True) for name in SWALLOWING])
    return backend.to_str()


@cache
def _byte_level(*more: str) -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([*SENTENCES, *more], trainer)
    return _with_controls(backend)


def _decoder() -> decoders.Decoder:
    """Llama's: the spaces back, bytes fused into characters, and the space before the text taken away."""
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return decoders.Sequence(steps)


@cache
def _metaspace(scheme: str) -> str:
    """SentencePiece's unigram model with bytes for what it does not know, as Transformers 5 builds it."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    lines = [line for sentence in SENTENCES for line in sentence.split("\n") if line]
    trainer = trainers.UnigramTrainer(vocab_size=200, show_progress=False, unk_token="<unk>")
    trained.train_from_iterator(lines, trainer)
    pieces = [(piece, -1.0 - index / 50) for index, piece in enumerate(sorted(trained.get_vocab())) if piece != "<unk>"]
    vocabulary = [("<unk>", 0.0), *((byte, -20.0) for byte in BYTES), *pieces]
    backend = Tokenizer(models.Unigram(vocabulary, 0, True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=scheme == "always")
    backend.decoder = _decoder()
    return _with_controls(backend)


@cache
def _prefix_by_normalizer() -> str:
    """Llama 2's as it was published: the space before a text comes from the normalizer, before every segment."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    lines = [line for sentence in SENTENCES for line in sentence.split("\n") if line]
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=250, show_progress=False))
    learnt = Tokenizer.from_str(trained.to_str())
    merges = [tuple(pair) for pair in _merges(learnt)]
    names = ["<unk>", *BYTES, *sorted(learnt.get_vocab(), key=lambda name: learnt.get_vocab()[name])]
    ids = {name: index for index, name in enumerate(dict.fromkeys(names))}
    backend = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = _decoder()
    return _with_controls(backend)


def _merges(backend: Tokenizer) -> list[list[str]]:
    merges: list[list[str]] = json.loads(backend.to_str())["model"]["merges"]
    return merges


@cache
def _wordpiece() -> str:
    """BERT's: lower case, no white space; it reads and cannot write."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    names = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=names, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    pairs = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=pairs
    )
    return _with_controls(backend)


_BACKENDS = {
    "byte_level": _byte_level,
    "pad_is_eos": _byte_level,
    "adds_bos": _byte_level,
    "line_breaks_merge": lambda: _byte_level(*LINE_BREAKS),
    "metaspace_first": lambda: _metaspace("first"),
    "metaspace_always": lambda: _metaspace("always"),
    "prefix_by_normalizer": _prefix_by_normalizer,
    "wordpiece": _wordpiece,
}
