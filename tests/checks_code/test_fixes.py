"""Fixes: exact spans, layout and comments kept, the result parses, and the finding is gone."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass

import pytest

from padcheck.checks.code import check_source
from padcheck.checks.code.rule import RULES

from .applying import apply_edits, fixed
from .test_pages import bad


@dataclass(frozen=True)
class Case:
    rule: str
    grade: str
    before: str
    after: str


CASES = {
    "finally": Case(
        "COD102",
        "safe",
        """
        def f(model, tok, texts):
            before = tok.padding_side
            tok.padding_side = 'left'  # for generation

            # the batch
            batch = tok(texts,
                        padding=True)   # aligned by hand
            text = f'''{texts}
        not indented'''
            for x in texts:
                print(x)
            tok.padding_side = before  # back
            return batch
        """,
        """
        def f(model, tok, texts):
            before = tok.padding_side
            tok.padding_side = 'left'  # for generation
            try:

                # the batch
                batch = tok(texts,
                            padding=True)   # aligned by hand
                text = f'''{texts}
        not indented'''
                for x in texts:
                    print(x)
            finally:
                tok.padding_side = before  # back
            return batch
        """,
    ),
    "finally with tabs": Case(
        "COD102",
        "safe",
        "def f(tok):\n\tbefore = tok.padding_side\n\ttok.padding_side = 'left'\n\tg(tok)\n\ttok.padding_side = before\n",
        "def f(tok):\n\tbefore = tok.padding_side\n\ttok.padding_side = 'left'\n\ttry:\n\t\tg(tok)\n\tfinally:\n\t\ttok.padding_side = before\n",
    ),
    "finally for the rest": Case(
        "COD101",
        "unsafe",
        """
        def f(model, tok, texts):
            "Generate."
            tok.padding_side = "left"
            batch = tok(texts, padding=True)
            return model.generate(**batch)  # done


        def g(): ...
        """,
        """
        def f(model, tok, texts):
            "Generate."
            padding_side_before = tok.padding_side
            tok.padding_side = "left"
            try:
                batch = tok(texts, padding=True)
                return model.generate(**batch)  # done
            finally:
                tok.padding_side = padding_side_before


        def g(): ...
        """,
    ),
    "pinned right": Case(
        "COD104",
        "unsafe",
        """
        def f(model, tok, texts):
            batch = tok(texts, padding=True,  # all rows
                        return_tensors="pt")
            return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
        """,
        """
        def f(model, tok, texts):
            batch = tok(texts, padding=True, padding_side="right",  # all rows
                        return_tensors="pt")
            return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
        """,
    ),
    "mask of the step": Case(
        "COD113",
        "unsafe",
        """
        def f(model, ids, mask, s, cache):
            while True:
                cache = model(input_ids=ids[:, s], attention_mask=None if llama else mask[:, s], past_key_values=cache)
                s = slice(s.stop, s.stop + 1)
        """,
        """
        def f(model, ids, mask, s, cache):
            while True:
                cache = model(input_ids=ids[:, s], attention_mask=None if llama else mask[:, : s.stop], past_key_values=cache)
                s = slice(s.stop, s.stop + 1)
        """,
    ),
    "mask passed": Case(
        "COD114",
        "unsafe",
        """
        def f(model, tok, texts):
            b = tok(texts, padding=True)
            return model(b.input_ids, output_hidden_states=True)
        """,
        """
        def f(model, tok, texts):
            b = tok(texts, padding=True)
            return model(b.input_ids, attention_mask=b.attention_mask, output_hidden_states=True)
        """,
    ),
    "first occurrence": Case(
        "COD115",
        "unsafe",
        "def f(prompt, subject):\n    return prompt.replace(subject, '{}')  # 主语 → {}\n",
        "def f(prompt, subject):\n    return prompt.replace(subject, '{}', 1)  # 主语 → {}\n",
    ),
    "raise": Case(
        "COD117",
        "unsafe",
        """
        def f(a, b):
            assert a is not None or print(f'数据 {a}' +
                                          'missing')  # why
            assert (a and b) or print('no')
            assert a and b or print('no')
            assert g(a) or print('no')
            assert a == b or print('no')
        """,
        """
        def f(a, b):
            if a is None:
                raise ValueError(f'数据 {a}' +
                                          'missing')  # why
            if not (a and b):
                raise ValueError('no')
            if not (a and b):
                raise ValueError('no')
            if not g(a):
                raise ValueError('no')
            if a != b:
                raise ValueError('no')
        """,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_fix(case: Case, line_end: str) -> None:
    text = textwrap.dedent(case.before).replace("\n", line_end)
    fixes = [each.fix for each in check_source(text, "e.py") if each.rule == case.rule and each.fix]
    assert {fix.grade for fix in fixes} == {case.grade}
    result = apply_edits(text, [edit for fix in fixes for edit in fix.edits])
    assert result == textwrap.dedent(case.after).replace("\n", line_end)
    assert case.rule not in [each.rule for each in check_source(result, "e.py")], "the fix is idempotent"
    ast.parse(result)


@pytest.mark.parametrize("rule_id", sorted(RULES))
def test_fix_of_the_pages_example(rule_id: str) -> None:
    """Whatever fix an example has: its result parses, and the rule is silent on it."""
    text = bad(rule_id)
    findings = [each for each in check_source(text, "e.py") if each.rule == rule_id]
    result = fixed(text, findings, "safe", "unsafe")
    ast.parse(result)
    if result != text:
        assert rule_id not in [each.rule for each in check_source(result, "e.py")]


@pytest.mark.parametrize(
    "text",
    [
        "def f(tok):\n    b = tok.padding_side; tok.padding_side = 'left'; g(tok); tok.padding_side = b\n",
        "def f(tok):\n    b = tok.padding_side\n    tok.padding_side = 'left'; g(tok)\n    tok.padding_side = b\n",
        "def f(tok):\n    b = tok.padding_side\n    tok.padding_side = 'left'\n    g(tok); tok.padding_side = b\n",
        "def f(tok): tok.padding_side = 'left'; return tok(['a', 'b'])\n",
        "def f(a):\n    if a: assert a.b or print('no')\n",
        "def f(a):\n    assert a or print('no', a)\n",
        "def f(a):\n    assert a or print('no'); g()\n",
        "def f(a):\n    assert (a or print('no'))\n",
        "def f(a):\n    assert a \\\n        or print('no')\n",
    ],
)
def test_no_fix_where_the_layout_does_not_allow_one(text: str) -> None:
    findings = check_source(text, "e.py")
    assert findings
    assert [each.fix for each in findings] == [None] * len(findings)


def test_one_call_is_pinned_once() -> None:
    text = textwrap.dedent("""
        def f(model, tok, texts):
            batch = tok(texts, padding=True)
            out = model(**batch).logits
            return out[:, -1], out[0, batch["attention_mask"].sum() - 1], out[1, batch["attention_mask"].sum() - 1]
    """)
    assert sum(each.fix is not None for each in check_source(text, "e.py")) == 1
