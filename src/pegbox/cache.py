"""pegbox's own folder for what it made or fetched once: models out of packages or GGUF files, packages of rows, rows in tokens.

A folder appears there whole or not at all: it is built beside its place and renamed into it, and the rename of a folder
is atomic. Of two processes that build the same folder at once the second finds the place taken and drops its own copy.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pegbox.errors import RecipeError

FORMAT = "v1"  # part of every key: raise it when a conversion changes, so that no folder made by an older one is used


def cache_root() -> Path:
    """`$PEGBOX_CACHE`, else `$XDG_CACHE_HOME/pegbox`, else `~/.cache/pegbox`; it need not exist yet."""
    own, shared = os.environ.get("PEGBOX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser().absolute()
    return (Path(shared) if shared else Path.home() / ".cache") / "pegbox"


def built_once(key: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `key`; where there is none, `build(folder)` fills a new one first.

    What `build` raises is passed on and nothing is kept. Raises RecipeError where the cache cannot be written.
    """
    assert key and Path(key).name == key, f"{key!r} is no plain folder name"
    root = cache_root()
    target = root / key
    if target.is_dir():
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=root) as work:
            made = Path(work) / key
            made.mkdir()
            build(made)
            _publish(made, target)
    except OSError as error:
        cure = "free some space there, or set PEGBOX_CACHE to a folder that can be written"
        raise RecipeError(f"the cache cannot be written ({error})", where=str(root), cure=cure) from error
    return target


def _publish(made: Path, target: Path) -> None:
    try:
        os.replace(made, target)
    except OSError:
        if not target.is_dir():  # not another process that was quicker, but a real fault
            raise
