"""Tenants and their quotas as clients meet them, on both transports: by metadata, by certificate, at run time."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from infer.proto import message
from tests.support.calls import SERVICE, identity_request, slow_request
from tests.support.certificates import Authority, Pair
from tests.support.command import EXAMPLES, Serving, run
from tests.support.server import InProcess, in_process, scrape
from tests.support.transports import TRANSPORTS

SECONDS = 30
HOLD = 20_000
INFER, STREAM = f"{SERVICE}ModelInfer", f"{SERVICE}ModelStreamInfer"
QUOTAS = """
[tenants.slow-refill]
requests_per_second = "1/1000"
requests_burst = 2

[tenants.slow-refill.models.slow]
max_concurrent = 1

[tenants."spiffe://example/a"]
requests_per_second = "1/1000"
requests_burst = 1

[tenants."*"]
rows_per_second = "1/1000"
rows_burst = 3
"""


def write(path: Path, text: str) -> Path:
    file = path / "infer.toml"
    file.write_text(text)
    return file


@pytest.fixture(params=TRANSPORTS)
def limited(repository: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[InProcess]:
    with in_process(repository, toml=write(tmp_path, QUOTAS), executors=1, transport=request.param,
                    tenant_metadata_key="x-tenant", max_tenants=2) as served:
        yield served


@pytest.fixture
def channel(limited: InProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(limited.address) as made:
        yield made
    limited.settle()


def call(channel: grpc.Channel, content: bytes, *tenants: str) -> Any:
    """The future of a call, done."""
    made = channel.unary_unary(INFER).future(content, timeout=SECONDS,
                                             metadata=[("x-tenant", each) for each in tenants])
    made.exception()
    return made


def codes(channel: grpc.Channel, contents: Sequence[bytes], *tenants: str) -> list[str]:
    return [call(channel, content, *tenants).code().name for content in contents]


def stream(channel: grpc.Channel, contents: Sequence[bytes], *tenants: str) -> Any:
    return channel.stream_stream(STREAM, response_deserializer=message(
        "inference.ModelStreamInferResponse").FromString)(
            iter(contents), timeout=SECONDS, metadata=[("x-tenant", each) for each in tenants])


def refused(served: InProcess) -> dict[tuple[str, str, str], float]:
    return {tuple(dict(labels)[name] for name in ("tenant", "scope", "limit")): value  # type: ignore[misc]
            for (name, labels), value in scrape(served.http_address).items() if name == "infer_quota_refused_total"}


def test_a_refusal_says_what_when_and_where(limited: InProcess, channel: grpc.Channel) -> None:
    assert codes(channel, [identity_request()] * 2, "slow-refill") == ["OK", "OK"]
    error = call(channel, identity_request(), "slow-refill")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    text = ("tenant 'slow-refill': the limit is 1/1000 requests/s, 2 at once ([tenants.slow-refill] "
            "requests_per_second); retry in ")
    assert error.details().startswith(text)
    pushback = dict(error.trailing_metadata())["grpc-retry-pushback-ms"]
    assert error.details() == f"{text}{pushback} ms"
    assert 900_000 < int(pushback) <= 1_000_000
    status = rpc_status.from_call(error)
    assert (status.code, status.message) == (8, error.details())
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == int(pushback)
    assert refused(limited) == {("slow-refill", "tenant", "requests_per_second"): 1}


def test_tenants_are_apart_and_their_number_is_bounded(limited: InProcess, channel: grpc.Channel) -> None:
    three = [identity_request([1] * 12)]
    for tenant in ("a", "b"):
        assert codes(channel, [*three, identity_request()], tenant) == ["OK", "RESOURCE_EXHAUSTED"]
    # There is no room for more: they share one.
    assert codes(channel, three, "c") == ["OK"]
    assert codes(channel, [identity_request()], "d") == ["RESOURCE_EXHAUSTED"]
    # Nobody in particular is one as well.
    assert codes(channel, [*three, identity_request()]) == ["OK", "RESOURCE_EXHAUSTED"]
    assert codes(channel, [identity_request([1] * 16)], "e") == ["INVALID_ARGUMENT"]
    scraped = scrape(limited.http_address)
    assert scraped["infer_tenants", frozenset()] == 2
    assert scraped["infer_tenants_shared_total", frozenset()] == 3
    assert refused(limited) == {("other", "tenant", "rows_per_second"): 5}


@pytest.mark.parametrize("tenants", [["a", "b"], [""], ["x" * 256], ["a" * 5000]])
def test_what_names_no_tenant_is_refused(limited: InProcess, channel: grpc.Channel, tenants: list[str]) -> None:
    error = call(channel, identity_request(), *tenants)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details() == ("malformed tenant in the metadata (--tenant-metadata-key): expected it once, with 1 to "
                               "255 printable ASCII characters")
    with pytest.raises(grpc.RpcError) as caught:
        list(stream(channel, [identity_request()], *tenants))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_messages_of_a_stream_count_each(limited: InProcess, channel: grpc.Channel) -> None:
    replies = list(stream(channel, [identity_request()] * 3, "slow-refill"))
    assert [reply.error_message.partition(":")[0] for reply in replies] == ["", "", "tenant 'slow-refill'"]
    # And calls beside the stream are the same tenant's.
    assert codes(channel, [identity_request()], "slow-refill") == ["RESOURCE_EXHAUSTED"]


def test_a_tenants_limit_at_one_model(limited: InProcess, channel: grpc.Channel) -> None:
    running = channel.unary_unary(INFER).future(slow_request(HOLD), timeout=SECONDS,
                                                metadata=[("x-tenant", "slow-refill")])
    limited.until(lambda: limited.server.pipeline.in_flight == 1)
    error = call(channel, slow_request(1), "slow-refill")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "tenant 'slow-refill' at model 'slow': the limit is 1 requests under way" in error.details()
    # It has cost no token.
    assert codes(channel, [identity_request()], "slow-refill") == ["OK"]
    assert running.exception() is None
    assert refused(limited) == {("slow-refill", "tenant_model", "max_concurrent"): 1}


# Certificates.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def certified(repository: Path, authority: Authority, transport: str, **settings: Any) -> Any:
    pair = authority.issue("server")
    return in_process(repository, transport=transport, tls_cert=pair.cert, tls_key=pair.key,
                      tls_client_ca=authority.file, tenant_metadata_key="x-tenant", **settings)


def secure(served: InProcess, authority: Authority, pair: Pair) -> grpc.Channel:
    return grpc.secure_channel(
        f"localhost:{served.address.rpartition(':')[2]}", grpc.ssl_channel_credentials(
            authority.file.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes()))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_under_mtls_the_certificate_says_whose_a_call_is(
        repository: Path, authority: Authority, tmp_path: Path, transport: str) -> None:
    one = authority.issue_uris("one", "spiffe://example/a")
    several = authority.issue_uris("several", "spiffe://example/a", "spiffe://example/b")
    none = authority.issue("none", "example.com")
    toml = write(tmp_path, QUOTAS)
    with certified(repository, authority, transport, toml=toml, uds=tmp_path / "grpc.sock") as served:
        with secure(served, authority, one) as channel:
            # What the metadata says is nothing to it.
            assert codes(channel, [identity_request()], "slow-refill") == ["OK"]
            error = call(channel, identity_request(), "another")
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "tenant 'spiffe://example/a': " in error.details()
            assert '([tenants."spiffe://example/a"] requests_per_second)' in error.details()
            [reply] = stream(channel, [identity_request()])
            assert "tenant 'spiffe://example/a': " in reply.error_message
        for pair in (several, none):
            with secure(served, authority, pair) as channel:
                error = call(channel, identity_request(), "slow-refill")
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "exactly one URI" in error.details()
                with pytest.raises(grpc.RpcError) as caught:
                    list(stream(channel, [identity_request()]))
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        # The Unix socket has no TLS.
        with grpc.insecure_channel(f"unix:{tmp_path / 'grpc.sock'}") as channel:
            assert codes(channel, [identity_request()] * 3, "slow-refill") == ["OK", "OK", "RESOURCE_EXHAUSTED"]
        served.settle()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_without_tables_of_tenants_a_certificate_need_not_name_one(repository: Path, authority: Authority,
                                                                   transport: str) -> None:
    with certified(repository, authority, transport) as served:
        with secure(served, authority, authority.issue("none", "example.com")) as channel:
            assert codes(channel, [identity_request()]) == ["OK"]
        served.settle()


# Settings.


def test_sighup_changes_quotas_of_a_server_that_runs(tmp_path: Path) -> None:
    top = f'paths = ["{EXAMPLES / "digits"}"]\nstate_dir = "state"\ntenant_metadata_key = "x-tenant"\n'
    settings = tmp_path / "infer.toml"
    settings.write_text(top + '[tenants.a]\nrequests_per_second = "1/1000"\n')
    with Serving(cwd=tmp_path) as serving, grpc.insecure_channel(serving.address) as channel:
        sample = b"\n\x06digits"

        def said(tenant: str) -> str:
            return str(call(channel, sample, tenant).details())

        # A request without its inputs is refused before a quota is asked.
        assert "tenant" not in said("a")
        settings.write_text(top + '[tenants.a]\nrequests_per_secnd = 5\n\n[models.digits.limits]\nmax_concurrent = 0\n')
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_for("cannot be used; nothing has changed")
        serving.wait_for(r"infer\.toml:5:1: tenants\.a\.requests_per_secnd: is no limit; did you mean "
                         r"'requests_per_second'\? \[E102\]")
        serving.wait_for(r"infer\.toml:8:1: models\.digits\.limits\.max_concurrent: .*\[E103\]")
        settings.write_text(top + '[tenants.a]\nrequests_per_second = 5\nweight = 2\n')
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_for(r"\[tenants\.a\] requests_per_second: 1/1000 -> 5")
        serving.wait_for(r"\[tenants\.a\] weight: unset -> 2")
        rows = run("audit", cwd=tmp_path).stdout
        assert serving.stop() == 0
    assert "[tenants.a] requests_per_second: 1/1000 -> 5" in rows
    assert "nothing has changed" not in rows


def test_the_bench_is_whose_it_says(limited: InProcess) -> None:
    done = run("bench", "identity", "--address", limited.address, "--metadata", "x-tenant=slow-refill", "--duration",
               "0.2", "--warmup", "0", "--connections", "1", "--json")
    # One of its two goes to the call that shows errors in words.
    assert json.loads(done.stdout)["statuses"]["OK"] == 1
    assert refused(limited)["slow-refill", "tenant", "requests_per_second"] > 0
    limited.settle()
