"""UNAVAILABLE says that a server, a model or a version cannot be called now, never that it protects itself.

A balancer ejects hosts for it. Who answers with it is listed here, with the reason; whoever else names it fails.
"""

import re
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "infer"
REASONS = {
    "_core/admission.pyx": "--triton-status-codes",
    "_core/fallback.pyx": "a version whose breaker is open",
    "_core/http2_coding.pyx": "stopping",
    "_core/http2_session.pyx": "stopping",
    "_core/http2_streams.pyx": "stopping",
    "_core/pipeline.pyx": "unloading",
    "models/loader.py": "stopping",
    "models/manager.py": "stopping",
    "models/routes.py": "loading, unloading",
    "services/admin_rollout.py": "stopping",
    "services/control.py": "tells loading from failed",
    "services/health.py": "stopping",
    "services/reflection.py": "stopping",
    "traffic/captures.py": "stopping",
    "transport/grpc_aio.py": "stopping",
    "transport/infer_stream.py": "stopping",
}
# The code under any of its names, where it is used: not a definition, a fallback's kind, or a model's state.
NAMES = re.compile(r"\bSTATUS_UNAVAILABLE\b|\bUNAVAILABLE\b|\bUnavailable\b")
DEFINE = {"errors.py", "_core/status.pxd", "observe/version_metrics.py", "_core/load_client.pyx", "model_control.py",
          "observe/http.py", "config_admission.py", "config.py"}


def code_of(path: Path) -> str:
    """Without comments and texts."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    return re.sub(r"#.*|f?\"[^\"\n]*\"", "", text)


def test_only_who_cannot_be_called_answers_with_it() -> None:
    users = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py*") if path.suffix in (".py", ".pyx", ".pxd")
             and path.relative_to(SOURCES).parts[0] not in ("client", "cli", "proto") and NAMES.search(code_of(path))}
    assert users - DEFINE == set(REASONS)
