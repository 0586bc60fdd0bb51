"""The text format's tree: positions, and what is said about text that is not of the format."""

from __future__ import annotations

import pytest

from infer.models.text_format import DEPTH_MAX, Field, Message, Position, Scalar, TextError, parse_text


def test_every_field_knows_its_line_and_column() -> None:
    tree = parse_text('# of Triton\nname: "m" ;\n  input [\n { dims: [ -1, 0x10 ], optional: true },\n < > ]\n')
    assert [(each.name, each.line, each.column) for each in tree.fields] == [("name", 2, 1), ("input", 4, 2),
                                                                           ("input", 5, 2)]
    first, second = tree.fields[1].value, tree.fields[2].value
    assert isinstance(first, Message)
    assert (first.line, first.column) == (4, 2)
    assert first.fields == (
        Field("dims", Scalar("integer", -1, "-1", 4, 12), 4, 12),
        Field("dims", Scalar("integer", 16, "0x10", 4, 16), 4, 16),
        Field("optional", Scalar("name", "true", "true", 4, 34), 4, 24))
    assert second == Message((), 5, 2)


@pytest.mark.parametrize(("text", "value"), [
    ("'a' \"b\"\n'c'", b"abc"), (r'"\n\t\\\"\x41\101\u00e9\U0001F600"', "\n\t\\\"AA\xe9\U0001f600".encode()),
    ("1.5f", 1.5), ("-.5e1", -5.0), ("017", 15), ("- 3", -3), ("2F", 2.0), ("-inf", "-inf"), ("KIND_CPU", "KIND_CPU"),
])
def test_scalars(text: str, value: object) -> None:
    scalar = parse_text(f"x: {text}").fields[0].value
    assert isinstance(scalar, Scalar)
    assert scalar.value == value


@pytest.mark.parametrize(("text", "place", "expected", "got", "fix"), [
    ("name = 'm'", (1, 6), "':' and a value", "'='", "write ':' for '='"),
    ("max_batch_size 8", (1, 16), "':' or '{' after 'max_batch_size'", "'8'", "write max_batch_size: VALUE"),
    ("input {\n name: 'x'\n", (3, 1), "'}' for a message that is still open", "the end of the text", ""),
    ("input < name: 'x' }", (1, 19), "a field's name", "'}'", ""),
    ("name: 'm\nbackend: 'b'", (1, 7), "a string that ends on its line", "'m", "close it with '"),
    ("// of Triton\nname: 'm'", (1, 1), "a field's name", "'/'", "write '#' before a comment"),
    ("dims: [1, 2", (1, 12), "',' or ']'", "the end of the text", ""),
    ("dims: [1, ]", (1, 11), "a value after ','", "']'", ""),
    ("dims: [1 2]", (1, 10), "',' or ']'", "'2'", ""),
    ("count: 08", (1, 8), "a number", "'08'", "a number that begins with 0 is octal: leave the 0 out"),
    ("count: 8MiB", (1, 8), "a number", "'8MiB'", ""),
    ("count: -x", (1, 9), "a number", "'x'", ""),
    ("count: ,", (1, 8), "a value", "','", ""),
    ("a: '\\q'", (1, 4), "escapes that mean a character", "\\q", "write \\\\ for a backslash"),
    ("a: '\\777'", (1, 4), "escapes that mean a character", "\\777", "write \\\\ for a backslash"),
    ("a: '\\ud800'", (1, 4), "escapes that mean a character", "\\ud800", "write \\\\ for a backslash"),
    ("[a;]: 1", (1, 3), "an extension's name and ']'", "';'", ""),
    ("}", (1, 1), "a field's name", "'}'", ""),
    ("a: 1 \x00", (1, 6), "a field or a value", "'\\x00'", ""),
])
def test_text_that_is_not_of_the_format(text: str, place: Position, expected: str, got: str, fix: str) -> None:
    with pytest.raises(TextError) as caught:
        parse_text(text)
    error = caught.value
    assert ((error.line, error.column), error.expected, error.got, error.fix) == (place, expected, got, fix)


def test_depth_is_bounded() -> None:
    assert parse_text("a {" * DEPTH_MAX + "}" * DEPTH_MAX).fields[0].name == "a"
    with pytest.raises(TextError, match="at most 64 messages"):
        parse_text("a {" * (DEPTH_MAX + 1))


def test_an_extension_keeps_its_brackets() -> None:
    assert [field.name for field in parse_text("[a.b/c.d] { } x: 1").fields] == ["[a.b/c.d]", "x"]
