# zlib: declarations only, used ones only.

cdef extern from "zlib.h" nogil:
    ctypedef struct z_stream:
        unsigned char *next_in
        unsigned int avail_in
        unsigned char *next_out
        unsigned int avail_out

    int Z_NO_FLUSH
    int Z_FINISH
    int Z_OK
    int Z_STREAM_END
    int Z_BUF_ERROR
    int Z_MEM_ERROR
    int Z_DEFLATED
    int Z_DEFAULT_STRATEGY

    int inflateInit2(z_stream *stream, int window_bits)
    int inflateReset2(z_stream *stream, int window_bits)
    int inflate(z_stream *stream, int flush)
    int inflateEnd(z_stream *stream)
    int deflateInit2(z_stream *stream, int level, int method, int window_bits, int memory_level, int strategy)
    int deflateReset(z_stream *stream)
    int deflate(z_stream *stream, int flush)
    int deflateEnd(z_stream *stream)
