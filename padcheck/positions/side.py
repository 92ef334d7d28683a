"""Which padding side will really result, and how it comes about.

The tokenizer's own side (stated in its config, else the default of its class) is overwritten, in this order, by the framework's
rules and by the method itself; what the caller states on the command line stands at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from padcheck.positions.editors import Editor, Family, Method, Side, SideRule


class TokenizerFacts(Protocol):
    """What the side depends on. Satisfied by `sources.tokenizer_folder.TokenizerFolder`."""

    @property
    def class_name(self) -> str | None: ...
    @property
    def backend_is_fast_class(self) -> bool: ...
    @property
    def padding_side(self) -> Side: ...
    @property
    def padding_side_because(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ResultingSide:
    """The side at edit time. `ruled`: the framework's rule that set it, None where the tokenizer's own side holds."""

    value: Side
    because: str
    steps: tuple[str, ...]
    ruled: SideRule | None = None
    forced_by_method: bool = False
    stated_by_caller: bool = False


def family_of(editor: Editor, model_path: str) -> Family | None:
    """The branch that the framework's substring dispatch takes for this model path (the first substring found)."""
    lowered = model_path.lower()
    return next((family for family in editor.families if family.contains in lowered), None)


def resulting_side(
    editor: Editor,
    method: Method,
    method_name: str,
    tokenizer: TokenizerFacts,
    model_path: str,
    *,
    stated: Side | None = None,
    passed_in: bool = False,
) -> ResultingSide:
    """Run the framework's statements about the side.

    `stated` is what the caller says will hold (`--padding-side`); `passed_in` means that the caller hands over a loaded
    (model, tokenizer), so that the framework sets nothing.
    """
    value: Side = tokenizer.padding_side
    steps = [tokenizer.padding_side_because]
    because = tokenizer.padding_side_because
    ruled: SideRule | None = None
    if passed_in:
        steps.append(f"{editor.title} sets nothing where (model, tok) is passed in")
    else:
        for rule in editor.side_rules:
            if _fires(rule, method_name, tokenizer, model_path):
                value, ruled = rule.set, rule
                because = f"{rule.because} ({rule.source})"
                steps.append(because)
    if method.sets_side is not None:
        value = method.sets_side
        because = f"{method_name} sets it itself around its batches ({method.source})"
        steps.append(because)
    elif stated is not None:
        value = stated
        because = f"--padding-side {stated}"
        steps.append(because)
    return ResultingSide(value, because, tuple(steps), ruled, method.sets_side is not None, stated is not None)


def _fires(rule: SideRule, method_name: str, tokenizer: TokenizerFacts, model_path: str) -> bool:
    if rule.methods and method_name not in rule.methods:
        return False
    if rule.unless_methods and method_name in rule.unless_methods:
        return False
    if rule.path_contains and not any(part in model_path.lower() for part in rule.path_contains):
        return False
    return not rule.fast_or_class or tokenizer.backend_is_fast_class or tokenizer.class_name in rule.fast_or_class
