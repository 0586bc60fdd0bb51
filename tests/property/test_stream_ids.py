"""What a frame means for a stream that is gone, against a model that forgets nothing."""

from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_abuse import RESETS_KEPT, Ids

RESET, NEVER_OPENED, ENDED = 0, 1, 5

# Streams one after the other, with how many ids are passed over and whether the server resets it.
streams = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=60)


@given(streams)
def test_frames_for_gone_streams(opened: list[tuple[int, bool]]):
    ids = Ids()
    next_id, passed, resets, ended = 1, [], [], []
    for left_out, reset in opened:
        if left_out:
            passed = list(range(next_id, next_id + 2 * left_out, 2))
        next_id += 2 * left_out
        ids.opened(next_id)
        if reset:
            ids.reset(next_id)
            ids.reset(next_id)
            resets.append(next_id)
        else:
            ended.append(next_id)
        next_id += 2
    forgotten = max(resets[:-RESETS_KEPT], default=0)
    for each in resets:
        assert ids.frame_for_gone(each) == RESET
    for each in ended:
        assert ids.frame_for_gone(each) == (RESET if each <= forgotten else ENDED)
    for each in passed:
        assert ids.frame_for_gone(each) == (RESET if each <= forgotten else NEVER_OPENED)
