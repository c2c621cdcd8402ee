"""What every test may rely on: no hub, one thread a process (the models are tiny, and two test processes run beside each other), the same examples each run.

The variables are set before anything imports torch or Transformers (which read them once), and child processes inherit them.
So they do that an interrupt is heard: what a shell begins in the background (`nohup make test &`) ignores it, and its children too.
"""

from __future__ import annotations

import os
import signal

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("pegbox", deadline=None, derandomize=True)
settings.load_profile("pegbox")
