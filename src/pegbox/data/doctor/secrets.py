"""Keys, tokens and passwords that stand in rows: a model repeats what it has learnt.

A table of the forms that providers document (the source stands beside each), and one rule for what has no form: a value
that is assigned to a name such as `password` and changes between lower case, upper case, digits and signs as no word or
identifier does. Placeholders (`your-key-here`, `xxxxx`, `${TOKEN}`) and UUIDs are none. detect-secrets knows more
providers and reads 800 short rows in the second; this table reads a hundred times as many.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from pegbox.data.doctor.spans import Span, SpanCheck, merged, redacted
from pegbox.recipe import Recipe

CHANGES = 3, 0.2  # the fewest changes of character class in a random value, and their share of its pairs of characters
DISTINCT = 6  # characters
PLACEHOLDER = re.compile(
    r"(?i)example|placeholder|your|change.?me|dummy|redacted|(.)\1{4}|\.\.\.|\{\w*\}|%\(\w+\)|"
    r"^(?:\[.*\]|<.*>|\$\(.*\)|\$\w+|%\w+%?|pass(?:word|wd)?\d*|pwd|pw|secret|token|\*+)$"
)
UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SEPARATORS = re.compile(r"[-_./:\\ ]")
WORDS = re.compile(r"(?:[A-Z]?[a-z]{2,}+|[A-Z]{2,}+)*+[0-9]*")  # an identifier: camelCase, UPPER, a number at its end


def is_real(value: str) -> bool:
    """Whether a value is no placeholder."""
    return PLACEHOLDER.search(value) is None


def random(value: str) -> bool:
    """Whether a value looks drawn by chance, not like words, a path or a version."""
    if not is_real(value) or UUID.fullmatch(value) or len(set(value)) < DISTINCT:
        return False
    parts = SEPARATORS.split(value)
    if all(WORDS.fullmatch(part) for part in parts):
        return False
    changes = sum(_class(one) != _class(other) for part in parts for one, other in pairwise(part))
    return changes >= max(CHANGES[0], CHANGES[1] * sum(max(len(part) - 1, 0) for part in parts))


def _class(letter: str) -> int:
    return 1 if letter.islower() else 2 if letter.isupper() else 3 if letter.isdigit() else 4


def _is_jwt(token: str) -> bool:
    """Whether the first part is a JOSE header, a JSON object that names an algorithm (RFC 7515, section 4.1.1)."""
    head = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        return False
    return isinstance(header, dict) and "alg" in header


class Form(NamedTuple):
    """A kind of secret: the literals of which one must be there, its pattern (a group is the secret), a last test."""

    kind: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]
    holds: Callable[[str], object] = is_real


def _form(kind: str, literals: str, pattern: str, holds: Callable[[str], object] = is_real) -> Form:
    """A form whose secret stands alone, not within a longer run of the same characters."""
    return Form(kind, tuple(literals.split()), re.compile(rf"(?<![\w-])({pattern})(?![\w-])", re.ASCII), holds)


PEM = r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"  # RFC 7468, and PGP's armour, RFC 9580
ASSIGNED = r"""(?ix)
    (?: passwor[dt] | passwd | passphrase | \bpwd | secret | token | credential
      | (?: api | access | secret | auth | private | account | signing | encryption ) [ _-]? key ) s?
    ["'\]]{0,2} [ \t]{0,4} (?: => | :=? | ==? | \b(?:is|was)\b ) [ \t]{0,4} [furb]?
    (?: "([^\s"]{8,256})" | '([^\s']{8,256})' | ([^\s"'`,;<>()\[\]{}]{8,256}+) (?![(\[{]) )"""

FORMS = (
    # IAM identifiers, "unique ID prefixes": AKIA long-term, ASIA temporary
    _form("AWS_ACCESS_KEY", "AKIA ASIA", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    # GitHub, "authentication token formats" (2021): the prefixes; 36 characters or more
    _form("GITHUB_TOKEN", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _form("GITHUB_TOKEN", "github_pat_", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    # GitLab, "token overview": token prefixes; routable tokens have dots
    _form("GITLAB_TOKEN", "gl", r"gl(?:pat|oas|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct)-[\w-]{20,}(?:\.[\w-]+)*"),
    # Slack, "token types"; "incoming webhooks", whose address is the secret
    _form("SLACK_TOKEN", "xox xapp-", r"(?:xox[abeoprs]|xapp)(?:\.xox[bp])?-[A-Za-z0-9]+-[A-Za-z0-9-]{8,}"),
    _form("SLACK_WEBHOOK", "hooks.slack", r"hooks\.slack(?:-gov)?\.com/services/T\w{6,}/B\w{6,}/\w{20,}"),
    # Stripe, "API keys" (publishable keys, pk_, are no secret); "webhook signatures"
    _form("STRIPE_KEY", "sk_ rk_", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    _form("STRIPE_KEY", "whsec_", r"whsec_[A-Za-z0-9+/=]{32,}"),
    # Google Cloud, "API keys" (39 characters); "OAuth client secrets"; access tokens
    _form("GOOGLE_KEY", "AIza", r"AIza[\w-]{35}"),
    _form("GOOGLE_KEY", "GOCSPX-", r"GOCSPX-[\w-]{28}"),
    _form("GOOGLE_KEY", "ya29.", r"ya29\.[\w-]{40,}"),
    # OpenAI (sk-, sk-proj-, sk-svcacct-, sk-admin-), Anthropic (sk-ant-) and those who took over the form
    _form("API_KEY", "sk-", r"sk-(?:[a-z0-9]{2,10}-){0,2}[\w-]{20,}", random),
    # Hugging Face, "user access tokens"
    _form("HUGGINGFACE_TOKEN", "hf_", r"hf_[A-Za-z0-9]{30,}"),
    # Azure Storage, "configure connection strings": 64 bytes in base64
    Form("AZURE_STORAGE_KEY", ("AccountKey=",), re.compile(r"AccountKey=([A-Za-z0-9+/]{86}==)")),
    # npm, "about access tokens" (2021); PyPI, "API tokens": macaroons that begin with the index's name
    _form("NPM_TOKEN", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _form("PYPI_TOKEN", "pypi-", r"pypi-[\w-]{64,}"),
    _form("JWT", "eyJ", r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}", _is_jwt),
    # up to its end; where the end is cut off, as far as the base64 goes
    Form(
        "PRIVATE_KEY",
        ("PRIVATE KEY",),
        re.compile(rf"({PEM}(?:[^-]|-(?!----)){{40,}}+-----END [A-Z0-9 ]{{0,60}}-----|{PEM}[\w+/=\s\\]{{40,}}+)"),
        re.compile(r"[A-Za-z0-9+/]{40}").search,
    ),
    # RFC 3986, section 3.2.1: user:password@host
    Form("URL_PASSWORD", ("://",), re.compile(r"""://[^\s/:@?#"'<>]{0,64}:([^\s/?#@"'<>]{3,128})@(?=[\w\[])""")),
)
PASSWORD = Form(
    "PASSWORD", ("passw", "passphrase", "pwd", "secret", "token", "credential", "key"), re.compile(ASSIGNED), random
)


def find(text: str) -> list[Span]:
    """The secrets in a text, in order, none over another."""
    lower = text.lower()
    here = [form for form in FORMS if any(literal in text for literal in form.literals)]
    if any(literal in lower for literal in PASSWORD.literals):
        here.append(PASSWORD)
    return merged(
        Span(form.kind, *match.span(match.lastindex or 0))
        for form in here
        for match in form.pattern.finditer(text)
        if form.holds(match[match.lastindex or 0])
    )


def redact(text: str) -> str:
    """The text with `[KIND]` for each secret."""
    return redacted(text, find)


def secrets(recipe: Recipe) -> SpanCheck:
    """The check `secret`."""
    cure = "withdraw them where they are still valid, and take them out: `pegbox check RECIPE --fix OUT --redact` writes [KIND] for each"
    return SpanCheck("secret", find, "keys or passwords", cure)
