"""Transformers' own loop of decoding: it knows every kind of cache, and every setting by which a token is drawn.

pegbox's loop (`models.generation`) leaves to it the models that it cannot answer in batches, and all that is drawn. It
hands its tokens out and cannot be asked for the next one, so that a stream of them needs a thread. The thread waits until it
is asked: it computes no token that nobody may want, and draws none while its caller draws something else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer


def greedy_logits(
    model: PreTrainedModel, prompt: Sequence[int], stop_ids: frozenset[int], max_new_tokens: int
) -> Sequence[torch.Tensor]:
    """The logits [1, V] of each token of the greedy answer, the stop token's too."""
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    logits: Sequence[torch.Tensor] = _generate(model, prompt, stop_ids, max_new_tokens, **options).logits
    return logits


def stream(
    model: PreTrainedModel, prompt: Sequence[int], stop_ids: frozenset[int], max_new_tokens: int, *, do_sample: bool
) -> Iterator[int]:
    """The tokens of one answer as they come, without its stop token. Who leaves off listening ends the thread."""
    told, kind = _Told(), model.device.type
    context = torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))

    def run() -> None:
        try:
            with context, torch.inference_mode():  # both hold for one thread only
                _generate(model, prompt, stop_ids, max_new_tokens, do_sample=do_sample, streamer=told)
            told.heard.put(None)
        except BaseException as error:  # raised again where it is heard
            told.heard.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (token := told.heard.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            if token not in stop_ids:
                yield token
            told.asked.release()
    finally:
        told.left = True
        told.asked.release()
        thread.join()


class _NobodyListens(Exception):
    """Ends the loop where it hands out a token."""


class _Told(BaseStreamer):
    """Between the loop and who listens: the tokens, then None or what went wrong; and whether anybody listens yet."""

    def __init__(self) -> None:
        self.heard: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self.asked = threading.Semaphore(0)
        self.left = False

    def put(self, value: torch.Tensor) -> None:
        """int64: the prompt [1, T] first, which is known; then each token [1]. Returns when the next is asked for."""
        if value.ndim == 1:
            self.heard.put(int(value))
            self.asked.acquire()
            if self.left:
                raise _NobodyListens

    def end(self) -> None:
        """The thread itself tells the end."""


def _generate(model: Any, prompt: Sequence[int], stop_ids: frozenset[int], max_new_tokens: int, **options: Any) -> Any:
    """What Transformers' `generate` returns. The model's own settings bear on what is drawn, not on a greedy answer."""
    given = torch.tensor([list(prompt)], device=model.device)
    with nullcontext() if options["do_sample"] else own_settings(model, {}):
        return model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(stop_ids) or None,
            pad_token_id=min(stop_ids, default=0),
            **options,
        )


@contextmanager
def own_settings(model: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """These settings of generation and none of the model's own, whose penalties would be merged into any others."""
    before = model.generation_config
    model.generation_config = GenerationConfig(**settings)
    try:
        yield
    finally:
        model.generation_config = before
