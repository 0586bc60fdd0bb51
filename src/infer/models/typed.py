"""A tree of fields held against a message of protobuf: the message, where each of its fields stands, and the problems.

What does not fit is left out and reported, so that one pass finds everything. Presence is what `places` says: a proto3
scalar that was written as 0 looks like one that was not written. Pure; any thread.
"""

from __future__ import annotations

import difflib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from infer.models.problems import Problem, error, nearest, warning
from infer.models.text_format import Field, Message, Scalar

# Fields that Triton and TensorFlow Serving have and that no message of ours declares: known, and not honoured.
FOREIGN_FIELDS: Mapping[str, frozenset[str]] = {
    "inference.ModelConfig": frozenset({"model_operations", "model_repository_agents"}),
    "inference.ModelInstanceGroup": frozenset({"rate_limiter", "secondary_devices"}),
    "inference.ModelOptimizationPolicy": frozenset({"cuda"}),
    "tensorflow.serving.ModelConfig": frozenset({"model_type", "logging_config"}),
}
# What people call a datatype elsewhere.
DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
             "STRING", "BF16")
_ALIASES = {"FLOAT16": "FP16", "HALF": "FP16", "FLOAT": "FP32", "FLOAT32": "FP32", "DOUBLE": "FP64", "FLOAT64": "FP64",
            "BYTES": "STRING", "STR": "STRING", "OBJECT": "STRING", "BFLOAT16": "BF16", "INT": "INT32",
            "LONG": "INT64", "BOOLEAN": "BOOL", "BYTE": "UINT8"}
_TRUE, _FALSE = frozenset({"true", "True", "t"}), frozenset({"false", "False", "f"})
_FLOATS = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}


class Step(NamedTuple):
    """A field on the way to a value: its name, and the path that leads to it."""

    name: str
    path: str


Trail = tuple[Step, ...]


@dataclass
class Typed:
    """`content` is the message; `places` says where, by paths such as `input[0].dims` and `parameters`."""

    content: Any
    path: str                                   # of the file, for places
    places: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    # Every value that was written and is not what it would be anyway, by the fields that lead to it.
    leaves: list[Trail] = field(default_factory=list)

    def place_of(self, path: str) -> str:
        """Where a field stands; of one that was not written, where the nearest that encloses it does."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[:path.rindex("[")] if path.endswith("]") else path.rpartition(".")[0]
        return self.places[""]

    def is_given(self, path: str) -> bool:
        return path in self.places

    def refuse(self, path: str, code: str, **said: str) -> None:
        self.problems.append(error(self.place_of(path), path, code, **said))

    def warn(self, path: str, code: str, **said: str) -> None:
        self.problems.append(warning(self.place_of(path), path, code, **said))


def typed(tree: Message, content: Any, path: str) -> Typed:
    """Fills `content`, an empty message, from the tree. `path` names the file in places and problems."""
    result = Typed(content, path, {"": f"{path}:{tree.line}"})
    _fill(result, tree, content, ())
    return result


def is_repeated(described: Any) -> bool:
    """Of a field's descriptor. The attribute came with protobuf 6.31, and what was there before warns from 7 on."""
    if hasattr(described, "is_repeated"):
        return bool(described.is_repeated)
    return bool(described.label == described.LABEL_REPEATED)


def is_map(described: Any) -> bool:
    return described.message_type is not None and bool(described.message_type.GetOptions().map_entry)


def data_type_name(written: str) -> str:
    """The DataType that was probably meant by a wrong name, or ""."""
    name = written.strip("\"'").upper().removeprefix("TYPE_").removeprefix("DT_").removeprefix("TENSOR(").rstrip(")")
    name = _ALIASES.get(name, name)
    if name not in DATATYPES:
        name = nearest(name, DATATYPES)
    return f"TYPE_{name}" if name else ""


def _fill(result: Typed, tree: Message, content: Any, trail: Trail) -> None:
    known = content.DESCRIPTOR.fields_by_name
    seen: dict[str, str] = {}
    for each in tree.fields:
        described = known.get(each.name)
        if described is None:
            _unknown(result, content.DESCRIPTOR, each, trail)
            continue
        if not is_repeated(described):
            # A field of a oneof excludes the others as it excludes itself.
            group = described.containing_oneof.name if described.containing_oneof else each.name
            if group in seen:
                beside = "twice" if seen[group] == each.name else f"beside {seen[group]!r}"
                result.problems.append(error(_place(result, each), _below(trail, each.name), "E105",
                                             cause=f"is given {beside}", fix="leave one of them"))
                continue
            seen[group] = each.name
        _put(result, each, content, described, trail)


def _put(result: Typed, each: Field, content: Any, described: Any, trail: Trail) -> None:
    """One field into the message; every one of a repeated field has its index."""
    place, path = _place(result, each), _below(trail, each.name)
    if is_repeated(described):
        result.places.setdefault(path, place)
    if is_map(described) and isinstance(each.value, Message):
        _put_entry(result, each, content, described, trail)
    elif described.message_type is not None:
        if isinstance(each.value, Scalar):
            result.problems.append(error(place, path, "E103", expected="a message: { ... }", got=each.value.text))
            return
        if is_repeated(described):
            path = f"{path}[{len(getattr(content, each.name))}]"
            inner = getattr(content, each.name).add()
        else:
            inner = getattr(content, each.name)
            inner.SetInParent()
        result.places[path] = place
        _fill(result, each.value, inner, (*trail, Step(each.name, path)))
    else:
        value = _scalar(result, each, described, path)
        if value is None:
            return
        if is_repeated(described):
            result.places[f"{path}[{len(getattr(content, each.name))}]"] = place
            getattr(content, each.name).append(value)
        else:
            result.places[path] = place
            setattr(content, each.name, value)
        if is_repeated(described) or value != described.default_value:
            result.leaves.append((*trail, Step(each.name, path)))


def _put_entry(result: Typed, entry: Field, content: Any, map_field: Any, trail: Trail) -> None:
    """`{ key: ... value: ... }` into a map; what is absent of it is empty, as protobuf has it."""
    entries, place, path = getattr(content, map_field.name), _place(result, entry), _below(trail, map_field.name)
    described = map_field.message_type.fields_by_name
    parts: dict[str, Field] = {}
    for each in entry.value.fields if isinstance(entry.value, Message) else ():
        if each.name not in described:
            _unknown(result, map_field.message_type, each, (*trail, Step(map_field.name, path)))
        elif each.name in parts:
            result.problems.append(error(_place(result, each), f"{path}.{each.name}", "E105", cause="is given twice",
                                         fix="leave one of them"))
        else:
            parts[each.name] = each
    key = _scalar(result, parts["key"], described["key"], f"{path}.key") if "key" in parts else (
        described["key"].default_value)
    if key is None:
        return
    inner = f"{path}[{key}]"
    if key in entries:
        result.problems.append(warning(place, inner, "W102", cause="is given twice, the last one counts",
                                       fix="leave one of them"))
        del entries[key]
        for below in [known for known in result.places if known.startswith(f"{inner}.")]:
            del result.places[below]
    result.places[inner] = place
    inner_trail = (*trail, Step(map_field.name, inner))
    if described["value"].message_type is None:
        value = _scalar(result, parts["value"], described["value"], inner) if "value" in parts else (
            described["value"].default_value)
        if value is not None:
            entries[key] = value
            result.leaves.append(inner_trail)
        return
    inner_content = entries[key]
    if "value" not in parts:
        return
    if isinstance(parts["value"].value, Scalar):
        result.problems.append(error(place, inner, "E103", expected="a message: { ... }",
                                     got=parts["value"].value.text))
    else:
        _fill(result, parts["value"].value, inner_content, inner_trail)


def _unknown(result: Typed, descriptor: Any, each: Field, trail: Trail) -> None:
    place, path = _place(result, each), _below(trail, each.name)
    if each.name in FOREIGN_FIELDS.get(descriptor.full_name, ()):
        result.problems.append(warning(place, path, "W101", cause="is not honoured"))
        return
    known = list(descriptor.fields_by_name)
    near = nearest(each.name, known)
    fix = f"did you mean {near!r}?" if near else f"it has {', '.join(known)}" if known else "leave it out"
    kind = descriptor.name if not descriptor.GetOptions().map_entry else "this map's entry"
    result.problems.append(error(place, path, "E102", cause=f"is no field of {kind}", fix=fix))


def _scalar(result: Typed, each: Field, described: Any, path: str) -> Any:
    """The value for a field that is no message, or None where it does not fit."""
    place = _place(result, each)
    if isinstance(each.value, Message):
        result.problems.append(error(place, path, "E103", expected=_expected(described), got="a message",
                                     fix=f"write {each.name}: VALUE"))
        return None
    scalar = each.value
    if described.enum_type is not None:
        return _enumerated(result, scalar, described.enum_type, path, place)
    value: Any = None
    kind = described.cpp_type
    if kind in (described.CPPTYPE_INT32, described.CPPTYPE_INT64, described.CPPTYPE_UINT32, described.CPPTYPE_UINT64):
        low, high = _range(described)
        if scalar.kind == "integer" and isinstance(scalar.value, int) and low <= scalar.value <= high:
            value = scalar.value
    elif kind == described.CPPTYPE_BOOL:
        if scalar.text in _TRUE or (scalar.kind == "integer" and scalar.value == 1):
            value = True
        elif scalar.text in _FALSE or (scalar.kind == "integer" and scalar.value == 0):
            value = False
    elif kind in (described.CPPTYPE_DOUBLE, described.CPPTYPE_FLOAT):
        value = _real(scalar, kind == described.CPPTYPE_FLOAT)
    elif scalar.kind == "string" and isinstance(scalar.value, bytes):
        try:
            value = scalar.value if described.type == described.TYPE_BYTES else scalar.value.decode()
        except UnicodeDecodeError:
            result.problems.append(error(place, path, "E103", expected="UTF-8 text", got=scalar.text,
                                         fix="write the file in UTF-8"))
            return None
    if value is None:
        fix = f'write "{scalar.text}"' if kind == described.CPPTYPE_STRING else (
            "leave the quotes out" if scalar.kind == "string" else "")
        result.problems.append(error(place, path, "E103", expected=_expected(described), got=scalar.text, fix=fix))
    return value


def _real(scalar: Scalar, single: bool) -> float | None:
    if scalar.kind in ("integer", "float") and isinstance(scalar.value, (int, float)):
        try:
            value = float(scalar.value)
        except OverflowError:
            value = math.copysign(math.inf, scalar.value)
    elif scalar.kind == "name" and scalar.text.lower().lstrip("-") in _FLOATS:
        value = _FLOATS[scalar.text.lower().lstrip("-")] * (-1 if scalar.text.startswith("-") else 1)
    else:
        return None
    if single and math.isfinite(value):
        try:
            return float(struct.unpack("f", struct.pack("f", value))[0])
        except OverflowError:
            return math.copysign(math.inf, value)
    return value


def _enumerated(result: Typed, scalar: Scalar, kind: Any, path: str, place: str) -> int | None:
    by_name = {name: value.number for name, value in kind.values_by_name.items()}
    if scalar.kind == "name" and scalar.text in by_name:
        return int(by_name[scalar.text])
    if scalar.kind == "integer" and scalar.value in by_name.values():
        return int(str(scalar.value))
    if kind.name == "DataType":
        near = data_type_name(scalar.text)
    else:
        bare = scalar.text.strip("\"'")
        near = bare if bare in by_name else nearest(bare, by_name) or next(
            (name for name in by_name if name.endswith(f"_{bare.upper()}")), "")
    shown = [name for name in by_name if not name.endswith("_INVALID")]
    close = difflib.get_close_matches(scalar.text, shown, 3) if kind.name == "DataType" and not near else shown
    quoted = " without quotes" if near and scalar.kind == "string" else ""
    result.problems.append(error(
        place, path, "E104", expected=", ".join(shown if not near else [near]), got=scalar.text,
        fix=f"write {near}{quoted}" if near else f"write one of {', '.join(close or shown)}"))
    return None


def _range(described: Any) -> tuple[int, int]:
    bits = 32 if described.cpp_type in (described.CPPTYPE_INT32, described.CPPTYPE_UINT32) else 64
    signed = described.cpp_type in (described.CPPTYPE_INT32, described.CPPTYPE_INT64)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _expected(described: Any) -> str:
    kind = described.cpp_type
    if kind == described.CPPTYPE_BOOL:
        return "true or false"
    if kind in (described.CPPTYPE_DOUBLE, described.CPPTYPE_FLOAT):
        return "a number"
    if kind == described.CPPTYPE_STRING:
        return "text in quotes"
    if kind == described.CPPTYPE_ENUM:
        return "a name"
    low, high = _range(described)
    return f"a whole number from {low} to {high}"


def _place(result: Typed, each: Field) -> str:
    return f"{result.path}:{each.line}:{each.column}"


def _below(trail: Trail, name: str) -> str:
    return f"{trail[-1].path}.{name}" if trail else name
