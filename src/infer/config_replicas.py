"""Settings of the other servers that stand beside this one: `[replicas]` in the TOML file. Any thread; immutable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from infer.config_values import Seconds, lower, setting

# Of the table: key to setting.
TABLE = {"addresses": "replicas", "dns": "replicas_dns", "self": "replicas_self", "forward": "replicas_forward",
         "timeout": "replicas_timeout", "ca": "replicas_ca"}
# A request asks each of them for its load.
MAX_REPLICAS = 64
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def address(value: object) -> str:
    """host:port, as the other servers have it."""
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ValueError(f"expected HOST:PORT such as infer-0:8001, got {value!r}")
    host = match[0].rpartition(":")[0]
    # As a look-up has it.
    return f"[{ip_address(host[1:-1]).compressed}]:{match[1]}" if host.startswith("[") else match[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def addresses(value: object) -> tuple[str, ...]:
    """Several of them; text has them with commas."""
    each = value.split(",") if isinstance(value, str) else value
    if not isinstance(each, list | tuple):
        raise ValueError("expected addresses such as infer-0:8001,infer-1:8001")
    found = tuple(address(one.strip() if isinstance(one, str) else one) for one in each)
    if len(set(found)) != len(found):
        raise ValueError("an address is there twice")
    if len(found) > MAX_REPLICAS:
        raise ValueError(f"{len(found)} addresses: at most {MAX_REPLICAS} replicas share a cache; form several groups")
    return found


class ReplicaSettings(BaseModel):
    """Which servers share their caches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: Annotated[tuple[str, ...], BeforeValidator(addresses)] = setting(
        (), "All replicas of this server, itself among them, by the same names on each: a request whose answer is kept "
        "by another is forwarded to it.", "HOST:PORT,...", "none")
    replicas_dns: Annotated[str, BeforeValidator(address)] | None = setting(
        None, "A DNS name whose addresses are the replicas, looked up every 5 s.", "NAME:PORT", "none")
    replicas_self: Annotated[str, BeforeValidator(address)] | None = setting(
        None, "Which of them this server is.", "HOST:PORT", "the one that it listens at")
    replicas_forward: Annotated[Literal["cache", "none"], BeforeValidator(lower)] = setting(
        "cache", "What is forwarded: requests of models whose answers are kept, or nothing.", "cache|none")
    replicas_timeout: Seconds = setting(
        0.25, "How long another replica may take to answer; then the request runs here.", "TIME", "250 ms", ge=0.001,
        le=600)
    replicas_ca: Path | None = setting(
        None, "PEM of the CA of the replicas' certificates, where they serve over TLS.", "FILE", "the system's")


def replica_conflicts(settings: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """What of a server's settings does not go together: the fields, and the text."""
    if settings.replicas and settings.replicas_dns is not None:
        yield ("replicas", "replicas_dns"), ("--replicas, --replicas-dns: give one of them, the addresses or the name "
                                             "that has them")
    if not settings.replicas and settings.replicas_dns is None:
        return
    if settings.replicas and settings.replicas_self is not None and settings.replicas_self not in settings.replicas:
        yield ("replicas", "replicas_self"), (f"--replicas-self {settings.replicas_self}: is not among --replicas "
                                              f"{','.join(settings.replicas)}; names have to be the same everywhere")
    if settings.replicas_dns is not None and settings.replicas_self is not None and not _is_address(
            settings.replicas_self):
        yield ("replicas_dns", "replicas_self"), (f"--replicas-self {settings.replicas_self}: with --replicas-dns "
                                                  "replicas are known by their addresses; give ADDRESS:PORT")
    if settings.cache_redis is not None:
        yield ("replicas", "cache_redis"), ("--replicas, --cache-redis: give one of them; either the replicas keep "
                                            "answers for each other, or a Redis does for all")
