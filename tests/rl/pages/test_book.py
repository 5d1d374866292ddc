"""The rollout book: what it holds, what it leaves out, and that nothing in it is more than text."""

import re

import pytest
from page_helpers import HOSTILE, STOP, ParsedPage, png, scored_tokens

from configs.errors import UserError
from configs.text import printable
from rewards.types import Task, VerdictKind
from rl.pages.book import BookOptions, write_book
from rl.pages.book_images import data_uri
from rl.pages.book_rows import BookRows, shown, token_numbers
from rl.pages.page import ASSETS, packed, policy, write_page
from rl.pages.token_pieces import TokenPieces
from rl.rollout_log import RolloutLog, read_step

SAFE = re.compile(r"[A-Za-z0-9+/=:;,]*")


def written(log, tmp_path, **options):
    path = tmp_path / "page.html"
    found = write_book(log, path, title="t", tokenizers=[tmp_path], options=BookOptions(**options))
    return found, ParsedPage(path)


def test_hostile_text_adds_no_element_and_no_attribute(book, log, tmp_path):
    _, harmless = written(log, tmp_path)
    page = ParsedPage(book)  # whose title is hostile too
    assert page.elements == harmless.elements
    assert page.comments == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert page.texts["h1#"] == f"{printable(HOSTILE)}: rollouts"


def test_what_models_wrote_is_in_data_elements_of_harmless_characters(book):
    page = ParsedPage(book)
    data = [attrs["id"] for attrs in page.of("script") if attrs.get("type") == "text/plain"]
    assert data == ["index", "chunk-0", "image-0", "image-1", "image-2"]
    assert all(SAFE.fullmatch(page.texts.get(f"script#{name}", "")) for name in data)
    assert len(page.of("script")) == len(data) + 1
    assert page.data("index")["groups"][1]["question"] == HOSTILE


def test_the_policy_allows_our_script_and_style_by_hash_and_nothing_else(book):
    page = ParsedPage(book)
    given = next(attrs["content"] for attrs in page.of("meta") if "http-equiv" in attrs)
    assert given == policy(page.texts["style#"], page.texts["script#"])
    assert given.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in given
    assert "require-trusted-types-for 'script'" in given
    assert not any("src" in attrs or "href" in attrs for _, attrs in page.elements)


def test_our_scripts_set_text_and_never_markup():
    scripts = list(ASSETS.glob("*.js"))
    assert scripts
    markup = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setAttribute\(.on")
    assert [path.name for path in scripts if markup.search(path.read_text(encoding="utf-8"))] == []


def test_an_asset_that_would_end_its_element_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.js").write_text("// </script>")
    monkeypatch.setattr("rl.pages.page.ASSETS", tmp_path)
    with pytest.raises(ValueError, match="may end its element"):
        write_page(tmp_path / "x.html", "book.html.jinja", {}, styles=[], scripts=["a.js"])


def test_every_rollout_with_its_numbers(log, tmp_path):
    found, page = written(log, tmp_path)
    assert (found.rollouts, found.groups, found.steps, found.images, found.left_out) == (12, 9, (1, 2, 3), 3, 0)
    index = page.data("index")
    assert index["note"] == ""
    assert [(g["step"], g["place"], g["start"], g["size"]) for g in index["groups"][:4]] == [
        (1, 0, 0, 2),
        (1, 1, 2, 1),
        (1, 2, 3, 1),
        (2, 0, 4, 2),
    ]
    rollouts = index["rollouts"]
    assert rollouts["verdict"][:5] == ["wrong", "wrong", "no_answer", "timeout", "correct"]
    assert rollouts["reward"][:5] == [0.0, 0.0, 0.0, None, 1.0]
    assert {len(column) for column in rollouts.values()} == {12}


def test_tokens_have_their_texts_numbers_and_versions(log, tmp_path):
    _, page = written(log, tmp_path)
    chunk = page.data("chunk-0")
    first = chunk["rollouts"][0]
    words = [chunk["words"][word] for word in first["tokens"]]
    assert words == ["◁think▷", *"2 and 2", "◁/think▷", "5", STOP]
    assert (first["answer"], first["cut"], first["thinks"], first["plain"]) == (9, 0, True, False)
    assert [chunk["words"][at] for at in chunk["special"]] == [STOP]
    assert first["surprise"][0] == 1
    assert first["surprise"][-1] == 300
    assert first["versions"] == [[0, len(words), 0]]


def test_ratios_and_token_advantages_are_there_where_the_log_has_them(tokenizer):
    row = _row(Task(id="t", source="s", question="?", answer="1"), "x", [1, 2])
    assert {"ratio", "advantages"} & token_numbers(row).keys() == set()
    row |= {"policy_logprobs": [-1.0, -2.0], "learner_logprobs": [-1.0, -1.5], "token_advantages": [0.25, float("nan")]}
    numbers = token_numbers(row)
    assert (numbers["ratio"], numbers["advantages"], numbers["surprise"]) == ([0, 500], [250, 0], [100, 200])


def test_a_thought_may_end_inside_a_token(tokenizer):
    task = Task(id="t", source="s", question="?", answer="1")
    rows = BookRows(TokenPieces(tokenizer))
    rollout = scored_tokens(tokenizer, task, "a</think>b", VerdictKind.WRONG, 0.0)
    ids = list(rollout.rollout.completion.token_ids)

    class Merged(TokenPieces):
        def split(self, token_ids, text):
            return ["a</thin", *[""] * (len(ids) - 3), "k>b", STOP]

    rows._pieces = Merged(tokenizer)
    rows.add_group([_row(task, "a</think>b", ids)])
    details = rows.chunks[0]["rollouts"][0]
    assert (details["answer"], details["cut"]) == (len(ids) - 2, 2)


def _row(task, text, ids):
    row = dict.fromkeys(
        (
            "learner_logprobs",
            "token_advantages",
            "images",
            "segments",
            "policy_logprobs",
            "trainable",
            "parts",
            "failures",
        ),
        None,
    )
    row |= {"step": 1, "group": 0, "sample": 0, "task": task.id, "source": task.source, "question": task.question}
    row |= {"answer": task.answer, "verifier": task.verifier, "choices": [], "difficulty": None, "text": text}
    row |= {"token_ids": ids, "verdict": "wrong", "rule": "line/values", "extracted": None, "detail": "", "reward": 0.0}
    return row | {"images": [], "shaped_reward": None, "advantage": None, "finish_reason": "stop"}


def test_invalid_utf8_is_shown_as_it_was_sampled(tokenizer):
    euro = tokenizer.encode("€", add_special_tokens=False).ids
    ids = [*euro, *euro[:2], tokenizer.token_to_id(STOP), *euro[:1]]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    pieces = TokenPieces(tokenizer).split(ids, text)
    assert pieces is not None
    assert pieces[:3] == ["", "", "€"]
    assert pieces[5] == STOP
    assert "\ufffd" in pieces[4]


def test_a_response_of_other_tokens_is_shown_without_colours(log, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    _, page = written(log, tmp_path)
    chunk = page.data("chunk-0")
    first = chunk["rollouts"][0]
    assert [chunk["words"][word] for word in first["tokens"]] == ["◁think▷2 and 2◁/think▷", "5"]
    assert first["plain"]
    assert page.data("index")["uncoloured"] == 12


def test_each_image_stands_in_the_page_once_and_is_an_image(log, tmp_path):
    _, page = written(log, tmp_path)
    texts = [page.texts.get(f"script#image-{at}", "") for at in range(3)]
    assert [text[:22] for text in texts] == ["data:image/png;base64,", "", "data:image/png;base64,"]
    groups = page.data("index")["groups"]
    assert [group["images"] for group in groups[:3]] == [[0], [1], [0, 2]]


def test_large_images_are_scaled_and_names_stay_in_their_folder(tmp_path):
    folder = tmp_path / "images" / "ab"
    folder.mkdir(parents=True)
    (folder / "ab1").write_bytes(png(1, (3000, 20)))
    (tmp_path / "secret").write_bytes(png(2))
    uri = data_uri(tmp_path, "ab1")
    assert uri is not None
    assert uri.startswith("data:image/webp;base64,")
    assert data_uri(tmp_path, "../../secret") is None
    assert data_uri(tmp_path, "ff0") is None


@pytest.mark.parametrize(
    ("options", "steps", "note"),
    [
        ({"steps": (3, 1)}, (1, 3), "2 of the 3 steps in the log: 1, 3. Others: thinkvl book RUN --step N."),
        ({"limit": 8}, (1, 3), "2 of the 3 steps in the log: 1, 3. Others: thinkvl book RUN --step N."),
        ({"limit": 4}, (3,), "1 of the 3 steps in the log: 3. Others: thinkvl book RUN --step N."),
        (
            {"limit": 2},
            (3,),
            "2 more rollouts of these steps are left out; --limit sets how many a book holds.",
        ),
        ({"task": "sums/1"}, (1, 2, 3), "Only the task sums/1."),
    ],
)
def test_what_is_left_out_is_said(log, tmp_path, options, steps, note):
    found, page = written(log, tmp_path, **options)
    assert found.steps == steps
    assert page.data("index")["note"] == note


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"steps": (4,)}, "--step 4: the log has no such step; it has 3, from 1 to 3"),
        ({"task": "nobody"}, "holds no rollout of the task 'nobody'"),
    ],
)
def test_steps_and_tasks_that_are_not_there_are_named(log, tmp_path, options, why):
    with pytest.raises(UserError, match=re.escape(why)):
        written(log, tmp_path, **options)
    assert not (tmp_path / "page.html").exists()


def test_a_damaged_file_is_named(log, tmp_path):
    (log / "step-000002.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"step-000002\.parquet: is damaged"):
        written(log, tmp_path)


def test_long_texts_are_cut_and_secrets_hidden():
    text = shown("x" * 10 + "y" * 100, 20)
    assert text == "xxxxxxxxxx\n... 90 characters left out ...\nyyyyyyyyyy"
    assert shown("see https://me:pass@host/", 100) == "see https://***@host/"


def test_numbers_that_json_does_not_have_are_left_out(tokenizer):
    rows = BookRows(None)
    row = _row(Task(id="t", source="s", question="?", answer="1"), "x", [1, 2])
    row |= {"reward": float("nan"), "advantage": float("inf"), "difficulty": float("nan")}
    rows.add_group([row])
    assert (rows.columns["reward"], rows.columns["advantage"], rows.groups[0]["difficulty"]) == ([None], [None], None)
    packed([rows.columns, rows.groups, rows.chunks])


def test_many_tokens_are_cut_into_chunks(tokenizer, monkeypatch):
    monkeypatch.setattr("rl.pages.book_rows.CHUNK_TOKENS", 5)
    rows = BookRows(None)
    for place in range(4):
        rows.add_group([_row(Task(id=str(place), source="s", question="?", answer="1"), "x", [1, 2, 3])])
    assert [(group["chunk"], group["at"]) for group in rows.groups] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [len(chunk["rollouts"]) for chunk in rows.chunks] == [2, 2]


def test_a_log_without_rollouts_is_not_a_book(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no rollouts"):
        written(tmp_path, tmp_path)


def test_one_step_is_read_alone(log):
    assert {row["step"] for row in read_step(RolloutLog(log).path(2))} == {2}
