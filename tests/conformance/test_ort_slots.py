"""Our positions in ONNX Runtime's function table against an independent copy of the table.

A wrong position calls another function with our arguments, which a smoke test may survive. The copy is the C header
that a Go module of bindings carries; skipped, with the reason, where it cannot be fetched.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "src" / "infer" / "_core"
MODULE = "github.com/yalue/onnxruntime_go@v1.27.0"
FETCH_SECONDS = 120

SLOT = re.compile(r"^    SLOT_(\w+) = (\d+)$", re.M)
# The table's members: a status function, a release function, a function with another result, an old-style one.
MEMBER = re.compile(r"ORT_API2_STATUS\(\s*(\w+)|ORT_CLASS_RELEASE2?\(\s*(\w+)|ORT_API_T\(\s*[^,]+,\s*(\w+)|"
                    r"\(\s*ORT_API_CALL\s*\*\s*(\w+)\s*\)")


def our_slots() -> dict[str, int]:
    return {name: int(index) for name, index in SLOT.findall((CORE / "capi" / "onnxruntime.pxd").read_text())}


def table_of(header: str) -> list[str]:
    """Names of OrtApi's members in their order."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.S)
    begin = text.index("{", text.index("struct OrtApi {"))
    depth = 0
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            break
    names = []
    for member in text[begin + 1:end].split(";"):
        lines = [line for line in member.splitlines() if not line.lstrip().startswith("#")]
        match = MEMBER.search(" ".join(lines))
        if match:
            status, release, other, old = match.groups()
            names.append(f"Release{release}" if release else status or other or old)
        else:
            assert not " ".join(lines).strip(), f"a member that is not understood: {member!r}"
    return names


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go command to fetch the bindings with")
    directory = tmp_path_factory.mktemp("go")
    environment = os.environ | {"GOPATH": str(directory), "GOFLAGS": "-modcacherw", "GO111MODULE": "on"}
    try:
        fetched = subprocess.run([go, "mod", "download", "-json", MODULE], env=environment, cwd=directory,
                                 capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{MODULE} was not fetched within {FETCH_SECONDS} s")
    if fetched.returncode != 0:
        pytest.skip(f"{MODULE} cannot be fetched: {(fetched.stderr or fetched.stdout).strip()[:300]}")
    header = Path(json.loads(fetched.stdout)["Dir"], "onnxruntime_c_api.h")
    return table_of(header.read_text())


def test_positions_are_the_documented_ones(table: list[str]) -> None:
    assert len(table) > 300
    wrong = {name: (index, table[index]) for name, index in our_slots().items() if table[index] != name}
    assert not wrong


def test_every_position_fills_the_function_of_its_name() -> None:
    filled = re.findall(r"put\(&ort\.(\w+),\s*(\w+)\[SLOT_(\w+)\]\)", (CORE / "ort_runtime.pyx").read_text())
    assert {name for name, _, _ in filled} == set(our_slots())
    assert all(name == slot for name, _, slot in filled)
    assert [name for name, source, _ in filled if source != "table"] == ["TensorTypeAndShape_HasShape"]
