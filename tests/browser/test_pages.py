"""What a reader sees of a page: figures, texts, colours, filters, on a screen and on a telephone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from made_runs import HOSTILE
from opened import Opened

Open = Callable[..., Opened]
NAMES = ("run", "game", "comparison")

FIGURES = """[...document.querySelectorAll('figure svg')].filter(svg => svg.checkVisibility()).map(svg => ({
    name: svg.closest('figure').id,
    marks: [...svg.querySelectorAll('path, circle, rect, line.whisker')].filter(one => {
        const box = one.getBBox(); return box.width + box.height > 0; }).length,
    texts: [...svg.querySelectorAll('text')].filter(one => one.textContent.trim() && one.getBBox().width > 0).length,
    outside: [...svg.querySelectorAll('text')].filter(one => {
        const box = one.getBBox(), view = svg.viewBox.baseVal;
        return box.x < -1 || box.x + box.width > view.width + 1 || box.y < -1 || box.y + box.height > view.height + 1;
    }).map(one => one.textContent),
    title: svg.querySelector('title')?.textContent ?? '',
    about: svg.querySelector('desc')?.textContent ?? '',
}))"""

# contrast by WCAG 2 of each element's colour with what is painted behind it, as the browser computes both
CONTRASTS = """(query) => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = (colour) => { const [r, g, b] = colour.slice(0, 3).map((part) => { const share = part / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = (one) => { for (let at = one; at; at = at.parentElement) {
        const found = rgb(getComputedStyle(at).backgroundColor); if (found[3] === 255) return found; }
        return [255, 255, 255]; };
    return [...document.querySelectorAll(query)].filter(one => one.textContent.trim()).map(one => {
        const style = getComputedStyle(one);
        const ink = rgb(one instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [light(ink), light(behind(one))].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), one.textContent.slice(0, 40)]; });
}"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_figures_have_marks_and_text(opened: Open, name: str, width: int):
    figures = opened(name, width=width).ask(FIGURES)
    assert len(figures) >= 4 and len({figure["name"] for figure in figures}) == len(figures)
    for figure in figures:
        assert figure["marks"] >= 1 and figure["texts"] >= 4, figure
        assert figure["title"] and figure["about"], figure
        assert not figure["outside"], figure


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_is_wider_than_its_screen(opened: Open, name: str, width: int):
    found = opened(name, width=width)
    assert found.ask("document.scrollingElement.scrollWidth") == width
    outside = """[...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, pre, svg, .hidden')
        && one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.tagName + '.' + one.className)"""
    assert found.ask(outside) == []


def test_a_table_that_goes_on_says_so_until_its_end_is_seen(opened: Open):
    found = opened("comparison", width=390)
    frame = found.page.locator("#ranking .scroll")
    found.page.locator("#ranking .scroll.wider").wait_for()  # an observer sees it with the first frame that is drawn
    assert found.page.locator("#ranking .hint").is_visible()
    frame.evaluate("one => one.scrollTo({ left: one.scrollWidth, behavior: 'instant' })")
    found.page.locator("#ranking .scroll:not(.wider)").wait_for()
    found.page.locator("#ranking tbody th").first.scroll_into_view_if_needed()
    assert frame.evaluate("one => one.querySelector('tbody th').getBoundingClientRect().left >= 0")  # names stay
    heights = found.ask("[...document.querySelectorAll('#costs tbody tr')].map(one => one.offsetHeight)")
    assert max(heights) - min(heights) <= 1  # no cell of a column out of sight makes its row higher
    assert opened("comparison").page.locator("#ranking .hint").count() == 0


@pytest.mark.parametrize(("count", "rows"), [(2, [2]), (4, [4]), (5, [3, 2]), (6, [3, 3]), (9, [3, 3, 3])])
def test_no_answer_stands_alone_below_the_others(opened: Open, count: int, rows: list[int]):
    tops = """(count) => {
        const cards = Array.from({ length: count }, () => answerCard('a', 'text', 3, '', '', ''));
        document.querySelector('[data-viewer=answers]').replaceChildren(row(cards));
        return cards.map(one => one.getBoundingClientRect().top); }"""
    seen = opened("comparison").page.evaluate(tops, count)
    assert [seen.count(top) for top in sorted(set(seen))] == rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_light_and_dark(opened: Open, name: str, scheme: str):
    found = opened(name, scheme=scheme)
    background = found.ask("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(251, 251, 250)", "dark": "rgb(18, 22, 27)"}[scheme]
    texts = "h1, h2, h3, p, footer, dt, dd, td b, td small, th, .answer header span, .key, svg text, a, label"
    poor = [one for one in found.page.evaluate(CONTRASTS, texts) if one[0] < 4.5]
    assert poor == []


def test_the_button_turns_light_into_dark_and_back(opened: Open):
    found = opened("run", scheme="dark")
    seen = [found.ask("getComputedStyle(document.body).backgroundColor")]
    line = "getComputedStyle(document.querySelector('svg .line')).stroke"
    lines = [found.ask(line)]
    for _ in range(2):
        found.page.click("#theme")
        seen.append(found.ask("getComputedStyle(document.body).backgroundColor"))
        lines.append(found.ask(line))
    assert seen[0] == seen[2] == "rgb(18, 22, 27)" and seen[1] == "rgb(251, 251, 250)"
    assert lines[0] == lines[2] != lines[1]


@pytest.mark.parametrize("name", NAMES)
def test_what_models_say_is_text(opened: Open, name: str):
    found = opened(name)
    assert found.ask("window.hacked") is None
    assert found.ask("document.querySelectorAll('main img, main script:not([type])').length") == 0
    assert found.ask("document.querySelectorAll('.answer').length") > 0


def test_an_answer_stands_there_letter_by_letter(opened: Open):
    found = opened("run")
    for number, text in enumerate(HOSTILE):
        answers = found.page.locator("#answers .answer p")
        assert answers.nth(0).evaluate("one => one.textContent") == f"before {number} {text}"
        if number + 1 < len(HOSTILE):
            found.page.click("#answers [name=next]")
    assert found.page.is_disabled("#answers [name=next]")
    assert found.ask("window.hacked") is None


def test_a_script_that_gets_into_the_file_does_not_run(opened: Open, pages: dict[str, Path], tmp_path: Path):
    altered = tmp_path / "altered.html"
    text = pages["run"].read_text()
    attack = "<script>window.hacked = 3</script><img src='https://example.invalid/x.png' onerror='window.hacked = 4'>"
    altered.write_text(text.replace("<main>", f"<main>{attack}"))
    found = opened(altered)
    assert found.ask("window.hacked") is None
    assert found.ask("document.querySelectorAll('.answer').length") > 0  # our own script did
    found.wait_until(lambda: bool(found.blocked) and len(found.complaints) >= 2)  # told as it comes
    assert found.blocked == ["https://example.invalid/x.png"]
    assert len(found.complaints) >= 2 and all("Content Security Policy" in one for one in found.complaints)
    found.expected = found.complaints


def cards(found: Opened) -> int:
    return found.page.locator("#pairs .item").count()


def test_the_browser_of_pairs_filters_and_turns_pages(opened: Open):
    found = opened("game")
    told = found.page.locator("[data-count=pairs]")
    assert told.text_content() == "1 to 20 of 30 pairs" and cards(found) == 20
    found.page.click("#pairs [aria-label='next page']")
    assert told.text_content() == "21 to 30 of 30 pairs" and cards(found) == 10
    found.page.select_option("#pairs [name=round]", "2")
    assert told.text_content() == "1 to 10 of 10 pairs (of 30)"
    assert set(found.page.locator("#pairs .facts").all_text_contents()) >= {"round 2 · P(chosen beats rejected) 0.500"}
    found.page.select_option("#pairs [name=winner]", "longer answer")
    assert told.text_content() == "1 to 5 of 5 pairs (of 30)"
    found.page.fill("#pairs [name=search]", "PROMPT 3 of")
    assert told.text_content() == "1 to 1 of 1 pairs (of 30)"
    assert found.page.locator("#pairs .prompt mark").all_text_contents() == ["Prompt 3 of"]
    found.page.fill("#pairs [name=search]", "nobody says this")
    assert told.text_content() == "none of 30 pairs" and cards(found) == 0


def test_the_browser_of_pairs_filters_by_length_and_sorts(opened: Open):
    found = opened("game")
    found.page.fill("#pairs [name=least]", "8")
    assert cards(found) == 0
    found.page.fill("#pairs [name=least]", "7")
    assert cards(found) == 20
    found.page.select_option("#pairs [name=order]", "high")
    assert (found.page.locator("#pairs .facts").first.text_content() or "").endswith("0.950")
    found.page.select_option("#pairs [name=order]", "low")
    assert (found.page.locator("#pairs .facts").first.text_content() or "").endswith("0.500")
    assert found.page.locator("#pairs .answer.win header b").first.text_content() == "chosen"


def test_filters_that_would_do_nothing_are_not_there(opened: Open):
    found = opened("run")  # rows without rounds and without counted tokens
    for name, visible in (("round", False), ("least", False), ("search", True), ("order", True)):
        assert found.page.is_visible(f"#pairs [name={name}]") is visible, name


def test_answers_are_searched(opened: Open):
    found = opened("run")
    found.page.fill("#answers [name=search]", "needle2")
    assert found.page.locator("#answers [name=prompt] option").count() == 1
    assert found.page.locator("#answers mark").all_text_contents() == ["needle2"]
    found.page.fill("#answers [name=search]", "nobody says this")
    assert found.page.locator("#answers .item").count() == 0


def test_a_comparison_shows_judgements_of_the_chosen_prompt(opened: Open):
    found = opened("comparison")
    assert found.page.locator("#answers .answer").count() == 4
    found.page.click("#answers summary:has-text('Judgements')")
    assert found.page.locator("#answers details tbody tr").count() == 6
    cells = found.page.locator("#answers details tbody tr").first.locator("th, td").all_text_contents()
    assert cells[:2] == ["start", "dpo"] and float(cells[4]) == pytest.approx(
        (float(cells[2]) + float(cells[3])) / 2, abs=1e-3
    )
    before = found.page.locator("#answers .answer p").first.text_content()
    found.page.select_option("#answers [name=seed]", "1")
    assert found.page.locator("#answers .answer p").first.text_content() != before


def test_a_page_can_be_read_without_scripts(browser, pages: dict[str, Path]):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["game"].as_uri())
    assert page.locator("figure svg").count() >= 4 and page.locator("table.matrix td").count() == 20
    assert "needs JavaScript" in (page.locator("#pairs noscript").inner_text())
    context.close()
