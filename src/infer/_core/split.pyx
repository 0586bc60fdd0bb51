"""Weighted rendezvous over arms, and rules. See split.pxd."""

from libc.math cimport INFINITY, log
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from infer._core.debug cimport try_calloc

cdef enum:
    SMALLEST_RULES = 8


cdef inline uint64_t mix(uint64_t value) noexcept nogil:
    """splitmix64's finaliser (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL
    return value ^ (value >> 31)


cdef uint64_t key_hash(const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t value = 0x9e3779b97f4a7c15ULL ^ size_bytes
    cdef uint64_t word
    while size_bytes >= 8:
        memcpy(&word, data, 8)
        value = mix(value ^ word) + 0x9e3779b97f4a7c15ULL
        data += 8
        size_bytes -= 8
    word = 0
    memcpy(&word, data, size_bytes)
    value = mix(mix(value ^ word))
    return value if value != 0 else 1


cdef bint split_init(SplitTable *table, int32_t rules) noexcept nogil:
    cdef uint64_t size = SMALLEST_RULES
    cdef uint64_t i
    memset(table, 0, sizeof(SplitTable))
    if rules == 0:
        return True
    while size < 2 * <uint64_t> rules:
        size *= 2
    table.rules = <RuleSlot *> try_calloc(size, sizeof(RuleSlot))
    if table.rules == NULL:
        return False
    for i in range(size):
        table.rules[i].arm = -1
    table.rule_mask = size - 1
    return True


cdef void split_free(SplitTable *table) noexcept nogil:
    free(table.rules)
    table.rules = NULL


cdef void split_add_arm(SplitTable *table, uint64_t salt, uint64_t name, double weight) noexcept nogil:
    table.arms[table.n_arms].seed = mix(salt + mix(name))
    table.arms[table.n_arms].weight = weight
    table.n_arms += 1


cdef inline RuleSlot *find_rule(const SplitTable *table, uint64_t key) noexcept nogil:
    """Its slot, or the free one where it would be."""
    cdef uint64_t at = key & table.rule_mask
    while table.rules[at].arm >= 0 and table.rules[at].key != key:
        at = (at + 1) & table.rule_mask
    return &table.rules[at]


cdef bint split_add_rule(SplitTable *table, uint64_t key, int32_t arm) noexcept nogil:
    cdef RuleSlot *slot = find_rule(table, key)
    if slot.arm >= 0:
        return False
    slot.key = key
    slot.arm = arm
    table.n_rules += 1
    return True


cdef int32_t split_choose(const SplitTable *table, uint64_t key) noexcept nogil:
    cdef double least = INFINITY
    cdef double unit, score
    cdef int32_t chosen = 0
    cdef int32_t i
    if table.rules != NULL:
        i = find_rule(table, key).arm
        if i >= 0:
            return i
    for i in range(table.n_arms):
        if table.arms[i].weight <= 0.0:
            continue
        # 53 bits, and the half keeps it from 0 and 1.
        unit = (<double> (mix(mix(key ^ table.arms[i].seed)) >> 11) + 0.5) * (1.0 / 9007199254740992.0)
        score = -log(unit) / table.arms[i].weight
        if score < least:
            least = score
            chosen = i
    return chosen
