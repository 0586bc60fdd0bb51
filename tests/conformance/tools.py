"""Clients that need an environment of their own, put under `build/` once. A test that cannot have one is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.command import REPOSITORY

VENVS = REPOSITORY / "build" / "venvs"
GO_BIN = REPOSITORY / "build" / "go"
NODE = REPOSITORY / "build" / "node"
DEBIAN = REPOSITORY / "build" / "debian"
INSTALL_SECONDS = 900
# By name, why: where a registry is out of reach each attempt takes minutes.
_failed: dict[str, str] = {}


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
        _install(name, [_found(name, "go"), "install", f"{package}@{version}"], GOBIN=str(program.parent),
                 GOFLAGS="-mod=mod")
    return program


def go_program(source: Path) -> Path:
    """The program of a directory with a go.mod, built again when a file of it has changed."""
    folder = GO_BIN / "programs" / source.name
    program = folder / "program"
    copies = [(file, folder / "source" / file.name) for file in sorted(source.iterdir())]
    if not program.exists() or any(not copy.exists() or copy.read_text() != file.read_text() for file, copy in copies):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder / "source")
        shutil.copytree(source, folder / "module")
        _install(source.name, [_found(source.name, "go"), "build", "-o", str(program), "."], cwd=folder / "module",
                 GOFLAGS="-mod=mod")
    return program


def node_packages(name: str, packages: Sequence[str]) -> Path:
    """The node_modules of `packages`, each with its version."""
    folder = NODE / name
    stamp = folder / "packages.txt"
    wanted = "\n".join([*packages, ""])
    if not (stamp.exists() and stamp.read_text() == wanted):
        _found(name, "node")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _install(name, [_found(name, "npm"), "install", "--silent", "--no-audit", "--no-fund", "--fetch-retries=1",
                        "--prefix", str(folder), *packages])
        stamp.write_text(wanted)
    return folder / "node_modules"


def debian_package(name: str) -> Path:
    """The files of a Debian package, below a folder of its own: nothing is installed, and no root is needed."""
    folder = DEBIAN / name
    if not (folder / "usr").exists():
        apt, dpkg = _found(name, "apt-get"), _found(name, "dpkg-deb")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _install(name, [apt, "download", "-q", name], cwd=folder)
        (archive,) = folder.glob("*.deb")
        _install(name, [dpkg, "-x", str(archive), str(folder)])
    return folder


def _found(name: str, tool: str) -> str:
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"{name}: no {tool} to install it with")
    return program


def _install(name: str, command: Sequence[str], cwd: Path | None = None, **variables: str) -> None:
    """Skips the test where that fails, and those that ask for the same later on without another attempt."""
    if name in _failed:
        pytest.skip(_failed[name])
    reason = _attempt(name, command, cwd, variables)
    if reason:
        _failed[name] = reason
        pytest.skip(reason)


def _attempt(name: str, command: Sequence[str], cwd: Path | None, variables: Mapping[str, str]) -> str:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LD_PRELOAD")}
    try:
        done = subprocess.run(command, cwd=cwd, env=kept | {**variables}, capture_output=True, text=True,
                              timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{name}: not installed within {INSTALL_SECONDS} s: {' '.join(command)}"
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return f"{name} cannot be installed: {last}"
    return ""
