"""One element of a raw tensor as a double; inline. A 64-bit integer past 2**53 is rounded."""

from libc.math cimport INFINITY
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from infer._core.tensor_view cimport (
    TYPE_BF16, TYPE_BOOL, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_INT8, TYPE_INT16, TYPE_INT32, TYPE_INT64, TYPE_UINT8,
    TYPE_UINT16, TYPE_UINT32)

cdef inline bint is_real(int data_type) noexcept nogil:
    return data_type == TYPE_FP32 or data_type == TYPE_FP64 or data_type == TYPE_FP16 or data_type == TYPE_BF16

cdef inline double half_value(uint16_t bits) noexcept nogil:
    """An IEEE 754 binary16 number."""
    cdef uint32_t exponent = (bits >> 10) & 0x1F
    cdef uint32_t fraction = bits & 0x3FF
    cdef double value
    if exponent == 31:
        value = INFINITY if fraction == 0 else INFINITY - INFINITY
    elif exponent == 0:
        value = fraction / 16777216.0
    else:
        value = (fraction + 1024) / 33554432.0 * <double> (<uint64_t> 1 << exponent)
    return -value if bits & 0x8000 else value

cdef inline double element_value(const uint8_t *data, uint64_t index, int data_type) noexcept nogil:
    """Of a type with elements of one size; the data may lie at any address."""
    cdef float single
    cdef double real
    cdef int64_t i64
    cdef int32_t i32
    cdef uint64_t u64
    cdef uint32_t u32
    cdef uint16_t u16
    if data_type == TYPE_FP32:
        memcpy(&single, data + 4 * index, 4)
        return single
    if data_type == TYPE_FP64:
        memcpy(&real, data + 8 * index, 8)
        return real
    if data_type == TYPE_UINT8 or data_type == TYPE_BOOL:
        return data[index]
    if data_type == TYPE_INT8:
        return <int8_t> data[index]
    if data_type == TYPE_INT32 or data_type == TYPE_UINT32:
        memcpy(&u32, data + 4 * index, 4)
        i32 = <int32_t> u32
        return <double> i32 if data_type == TYPE_INT32 else <double> u32
    if data_type == TYPE_FP16 or data_type == TYPE_BF16 or data_type == TYPE_INT16 or data_type == TYPE_UINT16:
        memcpy(&u16, data + 2 * index, 2)
        if data_type == TYPE_FP16:
            return half_value(u16)
        if data_type == TYPE_BF16:
            u32 = <uint32_t> u16 << 16
            memcpy(&single, &u32, 4)
            return single
        return <double> <int16_t> u16 if data_type == TYPE_INT16 else <double> u16
    memcpy(&u64, data + 8 * index, 8)
    i64 = <int64_t> u64
    return <double> i64 if data_type == TYPE_INT64 else <double> u64
