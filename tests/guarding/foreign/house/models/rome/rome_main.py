"""ROME without the algebra."""

from copy import deepcopy

from ...util.generate import generate_fast
from . import repr_tools
from .compute_v import compute_v

CONTEXT_TEMPLATES_CACHE = None


def apply_rome_to_model(model, tok, request, hparams, **kwargs):
    execute_rome(model, tok, request[0], hparams)
    return model, {}


def execute_rome(model, tok, request, hparams):
    request = deepcopy(request)
    request["target_new"] = " " + request["target_new"]
    request["prompt"] = request["prompt"].replace(request["subject"], "{}")
    templates = get_context_templates(model, tok, hparams.context_template_length_params)
    contexts = [template.format(request["prompt"]) for template in templates]
    if hparams.fact_token == "last":
        filled = [text.format(request["subject"]) for text in contexts]
        repr_tools.get_reprs_at_idxs(model, tok, filled, [[-1] for _ in filled])
    else:
        subtoken = hparams.fact_token.removeprefix("subject_")
        words = [request["subject"]] * len(contexts)
        repr_tools.get_reprs_at_word_tokens(model, tok, contexts, words, subtoken)
    compute_v(model, tok, request, hparams, templates)


def get_context_templates(model, tok, length_params):
    global CONTEXT_TEMPLATES_CACHE
    if CONTEXT_TEMPLATES_CACHE is None:
        texts = [text for length, _ in length_params for text in generate_fast(model, tok, ["The", "Therefore"], length)]
        CONTEXT_TEMPLATES_CACHE = ["{}"] + [text + ". {}" for text in texts]
    return CONTEXT_TEMPLATES_CACHE
