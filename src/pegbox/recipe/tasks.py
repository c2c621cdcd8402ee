"""The tasks that a recipe can ask for: what a row is, and what is learnt of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pegbox.recipe.values import Amount, Frozen, Number


class Chat(Frozen):
    """A conversation, rendered by the model's own chat template; the assistant's turns are learnt."""

    kind: Literal["chat"] = "chat"


class Completion(Frozen):
    """Text that goes on: `prompt` -> `completion`, or plain `text` learnt whole. No chat template.

    With `fim_rate` plain text is learnt as what stands between a beginning and an end, too (Bavarian et al. 2022, arXiv 2207.14255).
    """

    kind: Literal["completion"] = "completion"
    fim_rate: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the texts of which a middle is learnt, the rest in sight (fill-in-the-middle); the others are"
        " learnt whole",
    )
    fim_spm_rate: Number = Field(
        default=0.0, ge=0, le=1, description="share of these in which the suffix stands first; else the prefix does"
    )

    @model_validator(mode="after")
    def _the_order_has_an_effect(self) -> Completion:
        if self.fim_spm_rate > 0 and not self.fim_rate:
            raise ValueError("task.fim_spm_rate has no effect without task.fim_rate")
        return self


class Classification(Frozen):
    """One label for a text (or a pair of texts), by a new head on the model."""

    kind: Literal["classification"] = "classification"


class Multilabel(Frozen):
    """Any number of labels for a text (or a pair of texts), each told by itself, by a new head on the model."""

    kind: Literal["multilabel"] = "multilabel"


class Regression(Frozen):
    """One number or several for a text (or a pair of texts), by a new head on the model."""

    kind: Literal["regression"] = "regression"


class TokenClassification(Frozen):
    """A tag for every word: names, places, slots as BIO or BIOES tags, by a new head on the model."""

    kind: Literal["token_classification"] = "token_classification"


class MaskedLM(Frozen):
    """Masked words of plain `text` (Devlin et al. 2018, arXiv 1810.04805): an encoder reads on in your own field."""

    kind: Literal["masked_lm"] = "masked_lm"
    mlm_probability: Number = Field(
        default=0.15, gt=0, lt=1, description="share of the tokens that are learnt, drawn anew for every update"
    )


class Seq2Seq(Frozen):
    """A text made from another, by an encoder-decoder: `source` -> `target`, its translation, its summary."""

    kind: Literal["seq2seq"] = "seq2seq"
    source_lang: str | None = Field(
        default=None,
        min_length=1,
        description="the code of the sources' language, where the model's tokenizer has codes",
    )
    target_lang: str | None = Field(
        default=None, min_length=1, description="the code of the targets' language, likewise (mBART, NLLB)"
    )


TEMPERATURE = 0.05


class Embedding(Frozen):
    """A vector for a text, near those of texts that match it: pairs, with a text that does not match, or with a score."""

    kind: Literal["embedding"] = "embedding"
    pooling: Literal["mean", "cls", "last"] = Field(
        default="mean", description="the vector: the mean over a text's tokens, or its first token's, or its last one's"
    )
    temperature: Amount = Field(
        default=TEMPERATURE, description="cosines are divided by it; lower: the nearest wrong texts matter more"
    )


Task = Annotated[
    Chat | Completion | Classification | Multilabel | Regression | TokenClassification | MaskedLM | Seq2Seq | Embedding,
    Field(discriminator="kind"),
]
PROMPTED = ("chat", "completion", "seq2seq")  # the tasks whose rows have a place for an instruction
