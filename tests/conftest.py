"""What every test may rely on: no hub, one thread a process (the models are tiny, and two test processes run beside each other), the same examples each run.

The variables are set before anything imports torch or Transformers (which read them once), and child processes inherit them.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("pegbox", deadline=None, derandomize=True)
settings.load_profile("pegbox")
