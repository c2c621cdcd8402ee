"""The command line: thin, it calls what a notebook would call.

Results go to stdout (one JSON object with `--json`), progress and messages to stderr. A user's mistake ends in one
message with its cure and the error's exit code, never in a traceback.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys

from pegbox.cli.app import set_volume
from pegbox.cli.commands import app
from pegbox.errors import PegboxError, TrainingError


def main() -> None:
    """The `pegbox` command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    set_volume(quiet=False, verbose=False)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except PegboxError as error:
        if os.environ.get("RANK", "0") != "0":
            sys.exit(error.exit_code)  # the first rank tells
        if "--json" in sys.argv:
            told = {"what": error.what, "where": error.where, "cure": error.cure, "exit_code": error.exit_code}
            print(json.dumps({"error": told}))
        print(f"pegbox: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        cure = "free some space, then start the command again; a run goes on with `pegbox train --resume RUN`"
        print(f"pegbox: the disk is full ({error.filename})\n  cure: {cure}", file=sys.stderr)
        sys.exit(TrainingError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
