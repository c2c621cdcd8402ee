"""What the tasks that learn and generate text have in common: next-token loss, greedy answers, few-shot prompts."""

from __future__ import annotations

import json
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Sequence
from statistics import median

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example, Record
from pegbox.data.sizes import sizes_of
from pegbox.models.batch import Batch, at_least_float32
from pegbox.models.generation import Answer, count_close, generate
from pegbox.models.outputs import learnt_logits
from pegbox.models.token_loss import token_loss
from pegbox.tasks.asked import Asked
from pegbox.tasks.base import Advance, Predictions, Task, Unfit

SHORT_ANSWER = 50  # characters; answers whose median is at most this are right or wrong as a whole


class LanguageTask(Task):
    """A task whose answers are texts that a causal language model writes."""

    head = "causal_lm"
    metrics: tuple[str, ...] = ("exact_match", "chrf", "token_f1")
    unfit = Unfit(  # such a model can be loaded for writing; it would copy the tokens that it is to learn
        frozenset({"masked_lm"}),
        "the model sees the text that follows and cannot write",
        "give a model that writes, or learn the texts by `task: masked_lm`",
    )

    @abstractmethod
    def prompt(self, record: Record, shots: Sequence[Record]) -> list[int]:
        """The ids to serve for a row, after the rows shown first."""

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The length of the prompt."""
        return len(self.prompt(record, shots))

    def scored(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The logits [N, V] of the trained tokens, which they are, and their weights."""
        return at_least_float32(learnt_logits(model, batch)), batch.targets, batch.weights

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, float]:
        """The loss over the trained tokens; of a pack chunk by chunk, so that no row's logits are held as a whole."""
        if batch.layout is None or not len(batch.places):
            return super().loss(model, batch)
        return token_loss(model, batch, self.criterion)

    def longest_answer(self, train: Sequence[Example]) -> int:
        """The tokens with a weight, the one that ends an answer among them."""
        return int(sizes_of(train).learnt.max())

    def primary(self, train: Sequence[Record]) -> str:
        """`exact_match` where answers are short or structured, else `chrf`."""
        lengths, structured = array("q"), 0  # of a million rows: no list of their answers
        for record in train:
            answer = str(self.reference(record))
            lengths.append(len(answer))
            structured += _is_json(answer)
        short = structured >= 0.95 * len(lengths) or median(lengths) <= SHORT_ANSWER
        return "exact_match" if short else "chrf"

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """The greedy answers, unstripped, without their stop token."""
        return self.following(model, [self.prompt(record, shots) for record in records], max_new_tokens, advance)

    def following(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, advance: Advance
    ) -> Predictions:
        """What the model says behind each prompt."""
        stops = self.renderer.stop_ids
        generated = generate(model, prompts, stop_ids=stops, max_new_tokens=max_new_tokens, advance=advance)
        texts = tuple(self.said(answer.input_ids) for answer in generated)
        return Predictions(texts, sum(1 for _ in count_close(generated)))

    def asked(self, model: PreTrainedModel, example: Example) -> Asked:
        """An answer is asked for behind what stands before the first token that is learnt."""
        ids = example.input_ids
        learnt = [place for place, weight in enumerate(example.loss_weights) if weight > 0 and place]
        begin = learnt[0] if learnt[0] > 1 else max(1, len(ids) // 2)  # where all is learnt: the first half
        return Asked(ids, example.token_type_ids, [place - 1 for place in learnt], ids[:begin])

    def written(self, model: PreTrainedModel, asked: Sequence[Asked], max_new_tokens: int) -> list[Answer]:
        """The answers to the prompts."""
        prompts = [row.prompt for row in asked]
        return generate(model, prompts, stop_ids=self.renderer.stop_ids, max_new_tokens=max_new_tokens)

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The most frequent answer of train; of equals the first in the alphabet."""
        counts = Counter(str(self.reference(record)) for record in train)
        answer = min(counts, key=lambda text: (-counts[text], text))
        return Predictions((answer,) * len(test))


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
