"""What is asked of a second level, and what becomes of requests where it fails."""

from __future__ import annotations

import pytest

from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from infer._core.second_level import SecondLevel
from tests.support.models import scale
from tests.support.protos import message_class
from tests.support.puppets import Bench, fp32_request, make_entry
from tests.unit.core.test_cache import answer

MIB = 1 << 20


def new_bench(entry: VersionEntry) -> Bench:
    bench = Bench(cache=Cache(MIB))
    bench.publish(entry, ttl_ns=0)
    return bench


def message(number: float) -> bytes:
    return fp32_request([[number, number, number, number]])


class Client:
    """Has nothing, and fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def ask(self, key: bytes, address: int, ticket: int) -> bool:
        self.asked.append((address, ticket))
        raise RuntimeError("an error in the client")

    def takes(self, size_bytes: int) -> bool:
        return True

    def store(self, key: bytes, tail: bytes, ttl_ns: int) -> None:
        raise AssertionError


class Replica:
    """Another server, to which every request goes; `fails` has each of its calls fail."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.asked: list[tuple[int, int]] = []
        self.kept_here = 0

    def forward(self, key: bytes, message: bytes, *, sha256: str, prefix: bytes, address: int, ticket: int) -> bool:
        self.asked.append((address, ticket))
        if self.fails:
            raise RuntimeError("an error in the client")
        return True

    def stays(self) -> bool:
        self.kept_here += 1
        return False


def cached_entry() -> VersionEntry:
    entry = make_entry(scale())
    entry.properties["sha256"] = "0" * 64
    return entry


def test_an_error_of_the_client_costs_no_call_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    clients: list[tuple[Replica | Client, bool]] = [(Replica(fails=True), True), (Client(), False)]
    for client, forwards in clients:
        bench = new_bench(cached_entry())
        bench.pipeline.second = second = SecondLevel(client, b"0" * 32, forwards=forwards)
        for value in (1, 2):
            answer(bench, message(value))
        assert (len(client.asked), second.failures) == (2, 2)
        # What it says of them later is nobody's.
        for told in client.asked:
            bench.pipeline.on_second(*told, b"late")
        bench.close()
    assert [line for line in caplog.messages if "an error in the client" in line] == [caplog.messages[0]] * 2


@pytest.mark.parametrize("tail", [b"", b"garbage", b"\x2a\x00", b"\x2a\x00\x32\x00"])
def test_an_answer_that_is_none_is_not_given_to_anybody(tail: bytes) -> None:
    bench = new_bench(cached_entry())
    client = Replica()
    bench.pipeline.second = SecondLevel(client, b"0" * 32, forwards=True)
    bench.call(message(1))
    assert bench.outcomes == []
    [(address, ticket)] = client.asked
    assert bench.pipeline.on_second(address, ticket, tail) is False
    bench.run_all()
    assert [outcome.code for outcome in bench.outcomes] == [0]
    bench.close()


def test_what_is_large_is_not_forwarded() -> None:
    bench = new_bench(cached_entry())
    client = Replica()
    bench.pipeline.second = SecondLevel(client, b"0" * 32, forwards=True)
    asked = message_class("ModelInferRequest").FromString(message(1))
    asked.parameters["note"].string_param = "n" * (1 << 20)
    answer(bench, asked.SerializeToString())
    assert (client.asked, client.kept_here) == ([], 1)
    bench.close()
