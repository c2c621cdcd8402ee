"""The usual names of columns, in the form of `columns.normal`, the most telling first."""

from __future__ import annotations

CHOSEN, REJECTED = ("chosen",), ("rejected",)
ASKED = ("prompt", "question", "instruction", "input", "query", "user", "request", "problem", "command", "q")
ANSWERED = ("completion", "response", "answer", "output", "reply", "assistant", "solution", "a")
CONTEXT = (
    "context",
    "input",
    "passage",
    "document",
    "background",
    "history",
    "system",
)  # asked about, beside a question
ANCHORS = ("anchor", "query", "question", "text")
POSITIVES = ("positive", "pos", "positive_passage")
NEGATIVES = ("negative", "neg", "negative_passage", "hard_negative")
TAGS = ("tags", "ner_tags", "pos_tags", "labels", "ner", "pos", "tag")
LABELS = ("labels", "label", "genres", "topics", "categories", "classes", "tags", "emotions")
SCORE = ("stars", "rating", "grade", "target", "score", "similarity", "y")  # of LABEL, those that may be numbers
SURELY_LABEL = ("label", "gold_label", "gold")
LABEL = (
    "label",
    "gold_label",
    "gold",
    "labels",
    "class",
    "category",
    "sentiment",
    "intent",
    "topic",
    "emotion",
    "stars",
    "rating",
    "grade",
    "polarity",
    "target",
    "score",
    "similarity",
    "tag",
    "y",
)
TEXT = (
    "text",
    "sentence",
    "review",
    "content",
    "body",
    "comment",
    "message",
    "tweet",
    "utterance",
    "document",
    "description",
    "abstract",
    "question",
    "query",
    "article",
    "paragraph",
    "email",
    "phrase",
    "title",
    "headline",
    "subject",
)
PAIRS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
    ("prompt", "response"),
)
SEQUENCES = (
    ("source", "target"),
    ("src", "tgt"),
    ("source_text", "target_text"),
    ("article", "highlights"),
    ("article", "summary"),
    ("document", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
)
LANGUAGES = {
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hu": "Hungarian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
GROUP = (
    "group",
    "group_id",
    "conversation_id",
    "document_id",
    "doc_id",
    "session_id",
    "thread_id",
    "template",
    "patient_id",
    "customer_id",
    "user_id",
    "author_id",
    "speaker_id",
    "product_id",
    "conversation",
    "session",
    "thread",
    "customer",
    "author",
    "speaker",
    "patient",
)
SENSITIVE = (
    "gender",
    "sex",
    "race",
    "ethnicity",
    "age_group",
    "religion",
    "nationality",
    "country",
    "region",
    "dialect",
)
LISTS = ("messages", "conversations", "tokens", "words", *TAGS)  # columns that hold lists
HELD_OUT = ("test", "validation", "valid", "val", "dev", "eval")  # names of files that are set aside


def language(name: str) -> str | None:
    """The language that a column's name is the code or the English name of: `de`, `de_text`, `text_de`, `german`."""
    parts = name.split("_")
    told = [full for code, full in LANGUAGES.items() if code in parts or full.casefold() in parts]
    rest = [part for part in parts if part not in ("text", "sentence", "source", "target")]
    return told[0] if len(told) == 1 and len(rest) == 1 else None
