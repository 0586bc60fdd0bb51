"""What tests reach of the cache's parts beside their Python faces; not in wheels."""

from libc.stdint cimport uint64_t

from infer._core.cache cimport Cache
from infer._core.cache_entry cimport CACHE_ENTRY_LEAST_BYTES
from infer._core.frequency cimport Frequency, frequency_add, frequency_free, frequency_init, frequency_of
from infer._core.lru cimport LruLink, LruNode

LEAST_BYTES = <int> CACHE_ENTRY_LEAST_BYTES


def force_collisions(Cache cache not None) -> None:
    """From now on all requests have the same 128-bit hash."""
    cache.hash_mask = 0


def remove_at_once(Cache cache not None, int entries) -> None:
    """Of what is forgotten, at each turn."""
    cache.removed_at_once = entries


def flights(Cache cache not None) -> int:
    """Runs that others may wait for, and those without a leader."""
    return cache.flights.flights


def bytes_listed(Cache cache not None) -> int:
    """What the entries take, each looked at."""
    cdef uint64_t total = 0
    cdef LruLink *link = cache.lru.nodes.newer
    while link != &cache.lru.nodes:
        total += (<LruNode *> link).size_bytes
        link = link.newer
    return total


cdef class FrequencyBox:
    cdef Frequency frequency

    def __cinit__(self, keys: int):
        if frequency_init(&self.frequency, keys) < 0:
            raise MemoryError

    def __dealloc__(self):
        frequency_free(&self.frequency)

    @property
    def sample(self):
        return self.frequency.sample

    def add(self, low: int, high: int) -> None:
        frequency_add(&self.frequency, low, high)

    def count(self, low: int, high: int) -> int:
        return frequency_of(&self.frequency, low, high)
