"""Tables as TOML has them, turned into the tree that the text format gives. Pure; any thread.

What reads naturally in a table is allowed beside protobuf's own form: a map is a table by its keys, a message with one
field may be written as that field's value (`version_policy = { latest = 2 }`), a list of one element as the element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infer.models.text_format import Field, Message, Position, Scalar
from infer.models.typed import is_map, is_repeated

# Where a key stands, by the keys and list indices that lead to it.
Keys = tuple[str | int, ...]
Positions = Callable[[Keys], Position]


def tree_of(table: Mapping[str, Any], descriptor: Any, positions: Positions, keys: Keys) -> Message:
    """The tree of a table for the message that `descriptor` describes. What fits no field is left to the reader of the
    tree, who knows how to say it."""
    fields: list[Field] = []
    for key, value in table.items():
        described = descriptor.fields_by_name.get(key)
        path = (*keys, key)
        line, column = positions(path)
        if described is not None and is_map(described) and isinstance(value, Mapping):
            fields += [Field(key, _entry(name, inner, described.message_type, positions, (*path, name)),
                             *positions((*path, name))) for name, inner in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, str) and (described is None
                                                                             or is_repeated(described)):
            fields += [Field(key, _value(inner, described, positions, (*path, index)), *positions((*path, index)))
                       for index, inner in enumerate(value)]
        else:
            fields.append(Field(key, _value(value, described, positions, path), line, column))
    return Message(tuple(fields), *positions(keys))


def _entry(name: str, value: object, entry_type: Any, positions: Positions, keys: Keys) -> Message:
    line, column = positions(keys)
    described = entry_type.fields_by_name
    key = _scalar(name, described["key"], line, column)
    if key.kind == "string" and described["key"].cpp_type != described["key"].CPPTYPE_STRING:
        # Keys of a table are text, whatever the map's are.
        written = name.strip()
        key = Scalar("integer", int(written), name, line, column) if written.isdecimal() else key
    return Message((Field("key", key, line, column),
                    Field("value", _value(value, described["value"], positions, keys), line, column)), line, column)


def _value(value: object, described: Any, positions: Positions, keys: Keys) -> Scalar | Message:
    line, column = positions(keys)
    inner = described.message_type if described is not None else None
    if isinstance(value, Mapping):
        if inner is None:
            return Message((), line, column)
        return tree_of(value, inner, positions, keys)
    if inner is not None and len(inner.fields) == 1:
        only = inner.fields[0]
        elements = value if isinstance(value, (list, tuple)) and is_repeated(only) else [value]
        return Message(tuple(Field(only.name, _value(element, only, positions, keys), line, column)
                             for element in elements), line, column)
    return _scalar(value, described, line, column)


def _scalar(value: object, described: Any, line: int, column: int) -> Scalar:
    if isinstance(value, bool):
        return Scalar("name", str(value).lower(), str(value).lower(), line, column)
    if isinstance(value, int):
        return Scalar("integer", value, str(value), line, column)
    if isinstance(value, float):
        return Scalar("float", value, repr(value), line, column)
    if isinstance(value, str):
        if described is not None and described.enum_type is not None:
            # Tables have no names without quotes.
            return Scalar("name", value, value, line, column)
        return Scalar("string", value.encode("utf-8", "surrogatepass"), f'"{value}"', line, column)
    # Dates, and lists in the wrong place: no field takes them.
    return Scalar("name", repr(value), str(value), line, column)
