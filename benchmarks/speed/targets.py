"""What issue 9 asks of the general path in float32 on a CPU, and what a run came to: reached or not, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from speed.figures import apart

US = "pegbox"
Figures = Mapping[str, Any]  # of one workload: each peer's


@dataclass(frozen=True)
class Target:
    """One line: of a workload, what is compared, what is asked, how it is found, and whether less is better."""

    workload: str
    what: str
    asked: float
    found: Callable[[Figures], float]
    at_most: bool = False

    def reached(self, value: float) -> bool:
        """Whether it is."""
        return value <= self.asked if self.at_most else value >= self.asked


def times(peer: str) -> Callable[[Figures], float]:
    """How many times as many tokens a second as a peer."""
    return lambda found: found[US]["tokens_per_second"]["value"] / found[peer]["tokens_per_second"]["value"]


def times_best(*peers: str) -> Callable[[Figures], float]:
    """How many times as many as the fastest of them that ran."""
    return lambda found: min(times(peer)(found) for peer in peers if peer in found)


def memory(peer: str) -> Callable[[Figures], float]:
    """The peak of memory as a share of a peer's."""
    return lambda found: found[US]["peak_memory"] / found[peer]["peak_memory"]


def furthest(found: Figures) -> float:
    """How far anybody's loss of held-out rows is from pegbox's, at most, over the seeds."""
    return max(apart(found[US], one) for name, one in found.items() if name not in (US, "floor"))


TARGETS = (
    Target("short", "tokens/s, times TRL packed", 1.7, times("TRL, packed")),
    Target("short", "tokens/s, times TRL padded", 2.8, times("TRL")),
    Target("short", "peak memory, share of TRL packed's", 1.0, memory("TRL, packed"), at_most=True),
    Target("long", "tokens/s, times TRL packed", 1.2, times("TRL, packed")),
    Target(
        "minilm full", "tokens/s, times the faster of Trainer's forms", 1.8, times_best("Trainer", "Trainer, sorted")
    ),
    Target(
        "minilm lora", "tokens/s, times the faster of Trainer's forms", 1.8, times_best("Trainer", "Trainer, sorted")
    ),
    Target("parity", "loss of held-out rows after 100 updates, apart", 1e-4, furthest, at_most=True),
)


def lines(workloads: Mapping[str, Any]) -> Iterator[tuple[Target, float]]:
    """The targets of the workloads that ran with all that they compare, and what was found."""
    for target in TARGETS:
        found = workloads.get(target.workload, {}).get("figures", {})
        if US in found:
            try:
                yield target, target.found(found)
            except (KeyError, ValueError):  # a peer that failed, as the page says
                continue
