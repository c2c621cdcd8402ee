"""Keys, tokens and passwords: planted ones are found, what looks like them is not, and none is ever shown whole."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.doctor.secrets import find, redact, secrets
from pegbox.data.doctor.spans import Span, masked, merged
from pegbox.data.records import Conversation, LabelledText, Message, Preference, PromptCompletion, Record
from pegbox.recipe import Recipe, load

ALPHANUMERIC = string.ascii_letters + string.digits
BASE64 = ALPHANUMERIC + "+/"
URLSAFE = ALPHANUMERIC + "-_"


def recipe() -> Recipe:
    return load({"model": "some/model", "task": "chat", "data": {"train": "rows.jsonl"}})


def drawn(draw: random.Random, alphabet: str, length: int) -> str:
    return "".join(draw.choices(alphabet, k=length))


def jwt(draw: random.Random) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).decode().rstrip("=")
    body = base64.urlsafe_b64encode(json.dumps({"sub": draw.randrange(10**9)}).encode()).decode().rstrip("=")
    return f"{head}.{body}.{drawn(draw, URLSAFE, 43)}"


def pem(draw: random.Random) -> str:
    lines = "\n".join(drawn(draw, BASE64, 64) for _ in range(12))
    return f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----"


PLANTED: dict[str, Callable[[random.Random], str]] = {
    "AWS_ACCESS_KEY": lambda draw: "AKIA" + drawn(draw, string.ascii_uppercase + "234567", 16),
    "GITHUB_TOKEN": lambda draw: draw.choice(["ghp_", "gho_", "ghu_", "ghs_", "ghr_"]) + drawn(draw, ALPHANUMERIC, 36),
    "GITLAB_TOKEN": lambda draw: "glpat-" + drawn(draw, URLSAFE, 20),
    "SLACK_TOKEN": lambda draw: f"xoxb-{drawn(draw, string.digits, 12)}-{drawn(draw, ALPHANUMERIC, 24)}",
    "SLACK_WEBHOOK": lambda draw: f"hooks.slack.com/services/T0AB12CD3/B0AB12CD3/{drawn(draw, ALPHANUMERIC, 24)}",
    "STRIPE_KEY": lambda draw: draw.choice(["sk_live_", "rk_test_"]) + drawn(draw, ALPHANUMERIC, 24),
    "GOOGLE_KEY": lambda draw: "AIza" + drawn(draw, URLSAFE, 35),
    "API_KEY": lambda draw: draw.choice(["sk-", "sk-proj-", "sk-ant-api03-"]) + drawn(draw, ALPHANUMERIC, 48),
    "HUGGINGFACE_TOKEN": lambda draw: "hf_" + drawn(draw, string.ascii_letters, 34),
    "AZURE_STORAGE_KEY": lambda draw: drawn(draw, BASE64, 86) + "==",
    "NPM_TOKEN": lambda draw: "npm_" + drawn(draw, ALPHANUMERIC, 36),
    "PYPI_TOKEN": lambda draw: "pypi-AgEIcHlwaS5vcmc" + drawn(draw, URLSAFE, 120),
    "JWT": jwt,
    "PRIVATE_KEY": pem,
    "URL_PASSWORD": lambda draw: drawn(draw, ALPHANUMERIC, 10),
    "PASSWORD": lambda draw: drawn(draw, ALPHANUMERIC + "!$&*?", draw.randrange(12, 40)),
}
AROUND = {
    "AZURE_STORAGE_KEY": ("AccountName=rows;AccountKey=", ";EndpointSuffix=core.windows.net"),
    "URL_PASSWORD": ("see postgres://anna:", "@db.firm.de:5432/rows"),
    "PASSWORD": ("I had set db_password = '", "' and it fails"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_secrets_are_found_whole(kind: str) -> None:
    draw = random.Random(kind)
    before, after = AROUND.get(kind, ("please use ", " for the upload, thanks"))
    hits = 0
    for _ in range(200):
        secret = PLANTED[kind](draw)
        hits += find(before + secret + after) == [Span(kind, len(before), len(before) + len(secret))]
    assert hits >= 190


@pytest.mark.parametrize(
    "text",
    [
        'API_KEY: "xK29fLq03ZbN81tY"',
        "export AWS_SECRET_ACCESS_KEY=kGx81/bQpLz0vT+wM2nR7cYd4hJ6sF9aU3eK5oI1",
        "{'client_secret': 'a8f5f167f44f4964e6c998dee827110c'}",
        "my password is Tr0ub4dor&3",
        "das Passwort: Xk29!fab",
    ],
)
def test_a_random_value_under_a_secrets_name_is_found(text: str) -> None:
    assert [span.kind for span in find(text)] == ["PASSWORD"]


@pytest.mark.parametrize(
    "text",
    [
        "the order 550e8400-e29b-41d4-a716-446655440000 came late",
        'token = "550e8400-e29b-41d4-a716-446655440000"',
        "fixed in 8f14e45fceea167a5a36dedd4bea2543dd2c1f3a, colour #a1b2c3, version 1.26.4-rc1, on 2024-07-18",
        "article XJ-4411-ZK, serial 004512367890123456789012345678901234567890",
        "![logo](data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==)",
        'password = "your-password-here1"',
        'password = "${DB_PASSWORD}"',
        "password: {{ password_1 }}",
        "token = tokenizer.encode2(text1)",
        'secret = os.environ["A1b2C3d4"]',
        'api_key = "/run/secrets/api_key_1"',
        'token_type = "accessTokenValue"',
        "http://user:password@host and http://user:pass@host",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "AKIAIOSFODNN7EXAMPLE",
        "div.sk-text-repr-fallback-and-estimator-container",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "eyJhbGciOnt9.eyJzdWIiOnt9fQ.notasignaturebutlongenough",
        "pk_live_4eC39HqLyjWDarjtT1zdp7dcAAAA",
    ],
)
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    assert find(text) == []


def test_a_key_of_which_the_end_is_cut_off_is_taken_out_as_far_as_it_goes() -> None:
    body = drawn(random.Random(1), BASE64, 300)
    assert redact(f"-----BEGIN PRIVATE KEY-----\n{body} (cut here)") == "[PRIVATE_KEY](cut here)"


def test_an_encrypted_key_is_taken_out_with_its_headers() -> None:
    key = pem(random.Random(2)).replace("KEY-----\n", "KEY-----\nDEK-Info: AES-128-CBC,3F17F5316E2BAC89\n\n", 1)
    assert redact(f"a {key} b") == "a [PRIVATE_KEY] b"


planted = st.builds(
    lambda kind, seed: (kind, PLANTED[kind](random.Random(seed))), st.sampled_from(list(PLANTED)), st.integers()
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20), planted.map(lambda pair: "".join([*AROUND.get(pair[0], ("", ""))[:1], pair[1]]))
        ),
        max_size=6,
    )
)
def test_redacting_leaves_nothing_and_is_idempotent(pieces: list[str]) -> None:
    text = "".join(pieces)
    spans = find(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    clean = redact(text)
    assert find(clean) == []
    assert redact(clean) == clean
    assert spans or clean == text


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9))))
def test_merged_spans_cover_what_their_parts_cover(pairs: list[tuple[int, int]]) -> None:
    spans = [Span("A", start, start + length) for start, length in pairs]
    covered = {i for span in spans for i in range(span.start, span.end)}
    found = merged(spans)
    assert {i for span in found for i in range(span.start, span.end)} == covered
    assert sum(span.end - span.start for span in found) == len(covered)


@given(st.text(min_size=1, max_size=80))
def test_a_preview_shows_two_characters_of_either_end_at_most_and_nothing_that_acts(text: str) -> None:
    shown = masked(text, Span("A", 0, len(text)))
    first, _, last = shown.partition("…")
    assert len(first) == len(last) <= 2
    assert 3 * (len(first) + len(last)) <= len(text)
    assert shown.isprintable()


def test_the_finding_counts_kinds_lists_rows_and_shows_no_secret() -> None:
    draw, check = random.Random(0), secrets(recipe())
    token, key = PLANTED["GITHUB_TOKEN"](draw), PLANTED["AWS_ACCESS_KEY"](draw)
    check.see(Record("r:1", PromptCompletion("hello", f"use {token}")))
    check.see(Record("r:2", PromptCompletion("hello", "use nothing")))
    check.see(Record("r:3", Conversation((Message("user", f"{key} and {token}"), Message("assistant", "ok", 1.0)))))
    (finding,) = check.findings()
    assert (finding.check, finding.severity, finding.rows) == ("secret", "warning", ("r:1", "r:3"))
    assert finding.message.startswith("2 rows hold")
    assert "2 GITHUB_TOKEN, 1 AWS_ACCESS_KEY" in finding.message
    assert f"{token[:2]}…{token[-2:]}" in finding.message
    written = json.dumps(finding.to_json()) + str(finding)
    assert token[2:-2] not in written and key[2:-2] not in written
    assert token[:3] not in written.replace("[KIND]", "")


def test_no_secret_no_finding() -> None:
    check = secrets(recipe())
    check.see(Record("r:1", PromptCompletion("hello", "there")))
    assert list(check.findings()) == []


def test_labels_pairs_and_both_answers_are_looked_at() -> None:
    token = PLANTED["GITHUB_TOKEN"](random.Random(3))
    rows = [
        LabelledText("a", token),
        LabelledText("a", "b", token),
        Preference(PromptCompletion("a", "b"), PromptCompletion("a", token)),
    ]
    check = secrets(recipe())
    for number, content in enumerate(rows):
        check.see(Record(f"r:{number}", content))
    (finding,) = check.findings()
    assert finding.rows == ("r:0", "r:1", "r:2")
    assert "3 GITHUB_TOKEN" in finding.message


def test_what_was_asked_counts_once_though_it_stands_in_both_answers_of_a_preference() -> None:
    check, token = secrets(recipe()), PLANTED["GITHUB_TOKEN"](random.Random(4))
    check.see(Record("r:1", Preference(PromptCompletion(token, "b"), PromptCompletion(token, "c"))))
    (finding,) = check.findings()
    assert "1 GITHUB_TOKEN" in finding.message
