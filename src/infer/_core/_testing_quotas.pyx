"""Token buckets as a test drives them; not in wheels."""

from libc.stdint cimport int64_t

from infer._core.clock cimport now_ns
from infer._core.token_bucket cimport (
    BucketRate, TokenBucket, bucket_fill, bucket_is_full, bucket_wait_ns, converted_units, rate_init, try_take)


cdef class Bucket:
    """A bucket of `numerator` / `denominator` tokens a second that is full at `now`. ValueError for a rate that cannot
    be."""
    cdef BucketRate rate
    cdef TokenBucket bucket

    def __cinit__(self, numerator: int, denominator: int, burst: int, now: int):
        if not rate_init(&self.rate, numerator, denominator, burst):
            raise ValueError(f"{numerator}/{denominator} with a burst of {burst}")
        bucket_fill(&self.bucket, &self.rate, now)

    def try_take(self, tokens: int, now: int) -> bool:
        return try_take(&self.bucket, &self.rate, tokens, now)

    def wait_ns(self, tokens: int, now: int) -> int:
        return bucket_wait_ns(&self.bucket, &self.rate, tokens, now)

    def is_full(self, now: int) -> bool:
        return bucket_is_full(&self.bucket, &self.rate, now)

    @property
    def token_units(self) -> int:
        return self.rate.token_units

    @property
    def level_units(self) -> int:
        return self.bucket.level_units

    def converted_to(self, Bucket other not None) -> int:
        return converted_units(self.bucket.level_units, &self.rate, &other.rate)

    def takes(self, rounds: int, tokens: int, step_ns: int) -> int:
        """Nanoseconds that so many takes need; the bucket's own time moves by `step_ns` a take."""
        cdef int64_t left = rounds
        cdef int64_t c_tokens = tokens
        cdef int64_t c_step_ns = step_ns
        cdef int64_t own_ns = self.bucket.seen_ns
        cdef int64_t start = now_ns()
        with nogil:
            while left > 0:
                own_ns += c_step_ns
                try_take(&self.bucket, &self.rate, c_tokens, own_ns)
                left -= 1
        return now_ns() - start
