"""What every test may rely on: no hub, one thread a process (the models are tiny, and two test processes run beside each other), the same examples each run.

The variables are set before anything imports torch or Transformers (which read them once), and child processes inherit them.
So they do that an interrupt is heard: what a shell begins in the background (`nohup make test &`) ignores it, and its children too.
"""

from __future__ import annotations

import functools
import gc
import os
import signal

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("pegbox", deadline=None, derandomize=True)
settings.load_profile("pegbox")


def pytest_collection_finish() -> None:
    """What the tests import stays, and need not be looked through whenever a run gives memory back."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _languages_once() -> None:
    """The model that tells languages is unpacked once a process, and not for each of thousands of runs."""
    try:
        from py3langid.langid import LanguageIdentifier
    except ImportError:
        return
    LanguageIdentifier.from_model_file = staticmethod(functools.cache(LanguageIdentifier.from_model_file))
