"""The command line: thin, it calls what a notebook would call.

Results go to stdout (one JSON object with `--json`), progress and messages to stderr. A user's mistake ends in one
message with its cure and the error's exit code, never in a traceback.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pegbox.cli.app import set_volume
from pegbox.cli.commands import app
from pegbox.errors import PegboxError
from pegbox.runs import environment


def main() -> None:
    """The `pegbox` command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    set_volume(quiet=False, verbose=False)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    environment.settle()
    signal.signal(signal.SIGTERM, _end)  # where nothing need be saved; training has its own
    try:
        app()
    except PegboxError as error:
        _tell(error)
    except OSError as error:
        from pegbox.runs.durable import disk_error, is_of_disk

        if not is_of_disk(error):
            raise
        _tell(disk_error(error, Path(str(error.filename or "."))))
    except KeyboardInterrupt:
        _end(signal.SIGINT, None)


def _tell(error: PegboxError) -> NoReturn:
    """Say what is wrong and how it is mended, and end with the error's exit code; of several ranks the first tells."""
    if os.environ.get("RANK", "0") == "0":
        if "--json" in sys.argv:
            told = {"what": error.what, "where": error.where, "cure": error.cure, "exit_code": error.exit_code}
            print(json.dumps({"error": told}))
        print(f"pegbox: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    print("pegbox: stopped\n  cure: a run goes on with `pegbox train --resume RUN`", file=sys.stderr)
    sys.exit(128 + signum)
