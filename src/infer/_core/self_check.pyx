"""Made-up tensors and their comparison, for a model's self-check and warm-up at load, without numpy.

Pure functions of their arguments, callable on any thread; the work is done without the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY, fabs, isnan
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from infer._core.element_value cimport element_value, is_real
from infer._core.span cimport span_over
from infer._core.tensor_text cimport data_type_of
from infer._core.tensor_view cimport (
    TYPE_BF16, TYPE_BOOL, TYPE_BYTES, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_NONE, element_bytes)

cdef enum:
    PREFIX = 4                   # bytes of a BYTES element's length
    BYTES_ELEMENT = 5            # a made-up BYTES element: its length and one digit


cdef uint16_t half_bits(double value) noexcept nogil:
    """The binary16 nearest below a number of magnitude 2**-14 to 65504, or zero."""
    cdef uint16_t sign = 0x8000 if value < 0 else 0
    cdef int exponent = 15
    cdef double magnitude = fabs(value)
    if magnitude < 6.103515625e-05:
        return sign
    while magnitude >= 2:
        magnitude /= 2
        exponent += 1
    while magnitude < 1:
        magnitude *= 2
        exponent -= 1
    return sign | <uint16_t> (exponent << 10) | <uint16_t> ((magnitude - 1) * 1024)


cdef bint reals_close(const uint8_t *a, const uint8_t *b, uint64_t elements, int data_type, double rtol,
                      double atol) noexcept nogil:
    cdef double largest = 0
    cdef double x, y
    cdef uint64_t i
    for i in range(elements):
        y = fabs(element_value(b, i, data_type))
        if y > largest and y < INFINITY:
            largest = y
    for i in range(elements):
        x = element_value(a, i, data_type)
        y = element_value(b, i, data_type)
        if x == y or (isnan(x) and isnan(y)):
            continue
        if not fabs(x - y) <= rtol * fabs(y) + atol * largest:
            return False
    return True


cdef int type_called(str datatype) except -1:
    cdef bytes encoded = datatype.encode()
    span = span_over(<const uint8_t *> PyBytes_AS_STRING(encoded), <uint64_t> PyBytes_GET_SIZE(encoded))
    cdef int data_type = data_type_of(&span)
    if data_type == TYPE_NONE:
        raise ValueError(f"unknown datatype {datatype!r}")
    return data_type


def all_close(bytes a not None, bytes b not None, str datatype not None, double rtol, double atol):
    """Whether two raw tensors agree: floats within rtol of b's element plus atol of b's largest magnitude (NaN equals
    NaN), everything else byte for byte."""
    cdef int data_type = type_called(datatype)
    cdef uint64_t size = <uint64_t> PyBytes_GET_SIZE(b)
    cdef const uint8_t *left = <const uint8_t *> PyBytes_AS_STRING(a)
    cdef const uint8_t *right = <const uint8_t *> PyBytes_AS_STRING(b)
    cdef bint close
    if <uint64_t> PyBytes_GET_SIZE(a) != size:
        return False
    with nogil:
        if is_real(data_type):
            close = reals_close(left, right, size // element_bytes(data_type), data_type, rtol, atol)
        else:
            close = memcmp(left, right, size) == 0
    return close


cdef void put_value(uint8_t *to, int data_type, double value) noexcept nogil:
    cdef float single = <float> value
    cdef uint64_t integer = <uint64_t> value
    cdef uint16_t half
    cdef uint32_t bits
    if data_type == TYPE_FP64:
        memcpy(to, &value, 8)
    elif data_type == TYPE_FP32:
        memcpy(to, &single, 4)
    elif data_type == TYPE_FP16:
        half = half_bits(value)
        memcpy(to, &half, 2)
    elif data_type == TYPE_BF16:
        memcpy(&bits, &single, 4)
        half = <uint16_t> (bits >> 16)
        memcpy(to, &half, 2)
    else:
        memcpy(to, &integer, element_bytes(data_type))


cdef void make_up(uint8_t *to, uint64_t elements, int data_type, uint64_t seed, double low, double high,
                  uint32_t below) noexcept nogil:
    cdef uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1
    cdef uint64_t size = element_bytes(data_type)
    cdef uint32_t one = 1
    cdef uint64_t random, i
    for i in range(elements):
        # xorshift64*; Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016)
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        random = state * 0x2545F4914F6CDD1DULL
        if data_type == TYPE_BYTES:
            memcpy(to + i * BYTES_ELEMENT, &one, PREFIX)
            to[i * BYTES_ELEMENT + PREFIX] = <uint8_t> (48 + (random >> 33) % min(below, <uint32_t> 10))
        elif is_real(data_type):
            put_value(to + i * size, data_type, low + (high - low) * <double> (random >> 11) / 9007199254740992.0)
        else:
            put_value(to + i * size, data_type, <double> ((random >> 33) % (2 if data_type == TYPE_BOOL else below)))


def made_up(str datatype not None, uint64_t elements, uint64_t seed, double low, double high, uint32_t below):
    """A raw tensor of pseudo-random elements, the same for the same arguments: floats in [low, high), integers in
    [0, below), BYTES of one digit."""
    cdef int data_type = type_called(datatype)
    cdef uint64_t size = BYTES_ELEMENT if data_type == TYPE_BYTES else element_bytes(data_type)
    cdef bytes tensor = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> (elements * size))
    cdef uint8_t *to = <uint8_t *> PyBytes_AS_STRING(tensor)
    with nogil:
        make_up(to, elements, data_type, seed, low, high, below if below > 0 else 1)
    return tensor
