"""ModelInferRequest read and bound for one of a few models, held against google.protobuf and the rules in plain Python;
a request that is good is answered with its own tensors, and what is written is read back.
"""

from __future__ import annotations

from infer._core._testing_tensor import Codec
from tests.property.test_codec_property import Model, check_bind, check_decode
from tests.support.protos import message_class

OUTPUTS = [("y", "FP32", True), ("w", "FP32", True), ("v", "FP32", False)]
MODELS = [
    Model([("x", "FP32", (-1, 2), False)], OUTPUTS, True, 4),
    Model([("x", "BYTES", (-1, 2), False)], OUTPUTS, True, 4),
    Model([("x", "INT64", (-1,), False), ("z", "BOOL", (2, 1), True)], OUTPUTS, False, 1),
    Model([("x", "INT8", (-1, -1), False), ("z", "UINT16", (-1, 1), True)], OUTPUTS, True, 3),
    Model([("x", "FP16", None, False), ("z", "BYTES", None, True)], OUTPUTS, False, 1),
    Model([("x", "FP64", (0, 3), True), ("z", "UINT64", (), True)], OUTPUTS, False, 1),
    Model([("x", "UINT8", (-1, 0), False), ("z", "INT32", (-1,), False)], OUTPUTS, True, 1 << 40),
    Model([("größe", "BYTES", (-1,), False), ("a" * 130, "BF16", (-1,), True)], OUTPUTS, False, 1),
]


def run(data: bytes) -> None:
    if not data:
        return
    model, message = MODELS[data[0] % len(MODELS)], data[1:]
    if data[0] & 0x80:
        check_decode(message)
    if check_bind(model, message):
        answer(model, message)


def answer(model: Model, message: bytes) -> None:
    codec = Codec("m", [], [(spec[0], spec[1], True) for spec in model.inputs], model.batched)
    bound = model.codec().bind(message)
    given = {at: tensor for at, tensor in enumerate(bound["tensors"]) if tensor is not None}
    encoded = codec.encode(b"m", b"1", b"id", given, bound["rows"])
    reply = message_class("ModelInferResponse").FromString(encoded)
    assert [(tensor.datatype, tuple(tensor.shape)) for tensor in reply.outputs] == [
        (name, shape) for name, shape, _ in given.values()]
    assert list(reply.raw_output_contents) == [raw for _, _, raw in given.values()]
