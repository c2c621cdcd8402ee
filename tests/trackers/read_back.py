"""What each tracker holds of a run, read through its own means: its points, its settings and its verdict.

A point that a tracker holds twice is an error here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Held:
    """What a tracker has of a run."""

    points: Points
    config: dict[str, str]
    verdict: str | None


def once(found: Iterable[tuple[str, int, float]]) -> Points:
    points: Points = {}
    for name, step, value in found:
        assert (name, step) not in points, f"{name} is there twice at update {step}"
        points[name, step] = value
    return points


def shown(config: Mapping[str, object]) -> dict[str, str]:
    """Settings as text, numbers and truth values in one form: each tracker has types of its own."""
    texts = {key: {"True": "1", "False": "0"}.get(str(value), str(value)) for key, value in config.items()}
    return {key: f"{float(text):g}" if re.fullmatch(r"[\d.e-]+", text) else text for key, text in texts.items()}


def tensorboard(folder: Path) -> Held:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    found = ((tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag))
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    given = HParamsPluginData.FromString(content).session_start_info.hparams
    config = {key: getattr(value, value.WhichOneof("kind")) for key, value in given.items()}
    told = events.Tensors("verdict/text_summary") if "verdict/text_summary" in events.Tags()["tensors"] else []
    assert len(told) <= 1, "the verdict is there twice"
    return Held(once(found), shown(config), told[0].tensor_proto.string_val[0].decode() if told else None)


def mlflow(folder: Path) -> Held:
    from mlflow import MlflowClient

    client, run_id = MlflowClient(), named(folder, "mlflow")
    run = client.get_run(run_id)
    history = (point for name in run.data.metrics for point in client.get_metric_history(run_id, name))
    points = once((point.key, point.step, point.value) for point in history)
    return Held(points, shown(run.data.params), run.data.tags.get("verdict"))


def trackio(folder: Path) -> Held:
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    name = named(folder, "trackio")
    (run,) = [run for run in Api().runs("pegbox") if run.name == name]
    logs = SQLiteStorage.get_logs("pegbox", run=name)
    values = [(key, log["step"], value) for log in logs for key, value in log.items() if "/" in key]
    verdicts = [log["verdict"] for log in logs if "verdict" in log]
    assert len(verdicts) <= 1, "the verdict is there twice"
    config = {key: value for key, value in (run.config or {}).items() if not key.startswith("_")}
    return Held(once(values), shown(config), verdicts[0] if verdicts else None)


def wandb(folder: Path) -> Held:
    """All files of the run's id: `wandb sync` sends them to one run."""
    files = sorted(folder.glob(f"wandb/*/run-{named(folder, 'wandb')}.wandb"))
    assert files
    found, config, verdict = [], {}, None
    for file in files:
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "history":
                items = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
                found += [(key, items["_step"], value) for key, value in items.items() if "/" in key]
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            for item in record.summary.update:
                verdict = json.loads(item.value_json) if "verdict" in (item.key, *item.nested_key) else verdict
    config.pop("_wandb", None)
    return Held(once(found), shown(config), verdict)


def wandb_records(file: Path) -> list[Any]:
    """All records of a run that has ended: another process writes them, and is not waited for."""
    for _ in range(600):
        records = list(records_so_far(file))
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.05)
    raise AssertionError(f"{file} was never written to its end")


def records_so_far(file: Path) -> Iterator[Any]:
    """W&B's file is a log as LevelDB's: blocks of 32 KiB with pieces of records; a record is its own protobuf message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(parts)
            parts = b""


def named(folder: Path, tracker: str) -> str:
    """How a tracker calls the run."""
    return str(json.loads((folder / "trackers.json").read_text())["ids"][tracker])


READERS = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow, "trackio": trackio}
