"""Rules about the run that a file describes: which method and family it gets, which side results, what the call refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from padcheck.checks.building import finding
from padcheck.checks.hparams.case import Case, folder_parts, near, quoted_like, rule
from padcheck.checks.hparams.frameworks import family_of, framework, side_without_tokenizer
from padcheck.diagnostics import Finding

_DISPATCH = {"AlphaEdit": ("llama", "qwen", "gpt-j-6b", "gpt2-xl"), "SPHERE": ("llama", "gpt-j-6b", "gpt2-xl")}
"""EasyEdit: words of model_name for which the projection P is made (AlphaEdit_main.py:64-71, SPHERE_main.py:65-68)."""

_KEY_CACHE = ("llama", "qwen", "gpt2-xl")
"""EasyEdit: words for which both methods make their key cache (AlphaEdit_main.py:83-89, SPHERE_main.py:80-86); no file replaces it."""


@rule("HPR110", "HPR111")
def method_and_folder(case: Case) -> Iterator[Finding]:
    """alg_name against the folder, and methods that the framework does not have."""
    key = "alg_name" if "alg_name" in case.hparams.values else "alg"
    written = case.hparams.values.get(key)
    if not isinstance(written, str):
        return
    from padcheck.discovery import schema_methods

    known = schema_methods()["easyedit"]
    if case.variant is None and written not in known:
        close = near(written.lower(), [name.lower() for name in known], 1, 0.75)
        ours = sum(
            1
            for name in ("layers", "fact_token", "v_lr", "rewrite_module_tmp", "stats_dir", "mom2_dataset")
            if name in case.hparams.values
        )
        if close and ours >= 3:
            name = next(name for name in known if name.lower() == close[0])
            yield finding(
                "HPR111",
                f"EasyEdit has no method {written!r}: it stops with a KeyError.",
                case.place(key),
                f"Did you mean {name}?",
                key=key,
                fix=case.replace_value(key, quoted_like(case, key, name), f"Write {name}"),
            )
        return
    if case.method is None or case.framework != "easyedit":
        return
    folded = {name.lower(): name for name in known} | {"ultraedit": "ULTRAEDIT", "deepedit_api": "DeepEdit-Api"}
    folder = next((folded[part.lower()] for part in folder_parts(case.path)[:2] if part.lower() in folded), None)
    pairs = {("SERAC", "SERAC_MULTI"), ("FT_uns", "FT"), ("LoRA_uns", "LoRA")}
    if folder is not None and folder != case.method and (folder, case.method) not in pairs:
        yield finding(
            "HPR110",
            f"The file lies in the folder of {folder} and says {key}: {written}; the class that loads {folder} refuses it.",
            case.place(key),
            f"Move the file, or write {folder}.",
            key=key,
        )


@rule("HPR101", "HPR102", "HPR136")
def family(case: Case) -> Iterator[Finding]:
    """The framework's substring dispatch on model_name."""
    name = case.model_name
    if name is None or case.framework is None or case.method is None:
        return
    place = case.place("model_name")
    if case.framework == "easyedit" and _goes_through_base_editor(case):
        facts = framework("easyedit")
        own = facts["methods"].get(case.method)
        branch = family_of(facts, name)
        if own is not None and not own["own_loader"] and branch is None:
            words = ", ".join(dict.fromkeys(each["contains"] for each in facts["families"]))
            yield finding(
                "HPR101",
                f"EasyEdit knows no model family in model_name {name!r} and stops with NotImplementedError.",
                place,
                f"It looks for one of these in the path: {words}; or load the model yourself and pass (model, tok).",
                key="model_name",
            )
        elif branch is not None:
            last = name.lower().rstrip("/").rpartition("/")[2]
            others = [
                each["contains"]
                for each in facts["families"]
                if each["contains"] in last and each["contains"] not in branch["contains"]
            ]
            if branch["contains"] not in last and others:
                yield finding(
                    "HPR102",
                    f"EasyEdit takes this model for {branch['contains']!r}, which stands in a folder's name; the model's own name says {others[0]!r}.",
                    place,
                    "Rename the folder: EasyEdit looks for the first of its family names anywhere in the path.",
                    key="model_name",
                )
    if case.framework == "easyedit" and case.method in _DISPATCH and not any(word in name.lower() for word in _KEY_CACHE):
        yield finding(
            "HPR136",
            f"{case.title} makes its key cache only for models whose name contains {', '.join(_KEY_CACHE)}; for {name!r} it stops with a NameError (cache_c).",
            place,
            "Rename the folder only if the model's weights have the shape of one of these.",
            key="model_name",
        )
        return
    words_ = _DISPATCH.get(case.method) if case.framework == "easyedit" else None
    if words_ and not any(word in name.lower() for word in words_):
        yield finding(
            "HPR136",
            f"{case.title} makes its projection only for models whose name contains {', '.join(words_)}; for {name!r} it stops with a NameError unless the file {case.values.get('P_loc')} is already there.",
            place,
            "Bring the projection along, or rename the folder.",
            severity="warning",
            key="model_name",
        )


def _goes_through_base_editor(case: Case) -> bool:
    """Text models of BaseEditor: not the trainers' files, the multimodal ones, or methods with a loader of their own."""
    if case.variant is None or "alg_name" not in case.hparams.values:
        return False
    multimodal = any(word in case.variant.name.lower() for word in ("multi", "training")) or any(
        key in case.hparams.values
        for key in ("qformer_checkpoint", "coco_image", "file_type", "qformer_name_or_path", "exact_match")
    )
    return (
        not multimodal and case.method in framework("easyedit")["methods"] and case.method not in {"FT-Api", "DeepEdit-Api"}
    )


@rule("HPR135", "PAD105", "IDX109")
def side(case: Case) -> Iterator[Finding]:
    """The padding side that will result against the method's arithmetic."""
    if case.framework is None or case.method is None or case.variant is None:
        return
    try:
        facts = framework(case.framework)
    except KeyError:
        return
    own = facts["methods"].get(case.method)
    if own is None or own["own_loader"]:
        return
    arithmetic, told = own, case.method
    if own["base"] is not None:
        told = str(case.values.get(own["base"]))
        arithmetic = facts["methods"].get(told)
        if arithmetic is None:
            return
    token = str(case.values.get("fact_token", "subject_last"))
    if arithmetic["kind"] != "locate" or token not in arithmetic["needs"]:
        return
    place = case.place("fact_token") if "fact_token" in case.hparams.places else case.place("alg_name")
    if token in arithmetic["stops"]:
        yield finding(
            "IDX109",
            f"{case.title} has no index for fact_token {token}: it {arithmetic['stops'][token]}.",
            place,
            "Choose fact_token: subject_last.",
            key="fact_token",
        )
        return
    needs = arithmetic["needs"][token]
    if len(needs) > 1:
        yield finding(
            "PAD105",
            f"No padding side is right for {case.title} with fact_token {token}: {needs['right']}, which counts from the row's start, and {needs['left']}, which counts from its end.",
            place,
            "Choose fact_token: subject_last.",
            key="fact_token",
        )
        return
    if case.model_name is None or not needs:
        return
    ((needed, why),) = needs.items()
    result, because = side_without_tokenizer(case.framework, case.method, case.model_name)
    if result is not None and result != needed:
        yield finding(
            "HPR135",
            f"This run is padded on the {result} ({because}), and {told}'s arithmetic needs the {needed}: {why}, counted from the row's {'start' if needed == 'right' else 'end'}. Every row but the longest is read and edited at the wrong token.",
            case.place("alg_name"),
            "Load model and tokenizer yourself with padding_side set, and call the method on them; `padcheck preflight` shows the rows.",
            key="padding-side",
            evidence={"side": result, "needs": needed},
        )


@rule("HPR135", "PAD105")
def side_of_a_batch(case: Case) -> Iterator[Finding]:
    """A training method with several requests a batch: the labels of the shorter rows."""
    if case.framework is None or case.method is None or case.model_name is None:
        return
    try:
        own = framework(case.framework)["methods"].get(case.method)
    except KeyError:
        return
    uneven = own["uneven"] if own is not None else None
    if uneven is None or own["own_loader"] or (case.framework == "easyedit" and not _goes_through_base_editor(case)):
        return
    key, size = uneven["size"], case.values.get(uneven["size"])
    if not isinstance(size, int) or isinstance(size, bool) or size < 2:
        return
    where = case.place(key)
    told = f"{uneven['why']}, and requests of unequal length leave pads"
    if not uneven["sides"]:
        yield finding(
            "PAD105",
            f"No padding side is right for {case.title} with several requests a batch: {told} that are trained or shift the labels on either side.",
            where,
            "Write 1, or batch requests of equal length only.",
            severity="warning",
            key=key,
        )
        return
    result, because = side_without_tokenizer(case.framework, case.method, case.model_name)
    if result is not None and result not in uneven["sides"]:
        yield finding(
            "HPR135",
            f"This run is padded on the {result} ({because}), and {case.title} with several requests a batch needs the {uneven['sides'][0]}: {told}.",
            where,
            "Write 1, or load the tokenizer yourself with padding_side set.",
            severity="warning",
            key=key,
            evidence={"side": result, "needs": uneven["sides"][0]},
        )


@rule("HPR104")
def r_rome_flags(case: Case) -> Iterator[Finding]:
    """Exactly one of the two ways to compute R-ROME's key."""
    properties = case.variant.properties if case.variant else {}
    if "enable_prompt_keys" not in properties:
        return

    def on(key: str) -> bool:
        return bool(case.values.get(key, properties[key].get("default")))

    if not on("original_implementation") and on("enable_prompt_keys") == on("enable_random_prefix_keys"):
        place = (
            case.place("enable_prompt_keys")
            if "enable_prompt_keys" in case.hparams.places
            else case.place("enable_random_prefix_keys")
        )
        yield finding(
            "HPR104",
            f"enable_prompt_keys and enable_random_prefix_keys are {'both on' if on('enable_prompt_keys') else 'both off'}: {case.title} stops with an AssertionError.",
            place,
            "Switch exactly one of them on.",
            key="enable_prompt_keys",
        )


@rule("HPR132")
def batch_size(case: Case) -> Iterator[Finding]:
    """A batch size that the call refuses."""
    size = case.values.get("batch_size")
    if (
        case.framework != "easyedit"
        or case.method is None
        or not isinstance(size, int)
        or isinstance(size, bool)
        or size == 1
    ):
        return
    if not _goes_through_base_editor(case):
        return
    own = framework("easyedit")["methods"][case.method]
    refuses = f"BaseEditor.edit() asserts that batch_size is 1, and this file says {size}"
    if own["batchable"]:
        yield finding(
            "HPR132",
            f"{refuses}: only batch_edit() takes it.",
            case.place("batch_size"),
            "Write 1 for edit().",
            severity="note",
            key="batch_size",
        )
    else:
        yield finding(
            "HPR132",
            f"{refuses}; batch_edit() does not take {case.method} at all.",
            case.place("batch_size"),
            "Write 1.",
            severity="warning",
            key="batch_size",
            fix=case.replace_value("batch_size", "1", "Write 1"),
        )


@rule("HPR131")
def half_precision(case: Case) -> Iterator[Finding]:
    """fp16 with a method that solves in the model's dtype."""
    if case.values.get("fp16") is True and case.variant is not None and (case.variant.locates or case.method == "SimIE"):
        yield finding(
            "HPR131",
            f"fp16 loads the model in half precision, and {case.title} optimises and solves in that dtype: losses overflow and small updates round to nothing.",
            case.place("fp16"),
            "Write false, and spread the model with model_parallel if memory is short.",
            key="fp16",
            fix=case.replace_value("fp16", "false", "Write false"),
        )


@rule("HPR137")
def base_file(case: Case) -> Iterator[Finding]:
    """SimIE reads the base method's file at the same path below that method's folder."""
    base = case.values.get("base_method")
    if case.method != "SimIE" or not isinstance(base, str):
        return
    path = Path(case.path).resolve().as_posix()
    other = Path(path.replace("/SimIE/", f"/{base}/"))
    if other.as_posix() == path:
        yield finding(
            "HPR137",
            f"SimIE finds the hparams of {base} by replacing /SimIE/ in the path, and this path has none.",
            case.place("base_method"),
            key="base_method",
        )
    elif not other.is_file():
        yield finding(
            "HPR137",
            f"SimIE reads the hparams of {base} from {base}/{other.name} beside its own folder, and there is no such file.",
            case.place("base_method"),
            f"Add {base}/{other.name}, or name this file as that folder does.",
            key="base_method",
        )
