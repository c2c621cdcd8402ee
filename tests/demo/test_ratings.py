"""Human scores: every line becomes a text and its score, and the score is the mean of what the raters said."""

from __future__ import annotations

import ast
import tarfile
import zipfile
from statistics import fmean

import pytest

from pegbox.archives import fetch
from pegbox.demo import ratings
from pegbox.demo.ratings import Rated, parse, rated

RAW = {"films": "movieReviewSnippets_anonDataRatings.txt", "tweets": "tweets_anonDataRatings.txt"}


def test_a_line_is_an_id_a_score_and_a_text() -> None:
    excerpt = "1\t2.25\tA treat,\tfrom start to end.\r\n2\t-0.5\tToo\u2028 long\x85\n\n"
    assert parse(excerpt) == [Rated("A treat,\tfrom start to end.", 2.25), Rated("Too\u2028 long", -0.5)]


@pytest.mark.real_model
@pytest.mark.parametrize(("name", "count", "others"), [("films", 10_605, 0), ("tweets", 4_200, 199)])
def test_the_scores_are_the_means_of_the_raw_ratings_which_stand_in_another_file(
    name: str, count: int, others: int
) -> None:
    """The counts are those of the archive's own description; `others` the scores that it has from elsewhere."""
    rows = rated(name)
    with (
        zipfile.ZipFile(fetch(ratings.ARCHIVE, "ratings", "test")) as archive,
        archive.open("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz") as packed,
        tarfile.open(fileobj=packed, mode="r:gz") as files,
    ):
        lines = files.extractfile(f"hutto_ICWSM_2014/{RAW[name]}").read().decode("utf-8").splitlines()
    said = [ast.literal_eval(line.split("\t")[3]) for line in lines]
    assert len(rows) == len(said) == count
    means = [fmean(numbers) for numbers in said]
    assert sum(abs(row.score - mean) > 1e-6 for row, mean in zip(rows, means, strict=True)) == others
    assert all(row.text for row in rows) and min(map(len, said)) >= 15


@pytest.mark.real_model
def test_the_archive_states_the_licence_that_is_told() -> None:
    with zipfile.ZipFile(fetch(ratings.ARCHIVE, "ratings", "test")) as archive:
        assert archive.read("vaderSentiment-0.5/LICENSE.txt").startswith(f"The {ratings.LICENCE} License".encode())
