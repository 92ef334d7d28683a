"""`edit`: the one way in. It reads, checks and borrows everything, lets the method write, and puts everything back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from padcheck.editing import alphaedit, emmet, memit, pmet, r_rome, rome
from padcheck.editing.architecture import Architecture
from padcheck.editing.digest import model_digest
from padcheck.editing.errors import EditError, HparamsError, RequestError, StateError
from padcheck.editing.hparams import EditHparams, load_hparams
from padcheck.editing.restoring import borrowed
from padcheck.editing.result import EditResult, warn_of_rounding
from padcheck.editing.rows import Groups, facts_of, grouped, requests_of
from padcheck.editing.session import Session
from padcheck.editing.state import EditState
from padcheck.editing.templates import MEMIT_LENGTHS, STARTS, sampled
from padcheck.sources.requests import Request
from padcheck.sources.token_readers import TokenReader, wrap

METHODS: Mapping[str, Callable[[Session], None]] = {
    "ROME": rome.rewrite,
    "R-ROME": r_rome.rewrite,
    "MEMIT": memit.rewrite,
    "EMMET": emmet.rewrite,
    "PMET": pmet.rewrite,
    "AlphaEdit": alphaedit.rewrite,
}


def edit(
    model: nn.Module,
    tokenizer: Any,
    requests: Iterable[Mapping[str, Any] | Request] | Mapping[str, Any],
    hparams: Mapping[str, Any] | str | os.PathLike[str] | EditHparams | object,
    *,
    context_templates: Sequence[str] | Sequence[Sequence[str]] | None = None,
    covariance: Mapping[str, Any] | None = None,
    seed: int = 0,
    state: EditState | None = None,
    compat: str | None = None,
) -> EditResult:
    """Work out an edit. The model comes back as it was; `EditResult.applied` or `.write` puts the edit on.

    model              a causal language model of transformers, on any devices, in float64, float32, bfloat16 or float16
    tokenizer          its tokenizer, of any padding side; it is never padded with
    requests           records with prompt, subject and target_new in any of the frameworks' shapes; ROME and R-ROME
                       edit them one after another, the others all together
    hparams            EasyEdit's or kmeng01's, see `load_hparams`
    context_templates  strings with one `{}`, the bare one first, or groups of them; None: sampled from the model
    covariance         module name of a weight → E[k kᵀ] of its inputs
    seed               of the sampled templates
    state              of the edit before, for edits in a row: the model must have that edit on
    compat             "easyedit": EasyEdit's choices where they differ (target ids, the MEMIT family's logits)

    Raises an EditError that names the cause; then, too, the model is as it was. TypeError for a tokenizer that is none.
    """
    if state is not None and not isinstance(state, EditState):
        raise StateError(f"a state is what an edit before gave back as `result.state`, not {type(state).__name__}")
    if compat not in (None, "easyedit"):
        raise HparamsError(f"compat is {compat!r}; it is None or 'easyedit'")
    wanted = load_hparams(hparams)
    records = requests_of(requests)
    groups = None if context_templates is None else grouped(context_templates)
    reader = wrap(tokenizer).reader
    with borrowed(model, tokenizer), torch.no_grad():
        architecture = Architecture(model, wanted)
        _check_vocabulary(architecture, reader)
        if groups is None:
            groups = _sampled(architecture, tokenizer, reader, wanted, seed)
        unknown = getattr(tokenizer, "unk_token_id", None)
        facts, notes = facts_of(records, reader, groups, wanted.fact_token, compat=compat, unknown=unknown)
        _check_lengths(architecture, facts)
        modules = tuple(site.name for sites in architecture.sites for site in sites)
        if state is None:
            state = EditState(wanted.method, modules)
        else:
            state.check(wanted.method, modules, model_digest(architecture.model))
            state = state.successor()
        notes += _notes(architecture, wanted, compat)
        session = Session(architecture, wanted, facts, groups, covariance, compat, state, notes, traces=[[] for _ in facts])
        try:
            METHODS[wanted.method](session)
            state.fingerprint = model_digest(architecture.model)
        finally:
            session.ledger.restore()
        state.edits += len(facts)
    rounding = session.ledger.rounding
    warn_of_rounding(rounding)
    trace = tuple(tuple(steps) for steps in session.traces)
    return EditResult(session.ledger.updates, trace, state, tuple(dict.fromkeys(session.notes)), rounding, groups)


def _sampled(architecture: Architecture, tokenizer: Any, reader: TokenReader, hparams: EditHparams, seed: int) -> Groups:
    lengths = hparams.context_template_length_params if hparams.method in ("ROME", "R-ROME") else MEMIT_LENGTHS
    limit = _positions(architecture)
    if limit and max(length for length, _ in lengths) >= limit:
        raise HparamsError(
            f"'context_template_length_params' asks for templates of {max(length for length, _ in lengths)} tokens, but the model "
            f"stops at {limit}"
        )
    special = frozenset(int(one) for one in getattr(tokenizer, "all_special_ids", ()) or ())
    return sampled(architecture.decoder, reader, lengths, seed, special)


def _positions(architecture: Architecture) -> int | None:
    config: Any = architecture.model.config
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def _check_vocabulary(architecture: Architecture, reader: TokenReader) -> None:
    """Raises RequestError where ordinary words are ids that the model does not have; each request's are looked at later."""
    size = int(architecture.model.get_input_embeddings().weight.shape[0])
    largest = max((token for one in reader.encode_batch(list(STARTS)) for token in one.ids), default=0)
    if largest >= size:
        raise RequestError(
            f"the tokenizer gives ids that the model does not have ({largest}, of {size} embeddings): is it another model's?"
        )


def _check_lengths(architecture: Architecture, facts: Sequence[Any]) -> None:
    limit = _positions(architecture)
    size = int(architecture.model.get_input_embeddings().weight.shape[0])
    for fact in facts:
        for row in (*fact.answered, fact.kl):
            if limit and len(row.ids) > limit:
                raise RequestError(
                    f"request {fact.request.index}: a row has {len(row.ids)} tokens, but the model stops at {limit}"
                )
            if max((*row.ids, *fact.target)) >= size:
                raise RequestError(
                    f"request {fact.request.index}: the tokenizer gives ids that the model does not have: is it "
                    "another model's?"
                )


def _notes(architecture: Architecture, hparams: EditHparams, compat: str | None) -> list[str]:
    notes: list[str] = []
    if hparams.inferred:
        notes.append(f"the hparams name no method; their keys are {hparams.method}'s")
    if hparams.v_num_grad_steps == 1:
        notes.append("'v_num_grad_steps' is 1: the objective is evaluated once and nothing is ever moved")
    last = len(architecture.decoder.layers) - 1
    if hparams.v_loss_layer not in (None, last) and compat is None:
        notes.append(f"'v_loss_layer' is {hparams.v_loss_layer}; the model's own logits (layer {last}) are used")
    if hparams.lm_head_module and compat is None:
        try:
            named = architecture.module(hparams.lm_head_module, "lm_head_module")
        except EditError:
            named = None
        if named is None or getattr(named, "weight", None) is not getattr(architecture.decoder.head, "weight", None):
            notes.append(f"'lm_head_module' names {hparams.lm_head_module}, which is not the model's head; the head is used")
    return notes
