"""Rules about module globals that outlive the model they were made for."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from padcheck.checks.code.rule import File, Report, chain_of, is_elif, rule
from padcheck.checks.code.scopes import Binding, Block, Scope, last_name, path_of
from padcheck.checks.code.values import is_model, is_tokenizer


@rule("COD111", ast.If, words=[["global "], ["is None", "== None", "not "], ["model", "tok"]])
def cache_without_key(file: File, scope: Scope, node: ast.If, block: Block) -> Iterator[Report]:
    """`if CACHE is None: CACHE = make(model, tok)` with a module global."""
    name = _tested_for_none(node.test)
    if name is None or name not in scope.globals:
        return
    makers = [parameter for parameter in sorted(scope.parameters) if is_model(parameter) or is_tokenizer(parameter)]
    filled = [
        binding for binding in scope.bindings.get(name, ()) if binding.block.node is node and binding.value is not None
    ]
    if not makers or not filled or _is_reset(file, scope, name):
        return
    used = [maker for maker in makers if any(_names(binding.value, maker) for binding in filled)]
    if not used:
        return
    made = file.module.bindings.get(name, [])
    declared = made[0].statement if made else None
    yield Report(
        node.test,
        f"{name} is filled once per process from {' and '.join(used)}, and not keyed by them: with another model or"
        " tokenizer the first one's content is used again.",
        f"Key it, e.g. a dictionary by (model's name or path, tokenizer's name, lengths), or clear {name} when the"
        " model changes.",
        related=(("declared here", declared),) if isinstance(declared, ast.stmt) else (),
    )


def _tested_for_none(test: ast.expr) -> str | None:
    match test:
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Is() | ast.Eq()], comparators=[ast.Constant(value=None)]):
            return name
        case ast.UnaryOp(op=ast.Not(), operand=ast.Name(id=name)):
            return name
    return None


def _names(node: ast.expr | None, name: str) -> bool:
    return node is not None and any(isinstance(each, ast.Name) and each.id == name for each in ast.walk(node))


def _is_reset(file: File, scope: Scope, name: str) -> bool:
    """Whether some function empties the global again."""
    return any(
        isinstance(binding.value, ast.Constant) and binding.value.value is None
        for other in file.scopes
        if other is not file.module and name in other.globals
        for binding in other.bindings.get(name, ())
    )


@rule("COD112", ast.If, words=[["global "]])
def global_of_some_branches(file: File, scope: Scope, node: ast.If, block: Block) -> Iterator[Report]:
    """A global without a module-level value gets one in the branches of a chain that has no `else`."""
    if not scope.globals or is_elif(node, block):
        return
    links, otherwise = chain_of(node)
    if otherwise or not all(_compares_text(link.test) for link in links):
        return
    nodes = {id(link) for link in links}
    for name, statement in scope.globals.items():
        if file.module.bindings.get(name):
            continue
        inside = [binding for binding in scope.bindings.get(name, ()) if id(binding.block.node) in nodes]
        if not inside or any(binding.block.encloses(block) for binding in _outside(scope, name, nodes)):
            continue
        yield Report(
            node,
            f"The global {name} gets its first value only in {'these branches' if len(links) > 1 else 'this branch'},"
            " and there is no else: for any other model the next line that reads it raises NameError, or finds the"
            " value of the model before.",
            f"Give {name} its value in all cases, or end with an else that raises and names the model.",
            related=(("declared global here", statement),),
            evidence={"global": name},
        )
        return


def _outside(scope: Scope, name: str, nodes: set[int]) -> list[Binding]:
    return [binding for binding in scope.bindings.get(name, ()) if id(binding.block.node) not in nodes]


def _compares_text(test: ast.expr) -> bool:
    """`"llama" in name.lower()` or `kind == "llama"`, alone or joined by `or`."""
    if isinstance(test, ast.BoolOp):
        return all(_compares_text(part) for part in test.values)
    match test:
        case ast.Compare(left=ast.Constant(value=str()), ops=[ast.In()]):
            return True
        case ast.Compare(ops=[ast.Eq()], comparators=[ast.Constant(value=str())]):
            return True
    return False


@rule("COD123", ast.If, words=[["_name_or_path"], ["not in"]], pattern=r"(?m)^\w+[^\n=]*=\s*(?:\{|dict\(|defaultdict)")
def cache_keyed_by_name(file: File, scope: Scope, node: ast.If, block: Block) -> Iterator[Report]:
    """A module dictionary of statistics keyed by the model's name alone: an edited model has the same name."""
    match node.test:
        case ast.Compare(left=ast.Name(id=key), ops=[ast.NotIn()], comparators=[ast.Name(id=cache)]):
            pass
        case ast.BoolOp(
            values=[ast.Compare(left=ast.Name(id=key), ops=[ast.NotIn()], comparators=[ast.Name(id=cache)]), *_]
        ):
            pass
        case _:
            return
    made = file.module.bindings.get(cache, [])
    if cache in scope.bindings or not any(isinstance(binding.value, (ast.Dict, ast.Call)) for binding in made):
        return
    if not any(_is_name_of_model(file, scope, binding) for binding in scope.bindings.get(key, ())):
        return
    yield Report(
        node.test,
        f"{cache} is keyed by the model's name, which an edited model keeps, and by no size or precision of the sample:"
        " statistics of other weights or another sample can be used again.",
        "Put what the statistics depend on into the key, and clear the cache when weights change.",
        severity="note",
        confidence="medium",
        evidence={"cache": cache},
    )


def _is_name_of_model(file: File, scope: Scope, binding: Binding) -> bool:
    """A key made of the model's name and of nothing that says dtype or sample."""
    if binding.value is None:
        return False
    parts = binding.value.elts if isinstance(binding.value, ast.Tuple) else [binding.value]
    names = [last_name(path_of(part)) for part in parts]
    if any(word in name for name in names for word in ("sample", "dtype", "dataset", "precision", "hash")):
        return False
    for part in parts:
        if isinstance(part, ast.Name):
            bindings = scope.bindings.get(part.id, ())
            if any(each.value is not None and "_name_or_path" in ast.dump(each.value) for each in bindings):
                return True
    return False
