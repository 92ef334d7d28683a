"""The reports of a comparison: a terminal's, a program's and a page; and that reading it needs no torch."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from padcheck.renderers.verification import html, json_, text
from padcheck.renderers.verification.charts import chart
from padcheck.renderers.verification.text import sparkline
from padcheck.renderers.verification.words import explanation, headline, state
from padcheck.verifying.outcomes import ABLATIONS, CORRECTED, LEFT, PARTS, RIGHT, Comparison, Outcome
from tests.verifying.models import rome, valid


class Page(HTMLParser):
    """What stands in a page: tags with attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def shifted(comparison: Comparison, way: str, by: float) -> Comparison:
    """The comparison with every probability of a way moved."""

    def moved(outcome: Outcome) -> Outcome:
        assert outcome.reading is not None
        return replace(outcome, reading=replace(outcome.reading, probability=outcome.reading.probability + by))

    compared = tuple(replace(one, outcomes={**one.outcomes, way: moved(one.outcomes[way])}) for one in comparison.compared)
    return replace(comparison, compared=compared)


def test_text() -> None:
    comparison = rome("llama-facts", "sdpa")
    shown = text.render(comparison, ["an ESTIMATE"], max_requests=2)
    lines = shown.splitlines()
    assert "note: an ESTIMATE" in shown
    assert "… and 1 more" in shown
    assert lines.index("ROME, 3 requests, 3 context templates, sdpa attention, float32") == 0
    assert headline(comparison).split(" (")[0] in " ".join(lines[3:5])
    first = comparison.by_loss()[0]
    assert f"  {first.asked[0]}   (the new answer: {first.request.target_new})" in lines
    assert first.outcomes[RIGHT].reading is not None
    assert f"    right      {first.outcomes[RIGHT].reading.said[0].strip()}" in lines
    assert max(map(len, lines)) < 115


def test_json() -> None:
    comparison = rome("llama-facts", "sdpa")
    document = json.loads(json.dumps(json_.document(comparison), allow_nan=False))
    valid(document)
    for broken in ({**document, "more": 1}, {**document, "requests": []}, {**document, "summary": {}}):
        with pytest.raises(AssertionError):
            valid(broken)
    assert document["summary"]["probability"][RIGHT] == comparison.mean(RIGHT)
    assert len(document["requests"]) == 3
    for shown, one in zip(document["requests"], comparison.compared, strict=True):
        assert set(shown["edits"]) == {RIGHT, LEFT, CORRECTED, *ABLATIONS}
        for way, outcome in one.outcomes.items():
            assert shown["edits"][way]["steps"] == [dict(step) for step in outcome.trace]
            assert all(step.keys() == set(PARTS) for step in shown["edits"][way]["steps"])
        assert [spoken["prompt"] for spoken in shown["generation"]] == list(one.asked)
        assert set(shown["generation"][0]) == {"prompt", "before", RIGHT, LEFT, CORRECTED}
        assert shown["generation"][0]["before"] == one.before.said[0]


def test_page_is_whole_and_alone() -> None:
    comparison = rome("llama-facts", "eager")
    shown = html.render(comparison, ["an ESTIMATE"])
    page = Page(shown)
    assert not page.open
    assert {"script", "img", "iframe", "object", "embed", "video", "audio"}.isdisjoint(tag for tag, _ in page.tags)
    assert not [value for _, attributes in page.tags for name, value in attributes.items() if name == "src"]
    assert [attributes["href"] for tag, attributes in page.tags if tag == "link"] == ["data:,"]
    assert not re.search(r"https?:|url\(|@import", shown)
    assert "default-src 'none'" in shown
    words = " ".join("".join(page.words).split())
    assert words.index(headline(comparison)) < words.index("While the edit is optimised") < words.index("What did it")
    for heading in ("The tokens that left padding hits instead", "Request by request", "How the model goes on"):
        assert heading in words
    assert "an ESTIMATE" in words


def test_page_draws_every_part_for_every_way() -> None:
    comparison = rome("llama-facts", "sdpa")
    shown = html.render(comparison)
    figures = re.findall(r'<figure class="curve">.*?</figure>', shown, flags=re.DOTALL)
    assert len(figures) == len(PARTS)
    for figure in figures:
        for way in (RIGHT, LEFT, CORRECTED):
            (points,) = re.findall(rf'<polyline class="series {way}" points="([^"]+)"', figure)
            longest = max(len(one.outcomes[way].trace) for one in comparison.compared)
            assert len(points.split()) == longest
        assert 'class="axis"' in figure
        assert figure.count('class="tick"') >= 5


def test_verdicts() -> None:
    comparison = rome("llama-facts", "sdpa")
    same = shifted(comparison, LEFT, 0.0)
    unharmed = replace(
        same,
        compared=tuple(replace(one, outcomes={**one.outcomes, LEFT: one.outcomes[RIGHT]}) for one in same.compared),
    )
    assert (state(unharmed), unharmed.recovered(CORRECTED)) == ("no harm", None)
    assert headline(unharmed).startswith("Left padding takes next to nothing here: 0.0 points")
    harmed = shifted(unharmed, LEFT, -0.3)
    assert state(harmed) == "harm"
    assert headline(harmed).startswith(
        "Left padding takes 30.0 points of the right edit's probability (95% interval 30.0 to "
    )
    off = shifted(harmed, CORRECTED, -0.2)
    assert state(off) == "unexplained"
    assert "so padding does not explain it all" in " ".join(explanation(off))
    assert "something else than padding" in " ".join(explanation(shifted(off, "indices", -0.3)))
    for one in (unharmed, harmed, off):
        assert Page(html.render(one)).open == []


def test_hostile_texts_cannot_leave_their_place() -> None:
    comparison = rome("llama-facts", "sdpa")
    one = comparison.compared[0]
    nasty = '\x1b[31m<script>alert(1)</script>"\u202eתירבע'
    bad = replace(
        one,
        request=replace(one.request, subject=nasty, target_new=nasty),
        before=replace(one.before, said=(nasty, nasty)),
        asked=(nasty, nasty),
    )
    changed = replace(comparison, compared=(bad, *comparison.compared[1:]))
    page = html.render(changed)
    assert "<script" not in page
    for shown in (page, text.render(changed)):
        assert "\x1b" not in shown
        assert "\u202e" not in shown


def test_sparkline() -> None:
    assert sparkline([0, 0.5, 1, float("nan")]) == "▁▅█×"
    assert sparkline([0] * 60 + [1]) == "▁" * 23 + "█"


def test_chart_marks_where_a_curve_breaks() -> None:
    figure = chart("Loss", {"right": [3.0, 1.0], "left": [math.nan]}, width=400, height=200, form=str)
    assert figure.count("<polyline") == 1
    assert ">NaN<" in figure
    assert "left ends at no finite number" in figure


@pytest.mark.parametrize(
    "module", ["padcheck.verifying.outcomes", "padcheck.renderers.verification.html", "padcheck.demonstrating"]
)
def test_reading_a_comparison_needs_no_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers', 'numpy'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
