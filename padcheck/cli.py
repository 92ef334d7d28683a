"""The command line. Only click is imported here; what a command needs is imported when it runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from padcheck import __version__

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("text", "concise", "json", "sarif", "github", "gitlab", "junit")


def _complete_rules(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids of rules that go on as typed, also behind a comma."""
    from padcheck.rulebook import rules

    done, comma, begun = incomplete.rpartition(",")
    return [f"{done}{comma}{each}" for each in rules() if each.startswith(begun.upper())]


def shared_options(command: F) -> F:
    """Options of both checking commands, in the order of `--help`."""
    options = (
        click.option(
            "--select",
            metavar="RULES",
            shell_complete=_complete_rules,
            help="Report only these rules (ids, names, families; comma-separated).",
        ),
        click.option("--ignore", metavar="RULES", shell_complete=_complete_rules, help="Leave these rules out."),
        click.option("--fix", is_flag=True, help="Write the correction where it can be written."),
        click.option("--unsafe-fixes", is_flag=True, help="With --fix: also what may change a result that was right."),
        click.option("--diff", is_flag=True, help="Show what --fix would write, and write nothing."),
        click.option(
            "--fail-on",
            type=click.Choice(["error", "warning", "note", "never"]),
            help="Least severity for exit code 1 [default: error].",
        ),
        click.option("--output-format", type=click.Choice(FORMATS), help="How the report is written [default: text]."),
        click.option(
            "--output-file",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Write the report there; the text report still goes to the terminal.",
        ),
        click.option("--statistics", is_flag=True, help="Count findings by rule."),
        click.option(
            "--profile",
            type=click.Choice(["default", "strict", "lenient"]),
            help="strict: warnings fail too; lenient: only errors are shown.",
        ),
        click.option(
            "--config",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Read this configuration instead of the nearest.",
        ),
        click.option("--isolated", is_flag=True, help="Read no configuration."),
        click.option("--show-settings", is_flag=True, help="Print the settings in force and stop."),
        click.option("--no-ignores", is_flag=True, help="Report what the configuration's ignores hide."),
        click.option("--add-ignores", is_flag=True, help="Write an ignore for every finding to the configuration."),
        click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def model_options(command: F) -> F:
    """Options of the commands that edit a model, in the order of `--help`."""
    options = (
        click.option("--model", required=True, metavar="DIR", help="The model's folder, which also holds the tokenizer."),
        click.option(
            "--requests",
            required=True,
            metavar="FILE",
            help="Edit requests: JSON, JSON Lines, CSV; plain or gzip; - for standard input.",
        ),
        click.option("--method", metavar="NAME", help="The method, instead of the one that the hparams name."),
        click.option(
            "--context-templates",
            metavar="FILE",
            help="Templates, one per line or as JSON [default: sampled from the model].",
        ),
        click.option(
            "--covariance",
            metavar="PATH",
            help="Second moments: the file of `padcheck stats`, or a folder of the framework's own [default: that file, where it lies "
            "below the hparams' stats_dir].",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=0,
            show_default=True,
            metavar="N",
            help="Of the sampled templates.",
        ),
        click.option("--device", metavar="NAME", help="Where to run [default: the GPU, if there is one]."),
        click.option(
            "--trust-remote-code", is_flag=True, help="Let transformers run the code that the model's folder names."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


class _Commands(click.Group):
    """Suggests the nearest command for a misspelt one, and keeps to the exit codes."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]}?", ctx) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nShell completion, for ~/.bashrc (other shells: zsh_source, fish_source):\n"
    '  eval "$(_PADCHECK_COMPLETE=bash_source padcheck)"',
)
@click.version_option(__version__, prog_name="padcheck")
def cli() -> None:
    """Finds the bugs that make a model edit go to the wrong token, before the edit is run.

    Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 the job could not be done, 3 there was no file at all.
    """


@cli.command()
@click.argument("paths", metavar="[PATHS]...", nargs=-1)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Check hparams against the config.json in this folder.",
)
@click.option("--framework", metavar="ID", help="The framework, for hparams that do not show it.")
@click.option("--method", metavar="NAME", help="The method, for hparams that do not name one.")
@click.option("--stdin-filename", metavar="NAME", help="What to call standard input, which is the path -.")
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache.")
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="Processes [default: one, more for many files].")
@click.option("--force-exclude", is_flag=True, help="Leave out excluded files even if they are named.")
@click.option("--show-files", is_flag=True, help="Say what each file is taken for, and why, and stop.")
@click.option("--exit-non-zero-on-fix", is_flag=True, help="Exit with 1 if --fix changed a file.")
@shared_options
def check(**options: Any) -> None:
    """Check hparams, tokenizer folders, model configs, request files, Python code and notebooks.

    Without PATHS it searches the current folder. Nothing is run: neither a model nor torch is needed.
    """
    from padcheck.commands import run_check

    raise SystemExit(run_check(options))


@cli.command()
@click.argument("hparams", metavar="HPARAMS")
@click.option(
    "--requests",
    required=True,
    metavar="FILE",
    help="Edit requests: JSON, JSON Lines, CSV; plain or gzip; - for standard input.",
)
@click.option("--tokenizer", metavar="DIR", help="The tokenizer's folder (or its tokenizer.json).")
@click.option("--model", metavar="DIR", help="The model's folder, which also holds the tokenizer.")
@click.option(
    "--framework",
    metavar="ID",
    help="easyedit, kmeng01-rome, kmeng01-memit, rebuilding-rome, unified, alphaedit, pmet, fastedit.",
)
@click.option("--method", metavar="NAME", help="The method, for hparams that do not name one.")
@click.option(
    "--padding-side", type=click.Choice(["left", "right"]), help="The side that will hold, whatever the framework sets."
)
@click.option("--passed-in", is_flag=True, help="You pass a loaded (model, tokenizer), so the framework sets nothing.")
@click.option(
    "--run",
    type=click.Choice(["edit", "batch", "sequential"]),
    default="edit",
    show_default=True,
    help="How the requests are run.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Requests in one batch of --run batch [default: hparams, else all].",
)
@click.option("--context-templates", metavar="FILE", help="The templates that the editor will use, one per line or as JSON.")
@click.option("--rows-out", metavar="FILE.jsonl", help="Write every row: request, row, kind, editor, truth, drift, cause, …")
@click.option("--max-rows", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="Rows to show in full.")
@click.option("--html", metavar="FILE", help="Also write the report as one page that can be sent to a colleague.")
@click.option(
    "--transformers",
    type=click.Choice(["4", "5"]),
    help="The generation that will read the tokenizer [default: the installed one, else 5].",
)
@click.option("--trust-remote-code", is_flag=True, help="Let transformers run the code that the tokenizer's folder names.")
@shared_options
def preflight(**options: Any) -> None:
    """Will the planned run read, write and score at the right tokens?

    Checks every request × every row that the editor would build, without weights, and says which requests are hit, which token is
    read instead of which, why, and the smallest change that makes it right.
    """
    from padcheck.commands import run_preflight

    raise SystemExit(run_preflight(options))


@cli.command()
@click.argument("hparams", metavar="HPARAMS")
@model_options
@click.option("--out", metavar="DIR", help="Save the edited model there: a new or empty folder, not the model's own.")
@click.option("--dry-run", is_flag=True, help="Work the edit out and write nothing.")
def edit(**options: Any) -> None:
    """Edit a model, in a way that padding cannot break, and save it.

    Writes a folder that from_pretrained opens, with a file that says how it came about.
    """
    from padcheck.editing_commands import run_edit

    raise SystemExit(run_edit(options))


@cli.command()
@click.argument("hparams", metavar="HPARAMS")
@click.argument("more", nargs=-1, metavar="")  # what follows the first file of --corpus
@click.option("--model", required=True, metavar="DIR", help="The model's folder, which also holds the tokenizer.")
@click.option(
    "--corpus",
    required=True,
    multiple=True,
    metavar="FILE...",
    help="Texts (blank lines separate documents; without any, each line is one), JSON, JSON Lines, folders or saved data sets.",
)
@click.option("--out", metavar="FILE", help="The file to write (safetensors) [default: below the hparams' stats_dir].")
@click.option(
    "--field",
    default="text",
    show_default=True,
    metavar="NAME",
    help="The key of a document's text in JSON and data sets.",
)
@click.option("--split", default="train", show_default=True, metavar="NAME", help="The split of a saved data set.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Stop after so many tokens.")
@click.option(
    "--max-documents", type=click.IntRange(1), metavar="N", help="Stop after so many documents [default: mom2_n_samples]."
)
@click.option(
    "--max-length",
    type=click.IntRange(1),
    metavar="N",
    help="Cut longer documents, and say so [default: what the model's positions allow].",
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    metavar="N",
    help="Tokens of one forward pass.",
)
@click.option(
    "--dtype",
    metavar="NAME",
    help="Of the forward pass: float64, float32, bfloat16 or float16 [default: the one that the model is stored in].",
)
@click.option("--device", metavar="NAME", help="Where to run [default: the GPU, if there is one].")
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Keep what is done beside the file, also at Ctrl-C, and take it up again.",
)
@click.option("--overwrite", is_flag=True, help="Write over the file.")
@click.option("--trust-remote-code", is_flag=True, help="Let transformers run the code that the model's folder names.")
def stats(**options: Any) -> None:
    """Estimate the second moments that MEMIT and its kin need, for all layers in one pass; also under torchrun."""
    from padcheck.editing_commands import run_stats

    raise SystemExit(run_stats(options))


@cli.command()
@click.argument("hparams", metavar="HPARAMS")
@model_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take the first N requests [default: all].")
@click.option(
    "--attention", type=click.Choice(["eager", "sdpa"]), help="The model's attention [default: what transformers chooses]."
)
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--html", metavar="FILE", help="Also write the report, with the curves, as one page.")
def verify(**options: Any) -> None:
    """Prove on your own model what left padding does to an edit, and what of it did the harm.

    Each request is edited alone: right; on a left-padded batch, as the editors do it; and with indices, position ids or mask put
    right. The model comes back as it was. Exit code 1: the corrected edit is not the right one, so padding does not explain it all.
    """
    from padcheck.editing_commands import run_verify

    raise SystemExit(run_verify(options))


@cli.command()
@click.argument("rule", metavar="RULE", shell_complete=_complete_rules)
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(rule: str, output_format: str) -> None:
    """What a rule finds, why it matters, and what to do."""
    from padcheck.commands import run_explain

    raise SystemExit(run_explain(rule, output_format))


@cli.command()
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rules(output_format: str) -> None:
    """List all rules."""
    from padcheck.commands import run_rules

    raise SystemExit(run_rules(output_format))


@cli.command()
@click.option("--html", metavar="FILE", help="Also write the report as a page.")
def demo(html: str | None) -> None:
    """See the bug on embedded data: the same run, padded right and left."""
    from padcheck.commands import run_demo

    raise SystemExit(run_demo(Path(html) if html else None))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; 2 for usage errors, never a traceback for bad input."""
    try:
        cli.main(args=list(argv) if argv is not None else None, prog_name="padcheck", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Stopped.", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    return 0


def script() -> int:
    """The installed program: `main`, with a garbage collector that does not look at each few hundred new objects.

    A short run makes no garbage worth the search, and at its end the system takes the memory back faster than a last search does:
    together a sixth of the time that checking one file takes.
    """
    gc.set_threshold(200_000, 20, 20)
    code = main()
    gc.freeze()
    return code
