"""Long documents: their lengths, what is hidden in them and repeated at their end, and the two splits."""

import re

import pytest

from configs.prompt import IMAGE_MARK
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.long_documents import IMAGE_LINE, LongDocuments

FACT = re.compile(r"The password of (\w+) is (\w+)\.")


def documents(count=40, split="train", **options):
    source = LongDocuments(split, **options)
    return [source.task(index, 0) for index in range(count)]


def test_every_fact_stands_once_in_the_text_and_once_at_its_end():
    for document in documents(facts=3, image_share=1.0):
        text, end = document.text.split("\n")
        hidden, again = FACT.findall(text), FACT.findall(end)
        assert len(hidden) == 3
        assert sorted(hidden) == sorted(again)
        assert text.count(IMAGE_LINE) == 1
        assert re.search(r"The number in the image is \d\d\.", end)
        assert len(document.images) == 1


def test_lengths_are_in_range_and_short_of_it_by_less_than_a_sentence():
    for low, high in ((300, 300), (1000, 4000)):
        sizes = [len(d.text.replace(IMAGE_MARK, "")) for d in documents(facts=1, length=[low, high])]
        assert all(low - 100 < size <= high for size in sizes)
    assert max(sizes) - min(sizes) > 1500


def test_facts_stand_anywhere():
    places = [d.text.index("The password of") / len(d.text) for d in documents(facts=1, length=[2000, 2000])]
    assert min(places) < 0.1
    assert max(places) > 0.8


def test_no_pair_of_a_name_and_a_password_is_in_both_splits():
    train = {pair for d in documents(200) for pair in FACT.findall(d.text)}
    held_out = {pair for d in documents(200, "held_out") for pair in FACT.findall(d.text)}
    assert len(train) > 400
    assert not train & held_out


def test_a_document_depends_on_seed_and_index_alone_and_a_share_has_an_image():
    assert documents() == documents()
    shares = {share: sum(len(d.images) for d in documents(200, image_share=share)) for share in (0, 0.25, 1)}
    assert shares[0] == 0
    assert 30 < shares[0.25] < 70
    assert shares[1] == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": [100, 300]}, r"length = \[100, 300\]: must be the shortest and the longest document"),
        ({"length": 900}, "length = 900: must be"),
        ({"length": [900, 800]}, "must be the shortest and the longest"),
        ({"facts": 0}, "facts = 0: must be a whole number from 1 to 20"),
        ({"image_share": 2}, "image_share = 2: must be a number between 0 and 1"),
        ({"filler": "sentence"}, "filler = 'sentence': must be sentences or wikipedia_leads"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(DataSetError, match=message):
        LongDocuments(**options)
