"""A run that has a model: load it, ask it, score it again. What `pegbox.load(run_dir)` gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.formats import to_record, with_placeholder
from pegbox.data.records import Message, Record, Row
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.evaluation.systems import ask
from pegbox.methods import METHODS
from pegbox.models import load as models
from pegbox.models.generation import generate, sample
from pegbox.models.sources import resolve
from pegbox.recipe import Recipe
from pegbox.recipe import load as load_recipe
from pegbox.runs.checkpoint import hashes
from pegbox.runs.folder import RunFolder
from pegbox.tasks import TASKS, Predictions, Task


class Run:
    """A run folder with its model. Models are loaded when they are first asked."""

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(Path(path))
        self.path = self.folder.path
        self.recipe: Recipe = load_recipe(self.path / "recipe.yaml")
        self.receipt: dict[str, Any] = self.folder.read_json("receipt.json")

    @property
    def evaluation(self) -> dict[str, Any]:
        """The contents of `evaluation.json`."""
        evaluation: dict[str, Any] = self.folder.read_json("evaluation.json")
        return evaluation

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "not shown"."""
        return str(self.evaluation["verdict"])

    @cached_property
    def task(self) -> Task:
        """The task with the tokenizer and the label names that were trained."""
        if not self.folder.model.is_dir():
            cure = f"finish the run with `pegbox train --resume {self.path}`"
            raise RecipeError("the run has no model yet", where=str(self.path), cure=cure)
        renderer = Renderer(models.load_tokenizer(self.folder.model), self.receipt["model"]["stop_ids"])
        task = TASKS[self.recipe.task.kind](renderer)
        task.restore(self.receipt["task"])
        return task

    @cached_property
    def base_folder(self) -> Path:
        """Where the untouched model lies. Raises RecipeError where it is no longer the one that was trained."""
        folder = resolve(self.recipe.model.name).path
        known = self.receipt["model"]["files"]
        if changed := [name for name, digest in hashes(folder) if known.get(name, digest) != digest]:
            cure = "put the model back that the run was made from"
            raise RecipeError(f"the base model has changed since: {', '.join(changed)}", where=str(folder), cure=cure)
        return folder

    def load_base(self) -> PreTrainedModel:
        """The untouched model, fresh from where it came."""
        device = runtime.find_device()
        return models.load_model(
            self.base_folder, self.task.head, labels=self.task.labels, seed=self.recipe.seed, device=device
        )

    @cached_property
    def model(self) -> PreTrainedModel:
        """The tuned model as it was saved, in eval mode."""
        model = self.load_base()
        METHODS[self.recipe.method.kind].restore(model, self.recipe.method, self.folder.model)
        return model

    def predict(self, rows: Iterable[Mapping[str, Any]]) -> list[Any]:
        """The tuned model's answers to rows in the form of the training rows; their answers are not needed.

        Raises DataError for rows that cannot be understood.
        """
        records = [self.task_record(Row(f"row {number}", row)) for number, row in enumerate(rows, start=1)]
        return list(self.answers(records).answers)

    def task_record(self, row: Row) -> Record:
        """The record of a row that may lack its answer."""
        given = self.recipe.data.columns
        values = with_placeholder(row.values, self.task.kind, given)
        columns = {role: column for role, column in given.items() if role != "group" or column in values}
        try:
            record = to_record(Row(row.where, values), self.task.kind, columns, self.recipe.data.instruction)
            self.task.prompt_length(record, ())
        except ValueError as error:
            raise DataError(str(error), where=row.where, cure="give rows like those of training") from None
        return record

    def answers(self, records: Sequence[Record]) -> Predictions:
        """The tuned model's answers to records, in order."""
        tokens = self.recipe.evaluate.max_new_tokens
        assert tokens is not None
        with runtime.autocast(self.model.device, runtime.use_bf16(self.model.device, self.recipe.train.bf16)):
            return ask(self.task, self.model, records, "tuned model", max_new_tokens=tokens)

    def generate(
        self, asked: str | Sequence[Mapping[str, str]], *, max_new_tokens: int = 256, do_sample: bool = False
    ) -> str:
        """The tuned model's answer to a prompt or to messages `[{"role": , "content": }]`, unstripped."""
        renderer = self.task.renderer
        instruction = self.recipe.data.instruction
        if isinstance(asked, str) and self.task.kind == "completion":
            prompt = renderer.completion_prompt(f"{instruction}\n{asked}" if instruction else asked)
        else:
            given = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
            messages = [Message(str(message["role"]), str(message["content"])) for message in given]
            if instruction and messages[0].role != "system":
                messages.insert(0, Message("system", instruction))
            prompt = renderer.prompt(messages)
        if do_sample:
            ids = sample(self.model, prompt, stop_ids=renderer.stop_ids, max_new_tokens=max_new_tokens)
        else:
            answers = generate(self.model, [prompt], stop_ids=renderer.stop_ids, max_new_tokens=max_new_tokens)
            ids = answers[0].input_ids
        return self.task.said(ids)
