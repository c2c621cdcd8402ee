"""`embedding`: a vector for a text, near those of the texts that match it: search, likeness, grouping.

The rows are pairs (`text` and a `text_pair` that matches it), some or all with a `negative` that does not; or pairs with a
`score`, how alike they are (or a `label`, 1 or 0). What is learnt of the two kinds, and how they are judged, stands in
`pairs`. A text is read by itself, and its vector is the mean over its tokens' last hidden states, or the first one, or the
last one: what the tokenizer puts before and behind a text included.

Who asks a tuned model gets the vector of each `text`. Beside the weights stands what lets sentence-transformers load the
folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example, MatchedTexts, Record
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.metrics import FloatArray
from pegbox.models import pooling
from pegbox.models.batch import Batch, at_least_float32, on_rows_of_like_length
from pegbox.recipe import TEMPERATURE, Loss, OwnLoss, Recipe
from pegbox.recipe import Embedding as Settings
from pegbox.runtime import ALONE, Ranks
from pegbox.tasks import contrastive
from pegbox.tasks.base import Advance, Predictions, Task
from pegbox.tasks.contrastive import Texts
from pegbox.tasks.pairs import Likeness, Matching

TEXTS_AT_ONCE = 64
TINY = 1e-12  # a vector of less length than this has no direction


class Embedding(Task):
    """Learns vectors of texts; all rows of a data set have a score, or none."""

    kind = "embedding"
    head = "embedding"
    loss_unit = "row"
    metrics: tuple[str, ...] = Matching.metrics
    trivial_name = Matching.trivial_name
    pipeline_tag = "sentence-similarity"
    over_tokens = True
    few_shot = False  # an encoder takes no examples

    def __init__(self, renderer: Renderer, recipe: Recipe, heads: frozenset[str] = frozenset()) -> None:
        super().__init__(renderer, recipe, heads)
        assert isinstance(recipe.task, Settings)
        self.settings = recipe.task
        self._take(Matching(self.settings.temperature))

    def _take(self, pairs: Matching | Likeness) -> None:
        """The kind of pairs, and what hangs on it. (A rank is one among the texts of its own row: it cannot be permuted.)"""
        self.pairs, self.metrics, self.trivial_name = pairs, pairs.metrics, pairs.trivial_name
        self.joint, self.permutes = pairs.joint, not pairs.joint

    @property
    def loss_settings(self) -> Loss:
        """The loss that the recipe asks for; without one that of the kind of pairs."""
        return self.recipe.train.loss or self.pairs.loss()

    def observe(self, records: Sequence[Record]) -> None:
        """Find out whether the rows have a score. Raises DataError where some have, RecipeError for a setting without use."""
        scored = _matched(records[0]).score is not None
        odd = next((record for record in records if (_matched(record).score is not None) != scored), None)
        if odd is not None:
            cure = "give each row a score (or a label), or none of them"
            raise DataError("rows with a score and rows without one are mixed", where=odd.where, cure=cure)
        if scored:
            self._take(Likeness())
        self._refuse_idle_settings()

    def _refuse_idle_settings(self) -> None:
        """Raise RecipeError for a loss that the rows are not made for, and for a temperature that nothing is divided by."""
        wanted, has = self.pairs.loss, self.pairs.has
        if not isinstance(self.loss_settings, wanted | OwnLoss):
            what, cure = f"{self.loss_settings.kind} is not for rows that {has}", f"take {wanted().kind}"
            raise RecipeError(what, where="train.loss", cure=cure)
        if isinstance(self.pairs, Likeness) and self.settings.temperature != TEMPERATURE:
            what = f"the temperature has no effect on rows that {has}"
            raise RecipeError(what, where="task.temperature", cure="leave it away")

    def fit(self, train: Sequence[Record]) -> None:
        """Find the largest score."""
        super().fit(train)
        scores = [abs(score) for record in train if (score := _matched(record).score) is not None]
        if scores:
            self._take(Likeness(max(scores) or 1.0))

    def state(self) -> dict[str, Any]:
        """The largest score, where there are scores, and what the trivial rival is."""
        largest = self.pairs.scale if isinstance(self.pairs, Likeness) else None
        return {"largest_score": largest, "trivial": self.trivial_name}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what an earlier run found out."""
        if state["largest_score"] is not None:
            self._take(Likeness(state["largest_score"]))

    # ---- texts as tokens ---------------------------------------------------------------------------------------------

    def encode(self, record: Record) -> Example:
        """The row's texts one behind the other, each as the tokenizer serves it."""
        content = _matched(record)
        read = [self._read(text) for text in content.texts]
        ids, types = (
            tuple(token for one in read for token in getattr(one, name)) for name in ("input_ids", "token_type_ids")
        )
        targets = () if content.score is None else (content.score,)
        return Example(record.where, ids, targets=targets, token_type_ids=types, lengths=tuple(map(len, read)))

    def _read(self, text: str) -> Example:
        """A text as the tokenizer serves it. Raises ValueError where it has no token."""
        encoded = self.renderer.tokenizer(text, truncation=False, verbose=False)
        if not encoded["input_ids"]:
            raise ValueError("one of its texts is empty")
        ids, types = tuple(encoded["input_ids"]), tuple(encoded.get("token_type_ids", ()))
        return Example("", ids, token_type_ids=types)

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The tokens of the longest text: each is read by itself."""
        return self.encode(record).longest

    def collate(self, examples: Sequence[Example], *, packed: bool, share_prefix: bool) -> Batch:
        """All texts of the examples as rows of their own: first the texts, then their pairs, then the negatives there are."""
        rows = [pooling.separate(example) for example in examples]
        told = [(role, texts[role]) for role in contrastive.ROLES for texts in rows if role < len(texts)]
        batch = self._batch([text for _, text in told], packed=packed, share_prefix=share_prefix)
        labels = torch.tensor([example.targets for example in examples], dtype=torch.float64)
        return replace(batch, labels=labels, roles=torch.tensor([role for role, _ in told]))

    def _batch(self, texts: Sequence[Example], *, packed: bool = False, share_prefix: bool = False) -> Batch:
        marked = pooling.marked(texts, self.settings.pooling)
        batch = super().collate(marked, packed=packed, share_prefix=share_prefix)
        return replace(batch, keys=pooling.keys(texts))

    # ---- the loss ----------------------------------------------------------------------------------------------------

    def scored(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the loss of the rows of a batch is over; of pairs that match among the texts of the batch."""
        texts = Texts.of(batch, pooling.vectors(model, batch))
        if isinstance(self.pairs, Likeness):
            return self.pairs.outputs(texts, batch.labels)
        return self.pairs.outputs(texts)

    def update_loss(
        self,
        model: PreTrainedModel,
        micro_batches: Sequence[Batch],
        backward: Callable[[torch.Tensor], None],
        ranks: Ranks = ALONE,
    ) -> tuple[float, float]:
        """InfoNCE over the update, on all ranks; pairs with a score do not know of each other."""
        if isinstance(pairs := self.pairs, Likeness):
            return super().update_loss(model, micro_batches, backward, ranks)
        return contrastive.update(
            lambda batch: pooling.vectors(model, batch),
            lambda texts, rows: self.criterion(*pairs.outputs(texts, rows)),
            micro_batches,
            backward,
            nothing=at_least_float32(torch.empty(0, 0, dtype=model.dtype, device=model.device)),
            ranks=ranks,
        )

    def group_loss(self, model: PreTrainedModel, micro_batches: Iterable[Batch]) -> tuple[float, float]:
        """InfoNCE over the group."""
        if isinstance(self.pairs, Likeness):
            return super().group_loss(model, micro_batches)
        parts = [Texts.of(batch, pooling.vectors(model, batch)) for batch in micro_batches]
        if not parts:
            return 0.0, 0.0
        loss, weight = self.criterion(*self.pairs.outputs(Texts.joined(parts)))
        return loss.item(), weight

    # ---- answers -----------------------------------------------------------------------------------------------------

    def primary(self, train: Sequence[Record]) -> str:
        """The order of what was found, or of the scores."""
        return self.metrics[0]

    def shown(self, record: Record) -> str:
        """The text that asks, or both that are compared."""
        return self.pairs.shown(_matched(record))

    def reference(self, record: Record) -> str | float:
        """The text that matches, or the score."""
        return self.pairs.reference(_matched(record))

    def vectors(
        self, model: PreTrainedModel, rows: Sequence[Sequence[str]], advance: Advance = lambda rows: None
    ) -> dict[str, FloatArray]:
        """The vector float64 [D] of each text of some rows, those that stand twice computed once."""
        once = list(dict.fromkeys(chain.from_iterable(rows)))
        read, found = [self._read(text) for text in once], dict[str, FloatArray]()
        tell = _by_rows(advance, len(rows), len(once))

        def compute(chosen: list[int]) -> None:
            batch = self._batch([read[place] for place in chosen]).to(model.device)
            values = pooling.vectors(model, batch).double().cpu().numpy()
            found.update(zip([once[place] for place in chosen], values, strict=True))
            tell(len(chosen))

        with torch.inference_mode():
            on_rows_of_like_length(read, TEXTS_AT_ONCE, compute)
        return found

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int = 0,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """What the cosines of the texts say: the ranks of the right ones among all of these rows, or a score of each pair."""
        rows = [_matched(record) for record in records]
        found = self.vectors(model, [row.texts for row in rows], advance)
        lengths = {text: max(float(np.linalg.norm(vector)), TINY) for text, vector in found.items()}
        return self.pairs.answers(rows, {text: vector / lengths[text] for text, vector in found.items()})

    def served(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        max_new_tokens: int = 0,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """The vector of each row's text, as a list of numbers."""
        asked = [_matched(record).text for record in records]
        found = self.vectors(model, [(text,) for text in asked], advance)
        return Predictions(tuple([float(f"{value:.7g}") for value in found[text].tolist()] for text in asked))

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """What was right most often in train, first; or the mean score."""
        return self.pairs.trivial([_matched(record) for record in train], [_matched(record) for record in test])

    def rivals(
        self, base: PreTrainedModel, train: Sequence[Record], validation: Sequence[Record], test: Sequence[Record]
    ) -> Mapping[str, Predictions]:
        """What words do without a model."""
        return self.pairs.rivals([_matched(record) for record in train], [_matched(record) for record in test])

    # ---- the saved model ---------------------------------------------------------------------------------------------

    def save_beside(self, model: PreTrainedModel, folder: Path) -> None:
        """The layout of sentence-transformers."""
        width, limit = int(model.config.get_text_config().hidden_size), self.recipe.data.max_length
        pooling.save_layout(folder, pooling=self.settings.pooling, width=width, max_length=limit)


def _matched(record: Record) -> MatchedTexts:
    assert isinstance(record.content, MatchedTexts)
    return record.content


def _by_rows(advance: Advance, rows: int, texts: int) -> Advance:
    """What tells of rows as texts are done, of which there are more or fewer."""
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        advance(rows * done // texts - rows * before // texts)

    return tell
