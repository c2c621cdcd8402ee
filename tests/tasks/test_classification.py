"""One label a text, on encoders, decoders and encoder-decoders (INVARIANTS rows 9, 12, 22, 27, 35).

What is checked first is that a row's outputs hang on the row alone: not on padding, on a pack, or on the rows beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_tokenizers import tokenizer
from tokenizers import processors
from transformers import AutoModelForSequenceClassification, BartConfig, PreTrainedModel, T5Config

import pegbox
import tiny_models
from made_tasks import made_task
from pegbox.data.records import Example, LabelledText, Record
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.finished import Run
from pegbox.methods import METHODS
from pegbox.models import batch as batches
from pegbox.models.batch import Batch
from pegbox.models.load import load_model
from pegbox.models.outputs import hidden_states
from pegbox.models.packing import enable_packing
from pegbox.runs.checkpoint import trainable
from pegbox.tasks.classification import Classification
from tiny_folder import chat_recipe, encoder_folder, write_rows
from tiny_models import VOCABULARY, tiny_classifier

Trained = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]

LENGTHS = [9, 4, 13, 1, 6]
PAD, EOS = 0, 2
SMALL = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": EOS, "num_labels": 3}


def t5(**options: Any) -> T5Config:
    size = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    return T5Config(**{**SMALL, **size, "decoder_start_token_id": PAD, **options})


def bart(**options: Any) -> BartConfig:
    sides = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in SIDE.items()}
    rest = {"d_model": 32, "max_position_embeddings": 64, "dropout": 0.0, "decoder_start_token_id": EOS}
    return BartConfig(**{**SMALL, **sides, **rest, "bos_token_id": 1, "forced_eos_token_id": EOS, **options})


SIDE = {"layers": 2, "attention_heads": 4, "ffn_dim": 48}
BOTH_SIDES: dict[str, Callable[..., Any]] = {"t5": t5, "bart": bart}
DECODERS = ["llama", "qwen2", "gpt2", "opt"]


def model_of(name: str, pad: int = PAD) -> Any:
    """A tiny classifier of three labels, in float64 throughout."""
    if name not in BOTH_SIDES:
        return tiny_classifier(name, num_labels=3, pad_token_id=pad, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(BOTH_SIDES[name]())
    for module in model.modules():
        if type(module).__name__ == "T5LayerNorm":
            module.forward = partial(tiny_models._norm, module)
    return model.double().eval()


@pytest.fixture(scope="module")
def task() -> Classification:
    """A task of the labels a, b, c; its tokenizer pads with `<pad>`."""
    records = [labelled(f"text {label}", label) for label in "abc"]
    made = made_task("classification", Renderer(tokenizer("byte_level"), []), records)
    assert isinstance(made, Classification)
    return made


def labelled(text: str, label: str, pair: str | None = None) -> Record:
    return Record(text, LabelledText(text, label, pair))


def rows_of(name: str, pad: int = PAD) -> list[Example]:
    """Rows of unequal length, of the three classes; all end in the end-of-text token where the model needs it.

    Where that token pads as well, some texts end in it and one has it in its midst.
    """
    found = []
    for index, ids in enumerate(tiny_models.rows(LENGTHS, prefix=3)):
        ends = (EOS,) * (index % 3) if pad == EOS else (EOS,) if name in BOTH_SIDES else ()
        midst = (EOS, 5, 7) if pad == EOS and index == 2 else ()
        found.append(Example(f"row {index}", ids + midst + ends, targets=(float(index % 3),)))
    return found


def padded(examples: Sequence[Example], pad: int = PAD) -> Batch:
    return batches.pad(examples, pad)


def trained(task: Classification, model: PreTrainedModel, given: Sequence[Batch]) -> Trained:
    """The outputs of all rows, the loss per row, and its gradient."""
    model.zero_grad()
    outputs, total, weight = [], torch.zeros((), dtype=torch.float64), 0.0
    for batch in given:
        outputs.append(task.scored(model, batch)[0].detach())
        part, part_weight = task.loss(model, batch)
        total, weight = total + part, weight + part_weight
    (total / weight).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return torch.cat(outputs), (total / weight).detach(), gradients


def check_the_same(one: Trained, other: Trained) -> None:
    assert one[2].keys() == other[2].keys()
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


# ---- padding and packs (rows 9 and 12) -------------------------------------------------------------------------------


def check_rows_hang_on_themselves(task: Classification, name: str, pad: int = PAD) -> None:
    """Outputs, loss and gradient of rows alone, all together, and beside a row so long that all are padded.

    A decoder's are those of the head at the row's last token, whichever that is.
    """
    model, rows = model_of(name, pad), rows_of(name, pad)
    alone = trained(task, model, [padded([row], pad) for row in rows])
    check_the_same(trained(task, model, [padded(rows, pad)]), alone)
    if name in DECODERS:
        states = [model.base_model(torch.tensor([row.input_ids])).last_hidden_state[0, -1] for row in rows]
        torch.testing.assert_close(alone[0], model.score(torch.stack(states)), rtol=0, atol=1e-10)
    ends = (EOS,) if name in BOTH_SIDES else ()
    longest = Example("longest", tiny_models.rows([40], seed=1)[0] + ends, targets=(0.0,))
    beside = task.scored(model, padded([*rows, longest], pad))[0][:-1]
    torch.testing.assert_close(beside, alone[0], rtol=0, atol=1e-10)
    assert not torch.allclose(alone[0][0], alone[0][1], atol=1e-3)  # rows differ, so a mistaken place would show


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", *DECODERS, *BOTH_SIDES])
def test_a_row_gets_the_same_outputs_and_gradient_beside_any_other_rows(task: Classification, name: str) -> None:
    check_rows_hang_on_themselves(task, name)


@pytest.mark.parametrize("name", DECODERS)
def test_so_it_does_where_texts_end_in_the_padding_token(task: Classification, name: str) -> None:
    check_rows_hang_on_themselves(task, name, pad=EOS)


def of_the_last_column(model: Any, batch: Batch) -> torch.Tensor:
    """Bug: a decoder is pooled at the end of the padded row."""
    return model.score(hidden_states(model, batch).unflatten(0, batch.input_ids.shape)[:, -1])


def of_transformers(model: Any, batch: Batch) -> torch.Tensor:
    """Bug where texts end in the padding token: the last token that is another."""
    return model(**batch.inputs).logits


@pytest.mark.parametrize(("bug", "pad"), [(of_the_last_column, PAD), (of_transformers, EOS)])
def test_the_check_sees_a_decoder_that_is_pooled_elsewhere(
    task: Classification, bug: Any, pad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pegbox.tasks.whole_text.whole_text_logits", bug)
    with pytest.raises(AssertionError):
        check_rows_hang_on_themselves(task, "llama", pad)


@pytest.mark.parametrize("name", ["bert", "t5", "bart"])
def test_the_check_sees_padding_that_is_not_masked(
    task: Classification, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_real(examples: Sequence[Example], pad_id: int) -> Batch:
        batch = right(examples, pad_id)
        return replace(batch, attention_mask=torch.ones_like(batch.input_ids))

    right = batches.pad
    monkeypatch.setattr(batches, "pad", all_real)
    with pytest.raises(AssertionError):
        check_rows_hang_on_themselves(task, name)


def check_packs_are_rows_alone(task: Classification, name: str, pad: int) -> None:
    """Outputs, loss and gradient of packs, with and without a shared prefix, cut in any way, are those of rows alone."""
    model, rows = model_of(name, pad), rows_of(name, pad)
    alone = trained(task, model, [padded([row], pad) for row in rows])
    assert enable_packing(model, rows)
    for share_prefix, cuts in itertools.product((False, True), ([5], [2, 3], [1, 4])):
        places = itertools.pairwise([0, *itertools.accumulate(cuts)])
        packs = [task.collate(rows[a:b], packed=True, share_prefix=share_prefix) for a, b in places]
        check_the_same(trained(task, model, packs), alone)


@pytest.mark.parametrize("pad", [PAD, EOS])
@pytest.mark.parametrize("name", DECODERS)
def test_a_pack_has_the_outputs_and_gradient_of_its_rows_alone(task: Classification, name: str, pad: int) -> None:
    check_packs_are_rows_alone(task, name, pad)


def ends_of_the_next(examples: Sequence[Example], **asked: Any) -> Batch:
    """Bug: every row is pooled one token too far, at the first of the next row."""
    batch = RIGHT_PACK(examples, **asked)
    return replace(batch, ends=(batch.ends + 1).clamp(max=batch.input_ids.numel() - 1))


RIGHT_PACK = batches.pack


def test_the_check_sees_rows_of_a_pack_that_are_pooled_one_token_too_far(
    task: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pegbox.tasks.base.pack", ends_of_the_next)
    with pytest.raises(AssertionError):
        check_packs_are_rows_alone(task, "llama", PAD)


def test_predictions_stand_in_the_order_of_the_rows_however_they_are_batched(
    task: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_classifier("bert", num_labels=3, vocab_size=len(task.renderer.tokenizer))
    records = [labelled("the light " * (1 + index * 7 % 9), "a") for index in range(1, 20)]
    whole = task.predict(model, records)
    monkeypatch.setattr("pegbox.tasks.whole_text.ROWS_AT_ONCE", 1)
    alone = task.predict(model, records)
    assert alone.answers == whole.answers
    for one, other in zip(whole.probabilities, alone.probabilities, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    each = [task.predict(model, [record]).probabilities[0] for record in records]
    assert list(alone.probabilities) == each


# ---- class weights (row 27) ------------------------------------------------------------------------------------------


WEIGHED = {"a": 1.0, "b": 3.0, "c": 2.0}


def check_weighing_is_repeating(task: Classification, loss: Any) -> None:
    """The loss and gradient with class weights are those of the rows repeated as often as their labels weigh."""
    model, rows = model_of("bert"), rows_of("bert")
    repeated = [row for row in rows for _ in range(int(list(WEIGHED.values())[int(row.targets[0])]))]
    weighed = made_task(
        "classification",
        task.renderer,
        [labelled(c, c) for c in "abc"],
        train={"loss": loss | {"class_weights": WEIGHED}},
    )
    plain = made_task("classification", task.renderer, [labelled(c, c) for c in "abc"], train={"loss": loss})
    assert isinstance(weighed, Classification) and isinstance(plain, Classification)
    ours, wanted = trained(weighed, model, [padded(rows)]), trained(plain, model, [padded(repeated)])
    check_the_same((wanted[0], *ours[1:]), wanted)


@pytest.mark.parametrize("loss", [{"kind": "cross_entropy"}, {"kind": "focal", "gamma": 1.5}], ids=["plain", "focal"])
def test_class_weights_are_rows_repeated(task: Classification, loss: dict[str, Any]) -> None:
    check_weighing_is_repeating(task, loss)


def test_the_check_sees_a_weighted_sum_over_the_number_of_rows(
    task: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pegbox.tasks.losses._weighted", lambda weights, class_weights, targets: weights)
    with pytest.raises(AssertionError):
        check_weighing_is_repeating(task, {"kind": "cross_entropy"})


# ---- the order of the labels (row 35) --------------------------------------------------------------------------------


class InOrderOfAppearance(Classification):
    """Bug: the classes are numbered as the labels are met."""

    def observe(self, records: Sequence[Record]) -> None:
        super().observe(records)
        self._labels = tuple(dict.fromkeys(self.reference(record) for record in records))


def names_after(kind: type[Classification], task: Classification, model: Any, records: Sequence[Record]) -> list[Any]:
    """What the model says of three texts, where the task has met these records."""
    made = kind(task.renderer, task.recipe)
    made.observe(records)
    said = made.predict(model, [labelled("the dog", "a"), labelled("set the timer", "b"), labelled("the light", "c")])
    return [said.answers, *(dict(sorted(row.items())) for row in said.probabilities)]


def test_the_names_that_are_predicted_do_not_hang_on_the_order_of_the_rows(task: Classification) -> None:
    model = tiny_classifier("bert", num_labels=3, vocab_size=len(task.renderer.tokenizer))
    records = [labelled(label, label) for label in "bca"]
    orders = [list(order) for order in itertools.permutations(records)]
    wanted = names_after(Classification, task, model, records)
    assert all(names_after(Classification, task, model, order) == wanted for order in orders)
    assert any(names_after(InOrderOfAppearance, task, model, order) != wanted for order in orders)


def test_a_restored_task_says_the_same(task: Classification) -> None:
    model = tiny_classifier("bert", num_labels=3, vocab_size=len(task.renderer.tokenizer))
    asked = [labelled("the dog", "a"), labelled("the light", "b", "the dog")]
    made = Classification(task.renderer, task.recipe)
    made.observe([labelled("x", "b"), labelled("y", "a", "pair"), labelled("z", "c")])
    made.calibrate(model, [labelled(f"the dog sleeps {n}", "abc"[n % 3]) for n in range(20)])
    assert made.state()["temperature"] != 1.0
    other = Classification(task.renderer, task.recipe)
    other.restore(made.state())
    assert other.predict(model, asked) == made.predict(model, asked)
    assert other.state() == made.state()


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_answers_are_the_likeliest_labels_and_probabilities_those_at_the_temperature(task: Classification) -> None:
    model = tiny_classifier("bert", num_labels=3, vocab_size=len(task.renderer.tokenizer))
    records = [labelled(f"the dog sleeps {n}", "abc"[n % 3]) for n in range(30)]
    made = Classification(task.renderer, task.recipe)
    made.observe(records)
    before = made.predict(model, records)
    made.calibrate(model, records)
    after = made.predict(model, records)
    temperature = made.state()["temperature"]
    assert before.answers == after.answers == tuple(max(row, key=row.__getitem__) for row in after.probabilities)
    logits = torch.from_numpy(made.outputs(model, records))
    for side, t in ((before, 1.0), (after, temperature)):
        shares = np.array([[row[label] for label in "abc"] for row in side.probabilities])
        np.testing.assert_allclose(shares, (logits / t).softmax(1).numpy(), rtol=1e-5)


def test_calibration_sees_validation_rows_alone(task: Classification) -> None:
    """Rows of unknown labels, as rows of another file may have them, tell nothing."""
    model = tiny_classifier("bert", num_labels=3, vocab_size=len(task.renderer.tokenizer))
    records = [labelled(f"the dog sleeps {n}", "abc"[n % 3]) for n in range(30)]
    made = Classification(task.renderer, task.recipe)
    made.observe(records)
    made.calibrate(model, records)
    found = made.state()["temperature"]
    made.calibrate(model, [*records, labelled("the light", "unknown")])
    assert made.state()["temperature"] == pytest.approx(found, rel=1e-5)


def test_the_trivial_answer_is_the_majority_with_the_shares_of_train(task: Classification) -> None:
    train = [labelled(str(n), "b" if n < 6 else "c") for n in range(8)]
    made = Classification(task.renderer, task.recipe)
    made.observe([*train, labelled("x", "a")])
    found = made.trivial(train, train[:2])
    assert found.answers == ("b", "b")
    assert found.probabilities == ({"a": 0.0, "b": 0.75, "c": 0.25},) * 2
    assert made.trivial(train[4:], train[:1]).answers == ("b",)  # of equals the first in the alphabet


def test_rivals_learn_from_train_and_give_probabilities(task: Classification) -> None:
    base = tiny_classifier("bert", num_labels=3, vocab_size=len(task.renderer.tokenizer))
    words = {"a": "the quick fox", "b": "turn on the light", "c": "set the timer"}
    rows = [labelled(f"{words['abc'[n % 3]]} {n}", "abc"[n % 3]) for n in range(90)]
    train, validation, test = rows[:40], [*rows[40:60], labelled("new", "unseen")], rows[60:]
    made = Classification(task.renderer, task.recipe)
    made.observe([*rows, labelled("new", "unseen")])
    found = made.rivals(base, train, validation, test)
    assert list(found) == ["bag_of_words", "linear_probe"]
    for name, given in found.items():
        assert given.answers == tuple(made.reference(record) for record in test), name
        assert all(row["unseen"] == 0 and sum(row.values()) == pytest.approx(1) for row in given.probabilities), name
    assert made.rivals(base, train, validation, test) == found
    lonely = made.rivals(base, rows[0:40:3], validation, test)  # train has a single label
    assert {answer for given in lonely.values() for answer in given.answers} == {"a"}


def test_rows_of_a_single_label_are_refused(task: Classification) -> None:
    with pytest.raises(DataError, match="the same label"):
        Classification(task.renderer, task.recipe).observe([labelled("x", "a"), labelled("y", "a")])


def test_pairs_go_to_the_model_as_its_tokenizer_serves_them() -> None:
    made = tokenizer("wordpiece")
    made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's
    encoder = made_task("classification", Renderer(made, []), [labelled("x", "a"), labelled("y", "b")])
    wanted = made("the dog", "the light")
    found = encoder.encode(labelled("the dog", "a", "the light"))
    assert list(found.input_ids) == wanted["input_ids"]
    assert list(found.token_type_ids) == wanted["token_type_ids"]
    assert 1 in found.token_type_ids
    plain = made_task("classification", Renderer(tokenizer("byte_level"), []), [labelled("x", "a"), labelled("y", "b")])
    between = plain.encode(labelled("the dog", "a", "the light"))
    assert plain.renderer.tokenizer.decode(between.input_ids) == "the dog\n\nthe light"


def encoder_decoder(*rows: Record, ends: bool = True) -> Classification:
    """A task on an encoder-decoder, whose tokenizer ends each text (as T5's does), that has met these rows."""
    made = tokenizer("byte_level")
    end = made.eos_token
    if ends:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, made.eos_token_id)]
        )
    task = made_task("classification", Renderer(made, []), rows, heads={"seq2seq"})
    assert isinstance(task, Classification)
    return task


def test_an_encoder_decoder_finds_as_many_ends_in_every_row() -> None:
    """Its head looks for the last end-of-text token of each row, and refuses a batch whose rows have unlike numbers."""
    single, pair, half = labelled("the dog", "a"), labelled("the dog", "b", "the light"), labelled("the dog", "a", "")
    task = encoder_decoder(single, pair, half)
    rows = [task.encode(record) for record in (single, pair, half)]
    served, end = task.renderer.tokenizer, task.renderer.tokenizer.eos_token_id
    assert list(rows[1].input_ids) == served("the dog", "the light")["input_ids"]
    assert [row.input_ids.count(end) for row in rows] == [2, 2, 2]
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_config(
            t5(vocab_size=len(served), eos_token_id=end, pad_token_id=served.pad_token_id)
        )
    assert task.outputs(model.eval(), [single, pair, half]).shape == (3, 3)
    of_singles = encoder_decoder(single, labelled("the light", "b"))
    assert of_singles.encode(single).input_ids.count(end) == 1


@pytest.mark.parametrize(
    ("record", "ends", "why"),
    [
        (labelled("the <|im_end|> dog", "a"), True, "the text holds the model's end-of-text token"),
        (labelled("the dog", "a", "the light"), True, "a second text"),
        (labelled("the dog", "a"), False, "puts no end-of-text token"),
    ],
)
def test_an_encoder_decoder_is_given_no_row_that_its_head_would_misread(record: Record, ends: bool, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        encoder_decoder(labelled("x", "a"), labelled("y", "b"), ends=ends).encode(record)


# ---- whole runs ------------------------------------------------------------------------------------------------------


WORDS = {"yes": "turn on the light", "no": "the dog sleeps", "maybe": "set the timer"}


def write_labelled(path: Path, count: int = 60) -> Path:
    labels = ["yes", "no", "yes", "maybe", "yes"] * count
    return write_rows(path, [{"text": f"{WORDS[labels[n]]} {n}", "label": labels[n]} for n in range(count)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("runs")
    encoder_folder(home / "encoder")
    write_labelled(home / "rows.jsonl")
    return home


def run_of(home: Path, name: str, loss: Any = None, **changes: Any) -> Run:
    train = {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-2} | ({} if loss is None else {"loss": loss})
    recipe = chat_recipe(home / "encoder", home / "rows.jsonl", task="classification", **{"train": train, **changes})
    return pegbox.train(recipe, run_dir=home / name)


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.folder.read_lines("metrics.jsonl")]


@pytest.fixture(scope="module")
def plain(home: Path) -> Run:
    return run_of(home, "plain")


@pytest.mark.parametrize(
    ("option", "loss"),
    [
        ("weights", {"kind": "cross_entropy", "class_weights": {"yes": 1, "no": 2, "maybe": 5}}),
        ("balanced", {"kind": "cross_entropy", "class_weights": "balanced"}),
        ("smoothing", {"kind": "cross_entropy", "label_smoothing": 0.2}),
        ("focal", "focal"),
    ],
)
def test_every_option_of_the_loss_changes_what_is_learnt(home: Path, plain: Run, option: str, loss: Any) -> None:
    found = losses(run_of(home, option, loss))
    assert len(found) == len(losses(plain))
    assert all(abs(one - other) > 1e-4 for one, other in zip(found, losses(plain), strict=True))


def test_the_gamma_of_the_focal_loss_changes_what_is_learnt(home: Path) -> None:
    one, other = (losses(run_of(home, f"gamma {gamma}", {"kind": "focal", "gamma": gamma})) for gamma in (1, 4))
    assert all(abs(a - b) > 1e-4 for a, b in zip(one, other, strict=True))


def test_options_without_effect_give_the_same_run(home: Path, plain: Run) -> None:
    none = {"kind": "focal", "gamma": 0, "class_weights": {"yes": 1, "no": 1, "maybe": 1}}
    assert losses(run_of(home, "none", none)) == pytest.approx(losses(plain), abs=1e-5)


def test_weights_for_other_labels_are_refused_before_training(home: Path) -> None:
    with pytest.raises(RecipeError, match="perhaps"):
        run_of(home, "refused", {"kind": "cross_entropy", "class_weights": {"yes": 1, "no": 1, "perhaps": 1}})
    assert not (home / "refused").exists()


def test_a_run_holds_its_temperature_and_every_systems_probabilities(plain: Run) -> None:
    assert plain.receipt["task"]["labels"] == ["maybe", "no", "yes"]
    assert plain.receipt["task"]["temperature"] > 0
    systems = {"trivial", "bag_of_words", "linear_probe", "tuned", "permuted"}
    for line in plain.folder.read_lines("predictions.jsonl"):
        assert set(line["probabilities"]) == systems
        for name, row in line["probabilities"].items():
            assert line["answers"][name] == max(row, key=row.__getitem__)
    for values in plain.evaluation["systems"].values():
        assert {"auroc", "calibration_error", "f1_macro", "matthews_correlation"} <= values.keys()


def test_a_fresh_look_at_the_run_says_what_was_measured(plain: Run) -> None:
    lines = list(plain.folder.read_lines("predictions.jsonl"))
    fresh = Run(plain.path)
    records = [labelled(line["input"], "?") for line in lines]
    assert list(fresh.answers(records).probabilities) == [line["probabilities"]["tuned"] for line in lines]
    assert fresh.model.config.id2label == {0: "maybe", 1: "no", 2: "yes"}
    assert fresh.answers(records[:1]).probabilities[0] == pytest.approx(lines[0]["probabilities"]["tuned"], rel=1e-4)


# ---- the head is saved (row 22) --------------------------------------------------------------------------------------


def saved_and_loaded(home: Path, method: str, lose: Callable[[str], bool]) -> tuple[Any, Any]:
    """A model with a trained new head, and the one that comes back from what was saved without what is lost."""
    settings = {"kind": method, **({"r": 4} if method == "lora" else {})}
    recipe = pegbox.Recipe.model_validate(
        chat_recipe(home / "encoder", home / "rows.jsonl", task="classification", method=settings)
    )
    folder = home / f"head-{method}"
    model = load_model(home / "encoder", "sequence_classification", labels=("a", "b"), seed=1)
    METHODS[method].prepare(model, recipe.method, 1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.1)
    METHODS[method].save(model, recipe.method, folder, str(home / "encoder"))
    (file,) = folder.glob("*.safetensors")
    kept = {name: tensor for name, tensor in load_file(file).items() if not lose(name)}
    save_file(kept, file, metadata={"format": "pt"})
    other = load_model(home / "encoder", "sequence_classification", labels=("a", "b"), seed=2)
    METHODS[method].restore(other, recipe.method, folder)
    return model.eval(), other.eval()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_trained_head_comes_back_to_the_bit(home: Path, method: str) -> None:
    model, other = saved_and_loaded(home, method, lambda name: False)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids).logits, other(ids).logits)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_head_that_was_not_saved_is_an_error_and_never_a_random_one(home: Path, method: str) -> None:
    with pytest.raises(RecipeError, match="classifier"):
        saved_and_loaded(home, method, lambda name: "classifier" in name)
