"""Pages fit in 120 columns, and code and pages use the terms of the field."""

import ast
import itertools
import re
from collections import defaultdict

COLUMNS = 120
# Words that this project once had for a term of the field, such as `inbox` for the request queue.
PRIVATE = (
    *("anew", "asked", "companions", "crew", "imitated", "inbox", "learnt", "nursery", "pulse", "shelf", "shelves"),
    *("tally", "taught", "whole_answer"),
)
COUNTED = (
    *("answer", "card", "check", "document", "example", "file", "finding", "group", "image", "line", "node", "pair"),
    *("problem", "prompt", "question", "rank", "response", "rollout", "row", "run", "sample", "solution", "source"),
    *("stage", "task", "token", "value", "verdict", "verification", "warning", "worker"),
)
PLURAL = re.compile(rf"^ (?:[a-z]+ )?({'|'.join(COUNTED)})s\b")
COUNT = re.compile(r"len\(.*\)|(.*\.)?(count|total|tasks|tried|nodes|workers)")  # bounds and means are not 1
WORD = re.compile(rf"\b({'|'.join(PRIVATE)})\b", re.IGNORECASE)


def test_lines_of_pages_fit(tracked, root):
    long = [
        f"{path}:{number}: {len(line)} columns"
        for path in sorted(tracked)
        if path.suffix == ".md" and path.name != "CHANGELOG.md"
        for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > COLUMNS and not line.startswith("#")  # Markdown has no headings of two lines
    ]
    assert not long, "\n".join(long)


def test_private_words_are_gone(modules, tracked, root):
    pages = [root / path for path in tracked if path.suffix == ".md"]
    found = [
        f"{path.relative_to(root)}:{number}: {match[0]}"
        for path in sorted([*(module.path for module in modules.values()), *pages])
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in WORD.finditer(line)
    ]
    assert not found, "\n".join(found)


def test_no_two_classes_share_a_name(modules):
    """A protocol and the class of the model that fits it are one thing: `kimi_vl` imports nothing of ours."""
    places = defaultdict(list)
    for name, module in modules.items():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and "Protocol" not in [ast.unparse(base) for base in node.bases]:
                places[node.name].append(name)
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_what_is_counted_may_be_one(modules):
    """`1 tasks` is wrong: what users see counts with `configs.text.counted`; a ValueError is a mistake of ours."""
    found = [
        f"{name}:{number.lineno}: {ast.unparse(number)}{text.value}"
        for name, module in modules.items()
        for node in _shown_texts(module.tree)
        for number, text in itertools.pairwise(node.values)
        if isinstance(number, ast.FormattedValue) and isinstance(text, ast.Constant) and PLURAL.match(text.value)
        if number.format_spec is None and COUNT.fullmatch(ast.unparse(number.value))
    ]
    assert not found, "\n".join(found)


def _shown_texts(tree):
    """The f-strings that are not within `raise ValueError(...)`."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.JoinedStr):
            yield node
        elif not (isinstance(node, ast.Raise) and ast.unparse(node).startswith("raise ValueError(")):
            todo.extend(ast.iter_child_nodes(node))
