"""A vector added behind the first block at the lookup tokens, so that the target becomes likelier."""

import torch

from ..rome import repr_tools


def compute_z(model, tok, request, hparams, context_templates):
    target_ids = tok(request["target_new"], return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    rewriting_prompts = [
        template.format(request["prompt"]) + tok.decode(target_ids[:-1]) for group in context_templates for template in group
    ]
    kl_prompts = ["{} is a"]
    every = rewriting_prompts + kl_prompts
    batch = tok([text.format(request["subject"]) for text in every], return_tensors="pt", padding=True)
    labels = torch.full((len(rewriting_prompts), batch["input_ids"].shape[1]), -100)
    for row in range(len(rewriting_prompts)):
        length = int(batch["attention_mask"][row].sum())
        labels[row, length - len(target_ids) : length] = target_ids
    columns = [find_fact_lookup_idx(text, request["subject"], tok, hparams.fact_token) for text in every]
    block = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))[0]
    delta = torch.zeros(model.config.hidden_size, requires_grad=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def add(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        for row, column in enumerate(columns):
            hidden[row, column] += delta
        return output

    optimizer = torch.optim.Adam([delta], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        hook = block.register_forward_hook(add)
        try:
            logits = model(**batch).logits[: len(rewriting_prompts)].log_softmax(-1)
        finally:
            hook.remove()
        picked = logits.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
        (-(picked * (labels != -100)).sum() / len(target_ids)).backward()
        optimizer.step()
    return delta.detach()


def find_fact_lookup_idx(prompt, subject, tok, fact_token_strategy):
    if fact_token_strategy == "last":
        return -1
    subtoken = fact_token_strategy.removeprefix("subject_")
    return repr_tools.get_words_idxs_in_templates(tok, [prompt], [subject], subtoken)[0][0]
