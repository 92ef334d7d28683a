"""One way to pad: left, right, or not at all. What the fixture `padding_sides` gives to a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pytest

    from padcheck.testing.tiny_models import TinyCausalLM

Name = Literal["left", "right", "unpadded"]
NAMES: tuple[Name, ...] = ("left", "right", "unpadded")


class Padding:
    """A side to pad on.

    Attributes:
        name: "left", "right" or "unpadded".
        side: "left" or "right"; None for unpadded.
    """

    def __init__(self, name: Name) -> None:
        if name not in NAMES:
            raise ValueError(f"{name!r} is no way to pad: {', '.join(NAMES)}")
        self.name = name
        self.side: Literal["left", "right"] | None = None if name == "unpadded" else name
        self._until_end = ExitStack()

    def __repr__(self) -> str:
        return f"Padding({self.name!r})"

    def __str__(self) -> str:
        return self.name

    @classmethod
    @contextmanager
    def of(cls, name: Name) -> Iterator[Padding]:
        """A padding whose `set_on` is undone on leaving."""
        padding = cls(name)
        with padding._until_end:
            yield padding

    def set_on(self, tokenizer: Any) -> None:
        """Let a tokenizer of transformers pad on this side until the test ends. Unpadded changes nothing."""
        if self.side is not None:
            self._until_end.callback(setattr, tokenizer, "padding_side", tokenizer.padding_side)
            tokenizer.padding_side = self.side

    def batches(self, tokenizer: Any, texts: Sequence[str], **options: Any) -> list[Mapping[str, Any]]:
        """The texts as a model takes them: one padded batch, or unpadded a batch of one row for each text.

        Args:
            tokenizer: a tokenizer of transformers; its own side stays as it is.
            options: further arguments of its call, such as `add_special_tokens`.

        Returns:
            Batches with `input_ids` and `attention_mask`, [B, T] each; tensors of torch, arrays of numpy without torch.

        Raises:
            ValueError: the tokenizer does not pad on the side that it was told (some classes of models have their own way).
        """
        wanted = {"return_tensors": "pt" if find_spec("torch") else "np", "return_attention_mask": True, **options}
        if self.side is None:
            return [tokenizer([text], **wanted) for text in texts]
        before = tokenizer.padding_side
        tokenizer.padding_side = self.side
        try:
            batch = tokenizer(list(texts), padding=True, **wanted)
        finally:
            tokenizer.padding_side = before
        first = 0 if self.side == "right" else -1  # the column that is real in every row
        if not batch["attention_mask"][:, first].all():
            raise ValueError(f"{type(tokenizer).__name__} does not pad on the {self.side} although padding_side says so")
        return [batch]


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Let a test that asks for `padding_sides`, or is marked with it, run under each side, unless it names its sides itself.

    Raises pytest.Collector.CollectError for a side that does not exist, and for a marked test that cannot tell the sides apart.
    """
    import pytest

    if parametrizes_itself(metafunc, "padding_sides"):
        return
    marker = metafunc.definition.get_closest_marker("padding_sides")
    chosen = marker.args if marker and marker.args else metafunc.config.getini("padcheck_sides")
    whence = "the marker padding_sides" if marker and marker.args else "padcheck_sides"
    for name in chosen:
        if name not in NAMES:
            raise pytest.Collector.CollectError(f"{whence} names {name!r}: it takes {', '.join(NAMES)}.")
    if not {"padding_sides", "tiny_causal_lm"} & set(metafunc.fixturenames):
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.name} is marked padding_sides but would run the same way each time: take padding_sides as an argument."
        )
    if "padding_sides" not in metafunc.fixturenames:
        metafunc.fixturenames.append("padding_sides")  # what can be parametrized is what the test takes
    metafunc.parametrize("padding_sides", list(dict.fromkeys(chosen)), indirect=True)


def parametrizes_itself(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether the test, its class or its module gives this fixture its values with `pytest.mark.parametrize`."""
    for marker in metafunc.definition.iter_markers("parametrize"):
        names = marker.args[0] if marker.args else marker.kwargs.get("argnames", ())
        if name in (names.replace(" ", "").split(",") if isinstance(names, str) else names):
            return True
    return False


def set_on_lent(request: pytest.FixtureRequest, lent: TinyCausalLM) -> None:
    """Let the tokenizer of `tiny_causal_lm` pad on the side that the test runs under, if it runs under one."""
    if "padding_sides" in getattr(getattr(request.node, "callspec", None), "params", ()):
        padding = request.getfixturevalue("padding_sides")
        if isinstance(padding, Padding):  # and not what a test put in its place
            padding.set_on(lent.tokenizer)
