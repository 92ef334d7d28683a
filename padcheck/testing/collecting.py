"""`pytest --padcheck`: what `padcheck check` says of the files that pytest collects, an item for each file.

All files are checked once, before the collection, because some rules look across files. What is checked, and how, is what
`padcheck check` does with the same paths; pytest decides which folders it enters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from padcheck.checking import CheckReport, Options, check
from padcheck.configuration import SettingsPerFolder
from padcheck.diagnostics import Finding, JobError, Place, at_least
from padcheck.renderers import RENDERERS
from padcheck.reports import Report

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, TerminalRepr

NAME = "padcheck"
_WIDTH = 100
_FOLDER_STANDS_FOR = ("tokenizer_config.json", "tokenizer.json", "config.json")
"""The file in whose place a tokenizer's or model's folder is collected: the first that it has."""


@dataclass
class _Checked:
    """What was said of one file."""

    fail_on: str
    findings: list[Finding] = field(default_factory=list)
    errors: list[JobError] = field(default_factory=list)

    def failing(self) -> tuple[Place, str] | None:
        """The place and the words of the first thing that fails the item."""
        for error in self.errors:
            return error.place, error.message
        for finding in self.findings:
            if at_least(finding.severity, self.fail_on):
                return finding.place, f"{finding.rule} {finding.name}: {finding.message}"
        return None

    def render(self) -> str:
        from padcheck.commands import excerpts

        report = Report("check", {"name": NAME}, list(self.findings), list(self.errors), inspected=1)
        return _writable(RENDERERS["text"](report, width=_WIDTH, excerpt=excerpts()))


_CHECKED = pytest.StashKey[dict[Path, _Checked]]()


def check_all(session: pytest.Session) -> None:
    """Check what pytest was pointed at. Raises pytest.UsageError for a configuration that cannot be used."""
    from padcheck.commands import relative_to

    root = session.config.invocation_params.dir
    paths = [path for argument in session.config.args if (path := _path_of(argument, session.config)).exists()]
    with chdir(root):
        # no processes of our own inside a test run
        report = check(paths, Options(jobs=1, left_out=_left_out_by_pytest(session)))
        relative_to(report, root)
    session.config.stash[_CHECKED] = _by_file(report, root)


def _path_of(argument: str, config: pytest.Config) -> Path:
    """The file or folder of an argument of pytest's: a path, or under `--pyargs` a module that can be found."""
    name = argument.partition("::")[0]
    if config.getoption("pyargs"):
        try:
            spec = find_spec(name)
        except (ImportError, AttributeError, ValueError):  # a path, or a module that pytest will not find either
            spec = None
        if spec and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
        if spec and spec.has_location and spec.origin:
            return Path(spec.origin)
    return config.invocation_params.dir / name


def _left_out_by_pytest(session: pytest.Session) -> Callable[[Path], bool]:
    """Whether pytest will pass over a path: --ignore, norecursedirs, collect_ignore in a conftest that is loaded, and so on."""

    def left_out(path: Path) -> bool:
        hook = session.gethookproxy(path.parent)
        return bool(hook.pytest_ignore_collect(collection_path=path, config=session.config))

    return left_out


def _by_file(report: CheckReport, root: Path) -> dict[Path, _Checked]:
    """The findings of each file that is ours; those of a folder with the file that stands for it."""
    settings = SettingsPerFolder({})
    stands_for: dict[Path, Path] = {}
    checked: dict[Path, _Checked] = {}

    def entry(path: Path) -> _Checked:
        path = stands_for.get(path) or stands_for.get(path.parent) or path
        if path not in checked:
            checked[path] = _Checked(settings.of_file(path).fail_on)
        return checked[path]

    for shown, kind, _ in report.shown:
        path = Path(os.path.abspath(root / shown))
        if path.is_dir():
            present = [path / name for name in _FOLDER_STANDS_FOR if (path / name).is_file()]
            if not present:
                continue
            stands_for[path] = present[0]
        if kind != "other":
            entry(path)
    for finding in report.visible():
        if finding.place.path is not None:
            entry(Path(os.path.abspath(root / finding.place.path))).findings.append(finding)
    for error in report.errors:
        path = Path(os.path.abspath(root / (error.place.path or "")))
        if not report.shown or error.place.path is None or not path.exists():
            raise pytest.UsageError(f"padcheck: {error.place}: {error.message} {error.remedy or ''}".rstrip())
        entry(path).errors.append(error)
    return checked


def collect(path: Path, parent: pytest.Collector) -> PadcheckFile | None:
    """The collector of a file that padcheck checked; None for any other.

    It stands below the session, not below `parent`: to set up a package, pytest would import it, and nothing is run here.
    """
    checked = parent.config.stash[_CHECKED].get(path)
    return None if checked is None else PadcheckFile.of(path, checked, parent.session)


def items_of_configurations(session: pytest.Session) -> list[pytest.Item]:
    """Items for the configurations with findings of their own (an ignore that hides nothing), wherever they lie."""
    collected = {item.path for item in session.items if isinstance(item, PadcheckItem)}
    files = [
        PadcheckFile.of(path, checked, session)
        for path, checked in session.config.stash[_CHECKED].items()
        if path.suffix == ".toml" and path not in collected
    ]
    return [item for file in files for item in file.collect()]


def _writable(text: str) -> str:
    """The text with its surrogates escaped, by which Python shows the bytes of a file's name that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class PadcheckFile(pytest.File):
    """A file with one item, so that the item's id is FILE::padcheck whatever the file is."""

    def __init__(self, *, checked: _Checked, **more: Any) -> None:
        super().__init__(**more)
        self._checked = checked

    @classmethod
    def of(cls, path: Path, checked: _Checked, session: pytest.Session) -> PadcheckFile:
        """The collector of a file. Its id is the path from pytest's root, also outside of it, where pytest's own may be empty."""
        try:
            shown = Path(os.path.relpath(path, session.config.rootpath))
        except ValueError:  # another drive
            shown = path
        name: Any = _writable(shown.as_posix())
        return cls.from_parent(session, path=path, checked=checked, name=name, nodeid=name)

    def collect(self) -> Iterator[PadcheckItem]:
        yield PadcheckItem.from_parent(self, name=NAME, checked=self._checked)


class PadcheckItem(pytest.Item):
    """Fails if padcheck found something at or above `fail-on` in its file."""

    def __init__(self, *, checked: _Checked, **more: Any) -> None:
        super().__init__(**more)
        self._checked = checked
        self.add_marker(NAME)

    def runtest(self) -> None:
        if self._checked.failing():
            raise _Found
        if self._checked.findings:
            self.user_properties.append((NAME, _counted(self._checked.findings)))
            self.add_report_section("call", NAME, self._report())

    def _report(self) -> str:
        with chdir(self.config.invocation_params.dir):
            return self._checked.render()

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> str | TerminalRepr:
        failing = self._checked.failing()
        if not isinstance(excinfo.value, _Found) or failing is None:
            return super().repr_failure(excinfo, style)
        from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

        place, message = failing
        crash = ReprFileLocation(_writable(str(place.path or self.path)), place.line or 1, message)
        text = ReprTraceback([ReprEntryNative([self._report()])], None, "native")
        return ReprExceptionInfo(text, crash)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        failing = self._checked.failing()
        line = None if failing is None or failing[0].line is None else failing[0].line - 1
        return Path(_writable(str(self.path))), line, f"{NAME}: {self.nodeid.partition('::')[0]}"


class _Found(Exception):
    """There are findings; `repr_failure` shows them."""


def _counted(findings: list[Finding]) -> str:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity] = counts.get(finding.severity, 0) + 1
    return ", ".join(f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items())


def summarise(terminalreporter: Any) -> None:
    """Say how many items passed in spite of findings."""
    quiet = [
        report
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and NAME in dict(report.user_properties)
    ]
    if quiet:
        files = f"{len(quiet)} file{'s' if len(quiet) > 1 else ''}"
        terminalreporter.write_line(f"padcheck: findings below fail-on in {files} that passed; -rP shows them.")
