BINS: int
