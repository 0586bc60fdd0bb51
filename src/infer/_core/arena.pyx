"""One shared mapping from which the core's buffers are carved by size class.

The mapping belongs to the process and lives until it ends. A chunk belongs to whoever allocated it. Any thread may
call, without the GIL; one mutex guards everything below and is never held across a system call that gives pages back.
A thread that gets only what others leave over never holds it: its proxy does in its stead (idle_thread).

Design. The mapping is a sparse memfd: address space costs nothing and a page exists from its first touch. A chunk
keeps its class for ever, so sum over classes of the most ever live in each must fit the reserved address space. Small
chunks are bumped off slabs and, once freed, hold the free list's links in themselves. A large chunk may lose its
pages while it is free, so its links are kept outside, in a stack per class that has room for every chunk of the class
(release cannot fail). Free lists are last in, first out: a steady load keeps touching the same pages. Free large
chunks that still hold pages are bounded; past the bound, the class that was not allocated from for longest gives up
its oldest one.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset, strerror

from infer._core.capi.atomics cimport load_relaxed_i64
from infer._core.capi.pthread cimport (
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock)
from infer._core.debug cimport INFER_DEBUG, allocation_fails, require, try_realloc
from infer._core.idle_thread cimport on_idle_thread, run_ordinary

cdef extern from "<sys/mman.h>" nogil:
    enum:
        MADV_DONTFORK
        MADV_REMOVE
        MAP_NORESERVE
        MAP_SHARED
        MFD_CLOEXEC
        PROT_READ
        PROT_WRITE
    const void *MAP_FAILED
    int memfd_create(const char *name, unsigned int flags) noexcept
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset) noexcept
    int madvise(void *address, size_t length, int advice) noexcept

cdef extern from "<unistd.h>" nogil:
    int close(int fd) noexcept
    int ftruncate(int fd, long length) noexcept

cdef extern from * nogil:
    """
    #if defined(__has_feature)
    #if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
    #define __SANITIZE_ADDRESS__ 1
    #endif
    #endif
    #if defined(__SANITIZE_ADDRESS__)
    #include <sanitizer/asan_interface.h>
    #define infer_hide(p, n) __asan_poison_memory_region((p), (n))
    #define infer_show(p, n) __asan_unpoison_memory_region((p), (n))
    #else
    #define infer_hide(p, n) ((void) (p))
    #define infer_show(p, n) ((void) (p))
    #endif
    """
    # Where AddressSanitizer runs, free chunks may not be touched, nor a live one past the size asked for.
    void hide "infer_hide"(void *address, uint64_t size) noexcept
    void show "infer_show"(void *address, uint64_t size) noexcept
    int __builtin_clzll(unsigned long long value) noexcept

cdef enum:
    GRANULE_BYTES = 65536        # slabs and large chunks are whole granules, so a granule has one class
    LARGE_CLASS = 9              # the class of 64 KiB; it and those above are large
    SLAB_CHUNKS = 16
    CACHED_BYTES_LEAST = 67108864
    CACHED_SHARE = 16            # of the limit: bodies in flight at a time are not faulted in anew by the next
    POISON = 0xDD
    POISONED_BYTES = 4096        # of a large chunk; a small one is poisoned whole
    FREE = 0x80                  # flag in `owners`

cdef enum:
    FREE_MARK = 0x46726565436875  # second word of a free small chunk in debug builds

cdef struct SmallClass:
    uint64_t free                # first free chunk; the first word of each is the next
    uint64_t bump                # next chunk of the newest slab that was never handed out
    uint64_t slab_end

cdef struct LargeClass:
    uint64_t *free               # stack: chunks without pages at the bottom, then chunks with pages
    uint64_t free_count
    uint64_t bare_count          # how many at the bottom hold no pages
    uint64_t carved              # chunks that exist; `free` has room for all of them
    uint64_t room
    uint64_t last_use            # value of `uses` when last allocated from

cdef ArenaState arena
cdef pthread_mutex_t lock
cdef SmallClass small[LARGE_CLASS]
cdef LargeClass large[ARENA_CLASSES]      # indexed by class; those below LARGE_CLASS stay unused
cdef uint64_t carved_bytes                # address space given to slabs and large chunks
cdef uint64_t uses
cdef uint8_t *owners = NULL               # debug: class of each granule; large chunks flag FREE in their first


cdef ArenaState *shared_arena() noexcept nogil:
    return &arena


cdef int arena_open(uint64_t reserved_bytes, uint64_t limit_bytes) except -1:
    cdef int fd
    cdef void *base
    global carved_bytes, arena_base, owners
    if arena_base != NULL:
        if arena.reserved_bytes == reserved_bytes and arena.limit_bytes == limit_bytes:
            return 0
        raise RuntimeError(
            f"the arena is open with {arena.reserved_bytes} bytes reserved and a limit of {arena.limit_bytes}; "
            f"it cannot be opened again with {reserved_bytes} and {limit_bytes}")
    if reserved_bytes < 2 * GRANULE_BYTES or reserved_bytes >= <uint64_t> 1 << 47 or limit_bytes > reserved_bytes:
        raise ValueError(
            f"arena: reserved_bytes must be from {2 * GRANULE_BYTES} to 2**47 - 1 and limit_bytes not above it, "
            f"got {reserved_bytes} and {limit_bytes}")
    if pthread_mutex_init(&lock, NULL):
        raise MemoryError("arena: no mutex")
    fd = memfd_create(b"infer-arena", MFD_CLOEXEC)
    if fd < 0:
        raise OSError(errno, f"arena: memfd_create: {strerror(errno).decode()}")
    if ftruncate(fd, <long> reserved_bytes) < 0:
        error = OSError(errno, f"arena: cannot size the mapping to {reserved_bytes} bytes: {strerror(errno).decode()}")
        close(fd)
        raise error
    base = mmap(NULL, reserved_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0)
    if base == MAP_FAILED:
        error = OSError(errno, f"arena: cannot map {reserved_bytes} bytes: {strerror(errno).decode()}")
        close(fd)
        raise error
    close(fd)
    # A forked child must not be able to write into the chunks of its parent.
    madvise(base, reserved_bytes, MADV_DONTFORK)
    if INFER_DEBUG:
        owners = <uint8_t *> calloc(reserved_bytes // GRANULE_BYTES + 1, 1)
        if owners == NULL:
            raise MemoryError("arena: no memory for the debug table")
    arena.base = <uint8_t *> base
    arena.reserved_bytes = reserved_bytes
    arena.limit_bytes = limit_bytes
    arena.cached_bound_bytes = max(CACHED_BYTES_LEAST, limit_bytes // CACHED_SHARE)
    carved_bytes = GRANULE_BYTES          # so that no chunk has offset 0
    arena_base = arena.base
    return 0


cdef inline int class_of(uint64_t size_bytes) noexcept nogil:
    if size_bytes <= ARENA_SMALLEST_BYTES:
        return 0
    return 57 - __builtin_clzll(size_bytes - 1)


cdef uint64_t class_bytes(uint64_t size_bytes) noexcept nogil:
    cdef int index = class_of(size_bytes)
    return <uint64_t> ARENA_SMALLEST_BYTES << index if index < ARENA_CLASSES else 0


cdef uint64_t carve(int index, uint64_t size_bytes) noexcept nogil:
    """Fresh granules for class `index`, or 0."""
    cdef uint64_t offset = carved_bytes
    cdef uint64_t granule
    global carved_bytes
    if size_bytes > arena.reserved_bytes - offset:
        return 0
    carved_bytes += size_bytes
    if INFER_DEBUG:
        for granule in range(offset // GRANULE_BYTES, carved_bytes // GRANULE_BYTES):
            owners[granule] = <uint8_t> index
        hide(arena_base + offset, size_bytes)
    return offset


cdef uint64_t take_small(int index, uint64_t chunk_bytes) noexcept nogil:
    cdef SmallClass *cls = &small[index]
    cdef uint64_t offset = cls.free
    cdef uint64_t slab_bytes, position
    cdef uint64_t *words
    if offset:
        words = <uint64_t *> (arena_base + offset)
        if INFER_DEBUG:
            show(words, chunk_bytes)
            require(words[1] == <uint64_t> FREE_MARK, b"arena: a free chunk was written to")
            for position in range(16, chunk_bytes):
                require((<uint8_t *> words)[position] == POISON, b"arena: a free chunk was written to")
            words[1] = 0
        cls.free = words[0]
        return offset
    if cls.bump == cls.slab_end:
        slab_bytes = max(chunk_bytes * SLAB_CHUNKS, <uint64_t> GRANULE_BYTES)
        offset = carve(index, slab_bytes)
        if not offset:
            return 0
        cls.bump = offset
        cls.slab_end = offset + slab_bytes
    offset = cls.bump
    cls.bump += chunk_bytes
    return offset


cdef uint64_t take_large(int index, uint64_t chunk_bytes) noexcept nogil:
    cdef LargeClass *cls = &large[index]
    cdef uint64_t offset, room
    cdef uint64_t *grown
    global uses
    uses += 1
    cls.last_use = uses
    if cls.free_count:
        cls.free_count -= 1
        offset = cls.free[cls.free_count]
        if cls.bare_count > cls.free_count:
            cls.bare_count = cls.free_count
        else:
            arena.cached_bytes -= <int64_t> chunk_bytes
        if INFER_DEBUG:
            owners[offset // GRANULE_BYTES] = <uint8_t> index
        return offset
    if cls.carved == cls.room:
        room = cls.room * 2 if cls.room else 16
        grown = <uint64_t *> try_realloc(cls.free, room * sizeof(uint64_t))
        if grown == NULL:
            return 0
        cls.free = grown
        cls.room = room
    offset = carve(index, chunk_bytes)
    if offset:
        cls.carved += 1
    return offset


# What an idle thread has its proxy do.
cdef struct Errand:
    uint64_t offset
    uint64_t size_bytes


cdef void allocate_for(void *argument) noexcept nogil:
    cdef Errand *errand = <Errand *> argument
    errand.offset = allocate_here(errand.size_bytes)


cdef void release_for(void *argument) noexcept nogil:
    cdef Errand *errand = <Errand *> argument
    release_here(errand.offset, errand.size_bytes)


cdef uint64_t allocate(uint64_t size_bytes) noexcept nogil:
    cdef Errand errand
    if not on_idle_thread():
        return allocate_here(size_bytes)
    errand.size_bytes = size_bytes
    run_ordinary(allocate_for, &errand)
    return errand.offset


cdef void release(uint64_t offset, uint64_t size_bytes) noexcept nogil:
    cdef Errand errand
    if not on_idle_thread():
        release_here(offset, size_bytes)
        return
    errand.offset = offset
    errand.size_bytes = size_bytes
    run_ordinary(release_for, &errand)


cdef uint64_t allocate_here(uint64_t size_bytes) noexcept nogil:
    cdef int index = class_of(size_bytes)
    cdef uint64_t chunk_bytes
    cdef uint64_t offset = 0
    if arena_base == NULL:
        return 0
    pthread_mutex_lock(&lock)
    if index < ARENA_CLASSES and not allocation_fails():
        chunk_bytes = <uint64_t> ARENA_SMALLEST_BYTES << index
        if chunk_bytes <= arena.limit_bytes and <uint64_t> arena.live_bytes <= arena.limit_bytes - chunk_bytes:
            if index < LARGE_CLASS:
                offset = take_small(index, chunk_bytes)
            else:
                offset = take_large(index, chunk_bytes)
    if offset:
        arena.live_bytes += <int64_t> chunk_bytes
        if arena.live_bytes > arena.high_water_bytes:
            arena.high_water_bytes = arena.live_bytes
        keep_bounds()
    else:
        arena.failures += 1
    pthread_mutex_unlock(&lock)
    if INFER_DEBUG and offset:
        show(arena_base + offset, size_bytes)
    return offset


cdef void check_release(uint64_t offset, int index, uint64_t chunk_bytes) noexcept nogil:
    """Debug builds: the chunk exists, is of this class and is not free; then poisons it."""
    cdef uint8_t owner
    cdef uint64_t *words = <uint64_t *> (arena_base + offset)
    require(offset >= GRANULE_BYTES and offset < carved_bytes, b"arena: released what was never allocated")
    owner = owners[offset // GRANULE_BYTES]
    require(owner != (index | FREE), b"arena: released twice")
    require(owner == index, b"arena: released with another size than allocated")
    require(offset % min(chunk_bytes, <uint64_t> GRANULE_BYTES) == 0, b"arena: released from its middle")
    show(words, chunk_bytes)
    if index < LARGE_CLASS:
        require(words[1] != <uint64_t> FREE_MARK, b"arena: released twice")
        memset(words, POISON, chunk_bytes)
        words[1] = <uint64_t> FREE_MARK
    else:
        owners[offset // GRANULE_BYTES] = <uint8_t> (index | FREE)
        memset(words, POISON, POISONED_BYTES)


cdef int coldest_class() noexcept nogil:
    """The large class with cached pages that was allocated from longest ago; -1: none has any."""
    cdef int index
    cdef int coldest = -1
    for index in range(LARGE_CLASS, ARENA_CLASSES):
        if large[index].free_count > large[index].bare_count:
            if coldest < 0 or large[index].last_use < large[coldest].last_use:
                coldest = index
    return coldest


cdef void give_back(int64_t bound_bytes) noexcept nogil:
    """Frees the pages of large chunks until at most `bound_bytes` are cached.

    Entered and left with the lock held, which is let go for each system call: a chunk that loses its pages is on no
    list meanwhile.
    """
    cdef LargeClass *cls
    cdef uint64_t offset, chunk_bytes
    cdef int index
    while arena.cached_bytes > bound_bytes:
        index = coldest_class()
        if index < 0:
            return
        cls = &large[index]
        chunk_bytes = <uint64_t> ARENA_SMALLEST_BYTES << index
        cls.free_count -= 1
        offset = cls.free[cls.bare_count]
        cls.free[cls.bare_count] = cls.free[cls.free_count]
        arena.cached_bytes -= <int64_t> chunk_bytes
        pthread_mutex_unlock(&lock)
        madvise(arena_base + offset, chunk_bytes, MADV_REMOVE)
        pthread_mutex_lock(&lock)
        cls.free[cls.free_count] = cls.free[cls.bare_count]
        cls.free[cls.bare_count] = offset
        cls.free_count += 1
        cls.bare_count += 1


cdef inline void keep_bounds() noexcept nogil:
    """With the lock held, as for give_back."""
    cdef int64_t room_bytes = <int64_t> arena.limit_bytes + arena.cached_bound_bytes - arena.live_bytes
    if arena.cached_bytes > room_bytes:
        give_back(max(arena.cached_bound_bytes, room_bytes))


cdef void release_here(uint64_t offset, uint64_t size_bytes) noexcept nogil:
    cdef int index = class_of(size_bytes)
    cdef uint64_t chunk_bytes = <uint64_t> ARENA_SMALLEST_BYTES << index
    cdef LargeClass *cls
    if not offset:
        return
    pthread_mutex_lock(&lock)
    if INFER_DEBUG:
        check_release(offset, index, chunk_bytes)
    arena.live_bytes -= <int64_t> chunk_bytes
    if index < LARGE_CLASS:
        (<uint64_t *> (arena_base + offset))[0] = small[index].free
        small[index].free = offset
        if INFER_DEBUG:
            hide(arena_base + offset, chunk_bytes)
    else:
        if INFER_DEBUG:
            hide(arena_base + offset, chunk_bytes)
        cls = &large[index]
        cls.free[cls.free_count] = offset
        cls.free_count += 1
        arena.cached_bytes += <int64_t> chunk_bytes
        keep_bounds()
    pthread_mutex_unlock(&lock)


cdef void trim_pages(int64_t bound_bytes) noexcept nogil:
    if arena_base == NULL:
        return
    pthread_mutex_lock(&lock)
    give_back(bound_bytes)
    pthread_mutex_unlock(&lock)


def trim() -> None:
    """Gives the pages of free large chunks back to the kernel, without the GIL."""
    with nogil:
        trim_pages(0)


def trim_surplus() -> None:
    """As `trim`, down to the bound on such pages."""
    with nogil:
        trim_pages(arena.cached_bound_bytes)


def open(reserved_bytes: int, limit_bytes: int) -> None:
    """Make the process's arena; again with the same sizes does nothing, with others raises RuntimeError."""
    arena_open(reserved_bytes, limit_bytes)


def stats() -> dict[str, int]:
    """Sizes and counts of the arena; all zero before `open`."""
    return {
        "reserved_bytes": arena.reserved_bytes,
        "limit_bytes": arena.limit_bytes,
        "live_bytes": load_relaxed_i64(&arena.live_bytes),
        "high_water_bytes": load_relaxed_i64(&arena.high_water_bytes),
        "cached_bytes": load_relaxed_i64(&arena.cached_bytes),
        "cached_bound_bytes": arena.cached_bound_bytes,
        "carved_bytes": carved_bytes,
        "failures": load_relaxed_i64(&arena.failures),
    }
