"""A run that has a model: load it, ask it, score it again. What `pegbox.load(run_dir)` gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.formats import SPARED, TIES, Columns, to_record, with_placeholder
from pegbox.data.records import Record, Row
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.methods import METHODS
from pegbox.models import load as models
from pegbox.models.generation import Kept, stream
from pegbox.progress import bar
from pegbox.recipe import Recipe
from pegbox.recipe import load as load_recipe
from pegbox.runs.checkpoint import hashes
from pegbox.runs.folder import RunFolder
from pegbox.tasks import Predictions, Task, task_of
from pegbox.tasks.base import Advance
from pegbox.tasks.language import LanguageTask

Asked = str | Sequence[Mapping[str, str]]


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

    def refuse_unfinished(self) -> None:
        """Raise RecipeError where training has not come to its end: there is no model."""
        if not self.folder.model.is_dir():
            cure = f"finish the run with `pegbox train --resume {self.path}`"
            raise RecipeError("the run has no model yet", where=str(self.path), cure=cure)

    @cached_property
    def task(self) -> Task:
        """The task with the tokenizer and the label names that were trained."""
        tokens = self.recipe.model.add_tokens
        is_saved = self.folder.model.is_dir()
        tokenizer = models.load_tokenizer(*((self.folder.model,) if is_saved else (self.base_folder, tokens)))
        renderer = Renderer(tokenizer, self.receipt["model"]["stop_ids"])
        task = task_of(self.recipe)(renderer, self.recipe, frozenset(self.receipt["model"]["heads"]))
        task.restore(self.receipt["task"])
        return task

    @cached_property
    def base_folder(self) -> Path:
        """Where the untouched model lies. Raises RecipeError where it is no longer the one that was trained."""
        from pegbox.finished.continuing import resolve  # it looks into runs in its turn

        known, kept = self.receipt["model"]["files"], Path(self.receipt["model"].get("folder", ""))
        try:
            folder = resolve(self.recipe.model.name).path
        except RecipeError:  # a checkpoint that was pruned since, say: what was made of it may still be there
            if not (kept / "config.json").is_file():
                raise
            folder = kept
        if changed := [name for name, digest in hashes(folder) if known.get(name, digest) != digest]:
            cure = "put the model back that the run was made from"
            raise RecipeError(f"the base model has changed since: {', '.join(changed)}", where=str(folder), cure=cure)
        return folder

    def load_base(self, head: str | None = None, *, apart: bool = False) -> PreTrainedModel:
        """The untouched model, fresh from where it came, with the task's head or another.

        `apart`: the rows of new tokens are held as they are where the model's own weights are frozen.
        """
        return models.load_model(
            self.base_folder,
            head or self.task.head,
            labels=self.task.labels if head in (None, self.task.head) else (),
            problem_type=self.task.problem_type,
            seed=self.recipe.seed,
            device=runtime.find_device(),
            quantization=self.recipe.model.quantization,
            add_tokens=self.recipe.model.add_tokens,
            apart=apart,
        )

    @cached_property
    def model(self) -> PreTrainedModel:
        """The tuned model as it was saved, in eval mode."""
        return self.load_tuned()

    def load_tuned(self) -> PreTrainedModel:
        """The tuned model, fresh from its folder."""
        self.refuse_unfinished()
        method = METHODS[self.recipe.method.kind]
        model = self.load_base(apart=method.FREEZES)
        method.restore(model, self.recipe.method, self.folder.model)
        return model

    @cached_property
    def base(self) -> PreTrainedModel:
        """The untouched model beside the tuned one, kept once it is loaded."""
        return self.load_base()

    @cached_property
    def limit(self) -> int:
        """The most tokens that the model takes, prompt and answer together."""
        return models.max_length(self.base_folder)

    def predict(self, rows: Iterable[Mapping[str, Any]]) -> list[Any]:
        """The tuned model's answers to rows in the form of the training rows; their answers are not needed.

        Raises DataError for rows that cannot be understood.
        """
        records = [self.task_record(Row(f"row {number}", row)) for number, row in enumerate(rows, start=1)]
        return list(self.served(records).answers)

    def task_record(self, row: Row) -> Record:
        """The record of a row that may lack its answer."""
        given = self.recipe.data.columns
        values = with_placeholder(row.values, self.task.kind, given, self.recipe.data.format)
        spared = (*TIES, *SPARED.get(self.task.kind, ()))
        columns = {role: column for role, column in given.items() if role not in spared or column in values}
        try:
            data = self.recipe.data
            record = self.record_asked(Row(row.where, values), columns, data.instruction, data.format)
            if not 0 < (length := self.task.prompt_length(record, ())) <= self.limit:
                raise ValueError(f"has {length} tokens, and the model takes 1 to {self.limit}")
        except ValueError as error:
            raise DataError(str(error), where=row.where, cure="give rows like those of training") from None
        return record

    def record_asked(
        self, row: Row, columns: Columns, instruction: str | None = None, format: str | None = None
    ) -> Record:
        """The record of a row that is only asked about. Raises ValueError that says what it lacks."""
        content = self.task.question(row.values)
        if content is not None:
            return Record(row.where, content)
        return to_record(row, self.task.kind, columns, instruction, format)

    def answers(self, records: Sequence[Record], advance: Advance | None = None) -> Predictions:
        """The tuned model's answers to records, in order; with a progress bar unless `advance` shows it."""
        return self._asked(self.task.predict, records, advance)

    def served(self, records: Sequence[Record], advance: Advance | None = None) -> Predictions:
        """The same of what is given to those who use the model: of a search vectors, and not what it would find."""
        return self._asked(self.task.served, records, advance)

    def _asked(
        self, ask: Callable[..., Predictions], records: Sequence[Record], advance: Advance | None
    ) -> Predictions:
        if advance is None:
            with bar("tuned model", len(records)) as shown:
                return self._asked(ask, records, shown.advance)
        tokens = self.recipe.evaluate.max_new_tokens
        assert tokens is not None
        with self._precision(self.model):
            return ask(self.model, records, max_new_tokens=tokens, advance=advance)

    def calibrate(self, validation: Sequence[Record]) -> None:
        """Let the task find, on validation rows, what it sets after training, and keep it in the receipt."""
        with self._precision(self.model):
            self.task.calibrate(self.model, validation)
        self.receipt["task"] = self.task.state()
        self.folder.write_json("receipt.json", self.receipt)

    def _precision(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        return runtime.autocast(model.device, runtime.use_bf16(model.device, self.recipe.train.bf16))

    def generate(self, asked: Asked, *, max_new_tokens: int = 256, do_sample: bool = False) -> str:
        """The tuned model's answer to a prompt or to messages `[{"role": , "content": }]`, unstripped."""
        return "".join(self.stream(asked, max_new_tokens=max_new_tokens, do_sample=do_sample))

    def stream(
        self,
        asked: Asked,
        *,
        max_new_tokens: int = 256,
        do_sample: bool = False,
        base: bool = False,
        kept: Kept | None = None,
    ) -> Iterator[str]:
        """The answer as it comes, in pieces of text that are never taken back; together they are what `generate` gives.

        `base` asks the untouched model. `kept` holds what the model has computed, from one turn of a conversation to
        the next (see models.generation.stream). Raises DataError for a prompt that cannot be understood or is too long.
        """
        prompt, ids, told = self.prompt(asked), list[int](), 0
        if len(prompt) + max_new_tokens > self.limit:
            what = f"the prompt has {len(prompt)} tokens and the answer may have {max_new_tokens}"
            cure = "ask for less with max_new_tokens, or give a shorter prompt"
            raise DataError(f"{what}; the model takes {self.limit} together", cure=cure)
        model, stop_ids = self.base if base else self.model, self.task.renderer.stop_ids
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": do_sample, "kept": kept}
        with closing(stream(model, prompt, stop_ids=stop_ids, **options)) as tokens:
            token: int | None = 0
            while token is not None:
                with self._precision(model):  # around each step: who asks for pieces has a precision of their own
                    token = next(tokens, None)
                ids += [] if token is None else [token]
                if piece := self.task.said(ids, whole=token is None)[told:]:
                    told += len(piece)
                    yield piece

    def export(self, out: str | Path, formats: Sequence[str] = ("merged",)) -> dict[str, Any]:
        """Write the model into `out/FORMAT` for each format, each verified (see `finished.exporting`)."""
        from pegbox.finished.exporting import export  # it asks runs in its turn

        return export(self, formats, Path(out))

    def prompt(self, asked: Asked) -> list[int]:
        """The ids that a prompt or messages become, by the rule for rows: behind the recipe's instruction.

        A system message of one's own stands in its place. Raises DataError for what cannot be understood.
        """
        if not isinstance(self.task, LanguageTask):
            cure = "give rows to `predict`"
            raise DataError(f"a run of task '{self.task.kind}' writes no text", where=str(self.path), cure=cure)
        values = {"prompt": asked} if isinstance(asked, str) else {"messages": [dict(message) for message in asked]}
        own = not isinstance(asked, str) and bool(asked) and asked[0].get("role") == "system"
        row = Row("the prompt", with_placeholder(values, self.task.kind, {}))
        try:
            record = self.record_asked(row, {}, None if own else self.recipe.data.instruction)
            return self.task.prompt(record, ())
        except ValueError as error:
            raise DataError(str(error), where=row.where, cure="give a text, or messages as in training") from None
