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
    table.arms[table.n_arms].inverse = 1.0 / weight if weight > 0.0 else INFINITY
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


cdef inline double score_of(uint64_t unit, double inverse) noexcept nogil:
    """Of 53 bits, which the half keeps from 0 and 1."""
    return -log((<double> unit + 0.5) * (1.0 / 9007199254740992.0)) * inverse


cdef int32_t split_choose(const SplitTable *table, uint64_t key) noexcept nogil:
    cdef const ArmShare *best = &table.arms[0]
    cdef const ArmShare *arm
    cdef uint64_t best_unit, unit
    cdef double score
    cdef double least = -1.0
    cdef int32_t i
    if table.rules != NULL:
        i = find_rule(table, key).arm
        if i >= 0:
            return i
    best_unit = mix(key ^ best.seed) >> 11
    for i in range(1, table.n_arms):
        arm = &table.arms[i]
        unit = mix(key ^ arm.seed) >> 11
        # Without a logarithm where the unit and the weight say the same.
        if arm.inverse >= best.inverse and unit <= best_unit:
            continue
        if arm.inverse > best.inverse or unit < best_unit:
            if least < 0.0:
                least = score_of(best_unit, best.inverse)
            score = score_of(unit, arm.inverse)
            if score >= least:
                continue
            least = score
        else:
            least = -1.0
        best = arm
        best_unit = unit
    return <int32_t> (best - table.arms)
