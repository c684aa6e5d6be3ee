"""Python source of an encoder and a decoder for one version of one message.

Rule: what the version leaves no choice about is decided here and not when a message passes: a version's fields are
straight-line code, and neighbouring fixed-width fields share one call of `struct` (measured: 2 to 7 times faster than
walking the definition).  The generated functions are `encode_X(m, out)` and `decode_X(d, p) -> (value, position)` for
each structure X.  Knows nothing of what fields mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from seatrial.kafka.schemas import Field, MessageSchema

FIXED: Final = {
    "bool": ("?", 1),
    "int8": ("b", 1),
    "int16": ("h", 2),
    "uint16": ("H", 2),
    "int32": ("i", 4),
    "int64": ("q", 8),
    "float64": ("d", 8),
    "uuid": ("16s", 16),
}
Line = tuple[int, str]  # indentation, text


def structures(schema: MessageSchema) -> dict[str, tuple[Field, ...]]:
    """Every structure of a message by name, those inside before those around them; the message itself is the last."""
    found: dict[str, tuple[Field, ...]] = {}

    def visit(fields: Sequence[Field]) -> None:
        for field in fields:
            if field.is_structure:
                visit(field.fields)
                found.setdefault(field.type_name, field.fields)

    visit(schema.fields)
    found[schema.name] = schema.fields
    return found


def source(schema: MessageSchema, version: int) -> str:
    """A module's text that defines `encode_<structure>` and `decode_<structure>` for every structure."""
    flexible = schema.flexible.covers(version)
    lines: list[Line] = []
    for name, fields in structures(schema).items():
        present = [field for field in fields if field.versions.covers(version)]
        lines += _Encoder(version, flexible).function(name, present)
        lines += _Decoder(version, flexible).function(name, present)
    return "\n".join("    " * depth + text for depth, text in lines) + "\n"


class _Generator:
    """What both directions share: which fields are tagged, and which neighbours have a fixed width."""

    def __init__(self, version: int, flexible: bool) -> None:
        self.version = version
        self.flexible = flexible

    def is_nullable(self, field: Field) -> bool:
        return field.nullable.covers(self.version)

    def is_tagged(self, field: Field) -> bool:
        return field.tagged.covers(self.version)

    def tagged(self, fields: Sequence[Field]) -> list[Field]:
        return sorted((field for field in fields if self.is_tagged(field)), key=lambda field: field.tag)

    def runs(self, fields: Sequence[Field]) -> Iterator[list[Field]]:
        """The untagged fields in order, each run of fixed-width ones together and every other one alone."""
        run: list[Field] = []
        for field in fields:
            if self.is_tagged(field):
                continue
            if not field.is_array and field.type_name in FIXED:
                run.append(field)
                continue
            if run:
                yield run
                run = []
            yield [field]
        if run:
            yield run


class _Encoder(_Generator):
    def function(self, name: str, fields: Sequence[Field]) -> Iterator[Line]:
        yield 0, f"def encode_{name}(m, out):"
        for run in self.runs(fields):
            if not run[0].is_array and run[0].type_name in FIXED:
                yield 1, _packed([f"m.{field.name}" for field in run], run)
            else:
                yield from self.value(run[0], f"m.{run[0].name}", 1)
        if self.flexible:
            yield from self.tagged_section(self.tagged(fields))
        yield 1, "return out"

    def tagged_section(self, fields: Sequence[Field]) -> Iterator[Line]:
        """The tagged fields that do not have their default value."""
        if not fields:
            yield 1, "out += b'\\0'"
            return
        yield 1, "count, tagged, whole = 0, bytearray(), out"
        for field in fields:
            different = f"m.{field.name}" if field.is_array else f"m.{field.name} != {field.default!r}"
            yield 1, f"if {different}:"
            yield 2, "out = bytearray()"
            yield from self.value(field, f"m.{field.name}", 2)
            yield 2, f"tagged += uvarint({field.tag}) + uvarint(len(out)) + out"
            yield 2, "count += 1"
        yield 1, "out = whole"
        yield 1, "out += uvarint(count) + tagged"

    def value(self, field: Field, value: str, depth: int) -> Iterator[Line]:
        yield depth, f"v = {value}"
        if self.is_nullable(field):
            yield depth, "if v is None:"
            yield depth + 1, f"out += {self.null(field)!r}"
            yield depth, "else:"
            depth += 1
        if field.is_array:
            yield depth, f"out += {self.length('v', 'i')}"
            yield from self.elements(field, depth)
        elif field.is_structure:
            if self.is_nullable(field):
                yield depth, "out += b'\\x01'"
            yield depth, f"encode_{field.type_name}(v, out)"
        else:
            yield from self.primitive(field, "v", depth)

    def null(self, field: Field) -> bytes:
        if field.is_structure and not field.is_array:
            return b"\xff"
        if self.flexible:
            return b"\0"
        return b"\xff\xff" if field.type_name == "string" and not field.is_array else b"\xff\xff\xff\xff"

    def elements(self, field: Field, depth: int) -> Iterator[Line]:
        if field.is_structure:
            yield depth, "for item in v:"
            yield depth + 1, f"encode_{field.type_name}(item, out)"
        elif field.type_name in FIXED:
            yield depth, f"out += struct.pack(f'>{{len(v)}}{FIXED[field.type_name][0]}', *v)"
        else:
            yield depth, "for item in v:"
            yield from self.primitive(field, "item", depth + 1)

    def primitive(self, field: Field, value: str, depth: int) -> Iterator[Line]:
        if field.type_name in FIXED:
            yield depth, _packed([value], [field])
            return
        if field.type_name == "string":
            yield depth, f"text = {value}.encode()"
            yield depth, f"out += {self.length('text', 'h')}"
            yield depth, "out += text"
        else:
            yield depth, f"out += {self.length(value, 'i')}"
            yield depth, f"out += {value}"

    def length(self, value: str, code: str) -> str:
        return f"uvarint(len({value}) + 1)" if self.flexible else f"struct.pack('>{code}', len({value}))"


def _packed(values: Sequence[str], fields: Sequence[Field]) -> str:
    codes = "".join(FIXED[field.type_name][0] for field in fields)
    return f"out += struct.pack('>{codes}', {', '.join(values)})"


class _Decoder(_Generator):
    def function(self, name: str, fields: Sequence[Field]) -> Iterator[Line]:
        yield 0, f"def decode_{name}(d, p):"
        for run in self.runs(fields):
            if not run[0].is_array and run[0].type_name in FIXED:
                yield from self.fixed(run, 1)
            else:
                yield from self.value(run[0], 1)
        known = self.tagged(fields)
        if self.flexible and known:
            yield from self.tagged_section(known)
        elif self.flexible:
            yield 1, "p = skip_tagged_fields(d, p)"
        arguments = ", ".join(f"{field.name}={_local(field)}" for field in fields)
        yield 1, f"return new_{name}({arguments}), p"

    def tagged_section(self, known: Sequence[Field]) -> Iterator[Line]:
        for field in known:
            yield 1, f"{_local(field)} = {field.default!r}"
        yield 1, "tag_count, p = read_uvarint(d, p)"
        yield 1, "for _ in range(tag_count):"
        yield 2, "tag, p = read_uvarint(d, p)"
        yield 2, "size, p = read_uvarint(d, p)"
        yield 2, "after = taken(d, p, size)"
        for number, field in enumerate(known):
            yield 2, f"{'elif' if number else 'if'} tag == {field.tag}:"
            if not field.is_array and field.type_name in FIXED:
                yield from self.fixed([field], 3)
            else:
                yield from self.value(field, 3)
        yield 2, "p = after"

    def fixed(self, run: Sequence[Field], depth: int) -> Iterator[Line]:
        codes = "".join(FIXED[field.type_name][0] for field in run)
        targets = "".join(f"{_local(field)}, " for field in run)
        yield depth, f"{targets.rstrip()} = struct.unpack_from('>{codes}', d, p)"
        yield depth, f"p += {sum(FIXED[field.type_name][1] for field in run)}"

    def value(self, field: Field, depth: int) -> Iterator[Line]:
        target = _local(field)
        if field.is_structure and not field.is_array:
            yield from self.single_structure(field, target, depth)
            return
        yield from self.read_length("h" if field.type_name == "string" and not field.is_array else "i", depth)
        yield depth, "if n < 0:"
        if self.is_nullable(field):
            yield depth + 1, f"{target} = None"
        else:
            yield depth + 1, f"raise MalformedMessage('{field.name} must not be null')"
        yield depth, "else:"
        if field.is_array:
            yield from self.elements(field, target, depth + 1)
        else:
            yield from self.variable(field, target, depth + 1)

    def single_structure(self, field: Field, target: str, depth: int) -> Iterator[Line]:
        if self.is_nullable(field):
            yield depth, "(present,) = struct.unpack_from('>b', d, p)"
            yield depth, "p += 1"
            yield depth, f"{target} = None"
            yield depth, "if present >= 0:"
            depth += 1
        yield depth, f"{target}, p = decode_{field.type_name}(d, p)"

    def read_length(self, code: str, depth: int) -> Iterator[Line]:
        if self.flexible:
            yield depth, "n, p = read_uvarint(d, p)"
            yield depth, "n -= 1"
        else:
            yield depth, f"(n,) = struct.unpack_from('>{code}', d, p)"
            yield depth, f"p += {2 if code == 'h' else 4}"

    def elements(self, field: Field, target: str, depth: int) -> Iterator[Line]:
        yield depth, "counted(d, p, n)"
        if field.type_name in FIXED:
            code, size = FIXED[field.type_name]
            if code == "16s":
                yield depth, f"{target} = [bytes(d[p + 16 * i : taken(d, p, 16 * (i + 1))]) for i in range(n)]"
            else:
                yield depth, f"{target} = list(struct.unpack_from(f'>{{n}}{code}', d, p))"
            yield depth, f"p += {size} * n"
            return
        yield depth, f"{target} = []"
        yield depth, "for _ in range(n):"
        if field.is_structure:
            yield depth + 1, f"item, p = decode_{field.type_name}(d, p)"
        else:
            yield from self.read_length("h" if field.type_name == "string" else "i", depth + 1)
            yield from self.variable(field, "item", depth + 1)
        yield depth + 1, f"{target}.append(item)"

    def variable(self, field: Field, target: str, depth: int) -> Iterator[Line]:
        if field.type_name == "string":
            yield depth, f"{target}, p = read_string(d, p, n)"
        else:
            yield depth, "end = taken(d, p, n)"
            yield depth, f"{target} = bytes(d[p:end])"
            yield depth, "p = end"


def _local(field: Field) -> str:
    return f"f_{field.name}"


def class_source(name: str, fields: Sequence[Field]) -> str:
    """The text of a class that holds any version's fields of one structure, each with its default."""
    unique = {field.name: field for field in fields}
    slots = ", ".join(repr(field) for field in unique)
    parameters = "".join(f", {field.name}={field.default!r}" for field in unique.values())
    lines = [f"class {name}(Structure):", f"    __slots__ = ({slots}{',' if slots else ''})"]
    lines.append(f"    def __init__(self{', *' if parameters else ''}{parameters}):")
    lines += [f"        self.{field} = {field}" for field in unique] or ["        pass"]
    return "\n".join(lines) + "\n"
