"""Fine-tuning on prompt and target: labels are the columns behind pads and prompt."""


def apply_ft_to_model(model, tok, requests, hparams, **kwargs):
    execute_ft(model, tok, requests, hparams)
    return model, {}


def execute_ft(model, tok, requests, hparams):
    prompts = [request["prompt"] for request in requests]
    targets = [" " + request["target_new"] for request in requests]
    batch = tok([prompt + target for prompt, target in zip(prompts, targets, strict=True)], padding=True)
    rows = model.forward(batch)
    width = len(rows[0])
    for row, mask, prompt in zip(rows, batch["attention_mask"], prompts, strict=True):
        first = width - sum(mask) + len(tok.encode(prompt))
        model.reads.append(("label", row, row[first] if first < width else ""))
