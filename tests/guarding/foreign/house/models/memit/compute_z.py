"""The same for many facts, where `last` is the last column."""

from ..rome import repr_tools


def compute_z(model, tok, request, hparams, context_templates):
    target_ids = tok.encode(request["target_new"], add_special_tokens=False)
    rewriting_prompts = [
        template.format(request["prompt"]) + tok.decode(target_ids[:-1]) for group in context_templates for template in group
    ]
    kl_prompts = ["{} is a"]
    every = rewriting_prompts + kl_prompts
    batch = tok([text.format(request["subject"]) for text in every], padding=True)
    columns = [find_fact_lookup_idx(text, request["subject"], tok, hparams.fact_token) for text in every]
    rows = model.forward(batch)
    model.read("lookup", rows, columns)
    firsts = [sum(mask) - len(target_ids) for mask in batch["attention_mask"]]
    model.score(rows[: len(rewriting_prompts)], firsts[: len(rewriting_prompts)], tok.convert_ids_to_tokens(target_ids))


def find_fact_lookup_idx(prompt, subject, tok, fact_token_strategy):
    if fact_token_strategy == "last":
        return -1
    subtoken = fact_token_strategy.removeprefix("subject_")
    return repr_tools.get_words_idxs_in_templates(tok, [prompt], [subject], subtoken)[0][0]
