"""The target vector: one padded batch of templates and the KL row."""

from . import repr_tools


def compute_v(model, tok, request, hparams, context_templates):
    target_ids = tok.encode(request["target_new"], add_special_tokens=False)
    rewriting_prompts = [template.format(request["prompt"]) + tok.decode(target_ids[:-1]) for template in context_templates]
    kl_prompts = ["{} is a"]
    every = rewriting_prompts + kl_prompts
    batch = tok([text.format(request["subject"]) for text in every], padding=True)
    lengths = [sum(mask) for mask in batch["attention_mask"]]
    plain = [template.format(request["prompt"]).format(request["subject"]) for template in context_templates]
    plain.append(kl_prompts[0].format(request["subject"]))
    columns = [
        find_fact_lookup_idx(text, request["subject"], tok, hparams.fact_token, input_prompt=own)
        for text, own in zip(every, plain, strict=True)
    ]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    rows = model.forward(batch)
    model.read("lookup", rows, columns)
    model.score(
        rows[: len(rewriting_prompts)],
        [length - len(target_ids) for length in lengths[: len(rewriting_prompts)]],
        tok.convert_ids_to_tokens(target_ids),
    )


def find_fact_lookup_idx(prompt, subject, tok, fact_token_strategy, input_prompt=None):
    if fact_token_strategy == "last":
        return len(tok.encode(input_prompt)) - 1
    subtoken = fact_token_strategy.removeprefix("subject_")
    return repr_tools.get_words_idxs_in_templates(tok, [prompt], [subject], subtoken)[0][0]
