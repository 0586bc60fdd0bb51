"""The command line's shell: help without heavy imports, versions, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from infer import __version__
from infer.cli import VERBS, main

HEAVY = ("numpy", "grpc", "onnxruntime", "pydantic", "google.protobuf", "rich", "asyncio", "prometheus_client",
         "infer._core", "infer.config")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = ("import sys\nfrom infer.cli import main\n"
              f"try: main({arguments!r})\nexcept SystemExit: pass\n"
              f"print('loaded', [name for name in {HEAVY!r} if name in sys.modules])\n")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded []"
    assert all(verb in done.stdout + done.stderr for verb in VERBS)


def test_module_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "infer", "--help"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("Usage:")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0
    assert "--help" in result.output


def test_version_names_libraries_without_importing_onnxruntime() -> None:
    script = ("import sys\nfrom infer.cli import main\n"
              "try: main(['--version'])\nexcept SystemExit: pass\n"
              "assert not {'onnxruntime', 'numpy', 'grpc'} & set(sys.modules)\n")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    package, nghttp2, onnxruntime, python = done.stdout.splitlines()
    assert package == f"infer {__version__}"
    assert nghttp2.split()[1][0].isdigit()
    assert onnxruntime.split()[1][0].isdigit()
    assert python.startswith("python 3.")


@pytest.mark.parametrize(("verb", "advice"), [
    ("srve", "no such command 'srve' (did you mean 'serve'?)"),
    ("unlike", "no such command 'unlike'; expected serve, call, demo, bench")])
def test_unknown_verb_is_a_usage_error(verb: str, advice: str) -> None:
    result = CliRunner().invoke(main, [verb])
    assert result.exit_code == 2
    assert advice in result.stderr


def test_serve_reports_every_problem_and_exits_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infer.toml").write_text("prot = 1\n")
    monkeypatch.setenv("INFER_GATHER_ROWS", "many")
    result = CliRunner().invoke(main, ["serve", "--port", "x"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "infer serve: 4 problems in the settings:",
        "  infer.toml:1: unknown setting 'prot' (did you mean 'port'?)",
        "  --port: got 'x': expected a whole number such as 64 or 1k",
        "  INFER_GATHER_ROWS: got 'many': expected a whole number such as 64 or 1k",
        "  PATH: no model to serve; name a .onnx file, its directory or a model repository",
    ]


def test_serve_with_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["serve", "m.onnx", "--config", "/nowhere/infer.toml"])
    assert result.exit_code == 2
    assert "/nowhere/infer.toml: cannot be read" in result.stderr
