"""One walk over a tree: what every scope binds, and the nodes that rules asked for, each with the blocks it stands in.

No links to parents are kept (they turn the tree into garbage that only the collector can free). Instead each recorded node
comes with its `Block`, a chain outwards through `if`, loop, `try`, `with` and comprehension.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Position = tuple[int, int]
"""1-based line and UTF-8 byte offset, as syntax trees have them."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
BlockKind = Literal["scope", "if", "loop", "try", "handler", "finally", "with", "comprehension", "lambda", "case"]
How = Literal["is", "element", "adds", "opaque"]


class Block:
    """The innermost thing that decides whether, or how often, a node is run."""

    __slots__ = ("branch", "depth", "kind", "node", "parent")

    def __init__(self, parent: Block | None, kind: BlockKind, node: ast.AST, branch: bool = True) -> None:
        self.parent = parent
        self.kind = kind
        self.node = node
        self.branch = branch
        """Of an `if`: True where the test holds."""
        self.depth: int = parent.depth + 1 if parent else 0

    def outwards(self) -> Iterator[Block]:
        """This block and those around it, within the scope."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent

    def encloses(self, other: Block) -> bool:
        """True if whoever reaches `other`, later than a statement of this block, has run that statement too."""
        mine: Block | None = self
        while mine is not None and mine.kind in ("with", "try", "finally"):  # entered whenever they are reached
            mine = mine.parent
        return mine is None or any(block is mine for block in other.outwards())

    def excludes(self, other: Block) -> bool:
        """True if the two are branches of one `if`: only one of them runs."""
        branches = {id(block.node): block.branch for block in self.outwards() if block.kind == "if"}
        return any(
            branches.get(id(block.node), block.branch) != block.branch for block in other.outwards() if block.kind == "if"
        )


class Site(NamedTuple):
    """A recorded node and where it stands."""

    node: ast.AST
    block: Block


class Binding(NamedTuple):
    """`path` got a value: it *is* `value`, is one `element` of it, had `value` added to it, or got something unknown."""

    value: ast.expr | None
    how: How
    end: Position
    """Where the binding statement ends: what stands later can see it."""
    block: Block
    statement: ast.AST
    item: int | None = None
    """Which item of a tuple that `value` returns."""


@dataclass(eq=False, slots=True)
class Scope:
    """A module, class or function."""

    node: ast.Module | ast.ClassDef | FunctionNode
    parent: Scope | None
    block: Block
    qualname: str
    parameters: frozenset[str] = frozenset()
    nodes: dict[type[ast.AST], list[Site]] = field(default_factory=lambda: defaultdict(list))
    bindings: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    globals: dict[str, ast.Global] = field(default_factory=dict)

    @property
    def is_function(self) -> bool:
        return isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef))

    def outwards(self) -> Iterator[Scope]:
        """This scope and those whose names it can see: classes are skipped."""
        scope: Scope | None = self
        while scope is not None:
            if scope is self or not isinstance(scope.node, ast.ClassDef):
                yield scope
            scope = scope.parent

    def find(self, kind: type[ast.AST]) -> list[Site]:
        """Recorded nodes of one type in this scope alone, in the order of the text."""
        return self.nodes.get(kind, [])


# Which fields of a node can hold something that a rule looks at. Names, constants, operators and annotations cannot.
# fmt: off
_SKIPPED_FIELDS = frozenset({
    "annotation", "arg", "attr", "bound", "ctx", "id", "kind", "name", "names", "op", "ops", "pattern", "returns",
    "type_comment", "type_params",
})
# fmt: on
_LEAVES: frozenset[type] = frozenset(
    {
        ast.Name,
        ast.Constant,
        ast.Pass,
        ast.Break,
        ast.Continue,
        ast.Import,
        ast.ImportFrom,
        ast.Nonlocal,
        str,
        int,
        type(None),
    }
)
_FIELDS: dict[type, tuple[str, ...]] = {}
"""Type of node → fields to follow, last first; filled as types are met."""


def _fields(kind: type) -> tuple[str, ...]:
    names = tuple(name for name in reversed(getattr(kind, "_fields", ())) if name not in _SKIPPED_FIELDS)
    _FIELDS[kind] = names
    return names


def path_of(node: ast.AST | None) -> str | None:
    """`a.b['c']` for a chain of names, attributes and constant keys; None for anything else."""
    parts: list[str] = []
    while True:
        if isinstance(node, ast.Name):
            parts.append(node.id)
            return "".join(reversed(parts))
        if isinstance(node, ast.Attribute):
            parts.append("." + node.attr)
            node = node.value
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            parts.append(f"[{node.slice.value!r}]")
            node = node.value
        else:
            return None


def last_name(path: str | None) -> str:
    """The last name of a path: `tok` of `self.tok`."""
    return (path or "").rpartition(".")[2]


def called_name(node: ast.Call) -> str:
    """The last name of what is called: `b` of `a.b()` and of `a().b()`."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def start_of(node: ast.expr | ast.stmt) -> Position:
    return node.lineno, node.col_offset


def end_of(node: ast.expr | ast.stmt) -> Position:
    return node.end_lineno or node.lineno, node.end_col_offset or 0


class Walker:
    """The walk. `wanted` are the node types that are recorded besides what names are bound to."""

    def __init__(self, wanted: frozenset[type[ast.AST]]) -> None:
        self.wanted = wanted | {ast.Return, ast.Global}
        self.scopes: list[Scope] = []
        self._stack: list[tuple[ast.AST, Scope, Block]] = []

    def walk(self, tree: ast.Module) -> list[Scope]:
        """All scopes of the tree, the module first."""
        module = Scope(tree, None, Block(None, "scope", tree), "")
        self.scopes.append(module)
        self._push(tree.body, module, module.block)
        stack, wanted, pop = self._stack, self.wanted, self._stack.pop
        while stack:
            node, scope, block = pop()
            kind = node.__class__
            if kind in wanted:
                scope.nodes[kind].append(Site(node, block))
            handler = _HANDLERS.get(kind)
            if handler is not None and handler(self, node, scope, block):
                continue
            for name in _FIELDS.get(kind) or _fields(kind):
                child = getattr(node, name)
                if child.__class__ is list:
                    for each in reversed(child):
                        if each.__class__ not in _LEAVES:
                            stack.append((each, scope, block))
                elif child.__class__ not in _LEAVES:
                    stack.append((child, scope, block))
        return self.scopes

    def _push(self, nodes: Sequence[ast.AST], scope: Scope, block: Block) -> None:
        """Put nodes on the stack so that the first is taken first."""
        self._stack.extend((node, scope, block) for node in reversed(nodes))

    # Handlers return True where they have put the children on the stack themselves.

    def _function(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        arguments = node.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        inner = self._enter(node, scope, frozenset(names))
        self._push(node.body, inner, inner.block)
        self._push(
            [*node.decorator_list, *arguments.defaults, *(default for default in arguments.kw_defaults if default)],
            scope,
            block,
        )
        return True

    def _class(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.ClassDef)
        inner = self._enter(node, scope, frozenset())
        self._push(node.body, inner, inner.block)
        self._push([*node.decorator_list, *node.bases, *node.keywords], scope, block)
        return True

    def _enter(self, node: ast.ClassDef | FunctionNode, scope: Scope, parameters: frozenset[str]) -> Scope:
        qualname = f"{scope.qualname}.{node.name}" if scope.qualname else node.name
        inner = Scope(node, scope, Block(None, "scope", node), qualname, parameters)
        self.scopes.append(inner)
        return inner

    def _lambda(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.Lambda)
        self._push([node.body], scope, Block(block, "lambda", node))
        return True

    def _comprehension(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp))
        inner = Block(block, "comprehension", node)
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._push(results, scope, inner)
        for generator in reversed(node.generators):
            self._push(generator.ifs, scope, inner)
            self._push([generator.iter], scope, block if generator is node.generators[0] else inner)
        return True

    def _if(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, (ast.If, ast.IfExp))
        body: Sequence[ast.AST] = node.body if isinstance(node, ast.If) else [node.body]
        orelse: Sequence[ast.AST] = node.orelse if isinstance(node, ast.If) else [node.orelse]
        if orelse:
            self._push(orelse, scope, Block(block, "if", node, branch=False))
        self._push(body, scope, Block(block, "if", node, branch=True))
        self._push([node.test], scope, block)
        return True

    def _loop(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, (ast.For, ast.AsyncFor, ast.While))
        inner = Block(block, "loop", node)
        self._push([*node.body, *node.orelse], scope, inner)
        if isinstance(node, ast.While):
            self._push([node.test], scope, inner)
        else:
            self._push([node.iter], scope, block)
            for binding_path, binding in elements(node.target, node.iter, end_of(node.iter), inner, node):
                scope.bindings[binding_path].append(binding)
        return True

    def _try(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, (ast.Try, ast.TryStar))
        self._push(node.finalbody, scope, Block(block, "finally", node))
        self._push(node.orelse, scope, Block(block, "try", node))
        for handler in reversed(node.handlers):
            self._push(handler.body, scope, Block(block, "handler", node))
        self._push(node.body, scope, Block(block, "try", node))
        return True

    def _with(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, (ast.With, ast.AsyncWith))
        self._push(node.body, scope, Block(block, "with", node))
        for item in reversed(node.items):
            self._push([item.context_expr], scope, block)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, item.context_expr, "is", end_of(item.context_expr), scope, block, node)
        return True

    def _case(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.match_case)
        self._push([*([node.guard] if node.guard else []), *node.body], scope, Block(block, "case", node))
        return True

    def _assign(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.Assign)
        for target in node.targets:
            if isinstance(target, ast.Name):  # the most frequent by far
                scope.bindings[target.id].append(Binding(node.value, "is", end_of(node), block, node))
            else:
                self._bind(target, node.value, "is", end_of(node), scope, block, node)
        return False

    def _ann_assign(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.AnnAssign)
        if node.value is not None:
            self._bind(node.target, node.value, "is", end_of(node), scope, block, node)
        return False

    def _named(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.NamedExpr)
        self._bind(node.target, node.value, "is", end_of(node), scope, block, node)
        return False

    def _aug_assign(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.AugAssign)
        target = path_of(node.target)
        if target is not None:
            scope.bindings[target].append(Binding(node.value, "adds", end_of(node), block, node))
        return False

    def _call(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        """`things.append(one)` and `things.extend(some)` add to what `things` holds."""
        assert isinstance(node, ast.Call)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in ("append", "extend") and len(node.args) == 1:
            path = path_of(function.value)
            if path is not None:
                scope.bindings[path].append(Binding(node.args[0], "adds", end_of(node), block, node))
        return False

    def _global(self, node: ast.AST, scope: Scope, block: Block) -> bool:
        assert isinstance(node, ast.Global)
        for name in node.names:
            scope.globals.setdefault(name, node)
        return True

    def _bind(
        self, target: ast.expr, value: ast.expr, how: How, end: Position, scope: Scope, block: Block, statement: ast.AST
    ) -> None:
        for path, binding in bound(target, value, how, end, block, statement):
            scope.bindings[path].append(binding)


_HANDLERS = {
    ast.FunctionDef: Walker._function,
    ast.AsyncFunctionDef: Walker._function,
    ast.ClassDef: Walker._class,
    ast.Lambda: Walker._lambda,
    ast.ListComp: Walker._comprehension,
    ast.SetComp: Walker._comprehension,
    ast.GeneratorExp: Walker._comprehension,
    ast.DictComp: Walker._comprehension,
    ast.If: Walker._if,
    ast.IfExp: Walker._if,
    ast.For: Walker._loop,
    ast.AsyncFor: Walker._loop,
    ast.While: Walker._loop,
    ast.Try: Walker._try,
    ast.TryStar: Walker._try,
    ast.With: Walker._with,
    ast.AsyncWith: Walker._with,
    ast.match_case: Walker._case,
    ast.Assign: Walker._assign,
    ast.AnnAssign: Walker._ann_assign,
    ast.AugAssign: Walker._aug_assign,
    ast.NamedExpr: Walker._named,
    ast.Call: Walker._call,
    ast.Global: Walker._global,
}


def bound(
    target: ast.expr, value: ast.expr | None, how: How, end: Position, block: Block, statement: ast.AST
) -> Iterator[tuple[str, Binding]]:
    """The paths that an assignment binds, tuples taken apart as far as both sides are written out."""
    if isinstance(target, ast.Starred):
        target = target.value
    if isinstance(target, (ast.Tuple, ast.List)):
        parts: Sequence[ast.expr] | None = None
        if how == "is" and isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
            parts = value.elts
        for index, each in enumerate(target.elts):
            if parts is not None:
                yield from bound(each, parts[index], how, end, block, statement)
            else:
                for inner, binding in bound(each, value, how, end, block, statement):
                    yield inner, binding._replace(item=index)
        return
    path = path_of(target)
    if path is not None:
        yield path, Binding(value, how, end, block, statement)


def elements(
    target: ast.expr, iterable: ast.expr, end: Position, block: Block, statement: ast.AST
) -> Iterator[tuple[str, Binding]]:
    """What a loop or comprehension over `iterable` binds; `enumerate` and `zip` are seen through."""
    if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name) and isinstance(target, ast.Tuple):
        if iterable.func.id == "enumerate" and len(target.elts) == 2 and iterable.args:
            yield from bound(target.elts[0], None, "opaque", end, block, statement)
            yield from elements(target.elts[1], iterable.args[0], end, block, statement)
            return
        if iterable.func.id == "zip" and len(target.elts) == len(iterable.args):
            for each, argument in zip(target.elts, iterable.args, strict=True):
                yield from elements(each, argument, end, block, statement)
            return
    yield from bound(target, iterable, "element", end, block, statement)
