"""A keyed 128-bit hash of bytes that come in spans. Lives on the stack; inline throughout; any thread.

Whoever does not know the secret cannot make inputs that collide, and a table under it stays as fast as it is with
random keys. It is no MAC: what a collision must not do has to be kept from happening by comparing the bytes.

Design. Sixteen bytes are taken in by one multiplication of 64 x 64 bits, both halves of whose product are folded into
the operands, which are the state: the step that wyhash takes with WYHASH_CONDOM 2 (Wang Yi, "wyhash", public domain),
so that no half of the product is lost and an operand of zero does not forget the other. The operands then change
places, since the low bits of a product know the low bits of its factors alone. Long spans go through four states side
by side: a multiplication takes four cycles and one can begin in each.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <sys/random.h>
    static inline void infer_fold128(uint64_t *a, uint64_t *b) {
        unsigned __int128 product = (unsigned __int128) *a * *b;
        uint64_t other = *b ^ (uint64_t) (product >> 64);
        *b = *a ^ (uint64_t) product;
        *a = other;
    }
    """
    void fold128 "infer_fold128"(uint64_t *a, uint64_t *b) noexcept
    ssize_t getrandom(void *to, size_t size_bytes, unsigned int flags) noexcept

cdef enum:
    HASH_STRIPE_BYTES = 64

cdef struct HashSecret:
    uint64_t words[12]

cdef struct Hash128:
    uint64_t low
    uint64_t high
    const HashSecret *secret     # lent

# A secret of this process's own; False: the system has no random bytes.
cdef inline bint hash_secret(HashSecret *secret) noexcept nogil:
    return getrandom(secret, sizeof(HashSecret), 0) == <ssize_t> sizeof(HashSecret)

cdef inline void hash_begin(Hash128 *state, const HashSecret *secret) noexcept nogil:
    state.low = secret.words[0]
    state.high = secret.words[1]
    state.secret = secret

cdef inline void hash_words(Hash128 *state, uint64_t first, uint64_t second) noexcept nogil:
    state.low ^= first ^ state.secret.words[2]
    state.high ^= second ^ state.secret.words[3]
    fold128(&state.low, &state.high)

# The two words at `data`, as the machine has them: a hash never leaves its process.
cdef inline void hash_pair(const uint8_t *data, uint64_t *first, uint64_t *second) noexcept nogil:
    memcpy(first, data, 8)
    memcpy(second, data + 8, 8)

cdef inline const uint8_t *hash_stripes(Hash128 *state, const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef const uint64_t *words = &state.secret.words[4]
    cdef const uint8_t *end = data + (size_bytes & ~(<uint64_t> HASH_STRIPE_BYTES - 1))
    cdef uint64_t a0 = state.low ^ words[0]
    cdef uint64_t a1 = state.high ^ words[1]
    cdef uint64_t b0 = state.low ^ words[2]
    cdef uint64_t b1 = state.high ^ words[3]
    cdef uint64_t c0 = state.low ^ words[4]
    cdef uint64_t c1 = state.high ^ words[5]
    cdef uint64_t d0 = state.low ^ words[6]
    cdef uint64_t d1 = state.high ^ words[7]
    cdef uint64_t first, second
    while data != end:
        hash_pair(data, &first, &second)
        a0 ^= first
        a1 ^= second
        fold128(&a0, &a1)
        hash_pair(data + 16, &first, &second)
        b0 ^= first
        b1 ^= second
        fold128(&b0, &b1)
        hash_pair(data + 32, &first, &second)
        c0 ^= first
        c1 ^= second
        fold128(&c0, &c1)
        hash_pair(data + 48, &first, &second)
        d0 ^= first
        d1 ^= second
        fold128(&d0, &d1)
        data += HASH_STRIPE_BYTES
    hash_words(state, a0, a1)
    hash_words(state, b0, b1)
    hash_words(state, c0, c1)
    hash_words(state, d0, d1)
    return data

# The length is part of it: two spans are not what one of both is.
cdef inline void hash_span(Hash128 *state, const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t left = size_bytes
    cdef uint64_t pair[2]
    if size_bytes >= HASH_STRIPE_BYTES:
        data = hash_stripes(state, data, size_bytes)
        left = size_bytes & (HASH_STRIPE_BYTES - 1)
    while left >= 16:
        hash_pair(data, &pair[0], &pair[1])
        hash_words(state, pair[0], pair[1])
        data += 16
        left -= 16
    if left > 0:
        pair[0] = pair[1] = 0
        memcpy(pair, data, left)
        hash_words(state, pair[0], pair[1])
    hash_words(state, size_bytes, ~size_bytes)

# Each half is what both operands come to after a step of its own: one alone has places that know little of the input.
cdef inline void hash_end(Hash128 *state) noexcept nogil:
    cdef uint64_t low
    hash_words(state, state.secret.words[0], state.secret.words[1])
    low = state.low ^ state.high
    hash_words(state, state.secret.words[1], state.secret.words[0])
    state.high ^= state.low
    state.low = low
