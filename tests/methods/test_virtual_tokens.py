"""Prompt tuning, P-tuning and prefix tuning beside PEFT, the oracle: the same logits, answers and files."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_config, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    T5ForConditionalGeneration,
)

import pegbox
from pegbox.errors import RecipeError
from pegbox.finished import Run
from pegbox.methods import METHODS, peft, peft_settings, virtual_tokens
from pegbox.methods.virtual_cache import View, ViewedLayer
from pegbox.methods.virtual_tokens import VirtualTokens
from pegbox.models import transformers_loop
from pegbox.models.generation import Kept, generate, stream
from pegbox.models.heads import new_heads
from pegbox.models.likelihood import log_likelihoods
from pegbox.models.load import load_model
from pegbox.models.packing import enable_packing
from pegbox.recipe import Peft
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows
from tiny_models import CONFIGS, examples, rows, tiny, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:::peft")
COUNT = 4
TYPES = ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"]
DECODERS = ["llama", "gpt2", "opt", "bloom", "mistral", "gemma2"]  # rotary, learnt and ALiBi positions; sliding windows
IDS = torch.tensor([[*row, *[0] * (9 - len(row))] for row in rows([9, 4])])
MASK = torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
REAL = MASK.bool()
PADDED = {"input_ids": IDS, "attention_mask": MASK}


def settings(peft_type: str, **options: Any) -> Peft:
    return Peft(peft_type=peft_type, num_virtual_tokens=COUNT, **options)


def built(kind: str) -> Any:
    name, _, head = kind.partition(" ")
    if head == "tokens":
        return tiny(name, head=AutoModelForTokenClassification, num_labels=3)
    return tiny_classifier(name, num_labels=3) if head == "classifier" else tiny(name)


def prepared(kind: str, peft_type: str, **options: Any) -> Any:
    model = built(kind)
    peft.prepare(model, settings(peft_type, **options), seed=3)
    return model


def saved(model: Any, folder: Path) -> Path:
    peft.save(model, settings("PROMPT_TUNING"), folder, base="some/model")
    return folder


def theirs(kind: str, folder: Path) -> Any:
    """What PEFT makes of our folder."""
    return PeftModel.from_pretrained(built(kind), str(folder)).eval()


# ---- logits ----------------------------------------------------------------------------------------------------------


def check_logits_are_pefts(kind: str, peft_type: str, folder: Path, **more: Any) -> None:
    """On a padded batch, at real places. What PEFT gives for its virtual tokens stands before."""
    model = prepared(kind, peft_type)
    for head in new_heads(model).values():
        torch.nn.init.normal_(next(head.parameters()), std=0.1)
    oracle = theirs(kind, saved(model, folder))
    with torch.no_grad():
        ours, wanted = model(**PADDED, **more).logits, oracle(**PADDED, **more).logits
        plain = built(kind)(**PADDED, **more).logits
    if ours.ndim == 3:
        ours, wanted, plain = ours[REAL], wanted[:, -IDS.shape[1] :][REAL], plain[REAL]
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    assert (ours - plain).abs().max() > 0.01, "virtual tokens change nothing"


@pytest.mark.parametrize("peft_type", TYPES)
@pytest.mark.parametrize("kind", [*DECODERS, "llama tokens"])
def test_training_logits_are_pefts(kind: str, peft_type: str, tmp_path: Path) -> None:
    check_logits_are_pefts(kind, peft_type, tmp_path)


ENCODERS = ["bert classifier", "roberta classifier", "bert tokens"]


@pytest.mark.parametrize("peft_type", TYPES)
@pytest.mark.parametrize("kind", [*ENCODERS, "distilbert classifier", "mpnet tokens"])
def test_an_encoders_logits_are_pefts(kind: str, peft_type: str, tmp_path: Path) -> None:
    if peft_type == "PREFIX_TUNING" and kind not in ENCODERS:
        with pytest.raises(RecipeError, match="takes no keys and values"):
            prepared(kind, peft_type)
        return
    check_logits_are_pefts(kind, peft_type, tmp_path)


def test_token_types_are_those_of_the_first_segment(tmp_path: Path) -> None:
    check_logits_are_pefts("bert classifier", "PROMPT_TUNING", tmp_path, token_type_ids=MASK)


def behind_the_text(
    self: VirtualTokens, model: Any, args: Any, kwargs: Any, right: Any = VirtualTokens.before_model
) -> Any:
    _, given = right(self, model, args, kwargs)
    return (), given | {name: given[name].roll(-COUNT, 1) for name in ("inputs_embeds", "attention_mask")}


def test_the_check_sees_a_first_place_that_is_not_virtual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VirtualTokens, "before_model", behind_the_text)
    with pytest.raises(AssertionError):
        check_logits_are_pefts("roberta classifier", "PROMPT_TUNING", tmp_path)


def test_a_decoder_pools_its_last_real_token(tmp_path: Path) -> None:
    """PEFT pools the last place of a batch, so that it is asked row by row."""
    for peft_type in TYPES:
        model = prepared("llama classifier", peft_type)
        oracle = theirs("llama classifier", saved(model, tmp_path / peft_type))
        for row, real in zip(IDS, REAL, strict=True):
            with torch.no_grad():
                wanted = oracle(input_ids=row[real][None], attention_mask=MASK[:1, : real.sum()]).logits
                torch.testing.assert_close(model(row[real][None]).logits, wanted, rtol=0, atol=1e-5)
        with torch.no_grad():
            alone = [model(row[real][None]).logits for row, real in zip(IDS, REAL, strict=True)]
            torch.testing.assert_close(model(**PADDED).logits, torch.cat(alone), rtol=0, atol=1e-5)


# ---- answers ---------------------------------------------------------------------------------------------------------

PROMPTS = rows([1, 7, 3, 2], prefix=2)  # in windows of five the virtual tokens are seen by some and not by others
NEW = 8


def alone(oracle: Any, prompt: tuple[int, ...]) -> tuple[list[int], float]:
    """PEFT's greedy answer to one prompt, and how far the second best token was behind at the closest."""
    given = torch.tensor([prompt])
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    out = oracle.generate(input_ids=given, attention_mask=torch.ones_like(given), **options)
    best = torch.cat(out.logits).topk(2).values
    return [token for token in out.sequences[0, len(prompt) :].tolist() if token != 2], (
        best[:, 0] - best[:, 1]
    ).min().item()


def check_answers_are_pefts(kind: str, peft_type: str, folder: Path) -> None:
    """In a batch with padding on the left and a shared prefix, each row gets the answer that PEFT gives it alone."""
    model = prepared(kind, peft_type)
    oracle = theirs(kind, saved(model, folder))
    found = generate(model, PROMPTS, stop_ids=frozenset({2}), max_new_tokens=NEW, batch_size=3)
    changed = []
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids, margin = alone(oracle, prompt)
        assert answer.input_ids == ids
        assert answer.margin == pytest.approx(margin, abs=1e-5)
        changed.append(abs(margin - alone(built(kind), prompt)[1]) > 1e-4)
    assert any(changed), "virtual tokens change nothing"


@pytest.mark.parametrize("peft_type", TYPES)
@pytest.mark.parametrize("kind", DECODERS)
def test_answers_in_a_batch_are_those_that_peft_gives_alone(kind: str, peft_type: str, tmp_path: Path) -> None:
    check_answers_are_pefts(kind, peft_type, tmp_path)


def not_shifted(
    self: VirtualTokens, trunk: Any, args: Any, kwargs: Any, right: Any = VirtualTokens.before_trunk
) -> Any:
    _, given = right(self, trunk, args, kwargs)
    if kwargs.get("position_ids") is not None:
        given["position_ids"] = kwargs["position_ids"]
    return (), given


def far_away(self: VirtualTokens, mask: torch.Tensor) -> Any:
    return torch.cat([mask.new_ones(len(mask), self.count), mask], dim=1), None


def masked(self: VirtualTokens, mask: torch.Tensor) -> Any:
    return torch.cat([mask.new_zeros(len(mask), self.count), mask], dim=1), None


@pytest.mark.parametrize(
    ("name", "bug", "kind", "seen"),
    [
        ("before_trunk", not_shifted, "llama", AssertionError),  # real tokens at the positions of virtual ones
        ("_lengthened", masked, "llama", RecipeError),  # virtual tokens that nobody sees: seen before training
        ("_lengthened", far_away, "mistral", AssertionError),  # padding between them and the text, counted by a window
    ],
)
def test_the_check_sees_a_wrong_place(
    name: str, bug: Any, kind: str, seen: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VirtualTokens, name, bug)
    with pytest.raises(seen):
        check_answers_are_pefts(kind, "PREFIX_TUNING", tmp_path)


@pytest.mark.parametrize("peft_type", ["PROMPT_TUNING", "PREFIX_TUNING"])
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_other_ways_to_go_on_give_the_same(kind: str, peft_type: str, tmp_path: Path) -> None:
    """Transformers' own loop, whose cache forgets what is outside a window; and turns of a conversation."""
    model = prepared(kind, peft_type)
    oracle = theirs(kind, saved(model, tmp_path))
    kept, stop = Kept(), frozenset({2})
    for prompt in PROMPTS:
        wanted, _ = alone(oracle, prompt)
        told = transformers_loop.greedy_logits(model, prompt, stop, NEW)
        assert [token for token in torch.cat(list(told)).argmax(-1).tolist() if token != 2] == wanted
        assert list(stream(model, prompt, stop_ids=stop, max_new_tokens=NEW, kept=kept)) == wanted


def test_the_cache_that_comes_back_is_the_callers_and_has_real_tokens_only() -> None:
    for peft_type in TYPES:
        model = prepared("llama", peft_type)
        with torch.no_grad():
            whole = model(IDS[:1])
            begun = model(IDS[:1, :5])
            assert not isinstance(begun.past_key_values, View)
            assert begun.past_key_values.get_seq_length() == 5
            rest = model(IDS[:1, 5:], past_key_values=begun.past_key_values)
        assert rest.past_key_values is begun.past_key_values
        torch.testing.assert_close(rest.logits, whole.logits[:, 5:], rtol=0, atol=1e-5)


def test_likelihoods_are_those_of_pefts_logits(tmp_path: Path) -> None:
    answers = rows([2, 3], seed=5)
    for peft_type in TYPES:
        model = prepared("llama", peft_type)
        oracle = theirs("llama", saved(model, tmp_path / peft_type))
        found = log_likelihoods(model, PROMPTS[:2], answers)
        for prompt, row in zip(PROMPTS, found, strict=False):
            for answer, value in zip(answers, row, strict=True):
                with torch.no_grad():
                    logits = oracle(input_ids=torch.tensor([prompt + answer[:-1]])).logits[0, -len(answer) :]
                wanted = -cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
                assert value == pytest.approx(wanted, abs=1e-4)


def check_what_is_computed_once_follows_the_vectors() -> None:
    model = prepared("llama", "PROMPT_TUNING")
    with torch.no_grad():
        first = model(IDS).logits
        assert torch.equal(model(IDS).logits, first)
        next(virtual_tokens.find(model).parameters()).data += 1
        assert not torch.equal(model(IDS).logits, first), "what was computed once is stale"


def test_what_is_computed_once_is_computed_anew_when_the_vectors_have_changed() -> None:
    check_what_is_computed_once_follows_the_vectors()


def test_the_check_sees_stale_keys_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_tokens, "_refuse_deaf", lambda *args: None)  # which would see it, too
    monkeypatch.setattr(virtual_tokens.Computed, "serves", lambda *args: True)
    with pytest.raises(AssertionError, match="stale"):
        check_what_is_computed_once_follows_the_vectors()


@pytest.mark.parametrize("peft_type", TYPES)
def test_a_pack_is_refused_and_the_model_pads(peft_type: str) -> None:
    model, given = prepared("llama", peft_type), examples([5, 1, 9], prefix=6)
    assert enable_packing(built("llama"), given)
    assert not enable_packing(model, given)
    assert model.config._attn_implementation == "sdpa"


# ---- what learns -----------------------------------------------------------------------------------------------------


def digests(model: Any, learnt: bool) -> dict[str, str]:
    return {
        name: hashlib.sha256(parameter.detach().numpy().tobytes()).hexdigest()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad == learnt
    }


def check_just_the_vectors_learn(kind: str, peft_type: str, **options: Any) -> None:
    model = prepared(kind, peft_type, **options).train()
    frozen, start, reached = digests(model, learnt=False), digests(model, learnt=True), set()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        logits = model(**PADDED).logits.flatten(0, -2)
        cross_entropy(logits, torch.arange(len(logits)) % 3).backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
        optimizer.step()
        optimizer.zero_grad()
    assert reached == set(start), f"reached by no gradient, or by one too many: {sorted(reached ^ set(start))}"
    assert digests(model, learnt=False) == frozen
    heads = {f"{head}.{name}" for head, module in new_heads(model).items() for name, _ in module.named_parameters()}
    assert {name for name in start if ".virtual_tokens.encoder." not in name} == heads
    assert frozen.keys() | start.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize(
    ("peft_type", "options"),
    [
        ("PROMPT_TUNING", {}),
        ("P_TUNING", {}),
        ("P_TUNING", {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 8}),
        ("PREFIX_TUNING", {}),
        ("PREFIX_TUNING", {"prefix_projection": True, "encoder_hidden_size": 8}),
    ],
)
@pytest.mark.parametrize("kind", ["llama", "bert classifier"])
def test_the_vectors_learn_and_new_heads_and_nothing_else(kind: str, peft_type: str, options: dict[str, Any]) -> None:
    check_just_the_vectors_learn(kind, peft_type, **options)


def test_the_check_sees_vectors_that_no_gradient_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    right = VirtualTokens.vectors
    monkeypatch.setattr(VirtualTokens, "vectors", lambda self: right(self).detach())
    with pytest.raises(AssertionError, match="virtual_tokens"):
        check_just_the_vectors_learn("bert classifier", "PROMPT_TUNING")


def peft_made(kind: str, peft_type: str, **options: Any) -> Any:
    """PEFT's own model, drawn as ours is."""
    base = built(kind)
    task = {"": "CAUSAL_LM", "classifier": "SEQ_CLS", "tokens": "TOKEN_CLS"}[kind.partition(" ")[2]]
    told = {"peft_type": peft_type, "task_type": task, "num_virtual_tokens": COUNT, "inference_mode": False, **options}
    config = get_peft_config(told | {"modules_to_save": list(new_heads(base)) or None})
    torch.manual_seed(3)
    return get_peft_model(base, config).eval()


@pytest.mark.parametrize("peft_type", TYPES)
@pytest.mark.parametrize("kind", ["llama", "gemma2", "bert classifier"])
def test_as_many_numbers_learn_as_in_peft_and_they_start_as_there(kind: str, peft_type: str) -> None:
    ours, other = prepared(kind, peft_type), peft_made(kind, peft_type)
    learnt = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in learnt.values()) == other.get_nb_trainable_parameters()[0]
    start = other.get_prompt_embedding_to_save("default")
    assert torch.equal(virtual_tokens.find(ours).learnt(), start)


def test_a_text_to_start_from_is_cut_by_the_models_own_tokenizer(tmp_path: Path) -> None:
    folder = causal_folder(tmp_path / "model")
    model, text = load_model(folder, "causal_lm"), "Answer in one word."
    asked = Peft(
        peft_type="PROMPT_TUNING", num_virtual_tokens=3, prompt_tuning_init="TEXT", prompt_tuning_init_text=text
    )
    peft.prepare(model, asked, seed=0)
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:3]
    assert torch.equal(virtual_tokens.find(model).learnt(), model.get_input_embeddings().weight[ids])
    peft.save(model, asked, tmp_path / "run", base="some/model")
    assert json.loads((tmp_path / "run" / "adapter_config.json").read_text())["tokenizer_name_or_path"] == "some/model"
    peft.restore(load_model(folder, "causal_lm"), None, tmp_path / "run")


# ---- on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peft_type", TYPES)
@pytest.mark.parametrize("kind", ["opt", "bert classifier"])
def test_vectors_and_heads_come_back_to_the_bit(kind: str, peft_type: str, tmp_path: Path) -> None:
    model, fresh = prepared(kind, peft_type), built(kind)
    for head in new_heads(fresh).values():
        torch.nn.init.normal_(next(head.parameters()))
    peft.restore(fresh, None, saved(model, tmp_path))
    with torch.no_grad():
        assert torch.equal(fresh(**PADDED).logits, model(**PADDED).logits)
    assert torch.equal(
        virtual_tokens.find(fresh).learnt(), load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"]
    )


@pytest.mark.parametrize("peft_type", TYPES)
@pytest.mark.parametrize("kind", ["llama", "bert classifier"])
def test_we_load_a_folder_that_peft_wrote(kind: str, peft_type: str, tmp_path: Path) -> None:
    other, ours = peft_made(kind, peft_type), built(kind)
    other.save_pretrained(str(tmp_path))
    peft.restore(ours, None, tmp_path)
    with torch.no_grad():
        ours_say, they_say = ours(**PADDED).logits, other(**PADDED).logits
    if ours_say.ndim == 3:
        ours_say, they_say = ours_say[REAL], they_say[:, -IDS.shape[1] :][REAL]
    torch.testing.assert_close(ours_say, they_say, rtol=0, atol=1e-5)


@pytest.mark.parametrize("damage", ["lost", "too many", "too few tokens"])
def test_restore_is_strict(damage: str, tmp_path: Path) -> None:
    file = saved(prepared("bert classifier", "PROMPT_TUNING"), tmp_path) / "adapter_model.safetensors"
    told = load_file(file)
    if damage == "lost":
        del told["base_model.classifier.weight"]
    if damage == "too many":
        told["base_model.other.weight"] = torch.zeros(2)
    if damage == "too few tokens":
        told["prompt_embeddings"] = told["prompt_embeddings"][:1].clone()
    save_file(told, file)
    with pytest.raises(RecipeError, match="does not fit") as refused:
        peft.restore(built("bert classifier"), None, tmp_path)
    assert refused.value.where == str(tmp_path)


# ---- refused ---------------------------------------------------------------------------------------------------------


def masked_lm() -> Any:
    return tiny("bert", head=AutoModelForMaskedLM)


def encoder_decoder() -> Any:
    from transformers import T5Config

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=64, **sizes)).eval()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (masked_lm, "masked language models"),
        (encoder_decoder, "encoder-decoders"),
        (lambda: tiny("lfm2"), "no attention"),
        (lambda: tiny("llama4"), "no attention"),
    ],
)
@pytest.mark.parametrize("peft_type", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_models_that_cannot_have_virtual_tokens_are_refused(peft_type: str, make: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told) as refused:
        peft.prepare(make(), settings(peft_type), seed=0)
    assert refused.value.cure and refused.value.where == "method.peft_type"


def test_a_number_of_tokens_is_at_least_one_and_sizes_must_fit() -> None:
    with pytest.raises(RecipeError, match="at least 1"):
        peft.prepare(built("llama"), Peft(peft_type="PROMPT_TUNING", num_virtual_tokens=0), seed=0)
    with pytest.raises(RecipeError, match="cannot have such virtual tokens"):
        peft.prepare(built("llama"), settings("PROMPT_TUNING", token_dim=7), seed=0)
    model = built("llama")
    peft.prepare(model, Peft(peft_type="PROMPT_TUNING"), seed=0)
    assert virtual_tokens.find(model).count == peft_settings.VIRTUAL_TOKENS


def test_a_model_that_ignores_the_cache_is_refused_and_not_trained_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ViewedLayer, "_joined", lambda self, own, real: real)
    monkeypatch.setattr(VirtualTokens, "_lengthened", lambda self, mask: (mask, None))
    with pytest.raises(RecipeError, match="takes no keys and values"):
        prepared("bert classifier", "PREFIX_TUNING")


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bert classifier", "roberta classifier"])
def test_rows_beyond_the_models_places_are_a_clear_error(kind: str) -> None:
    model, places = prepared(kind, "PROMPT_TUNING"), CONFIGS[kind.partition(" ")[0]]().max_position_embeddings
    places -= 2 if kind.startswith("roberta") else 0  # those up to the padding token's are not used
    with torch.no_grad():
        model(torch.ones(1, places - COUNT, dtype=torch.long), attention_mask=torch.ones(1, places - COUNT))
    with pytest.raises(RecipeError, match="places") as refused:
        model(torch.ones(1, places - COUNT + 1, dtype=torch.long), attention_mask=torch.ones(1, places - COUNT + 1))
    assert str(places - COUNT) in str(refused.value.cure)


def test_merging_says_why_it_cannot_be() -> None:
    with pytest.raises(RecipeError, match="stand before the text"):
        peft.merge(prepared("llama", "PREFIX_TUNING"), None)


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peft_type", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_a_whole_run_answers_as_peft_does(peft_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "peft", sys.modules["pegbox.methods.peft"])
    folder, file = causal_folder(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl", sums(60))
    method = {"kind": "peft", "peft_type": peft_type, "num_virtual_tokens": COUNT}
    train = {"max_steps": 3, "batch_size": 8, "learning_rate": 0.1}
    run = pegbox.train(chat_recipe(folder, file, method=method, train=train), run_dir=tmp_path / "run")
    assert not run.receipt["plan"]["packed"]
    lines = list(run.folder.read_lines("predictions.jsonl"))[:4]
    assert Run(run.path).predict([{"prompt": line["input"]} for line in lines]) == [
        line["answers"]["tuned"] for line in lines
    ]
    tuned = PeftModel.from_pretrained(load_model(folder, "causal_lm", kernels=False), str(run.folder.model)).eval()
    ids = run.prompt(lines[0]["input"])
    found = generate(run.model, [ids], stop_ids=run.task.renderer.stop_ids, max_new_tokens=6)[0].input_ids
    out = tuned.generate(input_ids=torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :].tolist()
    assert out[: len(found)] == found


def test_a_whole_run_of_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "peft", sys.modules["pegbox.methods.peft"])
    texts = [
        {"text": f"light {row['prompt']}", "label": label}
        for row, label in zip(sums(60), ["on", "off"] * 30, strict=True)
    ]
    file = write_rows(tmp_path / "rows.jsonl", texts)
    method = {"kind": "peft", "peft_type": "PROMPT_TUNING", "num_virtual_tokens": COUNT}
    recipe = chat_recipe(encoder_folder(tmp_path / "model"), file, task="classification", method=method)
    run = pegbox.train(recipe | {"train": {"max_steps": 3, "batch_size": 8}}, run_dir=tmp_path / "run")
    lines = list(run.folder.read_lines("predictions.jsonl"))[:4]
    assert run.predict([{"text": line["input"]} for line in lines]) == [line["answers"]["tuned"] for line in lines]
