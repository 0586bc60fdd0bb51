"""A package without the modules that need libnghttp2, as setup.py leaves them out: it serves by grpcio.

`make portable-check` builds such a package; here this build's modules are looked at without those.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import infer
from infer.client import InferClient
from tests.support.command import EXAMPLES, REPOSITORY, Serving, run

PACKAGE = Path(infer.__file__).parent


def left_out() -> set[str]:
    """What setup.py says; importing it would start a build."""
    source = REPOSITORY / "setup.py"
    function = next(node for node in ast.parse(source.read_text()).body
                    if isinstance(node, ast.FunctionDef) and node.name == "users_of_nghttp2")
    names = {"re": re, "CORE": REPOSITORY / "src" / "infer" / "_core"}
    exec(compile(ast.Module([function], []), str(source), "exec"), names)
    found: set[str] = names["users_of_nghttp2"]()  # type: ignore[operator]
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which `infer` is such a package."""
    folder = tmp_path_factory.mktemp("portable")
    names = left_out()
    shutil.copytree(PACKAGE, folder / "infer", copy_function=os.symlink, ignore=lambda _, files: [
        file for file in files if file == "__pycache__" or (file.endswith(".so") and file.split(".")[0] in names)])
    return {"PYTHONPATH": str(folder)}


def test_what_is_left_out() -> None:
    names = left_out()
    assert {"http2_session", "http2_client", "protocol", "load_client", "reply_fields"} <= names
    assert not {"pipeline", "unary_sink", "cold_call", "grpc_message", "request"} & names


def test_it_serves_by_grpcio_and_says_so(package: dict[str, str]) -> None:
    with Serving(EXAMPLES, "--log-format", "text", env=package) as serving:
        serving.wait_for("built without libnghttp2: serving by grpcio.*libnghttp2-dev")
        assert "transport  grpcio" in serving.start
        with InferClient(serving.address) as client:
            assert client.infer("digits", {"image": np.zeros((1, 64), np.float32)})["label"].shape == (1,)
        assert run("health", "--address", serving.http, env=package).returncode == 0
        assert serving.stop() == 0


def test_what_needs_the_library_says_so(package: dict[str, str]) -> None:
    for arguments in (("serve", EXAMPLES, "--transport", "native"), ("bench", "digits")):
        ended = run(*arguments, env=package)
        assert ended.returncode == 1
        assert "built without libnghttp2" in ended.stderr
        assert "libnghttp2-dev" in ended.stderr
    assert "libnghttp2 none" in run("--version", env=package).stdout
