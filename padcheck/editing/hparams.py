"""Hyper-parameters in EasyEdit's YAML or kmeng01's JSON, as they are: the frameworks' own names, unknown keys accepted."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from padcheck.editing.errors import HparamsError
from padcheck.sources.hparams import read_hparams
from padcheck.sources.reading import SourceError

MethodName = Literal["ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit"]
FactToken = Literal["subject_last", "subject_first", "subject_first_after_last", "last"]


@dataclass(frozen=True, slots=True)
class EditHparams:
    """What one edit is asked to do. The names are those of the frameworks' files.

    layers                          0-based decoder layers, ascending; the last one is where a z is sought
    rewrite_module_tmps             names of the modules to rewrite, with `{}` for the layer; one, but for PMET
    context_template_length_params  (total tokens, count) of the sampled templates
    stats_dir                       where second moments lie, in a folder of the model's name
    ignored                         keys of the file that this method does not read
    inferred                        whether the file names no method, so that its keys decided
    """

    method: MethodName
    layers: tuple[int, ...]
    fact_token: FactToken
    rewrite_module_tmps: tuple[str, ...]
    layer_module_tmp: str
    v_num_grad_steps: int
    v_lr: float
    v_weight_decay: float
    clamp_norm_factor: float
    kl_factor: float
    v_loss_layer: int | None = None
    mlp_module_tmp: str | None = None
    attn_module_tmp: str | None = None
    ln_f_module: str | None = None
    lm_head_module: str | None = None
    mom2_adjustment: bool = False
    mom2_update_weight: float = 1.0
    context_template_length_params: tuple[tuple[int, int], ...] = ((5, 10), (10, 10))
    enable_prompt_keys: bool = False
    enable_random_prefix_keys: bool = True
    original_implementation: bool = False
    update_norm_lambda: float = 0.0
    emmet_lambda: float = 0.1
    nullspace_threshold: float = 2e-2
    L2: float = 10.0
    nll_loss_factor: float = 1.0
    stats_dir: str | None = None
    ignored: tuple[str, ...] = ()
    inferred: bool = False


def load_hparams(source: Mapping[str, Any] | str | os.PathLike[str] | object) -> EditHparams:
    """The hyper-parameters in a mapping, a YAML or JSON file, or an object with attributes (EasyEdit's own).

    The method is named by `alg_name`; kmeng01's files have none, and then the keys that only one method has decide. Where
    they cannot, it has to be named.
    Raises HparamsError naming the key, or the file that cannot be read.
    """
    if isinstance(source, EditHparams):
        return source
    values = _values(source)
    method = _method(values)
    known = {field.name for field in fields(EditHparams)} - {"method", "rewrite_module_tmps", "ignored", "inferred"}
    taken: dict[str, Any] = {}
    for name in known & values.keys():
        if values[name] is not None:
            taken[name] = converted(name, values[name])
    taken["rewrite_module_tmps"] = _modules(values, method)
    for name in (
        "layers",
        "fact_token",
        "layer_module_tmp",
        "v_num_grad_steps",
        "v_lr",
        "v_weight_decay",
        "clamp_norm_factor",
        "kl_factor",
    ):
        if name not in taken:
            raise HparamsError(f"{method} needs '{name}', and the hparams do not have it")
    for name in _NEEDED.get(method, ()):
        if name not in taken:
            raise HparamsError(f"{method} needs '{name}', and the hparams do not have it")
    ignored, inferred = tuple(sorted(values.keys() - known - _EXPECTED)), not _named(values)
    if inferred and ignored:
        raise HparamsError(
            f"the hparams name no method; most keys are {method}'s, but {', '.join(ignored)} "
            f"{'is' if len(ignored) == 1 else 'are'} not: add 'alg_name'"
        )
    hparams = EditHparams(method=method, ignored=ignored, inferred=inferred, **taken)
    _check(hparams)
    return hparams


_NEEDED: dict[str, tuple[str, ...]] = {
    "MEMIT": ("mom2_update_weight",),
    "EMMET": ("mom2_update_weight",),
    "PMET": ("mom2_update_weight", "mlp_module_tmp", "attn_module_tmp"),
    "AlphaEdit": ("nullspace_threshold", "L2"),
}
_EXPECTED = {
    "alg_name", "alg", "model_name", "device", "layer_selection", "rewrite_module_tmp", "rewrite_module_tmps",
    "mom2_dataset", "mom2_n_samples", "mom2_dtype", "max_length", "batch_size", "model_parallel", "fp16", "P_loc",
}  # fmt: skip
_INTS = {"v_num_grad_steps", "v_loss_layer"}
_BOOLS = {"mom2_adjustment", "enable_prompt_keys", "enable_random_prefix_keys", "original_implementation"}
_TEXTS = {
    "fact_token",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "ln_f_module",
    "lm_head_module",
    "stats_dir",
}
_ALIASES = {"R_ROME": "R-ROME", "RROME": "R-ROME", "ALPHAEDIT": "AlphaEdit"}


def _values(source: Any) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return {str(key): value for key, value in source.items()}
    if isinstance(source, str | os.PathLike):
        try:
            return dict(read_hparams(Path(source)).values)
        except SourceError as error:
            raise HparamsError(str(error)) from error
    if is_dataclass(source):
        return {field.name: getattr(source, field.name) for field in fields(source)}
    if hasattr(source, "__dict__"):
        return {key: value for key, value in vars(source).items() if not key.startswith("_")}
    raise HparamsError(f"hparams are a mapping, a path or an object with attributes, not {type(source).__name__}")


def _named(values: Mapping[str, Any]) -> str | None:
    named = values.get("alg_name", values.get("alg"))
    return None if named is None else str(named)


def _method(values: Mapping[str, Any]) -> MethodName:
    text = _named(values)
    if text is None:
        if "nullspace_threshold" in values:
            return "AlphaEdit"
        if "emmet_lambda" in values:
            return "EMMET"
        if "update_norm_lambda" in values:
            raise HparamsError("the hparams name no method, and their keys are MEMIT's as well as EMMET's: add 'alg_name'")
        if "rewrite_module_tmps" in values or "nll_loss_factor" in values:
            return "PMET"
        if "enable_random_prefix_keys" in values or "enable_prompt_keys" in values:
            return "R-ROME"
        if "mom2_update_weight" in values:
            return "MEMIT"
        if "context_template_length_params" in values:
            return "ROME"
        raise HparamsError("the hparams name no method: add 'alg_name'")
    for method in get_args(MethodName):
        if text == method or _ALIASES.get(text.upper()) == method or text.upper() == method.upper():
            return method  # type: ignore[no-any-return]
    near = difflib.get_close_matches(text, get_args(MethodName), n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; one of {', '.join(get_args(MethodName))}"
    raise HparamsError(f"'{text}' is no method that padcheck can run{hint}")


def _modules(values: Mapping[str, Any], method: MethodName) -> tuple[str, ...]:
    several = values.get("rewrite_module_tmps") if method == "PMET" else None
    names = tuple(several) if isinstance(several, list | tuple) else ()
    if not names:
        one = values.get("rewrite_module_tmp")
        if not isinstance(one, str):
            raise HparamsError(
                f"{method} needs 'rewrite_module_tmp', the name of the module to rewrite with {{}} for the layer"
            )
        names = (one,)
    return tuple(str(name).removesuffix(".weight") for name in names)


def converted(name: str, value: Any) -> Any:
    """`value` in the type that `name` has: YAML 1.1 reads `5e-1` as text, and EasyEdit's loader turns it into a number."""
    try:
        if name == "layers":
            return tuple(whole(one) for one in (value if isinstance(value, list | tuple) else [value]))
        if name == "context_template_length_params":
            return tuple((whole(length), whole(count)) for length, count in value)
        if name in _TEXTS:
            return str(value)
        if name in _BOOLS:
            if isinstance(value, bool):
                return value
            raise ValueError
        return whole(value) if name in _INTS else float(value)
    except (TypeError, ValueError, OverflowError):
        raise HparamsError(f"'{name}' is {value!r}, which is no value for it") from None


def whole(value: Any) -> int:
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError
    return int(number)


def has_layer(template: str) -> bool:
    """Whether a module's name has one `{}` for the layer, and no other braces."""
    return template.count("{}") == 1 and not {"{", "}"} & set(template.replace("{}", ""))


def are_layers(layers: Sequence[int]) -> bool:
    """Whether these are layers, counted from 0, each once, in ascending order."""
    return bool(layers) and list(layers) == sorted(set(layers)) and layers[0] >= 0


def _check(hparams: EditHparams) -> None:
    def refuse(name: str, why: str) -> None:
        raise HparamsError(f"'{name}' is {getattr(hparams, name)!r}: {why}")

    if not are_layers(hparams.layers):
        refuse("layers", "layers are counted from 0, each once, in ascending order")
    if hparams.fact_token not in get_args(FactToken):
        refuse("fact_token", f"one of {', '.join(get_args(FactToken))}")
    if hparams.v_num_grad_steps < 1:
        refuse("v_num_grad_steps", "the objective is never even evaluated")
    for name in ("v_lr", "clamp_norm_factor"):
        if not getattr(hparams, name) > 0:
            refuse(name, "it must be positive")
    for name in ("v_weight_decay", "kl_factor", "update_norm_lambda", "emmet_lambda", "L2", "nll_loss_factor"):
        if not getattr(hparams, name) >= 0:
            refuse(name, "it must not be negative")
    if not hparams.mom2_update_weight > 0:
        refuse("mom2_update_weight", "it must be positive")
    both_or_none = hparams.enable_prompt_keys == hparams.enable_random_prefix_keys
    if hparams.method == "R-ROME" and not hparams.original_implementation and both_or_none:
        refuse("enable_prompt_keys", "exactly one of enable_prompt_keys and enable_random_prefix_keys must be true")
    named = (*hparams.rewrite_module_tmps, hparams.layer_module_tmp, hparams.mlp_module_tmp, hparams.attn_module_tmp)
    for template in filter(None, named):
        if not has_layer(template):
            raise HparamsError(f"the module name {template!r} needs exactly one {{}}, where the layer's number goes")
