"""The rows of a dataset on the hub, or of a folder laid out like one, in a stream, through `datasets` (extra `hub`).

Only kinds of files that hold plain values are read, and only those that lie in the dataset itself: what its card says
leads nowhere else. Nothing of it is run (`datasets` 4 gave up scripts). Numbers that stand for labels become the names
of the labels, as the dataset's own features have them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pegbox.data.records import Row
from pegbox.data.sources.columnar import plain
from pegbox.data.sources.outcomes import MalformedRow
from pegbox.data.sources.strict_json import parse_json
from pegbox.errors import DataError, RecipeError
from pegbox.recipe.sources import HubSource

KINDS = ("arrow", "cache", "csv", "json", "parquet", "text")  # `cache`: what `datasets` itself keeps of a dataset
UNLABELLED = -1  # what a dataset has in the place of a label that it does not give away


def read_hub(source: HubSource) -> Iterator[Row | MalformedRow]:
    """The rows of a split; the place of a row is `owner/name[train]:17`, its number. What is no text and no number
    (images, audio, bytes) makes a row malformed.

    Raises RecipeError without the extra; DataError for a dataset, configuration or split that there is not or that
    cannot be reached, for files of another kind, and for damage.
    """
    builder, place = _builder(source), "/".join(filter(None, (source.name, source.split)))
    number, where = 0, f"{source.path}[{place}]"
    try:
        rows = builder.as_streaming_dataset(split=source.split)
        features = rows.features
        for number, values in enumerate(rows.decode(False) if features else rows, start=1):
            yield _row(f"{where}:{number}", values, features)
    except Exception as error:  # files of a stranger's, and a library that does not say what it raises
        raise _refusal(error, f"{where}:{number + 1}" if number else where) from None


def fingerprint(source: HubSource) -> str:
    """What the rows depend on: the commit of a dataset on the hub, the SHA-256 of the files in a folder. Raises as `read_hub`."""
    builder = _builder(source)
    if not Path(source.path).is_dir():
        return f"commit {builder.hash}"
    digest = hashlib.sha256()
    for split, files in sorted(builder.config.data_files.items()):
        for name in sorted(files):
            with open(name, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{split} {Path(name).relative_to(builder.base_path)} {content}\n".encode())
    return f"sha256 {digest.hexdigest()}"


def _builder(source: HubSource) -> Any:
    """The `datasets.DatasetBuilder`, whose files have been found and not yet read."""
    try:
        import datasets
    except ImportError:
        cure = "pip install 'pegbox[hub]'"
        raise RecipeError("a hub dataset needs `datasets`", where=source.path, cure=cure) from None
    if "/" not in source.path and not Path(source.path).is_dir():  # `datasets` would look for files of that kind here
        raise DataError("no dataset on the hub has such a name", where=source.path, cure="write owner/name")
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # nobody is told who reads what
    try:
        builder = datasets.load_dataset_builder(source.path, source.name, revision=source.revision)
    except Exception as error:  # as above
        raise _refusal(error, source.path) from None
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in KINDS:
        cure = "choose another dataset, or export it as .jsonl or .parquet"
        raise DataError(f"its files are of the kind '{kind}', which is not read", where=source.path, cure=cure)
    files = [name for names in (builder.config.data_files or {}).values() for name in names]
    if outside := [name for name in files if not _is_below(builder.base_path, name)]:
        cure = "load that file by itself, if it is meant"
        raise DataError(f"its card names a file that is not in it: {outside[0]}", where=source.path, cure=cure)
    return builder


def _is_below(folder: str, name: str) -> bool:
    return name.startswith(f"{folder}/") and ".." not in name.split("/")


def _row(where: str, values: dict[str, Any], features: Any) -> Row | MalformedRow:
    try:
        named = {name: _named(value, features[name], name) if features else value for name, value in values.items()}
        return Row(where, {name: plain(value, name) for name, value in named.items()})
    except ValueError as error:
        return MalformedRow(where, str(error))


def _named(value: Any, feature: Any, column: str) -> Any:
    """The value with the names of labels in the place of their numbers, however deep they stand in it."""
    import datasets

    if value is None or isinstance(feature, datasets.Value):
        return value
    if isinstance(feature, datasets.ClassLabel):
        if value == UNLABELLED:
            return None
        if not 0 <= value < len(feature.names):
            raise ValueError(
                f"'{column}' holds {value}, which none of its {len(feature.names)} labels has for a number"
            )
        return feature.names[value]
    if isinstance(feature, dict):
        return {name: _named(value[name], inner, column) for name, inner in feature.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [_named(item, feature.feature, column) for item in value]
    if type(feature).__name__ == "Json":  # values of several types, each written as JSON; not in every `datasets`
        return parse_json(value)
    raise ValueError(f"'{column}' holds {type(feature).__name__}, which is no text and no number")


def _refusal(error: Exception, where: str) -> DataError:
    """What the library says, in one line; it lists the configurations and splits that there are."""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, ConnectionError):
        cure = "check the connection, or give the path of a folder with the dataset's files"
    elif isinstance(error, FileNotFoundError):
        cure = "check path and revision; a private or gated dataset needs your token (hf auth login)"
    else:
        cure = "check `path`, `name` (its configuration), `split` and `revision`; or mend its files"
    return DataError(f"cannot be read as a dataset: {said}", where=where, cure=cure)
