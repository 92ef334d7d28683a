"""Rules about guesses: a layout from a length, a family from a path."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from padcheck.checks.code.rule import File, Report, assigned_in, chain_of, is_elif, rule
from padcheck.checks.code.scopes import Block, Scope, end_of, last_name, path_of


@rule(
    "COD118",
    ast.If,
    words=[["len(", "shape[0]", "size(0)"]],
    pattern=r"(?:\blen\([\w.]+\)|\.shape\[0\]|\.size\(0\))\s*[!=]=\s*(?:len\(|[\w.]+\.(?:shape\[0|size\(0))",
)
def batch_axis_by_length(file: File, scope: Scope, node: ast.If, block: Block) -> Iterator[Report]:
    """`if len(idxs) != len(hidden): hidden[idx, i]`, else `hidden[i, idx]`."""
    match node.test:
        case ast.Compare(left=left, ops=[ast.NotEq() | ast.Eq()], comparators=[right]):
            lengths = {_length_of(left), _length_of(right)}
        case _:
            return
    tensors = {path for path in lengths if path}
    if None in lengths or len(tensors) != 2:
        return
    body = [*node.body, *node.orelse]
    swapped = next((path for path in sorted(tensors) if _transposes(body, path) or _swaps(node, path)), None)
    if swapped is None:
        return
    yield Report(
        node,
        f"Whether {swapped} has the batch or the sequence first is guessed from lengths: a batch of as many rows as its"
        " rows have tokens picks the wrong axis without a word.",
        "Take the layout from the model's configuration (model_type), once, or compare with input_ids.shape and refuse"
        " what is ambiguous.",
        evidence={"tensor": swapped},
    )


def _length_of(node: ast.expr) -> str | None:
    """`x` of `len(x)`, `x.shape[0]` and `x.size(0)`."""
    match node:
        case ast.Call(func=ast.Name(id="len"), args=[thing]):
            return path_of(thing)
        case ast.Subscript(value=ast.Attribute(attr="shape", value=thing), slice=ast.Constant(value=0)):
            return path_of(thing)
        case ast.Call(func=ast.Attribute(attr="size", value=thing), args=[ast.Constant(value=0)]):
            return path_of(thing)
    return None


def _transposes(body: list[ast.stmt], tensor: str) -> bool:
    """`x = x.transpose(0, 1)`."""
    for statement in body:
        if isinstance(statement, ast.Assign) and path_of(statement.targets[0]) == tensor:
            call = statement.value
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in ("transpose", "permute", "swapaxes")
            ):
                return path_of(call.func.value) == tensor
    return False


def _swaps(node: ast.If, tensor: str) -> bool:
    """The first two indices change places between the branches."""
    here, there = _index_pairs(node.body, tensor), _index_pairs(node.orelse, tensor)
    return any((second, first) in there for first, second in here if first != second)


def _index_pairs(branch: list[ast.stmt], tensor: str) -> set[tuple[str, str]]:
    """The first two indices of every subscript of `tensor`."""
    return {
        (ast.dump(each.slice.elts[0]), ast.dump(each.slice.elts[1]))
        for statement in branch
        for each in ast.walk(statement)
        if isinstance(each, ast.Subscript) and isinstance(each.slice, ast.Tuple) and len(each.slice.elts) > 1
        if path_of(each.value) == tensor
    }


@rule(
    "COD119",
    ast.If,
    words=[["name", "path", "model_id", "model_class"], ["' in ", '" in ', "'in ", '"in '], ["if "]],
    pattern=r"if\b[^\n]*['\"]\s*in\s[^\n:]*(?:name|path|model_id|model_class)",
)
def family_by_name(file: File, scope: Scope, node: ast.If, block: Block) -> Iterator[Report]:
    """A chain of `"llama" in name.lower()` without `else` gives values that are needed for every model."""
    if is_elif(node, block):
        return
    links, otherwise = chain_of(node)
    if otherwise or not all(_is_substring_test(link.test) for link in links):
        return
    given: dict[str, ast.stmt] = {}
    for link in links:
        for path, statement in assigned_in(link.body).items():
            given.setdefault(path, statement)
    tokenizer = sorted(
        path for path in given if last_name(path) in ("padding_side", "pad_token", "pad_token_id", "add_bos_token")
    )
    unbound = sorted(path for path in given if "." not in path and "[" not in path and _only_here(scope, path, links, node))
    if not tokenizer and not unbound:
        return
    names = ", ".join([*unbound, *tokenizer][:3])
    outcome = (
        f"{unbound[0]} has no value for a name that matches none of these" if unbound
        else "for a name that matches none of these the tokenizer stays as it was loaded"
    )  # fmt: skip
    yield Report(
        node,
        f"{names} depend{'' if len(unbound) + len(tokenizer) > 1 else 's'} on the letters of a name or path, without an"
        f" else: {outcome}, and a folder's name can match the wrong family.",
        "Decide by model.config.model_type, and end with an else that raises and names the model.",
        severity="warning" if unbound or len(links) > 1 else "note",
        evidence={"values": [*unbound, *tokenizer]},
    )


def _is_substring_test(test: ast.expr) -> bool:
    """`"llama" in name.lower()`, alone or joined by `or`."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return all(_is_substring_test(part) for part in test.values)
    match test:
        case ast.Compare(
            left=ast.Constant(value=str()),
            ops=[ast.In()],
            comparators=[ast.Call(func=ast.Attribute(attr="lower", value=name), args=[])],
        ):
            return _names_model(name)
        case ast.Compare(left=ast.Constant(value=str()), ops=[ast.In()], comparators=[name]):
            return _names_model(name)
    return False


def _names_model(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and path_of(node.func) == "str" and node.args:
        node = node.args[0]
    name = last_name(path_of(node)).lower()
    return name in ("model_name", "name_or_path", "_name_or_path", "tok_name", "model_path", "model_class") or name.endswith(
        ("model_name", "name_or_path", "model_id", "tokenizer_name", "tok_name", "model_path", "model_name_or_path")
    )


def _only_here(scope: Scope, name: str, links: list[ast.If], node: ast.If) -> bool:
    """A name that only these branches bind, and that something behind them reads."""
    if not scope.is_function or name in scope.parameters or name in scope.globals:
        return False
    nodes = {id(link) for link in links}
    if any(
        id(binding.block.node) not in nodes and binding.end < (node.lineno, node.col_offset)
        for binding in scope.bindings.get(name, ())
    ):
        return False
    last = end_of(node)
    later = [b for b in scope.bindings.get(name, ()) if b.end > last]
    first_bound = min((b.end for b in later), default=None)
    for each in ast.walk(scope.node):
        if isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Load):
            place = (each.lineno, each.col_offset)
            if place > last and (first_bound is None or place <= first_bound):
                return True
    return False
