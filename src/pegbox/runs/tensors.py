"""The safetensors format, written a tensor at a time: eight bytes of length, a JSON header, the numbers.

`safetensors.torch.save_file` writes the same (types of equal width stand in another order); here the bytes go by the one door
of `durable`, which hashes and syncs them, and a tensor of the accelerator is in the computer's memory no longer than it is
written.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch

from pegbox.runs.durable import Bytes

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}


def size(tensors: Mapping[str, torch.Tensor]) -> int:
    """The bytes of the numbers alone."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def parts(tensors: Mapping[str, torch.Tensor]) -> Iterator[Bytes]:
    """The bytes of a file of the tensors, wide types first, so that each stands at a multiple of its width."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, at = dict[str, object](), 0
    for name, tensor in ordered:
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
