"""A conversation as a person has it: on a terminal (a real one, through a pty), from a pipe, and in every mishap."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import pegbox
from pegbox.cli.chat import COMMANDS, talk
from pegbox.cli.conversation import printable
from pegbox.data.formats import to_record
from pegbox.data.sources import read_all
from pegbox.errors import DataError
from pegbox.finished import Run
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows
from tiny_masked import masked_folder

MAIN = "from pegbox.cli import main; main()"
OWNED = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "  # Ctrl-C reaches whom the terminal controls


@dataclass
class Heard:
    """What a conversation wrote, and what the model was given."""

    out: str = ""
    told: str = ""
    given: list[tuple[bool, Any]] = field(default_factory=list)


Converse = Callable[..., Heard]


@pytest.fixture
def converse(home: Path, monkeypatch: pytest.MonkeyPatch) -> Converse:
    """Type lines to a run whose models say `answers` (in pieces) in turn; an exception among them is raised."""

    def run(
        *typed: Any, answers: tuple[Any, ...] = (), width: int = 80, terminal: bool = False, **options: Any
    ) -> Heard:
        asked, left, heard, lines = Run(home / "run"), iter(answers), Heard(), iter(typed)
        vars(asked)["base"] = None

        def stream(given: Any, *, base: bool, **more: Any) -> Iterator[str]:
            heard.given.append((base, given))
            for piece in next(left, ("yes",)):
                if not isinstance(piece, str):
                    raise piece
                yield piece

        def ask() -> str:
            line = next(lines, EOFError())
            if not isinstance(line, str):
                raise line
            return line

        monkeypatch.setattr(asked, "stream", stream)
        for name, value in options.pop("run", {}).items():
            monkeypatch.setattr(asked, name, value)
        out, told = io.StringIO(), io.StringIO()
        consoles = (Console(file=out, width=width, force_terminal=terminal, color_system=None), Console(file=told))
        consoles[1].soft_wrap = True
        talk(asked, ask, *consoles, **options)
        heard.out, heard.told = out.getvalue(), told.getvalue()
        return heard

    return run


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# ---- turns -----------------------------------------------------------------------------------------------------------


def test_each_question_stands_behind_all_that_was_said(converse: Converse) -> None:
    heard = converse("one", " ", "two ", answers=(("a", "b"), ("c",)))
    assert heard.out == "ab\nc\n"
    assert heard.given == [
        (False, [user("one")]),
        (False, [user("one"), assistant("ab"), user("two")]),
    ]


def test_new_starts_over(converse: Converse) -> None:
    assert converse("one", "/new", "two").given[-1] == (False, [user("two")])


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(converse: Converse) -> None:
    heard = converse("one", "two", answers=(("half", KeyboardInterrupt(), "never"), ("c",)))
    assert heard.out == "half\nc\n"
    assert heard.given[-1] == (False, [user("one"), assistant("half"), user("two")])
    assert "stopped" in heard.told


def test_ctrl_c_before_the_first_word_takes_the_question_back(converse: Converse) -> None:
    heard = converse("one", "two", answers=((KeyboardInterrupt(),), ("c",)))
    assert heard.given[-1] == (False, [user("two")])
    assert "taken back" in heard.told


def test_ctrl_c_while_typing_leaves_nothing_and_ctrl_d_leaves(converse: Converse) -> None:
    heard = converse(KeyboardInterrupt(), "one", EOFError(), "never")
    assert heard.given == [(False, [user("one")])]
    assert "Ctrl-D" in heard.told


def test_an_empty_answer_is_an_answer(converse: Converse) -> None:
    assert converse("one", "two", answers=((), ("c",))).given[-1][1] == [user("one"), assistant(""), user("two")]


def test_a_question_that_is_refused_is_forgotten(converse: Converse) -> None:
    refused = DataError("the template refuses it", cure="say it otherwise")
    heard = converse("one", "two", "three", answers=(("a",), (refused,), ("c",)))
    assert "refuses it" in heard.told
    assert "cure: say it otherwise" in heard.told
    assert heard.given[-1][1] == [user("one"), assistant("a"), user("three")]


def test_an_answer_cannot_operate_the_terminal(converse: Converse) -> None:
    heard = converse("one", "/base", answers=(("\x1b[2Jred\x07\x9b", "\ta\nb"), ("\x1b]0;mine\x07",)))
    assert not set(heard.out) & {"\x1b", "\x07", "\x9b"}
    assert "red" in heard.out
    assert "\ta\nb" in heard.out
    assert printable("\ta\nb 北京 👩‍👧") == "\ta\nb 北京 👩‍👧"


# ---- a long conversation ---------------------------------------------------------------------------------------------


def counted(messages: Any) -> list[int]:
    """A stand-in for tokens: ten for each message."""
    return [0] * (10 * len(messages))


def test_the_oldest_turns_are_left_out_when_the_model_is_full_and_that_is_said(
    converse: Converse, tmp_path: Path
) -> None:
    room = {"run": {"prompt": counted, "limit": 55}, "max_new_tokens": 20}
    heard = converse("1", "2", "3", "4", f"/save {tmp_path / 'kept.jsonl'}", **room)
    assert [given for _, given in heard.given] == [
        [user("1")],
        [user("1"), assistant("yes"), user("2")],
        [user("2"), assistant("yes"), user("3")],
        [user("3"), assistant("yes"), user("4")],
    ]
    assert "55" in heard.told
    assert "2 oldest messages (2 in all)" in heard.told
    assert "2 oldest messages (4 in all)" in heard.told


def test_turns_are_not_lost_to_a_question_that_never_fits(converse: Converse) -> None:
    def long(messages: Any) -> list[int]:
        return [0] * (1000 if messages[-1]["content"] == "long" else 10)

    refused = DataError("too long", cure="be brief")
    room = {"run": {"prompt": long, "limit": 55}, "max_new_tokens": 20}
    heard = converse("1", "long", "2", answers=(("a",), (refused,), ("b",)), **room)
    assert heard.given[-1][1] == [user("1"), assistant("a"), user("2")]


# ---- commands --------------------------------------------------------------------------------------------------------


def test_base_answers_the_last_question_and_is_no_turn(converse: Converse) -> None:
    heard = converse("one", "/base", "two", answers=(("tuned words",), ("other", " words"), ("c",)))
    assert heard.given[1] == (True, [user("one")])
    assert heard.given[2] == (False, [user("one"), assistant("tuned words"), user("two")])
    assert heard.out == "tuned words\ntuned\ntuned words\nuntouched\nother words\nc\n"


def test_base_stands_beside_tuned_on_a_wide_terminal(converse: Converse) -> None:
    answers = (("tuned words",), ("other", " words"))
    wide = converse("one", "/base", answers=answers, width=120, terminal=True)
    assert re.search("tuned words.*other words", wide.out)
    assert max(map(len, wide.out.splitlines())) <= 120
    for plain in ({"width": 120}, {"width": 60, "terminal": True}):
        assert not re.search("tuned words.*other words", converse("one", "/base", answers=answers, **plain).out)


def test_base_before_a_question_asks_for_one(converse: Converse) -> None:
    heard = converse("/base")
    assert heard.given == []
    assert "ask something first" in heard.told


def test_a_system_message_is_set_shown_and_put_back(converse: Converse) -> None:
    heard = converse("/system", "/system Be brief.", "one", "/system", "/system -", "two")
    assert heard.given[0][1] == [{"role": "system", "content": "Be brief."}, user("one")]
    assert heard.given[1][1] == [user("one"), assistant("yes"), user("two")]
    assert heard.told.count("system message: Be brief.") == 2
    assert heard.told.count("there is no system message") == 2


def test_the_recipes_instruction_is_the_system_message(home: Path, converse: Converse) -> None:
    recipe = Run(home / "run").recipe
    instructed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"instruction": "Add."})})
    heard = converse("one", "/system Be brief.", "two", "/system -", "three", run={"recipe": instructed})
    told = [given[0]["content"] for _, given in heard.given]
    assert told == ["Add.", "Be brief.", "Add."]


def test_a_saved_conversation_is_a_row_to_train_on(converse: Converse, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = ("/system Be brief.", "one", "two", f"/save {file}", f"/save {file}", "/new", f"/save {file}2", "/save")
    heard = converse(*lines, answers=(("Größe\n\u2028",), ("c",)))
    (row,) = read_all([str(file)])
    content = to_record(row, "chat", {}).content
    assert [(m.role, m.content, m.weight) for m in content.messages] == [  # type: ignore[union-attr]
        ("system", "Be brief.", 0.0),
        ("user", "one", 0.0),
        ("assistant", "Größe\n\u2028", 1.0),
        ("user", "two", 0.0),
        ("assistant", "c", 1.0),
    ]
    for words in ("4 messages saved", "exists already", "nothing to save", "name of a file"):
        assert words in heard.told
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]


def test_saving_where_nothing_can_be_written_says_so(converse: Converse, tmp_path: Path) -> None:
    heard = converse("one", f"/save {tmp_path / 'no' / 'mine.jsonl'}", "two")
    assert "cannot be written" in heard.told
    assert len(heard.given) == 2


def test_an_unknown_command_is_no_question_and_the_nearest_is_named(converse: Converse) -> None:
    heard = converse("/bse", "/xyzzy", "/", "/quit now", "never")
    assert heard.given == []
    assert "no command /bse: did you mean /base?" in heard.told
    assert "no command /xyzzy; /help" in heard.told


def test_help_lists_every_command(converse: Converse) -> None:
    heard = converse("/help")
    for command in COMMANDS.values():
        assert command.usage in heard.told
        assert command.does in heard.told


# ---- other tasks -----------------------------------------------------------------------------------------------------


def trained(folder: Path, task: str, model: Path, rows: list[dict[str, Any]]) -> Run:
    file = write_rows(folder / "rows.jsonl", rows)
    return pegbox.train(
        chat_recipe(model, file, task=task, train={"max_steps": 2, "batch_size": 8}), run_dir=folder / "run"
    )


def said(run: Run, *typed: str) -> tuple[str, str]:
    lines, out, told = iter(typed), io.StringIO(), io.StringIO()

    def ask() -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    talk(run, ask, Console(file=out), Console(file=told, soft_wrap=True), max_new_tokens=5)
    return out.getvalue(), told.getvalue()


def test_a_completion_run_goes_on_from_the_text_as_it_was_typed(tmp_path: Path) -> None:
    run = trained(tmp_path, "completion", causal_folder(tmp_path / "model"), sums(60))
    out, told = said(run, "  3 and ", "/system a", "/save b", "/base")
    answer = printable(run.generate("  3 and ", max_new_tokens=5))
    untouched = printable("".join(run.stream("  3 and ", max_new_tokens=5, base=True)))
    assert out == f"{answer}\ntuned\n{answer}\nuntouched\n{untouched}\n"
    assert told.count("has no use in a run of task 'completion'") == 2


def test_a_classifier_names_the_likeliest_label_with_its_probability(tmp_path: Path) -> None:
    rows = [{"text": row["prompt"], "label": "abcd"[n % 4]} for n, row in enumerate(sums(60))]
    run = trained(tmp_path, "classification", encoder_folder(tmp_path / "model"), rows)
    out, told = said(run, "the dog sleeps", "/base", "word " * 100)
    shown = re.findall(r"(\w) (0\.\d{3})", out)
    assert shown[0][0] == run.predict([{"text": "the dog sleeps"}])[0]
    shares = [float(share) for _, share in shown]
    assert len(shown) == 3
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) < 1
    assert "/base has no use" in told
    assert re.search("the model takes .*64$", told, re.MULTILINE)


def test_a_run_of_several_labels_says_the_set_and_the_likeliest_of_all(tmp_path: Path) -> None:
    rows = [{"text": row["prompt"], "labels": ["a, b", "c", "d", "e"][: n % 5]} for n, row in enumerate(sums(60))]
    run = trained(tmp_path, "multilabel", encoder_folder(tmp_path / "model"), rows)
    out, _ = said(run, "the dog sleeps")
    (answer,) = run.predict([{"text": "the dog sleeps"}])
    shown = ", ".join('"a, b"' if label == "a, b" else label for label in answer) or "(none)"
    assert out.startswith(f"{shown}  ")
    assert len(re.findall(r" 0\.\d{3}", out)) == 3


def test_a_run_of_numbers_says_them_by_their_names(tmp_path: Path) -> None:
    rows = [{"text": row["prompt"], "score": [n, 1000 + n % 7]} for n, row in enumerate(sums(60))]
    run = trained(tmp_path, "regression", encoder_folder(tmp_path / "model"), rows)
    out, _ = said(run, "the dog sleeps")
    first, second = run.predict([{"text": "the dog sleeps"}])[0]
    assert out == f"score 1 {first:,.6g}, score 2 {second:,.6g}\n"


def test_a_tagger_parts_what_is_typed_into_words_and_says_each_entity(tmp_path: Path) -> None:
    names = ("Anna", "Otto")
    rows = [{"tokens": [names[n % 2], "sees", f"{n}"], "tags": ["B-\x1bPER", "O", "O"]} for n in range(60)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    train = {"num_train_epochs": 20, "batch_size": 8, "learning_rate": 1e-2}
    model = encoder_folder(tmp_path / "model")
    values = chat_recipe(model, file, task="token_classification", method={"kind": "full"}, train=train)
    run = pegbox.train(values, run_dir=tmp_path / "run")
    out, _ = said(run, "  Anna sees   3  ")
    assert out == "\N{REPLACEMENT CHARACTER}PER: Anna\n"
    assert said(run, "sees sees")[0] == "(none)\n"


def test_a_run_on_masked_tokens_says_how_likely_the_text_is(tmp_path: Path) -> None:
    run = trained(tmp_path, "masked_lm", masked_folder(tmp_path / "model"), [{"text": f"dog {n}"} for n in range(60)])
    out, _ = said(run, "the dog sleeps")
    (answer,) = run.predict([{"text": "the dog sleeps"}])
    assert out == f"{answer['nll']:,.1f} nats over {answer['tokens']} tokens\n"


# ---- a real terminal, a real pipe ------------------------------------------------------------------------------------


class Terminal:
    """`pegbox chat` on a pseudo-terminal, as a person sits before it."""

    def __init__(self, run: Path, *words: str, columns: int = 80, **environment: str) -> None:
        self.inside, outside = pty.openpty()
        variables = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40", **environment}
        variables = {**{k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}, **variables}
        streams = {"stdin": outside, "stdout": outside, "stderr": outside}
        command = [sys.executable, "-c", OWNED + MAIN, "chat", str(run), *words]
        self.process = subprocess.Popen(command, **streams, env=variables, start_new_session=True, close_fds=True)
        os.close(outside)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.inside, text.encode())

    def until(self, words: str, seconds: float = 90) -> str:
        """All that came on the screen up to these words, from where one looked last."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            if not self.more(max(0.0, end - time.monotonic())):
                raise AssertionError(f"never said {words!r}: {self.seen!r}")
        before, _, self.seen = self.seen.partition(words)
        return before

    def interrupt(self, words: str) -> None:
        """Ctrl-C, again where Python does not hear it: between its prompt and its waiting it takes no signal."""
        for _ in range(30):
            self.type("\x03")
            if self.more(3):
                break
        self.until(words)

    def more(self, seconds: float = 90) -> bool:
        """Wait for the next words on the screen; False where there came none."""
        ready, _, _ = select.select([self.inside], [], [], seconds)
        try:
            got = os.read(self.inside, 4096) if ready else b""
        except OSError:  # the other side is closed
            got = b""
        self.seen += got.decode(errors="replace")
        return bool(got)

    def close(self) -> int:
        code = self.process.wait(timeout=60)
        os.close(self.inside)
        return code


def test_a_conversation_on_a_terminal(home: Path, tmp_path: Path) -> None:
    run = Run(home / "run")
    answer = printable(run.generate("3 and 4", max_new_tokens=6)).strip()
    untouched = printable("".join(run.stream("3 and 4", max_new_tokens=6, base=True))).strip()
    terminal = Terminal(home / "run", "--max-new-tokens", "6")
    assert "loading" in terminal.until("> ")
    terminal.type("3 and 4\n")
    assert answer in terminal.until("> ").replace("\r\n", "\n")
    terminal.type("/base\n")
    shown = terminal.until("> ").replace("\r\n", "\n")
    assert "\x1b[1mtuned" in shown, "a heading is bold on a terminal"
    assert untouched in shown.partition("untouched")[2]
    terminal.type(f"/save {tmp_path / 'mine.jsonl'}\n")
    terminal.until("messages saved")
    terminal.until("> ")
    terminal.interrupt("Ctrl-D or /quit leaves")
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.close() == 0
    (saved,) = (json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines())
    assert saved["messages"][0] == user("3 and 4")
    assert printable(saved["messages"][1]["content"]).strip() == answer


def test_ctrl_c_on_a_terminal_stops_the_answer_only_and_without_colour_there_is_none(home: Path) -> None:
    terminal = Terminal(home / "run", "--max-new-tokens", "900", NO_COLOR="1")
    terminal.until("> ")
    terminal.type("3 and 4\n")
    terminal.until("3 and 4\r\n")
    terminal.more()  # the answer has begun
    terminal.type("\x03")
    assert "\x1b[3" not in terminal.until("(stopped")
    terminal.until("> ")
    terminal.type("/quit\n")
    assert terminal.close() == 0


def test_questions_from_a_pipe_give_answers_and_nothing_else(home: Path) -> None:
    typed = "3 and 4\n/nonsense\n5 and \udcff6".encode(
        errors="surrogateescape"
    )  # not UTF-8, and no line break at the end
    words = [sys.executable, "-c", MAIN, "chat", str(home / "run"), "--max-new-tokens", "6"]
    done = subprocess.run(words, input=typed, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    run = Run(home / "run")
    first = run.generate("3 and 4", max_new_tokens=6)
    asked = [user("3 and 4"), assistant(first), user("5 and �6")]
    second = run.generate(asked, max_new_tokens=6)
    assert done.stdout.decode() == f"{printable(first)}\n{printable(second)}\n"
    assert "no command /nonsense" in done.stderr.decode()
    assert b"\x1b" not in done.stdout + done.stderr
