"""The methods as their papers have them, with nothing clever: every row alone, unpadded, through the whole model.

Nothing of `padcheck.editing` is used. δ is added by a hook on the whole forward, the loss is read off full logits, Adam is
torch's, systems are solved with explicit inverses.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Literal:
    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        hparams: dict[str, Any],
        groups: list[list[str]],
        covariance: dict[str, torch.Tensor],
    ) -> None:
        self.model, self.tokenizer, self.h, self.groups, self.covariance = model, tokenizer, hparams, groups, covariance
        self.dtype = next(model.parameters()).dtype
        self.updates: dict[str, torch.Tensor] = {}
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    # ---- Rows

    def row(
        self, prefix: str, request: dict[str, str], suffix: str = "", fact_token: str | None = None
    ) -> tuple[list[int], int]:
        before, after = request["prompt"].split("{}")
        text = prefix + before + request["subject"] + after
        start = len(prefix + before)
        end = start + len(request["subject"])
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        spans = encoded["offset_mapping"]
        kind = fact_token or self.h["fact_token"]
        holds_last = [n for n, (a, b) in enumerate(spans) if a <= end - 1 < b]
        holds_first = [n for n, (a, b) in enumerate(spans) if a <= start < b]
        lookup = {"subject_last": holds_last[-1], "subject_first": holds_first[0], "last": len(spans) - 1}.get(kind)
        if lookup is None:
            lookup = holds_last[-1] + (1 if after.strip() else 0)
        return list(encoded["input_ids"]), lookup

    def prefixes(self) -> list[str]:
        return [template[: template.index("{}")] for group in self.groups for template in group]

    def target(self, request: dict[str, str]) -> list[int]:
        prompt = request["prompt"].replace("{}", request["subject"])
        alone = self.tokenizer(prompt)["input_ids"]
        joined = self.tokenizer(prompt + " " + request["target_new"])["input_ids"]
        assert joined[: len(alone)] == alone
        return list(joined[len(alone) :])

    # ---- Forwards

    @contextmanager
    def adding(self, modules: list[nn.Module], deltas: list[torch.Tensor], column: int):
        def hook(delta):
            def add(_, __, output):
                states = output[0] if isinstance(output, tuple) else output
                flat = states.ndim == 2
                states = (states[None] if flat else states).clone()
                states[0, column] = states[0, column] + delta
                states = states[0] if flat else states
                return (states, *output[1:]) if isinstance(output, tuple) else states

            return add

        handles = [module.register_forward_hook(hook(delta)) for module, delta in zip(modules, deltas, strict=True)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def seen(self, ids: list[int], module: nn.Module, column: int) -> tuple[torch.Tensor, torch.Tensor]:
        kept = {}

        def look(_, args, output):
            states = output[0] if isinstance(output, tuple) else output
            kept["in"], kept["out"] = (
                args[0].reshape(-1, args[0].shape[-1])[column],
                states.reshape(-1, states.shape[-1])[column],
            )

        handle = module.register_forward_hook(look)
        with torch.no_grad():
            self.model(torch.tensor([ids]))
        handle.remove()
        return kept["in"], kept["out"]

    def module(self, template: str, layer: int) -> nn.Module:
        return self.model.get_submodule(template.format(layer))

    # ---- The search

    def search(
        self, request: dict[str, str], modules: list[nn.Module], *, eases: bool = False
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[float]]:
        h, target = self.h, self.target(request)
        rows = []
        for prefix in self.prefixes():
            ids, lookup = self.row(prefix, request)
            rows.append((ids + target[:-1], lookup, len(ids) - 1))
        kl_ids, kl_lookup = self.row("", {"prompt": "{} is a", "subject": request["subject"]})
        initial = [self.seen(rows[0][0], module, rows[0][1])[1] for module in modules]
        deltas = [torch.zeros_like(value).requires_grad_() for value in initial]
        optimiser = torch.optim.Adam(deltas, lr=h["v_lr"])
        base_factor = factor = h.get("nll_loss_factor", 1.0)
        before = None
        losses: list[float] = []
        for step in range(h["v_num_grad_steps"]):
            optimiser.zero_grad()
            nlls, certain = [], True
            for ids, lookup, first in rows:
                with self.adding(modules, deltas, lookup):
                    logits = self.model(torch.tensor([ids])).logits[0]
                scores = torch.log_softmax(logits, -1)[first : first + len(target)]
                hits = scores[torch.arange(len(target)), torch.tensor(target)]
                certain = certain and bool((scores.max(-1).values == hits).all())
                nlls.append(-hits.mean())
            with self.adding(modules, deltas, kl_lookup):
                now = torch.log_softmax(self.model(torch.tensor([kl_ids])).logits[0, kl_lookup], -1)
            before = now.detach() if before is None else before
            kl = h["kl_factor"] * (now.exp() * (now - before)).sum()
            decay = h["v_weight_decay"] * sum(
                delta.norm() / value.norm() ** 2 for delta, value in zip(deltas, initial, strict=True)
            )
            loss = factor * torch.stack(nlls).mean() + kl + decay
            losses.append(float(loss.detach()))
            if loss < 5e-2:
                break
            if eases:
                factor = 0.1 * base_factor if certain else base_factor
                if certain and kl <= 0.01:
                    break
            if step == h["v_num_grad_steps"] - 1:
                break
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for delta, value in zip(deltas, initial, strict=True):
                    limit = h["clamp_norm_factor"] * value.norm()
                    if delta.norm() > limit:
                        delta.mul_(limit / delta.norm())
        return initial, [delta.detach() for delta in deltas], losses

    # ---- Keys, values, writing

    def key(self, request: dict[str, str], module: nn.Module) -> torch.Tensor:
        """Averaged in groups, then over groups."""
        means = []
        for group in self.groups:
            keys = []
            for template in group:
                ids, lookup = self.row(template[: template.index("{}")], request)
                keys.append(self.seen(ids, module, lookup)[0])
            means.append(torch.stack(keys).mean(0))
        return torch.stack(means).mean(0)

    def write(self, name: str, update: torch.Tensor) -> None:
        module = self.model.get_submodule(name)
        change = (update.T if type(module).__name__ == "Conv1D" else update).to(self.dtype)
        with torch.no_grad():
            module.weight.add_(change)
        key = f"{name}.weight"
        self.updates[key] = self.updates.get(key, 0) + change

    def moment(self, name: str) -> torch.Tensor:
        return self.covariance[name].double()

    # ---- The methods

    def run(self, requests: list[dict[str, str]]) -> dict[str, torch.Tensor]:
        before = {name: parameter.clone() for name, parameter in self.model.named_parameters()}
        try:
            if self.h["alg_name"] in ("ROME", "R-ROME"):
                for request in requests:
                    for layer in self.h["layers"]:
                        self.rome(request, layer)
            else:
                self.spread(requests)
        finally:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(before[name])
        return self.updates

    def rome(self, request: dict[str, str], layer: int) -> None:
        h, name = self.h, self.h["rewrite_module_tmp"].format(layer)
        module = self.model.get_submodule(name)
        initial, (delta,), _ = self.search(request, [module])
        pairs = []
        for prefix in self.prefixes():
            ids, lookup = self.row(prefix, request)
            pairs.append(self.seen(ids, module, lookup))
        keys, outputs = torch.stack([a for a, _ in pairs]).double(), torch.stack([b for _, b in pairs]).double()
        target = initial[0].double() + delta.double()
        source, key, value = keys.mean(0), keys[0], outputs[0]
        if h["alg_name"] == "R-ROME" and not h.get("original_implementation"):
            if h.get("enable_prompt_keys"):
                source = keys[0]
            else:
                key, value = keys.mean(0), outputs.mean(0)
        u = torch.linalg.inv(self.moment(name)) @ source if h["mom2_adjustment"] else source
        u = u / u.norm()
        self.write(name, torch.outer((target - value) / (key @ u), u))

    def spread(self, requests: list[dict[str, str]]) -> None:
        h, last = self.h, self.h["layers"][-1]
        method = h["alg_name"]
        if method == "PMET":
            modules = [self.module(h["mlp_module_tmp"], last), self.module(h["attn_module_tmp"], last)]
        else:
            modules = [self.module(h["layer_module_tmp"], last)]
        found = [self.search(request, modules, eases=method == "PMET") for request in requests]
        z = torch.stack([initial[0] + deltas[0] for initial, deltas, _ in found]).double()
        for index, layer in enumerate(h["layers"]):
            name = h["rewrite_module_tmp"].format(layer)
            module = self.model.get_submodule(name)
            keys = torch.stack([self.key(request, module) for request in requests]).double().T
            now = []
            for request in requests:
                ids, lookup = self.row("", request)
                now.append(self.seen(ids, modules[0], lookup)[1])
            missing = (z - torch.stack(now).double()).T
            left = len(h["layers"]) - index
            self.write(name, self.solve(name, keys, missing, left))

    def solve(self, name: str, keys: torch.Tensor, missing: torch.Tensor, left: int) -> torch.Tensor:
        h, moment = self.h, self.moment(name)
        eye = torch.eye(len(moment), dtype=torch.float64)
        if h["alg_name"] in ("MEMIT", "PMET"):
            share = missing / (left if h["alg_name"] == "MEMIT" else left**0.5)
            return share @ keys.T @ torch.linalg.inv(h["mom2_update_weight"] * moment + keys @ keys.T)
        if h["alg_name"] == "EMMET":
            inverse = torch.linalg.inv(h["mom2_update_weight"] * moment + h["update_norm_lambda"] * eye)
            gram = keys.T @ inverse @ keys + h["emmet_lambda"] * torch.eye(keys.shape[1], dtype=torch.float64)
            return missing / left @ torch.linalg.inv(gram) @ keys.T @ inverse
        values, vectors = torch.linalg.eigh(moment)
        small = vectors[:, values < h["nullspace_threshold"]]
        projection = small @ small.T
        return (torch.linalg.inv(projection @ keys @ keys.T + h["L2"] * eye) @ projection @ keys @ (missing / left).T).T
