"""Frozen dataclasses as protobuf messages: `name: Annotated[str, 1]` is a string field with the number 1.

In:  dataclasses.   Out: a codec that reads and writes them; the protobuf library does the work on the wire.
`X | None` is a field that may be absent, `tuple[X, ...]` a repeated one, a dataclass a nested message.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from core.errors import Malformed

_WIRE_TYPES: dict[type, FieldDescriptorProto.Type.ValueType] = {
    str: FieldDescriptorProto.TYPE_STRING,
    bytes: FieldDescriptorProto.TYPE_BYTES,
    bool: FieldDescriptorProto.TYPE_BOOL,
    int: FieldDescriptorProto.TYPE_INT64,  # int32, uint32 and enums are written the same way
    float: FieldDescriptorProto.TYPE_DOUBLE,
}
_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True, slots=True)
class _Field:
    """What an annotation says of a field."""

    name: str
    number: int
    wire_type: FieldDescriptorProto.Type.ValueType
    repeated: bool
    message: type | None
    """The dataclass of a nested message."""

    def add_to(self, described: DescriptorProto, package: str) -> None:
        """Describe the field as part of a message; if it is not repeated, it will know whether it was set."""
        field = described.field.add(name=self.name, number=self.number, type=self.wire_type)
        if self.message:
            field.type_name = f".{package}.{self.message.__name__}"
        if self.repeated:
            field.label = FieldDescriptorProto.LABEL_REPEATED
        else:
            field.label = FieldDescriptorProto.LABEL_OPTIONAL
            field.proto3_optional = True
            field.oneof_index = len(described.oneof_decl)
            described.oneof_decl.add(name=f"_{self.name}")


class Codec:
    """Reads and writes a set of dataclasses, closed under nesting, as messages of one protobuf package."""

    def __init__(self, package: str, kinds: Iterable[type]) -> None:
        self._fields = {kind: _fields(kind) for kind in kinds}
        file = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        for kind, kinds_fields in self._fields.items():
            described = file.message_type.add(name=kind.__name__)
            for field in kinds_fields:
                field.add_to(described, package)
        pool = DescriptorPool()
        pool.Add(file)
        self._classes = {
            kind: GetMessageClass(pool.FindMessageTypeByName(f"{package}.{kind.__name__}")) for kind in self._fields
        }

    def decode(self, kind: type[_Decoded], data: bytes) -> _Decoded:
        """Read one message; absent fields take the dataclass's defaults. Malformed when it cannot be read."""
        message = self._classes[kind]()
        try:
            message.ParseFromString(data)
            return self._to_dataclass(kind, message)
        except DecodeError as error:
            raise Malformed(f"This is not a {kind.__name__} message") from error

    def encode(self, value: object) -> bytes:
        """Write one message."""
        return self._to_message(value).SerializeToString()

    def _to_dataclass(self, kind: type[_Decoded], message: Message) -> _Decoded:
        values: dict[str, Any] = {}
        for field in self._fields[kind]:
            value = getattr(message, field.name)
            if field.repeated:
                values[field.name] = tuple(self._to_value(field, item) for item in value)
            elif message.HasField(field.name):
                values[field.name] = self._to_value(field, value)
        return kind(**values)

    def _to_value(self, field: _Field, value: Any) -> Any:
        return self._to_dataclass(field.message, value) if field.message else value

    def _to_message(self, value: object) -> Message:
        message = self._classes[type(value)]()
        for field in self._fields[type(value)]:
            item = getattr(value, field.name)
            if field.repeated:
                getattr(message, field.name).extend(map(self._to_message, item) if field.message else item)
            elif item is not None and field.message:
                getattr(message, field.name).CopyFrom(self._to_message(item))
            elif item is not None:
                setattr(message, field.name, item)
        return message


def _fields(kind: type) -> tuple[_Field, ...]:
    annotations = get_type_hints(kind, include_extras=True)
    return tuple(_field(field.name, annotations[field.name]) for field in fields(kind))


def _field(name: str, annotation: Any) -> _Field:
    inner, number = get_args(annotation)
    if isinstance(inner, UnionType):
        inner = next(member for member in get_args(inner) if member is not NoneType)
    repeated = get_origin(inner) is tuple
    if repeated:
        inner = get_args(inner)[0]
    if inner in _WIRE_TYPES:
        return _Field(name, number, _WIRE_TYPES[inner], repeated, None)
    return _Field(name, number, FieldDescriptorProto.TYPE_MESSAGE, repeated, inner)
