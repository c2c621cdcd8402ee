"""Looking before training: what is wrong with the rows and what the plan is, a cleaned copy, examples as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pegbox.data.doctor.fix import fix as write_fixed
from pegbox.data.doctor.fix import refuse_used
from pegbox.data.splits import SPLITS
from pegbox.pipeline import get_ready, read_rows
from pegbox.recipe import ALLOWABLE, Recipe
from pegbox.recipe import dump as dump_recipe
from pegbox.recipe import load as load_recipe
from pegbox.recipe.sources import FileSource


def check(
    recipe: Recipe | str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    fix: str | Path | None = None,
    redact: bool = False,
) -> dict[str, Any]:
    """What the doctor finds and what the plan is, without training. Raises DataError where the data is refused.

    `fix`: a folder, new or empty, for a cleaned copy of the rows, a list of every change and a recipe that reads the
    copy; what follows is then said of the copy. `redact`: secrets and personal data are hidden in it.
    """
    loaded = load_recipe(recipe, overrides)
    if fix is not None:
        fixed = clean(loaded, Path(fix), redact=redact)
        return {**check(fixed["recipe"]), "fixed": fixed}
    ready = get_ready(loaded)
    return {
        "findings": [finding.to_json() for finding in ready.data.findings],
        "shape": ready.data.shape,
        "rows": {name: len(getattr(ready.data.splits, name)) for name in SPLITS},
        "plan": ready.plan.to_json() | {"summary": ready.plan.summary},
        "model": {"name": ready.source.name, "source": ready.source.source},
    }


def clean(recipe: Recipe, out: Path, *, redact: bool) -> dict[str, Any]:
    """Write a cleaned copy of a recipe's rows to a new or empty folder, with a recipe of its own that reads it."""
    refuse_used(out)
    everything = recipe.data.model_copy(update={"allow": ALLOWABLE, "truncation": "refuse"})
    findings = read_rows(recipe.model_copy(update={"data": everything}))[2].findings
    made = write_fixed(recipe, findings, out, redact=redact)
    sources = {
        name: tuple(
            FileSource(path=Path(file).name, weight=source.weight)
            for file, source in zip(files, recipe.data.given[name], strict=True)
        )
        for name, files in made["files"].items()
    }
    copied = recipe.model_copy(update={"data": recipe.data.model_copy(update=sources)})
    (out / "recipe.yaml").write_text(dump_recipe(copied), encoding="utf-8")
    return made | {"recipe": str(out / "recipe.yaml")}


def preview(
    recipe: Recipe | str | Path | Mapping[str, Any], overrides: Sequence[str] = (), rows: int = 3
) -> list[dict[str, Any]]:
    """The first training examples as tokens: each piece of text with its id and the weight with which it is trained."""
    _, task, data = read_rows(load_recipe(recipe, overrides))
    return [
        {
            "id": example.where,
            "tokens": len(example),
            "trained": sum(weight > 0 for weight in example.loss_weights[1:]),
            "pieces": [
                {"text": task.renderer.decode([token]), "id": token, "weight": weight}
                for token, weight in zip(example.input_ids, example.loss_weights or [0.0] * len(example), strict=True)
            ],
        }
        for example in data.train[:rows]
    ]
