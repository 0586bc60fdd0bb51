"""Generated protobuf and gRPC classes of protos/, made on first use and again when a .proto changes."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
OUT = ROOT / "build" / "baseline"
SOURCES = ("inference.proto", "model_config.proto")


def _is_stale() -> bool:
    newest = max((PROTOS / name).stat().st_mtime for name in SOURCES)
    outputs = [OUT / f"{Path(name).stem}_pb2.py" for name in SOURCES] + [OUT / "inference_pb2_grpc.py"]
    return any(not path.exists() or path.stat().st_mtime < newest for path in outputs)


def generate() -> None:
    """Write the classes to a private folder and move each into place, so that servers may start side by side."""
    partial = OUT.with_name(f"{OUT.name}.{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"--python_out={partial}"]
    subprocess.run([*command, f"--grpc_python_out={partial}", *SOURCES], check=True)
    OUT.mkdir(parents=True, exist_ok=True)
    for path in partial.iterdir():
        path.replace(OUT / path.name)
    partial.rmdir()


def load() -> tuple[ModuleType, ModuleType]:
    """The modules inference_pb2 and inference_pb2_grpc."""
    if _is_stale():
        generate()
    if str(OUT) not in sys.path:
        sys.path.insert(0, str(OUT))
    return importlib.import_module("inference_pb2"), importlib.import_module("inference_pb2_grpc")
