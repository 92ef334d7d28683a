"""An edit as the published editors make it: whole rows, padded on the left to one batch, positions counted from the start.

Nothing of it is fast, and it is wrong on purpose; each of the three things that padding touches can be put right alone:
    indices     a row's positions (lookup, labels, KL; keys likewise) moved on by the row's pads
    positions   position ids that start at the row's first token, instead of none at all
    mask        the attention mask handed over, or left out
Rows, ids and the algebra after the batch are those of `padcheck.editing`, so that padding is the only difference.
Sources: ROME, compute_u and compute_v; MEMIT, compute_z and compute_ks; PMET, compute_zs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from padcheck.editing import alphaedit, emmet, memit, pmet
from padcheck.editing.architecture import Site
from padcheck.editing.errors import HparamsError, ObjectiveError
from padcheck.editing.keys import averaged
from padcheck.editing.objective import GOOD_ENOUGH, Goal, Step
from padcheck.editing.rome import direction, rank_one
from padcheck.editing.rows import KL_PROMPT, Fact, Row
from padcheck.editing.session import Session
from padcheck.editing.spreading import Solve
from padcheck.sources.token_readers import TokenReader
from padcheck.verifying.diagnosing import Start, cause
from padcheck.verifying.outcomes import PARTS

_SOLVERS: dict[str, Solve] = {"MEMIT": memit.update, "EMMET": emmet.update, "AlphaEdit": alphaedit.update}


@dataclass(frozen=True, slots=True)
class Way:
    """How the padded batch is treated; as the editors do it where nothing is said."""

    indices: bool = False
    positions: bool = False
    mask: bool = True


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows padded on the left. ids, mask: [B, T]; pads: per row."""

    ids: Tensor
    mask: Tensor
    pads: list[int]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> _Batch:
        width = max(map(len, rows))
        pads = [width - len(row) for row in rows]
        ids = [[pad] * count + list(row) for count, row in zip(pads, rows, strict=True)]
        mask = [[0] * count + [1] * len(row) for count, row in zip(pads, rows, strict=True)]
        return cls(torch.tensor(ids, device=device), torch.tensor(mask, device=device), pads)

    def forward(self, model: Any, way: Way) -> Any:
        """The model's answer to the whole batch. One that takes no position ids (ALiBi) is given none."""
        arguments: dict[str, Any] = {"input_ids": self.ids, "use_cache": False}
        if way.mask:
            arguments["attention_mask"] = self.mask
        if way.positions and "position_ids" in inspect.signature(model.forward).parameters:
            arguments["position_ids"] = (self.mask.cumsum(1) - 1).clamp_min(0)
        return model(**arguments)

    def column(self, row: int, counted: int, way: Way) -> int:
        """Where the editor looks for what stands at `counted` in the unpadded row."""
        return counted + (self.pads[row] if way.indices else 0)


class Literal:
    """One request, edited on padded batches.

    session  of this request alone; its ledger holds what was written
    reader   of the tokenizer's tokens
    pad      the id that pads
    """

    def __init__(self, session: Session, reader: TokenReader, pad: int, way: Way) -> None:
        self.session, self.pad, self.way = session, pad, way
        self.model: Any = session.architecture.model
        (self.fact,) = session.facts
        self.kl = whole_kl_row(self.fact, reader)
        self.trace: list[Step] = session.traces[0]

    def rewrite(self) -> None:
        """Write the edit into the session's ledger, and so on the model.

        Raises ObjectiveError or SolveError where a number is not finite; the originals would write it.
        """
        session = self.session
        if session.hparams.method == "PMET":
            self._shared()
        elif session.hparams.method in _SOLVERS:
            self._spread(_SOLVERS[session.hparams.method])
        else:
            for (site,) in session.architecture.sites:
                session.ledger.add(site, self._rank_one(site))

    # ---- The methods

    def _rank_one(self, site: Site) -> Tensor:
        """ROME and R-ROME."""
        session, hparams = self.session, self.session.hparams
        ((initial, delta),) = self._search([site.module], session.goal())
        target = initial + delta
        if hparams.method == "ROME" or hparams.original_implementation:
            (key,), (output,) = self._look(site.module, self.fact.prompts[:1])
            return rank_one(target - output, key, direction(session, site, self._look(site.module)[0].mean(0)))
        if not hparams.enable_random_prefix_keys:
            (key,), (output,) = self._look(site.module, self.fact.prompts[:1])
            return rank_one(target - output, key, direction(session, site, key))
        # u comes from one batch; what stands below and above the line is read row by row, so without a pad.
        alone = [self._look(site.module, [row]) for row in self.fact.prompts]
        key, output = (torch.cat(seen).mean(0) for seen in zip(*alone, strict=True))
        return rank_one(target - output, key, direction(session, site, self._look(site.module)[0].mean(0)))

    def _spread(self, solve: Solve) -> None:
        """MEMIT and what it differs from by its update alone."""
        session = self.session
        sites = [site for (site,) in session.architecture.sites]
        layer = session.decoder.layers[sites[-1].layer]
        ((initial, delta),) = self._search([layer], session.goal())
        for left, site in zip(range(len(sites), 0, -1), sites, strict=True):
            assert site.factor is not None
            residual = (initial + delta - self._look(layer, self.fact.prompts[:1])[1][0])[:, None] / (left * site.factor)
            key = self._key(site)
            session.ledger.add(site, solve(session, site, key, residual.to(key.device)))

    def _shared(self) -> None:
        """PMET: a value for the attention and one for the MLP, sought together."""
        session, hparams = self.session, self.session.hparams
        if hparams.mlp_module_tmp is None or hparams.attn_module_tmp is None:
            raise HparamsError("PMET needs 'mlp_module_tmp' and 'attn_module_tmp'")
        last, layers = hparams.layers[-1], session.architecture.sites
        mlp = session.architecture.module(hparams.mlp_module_tmp.format(last), "mlp_module_tmp")
        attention = session.architecture.module(hparams.attn_module_tmp.format(last), "attn_module_tmp")
        found = self._search([mlp, attention], session.goal(nll_factor=hparams.nll_loss_factor, eases=True))
        targets = [initial + delta for initial, delta in found]
        for left, sites in zip(range(len(layers), 0, -1), layers, strict=True):
            for site, at_last in zip(sites, layers[-1], strict=True):
                missing = targets[pmet.value_of(hparams, site)] - self._look(at_last.module, self.fact.prompts[:1])[1][0]
                key = self._key(site)
                session.ledger.add(site, memit.update(session, site, key, (missing[:, None] / left**0.5).to(key.device)))

    def _key(self, site: Site) -> Tensor:
        """The key of a site, averaged over the groups of templates: [d_in, 1], on the weight's device."""
        return averaged(self._look(site.module)[0], self.session.groups).T.to(site.weight.device)

    # ---- On the batches

    def _search(self, modules: Sequence[nn.Module], goal: Goal) -> list[tuple[Tensor, Tensor]]:
        """δ at the outputs of `modules`: for each the value before of row 0, and δ; [D] each, in float64."""
        fact, way, decoder = self.fact, self.way, self.session.decoder
        wide = decoder.wide
        batch = _Batch.of([*(row.ids for row in fact.answered), self.kl], self.pad, decoder.device)
        lookups = [batch.column(row, one.lookup, way) for row, one in enumerate((*fact.answered, fact.kl))]
        firsts = [batch.column(row, first, way) for row, first in enumerate(fact.labels)]
        rows, columns = torch.arange(len(lookups)), torch.tensor(lookups)
        slots = torch.tensor([[first + step for step in range(len(fact.target))] for first in firsts])
        labels = torch.tensor(fact.target)
        with torch.no_grad(), ExitStack() as stack:
            seen = [stack.enter_context(_hooked(module, batch.ids.shape, lambda states: None)) for module in modules]
            batch.forward(self.model, way)
        initials = [one[0][1][0, lookups[0]].to(wide) for one in seen]
        norms = [initial.norm() for initial in initials]
        deltas = [torch.zeros_like(initial).requires_grad_() for initial in initials]
        optimiser = torch.optim.Adam(deltas, lr=goal.learning_rate)
        before: Tensor | None = None
        nll_factor = goal.nll_factor

        def add(delta: Tensor, states: Tensor) -> Tensor:
            moved = states.clone()
            moved[rows, columns] = (moved[rows, columns].to(wide) + delta.to(states.device)).to(states.dtype)
            return moved

        for step in range(goal.steps):
            optimiser.zero_grad()
            with torch.enable_grad(), ExitStack() as stack:
                for module, delta in zip(modules, deltas, strict=True):
                    stack.enter_context(_hooked(module, batch.ids.shape, partial(add, delta)))
                logits = batch.forward(self.model, way).logits
                scores = torch.log_softmax(logits[rows[:-1, None], slots], dim=-1, dtype=wide)
                now = torch.log_softmax(logits[-1, lookups[-1]], dim=-1, dtype=wide)
                before = now.detach() if before is None else before
                hits = scores.gather(2, labels.to(scores.device).expand(len(slots), -1)[..., None])[..., 0]
                each = -hits.mean(1)
                nll = nll_factor * each.mean()
                kl = goal.kl_factor * (now.exp() * (now - before)).sum()
                decays = [(delta.norm() / norm**2).to(nll.device) for delta, norm in zip(deltas, norms, strict=True)]
                decay = goal.weight_decay * torch.stack(decays).sum()
                loss = nll + kl + decay
            parts = torch.stack([loss, nll, kl, decay, torch.exp(-each).mean()]).detach().tolist()
            self.trace.append(dict(zip(PARTS, parts, strict=True)))
            if not abs(parts[0]) < float("inf"):
                start = Start(batch.ids, batch.mask, lookups[0], tuple(modules), tuple(map(float, norms)))
                raise ObjectiveError(cause(decoder, partial(batch.forward, self.model, way), start, self.trace))
            finished = parts[0] < GOOD_ENOUGH or step == goal.steps - 1
            if goal.eases:
                certain = bool((hits >= scores.max(-1).values).all())
                nll_factor = goal.nll_factor * (0.1 if certain else 1)
                finished |= certain and parts[2] <= 0.01
            if finished:
                break
            torch.autograd.backward(loss)
            optimiser.step()
            with torch.no_grad():
                for delta, norm in zip(deltas, norms, strict=True):
                    if delta.norm() > goal.clamp * norm:
                        delta.mul_(goal.clamp * norm / delta.norm())
        return [(initial.double(), delta.detach().double()) for initial, delta in zip(initials, deltas, strict=True)]

    @torch.no_grad()
    def _look(self, module: nn.Module, prompts: Sequence[Row] | None = None) -> tuple[Tensor, Tensor]:
        """Inputs and outputs of `module` where the editor looks, in one batch of these rows (default: the prompt in all
        templates): [rows, d_in] and [rows, d_out] in float64."""
        prompts = self.fact.prompts if prompts is None else prompts
        batch = _Batch.of([row.ids for row in prompts], self.pad, self.session.decoder.device)
        columns = torch.tensor([batch.column(number, row.lookup, self.way) for number, row in enumerate(prompts)])
        with _hooked(module, batch.ids.shape, lambda states: None) as seen:
            batch.forward(self.model, self.way)
        rows = torch.arange(len(prompts))
        inputs, outputs = (states[rows, columns].double() for states in seen[0])
        return inputs, outputs


def whole_kl_row(fact: Fact, reader: TokenReader) -> tuple[int, ...]:
    """All of "{subject} is a": an editor pads the whole row."""
    (encoded,) = reader.encode_batch([KL_PROMPT.format(fact.request.subject)])
    ids, special = list(encoded.ids), encoded.special_tokens_mask
    while ids and special[len(ids) - 1]:
        ids.pop()
    return tuple(ids)


@contextmanager
def _hooked(
    module: nn.Module, shape: torch.Size, change: Callable[[Tensor], Tensor | None]
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Change what `module` gives; (input, output) of each run, [B, T, d]. Some layers (OPT) use [B·T, d] inside."""
    seen: list[tuple[Tensor, Tensor]] = []

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        several = isinstance(output, tuple)
        states: Tensor = output[0] if several else output
        given: Tensor = args[0] if args else kwargs["hidden_states"]
        whole = states.reshape(*shape, states.shape[-1])
        seen.append((given.reshape(*shape, given.shape[-1]), whole))
        changed = change(whole)
        if changed is None:
            return None
        changed = changed.reshape(states.shape)
        return (changed, *output[1:]) if several else changed

    handle = module.register_forward_hook(after, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
