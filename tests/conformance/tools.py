"""Clients that need an environment of their own, put under `build/` once. A test that cannot have one is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY

VENVS = REPOSITORY / "build" / "venvs"
GO_BIN = REPOSITORY / "build" / "go"
INSTALL_SECONDS = 900


def python_environment(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with `requirements`."""
    folder = VENVS / name
    interpreter, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join([*requirements, ""])
    if not (stamp.exists() and stamp.read_text() == wanted and interpreter.exists()):
        shutil.rmtree(folder, ignore_errors=True)
        _install(name, [sys.executable, "-m", "venv", str(folder)])
        pip = [str(interpreter), "-I", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _install(name, [*pip, *requirements])
        stamp.write_text(wanted)
    return interpreter


def go_tool(name: str, package: str, version: str) -> Path:
    """The program of a Go package, `name` being its last part."""
    program = GO_BIN / version / name
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            pytest.skip(f"{name}: no go to build it with")
        _install(name, [go, "install", f"{package}@{version}"], GOBIN=str(program.parent), GOFLAGS="-mod=mod")
    return program


def _install(name: str, command: Sequence[str], **variables: str) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LD_PRELOAD")}
    try:
        done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=INSTALL_SECONDS,
                              check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{name}: not installed within {INSTALL_SECONDS} s: {' '.join(command)}")
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        pytest.skip(f"{name} cannot be installed: {last}")
