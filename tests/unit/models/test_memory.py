"""What fits into the memory that there is."""

import os
from pathlib import Path

import pytest

from infer.errors import ModelLoadError
from infer.models.memory import LEAST_BYTES, Reservations, ensure_fits, estimated_bytes, used_bytes

MIB = 1 << 20


def test_the_estimate_grows_with_the_files() -> None:
    assert estimated_bytes(0) == LEAST_BYTES
    assert estimated_bytes(100, 2.0) == LEAST_BYTES + 200


def test_what_fits_to_the_byte() -> None:
    needed = estimated_bytes(10 * MIB, 2.0)
    ensure_fits(10 * MIB, needed + MIB, MIB, 2.0)
    with pytest.raises(ModelLoadError) as caught:
        ensure_fits(10 * MIB, needed + MIB - 1, MIB, 2.0)
    assert caught.value.code == 9
    assert caught.value.message == (
        "the model needs about 44 MiB of memory while it loads (2.0 times its 10 MiB of files), and 44 MiB of the "
        "limit of 45 MiB are free; raise the container's memory limit, unload other models, or lower "
        "--model-memory-factor if this one is known to need less")


def test_nothing_is_free_where_more_is_used_than_allowed() -> None:
    with pytest.raises(ModelLoadError, match="and 0 MiB of the limit of 1 MiB"):
        ensure_fits(1, MIB, 5 * MIB)


def test_a_factor_of_zero_refuses_nothing() -> None:
    ensure_fits(1 << 50, 1, 1, 0)


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed")
def test_what_this_process_uses(tmp_path: Path) -> None:
    before = used_bytes()
    kept = bytearray(os.urandom(1 << 10) * (32 << 10))
    assert used_bytes() - before > len(kept) // 2
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("VmRSS:\t9 kB\nRssAnon:\t  12 kB\n")
    assert used_bytes(tmp_path) == 12 << 10
    (tmp_path / "proc/self/status").write_text("VmRSS:\t9 kB\n")
    with pytest.raises(OSError, match="RssAnon"):
        used_bytes(tmp_path)


def test_memory_that_loads_under_way_will_take_is_not_given_twice() -> None:
    needed = estimated_bytes(100 * MIB)
    reservations = Reservations(used_bytes() + needed + needed // 2)
    with reservations.reserved(100 * MIB):
        with pytest.raises(ModelLoadError), reservations.reserved(100 * MIB):
            pass
        with Reservations(1, 0).reserved(100 * MIB), Reservations(0).reserved(100 * MIB):
            pass
    with reservations.reserved(100 * MIB):
        pass
