"""Layers are compiled where that is asked for or pays back, to the same numbers, and by a run that goes on as before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_planning import ROWS, draft, given, tried

from pegbox.errors import RecipeError, TrainingError
from pegbox.models import compilation
from pegbox.models.compilation import compile_layers, compiles
from pegbox.training import planning
from pegbox.training.measured import Cost
from pegbox.training.plan import Given, Plan
from pegbox.training.planning import make_plan, take_up
from pegbox.training.probe import Piece, Probe


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are traced as for compiling, and run as they are: what the compiler makes takes it half a minute."""
    right = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **asked: right(self, backend="eager", **asked))


def gradient(made: Given, rows: Sequence[Any]) -> torch.Tensor:
    probe = tried(made)
    return torch.cat([one.flatten() for one in probe._gradients([probe.piece(rows, draft(made))])])


def check_the_numbers_are_the_same(made: Given) -> None:
    """The gradients of packs of several lengths, compiled by torch's own compiler, are those of the layers as written."""
    some = [ROWS[:3], ROWS[3:7], ROWS[2:]]
    plain = [gradient(made, rows) for rows in some]
    compile_layers(made.model, True)
    assert compiles(made.model)
    for rows, wanted in zip(some, plain, strict=True):
        found = gradient(made, rows)
        assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_compiled_layers_compute_the_same(tmp_path: Path) -> None:
    check_the_numbers_are_the_same(given(tmp_path, "full", packed=True))


def test_layers_are_not_compiled_for_each_length(tmp_path: Path, traced: None) -> None:
    made = given(tmp_path, "full", packed=True)
    torch.compiler.reset()
    compile_layers(made.model, True)
    for rows in (ROWS[:3], ROWS[2:]):
        gradient(made, rows)
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for start in range(8):
        gradient(made, ROWS[start:] + ROWS[start:])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == counted > 0


def test_it_is_compiled_as_asked(tmp_path: Path, traced: None) -> None:
    on, off = (given(tmp_path, packed=True, torch_compile=asked) for asked in (True, False))
    found = make_plan(on)
    assert found.torch_compile and compiles(on.model) and "layers compiled" in found.summary
    assert not make_plan(off).torch_compile and not compiles(off.model)


def test_what_cannot_be_compiled_is_refused_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(self: torch.nn.Module, **asked: Any) -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(torch.nn.Module, "compile", no_compiler)
    with pytest.raises(RecipeError, match=r"torch_compile"):
        make_plan(given(tmp_path, torch_compile=True))


def paying(monkeypatch: pytest.MonkeyPatch, made: Given, seconds: float) -> Plan:
    """A plan on a device where compiling may pay; a compiled batch takes `seconds`, another one."""
    monkeypatch.setattr(planning, "COMPILES", {"cpu"})

    def update(self: Probe, pieces: Sequence[Piece]) -> Cost:
        return Cost(seconds if compiles(self.model) else 1.0, 1000)

    monkeypatch.setattr(Probe, "update", update)
    return make_plan(made)


@pytest.mark.parametrize(("seconds", "kept"), [(0.5, True), (1.5, False)])
def test_it_stays_compiled_where_that_is_faster(
    tmp_path: Path, traced: None, monkeypatch: pytest.MonkeyPatch, seconds: float, kept: bool
) -> None:
    long_run = given(tmp_path, packed=True, max_steps=10_000)
    found = paying(monkeypatch, long_run, seconds)
    assert found.torch_compile == compiles(long_run.model) == kept
    if kept:
        assert found.seconds < paying(monkeypatch, given(tmp_path, packed=True, max_steps=10_000), 1.5).seconds


def test_a_short_run_is_not_tried_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = given(tmp_path, packed=True, max_steps=10)
    assert not paying(monkeypatch, short, 0.5).torch_compile


def test_a_cpu_is_not_tried_compiled(tmp_path: Path) -> None:
    assert "cpu" not in planning.COMPILES
    assert not make_plan(given(tmp_path, packed=True)).torch_compile


def test_layers_that_compute_something_else_are_not_taken(
    tmp_path: Path, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrongly(model: Any, on: bool, right: Callable[[Any, bool], None] = compilation.compile_layers) -> None:
        right(model, on)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.1 if on else 1 / 1.1)

    monkeypatch.setattr(planning, "compile_layers", wrongly)
    made = given(tmp_path, packed=True, max_steps=10_000)
    assert not paying(monkeypatch, made, 0.5).torch_compile and not compiles(made.model)


def test_a_run_that_goes_on_compiles_by_the_same_batch(
    tmp_path: Path, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[list[str]]()
    right = Probe.gradient

    def watched(self: Probe, pieces: Sequence[Piece], *ends: list[float]) -> None:
        if compiles(self.model):
            seen.append([example.where for piece in pieces for example in piece.examples])
        right(self, pieces, *ends)

    monkeypatch.setattr(Probe, "gradient", watched)
    began = make_plan(given(tmp_path, packed=True, torch_compile=True))
    first, seen[:] = seen[0], []
    again = given(tmp_path, packed=True)
    take_up(again, began)
    assert compiles(again.model) and seen[0] == first


def test_a_run_that_was_compiled_goes_nowhere_without_a_compiler(
    tmp_path: Path, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = make_plan(given(tmp_path, packed=True, torch_compile=True))
    monkeypatch.setattr(planning, "may_compile", lambda model: False)
    with pytest.raises(TrainingError, match="accept-change"):
        take_up(given(tmp_path, packed=True), began)
