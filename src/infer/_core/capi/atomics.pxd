"""The compiler's atomic builtins, by the memory order that this project uses."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #define infer_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define infer_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define infer_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define infer_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define infer_store_seq_cst(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define infer_exchange(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
    #define infer_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
    #define infer_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    static inline int infer_cas_i32(int32_t *p, int32_t expected, int32_t desired) {
        return __atomic_compare_exchange_n(p, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    int32_t load_acquire_i32 "infer_load_acquire"(const int32_t *p) noexcept
    uint64_t load_acquire_u64 "infer_load_acquire"(const uint64_t *p) noexcept
    uint64_t load_relaxed_u64 "infer_load_relaxed"(const uint64_t *p) noexcept
    int64_t load_relaxed_i64 "infer_load_relaxed"(const int64_t *p) noexcept
    void store_release_i32 "infer_store_release"(int32_t *p, int32_t v) noexcept
    void store_release_u64 "infer_store_release"(uint64_t *p, uint64_t v) noexcept
    void store_relaxed_i64 "infer_store_relaxed"(int64_t *p, int64_t v) noexcept
    void store_seq_cst_i32 "infer_store_seq_cst"(int32_t *p, int32_t v) noexcept
    int32_t exchange_i32 "infer_exchange"(int32_t *p, int32_t v) noexcept
    int64_t add_i64 "infer_add"(int64_t *p, int64_t v) noexcept
    int32_t add_i32 "infer_add"(int32_t *p, int32_t v) noexcept
    void fence "infer_fence"() noexcept
    bint cas_i32 "infer_cas_i32"(int32_t *p, int32_t expected, int32_t desired) noexcept
