"""The report as a browser shows it, at two widths, in both themes, on paper and without its script.

Asserted is what is seen. That each check can fail is shown at the end, on faults that are planted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hard_runs import HEBREW, HOSTILE, RUNS, UNBROKEN
from playwright.sync_api import Browser, Page, expect
from seen import browser, contrast_faults, heading_faults, layout_faults, picture_faults, visible_text

WIDE, PHONE, PAPER = {"width": 1280, "height": 800}, {"width": 390, "height": 844}, {"width": 718, "height": 1000}
SECTIONS = (
    "All systems on the same test rows",
    "Where tuned gained and lost",
    "The test rows, one by one",
    "Learning",
    "What the doctor found in the data",
    "What it cost",
    "How to use the model",
    "How to do it again",
)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: made(folder / name).path / "report.html" for name, made in RUNS.items()}


@pytest.fixture(scope="module")
def opened_browser() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def show(opened_browser: Browser, reports: dict[str, Path]) -> Iterator[Open]:
    """Opens the report of a run; whatever it asked of a network or complained of is a failure in the end."""
    contexts, complaints = [], []

    def open_page(
        name: str | Path = "chat", size: dict[str, int] = WIDE, *, planted: bool = False, **more: Any
    ) -> Page:
        context = opened_browser.new_context(viewport=size, **more)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        file = name if isinstance(name, Path) else reports[name]
        if not planted:
            page.on("request", lambda asked: complaints.append(asked.url) if asked.url != file.as_uri() else None)
            page.on("console", lambda said: complaints.append(said.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def rows_of(page: Page) -> list[dict[str, Any]]:
    """All rows as the page's script has them, with their texts."""
    data = json.loads(page.locator("#rows-data").text_content() or "")
    found: list[dict[str, Any]] = data["rows"]
    for row in found:
        row["texts"] = [
            data["texts"][at]
            for at in (row["input"], row["reference"], *(a for a, *_ in row["answers"]))
            if at is not None
        ]
    return found


def listed(page: Page) -> list[str]:
    """The ids of all rows that the explorer lists, page after page."""
    found = page.locator("#explorer article h3 span:last-child").all_text_contents()
    after = page.get_by_role("button", name="Next")
    while after.is_visible() and after.is_enabled():
        after.click()
        found += page.locator("#explorer article h3 span:last-child").all_text_contents()
    return found


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_cut_overlapping_outside_or_unlabelled(show: Open, name: str, size: dict[str, int]) -> None:
    page = show(name, size)
    assert layout_faults(page) == []
    assert picture_faults(page) == []
    assert heading_faults(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [name for name in RUNS if name not in ("not_shown", "vast", "masked")])  # like others
def test_every_word_can_be_read_in_both_themes(show: Open, name: str, theme: str) -> None:
    page = show(name, color_scheme=theme)
    assert contrast_faults(page) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (theme == "light")


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("chat", "Better: "),
        ("labels", "Better: "),
        ("worse", "Worse: "),
        ("not_shown", "Not shown, prompting is as good: "),
    ],
)
def test_the_verdict_is_seen_at_once(show: Open, name: str, verdict: str, size: dict[str, int]) -> None:
    page = show(name, size)
    head = page.get_by_role("heading", level=1)
    assert head.inner_text().startswith(verdict)
    box = head.bounding_box()
    assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size["height"] / 2


def test_the_page_has_its_landmarks_and_its_pictures_have_names(show: Open) -> None:
    page = show()
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1, landmark  # type: ignore[arg-type]
    links = page.get_by_role("navigation").get_by_role("link")
    for link in links.all():
        expect(page.locator(link.get_attribute("href") or "")).to_be_visible()
    assert links.count() == len(SECTIONS)
    assert page.get_by_role("img").count() == page.locator("svg").count() == 4
    assert page.get_by_role("heading", level=2).all_text_contents() == list(SECTIONS)


def test_a_search_shows_exactly_the_rows_that_hold_it_and_their_number(show: Open) -> None:
    page = show()
    rows, search = rows_of(page), page.get_by_role("searchbox", name="Search all inputs and answers")
    for asked in (
        "row 15",
        "NUMBER 7",
        HEBREW,
        "</script>",
        "instead of it",
        UNBROKEN[:300].lower(),
        "nowhere to be found",
    ):
        search.fill(asked)
        wanted = [row["id"] for row in rows if any(asked.lower() in text.lower() for text in row["texts"])]
        expect(page.get_by_role("status")).to_have_text(re.compile(rf"^{len(wanted)} of 160 rows"))
        assert listed(page) == wanted, asked
    search.fill("")
    assert len(listed(page)) == 160


def test_each_filter_shows_its_rows_and_says_how_many(show: Open) -> None:
    page = show()
    rows, choices = rows_of(page), page.get_by_role("radio").all()
    kinds = [choice.get_attribute("value") for choice in choices]
    assert kinds == ["changed", "all", "tuned better", "tuned worse", "equal", "wrong"]
    for kind, choice in zip(kinds, choices, strict=True):
        choice.check()
        wanted = {
            "all": [row["id"] for row in rows],
            "wrong": [row["id"] for row in rows if row["wrong"]],
            "changed": page.locator("#changed h4 span:last-child").all_text_contents(),
        }.get(kind or "", [row["id"] for row in rows if row["kind"] == kind])
        assert listed(page) == wanted
        label = page.locator(f"label:has(input[value='{kind}'])").inner_text()
        assert label.endswith(f" {len(wanted)}")
        expect(page.get_by_role("status")).to_have_text(re.compile(rf"^{len(wanted)} of 160 rows"))


def test_a_search_is_within_the_chosen_kind_and_leaves_the_shown_ones_for_all(show: Open) -> None:
    page = show()
    search = page.get_by_role("searchbox")
    expect(page.get_by_role("radio", name="changed most")).to_be_checked()
    search.fill("row 15")
    expect(page.get_by_role("radio", name="all")).to_be_checked()
    page.get_by_role("radio", name="tuned wrong").check()
    wanted = [row["id"] for row in rows_of(page) if row["wrong"] and any("row 15" in text for text in row["texts"])]
    assert listed(page) == wanted and 0 < len(wanted) < 11
    search.press("Enter")
    assert page.get_by_role("heading", level=1).is_visible()


def test_at_most_ten_rows_are_drawn_at_once_and_long_texts_open(show: Open) -> None:
    page = show(size=PHONE)
    page.get_by_role("radio", name="all").check()
    assert page.locator("#explorer article").count() == 10
    long = page.locator("#explorer details").first
    long.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(long.locator("div")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    box, row = long.locator("div").bounding_box(), long.locator("xpath=ancestor::article").bounding_box()
    assert box is not None and row is not None and box["x"] + box["width"] <= row["x"] + row["width"]


def test_hostile_text_is_shown_as_text_and_does_nothing(show: Open) -> None:
    page = show()
    page.get_by_role("searchbox").fill(HOSTILE)
    shown = page.locator("#explorer .text").all_inner_texts()
    assert any(HOSTILE in text for text in shown)
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0 and page.locator("script").count() == 2


def test_entities_are_marked_by_the_script_as_they_are_without_it(show: Open) -> None:
    drawn = show("tags").locator("#explorer mark").evaluate_all("(marks) => marks.map((mark) => mark.outerHTML)")
    plain = show("tags", java_script_enabled=False).locator("#changed mark")
    assert drawn and drawn == plain.evaluate_all("(marks) => marks.map((mark) => mark.outerHTML)")[: len(drawn)]
    hostile = show("tags").locator("#explorer mark small", has_text="window.hit")
    assert hostile.count() > 0


def test_a_confusion_matrix_of_many_labels_is_the_one_for_the_window_and_on_paper_the_whole(show: Open) -> None:
    for size, shown in ((WIDE, "broad"), (PHONE, "narrow"), (PAPER, "broad")):
        page = show("labels", size)
        page.emulate_media(media="print" if size is PAPER else "screen")
        seen = [name for name in ("broad", "narrow") if page.locator(f"figure.{name}").is_visible()]
        assert seen == [shown]
        assert layout_faults(page) == [] and picture_faults(page) == []
    page.locator("#labels details summary").first.click()
    expect(page.locator("#labels details dd").first).to_be_visible()


def test_commands_can_be_copied_with_the_keyboard(show: Open) -> None:
    page = show(permissions=["clipboard-read", "clipboard-write"])
    blocks, buttons = page.locator("pre").all_text_contents(), page.locator(".copy")
    assert buttons.all_text_contents() == ["Copy"] * len(blocks) == ["Copy"] * 6
    for number, block in enumerate(blocks):
        buttons.nth(number).focus()
        page.keyboard.press("Enter")
        expect(buttons.nth(number)).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == block
    expect(page.get_by_role("button", name="Copied")).to_have_count(0)


def test_what_has_the_focus_is_seen_to_have_it(show: Open) -> None:
    page = show()
    for reached in ("nav a", "form input[type=search]", ".pager button:enabled", ".copy"):
        target = page.locator(reached).first
        page.keyboard.press("Tab")  # the keyboard is in use: focus is shown
        target.focus()
        outline = target.evaluate("(element) => getComputedStyle(element).outlineWidth")
        assert outline == "3px", reached
    page.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("getComputedStyle(document.activeElement.nextElementSibling).outlineWidth") == "3px"


def test_on_paper_every_section_is_there_and_no_control(show: Open) -> None:
    page = show(size=PAPER, color_scheme="dark")
    page.emulate_media(media="print")
    assert [head for head in SECTIONS if not page.get_by_role("heading", name=head, exact=True).is_visible()] == []
    assert page.locator("#changed article").count() == 20
    assert all(card.is_visible() for card in page.locator("#changed article").all())
    for control in page.locator("button, input, nav").all():
        assert not control.is_visible()
    assert layout_faults(page) == [] and contrast_faults(page) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") > 5


def test_without_javascript_everything_but_the_controls_is_there(show: Open) -> None:
    scripted, page = visible_text(show()), show(java_script_enabled=False)
    assert [head for head in SECTIONS if not page.get_by_role("heading", name=head, exact=True).is_visible()] == []
    assert page.locator("#changed article:visible").count() == 20
    assert page.locator("button:visible, input:visible").count() == 0
    plain, after = visible_text(page), "All rows stand in"
    assert plain.split("Those that changed most")[0] == scripted.split("Show changed most")[0]
    assert plain.split(after)[1] == scripted.split(after)[1].replace(" Copy", "")


# --- the proof that each check finds what it is for ---


@pytest.mark.parametrize(
    ("check", "planted", "fault"),
    [
        (layout_faults, "<p style='width: 3000px'>wide</p>", "the page is"),
        (layout_faults, "<p style='margin-left: -9px'>left</p>", "outside the window"),
        (layout_faults, "<p style='width: 40px; overflow: hidden; white-space: nowrap'>much too long</p>", "clipped"),
        (layout_faults, "<div style='width: 40px; overflow: clip'><p style='white-space: nowrap'>much too long</p></div>", "runs out"),
        (picture_faults, "<svg viewBox='0 0 9 9'><text>a</text></svg>", "without a text"),
        (picture_faults, "<svg aria-label='x'><text y='20'>first</text><text y='22'>second</text></svg>", "first lies over second"),
        (picture_faults, "<svg aria-label='x'><text x='-50' y='20'>first</text></svg>", "outside its picture"),
        (contrast_faults, "<p style='color: #999'>pale</p>", "contrast 2.8"),
        (heading_faults, "<h4>deep</h4>", "h4 comes too early"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(
    show: Open, reports: dict[str, Path], tmp_path: Path, check: Callable[[Page], list[str]], planted: str, fault: str
) -> None:
    text = reports["worse"].read_text(encoding="utf-8")
    spoilt = tmp_path / "report.html"
    spoilt.write_text(text.replace("<footer>", f"{planted}<footer>"), encoding="utf-8")
    assert check(show("worse", PHONE)) == []
    assert any(fault in found for found in check(show(spoilt, PHONE)))


def test_a_script_that_came_in_all_the_same_would_not_run_and_an_image_not_load(
    show: Open, reports: dict[str, Path], tmp_path: Path
) -> None:
    text = reports["worse"].read_text(encoding="utf-8")
    spoilt, unguarded = tmp_path / "spoilt.html", tmp_path / "unguarded.html"
    attack = "<script>window.hit = 1</script><button onclick='window.hit = 2'>x</button>"
    spoilt.write_text(text.replace("<footer>", f"{attack}<footer>"), encoding="utf-8")
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    unguarded.write_text(policy.sub("", spoilt.read_text(encoding="utf-8")), encoding="utf-8")
    for file, hits in ((spoilt, (None, None)), (unguarded, (1, 2))):
        page = show(file, planted=True)
        assert page.evaluate("window.hit") == hits[0]
        page.get_by_role("button", name="x", exact=True).click()
        assert page.evaluate("window.hit") == hits[1]
