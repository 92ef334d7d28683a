"""Columns of words, counted on unpadded text."""


def get_words_idxs_in_templates(tok, context_templates, words, subtoken):
    found = []
    for template, word in zip(context_templates, words, strict=True):
        before, after = template.split("{}")
        start, end, whole = (len(tok.encode(text)) for text in (before, before + word, before + word + after))
        found.append([start - whole if subtoken == "first" else end - 1])
    return found
