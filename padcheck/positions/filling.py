"""How an editor makes its prompt and its target out of a request, and where it would stop.

`fill` does with the strings what the method does: replace the subject by `{}`, format, put a space before the target. Where
the method would crash, the answer is a `Stop` that names the rule, so that the other requests are still checked.
"""

from __future__ import annotations

from dataclasses import dataclass

from padcheck.positions.editors import Method
from padcheck.sources.requests import Request


@dataclass(frozen=True, slots=True)
class Stop:
    """The editor raises on this request: nothing would be edited."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class Filled:
    """A request as the method sees it.

    `before + subject + after` is the prompt as it stands in the row. `raw_before` and `raw_after` are the same parts before
    `str.format` has turned doubled braces into single ones: the indices are counted on those.
    """

    request: Request
    before: str
    subject: str
    after: str
    raw_before: str
    raw_after: str
    target: str

    @property
    def prompt(self) -> str:
        return self.before + self.subject + self.after


def fill(request: Request, method: Method, *, fact_token: str = "subject_last", model_path: str = "") -> Filled | Stop:
    """The prompt and the target of `request` as `method` makes them, or why it stops."""
    target = spaced_target(own_target(request, method), method, model_path)
    if isinstance(target, Stop):
        return target
    if not method.fills_template or method.kind != "locate":
        return _literal(request, method, target)
    return _templated(request, method, target, fact_token)


def own_target(request: Request, method: Method) -> str:
    """The target as a file in the framework's own format would hold it.

    FastEdit appends `target` to the prompt as it stands; a `target_new` of the other formats is a bare answer, to which the editors
    add the space themselves. Who converts such a file writes that space (none before Chinese and Japanese).
    """
    target = request.target_new
    if method.head != "text" or request.shape == "fastedit" or not target or target[0].isspace() or is_cjk(target[0]):
        return target
    return " " + target


def is_cjk(character: str) -> bool:
    """Chinese, Japanese kana, CJK punctuation and full-width forms: scripts that put no space between words."""
    code = ord(character)
    return (
        0x3000 <= code <= 0x30FF
        or 0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0xFF00 <= code <= 0xFFEF
        or 0x20000 <= code <= 0x3134F
    )


def spaced_target(target: str, method: Method, model_path: str = "") -> str | Stop:
    """The target after the method's own handling of its leading space."""
    if method.space == "never":
        return target
    if method.space == "always":
        return " " + target
    if method.space == "unless-blank":
        return target if target == " " else " " + target
    if not target:
        return Stop("TGT106", "the target is empty: the method reads its first character and stops with an IndexError")
    if target[0] == " " or (method.space == "unless-leading-if-gpt" and "gpt" not in model_path.lower()):
        return target
    return " " + target


def _literal(request: Request, method: Method, target: str) -> Filled | Stop:
    """Methods that train on the prompt as it is; the subject's place only matters to the report."""
    prompt = request.prompt
    if method.fills_template and "{}" in prompt:
        try:
            prompt = prompt.format(request.subject)
        except (IndexError, KeyError, ValueError) as error:
            return Stop("REQ105", f"formatting the prompt fails: {_format_error(error)}")
    start = prompt.find(request.subject) if request.subject else -1
    if start < 0:
        return Filled(request, prompt, "", "", prompt, "", target)
    end = start + len(request.subject)
    return Filled(request, prompt[:start], request.subject, prompt[end:], prompt[:start], prompt[end:], target)


def _templated(request: Request, method: Method, target: str, fact_token: str) -> Filled | Stop:
    subject, template = request.subject, request.prompt
    if not subject.strip():
        return Stop("REQ106", "the subject is empty")
    if "{}" not in template:
        if subject not in template:
            return Stop("REQ101", "the subject does not occur in the prompt")
        count = template.count(subject)
        if count > 1:
            return Stop("REQ102", f"the subject occurs {count} times in the prompt, and every one is replaced by {{}}")
        template = template.replace(subject, "{}")
    elif method.replaces_always and subject in template:
        return Stop("REQ102", "the subject occurs in the template besides {}, and this method replaces it there too")
    places = template.count("{}")
    if places != 1:
        return Stop("REQ105", f"the template holds {places} times {{}} instead of once")
    raw_before, raw_after = template.split("{}")
    if method.needs_space_before_subject and fact_token != "last" and raw_before and raw_before[-1] != " ":
        return Stop("REQ111", "the method asserts that a space stands before the subject")
    before, after = raw_before, raw_after
    if "{" in template.replace("{}", "", 1) or "}" in template.replace("{}", "", 1):
        try:
            marker = "\x00"
            before, after = template.format(marker).split(marker)
        except (IndexError, KeyError, ValueError) as error:
            return Stop("REQ105", f"formatting the prompt fails: {_format_error(error)}")
    return Filled(request, before, subject, after, raw_before, raw_after, target)


def _format_error(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{{{error.args[0]}}} is taken for a field"
    if isinstance(error, IndexError):
        return "there is more than one field"
    return str(error).lower()
