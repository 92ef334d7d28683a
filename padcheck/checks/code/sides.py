"""On which side a batch is padded, as far as its file says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from padcheck.checks.code.scopes import Block, Position, Scope, called_name, end_of, path_of, start_of
from padcheck.checks.code.values import Batch, Flow

PaddingSide = Literal["left", "right"]
_OTHER: dict[PaddingSide, PaddingSide] = {"left": "right", "right": "left"}


class Store(NamedTuple):
    """`tokenizer.padding_side = value`."""

    tokenizer: str
    """Its path, aliases undone."""
    written: str
    """Its path as it stands there."""
    value: ast.expr
    side: PaddingSide | None
    """None: not a constant, e.g. what was saved before."""
    statement: ast.Assign
    scope: Scope
    block: Block


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the side: its value, or None; `guarded` if the code looks after it in a way not followed here."""

    side: PaddingSide | None = None
    guarded: bool = False
    node: ast.expr | ast.stmt | None = None
    """What says so."""


def constant_side(node: ast.expr | None) -> PaddingSide | None:
    """ "left" or "right" if that is what is written."""
    match node:
        case ast.Constant(value="left"):
            return "left"
        case ast.Constant(value="right"):
            return "right"
    return None


class Sides:
    """The padding sides of one file."""

    def __init__(self, flow: Flow, *, mentioned: bool = True) -> None:
        self._flow = flow
        self._mentioned = mentioned
        """Whether the text speaks of padding sides at all."""
        self._readers: dict[int, list[Block]] = {}

    @cached_property
    def stores(self) -> list[Store]:
        """Every store to a `padding_side`, in the order of scopes and text."""
        result = []
        for scope in self._flow.scopes:
            for site in scope.find(ast.Assign):
                assert isinstance(site.node, ast.Assign)
                for target in site.node.targets:
                    if isinstance(target, ast.Attribute) and target.attr == "padding_side":
                        path = path_of(target.value)
                        if path is not None:
                            tokenizer = self._flow.canonical(path, scope, site.block, start_of(site.node))
                            side = constant_side(site.node.value)
                            result.append(Store(tokenizer, path, site.node.value, side, site.node, scope, site.block))
        return result

    def stores_in(self, scope: Scope) -> list[Store]:
        return [store for store in self.stores if store.scope is scope]

    def of(self, batch: Batch, use: Block | None = None) -> Known:
        """The side of a batch; `use`: where its positions are used, which an `if` on the side may govern."""
        if batch.side is not None:
            side = constant_side(ast.Constant(batch.side))
            return Known(side, guarded=side is None, node=batch.call)
        if use is not None:
            tested = self._tested(use)
            if tested.side or tested.guarded:
                return tested
        return self.at(batch.tokenizer, batch.scope, batch.block, start_of(batch.call), use or batch.block)

    def at(self, tokenizer: str, scope: Scope, block: Block, before: Position, use: Block) -> Known:
        """The side of a tokenizer at a place in a function, for something that is used in the block `use`."""
        tested = self._tested(block)
        if tested.side or tested.guarded:
            return tested
        guarded = False
        for store in reversed(self.stores_in(scope)):
            if store.tokenizer != tokenizer or end_of(store.statement) > before:
                continue
            if store.block.encloses(block):
                return Known(store.side, guarded=guarded or store.side is None, node=store.statement)
            guarded = True
        asserted = self._asserted(scope, block, before)
        if asserted is not None:
            return asserted
        made = self._made(tokenizer, scope, block, before)
        if made is not None:
            return made
        if guarded or self.is_read(scope, use) or self._handed_on(tokenizer, scope, block, before):
            return Known(guarded=True)
        return self._elsewhere(tokenizer, scope)

    def _tested(self, block: Block) -> Known:
        """The side by the `if` and `with` around a place, in this function and in those around it."""
        for each in block.outwards():
            if each.kind == "if" and isinstance(each.node, (ast.If, ast.IfExp)):
                side, node = _side_of_test(each.node.test)
                if side is not None:
                    return Known(side if each.branch else _OTHER[side], node=node)
                if _mentions_side(each.node.test):
                    return Known(guarded=True, node=each.node.test)
            elif each.kind == "with" and isinstance(each.node, (ast.With, ast.AsyncWith)):
                for item in each.node.items:
                    call = item.context_expr
                    if isinstance(call, ast.Call) and ("pad" in (path_of(call.func) or "").lower() or _guards(call)):
                        return Known(next(filter(None, map(constant_side, call.args)), None), guarded=True, node=call)
        return Known()

    def _asserted(self, scope: Scope, block: Block, before: Position) -> Known | None:
        """`assert tok.padding_side == "right"`, or an `if` on the other side that leaves."""
        for site in reversed(scope.find(ast.Assert)):
            assert isinstance(site.node, ast.Assert)
            if end_of(site.node) <= before and site.block.encloses(block) and _mentions_side(site.node.test):
                side, node = _side_of_test(site.node.test)
                return Known(side, guarded=side is None, node=node)
        for site in reversed(scope.find(ast.If)):
            assert isinstance(site.node, ast.If)
            if end_of(site.node) <= before and site.block.encloses(block) and _mentions_side(site.node.test):
                side, node = _side_of_test(site.node.test)
                leaves = bool(site.node.body) and isinstance(site.node.body[-1], (ast.Raise, ast.Return, ast.Continue))
                if side is not None and leaves:
                    return Known(_OTHER[side], node=node)
        return None

    def _made(self, tokenizer: str, scope: Scope, block: Block, before: Position) -> Known | None:
        """The side that a tokenizer was made with, where that is written in the same function."""
        found, owner = self._flow.bindings(tokenizer, scope, block, before)
        if owner is not scope or len(found) != 1 or not isinstance(found[0].value, ast.Call):
            return None
        for keyword in found[0].value.keywords:
            if keyword.arg == "padding_side":
                side = constant_side(keyword.value)
                return Known(side, guarded=side is None, node=found[0].value)
        return None

    def _handed_on(self, tokenizer: str, scope: Scope, block: Block, before: Position) -> bool:
        """Whether the tokenizer went through a call that speaks of padding, `set_padding(tok)`, wherever that is defined."""
        return any(
            isinstance(site.node, ast.Call)
            and "pad" in called_name(site.node).lower()
            and end_of(site.node) <= before
            and site.block.encloses(block)
            and any(path_of(each) == tokenizer for each in site.node.args)
            for site in scope.find(ast.Call)
        )

    def is_read(self, scope: Scope, use: Block | None = None) -> bool:
        """Whether a function, or one around it, looks at a padding side, other than in a branch that excludes `use`."""
        if not self._mentioned:
            return False
        if id(scope) not in self._readers:
            self._readers[id(scope)] = self._reads(scope)
        return any(use is None or not block.excludes(use) for block in self._readers[id(scope)])

    def _reads(self, scope: Scope) -> list[Block]:
        return [
            site.block
            for each in scope.outwards()
            for kind in (ast.If, ast.IfExp, ast.Assert)
            for site in each.find(kind)
            if isinstance(site.node, (ast.If, ast.IfExp, ast.Assert)) and _mentions_side(site.node.test)
        ]

    def _elsewhere(self, tokenizer: str, scope: Scope) -> Known:
        """What the class, or a function around, set: it may have run before, so it is trusted only not to complain."""
        holder: Scope | None = scope
        while holder is not None and not isinstance(holder.node, ast.ClassDef):
            holder = holder.parent
        for store in self.stores:
            if store.scope is scope or tokenizer not in (store.tokenizer, store.written):
                continue
            if tokenizer.startswith("self.") and holder is not None and store.scope.parent is holder:
                return Known(guarded=True, node=store.statement)
            if any(store.scope is outer for outer in scope.outwards()):
                return Known(guarded=True, node=store.statement)
        if holder is not None and tokenizer.startswith("self."):
            for sibling in (each for each in self._flow.scopes if each.parent is holder):
                for binding in sibling.bindings.get(tokenizer, ()):
                    if isinstance(binding.value, ast.Call) and any(k.arg == "padding_side" for k in binding.value.keywords):
                        return Known(guarded=True, node=binding.value)
        outer_made = None if scope.parent is None else self._made_outside(tokenizer, scope)
        return outer_made or Known()

    def _made_outside(self, tokenizer: str, scope: Scope) -> Known | None:
        for outer in scope.outwards():
            for binding in outer.bindings.get(tokenizer, ()):
                if outer is not scope and isinstance(binding.value, ast.Call):
                    for keyword in binding.value.keywords:
                        if keyword.arg == "padding_side":
                            return Known(guarded=True, node=binding.value)
        return None


def _side_of_test(test: ast.expr) -> tuple[PaddingSide | None, ast.expr]:
    """The side where `tok.padding_side == "left"` holds; of a conjunction, that of the part which speaks of it."""
    match test:
        case ast.Compare(left=ast.Attribute(attr="padding_side"), ops=[ast.Eq()], comparators=[right]):
            return constant_side(right), test
        case ast.Compare(left=ast.Attribute(attr="padding_side"), ops=[ast.NotEq()], comparators=[right]):
            side = constant_side(right)
            return (_OTHER[side] if side else None), test
    return None, test


def _mentions_side(test: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.Attribute) and node.attr == "padding_side")
        or (isinstance(node, ast.Name) and "padding_side" in node.id)
        or (isinstance(node, ast.Constant) and node.value == "padding_side")
        for node in ast.walk(test)
    )


def _guards(call: ast.Call) -> bool:
    """`padcheck.guard(...)`, which corrects or stops whatever runs inside."""
    return (path_of(call.func) or "").rpartition(".")[2] == "guard"


def siblings(block: Block, scope: Scope) -> Iterator[list[ast.stmt]]:
    """The lists of statements that `block` consists of."""
    node = block.node if block.kind != "scope" else scope.node
    for name in ("body", "orelse", "finalbody"):
        statements = getattr(node, name, None)
        if isinstance(statements, list):
            yield statements
    for handler in getattr(node, "handlers", []):
        yield handler.body
