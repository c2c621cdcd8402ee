"""The names of metrics, what their numbers mean, and what is claimed by them, as people say it."""

from __future__ import annotations

from pegbox.metrics import METRICS
from pegbox.report.task_words import words_of

SHARES = ("exact_match", "syntax_validity", "accuracy", "recall_at_1", "recall_at_5", "recall_at_10")
OF_A_HUNDRED = ("bleu", "chrf", "ter")
OF_NUMBERS = ("mse", "rmse", "mae")  # errors on the scale of the user's own numbers, be these large or small
METRIC_NAMES = {
    "auroc": "AUROC",
    "bleu": "BLEU",
    "chrf": "chrF",
    "f1": "span F1",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "mae": "mean absolute error",
    "mrr": "mean reciprocal rank",
    "ndcg": "nDCG@10",
    "recall_at_1": "recall@1",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "matthews_correlation": "Matthews correlation",
    "mse": "mean squared error",
    "pearson": "Pearson correlation",
    "precision": "span precision",
    "r2": "R²",
    "recall": "span recall",
    "rmse": "RMSE",
    "spearman": "Spearman correlation",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "ter": "TER",
    "token_f1": "token F1",
}
SCALES = {
    "accuracy": "share of rows",
    "auroc": "0 to 1, 0.5 by chance",
    "bleu": "0 to 100",
    "chrf": "0 to 100",
    "exact_match": "share of rows",
    "mae": "in the unit of the numbers",
    "matthews_correlation": "-1 to 1",
    "mse": "in the squared unit of the numbers",
    "pearson": "-1 to 1",
    "perplexity": "from 1 on",
    "r2": "up to 1, 0 for always the mean",
    **{f"recall_at_{k}": f"share of right texts among the first {k}" for k in (1, 5, 10)},
    "rmse": "in the unit of the numbers",
    "spearman": "-1 to 1",
    "syntax_validity": "share of rows that Python's parser reads",
    "length_ratio": "1 where answers are as long as the right ones",
    "ter": "edits in a hundred words, from 0 on",
}
CLAIMS = {
    "accuracy": "labels {value} of the test rows correctly",
    "exact_match": "answers {value} of the test rows exactly",
    "f1": "finds the entities of the test rows with an F1 of {value}",
    "mae": "is off by {value} on average on the test rows",
    "ndcg": "orders the texts of the test with an nDCG@10 of {value}",
    "recall_at_1": "finds {value} of the right texts first",
    "perplexity": "has a perplexity of {value} on the test texts",
    "syntax_validity": "makes {value} of the test rows Python that parses",
    "rmse": "is off by {value} (root mean square) on the test rows",
}


def metric_name(metric: str, task: str = "") -> str:
    """A metric as people call it; `task`: of which it is a metric here."""
    own = words_of(task).metrics
    return own.get(metric) or METRIC_NAMES.get(metric, metric.replace("_", " "))


def claim(metric: str, task: str) -> str:
    """What a model does that has a value of the metric; `{value}` stands in its place."""
    own = words_of(task).claims
    return own.get(metric) or CLAIMS.get(metric, f"scores {{value}} in {metric_name(metric, task)}")


def row_mark(metric: str, value: str, task: str) -> str:
    """The score of a single answer, of which `value` are the digits."""
    return (words_of(task).row_mark or f"{metric_name(metric, task)} {{value}}").format(value=value)


def meaning(metric: str) -> str:
    """What a metric's numbers mean."""
    return SCALES.get(metric, "0 to 1" if metric in METRICS else "a metric of your own")
