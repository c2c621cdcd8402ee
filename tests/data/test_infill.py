"""A text cut in three: where, in whose tokens, and that nothing of it is lost or learnt that is not the middle.

Each property is a function `check_...`; beside the test stands the proof that it fails when the bug is put in.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from infill_tokenizers import MAKERS, with_tokens
from small_tokenizers import BYTE_LEVEL, FAITHFUL

from pegbox.data import infill as infilling
from pegbox.data.codec import Codec
from pegbox.data.infill import LEFT_TO_RIGHT, USUAL, Cut, Form, Infill, Part, cut, infill_of, lots
from pegbox.data.records import PlainText
from pegbox.data.render import Renderer, Tokens

DOCUMENTS = 10_000
# what a text is made of: accents composed and combining, emoji with joiners and skins, flags, both directions, marks that
# stand alone, every kind of line end, and code
PIECES = [
    *("a", "é", "e\u0301", "n\u0303\u0323", "\u0301", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "👍🏽", "🇩🇪", "❤️", "北京", "السلام", "שלום", "हिन्दी"),
    *("\r\n", "\n", "\r", "\t", "    ", "  ", " ", "\u2028", "\x85", "\u200b", "\u200d", "\ufeff", "\xa0", "\x00", "\U0001d4b3", "\U0010ffff"),
    *("def f(x):\n", "    return x\n", '"""', "'", "\\n", "#", "<", "|", ">", "<fim_prefix>", "</s>", "<|im_end|>", "xyz" * 9),
]  # fmt: skip


def document(rng: random.Random) -> str:
    return "".join(rng.choices(PIECES, k=rng.randrange(1, 12)))


@cache
def made(kind: str, makers: str = "starcoder") -> tuple[Renderer, Infill]:
    found = with_tokens(kind, MAKERS[makers])
    infill = infill_of(found)
    assert infill is not None
    return Renderer(found), infill


# ---- nothing is lost, and the middle alone is learnt -----------------------------------------------------------------


def texts_between(renderer: Renderer, form: Form, ids: Sequence[int]) -> dict[Part, str]:
    """The texts of a prompt by the tokens before them."""
    place, found = len(renderer._codec.opening), dict[Part, str]()
    assert list(ids[:place]) == renderer._codec.opening
    for number, part in enumerate(form.parts):
        if isinstance(part, int):
            assert ids[place] == part
            place += 1
            continue
        following = next((p for p in form.parts[number + 1 :] if isinstance(p, int)), None)
        end = len(ids) if following is None else list(ids).index(following, place)
        found[part] = renderer.decode(ids[place:end])
        place = end
    assert place == len(ids)
    return found


def check_a_text_comes_back(renderer: Renderer, form: Form, text: str) -> None:
    """To the byte from its three parts, and from the ids; the middle and one stop token are learnt and nothing else."""
    parts = cut(PlainText(text))
    assert "".join(parts) == text and parts.middle
    tokens = renderer.filled(form, parts)
    begin = tokens.loss_weights.index(1.0)
    assert tokens.loss_weights == [0.0] * begin + [1.0] * (len(tokens.input_ids) - begin)
    assert tokens.input_ids[:begin] == renderer.hole(form, parts.prefix, parts.suffix)
    *middle, stop = tokens.input_ids[begin:]
    assert stop in renderer.stop_ids and renderer.stop_ids.isdisjoint(middle)
    assert renderer.decode(middle) == renderer.answer([*middle, stop]) == parts.middle
    told = texts_between(renderer, form, tokens.input_ids[:begin])
    prefix = told[Part.PREFIX].removeprefix(form.lead) if parts.prefix else told[Part.PREFIX]
    assert (prefix + renderer.decode(middle) + told[Part.SUFFIX]).encode() == text.encode()


def test_ten_thousand_documents_come_back_to_the_byte() -> None:
    rng = random.Random(0)
    for number in range(DOCUMENTS):
        renderer, infill = made(FAITHFUL[number % len(FAITHFUL)])
        text = document(rng)
        for form in (infill.psm, infill.spm):
            assert form is not None
            check_a_text_comes_back(renderer, form, text)


def check_some(kind: str = "byte_level", makers: str = "starcoder") -> None:
    rng, (renderer, infill) = random.Random(1), made(kind, makers)
    for form in filter(None, (infill.psm, infill.spm)):
        for _ in range(60):
            check_a_text_comes_back(renderer, form, document(rng))


@pytest.mark.parametrize("makers", MAKERS)
@pytest.mark.parametrize("kind", ["byte_level", "adds_bos", "metaspace_first", "prefix_by_normalizer"])
def test_so_they_do_in_the_tokens_of_every_family(kind: str, makers: str) -> None:
    renderer, infill = made(kind, makers)
    if infill.asked.end is not None:
        assert infill.asked.end not in renderer.stop_ids  # so the task says that it ends a middle
        renderer = Renderer(renderer.tokenizer, [infill.asked.end])
    rng = random.Random(2)
    for form in filter(None, (infill.psm, infill.spm)):
        for _ in range(60):
            check_a_text_comes_back(renderer, form, document(rng))


def merged(self: Renderer, form: Form, parts: Cut) -> Tokens:
    """Bug: the prefix and the middle are tokenized as one where they stand together."""
    tokens = Tokens()
    ids = self.hole(form, "", parts.suffix)
    if form.parts[-1] is Part.PREFIX:
        both = self._codec.learnt_behind(parts.prefix + parts.middle)
        begin = len(self._codec.learnt_behind(parts.prefix))
        tokens.add([*ids, *both[:begin]])
        tokens.add([*both[begin:], self._closing()], 1.0)
        return tokens
    tokens.add(self.hole(form, parts.prefix, parts.suffix))
    tokens.add([*self._codec.learnt_behind(parts.middle), self._closing()], 1.0)
    return tokens


def learning_more(self: Renderer, form: Form, parts: Cut) -> Tokens:
    """Bug: the token that stands before the middle is learnt, too."""
    tokens = Tokens()
    hole = self.hole(form, parts.prefix, parts.suffix)
    tokens.add(hole[:-1])
    tokens.add([hole[-1], *self._codec.learnt_behind(parts.middle), self._closing()], 1.0)
    return tokens


def without_a_stop(self: Renderer, form: Form, parts: Cut) -> Tokens:
    """Bug: nothing ends the middle."""
    tokens = Tokens()
    tokens.add(self.hole(form, parts.prefix, parts.suffix))
    tokens.add(self._codec.learnt_behind(parts.middle), 1.0)
    return tokens


def test_the_checks_hold_before_the_bugs_are_put_in() -> None:
    check_some()


@pytest.mark.parametrize("bug", [merged, learning_more, without_a_stop])
def test_another_rendering_is_caught(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Renderer, "filled", bug)
    with pytest.raises((AssertionError, ValueError)):
        check_some()


def test_names_of_tokens_that_become_tokens_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codec, "learnt_behind", Codec.encode)
    with pytest.raises((AssertionError, ValueError)):
        check_some()


def test_a_space_that_sentencepiece_adds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    check_some("metaspace_always")
    monkeypatch.setattr(Codec, "learnt_behind", Codec.learnt)
    with pytest.raises(AssertionError):
        check_some("metaspace_always")


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("part", ["prefix", "middle", "suffix"])
def test_the_name_of_a_token_in_a_text_is_text_or_refused(part: str, special: bool) -> None:
    """Transformers finds a token that is not special in any text, and lets nobody forbid that."""
    found = with_tokens("byte_level", USUAL, special=special)
    renderer, infill = Renderer(found), infill_of(found)
    assert infill is not None and infill.psm is not None
    parts = Cut("a", "b", "c")._replace(**{part: "say <fim_middle> here"})
    if special:
        tokens = renderer.filled(infill.psm, parts)
        assert sum(token in infill.psm.tokens for token in tokens.input_ids) == 3
        assert texts_between(renderer, infill.psm, renderer.hole(infill.psm, parts.prefix, parts.suffix)) == {
            Part.PREFIX: parts.prefix,
            Part.SUFFIX: parts.suffix,
        }
    else:
        with pytest.raises(ValueError, match="the name of a token that asks for a middle"):
            renderer.filled(infill.psm, parts)


# ---- whose tokens ----------------------------------------------------------------------------------------------------

END = "<|im_end|>"
# the text "a b" whose middle is the space, as each makers' own code has it: what is given, and what is learnt
BY_HAND: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("starcoder", "psm"): (["<fim_prefix>", "a", "<fim_suffix>", "b", "<fim_middle>"], ["Ġ", END]),
    ("starcoder", "spm"): (["<fim_prefix>", "<fim_suffix>", "b", "<fim_middle>", "a"], ["Ġ", END]),
    ("santacoder", "psm"): (["<fim-prefix>", "a", "<fim-suffix>", "b", "<fim-middle>"], ["Ġ", END]),
    ("santacoder", "spm"): (["<fim-prefix>", "<fim-suffix>", "b", "<fim-middle>", "a"], ["Ġ", END]),
    ("code llama", "psm"): (["▁<PRE>", "Ġa", "▁<SUF>", "b", "▁<MID>"], ["Ġ", "▁<EOT>"]),
    ("code llama", "spm"): (["▁<PRE>", "▁<SUF>", "b", "▁<MID>", "Ġa"], ["Ġ", "▁<EOT>"]),
    ("deepseek", "psm"): (["<｜fim▁begin｜>", "a", "<｜fim▁hole｜>", "b", "<｜fim▁end｜>"], ["Ġ", END]),  # noqa: RUF001
    ("qwen", "psm"): (["<|fim_prefix|>", "a", "<|fim_suffix|>", "b", "<|fim_middle|>"], ["Ġ", "<|endoftext|>"]),
    ("codestral", "spm"): (["[SUFFIX]", "b", "[PREFIX]", "Ġa"], ["Ġ", END]),
}


@pytest.mark.parametrize(("makers", "order"), BY_HAND)
def test_the_forms_are_those_of_their_makers(makers: str, order: str) -> None:
    renderer, infill = made("byte_level", makers)
    tokens = renderer.filled(getattr(infill, order), Cut("a", " ", "b"))
    names = renderer.tokenizer.convert_ids_to_tokens(tokens.input_ids)
    given, learnt = BY_HAND[makers, order]
    if given.count("Ġa") and "Ġa" not in renderer.tokenizer.get_vocab():
        given = [name for told in given for name in (["Ġ", "a"] if told == "Ġa" else [told])]
    assert names == given + learnt
    assert tokens.loss_weights == [0.0] * len(given) + [1.0] * len(learnt)


def test_what_the_makers_did_not_define_is_none() -> None:
    known = {
        (makers, order)
        for makers in MAKERS
        for order in ("psm", "spm")
        if getattr(made("byte_level", makers)[1], order)
    }
    assert known == set(BY_HAND)
    for makers in MAKERS:
        infill = made("byte_level", makers)[1]
        assert infill.asked == (infill.psm or infill.spm)


def test_a_tokenizer_without_such_tokens_asks_for_none() -> None:
    from small_tokenizers import tokenizer

    assert infill_of(tokenizer("byte_level")) is None
    assert infill_of(with_tokens("byte_level", USUAL[:2])) is None


def test_nothing_stands_before_an_empty_prefix() -> None:
    renderer, infill = made("byte_level", "code llama")
    names = renderer.tokenizer.convert_ids_to_tokens(renderer.hole(infill.asked, "", "b"))
    assert names == ["▁<PRE>", "▁<SUF>", "b", "▁<MID>"]


def test_from_left_to_right_there_is_the_prefix_alone() -> None:
    renderer, _ = made("adds_bos")
    assert renderer.hole(LEFT_TO_RIGHT, "hello", "") == renderer.completion_prompt("hello")


# ---- where it is cut -------------------------------------------------------------------------------------------------


def check_every_pair_is_as_likely(count: int = 6000, length: int = 4) -> None:
    """Chi-square of the pairs of boundaries of texts of one length, of which there are ten."""
    found = Counter[tuple[int, int]]()
    for number in range(count):
        parts = cut(PlainText(f"{number:0{length}d}"))
        found[len(parts.prefix), len(parts.prefix) + len(parts.middle)] += 1
    pairs = [(a, b) for a in range(length + 1) for b in range(a + 1, length + 1)]
    assert set(found) == set(pairs)
    assert sum((found[pair] - count / len(pairs)) ** 2 / (count / len(pairs)) for pair in pairs) < 27.9  # p = 0.001


def test_every_pair_of_boundaries_is_as_likely_and_no_middle_is_empty() -> None:
    check_every_pair_is_as_likely()


def test_a_middle_that_begins_anywhere_and_ends_anywhere_behind_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Skewed(random.Random):
        def sample(self, population: Any, k: int, **_: Any) -> list[Any]:
            begin = self.randrange(len(population) - 1)
            return [population[begin], population[self.randrange(begin + 1, len(population))]]

    monkeypatch.setattr(infilling, "Random", Skewed)
    with pytest.raises(AssertionError):
        check_every_pair_is_as_likely()


def test_a_text_is_always_cut_alike_and_otherwise_than_others() -> None:
    rng = random.Random(3)
    texts = [document(rng) + str(number) for number in range(200)]
    assert [cut(PlainText(text)) for text in texts] == [cut(PlainText(text)) for text in reversed(texts)][::-1]
    assert len({cut(PlainText(f"{number:09}"))[0].__len__() for number in range(200)}) > 5


def test_a_text_can_say_itself_what_is_asked_for() -> None:
    assert cut(PlainText("abcd", (1, 3))) == Cut("a", "bc", "d")
    assert cut(PlainText("abcd", (4, 4))) == Cut("abcd", "", "")
    with pytest.raises(ValueError, match="is empty"):
        cut(PlainText(""))
    assert cut(PlainText("x")) == Cut("", "x", "")


def test_lots_are_uniform_and_hang_on_the_seed_and_the_text_alone() -> None:
    drawn = [lots(f"text {number}", 7) for number in range(4000)]
    for lot in zip(*drawn, strict=True):
        assert all(abs(sum(value < share for value in lot) / 4000 - share) < 0.03 for share in (0.1, 0.5, 0.9))
    assert drawn == [lots(f"text {number}", 7) for number in range(4000)]
    assert sum(one == other for one, other in zip(drawn, (lots(f"text {n}", 8) for n in range(4000)), strict=True)) == 0
    both = sum(first < 0.5 and second < 0.5 for first, second in drawn)
    assert abs(both / 4000 - 0.25) < 0.03  # one does not tell the other


def test_byte_level_tokenizers_find_the_parts_in_one_text_and_others_are_told_how() -> None:
    for kind in FAITHFUL:
        renderer, infill = made(kind, "code llama" if kind not in BYTE_LEVEL else "starcoder")
        told = renderer.hole_in_words(infill.asked)
        assert told["as_text"] == (kind in BYTE_LEVEL)
        assert [part for part in told["parts"] if part.startswith("{")] == ["{prefix}", "{suffix}"]
        assert told["opening"] == renderer._codec.opening
