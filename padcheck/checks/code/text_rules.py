"""Rules about texts that are taken apart and put together again, and about checks that check nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from padcheck.checks.code.reading import indentation
from padcheck.checks.code.rule import File, Report, is_minus_one, rule
from padcheck.checks.code.scopes import Block, Scope, path_of, start_of
from padcheck.diagnostics import Fix, TextEdit

_SPEAKS_OF_SUBJECT = re.compile(r"subj|entity|\bword")
_SPEAKS_OF_PROMPT = re.compile(r"prompt|question|template|sentence|\bsrc\b|\btext")


@rule("COD115", ast.Call, words=[["replace"], ['"{}"', "'{}'"]])
def replaces_every_occurrence(file: File, scope: Scope, node: ast.Call, block: Block) -> Iterator[Report]:
    """`prompt.replace(subject, "{}")` makes a template of every occurrence, inside words too."""
    match node:
        case ast.Call(
            func=ast.Attribute(attr="replace", value=prompt), args=[subject, ast.Constant(value="{}")], keywords=[]
        ):
            pass
        case _:
            return
    if isinstance(subject, ast.Constant) or isinstance(prompt, ast.Constant):
        return
    if not (_SPEAKS_OF_SUBJECT.search(file.text(subject, 200)) or _SPEAKS_OF_PROMPT.search(file.text(prompt, 200))):
        return
    if _is_counted(scope, prompt, node):
        return
    end = file.source.end(node.args[-1])
    yield Report(
        node,
        f"{file.text(node)} replaces every occurrence, also inside longer words: the template may get several {{}}, and"
        " the subject is looked up at one of them.",
        "Check that prompt.count(subject) is 1 before, or ask for templates that carry {} already.",
        fix=Fix("Replace the first occurrence only.", (file.source.edit(end, end, ", 1"),), "unsafe"),
    )


def _is_counted(scope: Scope, prompt: ast.expr, node: ast.Call) -> bool:
    """Whether the occurrences are counted before."""
    receiver = ast.dump(prompt)
    return any(
        isinstance(site.node, ast.Call)
        and isinstance(site.node.func, ast.Attribute)
        and site.node.func.attr in ("count", "findall", "finditer")
        and start_of(site.node) < start_of(node)
        and (ast.dump(site.node.func.value) == receiver or path_of(site.node.func.value) == "re")
        for site in scope.find(ast.Call)
    )


@rule("COD116", ast.BinOp, words=[["decode("], ["tok"]])
def decoded_target_retokenised(file: File, scope: Scope, node: ast.BinOp, block: Block) -> Iterator[Report]:
    """`prompt + tok.decode(target_ids[:-1])`: what was tokens becomes text and is tokenised again."""
    if not isinstance(node.op, ast.Add):
        return
    for side in (node.left, node.right):
        for atom in file.flow.value(side, scope, block).of("decoded"):
            assert isinstance(atom.node, ast.Call)
            if not _all_but_last(atom.node) or isinstance(side, ast.BinOp):
                continue
            if _is_compared(scope, atom.node):
                continue
            yield Report(
                atom.node,
                f"{file.text(atom.node)} turns target ids into text that is tokenised again behind the prompt: where"
                " the tokens change on the way (a dropped leading space, a merge with the prompt), the labels stand on"
                " other tokens.",
                "Concatenate ids: the prompt's ids and target_ids[:-1], padded together.",
                related=(("joined here", node),),
            )


def _all_but_last(node: ast.Call) -> bool:
    """`decode(ids[:-1])`."""
    match node.args[0] if node.args else None:
        case ast.Subscript(slice=ast.Slice(lower=None, upper=ast.expr() as upper)):
            return is_minus_one(upper)
    return False


def _is_compared(scope: Scope, node: ast.Call) -> bool:
    """Whether the function asserts anything about what the text is tokenised to."""
    ids = node.args[0]
    assert isinstance(ids, ast.Subscript)
    path = path_of(ids.value) or "?"
    for kind in (ast.Assert, ast.If):
        for site in scope.find(kind):
            assert isinstance(site.node, (ast.Assert, ast.If))
            names = {each.id for each in ast.walk(site.node.test) if isinstance(each, ast.Name)}
            called = any(isinstance(each, ast.Call) for each in ast.walk(site.node.test))
            if (
                path in names
                and called
                and start_of(site.node) > start_of(node)
                and isinstance(site.node.test, (ast.Compare, ast.Call))
            ):
                text = ast.dump(site.node.test)
                if "input_ids" in text or "encode" in text or "equal" in text:
                    return True
    return False


@rule("COD117", ast.Assert, words=[["or print", "or  print", "or\tprint", "or ("], ["assert"], ["print"]])
def assert_or_print(file: File, scope: Scope, node: ast.Assert, block: Block) -> Iterator[Report]:
    """`assert condition or print(message)`: the message is never the error's."""
    test = node.test
    if not (isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) and node.msg is None):
        return
    call = test.values[-1]
    if not (isinstance(call, ast.Call) and path_of(call.func) == "print"):
        return
    yield Report(
        node,
        "The message is printed, not raised: the error is an AssertionError without a word, and under python -O"
        " nothing is checked at all.",
        "Write: if not condition: raise ValueError(message).",
        fix=_raising(file, node, test, call),
    )


_OPPOSITE: dict[type[ast.cmpop], str] = {
    ast.Is: "is not", ast.IsNot: "is", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip


def _raising(file: File, node: ast.Assert, test: ast.BoolOp, call: ast.Call) -> Fix | None:
    """`if not condition:` and `raise ValueError(message)`, the pieces left as they are written."""
    source = file.source
    if len(call.args) != 1 or call.keywords or isinstance(call.args[0], ast.Starred):
        return None
    start, end = source.start(node), source.end(node)
    before, behind = source.lines[start[0] - 1][: start[1]], source.lines[end[0] - 1][end[1] :]
    if before.strip() or (behind.strip() and not behind.lstrip().startswith("#")):
        return None
    print_start, condition = source.start(call), test.values[:-1]
    first, last = source.start(condition[0]), source.end(condition[-1])
    raw = source.slice((start[0], start[1] + len("assert")), print_start).strip()
    joint = re.search(r"\bor\s*\(*\s*$", raw)
    if joint is None or "#" in raw or "\\" in raw or source.slice(source.end(call), end).strip():
        return None
    written = raw[: joint.start()].rstrip()
    edits: list[TextEdit] = []
    negated = _negated(file, condition, written)
    if negated is None or source.slice(first, last) not in written:
        return None
    indent = indentation(source.lines[start[0] - 1])
    unit = "\t" if "\t" in indent else "    "
    name_end = source.end(call.func)
    edits.append(source.edit(start, print_start, f"if {negated}:\n{indent}{unit}"))
    edits.append(source.edit(print_start, name_end, "raise ValueError"))
    return Fix("Raise ValueError with the message.", tuple(edits), "unsafe")


def _negated(file: File, condition: list[ast.expr], written: str) -> str | None:
    """The negation of what is asserted, by the mildest change of its text."""
    only = condition[0] if len(condition) == 1 else None
    if "\n" in written or "\r" in written:
        return f"not ({written})"
    if (
        isinstance(only, ast.Compare)
        and len(only.ops) == 1
        and type(only.ops[0]) in _OPPOSITE
        and not written.startswith("(")
    ):
        left, right = file.source.segment(only.left), file.source.segment(only.comparators[0])
        return f"{left} {_OPPOSITE[type(only.ops[0])]} {right}"
    simple = isinstance(only, (ast.Name, ast.Attribute, ast.Call, ast.Subscript))
    enclosed = only is not None and written.startswith("(") and written.endswith(")")
    return f"not {written}" if simple or enclosed else f"not ({written})"
