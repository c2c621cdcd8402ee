"""Nothing that decides what stands in prepared rows is left out of their name, and what is found is what is live.

INVARIANTS row 31: every field that a recipe's rows can have, by the recipe's own classes, so that a new one cannot be
forgotten; the code of every room that prepares; and for every form of rows each example that is read back.
`test_row_cache` holds the same of whole preparations.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from small_tokenizers import tokenizer

from pegbox import samples
from pegbox.cache import cache_root
from pegbox.data import fingerprint as keys
from pegbox.data import preparing
from pegbox.data.fingerprint import fingerprint
from pegbox.data.prepare import prepare
from pegbox.data.records import Example
from pegbox.data.render import Renderer
from pegbox.data.splits import SPLITS
from pegbox.data.store import dump_example
from pegbox.recipe import Completion, Data, Embedding, MaskedLM, Recipe, load
from pegbox.recipe.sources import GraphSource, QuerySource, SampleSource, Source
from pegbox.samples import Sample
from pegbox.tasks import TASKS, Task
from tiny_folder import write_rows
from tiny_tasks import FORMS

# ---- the key ---------------------------------------------------------------------------------------------------------

LEAST: dict[str, Any] = {"train": "/rows.jsonl"}
LEAST_OF: Mapping[type[BaseModel], dict[str, Any]] = {
    GraphSource: {"path": "/facts.ttl"},
    QuerySource: {"path": "/shop.db", "query": "SELECT 1"},
    SampleSource: {"kind": "sample", "name": "few"},
}
# another value for every field; of a source, in the place of train
FIELDS: Mapping[type[BaseModel], Mapping[str, Any]] = {
    Data: {
        "train": "/other.jsonl",
        "validation": 0.3,
        "test": 0.3,
        "format": "alpaca",
        "columns": {"prompt": "question"},
        "instruction": "Be brief.",
        "max_length": 99,
        "truncation": "cut",
        "filter": {"stars": [5]},
        "benchmarks": "/exam.txt",
        "allow": ["malformed"],
    },
    QuerySource: {"path": "/other.db", "weight": 2.0, "query": "SELECT 2"},
    GraphSource: {
        "path": "/others.ttl",
        "weight": 2.0,
        "rows": "facts",
        "language": "de",
        "templates": {"*": {"prompt": "{subject}?", "completion": "{object}"}},
    },
    SampleSource: {"name": "others", "weight": 2.0},
    MaskedLM: {"mlm_probability": 0.5},
    Completion: {"fim_rate": 0.9, "fim_spm_rate": 0.5},
    Embedding: {"pooling": "cls", "temperature": 0.1},
}
EACH = [(kind, field) for kind, fields in FIELDS.items() for field in fields]
NAMES = [f"{kind.__name__}.{field}" for kind, field in EACH]


def given(kind: type[BaseModel], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe that holds one of the kind, with these of its fields changed."""
    least = {"model": "a/b", "task": "chat", "data": LEAST}
    if kind is Data:
        return {**least, "data": LEAST | changes}
    if kind is MaskedLM:
        return {**least, "task": {"kind": "masked_lm", **changes}}
    if kind is Completion:
        return {**least, "task": {"kind": "completion", "fim_rate": 0.5, **changes}}
    if kind is Embedding:
        return {**least, "task": {"kind": "embedding", **changes}}
    return {**least, "data": {"train": LEAST_OF[kind] | changes}}


@pytest.fixture(autouse=True)
def _small_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples that need no package, in a cache of the test's own."""
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    made = Sample("a text", "chat", "few==1.0", "CC0-1.0", "nobody", lambda: [{"prompt": "1", "completion": "2"}])
    monkeypatch.setattr(samples, "SAMPLES", {"few": made, "others": made})


def check_a_field_is_in_the_key(kind: type[BaseModel], field: str) -> None:
    changed = {field: FIELDS[kind][field]}
    one, again, other = (fingerprint(load(given(kind, changes))) for changes in ({}, {}, changed))
    assert one == again != other, f"{field} is not in the key"


def test_every_field_of_every_class_is_tried() -> None:
    """A dataset on the hub is left out: what it holds may change, so that its rows are never found again."""
    sources = {kind for kind in get_args(get_args(Source)[0]) if kind.__name__ not in ("FileSource", "HubSource")}
    assert sources <= set(FIELDS)
    for kind, fields in FIELDS.items():
        assert set(kind.model_fields) - {"kind"} == set(fields), kind.__name__
    hub = load({"model": "a/b", "task": "chat", "data": "owner/rows"})
    assert fingerprint(hub) != fingerprint(hub)


@pytest.mark.parametrize(("kind", "field"), EACH, ids=NAMES)
def test_a_field_with_another_value_is_another_key(kind: type[BaseModel], field: str) -> None:
    check_a_field_is_in_the_key(kind, field)


@pytest.mark.parametrize("field", [field for field in FIELDS[Data] if field not in ("train", "benchmarks")])
def test_a_field_that_is_left_out_of_the_key_is_caught(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of train and of what must not be learnt stand in the key twice: by name, and by hash."""
    right = Data.model_dump
    monkeypatch.setattr(Data, "model_dump", lambda self, **how: right(self, **how, exclude={field}))
    with pytest.raises(AssertionError, match="not in the key"):
        check_a_field_is_in_the_key(Data, field)


def test_the_kind_of_task_the_seed_and_the_limits_are_in_the_key() -> None:
    recipe = load(given(Data, {}))
    others = [
        fingerprint(load({**given(Data, {}), "task": "completion"})),
        fingerprint(load({**given(Data, {}), "seed": 7})),
        fingerprint(recipe, max_length=9),
        fingerprint(recipe, vocabulary=9),
        fingerprint(recipe, encoder=["chat"]),
    ]
    assert len({fingerprint(recipe), *others}) == 6


def test_every_part_of_a_tokenizer_is_in_the_key() -> None:
    seen = []
    for kind in ("byte_level", "adds_bos", "line_breaks_merge", "metaspace_first", "metaspace_always", "wordpiece"):
        seen += [Renderer(tokenizer(kind)).fingerprint, Renderer(tokenizer(kind, "gemma")).fingerprint]
    seen.append(Renderer(tokenizer("pad_is_eos")).fingerprint)
    seen.append(Renderer(tokenizer("byte_level"), [5]).fingerprint)
    recipe = load(given(Data, {}))
    assert len({fingerprint(recipe, encoder=one) for one in seen}) == len(seen)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the code, which the key looks at."""
    here = Path(keys.__file__).parents[1]
    for room in keys.CODE:
        shutil.copytree(here / room, tmp_path / room)
    monkeypatch.setattr(keys, "__file__", str(tmp_path / "data" / "fingerprint.py"))
    yield tmp_path


def code() -> str:
    keys._code.cache_clear()
    try:
        return keys._code()
    finally:
        keys._code.cache_clear()


@pytest.mark.parametrize("file", ["data/codec.py", "data/sources/tables.py", "tasks/chat.py", "recipe/schema.py"])
def test_a_byte_of_the_code_that_prepares_is_in_the_key(file: str, house: Path) -> None:
    before = code()
    assert code() == before
    (house / file).write_bytes((house / file).read_bytes() + b"\n")
    assert code() != before


@pytest.mark.parametrize("package", ["tokenizers", "transformers", "numpy", "ftfy"])
def test_the_version_of_a_package_that_prepares_is_in_the_key(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, right = code(), keys._version
    monkeypatch.setattr(keys, "_version", lambda name: "0.0" if name == package else right(name))
    assert code() != before


# ---- what is found is what is live -----------------------------------------------------------------------------------

CUTS: Mapping[str, Mapping[str, Any]] = {
    "whole": {},
    "in pieces": {"truncation": "split", "max_length": 7},
    "by twos": {"weight": 2.0},
}
ROUNDS = [*((form, "whole") for form in FORMS), ("plain text", "in pieces"), ("chat", "by twos")]


def task_of(form: str, recipe: Recipe) -> Task:
    made = tokenizer("byte_level" if form in ("chat", "completion", "plain text") else "wordpiece")
    if form == "masked_lm":
        made.mask_token = "[CLS]"
    return TASKS[recipe.task.kind](Renderer(made), recipe)


def check_what_is_found_is_live(form: str, way: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example that is read back is what its record becomes now: tokens, weights, targets, labels, types."""
    monkeypatch.setenv("PEGBOX_CACHE", str(folder / "cache"))
    kind, _, rows = FORMS[form]
    train = {"path": str(write_rows(folder / "rows.jsonl", rows(40))), "weight": CUTS[way].get("weight", 1.0)}
    data = {"train": train, "allow": ["near_duplicate"], "validation": 0.3, "test": 0.2}
    data |= {key: value for key, value in CUTS[way].items() if key != "weight"}
    recipe = load({"model": "a/b", "task": kind, "data": data})
    limit = recipe.data.max_length or 500
    prepare(recipe, task_of(form, recipe), limit)
    kept = list(cache_root().glob("rows-*"))
    monkeypatch.setattr(preparing.Preparation, "build", lambda *given: pytest.fail("prepared anew"))
    found = prepare(recipe, task_of(form, recipe), limit)
    assert list(cache_root().glob("rows-*")) == kept and len(kept) == 1
    live = task_of(form, recipe)
    live.observe([record for side in SPLITS for record in getattr(found.splits, side)])
    for records, examples in ((found.splits.train, found.train), (found.splits.validation, found.validation)):
        assert len(records) == len(examples) > 5
        for record, example in zip(records, examples, strict=True):
            assert example == live.encode(record), record.where


@pytest.mark.parametrize(("form", "way"), ROUNDS, ids=[", ".join(pair) for pair in ROUNDS])
def test_what_is_found_is_what_is_live(form: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_what_is_found_is_live(form, way, tmp_path, monkeypatch)


def without_last(example: Example) -> bytes:
    """Bug: kept without the token that ends it (Soup #938)."""
    ids, weights = example.input_ids[:-1], example.loss_weights[:-1]
    return dump_example(Example(example.where, ids, weights, example.targets))


def test_rows_that_are_kept_without_their_stop_token_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "dump_example", without_last)
    with pytest.raises(AssertionError, match="rows.jsonl:"):
        check_what_is_found_is_live("chat", "whole", tmp_path, monkeypatch)
