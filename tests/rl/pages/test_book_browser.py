"""The rollout book in a browser: hostile text stays text, filters and keys work, and only rows in view are elements."""

import pytest
from page_helpers import HOSTILE, make_tokenizer, png, scored_tokens

from rewards.types import Task, VerdictKind
from rl.pages.book import BookOptions, write_book
from rl.rollout_log import RolloutLog

pytestmark = pytest.mark.browser


@pytest.fixture
def page(open_page, book):
    return open_page(book)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1,000 questions of four samples each, with thinking."""
    folder = tmp_path_factory.mktemp("thousand")
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = (VerdictKind.CORRECT, VerdictKind.WRONG)

    def group(at):
        task = Task(
            id=f"t/{at}", source=f"s{at % 3}", question=f"Question {at}?", answer=str(at), images=(png(at % 99),)
        )
        text = f"◁think▷{at} it is◁/think▷{at}"
        return [
            scored_tokens(tokenizer, task, text, kinds[i % 2], 1.0 - i % 2, extracted=str(at + i), rule="line/string")
            for i in range(4)
        ]

    RolloutLog(folder).write(1, [group(at) for at in range(1000)], [], [])
    path = folder / "book.html"
    write_book(folder, path, title="thousand", tokenizers=[folder], options=BookOptions())
    return path


def shown_rows(page):
    return page.locator(".row .ask").all_text_contents()


def test_hostile_text_is_text_and_nothing_runs_or_loads(page):
    for at in range(9):
        page.locator(f".row[data-at='{at}']").click()
        page.wait_for_timeout(30)
        page.keyboard.press("v")
    assert page.problems == []
    assert page.locator("body script:not([type='text/plain'])").count() == 1
    page.locator(".row[data-at='1']").click()
    page.wait_for_selector(".words .text:has-text('onerror')")
    assert page.locator("#detail img, #detail svg, #detail script").count() == 0
    text = page.locator(".words .text").text_content()
    assert text.startswith("</script><script>alert(1)</script><!--")
    assert "U+202E" in text
    assert "\u202e" not in text
    assert "\u202e" not in page.locator("body").inner_text()
    assert page.title().startswith("</script>")


def test_markup_cannot_be_assigned_even_by_our_own_script(page):
    attempt = "() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; } catch (e) { return e.name; } }"
    assert page.evaluate(attempt) == "TypeError"


def test_the_policy_refuses_requests(page):
    assert page.evaluate("() => fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"
    assert any("Content Security Policy" in problem for problem in page.problems)
    assert not any(problem.startswith("request") for problem in page.problems)


def test_samples_stand_side_by_side_with_verdict_thinking_and_tokens(page):
    page.locator(".row[data-at='3']").click()
    page.wait_for_selector(".facts-line:has-text('step 2')")
    cards = page.locator(".sample")
    assert cards.count() == 2
    assert [card.get_attribute("data-verdict") for card in cards.all()] == ["correct", "wrong"]
    assert cards.nth(0).locator(".thought .response").text_content() == "◁think▷2 and 2◁/think▷"
    assert cards.nth(0).locator(".final").text_content() == "4<|stop|>"
    assert cards.nth(0).locator(".t.s5, .t.s4").count() > 0
    cards.nth(0).locator(".final .t").first.hover()
    assert "probability" in page.locator("#tip").text_content()
    assert "policy version 0" in page.locator("#tip").text_content()


def test_one_question_over_the_run(page):
    lines = page.locator(".history button")
    assert lines.all_text_contents() == ["step 1✗✗4   7", "step 2✓✗4   7", "step 3✓✗4   7"]
    lines.nth(2).click()
    page.wait_for_selector(".facts-line:has-text('step 3')")
    page.keyboard.press("[")
    page.wait_for_selector(".facts-line:has-text('step 2')")


def test_keys_fold_colour_and_move(page):
    page.keyboard.press("t")
    assert not page.locator(".thought").first.evaluate("e => e.open")
    page.keyboard.press("t")
    assert page.locator(".thought").first.evaluate("e => e.open")
    assert page.locator("#colour").input_value() == "surprise"
    page.keyboard.press("c")
    assert page.locator("#colour").input_value() == "version"
    assert page.locator(".t.v0").count() > 0
    page.keyboard.press("j")
    page.wait_for_selector(".row[data-at='1'][aria-selected='true']")
    page.keyboard.press("k")
    page.wait_for_selector(".row[data-at='0'][aria-selected='true']")
    page.keyboard.press("/")
    page.keyboard.type("jjj")
    assert page.locator("#query").input_value() == "jjj"


def test_only_rows_in_view_are_elements(thousand, open_page):
    page = open_page(thousand)
    assert page.locator(".row").count() < 40
    page.locator("#list").evaluate("e => { e.scrollTop = e.scrollHeight; }")
    page.wait_for_selector(".row[data-at='999']")
    assert page.locator(".row").count() < 40
    assert page.problems == []


@pytest.mark.parametrize(
    ("fill", "count"),
    [
        ({"#query": "Question 77?"}, "1 questions, 4 of 4,000"),
        ({"#query": "500"}, "4 questions, 7 of 4,000"),  # question 500, and answers 500 of 497, 498, 499
        ({"#reward-from": "0.5"}, "1,000 questions, 2,000 of 4,000"),
        ({"#tokens-to": "1"}, "0 questions, 0 of 4,000"),
    ],
)
def test_search_and_limits(thousand, open_page, fill, count):
    page = open_page(thousand)
    for place, value in fill.items():
        if page.locator(place).is_visible():
            page.fill(place, value)
    page.wait_for_function(f"() => document.getElementById('counts').textContent.startsWith('{count}')")


def test_verdict_source_and_single_rollouts(thousand, open_page):
    page = open_page(thousand)
    page.click("#verdicts button:has-text('wrong')")
    page.select_option("#source", "s1")
    page.select_option("#rows-are", "rollouts")
    page.wait_for_function("() => document.getElementById('counts').textContent.startsWith('666 rollouts, 666')")
    page.locator(".row[data-at='0']").click()
    page.wait_for_selector(".sample.chosen[data-verdict='wrong']")
    page.click("#reset")
    page.wait_for_function("() => document.getElementById('counts').textContent.startsWith('1,000 questions')")


def test_the_text_of_responses_is_searched_on_request(thousand, open_page):
    page = open_page(thousand)
    page.fill("#query", "321 it is")
    page.wait_for_function("() => document.getElementById('counts').textContent.startsWith('0 questions')")
    page.check("#deep")
    page.wait_for_function("() => document.getElementById('counts').textContent.startsWith('1 questions, 4')")


def test_an_address_opens_a_sample(thousand, open_page):
    page = open_page(thousand, fragment="#step=1&group=500&sample=0")
    page.wait_for_selector(".words .text:has-text('Question 500?')")
    assert page.locator(".sample.chosen").count() == 1
    assert open_page(thousand, fragment="#step=x&group=<img>").problems == []


def test_a_phone_shows_the_list_or_a_question(thousand, open_page):
    page = open_page(thousand, width=390, height=800)
    assert not page.locator("#detail").is_visible()
    page.locator(".row[data-at='2']").click()
    page.wait_for_selector(".sample")
    assert not page.locator("#side").is_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    for place in ("#help", ".tools button", ".facts-line", ".legend"):
        assert page.locator(place).first.evaluate("e => e.getBoundingClientRect().right") <= 390
    page.go_back()
    page.wait_for_selector("#side", state="visible")
    page.click("#more")
    assert page.locator("#source").is_visible()


def test_dark_and_light(book, open_page):
    backgrounds = [
        open_page(book, dark=dark).evaluate("() => getComputedStyle(document.body).backgroundColor")
        for dark in (False, True)
    ]
    assert backgrounds == ["rgb(251, 250, 248)", "rgb(20, 23, 27)"]
    page = open_page(book)
    page.click("#theme")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == backgrounds[1]


def test_a_response_without_end_waits_behind_a_button(tmp_path, open_page):
    tokenizer = make_tokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    task = Task(id="t", source="s", question="x" * 50_000, answer=HOSTILE)
    rows = [[scored_tokens(tokenizer, task, "y" * 30_000, VerdictKind.WRONG, 0.0, extracted="z" * 400)]]
    RolloutLog(tmp_path).write(1, rows, [], [])
    write_book(tmp_path, tmp_path / "b.html", title="long", tokenizers=[tmp_path], options=BookOptions())
    page = open_page(tmp_path / "b.html", width=390, height=800, fragment="#step=1&group=0")
    page.wait_for_selector("button:has-text('27,001 more tokens')")
    assert page.locator(".t").count() == 3000
    click = "b => { const s = performance.now(); b.click(); return performance.now() - s; }"
    assert page.locator("button:has-text('27,001 more tokens')").evaluate(click) < 2500  # ms; 6,000 one by one
    page.click("button:has-text('7,001 more tokens')")
    assert page.locator(".t").count() == 30_001
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert page.problems == []


def test_damaged_data_are_said_to_be(book, open_page, tmp_path):
    text = book.read_text(encoding="utf-8")
    start = text.index('id="index">') + 30
    (tmp_path / "cut.html").write_text(f"{text[:start]}AAAA{text[start + 4 :]}", encoding="utf-8")
    page = open_page(tmp_path / "cut.html")
    assert "damaged" in page.locator("#note").text_content()
