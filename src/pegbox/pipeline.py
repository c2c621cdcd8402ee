"""The five steps, in order: data -> model -> training -> evaluation (-> search), and the verdict.

This is the table of contents of the program; what a step does stands in its room.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pegbox import record, runtime, trackers
from pegbox.data.prepare import Prepared, prepare
from pegbox.data.records import Record
from pegbox.data.render import Renderer
from pegbox.errors import RecipeError
from pegbox.evaluation import systems
from pegbox.evaluation.rehearsal import rehearse
from pegbox.evaluation.score import refuse_undecided, refuse_undefined, value_of
from pegbox.finished import Run
from pegbox.finished.continuing import resolve
from pegbox.finished.scoring import answer_all, ask_tuned, ask_untouched, predictions, score_run
from pegbox.methods import METHODS
from pegbox.metrics import lookup, own_metrics
from pegbox.models import load as models
from pegbox.models.packing import enable_packing, shares_prefixes
from pegbox.models.sources import ModelFolder
from pegbox.progress import step
from pegbox.ready import Ready
from pegbox.recipe import Recipe
from pegbox.recipe import dump as dump_recipe
from pegbox.recipe import load as load_recipe
from pegbox.recipe.sources import source_of
from pegbox.report import card, html
from pegbox.runs import changes, checkpoint, durable, receipt
from pegbox.runs.checkpoint import TrainState
from pegbox.runs.folder import RECIPE, RunFolder
from pegbox.runtime import ALONE, OutOfMemoryError, Ranks
from pegbox.tasks import Task, task_of
from pegbox.training import loop
from pegbox.training.job import Job, Judge
from pegbox.training.plan import Given, Plan
from pegbox.training.planning import make_plan, take_up
from pegbox.training.validation import LOSS, precision_gap

log = logging.getLogger("pegbox")


def read_rows(recipe: Recipe) -> tuple[ModelFolder, Task, Prepared]:
    """Step 1: the rows, read, checked, split, and in the model's own tokens."""
    source = resolve(recipe.model.name)
    tokenizer = models.load_tokenizer(source.path, recipe.model.add_tokens)
    renderer = Renderer(tokenizer, models.stop_ids(source.path))
    task = task_of(recipe)(renderer, recipe, models.heads_of(source.path))
    limit = models.max_length(source.path)
    most = min(limit, recipe.data.max_length or limit)
    known = models.vocabulary(source.path)
    known = max(known, len(tokenizer)) if recipe.model.add_tokens else known
    data = prepare(recipe, task, most, known, models.max_written(source.path))
    task.fit(data.splits.train)
    return source, task, data


def get_ready(recipe: Recipe, *, kernels: bool = True, planned: Plan | None = None, ranks: Ranks = ALONE) -> Ready:
    """Steps 1 and 2: the rows, the model with the weights that will learn, and the plan. Nothing is written.

    `planned`: the plan as it was made before, for a run that goes on.
    """
    runtime.tune_allocator()
    with step("step 1, rows read, checked and in tokens"):
        source, task, data = read_rows(recipe)
    recipe = task.recipe = with_defaults(recipe, task, data)
    device, method = runtime.find_device(), METHODS[recipe.method.kind]
    bf16 = runtime.use_bf16(device, recipe.train.bf16)
    with step(f"step 2, model on {device}"):
        model = models.load_model(
            source.path,
            task.head,
            labels=task.labels,
            problem_type=task.problem_type,
            seed=recipe.seed,
            dtype=torch.bfloat16 if bf16 and method.FREEZES else torch.float32,
            device=device,
            kernels=kernels,
            quantization=recipe.model.quantization,
            add_tokens=recipe.model.add_tokens,
            apart=method.FREEZES,
        )
    method.prepare(model, recipe.method, recipe.seed)
    with runtime.autocast(device, bf16):
        packed = kernels and enable_packing(model, data.train)
        share_prefix = packed and shares_prefixes(model, data.train)
    given = Given(
        model=model,
        task=task,
        train=data.train,
        validation=data.validation,
        settings=recipe.train,
        seed=recipe.seed,
        packed=packed,
        share_prefix=share_prefix,
        bf16=bf16,
        ranks=ranks,
    )
    if planned is not None and planned.packed == packed:
        take_up(given, planned)
        return Ready(recipe, source, task, data, model, planned, kernels)
    with step("the plan, by trying the longest rows"):
        asking = rehearse(task, model, data, recipe, models.max_length(source.path), bf16=bf16)
        return Ready(recipe, source, task, data, model, make_plan(replace(given, asking=asking)), kernels)


def with_defaults(recipe: Recipe, task: Task, data: Prepared) -> Recipe:
    """The recipe with every choice of pegbox's made explicit, the primary metric among them: before training."""
    evaluate = recipe.evaluate
    primary = evaluate.primary or task.primary(data.splits.train)
    metrics = evaluate.metrics or tuple(dict.fromkeys((primary, *task.metrics)))
    choosing = {recipe.train.metric_for_best_model} - {LOSS}
    _refuse_unfit((primary, *metrics, *choosing), {primary, *choosing}, task, data.splits.train[0])
    refuse_undefined(lookup(primary), task, data.splits.test)
    tokens = evaluate.max_new_tokens or -(-5 * task.longest_answer(data.train) // 4)
    chosen = {
        "loss": task.loss_settings,
        "learning_rate": recipe.train.learning_rate or METHODS[recipe.method.kind].learning_rate(recipe.method),
        "report_to": trackers.choose(recipe.train.report_to),
    }
    judged = {"primary": primary, "metrics": metrics, "max_new_tokens": tokens}
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update=chosen), "evaluate": evaluate.model_copy(update=judged)}
    )


def _refuse_unfit(metrics: Sequence[str], deciding: Collection[str], task: Task, record: Record) -> None:
    """Raise RecipeError, before hours of training, for a metric that is unknown or cannot score the task's answers, and
    where one is to be `deciding` that only says what answers are like.
    """
    own_metrics(metrics)
    for name in metrics:
        metric, right = lookup(name, where="evaluate"), task.reference(record)
        against = {"reference": right, **task.beside(record)}.get(metric.against)
        if name not in task.metrics and not (metric.reads == "answers" and metric.kind.fits(right, against)):
            cure = f"take one of {', '.join(task.metrics)}, or a function of your own"
            raise RecipeError(f"{metric.name} cannot score the answers of {task.kind}", where="evaluate", cure=cure)
    for name in deciding:
        refuse_undecided(lookup(name))


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    run_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    kernels: bool = True,
) -> Run:
    """The whole pipeline, from rows to a verdict. `run_dir` must be new or empty; by default `runs/<time>`.

    `kernels=False` uses plain operations only (the same updates, slower).

    Raises RecipeError, DataError (both before anything is written) and TrainingError.
    """
    with runtime.joined_ranks() as ranks:
        if run_dir is None and ranks.world > 1:
            raise RecipeError("several processes need one run folder", cure="give it with --run-dir")
        path = Path(run_dir or f"runs/{time.strftime('%Y%m%d-%H%M%S')}")
        if ranks.is_first:
            RunFolder.refuse_used(path)
        loaded = load_recipe(recipe, overrides)
        _find_model(loaded, ranks)
        return _run(loaded, ranks, kernels, lambda ready: (record.begin(path, ready, ranks), TrainState()))


def resume(run_dir: str | Path, *, accept: Sequence[str] = ()) -> Run:
    """Go on with a run from its newest whole checkpoint; a run without one starts over.

    `accept`: keys of what may differ from how the run began (`runs.changes`). Raises RecipeError where anything else does.
    """
    with runtime.joined_ranks() as ranks:
        folder = RunFolder.open(Path(run_dir))
        recipe, first = load_recipe(folder.path / RECIPE), folder.read_json("receipt.json")
        _find_model(recipe, ranks)
        found = record.changed(first, recipe)
        changes.refuse_unaccepted(found, accept)
        torch.set_num_threads(first["hardware"]["threads"])
        newest = checkpoint.newest(folder.checkpoints)
        begun = TrainState(**{name: first["plan"][name] for name in ("micro_batch_tokens", "gradient_checkpointing")})
        state = checkpoint.state_of(newest) if newest else begun

        def go_on(ready: Ready) -> tuple[RunFolder, TrainState]:
            if ranks.is_first:
                trackers.remember(folder, recipe)
                folder.truncate_logs(state.logs)
                record.go_on(folder, ready, ranks, found)
                folder.tell(state.step, "resumed", accepted=[key for key, _ in found])
            ranks.wait()
            return folder, state

        return _run(recipe, ranks, not first["no_kernels"], go_on, None if found else Plan(**first["plan"]))


def _find_model(recipe: Recipe, ranks: Ranks) -> None:
    """Let the first rank fetch, convert or merge what is to be; the others find it done."""
    if ranks.is_first:
        resolve(recipe.model.name)
    ranks.wait()


def _run(
    recipe: Recipe,
    ranks: Ranks,
    kernels: bool,
    begin: Callable[[Ready], tuple[RunFolder, TrainState]],
    planned: Plan | None = None,
) -> Run:
    """All steps. The trained model is let go of before the models of the evaluation are loaded from disk."""
    ready = get_ready(recipe, kernels=kernels, planned=planned, ranks=ranks)
    if ranks.is_first:
        computed = "bfloat16" if ready.bf16 else "float32"
        log.info("%s; %s in %s", ready.plan.summary, ready.model.device.type, computed)
    folder, state = begin(ready)
    with trackers.opened(folder, ready.recipe, state.step, tells=ranks.is_first) as metrics:
        with step("step 3, training"):
            _fit(ready, folder, state, ranks, metrics)
        data = ready.data
        del ready
        if not ranks.is_first:
            return Run(folder.path)
        runtime.release_memory()
        with step("step 4, evaluation"):
            run = _judge(Run(folder.path), data)
        metrics.judged(run.evaluation)
        return run


def _fit(ready: Ready, folder: RunFolder, state: TrainState, ranks: Ranks, metrics: trackers.Log) -> None:
    """Step 3: train, and save the chosen weights."""
    began, resumed_at = time.monotonic(), state.step
    recipe_hash = receipt.text_hash(dump_recipe(ready.recipe))
    job = Job(
        model=ready.model,
        task=ready.task,
        train=ready.data.train,
        validation=ready.data.validation,
        settings=ready.recipe.train,
        plan=ready.plan,
        seed=ready.recipe.seed,
        run=folder,
        recipe_hash=recipe_hash,
        log=metrics,
        ranks=ranks,
        rate_factor=ready.rate_factor,
        judge=_judge_of(ready),
    )
    with runtime.metered(ready.model.device) as energy:
        state = loop.train(job, state)
    gap = _precision_gap(job, ready)
    if not ranks.is_first:
        return
    _keep_model(ready, folder)
    facts = {
        "seconds": {"training": time.monotonic() - began},
        "tokens": state.tokens,
        "peak_memory": {"predicted": ready.plan.memory, "measured": runtime.peak_memory(ready.model.device)},
        "energy": energy,
        "resumed_at": resumed_at,
        "chosen_step": state.best_step or state.step,
        "best_validation": {
            "metric": job.judge.metric if job.judge else LOSS,
            "value": state.best_value,
            "greater_is_better": job.judge is not None and job.judge.greater_is_better,
        },
        "micro_batch_tokens": state.micro_batch_tokens,
        "gradient_checkpointing": state.gradient_checkpointing,
        "events": Counter(line["event"] for line in folder.read_lines("events.jsonl")),
        "model_files": dict(checkpoint.hashes(folder.model)),
    }
    told = folder.read_json("receipt.json")
    told["precision"] |= {"validation_loss": gap}
    folder.write_json("receipt.json", told | facts)


def _precision_gap(job: Job, ready: Ready) -> dict[str, float] | None:
    """What computing in bfloat16 does to the loss; None where that is float32's, or cannot be told here."""
    if not job.bf16 or ready.recipe.model.quantization is not None:
        return None
    try:
        return precision_gap(job)
    except OutOfMemoryError:
        return None


def _judge_of(ready: Ready) -> Judge | None:
    """What scores the validation rows by `train.metric_for_best_model`; None where that is the loss."""
    task, recipe, name = ready.task, ready.recipe, ready.recipe.train.metric_for_best_model
    if name == LOSS:
        return None
    metric, tokens = lookup(name, where="train.metric_for_best_model"), recipe.evaluate.max_new_tokens
    rows = systems.choose(ready.data.splits.validation, recipe.evaluate.max_rows, recipe.seed)
    assert tokens is not None

    def score() -> float:
        with runtime.autocast(ready.model.device, ready.bf16):
            return value_of(metric, task, rows, task.predict(ready.model, rows, max_new_tokens=tokens))

    return Judge(metric.name, metric.greater_is_better, score)


def _keep_model(ready: Ready, folder: RunFolder) -> None:
    """`model/`, whole or not at all; one that an earlier attempt left is replaced."""
    draft = folder.path / ".model.tmp"
    with durable.explained(folder.model):
        shutil.rmtree(draft, ignore_errors=True)
        save_model(ready, draft)
        for file in draft.rglob("*"):
            durable.sync(file)
        if folder.model.exists():
            shutil.rmtree(folder.model)
        durable.place(draft, folder.model)


def save_model(ready: Ready, folder: Path) -> None:
    """What was learnt, with the tokenizer and what serving needs, loadable by Transformers and PEFT without pegbox."""
    method, renderer = ready.recipe.method, ready.task.renderer
    base = ready.source.name if ready.source.source.startswith("hub") else str(ready.source.path)
    ready.model.config.update(ready.task.config())
    METHODS[method.kind].save(ready.model, method, folder, base)
    models.save_serving(renderer.tokenizer, ready.model, sorted(renderer.stop_ids), folder)
    ready.task.save_beside(ready.model, folder)


def _judge(run: Run, data: Prepared) -> Run:
    """Step 4: every system answers the test rows, the verdict is found, and the report is written."""
    began = time.monotonic()
    rows = systems.choose(data.splits.test, run.recipe.evaluate.max_rows, run.recipe.seed)
    answers = ask_untouched(run, data.splits, rows)
    runtime.release_memory()  # what one model has left behind is not held beside the next
    run.calibrate(data.splits.validation)
    answers |= ask_tuned(run, rows)
    run.folder.write_lines("predictions.jsonl", predictions(run, rows, answers))
    evaluation = score_run(run)
    evaluation["close_calls"] = {name: given.close for name, given in answers.items()}
    run.folder.write_json("evaluation.json", evaluation)
    facts = {
        "ended": receipt.now(),
        "seconds": run.receipt["seconds"] | {"evaluation": time.monotonic() - began},
        "test_scored": run.receipt["test_scored"] + 1,
        "shots": max(given.shots for given in answers.values()),
        "peak_memory": run.receipt["peak_memory"] | {"measured": runtime.peak_memory(runtime.find_device())},
        "files": receipt.record_hashes(run.path),
    }
    run.folder.write_json("receipt.json", run.receipt | facts)
    run = Run(run.path)
    run.folder.write("report.html", html.report(run.folder, run.recipe))
    run.folder.write("README.md", card.card(run.folder, run.recipe))
    return run


def evaluate(run_dir: str | Path, *, data: str | None = None, metric: str | None = None) -> dict[str, Any]:
    """Score a run again: from its saved predictions, or (`data`) on the rows of another file, none of them in train.

    Nothing in the run folder changes but the receipt's count of how often the test rows were scored.
    """
    run = Run(run_dir)
    if data is None:
        result = score_run(run, metric=metric)
        run.folder.write_json("receipt.json", run.receipt | {"test_scored": run.receipt["test_scored"] + 1})
        return result
    run.refuse_unfinished()
    known = read_rows(run.recipe)[2]
    other = run.recipe.data.model_copy(update={"test": (source_of(str(Path(data).absolute())),)})
    rows = read_rows(run.recipe.model_copy(update={"data": other}))[2].splits.test
    return score_run(run, predictions(run, rows, answer_all(run, known.splits, rows)), metric)


def is_first_rank() -> bool:
    """True in the one process of a run that shows its result."""
    return int(os.environ.get("RANK", "0")) == 0
