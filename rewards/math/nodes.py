"""The tree of a formula, and what stands in it: letters and operations."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Node:
    """One operation, or a leaf: `num` (value), `sym` (name) or `const` (pi, e, i, inf)."""

    op: str
    args: tuple[Node, ...] = ()
    value: Fraction | None = None
    name: str = ""


def letters(node: Node) -> frozenset[str]:
    """Names of all letters in the tree."""
    if node.op == "sym":
        return frozenset((node.name,))
    return frozenset().union(*(letters(arg) for arg in node.args)) if node.args else frozenset()


def rename(node: Node, old: str, new: str) -> Node:
    """The tree with the letter `old` called `new`."""
    if node.op == "sym":
        return Node("sym", name=new) if node.name == old else node
    return Node(node.op, tuple(rename(arg, old, new) for arg in node.args), node.value, node.name)


def operations(node: Node) -> frozenset[str]:
    """All operations and function names in the tree."""
    return frozenset((node.op, node.name)).union(*(operations(arg) for arg in node.args))
