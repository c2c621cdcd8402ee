"""The command line: thin, it calls what a notebook would call.

Results go to stdout (one JSON object with `--json`), progress and messages to stderr. A user's mistake ends in one
message with its cure and the error's exit code, never in a traceback.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from pegbox.cli.commands import app
from pegbox.errors import PegboxError


def main() -> None:
    """The `pegbox` command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pegbox").setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except PegboxError as error:
        if "--json" in sys.argv:
            told = {"what": error.what, "where": error.where, "cure": error.cure, "exit_code": error.exit_code}
            print(json.dumps({"error": told}))
        print(f"pegbox: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
