"""Columns of words, counted on unpadded text; and what is read there."""


def get_reprs_at_word_tokens(model, tok, context_templates, words, subtoken):
    idxs = get_words_idxs_in_templates(tok, context_templates, words, subtoken)
    contexts = [template.format(word) for template, word in zip(context_templates, words, strict=True)]
    return get_reprs_at_idxs(model, tok, contexts, idxs)


def get_words_idxs_in_templates(tok, context_templates, words, subtoken):
    found = []
    for template, word in zip(context_templates, words, strict=True):
        before, after = template.split("{}")
        counts = [len(tok.encode(text)) for text in (before, before + word, before + word + after)]
        if subtoken == "first":
            found.append([counts[0] - counts[2]])
        elif subtoken == "last" or counts[1] == counts[2]:
            found.append([counts[1] - 1])
        else:
            found.append([counts[1]])
    return found


def get_reprs_at_idxs(model, tok, contexts, idxs, size=4):
    for start in range(0, len(contexts), size):
        rows = model.forward(tok(contexts[start : start + size], padding=True))
        model.read("key", rows, [own[0] for own in idxs[start : start + size]])
