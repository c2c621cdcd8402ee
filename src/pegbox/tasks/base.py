"""The seam of the tasks. The same object serves training and evaluation.

A task says what a row is (`encode`), which head the model has, what the loss is over (`scored`), how to predict, and by
which numbers it is judged. The loop knows nothing of all this but `drawn`, `collate` and `update_loss`.

Its life: made from a recipe; `observe` sees all records, `fit` those of train; it encodes, and the model is trained;
`calibrate` sees the validation records. What these three found out is its `state`, kept in the run's receipt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Content, Example, Record
from pegbox.data.render import Renderer
from pegbox.errors import RecipeError
from pegbox.models.batch import Batch, pack, pad
from pegbox.models.generation import Answer
from pegbox.recipe import FITTING, Loss, Recipe
from pegbox.runtime import ALONE, Ranks
from pegbox.tasks import losses
from pegbox.tasks.asked import Asked

Advance = Callable[[int], None]
# a pack's length is a multiple of this: oneDNN makes and keeps code for each length that it meets (docs/log.md)
PACKED_TO = 32


@dataclass(frozen=True)
class Predictions:
    """One answer a row, in the user's own terms.

    `close`: how many hung on less than rounding (see models.generation); `shots`: how many examples stood in front of
    each question; `probabilities`: of each row the probability of every label, where a system gives them.
    """

    answers: tuple[Any, ...]
    close: int = 0
    shots: int = 0
    probabilities: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class Unfit:
    """Models that a task cannot have: those that bring one of the `heads` along; `what` is wrong, and the `cure`."""

    heads: frozenset[str]
    what: str
    cure: str


class Task(ABC):
    """One kind of task; a file and a row in the table. `head` is a key of `models.load.HEADS`.

    `heads`: those that the checkpoint brings along (`models.load.heads_of`).
    """

    kind: str
    head: str
    metrics: tuple[str, ...]
    row_metric = ""  # the metric that can score a single row; empty: the primary one
    loss_unit = "token"  # what the loss is a mean over
    trivial_name = "most frequent answer"
    pipeline_tag = "text-generation"  # the hub's name for what the model does
    problem_type: str | None = None  # Transformers' name for what a new head's outputs mean
    criterion: losses.Criterion  # what sums the loss; made by `fit`
    unfit: Unfit | None = None  # models that it cannot have
    places = True  # it may ask where in a text a token stands, which only fast tokenizers tell
    over_tokens = False  # the model's outputs are of each token, and not of a row as a whole
    few_shot = True  # rows of train can be shown to the untouched model before each question
    joint = False  # the loss of a row hangs on the rows beside it, and so does its answer
    permutes = True  # an answer can be given to another row, so that knowing only the form of answers can be priced

    def __init__(self, renderer: Renderer, recipe: Recipe, heads: frozenset[str] = frozenset()) -> None:
        self.renderer, self.recipe, self.heads = renderer, recipe, heads
        if self.unfit is not None and heads & self.unfit.heads:
            raise RecipeError(self.unfit.what, where="model", cure=self.unfit.cure)
        if self.places and not renderer.tokenizer.is_fast:
            raise RecipeError("the model has no fast tokenizer", where="model", cure="give a model with tokenizer.json")

    @property
    def loss_settings(self) -> Loss:
        """The loss that the recipe asks for; without one the task's own."""
        return self.recipe.train.loss or FITTING[self.kind][0]()

    @property
    def writes(self) -> bool:
        """Whether an answer is written, token by token."""
        return self.head in ("causal_lm", "seq2seq")

    @property
    def zero_shot(self) -> bool:
        """Whether the untouched model can be asked, with and without examples."""
        return True

    @property
    def base_head(self) -> str:
        """The head with which the untouched model is asked."""
        return self.head

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of a new head's classes, in the order of its outputs; empty where the task adds no head."""
        return ()

    @property
    def fingerprint(self) -> list[Any]:
        """Everything that decides how a record is encoded, beside the recipe and the other records."""
        return [self.kind, sorted(self.heads), self.renderer.fingerprint]

    def observe(self, records: Sequence[Record]) -> None:  # noqa: B027, most tasks have nothing to find out
        """See all records once before any is encoded: label names, which form the rows have. Raises DataError."""

    def fit(self, train: Sequence[Record]) -> None:
        """See the training records once before training: class weights, scales. Raises RecipeError."""
        counts = self.label_counts(train)
        self.criterion = losses.build(self.loss_settings, labels=self.labels, counts=counts, rows=len(train))

    def label_counts(self, train: Sequence[Record]) -> Mapping[str, int]:
        """How often each label occurs in the training records; empty where there are no labels."""
        return {}

    def calibrate(self, model: PreTrainedModel, validation: Sequence[Record]) -> None:  # noqa: B027
        """See the validation records once after training: thresholds, a temperature."""

    def state(self) -> dict[str, Any]:
        """What was found out, for the receipt."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take over what `state` told of an earlier run."""

    def config(self) -> dict[str, Any]:
        """What the saved model's `config.json` must say, beside the labels, to those who load it without pegbox."""
        return {}

    @abstractmethod
    def encode(self, record: Record) -> Example:
        """The record in tokens. Raises ValueError, saying why, where the record cannot be learnt."""

    def collate(self, examples: Sequence[Example], *, packed: bool, share_prefix: bool) -> Batch:
        """The examples of one micro-batch as tensors: packed into one sequence where the model can, else padded."""
        if packed:
            return pack(examples, share_prefix=share_prefix, multiple=PACKED_TO)
        return pad(examples, int(self.renderer.tokenizer.pad_token_id))

    def drawn(self, example: Example, step: int) -> Example:
        """The example as update `step` (from 0; -1: validation) learns it, where something is drawn anew each time.

        What is drawn depends on the recipe's seed, the step and the row alone, never on how the update is cut.
        """
        return example

    @abstractmethod
    def scored(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the loss is over: outputs [N, ...] in at least float32, their targets [N, ...] and weights [N]."""

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, float]:
        """The loss *summed* over the batch (a scalar with a gradient) and the weight that it sums over."""
        if not len(batch.places) and not batch.labels.numel():
            return torch.zeros((), device=batch.input_ids.device, requires_grad=True), 0.0
        return self.criterion(*self.scored(model, batch))

    def update_loss(
        self,
        model: PreTrainedModel,
        micro_batches: Sequence[Batch],
        backward: Callable[[torch.Tensor], None],
        ranks: Ranks = ALONE,
    ) -> tuple[float, float]:
        """The loss and weight of this rank's share of an update, `backward` called on every part.

        An objective that couples the rows of an update (in-batch negatives) overrides this; gradients are summed over
        the `ranks` afterwards.
        """
        return self._summed(model, micro_batches, backward)

    def group_loss(self, model: PreTrainedModel, micro_batches: Iterable[Batch]) -> tuple[float, float]:
        """The loss and weight of rows that are scored together, where nothing learns: those of validation.

        Where a task is `joint` a group has as many rows as an update, and is one rank's.
        """
        return self._summed(model, micro_batches, lambda part: None)

    def _summed(
        self, model: PreTrainedModel, batches: Iterable[Batch], then: Callable[[torch.Tensor], None]
    ) -> tuple[float, float]:
        """The loss and weight of batches that know nothing of each other; `then` is told the loss of each."""
        total, weight = 0.0, 0.0
        for batch in batches:
            part, part_weight = self.loss(model, batch)
            then(part)
            total, weight = total + part.item(), weight + part_weight
        return total, weight

    @abstractmethod
    def primary(self, train: Sequence[Record]) -> str:
        """The metric of the verdict where the recipe names none; fixed before training, from the training rows."""

    def question(self, values: Mapping[str, Any]) -> Content | None:
        """What a row asks that is only asked about and is in another form than those of training; None: in theirs."""
        return None

    @abstractmethod
    def shown(self, record: Record) -> str:
        """The input of a row, as a person reads it."""

    def typed(self, text: str) -> Mapping[str, Any]:
        """A text that somebody typed as the values of a row's roles."""
        return {"text": text}

    @abstractmethod
    def reference(self, record: Record) -> Any:
        """The right answer of a row, in the user's own terms."""

    def beside(self, record: Record) -> Mapping[str, Any]:
        """What else of a row its metrics read, by the keys that they name (`Metric.against`)."""
        return {}

    def said(self, ids: Sequence[int], *, whole: bool = True) -> str:
        """The text of ids that a model generated; `whole=False`: as far as no id behind them can change it."""
        return self.renderer.answer(ids, whole=whole)

    @abstractmethod
    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """The model's answers; `shots` are rows of train shown to it first (where `zero_shot`)."""

    def served(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        max_new_tokens: int,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """What those get who ask the model for its use: its answers, where these do not hang on what else is asked."""
        return self.predict(model, records, max_new_tokens=max_new_tokens, advance=advance)

    def save_beside(self, model: PreTrainedModel, folder: Path) -> None:  # noqa: B027, most models need nothing more
        """Write what another library needs, beside the weights, to use the saved model for the task."""

    def asked(self, model: PreTrainedModel, example: Example) -> Asked:
        """The example as another library is asked it, to be held against the model; of several texts the first."""
        first = example.lengths[0] if example.lengths else len(example)
        places = tuple(range(first)) if self.over_tokens else ()
        return Asked(example.input_ids[:first], example.token_type_ids[:first], places)

    def written(self, model: PreTrainedModel, asked: Sequence[Asked], max_new_tokens: int) -> list[Answer]:
        """The greedy answers in tokens, of a model that writes; else none."""
        return []

    @property
    def never_said(self) -> Sequence[int]:
        """The tokens that no answer holds, whatever the model thinks of them."""
        return ()

    def ask(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record],
        max_new_tokens: int,
        advance: Advance,
    ) -> Predictions:
        """The answers of the untouched model, loaded with `base_head`."""
        return self.predict(model, records, shots=shots, max_new_tokens=max_new_tokens, advance=advance)

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The tokens that the model is given when a row is asked behind the shots."""
        return len(self.encode(record))

    @abstractmethod
    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The best answers that need no look at the input: majority, mean, most frequent."""

    def rivals(
        self,
        base: PreTrainedModel,
        train: Sequence[Record],
        validation: Sequence[Record],
        test: Sequence[Record],
    ) -> Mapping[str, Predictions]:
        """Other systems that a fine-tuned model should beat, by their name in the contract.

        They learn from train; what they choose (a regularisation) they choose on validation.
        """
        return {}

    def longest_answer(self, train: Sequence[Example]) -> int:
        """The number of tokens of the longest answer in train; sets `max_new_tokens` where the recipe does not."""
        return 1
