"""Random conversations in every family of chat models: what is trained begins with what is served, id by id.

For each answer of a conversation the ids that are served before it must be what the training ids begin with, and the
trained text must be the answer. Writes `results/prefixes.json`: how many conversations of each family were compared, and
why others were refused (by its template, which says so; a row that is refused is listed and never trained).
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import shlex
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "data"))

from families import FAMILIES, family_tokenizer  # noqa: E402

from pegbox.data.records import Conversation, Message, ToolCall  # noqa: E402
from pegbox.data.render import Renderer  # noqa: E402

RESULTS = HERE / "results" / "prefixes.json"
TOOL = json.dumps(
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
)
WORDS = (
    "hello",
    " world",
    "two  spaces",
    "naïve",
    "北京",
    "🙂",
    "é",
    "e\u0301",
    "\u2028",
    "\u00a0",
    "<|im_end|>",
    "</s>",
)
EDGES = ("", "", " ", "  ", "\n", "\n\n", "\n  ", "\t", " \n")


def random_text(rng: random.Random) -> str:
    """Words, pieces of Unicode, names of controls, and white space at either end."""
    inner = "".join(rng.choice(WORDS) + rng.choice(("", " ", "\n")) for _ in range(rng.randrange(5)))
    stray = "".join(
        chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0x2000)))) for _ in range(rng.randrange(3))
    )
    return rng.choice(EDGES) + inner + stray.replace("\u2581", "") + rng.choice(EDGES)


def random_conversation(rng: random.Random) -> Conversation:
    """One to three answers, weighed at random, with or without a system's message; one in ten calls a tool."""
    turns = [Message("system", random_text(rng))] if rng.random() < 0.3 else []
    tools = (TOOL,) if rng.random() < 0.1 else ()
    for _ in range(rng.choice((1, 1, 2, 3))):
        turns.append(Message("user", random_text(rng)))
        if tools and rng.random() < 0.5:
            call = ToolCall("look", json.dumps({"at": rng.choice(WORDS[:9])}, ensure_ascii=False), "abcdefghi")
            turns.append(Message("assistant", "", 1.0, tool_calls=(call,)))
            turns.append(Message("tool", rng.choice(WORDS[:9]).strip(), tool_call_id="abcdefghi"))
        turns.append(Message("assistant", random_text(rng), rng.choice((0.0, 1.0, 1.0, 0.5))))
    return Conversation(tuple(turns), tools)


def compare(renderer: Renderer, content: Conversation, strips: bool) -> int:
    """How many answers were compared. Raises AssertionError where one differs, ValueError for a row that is refused.

    `strips`: the template takes white space from the ends of answers.
    """
    tokens = renderer.conversation(content)
    compared = 0
    for index, message in enumerate(content.messages):
        if message.role != "assistant" or not message.weight:
            continue
        served = renderer.prompt(content.messages[:index], content.tools)
        assert tokens.input_ids[: len(served)] == served, "the training ids do not begin with what is served"
        rest = zip(tokens.input_ids[len(served) :], tokens.loss_weights[len(served) :], strict=True)
        said = [token for token, weight in _until_zero(list(rest))]
        assert said[-1] in renderer.stop_ids
        wanted = renderer.turn(content, index)
        reply = renderer.reply(said)
        if strips and not message.tool_calls:
            reply, wanted = reply.strip(), wanted.strip()
        assert reply == wanted, "the trained text is another"
        compared += 1
    return compared


def _until_zero(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    ends = [place for place, (_, weight) in enumerate(pairs) if weight == 0]
    return pairs[: ends[0]] if ends else pairs


def campaign(conversations: int, seed: int = 42) -> dict[str, dict[str, object]]:
    """By family: conversations that were compared, the answers in them, and the reasons of those refused."""
    found = {}
    for name, family in FAMILIES.items():
        rng, renderer = random.Random(f"{seed} {name}"), Renderer(family_tokenizer(name))
        compared = answers = 0
        refused: Counter[str] = Counter()
        while compared < conversations // len(FAMILIES):
            content = random_conversation(rng)
            try:
                if learnt := compare(renderer, content, family.strips):
                    answers, compared = answers + learnt, compared + 1
            except ValueError as error:
                refused[str(error).split(";")[0].split(": ")[0]] += 1
        found[name] = {"compared": compared, "answers": answers, "refused": dict(refused.most_common())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=10_000, help="compared, in all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    began = time.perf_counter()
    families = campaign(arguments.conversations)
    told = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/prefixes.py", *sys.argv[1:]]),
        "seconds": round(time.perf_counter() - began),
        "conversations": arguments.conversations,
        "compared": sum(int(str(one["compared"])) for one in families.values()),
        "differing": 0,  # the first that differs ends the campaign
        "families": families,
    }
    arguments.out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
