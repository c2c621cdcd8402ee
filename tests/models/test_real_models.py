"""The two models that packages carry, for real: SmolLM2 out of its GGUF file, and MiniLM.

What a wrong conversion would look like is put in on purpose and measured beside the right one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bpe_oracle import encode, ranks_of, strings
from tiny_gguf import permute
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pegbox.models import packages

pytestmark = pytest.mark.real_model

SMOL, MINILM = "HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = strings(1000)
LOW, HIGH = 24.5, 25.6  # perplexity of the page below: 25.05, to the last digit that of Transformers' reader of GGUF

PAGE = """
The town lies where the river leaves the hills and begins to wander across the plain. For most of its history it was
known for two things: the bridge, which was for a long time the only one within a day's walk, and the market, which was
held under its arches when it rained. Farmers brought apples, cheese and wool; in the evening they went home with
nails, salt and news. The bridge was built of grey stone by people whose names nobody wrote down. It has been repaired
so often that hardly a stone of the first one can be left, and yet everyone speaks of it as the old bridge, as if it
had never changed.

When the railway came, the market moved to the new square in front of the station, and the quarter by the river became
quiet. The warehouses stood empty for years. Children played in them although they were told not to, and in spring,
when the snow melted in the hills, the water sometimes rose as far as their doors. My grandmother remembered one flood
that carried away a whole boat house with a dog on its roof. The dog, she said, was found unharmed the next morning,
sitting in a field and looking rather pleased with itself.

Today the warehouses are full again. There is a bakery in one of them, a school of music in another, and in the largest
a company that makes instruments for measuring the quality of water. It employs about two hundred people, more than the
mill ever did. On Saturdays the market is held by the river once more, because the square has become a car park. The
farmers complain about the steps, the tourists take pictures of the arches, and the old men who sit on the wall explain
to anyone who will listen that everything used to be better, except for the bread.

What has not changed is the sound. If you stand in the middle of the bridge late at night, when the last train has
gone, you can hear the water pushing against the stone below you, always in the same place and never in quite the same
way. Visitors often ask how old the bridge really is. The honest answer is that it depends on what you mean by the
bridge, and that nobody who lives here has ever needed to know.
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    return packages.fetch(SMOL)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def perplexity(model: Any, tokenizer: Any) -> float:
    ids = torch.tensor([tokenizer(" ".join(PAGE.split())).input_ids])
    return math.exp(model(ids, labels=ids).loss.item())


def answer(model: Any, tokenizer: Any, question: str, count: int = 24) -> tuple[str, bool]:
    """The greedy answer, and whether the model ended it by itself."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
    )
    out = model.generate(**prompt, max_new_tokens=count, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    return tokenizer.decode(out, skip_special_tokens=True), int(out[-1]) == tokenizer.eos_token_id


# --- SmolLM2: the weights ---


def test_weights_are_bitwise_those_that_transformers_own_reader_of_gguf_gives(model: Any) -> None:
    """The digest was taken from that reader's state dict of the same file (272 tensors); the file is not kept here."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if name != "lm_head.weight":  # tied: the embedding once more
            digest.update(f"{name} {list(weight.shape)} {weight.dtype}\n".encode())
            digest.update(weight.numpy().tobytes())
    assert digest.hexdigest() == "3c9a2ed272b29c6429fc27f1d5dd5fbecf39dcdea2b70ece4243aac993c3477e"


def test_the_output_matrix_is_the_embedding_matrix(model: Any, folder: Path) -> None:
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert (folder / "model.safetensors").stat().st_size < 540e6


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("What is the capital of France?", "Paris"),
        ("What colour is the sky on a clear day?", "blue"),
    ],
)
def test_greedy_answers_are_fluent(model: Any, tokenizer: Any, question: str, word: str) -> None:
    text, _ = answer(model, tokenizer, question)
    print(f"{question} -> {text!r}")
    assert word in text


def test_an_answer_ends_by_itself(model: Any, tokenizer: Any) -> None:
    assert answer(model, tokenizer, "What is the capital of France?")[1]


@pytest.fixture(scope="module")
def right(model: Any, tokenizer: Any) -> float:
    return perplexity(model, tokenizer)


def test_perplexity_of_plain_english_is_sensible(right: float) -> None:
    print(f"perplexity {right:.3f}")
    assert LOW < right < HIGH


@contextmanager
def permuted(model: Any) -> Iterator[None]:
    """Rows of the query and key weights as llama.cpp orders them."""
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    weights = [(getattr(layer.self_attn, kind).weight, heads[kind]) for layer in model.model.layers for kind in heads]
    before = [weight.data.clone() for weight, _ in weights]
    for weight, count in weights:
        weight.data = torch.from_numpy(permute(weight.data.numpy(), count))
    yield
    for (weight, _), data in zip(weights, before, strict=True):
        weight.data = data


@contextmanager
def rope_theta(model: Any, theta: float) -> Iterator[None]:
    rotary = model.model.rotary_emb
    before = rotary.inv_freq
    size = model.config.head_dim
    rotary.inv_freq = theta ** -(torch.arange(0, size, 2).float() / size)
    yield
    rotary.inv_freq = before


BUGS: dict[str, Callable[[Any], Any]] = {
    "query and key not put back": permuted,
    "rope_theta 10,000": lambda model: rope_theta(model, 1e4),
    "rope_theta 500,000": lambda model: rope_theta(model, 5e5),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_conversion_leaves_the_bracket(model: Any, tokenizer: Any, bug: str) -> None:
    with BUGS[bug](model):
        value = perplexity(model, tokenizer)
    print(f"{bug}: perplexity {value:.1f}")
    assert not LOW < value < HIGH


def test_the_bug_free_rope_helper_changes_nothing(model: Any, tokenizer: Any, right: float) -> None:
    """The two rope bugs above differ from the model in their theta alone."""
    with rope_theta(model, model.config.rope_parameters["rope_theta"]):
        assert perplexity(model, tokenizer) == pytest.approx(right, rel=1e-5)


# --- SmolLM2: the tokenizer ---

# Ids of the publisher's own tokenizer, as several public projects' tests state them.
PUBLISHED_IDS = {
    "The year 2024 had 365 days; 12 months.": "504 713 216 34 32 34 36 761 216 35 38 37 2009 43 216 33 34 2704 30",
    "  leading and   multiple   spaces  ": "216 2899 284 256 2701 256 5600 256",
    "12345 123 1 42 999": "33 34 35 36 37 216 33 34 35 216 33 216 36 34 216 41 41 41",
    "line1\nline2\nline3": "1311 33 198 1311 34 198 1311 35",
    "Tab\there\nNewline\n\nDouble": "30064 197 1531 198 5529 1311 198 198 33743",
    "def f(n):\n    return n+1\n": "1604 275 24 94 727 472 1003 304 27 33 198",
    "a,b,c...   ???!!!  <tag>": "81 28 82 28 83 2026 256 9148 16693 29646 216 2067 9204 46",
    "I'm CAN'T don't": "57 5248 27190 23 68 1326 982",
    "Grüße, café!": "27302 7170 34878 85 28 37366 17",
    "né 日本語のテキスト": "94 2756 17097 241 115 40993 179 120 248 26453 11100 224 10391 251 10391 134 11100 226",
    "Hello<|endoftext|>world": "19556 0 6693",
}
CHAT_IDS = (
    "1 9690 198 2683 359 253 5356 5646 11173 3365 3511 308 34519 28 7018 411 407 19712 8182 2 198"
    " 1 4093 198 1780 314 260 3575 282 4649 47 2 198 1 520 9531 198"
)


def ids_of(text: str) -> list[int]:
    return [int(number) for number in text.split()]


@pytest.mark.parametrize("text", PUBLISHED_IDS)
def test_ids_are_the_published_ones(tokenizer: Any, text: str) -> None:
    assert tokenizer(text).input_ids == ids_of(PUBLISHED_IDS[text])


def test_a_conversation_is_rendered_as_published(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert rendered["input_ids"] == ids_of(CHAT_IDS)


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Tokens and the ranks of merges, proved by digest to be those of the GGUF file's metadata, in its order."""
    bpe = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = "\n".join(sorted(bpe["vocab"], key=bpe["vocab"].get))
    merges = "\n".join(" ".join(pair) for pair in bpe["merges"])
    assert (
        hashlib.sha256(tokens.encode()).hexdigest()
        == "d1f2ce856b324081b621d9e2e8dbd22879f462329f3fd4aa39fa758dddb2ce55"
    )
    assert (
        hashlib.sha256(merges.encode()).hexdigest()
        == "aea6ed50becdb3beed814d2fde2dea2e655d1039addf269d74a4708ce2ed4d63"
    )
    return bpe["vocab"], ranks_of(bpe["merges"])


def wrong(tokenizer: Tokenizer, vocabulary: tuple[dict[str, int], dict[tuple[str, str], int]]) -> int:
    """How many of the thousand strings get other ids than the slow BPE under the published rule gives."""
    return sum(tokenizer.encode(text).ids != encode(text, "smollm", *vocabulary) for text in TEXTS)


def test_a_thousand_strings_are_cut_as_published(folder: Path, tokenizer: Any, vocabulary: Any) -> None:
    assert sum(any(c.isdigit() for c in text) for text in TEXTS) > 500
    assert sum("  " in text for text in TEXTS) > 400
    assert sum("\n" in text for text in TEXTS) > 400
    assert wrong(Tokenizer.from_file(str(folder / "tokenizer.json")), vocabulary) == 0
    assert all(tokenizer(text).input_ids == encode(text, "smollm", *vocabulary) for text in TEXTS)


def test_a_lost_pre_tokenizer_is_found_although_every_text_comes_back(folder: Path, vocabulary: Any) -> None:
    lost = Tokenizer.from_file(str(folder / "tokenizer.json"))
    kept = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lost.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert [lost.decode(lost.encode(t).ids) for t in TEXTS] == [kept.decode(kept.encode(t).ids) for t in TEXTS]
    count = wrong(lost, vocabulary)
    print(f"GPT-2's rule alone: {count} of {len(TEXTS)} strings get other ids")
    assert count > 50


def test_special_tokens_are_the_published_ones(folder: Path, tokenizer: Any) -> None:
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert named == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer.extra_special_tokens == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer.decode(range(17), skip_special_tokens=True) == ""
    assert tokenizer.decode(range(17, 20), skip_special_tokens=True) == '!"#'
    assert tokenizer.model_max_length == 8192
    generation = GenerationConfig.from_pretrained(folder)
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 2)


# --- MiniLM ---


def test_minilm_is_a_whole_hub_folder_without_pickles() -> None:
    files = {path.relative_to(path.parents[0]).name for path in packages.fetch(MINILM).rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"} <= files
    assert all(name.endswith((".json", ".txt", ".safetensors")) for name in files)


@torch.no_grad()
def test_minilm_puts_alike_sentences_together() -> None:
    folder = packages.fetch(MINILM)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("hello world").input_ids == [101, 7592, 2088, 102]
    sentences = ["A man is eating food.", "Somebody has a meal.", "The stock market fell sharply."]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    hidden = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    alike, unlike = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    print(f"cosine: alike {alike:.3f}, unlike {unlike:.3f}")
    assert alike > 0.5 and unlike < 0.2
