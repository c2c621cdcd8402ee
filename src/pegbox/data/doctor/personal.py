"""Personal data that stands in rows: e-mail addresses, phone numbers, IBANs, payment cards.

An IBAN has the length of its country and the remainder 1 (ISO 13616, ISO 7064 mod 97-10); a card number has an issuer's
prefix and length and the check digit of ISO/IEC 7812-1 (Luhn). A phone number has a country code (ITU-T E.164), or the
form of North America's numbering plan, or a word such as "Tel." before it: a bare local number cannot be told from
another number. Addresses at the domains that RFC 2606 reserves for examples belong to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pegbox.data.doctor.spans import Span, SpanCheck, merged, redacted
from pegbox.recipe import Recipe

EMAIL = re.compile(
    r"(?<![\w.+-])(?!git@)[\w.+'-]{1,64}@(?![23]x\.)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-]|\.[\w-])"
)
RESERVED = re.compile(r"(?i)[@.](?:example(?:\.(?:com|net|org))?|test|invalid|localhost|local)$")

DIGITS = re.compile(r"[0-9](?:[^\w\n]{0,3}[0-9]){6}")  # without these there is no phone number and no card
BETWEEN = r"[ \u00a0\u2011().\-/]"
PHONES = (
    # a country code behind + or 00, and 8 to 15 digits in all
    re.compile(
        rf"(?<![\w+])((?:\+|00(?=[1-9][0-9]{{0,2}}{BETWEEN}))[1-9](?:{BETWEEN}{{0,3}}[0-9]){{7,14}})(?![\w]|[.,][0-9])"
    ),
    # North America: (212) 555-0123, 212-555-0123, 212.555.0123
    re.compile(r"(?<![\w.+-])((?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[0-9]{3}[.-][0-9]{4})(?![\w]|[.-][0-9])"),
    re.compile(
        r"(?i)\b(?:tel|telefon|telephone|phone|mobile?|cell|fax|handy|whatsapp|t[ée]l[ée]phone|tel[ée]fono)"
        rf"(?:[ ]?(?:no|nr|number|nummer)\b)?[.:]{{0,2}}[ ]{{0,2}}(\(?0?(?:{BETWEEN}{{0,2}}[0-9]){{7,13}})(?![\w]|[.,][0-9])"
    ),
)
DATE = re.compile(r"[0-9]{4}([-./])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-./])[0-9]{1,2}\2[0-9]{4}")
UNDIVIDED = 10  # the fewest digits of a number behind a + that nothing divides: shorter ones are amounts

# SWIFT, IBAN registry: the length for each country
IBAN_LENGTH = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
        "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
        "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
        "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
        "YE30",
    )
}
# looked at, not consumed: the next may begin within the letters that follow a short one
IBAN = re.compile(r"(?<![A-Za-z0-9])(?=([A-Z]{2}[0-9]{2}(?:[ \u00a0-]?[A-Z0-9]){11,30}))")
GROUPS = re.compile(r"[ \u00a0-]")

# issuers' prefixes and lengths
CARD = re.compile(
    r"(?<![\w.,+-])((?=4[0-9]|5[0-9]|[236][0-9])(?:[0-9]{14,19}|"
    r"[0-9]{4}([ -])[0-9]{4}\2[0-9]{4}\2[0-9]{4}(?:\2[0-9]{3})?|[0-9]{4}([ -])[0-9]{6}\3[0-9]{4,5}))(?![\w-]|[.,][0-9])"
)
ISSUER = re.compile(
    r"4(?:[0-9]{15}|[0-9]{18})"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|62[0-9]{2})[0-9]{12,15}"  # Discover, UnionPay
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12,15}"  # JCB
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}"  # Diners Club
)


def is_iban(code: str) -> bool:
    """Whether a code without spaces is an IBAN of its country: its length, and the remainder 1."""
    if IBAN_LENGTH.get(code[:2]) != len(code):
        return False
    return int("".join(str(int(letter, 36)) for letter in code[4:] + code[:4])) % 97 == 1


def is_card(number: str) -> bool:
    """Whether digits are a payment card's: an issuer's prefix and length, and Luhn's check digit."""
    odd, even = number[-1::-2], number[-2::-2]
    total = sum(map(int, odd)) + sum(sum(divmod(2 * int(digit), 10)) for digit in even)
    return total % 10 == 0 and ISSUER.fullmatch(number) is not None


def find(text: str) -> list[Span]:
    """The personal data in a text, in order, none over another."""
    found = list(_ibans(text))
    if "@" in text:
        found += (Span("EMAIL", *match.span()) for match in EMAIL.finditer(text) if not RESERVED.search(match[0]))
    if DIGITS.search(text):
        found += (Span("CARD", *match.span()) for match in CARD.finditer(text) if is_card(GROUPS.sub("", match[0])))
        found += _phones(text)
    return merged(found)


def _ibans(text: str) -> Iterator[Span]:
    """An IBAN ends where its country's length is reached, whatever groups of letters follow."""
    for match in IBAN.finditer(text):
        left = IBAN_LENGTH.get(match[1][:2], 0)
        end = match.start()
        while left and end < match.end(1):
            left -= not GROUPS.match(text[end])
            end += 1
        joined = text[end : end + 1].isalnum()
        if not left and not joined and is_iban(GROUPS.sub("", text[match.start() : end])):
            yield Span("IBAN", match.start(), end)


def _phones(text: str) -> Iterator[Span]:
    for pattern in PHONES:
        for match in pattern.finditer(text):
            number = match[1]
            digits = number.strip("+").replace(".", "", 1)
            short = number[0] == "+" and digits.isdigit() and len(digits) < UNDIVIDED
            if not short and not DATE.fullmatch(number):
                yield Span("PHONE", *match.span(1))


def redact(text: str) -> str:
    """The text with `[KIND]` for each."""
    return redacted(text, find)


def personal_data(recipe: Recipe) -> SpanCheck:
    """The check `personal_data`."""
    cure = "take them out where nobody has agreed to their use: `pegbox check RECIPE --fix OUT --redact` writes [KIND] for each"
    return SpanCheck("personal_data", find, "personal data", cure)
