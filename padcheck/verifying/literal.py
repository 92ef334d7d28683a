"""An edit as the published editors make it: whole rows, padded on the left to one batch, positions counted from the start.

Nothing of it is fast, and it is wrong on purpose; each of the three things that padding touches can be put right alone:
    indices     a row's positions (lookup, labels, KL; keys likewise) moved on by the row's pads
    positions   position ids that start at the row's first token, instead of none at all
    mask        the attention mask handed over, or left out
Rows, ids and the algebra after the batch are those of `padcheck.editing`, so that padding is the only difference.
Sources: ROME, compute_u and compute_v; MEMIT, compute_z and compute_ks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from padcheck.editing import alphaedit, emmet, memit
from padcheck.editing.architecture import Site
from padcheck.editing.errors import HparamsError, ObjectiveError
from padcheck.editing.keys import averaged
from padcheck.editing.objective import GOOD_ENOUGH, Step
from padcheck.editing.rome import direction, rank_one
from padcheck.editing.rows import KL_PROMPT, Fact
from padcheck.editing.session import Session
from padcheck.editing.spreading import Solve
from padcheck.sources.token_readers import TokenReader

_SOLVERS: dict[str, Solve] = {"MEMIT": memit.update, "EMMET": emmet.update, "AlphaEdit": alphaedit.update}
METHODS = ("ROME", "R-ROME", *_SOLVERS)


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

    def arguments(self, way: Way) -> dict[str, Any]:
        arguments: dict[str, Any] = {"input_ids": self.ids, "use_cache": False}
        if way.mask:
            arguments["attention_mask"] = self.mask
        if way.positions:
            arguments["position_ids"] = (self.mask.cumsum(1) - 1).clamp_min(0)
        return arguments

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
        if session.hparams.method not in METHODS:
            raise HparamsError(f"{session.hparams.method} is not re-enacted on padded batches; {', '.join(METHODS)} are")
        self.session, self.pad, self.way = session, pad, way
        self.model: Any = session.architecture.model
        (self.fact,) = session.facts
        self.kl = _whole_kl_row(self.fact, reader)
        self.trace: list[Step] = session.traces[0]

    def rewrite(self) -> None:
        """Write the edit into the session's ledger, and so on the model.

        Raises ObjectiveError or SolveError where a number is not finite; the originals would write it.
        """
        if self.session.hparams.method in _SOLVERS:
            self._spread(_SOLVERS[self.session.hparams.method])
            return
        for (site,) in self.session.architecture.sites:
            self.session.ledger.add(site, self._rank_one(site))

    # ---- The methods

    def _rank_one(self, site: Site) -> Tensor:
        session, hparams = self.session, self.session.hparams
        initial, delta = self._search(site.module)
        keys, outputs = self._look(site.module)
        target = (initial + delta).double()
        original = hparams.method == "ROME" or hparams.original_implementation
        if original or not hparams.enable_random_prefix_keys:
            bare_key, bare_output = (seen[0] for seen in self._look(site.module, bare=True))
            return rank_one(target - bare_output, bare_key, direction(session, site, keys.mean(0) if original else bare_key))
        mean = keys.mean(0)
        return rank_one(target - outputs.mean(0), mean, direction(session, site, mean))

    def _spread(self, solve: Solve) -> None:
        session = self.session
        sites = [site for (site,) in session.architecture.sites]
        layer = session.decoder.layers[sites[-1].layer]
        initial, delta = self._search(layer)
        for left, site in zip(range(len(sites), 0, -1), sites, strict=True):
            assert site.factor is not None
            key = averaged(self._look(site.module)[0], session.groups).T.to(site.weight.device)
            now = self._look(layer, bare=True)[1][0]
            residual = ((initial + delta).double() - now)[:, None].to(key.device) / (left * site.factor)
            session.ledger.add(site, solve(session, site, key, residual))

    # ---- On the batches

    def _search(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """δ at the output of `module`: the value before of row 0 and δ, [D] each."""
        session, fact, way, hparams = self.session, self.fact, self.way, self.session.hparams
        wide, device = session.decoder.wide, session.decoder.device
        batch = _Batch.of([*(row.ids for row in fact.answered), self.kl], self.pad, device)
        lookups = [row.lookup for row in (*fact.answered, fact.kl)]
        lookups = [batch.column(row, lookup, way) for row, lookup in enumerate(lookups)]
        firsts = [batch.column(row, first, way) for row, first in enumerate(fact.labels)]
        rows = torch.arange(len(lookups))
        columns = torch.tensor(lookups)
        slots = torch.tensor([[first + step for step in range(len(fact.target))] for first in firsts])
        labels = torch.tensor(fact.target)
        with torch.no_grad(), _hooked(module, batch.ids.shape, lambda states: None) as seen:
            self.model(**batch.arguments(way))
        initial = seen[0][1][0, lookups[0]].to(wide)
        norm = initial.norm()
        if not float(norm):
            raise ObjectiveError(
                "the value at the editor's lookup in row 0 is exactly zero (a masked pad whose embedding is zero): the weight "
                "decay is 0/0, and the editor would write NaN into the weights"
            )
        delta = torch.zeros_like(initial).requires_grad_()
        optimiser = torch.optim.Adam([delta], lr=hparams.v_lr)
        before: Tensor | None = None

        def add(states: Tensor) -> Tensor:
            moved = states.clone()
            moved[rows, columns] = (moved[rows, columns].to(wide) + delta.to(states.device)).to(states.dtype)
            return moved

        for step in range(hparams.v_num_grad_steps):
            optimiser.zero_grad()
            with torch.enable_grad(), _hooked(module, batch.ids.shape, add):
                logits = self.model(**batch.arguments(way)).logits
                scores = torch.log_softmax(logits[rows[:-1, None], slots], dim=-1, dtype=wide)
                now = torch.log_softmax(logits[-1, lookups[-1]], dim=-1, dtype=wide)
                before = now.detach() if before is None else before
                each = -scores.gather(2, labels.to(scores.device).expand(len(slots), -1)[..., None])[..., 0].mean(1)
                nll = each.mean()
                kl = hparams.kl_factor * (now.exp() * (now - before)).sum()
                decay = hparams.v_weight_decay * (delta.norm() / norm**2).to(nll.device)
                loss = nll + kl + decay
            names = ("loss", "nll", "kl", "weight_decay", "probability")
            parts = torch.stack([loss, nll, kl, decay, torch.exp(-each).mean()]).detach().tolist()
            self.trace.append(dict(zip(names, parts, strict=True)))
            if not abs(parts[0]) < float("inf"):
                raise ObjectiveError(
                    f"the loss is {parts[0]} at step {step}, and the editor would write that into the weights"
                )
            if parts[0] < GOOD_ENOUGH or step == hparams.v_num_grad_steps - 1:
                break
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                limit = hparams.clamp_norm_factor * norm
                if delta.norm() > limit:
                    delta.mul_(limit / delta.norm())
        return initial, delta.detach()

    @torch.no_grad()
    def _look(self, module: nn.Module, *, bare: bool = False) -> tuple[Tensor, Tensor]:
        """Inputs and outputs of `module` where the editor looks, in the batch of all templates or of the bare prompt
        alone: [rows, d_in] and [rows, d_out] in float64."""
        prompts = self.fact.prompts[:1] if bare else self.fact.prompts
        batch = _Batch.of([row.ids for row in prompts], self.pad, self.session.decoder.device)
        columns = torch.tensor([batch.column(number, row.lookup, self.way) for number, row in enumerate(prompts)])
        with _hooked(module, batch.ids.shape, lambda states: None) as seen:
            self.model(**batch.arguments(self.way))
        rows = torch.arange(len(prompts))
        inputs, outputs = (states[rows, columns].double() for states in seen[0])
        return inputs, outputs


def _whole_kl_row(fact: Fact, reader: TokenReader) -> tuple[int, ...]:
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
