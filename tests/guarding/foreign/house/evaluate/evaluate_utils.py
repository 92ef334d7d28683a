"""Evaluation with left padding, as it has to be."""


def prediction(model, tok, prompts):
    before = tok.padding_side
    tok.padding_side = "left"
    batch = tok(prompts, padding=True)
    tok.padding_side = before
    rows = model.forward(batch)
    model.read("evaluate", rows, [-1] * len(rows))
    return rows
