"""The trackers that draw a run as it goes on: TensorBoard, Weights & Biases, MLflow, Trackio; `train.report_to` names them.

A tracker is one file with one class (see `base.Tracker`) and one row in the table `TRACKERS`. Its package is imported only
when a run that names it begins.
"""

from pegbox.trackers.log import TRACKERS, Log, choose, opened, remember

__all__ = ["TRACKERS", "Log", "choose", "opened", "remember"]
