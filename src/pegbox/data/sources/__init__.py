"""Where rows come from: files and folders, compressed or not, SQLite queries, hub datasets, knowledge graphs, samples.

`reading` has the table of sources and that of the kinds of files; each kind is read by a file of its own. Nothing a
stranger wrote may end in a traceback, and nothing is read by a guess in silence.
"""

from pegbox.data.sources.outcomes import MalformedRow, Remark, refusal
from pegbox.data.sources.reading import numbered, read, read_all
from pegbox.data.sources.strict_json import parse_json

__all__ = ["MalformedRow", "Remark", "numbered", "parse_json", "read", "read_all", "refusal"]
