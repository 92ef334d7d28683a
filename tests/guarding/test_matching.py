"""Which functions are recognised: by the end of their path, their name and their variables; relatives by the files around them."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from padcheck.guards.matching import files, places
from padcheck.positions.editors import EditorDataError, editor_ids, load_editor, parse_editor
from padcheck.positions.sites import KEYS
from padcheck.resources import rules_dir

COMPUTE_V = """
def compute_v(model, tok, request, hparams, layer, left_vector, context_templates):
    target_ids = kl_prompts = None
"""
FAST = """
def compute_v(model, tokenizer, request, hparams):
    target_len = kl_prompts = None
"""


def module_at(path: Path, code: str) -> ModuleType:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, "utf-8")
    spec = importlib.util.spec_from_file_location(f"made_{abs(hash(path))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(module: ModuleType) -> list[tuple[str, str]]:
    return [(place.editor.id, place.site.function) for place, *_ in places(module)]


@pytest.mark.parametrize(
    ("around", "editor"),
    [
        ([], "kmeng01-rome"),
        (["glue_eval/glue_eval.py"], "rebuilding-rome"),
        (["memit/memit_main.py"], "kmeng01-memit"),
        (["memit/memit_main.py", "emmet/emmet_main.py", "glue_eval/glue_eval.py"], "unified"),
        (["memit/memit_main.py", "AlphaEdit/AlphaEdit_main.py", "glue_eval/glue_eval.py"], "alphaedit"),
    ],
)
def test_relatives_are_told_apart_by_the_files_around_them(tmp_path: Path, around: list[str], editor: str) -> None:
    for name in around:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert found(module_at(tmp_path / "rome" / "compute_v.py", COMPUTE_V)) == [(editor, "compute_v")]


def test_the_longer_path_wins(tmp_path: Path) -> None:
    """EasyEdit's files lie in folders of the same names as its relatives', PMET's marks among them."""
    for name in ("memit/memit_main.py", "pmet/pmet_main.py"):
        (tmp_path / "fork" / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fork" / "models" / name).touch()
    assert found(module_at(tmp_path / "fork" / "models" / "rome" / "compute_v.py", COMPUTE_V)) == [("easyedit", "compute_v")]


def test_fastedit_is_not_taken_for_rome(tmp_path: Path) -> None:
    assert found(module_at(tmp_path / "fastedit" / "rome" / "compute_v.py", FAST)) == [("fastedit", "compute_v")]
    assert load_editor("fastedit").sites[0].side == "left"


@pytest.mark.parametrize(
    "code",
    [
        "def compute_v(model, tok, request): pass",
        "compute_v = 3",
        "class compute_v: pass",
        "def other(model, tok, request):\n    target_ids = kl_prompts = None",
        "",
    ],
)
def test_a_namesake_is_not_recognised(tmp_path: Path, code: str) -> None:
    assert found(module_at(tmp_path / "rome" / "compute_v.py", code)) == []


def test_another_file_is_not_recognised(tmp_path: Path) -> None:
    assert found(module_at(tmp_path / "syndrome" / "compute_v.py", COMPUTE_V)) == []
    assert found(module_at(tmp_path / "rome" / "compute_w.py", COMPUTE_V)) == []


def test_decorated_functions_are_found(tmp_path: Path) -> None:
    code = (
        "import functools\n"
        "def quiet(function):\n"
        "    @functools.wraps(function)\n"
        "    def inner(*args, **kwargs):\n"
        "        return function(*args, **kwargs)\n"
        "    return inner\n"
        "@quiet\n" + COMPUTE_V.strip()
    )
    module = module_at(tmp_path / "rome" / "compute_v.py", code)
    (entry,) = list(places(module))
    assert entry[1] is module.compute_v.__wrapped__


def entries() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for editor_id in editor_ids():
        data = tomllib.loads((rules_dir() / "editors" / f"{editor_id}.toml").read_text("utf-8"))
        for kind in KEYS:
            for entry in data["guard"].get(kind, ()):
                yield editor_id, kind, entry


def test_every_framework_has_sites() -> None:
    for editor_id in editor_ids():
        kinds = {site.kind for site in load_editor(editor_id).sites}
        assert {"pads", "counts", "reads", "edits"} <= kinds, editor_id
        assert {site.side for site in load_editor(editor_id).sites if site.kind in ("pads", "reads")} == (
            {"left"} if editor_id == "fastedit" else {"right"}
        )


def test_every_site_says_where_it_was_read() -> None:
    for editor_id, _, entry in entries():
        sources = [part.rpartition(":")[0] for part in entry["source"].split(", ")]
        for file in entry["files"]:
            assert any(source == file or source.endswith("/" + file) for source in sources), (editor_id, file)
        assert len(sources) == len(entry["files"])


def test_methods_that_are_named_exist() -> None:
    for editor_id, kind, entry in entries():
        if kind == "edits" and "method" in entry:
            assert entry["method"] in load_editor(editor_id).methods, (editor_id, entry)


def test_locate_methods_of_easyedit_are_all_covered() -> None:
    editor = load_editor("easyedit")
    edited = {site.method for site in editor.sites if site.kind == "edits"}
    locating = {name for name, method in editor.methods.items() if method.kind == "locate" and method.base is None}
    assert locating <= edited


def test_files_are_known_by_name() -> None:
    assert {"compute_v.py", "compute_z.py", "compute_zs.py", "repr_tools.py", "editor.py"} <= files()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('target = "target_ids"', 'targets = "target_ids"', "unknown key targets"),
        ('request = "request", ', "", "request is missing"),
        ('index = "rome-lookup"', 'index = "rome-lokup"', r"there is no \[index.rome-lokup\]"),
        ('labels = "mask - target"', 'labels = "mask - targets"', "unknown name targets"),
        ('side = "right"\npads', 'side = "up"\npads', "'up' is none of left, right"),
        ("reads = [", "read = [", "unknown key read"),
    ],
)
def test_bad_data_is_named_with_its_place(old: str, new: str, what: str) -> None:
    text = (rules_dir() / "editors" / "kmeng01-rome.toml").read_text("utf-8")
    assert old in text
    with pytest.raises(EditorDataError, match=what) as caught:
        parse_editor(text.replace(old, new), "kmeng01-rome")
    assert "[guard]" in str(caught.value)
