"""Rules about what goes into a forward pass, and what is counted in a batch."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from padcheck.checks.code.rule import File, Report, is_ignored_label, rule
from padcheck.checks.code.scopes import Block, Scope, called_name, last_name, path_of, start_of
from padcheck.checks.code.values import Batch, calls_model
from padcheck.diagnostics import Fix

_COUNTERS = ("sum", "count_nonzero")


@rule("COD110", ast.Call, words=[["pad_token_id"], ["sum", "count_nonzero"]])
def pads_counted_by_id(file: File, scope: Scope, node: ast.Call, block: Block) -> Iterator[Report]:
    """`(ids != tok.pad_token_id).sum()`: an EOS inside the text counts as a pad where the pad is the EOS."""
    if called_name(node) not in _COUNTERS:
        return
    atoms = [atom for atom in file.flow.value(node, scope, block).of("nonpad-count", "pad-count") if atom.node is node]
    if not atoms or atoms[0].batch is None:
        return
    if _kinds_counted(file, scope) == {"nonpad-count", "pad-count"}:
        return  # pads and the rest are added up again: what is miscounted in one is missing in the other
    ours = _pad_is_eos(file)
    why = "this file makes the EOS the pad" if ours else "many tokenizers have the EOS as their pad"
    yield Report(
        node,
        f"{file.text(node)} counts by the pad's id, and {why}: an EOS or chat marker inside the text is miscounted.",
        "Count with the attention mask: attention_mask.sum(-1).",
        severity="warning" if ours else "note",
        confidence="high" if ours else "medium",
    )


def _kinds_counted(file: File, scope: Scope) -> set[str]:
    kinds: set[str] = set()
    for site in scope.find(ast.Call):
        assert isinstance(site.node, ast.Call)
        if called_name(site.node) in _COUNTERS:
            kinds.update(a.kind for a in file.flow.value(site.node, scope, site.block).of("nonpad-count", "pad-count"))
    return kinds


def _pad_is_eos(file: File) -> bool:
    """Whether the file sets a pad token to the EOS token."""
    for scope in file.scopes:
        for path, bindings in scope.bindings.items():
            if last_name(path) in ("pad_token", "pad_token_id") and any(
                last_name(path_of(binding.value)) in ("eos_token", "eos_token_id") for binding in bindings
            ):
                return True
    return False


@rule("COD113", ast.Call, words=[["past_key_values"], ["attention_mask"]])
def step_mask_with_cache(file: File, scope: Scope, node: ast.Call, block: Block) -> Iterator[Report]:
    """The mask of one step is passed together with a cache that holds all steps before."""
    keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    cache, ids, mask = keywords.get("past_key_values"), keywords.get("input_ids"), keywords.get("attention_mask")
    if cache is None or (isinstance(cache, ast.Constant) and cache.value is None) or mask is None:
        return
    loop = next((each for each in block.outwards() if each.kind == "loop"), None)
    step = _columns(ids)
    masks = [_columns(part) for part in ([mask.body, mask.orelse] if isinstance(mask, ast.IfExp) else [mask])]
    if loop is None or step is None or not any(each is not None and ast.dump(each) == ast.dump(step) for each in masks):
        return
    if isinstance(step, ast.Slice):
        if step.lower is None:
            return
    elif not (
        isinstance(step, ast.Name)
        and any(loop.encloses(b.block) and b.block.depth >= loop.depth for b in scope.bindings.get(step.id, ()))
    ):
        return
    yield Report(
        mask,
        "The mask has the columns of this step alone, while the cache holds those before: with transformers 5 the model"
        " attends to almost none of its history, and the text it generates is nearly unconditioned (old versions, 4.15 or"
        " 4.23, spread one column over all).",
        "Pass the mask of everything so far, cached tokens included.",
        evidence={"mask": file.text(mask)},
        fix=_widened(file, mask, step),
    )


def _columns(node: ast.expr | None) -> ast.expr | None:
    """`s` of `x[:, s]`."""
    match node:
        case ast.Subscript(slice=ast.Tuple(elts=[ast.Slice(lower=None, upper=None), columns])):
            return columns
    return None


def _widened(file: File, mask: ast.expr, step: ast.expr) -> Fix | None:
    sliced = mask.orelse if isinstance(mask, ast.IfExp) else mask
    columns = _columns(sliced)
    if columns is None or not isinstance(step, ast.Name):
        return None
    edit = file.source.edit(file.source.start(columns), file.source.end(columns), f": {step.id}.stop")
    return Fix("Pass the mask up to the end of this step.", (edit,), "unsafe")


@rule("COD114", ast.Call, words=[["tok", "processing_class"], ["input_ids"], ["padding=", "padding =", "pad_to_max_length"]])
def forward_without_mask(file: File, scope: Scope, node: ast.Call, block: Block) -> Iterator[Report]:
    """`model(input_ids)` of a padded batch: the pads are attended to."""
    if not calls_model(node) or any(keyword.arg in (None, "attention_mask") for keyword in node.keywords):
        return
    ids = next(
        (keyword.value for keyword in node.keywords if keyword.arg == "input_ids"), node.args[0] if node.args else None
    )
    if ids is None or len(node.args) > 1 or isinstance(ids, ast.Starred):
        return
    found = file.first_against(file.flow.value(ids, scope, block).of("ids", "batch"), "right", block)
    if found is not None:
        yield Report(
            node,
            f"{file.text(node.func)} gets the ids of a padded batch without the attention mask: pads are attended to as"
            f" text, which changes every row under left padding.{file.said_by(found.known)}",
            "Pass attention_mask too.",
            severity=found.severity,
            related=(("the padded batch", found.batch.call),),
            evidence={"side": found.known.side},
            fix=_with_mask(file, ids),
        )


def _with_mask(file: File, ids: ast.expr) -> Fix | None:
    """`attention_mask=batch["attention_mask"]` behind `batch["input_ids"]`, where that is how the ids are written."""
    text = file.source.segment(ids)
    if (
        not isinstance(ids, (ast.Subscript, ast.Attribute))
        or text.count("input_ids") != 1
        or isinstance(getattr(ids, "slice", None), ast.Tuple)
    ):
        return None
    end = file.source.end(ids)
    edit = file.source.edit(end, end, f", attention_mask={text.replace('input_ids', 'attention_mask')}")
    return Fix("Pass the attention mask of the same batch.", (edit,), "unsafe")


@rule("COD121", ast.Call, words=[["padding_side", "left"]])
def left_batch_without_position_ids(file: File, scope: Scope, node: ast.Call, block: Block) -> Iterator[Report]:
    """A plain forward pass on a left-padded batch: absolute positions are counted from the first pad."""
    if not calls_model(node) or any(keyword.arg == "position_ids" for keyword in node.keywords):
        return
    values = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg in (None, "input_ids"))]
    for argument in values:
        for atom in file.flow.value(argument, scope, block).of("batch", "ids"):
            batch = atom.batch
            if batch is None or not batch.padded:
                continue
            known = file.sides.of(batch, block)
            if known.side == "left" and not known.guarded:
                yield Report(
                    node,
                    "A forward pass over a left-padded batch without position_ids: models with learnt absolute"
                    " positions (GPT-2, GPT-Neo) count the pads. Rotary models do not mind, and generate() makes the"
                    " positions itself.",
                    "Pass position_ids made from the mask (its cumulative sum minus one, at least 0) if the model has"
                    " absolute positions.",
                    related=(("the padded batch", batch.call),),
                    confidence="medium",
                )
                return


@rule(
    "COD122",
    ast.Call,
    ast.Assign,
    ast.Dict,
    words=[["labels"], ["tok", "processing_class"], ["input_ids"], ["padding=", "padding =", "pad_to_max_length"]],
)
def pads_as_labels(file: File, scope: Scope, node: ast.AST, block: Block) -> Iterator[Report]:
    """Padded ids serve as labels, and nothing sets the pads to -100."""
    direct = isinstance(node, ast.Call) and calls_model(node)
    if not direct and file.uses_collator:
        return  # the collators of transformers make labels of their own, or pad them with -100
    if isinstance(node, ast.Call):
        candidates = [keyword.value for keyword in node.keywords if keyword.arg == "labels"]
    elif isinstance(node, ast.Dict):
        candidates = [
            value
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and key.value == "labels"
        ]
    else:
        assert isinstance(node, ast.Assign)
        target = path_of(node.targets[0]) or ""
        candidates = [node.value] if target.endswith("['labels']") and not _masked_later(file, scope, target, node) else []
    for labels in candidates:
        value = file.flow.value(labels, scope, block)
        if value.has("masked", "output"):
            continue
        batch = next((atom.batch for atom in value.of("ids") if atom.batch is not None and atom.batch.padded), None)
        if batch is None or _masked_later(file, scope, path_of(labels), labels) or _otherwise(file, scope, labels, block):
            continue
        yield _labelled_pads(file, labels, batch, direct=direct)
        return


def _otherwise(file: File, scope: Scope, labels: ast.expr, block: Block) -> bool:
    """Whether the labels can also be something that is not seen to be padded ids."""
    while isinstance(labels, ast.Call) and isinstance(labels.func, ast.Attribute):
        labels = labels.func.value
    if not isinstance(labels, ast.Name):
        return False
    found, owner = file.flow.bindings(labels.id, scope, block, start_of(labels))
    return len(found) > 1 and any(
        not file.flow.value(binding.value, owner or scope, binding.block).has("ids")
        for binding in found
        if binding.how == "is"
    )


def _masked_later(file: File, scope: Scope, path: str | None, node: ast.AST) -> bool:
    """Whether something in this function sets part of `path` to -100."""
    if path is None:
        return False
    for site in scope.find(ast.Assign):
        assert isinstance(site.node, ast.Assign)
        target = site.node.targets[0]
        if (
            isinstance(target, ast.Subscript)
            and site.node is not node
            and is_ignored_label(site.node.value, file, scope, site.block)
        ):
            base: ast.expr = target
            while isinstance(base, ast.Subscript):
                base = base.value
                if path_of(base) == path:
                    return True
    return False


def _labelled_pads(file: File, labels: ast.expr, batch: Batch, *, direct: bool) -> Report:
    always = batch.padding == "max_length"
    unless = "" if direct else ", unless a collator makes the labels anew"
    return Report(
        labels,
        f"{file.text(labels)} are padded ids and serve as labels: the loss leaves out only -100, so the pads"
        f" {'are' if always else 'of the shorter rows are'} learnt as text{unless}.",
        "Set the labels of pads to -100 by the attention mask: labels.masked_fill(attention_mask == 0, -100).",
        severity="error" if always and direct else "warning",
        confidence="high" if direct else "medium",
        related=(("the padded batch", batch.call),),
        evidence={"padding": batch.padding, "line": start_of(batch.call)[0]},
    )
