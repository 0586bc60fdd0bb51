"""`infer check`: what is wrong with models and their configuration, all of it at once."""

from __future__ import annotations

import json
from pathlib import Path

import click

FINE, PROBLEMS = 0, 1


def _check(*, paths: tuple[str, ...], model_config_file: str | None, config: str | None, fix: bool, as_json: bool,
           strict: bool, require_checksums: bool) -> None:
    from infer._core.ort_runtime import Runtime
    from infer.cores import memory_limit_bytes
    from infer.errors import InferError
    from infer.models.check import Limits, check, file_and_line
    from infer.models.fixes import fix as fix_problems
    from infer.models.memory import PEAK_FACTOR
    from infer.models.written import read_written

    if not (paths or model_config_file or config):
        raise click.UsageError("expected PATH..., --model-config-file or --config")
    try:
        runtime = Runtime()
    except InferError as error:
        raise click.UsageError(error.message) from error
    limits = Limits(memory_limit_bytes(), PEAK_FACTOR, require_checksums)
    roots = [Path(path) for path in paths]
    written = read_written(*(None if file is None else Path(file) for file in (model_config_file, config)))
    checked = check(roots, runtime, limits, written)
    fixes = fix_problems(checked.problems) if fix else []
    if fixes:
        checked = check(roots, runtime, limits, written)
    errors = sum(problem.is_error for problem in checked.problems)
    warnings = len(checked.problems) - errors
    if as_json:
        found = []
        for problem in checked.problems:
            file, line = file_and_line(problem)
            found.append({**problem.as_dict(), "file": file, "line": line, "text": str(problem)})
        click.echo(json.dumps({"models": checked.models, "versions": checked.versions, "problems": found,
                               "fixed": [{"place": each.place, "done": each.done} for each in fixes]}, indent=2))
    else:
        for each in fixes:
            click.echo(f"fixed: {each.place}: {each.done}")
        for problem in checked.problems:
            click.echo(f"{problem.severity}: {problem}")
        click.echo(f"{_count(checked.models, 'model')}, {_count(checked.versions, 'version')}: "
                   f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    raise SystemExit(PROBLEMS if errors or (strict and warnings) else FINE)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


command = click.Command(
    "check", callback=_check, short_help="Find everything that is wrong with models and their configuration.",
    params=[
        click.Argument(["paths"], nargs=-1, metavar="PATH..."),
        click.Option(["--model-config-file"], metavar="FILE", help="A model_config_list as TensorFlow Serving has it."),
        click.Option(["--config"], metavar="FILE", help="Settings as TOML, of which [models.NAME] is checked."),
        click.Option(["--fix"], is_flag=True, help="Do the renames and edits that are safe, and print each."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
        click.Option(["--strict"], is_flag=True, help="Exit 1 for warnings too."),
        click.Option(["--require-checksums"], is_flag=True, help="Every version needs a SHA256SUMS."),
    ],
    help="""Find everything that is wrong with models and their configuration.

    PATH and the two files are what `infer serve` takes. Each line says where, what is wrong and what to do. Exits 0
    when all can be served as it is, 1 when there are problems, 2 for a wrong command line.
    """)
