"""Our reader of the text format against protobuf's own: the same message, or both refuse."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from infer.models.text_format import TextError, parse_text
from infer.models.typed import is_map, is_repeated, typed
from infer.proto import message

ROOTS = ("inference.ModelConfig", "tensorflow.serving.ModelServerConfig")


def ours(text: str, root: str) -> Any:
    """The message, or None where we refuse."""
    try:
        tree = parse_text(text)
    except TextError:
        return None
    result = typed(tree, message(root)(), "f")
    assert all(path == "" or place.startswith("f:") for path, place in result.places.items())
    return None if any(problem.is_error for problem in result.problems) else result.content


def theirs(text: str, root: str) -> Any:
    try:
        return text_format.Parse(text, message(root)(), descriptor_pool=None)
    except text_format.ParseError:
        return None


def values(described: Any, depth: int) -> st.SearchStrategy[Any]:
    kind = described.cpp_type
    if described.message_type is not None:
        return messages(described.message_type, depth + 1)
    if described.enum_type is not None:
        return st.sampled_from([value.number for value in described.enum_type.values])
    if kind == described.CPPTYPE_STRING:
        return st.text(st.characters(codec="utf-8"), max_size=8)
    if kind == described.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (described.CPPTYPE_DOUBLE, described.CPPTYPE_FLOAT):
        return st.floats(width=32 if kind == described.CPPTYPE_FLOAT else 64, allow_nan=False)
    signed = kind in (described.CPPTYPE_INT32, described.CPPTYPE_INT64)
    bits = 32 if kind in (described.CPPTYPE_INT32, described.CPPTYPE_UINT32) else 64
    return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else st.integers(0, (1 << bits) - 1)


@st.composite
def messages(draw: st.DrawFn, descriptor: Any, depth: int = 0) -> Any:
    content = message(descriptor.full_name)()
    fields = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=4 if depth < 3 else 1, unique_by=id)
                  if descriptor.fields and depth < 6 else st.just([]))
    for described in fields:
        if is_map(described):
            inner = described.message_type.fields_by_name
            for key in draw(st.lists(values(inner["key"], depth), max_size=2)):
                if inner["value"].message_type is not None:
                    getattr(content, described.name)[key].CopyFrom(draw(values(inner["value"], depth)))
                else:
                    getattr(content, described.name)[key] = draw(values(inner["value"], depth))
        elif is_repeated(described):
            getattr(content, described.name).extend(draw(st.lists(values(described, depth), max_size=3)))
        elif described.message_type is not None:
            getattr(content, described.name).CopyFrom(draw(values(described, depth)))
            getattr(content, described.name).SetInParent()
        else:
            setattr(content, described.name, draw(values(described, depth)))
    return content


ANY_MESSAGE = st.sampled_from(ROOTS).flatmap(lambda root: messages(message(root).DESCRIPTOR))
FORMS = st.fixed_dictionaries({
    "as_one_line": st.booleans(), "use_short_repeated_primitives": st.booleans(), "pointy_brackets": st.booleans(),
    "as_utf8": st.booleans(), "use_index_order": st.booleans()})


@given(ANY_MESSAGE, FORMS)
def test_what_protobuf_prints_is_read_as_it_was(content: Any, form: dict[str, bool]) -> None:
    text = text_format.MessageToString(content, **form)
    assert ours(text, content.DESCRIPTOR.full_name) == content


WORDS = st.sampled_from([
    "name", "max_batch_size", "input", "dims", "version_policy", "latest", "all", "specific", "versions",
    "num_versions", "parameters", "key", "value", "string_value", "dynamic_batching", "model_warmup", "inputs",
    "zero_data", "random_data", "nothing", "data_type", "TYPE_FP32", "true", "false", "inf", "-", "1", "0", "-1",
    "4294967296", "0x1F", "017", "08", "1.5", "1e3", "2f", ":", ":", ":", "{", "{", "}", "}", "<", ">",
    "[", "]", ",", ";", "\"a\"", "'b'",
    "'\\x41'", "'\\777'", "'open", "# note\n", "\n", "=", "/",
])


@given(st.lists(WORDS, max_size=14))
def test_any_words_are_read_as_protobuf_reads_them(words: list[str]) -> None:
    text = " ".join(words)
    assert ours(text, ROOTS[0]) == theirs(text, ROOTS[0])


@given(ANY_MESSAGE, st.data())
def test_text_with_a_piece_cut_out_or_doubled_is_read_as_protobuf_reads_it(content: Any, data: st.DataObject) -> None:
    text = text_format.MessageToString(content)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    edited = data.draw(st.sampled_from([text[:start] + text[end:], text[:end] + text[start:]]))
    assert ours(edited, content.DESCRIPTOR.full_name) == theirs(edited, content.DESCRIPTOR.full_name)


@given(st.text(max_size=40))
def test_any_text_is_a_tree_or_an_error_with_its_place(text: str) -> None:
    place = (1, 1)
    try:
        parse_text(text)
    except TextError as error:
        place = (error.line, error.column)
    assert 1 <= place[0] <= text.count("\n") + 1
    assert place[1] >= 1
