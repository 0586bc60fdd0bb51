"""`infer load`: RepositoryModelLoad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from infer.cli.remote import connected, server_options

Files = dict[tuple[int, str], Path]


def _files(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> Files:
    """Paths by version and name."""
    found: Files = {}
    for value in values:
        target, equals, path = value.partition("=")
        version, slash, name = target.partition("/")
        if not (equals and slash and name and path) or not version.isdecimal():
            raise click.BadParameter(f"{value!r}: expected VERSION/NAME=PATH, such as 1/model.onnx=here.onnx")
        found[int(version), name] = Path(path)
    return found


@click.command("load")
@click.argument("model")
@click.option("--model-config", metavar="FILE", type=click.Path(path_type=Path),
              help="A ModelConfig as JSON, used instead of the repository's configuration.")
@click.option("--file", "files", multiple=True, metavar="VERSION/NAME=PATH", callback=_files,
              help="A file sent along, instead of the repository's; with --model-config, may be given more than once.")
@server_options(timeout=600.0)
def command(*, model: str, model_config: Path | None, files: Files, **server: Any) -> None:
    """Load MODEL, or load it again; done when it is served.

    The server has to run with --model-control-mode explicit. What a load brings along is gone with the next load or
    unload, and without --state-dir with the server.
    """
    if files and model_config is None:
        raise click.UsageError("--file needs --model-config, the configuration of what is sent")
    try:
        config = None if model_config is None else model_config.read_text("utf-8")
        contents = {target: path.read_bytes() for target, path in files.items()}
    except OSError as error:
        raise click.UsageError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{model_config}: is not UTF-8 text") from None
    with connected("load", **server) as client:
        client.load(model, config=config, files=contents)
        versions = [each for each in client.models() if each.name == model]
    for each in versions:
        click.echo(f"{each.name} version {each.version}: {each.state}" + (f": {each.reason}" if each.reason else ""))
