"""MLflow: to where `MLFLOW_TRACKING_URI` says, else where MLflow itself would: `mlflow.db` in the working folder.

`MLFLOW_EXPERIMENT_NAME` names the experiment. A client is used and no current run is set, so that a run that the caller
has open stays as it is. MLflow reports its own use to its makers unless told not to: here it is told, before it is
imported; and a server that is away is tried again twice, not for minutes. All of these the user's own variables override.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from pegbox.trackers.base import Start

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
EVERY = 1.0  # seconds between two requests
MOST = 1000  # points that MLflow takes in one


class MLflow:
    """A run in MLflow's store; resumed under its id."""

    rewinds = False

    def __init__(self, start: Start) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.client = MlflowClient()
        self.waiting: list[Metric] = []
        self.sent = 0.0
        if start.id:
            self.id = start.id
            self.client.update_run(self.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "pegbox")
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.id = self.client.create_run(experiment, run_name=start.folder.name).info.run_id
        self.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in start.config.items()])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points at one update. They are sent together with those of the same second: a request may take longer than an update."""
        from mlflow.entities import Metric

        now = time.time()
        self.waiting += [Metric(name, value, int(now * 1000), step) for name, value in values.items()]
        if now >= self.sent + EVERY:
            self._send()

    def _send(self) -> None:
        for at in range(0, len(self.waiting), MOST):
            self.client.log_batch(self.id, metrics=self.waiting[at : at + MOST])
        self.waiting, self.sent = [], time.time()

    def verdict(self, step: int, text: str) -> None:
        """A tag, so that runs can be searched for it."""
        self.client.set_tag(self.id, "verdict", text)

    def finish(self, *, ok: bool) -> None:
        """Send what is left, and mark the run as ended."""
        self._send()
        self.client.set_terminated(self.id, "FINISHED" if ok else "FAILED")
