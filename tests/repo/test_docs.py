"""Everything that the pages name exists: links, headings, files, functions, tests and keys of the schema."""

import ast
import re
from pathlib import Path

import pytest

from configs import keys
from configs.stage_kinds import STAGE_KINDS

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
TOP = ("configs", "kimi_vl", "rewards", "rollouts", "rl", "tests", "benchmarks", "docs", "examples", ".ci")
SECTIONS = {pattern[0] for pattern in keys.schema_keys() if len(pattern) > 1}


@pytest.fixture(scope="module")
def documents(tracked, root):
    """Each document's text without fenced code, by its path."""
    found = {}
    for path in sorted(tracked):
        if path.suffix == ".md" and path.parts[0] != "tests":
            text = (root / path).read_text(encoding="utf-8")
            found[path] = FENCE.sub(lambda block: "\n" * block.group().count("\n"), text)
    return found


def spans(documents):
    """(place, code) of each `code` in a sentence or a table."""
    for path, text in documents.items():
        for number, line in enumerate(text.splitlines(), 1):
            yield from ((f"{path}:{number}", code.strip()) for code in CODE.findall(line))


def anchors(text):
    """The names that the headings of a document can be linked by."""
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def there(tracked):
    """Every file and folder that a fresh clone has; an empty folder is in none."""
    return tracked | {parent for path in tracked for parent in path.parents}


def test_links_lead_somewhere(documents, there, root):
    wrong = []
    for path, text in documents.items():
        for match in LINK.finditer(text):
            target = match.group(1) or match.group(2)
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            goal = (root / path.parent / file).resolve() if file else (root / path)
            if not goal.is_relative_to(root) or goal.relative_to(root) not in there:
                wrong.append(f"{path}: {target}: no such file")
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
                wrong.append(f"{path}: {target}: no such heading")
    assert not wrong, "\n".join(wrong)


def names_of(path):
    """Functions, classes, methods (`Class.method`) and constants of a Python file."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            if isinstance(node, ast.ClassDef):
                inner = [child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)]
                found.update(f"{node.name}.{child.name}" for child in inner)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


def missing_path(code, there, root):
    """What is wrong with `folder/file.py`, `folder/file.py::name` or `folder/file.py:12`; None where nothing is."""
    file, _, name = code.partition("::")
    file = re.sub(r":[\d-]+$", "", file)
    if any(sign in file for sign in "*<>{}…") or "..." in file:
        return None
    if Path(file) not in there:
        return "no such file"
    if name and name.split("[")[0].replace("::", ".") not in names_of(root / file):
        return f"no such name in {file}"
    return None


def missing_name(code, modules):
    """What is wrong with `package.module.name`; None where nothing is, or where it is no such thing."""
    parts = code.removesuffix("()").split(".")
    for end in range(len(parts), 0, -1):
        module = modules.get(".".join(parts[:end]))
        if module is not None:
            rest = ".".join(parts[end:])
            if not rest or rest in names_of(module.path) | names_imported(module.tree):
                return None
    return "no such key of the schema, module or name"


def names_imported(tree):
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_paths_exist(documents, there, root):
    wrong = [
        f"{where}: {code}: {problem}"
        for where, code in spans(documents)
        if code.split("/")[0] in TOP
        and "/" in code
        and " " not in code
        and (problem := missing_path(code, there, root))
    ]
    assert not wrong, "\n".join(wrong)


def test_dotted_names_and_keys_exist(documents, modules):
    wrong = []
    for where, code in spans(documents):
        name = code.partition("=")[0]
        if re.fullmatch(r"[a-z_]\w*(\.\w+)+(\(\))?", name) is None or name.split(".")[-1] in ("py", "md", "yaml"):
            continue
        path = tuple(int(part) if part.isdigit() else part for part in name.split("."))
        if path[0] == "stages" and len(path) > 2:  # a stage by its name or place: any kind will do
            path = ("rl", *path[2:])
        if path[0] in STAGE_KINDS:  # `rl.steps` is a key of the kind
            path = ("stages", 0, *path)
        pattern = tuple("N" if isinstance(part, int) else part for part in path)
        is_key = keys.find(keys.written_out(path)) or keys.is_free(path) or pattern in keys.schema_keys()
        first = name.split(".")[0]
        if not is_key and (first in TOP or first in SECTIONS) and (problem := missing_name(name, modules)):
            wrong.append(f"{where}: {code}: {problem}")
    assert not wrong, "\n".join(wrong)


def test_overrides_in_commands_are_keys(tracked, root):
    """In fenced blocks: `thinkvl run RECIPE rl.steps=20`."""
    wrong = []
    for path in (path for path in tracked if path.suffix == ".md"):
        for block in FENCE.findall((root / path).read_text(encoding="utf-8")):
            for name in re.findall(r"(?<![\w./-])([a-z_]+(?:\.\w+)*)=(?!=)", block) if "thinkvl " in block else []:
                key = keys.written_out(tuple(int(part) if part.isdigit() else part for part in name.split(".")))
                if name.split(".")[0] in SECTIONS and not (keys.find(key) or keys.is_free(key)):
                    wrong.append(f"{path}: {name}")
    assert not wrong, "\n".join(wrong)


def test_every_section_of_the_paper_index_names_a_function_and_a_test(documents):
    """Functions as `rl/samples.py::make_it`, tests as `tests/rl/test_samples.py::test_it`; both exist (see above)."""
    sections = re.split(r"^## ", documents[Path("docs/papers.md")], flags=re.MULTILINE)[1:]
    sections = [section for section in sections if not section.startswith("All algorithms\n")]
    assert sections
    wrong = [
        section.partition("\n")[0]
        for section in sections
        if not re.search(r"^- Code: `[\w/]+\.py::", section, re.MULTILINE)
        or not re.search(r"^- Tests:\s+`tests/[\w/]+\.py::test_\w+`", section, re.MULTILINE)
        or not re.search(r"^- Deviation: \S", section, re.MULTILINE)
    ]
    assert not wrong, "no function, test or deviation:\n" + "\n".join(wrong)
