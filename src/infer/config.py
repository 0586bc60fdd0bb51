"""Settings of the server: one typed field per flag, each default with its unit.

A value comes from a flag, else an INFER_* variable, else the configuration file, else the default. `load_settings`
reports every problem at once, each with the place it was written at. Any thread; what it returns is immutable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from infer.config_admission import YEAR_SECONDS, AdmissionSettings
from infer.config_file import Origin, from_file
from infer.config_replicas import ReplicaSettings, replica_conflicts
from infer.config_traffic import TrafficSettings
from infer.config_values import (
    Count,
    Provider,
    Seconds,
    Size,
    bare_host,
    lower,
    name_list,
    parse_port_or_none,
    parse_providers,
    path_list,
    setting,
)
from infer.errors import ConfigError

MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
MODEL_PATTERN = re.compile(rf"{MODEL_NAME.pattern}|\*")
MODEL_VERSION = re.compile(r"[1-9][0-9]{0,17}")
ENVIRONMENT_PREFIX = "INFER_"
DEFAULT_FILE = Path("infer.toml")
PORT, ADMIN_PORT = 8001, 8003

KIB, MIB = 1 << 10, 1 << 20
# A message's length travels as 32 bits; clients stop at the signed maximum.
MESSAGE_BYTES_MAX = (1 << 31) - 1
COUNT_MAX = (1 << 31) - 1
# sun_path of sockaddr_un, less its terminator.
UNIX_PATH_BYTES = 107
TLS_FIELDS = ("tls_cert", "tls_key", "tls_client_ca")

# Kubernetes gives every container <SERVICE>_PORT=tcp://... for each Service; one named "infer" must not set our port.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")

ModelPattern = Annotated[str, Field(pattern=f"^({MODEL_PATTERN.pattern})$")]


class Settings(TrafficSettings, AdmissionSettings, ReplicaSettings):
    """Everything that `infer serve` can be told. A flag is the field's name with dashes, a variable with INFER_."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: Annotated[tuple[Path, ...], BeforeValidator(path_list)] = setting(
        (), "Models to serve: a file, its directory, or a repository.", "PATH...", "none")
    model_repository: Annotated[tuple[Path, ...], BeforeValidator(path_list)] = setting(
        (), "A directory of models, beside PATH; may be given more than once. The first with a name has it.", "PATH",
        "none")
    require_checksums: bool = setting(
        False, "Load only versions with a SHA256SUMS that lists the model's files.", "true|false", "false")
    model_memory_factor: float = setting(
        3.25, "A model is refused when this many times the size of its files does not fit into the memory that is "
        "left; 0 for never.", "FACTOR", ge=0, le=100)
    load_threads: Count = setting(
        2, "Models that are loaded at once, beside serving.", "N", "2", ge=1, le=64)
    name: str | None = setting(None, "Name of the model in a bare file.", "NAME", "the file's stem",
                                pattern=f"^{MODEL_NAME.pattern}$")

    model_config_file: Path | None = setting(
        None, "Models to serve as TensorFlow Serving has them, a file with a model_config_list; beside those under "
        "PATH.", "FILE", "none")
    model_control_mode: Annotated[Literal["none", "explicit", "watch"], BeforeValidator(lower)] | None = setting(
        None, "What changes the models while the server runs: nothing, RepositoryModelLoad and Unload, or what the "
        "directories hold.", "none|explicit|watch", "watch for directories, none for files")
    repository_poll_interval: Seconds = setting(
        2.0, "Time between two looks at the directories of models; longer where a look takes over a 50th of it.",
        "TIME", "2 s", ge=0.05, le=86400)
    repository_settle_time: Seconds = setting(
        2.0, "A version is taken to be whole once its files have not changed for that long, or at once when it was "
        "renamed to its place or has a file _READY.", "TIME", "2 s", ge=0.05, le=86400)
    load_model: Annotated[tuple[ModelPattern, ...], BeforeValidator(name_list)] = setting(
        (), "With explicit: a model to load at the start, or * for all; may be given more than once.", "NAME", "none")
    max_control_calls: Count = setting(
        64, "Loads, unloads and label moves by RPC that may be under way or wait; more are refused.", "N", "64 calls",
        ge=1, le=1 << 16)
    max_override_bytes: Size = setting(
        1 << 30, "Files of models that were sent with RepositoryModelLoad, all together.", "SIZE", "1 GiB", ge=0)
    state_dir: Path | None = setting(
        None, "Directory that keeps labels, loads and unloads of run time, and the audit log, over a restart.", "PATH",
        "none: they are forgotten")
    max_state_writes: Count = setting(
        1024, "Entries of the audit log that may wait to be written; what is more is not kept.", "N", "1024 entries",
        ge=1, le=1 << 20)

    host: Annotated[str, BeforeValidator(bare_host)] = setting(
        "0.0.0.0", "Address to serve on, IPv4 or IPv6.", "ADDRESS", min_length=1)
    port: Count = setting(PORT, "gRPC port; 0 takes any and prints it.", "PORT", ge=0, le=65535)
    http_port: Count = setting(8002, "Port of metrics and health; 0 takes any.", "PORT", ge=0, le=65535)
    admin_port: Annotated[Annotated[int, Field(ge=0, le=65535)] | None, BeforeValidator(parse_port_or_none)] = setting(
        ADMIN_PORT, "Port of administration (infer split, shadow, cache), for this machine alone; 0 takes any.",
        "PORT|none", "8003; any where --port is not 8001")
    transport: Annotated[Literal["native", "grpcio"], BeforeValidator(lower)] | None = setting(
        None, "What speaks gRPC: our own, or the portable grpcio, which is much slower.", "native|grpcio",
        "native where it was built")
    uds: Path | None = setting(None, "Serve gRPC on this Unix socket too, never over TLS.", "PATH", "none")
    tls_cert: Path | None = setting(
        None, "Certificate of the gRPC port, PEM, with what it is chained by: TLS; read again when it changes.", "FILE",
        "plaintext")
    tls_key: Path | None = setting(None, "Its key, PEM.", "FILE", "none")
    tls_client_ca: Path | None = setting(
        None, "Clients have to show a certificate that is signed by one of these CAs, PEM (mTLS).", "FILE",
        "clients need none")

    provider: Annotated[tuple[Provider, ...], BeforeValidator(parse_providers)] = setting(
        (), "Execution providers in the order of preference.", "auto|NAME:KEY=VALUE,...", "auto")
    executors: Count | None = setting(
        None, "Threads that run batches.", "N", "from the cores available", ge=1, le=1024)
    intra_op: Count | None = setting(
        None, "Threads inside one run of a model.", "N", "from the cores available", ge=1, le=1024)
    # Absolute: the dynamic linker looks for a bare file name among the system's libraries.
    onnxruntime_library: Annotated[Path, AfterValidator(Path.absolute)] | None = setting(
        None, "The libonnxruntime.so to load.", "FILE", "the installed package's own")

    max_cold_message_bytes: Size = setting(
        256 * KIB, "Largest request of a call other than inference.", "SIZE", "256 KiB", ge=1, le=MESSAGE_BYTES_MAX)
    max_message_bytes: Size = setting(
        64 * MIB, "Largest request message.", "SIZE", "64 MiB", ge=1 * KIB, le=MESSAGE_BYTES_MAX)
    reply_compression: Annotated[Literal["none", "gzip", "deflate", "auto"], BeforeValidator(lower)] = setting(
        "none", "How replies of 1 KiB and more are compressed where the client takes it; auto: as the request was.",
        "none|gzip|deflate|auto")
    max_coding_jobs: Count = setting(
        256, "Large compressed messages that may be with the threads that inflate them.", "N", "256 messages", ge=1,
        le=1 << 20)
    max_buffered_bytes: Size = setting(
        128 * MIB, "Request bytes held for one connection; more refuses its new calls.", "SIZE", "128 MiB", ge=64 * KIB)
    max_buffered_bytes_total: Size | None = setting(
        None, "Request bytes held for all connections.", "SIZE", "a quarter of the memory limit", ge=64 * KIB)
    outbound_bytes: Size = setting(
        4 * MIB, "Reply bytes queued for one connection before its stream of replies pauses.", "SIZE", "4 MiB",
        ge=64 * KIB)
    header_bytes: Size = setting(
        16 * KIB, "Header bytes of one call.", "SIZE", "16 KiB", ge=1 * KIB, le=1 * MIB)
    max_connections: Count | None = setting(
        None, "Open connections; more are closed at once.", "N", "from the limit of open files", ge=1)
    max_streams: Count = setting(
        1024, "Calls under way on one connection.", "N", "1024 calls", ge=1, le=1 << 20)
    max_stream_messages: Count = setting(
        64, "Messages of one stream that may wait or be worked on; then it is read no further.", "N",
        "64 messages", ge=1, le=1 << 16)
    stream_outbound_bytes: Size = setting(
        256 * KIB, "Reply bytes queued for one stream of messages before its handler has to wait.", "SIZE", "256 KiB",
        ge=1 * KIB)
    preface_timeout: Seconds = setting(
        10.0, "Time a new connection has to say that it speaks HTTP/2.", "TIME", "10 s", gt=0, le=3600)
    settings_timeout: Seconds = setting(
        10.0, "Time a client has to acknowledge our HTTP/2 settings.", "TIME", "10 s", gt=0, le=3600)
    write_stall_timeout: Seconds = setting(
        30.0, "Time a connection may refuse what we send before it is closed.", "TIME", "30 s", gt=0, le=3600)

    keepalive_time: Seconds = setting(
        7200.0, "Silence after which a client is asked whether it is there; 0 for never.", "TIME", "2 h", ge=0,
        le=YEAR_SECONDS)
    keepalive_timeout: Seconds = setting(
        20.0, "Time it has to answer before its connection is closed.", "TIME", "20 s", gt=0, le=3600)
    max_connection_idle: Seconds = setting(
        3600.0, "Time without a call after which a connection is ended, with GOAWAY; 0 for never.", "TIME", "1 h", ge=0,
        le=YEAR_SECONDS)
    max_connection_age: Seconds = setting(
        0.0, "Age, give or take a tenth, at which a connection is ended, with GOAWAY; 0 for never.", "TIME", "0", ge=0,
        le=YEAR_SECONDS)
    max_connection_age_grace: Seconds = setting(
        0.0, "Time that calls have to finish from then on; 0 for as long as they take.", "TIME", "0", ge=0,
        le=YEAR_SECONDS)
    max_early_resets: Count = setting(
        500, "Of the last 1000 calls, those that a client may reset within a second, unsent.", "N", ge=0, le=1000)
    max_stream_errors: Count = setting(
        100, "Stream errors that a connection may cause at once; each 100 ms allow one more.", "N", ge=1, le=COUNT_MAX)
    max_settings_frames: Count = setting(
        10, "SETTINGS frames at once; each second allows one more.", "N", ge=1, le=COUNT_MAX)
    max_ping_strikes: Count = setting(
        100, "PING frames in excess of one each 10 s, between two replies.", "N", ge=0, le=COUNT_MAX)
    max_empty_frames: Count = setting(16, "DATA frames without data, in a row.", "N", ge=0, le=COUNT_MAX)
    max_oversize_headers: Count = setting(
        20, "Header blocks over their limit, and further quarters of it in one, at once; each second allows one more.",
        "N", ge=1, le=COUNT_MAX)
    max_window_updates: Count = setting(
        10, "WINDOW_UPDATE frames for each DATA frame that we send.", "N", ge=1, le=COUNT_MAX)
    max_idle_frames: Count = setting(
        100, "PRIORITY and unknown frames for each call.", "N", ge=0, le=COUNT_MAX)
    max_queued_frames: Count = setting(
        10_000, "Our frames that a client may leave unread.", "N", ge=1, le=COUNT_MAX)
    max_turn_events: Count = setting(
        1000, "Frames and header fields of a connection that are read before others have their turn; a stream that is "
        "reset or refused, or opened while 128 requests are still to come, counts for 32.", "N", ge=1, le=COUNT_MAX)

    drain_timeout: Seconds = setting(
        30.0, "Time that calls in flight have to finish on SIGTERM.", "TIME", "30 s", ge=0, le=86400, live=True)
    drain_delay: Seconds = setting(
        5.0, "Time between unready and the drain on SIGTERM.", "TIME", "5 s, 0 on Ctrl-C", ge=0, le=86400,
        live=True)

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = setting(
        "info", "Least level that is logged.", "LEVEL", live=True)
    log_format: Annotated[Literal["text", "json"], BeforeValidator(lower)] | None = setting(
        None, "Form of a log line.", "text|json", "text on a terminal, else json")


    @property
    def administration_port(self) -> int | None:
        """That of `admin_port`; 0: any. None: there is none."""
        # A second server on this machine has another --port, and would meet the first one's.
        given = "admin_port" in self.model_fields_set or self.port == PORT
        return self.admin_port if given else 0

    @property
    def roots(self) -> tuple[Path, ...]:
        """Where models are looked for, in order."""
        return (*self.paths, *self.model_repository)


def settings_in_order() -> list[tuple[str, FieldInfo]]:
    """As a person reads them: what is served, and where, comes first."""
    later = AdmissionSettings.model_fields | TrafficSettings.model_fields | ReplicaSettings.model_fields
    return sorted(Settings.model_fields.items(), key=lambda each: each[0] in later)


class Problem(NamedTuple):
    """What is wrong, and with which settings; with none where they are not known."""

    fields: tuple[str, ...]
    text: str


def flag_of(field: str) -> str:
    return "PATH" if field == "paths" else "--" + field.replace("_", "-")


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None
) -> tuple[Settings, dict[str, Origin]]:
    """The settings and where each came from. `flags` holds only what was given, by field name.

    Raises ConfigError with every problem.
    """
    settings, origins, problems = read_settings(flags, environ, file)
    if problems:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n  ".join([f"{count} in the settings:", *(problem.text for problem in problems)]))
    return settings, origins


def read_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None
) -> tuple[Settings, dict[str, Origin], list[Problem]]:
    """As `load_settings`; where there are problems, a setting that is wrong by itself has its default."""
    texts: list[str] = []
    origins = {name: Origin(field.default, "default") for name, field in Settings.model_fields.items()}
    if file is not None:
        origins |= from_file(file, list(Settings.model_fields), texts)
    for name in Settings.model_fields:
        variable = ENVIRONMENT_PREFIX + name.upper()
        written = environ.get(variable, "")
        if written and not (name == "port" and _SERVICE_LINK.match(written)):
            origins[name] = Origin(written, variable)
    origins |= {name: Origin(value, flag_of(name)) for name, value in flags.items()}

    problems = [Problem((), text) for text in texts]
    given = {name: origin.value for name, origin in origins.items() if not origin.is_default}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        order = [name for name, _ in settings_in_order()]
        details = sorted(error.errors(include_url=False), key=lambda each: order.index(str(each["loc"][0])))
        problems += [_problem(origins, detail) for detail in details]
        wrong = {str(detail["loc"][0]) for detail in details}
        settings = Settings.model_validate({name: value for name, value in given.items() if name not in wrong})
    else:
        wrong = set()
    problems += [problem for problem in _conflicts(settings, origins) if wrong.isdisjoint(problem.fields)]
    return settings, origins, problems


def _problem(origins: Mapping[str, Origin], detail: Any) -> Problem:
    name = str(detail["loc"][0])
    origin = origins[name]
    if detail["type"] == "value_error":
        text = str(detail["ctx"]["error"])
    elif detail["type"] == "literal_error":
        text = f"expected {detail['ctx']['expected']}"
    else:
        text = detail["msg"].removeprefix("Input ").removeprefix("String ")
    return Problem((name,), f"{origin.place}: got {origin.value!r}: {text}")


def _conflicts(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[Problem]:
    """What each setting allows by itself and all of them together do not."""
    roots = settings.roots
    if not roots and settings.model_config_file is None:
        yield Problem(("paths",), "PATH: no model to serve; name a .onnx file, its directory or a model repository")
    if settings.name is not None and len(roots) > 1:
        yield Problem(("name", "paths"), f"{origins['name'].place}: names one model, but {len(roots)} paths "
                                         "are to be served")
    if settings.port == settings.http_port != 0:
        yield Problem(("port", "http_port"), f"{_place(origins, 'port')}, {_place(origins, 'http_port')}: both are "
                                             f"{settings.port}; gRPC and HTTP need a port each")
    for other in ("port", "http_port"):
        if settings.administration_port == getattr(settings, other) != 0:
            yield Problem((other, "admin_port"), (
                f"{_place(origins, other)}, {_place(origins, 'admin_port')}: both are {settings.administration_port}; "
                "give --admin-port another one, or none"))
    if settings.uds is not None and len(os.fsencode(settings.uds)) > UNIX_PATH_BYTES:
        yield Problem(("uds",), f"{origins['uds'].place}: a Unix socket's path has at most {UNIX_PATH_BYTES} bytes")
    if settings.load_model and settings.model_control_mode != "explicit":
        yield Problem(("load_model", "model_control_mode"), (
            f"{origins['load_model'].place}: names what to load at the start, which only --model-control-mode explicit "
            f"leaves open; it is {settings.model_control_mode or 'not given'}"))
    yield from _tls_conflicts(settings, origins)
    yield from (Problem(*each) for each in replica_conflicts(settings))
    if (settings.cache_redis is None) != (settings.cache_redis_secret is None):
        given, missing = ("cache_redis", "cache_redis_secret")[:: 1 if settings.cache_redis is not None else -1]
        yield Problem((given,), f"{origins[given].place}: give {flag_of(missing)} too; what a Redis holds is believed "
                                "only with the secret of the servers that share it")
    elif settings.cache_redis is not None and settings.cache_redis_secret is not None:
        from infer.cache_redis import connect, read_secret

        try:
            read_secret(settings.cache_redis_secret)
            connect(settings.cache_redis)
        except ConfigError as error:
            yield Problem(("cache_redis", "cache_redis_secret"), error.message)
    for limit in ("max_buffered_bytes", "max_buffered_bytes_total"):
        bound = getattr(settings, limit)
        if bound is not None and settings.max_message_bytes > bound:
            yield Problem(("max_message_bytes", limit), (
                f"{_place(origins, 'max_message_bytes')}, {_place(origins, limit)}: a message of "
                f"{settings.max_message_bytes} bytes does not fit into {bound} buffered bytes"))


def _tls_conflicts(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[Problem]:
    given = [name for name in TLS_FIELDS if getattr(settings, name) is not None]
    places = ", ".join(_place(origins, name) for name in given)
    if settings.tls_cert is not None and settings.tls_key is not None:
        from infer.security.tls import TlsFiles, server_context

        try:
            server_context(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
        except ConfigError as error:
            yield Problem(TLS_FIELDS, f"{places}: {error}")
    elif given:
        missing = " and ".join(flag_of(name) for name in TLS_FIELDS[:2] if name not in given)
        yield Problem(TLS_FIELDS, f"{places}: TLS needs a certificate and its key; give {missing} too")


def _place(origins: Mapping[str, Origin], field: str) -> str:
    return flag_of(field) + " (default)" if origins[field].is_default else origins[field].place
