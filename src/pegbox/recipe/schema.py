"""All that a user can ask for, as frozen pydantic models.

Choices are tagged unions (`kind:`), so a field that cannot take effect cannot be set; an unknown key is an error.
Field names are those of Transformers' `TrainingArguments` and of PEFT wherever the idea is the same.
`None` means "chosen by pegbox"; the run folder's `recipe.yaml` holds what was chosen. This room imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pegbox.recipe.filters import Filter
from pegbox.recipe.losses import LossOrNone, refuse_misfit
from pegbox.recipe.methods import Freeze, Lora, Method
from pegbox.recipe.own import as_reference, is_own, split
from pegbox.recipe.sources import ShareOrSources, Source, Sources
from pegbox.recipe.tasks import PROMPTED, Task
from pegbox.recipe.values import (
    Amount,
    AutoOrBool,
    AutoOrCount,
    ColumnOrColumns,
    Count,
    DifferentTexts,
    Frozen,
    Names,
    NoTruth,
    Number,
    Seconds,
    Whole,
    listed,
    named,
)

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
Trackers = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(
        lambda value: () if value == "none" else listed(value),
        json_schema_input_type=Literal["none"] | TrackerName | tuple[TrackerName, ...],
    ),
]


class Model(Frozen):
    """Which pretrained model, and how it is held: a hub id, a folder in the hub's layout, a run, an adapter, a `.gguf` file."""

    name: str = Field(
        min_length=1,
        description="a hub id, a folder in the hub's layout, a run, a checkpoint, an adapter of PEFT's, or a `.gguf` file",
    )
    quantization: Literal["nf4", "int8"] | None = Field(
        default=None, description="hold the frozen weights in 4 or 8 bits (bitsandbytes); default: as they are"
    )
    add_tokens: DifferentTexts = Field(
        default=(),
        description="new tokens, each one piece of any text; they start at the mean of the pieces they had been, and learn",
    )


if TYPE_CHECKING:  # elsewhere a mapping of roles is one of strings, and the keys of a mapping's type are invariant
    Role = str
else:
    Role = Literal[
        *("messages", "prompt", "completion", "source", "target", "text", "text_pair", "negative"),
        *("label", "labels", "score", "tokens", "tags", "group", "sensitive_feature"),
    ]
Format = Literal[
    "openai",
    "share_gpt",
    "alpaca",
    "prompt_completion",
    "text",
    "text_label",
    "text_labels",
    "text_score",
    "tokens_tags",
    "text_pair",
    "triplet",
    "text_pair_score",
    "text_pair_label",
    "source_target",
    "openai_preference",
    "trl_preference",
]
SEVERAL = ("score", "labels")  # roles that may be several columns: numbers, or 0 and 1


Allowable = Literal["malformed", "no_trained_token", "too_long", "leak", "near_duplicate"]
ALLOWABLE: tuple[Allowable, ...] = get_args(Allowable)


class Data(Frozen):
    """Which rows, what their columns mean, and how they are split."""

    train: Annotated[
        Sources, Field(description="rows to learn from: files, folders, a hub dataset, a query, a graph, a sample")
    ]
    validation: ShareOrSources = Field(default=0.1, description="a share of train, or files: for the best checkpoint")
    test: ShareOrSources = Field(default=0.1, description="a share of train, or files: read once, for the verdict")
    format: Format | None = Field(
        default=None, description="how the rows are written; default: found out by the names of their columns"
    )
    columns: dict[Role, ColumnOrColumns] = Field(
        default={},
        description="where columns have other names: {text: review}; score and labels may be several columns",
    )
    instruction: str | None = Field(
        default=None,
        min_length=1,
        description="for every row: a system message (chat), a first line (completion), what a source begins with (seq2seq)",
    )
    max_length: Annotated[int, Field(gt=1), NoTruth] | None = Field(
        default=None, description="tokens; default: the model's limit"
    )
    truncation: Literal["refuse", "drop", "split", "cut"] = Field(
        default="refuse",
        description="what becomes of a row that is too long; split: a text, a conversation or a sentence into several;"
        " cut: its input from the end",
    )
    filter: Filter | None = Field(
        default=None, description="which rows are kept: {stars: [1, 5], year: {min: 2020}}, or ./my_filter.py:name"
    )
    benchmarks: Sources | None = Field(
        default=None, description="texts that must not be learnt; rows that share 13 words in a row with one are listed"
    )
    allow: tuple[Allowable, ...] = Field(
        default=(),
        description="findings that shall not stop training; such rows are dropped (leaks stay) and listed;"
        " near_duplicate: near twins may stand on two sides of a split",
    )

    @property
    def given(self) -> dict[str, tuple[Source, ...]]:
        """The splits that are read from sources of their own."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: value for name, value in splits.items() if not isinstance(value, float)}

    @property
    def shares(self) -> dict[str, float]:
        """The splits that are shares of train."""
        splits = {"validation": self.validation, "test": self.test}
        return {name: value for name, value in splits.items() if isinstance(value, float)}

    def column(self, role: str) -> str:
        """The name of the one column that has a role."""
        column = self.columns.get(role, role)
        assert isinstance(column, str)
        return column

    @model_validator(mode="after")
    def _only_some_roles_are_several_columns(self) -> Data:
        for role, column in self.columns.items():
            if not isinstance(column, str) and role not in SEVERAL:
                cure = f"a list of columns is for {' or '.join(SEVERAL)}; give the name of one"
                raise ValueError(f"data.columns.{role} is one column: {cure}")
        return self

    @model_validator(mode="after")
    def _weights_have_an_effect(self) -> Data:
        named = {name: given for name, given in self.given.items() if name != "train"}
        for name, sources in (named | {"benchmarks": self.benchmarks or ()}).items():
            if any(source.weight != 1 for source in sources):
                raise ValueError(f"data.{name}: a weight has no effect on rows that are not learnt")
        return self

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Data:
        shares = self.shares.values()
        if sum(shares) >= 1:
            raise ValueError(f"data.validation and data.test together take all rows ({' + '.join(map(str, shares))})")
        return self


def _formed(name: str) -> str:
    if is_own(name):
        split(name)
    return name


def _by_name(value: Any) -> Any:
    return [as_reference(one) for one in value] if isinstance(value, list | tuple) else as_reference(value)


OwnByName = BeforeValidator(_by_name)  # functions given in Python, as what files hold


class Train(Frozen):
    """The training run; `batch_size` is the number of examples in one optimizer update, over all ranks."""

    num_train_epochs: Amount = Field(default=3.0, description="passes over train; 0.5 is half a pass")
    max_steps: Count | None = Field(default=None, description="updates; overrides num_train_epochs")
    batch_size: Count = Field(default=16, description="examples in one update, over all ranks")
    micro_batch_size: AutoOrCount = Field(default="auto", description="upper limit on rows at once")
    gradient_checkpointing: AutoOrBool = Field(
        default="auto", description="compute layers once more on the way back; auto: where a row alone does not fit"
    )
    torch_compile: AutoOrBool = Field(
        default="auto", description="compile the layers; auto: on a GPU, where that is tried to be faster in a long run"
    )
    loss: LossOrNone = Field(
        default=None, description="what is made small: the name of a loss, or ./my_loss.py:name; default: the task's"
    )
    learning_rate: Amount | None = Field(
        default=None, description="of AdamW; default: the method's (2e-4 for lora, 2e-5 for full)"
    )
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
    metric_for_best_model: Annotated[str, AfterValidator(_formed), Field(min_length=1), OwnByName] = Field(
        default="loss",
        description="of validation, by which the best checkpoint is chosen and stopping early is decided",
    )
    early_stopping_patience: Count | None = Field(
        default=None, description="validations without improvement before it stops; default: never"
    )
    early_stopping_threshold: Number = Field(default=0.0, ge=0, description="a smaller improvement counts as none")
    max_time: Seconds | None = Field(
        default=None, description="of training, in seconds or as 90m, 2h, 1h30m: then it ends, with the model so far"
    )
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

    metrics: Annotated[Names, AfterValidator(lambda names: tuple(map(_formed, names))), OwnByName] | None = Field(
        default=None, description="what is computed: names or ./my_metric.py:name; default: the task's"
    )
    primary: Annotated[str, AfterValidator(_formed), Field(min_length=1), OwnByName] | None = Field(
        default=None, description="what the verdict is about, fixed before training; default: the task's"
    )
    max_new_tokens: Count | None = Field(
        default=None, description="length of an answer; default: a quarter more than train's longest"
    )
    few_shot: Whole = Field(
        default=5, ge=0, description="rows of train shown to the untouched model; 0: no such system"
    )
    max_rows: Count = Field(default=1000, description="test rows scored, drawn with the seed")
    num_beams: Count = Field(
        default=1, description="of seq2seq: how many answers are followed at once; 1: none but the likeliest"
    )


class Recipe(Frozen):
    """One recipe goes in; one run folder comes out, and it ends in a verdict."""

    model: Annotated[Model, named("name", Model)]
    task: Annotated[Task, named("kind", Task)]
    data: Annotated[Data, named("train", Data)]
    method: Annotated[Method, named("kind", Method, kind="lora")] = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    seed: Whole = Field(default=42, ge=0, lt=2**31, description="fixes everything that is drawn")

    @model_validator(mode="after")
    def _the_instruction_has_an_effect(self) -> Recipe:
        if self.data.instruction is not None and self.task.kind not in PROMPTED:
            raise ValueError(f"data.instruction has no effect with task: {self.task.kind}")
        return self

    @model_validator(mode="after")
    def _the_beams_have_an_effect(self) -> Recipe:
        if self.evaluate.num_beams > 1 and self.task.kind != "seq2seq":
            raise ValueError(f"evaluate.num_beams has no effect with task: {self.task.kind}; leave it away")
        return self

    @model_validator(mode="after")
    def _what_is_quantized_is_frozen(self) -> Recipe:
        if self.model.quantization is not None and self.method.kind in ("full", "freeze"):
            cure = "take method: lora, adapter or peft, or leave model.quantization away"
            raise ValueError(
                f"model.quantization: with method: {self.method.kind} the model's own weights learn; {cure}"
            )
        return self

    @model_validator(mode="after")
    def _new_tokens_learn(self) -> Recipe:
        kind = self.method.kind
        if self.model.add_tokens and kind == "peft":
            raise ValueError(
                "model.add_tokens: their embeddings would not learn with method: peft; take lora or adapter"
            )
        if self.model.add_tokens and isinstance(self.method, Freeze) and "embeddings" not in self.method.parts:
            raise ValueError("model.add_tokens: their embeddings would not learn; add embeddings to method.parts")
        return self

    @model_validator(mode="after")
    def _the_loss_fits_the_task(self) -> Recipe:
        refuse_misfit(self.train.loss, self.task.kind)
        return self
