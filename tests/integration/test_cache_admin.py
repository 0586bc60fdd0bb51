"""`infer cache` and the port of administration of a server, on both transports."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.config import Settings
from infer.errors import InferError
from infer.proto import message
from infer.server import Server
from tests.support import models
from tests.support.calls import SERVICE, identity_request
from tests.support.command import EXAMPLES, Serving
from tests.support.repositories import place_version, repository_server
from tests.support.server import in_process


def cache(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cache", *arguments])


def test_stats_and_purge(tmp_path: Path, transport: str) -> None:
    for name in ("m", "n", "off"):
        place_version(tmp_path, name, 1, 3.0)
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.off]\nresponse_cache = false\n")
    settings: dict[str, Any] = {"cache": 1 << 20, "admin_port": 0, "transport": transport}
    with in_process(tmp_path, toml=toml, **settings) as served:
        assert served.server.admin is not None
        address = served.server.admin.address
        assert address.startswith("127.0.0.1:")
        with grpc.insecure_channel(served.address) as channel:
            infer = channel.unary_unary(f"{SERVICE}ModelInfer")
            for name in ("m", "m", "n", "off"):
                infer(identity_request(model=name))
        shown = cache("stats", "--address", address)
        assert shown.exit_code == 0, shown.output
        lines = shown.output.splitlines()
        assert lines[0].split()[:6] == ["MODEL", "VERSION", "ENTRIES", "BYTES", "OF", "HITS"]
        assert [line.split()[:3] for line in lines[1:3]] == [["m", "1", "1"], ["n", "1", "1"]]
        assert "50.0%" in lines[1]
        assert lines[3].endswith("of 1048576 bytes")
        found = [json.loads(line) for line in cache("stats", "m", "--json", "--address", address).output.splitlines()]
        assert [(each["model"], each["entries"], each["hits"], each["misses"]) for each in found] == [("m", 1, 1, 1)]
        size = found[0]["bytes"]
        purged = cache("purge", "m", "--version", "1", "--address", address)
        assert (purged.exit_code, purged.output) == (0, f"1 answers forgotten, {size} bytes\n")
        assert served.stats("m")["cache"]["entries"] == 0
        assert cache("purge", "--address", address).output == f"1 answers forgotten, {size} bytes\n"
        for arguments in (("stats", "off"), ("purge", "gone"), ("purge", "m", "--version", "2")):
            refused = cache(*arguments, "--address", address)
            assert refused.exit_code == 1
            assert "NOT_FOUND: no answers of model" in refused.output
            assert "--cache or response_cache of the model turns it on" in refused.output


def test_purges_are_in_the_audit_log(tmp_path: Path, transport: str) -> None:
    place_version(tmp_path / "models", "m", 1, 3.0)
    with repository_server(tmp_path / "models", cache=1 << 20, admin_port=0, transport=transport,
                           state_dir=tmp_path / "state") as repository:
        repository.answer("m")
        assert repository.served.server.admin is not None
        assert cache("purge", "m", "--address", repository.served.server.admin.address).exit_code == 0
    audit = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path / "state")])
    assert audit.exit_code == 0, audit.output
    [line] = [line for line in audit.output.splitlines() if "cache purge" in line]
    assert "1 answers" in line
    assert "127.0.0.1" in line


def test_inference_and_models_are_not_served_there_nor_administration_elsewhere(
        tmp_path: Path, transport: str) -> None:
    models.write_version(tmp_path, "identity", 1, models.identity())
    with in_process(tmp_path, admin_port=0, transport=transport) as served:
        assert served.server.admin is not None
        with grpc.insecure_channel(served.server.admin.address) as channel:
            for path, content, said in (
                    (f"{SERVICE}ModelInfer", identity_request(), "send the request to that of --port"),
                    (f"{SERVICE}ServerLive", b"", "ServerLive")):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(path)(content, timeout=30)
                error: Any = caught.value
                assert error.code() == grpc.StatusCode.UNIMPLEMENTED
                assert said in error.details()
            stats = channel.unary_unary("/infer.v1.Admin/CacheStats")(b"", timeout=30)
            assert message("infer.v1.CacheStatsResponse").FromString(stats).entries == 0
        shown = cache("stats", "--address", served.server.admin.address)
        assert (shown.exit_code, shown.output) == (
            0, "no model's answers are kept; --cache or response_cache of a model turns that on\n")
        elsewhere = cache("stats", "--address", served.address)
        assert elsewhere.exit_code == 1
        assert "a server prints where its own is" in elsewhere.output


def test_no_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        shown = cache("stats", "--address", address)
    assert shown.exit_code == 1
    assert f"no port of administration answers at {address}: a server prints where its own is" in shown.output


async def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    models.write_version(tmp_path, "identity", 1, models.identity())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings.model_validate({"paths": (tmp_path,), "host": "127.0.0.1", "port": 0, "http_port": 0,
                                            "admin_port": port})
        with pytest.raises((OSError, InferError), match=rf"cannot bind 127.0.0.1:{port} \(--admin-port\)"):
            Server(settings, asyncio.get_running_loop())


async def test_a_cache_that_would_leave_no_memory_to_requests_ends_the_start(tmp_path: Path) -> None:
    settings = Settings.model_validate({"paths": (tmp_path,), "port": 0, "http_port": 0, "cache": 1 << 60})
    with pytest.raises(InferError, match=r"^--cache: 1152921504606846976 bytes are more than the \d+ that answers may"):
        Server(settings, asyncio.get_running_loop())


def test_it_is_there_unless_it_is_not_wanted() -> None:
    with Serving(EXAMPLES) as serving:
        address = serving.wait_for(r"^admin +(127\.0\.0\.1:\d+)")[1]
        assert cache("stats", "--address", address).exit_code == 0
    with Serving(EXAMPLES, "--admin-port", "none") as serving:
        assert "admin" not in serving.start
