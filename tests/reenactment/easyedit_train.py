"""EasyEdit's methods that train on prompt + target: fine-tuning, adapters, hypernetworks, in-context scoring.

Paths are below easyeditor/. In a `train` batch a label belongs to the column of the token it stands for; the
logit that is scored lies one column before. Column 0 is never scored (the model shifts the labels by one).
Templates, fact tokens and context play no part here; a prompt's slot is filled by LoRA alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from .locate import fill
from .rows import Bench, EditorRaises, Kind, Padded, Request, Row, Slot, target_of
from .truth import label_starts, prompt_end, target_starts

Group = Sequence[tuple[int, Request]]
Trainer = Callable[[Bench, Group, "Setup"], Iterator[Row]]


class Setup:
    """What a training method is told beside the requests."""

    def __init__(self, templates: Sequence[str], objective: str | None, batch_size: int | None) -> None:
        self.templates = tuple(templates)
        self.objective = objective
        self.batch_size = batch_size


def need(request: Request, key: str, index: int) -> str:
    """A key the method reads from the request. Raises as the dictionary does."""
    value = request.get(key)
    if value is None:
        raise EditorRaises(f"KeyError: {key!r}", index)
    return str(value)


def filled_prompt(index: int, request: Request) -> str:
    """The prompt, its slot filled if it has one."""
    prompt = need(request, "prompt", index)
    if "{}" not in prompt:
        return prompt
    subject = need(request, "subject", index)
    try:
        return fill(prompt, subject)
    except EditorRaises as error:
        raise EditorRaises(error.reason, index) from None


# --- rows of a train batch ----------------------------------------------------------------------------------


def label_row(bench: Bench, padded: Padded, i: int, request: int, row: int, prompt_chars: int, slots: Sequence[Slot]) -> Row:
    """Right when exactly the tokens after the prompt are labelled, each with itself.

    Bare spaces between prompt and target, and special tokens after it, may be labelled or not.
    """
    reading = bench.reading(padded.texts[i])
    left = padded.left(i)
    starts = target_starts(reading, prompt_chars)
    place = starts.start if starts else None
    right = False
    for start in starts:
        plain = [(left + at, reading.ids[at]) for at in range(start, reading.end)]
        whole = [(left + at, reading.ids[at]) for at in range(start, len(reading.ids))]
        if list(slots) in (plain, whole):
            right, place = True, start
            break
    return _row(bench, padded, i, request, row, "label", slots, place, right)


def _row(
    bench: Bench,
    padded: Padded,
    i: int,
    request: int,
    row: int,
    kind: Kind,
    slots: Sequence[Slot],
    place: int | None,
    right: bool,
) -> Row:
    bos = bench.tok.special.bos
    truth = None if place is None else padded.left(i) + place
    return Row(
        request,
        "train",
        row,
        kind,
        editor=slots[0][0] if slots else None,
        truth=truth if truth is not None and truth < padded.width else None,
        width=padded.width,
        pads=padded.pads(i),
        ids=padded.ids(i),
        editor_labels=tuple(slots),
        labels_right=right,
        bos_in_labels=bos is not None and any(expected == bos for _, expected in slots),
    )


def key_row(padded: Padded, i: int, request: int, row: int, kind: Kind, editor: int, place: int | None) -> Row:
    return Row(
        request,
        "train",
        row,
        kind,
        editor=padded.at(editor),
        truth=None if place is None else padded.left(i) + place,
        width=padded.width,
        pads=padded.pads(i),
        ids=padded.ids(i),
    )


# --- counting by pad ids, as most of these methods do ------------------------------------------------------


def real(bench: Bench, ids: Sequence[int]) -> int:
    """Tokens that are not the pad id; an EOS of the text counts as a pad where pad is EOS."""
    return sum(token != bench.pad for token in ids)


def scored(bench: Bench, ids: Sequence[int], masked: range) -> list[Slot]:
    """Labels are the row's own ids but for the masked columns and the pad ids; column 0 is shifted away."""
    return [(at, token) for at, token in enumerate(ids) if at > 0 and at not in masked and token != bench.pad]


# --- FT, FT_uns --------------------------------------------------------------------------------------------


def ft(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """models/ft/ft_main.py:66-68 (the space), :110-127, :196-213 (the two objectives), :146-195 (chatglm)."""
    prompts = [need(request, "prompt", index) for index, request in group]
    targets = [target_of(request, index) for index, request in group]
    targets = [target if target == " " else " " + target for target in targets]
    yield from fine_tune(bench, [index for index, _ in group], prompts, targets, setup)


def fine_tune(
    bench: Bench, indexes: Sequence[int], prompts: Sequence[str], targets: Sequence[str], setup: Setup
) -> Iterator[Row]:
    objective = setup.objective or str(bench.hparams.get("objective_optimization", "prompt_last"))
    if objective not in ("prompt_last", "target_new"):
        raise EditorRaises("NotImplementedError: objective_optimization " + objective, indexes[0])
    if "t5" in bench.model_name:
        return  # an encoder-decoder: the target is the decoder's own row, nothing is indexed
    if "chatglm" in bench.model_name:
        yield from chatglm(bench, indexes, prompts, targets)
    elif objective == "prompt_last":
        yield from prompt_last(bench, indexes, prompts, targets)
    else:
        yield from target_new(bench, indexes, prompts, targets)


def prompt_last(bench: Bench, indexes: Sequence[int], prompts: Sequence[str], targets: Sequence[str]) -> Iterator[Row]:
    """Every id of the target is scored at one logit, the last of the mask: models/ft/ft_main.py:115-119,
    :197-204.

    Here the column is the logit's: the row holds no target, so there is no labelled token to name.
    """
    padded, labels = bench.batch(prompts), bench.batch(targets)
    for i, index in enumerate(indexes):
        at = padded.mask_sum(i) - 1
        slots = [(at, token) for token in labels.ids(i) if token != bench.tok.special.unk]
        starts = label_starts(bench.reading(prompts[i]), prompts[i])
        right = at - padded.left(i) in starts
        place = at - padded.left(i) if right else (starts.start if starts else None)
        yield _row(bench, padded, i, index, 0, "label", slots, place, right)


def target_new(bench: Bench, indexes: Sequence[int], prompts: Sequence[str], targets: Sequence[str]) -> Iterator[Row]:
    """Scored from column pads + prompt tokens on, both counted by the pad id (models/ft/ft_main.py:121-127,
    :205-213).
    """
    alone = bench.batch(prompts)
    padded = bench.batch(prompt + target for prompt, target in zip(prompts, targets, strict=True))
    for i, index in enumerate(indexes):
        ids = padded.ids(i)
        start = (padded.width - real(bench, ids)) + real(bench, alone.ids(i))
        if start > padded.width:
            raise EditorRaises("ValueError: the label mask is ragged", index)
        slots = [(at, ids[at]) for at in range(max(start, 1), padded.width)]
        yield label_row(bench, padded, i, index, 0, len(prompts[i]), slots)


def chatglm(bench: Bench, indexes: Sequence[int], prompts: Sequence[str], targets: Sequence[str]) -> Iterator[Row]:
    """Padded prompt and padded target laid end to end, and padded once more with zeros
    (models/ft/ft_main.py:161-189).
    """
    left, right = bench.batch(prompts), bench.batch(targets)
    width = left.width + right.width + 1
    for i, index in enumerate(indexes):
        joined = left.ids(i) + right.ids(i)
        filler = (0,) * (width - len(joined))
        before = len(filler) if bench.side == "left" else 0
        ids = filler + joined if bench.side == "left" else joined + filler
        begin = before + left.width
        slots = [(begin + at, token) for at, token in enumerate(right.ids(i)) if begin + at > 0]
        end = prompt_end(bench.reading(prompts[i]), len(prompts[i]))
        place = None if end is None else before + left.left(i) + end + 1
        plain = bench.encode(targets[i], add_special_tokens=False)
        wanted = [] if place is None else [(place + at, token) for at, token in enumerate(plain)]
        yield Row(
            index,
            "train",
            0,
            "label",
            editor=slots[0][0] if slots else None,
            truth=place,
            width=width,
            pads=width - left.mask_sum(i) - right.mask_sum(i),
            ids=ids,
            editor_labels=tuple(slots),
            labels_right=slots == wanted,
        )


def ft_uns(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """Question and answer, a space where the answer does not begin with one
    (models/ft_uns/ft_uns_main.py:62-64, :97-113).
    """
    questions, answers = zip(*(question_and_answer(index, request) for index, request in group), strict=True)
    answers = tuple(answer if answer.startswith(" ") else " " + answer for answer in answers)
    yield from fine_tune(bench, [index for index, _ in group], questions, answers, setup)


def question_and_answer(index: int, request: Request) -> tuple[str, str]:
    """UnKE's records have `question` and `answer`; for others the filled prompt and the target stand in."""
    if "question" in request:
        return str(request["question"]), need(request, "answer", index)
    return filled_prompt(index, request), target_of(request, index)


# --- LoRA, QLoRA, DPO --------------------------------------------------------------------------------------


def lora(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """models/lora/lora_main.py:85-86 (the slot), :144-153 (labels)."""
    if "t5" in bench.model_name:
        return
    prompts = [filled_prompt(index, request) for index, request in group]
    alone = bench.batch(prompts)
    padded = bench.batch(
        f"{prompt} {target_of(request, index)}" for prompt, (index, request) in zip(prompts, group, strict=True)
    )
    for i, (index, _) in enumerate(group):
        ids = padded.ids(i)
        pads = padded.width - real(bench, ids)
        masked = range(pads, pads + real(bench, alone.ids(i)))
        yield label_row(bench, padded, i, index, 0, len(prompts[i]), scored(bench, ids, masked))


def qlora(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """Prompt and target each filled to `max_length`, the one as input, the other as its labels, pads and all.

    models/qlora/qlora_main.py:71-77.
    """
    length = int(bench.hparams.get("max_length", 30))
    for index, request in group:
        prompt = need(request, "prompt", index)
        inputs, labels = to_length(bench, prompt, length), to_length(bench, target_of(request, index), length)
        slots = [(at, token) for at, token in enumerate(labels.ids(0)) if at > 0]
        end = prompt_end(bench.reading(prompt), len(prompt))
        place = None if end is None or end >= len(inputs.rows[0]) else end + 1
        plain = bench.encode(target_of(request, index), add_special_tokens=False)
        wanted = [] if place is None else [(inputs.left(0) + place + at, t) for at, t in enumerate(plain)]
        yield _row(bench, inputs, 0, index, 0, "label", slots, place, slots == wanted)


def to_length(bench: Bench, text: str, length: int) -> Padded:
    """`padding="max_length", truncation=True`: the text is cut at its end, the special tokens stay."""
    ids, plain = bench.encode(text), bench.encode(text, add_special_tokens=False)
    if len(ids) > length:
        front = next(n for n in range(len(ids)) if ids[n : n + len(plain)] == plain)
        added = len(ids) - len(plain)
        ids = ids[:front] + plain[: length - added] + ids[front + len(plain) :]
    return Padded((text,), (tuple(ids),), length, bench.side, bench.pad, bench.broken == "pads_off_by_one")


def dpo(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """Right padding by its own hand; labels by the tokenizer's offsets, row 0 the new target, row 1 the old
    one.

    models/dpo/dpo_main.py:156-203.
    """
    bench = bench.with_side("right")
    for row, key in enumerate(("target_new", "target_neg")):
        prompts = [need(request, "prompt", index) for index, request in group]
        targets = [target_of(request, index) if row == 0 else need(request, key, index) for index, request in group]
        padded = bench.batch(f"{prompt} {target}" for prompt, target in zip(prompts, targets, strict=True))
        for i, (index, _) in enumerate(group):
            begin = len(prompts[i]) + 1
            spans = bench.tok.offsets(padded.texts[i])
            ids = padded.rows[i]
            if spans is not None:
                columns = [at for at, (start, end) in enumerate(spans) if end > begin and end > start]
            else:
                count = min(len(bench.encode(f"{prompts[i]} ")), len(ids))
                if count >= len(ids):
                    count = min(len(bench.encode(prompts[i])), max(len(ids) - 1, 0))
                columns = list(range(count, len(ids)))
            slots = [(at, ids[at]) for at in columns if at > 0]
            yield label_row(bench, padded, i, index, row, len(prompts[i]), slots)


# --- WISE, GRACE, DEFER, MELO ------------------------------------------------------------------------------


def wise(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """Head slices up to the padded width of the prompts; the loss begins at the number of masked columns.

    models/wise/utils.py:82-111 (rows: templates x requests, then the loc_prompts), models/wise/WISE.py:146,
    :258-277 (the last row alone is left out of the loss, and masked columns still contribute nothing).
    """
    prompts = [need(request, "prompt", index) for index, request in group]
    targets = [target_of(request, index) for index, request in group]
    locals_ = [need(request, "loc_prompt", index) for index, request in group]
    only_label = str(bench.hparams.get("objective_optimization", "only_label")) == "only_label"
    pairs = [(templ, at) for templ in setup.templates for at in range(len(group))]
    head = bench.batch(templ.format(prompts[at]) for templ, at in pairs).width
    padded = bench.batch([templ.format(prompts[at] + " " + targets[at]) for templ, at in pairs] + locals_)
    for i, (templ, at) in enumerate(pairs):
        ids = padded.ids(i)
        masked = range(head) if only_label else range(0)
        kept = [column for column, token in enumerate(ids) if column not in masked and token != bench.pad]
        ignored = padded.width - len(kept)
        # shifted loss from ignored - 2 on (WISE.py:275): columns from ignored - 1 on; a negative start wraps
        # round
        from_logit = ignored - 2
        start = from_logit + 1 if from_logit >= 0 else max(padded.width - 1 + from_logit, 0) + 1
        slots = [(column, ids[column]) for column in kept if column >= max(start, 1)]
        begin = len(templ[: templ.index("{}")]) + len(prompts[at])
        yield label_row(bench, padded, i, group[at][0], i // len(group), begin, slots)


def grace_tokens(bench: Bench, index: int, request: Request) -> tuple[Padded, str, list[int]]:
    """One request: the padded row, its prompt, and the ignored columns (models/grace/utils.py:68-92)."""
    prompt = need(request, "prompt", index)
    padded = bench.batch([f"{prompt} {target_of(request, index)}"])
    masked = range(real(bench, bench.encode(prompt)))
    ignored = [at for at, token in enumerate(padded.ids(0)) if at in masked or token == bench.pad]
    return padded, prompt, ignored


def grace(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """The first request alone (models/grace/grace_main.py:22); its key is counted from the labels
    (GRACE.py:82, :200-201).
    """
    for index, request in group[:1]:
        padded, prompt, ignored = grace_tokens(bench, index, request)
        end = prompt_end(bench.reading(padded.texts[0]), len(prompt))
        key = min(len(ignored) - 1, padded.width - 1)
        yield key_row(padded, 0, index, 0, "key", key, end)
        yield from grace_labels(bench, index, padded, prompt, ignored)


def grace_labels(bench: Bench, index: int, padded: Padded, prompt: str, ignored: Sequence[int]) -> Iterator[Row]:
    ids = padded.ids(0)
    slots = [(at, ids[at]) for at in range(1, padded.width) if at not in ignored]
    yield label_row(bench, padded, 0, index, 0, len(prompt), slots)


def last_key(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """GRACE's labels with the key at -1, the row's last token.

    DEFER: models/defer/DEFER.py:79-80, :121, utils.py; MELO: models/melo/util.py:81-105,
    peft_egg/src/peft/tuners/melo.py:764-765 with `key_id: -1` of the hparams.
    """
    for index, request in group[:1]:
        padded, prompt, ignored = grace_tokens(bench, index, request)
        yield key_row(padded, 0, index, 0, "key", min(-1, padded.width - 1), bench.reading(padded.texts[0]).end - 1)
        yield from grace_labels(bench, index, padded, prompt, ignored)


# --- tail slices: MEND, SERAC, KE, MALMEN, UltraEdit, DINM, IKE --------------------------------------------

SHIFTED = ("gpt", "llama", "internlm", "chatglm", "qwen", "mistral")


def shifts(bench: Bench) -> bool:
    """Whether the last logit is dropped and the tail taken.

    By the model's name in trainer/algs/MALMEN.py:47-59 and models/ultraedit/ULTRAEDIT.py:60-72, by class or
    name in trainer/algs/editable_model.py:17-39. Without hparams a causal model of a known family is meant.
    """
    if not bench.hparams.get("model_name") and not bench.hparams.get("model_class"):
        return True
    names = bench.model_name + " " + str(bench.hparams.get("model_class") or "").lower()
    return any(part in names for part in SHIFTED)


def tail(
    bench: Bench,
    group: Group,
    prompts: Sequence[str],
    joined: Sequence[str],
    targets: Sequence[str],
    ignore_pads: bool,
    cut_labels: bool,
) -> Iterator[Row]:
    """Labels are the targets tokenised alone, padded among themselves, laid over the tail of the padded rows.

    trainer/losses.py:55-71 and :112-116; trainer/algs/malmen/util.py:24-46 (which cuts labels that are too
    long).
    """
    padded, labels = bench.batch(joined), bench.batch(targets)
    size = labels.width
    if shifts(bench) and size > padded.width - 1:
        if not cut_labels:
            raise EditorRaises(f"RuntimeError: {size} labels for {padded.width - 1} logits", group[0][0])
        size = padded.width - 1
    first = padded.width - size if shifts(bench) else 1
    for i, (index, _) in enumerate(group):
        expected = labels.ids(i)[labels.width - size :]
        slots = [(first + at, token) for at, token in enumerate(expected) if not (ignore_pads and token == bench.pad)]
        yield label_row(bench, padded, i, index, 0, len(prompts[i]), slots)


def spaced(index: int, request: Request) -> str:
    """models/mend/mend_main.py:85-89, and the same in serac, malmen, ultraedit."""
    target = target_of(request, index)
    if not target:
        raise EditorRaises("IndexError: string index out of range (empty target)", index)
    return target if target[0] == " " else " " + target


def mend(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """models/mend/mend_main.py:85-115: the labels that are used are the targets', pads not masked."""
    yield from _hypernetwork(bench, group, cut_labels=False)


def _hypernetwork(bench: Bench, group: Group, cut_labels: bool) -> Iterator[Row]:
    prompts = [need(request, "prompt", index) for index, request in group]
    targets = [spaced(index, request) for index, request in group]
    joined = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
    yield from tail(bench, group, prompts, joined, targets, ignore_pads=False, cut_labels=cut_labels)


def malmen(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """models/malmen/malmen_main.py:70-107: complete batches alone, a rest is never edited (:74)."""
    if setup.batch_size is not None and len(group) < setup.batch_size:
        return
    yield from _hypernetwork(bench, group, cut_labels=True)


def ultraedit(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """models/ultraedit/ultraedit_main.py:64-101: complete chunks of `batch_size_once`; a rest is never
    edited.
    """
    if setup.batch_size is not None and len(group) < setup.batch_size:
        raise EditorRaises("AssertionError: fewer requests than batch_size", group[0][0])
    once = int(bench.hparams.get("batch_size_once") or len(group)) if len(group) > 1 else 1
    for start in range(0, len(group) // once * once, once):
        yield from _hypernetwork(bench, group[start : start + once], cut_labels=True)


def trained_editor(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """SERAC and KE are scored only while they are trained: dataset/zsre.py collate_gpt_fn,
    trainer/EditTrainer.py:54.

    SERAC's own `apply_to_model` (models/serac/serac_main.py:75-153) decodes the rows again and keeps the
    text. KE has hparams but no code of its own at this commit.
    """
    prompts = [need(request, "prompt", index) for index, request in group]
    plain = [target_of(request, index) for index, request in group]
    joined = [prompt + " " + target for prompt, target in zip(prompts, plain, strict=True)]
    gpt = "gpt" in str(bench.hparams.get("tokenizer_class") or "gpt").lower()
    targets = [" " + target for target in plain] if gpt else plain
    yield from tail(bench, group, prompts, joined, targets, ignore_pads=True, cut_labels=False)


def dinm(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """The labels are the *last* request's target, one row of them (models/dinm/dinm_main.py:129-130, :139).

    A label tensor of one row scores the first row of the batch alone. Two spaces stand before the target
    (:76-78, :128).
    """
    for index, request in group:
        locality = request.get("locality")
        if not isinstance(locality, Mapping) or "general knowledge constraint" not in locality:
            raise EditorRaises("KeyError: 'general knowledge constraint'", index)
    prompts = [need(request, "prompt", index) for index, request in group]
    targets = [target_of(request, index) for index, request in group]
    targets = [target if target == " " else " " + target for target in targets]
    padded = bench.batch(prompt + " " + target for prompt, target in zip(prompts, targets, strict=True))
    labels = bench.encode(targets[-1])
    if len(labels) > padded.width - 1:
        raise EditorRaises(f"RuntimeError: {len(labels)} labels for {padded.width - 1} logits", group[0][0])
    first = padded.width - len(labels)
    for i, (index, _) in enumerate(group):
        slots = [(first + at, token) for at, token in enumerate(labels) if token != bench.pad] if i == 0 else []
        yield label_row(bench, padded, i, index, 0, len(prompts[i]), slots)


def ike(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """Nothing is edited; the new target is scored behind the new fact, one row at a time, without examples.

    evaluate/evaluate.py:267-274 (the row), :387-408 (the slices).
    """
    for index, request in group:
        prompt, target = need(request, "prompt", index), target_of(request, index)
        context = f"New Fact: {prompt} {target}\nPrompt: {prompt}"
        padded = bench.batch([f"{context} {target}"])
        llama = "llama" in bench.model_name
        ids = bench.encode(target if llama else " " + target + "\n")
        expected = ids[1:] if llama else ids[:-1]
        logits = range(max(padded.width - len(ids), 0), padded.width - 1)
        slots = [(logit + 1, token) for logit, token in zip(logits, expected, strict=False)]
        yield label_row(bench, padded, 0, index, 0, len(context), slots)


def kn(bench: Bench, group: Group, setup: Setup) -> Iterator[Row]:
    """One prompt per call, read at -1; wants the old answer (models/kn/kn_main.py:26-39,
    knowledge_neurons.py:119-140).
    """
    for index, request in group[:1]:
        if request.get("ground_truth") is None:
            raise EditorRaises("ValueError: KN requires `ground_truth`", index)
        prompt = need(request, "prompt", index)
        padded = bench.batch([prompt])
        yield key_row(padded, 0, index, 0, "lookup", -1, prompt_end(bench.reading(prompt), len(prompt)))


TRAINERS: dict[str, Trainer] = {
    "FT": ft,
    "FT_uns": ft_uns,
    "LoRA": lora,
    "QLoRA": qlora,
    "DPO": dpo,
    "WISE": wise,
    "GRACE": grace,
    "DEFER": last_key,
    "MELO": last_key,
    "MEND": mend,
    "SERAC": trained_editor,
    "KE": trained_editor,
    "MALMEN": malmen,
    "ULTRAEDIT": ultraedit,
    "DINM": dinm,
    "IKE": ike,
    "KN": kn,
}
