"""Which arm of a split a key belongs to: weighted rendezvous hashing over a few arms, and rules that come before it.

Pure: a SplitTable is filled once, then only read; it owns its rules. nogil, any thread. Every process, replica and
restart comes to the same arm, since nothing here is keyed by a secret: who may choose keys may choose arms.

An arm's score for a key is -ln(u) / weight, where u in (0, 1) is a hash of salt, arm and key; the least wins. Scores
are exponential variables whose rates are the weights, so an arm wins by its share of them, and whether one wins against
another depends on the ratio of their two weights alone: where weights change, keys move only to those that grow, and a
new arm takes its share from each of the others (Schindelhauer, Schomaker: Weighted distributed hash tables, SPAA 2005).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef enum:
    MAX_ARMS = 16                # each costs a logarithm per request
    MAX_RULES = 4096

cdef struct ArmShare:
    uint64_t seed                # hash of salt and name
    double inverse               # of its weight; infinity: rules alone lead to it

cdef struct RuleSlot:
    uint64_t key
    int32_t arm                  # -1: free

cdef struct SplitTable:
    int32_t n_arms
    int32_t n_rules
    uint64_t rule_mask
    RuleSlot *rules              # open addressing, at most half full; NULL: none
    ArmShare arms[16]

# Of a key's bytes; never 0, which stands for no key.
cdef uint64_t key_hash(const uint8_t *data, uint64_t size_bytes) noexcept nogil
# No arms; room for so many rules. False: no memory.
cdef bint split_init(SplitTable *table, int32_t rules) noexcept nogil
cdef void split_free(SplitTable *table) noexcept nogil
# `salt` and `name` as key_hash has them; at most MAX_ARMS.
cdef void split_add_arm(SplitTable *table, uint64_t salt, uint64_t name, double weight) noexcept nogil
# The key goes to that arm whatever the weights are. False: it has a rule already.
cdef bint split_add_rule(SplitTable *table, uint64_t key, int32_t arm) noexcept nogil
# Index of the arm. Some arm has to have a weight.
cdef int32_t split_choose(const SplitTable *table, uint64_t key) noexcept nogil
