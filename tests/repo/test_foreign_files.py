"""Files that others may have written are read in one place each, which is careful."""

import ast
from pathlib import Path

PLACES = {
    "pickle": {"rl.safe_load"},
    "cloudpickle": set(),
    "torch.load": {"rl.safe_load"},
    "Image.open": {"rewards.images"},
}


def names_used(tree):
    """Modules that are imported, and dotted names that are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_what_can_be_dangerous_is_called_in_one_place(modules):
    wrong = [
        f"{module.where(node)}: {name} belongs into {PLACES[name] or 'no module'}"
        for module in modules.values()
        for name, node in names_used(module.tree)
        if name in PLACES and module.name not in PLACES[name]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_pickle_is_trusted(root, tracked):
    """Neither torch nor numpy is asked to run what is in a file, in tests and benchmarks too."""
    words = ("weights_only=" + "False", "allow_pickle=" + "True")
    texts = {path: (Path(root) / path).read_text(encoding="utf-8") for path in tracked if path.suffix == ".py"}
    assert not [path for path, text in texts.items() if any(word in text for word in words)]
