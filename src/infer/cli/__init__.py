"""The command line: one module per verb, imported when that verb runs, so that `infer --help` is immediate."""

from __future__ import annotations

import difflib
import importlib

import click

VERBS = {
    "serve": "Serve ONNX models over gRPC.",
    "call": "Call a model once and print its outputs.",
    "demo": "Serve the bundled models, call them with real data, show the results.",
    "bench": "Load a served model and report rate and latency.",
    "check": "Find everything that is wrong with models and their configuration.",
    "models": "List a server's models: versions, states, labels, reasons.",
    "load": "Load a model on a server in explicit mode.",
    "unload": "Unload a model on a server in explicit mode.",
    "label": "Move a label of a model to a version.",
    "rollout": "Roll a new version out by steps, with guardrails that take it back.",
    "config": "Show the settings that a server would have, and where each comes from.",
    "cache": "Show what a server keeps of its answers, or have it forget them.",
    "split": "Divide a model's traffic over its versions, and see what each is given.",
    "experiment": "Compare versions by outcomes that clients report, and see which is better.",
    "shadow": "Have a version answer copies of a model's requests, and see how far it is from the others.",
    "capture": "Have a server write some of a model's calls to a file.",
    "replay": "Send captured requests again, and compare the answers.",
    "audit": "Print the audit log; find out whether it was tampered with.",
    "health": "Exit 0 when a server is ready, for health checks.",
}


class LazyGroup(click.Group):
    """Verbs by name; a verb's module holds its `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            near = difflib.get_close_matches(cmd_name, VERBS, 1)
            meant = f" (did you mean {near[0]!r}?)" if near else f"; expected {', '.join(VERBS)}"
            ctx.fail(f"no such command {cmd_name!r}{meant}")
        command: click.Command = importlib.import_module(f"infer.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    import platform

    from infer import __version__, versions

    nghttp2 = versions.nghttp2_version()
    missing = versions.missing_protections()
    click.echo(f"infer {__version__}")
    click.echo(f"libnghttp2 {nghttp2}" + (f" (without its own {', '.join(missing)})" if missing else ""))
    click.echo(f"onnxruntime {versions.onnxruntime_version()}")
    click.echo(f"python {platform.python_version()}")
    ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
              help="Print the versions of this program and its libraries.")
def main() -> None:
    """A high-throughput gRPC inference server for ONNX models."""
