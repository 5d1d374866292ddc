"""A rollout log that is as hostile as a model can make it, a tokenizer for it, and pages of it in a browser."""

import pytest
from page_helpers import HOSTILE, make_tokenizer, png, scored_tokens

from rewards.types import Task, VerdictKind
from rl.pages.book import BookOptions, write_book
from rl.rollout_log import RolloutLog


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def log(tmp_path, tokenizer):
    """Three steps of three groups: an ordinary question, a hostile one, and one whose verifier failed."""
    folder = tmp_path / "rollouts"
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    writer = RolloutLog(folder)
    sums = Task(id="sums/1", source="sums", question="2+2?", answer="4", images=(png(3),))
    evil = Task(
        id=HOSTILE,
        source=HOSTILE,
        question=HOSTILE,
        answer=HOSTILE,
        choices=(HOSTILE, "b"),
        images=(b"<svg onload=x>",),
    )
    broken = Task(id="t/3", source="sums", question="3+3?", answer="", images=(png(3), png(9)))
    for step in (1, 2, 3):
        right = f"◁think▷2 and 2◁/think▷{4 if step > 1 else 5}"
        kind = VerdictKind.CORRECT if step > 1 else VerdictKind.WRONG
        scored = [
            [
                scored_tokens(tokenizer, sums, right, kind, float(step > 1), extracted="4", rule="line/exact-rational"),
                scored_tokens(tokenizer, sums, "7", VerdictKind.WRONG, 0.0, extracted="7", rule="line/exact-rational"),
            ],
            [scored_tokens(tokenizer, evil, HOSTILE, VerdictKind.NO_ANSWER, 0.0, extracted=HOSTILE, rule=HOSTILE)],
            [scored_tokens(tokenizer, broken, "6", VerdictKind.TIMEOUT, None, detail=HOSTILE)],
        ]
        writer.write(step, scored, [], [])
    return folder


@pytest.fixture
def book(log, tmp_path):
    """The page of that log."""
    path = tmp_path / "book.html"
    write_book(log, path, title=HOSTILE, tokenizers=[tmp_path], options=BookOptions())
    return path


@pytest.fixture
def open_page(chromium):
    """Opens a file at a width; the page's `problems` collects errors, dialogs and requests to anywhere."""
    contexts = []

    def opened(path, *, width=1280, height=800, fragment="", dark=False):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda line: page.problems.append(line.text))
        page.on("dialog", lambda dialog: (page.problems.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: _note(page, request.url, path))
        page.goto(f"{path.as_uri()}{fragment}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()


def _note(page, url, path):
    if not url.startswith(("data:", path.as_uri())):
        page.problems.append(f"request to {url}")
