"""All that a user can ask for, as frozen pydantic models.

Choices are tagged unions (`kind:`), so a field that cannot take effect cannot be set; an unknown key is an error.
Field names are those of Transformers' `TrainingArguments` and of PEFT wherever the idea is the same.
`None` means "chosen by pegbox"; the run folder's `recipe.yaml` holds what was chosen. This room imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    """The base of every part of a recipe: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _named(field: str) -> BeforeValidator:
    """Let a plain string stand for `{field: string}`: `task: chat` is `task: {kind: chat}`."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Files = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Model(Frozen):
    """Which pretrained model: a hub id, a folder in the hub's layout, or a `.gguf` file."""

    name: str = Field(min_length=1)


class Chat(Frozen):
    """A conversation, rendered by the model's own chat template; the assistant's turns are learnt."""

    kind: Literal["chat"] = "chat"


class Completion(Frozen):
    """Text that goes on: `prompt` -> `completion`, or plain `text` learnt whole. No chat template."""

    kind: Literal["completion"] = "completion"


class Classification(Frozen):
    """One label for a text (or a pair of texts), by a new head on the model."""

    kind: Literal["classification"] = "classification"


Task = Annotated[Chat | Completion | Classification, Field(discriminator="kind")]

Role = Literal["messages", "prompt", "completion", "text", "text_pair", "label", "group"]


class Data(Frozen):
    """Which rows, what their columns mean, and how they are split."""

    train: Files
    validation: Share | Files = 0.1
    test: Share | Files = 0.1
    columns: dict[Role, str] = {}
    instruction: str | None = Field(
        None, min_length=1, description="a system message (chat) or a first line (prompt/completion) for every row"
    )
    max_length: int | None = Field(None, gt=1, description="tokens; default: the model's limit")
    truncation: Literal["refuse", "drop"] = "refuse"
    allow: tuple[Literal["malformed", "no_trained_token", "too_long", "leak"], ...] = ()


class Full(Frozen):
    """Every weight learns."""

    kind: Literal["full"] = "full"


class Lora(Frozen):
    """Low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685); names as in PEFT."""

    kind: Literal["lora"] = "lora"
    r: int = Field(16, gt=0)
    lora_alpha: float | None = Field(None, gt=0, description="the update is scaled by lora_alpha / r; default: 2 r")
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r) (arXiv 2312.03732)")
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


Method = Annotated[Full | Lora, Field(discriminator="kind")]


class Train(Frozen):
    """The training run; `batch_size` is the number of examples in one optimizer update, over all ranks."""

    num_train_epochs: float = Field(3.0, gt=0)
    max_steps: int | None = Field(None, gt=0, description="updates; overrides num_train_epochs")
    batch_size: int = Field(16, gt=0)
    micro_batch_size: int | Literal["auto"] = Field("auto", description="upper limit on rows at once")
    learning_rate: float | None = Field(None, gt=0, description="default: 2e-4 for lora, 2e-5 for full")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.05, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    eval_steps: int | None = Field(None, gt=0, description="default: a tenth of the run")
    save_steps: int | None = Field(None, gt=0, description="default: eval_steps")
    save_total_limit: int = Field(2, ge=2)
    early_stopping_patience: int | None = Field(None, gt=0, description="validations without improvement")
    early_stopping_threshold: float = Field(0.0, ge=0)
    bf16: bool | None = Field(None, description="compute in bfloat16; default: on a GPU that can")

    @model_validator(mode="after")
    def _micro_batch_is_positive(self) -> Train:
        if self.micro_batch_size != "auto" and self.micro_batch_size < 1:
            raise ValueError("micro_batch_size must be 'auto' or at least 1")
        return self


class Evaluate(Frozen):
    """How the test rows are scored."""

    metrics: tuple[str, ...] | None = Field(None, description="default: the task's")
    primary: str | None = Field(None, description="what the verdict is about; fixed before training")
    max_new_tokens: int | None = Field(None, gt=0, description="default: a quarter more than train's longest answer")
    few_shot: int = Field(5, ge=0, description="rows of train shown to the untouched model; 0: no such system")
    max_rows: int = Field(1000, gt=0, description="test rows scored, drawn with the seed")


class Recipe(Frozen):
    """One recipe goes in; one run folder comes out, and it ends in a verdict."""

    model: Annotated[Model, _named("name")]
    task: Annotated[Task, _named("kind")]
    data: Annotated[Data, _named("train")]
    method: Annotated[Method, _named("kind")] = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    seed: int = Field(42, ge=0, lt=2**31)
