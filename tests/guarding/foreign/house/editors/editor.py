"""The editor that evaluates, edits, and evaluates again."""

from ..evaluate.evaluate_utils import prediction
from ..models.ft.ft_main import apply_ft_to_model
from ..models.memit.memit_main import apply_memit_to_model
from ..models.rome.rome_main import apply_rome_to_model

ALG_DICT = {"ROME": apply_rome_to_model, "MEMIT": apply_memit_to_model, "FT": apply_ft_to_model}


class BaseEditor:
    def __init__(self, model, tok, hparams):
        self.model, self.tok, self.hparams = model, tok, hparams
        self.alg_name = hparams.alg_name
        self.apply_algo = ALG_DICT[hparams.alg_name]

    def edit(self, prompts, target_new, subject, sequential_edit=False):
        requests = [
            {"prompt": prompt, "target_new": target, "subject": name}
            for prompt, target, name in zip(prompts, target_new, subject, strict=True)
        ]
        return self.edit_requests(requests, sequential_edit)

    def edit_requests(self, requests, sequential_edit=False):
        numbers = []
        for request in requests:
            before = prediction(self.model, self.tok, [request["prompt"], request["subject"]])
            self.apply_algo(self.model, self.tok, [request], self.hparams)
            after = prediction(self.model, self.tok, [request["prompt"], request["subject"]])
            numbers.append((before, after))
        return numbers

    def batch_edit(self, prompts, target_new, **kwargs):
        requests = [
            {"prompt": prompt, "target_new": target, "subject": name}
            for prompt, target, name in zip(prompts, target_new, kwargs["subject"], strict=True)
        ]
        prediction(self.model, self.tok, prompts)
        self.apply_algo(self.model, self.tok, requests, self.hparams)
        return requests
