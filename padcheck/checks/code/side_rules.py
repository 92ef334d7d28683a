"""Rules about who changes a tokenizer's padding side, and who changes it back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from padcheck.checks.code.rule import File, Report, assigned_in, rule
from padcheck.checks.code.scopes import Block, Scope, end_of, last_name, path_of, start_of
from padcheck.checks.code.sides import Store, siblings
from padcheck.checks.code.wrapping import restored_in_finally, switched_for_the_rest
from padcheck.diagnostics import Fix, TextEdit

_SETS_UP = re.compile(r"(^|_)(set|setup|prepare|configure|fix|load|build|init|get|make|create)(_|$)")


@rule("COD101", words=[["padding_side"]])
def side_not_restored(file: File, scope: Scope) -> Iterator[Report]:
    """A function switches the side of a tokenizer that its caller lent it, and leaves it switched."""
    if not scope.is_function:
        return
    for store in file.sides.stores_in(scope):
        if store.side is None or any(block.kind == "finally" for block in store.block.outwards()):
            continue
        lender = _lender(file, store)
        if lender is None or _is_restored(file, store) or _is_restoration(file, store) or _is_set_up(scope, store):
            continue
        tokenizer = path_of(_target(store).value) or store.tokenizer
        edits: tuple[TextEdit, ...] = ()
        for statements in siblings(store.block, scope):
            if store.block.kind == "scope" and any(each is store.statement for each in statements):
                edits = switched_for_the_rest(file.source, store.statement, tokenizer, statements)
        yield Report(
            store.statement,
            f"{scope.qualname}() leaves the caller's tokenizer padding on the {store.side}: whoever uses {lender} next,"
            " an edit for instance, gets that side.",
            "Remember the side, and restore it in a finally; or pass padding_side to the one call that needs it.",
            evidence={"tokenizer": tokenizer, "side": store.side},
            fix=Fix("Restore the side at the end, also after an exception.", edits, "unsafe") if edits else None,
        )


def _target(store: Store) -> ast.Attribute:
    target = next(t for t in store.statement.targets if isinstance(t, ast.Attribute) and t.attr == "padding_side")
    assert isinstance(target, ast.Attribute)
    return target


def _lender(file: File, store: Store) -> str | None:
    """The parameter through which the tokenizer came in, if it did."""
    root, _, rest = store.tokenizer.partition(".")
    if root in ("self", "cls"):
        return None
    for scope in store.scope.outwards():
        if root in scope.parameters:
            made = any(
                isinstance(binding.value, ast.Call) and end_of(binding.value) < start_of(store.statement)
                for path in (root, store.tokenizer)
                for binding in scope.bindings.get(path, ())
                if binding.block.encloses(store.block)
            )
            in_constructor = isinstance(scope.node, ast.FunctionDef) and scope.node.name in (
                "__init__",
                "__post_init__",
                "setUp",
            )
            return None if made or in_constructor else root if not rest else store.tokenizer
        if scope.bindings.get(root):
            return None
    return None


def _is_restored(file: File, store: Store) -> bool:
    """Another store follows: whether it is safe is the next rule's question."""
    return any(
        other.tokenizer == store.tokenizer
        and start_of(other.statement) > start_of(store.statement)
        and not store.block.excludes(other.block)
        for other in file.sides.stores_in(store.scope)
    )


def _is_restoration(file: File, store: Store) -> bool:
    """It ends a switch that stands before it."""
    return any(
        other.tokenizer == store.tokenizer
        and other.side is not None
        and start_of(other.statement) < start_of(store.statement)
        and _restores(file, other, store)
        for other in file.sides.stores_in(store.scope)
    )


def _is_set_up(scope: Scope, store: Store) -> bool:
    """A function that is there to set up the tokenizer, or that hands it back."""
    root = store.tokenizer.partition(".")[0]
    for site in scope.find(ast.Return):
        assert isinstance(site.node, ast.Return)
        value = site.node.value
        parts = value.elts if isinstance(value, ast.Tuple) else [value]
        if any(isinstance(part, ast.Name) and part.id == root for part in parts):
            return True
    assert isinstance(scope.node, (ast.FunctionDef, ast.AsyncFunctionDef))
    name = scope.node.name.lower()
    return root in scope.parameters and ("tok" in name or "pad" in name) and bool(_SETS_UP.search(name))


@rule("COD102", words=[["padding_side"]])
def restored_without_finally(file: File, scope: Scope) -> Iterator[Report]:
    """The side is switched and restored, but an exception in between leaves it switched."""
    if not scope.is_function:
        return
    stores = file.sides.stores_in(scope)
    for index, switch in enumerate(stores):
        if switch.side is None or any(block.kind == "finally" for block in switch.block.outwards()):
            continue
        for restore in stores[index + 1 :]:
            if restore.tokenizer != switch.tokenizer or switch.block.excludes(restore.block):
                continue
            if _restores(file, switch, restore) and _calls_between(scope, switch, restore):
                yield _unprotected(file, scope, switch, restore)
            break


def _restores(file: File, switch: Store, restore: Store) -> bool:
    if any(block.kind == "finally" for block in restore.block.outwards()):
        return False
    if restore.side is not None:  # a constant: a restoration only of a side that was asked for before
        asked = any(
            block.kind == "if" and isinstance(block.node, ast.If) and "padding_side" in ast.dump(block.node.test)
            for block in switch.block.outwards()
        )
        return restore.side != switch.side and asked
    value = path_of(restore.value)
    if value is None:
        return False
    found, _ = file.flow.bindings(value, restore.scope, restore.block, start_of(restore.statement))
    return any(
        isinstance(binding.value, ast.Attribute)
        and binding.value.attr == "padding_side"
        and binding.end < start_of(switch.statement)
        for binding in found
    )


def _calls_between(scope: Scope, switch: Store, restore: Store) -> bool:
    start, end = end_of(switch.statement), start_of(restore.statement)
    return any(isinstance(site.node, ast.Call) and start < start_of(site.node) < end for site in scope.find(ast.Call))


def _unprotected(file: File, scope: Scope, switch: Store, restore: Store) -> Report:
    edits: tuple[TextEdit, ...] = ()
    for statements in siblings(switch.block, scope):
        if any(each is switch.statement for each in statements) and any(each is restore.statement for each in statements):
            edits = restored_in_finally(file.source, switch.statement, restore.statement, statements)
    return Report(
        switch.statement,
        f"The side is switched to {switch.side} here and restored on line {restore.statement.lineno}, but not in a"
        f" finally: an exception in between leaves the tokenizer padding on the {switch.side}.",
        "Put what lies between into try, and the restoring line into finally.",
        related=(("restored here", restore.statement),),
        evidence={"tokenizer": switch.tokenizer, "side": switch.side},
        fix=Fix("Restore the side in a finally.", edits, "safe") if edits else None,
    )


@rule("COD120", ast.If, words=[["padding_side"], ["alg"]])
def algorithm_list_sets_side(file: File, scope: Scope, node: ast.If, block: Block) -> Iterator[Report]:
    """A list of method names, written out in a condition, decides the padding side."""
    for test in ast.walk(node.test):
        if not (
            isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.In, ast.NotIn)) and len(test.comparators) == 1
        ):
            continue
        names = _literal_names(test.comparators[0])
        if len(names) < 2 or "alg" not in last_name(path_of(test.left)).lower():
            continue
        stored = [path for path in assigned_in(node.body) if path.endswith(".padding_side")]
        if stored:
            listed = ", ".join(names)
            negated = isinstance(test.ops[0], ast.NotIn)
            yield Report(
                test,
                f"The padding side depends on a list of methods written out here ({listed}): a method that is added"
                " elsewhere"
                f" {'gets this side undecided' if negated else 'keeps the side that the tokenizer came with'}.",
                "Let each method declare the side it needs, and read it from there; or keep one list for the whole project.",
                evidence={"methods": list(names), "negated": negated},
            )


def _literal_names(node: ast.expr) -> list[str]:
    if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return []
    return [each.value for each in node.elts if isinstance(each, ast.Constant) and isinstance(each.value, str)]
