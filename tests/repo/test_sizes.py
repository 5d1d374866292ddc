"""The limits of CONTRIBUTING.md: sizes, annotations and docstrings."""

import ast

FILE, FUNCTION, CLASS = 300, 50, 250
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def length(node):
    return node.end_lineno - min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) + 1


def test_no_file_is_long(modules):
    long = {module.name: count for module in modules.values() if (count := len(module.text.splitlines())) > FILE}
    assert not long, f"over {FILE} lines; split by what changes together"


def test_no_function_or_class_is_long(modules):
    long = [
        f"{module.where(node)}: {node.name} has {length(node)} lines, at most {limit}"
        for module in modules.values()
        for node in ast.walk(module.tree)
        for kinds, limit in ((FUNCTIONS, FUNCTION), ((ast.ClassDef,), CLASS))
        if isinstance(node, kinds) and length(node) > limit
    ]
    assert not long, "\n".join(long)


def unannotated(function, in_class):
    """The names of parameters without a type, and `return` where the result has none."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
    if in_class and not static:
        positional = positional[1:]  # self, cls
    every = [*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = [argument.arg for argument in every if argument is not None and argument.annotation is None]
    return names + (["return"] if function.returns is None else [])


def test_everything_is_annotated(modules):
    missing = []
    for module in modules.values():
        methods = {
            id(node) for parent in ast.walk(module.tree) if isinstance(parent, ast.ClassDef) for node in parent.body
        }
        for node in ast.walk(module.tree):
            if isinstance(node, FUNCTIONS) and (names := unannotated(node, id(node) in methods)):
                missing.append(f"{module.where(node)}: {node.name}: {', '.join(names)}")
    assert not missing, "\n".join(missing)


def test_public_names_have_a_docstring(modules):
    """Modules, classes and functions, at the top level of a module; at least 85 in 100, and every module."""
    assert not [module.name for module in modules.values() if module.tree.body and not ast.get_docstring(module.tree)]
    public = [
        (module.where(node), node)
        for module in modules.values()
        for node in module.tree.body
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
    ]
    bare = [f"{where}: {node.name}" for where, node in public if not ast.get_docstring(node)]
    assert len(bare) <= 0.15 * len(public), "\n".join(bare)


def test_the_check_sees_what_is_unannotated():
    method, function = ast.parse("def f(self, a, b: int, *args, c=1, **kwargs: int): pass\ndef g(x) -> None: pass").body
    assert unannotated(method, in_class=True) == ["a", "c", "args", "return"]
    assert unannotated(function, in_class=False) == ["x"]
