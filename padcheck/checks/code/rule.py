"""What a rule about Python code is: the words that make a file worth parsing, the nodes it looks at, and a function."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from padcheck.checks.code.reading import Source
from padcheck.checks.code.scopes import Block, Scope, Site, last_name, path_of
from padcheck.checks.code.sides import Known, PaddingSide, Sides
from padcheck.checks.code.values import Atom, Batch, Flow
from padcheck.diagnostics import Confidence, Fix, Severity, TextEdit

ALWAYS_RECORDED: frozenset[type[ast.AST]] = frozenset({ast.Assign, ast.If, ast.IfExp, ast.Assert, ast.Call})
"""What the facts need of every scope, whatever rules run."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a rule found at a node, before it is a finding."""

    node: ast.expr | ast.stmt
    message: str
    remedy: str
    severity: Severity | None = None
    """None: the rule's own."""
    confidence: Confidence = "high"
    related: tuple[tuple[str, ast.expr | ast.stmt], ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    fix: Fix | None = None


class Against(NamedTuple):
    """What speaks against relying on a padding side: how grave it is, what is known of the side, and the batch."""

    severity: Severity
    known: Known
    batch: Batch


class File:
    """Everything rules can ask about one file."""

    def __init__(self, source: Source, scopes: list[Scope]) -> None:
        self.source = source
        self.scopes = scopes
        self.module = scopes[0]
        self.flow = Flow(scopes)
        self.sides = Sides(self.flow, mentioned="padding_side" in source.text)
        self._pinned: set[int] = set()

    # --- Batches and their sides ------------------------------------------------------------------------------------------

    def against(self, batch: Batch | None, needed: PaddingSide, use: Block) -> Against | None:
        """What speaks against relying on `needed` for a batch: an error where the other side is certain, else a warning.

        None: the batch has no pads, or the side is looked after.
        """
        if batch is None or not batch.padded:
            return None
        known = self.sides.of(batch, use)
        if known.side == needed or known.guarded:
            return None
        certain = known.side is not None and (batch.rows == "many" or batch.padding == "max_length")
        return Against("error" if certain else "warning", known, batch)

    def first_against(self, atoms: Iterable[Atom], needed: PaddingSide, use: Block) -> Against | None:
        """The same for the first of several batches that something speaks against."""
        return next((found for atom in atoms if (found := self.against(atom.batch, needed, use)) is not None), None)

    def pin(self, batch: Batch, side: PaddingSide) -> Fix | None:
        """Name the side in the call of the tokenizer (transformers 4.45 and later take it there). Once per call."""
        keyword = next((each for each in batch.call.keywords if each.arg == "padding"), None)
        if keyword is None or batch.side is not None or id(batch.call) in self._pinned:
            return None
        self._pinned.add(id(batch.call))
        end = self.source.end(keyword.value)
        edit = self.source.edit(end, end, f', padding_side="{side}"')
        return Fix(
            f"Pad this batch on the {side}, whatever the tokenizer's side is (transformers 4.45 and later).",
            (edit,),
            "unsafe",
        )

    def padded_batches(self, scope: Scope) -> list[Batch]:
        """The padded batches that a function, or one around it, makes."""
        result = []
        for each in scope.outwards():
            if each is not self.module or scope is self.module:
                for site in each.find(ast.Call):
                    assert isinstance(site.node, ast.Call)
                    batch = self.flow.batch(site.node, each, site.block)
                    if batch is not None and batch.padded:
                        result.append(batch)
        return result

    @cached_property
    def uses_collator(self) -> bool:
        """Whether the file speaks of the data collators of transformers."""
        return "DataCollator" in self.source.text

    @cached_property
    def counts_from_start(self) -> bool:
        """Whether labels are written at columns counted by an attention mask: this editor counts from the row's start."""
        return any(True for scope in self.scopes for _ in self.mask_slices(scope))

    def mask_slices(self, scope: Scope) -> Iterator[tuple[Site, ast.Subscript, Batch | None]]:
        """Stores to a slice whose bounds come from the sum of an attention mask."""
        for site in scope.find(ast.Assign):
            assert isinstance(site.node, ast.Assign)
            for target in site.node.targets:
                if isinstance(target, ast.Subscript):
                    for bound in slice_bounds(target):
                        sums = self.flow.value(bound, scope, site.block).of("mask-sum")
                        if sums:
                            yield site, target, sums[0].batch
                            break

    # --- Texts ------------------------------------------------------------------------------------------------------------

    def text(self, node: ast.expr | ast.stmt, limit: int = 60) -> str:
        """The node as written, on one line, shortened."""
        text = " ".join(self.source.segment(node).split())
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def said_by(self, known: Known) -> str:
        """Where the side is known from, for a message."""
        if known.side is None or known.node is None:
            return ""
        return f" The side is {known.side} here (line {known.node.lineno})."


ScopeCheck = Callable[[File, Scope], Iterator[Report]]
NodeCheck = Callable[[File, Scope, Any, Block], Iterator[Report]]


class Words(dict[str, bool]):
    """Which words a text holds; each is looked for once, however many rules ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __missing__(self, word: str) -> bool:
        self[word] = word in self.text
        return self[word]


@dataclass(frozen=True, slots=True)
class CodeRule:
    """A rule. It runs where the text holds, of every group of `words`, at least one, and its `pattern`, if it has one."""

    id: str
    words: tuple[tuple[str, ...], ...]
    pattern: str | None
    nodes: tuple[type[ast.AST], ...]
    """The node types it looks at; none for a rule that looks at whole scopes."""
    check: ScopeCheck | NodeCheck

    def concerns(self, words: Words) -> bool:
        if not all(any(words[word] for word in group) for group in self.words):
            return False
        return self.pattern is None or re.search(self.pattern, words.text) is not None

    def run(self, file: File) -> Iterator[Report]:
        for scope in file.scopes:
            if not self.nodes:
                yield from self.check(file, scope)  # type: ignore[call-arg]
            for kind in self.nodes:
                for site in scope.find(kind):
                    yield from self.check(file, scope, site.node, site.block)  # type: ignore[call-arg]


RULES: dict[str, CodeRule] = {}
"""Every rule by its id, in the order of the modules that define them."""


def rule(
    rule_id: str, *nodes: type[ast.AST], words: Sequence[Sequence[str]], pattern: str | None = None
) -> Callable[[Callable[..., Iterator[Report]]], Callable[..., Iterator[Report]]]:
    """Declare a rule. The function takes (file, scope, node, block), or (file, scope) if it names no node types.

    `words` and `pattern` say which files can hold a finding at all. They may err on the side of parsing too much only.
    """

    def register(check: Callable[..., Iterator[Report]]) -> Callable[..., Iterator[Report]]:
        assert rule_id not in RULES, f"{rule_id} is declared twice"
        RULES[rule_id] = CodeRule(rule_id, tuple(tuple(group) for group in words), pattern, nodes, check)
        return check

    return register


# --- Shapes of expressions that several rules know -------------------------------------------------------------------------


def slice_bounds(node: ast.Subscript) -> list[ast.expr]:
    """The lower and upper bounds of all slices in a subscript."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return [
        bound for part in parts if isinstance(part, ast.Slice) for bound in (part.lower, part.upper) if bound is not None
    ]


def indices(node: ast.Subscript) -> list[ast.expr]:
    """What a subscript is indexed with, slices and texts left out."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return [part for part in parts if not isinstance(part, (ast.Slice, ast.Constant))]


def is_minus_one(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and _is_constant(node.operand, 1)


def is_ignored_label(node: ast.expr, file: File, scope: Scope, block: Block) -> bool:
    """-100, written or by name: what the loss leaves out."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _is_constant(node.operand, 100)
    name = last_name(path_of(node)).lower()
    if name in ("mask_token", "ignore_index", "ignore_id", "label_pad_token_id", "ignore_token_id"):
        return True
    if isinstance(node, ast.Name):
        found, owner = file.flow.bindings(node.id, scope, block, (node.lineno, node.col_offset))
        return bool(owner) and any(
            isinstance(binding.value, ast.UnaryOp) and is_ignored_label(binding.value, file, scope, block)
            for binding in found
        )
    return False


def _is_constant(node: ast.expr, number: int) -> bool:
    return isinstance(node, ast.Constant) and node.value == number and type(node.value) is int


def width_of(node: ast.expr) -> ast.expr | None:
    """`x` of `x.size(1)`, `x.shape[1]` and `x.shape[-1]`."""
    match node:
        case ast.Call(func=ast.Attribute(attr="size", value=tensor), args=[ast.Constant(value=1)]):
            return tensor
        case ast.Call(func=ast.Attribute(attr="size", value=tensor), args=[minus]) if is_minus_one(minus):
            return tensor
        case ast.Subscript(value=ast.Attribute(attr="shape", value=tensor), slice=ast.Constant(value=1)):
            return tensor
        case ast.Subscript(value=ast.Attribute(attr="shape", value=tensor), slice=minus) if is_minus_one(minus):
            return tensor
    return None


def assigned_in(statements: Sequence[ast.stmt]) -> dict[str, ast.stmt]:
    """The paths that these statements themselves assign (not those of nested blocks), each with the first that does."""
    result: dict[str, ast.stmt] = {}
    for statement in statements:
        targets: Sequence[ast.expr] = ()
        if isinstance(statement, ast.Assign):
            targets = [
                each for target in statement.targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])
            ]
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        for target in targets:
            path = path_of(target)
            if path is not None:
                result.setdefault(path, statement)
    return result


def chain_of(node: ast.If) -> tuple[list[ast.If], list[ast.stmt]]:
    """The `if` and its `elif`s, and the body of the final `else` (empty if there is none)."""
    links = [node]
    while len(links[-1].orelse) == 1 and isinstance(links[-1].orelse[0], ast.If):
        links.append(links[-1].orelse[0])
    return links, links[-1].orelse


def is_elif(node: ast.If, block: Block) -> bool:
    """Whether an `if` is the only statement of an `else`, i.e. part of a chain that began before."""
    parent = block.node
    return block.kind == "if" and not block.branch and isinstance(parent, ast.If) and parent.orelse == [node]


def insertion(source: Source, line: int, text: str) -> TextEdit:
    """Put `text` at the beginning of a line."""
    return source.edit((line, 0), (line, 0), text)
