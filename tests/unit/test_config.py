"""Settings: precedence, units, and every problem at once with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer.config import MODEL_NAME, MODEL_VERSION, Settings, flag_of, load_settings
from infer.errors import ConfigError

PATHS: dict[str, object] = {"paths": ("model.onnx",)}


def problems(flags: dict[str, object], environ: dict[str, str] | None = None, file: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags, environ or {}, file)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def test_defaults_are_those_of_the_flag_table() -> None:
    settings, origins = load_settings(PATHS, {}, None)
    assert settings.model_dump() == {
        "paths": (Path("model.onnx"),), "name": None, "model_config_file": None,
        "host": "0.0.0.0", "port": 8001, "http_port": 8002, "admin_port": 8003, "uds": None,
        "transport": None, "tls_cert": None, "tls_key": None, "tls_client_ca": None,
        "model_control_mode": None, "load_model": (), "max_control_calls": 64, "max_override_bytes": 1 << 30,
        "state_dir": None, "max_state_writes": 1024,
        "model_repository": (), "require_checksums": False, "model_memory_factor": 3.25, "load_threads": 2,
        "repository_poll_interval": 2.0, "repository_settle_time": 2.0,
        "reply_compression": "none", "max_coding_jobs": 256,
        "provider": (), "executors": None, "intra_op": None, "onnxruntime_library": None, "max_batch_size": 1024,
        "breaker": "none", "breaker_error_rate": 0.5, "breaker_window": 10.0, "breaker_open_for": 5.0,
        "run_timeout": 0.0,
        "gather_rows": 64, "max_queue_delay_us": 0, "slo_p99_ms": 0.0, "adaptive_limit": False,
        "max_queue_rows": 4096, "max_queue_bytes": None,
        "judge_deadlines": True, "codel_target": 0.005, "codel_interval": 0.1, "triton_status_codes": False,
        "max_queue_rows_total": None, "max_queue_bytes_total": None, "cache": 0,
        "cache_model_bytes": 0, "cache_ttl": 0.0, "cache_shared": False, "cache_file": None,
        "cache_rows": False,
        "replicas": (), "replicas_dns": None, "replicas_self": None, "replicas_forward": "cache",
        "replicas_timeout": 0.25, "replicas_ca": None,
        "cache_redis": None, "cache_redis_secret": None, "cache_redis_timeout": 0.005,
        "max_shadow_copies": 1024, "max_shadow_bytes": None, "max_outcomes": 1 << 20, "capture_dir": None,
        "max_tenants": 4096, "tenant_metadata_key": None, "routing_metadata_key": "infer-routing-key",
        "max_message_bytes": 64 << 20,
            "max_cold_message_bytes": 256 << 10,
        "max_buffered_bytes": 128 << 20, "max_buffered_bytes_total": None, "outbound_bytes": 4 << 20,
        "header_bytes": 16384, "max_connections": None, "max_streams": 1024, "max_stream_messages": 64,
        "stream_outbound_bytes": 256 << 10,
        "preface_timeout": 10.0,
        "settings_timeout": 10.0, "write_stall_timeout": 30.0, "keepalive_time": 7200.0, "keepalive_timeout": 20.0,
        "max_connection_idle": 3600.0, "max_connection_age": 0.0, "max_connection_age_grace": 0.0,
        "max_early_resets": 500, "max_stream_errors": 100, "max_settings_frames": 10, "max_ping_strikes": 100,
        "max_empty_frames": 16, "max_oversize_headers": 20, "max_window_updates": 10, "max_idle_frames": 100,
        "max_queued_frames": 10_000, "max_turn_events": 1000, "drain_timeout": 30.0, "drain_delay": 5.0,
        "log_level": "info", "log_format": None,
    }
    assert [name for name, origin in origins.items() if not origin.is_default] == ["paths"]


def test_flag_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text('\nport = 1\nhttp_port = 2\nmax_streams = "2k"\n')
    settings, origins = load_settings(
        {**PATHS, "port": "3"}, {"INFER_PORT": "4", "INFER_HTTP_PORT": "5", "INFER_UDS": ""}, file)
    assert (settings.port, settings.http_port, settings.max_streams, settings.gather_rows) == (3, 5, 2000, 64)
    assert origins["port"] == ("3", "--port")
    assert origins["http_port"] == ("5", "INFER_HTTP_PORT")
    assert origins["max_streams"] == ("2k", f"{file}:4: max_streams")
    assert origins["gather_rows"].is_default
    assert origins["uds"].is_default


def test_all_problems_are_reported_at_once_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text("# comment\nport = 'x'\nprot = 3\nmax-streams = 3\n\n[server]\nhost = 'h'\n")
    found = problems({"http_port": "99999", "log_level": "loud", "name": "a/b"}, {"INFER_DRAIN_DELAY": "soon"}, file)
    assert found == [
        f"{file}:3: unknown setting 'prot' (did you mean 'port'?)",
        f"{file}:4: unknown setting 'max-streams' (did you mean 'max_streams'?)",
        f"{file}:6: unknown setting 'server'; settings stand at the top, in no table",
        "--name: got 'a/b': should match pattern '^[A-Za-z0-9_.-]{1,128}$'",
        f"{file}:2: port: got 'x': expected a whole number such as 64 or 1k",
        "--http-port: got '99999': should be less than or equal to 65535",
        "INFER_DRAIN_DELAY: got 'soon': expected a time such as 30, 1.5s, 500ms or 2m",
        "--log-level: got 'loud': expected 'debug', 'info', 'warning' or 'error'",
        "PATH: no model to serve; name a .onnx file, its directory or a model repository",
    ]


def test_tables_of_models_are_left_to_the_models(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text("port = 1\n[models.m]\nmax_batch_size = 'x'\n")
    settings, origins = load_settings(PATHS, {}, file)
    assert settings.port == 1
    assert "models" not in origins
    file.write_text("models = 3\n")
    assert problems(PATHS, {}, file) == [f"{file}:1: unknown setting 'models' (did you mean 'load_model'?)"]


def test_a_library_beside_us_is_not_looked_for_in_the_system() -> None:
    settings, _ = load_settings(PATHS | {"onnxruntime_library": "libonnxruntime.so"}, {}, None)
    assert settings.onnxruntime_library == Path.cwd() / "libonnxruntime.so"


@pytest.mark.parametrize(("flags", "text"), [
    ({"paths": ("a", "")}, "PATH: got ('a', ''): a path is empty; a variable in the command line may be unset"),
    ({"paths": ("a", "b"), "name": "m"}, "--name: names one model, but 2 paths are to be served"),
    ({"port": "8002"}, "--port, --http-port (default): both are 8002; gRPC and HTTP need a port each"),
    ({"http_port": "8003"},
     "--http-port, --admin-port (default): both are 8003; give --admin-port another one, or none"),
    ({"port": "9", "admin_port": "9"}, "--port, --admin-port: both are 9; give --admin-port another one, or none"),
    ({"admin_port": "all"}, "--admin-port: got 'all': expected a whole number such as 64 or 1k"),
    ({"load_model": ("m",)},
     "--load-model: names what to load at the start, which only --model-control-mode explicit leaves open; it is not "
     "given"),
    ({"load_model": ("m",), "model_control_mode": "Watch"},
     "--load-model: names what to load at the start, which only --model-control-mode explicit leaves open; it is "
     "watch"),
    ({"uds": "/" + "x" * 107}, "--uds: a Unix socket's path has at most 107 bytes"),
    ({"max_message_bytes": "256MiB"},
     "--max-message-bytes, --max-buffered-bytes (default): a message of 268435456 bytes does not fit into "
     "134217728 buffered bytes"),
])
def test_settings_that_conflict(flags: dict[str, object], text: str) -> None:
    assert problems({**PATHS, **flags}) == [text]


def test_a_file_of_models_is_something_to_serve(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text('model_config_file = "models.config"\n')
    settings, _ = load_settings({}, {}, file)
    assert settings.model_config_file == tmp_path / "models.config"


def test_any_port_twice_is_no_conflict() -> None:
    settings, _ = load_settings({**PATHS, "port": "0", "http_port": "0"}, {}, None)
    assert settings.port == settings.http_port == 0


@pytest.mark.parametrize(("flags", "port"), [
    ({}, 8003), ({"port": "9"}, 0), ({"port": "0"}, 0), ({"port": "9", "admin_port": "8003"}, 8003),
    ({"admin_port": "0"}, 0), ({"admin_port": "none"}, None),
    ({"admin_port": None}, None), ({"port": "9", "admin_port": "None"}, None)])
def test_where_administration_is(flags: dict[str, object], port: int | None) -> None:
    assert load_settings(PATHS | flags, {}, None)[0].administration_port == port


def test_service_link_of_kubernetes_is_not_a_port() -> None:
    settings, origins = load_settings(PATHS, {"INFER_PORT": "tcp://10.0.0.7:8001"}, None)
    assert settings.port == 8001
    assert origins["port"].is_default


def test_file_that_is_not_toml_names_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text("port = 1\nhost = \n")
    assert problems(PATHS, {}, file) == [f"{file}:2:8: is not TOML: Invalid value"]


@pytest.mark.parametrize(("content", "text"), [(None, "cannot be read: No such file or directory"),
                                               (b"\xff\xfe", "is not UTF-8 text")])
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, text: str) -> None:
    file = tmp_path / "infer.toml"
    if content is not None:
        file.write_bytes(content)
    assert problems(PATHS, {}, file) == [f"{file}: {text}"]


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text('paths = ["models", "/abs"]\nuds = "run/infer.sock"\n')
    settings, _ = load_settings({}, {}, file)
    assert settings.paths == (tmp_path / "models", Path("/abs"))
    assert settings.uds == tmp_path / "run/infer.sock"


def test_paths_from_a_variable() -> None:
    settings, _ = load_settings({}, {"INFER_PATHS": "a:b/c"}, None)
    assert settings.paths == (Path("a"), Path("b/c"))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_seconds_of_a_file_are_finite(seconds: float, tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text(f"drain_timeout = {seconds}\n")
    assert problems(PATHS, {}, file)


def test_names_and_versions() -> None:
    assert all(map(MODEL_NAME.fullmatch, ("a.B-9_", "x" * 128)))
    assert not any(map(MODEL_NAME.fullmatch, ("", "a/b", "x" * 129, "a\n", "\u00e9", "a\0")))
    assert all(map(MODEL_VERSION.fullmatch, ("1", "9" * 18)))
    assert not any(map(MODEL_VERSION.fullmatch, ("", "0", "01", "-1", "v1", "9" * 19, "\u0661")))


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert flag_of(name) in {"PATH", "--" + name.replace("_", "-")}


def test_replicas_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text('log_level = "info"\n[replicas]\naddresses = ["a:1", "b:1"]\nself = "a:1"\nforward = "Cache"\n'
                    'timeout = "40ms"\nca = "ca.pem"\n')
    settings, origins = load_settings({"paths": (tmp_path,)}, {}, file)
    assert (settings.replicas, settings.replicas_self, settings.replicas_forward) == (("a:1", "b:1"), "a:1", "cache")
    assert (settings.replicas_timeout, settings.replicas_ca) == (0.04, tmp_path / "ca.pem")
    assert origins["replicas_self"].place == f"{file}:2: [replicas] self"
    file.write_text('[replicas]\nadresses = ["a:1"]\nself = "a"\n')
    with pytest.raises(ConfigError) as caught:
        load_settings({"paths": (tmp_path,)}, {}, file)
    assert f"{file}:1: [replicas] has an unknown key 'adresses'" in caught.value.message
    assert f"{file}:1: [replicas] self: got 'a': expected HOST:PORT such as infer-0:8001" in caught.value.message


@pytest.mark.parametrize(("given", "text"), [
    ({"replicas": "a:1,b:1", "replicas_dns": "c:1"}, "--replicas, --replicas-dns: give one of them"),
    ({"replicas": "a:1,b:1", "replicas_self": "c:1"}, "--replicas-self c:1: is not among --replicas a:1,b:1"),
    ({"replicas_dns": "c:1", "replicas_self": "a:1"}, "replicas are known by their addresses; give ADDRESS:PORT")])
def test_replicas_that_do_not_go_together(tmp_path: Path, given: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_settings({"paths": (tmp_path,), **given}, {}, None)
