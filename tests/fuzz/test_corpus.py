"""What the fuzzers start from and what they have found is run by the suite, on any build."""

import gc
from collections.abc import Iterator

import pytest

from tests.fuzz.corpus import LONGEST_BYTES, MOST, kept
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, target


def run_all(name: str, inputs: Iterator[bytes] | list[bytes]) -> int:
    run = target(name)
    count = 0
    # What earlier tests left for the collector is not freed in the middle of a run that counts.
    gc.collect()
    for data in inputs:
        try:
            run(data)
        except BaseException as error:
            raise AssertionError(f"{name} with {data.hex()}") from error
        count += 1
    return count


def test_every_target_has_seeds_and_a_corpus():
    assert set(TARGETS) == set(SEEDS)
    assert all(0 < len(kept(name)) <= MOST for name in TARGETS)
    assert all(len(data) <= LONGEST_BYTES for name in TARGETS for data in kept(name))


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str):
    assert run_all(name, kept(name)) > 0


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str):
    assert run_all(name, SEEDS[name]()) > 0


def test_a_target_that_does_not_exist_is_named():
    with pytest.raises(SystemExit, match="no fuzzing target 'sesion'"):
        target("sesion")
