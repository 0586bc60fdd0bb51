"""Deficit round robin in measured compute time: what of it each of those that share executors may still have.

Pure arithmetic over plain structs; their owner's lock guards them.

Design note. Shreedhar and Varghese 1996, charged afterwards as Høiland-Jørgensen et al. 2017 charge air time: how long
a batch takes is not known before it has run. A round gives everyone a quantum times its weight. Who has credit may run;
who has none waits for a round, which begins when nobody has any. What a batch may take, by the last one, is charged
when it is taken and made right when it is complete, so credit falls below 0 by at most what runs at once. Nobody has
more than one round's credit: who did not want to run has saved nothing. Rounds are counted, not dealt out: each takes
what it was given when it is looked at.

Of two that want to run all the time, what they get by weight differs by no more than a quantum and, of each, what it
may run at once; over any time.
"""

from libc.stdint cimport int64_t

cdef enum:
    QUANTUM_NS = 1000000         # of a weight of 1, per round
    WEIGHT_MAX = 1000

cdef struct Share:
    int64_t credit_ns            # as of `round`; below 0: what it had too much
    int64_t round                # the last one that it has taken its part of
    int64_t reserved_ns          # charged for batches that run
    int64_t last_ns              # what the last one came to

cdef inline int64_t rounds_to_credit(const Share *share, int64_t round, int64_t weight) noexcept nogil:
    """How many more rounds until it has credit; 0: it has some as of `round`."""
    cdef int64_t needed = 0 if share.credit_ns > 0 else -share.credit_ns // (weight * QUANTUM_NS) + 1
    return max(needed - (round - share.round), 0)

cdef inline bint renew(Share *share, int64_t round, int64_t weight) noexcept nogil:
    """Takes its part of the rounds up to `round`; whether it has credit."""
    cdef int64_t quantum_ns = weight * QUANTUM_NS
    cdef int64_t passed = round - share.round
    if passed != 0:
        share.round = round
        if passed > -share.credit_ns // quantum_ns + 1:
            share.credit_ns = quantum_ns
        else:
            share.credit_ns = min(share.credit_ns + passed * quantum_ns, quantum_ns)
    return share.credit_ns > 0

cdef inline void reserve(Share *share) noexcept nogil:
    share.credit_ns -= share.last_ns
    share.reserved_ns += share.last_ns

cdef inline void settle(Share *share, int64_t took_ns, int64_t running) noexcept nogil:
    """One of `running` batches is complete."""
    cdef int64_t reserved_ns = share.reserved_ns // running
    share.reserved_ns -= reserved_ns
    share.credit_ns += reserved_ns - took_ns
    share.last_ns = took_ns
