"""The smallest change that makes a run right: the padding side where one is right, else corrections row by row."""

from __future__ import annotations

from padcheck.checks.drift_rules import Tally
from padcheck.planning import Plan
from padcheck.positions.editors import Side, SidePlace
from padcheck.reports import Remedy

_BY_SIDE = frozenset({"pads", "sign"})


def right_side(plan: Plan, tally: Tally, needs_left: int, needs_right: int) -> Side | None:
    """The other side, if it makes every position of the run right; None if the present one does or none does."""
    if not tally.by_cause or plan.side.forced_by_method:
        return None
    causes = {group.cause for group in tally.groups.values()}
    if not causes & _BY_SIDE or (needs_left and needs_right):
        return None
    other: Side = "right" if plan.side.value == "left" else "left"
    return other if (needs_right if other == "right" else needs_left) else None


def usable_places(plan: Plan) -> list[SidePlace]:
    """Where this run's side can be set, best first."""
    return [place for place in plan.editor.side_places if not (place.unless_ruled and plan.side.ruled is not None)]


def find_remedies(plan: Plan, tally: Tally, needs_left: int, needs_right: int) -> list[Remedy]:
    """What to change, the smallest first; one entry per kind of cure."""
    remedies: list[Remedy] = []
    causes = {group.cause for group in tally.groups.values()}
    side = right_side(plan, tally, needs_left, needs_right)
    places = usable_places(plan)
    if side is not None:
        why = "every position that pads shift is then right"
        if plan.side.stated_by_caller:
            remedies.append(
                Remedy(f"Pad on the {side}: {why}.", "where your code sets padding_side", f'tok.padding_side = "{side}"')
            )
        elif places:
            place = places[0]
            line = {
                "tokenizer_config": f'"padding_side": "{side}"',
                "hparams": f"padding_side: {side}",
                "caller": f'tok.padding_side = "{side}"',
                "code": None,
            }[place.kind]
            remedies.append(Remedy(f"Pad on the {side}: {why}.", place.text, line))
        if plan.side.ruled is not None and not plan.side.stated_by_caller:
            code = next((place for place in plan.editor.side_places if place.kind == "code"), None)
            if code is not None and places and places[0] is not code:
                remedies.append(
                    Remedy(
                        f"Or mend {plan.editor.title} itself, so that {plan.method_name} is padded on the {side}.", code.text
                    )
                )
    elif causes & _BY_SIDE:
        fact_token = " Or choose fact_token: subject_last." if plan.fact_token != "subject_last" else ""
        remedies.append(
            Remedy(
                f"No padding side is right for all positions of {plan.method_name} with fact_token {plan.fact_token}: correct them row by row "
                f"(--fix writes the corrections).{fact_token}",
                None,
                "with padcheck.guard(tokenizer, model=model, corrections=PATH): ...",
            )
        )
    if "retokenised" in causes:
        remedies.append(
            Remedy(
                "The target's head must enter the row as the tokens that are trained: build the row from ids, or decode it so that its leading "
                "space is kept. No padding side changes this; --fix writes the text that re-tokenises to the right ids for each request.",
                "where the editor joins prompt and decoded target",
                "prompt + full_target_text[: end of the last but one target token]",
            )
        )
    if "raises" in causes:
        remedies.append(
            Remedy(
                f"Choose another fact_token: {plan.method_name} cannot run with {plan.fact_token!r}.",
                plan.hparams.path,
                "fact_token: subject_last",
            )
        )
    intrinsic = causes & {"merged", "boundary", "special_tokens", "suffix", "braces", "occurrence"}
    if intrinsic:
        remedies.append(
            Remedy(
                f"Also wrong without any padding ({', '.join(sorted(intrinsic))}): see the findings; --fix writes the right columns row by row.",
            )
        )
    return remedies
