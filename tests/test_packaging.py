"""What is built: an sdist from which everything can be built and tested, and a wheel with its data inside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

from padcheck.checks.hparams.compiled import facts
from padcheck.rulebook import compile_index

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, object]:
    file = root / "pyproject.toml"
    if not file.is_file():
        pytest.skip("not a checkout")
    loaded: dict[str, object] = tomllib.loads(file.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def built(root: Path, project: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made from that sdist."""
    if not (root / "padcheck").is_dir():
        pytest.skip("not a checkout")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_wheel_has_the_index_and_the_pages(wheel: zipfile.ZipFile, root: Path) -> None:
    names = set(wheel.namelist())
    index = json.loads(wheel.read("padcheck/_data/rules/index.json"))
    assert index == compile_index(root / "rules")
    assert {f"padcheck/_data/rules/{rule['page']}" for rule in index["rules"]} <= names


@pytest.mark.slow
def test_wheel_has_what_a_start_would_compute(wheel: zipfile.ZipFile) -> None:
    """The facts of frameworks and models, as padcheck works them out from the sources in a checkout."""
    folder = "padcheck/_data/rules/compiled/"
    there = {name.removeprefix(folder).removesuffix(".json") for name in wheel.namelist() if name.startswith(folder)}
    computed = json.loads(json.dumps(facts()))
    assert there == set(computed)
    assert {"profiles", "framework-easyedit"} <= there
    assert {name: json.loads(wheel.read(f"{folder}{name}.json")) for name in there} == computed


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["rules", "fixtures/shipped"])
def test_wheel_has_all_data(wheel: zipfile.ZipFile, root: Path, folder: str) -> None:
    there = {name for name in wheel.namelist() if name.startswith(f"padcheck/_data/{folder}/")}
    here = {
        path.relative_to(root).as_posix()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here
    compiled = {name for name in there if name.startswith("padcheck/_data/rules/compiled/")}
    assert there - compiled - {"padcheck/_data/rules/index.json"} == {f"padcheck/_data/{name}" for name in here}


@pytest.mark.slow
def test_wheel_is_small_typed_and_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = [entry for entry in wheel.infolist() if entry.filename.startswith("padcheck/_data/fixtures/shipped/")]
    assert sum(entry.file_size for entry in shipped) <= 5 * MEBIBYTE
    assert {"padcheck/py.typed", "padcheck/__init__.pyi"} <= set(wheel.namelist())
    assert {name.partition("/")[0] for name in wheel.namelist()} == {"padcheck", "padcheck-0.1.0.dist-info"}
    assert not [name for name in wheel.namelist() if name.endswith((".pyc", ".orig"))]


@pytest.mark.slow
def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read("padcheck-0.1.0.dist-info/METADATA").decode()
    core = {
        re.match(r"[\w-]+", line)[0].lower()  # type: ignore[index]
        for line in re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)
        if "extra ==" not in line
    }
    assert core == {"click", "tokenizers", "pyyaml"}
    assert "padcheck = padcheck.cli:script" in wheel.read("padcheck-0.1.0.dist-info/entry_points.txt").decode()
    assert "padcheck = padcheck.pytest_plugin" in wheel.read("padcheck-0.1.0.dist-info/entry_points.txt").decode()
    assert "padcheck-0.1.0.dist-info/licenses/LICENSE" in wheel.namelist()


@pytest.mark.slow
def test_sdist_can_be_built_and_tested(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ["pyproject.toml", "hatch_build.py", "constraints.txt", "Makefile", "LICENSE", "README.md", ".ci/run"]
    needed += ["tests/conftest.py", "padcheck/rulebook.py", "rules/PAD101-lookup-shifted-by-pads.md"]
    needed += [".pre-commit-hooks.yaml", "action.yml", "templates/padcheck.gitlab-ci.yml", "examples/steering/steer.py"]
    assert set(needed) <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "dist/")) or "__pycache__" in name]


def test_torch_is_pinned_and_every_install_obeys_the_pins(root: Path, project: object) -> None:
    """Plain `torch` brings gigabytes of GPU libraries, so no command of this repository may resolve it freely."""
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"#.*|[\w-]+==[\w.]+", line) for line in pins)
    for file in ("Makefile", ".ci/run"):
        for line in (root / file).read_text(encoding="utf-8").splitlines():
            if "pip install" in line:
                assert "--constraint constraints.txt" in line or "--no-deps" in line, f"{file}: {line}"


def test_every_requirement_of_the_checks_is_pinned(root: Path, project: dict[str, dict[str, dict[str, list[str]]]]) -> None:
    pins = {line.partition("==")[0].lower() for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    wanted = [*project["project"]["dependencies"], *chain(*project["project"]["optional-dependencies"].values())]
    names = {re.match(r"[\w-]+", text)[0].lower() for text in wanted}  # type: ignore[index]
    assert names - {"padcheck"} <= pins
