"""`make bench`: pegbox beside Transformers' Trainer with PEFT, and TRL, on the same model, rows, method and updates.

Writes `../results/speed-<date>-<device>.json` with the machine and the versions, beside it a page and a picture of the same
name, and `../speed.md`; what people wrote under the last heading of that page stays. `--small` is a trial of minutes that
writes nothing. On a GPU the same command measures larger models and more peers, too (`workloads.for_gpus`).

Figures: tokens a second that are not padding, the median over updates, and its spread over repetitions (each has another
seed); the most memory that the process held; seconds from its start to the end of its first update; the loss of held-out
rows afterwards; and the share of the floor (`../floor.py`).
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are modules of `speed`

from speed.campaign import Campaign  # noqa: E402

from pegbox import runtime  # noqa: E402
from speed import figures, machine, page, workloads  # noqa: E402

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    device = runtime.find_device()
    known = workloads.WORKLOADS | (workloads.for_gpus() if device.type == "cuda" else {})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help=f"some of {', '.join(known)}; default: all")
    parser.add_argument("--small", action="store_true", help="one repetition of a few rows; nothing is written")
    parser.add_argument("--repetitions", type=int, help="of everybody, each with a seed of its own")
    asked = parser.parse_args()
    if unknown := set(asked.names) - known.keys():
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pegbox-bench-") as work:
        campaign = Campaign(Path(work), device.type, asked.small)
        for name in asked.names or known:
            repetitions = 1 if asked.small else asked.repetitions or known[name].repetitions
            one = campaign.workload(known[name], range(repetitions))
            found[name] = one | {"figures": figures.of(one["runs"])}
    whole = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/speed/bench.py", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - began),
        **machine.about(device),
        "workloads": found,
    }
    if asked.small:
        print(page.markdown(whole, "", "not-written"))
    else:
        page.write(whole, HERE)


if __name__ == "__main__":
    main()
