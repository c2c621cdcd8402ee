"""E-mail addresses, phone numbers, IBANs and payment cards: against the libraries that know them, and what is none."""

from __future__ import annotations

import random
import re

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stdnum import iban as iban_oracle
from stdnum import luhn, numdb

from pegbox.data.doctor.personal import IBAN_LENGTH, find, is_card, is_iban, personal_data, redact
from pegbox.data.doctor.spans import Span
from pegbox.data.records import PlainText, Record
from pegbox.recipe import load


def made_iban(country: str, draw: random.Random, alphabet: str = "0123456789") -> str:
    """An IBAN with the right length and check digits, not with its country's own structure."""
    body = "".join(draw.choices(alphabet, k=IBAN_LENGTH[country] - 4))
    return country + iban_oracle.calc_check_digits(f"{country}00{body}") + body


def made_card(prefix: str, length: int, draw: random.Random) -> str:
    body = prefix + "".join(draw.choices("0123456789", k=length - len(prefix) - 1))
    return body + luhn.calc_check_digit(body)


def grouped(text: str) -> str:
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


# ---- IBAN ------------------------------------------------------------------------------------------------------------


def test_the_countries_and_their_lengths_are_those_of_the_registry() -> None:
    registry = {
        country: 4 + sum(map(int, re.findall(r"([0-9]+)!", entry["bban"])))
        for _, country, _, entry, _ in numdb.get("iban").prefixes
    }
    assert registry == IBAN_LENGTH


@pytest.mark.parametrize("country", sorted(IBAN_LENGTH))
def test_ibans_are_found_compact_and_in_groups_and_end_where_they_end(country: str) -> None:
    draw = random.Random(country)
    for alphabet in ("0123456789", "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"):
        code = made_iban(country, draw, alphabet)
        for written in (code, grouped(code)):
            spans = find(f"pay to {written} BIC COBADEFF, thanks")
            assert Span("IBAN", 7, 7 + len(written)) in spans
        assert [span.kind for span in find(f"{code} {code}")] == ["IBAN", "IBAN"]


@settings(max_examples=300)
@given(st.sampled_from(sorted(IBAN_LENGTH)), st.integers(0, 2**32), st.integers(4, 14), st.integers(1, 9))
def test_one_wrong_digit_is_no_iban(country: str, seed: int, at: int, by: int) -> None:
    code = made_iban(country, random.Random(seed))
    wrong = code[:at] + str((int(code[at]) + by) % 10) + code[at + 1 :]
    assert is_iban(code)
    assert not is_iban(wrong)
    assert not is_iban(code + "0")


def test_real_examples_that_the_oracle_takes_are_taken() -> None:
    for code in ("DE89370400440532013000", "GB82WEST12345698765432", "FR1420041010050500013M02606", "NO9386011117947"):
        assert iban_oracle.is_valid(code)
        assert is_iban(code)


# ---- cards -----------------------------------------------------------------------------------------------------------

ISSUED = [
    ("4", 16),
    ("4", 19),
    ("51", 16),
    ("55", 16),
    ("2221", 16),
    ("2720", 16),
    ("34", 15),
    ("37", 15),
    ("6011", 16),
]
ISSUED += [("644", 16), ("65", 16), ("62", 17), ("3528", 16), ("3589", 16), ("300", 14), ("36", 14), ("39", 14)]


@pytest.mark.parametrize(("prefix", "length"), ISSUED)
def test_cards_of_every_issuer_are_found(prefix: str, length: int) -> None:
    draw = random.Random(prefix)
    for _ in range(20):
        number = made_card(prefix, length, draw)
        assert find(f"my card {number}.") == [Span("CARD", 8, 8 + length)]


@pytest.mark.parametrize(
    "written", ["4111 1111 1111 1111", "4111-1111-1111-1111", "3782 822463 10005", "3056 930902 5904"]
)
def test_cards_are_found_as_they_are_printed(written: str) -> None:
    assert [(span.kind, span.end - span.start) for span in find(f"card: {written}, 12/27")] == [("CARD", len(written))]


@given(st.sampled_from(ISSUED), st.integers(0, 2**32), st.data())
def test_the_check_digit_decides(issuer: tuple[str, int], seed: int, data: st.DataObject) -> None:
    number = made_card(*issuer, random.Random(seed))
    wrong = number[:-1] + str((int(number[-1]) + data.draw(st.integers(1, 9))) % 10)
    assert is_card(number) and luhn.is_valid(number)
    assert not is_card(wrong)


@pytest.mark.parametrize("prefix", ["1", "7", "8", "9", "0", "2721", "2220", "50", "3527"])
def test_a_number_of_no_issuer_is_no_card(prefix: str) -> None:
    assert not is_card(made_card(prefix, 16, random.Random(prefix)))


# ---- phone numbers ---------------------------------------------------------------------------------------------------

FORMATS = (phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.E164)


def test_example_numbers_of_every_region_are_found() -> None:
    total = hits = 0
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE):
            number = phonenumbers.example_number_for_type(region, kind)
            for form in FORMATS if number else ():
                written = phonenumbers.format_number(number, form)
                total += 1
                hits += find(f"call {written} before noon") == [Span("PHONE", 5, 5 + len(written))]
    assert total > 900
    assert hits >= 0.95 * total


@pytest.mark.parametrize(
    ("written", "around"),
    [
        ("(212) 555-0123", "call {} today"),
        ("212-555-0123", "call {}."),
        ("212.555.0123", "{} is mine"),
        ("+49 (0) 30 / 901820", "ring {} now"),
        ("0049 30 901820", "ring {} now"),
        ("030/901820", "Tel.: {}"),
        ("0171 1234567", "Telefon {}, abends"),
        ("5551234567", "phone number: {}"),
    ],
)
def test_phone_numbers_are_found_as_people_write_them(written: str, around: str) -> None:
    text = around.format(written)
    assert [(span.kind, text[span.start : span.end]) for span in find(text)] == [("PHONE", written)]


# ---- e-mail ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "anna.schmidt@firma.de",
        "a@b.co",
        "o'neil+shop@mail.firm.co.uk",
        "x_1@sub-domain.firm.museum",
        "jürgen@müller.de",
    ],
)
@pytest.mark.parametrize("around", ["write to {}.", "<{}>", "mailto:{}?subject=x", "({}), {}"])
def test_addresses_are_found_whole(address: str, around: str) -> None:
    text = around.format(address, address)
    assert {text[span.start : span.end] for span in find(text)} == {address}


# ---- what is none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "write to someone@example.com or root@localhost or me@mail.example.org",
        "git clone git@github.com:user/project, icon@2x.png, @user, a @ b.c, torch@2.6.0, x@y",
        "550e8400-e29b-41d4-a716-446655440000 and 8f14e45fceea167a5a36dedd4bea2543dd2c1f3a",
        "2024-07-18T12:30:00+0100, 18.07.2024, 2024/07/18, 1700000000000, 12:30:45.123456",
        "phone 2024-07-18, mobile 18.07.2024",
        "version 1.26.4, 192.168.178.201, chapter 3.14.15.92, +1.5, +12345678, a rise of +35236450.6 points",
        "EAN 4006381333931, ISBN 978-3-16-148410-0, order 12345678901234567890123, article 4444-5555-66",
        "3.1415926535897932384626, 0.4111111111111111, 1,234,567,890, 4111111111111112",
        "DE89370400440532013001, AB12345678901234, NO12 345",
        "#a1b2c3 #11223344 0xdeadbeef00112233",
        "the years 1914 1918 1939 1945 1989 1990",
    ],
)
def test_what_only_looks_like_personal_data_is_none(text: str) -> None:
    assert find(text) == []


pieces = st.one_of(
    st.text(max_size=12),
    st.text("0123456789 +-().@aAeE", max_size=24),
    st.sampled_from(["a@b.de", "+49 30 901820", "DE89370400440532013000", "4111111111111111", "Tel. 030 901820"]),
)


@settings(max_examples=300)
@given(st.lists(pieces, max_size=6).map("".join))
@example("4111111111111111a@b.de+49 30 901820")
def test_redacting_leaves_nothing_and_is_idempotent(text: str) -> None:
    clean = redact(text)
    assert find(clean) == []
    assert redact(clean) == clean
    assert find(text) or clean == text


def test_redacting_says_what_stood_there() -> None:
    text = "anna@firma.de, +49 30 901820, DE89 3704 0044 0532 0130 00, 4111 1111 1111 1111"
    assert redact(text) == "[EMAIL], [PHONE], [IBAN], [CARD]"


def test_the_finding_counts_kinds_lists_rows_and_shows_three_masked() -> None:
    check = personal_data(load({"model": "m/m", "task": "chat", "data": {"train": "rows.jsonl"}}))
    for number in range(5):
        check.see(Record(f"r:{number}", PlainText(f"write to person{number}@firma.de" if number else "nothing")))
    (finding,) = check.findings()
    assert (finding.check, finding.severity) == ("personal_data", "warning")
    assert finding.rows == ("r:1", "r:2", "r:3", "r:4")
    assert "4 EMAIL" in finding.message
    assert finding.message.count("pe…de") == 3
    assert "person" not in str(finding).replace("personal", "")
