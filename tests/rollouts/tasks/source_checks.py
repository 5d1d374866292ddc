"""What every built-in source promises: the same example wherever it is made, valid images, answers that verify."""

from collections.abc import Iterable

from rewards.images import decode_image
from rewards.scorer import Scorer
from rewards.types import Task, VerdictKind
from rollouts.tasks.documents import Document


def check_source(make, count=40, seed=3):
    """Make `count` examples spread over the source twice, and check them. Returns them."""
    one, other = make(), make()
    indices = spread(one, count)
    examples = [one.task(index, seed) for index in indices]
    assert examples == [other.task(index, seed) for index in reversed(indices)][::-1]
    assert {example.source for example in examples} == {one.name}
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        for image in example.images:
            decode_image(image)
    check_answers(example for example in examples if isinstance(example, Task))
    check_documents(example for example in examples if isinstance(example, Document))
    return examples


def check_answers(tasks: Iterable[Task]):
    """Each reference is right by its own verifier, alone and in a box; a multiple choice lists its options."""
    with_answers = list(tasks)
    if not with_answers:
        return
    pairs = [(form.format(task.answer), task) for task in with_answers for form in ("{}", r"\boxed{{{}}}")]
    with Scorer(()) as scorer:
        scores = scorer.score([response for response, _ in pairs], [task for _, task in pairs])
    for (response, task), score in zip(pairs, scores, strict=True):
        assert score.verdict.kind is VerdictKind.CORRECT, (task.question, response, score)
    for task in with_answers:
        if task.choices:
            assert 0 <= ord(task.answer) - ord("A") < len(task.choices) == len(set(task.choices))
            assert all(f"\n{'ABCDEFGH'[at]}. {text}" in task.question for at, text in enumerate(task.choices))


def check_documents(documents: Iterable[Document]):
    """Texts are neither empty nor hold control tokens."""
    for document in documents:
        assert document.text.strip()
        assert "<|" not in document.text


def spread(source, count):
    """Row numbers: the first `count` of an endless source, else evenly over all of it."""
    size = min(count, len(source))
    return list(range(size)) if source.endless else [at * len(source) // size for at in range(size)]
