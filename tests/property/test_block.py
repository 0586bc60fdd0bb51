"""Blocks against (bytes, references) pairs: counts, growth and views; the arena is empty again when all are dropped."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from infer._core import _testing_memory as memory
from infer._core import arena, debug


class Model:
    def __init__(self, capacity: int) -> None:
        self.block = memory.BlockHandle(capacity)
        self.data = b""
        self.views = 0


class BlockModel(RuleBasedStateMachine):
    blocks = Bundle("blocks")
    views = Bundle("views")

    def __init__(self) -> None:
        super().__init__()
        self.live_before = arena.stats()["live_bytes"]
        self.counted_before = debug.live()["block"]
        self.models: list[Model] = []
        self.buffers: list[memoryview] = []

    @rule(target=blocks, capacity=st.integers(0, 300_000))
    def new(self, capacity: int) -> Model:
        model = Model(capacity)
        assert model.block.capacity_bytes >= capacity
        self.models.append(model)
        return model

    @rule(model=blocks)
    def ref(self, model: Model) -> None:
        if model in self.models:
            model.block.ref()

    @rule(model=blocks)
    def unref(self, model: Model) -> None:
        if model not in self.models:
            return
        model.block.unref()
        if model.block.references == 0:
            self.models.remove(model)

    @rule(model=blocks, data=st.binary(max_size=2000))
    def append(self, model: Model, data: bytes) -> None:
        if model not in self.models or model.views or model.block.references > 1:
            return
        assert model.block.grow(len(model.data) + len(data))
        model.block.append(data)
        model.data += data

    @rule(model=blocks, capacity=st.integers(0, 2 << 20), refuse=st.booleans())
    def grow(self, model: Model, capacity: int, refuse: bool) -> None:
        if model not in self.models or model.views or model.block.references > 1:
            return
        had, at = model.block.capacity_bytes, model.block.offset
        limit = memory.set_limit(arena.stats()["live_bytes"]) if refuse else None
        grown = model.block.grow(capacity)
        if limit is not None:
            memory.set_limit(limit)
        assert grown == (capacity <= had or not refuse)
        assert (model.block.offset == at) == (capacity <= had or refuse)
        if grown:
            assert model.block.capacity_bytes >= capacity

    @rule(target=views, model=blocks, start=st.integers(0, 2000), size=st.integers(0, 2000))
    def view(self, model: Model, start: int, size: int):
        if model not in self.models:
            return multiple()
        start = min(start, len(model.data))
        size = min(size, len(model.data) - start)
        model.views += 1
        self.buffers.append(memoryview(model.block.view(start, size)))
        return model, self.buffers[-1], model.data[start:start + size]

    @rule(view=views)
    def read(self, view: tuple[Model, memoryview, bytes]) -> None:
        assert bytes(view[1]) == view[2]

    @rule(view=consumes(views))
    def release_view(self, view: tuple[Model, memoryview, bytes]) -> None:
        assert bytes(view[1]) == view[2]
        view[1].release()
        view[0].views -= 1

    @invariant()
    def counts_and_contents_agree(self) -> None:
        for model in self.models:
            assert model.block.count == model.block.references + model.views
            assert model.block.data == model.data

    def teardown(self) -> None:
        for model in self.models:
            while model.block.references:
                model.block.unref()
        for buffer in self.buffers:
            buffer.release()
        assert arena.stats()["live_bytes"] == self.live_before
        assert debug.live()["block"] == self.counted_before


TestBlock = BlockModel.TestCase
TestBlock.settings = settings(max_examples=150, stateful_step_count=50)
