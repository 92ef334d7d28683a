"""The editors' index arithmetic, written in `rules/editors/*.toml` as small expressions over token counts.

An expression such as ``prefix_subject - 1`` is checked against a short grammar (integers, the names of `Counts`, + and -,
comparisons, ``a if condition else b``, and/or/not) and compiled once; nothing else can be called from a data file.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

COUNTS = (
    "prefix",
    "prefix_subject",
    "row",
    "prompt",
    "part_prefix",
    "part_subject",
    "part_suffix",
    "mask",
    "width",
    "pads",
    "target",
    "target_width",
    "target_pads",
    "prompt_width",
    "joined",
    "bare_prompt",
    "specials",
    "trailing",
    "target_start",
)
"""What an index may be computed from; each counts tokens.

prefix, prefix_subject  the text before the subject, and that with the subject, each encoded alone (special tokens as `encode` adds them)
prompt                  the row without target text, encoded alone
row, mask               the whole row (real tokens: the sum of the attention mask)
part_prefix/subject/suffix   the three parts of the row encoded apart, as kmeng01's code does
target                  the target's ids as the editor makes them
joined, bare_prompt     prompt + target, and the prompt, of the bare template without special tokens (FastEdit)
width, pads             columns of the padded batch; width - row
target_width, target_pads    columns of the padded batch of targets; leading pads of this target's row in it
prompt_width            columns of the padded batch of prompts
specials                special tokens that `encode` adds to any text
trailing                pads after the row (0 under left padding)
target_start            first token that holds a visible character of the target, by the tokenizer's offsets
"""

FLAGS = (
    "fact_token",
    "enable_prompt_keys",
    "enable_random_prefix_keys",
    "original_implementation",
    "objective_optimization",
    "context",
)
"""What a `when` condition of a batch may ask for: hparams of the run."""

_ALLOWED = (
    ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.UnaryOp, ast.USub, ast.Not, ast.IfExp, ast.Compare, ast.Eq, ast.NotEq, ast.Lt,
    ast.LtE, ast.Gt, ast.GtE, ast.BoolOp, ast.And, ast.Or, ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


class BadExpression(ValueError):
    """An expression of a data file that the grammar does not allow."""


@dataclass(frozen=True, slots=True)
class Expression:
    """One compiled expression.

    `on_row(row, width, pads)` reads every other name from the attributes of `row`: one call per row, without a dictionary.
    """

    text: str
    names: tuple[str, ...]
    on_row: Callable[[Any, int, int], int]

    def __call__(self, counts: Mapping[str, Any]) -> Any:
        """The value for named counts (or flags)."""
        return self.on_row(SimpleNamespace(**counts), counts.get("width", 0), counts.get("pads", 0))


@cache
def compile_expression(text: str, allowed: tuple[str, ...] = COUNTS) -> Expression:
    """Compile `text`, or raise `BadExpression` naming what is not allowed."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise BadExpression(f"“{text}” is no expression: {error.msg}") from None
    names: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise BadExpression(f"“{text}”: {type(node).__name__} is not allowed here")
        if isinstance(node, ast.Name) and node.id not in names:
            if node.id not in allowed:
                raise BadExpression(f"“{text}”: unknown name {node.id}; known are {', '.join(allowed)}")
            names.append(node.id)
    names.sort(key=allowed.index)
    source = ast.unparse(_OnRow().visit(tree))
    function = eval(compile(f"lambda row_, width, pads: {source}", "<rules/editors>", "eval"), {"__builtins__": {}})
    return Expression(text, tuple(names), function)


class _OnRow(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in {"width", "pads"}:
            return node
        return ast.Attribute(ast.Name("row_", ast.Load()), node.id, ast.Load())
