"""Answers that outlive a server: what is saved, who gets it again, and files that are none."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

import msgpack
import pytest

from infer._core import clock
from infer._core._testing_cache import bytes_listed
from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from infer.cache_file import CacheFile, read
from tests.support.models import identity, two_in_three_out
from tests.support.puppets import SECOND_NS, Bench, fp32_request, make_entry, rows_of

MIB = 1 << 20
ROWS = [[[float(number)] * 4] for number in range(5)]


def bench_of(entry: VersionEntry, limit_bytes: int = MIB, sha256: str = "a" * 64, **cached: int) -> Bench:
    entry.properties["sha256"] = sha256
    bench = Bench(cache=Cache(limit_bytes))
    bench.publish(entry, **cached)
    return bench


def ask(bench: Bench, rows: list[list[list[float]]] = ROWS) -> list[bytes]:
    calls = []
    for row in rows:
        calls.append(bench.call(fp32_request(row)))
        bench.run_all()
    return [bench.reply(call).raw_output_contents[0] for call in calls]


def cache_of(bench: Bench) -> Cache:
    assert bench.pipeline.cache is not None
    return bench.pipeline.cache


def save(path: Path, bench: Bench) -> None:
    CacheFile(path, cache_of(bench)).save()
    bench.close()


def restored(path: Path, entry: VersionEntry, **how: int) -> Bench:
    bench = bench_of(entry, **how)  # type: ignore[arg-type]
    CacheFile(path, cache_of(bench)).attached(entry)
    return bench


def test_the_same_model_answers_from_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    bench = bench_of(make_entry(identity()))
    answers = ask(bench)
    save(path, bench)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["answers"]
    entry = make_entry(identity(), version="7")
    bench = restored(path, entry)
    assert cache_of(bench).entries == 5
    assert cache_of(bench).bytes == bytes_listed(cache_of(bench))
    assert ask(bench) == answers
    assert rows_of(entry) == 0
    bench.close()


def test_what_is_used_last_is_used_last_again(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    bench = bench_of(make_entry(identity()))
    ask(bench)
    ask(bench, ROWS[:1])
    save(path, bench)
    entry = make_entry(identity())
    bench = restored(path, entry, model_bytes=2 * 512)
    ask(bench, [ROWS[0], ROWS[4]])
    assert rows_of(entry) == 0
    bench.close()


@pytest.mark.parametrize("other", ["files", "tensors", "name", "off"])
def test_another_model_starts_with_nothing(tmp_path: Path, other: str) -> None:
    path = tmp_path / "answers"
    bench = bench_of(make_entry(identity()))
    ask(bench)
    save(path, bench)
    entry = make_entry(identity("FP32", ("batch", "n")) if other == "tensors" else identity(),
                       "n" if other == "name" else "m")
    entry.properties["sha256"] = ("b" if other == "files" else "a") * 64
    bench = Bench(cache=Cache(MIB))
    bench.pipeline.attach(entry, None if other == "off" else {})
    CacheFile(path, cache_of(bench)).attached(entry)
    assert cache_of(bench).entries == 0
    bench.pipeline.detach(entry)
    bench.close()


def test_time_goes_on_while_no_server_runs(
        tmp_path: Path, stepped_clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    bench = bench_of(make_entry(identity()), ttl_ns=100 * SECOND_NS)
    ask(bench, ROWS[:1])
    clock.advance(50 * SECOND_NS)
    ask(bench, ROWS[1:2])
    save(path, bench)
    now += 45
    entry = make_entry(identity())
    bench = restored(path, entry, ttl_ns=100 * SECOND_NS)
    ask(bench, ROWS[1:2])
    assert rows_of(entry) == 0
    clock.advance(56 * SECOND_NS)
    ask(bench, ROWS[:2])
    assert rows_of(entry) == 2
    bench.close()
    # Nor is anything kept for longer than the model now says.
    entry = make_entry(identity())
    bench = restored(path, entry, ttl_ns=40 * SECOND_NS)
    assert cache_of(bench).entries == 0
    bench.close()


def test_answers_of_tenants_are_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    bench = bench_of(make_entry(identity()))
    bench.call(fp32_request(ROWS[0]), tenant=b"somebody")
    bench.run_all()
    assert cache_of(bench).entries == 1
    save(path, bench)
    assert read(path)[1] == {}


def test_a_file_that_cannot_be_used_is_said_and_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "answers"
    bench = bench_of(make_entry(identity()))
    ask(bench)
    save(path, bench)
    whole = path.read_bytes()
    other = msgpack.packb({"format": 1, "infer": "0.0", "saved": 0.0, "answers": {}})
    for content, said in ((whole[:-1], "it is not whole"), (b"", "it is not whole"),
                          (other + hashlib.sha256(other).digest(), "version 0.0 of the server")):
        path.write_bytes(content)
        caplog.clear()
        bench = restored(path, make_entry(identity()))
        assert cache_of(bench).entries == 0
        assert said in caplog.text
        bench.close()
    path.unlink()
    caplog.clear()
    restored(path, make_entry(identity())).close()
    assert caplog.text == ""


def test_a_directory_that_is_gone_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = bench_of(make_entry(two_in_three_out()))
    with caplog.at_level(logging.ERROR):
        save(tmp_path / "gone" / "answers", bench)
    assert "were not saved" in caplog.text
