"""Second moments of keys, E[k kᵀ], for the modules that an edit rewrites: all of them in one truncated pass.

The moment is uncentred, over every real token of the corpus (special tokens included, as each document has them), divided
by their count. What comes out is what one unpacked document at a time would give: packed documents do not see each other,
and positions and special tokens restart with each. Whether a model can do that is not deduced from its name but tried, on
the corpus' own tokens and at the greatest length met; a model that cannot is run in ways that ask less of it.

Shapes: B rows, W columns, n real tokens of a batch, d inputs of a module.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import signal
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, distributed, nn

from padcheck.editing.digest import model_digest as model_digest
from padcheck.editing.errors import ArchitectureError, CovarianceError
from padcheck.sources.reading import SourceError

# ---- what comes out


@dataclass(frozen=True, slots=True)
class MomentsKey:
    """What the numbers depend on.

    model           `model_digest` of the model
    modules         the modules whose inputs were taken
    corpus          digest of the documents that were read
    documents       how many of them there were
    tokens          how many real tokens they have: the divisor
    dtype           of the forward pass
    max_length      tokens of a document, special ones included, beyond which it was cut
    special_tokens  what stands around each document, as in `<s> $A`
    """

    model: str
    modules: tuple[str, ...]
    corpus: str
    documents: int
    tokens: int
    dtype: str
    max_length: int
    special_tokens: str


class Cut(NamedTuple):
    """What `max_length` took: documents that were cut, their characters that no token stands for (nearly), and all characters."""

    documents: int = 0
    unread: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments, and how they came about.

    matrices  module name → E[k kᵀ], [d, d], float64 on the CPU
    layout    how the documents were run (see `LAYOUTS`)
    cut       what was left out of documents that are too long; None where a file does not say
    """

    key: MomentsKey
    matrices: Mapping[str, Tensor]
    layout: str = ""
    cut: Cut | None = None


class Progress(NamedTuple):
    """How far a run is: tokens and documents of all ranks together, and the seconds since it (or its resumption) began."""

    tokens: int
    documents: int
    seconds: float
    rate: float
    """Tokens per second since the beginning, those of earlier runs left out."""
    remaining: float | None
    """Seconds to go, None where neither the corpus' size nor a limit is known."""
    at_most: bool = False
    """Whether that is to the limit only, since the corpus does not say how long it is and may end before."""


# ---- the tokens


@dataclass(frozen=True, slots=True)
class _Specials:
    """The special tokens that a tokenizer puts around a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    shown: str

    @classmethod
    def of(cls, tokenizer: Any) -> _Specials:
        whole = list(tokenizer("a")["input_ids"])
        bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        starts = [at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare]
        if not bare or not starts:
            raise CovarianceError("the tokenizer does not leave a text whole when it adds special tokens")
        before, after = tuple(whole[: starts[0]]), tuple(whole[starts[0] + len(bare) :])
        shown = [*tokenizer.convert_ids_to_tokens(list(before)), "$A", *tokenizer.convert_ids_to_tokens(list(after))]
        return cls(before, after, " ".join(shown))

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


class _Place(NamedTuple):
    """Where a reader is: texts taken, the documents and tokens in them, what was cut, and the digest of all texts so far."""

    taken: int
    documents: int
    tokens: int
    cut: Cut
    corpus: str


class _Tokenised(NamedTuple):
    """A text, ids of its beginning, the characters that gave these, and the share of the corpus read with it."""

    text: str
    ids: list[int]
    characters: int
    share: float | None


_BEHIND = 64
"""Tokens between the last that is taken of a text and where it was cut before it was tokenised: beyond the reach of merges."""


class _Reader:
    """Documents as token ids, in order, cut at `max_length`, until a limit is reached. Knows what was taken so far.

    rows  of the model's embedding: ids are below it
    """

    def __init__(
        self, documents: Iterable[str], tokenizer: Any, specials: _Specials, rows: int, max_length: int,
        max_tokens: int | None, max_documents: int | None,
    ) -> None:  # fmt: skip
        self._texts = iter(documents)
        self._tokenizer = tokenizer
        self._specials = specials
        self._rows = rows
        self._max_length = max_length
        self._max_tokens = max_tokens
        self._max_documents = max_documents
        self._digest = hashlib.sha256()
        self._ahead = self._tokenised()
        self._taken = 0
        self._cut = Cut()
        self.documents = 0
        self.tokens = 0
        self.share: float | None = None

    @property
    def place(self) -> _Place:
        return _Place(self._taken, self.documents, self.tokens, self._cut, self._digest.hexdigest()[:32])

    def skip(self, place: _Place) -> None:
        """Go to where an earlier run stopped; the digest in `self.place` is then that of the texts passed over."""
        for text in islice(self._texts, place.taken):
            self._note(text)
        self.documents, self.tokens, self._cut = place.documents, place.tokens, place.cut

    def chunk(self, size: int) -> list[list[int]]:
        """The next documents, of `size` tokens or a little more together; fewer only at the end."""
        rows: list[list[int]] = []
        until = self.tokens + size
        while self.tokens < until and (row := self._next()) is not None:
            rows.append(row)
        return rows

    def _next(self) -> list[int] | None:
        longest = room = self._max_length - len(self._specials)
        if self._max_tokens is not None:
            room = min(room, self._max_tokens - self.tokens - len(self._specials))
        if room < 1 or self.documents == self._max_documents:
            return None
        for text, ids, characters, share in self._ahead:
            self._note(text)
            if ids:
                row = [*self._specials.before, *ids[:room], *self._specials.after]
                if max(row) >= self._rows:
                    self._refuse(max(row))
                kept = len(text) if len(ids) <= longest else characters * longest // len(ids)
                cut = self._cut
                self._cut = Cut(
                    cut.documents + (len(ids) > longest), cut.unread + len(text) - kept, cut.characters + len(text)
                )
                self.documents += 1
                self.tokens += len(row)
                self.share = share
                return row
        return None

    def _refuse(self, token: int) -> None:
        shown = self._tokenizer.convert_ids_to_tokens([token])[0]
        raise CovarianceError(
            f"the tokenizer gives the id {token} ({shown!r}), and the model's embedding has {self._rows} rows: is it this "
            "model's tokenizer?"
        )

    def _note(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._digest.update(len(data).to_bytes(8, "little") + data)
        self._taken += 1

    def _tokenised(self) -> Iterator[_Tokenised]:
        """Each text with as many of its ids as are needed: of a book, only the beginning is tokenised."""
        enough = self._max_length + _BEHIND
        before = self._share()
        while texts := list(islice(self._texts, 256)):  # many at once: tokenizers work in parallel
            now = self._share()
            for number, (text, ids) in enumerate(
                zip(texts, self._ids([text[: 8 * enough] for text in texts]), strict=True), 1
            ):
                characters = min(len(text), 8 * enough)
                while len(ids) < enough and characters < len(text):
                    characters = min(len(text), 2 * characters)
                    (ids,) = self._ids([text[:characters]])
                # Texts are read ahead of those that are taken: what was read is shared out among them.
                share = None if now is None or before is None else before + (now - before) * number / len(texts)
                yield _Tokenised(text, ids, characters, share)
            before = now

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def _share(self) -> float | None:
        share: float | None = getattr(self._texts, "share", None)
        return share


# ---- the batches

Layout = Literal["masked", "restarting", "padded", "alone"]
LAYOUTS: tuple[Layout, ...] = ("masked", "restarting", "padded", "alone")
"""Ways to run documents, the first that a model can do is taken.

masked      several in a row, a block-diagonal causal mask [B, 1, W, W] and explicit positions
restarting  several in a row, positions alone: the model makes the mask of them (it knows its own sliding windows)
padded      one in a row, pads on the right, which no real token sees
alone       one at a time, without a pad: what the others must equal
"""


@dataclass(frozen=True, slots=True)
class _Batch:
    """ids, positions, owner: [B, W]; `owner` numbers the documents of a row from 0, its pads -1."""

    ids: Tensor
    positions: Tensor
    owner: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[Sequence[int]]]) -> _Batch:
        """Rows of documents, each row filled up with pads (any id will do: nothing reads them)."""
        width = max(sum(map(len, row)) for row in rows)
        ids, positions, owner = [], [], []
        for row in rows:
            pads = width - sum(map(len, row))
            ids.append([token for document in row for token in document] + [0] * pads)
            positions.append([at for document in row for at in range(len(document))] + list(range(pads)))
            owner.append([number for number, document in enumerate(row) for _ in document] + [-1] * pads)
        return cls(torch.tensor(ids), torch.tensor(positions), torch.tensor(owner))

    def arguments(self, layout: Layout, dtype: torch.dtype) -> dict[str, Tensor | None]:
        """What the model's forward is given, positions included where the layout needs them."""
        if layout == "alone":
            return {"input_ids": self.ids}
        if layout == "padded":
            return {"input_ids": self.ids, "attention_mask": (self.owner >= 0).long(), "position_ids": self.positions}
        if layout == "restarting":
            return {"input_ids": self.ids, "attention_mask": None, "position_ids": self.positions}
        width = self.ids.shape[1]
        seen = (self.owner[:, :, None] == self.owner[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
        return {"input_ids": self.ids, "attention_mask": mask[:, None], "position_ids": self.positions}


def _packed(lengths: Sequence[int], batch_tokens: int, several: bool) -> Iterator[list[list[int]]]:
    """Batches of rows of documents (by number): the longest first, which gives the width; then what fits the gaps.

    several  whether a row may hold more than one document
    """
    left = sorted(range(len(lengths)), key=lengths.__getitem__)
    while left:
        width = lengths[left[-1]]
        rows: list[list[int]] = []
        while left and (not rows or (len(rows) + 1) * width <= batch_tokens):
            row = [left.pop()]
            room = width - lengths[row[0]]
            while several and (at := bisect_right(left, room, key=lengths.__getitem__)):
                row.append(left.pop(at - 1))
                room -= lengths[row[-1]]
            rows.append(row)
        yield rows


# ---- the forward pass


class _Enough(Exception):
    """Every module has been seen: the rest of the forward pass is not needed."""


_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""By how much, relative to its length, a key may differ from the same key of its document alone. Rounding is below it;
a wrong position, a neighbour seen, a window ignored is far above."""

_OutOfMemory = torch.cuda.OutOfMemoryError


class _Keys:
    """Runs documents through the model as far as the last of `modules`, in the first layout that this model can do."""

    def __init__(self, model: nn.Module, modules: Sequence[str], max_length: int) -> None:
        self._model = model
        self._modules = {name: _module(model, name) for name in modules}
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
        weight = embeddings.weight
        self.rows = int(weight.shape[0])
        self._device = weight.device if weight.device.type != "meta" else getattr(model, "device", torch.device("cpu"))
        self.dtype: torch.dtype = weight.dtype
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._max_length = max_length
        self._checked = 0
        self.layout: Layout = LAYOUTS[0]

    def batches(self, documents: Sequence[list[int]], batch_tokens: int) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """For each batch, the numbers of its documents and the inputs [n, d] of every module."""
        if not documents:
            return
        self._choose_layout(documents)
        lengths = [len(document) for document in documents]
        for rows in _packed(lengths, 1 if self.layout == "alone" else batch_tokens, self.layout in ("masked", "restarting")):
            yield from self._run_in_parts(documents, rows)

    def _run_in_parts(
        self, documents: Sequence[list[int]], rows: list[list[int]]
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        try:
            keys = self._run([[documents[number] for number in row] for row in rows], self.layout)
        except _OutOfMemory:
            if len(rows) == 1:
                raise
        else:
            yield [number for row in rows for number in row], keys
            return
        torch.cuda.empty_cache()
        for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            yield from self._run_in_parts(documents, part)

    def _run(self, rows: Sequence[Sequence[Sequence[int]]], layout: Layout) -> dict[str, Tensor]:
        batch = _Batch.of(rows)
        real = (batch.owner >= 0).flatten()
        made = batch.arguments(layout, self.dtype)
        arguments: dict[str, Any] = {name: None if value is None else value.to(self._device) for name, value in made.items()}
        if not self._takes_positions:
            arguments.pop("position_ids", None)
        seen: dict[str, Tensor] = {}

        def look(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given: Tensor = args[0] if args else next(iter(kwargs.values()))
            flat = given.detach().reshape(-1, given.shape[-1])  # some layers hand on [B·W, d], others [B, W, d]
            if len(flat) != len(real):
                raise ArchitectureError(f"'{name}' is given {len(flat)} of {len(real)} tokens: it has no key for each token")
            seen[name] = flat[real.to(flat.device)]
            if len(seen) == len(self._modules):
                raise _Enough

        with ExitStack() as stack:
            for name, module in self._modules.items():
                hook = module.register_forward_pre_hook(lambda _, a, k, name=name: look(name, a, k), with_kwargs=True)
                stack.callback(hook.remove)
            try:
                self._model(**arguments, use_cache=False)
            except _Enough:
                return seen
        missing = ", ".join(self._modules.keys() - seen.keys())
        raise ArchitectureError(f"the model's forward pass never reaches {missing}")

    def _choose_layout(self, documents: Sequence[list[int]]) -> None:
        """Go down to the first layout that gives the keys of documents alone, at lengths never tried before."""
        longest = max(map(len, documents))
        if longest <= self._checked or self.layout == "alone":
            return
        # Twice the need: documents that grow do not ask for one trial each.
        length = max(longest, min(self._max_length, 2 * self._checked))
        tokens = [token for document in islice(documents, 64) for token in document]
        tokens *= 1 + length // len(tokens)
        brief = max(1, min(32, length // 3))
        short, long, other = tokens[-brief:], tokens[:length], tokens[brief // 2 : brief // 2 + brief]
        alone = [self._run([[document]], "alone") for document in (short, long, other)]
        expected = {name: torch.cat([part[name] for part in alone]) for name in self._modules}
        while self.layout != "alone":
            rows = [[short], [long], [other]] if self.layout == "padded" else [[short, long], [other]]
            if self._agrees(rows, expected):
                break
            self.layout = LAYOUTS[LAYOUTS.index(self.layout) + 1]
        self._checked = length

    def _agrees(self, rows: Sequence[Sequence[Sequence[int]]], expected: Mapping[str, Tensor]) -> bool:
        try:
            found = self._run(rows, self.layout)
        except _OutOfMemory:
            raise
        except Exception:  # a model may refuse a mask or positions in any way it likes; the next layout asks less
            return False
        for name, keys in expected.items():
            right, got = keys.double(), found[name].double()
            norms = right.norm(dim=1)
            off = (got - right).norm(dim=1) / (norms + 1e-3 * norms.mean())
            if not bool((off <= _TOLERANCE.get(self.dtype, 1e-3)).all()):  # NaN is no agreement
                return False
        return True


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ArchitectureError(f"the model has no module '{name}'") from None


@contextmanager
def _reading(model: nn.Module) -> Iterator[None]:
    """No gradients, no dropout, no autocast; each module's own mode is restored on leaving."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for kind in {parameter.device.type for parameter in model.parameters()} - {"meta"}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for module, mode in modes:
            module.training = mode


# ---- the sums


@dataclass(slots=True)
class _Sum:
    """Σ k kᵀ of one module in `dtype`: the blocks on and above the diagonal, which is little more than half the work.

    carry  what rounding took from a float32 sum so far, given back with the next part (Kahan); unused in float64
    """

    dtype: torch.dtype
    total: Tensor | None = None
    carry: Tensor | None = None

    def add(self, keys: Tensor) -> None:
        """Add the keys [n, d]. Their products are made in float32 at least, at full precision."""
        keys = keys if keys.dtype == torch.float64 else keys.float()
        size = keys.shape[1]
        if self.total is None:
            self.total = torch.zeros(size, size, dtype=self.dtype, device=keys.device)
            self.carry = torch.zeros_like(self.total) if self.dtype == torch.float32 else None
        self.total = self.total.to(keys.device)
        self.carry = None if self.carry is None else self.carry.to(keys.device)
        step = max(128, -(-size // 8))
        with _full_precision():
            for start in range(0, size, step):
                part = keys[:, start : start + step].T @ keys[:, start:]
                block = self.total[start : start + step, start:]
                if self.carry is None:
                    block.add_(part)
                else:
                    carry = self.carry[start : start + step, start:]
                    part = part - carry
                    after = block + part
                    carry.copy_((after - block) - part)
                    block.copy_(after)

    def mean(self, count: int) -> Tensor:
        """The whole matrix divided by `count`, float64 on the CPU. The sum is used up."""
        assert self.total is not None
        upper = self.total.double().cpu().triu()
        self.total = self.carry = None
        return upper.add_(upper.triu(1).T).div_(count)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 as float32, not as TF32."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# ---- the whole

_CHUNK = 8
"""Batches between two looks at the clock for a checkpoint; documents are sorted by length within so many."""


def estimate(
    model: nn.Module,
    tokenizer: Any,
    documents: Iterable[str],
    modules: Sequence[str],
    *,
    max_tokens: int | None = None,
    max_documents: int | None = None,
    max_length: int | None = None,
    dtype: torch.dtype = torch.float64,
    batch_tokens: int = 4096,
    progress: Callable[[Progress], None] | None = None,
    resume_path: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 120.0,
    content: str | None = None,
) -> Moments:
    """The second moments of the inputs of `modules`.

    Where `torch.distributed` is initialised, every rank must call this with the same documents: they are split over the
    ranks, the sums are reduced, and every rank returns the same.

    documents     texts in a fixed order; those that have no tokens are passed over. Where their iterator has a `share` (see
                  `corpus.Walk`), the time that remains is estimated from it
    modules       names as in `model.named_modules()`, for example "model.layers.5.mlp.down_proj"
    max_tokens    stop at so many tokens; the last document is cut to fit
    max_length    cut longer documents; default: what the model's positions allow, at most `batch_tokens`
    dtype         of the sums: float64, or float32 (then compensated)
    batch_tokens  tokens of one forward pass; halved by itself where the memory does not suffice
    progress      called after every batch
    resume_path   where sums are kept from time to time, and at Ctrl-C or a corpus that breaks; and taken up from; see `resume_file`
    content       `model_digest` of the model as it is stored, where `model` is that model in another dtype

    Raises:
        ArchitectureError: a module is not there, is not reached, or is not given every token.
        CovarianceError: no tokens, another model's tokenizer, sums that are not finite, or a resume file of another run.
    """
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"sums are float64 or float32, not {dtype}")
    if not modules or len(set(modules)) != len(modules):
        raise ValueError("modules are named once each, and there is at least one")
    positions = _positions(model)
    max_length = max_length or min(batch_tokens, positions or batch_tokens)
    if positions is not None and max_length > positions:
        raise ArchitectureError(f"documents of {max_length} tokens do not fit the model's {positions} positions")
    specials = _Specials.of(tokenizer)
    if max_length <= len(specials):
        raise ValueError(f"max_length {max_length} leaves no room beside the special tokens {specials.shown}")
    if max_tokens is not None and max_tokens <= len(specials):
        raise ValueError(f"max_tokens {max_tokens} leaves no room beside the special tokens {specials.shown}")

    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if _together() else (0, 1)
    keys = _Keys(model, modules, max_length)
    reader = _Reader(documents, tokenizer, specials, keys.rows, max_length, max_tokens, max_documents)
    sums = {name: _Sum(dtype) for name in modules}
    content = content or model_digest(model)
    job = {
        "model": content, "modules": list(modules), "dtype": _name(keys.dtype), "sums": _name(dtype),
        "special_tokens": specials.shown, "max_length": max_length, "max_tokens": max_tokens, "max_documents": max_documents,
        "batch_tokens": batch_tokens, "rank": rank, "ranks": ranks,
    }  # fmt: skip
    checkpoint = None if resume_path is None else resume_file(resume_path)
    done: set[int] = set()
    if checkpoint is not None and checkpoint.is_file():
        done = _take_up(checkpoint, job, sums, reader)

    began = saved = time.monotonic()
    earlier = reader.tokens
    # What the sums hold: all before the place, and the documents behind it whose numbers are in the set.
    held = (reader.place, done)
    try:
        with _reading(model):
            while chunk := reader.chunk(_CHUNK * batch_tokens * ranks):
                start, done = held
                mine = chunk[rank::ranks]
                left = [number for number in range(len(mine)) if number not in done]
                size, ready = sum(map(len, mine)), sum(len(mine[number]) for number in done)
                earlier += round(ready / max(size, 1) * (reader.tokens - start.tokens))  # of a run that was interrupted here
                for numbers, inputs in keys.batches([mine[number] for number in left], batch_tokens):
                    with _whole():
                        for name, tensor in inputs.items():
                            sums[name].add(tensor)
                        done.update(left[number] for number in numbers)
                    ready += sum(len(mine[left[number]]) for number in numbers)
                    if progress is not None:
                        share = ready / size
                        tokens = start.tokens + round(share * (reader.tokens - start.tokens))
                        seen = start.documents + round(share * (reader.documents - start.documents))
                        seconds = time.monotonic() - began
                        progress(_progress(tokens, seen, earlier, seconds, max_tokens, max_documents, reader))
                for name, total in sums.items():
                    if total.total is not None and not bool(total.total.isfinite().all()):
                        raise CovarianceError(f"the inputs of '{name}' are not finite ({_name(keys.dtype)} model)")
                held = (reader.place, set())
                if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                    _put_aside(checkpoint, job, sums, *held)
                    saved = time.monotonic()
    except (KeyboardInterrupt, SourceError):
        if checkpoint is not None and (held[0].tokens or held[1]):
            _put_aside(checkpoint, job, sums, *held)
        raise

    if not reader.tokens:
        raise CovarianceError("the corpus has no tokens")
    if ranks > 1:
        _reduce(sums)
    place = reader.place
    key = MomentsKey(
        model=content,
        modules=tuple(modules),
        corpus=place.corpus,
        documents=reader.documents,
        tokens=reader.tokens,
        dtype=_name(keys.dtype),
        max_length=max_length,
        special_tokens=specials.shown,
    )
    return Moments(key, {name: total.mean(reader.tokens) for name, total in sums.items()}, keys.layout, place.cut)


@contextmanager
def _whole() -> Iterator[None]:
    """Ctrl-C waits until the block is through: what is in it happens as a whole, or not at all."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():  # only there is Ctrl-C ever raised
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def _progress(
    tokens: int,
    documents: int,
    earlier: int,
    seconds: float,
    max_tokens: int | None,
    max_documents: int | None,
    reader: _Reader,
) -> Progress:
    rate = (tokens - earlier) / max(seconds, 1e-9)
    shares = [tokens / max_tokens] if max_tokens else []
    shares += [documents / max_documents] if max_documents else []
    # The reader may be ahead of the tokens that are done, by no more than a chunk.
    shares += [reader.share * tokens / reader.tokens] if reader.share else []
    remaining = None if not shares else max(0.0, tokens / max(shares) - tokens) / max(rate, 1e-9)
    return Progress(tokens, documents, seconds, rate, remaining, remaining is not None and not reader.share)


def _positions(model: nn.Module) -> int | None:
    """How many positions the model has, as its config says; None where it does not say."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = getattr(text, "max_position_embeddings", None)  # GPT-2's n_positions goes by this name too
    return found if isinstance(found, int) and found > 0 else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---- several ranks


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _reduce(sums: Mapping[str, _Sum]) -> None:
    """Add up the sums of all ranks, module by module. A rank that had no document adds nothing."""
    device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
    for total in sums.values():
        size = torch.tensor(0 if total.total is None else len(total.total), device=device)
        distributed.all_reduce(size, distributed.ReduceOp.MAX)
        if total.total is None:
            total.total = torch.zeros(int(size), int(size), dtype=total.dtype)
        if total.dtype == torch.float32:
            total.total = total.total.double() if total.carry is None else total.total.double().sub_(total.carry)
            total.carry = None
        total.total = total.total.to(device)
        distributed.all_reduce(total.total)


# ---- files


def save(moments: Moments, path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32) -> None:
    """Write the matrices as safetensors with their key in the metadata: the whole file, or nothing."""
    tensors = {name: matrix.to(dtype).contiguous() for name, matrix in moments.matrices.items()}
    header = {"key": asdict(moments.key), "layout": moments.layout}
    _write(Path(path), tensors, header if moments.cut is None else {**header, "cut": moments.cut._asdict()})


def load(path: str | os.PathLike[str], expected: MomentsKey | Mapping[str, Any] | None = None) -> Moments:
    """Read what `save` wrote, if it is what was expected.

    expected  a key, or the fields of one that matter, for example {"model": model_digest(model), "modules": [...]}; the
              file may hold more modules than these

    Raises CovarianceError where the file is no such file, is damaged, or has another key; it says which field differs.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    key, layout, cut = _about(path)
    names = {one.name for one in fields(MomentsKey)}
    wanted = asdict(expected) if isinstance(expected, MomentsKey) else dict(expected or {})
    if unknown := wanted.keys() - names:
        raise ValueError(f"a key of second moments has no field {', '.join(sorted(unknown))}")
    for name, value in wanted.items():
        found = getattr(key, name)
        right = set(value) <= set(found) if name == "modules" else value == found
        if not right:
            remedy = _ANOTHER_MODEL if name == "model" else ""
            raise CovarianceError(f"{path} is not for this run: its {name} is {_shown(found)}, not {_shown(value)}{remedy}")
    try:
        matrices = {name: matrix.double() for name, matrix in load_file(path).items()}
    except SafetensorError as error:
        raise CovarianceError(f"{path} is damaged: {error}") from None
    for name in key.modules:
        matrix = matrices.get(name)
        if matrix is None or matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not bool(matrix.isfinite().all()):
            raise CovarianceError(f"{path} is damaged: no finite square matrix for '{name}'")
    return Moments(key, matrices, layout, cut)


def load_key(path: str | os.PathLike[str]) -> MomentsKey:
    """The key of a file that `save` wrote; its matrices are not read. Raises CovarianceError where it is no such file."""
    return _about(path)[0]


def _about(path: str | os.PathLike[str]) -> tuple[MomentsKey, str, Cut | None]:
    """Key, layout and cut, as they stand in the file's metadata."""
    header = _header(Path(path))
    try:
        key = MomentsKey(**{**header["key"], "modules": tuple(header["key"]["modules"])})
        return key, str(header["layout"]), Cut(**header["cut"]) if "cut" in header else None
    except (KeyError, TypeError):
        raise CovarianceError(f"{path} holds no second moments of padcheck") from None


_ANOTHER_MODEL = ". These second moments are of another model's weights: run `padcheck stats` on this one"


def resume_file(resume_path: str | os.PathLike[str]) -> Path:
    """The file in which this rank keeps its sums; to be removed once the moments are saved."""
    path = Path(resume_path)
    if not _together():
        return path
    return path.with_name(f"{path.name}.{distributed.get_rank()}-of-{distributed.get_world_size()}")


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list | tuple | set) else str(value)


def _put_aside(path: Path, job: Mapping[str, Any], sums: Mapping[str, _Sum], place: _Place, done: Iterable[int]) -> None:
    """Keep the sums: of all texts before `place`, and of the documents behind it whose numbers (of this rank) are `done`."""
    tensors: dict[str, Tensor] = {}
    for name, total in sums.items():
        if total.total is not None:
            tensors[f"total {name}"] = total.total
        if total.carry is not None:
            tensors[f"carry {name}"] = total.carry
    at = {**place._asdict(), "cut": place.cut._asdict(), "done": sorted(done)}
    _write(path, tensors, {"job": dict(job), "at": at})


def _take_up(path: Path, job: Mapping[str, Any], sums: Mapping[str, _Sum], reader: _Reader) -> set[int]:
    """Go on from `_put_aside`: the sums and the reader are what they were; the documents that were done are returned."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header, remedy = _header(path), "Remove it, or name another."
    if "job" not in header:
        raise CovarianceError(f"{path} is no resume file of padcheck. {remedy}")
    for name, value in job.items():
        if header["job"].get(name) != value:
            found = _shown(header["job"].get(name))
            raise CovarianceError(f"{path} is of another run: its {name} is {found}, not {_shown(value)}. {remedy}")
    try:
        at = dict(header["at"])
        done = set(at.pop("done"))
        place = _Place(**{**at, "cut": Cut(**at["cut"])})
        tensors = load_file(path)
    except (KeyError, TypeError):
        raise CovarianceError(f"{path} is of another version of padcheck. {remedy}") from None
    except SafetensorError as error:
        raise CovarianceError(f"{path} is damaged: {error}. {remedy}") from None
    reader.skip(place)
    if reader.place != place:
        raise CovarianceError(f"{path} is of another corpus: its first {place.taken} documents differ. {remedy}")
    for name, total in sums.items():
        total.total = tensors.get(f"total {name}")  # on the CPU; the first addition brings them to where the keys are
        total.carry = tensors.get(f"carry {name}")
    return done


def _header(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header: dict[str, Any] = json.loads(metadata.get("padcheck", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CovarianceError(f"{path} cannot be read as safetensors: {error}") from None
    return header


def _write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Beside the place first, then into it: a reader sees the old file or the new one, and a broken write leaves none."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        on_cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
        save_file(on_cpu, beside, metadata={"padcheck": json.dumps(header)})
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"{path} cannot be written: {reason}") from error
    finally:
        with suppress(OSError):  # the folder may be none
            beside.unlink(missing_ok=True)
