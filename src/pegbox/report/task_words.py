"""What a task's answers are called in the report and in the model card: one table, keyed by the kind of the task.

Where a task is not in it, or says nothing, the words that serve all tasks stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNMEASURED = (
    "Not measured: answers to other kinds of input, what the model has forgotten, and whether its answers are safe, "
    "fair or true."
)


@dataclass(frozen=True)
class Words:
    """`metrics`, `claims`, `explanations`: what replaces the common words, by metric or system; `note`: what a reader of
    the numbers has to know; `right`: what the right answer is called; `row_score`: what the score of one row is called;
    `row_mark`: the score of an answer; `unmeasured`: what nothing is known of.
    """

    metrics: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)
    explanations: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    right: str = "right answer"
    row_score: str = ""
    row_mark: str = ""
    unmeasured: str = UNMEASURED


WORDS: Mapping[str, Words] = {
    "completion": Words(
        explanations={"trivial": "counted in the training rows, or copied from the row itself: what needs no model"}
    ),
    "classification": Words(right="right label"),
    "multilabel": Words(
        right="right labels",
        row_score="whole sets",
        metrics={"accuracy": "whole sets right"},
        claims={"accuracy": "finds exactly the right labels of {value} of the test rows"},
        explanations={
            "linear_probe": "logistic regression for each label on the untouched model's features: what needs no fine-tuning",
            "bag_of_words": "logistic regression for each label on the words: what needs no language model",
            "trivial": "the one set that is best for all training rows alike: what needs no look at the input",
        },
    ),
    "regression": Words(
        right="right value",
        row_score="absolute error",
        row_mark="off by {value}",
        explanations={
            "linear_probe": "ridge regression on the untouched model's features: what needs no fine-tuning",
            "bag_of_words": "ridge regression on the words: what needs no language model",
        },
    ),
    "token_classification": Words(
        right="right entities",
        explanations={
            "trivial": "counted in the training rows, a word at a time: what needs no look at its neighbours"
        },
    ),
    "masked_lm": Words(
        right="text",
        metrics={"perplexity": "pseudo-perplexity"},
        claims={"perplexity": "has a pseudo-perplexity of {value} on the test texts"},
        explanations={"base": "the model as it was before"},
        note="Pseudo-perplexity: each of up to 32 tokens of a text is masked by itself, and the model says what stood there "
        "from all that stands around it. Its value is the number of equally likely tokens that leave as much doubt. It "
        "cannot be compared with the perplexity of a model that writes, and whether reading on helps a later task is "
        "shown by that task's own run.",
        unmeasured="Not measured: what the model does in any task, and what it has forgotten.",
    ),
    "seq2seq": Words(
        right="right target",
        explanations={
            "trivial": "one text for all rows, or the source as it is, whichever was better on the training rows",
            "base": "the model as it was before",
        },
        note="chrF and BLEU are sacreBLEU's, over all rows together. ROUGE reads the letters a to z and digits alone: of "
        "other scripts it knows nothing. The length ratio is that of all answers to all right targets, in words.",
        unmeasured="Not measured: whether a target says what its source says (a metric counts what is spelt alike), texts of "
        "other kinds, and what the model has forgotten.",
    ),
    "embedding": Words(
        right="right text",
        explanations={
            "bag_of_words": "the cosine of the texts' words, rare ones counting for more: what needs no language model",
            "base": "the model as it was before, its tokens pooled in the same way",
            "permuted": "the tuned model's own scores, each given to another pair: what knowing only their form is worth",
        },
        note="A question is answered by an order of all different texts of the test rows: among more texts, or others, the "
        "numbers are lower. Of pairs with a score it is the order of the scores that counts.",
        unmeasured="Not measured: search among more texts than those of the test, and what the model has forgotten.",
    ),
}


# of middles that are asked for: whether the untouched model knows the tokens for it
MIDDLES: Mapping[bool, str] = {
    True: "The tokens by which the tuned model is asked for a middle were added, and the untouched model never saw them. It "
    "was asked with what stands before the middle alone, and its answer ends where it says the first line of what stands "
    "behind.",
    False: "The untouched model and the tuned one are asked for a middle by the same tokens, which are the model's own.",
}
PARSED = "Edit similarity counts white space and chrF leaves it out. Code that parses may do anything."


def note_of(task: str, state: Mapping[str, Any]) -> str:
    """What a reader of the numbers has to know; `state`: what the task found out."""
    return f"{MIDDLES[state['added']]} {PARSED}" if "added" in state else words_of(task).note


def words_of(task: str) -> Words:
    """The words of a task; the common ones where it has none of its own."""
    return WORDS.get(task, Words())
