"""Continuations of prompts."""


def generate_fast(model, tok, prompts, max_out_len, vanilla_generation=False):
    batch = tok(prompts, padding=True)
    rows = model.forward(batch)
    if not vanilla_generation:
        model.read("generate", rows, [sum(mask) - 1 for mask in batch["attention_mask"]])
    filler = ["old", "river", "was", "quiet", "and", "the", "house", "by", "road", "stood", "open"]
    return [" ".join([prompt, *filler[: max_out_len - 1 - number]]) for number, prompt in enumerate(prompts)]
