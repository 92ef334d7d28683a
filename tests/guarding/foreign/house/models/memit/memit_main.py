"""MEMIT without the algebra: all facts of a call at once."""

from copy import deepcopy

from ..rome import repr_tools
from .compute_z import compute_z

CONTEXT_TEMPLATES_CACHE = [["{}"], ["The old river. {}", "Therefore the house by the road was quiet. {}"]]


def apply_memit_to_model(model, tok, requests, hparams, **kwargs):
    execute_memit(model, tok, requests, hparams)
    return model, {}


def execute_memit(model, tok, requests, hparams):
    requests = deepcopy(requests)
    for request in requests:
        request["target_new"] = " " + request["target_new"]
        request["prompt"] = request["prompt"].replace(request["subject"], "{}")
    for request in requests:
        compute_z(model, tok, request, hparams, CONTEXT_TEMPLATES_CACHE)
    contexts, words = [], []
    for request in requests:
        for group in CONTEXT_TEMPLATES_CACHE:
            for template in group:
                contexts.append(template.format(request["prompt"]))
                words.append(request["subject"])
    if hparams.fact_token == "last":
        raise Exception("this does not work")
    subtoken = hparams.fact_token.removeprefix("subject_")
    repr_tools.get_reprs_at_word_tokens(model, tok, contexts, words, subtoken)
