"""Lru and hash128 as a test drives them, and their loops for bench/micro; not in wheels.

Nodes are numbered by their box, which owns them; `gone` has each that left with the reason.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from infer._core.clock cimport now_ns
from infer._core.hash128 cimport Hash128, HashSecret, hash_begin, hash_end, hash_secret, hash_span
from infer._core.lru cimport (
    LRU_EVICTED, LRU_OVERWRITTEN, LRU_REMOVED, Lru, LruGroup, LruLink, LruNode, LruPart, lru_add_part, lru_clear_part,
    lru_drop_part, lru_free, lru_get, lru_group_init, lru_init, lru_move_part, lru_peek,
    lru_put, lru_remove, lru_table_bytes,
    lru_victim)

EVICTED = <int> LRU_EVICTED
OVERWRITTEN = <int> LRU_OVERWRITTEN
REMOVED = <int> LRU_REMOVED

cdef struct Numbered:
    LruNode node
    int64_t number


cdef void note(LruNode *node, int reason, void *owner) noexcept nogil:
    with gil:
        (<LruBox> owner).gone.append(((<Numbered *> node).number, reason))
    free(node)


cdef class LruBox:
    """`parts`: of each, the number of its group; `limits`: of each group."""
    cdef Lru lru
    cdef LruGroup groups[8]
    cdef LruPart parts[8]
    cdef readonly list gone

    def __cinit__(self, limit_bytes: int, least_bytes: int, limits=(1 << 62,), parts=(0,)):
        cdef int i
        self.gone = []
        if lru_init(&self.lru, limit_bytes, least_bytes, note, <void *> self) < 0:
            raise MemoryError
        for i, limit in enumerate(limits):
            lru_group_init(&self.groups[i], limit)
        for i, group in enumerate(parts):
            lru_add_part(&self.groups[<int> group], &self.parts[i])

    def __dealloc__(self):
        lru_free(&self.lru)

    @property
    def bytes(self):
        return self.lru.bytes

    @property
    def entries(self):
        return self.lru.entries

    @property
    def evictions(self):
        return self.lru.evictions

    @property
    def limit_entries(self):
        return self.lru.limit_entries

    def of_part(self, int part):
        """(bytes, entries, evictions)."""
        return self.parts[part].bytes, self.parts[part].entries, self.parts[part].evictions

    def group_bytes(self, int group):
        return self.groups[group].bytes

    def put(self, number: int, low: int, high: int, size_bytes: int, int part=0) -> bool:
        cdef Numbered *made = <Numbered *> malloc(sizeof(Numbered))
        if made == NULL:
            raise MemoryError
        made.number = number
        made.node.low = low
        made.node.high = high
        made.node.size_bytes = size_bytes
        if lru_put(&self.lru, &self.parts[part], &made.node):
            return True
        free(made)
        return False

    def get(self, low: int, high: int):
        return number_of(lru_get(&self.lru, low, high))

    def peek(self, low: int, high: int):
        return number_of(lru_peek(&self.lru, low, high))

    def victim(self, int part, size_bytes: int):
        return number_of(lru_victim(&self.lru, &self.parts[part], size_bytes))

    def remove(self, low: int, high: int) -> None:
        lru_remove(&self.lru, lru_peek(&self.lru, low, high))

    def clear(self, int part, int most) -> bool:
        return lru_clear_part(&self.lru, &self.parts[part], most)

    def move(self, int part, int group) -> None:
        lru_move_part(&self.parts[part], &self.groups[group])

    def drop(self, int part) -> None:
        lru_drop_part(&self.lru, &self.parts[part])

    def order(self):
        """Oldest first."""
        cdef LruLink *link = self.lru.nodes.newer
        found = []
        while link != &self.lru.nodes:
            found.append((<Numbered *> link).number)
            link = link.newer
        return found


cdef object number_of(LruNode *node):
    return None if node == NULL else (<Numbered *> node).number


def table_bytes(limit_bytes: int, least_bytes: int) -> int:
    return lru_table_bytes(limit_bytes, least_bytes)


def hash_of(secret: bytes, spans: list[bytes]) -> tuple[int, int]:
    """Low and high half under 96 bytes of secret."""
    cdef HashSecret words
    cdef Hash128 state
    if len(secret) != sizeof(HashSecret):
        raise ValueError(f"a secret has {sizeof(HashSecret)} bytes")
    memcpy(&words, <const char *> secret, sizeof(HashSecret))
    hash_begin(&state, &words)
    for span in spans:
        hash_span(&state, <const uint8_t *> <const char *> span, len(span))
    hash_end(&state)
    return state.low, state.high


def secret() -> bytes:
    cdef HashSecret words
    if not hash_secret(&words):
        raise OSError("no random bytes")
    return (<const char *> &words)[:sizeof(HashSecret)]


# Loops.

cdef void recycle(LruNode *node, int reason, void *owner) noexcept nogil:
    (<LruNode **> owner)[0] = node


cdef inline uint64_t scattered(uint64_t value) noexcept nogil:
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL
    return value ^ (value >> 31)


def lru_rounds(rounds: int, entries: int, puts: bool) -> int:
    """Gets of one of `entries` at random, or puts, each of which evicts one."""
    cdef Lru lru
    cdef LruGroup group
    cdef LruPart part
    cdef LruNode *spare
    cdef LruNode *nodes
    cdef uint64_t count = entries
    cdef uint64_t i
    cdef int64_t left = rounds
    cdef int64_t start
    cdef bint putting = puts
    if lru_init(&lru, count * 512, 512, recycle, &spare) < 0:
        raise MemoryError
    nodes = <LruNode *> malloc((count + 1) * sizeof(LruNode))
    if nodes == NULL:
        lru_free(&lru)
        raise MemoryError
    memset(nodes, 0, (count + 1) * sizeof(LruNode))
    lru_group_init(&group, count * 512)
    lru_add_part(&group, &part)
    for i in range(count):
        nodes[i].low = scattered(i)
        nodes[i].high = i
        nodes[i].size_bytes = 512
        lru_put(&lru, &part, &nodes[i])
    spare = &nodes[count]
    with nogil:
        start = now_ns()
        while left > 0:
            if putting:
                i = count + <uint64_t> left
                spare.low = scattered(i)
                spare.high = i
                spare.size_bytes = 512
                lru_put(&lru, &part, spare)
            else:
                i = scattered(<uint64_t> left) % count
                lru_get(&lru, scattered(i), i)
            left -= 1
        start = now_ns() - start
    lru_free(&lru)
    free(nodes)
    return start


def hash_rounds(rounds: int, size_bytes: int) -> int:
    cdef HashSecret words
    cdef Hash128 state
    cdef uint64_t size = size_bytes
    cdef int64_t left = rounds
    cdef int64_t start
    cdef uint8_t *data = <uint8_t *> malloc(size + 1)
    if data == NULL or not hash_secret(&words):
        free(data)
        raise MemoryError
    memset(data, 7, size + 1)
    with nogil:
        start = now_ns()
        while left > 0:
            hash_begin(&state, &words)
            hash_span(&state, data, size)
            hash_end(&state)
            data[0] ^= <uint8_t> state.low
            left -= 1
        start = now_ns() - start
    free(data)
    return start
