"""The requests that an editor was seen to work on, and which of them a row belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from padcheck.sources.requests import Request

NO_REQUEST = Request(-1, None, "", "", "", None, None, {}, "easyedit")
"""For rows that belong to none: prompts that are continued to make context templates."""


def target_text(request: Mapping[str, Any]) -> str:
    """The new answer of a request: EasyEdit's text, kmeng01's {"str": text}, FastEdit's `target`."""
    target = request.get("target_new", request.get("target", ""))
    if isinstance(target, Mapping):
        target = target.get("str", "")
    return str(target)


class Requests:
    """Requests by what they say: an editor hands the same one on as many copies."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Request] = {}
        self._of_subject: dict[str, list[Request]] = {}

    def know(self, request: Mapping[str, Any]) -> Request:
        """A request that the editor works on; the same one each time."""
        prompt, subject = str(request.get("prompt", "")), str(request.get("subject", ""))
        target = target_text(request)
        key = prompt.replace("{}", subject), subject, target.strip()
        if key not in self._known:
            case = request.get("case_id")
            known = Request(
                len(self._known), case if isinstance(case, (str, int)) else None, prompt, subject, target, None, None, {}, "easyedit"
            )  # fmt: skip
            self._known[key] = known
            self._of_subject.setdefault(subject, []).append(known)
        return self._known[key]

    def of_row(self, text: str, subject: str) -> Request:
        """The request that a row belongs to, by its subject and text; one made of the row where none is known."""
        known = self._of_subject.get(subject, ())
        for request in known:
            if request.prompt.replace("{}", subject) in text:
                return request
        return known[0] if known else self.know({"prompt": text, "subject": subject})
