"""The search for a new value: what the lookup's hidden state should be, so that the model gives the new answer.

For each fact a vector δ is added at the lookup column of every row, and Adam lowers
    nll_factor · mean over rows of the mean NLL over the target's tokens
  + kl_factor · KL(now ‖ before) at the KL row's lookup (ROME, equation 4: the edited model's distribution comes first)
  + weight_decay · ‖δ‖ / ‖initial value‖²
until that is under 0.05 or the steps are used up (no step after the last evaluation); after each step δ is drawn back into
the ball of clamp · ‖initial value‖. Source: ROME, compute_v; MEMIT, compute_z; PMET, compute_zs (two δ, an easing NLL
factor).

What makes it fast: the columns before the lookup go forward once, with their keys and values kept; so do the layers up
to the one where δ is added, where that is possible. A step forwards the columns from the lookup on through the layers
above, and the head sees label and KL columns only. Facts go side by side, and one that is finished leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from padcheck.editing.batches import aligned, column_budget, portions
from padcheck.editing.decoder import Cache, Columns, Decoder, Tap
from padcheck.editing.errors import ObjectiveError
from padcheck.editing.prefixes import prefilled
from padcheck.editing.rows import Fact, Row

GOOD_ENOUGH = 5e-2
CPU_COLUMNS = 512
_BETAS, _EPSILON = (0.9, 0.999), 1e-8

Step = dict[str, float]
"""loss, nll, kl, weight_decay and probability of one evaluation; the parts add up to the loss."""
_STEP = ("loss", "nll", "kl", "weight_decay", "probability")


@dataclass(frozen=True, slots=True)
class Goal:
    """Steps and weights of the search. `eases`: PMET's rule, by which NLL counts a tenth once every label is the likeliest
    token, and the search ends there if KL is at most 0.01."""

    steps: int
    learning_rate: float
    weight_decay: float
    clamp: float
    kl_factor: float
    nll_factor: float = 1.0
    eases: bool = False


@dataclass(frozen=True, slots=True)
class Readout:
    """EasyEdit's way to the logits of the MEMIT family: some layer's output through the final norm and a head's weight."""

    layer: int
    norm: nn.Module
    weight: Tensor
    bias: Tensor | None


@dataclass(slots=True)
class Found:
    """What the search found for one fact.

    Attributes:
        initial, delta: per place where δ is added: the bare row's value before, and δ; [D] in wide dtype.
        trace: one Step per evaluation.
        keys, outputs: of the watched module at the lookup of each template's row, [templates, d_in] and [templates, d_out].
    """

    initial: list[Tensor]
    delta: list[Tensor]
    keys: Tensor | None = None
    outputs: Tensor | None = None
    trace: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where δ is added and measured.

    Attributes:
        layer: the decoder layer.
        modules: at whose outputs the initial values are measured; empty: the layer's own output.
        on_stream: whether adding δ to the layer's output is the same as adding it to the module's; if not, the layer
            itself goes forward in every step, with δ added to the outputs of `modules`.
    """

    layer: int
    modules: tuple[nn.Module, ...] = ()
    on_stream: bool = True


def search(
    decoder: Decoder,
    facts: Sequence[Fact],
    place: Place,
    goal: Goal,
    *,
    watch: nn.Module | None = None,
    readout: Readout | None = None,
) -> list[Found]:
    """The new value of every fact, in their order. Weights are not touched.

    Raises ObjectiveError where the loss is not finite, or does not depend on δ at all.
    """
    found: list[Found | None] = [None] * len(facts)
    widths = [_columns(fact) for fact in facts]
    above = len(decoder.layers) - place.layer
    model_width = int(decoder.model.get_input_embeddings().weight.shape[1])  # type: ignore[operator]
    per_column = 60 * model_width * max(1, above) * torch.finfo(decoder.dtype).bits // 8
    budget = column_budget(decoder.device, per_column, on_cpu=CPU_COLUMNS)
    waiting = list(portions(widths, budget))
    while waiting:
        portion = waiting.pop()
        try:
            results = _Group(decoder, [facts[index] for index in portion], place, goal, watch, readout).solve()
        except torch.cuda.OutOfMemoryError:
            if len(portion) == 1:
                raise
            torch.cuda.empty_cache()
            waiting += [portion[: len(portion) // 2], portion[len(portion) // 2 :]]
            continue
        for index, result in zip(portion, results, strict=True):
            found[index] = result
    return [one for one in found if one is not None]


def _columns(fact: Fact) -> int:
    return (len(fact.answered) + 1) * max(len(row.ids) - row.lookup for row in fact.answered)


class _Group:
    """Facts that go side by side. Rows of one fact: its answered rows, then its KL row, unless an answered row begins as it."""

    def __init__(
        self,
        decoder: Decoder,
        facts: Sequence[Fact],
        place: Place,
        goal: Goal,
        watch: nn.Module | None,
        readout: Readout | None,
    ) -> None:
        self.decoder, self.facts, self.place, self.goal, self.readout = decoder, facts, place, goal, readout
        self.alive = list(range(len(facts)))
        rows: list[Row] = []
        owner: list[int] = []
        shares: list[float] = []
        labels: list[tuple[int, int, int, float]] = []  # row, column from the lookup on, token id, weight in the row's mean
        kl_rows: list[int] = []
        for number, fact in enumerate(facts):
            kl_row = len(rows) + len(fact.answered)
            for row, first in zip(fact.answered, fact.labels, strict=True):
                if first < row.lookup:
                    raise ObjectiveError(
                        f"request {fact.request.index}: a label stands before the lookup, so δ cannot reach it"
                    )
                labels += [
                    (len(rows), first - row.lookup + step, token, 1 / len(fact.target))
                    for step, token in enumerate(fact.target)
                ]
                if row.ids[: row.lookup + 1] == fact.kl.ids:  # a prompt that begins with its subject
                    kl_row = len(rows)
                rows.append(row)
                shares.append(1 / len(fact.answered))
            if kl_row == len(rows):
                rows.append(fact.kl)
                shares.append(0.0)
            kl_rows.append(kl_row)
            owner += [number] * (len(rows) - len(owner))
        batch = aligned(rows, decoder.device)
        self.columns = batch.after
        device = decoder.device
        self.owner = torch.tensor(owner, device=device)
        self.label_rows, self.label_columns, self.label_ids = (
            torch.tensor(values, device=device) for values in list(zip(*labels, strict=True))[:3]
        )
        self.label_weights = torch.tensor([weight for *_, weight in labels], dtype=decoder.wide, device=device)
        self.kl_rows = torch.tensor(kl_rows, device=device)
        # What a row weighs in its fact's mean: nothing, where it is a KL row alone.
        self.shares = torch.tensor(shares, dtype=decoder.wide, device=device)
        with torch.no_grad():
            self._prepare(rows, batch.before, watch)

    def _prepare(self, rows: Sequence[Row], before: Columns, watch: nn.Module | None) -> None:
        """Forward what does not depend on δ: the prefixes through all layers, the rest up to where δ is added."""
        decoder, place = self.decoder, self.place
        self.cache: Cache | None = None
        if before.ids.shape[1]:
            self.cache = prefilled(decoder, rows, before)
            self.cache.freeze(0)
        layer = decoder.layers[place.layer]
        stream = Tap(layer, "output" if place.on_stream else "input")
        values = [Tap(module, "output") for module in place.modules] or [stream]
        watched = [] if watch is None else [Tap(watch, "input"), Tap(watch, "output")]
        taps = [stream, *(tap for tap in values if tap is not stream), *watched]
        decoder.run(self.columns, cache=self.cache, stop=place.layer + 1, taps=taps)
        self.start = place.layer + 1 if place.on_stream else place.layer
        self.stored = stream.take()
        if self.cache is not None:
            self.cache.freeze(self.start)
        first_rows = torch.searchsorted(self.owner, torch.arange(len(self.facts), device=self.owner.device))
        initial = [tap.take()[first_rows.to(tap.take().device), 0].to(decoder.wide) for tap in values]
        self.initial = initial
        self.found = [Found([value[number] for value in initial], []) for number in range(len(self.facts))]
        if watched:
            inputs, outputs = (tap.take()[:, 0].to(decoder.wide) for tap in watched)
            for number, found in enumerate(self.found):
                of_fact = ((self.owner == number) & (self.shares > 0)).nonzero()[:, 0]
                found.keys, found.outputs = inputs[of_fact.to(inputs.device)], outputs[of_fact.to(outputs.device)]

    def solve(self) -> list[Found]:
        goal = self.goal
        deltas = [torch.zeros_like(value) for value in self.initial]
        norms = [value.norm(dim=1) for value in self.initial]
        first, second = ([torch.zeros_like(delta) for delta in deltas] for _ in range(2))
        factors = [goal.nll_factor] * len(self.facts)
        before: Tensor | None = None
        for step in range(goal.steps):
            deltas = [delta.detach().requires_grad_() for delta in deltas]
            with torch.enable_grad():
                nll, probability, certain, log_probabilities = self._evaluate(deltas)
                before = log_probabilities.detach() if before is None else before
                kl = goal.kl_factor * (log_probabilities.exp() * (log_probabilities - before)).sum(1)
                decay = sum(
                    delta.norm(dim=1).to(nll.device) / norm.to(nll.device) ** 2
                    for delta, norm in zip(deltas, norms, strict=True)
                )
                parts = (
                    torch.tensor(factors, dtype=torch.float64).to(nll) * nll,
                    kl.to(nll.device),
                    goal.weight_decay * decay,
                )
                loss = parts[0] + parts[1] + parts[2]
            # One look at the device in each step.
            *lines, sure = torch.stack([loss, *parts, probability.to(loss), certain.to(loss)]).detach().tolist()
            for place, number in enumerate(self.alive):
                self.found[number].trace.append(dict(zip(_STEP, (line[place] for line in lines), strict=True)))
            self._check_finite(lines[0], norms, step)
            leaving = [
                step == goal.steps - 1 or value < GOOD_ENOUGH or (goal.eases and bool(all_hit) and kl_now <= 0.01)
                for value, kl_now, all_hit in zip(lines[0], lines[2], sure, strict=True)
            ]
            if goal.eases:
                factors = [0.1 * goal.nll_factor if all_hit else goal.nll_factor for all_hit in sure]
            for place, number in enumerate(self.alive):
                if leaving[place]:
                    self.found[number].delta = [delta.detach()[place] for delta in deltas]
            if all(leaving):
                break
            # Finished facts weigh nothing: each δ has its own rows, so the sum's gradients are those of each loss alone.
            weights = torch.tensor([float(not gone) for gone in leaving]).to(loss)
            gradients = torch.autograd.grad(loss, deltas, grad_outputs=weights)
            if step == 0:
                self._check_moves(gradients, norms, lines[0], leaving)
            if any(leaving):
                stay = [place for place, gone in enumerate(leaving) if not gone]
                keep = torch.tensor(stay, device=self.owner.device)
                pick = [_pick(keep, tensors) for tensors in (deltas, gradients, first, second, norms)]
                deltas, gradients, first, second, norms = pick[0], tuple(pick[1]), pick[2], pick[3], pick[4]
                factors, before = [factors[place] for place in stay], before[keep.to(before.device)]
                self._leave(keep)
            with torch.no_grad():
                for place, gradient in enumerate(gradients):
                    moments = (
                        first[place].lerp_(gradient, 1 - _BETAS[0]),
                        second[place].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1]),
                    )
                    scale = moments[1].sqrt() / (1 - _BETAS[1] ** (step + 1)) ** 0.5 + _EPSILON
                    delta = deltas[place].detach() - goal.learning_rate / (1 - _BETAS[0] ** (step + 1)) * moments[0] / scale
                    length, limit = delta.norm(dim=1), goal.clamp * norms[place]
                    if bool(length.isinf().any()):
                        raise ObjectiveError(
                            f"step {step} moves the value by more than the dtype can hold: 'v_lr' is {goal.learning_rate:g}"
                        )
                    deltas[place] = torch.where((length > limit)[:, None], delta * (limit / length)[:, None], delta)
        return self.found

    def _evaluate(self, deltas: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """With these δ [facts, D]: NLL [facts], probability [facts], whether every label is the likeliest token [facts], and
        log-probabilities at the KL lookups [facts, V]."""
        decoder, owner, wide = self.decoder, self.owner, self.decoder.wide
        wanted = torch.cat([self.label_rows, self.kl_rows]), torch.cat([self.label_columns, torch.zeros_like(self.kl_rows)])
        hidden, taps = self.stored, []
        if self.place.on_stream:
            hidden = _shifted(deltas[0], owner, self.stored)
        else:
            taps = [
                Tap(module, "output", partial(_shifted, delta, owner))
                for module, delta in zip(self.place.modules, deltas, strict=True)
            ]
        out = None if self.readout is None else Tap(decoder.layers[self.readout.layer], "output")
        logits = decoder.run(
            self.columns,
            cache=self.cache,
            start=self.start,
            hidden=hidden,
            wanted=wanted,
            taps=[*taps, *([out] if out else [])],
        )
        log_probabilities = torch.log_softmax(logits, dim=-1, dtype=wide)
        count = len(self.label_rows)
        labelled, at_kl = log_probabilities[:count], log_probabilities[count:]
        if out is not None and self.readout is not None:
            labelled = _read_out(self.readout, out.take(), self.label_rows, self.label_columns, wide)
        device = labelled.device
        owner, shares, rows = owner.to(device), self.shares.to(device), self.label_rows.to(device)

        def summed(size: int, to: Tensor, values: Tensor) -> Tensor:
            return torch.zeros(size, dtype=wide, device=device).index_add(0, to, values)

        hits = labelled.gather(1, self.label_ids.to(device)[:, None])[:, 0]
        per_row = summed(len(owner), rows, -hits * self.label_weights.to(device))
        nll = summed(len(self.alive), owner, per_row * shares)
        probability = summed(len(self.alive), owner, torch.exp(-per_row.detach()) * shares)
        certain = torch.ones_like(nll, dtype=torch.bool)
        if self.goal.eases:
            missed = labelled.detach().max(dim=1).values > hits.detach()
            certain = summed(len(self.alive), owner[rows], missed.to(wide)) == 0
        return nll, probability, certain, at_kl

    def _leave(self, keep: Tensor) -> None:
        """Only the facts at the places `keep` stay; their rows close up."""
        stays = torch.isin(self.owner, keep)
        rows = stays.nonzero()[:, 0]
        new_row = torch.cumsum(stays.long(), 0) - 1
        new_fact = torch.full((len(self.alive),), -1, device=keep.device)
        new_fact[keep] = torch.arange(len(keep), device=keep.device)
        labels = stays[self.label_rows]
        self.label_rows, self.label_columns = new_row[self.label_rows[labels]], self.label_columns[labels]
        self.label_ids, self.label_weights = self.label_ids[labels], self.label_weights[labels]
        self.kl_rows = new_row[self.kl_rows[keep]]
        self.owner, self.shares = new_fact[self.owner[rows]], self.shares[rows]
        self.alive = [self.alive[place] for place in keep.tolist()]
        self.columns = self.columns.rows(rows.to(self.columns.ids.device))
        self.stored = self.stored[rows.to(self.stored.device)]
        if self.cache is not None:
            self.cache = self.cache.rows(rows)
            self.cache.freeze(0)

    def _check_finite(self, losses: Sequence[float], norms: Sequence[Tensor], step: int) -> None:
        for place, number in enumerate(self.alive):
            if abs(losses[place]) < float("inf"):
                continue
            request = self.facts[number].request
            if any(float(norm[place]) == 0 for norm in norms):
                raise ObjectiveError(f"request {request.index}: the value at the lookup is zero, so the weight decay is 0/0")
            raise ObjectiveError(
                f"request {request.index}: the loss is {losses[place]} at step {step}: {self.found[number].trace[-1]}"
            )

    def _check_moves(
        self, gradients: Sequence[Tensor], norms: Sequence[Tensor], losses: Sequence[float], leaving: Sequence[bool]
    ) -> None:
        """Adam turns even rounding noise into full steps, so a gradient that is nothing but noise must stop the search."""
        noise = 100 * torch.finfo(self.decoder.wide).eps
        reach = [
            (gradient.norm(dim=1) * self.goal.clamp * norm).tolist() for gradient, norm in zip(gradients, norms, strict=True)
        ]
        for place, number in enumerate(self.alive):
            if not leaving[place] and all(one[place] <= noise * abs(losses[place]) for one in reach):
                request = self.facts[number].request
                raise ObjectiveError(
                    f"request {request.index}: the loss does not depend on the value at the lookup (layer "
                    f"{self.place.layer}, fact_token): "
                    "the labels stand later and no layer above carries it there"
                )


def _shifted(delta: Tensor, owner: Tensor, states: Tensor) -> Tensor:
    """`states` [B, S, D] with each row's δ added at column 0, summed in δ's dtype."""
    added = states[:, :1].to(delta.dtype) + delta.to(states.device)[owner.to(states.device)][:, None]
    return torch.cat([added.to(states.dtype), states[:, 1:]], dim=1)


def _pick(keep: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach()[keep.to(tensor.device)] for tensor in tensors]


def _read_out(readout: Readout, states: Tensor, rows: Tensor, columns: Tensor, wide: torch.dtype) -> Tensor:
    normed = readout.norm(states[rows.to(states.device), columns.to(states.device)][None])[0]
    logits = nn.functional.linear(normed.to(readout.weight.device), readout.weight, readout.bias)
    return torch.log_softmax(logits, dim=-1, dtype=wide)
