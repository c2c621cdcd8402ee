"""Near-duplicates: brute force is the truth, no block or chunk shows, and crowds cost no more than they should."""

from __future__ import annotations

import functools
import random
import tracemalloc
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from home_assistant_intents import get_intents
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pegbox.data import near
from pegbox.data.near import Near, Sketches

Pairs = set[tuple[int, int]]


def found(texts: Sequence[str], seed: int = 0) -> Near:
    sketches = Sketches(seed)
    for text in texts:
        sketches.see(text)
    return sketches.pairs(texts.__getitem__)


def as_set(pairs: NDArray[np.int32]) -> Pairs:
    assert pairs.dtype == np.int32
    assert pairs.shape == (len(pairs), 2)
    return {(int(earlier), int(later)) for earlier, later in pairs}


def grams(text: str) -> set[str]:
    return {text[at : at + 5] for at in range(len(text) - 4)} or {text}


def jaccard(one: str, other: str) -> float:
    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


def brute_force(texts: Sequence[str]) -> Pairs:
    """All pairs from 0.8, by the product of the matrix of rows and 5-grams with itself."""
    from scipy.sparse import csr_matrix, triu

    numbers: dict[str, int] = {}
    cells = [[numbers.setdefault(gram, len(numbers)) for gram in grams(text)] for text in texts]
    sizes = np.array([len(row) for row in cells])
    places = np.concatenate([[0], np.cumsum(sizes)])
    rows = csr_matrix((np.ones(sizes.sum(), np.int32), np.concatenate(cells), places))
    shared = triu(rows @ rows.T, 1).tocoo()
    near_ones = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data) >= 0.8
    return set(zip(shared.row[near_ones].tolist(), shared.col[near_ones].tolist(), strict=True))


@functools.cache
def real_rows() -> list[str]:
    """5,000 sentence patterns in twelve languages and six scripts, 1,500 pairs of which are near."""
    rows: dict[str, None] = {}
    for language in ("en", "de", "nl", "fr", "sv", "it", "es", "ru", "ja", "el", "he", "hi"):
        intents = (get_intents(language) or {"intents": {}})["intents"].values()
        sentences = [sentence for intent in intents for block in intent["data"] for sentence in block["sentences"]]
        rows |= dict.fromkeys(" ".join(sentence.split()).casefold() for sentence in sentences)
    texts = list(rows)
    random.Random(0).shuffle(texts)
    return texts[:5000]


def sentence(draw: random.Random, words: int) -> str:
    return " ".join("".join(draw.choices("abcdefghijklmnopqrst", k=draw.randint(2, 9))) for _ in range(words))


def edited(draw: random.Random, text: str, edits: int) -> str:
    """A twin of a text: each edit replaces a character and with it at most five 5-grams."""
    characters = list(text)
    for at in draw.sample(range(len(text)), edits):
        characters[at] = "Z"
    return "".join(characters)


# ---- truth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_of_real_rows_are_those_of_brute_force(seed: int) -> None:
    texts = real_rows()
    truth, pairs = brute_force(texts), as_set(found(texts, seed).pairs)
    assert len(truth) > 1000
    assert pairs <= truth
    assert len(pairs) >= 0.99 * len(truth)


def test_planted_twins_are_found_from_the_threshold_and_none_below() -> None:
    draw = random.Random(1)
    texts = [sentence(draw, 14) for _ in range(2500)]
    texts += [edited(draw, text, draw.choice([1, 2, 3])) for text in texts]
    indices = [jaccard(texts[row], texts[row + 2500]) for row in range(2500)]
    pairs = as_set(found(texts).pairs)
    for low, high, least in [(0.8, 0.82, 0.985), (0.82, 0.9, 0.99), (0.9, 1.0, 1.0)]:
        planted = {(row, row + 2500) for row, index in enumerate(indices) if low <= index < high}
        assert len(planted) > 100
        assert len(planted & pairs) >= least * len(planted)
    assert sum(0.7 <= index < 0.8 for index in indices) > 100
    assert all(jaccard(texts[one], texts[other]) >= 0.8 for one, other in pairs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab\0é\u0301語😀\ud800\U0010ffff"), max_size=12), max_size=12))
def test_every_pair_is_true_whatever_the_texts(texts: list[str]) -> None:
    pairs = found(texts).pairs
    assert all(earlier < later and jaccard(texts[earlier], texts[later]) >= 0.8 for earlier, later in pairs.tolist())
    assert len(as_set(pairs)) == len(pairs)
    assert sorted(pairs.tolist(), key=lambda pair: (pair[1], pair[0])) == pairs.tolist()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=5))
def test_equal_texts_are_always_a_pair(text: str, others: list[str]) -> None:
    """Their signatures are equal, so every band brings them together."""
    assert (0, len(others) + 1) in as_set(found([text, *others, text]).pairs)


def test_texts_shorter_than_a_gram_are_near_themselves_alone() -> None:
    texts = ["", "a", "abcd", "abc", "abcde", "a\0", "abcd\0", "日本", "日本語"]
    assert len(found(texts).pairs) == 0
    assert as_set(found([*texts, "日本"]).pairs) == {(7, 9)}


def test_no_texts_have_no_pairs() -> None:
    assert as_set(found([]).pairs) == set()
    assert as_set(found(["alone"]).pairs) == set()


def test_hashes_agree_as_often_as_the_jaccard_index_says() -> None:
    """What the curve in the docstring rests on: over 200 pairs and 16 seeds the mean error is under 0.005."""
    draw = random.Random(2)
    texts = [sentence(draw, 12) for _ in range(200)]
    texts += [edited(draw, text, draw.choice([2, 5, 9])) for text in texts]
    expected = np.array([jaccard(texts[row], texts[row + 200]) for row in range(200)])
    agreed = np.zeros(200)
    for seed in range(16):
        both = signatures(texts, seed)
        agreed += (both[:200] == both[200:]).mean(axis=1) / 16
    assert 0.2 < expected.min() < expected.max() < 0.9
    assert abs((agreed - expected).mean()) < 0.005
    assert np.abs(agreed - expected).max() < 0.06  # four standard deviations of 16 x 96 draws


# ---- what must not show ----------------------------------------------------------------------------------------------


def signatures(texts: Iterable[str], seed: int = 0) -> NDArray[np.uint8]:
    sketches = Sketches(seed)
    for text in texts:
        sketches.see(text)
    sketches._sketch()
    return np.frombuffer(bytes(sketches._signatures), np.uint8).reshape(-1, near.HASHES)


def crowd(count: int) -> list[str]:
    """Rows of a few templates, so that each row has more near-duplicates than it is compared with."""
    draw = random.Random(3)
    templates = [sentence(draw, 16) for _ in range(4)]
    return [f"{templates[row % 4]} number {row}" for row in range(count)]


@pytest.mark.parametrize("name", ["BLOCK", "CHUNK", "KEPT"])
def test_no_size_of_a_block_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*real_rows()[:600], "", *crowd(400), "x" * 3000]
    drawn, expected = signatures(texts), found(texts)
    for size in (29, 1 << 20):
        monkeypatch.setattr(near, name, size)
        assert np.array_equal(signatures(texts), drawn)
        assert np.array_equal(found(texts).pairs, expected.pairs)
        assert found(texts).cut_short == expected.cut_short


@pytest.mark.parametrize("texts", [real_rows()[:2000], crowd(2000)], ids=["real", "crowd"])
def test_appended_rows_leave_signatures_and_earlier_pairs_as_they_are(texts: list[str]) -> None:
    assert np.array_equal(signatures(texts)[:1200], signatures(texts[:1200]))
    before, after = found(texts[:1200]).pairs, found(texts).pairs
    assert np.array_equal(after[after[:, 1] < 1200], before)


def test_texts_can_be_seen_after_pairs_were_asked_for() -> None:
    texts, sketches = crowd(300), Sketches()
    for text in texts[:100]:
        sketches.see(text)
    sketches.pairs(texts.__getitem__)
    for text in texts[100:]:
        sketches.see(text)
    assert len(sketches) == 300
    assert np.array_equal(sketches.pairs(texts.__getitem__).pairs, found(texts).pairs)


def test_the_seed_alone_fixes_the_signatures() -> None:
    texts = real_rows()[:50]
    assert np.array_equal(signatures(texts, 1), signatures(texts, 1))
    assert not np.array_equal(signatures(texts, 1), signatures(texts, 2))


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_a_row_costs_no_more_than_150_bytes() -> None:
    texts = real_rows()
    tracemalloc.start()
    sketches = Sketches()
    for _ in range(4):
        for text in texts:
            sketches.see(text)
    sketches._sketch()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 150 * 4 * len(texts)


class Counted(list[str]):
    """Texts that count how often one was asked for."""

    asked = 0

    def text_of(self, row: int) -> str:
        self.asked += 1
        return self[row]


def counted(texts: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Near, int, int]:
    """What was found, how many signatures were compared, and how many texts were asked for."""
    compared, read = 0, near._Search._read

    def counting(search: near._Search, earlier: near.Rows, later: near.Rows) -> NDArray[np.bool_]:
        nonlocal compared
        compared += len(later)
        return read(search, earlier, later)

    monkeypatch.setattr(near._Search, "_read", counting)
    rows, sketches = Counted(texts), Sketches()
    for text in rows:
        sketches.see(text)
    return sketches.pairs(rows.text_of), compared, rows.asked


def test_rows_that_are_all_near_each_other_are_all_tied_to_earlier_ones_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 rows of four templates: 10^7 pairs are near, and eight a row are enough."""
    done, compared, asked = counted(crowd(10_000), monkeypatch)
    earlier, later = done.pairs.T
    assert set(later.tolist()) == set(range(4, 10_000))
    assert np.array_equal(earlier % 4, later % 4)
    assert len(done.pairs) <= near.FOUND * 10_000
    assert done.cut_short > 0.99 * 10_000
    assert compared < 30 * 10_000
    assert asked < 10 * 10_000


def test_a_crowd_of_rows_that_are_not_near_is_bounded_and_its_twins_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long preamble brings 5,000 rows into the same buckets; every tenth has a twin somewhere before it."""
    draw = random.Random(4)
    preamble = sentence(draw, 16)
    texts = [f"{preamble} {sentence(draw, 5)}" for _ in range(5_000)]
    twins = range(3_000, 5_000, 10)
    for row in twins:
        texts[row] = edited(draw, texts[row - 2321], 2)
    done, compared, asked = counted(texts, monkeypatch)
    pairs = as_set(done.pairs)
    planted = {(row - 2321, row) for row in twins if jaccard(texts[row - 2321], texts[row]) >= 0.8}
    assert len(planted) == len(twins)
    assert len(planted & pairs) >= 0.95 * len(planted)
    assert compared < near.BANDS * (near.HEADS + near.WINDOW) * 5_000
    assert asked < 2 * near.BANDS * 5_000
    assert done.cut_short > 0


def alike(count: int, own: int) -> list[str]:
    """Rows that share a preamble of 16 words and have some words of their own."""
    draw = random.Random(7)
    preamble = sentence(draw, 16)
    return [f"{preamble} {sentence(draw, own)}" for _ in range(count)]


def test_rows_just_under_the_threshold_are_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures cannot tell 0.75 from 0.8, so each row would be read beside all that its bands propose."""
    texts = alike(2000, 3)
    assert 0.7 < np.mean([jaccard(texts[0], text) for text in texts[1:100]]) < 0.78
    read, truth = 0, near._Grams.near

    def counting(texts: near._Grams, one: int, other: int) -> bool:
        nonlocal read
        read += 1
        return truth(texts, one, other)

    monkeypatch.setattr(near._Grams, "near", counting)
    assert found(texts).cut_short > 0.9 * len(texts)
    assert read <= (near.FOUND + near.TRIED) * len(texts)


def test_rows_that_stand_in_crowds_in_many_bands_are_said_to_be_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they may be read."""
    monkeypatch.setattr(near, "TRIED", 255)
    monkeypatch.setattr(near, "FOUND", 255)
    done = found(alike(1000, 3))
    assert 100 < done.cut_short < 1000
    assert found(alike(near.HEADS + near.WINDOW + 1, 3)).cut_short == 0


def test_no_row_is_said_to_be_cut_short_where_all_were_compared() -> None:
    draw = random.Random(5)
    texts = [sentence(draw, 12) for _ in range(2000)]
    texts += [edited(draw, text, 1) for text in texts]
    assert found(texts).cut_short == 0


def test_the_rows_of_one_template_are_cut_short_from_where_some_were_left_out() -> None:
    draw = random.Random(6)
    template = sentence(draw, 30)
    for count in (near.FOUND, near.FOUND + 1, near.FOUND + 5):
        texts = [f"{template} {row}" for row in range(count)]
        assert found(texts).cut_short == count - near.FOUND
