"""The plan of memory and time, made before training by trying: what fits at once, what it will hold, how long it will take.

    memory = the largest of: loading; held + two moments + the dearest update; held + the evaluation's largest batch

`held` is what the process holds with the model and the rows in it. The dearest update is one of those that the run will take:
its two largest micro-batches are computed, forward and backward (`probe`). What a batch keeps grows with its tokens in a
straight line, whose second point is the shortest row. Where memory is scarce, rows are tried from the shortest to the longest,
none of which the line says that it will not fit.

First fewer tokens are computed at once; where one row alone does not fit, its layers are recomputed on the way back. How long it
takes: `timing`. Where that is long enough for a GPU, its layers are tried compiled, too, and stay so where that is faster.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.data.sizes import shared_beginning, sizes_of
from pegbox.errors import RecipeError, TrainingError
from pegbox.models.compilation import compile_layers, may_compile
from pegbox.models.quantization import count
from pegbox.models.recomputation import may_recompute, recompute
from pegbox.runs.checkpoint import trainable
from pegbox.runtime import OutOfMemoryError
from pegbox.training.batching import rows_of_update, tokens_of, total_updates
from pegbox.training.gradient import parts
from pegbox.training.measured import Cost, dearest, measure
from pegbox.training.memory import take_over
from pegbox.training.plan import Asking, Given, Plan
from pegbox.training.probe import Line, Piece, Probe, Tried, kept_of_a_token, some_of
from pegbox.training.timing import seconds_of

# tokens at once. On a CPU twice as many gain 3 % and hold 0.7 GB more (docs/log.md); a GPU has to be kept busy
MOST_TOKENS = {"cpu": 1024, "cuda": 16384}
MARGIN = 0.9  # of the memory that is there is planned with
# times and bytes that the heap of a CPU holds over what was tried, until it is swept (`memory`)
HOLES, KEPT = 1.1, 64 << 20
HOLES_ASKING = 1.25  # the same in the evaluation, where rows that are answered leave the batch
LATER = 60 << 20  # bytes of the libraries that only the evaluation and the report load
LOOKED_AT = 512  # updates whose sizes are compared
ROWS_LOOKED_AT = 64  # rows of growing length
WORTH_COMPILING = 1800  # seconds of training from which a minute of trying may pay back
# where it may: on a CPU, whose products are oneDNN's as before, nothing was gained (docs/log.md)
COMPILES = frozenset({"cuda"})
LOSS = "loss"


def most_tokens(device: torch.device) -> int:
    """How many tokens are computed at once where memory has room for them."""
    return MOST_TOKENS.get(device.type, MOST_TOKENS["cpu"])


def make_plan(given: Given) -> Plan:
    """The plan for training where the model is; its layers are recomputed from now on where the plan says so.

    Raises TrainingError where not even the longest row alone fits, RecipeError where layers cannot be recomputed as asked.
    """
    began = time.perf_counter()
    found = _Planning(given).found()
    runtime.trim_memory()
    return replace(found, probe_seconds=time.perf_counter() - began)


def take_up(given: Given, plan: Plan) -> None:
    """Let the model compute as it was planned, for a run that goes on. Raises TrainingError where it no longer can."""
    take_over(given.model, plan)
    if plan.torch_compile and not compile_alike(_probe(given), plan, shortest_of(given.train)):
        what = "the layers were compiled when the run began, and cannot be on this machine"
        cure = "set train.torch_compile to false in the run's recipe.yaml and go on with --accept-change train.torch_compile"
        raise TrainingError(what, cure=cure)


def _probe(given: Given) -> Probe:
    return Probe(given.model, given.task, given.seed, given.bf16, given.ranks)


class _Planning:
    """A plan in the making: the draft so far, and what was tried, by the tokens of the largest batch."""

    def __init__(self, given: Given) -> None:
        self.given, self.device = given, given.model.device
        loaded = runtime.peak_memory(self.device)
        runtime.release_memory()
        self.held = runtime.held_memory(self.device)
        available = given.ranks.least(self.held + runtime.available_memory(self.device))
        self.draft = _counted(given, loaded, available, max(self.longest.room, most_tokens(self.device)))
        self.probe = _probe(given)
        self.gradients = 4 * self.draft.trainable_parameters
        self.tried = dict[int, Tried]()
        self.holes, self.kept = (1.0, 0) if self.device.type == "cuda" else (HOLES, KEPT)

    def found(self) -> Plan:
        """The plan, whole."""
        self._recompute_as_asked()
        self._try_shortest()
        fitting = self._compiled(self._fit())
        peaks = {**self.draft.peaks, **self._peaks(fitting.cost)}
        return replace(self.draft, peaks=peaks, memory=max(peaks.values()), seconds=self._seconds(fitting))

    def _seconds(self, fitting: Tried) -> float:
        return seconds_of(self.draft, self.probe, self.given, self.tried[min(self.tried)], fitting, self.cuts)

    # ---- the run's rows ----------------------------------------------------------------------------------------------

    @cached_property
    def by_room(self) -> list[Example]:
        """Some examples of train, from the shortest to the longest, both among them."""
        rooms = sizes_of(self.given.train).room.tolist()
        order = sorted(range(len(rooms)), key=rooms.__getitem__)
        places = [*some_of(len(order), ROWS_LOOKED_AT), len(order) - 1]
        return [self.given.train[order[place]] for place in dict.fromkeys(places)]

    @cached_property
    def shortest(self) -> Example:
        """The example that takes least room."""
        return shortest_of(self.given.train)

    @property
    def longest(self) -> Example:
        """The example that takes most room."""
        return self.by_room[-1]

    def cuts(self, step: int) -> list[list[Example]]:
        """The micro-batches of an update on the first rank, as the draft has it, the largest first."""
        rows = rows_of_update(step, len(self.given.train), self.given.settings.batch_size, self.given.seed)
        mine = [self.given.train[row] for row in rows[:: self.given.ranks.world]]
        return sorted(parts(self.draft, mine), key=self._size, reverse=True)

    def _size(self, part: Sequence[Example]) -> int:
        """The tokens of a micro-batch, as far as they are known before it is made: what only some share is not."""
        return tokens_of(part, packed=self.draft.packed, shared=self.draft.shared)

    def _dearest(self) -> list[Piece]:
        """The largest micro-batch of the updates to come, behind the next largest of its update, whose gradients stay."""
        cuts = max(map(self.cuts, some_of(self.draft.updates, LOOKED_AT)), key=lambda cuts: self._size(cuts[0]))
        return [self.probe.piece(part, self.draft) for part in reversed(cuts[:2])]

    # ---- what is computed at once ------------------------------------------------------------------------------------

    def _recompute_as_asked(self) -> None:
        if may_recompute(self.given.model):
            recompute(self.given.model, False)
        if self.given.settings.gradient_checkpointing is True and not self._recompute():
            what = "the layers of this model cannot be computed once more with this method"
            raise RecipeError(what, where="train.gradient_checkpointing", cure="leave it at auto")

    def _recompute(self) -> bool:
        """Let layers be recomputed, where that is the same maths; what was tried before counts no longer."""
        shortest, switch = self.probe.piece([self.shortest], self.draft), partial(recompute, self.given.model)
        if not may_recompute(self.given.model) or not self.probe.is_alike(shortest, switch):
            return False
        self.draft, self.tried = replace(self.draft, gradient_checkpointing=True), {}
        return True

    def _try(self, pieces: Sequence[Piece]) -> Tried | None:
        """What the pieces cost; None where memory ran out: so much is not there, then."""
        try:
            found = Tried(pieces, self.probe.update(pieces))
        except OutOfMemoryError:
            runtime.release_memory()
            there = self.draft.available_memory
            least = self._expected(max(piece.tokens for piece in pieces)) if self.tried else there
            self.draft = replace(self.draft, available_memory=min(least, there))
            return None
        self.tried[found.tokens] = found
        return found

    def _try_shortest(self) -> None:
        shortest = self.probe.piece([self.shortest], self.draft)
        if self._try([shortest]) is None:
            self._lower(shortest)

    def _fit(self) -> Tried:
        """The dearest micro-batches that fit, tried; the draft says how they are cut."""
        if not self._fits(self._dearest()[-1].tokens):
            self._climb()
        while True:
            pieces = self._dearest()
            if self._fits(pieces[-1].tokens):
                found = self._try(pieces)
                if found and self._training(found.cost) <= MARGIN * self.draft.available_memory:
                    return found
            self._lower(pieces[-1])

    def _expected(self, tokens: int) -> int:
        """The bytes that training will hold with a batch of so many tokens, by the line through what was tried."""
        points = [(n, float(self.tried[n].cost.memory - self.gradients)) for n in sorted(self.tried)] or [(tokens, 0.0)]
        if len(points) == 1:  # of which not all grows; the shape says how much may
            size, kept = points[0]
            slope = min(2 * kept_of_a_token(self.given.model), max(0.0, kept) / size)
            points.append((size + 1, kept + slope))
        return self._training(Cost(0.0, int(Line.through(points)(tokens)) + self.gradients))

    def _fits(self, tokens: int) -> bool:
        return self._expected(tokens) <= MARGIN * self.draft.available_memory

    def _training(self, cost: Cost) -> int:
        """The most bytes that training holds when its dearest update costs this; gradients of ranks are summed in one piece."""
        summed = 2 * self.gradients if self.given.ranks.world > 1 else self.gradients
        grown = self.holes * max(0, cost.memory - self.gradients) + self.gradients + self.kept
        return self.held + 2 * self.gradients + int(max(grown, summed))

    def _climb(self) -> None:
        """Try rows alone, each time the longest that will fit by what was tried before, up to the longest of all."""
        pieces = [self.probe.piece([example], self.draft) for example in self.by_room]
        while longer := [piece for piece in pieces if piece.tokens > max(self.tried)]:
            fitting = [piece for piece in longer if self._fits(piece.tokens)]
            if fitting:
                self._try([max(fitting, key=lambda piece: piece.tokens)])
            else:
                self._lower(pieces[-1])

    def _lower(self, piece: Piece) -> None:
        """Compute less at once: half the tokens, or the layers of a single row again. Raises TrainingError."""
        least, at_once = self.longest.room, min(self.draft.micro_batch_tokens, self._size(piece.examples))
        if len(piece.examples) > 1 and self.draft.micro_batch_tokens > least:
            self.draft = replace(self.draft, micro_batch_tokens=max(least, at_once // 2))
            return
        wanted = self.given.settings.gradient_checkpointing == "auto" and not self.draft.gradient_checkpointing
        needed = self._expected(piece.tokens)
        if not wanted or not self._recompute():
            self._refuse(piece, needed)
        self._try_shortest()

    def _refuse(self, piece: Piece, needed: int) -> None:
        tokens, there = sum(map(len, piece.examples)), self.draft.available_memory
        what = f"{tokens} tokens at once need about {needed:,} bytes of memory, and of {there:,} a tenth is left free"
        cure = (
            "shorten rows (data.max_length with data.truncation), take a smaller model or method: lora, or quantize it"
        )
        raise TrainingError(f"out of memory before training: {what}", cure=cure)

    # ---- compiled ----------------------------------------------------------------------------------------------------

    def _compiled(self, plain: Tried) -> Tried:
        """What the dearest update costs with the layers compiled, where that is asked for or pays back; else as it was."""
        asked = self.given.settings.torch_compile
        if asked is False or (asked == "auto" and not self._worth_compiling(plain)):
            return plain
        before = self.draft, self.tried
        self.draft, self.tried = replace(self.draft, torch_compile=True), {}
        if compile_alike(self.probe, self.draft, self.shortest):
            self._try_shortest()
            found = self._try(plain.pieces)
            if found and (asked is True or found.cost.seconds < plain.cost.seconds):
                return found
        if asked is True:
            what = "the layers of this model cannot be compiled on this machine, or not to the same numbers"
            raise RecipeError(what, where="train.torch_compile", cure="leave it at auto")
        compile_layers(self.given.model, False)
        self.draft, self.tried = before
        return plain

    def _worth_compiling(self, plain: Tried) -> bool:
        return self.device.type in COMPILES and self._seconds(plain) >= WORTH_COMPILING

    # ---- what the process will hold ----------------------------------------------------------------------------------

    def _peaks(self, cost: Cost) -> dict[str, int]:
        """Bytes, by what they are for."""
        training, asking = {"training": self._training(cost)}, self.given.asking
        if asking is None:
            return training
        later = 0 if self.device.type == "cuda" else LATER
        asked = self._asked(asking)
        found = training | {
            "evaluation": self.held + later + asked,
            "loading again": self.draft.peaks["loading"] + later,
        }
        if self.given.settings.metric_for_best_model == LOSS:
            return found
        return found | {"validation": self.held + 3 * self.gradients + asked}

    def _asked(self, asking: Asking) -> int:
        """Bytes by which the evaluation's largest batch grows, from those of one row and of a few."""
        taken = [(rows, self._measured(asking, rows)) for rows in sorted({1, min(4, asking.rows)})]
        holes = 1.0 if self.device.type == "cuda" else HOLES_ASKING
        return int(holes * asking.stretch * Line.through(taken)(asking.rows))

    def _measured(self, asking: Asking, rows: int) -> int:
        return dearest(self.given.ranks, measure(self.device, lambda: asking.ask(rows))).memory


def compile_alike(probe: Probe, plan: Plan, shortest: Example) -> bool:
    """Compile the layers, where they then compute the same. The first batch that they see is always the same one: how
    sums are cut may follow its size, and a run that goes on must cut them as it did."""
    switch = partial(compile_layers, probe.model)
    return may_compile(probe.model) and probe.is_alike(probe.piece([shortest], plan), switch)


def shortest_of(examples: Sequence[Example]) -> Example:
    """The example that takes the least room, the first of such."""
    return examples[int(sizes_of(examples).room.argmin())]


def _counted(given: Given, loaded: int, available: int, tokens: int) -> Plan:
    """What needs no trying, as the draft of a plan. `loaded`: the bytes that were held until now."""
    examples, settings = given.train, given.settings
    prefix = shared_beginning(examples) if given.packed and given.share_prefix else 0
    updates = total_updates(len(examples), settings)
    return Plan(
        updates=updates,
        micro_batch_tokens=tokens,
        micro_batch_rows=settings.batch_size if settings.micro_batch_size == "auto" else int(settings.micro_batch_size),
        packed=given.packed,
        share_prefix=given.share_prefix,
        prefix=prefix,
        tokens=round(updates * settings.batch_size * float(sizes_of(examples).tokens.mean())),
        trainable_parameters=sum(parameter.numel() for parameter in trainable(given.model).values()),
        parameters=sum(map(count, given.model.parameters())),
        memory=0,
        available_memory=available,
        seconds=0.0,
        peaks={"loading": loaded},
    )
