"""Splits as requests meet them. See variants.pxd."""

from libc.stdint cimport int32_t, uint64_t

import secrets

from infer._core.arena cimport at
from infer._core.arm cimport Arm, hold_arm
from infer._core.model_version cimport VersionEntry
from infer._core.quota cimport Tenant
from infer._core.recent cimport recent_put
from infer._core.span cimport Span, span_left
from infer._core.split cimport (
    MAX_ARMS, MAX_RULES, key_hash, split_add_arm, split_add_rule, split_choose, split_free, split_init)
from infer._core.tensor cimport DIGITS_BYTES, find_parameter

cimport cython

ARMS_MAX = MAX_ARMS
RULES_MAX = MAX_RULES

# Of requests without a key. Loop thread.
cdef uint64_t chance = secrets.randbits(64)


def hash_of(bytes key not None):
    """The key as rules and requests have it."""
    return key_hash(<const uint8_t *> <const char *> key, <uint64_t> len(key))


@cython.final
cdef class Split:
    """`name` is the salt; `arms`: (name, weight, Arm or None, VersionEntry or None) of each; `rules`: (key, index of
    its arm); `parameter`: of requests, with their routing key."""

    def __cinit__(self, str name not None, list arms not None, list rules not None, str parameter not None):
        cdef uint64_t salt = hash_of(name.encode())
        cdef double weight
        if not split_init(&self.table, <int32_t> min(len(rules), MAX_RULES)):
            raise MemoryError("no memory for the rules of a split")
        if not 0 < len(arms) <= MAX_ARMS or len(rules) > MAX_RULES:
            raise ValueError(f"{len(arms)} arms and {len(rules)} rules: expected 1 to {MAX_ARMS}, and at most "
                             f"{MAX_RULES}")
        self.name = name
        self.parameter = parameter.encode()
        self.arms = tuple([each[2] for each in arms])
        self.entries = tuple([each[3] for each in arms])
        for i, (arm_name, weight, arm, entry) in enumerate(arms):
            split_add_arm(&self.table, salt, hash_of(arm_name.encode()), weight)
            self.arm_of[<int> i] = NULL if arm is None else <void *> <Arm?> arm
            self.entry_of[<int> i] = NULL if entry is None else <void *> <VersionEntry?> entry
        for key, index in rules:
            if not 0 <= index < len(arms) or not split_add_rule(&self.table, hash_of(key), <int32_t> index):
                raise ValueError(f"the rule of {key!r} leads to arm {index} of {len(arms)}, or comes twice")

    def __dealloc__(self):
        split_free(&self.table)

    def choose(self, bytes key not None):
        """Index of the arm of a key."""
        return split_choose(&self.table, hash_of(key))

    def __repr__(self):
        return f"<Split {self.name} of {len(self.arms)} arms>"


cdef uint64_t routing_key(Split split, const Request *request, const uint8_t *message,
                          uint64_t message_bytes) noexcept:
    cdef Span text
    cdef char digits[DIGITS_BYTES]
    cdef Tenant *tenant = <Tenant *> request.tenant
    global chance
    if request.key.routing != 0:
        return request.key.routing
    if find_parameter(message, message_bytes, split.parameter, <uint64_t> len(split.parameter), &text, digits):
        return key_hash(text.at, span_left(&text))
    # One that stands for several has no name.
    if tenant != NULL and tenant.name_bytes > 0:
        return key_hash(tenant.name, tenant.name_bytes)
    # Weyl's sequence: the arms' hashes are what makes it random.
    chance += 0x9e3779b97f4a7c15ULL
    return chance


cdef void *assign_variant(void *split, Request *request, const uint8_t *message, uint64_t message_bytes,
                          void *otherwise) noexcept:
    cdef Split of = <Split> split
    cdef uint64_t key = routing_key(of, request, message, message_bytes)
    cdef int32_t i = split_choose(&of.table, key)
    cdef void *entry = of.entry_of[i]
    cdef Arm arm
    if entry == NULL:
        entry = otherwise
    if entry != NULL and of.arm_of[i] != NULL:
        request.arm = hold_arm(<Arm> of.arm_of[i])
        arm = <Arm> of.arm_of[i]
        if arm.recent is not None and request.id_bytes > 0:
            recent_put(&arm.recent.table, key_hash(<const uint8_t *> at(request.id_offset), request.id_bytes), key,
                       arm.number, request.received_ns)
    return entry
