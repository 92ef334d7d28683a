"""Rules about positions that are right under one padding side only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from padcheck.checks.code.rule import File, Report, indices, is_ignored_label, is_minus_one, rule, slice_bounds, width_of
from padcheck.checks.code.scopes import Block, Scope, Site, last_name, path_of, start_of
from padcheck.checks.code.sides import PaddingSide
from padcheck.checks.code.values import POSITION, Atom, Batch, Value

_NAMES_POSITION = re.compile(r"(^|_)(idx|idxs|index|indices|indexes|position|positions|pos|loc|locs)(_|$)")
_NAMES_OUTPUT = re.compile(r"(^|_)(pred|preds|logits|logit|log_probs|outputs|output)(_|$)")
_NAMES_TARGET = re.compile(r"(^|_)(targ|target|targets|label|labels)(_|$|ids)")
_PIN = "Pass padding_side={side!r} to the tokenizer call, or take the position from offsets (padcheck.locate)."


@rule(
    "COD103",
    words=[["attention_mask"], ["sum"], ["tok", "processing_class"], ["padding=", "padding =", "pad_to_max_length"]],
)
def mask_count_as_slice_end(file: File, scope: Scope) -> Iterator[Report]:
    """`rows[i, n - k : n] = ids` with n the sum of an attention mask."""
    for site, target, batch in file.mask_slices(scope):
        found = file.against(batch, "right", site.block)
        if found is None or _is_dead(scope, target):
            continue
        severity, known, batch = found
        yield Report(
            target,
            f"{file.text(target)} counts from the start of the row by the attention mask: that is where the text ends"
            f" only if the pads stand on the right.{file.said_by(known)}",
            _PIN.format(side="right"),
            severity=severity,
            related=(("the padded batch", batch.call),),
            evidence={"needs": "right", "side": known.side},
            fix=file.pin(batch, "right"),
        )


def _is_dead(scope: Scope, target: ast.Subscript) -> bool:
    """Whether what is written to is never read again in its function, but to be written to or measured."""
    base: ast.expr = target
    while isinstance(base, ast.Subscript):
        base = base.value
    if not isinstance(base, ast.Name) or not scope.is_function or base.id in scope.parameters:
        return False
    name = base.id
    idle: set[int] = set()
    loads: list[ast.Name] = []
    for node in ast.walk(scope.node):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            inner: ast.expr = node.targets[0]
            while isinstance(inner, ast.Subscript):
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == name:
                idle.update(id(each) for each in ast.walk(node.targets[0]))
        elif isinstance(node, ast.Attribute) and node.attr in ("size", "shape"):
            idle.add(id(node.value))
        elif isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            loads.append(node)
    return all(id(load) in idle for load in loads)


@rule(
    "COD104",
    ast.Subscript,
    ast.Call,
    words=[["attention_mask"], ["sum"], ["tok", "processing_class"], ["padding=", "padding =", "pad_to_max_length"]],
)
def mask_count_as_index(file: File, scope: Scope, node: ast.Subscript | ast.Call, block: Block) -> Iterator[Report]:
    """`logits[arange, mask.sum(1) - 1]`, `torch.gather(logits, 1, mask.sum(1) - 1)`, `row[: mask.sum()]`."""
    if isinstance(node, ast.Call):
        used = node.args[-1:] if last_name(path_of(node.func)) in ("gather", "index_select", "take_along_dim") else []
    else:
        used = indices(node)
        if isinstance(node.ctx, ast.Load):
            used = used + slice_bounds(node)
    for expression in used:
        for atom in file.flow.value(expression, scope, block).of("mask-sum"):
            yield from _counted_by_mask(file, node, block, atom)
            break


def _counted_by_mask(file: File, node: ast.Subscript | ast.Call, block: Block, atom: Atom) -> Iterator[Report]:
    found = file.against(atom.batch, "right", block)
    if found is None:
        return
    severity, known, batch = found
    yield Report(
        atom.node,
        f"{file.text(atom.node)} is the position behind the last token only if the pads stand on the right, and"
        f" {file.text(node, 40)} uses it as an index.{file.said_by(known)}",
        "Take the last column under left padding, or "
        + _PIN.format(side="right")[0].lower()
        + _PIN.format(side="right")[1:],
        severity=severity,
        related=(("used here", node), ("the padded batch", batch.call)),
        evidence={"needs": "right", "side": known.side},
        fix=file.pin(batch, "right"),
    )


@rule(
    "COD105",
    ast.Subscript,
    ast.Return,
    words=[["tok"], ["len(", "lookup_idx", "words_idxs"], ["encode(", "tokenize(", "input_ids", "_idx"]],
    pattern=r"padding\s*=|pad_to_max_length|def \w*(?:idx|ind|pos|loc)",
)
def encoded_length_as_index(file: File, scope: Scope, node: ast.Subscript | ast.Return, block: Block) -> Iterator[Report]:
    """A length of text that was encoded alone is used as a column of a padded batch, or handed out as a position."""
    if isinstance(node, ast.Return):
        yield from _returned_position(file, scope, node, block)
    else:
        yield from _used_position(file, scope, node, block)


def _returned_position(file: File, scope: Scope, node: ast.Return, block: Block) -> Iterator[Report]:
    if not isinstance(scope.node, ast.FunctionDef) or node.value is None or not _NAMES_POSITION.search(scope.node.name):
        return
    value = file.flow.value(node.value, scope, block)
    if not value.from_start or value.from_end or POSITION in value.forms or not _is_position(node.value):
        return
    if _used_here(file, scope.node.name) or file.sides.is_read(scope, block) or next(index_of_mixed_sign(file, scope), None):
        return  # reported where it is used, or for the graver reason
    earlier = next((site.node for site in scope.find(ast.Return) if _counts_from_start(file, scope, site)), node)
    if earlier is not node:
        return  # once per function
    yield Report(
        node.value,
        f"{scope.qualname}() returns positions counted in text that was encoded alone: in a padded batch they are right"
        " only if the pads stand on the right, and neither the function nor its name says so.",
        "Say in the name or the documentation which side the numbers are for, or take positions from offsets"
        " (padcheck.locate).",
        severity="warning",
        confidence="medium",
        evidence={"needs": "right", "side": None},
    )


def _counts_from_start(file: File, scope: Scope, site: Site) -> bool:
    assert isinstance(site.node, ast.Return)
    return file.flow.value(site.node.value, scope, site.block).from_start


def _used_here(file: File, name: str) -> bool:
    """Whether a function of this file that makes padded batches calls `name`."""
    return any(
        last_name(path_of(site.node.func)) == name
        for scope in file.scopes
        for site in scope.find(ast.Call)
        if isinstance(site.node, ast.Call) and last_name(path_of(site.node.func)) == name and file.padded_batches(scope)
    )


def _used_position(file: File, scope: Scope, node: ast.Subscript, block: Block) -> Iterator[Report]:
    bounds = slice_bounds(node) if isinstance(node.ctx, ast.Load) else []
    for expression in [*indices(node), *bounds]:
        value = file.flow.value(expression, scope, block)
        if not value.from_start or value.origin is None:
            continue
        receiver = file.flow.value(node.value, scope, block)
        batch = _indexed_batch(file, scope, receiver, certain=expression in bounds)
        if batch is None or (POSITION in value.forms and len(value.forms) == 1 and not file.counts_from_start):
            continue  # a helper seen only by its name may count from the end, as FastEdit's does
        found = file.against(batch, "right", block)
        if found is None:
            continue
        severity, known, batch = found
        yield Report(
            value.origin,
            f"{file.text(value.origin)} counts tokens of text that was encoded alone; {file.text(node, 40)} uses the"
            " number as a column of a padded batch, where it is right only if the pads stand on the"
            f" right.{file.said_by(known)}",
            _PIN.format(side="right"),
            severity=severity,
            related=(("used here", node), ("the padded batch", batch.call)),
            evidence={"needs": "right", "side": known.side},
            fix=file.pin(batch, "right"),
        )


def _indexed_batch(file: File, scope: Scope, receiver: Value, *, certain: bool) -> Batch | None:
    """The padded batch that a subscript indexes: the receiver's own, or the one this function makes."""
    if receiver.has("encoded", "decoded"):
        return None
    batches = [
        atom.batch for atom in receiver.of("output", "ids", "mask", "row", "mask-row", "batch") if atom.batch is not None
    ]
    if batches or certain:
        return next((batch for batch in batches if batch.padded), None)
    if receiver.forms or receiver.atoms:
        return None
    padded = file.padded_batches(scope)
    return padded[0] if padded else None


@rule("COD106", words=[["tok"], ["encode(", "tokenize("], ["len("], ["return"]])
def index_of_mixed_sign(file: File, scope: Scope) -> Iterator[Report]:
    """One function returns positions from the start of the row in one branch and from its end in another."""
    if not scope.is_function:
        return
    start: ast.expr | None = None
    end: ast.expr | None = None
    for site in scope.find(ast.Return):
        assert isinstance(site.node, ast.Return)
        value = file.flow.value(site.node.value, scope, site.block)
        if site.node.value is None or not _is_position(site.node.value):
            continue
        if value.from_end:
            end = end or site.node.value
        elif value.from_start:
            start = start or site.node.value
    if start is not None and end is not None:
        yield Report(
            end,
            f"{scope.qualname}() returns a negative position here, counted from the end of the row, and one counted"
            f" from the start on line {start.lineno}: on a padded batch no padding side is right for both.",
            "Count from one end in all branches, or take positions from offsets (padcheck.locate).",
            related=(("counted from the start", start),),
        )


def _is_position(node: ast.expr) -> bool:
    """Not a dictionary or a call that may do anything with what it is given."""
    return not isinstance(node, (ast.Dict, ast.Call))


@rule(
    "COD107",
    ast.Subscript,
    ast.Call,
    ast.Assign,
    words=[["-1"], ["tok", "processing_class"], ["padding=", "padding =", "pad_to_max_length", "[-1]"]],
)
def last_column_of_padded_batch(file: File, scope: Scope, node: ast.AST, block: Block) -> Iterator[Report]:
    """The constant -1 as a position in a padded batch."""
    if isinstance(node, ast.Subscript):
        yield from _last_column(file, scope, node, block)
    elif isinstance(node, ast.Call):
        yield from _listed_minus_one(file, scope, node)
    elif isinstance(node, ast.Assign):
        yield from _returned_minus_one(file, scope, node)


def _last_column(file: File, scope: Scope, node: ast.Subscript, block: Block) -> Iterator[Report]:
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
    if len(parts) < 2 or not is_minus_one(parts[1]) or not isinstance(node.ctx, ast.Load):
        return
    if not isinstance(parts[0], ast.Slice) or parts[0].lower or parts[0].upper:
        return
    outputs = [
        atom
        for atom in file.flow.value(node.value, scope, block).of("output")
        if isinstance(atom.node, ast.Call) and not any(k.arg == "past_key_values" for k in atom.node.keywords)
    ]
    found = file.first_against(outputs, "left", block)
    if found is not None:
        yield Report(
            node,
            f"{file.text(node)} takes the last column of a padded batch: that is the last token of every row only if"
            f" the pads stand on the left.{file.said_by(found.known)}",
            'Pass padding_side="left" to the tokenizer call, or index with the attention mask.',
            severity=found.severity,
            related=(("the padded batch", found.batch.call),),
            evidence={"needs": "left", "side": found.known.side},
            fix=file.pin(found.batch, "left"),
        )


def _listed_minus_one(file: File, scope: Scope, node: ast.Call) -> Iterator[Report]:
    """`idxs=[[-1] for _ in templates]`."""
    for keyword in node.keywords:
        if keyword.arg is None or not _NAMES_POSITION.search(keyword.arg):
            continue
        value = keyword.value
        many = isinstance(value, ast.ListComp) or (isinstance(value, ast.List) and len(value.elts) > 1)
        element = (
            value.elt
            if isinstance(value, ast.ListComp)
            else value.elts[0]
            if isinstance(value, ast.List) and value.elts
            else value
        )
        inner = element.elts[0] if isinstance(element, ast.List) and element.elts else element
        if many and is_minus_one(inner) and not file.sides.is_read(scope):
            yield Report(
                value,
                f"{keyword.arg}={file.text(value)} looks at the last column of several rows that are padded together:"
                " that is the last token of every row only if the pads stand on the left, and nothing here says so.",
                "Compute the position of each row's last token under the side that the tokenizer pads on (padcheck.locate).",
                severity="warning",
                evidence={"needs": "left", "side": None},
            )


def _returned_minus_one(file: File, scope: Scope, node: ast.Assign) -> Iterator[Report]:
    """`ret = -1` in a lookup function of an editor that otherwise counts from the start."""
    if (
        not isinstance(scope.node, ast.FunctionDef)
        or not is_minus_one(node.value)
        or not isinstance(node.targets[0], ast.Name)
    ):
        return
    name = node.targets[0].id
    if not _NAMES_POSITION.search(scope.node.name) or "tok" not in " ".join(scope.parameters):
        return
    returned = any(
        isinstance(site.node, ast.Return) and isinstance(site.node.value, ast.Name) and site.node.value.id == name
        for site in scope.find(ast.Return)
    )
    if returned and file.counts_from_start:
        yield Report(
            node,
            f"{scope.qualname}() returns -1 for this case, the last column of the padded row, while this file counts"
            " its labels from the start of the row: no padding side is right for both.",
            "Return the position of the prompt's last token, counted like the others.",
            severity="warning",
            evidence={"needs": "left", "side": None},
        )


@rule("COD108", ast.Subscript, words=[["targ", "label"], ["size(", "shape["]], pattern=r"-\s*[^\s:,]+\.(?:size\(|shape\[)")
def tail_alignment(file: File, scope: Scope, node: ast.Subscript, block: Block) -> Iterator[Report]:
    """`pred[:, -targ.size(1):]`."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
    if len(parts) < 2 or not isinstance(parts[1], ast.Slice) or not isinstance(node.ctx, ast.Load):
        return
    lower = parts[1].lower
    if not (isinstance(lower, ast.UnaryOp) and isinstance(lower.op, ast.USub)):
        return
    target = width_of(lower.operand)
    if target is None or not _NAMES_TARGET.search(last_name(path_of(target)).lower()):
        return
    batches = [atom.batch for atom in file.flow.value(target, scope, block).of("ids", "batch") if atom.batch is not None]
    if batches:
        found = file.against(batches[0], "left", block)
        if found is None:
            return
        severity, said, fix = found.severity, file.said_by(found.known), file.pin(found.batch, "left")
    else:
        if not _NAMES_OUTPUT.search(last_name(path_of(node.value)).lower()) or _is_local(file, scope, target, block):
            return
        severity, said, fix = "note", "", None
    yield Report(
        node,
        f"{file.text(node)} aligns the ends of predictions and targets: in a batch of several rows the ends are tokens"
        f" only if both are padded on the left.{said}",
        "Give the targets the predictions' length, -100 where nothing is to be learnt, and compare column by column.",
        severity=severity,
        evidence={"needs": "left"},
        fix=fix,
    )


def _is_local(file: File, scope: Scope, node: ast.expr, block: Block) -> bool:
    """Made in this function from something that is not seen to be padded: nothing can be said of it."""
    path = path_of(node) or ""
    found, owner = file.flow.bindings(path, scope, block, start_of(node))
    return owner is scope and bool(found) and path not in scope.parameters


@rule(
    "COD109",
    ast.Assign,
    words=[["tok"], ["-100", "mask_token", "ignore_index"], ["padding=", "padding =", "pad_to_max_length"]],
)
def prompt_length_as_label_start(file: File, scope: Scope, node: ast.Assign, block: Block) -> Iterator[Report]:
    """`labels[i][:n] = -100` with n the prompt's tokens."""
    target = node.targets[0]
    if not isinstance(target, ast.Subscript) or not is_ignored_label(node.value, file, scope, block):
        return
    slices = [
        part
        for part in (target.slice.elts if isinstance(target.slice, ast.Tuple) else [target.slice])
        if isinstance(part, ast.Slice)
    ]
    if len(slices) != 1 or slices[0].upper is None:
        return
    upper = file.flow.value(slices[0].upper, scope, block)
    counts, widths, pads = upper.of("nonpad-count"), upper.of("row-width"), upper.of("pad-count")
    needed: PaddingSide = "left" if pads else "right"
    batch = next((atom.batch for atom in [*counts, *widths, *pads] if atom.batch is not None), None)
    if batch is None and upper.from_start and slices[0].lower is None:
        labels = file.flow.value(target.value, scope, block).of("ids", "row", "batch", "mask", "mask-row")
        batch = next((atom.batch for atom in labels if atom.batch is not None), None)
    found = file.against(batch, needed, block)
    if found is None:
        return
    severity, known, batch = found
    if widths and not counts:
        why = (
            "the number is the width of the padded prompts, not a prompt's own length: tokens of the answer are left out too"
        )
        severity = "warning"
    elif pads:
        why = "pads and prompt are counted as the head of the row, which they are only if the pads stand on the left"
    else:
        why = "the prompt is the head of the row only if the pads stand on the right"
    yield Report(
        target,
        f"{file.text(target)} leaves the prompt out of the loss by its length: {why}.{file.said_by(known)}",
        "Build the labels from offsets or from ids, row by row, before padding; or "
        + _PIN.format(side=needed)[0].lower()
        + _PIN.format(side=needed)[1:],
        severity=severity,
        related=(("the padded batch", batch.call),),
        evidence={"needs": needed, "side": known.side},
        fix=None if widths and not counts else file.pin(batch, needed),
    )
