"""Settings of the server: one typed field per flag, each default with its unit.

A value comes from a flag, else an INFER_* variable, else the configuration file, else the default. `load_settings`
reports every problem at once, each with the place it was written at. Any thread; what it returns is immutable.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from infer.errors import ConfigError

MODEL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
MODEL_VERSION = re.compile(r"[1-9][0-9]{0,17}")
PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")
ENVIRONMENT_PREFIX = "INFER_"
DEFAULT_FILE = Path("infer.toml")

KIB, MIB = 1 << 10, 1 << 20
# A message's length travels as 32 bits; clients stop at the signed maximum.
MESSAGE_BYTES_MAX = (1 << 31) - 1
YEAR_SECONDS = 365 * 86400
COUNT_MAX = (1 << 31) - 1
# sun_path of sockaddr_un, less its terminator.
UNIX_PATH_BYTES = 107
TLS_FIELDS = ("tls_cert", "tls_key", "tls_client_ca")

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_SECONDS = {"": 1.0, "s": 1.0, "us": 1e-6, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
# Kubernetes gives every container <SERVICE>_PORT=tcp://... for each Service; one named "infer" must not set our port.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")

Provider = tuple[str, dict[str, str]]


def parse_count(value: object) -> int:
    """A whole number; text may carry a decimal or binary scale: 512, 1k, 2Ki."""
    return _scaled(value, "")


def parse_size(value: object) -> int:
    """Bytes; text may carry a unit: 65536, 64MiB, 1k, 2GB."""
    return _scaled(value, "b")


def _scaled(value: object, unit: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _AMOUNT.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match:
        scale = _SCALES.get(match[2].removesuffix(unit) if unit else match[2])
        if scale and "." not in match[1]:
            return int(match[1]) * scale
        if scale and (float(match[1]) * scale).is_integer():
            return int(float(match[1]) * scale)
    if isinstance(value, str) and re.fullmatch(r"-[0-9]+", value.strip()):
        return int(value)
    raise ValueError(f"expected a {'size such as 65536, 64MiB' if unit else 'whole number such as 64'} or 1k")


def parse_seconds(value: object) -> float:
    """Seconds; text may carry a unit: 30, 0.5, 500ms, 2m."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = _AMOUNT.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match and match[2] in _SECONDS:
        return float(match[1]) * _SECONDS[match[2]]
    raise ValueError("expected a time such as 30, 1.5s, 500ms or 2m")


def parse_providers(value: object) -> tuple[Provider, ...]:
    """Execution providers in the order of preference; empty for `auto`.

    Text is `auto`, or `name` or `name:key=value,key=value`; several are divided by `;` or come as a list.
    """
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError("expected auto or name:key=value,...")
    if [part.strip() for part in parts] == ["auto"]:
        return ()
    providers = [_parse_provider(part) for part in parts]
    names = [name for name, _ in providers]
    if len(set(names)) < len(names):
        raise ValueError(f"a provider is named twice: {', '.join(names)}")
    return tuple(providers)


def _parse_provider(text: str) -> Provider:
    name, _, rest = text.strip().partition(":")
    if name not in PROVIDERS:
        expected = "auto only by itself" if name == "auto" else "auto, " + ", ".join(PROVIDERS)
        raise ValueError(f"unknown execution provider {name!r}{_nearest(name, PROVIDERS)}; expected {expected}")
    options: dict[str, str] = {}
    for option in filter(None, rest.split(",")):
        key, equals, setting = option.partition("=")
        if not key or not equals:
            raise ValueError(f"option {option!r} of provider {name!r} is not key=value")
        if key in options:
            raise ValueError(f"option {key!r} of provider {name!r} is given twice")
        options[key] = setting
    return name, options


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _host(value: object) -> object:
    return value.removeprefix("[").removesuffix("]") if isinstance(value, str) else value


def _path_list(value: object) -> object:
    parts = [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value
    # Path("") is the working directory, which nobody means by it.
    if isinstance(parts, (list, tuple)) and "" in parts:
        raise ValueError("a path is empty; a variable in the command line may be unset")
    return parts


Count = Annotated[int, BeforeValidator(parse_count)]
Size = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]


def _setting(default: object, text: str, value: str, shown: str | None = None, **bounds: Any) -> Any:
    """A field; `value` names what it takes and `shown` its default with the unit, both for `infer serve --help`."""
    extra: dict[str, Any] = {"metavar": value, "shown": shown or (str(default) if default is not None else "")}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """Everything that `infer serve` can be told. A flag is the field's name with dashes, a variable with INFER_."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: Annotated[tuple[Path, ...], BeforeValidator(_path_list)] = _setting(
        (), "Models to serve: a file, its directory, or a repository.", "PATH...", "none")
    name: str | None = _setting(None, "Name of the model in a bare file.", "NAME", "the file's stem",
                                pattern=f"^{MODEL_NAME.pattern}$")

    host: Annotated[str, BeforeValidator(_host)] = _setting(
        "0.0.0.0", "Address to serve on, IPv4 or IPv6.", "ADDRESS", min_length=1)
    port: Count = _setting(8001, "gRPC port; 0 takes any and prints it.", "PORT", ge=0, le=65535)
    http_port: Count = _setting(8002, "Port of metrics and health; 0 takes any.", "PORT", ge=0, le=65535)
    transport: Annotated[Literal["native", "grpcio"], BeforeValidator(_lower)] | None = _setting(
        None, "What speaks gRPC: our own, or the portable grpcio, which is much slower.", "native|grpcio",
        "native where it was built")
    uds: Path | None = _setting(None, "Serve gRPC on this Unix socket too, never over TLS.", "PATH", "none")
    tls_cert: Path | None = _setting(
        None, "Certificate of the gRPC port, PEM, with what it is chained by: TLS; read again when it changes.", "FILE",
        "plaintext")
    tls_key: Path | None = _setting(None, "Its key, PEM.", "FILE", "none")
    tls_client_ca: Path | None = _setting(
        None, "Clients have to show a certificate that is signed by one of these CAs, PEM (mTLS).", "FILE",
        "clients need none")

    provider: Annotated[tuple[Provider, ...], BeforeValidator(parse_providers)] = _setting(
        (), "Execution providers in the order of preference.", "auto|NAME:KEY=VALUE,...", "auto")
    executors: Count | None = _setting(
        None, "Threads that run batches.", "N", "from the cores available", ge=1, le=1024)
    intra_op: Count | None = _setting(
        None, "Threads inside one run of a model.", "N", "from the cores available", ge=1, le=1024)
    # Absolute: the dynamic linker looks for a bare file name among the system's libraries.
    onnxruntime_library: Annotated[Path, AfterValidator(Path.absolute)] | None = _setting(
        None, "The libonnxruntime.so to load.", "FILE", "the installed package's own")

    max_batch_size: Count = _setting(
        1024, "Rows that one request may carry, for a model without configuration.", "ROWS", "1024 rows",
        ge=1, le=1 << 20)
    gather_rows: Count = _setting(
        64, "Rows that a batch gathers, for a model without configuration.", "ROWS", "64 rows", ge=1, le=1 << 20)
    max_queue_delay_us: Count = _setting(
        0, "How long a batch may wait for more rows.", "MICROSECONDS", "0 us", ge=0, le=10_000_000)
    max_queue_rows: Count = _setting(
        4096, "Rows that may wait, per model; more are refused.", "ROWS", "4096 rows", ge=1, le=1 << 30)

    max_message_bytes: Size = _setting(
        64 * MIB, "Largest request message.", "SIZE", "64 MiB", ge=1 * KIB, le=MESSAGE_BYTES_MAX)
    reply_compression: Annotated[Literal["none", "gzip", "deflate", "auto"], BeforeValidator(_lower)] = _setting(
        "none", "How replies of 1 KiB and more are compressed where the client takes it; auto: as the request was.",
        "none|gzip|deflate|auto")
    max_coding_jobs: Count = _setting(
        256, "Large compressed messages that may be with the threads that inflate them.", "N", "256 messages", ge=1,
        le=1 << 20)
    max_buffered_bytes: Size = _setting(
        128 * MIB, "Request bytes held for one connection; more refuses its new calls.", "SIZE", "128 MiB", ge=64 * KIB)
    max_buffered_bytes_total: Size | None = _setting(
        None, "Request bytes held for all connections.", "SIZE", "a quarter of the memory limit", ge=64 * KIB)
    outbound_bytes: Size = _setting(
        4 * MIB, "Reply bytes queued for one connection before its stream of replies pauses.", "SIZE", "4 MiB",
        ge=64 * KIB)
    header_bytes: Size = _setting(
        16 * KIB, "Header bytes of one call.", "SIZE", "16 KiB", ge=1 * KIB, le=1 * MIB)
    max_connections: Count | None = _setting(
        None, "Open connections; more are closed at once.", "N", "from the limit of open files", ge=1)
    max_streams: Count = _setting(
        1024, "Calls under way on one connection.", "N", "1024 calls", ge=1, le=1 << 20)
    max_stream_messages: Count = _setting(
        64, "Messages of one stream that may wait or be worked on; then it is read no further.", "N",
        "64 messages", ge=1, le=1 << 16)
    stream_outbound_bytes: Size = _setting(
        256 * KIB, "Reply bytes queued for one stream of messages before its handler has to wait.", "SIZE", "256 KiB",
        ge=1 * KIB)
    preface_timeout: Seconds = _setting(
        10.0, "Time a new connection has to say that it speaks HTTP/2.", "TIME", "10 s", gt=0, le=3600)
    settings_timeout: Seconds = _setting(
        10.0, "Time a client has to acknowledge our HTTP/2 settings.", "TIME", "10 s", gt=0, le=3600)
    write_stall_timeout: Seconds = _setting(
        30.0, "Time a connection may refuse what we send before it is closed.", "TIME", "30 s", gt=0, le=3600)

    keepalive_time: Seconds = _setting(
        7200.0, "Silence after which a client is asked whether it is there; 0 for never.", "TIME", "2 h", ge=0,
        le=YEAR_SECONDS)
    keepalive_timeout: Seconds = _setting(
        20.0, "Time it has to answer before its connection is closed.", "TIME", "20 s", gt=0, le=3600)
    max_connection_idle: Seconds = _setting(
        3600.0, "Time without a call after which a connection is ended, with GOAWAY; 0 for never.", "TIME", "1 h", ge=0,
        le=YEAR_SECONDS)
    max_connection_age: Seconds = _setting(
        0.0, "Age, give or take a tenth, at which a connection is ended, with GOAWAY; 0 for never.", "TIME", "0", ge=0,
        le=YEAR_SECONDS)
    max_connection_age_grace: Seconds = _setting(
        0.0, "Time that calls have to finish from then on; 0 for as long as they take.", "TIME", "0", ge=0,
        le=YEAR_SECONDS)
    max_early_resets: Count = _setting(
        500, "Of the last 1000 calls, those that a client may reset within a second, unsent.", "N", ge=0, le=1000)
    max_stream_errors: Count = _setting(
        100, "Stream errors that a connection may cause at once; each 100 ms allow one more.", "N", ge=1, le=COUNT_MAX)
    max_settings_frames: Count = _setting(
        10, "SETTINGS frames at once; each second allows one more.", "N", ge=1, le=COUNT_MAX)
    max_ping_strikes: Count = _setting(
        100, "PING frames in excess of one each 10 s, between two replies.", "N", ge=0, le=COUNT_MAX)
    max_empty_frames: Count = _setting(16, "DATA frames without data, in a row.", "N", ge=0, le=COUNT_MAX)
    max_oversize_headers: Count = _setting(
        20, "Header blocks over their limit at once; each second allows one more.", "N", ge=1, le=COUNT_MAX)
    max_window_updates: Count = _setting(
        10, "WINDOW_UPDATE frames for each DATA frame that we send.", "N", ge=1, le=COUNT_MAX)
    max_idle_frames: Count = _setting(
        100, "PRIORITY and unknown frames for each call.", "N", ge=0, le=COUNT_MAX)
    max_queued_frames: Count = _setting(
        10_000, "Our frames that a client may leave unread.", "N", ge=1, le=COUNT_MAX)

    drain_timeout: Seconds = _setting(
        30.0, "Time that calls in flight have to finish on SIGTERM.", "TIME", "30 s", ge=0, le=86400)
    drain_delay: Seconds = _setting(
        5.0, "Time between unready and the drain on SIGTERM.", "TIME", "5 s, 0 on Ctrl-C", ge=0, le=86400)

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = _setting(
        "info", "Least level that is logged.", "LEVEL")
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] | None = _setting(
        None, "Form of a log line.", "text|json", "text on a terminal, else json")


class Origin(NamedTuple):
    """Where a setting's value was written, and as what."""

    value: object
    place: str

    @property
    def is_default(self) -> bool:
        return self.place == "default"


def flag_of(field: str) -> str:
    return "PATH" if field == "paths" else "--" + field.replace("_", "-")


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None
) -> tuple[Settings, dict[str, Origin]]:
    """The settings and where each came from. `flags` holds only what was given, by field name.

    Raises ConfigError with every problem.
    """
    problems: list[str] = []
    origins = {name: Origin(field.default, "default") for name, field in Settings.model_fields.items()}
    if file is not None:
        origins |= _from_file(file, problems)
    for name in Settings.model_fields:
        variable = ENVIRONMENT_PREFIX + name.upper()
        written = environ.get(variable, "")
        if written and not (name == "port" and _SERVICE_LINK.match(written)):
            origins[name] = Origin(written, variable)
    origins |= {name: Origin(value, flag_of(name)) for name, value in flags.items()}

    given = {name: origin.value for name, origin in origins.items() if not origin.is_default}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [_problem(origins, detail) for detail in details]
        wrong = {str(detail["loc"][0]) for detail in details}
        settings = Settings.model_validate({name: value for name, value in given.items() if name not in wrong})
    else:
        wrong = set()
    problems += [text for fields, text in _conflicts(settings, origins) if wrong.isdisjoint(fields)]
    if problems:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n  ".join([f"{count} in the settings:", *problems]))
    return settings, origins


def _from_file(file: Path, problems: list[str]) -> dict[str, Origin]:
    try:
        text = file.read_text("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        problems.append(f"{file}: is not UTF-8 text")
        return {}
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f"{file}:{line[1]}:{line[2]}" if line else f"{file}"
        problems.append(f"{place}: is not TOML: {re.sub(r' [(]at .*', '', str(error))}")
        return {}
    found = {}
    for key, value in table.items():
        place = f"{file}:{_line_of(key, text)}"
        if key not in Settings.model_fields:
            advice = _nearest(key, list(Settings.model_fields))
            advice += "; settings stand at the top, in no table" if isinstance(value, dict) else ""
            problems.append(f"{place}: unknown setting {key!r}{advice}")
        else:
            found[key] = Origin(_resolved(key, value, file.parent), f"{place}: {key}")
    return found


def _resolved(key: str, value: object, base: Path) -> object:
    """Paths in the file are relative to it."""
    if key == "paths" and isinstance(value, list):
        return [str(base / item) if isinstance(item, str) else item for item in value]
    if key in ("uds", "onnxruntime_library", *TLS_FIELDS) and isinstance(value, str):
        return str(base / value)
    return value


def _line_of(key: str, text: str) -> int:
    """The line, from 1, where a top-level key is first written."""
    start = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((number for number, line in enumerate(text.splitlines(), 1) if start.match(line)), 1)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _problem(origins: Mapping[str, Origin], detail: Any) -> str:
    origin = origins[str(detail["loc"][0])]
    if detail["type"] == "value_error":
        text = str(detail["ctx"]["error"])
    elif detail["type"] == "literal_error":
        text = f"expected {detail['ctx']['expected']}"
    else:
        text = detail["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{origin.place}: got {origin.value!r}: {text}"


def _conflicts(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What each setting allows by itself and all of them together do not: the fields, and what is wrong."""
    if not settings.paths:
        yield ("paths",), "PATH: no model to serve; name a .onnx file, its directory or a model repository"
    if settings.name is not None and len(settings.paths) > 1:
        yield ("name", "paths"), (f"{origins['name'].place}: names one model, but {len(settings.paths)} paths are to "
                                  "be served")
    if settings.port == settings.http_port != 0:
        yield ("port", "http_port"), (f"{_place(origins, 'port')}, {_place(origins, 'http_port')}: both are "
                                      f"{settings.port}; gRPC and HTTP need a port each")
    if settings.uds is not None and len(os.fsencode(settings.uds)) > UNIX_PATH_BYTES:
        yield ("uds",), f"{origins['uds'].place}: a Unix socket's path has at most {UNIX_PATH_BYTES} bytes"
    yield from _tls_conflicts(settings, origins)
    for limit in ("max_buffered_bytes", "max_buffered_bytes_total"):
        bound = getattr(settings, limit)
        if bound is not None and settings.max_message_bytes > bound:
            yield ("max_message_bytes", limit), (
                f"{_place(origins, 'max_message_bytes')}, {_place(origins, limit)}: a message of "
                f"{settings.max_message_bytes} bytes does not fit into {bound} buffered bytes")


def _tls_conflicts(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[tuple[tuple[str, ...], str]]:
    given = [name for name in TLS_FIELDS if getattr(settings, name) is not None]
    places = ", ".join(_place(origins, name) for name in given)
    if settings.tls_cert is not None and settings.tls_key is not None:
        from infer.security.tls import TlsFiles, server_context

        try:
            server_context(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
        except ConfigError as error:
            yield TLS_FIELDS, f"{places}: {error}"
    elif given:
        missing = " and ".join(flag_of(name) for name in TLS_FIELDS[:2] if name not in given)
        yield TLS_FIELDS, f"{places}: TLS needs a certificate and its key; give {missing} too"


def _place(origins: Mapping[str, Origin], field: str) -> str:
    return flag_of(field) + " (default)" if origins[field].is_default else origins[field].place
