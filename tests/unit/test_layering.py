"""The import directions of the compiled core and of the package around it: a crossing fails here.

Read from the sources' own `import` and `cimport` lines. A module of the core imports lower levels only, but for the
edges inside a level that are listed; the packages of `infer` import what their row says and not each other.
"""

import ast
import re
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "infer"
CORE = SOURCES / "_core"

LEVELS = [
    {"debug", "clock", "status"},
    {"frequency", "hash128", "hash_ring", "lru", "recent", "fair_share", "lanes", "split",
     "abuse", "arena", "block", "breaker", "draw",
     "file_content", "frame_heads", "idle_thread", "span", "ring", "stream_ids",
     "timer_wheel", "token_bucket", "counters", "codel", "pace", "queue_policy", "tensor_view", "slab", "utf8"},
    {"wire", "tensor", "tensor_text", "tensor_request", "tensor_bind", "tensor_contents", "tensor_encode",
     "tensor_reshape", "element_value", "difference", "grpc_message", "output_sketch", "retry_info", "model_version",
     "quota", "arm", "request"},
    {"cache", "cache_entry", "cache_saved", "row_cache", "row_plan", "flight", "second_level", "no_inference",
     "tenants", "tenant_policy", "admission", "variants", "router", "batch_policy", "lateness", "queue_order",
     "batcher", "batch",
     "batch_stats", "reply", "request_bind",
     "external_data", "onnx_facts", "self_check", "ort_runtime", "ort_provider", "ort_inspect", "ort_run",
     "ort_session", "ort_watch", "executor", "fallback", "reply_reader", "shadow", "shadow_lane", "tap", "capture",
     "idle_zlib"},
    {"version_queues", "answers", "pipeline"},
    {"flush_buffer", "reply_fields", "http2_limits", "http2_replies", "http2_session",
     "http2_coding", "http2_streams", "http2_events", "grpc_stream",
     "cold_call", "infer_stream", "tls_layer", "protocol", "client_messages", "http2_client", "load_stats",
     "load_record", "load_loop", "load_client", "unary_sink"},
]
LEVEL_OF = {module: level for level, modules in enumerate(LEVELS) for module in modules}

# Inside a level: from each module to those that it may import.
INSIDE = {
    "request_bind": {"admission"},
    "tenants": {"tenant_policy"},
    "answers": {"version_queues"},
    "pipeline": {"answers", "version_queues"},
    "arena": {"idle_thread"},
    "block": {"arena"},
    "utf8": {"span"},
    # One codec in rooms of its own: text below, then reading and writing, `tensor` as the door.
    "tensor_contents": {"wire", "tensor_text"},
    "tensor_request": {"wire", "tensor_text", "tensor_contents"},
    "tensor_bind": {"tensor_text", "tensor_request", "tensor_contents"},
    "tensor_encode": {"wire", "tensor_text"},
    "tensor": {"wire", "tensor_text", "tensor_request", "tensor_bind", "tensor_contents", "tensor_encode"},
    "model_version": {"tensor", "tensor_text", "tensor_encode"},
    "request": {"model_version"},
    "difference": {"element_value", "tensor_text"},
    "output_sketch": {"element_value"},
    "arm": {"output_sketch", "tensor"},
    "router": {"variants"},
    "retry_info": {"wire"},
    "quota": {"retry_info", "tensor_text"},
    "ort_provider": {"ort_runtime"},
    "ort_inspect": {"ort_runtime", "ort_provider"},
    "ort_run": {"ort_runtime"},
    "ort_session": {"ort_runtime", "ort_provider", "ort_inspect", "ort_run"},
    "admission": {"queue_order", "batcher"},
    "queue_order": {"batch_policy", "lateness"},
    "batcher": {"batch_policy", "queue_order"},
    "ort_watch": {"ort_runtime"},
    "batch": {"ort_run", "ort_watch"},
    "fallback": {"batch", "router"},
    "batch_stats": {"batch", "queue_order"},
    "reply": {"batch"},
    "second_level": {"batch", "cache", "cache_entry", "flight", "reply", "reply_reader"},
    "shadow_lane": {"batch", "ort_watch", "queue_order", "reply", "reply_reader"},
    "shadow": {"batch", "reply", "shadow_lane", "tap"},
    "capture": {"tap"},
    "flight": {"cache_entry"},
    "cache_saved": {"cache", "cache_entry"},
    "cache": {"batch", "reply", "cache_entry", "flight"},
    "row_plan": {"batch", "cache", "reply"},
    "row_cache": {"batch", "cache", "cache_entry", "flight", "reply", "reply_reader", "row_plan"},
    "executor": {"batcher", "batch", "ort_watch"},
    "protocol": {"http2_limits", "http2_session", "http2_streams", "http2_events", "tls_layer"},
    "http2_events": {"http2_limits", "http2_replies", "http2_session", "grpc_stream", "cold_call", "flush_buffer"},
    "http2_coding": {"http2_replies", "http2_session", "grpc_stream"},
    "http2_streams": {"http2_replies", "http2_session", "http2_coding", "grpc_stream", "cold_call", "infer_stream"},
    "infer_stream": {"grpc_stream"},
    "http2_session": {"http2_limits", "http2_replies", "grpc_stream", "cold_call"},
    "http2_replies": {"http2_limits", "grpc_stream", "cold_call", "flush_buffer", "reply_fields"},
    "cold_call": {"grpc_stream"},
    "http2_client": {"client_messages"},
    "load_loop": {"http2_client", "load_record", "load_stats"},
    "load_client": {"load_loop", "load_record", "load_stats", "http2_client"},
}

LIBRARIES = {
    "capi.zlib": {"grpc_message"},
    # reply_fields fills the structs of header fields; it does not link the library.
    "capi.nghttp2": {"http2_session", "http2_replies", "http2_streams", "http2_events", "reply_fields"},
    # load_loop names the library's error codes; it does not link it.
    "capi.nghttp2_client": {"http2_client", "load_loop"},
    "capi.onnxruntime": {"ort_runtime", "ort_provider", "ort_inspect", "ort_run", "ort_session", "ort_watch"},
}

CORE_IMPORT = re.compile(r"^\s*(?:from\s+infer\._core\.([\w.]+)\s+c?import|c?import\s+infer\._core\.([\w.]+))", re.M)
PYTHON_IMPORT = re.compile(r"^\s*(?:from\s+(infer(?:\.\w+)*)\s+import\s+(\w+)|import\s+(infer(?:\.\w+)*))", re.M)


def core_imports(module: str) -> set[str]:
    """What a core module's .pyx and .pxd import of the core: module names, `capi.x` for declarations."""
    found = set()
    for suffix in (".pyx", ".pxd"):
        path = CORE / (module + suffix)
        if path.exists():
            for match in CORE_IMPORT.finditer(path.read_text()):
                found.add(match[1] or match[2])
    return found - {module}


def core_modules() -> set[str]:
    names = {path.stem for path in CORE.iterdir() if path.suffix in (".pyx", ".pxd")}
    return {name for name in names if not name.startswith("_")}


def test_every_core_module_has_a_level() -> None:
    assert core_modules() == set(LEVEL_OF)


def test_core_imports_go_down() -> None:
    crossings = []
    for module in sorted(core_modules()):
        for target in sorted(core_imports(module)):
            if target.startswith("capi."):
                continue
            lower = LEVEL_OF[target] < LEVEL_OF[module]
            inside = LEVEL_OF[target] == LEVEL_OF[module] and target in INSIDE.get(module, set())
            if not (lower or inside):
                crossings.append(f"{module} (L{LEVEL_OF[module]}) imports {target} (L{LEVEL_OF[target]})")
    assert crossings == []


def test_listed_edges_inside_a_level_stay_inside_it() -> None:
    assert [(module, target) for module, targets in INSIDE.items() for target in targets
            if LEVEL_OF[module] != LEVEL_OF[target]] == []


def test_only_their_own_modules_reach_the_libraries() -> None:
    users: dict[str, set[str]] = {name: set() for name in LIBRARIES}
    for module in core_modules():
        for target in core_imports(module):
            if target in users:
                users[target].add(module)
    assert all(users[name] <= LIBRARIES[name] for name in LIBRARIES), users


def test_the_core_imports_no_python_of_ours_but_errors() -> None:
    crossings = []
    for module in sorted(core_modules()):
        path = CORE / (module + ".pyx")
        if not path.exists():
            continue
        for match in PYTHON_IMPORT.finditer(path.read_text()):
            name = f"{match[1]}.{match[2]}" if match[1] == "infer" else match[1] or match[3]
            if not name.startswith(("infer._core", "infer.errors")):
                crossings.append(f"{module} imports {name}")
    assert crossings == []


# Python packages: what of `infer` each may import besides itself.
SHARED = {"config", "config_changes", "config_admission", "config_file", "config_traffic", "config_values", "errors",
          "versions", "proto", "cores", "quotas", "rollouts", "experiments", "gate_plan", "shadow_plan", "split_plan",
          "outcome_metrics", "capture_plan", "capture_file", "reply_comparison", "_core", "__init__"}
PACKAGES = {
    "services": SHARED,
    "observe": SHARED,
    "models": SHARED,
    "security": {"errors", "state"},
    "state": {"errors"},
    "traffic": SHARED | {"state"},
    "transport": SHARED | {"services"},
    "proto": set[str](),
    "client": {"errors", "proto"},
    "cli": SHARED | {"server", "process", "observe", "services", "models", "client", "security", "state"},
    "process": SHARED | {"server", "models", "observe", "reload"},
    "cache_file": SHARED,
    "admin_port": SHARED | {"services", "observe", "transport", "sockets"},
    "cache_redis": SHARED,
    "cache_sweep": SHARED,
    "server": SHARED | {"services", "observe", "models", "transport", "security", "state", "lifecycle", "sockets",
                        "traffic", "slo", "adaptive_limit", "replicas", "gauges", "admin_port", "cache_redis",
                        "cache_file", "cache_sweep", "rollout_control", "experiment_control"},
    "golden": {"errors", "rollouts", "_core"},
    "replayed": SHARED | {"models"},
    "gates": SHARED | {"golden", "replayed", "models"},
    "rollout_control": SHARED | {"gates", "golden", "models", "lifecycle", "traffic", "security", "state"},
    "experiment_control": SHARED | {"lifecycle", "traffic", "security", "state"},
    "lifecycle": SHARED | {"models", "security", "state", "traffic", "model_control", "watcher"},
    "slo": SHARED | {"slo_policy"},
    "gauges": SHARED | {"observe", "services"},
    "adaptive_limit": SHARED | {"adaptive_policy"},
    "adaptive_policy": set[str](),
    "replicas": SHARED | {"replica_peer", "config_replicas"},
    "replica_peer": SHARED | set[str](),
    "slo_policy": set[str](),
    "watcher": SHARED | {"models"},
    "sockets": SHARED | {"observe"},
    "reload": SHARED | {"models", "security"},
    "model_control": SHARED | {"models", "services", "security", "state"},
}


def python_imports(path: Path) -> set[str]:
    """First names below `infer` that a module imports, type-checking blocks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" if node.module == "infer" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("infer.")}
    return found - {"__version__"}


def test_python_packages_keep_to_their_rooms() -> None:
    crossings = []
    for package, allowed in PACKAGES.items():
        single = SOURCES / f"{package}.py"
        for path in [single] if single.exists() else sorted((SOURCES / package).rglob("*.py")):
            for target in sorted(python_imports(path) - allowed - {package}):
                crossings.append(f"{path.relative_to(SOURCES)} imports infer.{target}")
    assert crossings == []


def test_only_the_process_and_the_command_line_import_the_server() -> None:
    importers = {path.relative_to(SOURCES).parts[0] for path in SOURCES.rglob("*.py")
                 if "server" in python_imports(path) and path != SOURCES / "server.py"}
    assert importers <= {"cli", "process.py"}
