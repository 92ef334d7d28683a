"""What must not be reported, and how grave what is reported is: one case per guard."""

from __future__ import annotations

import textwrap

import pytest

from padcheck.checks.code import check_source

Found = list[tuple[str, str]]


def found(code: str, *, notes: bool = False) -> Found:
    """(rule, severity) of everything found, notes left out."""
    findings = check_source(textwrap.dedent(code), "example.py")
    return [(finding.rule, finding.severity) for finding in findings if notes or finding.severity != "note"]


RIGHT_ONLY = """
def targets(tok, texts: list[str], ids):
    {before}
    batch = tok(texts, padding=True, return_tensors="pt"{argument})
    rows = batch["input_ids"].clone()
    for i in range(len(texts)):
        n = batch["attention_mask"][i].sum()
        {use}
    return rows
"""
STORE = "rows[i, n - len(ids) : n] = ids"


@pytest.mark.parametrize(
    ("before", "argument", "use", "expected"),
    [
        ("pass", "", STORE, [("COD103", "warning")]),
        ("set_padding(tok, 'right')", "", STORE, []),
        ("utils.prepare_for_padding(model, tok)", "", STORE, []),
        ("set_padding(other)", "", STORE, [("COD103", "warning")]),
        ("tok.padding_side = 'left'", "", STORE, [("COD101", "warning"), ("COD103", "error")]),
        ("assert tok.padding_side == 'left'", "", STORE, [("COD103", "error")]),
        ("assert tok.padding_side == 'right'", "", STORE, []),
        ("assert getattr(tok, 'padding_side') == 'right'", "", STORE, []),
        ("if tok.padding_side != 'right': raise ValueError", "", STORE, []),
        ("if tok.padding_side == 'right': return None", "", STORE, [("COD103", "error")]),
        ("if tok.padding_side == 'left': log('left')", "", STORE, []),
        ("pass", ", padding_side='right'", STORE, []),
        ("pass", ", padding_side='left'", STORE, [("COD103", "error")]),
        ("pass", ", padding_side=side", STORE, []),
        ("tok = AutoTokenizer.from_pretrained('x', padding_side='left')", "", STORE, [("COD103", "error")]),
        ("tok = AutoTokenizer.from_pretrained('x', padding_side='right')", "", STORE, []),
        ("pass", "", "if tok.padding_side == 'right': " + STORE, []),
        ("pass", "", "if tok.padding_side == 'left': " + STORE, [("COD103", "error")]),
        ("pass", "", "rows[i, 0] = 1 if tok.padding_side == 'left' else ids[n - 1]", []),
        ("pass", "", "rows[i, n - 1] = 0", [("COD104", "warning")]),
        ("pass", "", "rows[i, 0] = rows[i][:n].sum()", [("COD104", "warning")]),
        ("pass", "", "rows[i, 0] = total / n", []),
        ("pass", "", "rows[i, 0] = weights[: max(n, 3)]", []),
        ("texts = ['one text']", "", STORE, []),
        ("texts = [texts[0]]", "", STORE, []),
        ("texts = texts + ['another']", "", STORE, [("COD103", "warning")]),
        ("texts = 'one ' + texts[0]", "", STORE, []),
    ],
)  # fmt: skip
def test_side_decides(before: str, argument: str, use: str, expected: Found) -> None:
    assert found(RIGHT_ONLY.format(before=before, argument=argument, use=use)) == expected


def test_mask_of_a_batch_without_padding() -> None:
    assert not found("""
        def last(model, tok, texts):
            batch = tok(texts, return_tensors="pt")
            return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
    """)


def test_side_of_another_tokenizer_does_not_count() -> None:
    assert ("COD104", "warning") in found("""
        def last(model, tok, other, texts):
            other = AutoTokenizer.from_pretrained("x", padding_side="right")
            batch = tok(texts, padding=True)
            return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
    """)


def test_alias_of_a_tokenizer() -> None:
    assert found("""
        class Editor:
            def last(self, model, texts: list[str]):
                tok = self.tokenizer
                self.tokenizer.padding_side = "left"
                batch = tok(texts, padding=True)
                return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
    """) == [("COD104", "error")]


def test_side_set_by_the_constructor_is_trusted() -> None:
    assert not found("""
        class Editor:
            def __init__(self, tok):
                self.tok = tok
                self.tok.padding_side = "right"

            def last(self, model, texts):
                batch = self.tok(texts, padding=True)
                return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
    """)


@pytest.mark.parametrize("manager", ["padding(tok, 'right')", "guard(tok, model=model)", "padcheck.guard(tok)"])
def test_context_manager_looks_after_the_side(manager: str) -> None:
    assert not found(f"""
        def last(model, tok, texts):
            with {manager}:
                batch = tok(texts, padding=True)
                return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
    """)


def test_test_in_another_branch_guards_nothing() -> None:
    assert found("""
        def losses(model, tok, texts, kind):
            batch = tok(texts, padding=True)
            if kind == "glm":
                if tok.padding_side == "left":
                    return other(batch)
            else:
                return model(**batch).logits[0, batch["attention_mask"].sum() - 1]
    """) == [("COD104", "warning")]


@pytest.mark.parametrize(
    "body",
    [
        "tok = AutoTokenizer.from_pretrained(name)\n    tok.padding_side = 'left'",
        "tok.padding_side = 'left'\n    return tok",
        "tok.padding_side = 'left'\n    return model, tok",
        "before = tok.padding_side\n    tok.padding_side = 'left'\n    tok.padding_side = before",
        "self.tok.padding_side = 'left'",
    ],
)
def test_switch_that_is_the_functions_own_business(body: str) -> None:
    assert not found(f"def evaluate(self, model, tok, name):\n    {body}\n")


@pytest.mark.parametrize("name", ["__init__", "setup_tokenizer", "set_padding", "prepare_tok"])
def test_functions_that_are_there_to_set_the_side(name: str) -> None:
    assert not found(f"def {name}(self, tok):\n    tok.padding_side = 'left'\n")


def test_module_level_owns_its_tokenizer() -> None:
    assert not found("from x import tok\ntok.padding_side = 'left'\nbatch = tok(['a'], padding=True)\n")


@pytest.mark.parametrize(
    ("restore", "expected"),
    [
        ("tok.padding_side = before", [("COD102", "warning")]),
        ("pass", [("COD101", "warning")]),
    ],
)
def test_restoring(restore: str, expected: Found) -> None:
    assert (
        found(f"""
        def run(model, tok, texts):
            before = tok.padding_side
            tok.padding_side = "left"
            out = model.generate(**tok(texts, padding=True))
            {restore}
            return out
    """)
        == expected
    )


def test_conditional_switch_and_restore_without_finally() -> None:
    assert found("""
        def run(model, tok, texts):
            switched = False
            if tok.padding_side == "right":
                tok.padding_side = "left"
                switched = True
            out = model.generate(**tok(texts, padding=True))
            if switched:
                tok.padding_side = "right"
            return out
    """) == [("COD102", "warning")]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("n = max(len(tok.encode(t)) for t in texts)\n    return hidden[0, n]", []),
        ("n = len(tok.encode(texts[0]))\n    batch = tok(texts, padding=True, max_length=n)\n    return batch", []),
        ("ids = tok(texts[0])['input_ids']\n    batch = tok(texts, padding=True)\n    return tok.decode(ids[len(ids) - 1])", []),
        ("n = len(tok.encode(texts[0])) - 1\n    batch = tok(texts, padding=True)\n    out = model(**batch).logits\n    return out[0, n]", [("COD105", "warning")]),
        ("n = len(tok(texts[0])['input_ids'])\n    batch = tok(texts, padding=True)\n    out = model(**batch).logits\n    return out[0, n - 1]", []),
        ("n = len(tok(texts)['input_ids'][0])\n    batch = tok(texts, padding=True)\n    out = model(**batch).logits\n    return out[0, n - 1]", [("COD105", "warning")]),
        ("n = len(tok.tokenize('a b')) - 1\n    batch = tok(texts, padding=True, padding_side='left')\n    out = model(**batch, position_ids=p).logits\n    return out[0, n]", [("COD105", "error")]),
        ("n = len(tok.encode('a')) - len(tok.encode('a' + 'b'))\n    batch = tok(texts, padding=True)\n    return model(**batch).logits[0, n]", []),
        ("n = len(tok.encode('a' + 'b')) - len(tok.encode('a'))\n    batch = tok(texts, padding=True)\n    return model(**batch).logits[0, n]", []),
    ],
)  # fmt: skip
def test_encoded_lengths(code: str, expected: Found) -> None:
    assert found(f"def f(model, tok, texts: list[str], hidden, p):\n    {code}\n") == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("return model(**tok(texts, padding=True)).logits[:, -1]", [("COD107", "warning")]),
        ("return model(**tok(texts, padding=True, padding_side='right')).logits[:, -1, :]", [("COD107", "error")]),
        ("return model(**tok([text], padding=True)).logits[:, -1]", []),
        ("return model(**tok(text + '.', padding=True)).logits[:, -1]", []),
        ("return model(**tok(texts)).logits[:, -1]", []),
        ("return model.generate(**tok(texts, padding=True))[:, -1]", []),
        ("return model(**tok(texts, padding=True), past_key_values=cache).logits[:, -1]", []),
        ("return model(**tok(texts, padding=True)).logits[-1]", []),
        ("return model(**tok(texts, padding=True)).logits[:, -1:]", []),
        ("return reprs(contexts=texts, idxs=[[-1] for _ in texts])", [("COD107", "warning")]),
        ("return reprs(contexts=[text], idxs=[[-1]])", []),
    ],
)
def test_last_column(code: str, expected: Found) -> None:
    assert found(f"def f(model, tok, texts: list[str], text: str, cache):\n    {code}\n") == expected


def test_a_loop_over_texts_makes_batches_of_one() -> None:
    assert not found("""
        def f(model, tok, texts):
            for text in texts:
                batch = tok(text, padding=True)
                yield model(**batch).logits[:, -1]
    """)


def test_a_loop_over_chunks_does_not() -> None:
    assert found("""
        def f(model, tok, texts):
            for part in chunks(texts, 8):
                batch = tok(part, padding=True)
                yield model(**batch).logits[:, -1]
    """) == [("COD107", "warning")]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("labels[i, pads[i] : pads[i] + n] = -100", [("COD109", "warning")]),
        ("labels[i, :n] = -100", [("COD109", "warning")]),
        ("labels[i, :n] = mask_token", [("COD109", "warning")]),
        ("labels[i, n:] = -100", []),
        ("labels[i, :n] = 0", []),
        ("labels[labels == tok.pad_token_id] = -100", []),
    ],
)
def test_label_starts(code: str, expected: Found) -> None:
    assert (
        found(f"""
        def f(tok, prompts, labels):
            ids = tok(prompts, padding=True)["input_ids"]
            counts = [(row != tok.pad_token_id).sum() for row in ids]
            pads = [(row == tok.pad_token_id).sum() for row in ids]
            for i, n in enumerate(counts):
                {code}
    """)
        == expected
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("model(**batch, labels=batch['input_ids'])", [("COD122", "warning")]),
        ("model(**batch, labels=batch['input_ids'].masked_fill(m, -100))", []),
        ("model(**batch, labels=batch['labels'])", []),
        ("dict(labels=batch['input_ids'])", [("COD122", "warning")]),
        ("tok(text)['labels']", []),
        ("model(**one, labels=one['input_ids'])", []),
        ("model(batch['input_ids'])", [("COD114", "warning")]),
        ("model(**batch)", []),
        ("model(one['input_ids'])", []),
    ],
)
def test_forward(code: str, expected: Found) -> None:
    assert (
        found(f"""
        def f(model, tok, texts, text: str, m):
            batch = tok(texts, padding=True)
            one = tok(text, padding=True)
            return {code}
    """)
        == expected
    )


@pytest.mark.parametrize(
    "code",
    [
        "assert x, print('no')",
        "assert x or y",
        "x or print('no')",
        "assert (x or print('no')), 'message'",
        "url.replace(host, '{}')",
        "prompt.replace('US', '{}')",
        "prompt.replace(subject, '{}', 1)",
        "prompt + tok.decode(ids)",
        "tok.decode(ids[:-1])",
        "if 'llama' in name.lower():\n    x = 1",
        "if 'llama' in model_name.lower():\n    x = 1\nelse:\n    x = 2\nprint(x)",
        "if kind in ['ROME', 'MEMIT']:\n    x.padding_side = 'right'\n    return x",
        "if len(a) != len(b):\n    raise ValueError",
        "model(input_ids=ids[:, s], attention_mask=mask[:, s])",
        "while t:\n    model(input_ids=ids[:, :n], attention_mask=mask[:, :n], past_key_values=c)",
        "while t:\n    model(input_ids=ids[:, s], attention_mask=mask[:, s], past_key_values=None)",
        "global P\nP = 1",
        "loss / batch['attention_mask'].sum()",
        "position_ids = batch['attention_mask'].cumsum(-1) - 1",
    ],
)
def test_innocent(code: str) -> None:
    assert found("def f(tok, model, x, y, prompt, subject, ids, mask, s, n, c, t, name, model_name, kind, a, b, batch, url, host, loss):\n" + textwrap.indent(code, "    "), notes=True) == []  # fmt: skip


def test_assignment_before_the_chain_is_a_default() -> None:
    assert not found("""
        def f(model_name):
            x = 0
            if "llama" in model_name.lower():
                x = 1
            elif "gpt" in model_name.lower():
                x = 2
            return x
    """)


def test_covariance_that_pads_for_itself() -> None:
    """Right padding by hand with its own mask, flattened by the mask: no side matters."""
    assert not found("""
        def make_padded_batch(items):
            max_len = max(len(d["input_ids"]) for d in items)
            return {k: pad_sequence([d[k] for d in items if len(d["input_ids"]) == max_len], batch_first=True) for k in items[0]}

        def flatten_masked_batch(data, mask):
            flat_data = data.view(-1, data.size(-1))
            attended_tokens = mask.view(-1).nonzero()[:, 0]
            return flat_data[attended_tokens]
    """)


def test_negative_positions_under_left_padding_are_right() -> None:
    """FastEdit's shape: everything counted from the end, and its labels too."""
    assert not found("""
        def get_words_idxs(tokenizer, templates, words):
            result = []
            for i, context in enumerate(templates):
                prefix, suffix = context.split("{}")
                prompt_len = len(tokenizer.encode(prefix + words[i]))
                input_len = len(tokenizer.encode(prefix + words[i] + suffix))
                result.append(prompt_len - 1 - input_len)
            return result

        def compute_v(model, tokenizer, prompts, templates, words, n):
            batch = tokenizer(prompts, padding=True, padding_side="left")
            targets = batch["input_ids"].clone()
            for i in range(len(prompts)):
                targets[i, -n - 1 : -1] = batch["input_ids"][i, -n:]
            idxs = get_words_idxs(tokenizer, templates, words)
            logits = model(**batch, position_ids=None).logits
            return [logits[i, idx] for i, idx in enumerate(idxs)], targets
    """)


def test_positions_pass_through_helpers_lists_and_closures() -> None:
    findings = check_source(
        textwrap.dedent("""
            def find_idx(prompt, tok):
                ret = None
                ret = len(tok.encode(prompt)) - 1
                return ret

            def compute(model, tok, prompts, delta):
                batch = tok([p for p in prompts], return_tensors="pt", padding=True).to("cuda")
                lookup_idxs = [find_idx(prompt, tok) for i, prompt in enumerate(prompts)]

                def edit(hidden):
                    for i, idx in enumerate(lookup_idxs):
                        hidden[i, idx, :] += delta

                return edit
        """),
        "example.py",
    )
    (finding,) = findings
    assert finding.rule == "COD105"
    assert finding.place.line == 9
    assert [related.place.line for related in finding.related] == [13, 8]
