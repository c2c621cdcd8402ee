"""All that a user can ask for, as frozen pydantic models.

Choices are tagged unions (`kind:`), so a field that cannot take effect cannot be set; an unknown key is an error.
Field names are those of Transformers' `TrainingArguments` and of PEFT wherever the idea is the same.
`None` means "chosen by pegbox"; the run folder's `recipe.yaml` holds what was chosen. This room imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    """The base of every part of a recipe: immutable, strict about unknown keys, and finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


NoTruth = BeforeValidator(_no_truth)  # Python takes true for 1
Whole = Annotated[int, NoTruth]
Number = Annotated[float, NoTruth]
Count = Annotated[int, Field(gt=0), NoTruth]
Amount = Annotated[float, Field(gt=0), NoTruth]


def _named(field: str, written: Any, **defaults: str) -> BeforeValidator:
    """Let a plain string stand for `{field: string}`: `task: chat` is `task: {kind: chat}`. `written`: for editors."""

    def whole(value: Any) -> Any:
        if isinstance(value, str):
            return {field: value}
        return defaults | value if isinstance(value, dict) else value

    return BeforeValidator(whole, json_schema_input_type=str | written)


def _must_be(what: str, holds: Callable[[Any], bool]) -> BeforeValidator:
    """One message where a union of types would give one for each of them."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(f"must be {what}")
        return value

    return BeforeValidator(check)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(v, str) and v for v in value)


def _is_split(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return 0 < value < 1 if is_number else _are_names(value)


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


NameList = tuple[str, ...]
Names = Annotated[NameList, _must_be("a list of names", _are_names)]
Share = Annotated[float, Field(gt=0, lt=1)]
Files = Annotated[
    NameList,
    _must_be("a file or a list of files", _are_names),
    BeforeValidator(_listed, json_schema_input_type=str | NameList),
]
ShareOrFiles = Annotated[
    Share | NameList,
    _must_be("a share between 0 and 1, a file or a list of files", _is_split),
    BeforeValidator(_listed, json_schema_input_type=Share | str | NameList),
]
AutoOrCount = Annotated[
    Literal["auto"] | Annotated[int, Field(gt=0)],
    _must_be("'auto' or a whole number from 1 on", lambda value: value == "auto" or (type(value) is int and value > 0)),
]
AllLinearOrNames = Annotated[
    Literal["all-linear"] | NameList,
    _must_be("'all-linear' or a list of names", lambda value: value == "all-linear" or _are_names(value)),
]

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
Trackers = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(
        lambda value: () if value == "none" else _listed(value),
        json_schema_input_type=Literal["none"] | TrackerName | tuple[TrackerName, ...],
    ),
]


class Model(Frozen):
    """Which pretrained model: a hub id, a folder in the hub's layout, or a `.gguf` file."""

    name: str = Field(min_length=1, description="a hub id, a folder in the hub's layout, or a `.gguf` file")


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

if TYPE_CHECKING:  # elsewhere a mapping of roles is one of strings, and the keys of a mapping's type are invariant
    Role = str
else:
    Role = Literal["messages", "prompt", "completion", "text", "text_pair", "label", "group"]


class Data(Frozen):
    """Which rows, what their columns mean, and how they are split."""

    train: Annotated[Files, Field(description="rows to learn from: .jsonl, .json, .csv, .tsv, .txt, .md, .parquet")]
    validation: ShareOrFiles = Field(default=0.1, description="a share of train, or files: for the best checkpoint")
    test: ShareOrFiles = Field(default=0.1, description="a share of train, or files: read once, for the verdict")
    columns: dict[Role, str] = Field(default={}, description="where columns have other names: {text: review}")
    instruction: str | None = Field(
        default=None,
        min_length=1,
        description="a system message (chat) or a first line (prompt/completion) for every row",
    )
    max_length: Annotated[int, Field(gt=1), NoTruth] | None = Field(
        default=None, description="tokens; default: the model's limit"
    )
    truncation: Literal["refuse", "drop"] = Field(
        default="refuse", description="what becomes of a row that is too long"
    )
    allow: tuple[Literal["malformed", "no_trained_token", "too_long", "leak"], ...] = Field(
        default=(), description="findings that shall not stop training; such rows are dropped (leaks stay) and listed"
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Data:
        shares = [share for share in (self.validation, self.test) if isinstance(share, float)]
        if sum(shares) >= 1:
            raise ValueError(f"data.validation and data.test together take all rows ({' + '.join(map(str, shares))})")
        return self


class Full(Frozen):
    """Every weight learns."""

    kind: Literal["full"] = "full"


class Lora(Frozen):
    """Low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685); names as in PEFT."""

    kind: Literal["lora"] = "lora"
    r: Count = Field(default=16, description="the rank of the update")
    lora_alpha: Amount | None = Field(default=None, description="the update is scaled by lora_alpha / r; default: 2 r")
    lora_dropout: Number = Field(default=0.0, ge=0, lt=1, description="on the input of the update, in training")
    use_rslora: bool = Field(default=False, description="scale by lora_alpha / sqrt(r) (arXiv 2312.03732)")
    target_modules: AllLinearOrNames = Field(default="all-linear", description="the linear layers that get an update")


Method = Annotated[Full | Lora, Field(discriminator="kind")]


class Train(Frozen):
    """The training run; `batch_size` is the number of examples in one optimizer update, over all ranks."""

    num_train_epochs: Amount = Field(default=3.0, description="passes over train; 0.5 is half a pass")
    max_steps: Count | None = Field(default=None, description="updates; overrides num_train_epochs")
    batch_size: Count = Field(default=16, description="examples in one update, over all ranks")
    micro_batch_size: AutoOrCount = Field(default="auto", description="upper limit on rows at once")
    learning_rate: Amount | None = Field(default=None, description="of AdamW; default: 2e-4 for lora, 2e-5 for full")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="how the learning rate falls after the warm-up"
    )
    warmup_ratio: Number = Field(default=0.05, ge=0, le=1, description="share of the updates in which it rises")
    weight_decay: Number = Field(default=0.0, ge=0, description="of matrices; biases and norms never decay")
    max_grad_norm: Amount = Field(default=1.0, description="a longer gradient is shortened to this")
    eval_steps: Count | None = Field(
        default=None, description="updates between validations; default: a tenth of the run"
    )
    save_steps: Count | None = Field(default=None, description="updates between checkpoints; default: eval_steps")
    save_total_limit: Whole = Field(default=2, ge=2, description="checkpoints kept; the best is never deleted")
    early_stopping_patience: Count | None = Field(
        default=None, description="validations without improvement before it stops; default: never"
    )
    early_stopping_threshold: Number = Field(default=0.0, ge=0, description="a smaller improvement counts as none")
    bf16: bool | None = Field(default=None, description="compute in bfloat16; default: on a GPU that can")
    report_to: Trackers | None = Field(
        default=None, description="trackers, or none; default: tensorboard (local files) where it is installed"
    )

    @model_validator(mode="after")
    def _the_threshold_has_an_effect(self) -> Train:
        if self.early_stopping_threshold > 0 and self.early_stopping_patience is None:
            raise ValueError("train.early_stopping_threshold has no effect without train.early_stopping_patience")
        return self


class Evaluate(Frozen):
    """How the test rows are scored."""

    metrics: Names | None = Field(default=None, description="what is computed; default: the task's")
    primary: str | None = Field(
        default=None, min_length=1, description="what the verdict is about, fixed before training; default: the task's"
    )
    max_new_tokens: Count | None = Field(
        default=None, description="length of an answer; default: a quarter more than train's longest"
    )
    few_shot: Whole = Field(
        default=5, ge=0, description="rows of train shown to the untouched model; 0: no such system"
    )
    max_rows: Count = Field(default=1000, description="test rows scored, drawn with the seed")


class Recipe(Frozen):
    """One recipe goes in; one run folder comes out, and it ends in a verdict."""

    model: Annotated[Model, _named("name", Model)]
    task: Annotated[Task, _named("kind", Task)]
    data: Annotated[Data, _named("train", Data)]
    method: Annotated[Method, _named("kind", Method, kind="lora")] = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    seed: Whole = Field(default=42, ge=0, lt=2**31, description="fixes everything that is drawn")

    @model_validator(mode="after")
    def _the_instruction_has_an_effect(self) -> Recipe:
        if self.data.instruction is not None and self.task.kind == "classification":
            raise ValueError("data.instruction has no effect with task: classification")
        return self
