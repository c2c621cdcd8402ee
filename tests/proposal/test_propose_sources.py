"""What `pegbox init` says of rows that do not lie in files of rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from pegbox.errors import DataError
from pegbox.proposal.propose import propose

PREFIXES = "@prefix ex: <http://example.org/ns#> .\n"


def test_a_knowledge_graph_is_questions_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "facts.ttl"
    facts = (f"ex:city{number} ex:country ex:Country{number % 7} ." for number in range(60))
    path.write_text(PREFIXES + "\n".join(facts), encoding="utf-8")
    proposal = propose([str(path)])
    assert proposal.task == "chat"
    recipe = yaml.safe_load(proposal.to_yaml(tmp_path))
    assert recipe["data"]["train"] in ("facts.ttl", ["facts.ttl"])


def test_of_a_database_it_says_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE reviews (text, label)")
        database.commit()
    with pytest.raises(DataError, match=r"query: SELECT \.\.\. ORDER BY"):
        propose([str(path)])
