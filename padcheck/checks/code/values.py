"""What an expression can be, as far as one function (and the functions of its file) shows.

The values that matter are few: a tokenised batch and what is taken from it, counts made from its mask or ids, lengths of
texts that were encoded alone, decoded text, and the output of a forward pass. A container is what its elements are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from padcheck.checks.code.scopes import (
    Binding,
    Block,
    Position,
    Scope,
    called_name,
    elements,
    end_of,
    last_name,
    path_of,
    start_of,
)

Kind = Literal[
    "batch", "ids", "mask", "row", "mask-row",  # what a tokenizer returned; a row is one element of ids
    "mask-sum", "nonpad", "is-pad", "nonpad-count", "pad-count", "row-width",  # counts, and the comparisons that are counted
    "encoded", "decoded", "masked", "output", "parameter-mask",
]  # fmt: skip
Rows = Literal["one", "many", "unknown"]
Text = tuple[str, ...]
"""A text as the parts that are concatenated: ("prefix", "word")."""
Form = tuple[tuple[Text, int], ...]
"""A sum of encoded lengths: each text and how often its length counts."""

# fmt: off
_TRANSPARENT_METHODS = frozenset({
    "argmax", "bool", "clone", "contiguous", "copy", "cpu", "cuda", "detach", "double", "expand", "flatten", "float",
    "format", "half", "int", "item", "items", "join", "log_softmax", "long", "lstrip", "numpy", "permute", "repeat",
    "repeat_interleave", "reshape", "rstrip", "softmax", "squeeze", "strip", "to", "tolist", "type", "unsqueeze",
    "values", "view",
})
# fmt: on
"""Methods that give what they are called on, as far as these values go."""
# fmt: off
_TRANSPARENT_FUNCTIONS = frozenset({
    "LongTensor", "argmax", "array", "as_tensor", "asarray", "cat", "copy", "deepcopy", "float", "get_hidden_state",
    "int", "list", "log_softmax", "reversed", "softmax", "sorted", "stack", "tensor", "tuple",
})
# fmt: on
"""Functions that give what they are given."""
_ENCODERS = frozenset({"encode", "tokenize"})
_BATCH_ENCODERS = frozenset({"batch_encode_plus", "encode_plus", "encode_batch"})
_CHUNKS = ("chunk", "batch", "loader")
POSITION_HELPERS = frozenset({"find_fact_lookup_idx", "get_words_idxs_in_templates"})
"""The locate helpers of the ROME family, which every fork carries under these names; most count from the row's start."""
_DEPTH = 40
_FORMS = 4


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """One call of a tokenizer."""

    call: ast.Call
    scope: Scope
    block: Block
    tokenizer: str
    padding: Literal["no", "longest", "max_length"]
    rows: Rows
    side: str | None
    """Of the call itself (`padding_side=`): as written, "computed" where it is no constant, None where it says nothing."""

    @property
    def padded(self) -> bool:
        """Rows of this batch can hold pads."""
        return self.padding == "max_length" or (self.padding == "longest" and self.rows != "one")


class Atom(NamedTuple):
    """One thing an expression can be, and the node that made it so."""

    kind: Kind
    node: ast.expr
    batch: Batch | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """All that an expression can be."""

    atoms: frozenset[Atom] = frozenset()
    forms: frozenset[Form] = frozenset()
    origin: ast.expr | None = None
    """The first expression that gave `forms`."""

    def has(self, *kinds: Kind) -> bool:
        return any(atom.kind in kinds for atom in self.atoms)

    def of(self, *kinds: Kind) -> list[Atom]:
        """The atoms of some kinds, in the order of the text."""
        return sorted((atom for atom in self.atoms if atom.kind in kinds), key=lambda atom: start_of(atom.node))

    @property
    def from_start(self) -> bool:
        """A position counted from the first token of a text that was encoded alone."""
        return any(sum(count for _, count in form) > 0 for form in self.forms)

    @property
    def from_end(self) -> bool:
        """A negative position: the length of a text minus that of a longer one that begins with it."""
        return any(_is_negative(form) for form in self.forms)


NOTHING = Value()
POSITION: Form = ((("?",), 1),)
"""The form of a position whose text is not seen."""


def _is_negative(form: Form) -> bool:
    plus = [text for text, count in form if count > 0]
    minus = [text for text, count in form if count < 0]
    return len(plus) == len(minus) == 1 and len(minus[0]) > len(plus[0]) and minus[0][: len(plus[0])] == plus[0]


def union(values: Iterable[Value]) -> Value:
    """What one of several expressions can be."""
    atoms: frozenset[Atom] = frozenset()
    forms: frozenset[Form] = frozenset()
    origin: ast.expr | None = None
    for value in values:
        atoms |= value.atoms
        forms |= value.forms
        origin = origin or value.origin
    return Value(atoms, frozenset(sorted(forms)[:_FORMS]) if len(forms) > _FORMS else forms, origin)


def _combined(left: Value, right: Value, sign: int) -> frozenset[Form]:
    """The forms of left + sign · right."""
    if not right.forms:
        return left.forms
    result = set()
    for one in left.forms or {()}:
        for other in right.forms:
            total = dict(one)
            for text, count in other:
                total[text] = total.get(text, 0) + sign * count
            result.add(tuple(sorted((text, count) for text, count in total.items() if count)))
    return frozenset(sorted(result)[:_FORMS])


def is_tokenizer(path: str | None) -> bool:
    """Whether a path is called like a tokenizer."""
    name = last_name(path).lower()
    return (
        name in ("tok", "tokenizer", "tokeniser", "processing_class")
        or name.endswith(("tokenizer", "_tok"))
        or name.startswith(("tokenizer_", "tok_"))
    )


def is_model(path: str | None) -> bool:
    """Whether a path is called like a model."""
    name = last_name(path).lower()
    return name in ("model", "lm") or name.endswith(("_model", "model_"))


def calls_model(node: ast.Call) -> bool:
    """Whether what is called is called like a model."""
    return is_model(called_name(node)) and is_model(path_of(node.func))


_SUMS: dict[Kind, Kind] = {
    "mask": "mask-sum",
    "mask-row": "mask-sum",
    "parameter-mask": "mask-sum",
    "nonpad": "nonpad-count",
    "is-pad": "pad-count",
}
"""What the sum of a kind is."""


class Flow:
    """Answers what expressions of one file can be. `scopes`: all scopes of the file, the module first."""

    def __init__(self, scopes: list[Scope]) -> None:
        self.scopes = scopes
        self.functions: dict[str, Scope | None] = {}
        """Function by its bare name; None where two functions share it."""
        for scope in scopes:
            if isinstance(scope.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                name = scope.node.name
                self.functions[name] = None if name in self.functions else scope
        self._known: dict[tuple[int, int], Value] = {}
        self._open: set[tuple[int, int]] = set()
        self._batches: dict[int, Batch | None] = {}
        self._depth = 0
        self._alive: list[object] = []  # keeps blocks made here alive, since `_known` knows them by id

    # --- Names ------------------------------------------------------------------------------------------------------------

    def bindings(self, path: str, scope: Scope, block: Block, before: Position | None) -> tuple[list[Binding], Scope | None]:
        """What `path` can be bound to at a place, the latest first, and the scope that binds it.

        `before` is None for a look from an inner function, which may run at any time.
        """
        for outer in block.outwards():
            if outer.kind == "comprehension":
                for name, binding in self._comprehension_bindings(outer):
                    if name == path:
                        return [binding], scope
            elif outer.kind == "lambda" and isinstance(outer.node, ast.Lambda):
                arguments = outer.node.args
                if path in {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}:
                    return [], scope
        for each in scope.outwards():
            found = each.bindings.get(path)
            if not found:
                if path in each.parameters:
                    return [], each
                continue
            if each is not scope or before is None:
                return found[::-1], each
            result: list[Binding] = []
            for binding in reversed(found):
                if binding.end <= before:
                    result.append(binding)
                    if binding.how != "adds" and binding.block.encloses(block):
                        break
            return result or ([] if path in each.parameters else found[::-1]), each
        return [], None

    def _comprehension_bindings(self, block: Block) -> list[tuple[str, Binding]]:
        node = block.node
        assert isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp))
        result: list[tuple[str, Binding]] = []
        for generator in node.generators:
            result += elements(generator.target, generator.iter, end_of(generator.iter), block.parent or block, generator)
        return result

    def canonical(self, path: str, scope: Scope, block: Block, before: Position | None = None) -> str:
        """`path` with aliases undone: `tok` is `self.tok` after `tok = self.tok`."""
        for _ in range(4):
            found, _owner = self.bindings(path, scope, block, before)
            target = path_of(found[0].value) if len(found) == 1 and found[0].how == "is" and found[0].item is None else None
            if target is None or target == path:
                return path
            path = target
        return path

    # --- Values -----------------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr | None, scope: Scope, block: Block) -> Value:
        """What `node`, standing in `block` of `scope`, can be."""
        if node is None or isinstance(node, ast.Constant):
            return NOTHING
        key = (id(node), id(block))
        known = self._known.get(key)
        if known is not None:
            return known
        if key in self._open or self._depth > _DEPTH:
            return NOTHING
        self._open.add(key)
        self._depth += 1
        try:
            result = self._value(node, scope, block)
        finally:
            self._depth -= 1
            self._open.discard(key)
        self._known[key] = result
        return result

    def _value(self, node: ast.expr, scope: Scope, block: Block) -> Value:
        match node:
            case ast.Name():
                return self._path(node, node.id, scope, block)
            case ast.Attribute(value=inner, attr=attribute):
                return self._attribute(node, inner, attribute, scope, block)
            case ast.Subscript():
                return self._subscript(node, scope, block)
            case ast.Call():
                return self._call(node, scope, block)
            case ast.BinOp(left=left, op=operator, right=right):
                one, other = self.value(left, scope, block), self.value(right, scope, block)
                both = union((one, other))
                if isinstance(operator, (ast.Add, ast.Sub)):
                    return Value(both.atoms, _combined(one, other, 1 if isinstance(operator, ast.Add) else -1), both.origin)
                return Value(frozenset(atom for atom in both.atoms if atom.kind in ("output", "decoded")))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner_value = self.value(operand, scope, block)
                return Value(inner_value.atoms, _combined(NOTHING, inner_value, -1), inner_value.origin)
            case ast.IfExp(body=body, orelse=orelse):
                return union((self.value(body, scope, block), self.value(orelse, scope, block)))
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts) | ast.BoolOp(values=parts):
                return union(self.value(part, scope, block) for part in parts)
            case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element) | ast.SetComp(elt=element):
                return self.value(element, scope, self._inside(node, block))
            case ast.DictComp(value=element):
                return self.value(element, scope, self._inside(node, block))
            case ast.JoinedStr(values=parts):
                inner_value = union(
                    self.value(part.value, scope, block) for part in parts if isinstance(part, ast.FormattedValue)
                )
                return Value(frozenset(atom for atom in inner_value.atoms if atom.kind == "decoded"))
            case ast.Starred(value=inner) | ast.Await(value=inner) | ast.NamedExpr(value=inner):
                return self.value(inner, scope, block)
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                return self._comparison(node, left, operator, right, scope, block)
        return NOTHING

    def _inside(self, node: ast.expr, block: Block) -> Block:
        inner = Block(block, "comprehension", node)
        self._alive.append(inner)
        return inner

    def _path(self, node: ast.expr, path: str, scope: Scope, block: Block) -> Value:
        found, owner = self.bindings(path, scope, block, start_of(node))
        values = [self._bound(binding, owner or scope) for binding in found]
        if owner is not None and path in owner.parameters and not found and "mask" in path:
            values.append(Value(frozenset({Atom("parameter-mask", node)})))
        return union(values)

    def _bound(self, binding: Binding, scope: Scope) -> Value:
        if binding.how == "opaque" or binding.value is None:
            return NOTHING
        if binding.item is not None and isinstance(binding.value, ast.Call):
            returned = self._returned(binding.value, binding.item)
            if returned is not None:
                return returned
        value = self.value(binding.value, scope, binding.block)
        return self._element(value, binding.value) if binding.how == "element" else value

    def _element(self, value: Value, node: ast.expr) -> Value:
        """One element of a value: a row of ids; other containers are what their elements are."""
        to_row: dict[Kind, Kind] = {"ids": "row", "mask": "mask-row"}
        return Value(
            frozenset(atom._replace(kind=to_row.get(atom.kind, atom.kind)) for atom in value.atoms),
            value.forms,
            value.origin,
        )

    def _attribute(self, node: ast.expr, inner: ast.expr, attribute: str, scope: Scope, block: Block) -> Value:
        path = path_of(node)
        if path is not None and any(path in each.bindings for each in scope.outwards()):
            return self._path(node, path, scope, block)
        value = self.value(inner, scope, block)
        if attribute in ("shape", "device", "dtype", "ndim", "size"):
            return NOTHING
        if attribute in ("input_ids", "attention_mask"):
            return self._key(value, node, attribute)
        return Value(frozenset(atom for atom in value.atoms if atom.kind == "output"))

    def _key(self, value: Value, node: ast.expr, key: str) -> Value:
        kind: Kind = "mask" if key == "attention_mask" else "ids"
        return Value(
            frozenset(Atom(kind, node, atom.batch) for atom in value.atoms if atom.kind in ("batch", "ids", "mask"))
        )

    def _subscript(self, node: ast.Subscript, scope: Scope, block: Block) -> Value:
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            path, key = path_of(node), node.slice.value
            if path is not None and any(path in each.bindings for each in scope.outwards()):
                return self._path(node, path, scope, block)
            value = self.value(node.value, scope, block)
            if key in ("input_ids", "attention_mask"):
                return self._key(value, node, key)
            return Value(frozenset(atom for atom in value.atoms if atom.kind == "output"))
        value = self.value(node.value, scope, block)
        if isinstance(node.slice, ast.Slice):  # of a BatchEncoding: a list of its rows
            rows = frozenset(atom._replace(kind="ids") if atom.kind == "batch" else atom for atom in value.atoms)
            return Value(rows, value.forms, value.origin)
        if isinstance(node.slice, ast.Tuple):
            return value
        return self._element(value, node)

    def _comparison(
        self, node: ast.expr, left: ast.expr, operator: ast.cmpop, right: ast.expr, scope: Scope, block: Block
    ) -> Value:
        """`ids != tok.pad_token_id` and `ids == tok.pad_token_id`."""
        for ids, pad in ((left, right), (right, left)):
            if last_name(path_of(pad)) == "pad_token_id" and isinstance(operator, (ast.Eq, ast.NotEq)):
                kind: Kind = "nonpad" if isinstance(operator, ast.NotEq) else "is-pad"
                atoms = self.value(ids, scope, block).of("ids", "row", "batch")
                return Value(frozenset({Atom(kind, node, atoms[0].batch if atoms else None)}))
        return NOTHING

    # --- Calls ------------------------------------------------------------------------------------------------------------

    def _call(self, node: ast.Call, scope: Scope, block: Block) -> Value:
        batch = self.batch(node, scope, block)
        if batch is not None:
            return Value(frozenset({Atom("batch", node, batch)}))
        function, name = node.func, last_name(path_of(node.func))
        if isinstance(function, ast.Attribute):
            result = self._method(node, function, scope, block)
            if result is not None:
                return result
        if name == "len" and len(node.args) == 1:
            return self._length(node, node.args[0], scope, block)
        if name in ("sum", "count_nonzero") and node.args:
            return self._sum(node, self.value(node.args[0], scope, block))
        if name in ("not_equal", "ne") and len(node.args) == 2:
            return self._comparison(node, node.args[0], ast.NotEq(), node.args[1], scope, block)
        if name not in self.functions and calls_model(node):
            atoms = union(
                self.value(argument, scope, block) for argument in (*node.args, *(k.value for k in node.keywords))
            ).atoms
            return Value(frozenset(Atom("output", node, atom.batch) for atom in atoms if atom.kind in ("batch", "ids")))
        returned = self._returned(node)
        if returned is not None:
            return returned
        if name in POSITION_HELPERS:
            return Value(forms=frozenset({POSITION}), origin=node)
        if name in _TRANSPARENT_FUNCTIONS:
            return union(self.value(argument, scope, block) for argument in node.args)
        return NOTHING

    def _method(self, node: ast.Call, function: ast.Attribute, scope: Scope, block: Block) -> Value | None:
        attribute, receiver = function.attr, function.value
        if attribute in _ENCODERS and node.args and self.names_tokenizer(receiver, scope, block):
            return Value(frozenset({Atom("encoded", node)}))
        if attribute in ("decode", "batch_decode") and node.args and self.names_tokenizer(receiver, scope, block):
            return Value(frozenset({Atom("decoded", node)}))
        if attribute == "sum":
            summed = self._sum(node, self.value(receiver, scope, block))
            if summed is not NOTHING:
                return summed
        if attribute in ("ne", "eq") and len(node.args) == 1:
            operator = ast.NotEq() if attribute == "ne" else ast.Eq()
            return self._comparison(node, receiver, operator, node.args[0], scope, block)
        if attribute in ("masked_fill", "masked_fill_"):
            return Value(frozenset({Atom("masked", node)}))
        if attribute in _TRANSPARENT_METHODS:
            values = [self.value(receiver, scope, block)]
            if attribute in ("format", "join"):
                values += [self.value(argument, scope, block) for argument in node.args]
            if path_of(receiver) in ("torch", "np", "numpy", "F", "torch.nn.functional"):
                values = [self.value(argument, scope, block) for argument in node.args]
            return union(values)
        return None

    def _sum(self, node: ast.expr, value: Value) -> Value:
        atoms = frozenset(Atom(_SUMS[atom.kind], node, atom.batch) for atom in value.atoms if atom.kind in _SUMS)
        return Value(atoms) if atoms else NOTHING

    def _length(self, node: ast.Call, argument: ast.expr, scope: Scope, block: Block) -> Value:
        value = self.value(argument, scope, block)
        atoms: set[Atom] = set()
        texts: set[Form] = set()
        for atom in value.atoms:
            if atom.kind == "encoded" and isinstance(atom.node, ast.Call):
                texts.add(((self._text(atom.node.args[0]), 1),))
            elif atom.kind in ("row", "ids") and atom.batch is not None:
                alone = atom.batch.padding == "no" and (atom.kind == "row" or atom.batch.rows == "one")
                if alone and atom.batch.call.args:
                    texts.add(((self._text(atom.batch.call.args[0]), 1),))
                elif atom.kind == "row" and atom.batch.padding != "no":
                    atoms.add(Atom("row-width", node, atom.batch))
        return Value(frozenset(atoms), frozenset(texts), node if texts else None)

    def _text(self, node: ast.expr) -> Text:
        """The parts that `node` concatenates."""
        parts: list[str] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            parts.append(ast.dump(node.right))
            node = node.left
        return (ast.dump(node), *reversed(parts))

    def _returned(self, node: ast.Call, item: int | None = None) -> Value | None:
        """What a function of this file returns; None if the call goes elsewhere. `item`: of the tuple that it returns."""
        path = path_of(node.func)
        name = last_name(path)
        callee = self.functions.get(name)
        if callee is None or path not in (name, f"self.{name}", f"cls.{name}"):
            return None
        values = []
        for site in callee.find(ast.Return):
            assert isinstance(site.node, ast.Return)
            returned = site.node.value
            if item is not None and isinstance(returned, ast.Tuple) and item < len(returned.elts):
                returned = returned.elts[item]
            values.append(self.value(returned, callee, site.block))
        result = union(values)
        positions = frozenset(
            a for a in result.atoms if a.kind in ("mask-sum", "nonpad-count", "pad-count", "ids", "mask", "batch")
        )
        return Value(positions, result.forms, node if result.forms else None)

    # --- Tokenizers -------------------------------------------------------------------------------------------------------

    def names_tokenizer(self, node: ast.expr, scope: Scope, block: Block) -> bool:
        """Whether an expression is a tokenizer by its name or by how it was made."""
        path = path_of(node)
        if path is None:
            return False
        if is_tokenizer(path):
            return True
        if isinstance(node, ast.Name):
            found, owner = self.bindings(path, scope, block, start_of(node))
            return bool(owner) and any(makes_tokenizer(binding.value) for binding in found)
        return False

    def batch(self, node: ast.Call, scope: Scope, block: Block) -> Batch | None:
        """The batch that a call of a tokenizer makes, or None if the call is something else."""
        key = id(node)
        if key not in self._batches:
            self._batches[key] = self._made_batch(node, scope, block)
        return self._batches[key]

    def _made_batch(self, node: ast.Call, scope: Scope, block: Block) -> Batch | None:
        function: ast.expr = node.func
        if isinstance(function, ast.Attribute) and function.attr in _BATCH_ENCODERS:
            function = function.value
        elif called_name(node) in self.functions and path_of(function) is not None:
            return None
        text = node.args[0] if node.args else next((k.value for k in node.keywords if k.arg in ("text", "text_input")), None)
        if text is None or not self.names_tokenizer(function, scope, block):
            return None
        options = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        side = options.get("padding_side")
        return Batch(
            node,
            scope,
            block,
            self.canonical(path_of(function) or "", scope, block, start_of(node)),
            _padding(options.get("padding"), options.get("pad_to_max_length")),
            self.rows(text, scope, block),
            None if side is None else str(side.value) if isinstance(side, ast.Constant) else "computed",
        )

    def rows(self, node: ast.expr, scope: Scope, block: Block, depth: int = 0) -> Rows:
        """How many texts an expression holds."""
        match node:
            case ast.Constant() | ast.JoinedStr() | ast.BinOp(op=ast.Add(), left=ast.Constant() | ast.JoinedStr()):
                return "one"
            case ast.BinOp(op=ast.Add(), left=left, right=right) if depth < 4:
                if isinstance(left, (ast.List, ast.ListComp)) or isinstance(right, (ast.List, ast.ListComp)):
                    return "many"
                both = {self.rows(left, scope, block, depth + 1), self.rows(right, scope, block, depth + 1)}
                return "many" if "many" in both else "one" if "one" in both else "unknown"
            case ast.Call(
                func=ast.Attribute(attr="join" | "format" | "strip" | "replace" | "apply_chat_template" | "decode")
            ):
                return "one"
            case ast.Call(func=ast.Name(id="list" | "tuple" | "sorted")):
                return "many"
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                if any(isinstance(part, ast.Starred) for part in parts):
                    return "many"
                return "one" if len(parts) == 1 else "many"
            case ast.ListComp():
                return "many"
            case ast.Name(id=name) if depth < 4:
                return self._rows_of_name(node, name, scope, block, depth)
            case ast.Subscript(slice=ast.Slice()):
                return "many"
        return "unknown"

    def _rows_of_name(self, node: ast.Name, name: str, scope: Scope, block: Block, depth: int) -> Rows:
        found, owner = self.bindings(name, scope, block, start_of(node))
        if owner is None:
            return "unknown"
        results: set[Rows] = set()
        for binding in found:
            if binding.value is None or binding.item is not None:
                results.add("unknown")
            elif binding.how == "element":
                words = ast.dump(binding.value).lower()
                results.add("unknown" if any(word in words for word in _CHUNKS) else "one")
            elif binding.how == "adds":
                results.add("many")
            else:
                results.add(self.rows(binding.value, owner, binding.block, depth + 1))
        if name in owner.parameters and not any(binding.block.encloses(block) for binding in found):
            results.add(_annotated_rows(owner, name))
        return "many" if "many" in results else "unknown" if "unknown" in results or not results else "one"


def _annotated_rows(scope: Scope, name: str) -> Rows:
    """How many texts a parameter holds by its annotation."""
    assert isinstance(scope.node, (ast.FunctionDef, ast.AsyncFunctionDef))
    arguments = scope.node.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.arg == name and argument.annotation is not None:
            text = ast.dump(argument.annotation).lower()
            if "'list'" in text or "'sequence'" in text or "'iterable'" in text:
                return "unknown" if "'union'" in text else "many"
            return "one" if text == "name(id='str', ctx=load())" else "unknown"
    return "unknown"


def makes_tokenizer(node: ast.expr | None) -> bool:
    """`AutoTokenizer.from_pretrained(...)` and the like."""
    if not isinstance(node, ast.Call):
        return False
    path = (path_of(node.func) or "").lower()
    return "tokenizer" in path and ("from_pretrained" in path or "get_tokenizer" in path or "load_tokenizer" in path)


def _padding(padding: ast.expr | None, to_max_length: ast.expr | None) -> Literal["no", "longest", "max_length"]:
    if isinstance(to_max_length, ast.Constant) and to_max_length.value is True:
        return "max_length"
    match padding:
        case None | ast.Constant(value=False | None | "do_not_pad"):
            return "no"
        case ast.Constant(value="max_length"):
            return "max_length"
        case ast.Constant():
            return "longest"
    return "no"  # decided elsewhere: nothing certain can be said
