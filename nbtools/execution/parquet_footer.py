"""Columns, types and rows of a Parquet file, from its footer alone.

pyarrow does this, too, but takes longer to import than a short stage takes to run; this is done beside every stage. The
footer is a Thrift structure in the compact protocol (https://parquet.apache.org/docs/file-format/metadata/,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md). Only its first fields are read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MAGIC = b"PAR1"
_LARGEST_FOOTER = 256 << 20
_PHYSICAL = ("bool", "int32", "int64", "timestamp[ns]", "float", "double", "binary", "fixed_size_binary")
_UNITS = {1: "ms", 2: "us", 3: "ns"}
# Numbers of fields in parquet.thrift.
_SCHEMA, _ROWS = 2, 3
_TYPE, _NAME, _CHILDREN, _CONVERTED, _LOGICAL = 1, 4, 5, 6, 10
_REPETITION, _REPEATED = 3, 2
#: ConvertedType, which older writers use instead of LogicalType.
_CONVERTED_TYPES = {
    0: "string",
    1: "map",
    3: "list",
    4: "string",
    6: "date32[day]",
    9: "timestamp[ms]",
    10: "timestamp[us]",
    11: "uint8",
    12: "uint16",
    13: "uint32",
    14: "uint64",
    15: "int8",
    16: "int16",
    17: "int32",
    18: "int64",
    19: "string",
}
#: Members of the union LogicalType that say all by themselves.
_LOGICAL_TYPES = {
    1: "string",
    2: "map",
    3: "list",
    4: "string",
    6: "date32[day]",
    12: "string",
    15: "halffloat",
}


def read_footer(path: Path) -> tuple[int, dict[str, str]]:
    """Return the number of rows, and the type of each column by name, much as Arrow calls it.

    Raises
    ------
    ValueError
        If it is no Parquet file.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
        if len(tail) < 8 or tail[4:] != _MAGIC:
            raise ValueError("it is no Parquet file")
        (length,) = struct.unpack("<I", tail[:4])
        if length > min(size - 8, _LARGEST_FOOTER):
            raise ValueError("its footer is damaged")
        stream.seek(size - 8 - length)
        footer = stream.read(length)
    try:
        fields = _Reader(footer).struct(until=_ROWS)
        return int(fields[_ROWS]), _columns(fields[_SCHEMA])
    except (IndexError, KeyError, TypeError, struct.error) as error:
        raise ValueError("its footer is damaged") from error


def _columns(elements: Sequence[Mapping[int, Any]]) -> dict[str, str]:
    """Return the columns of a schema, whose elements stand in depth-first order, the root first."""
    found: dict[str, str] = {}
    position = 1
    for _ in range(elements[0].get(_CHILDREN, 0)):
        found[elements[position][_NAME].decode("utf-8", "replace")] = _type(elements[position])
        position = _after(elements, position)
    return found


def _after(elements: Sequence[Mapping[int, Any]], position: int) -> int:
    pending = 1
    while pending:
        pending += elements[position].get(_CHILDREN, 0) - 1
        position += 1
    return position


def _type(element: Mapping[int, Any]) -> str:
    name = _logical(element.get(_LOGICAL) or {}) or _CONVERTED_TYPES.get(element.get(_CONVERTED, -1), "")
    if not name:
        name = "struct" if _TYPE not in element else _PHYSICAL[element[_TYPE]]
    return f"list<{name}>" if element.get(_REPETITION) == _REPEATED else name


def _logical(union: Mapping[int, Any]) -> str:
    for member, value in union.items():
        if member == 5:
            return f"decimal({value.get(2)}, {value.get(1)})"
        if member in (7, 8):
            unit = next((_UNITS[number] for number in value.get(2, {}) if number in _UNITS), "?")
            zone = ", tz=UTC" if value.get(1) and member == 8 else ""
            return f"{'timestamp' if member == 8 else 'time'}[{unit}{zone}]"
        if member == 10:
            bits = value.get(1, 0)
            return f"{'' if value.get(2) else 'u'}int{bits[0] if isinstance(bits, bytes) else bits}"
        return _LOGICAL_TYPES.get(member, "")
    return ""


class _Reader:
    """Reads Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, until: int = 1 << 15) -> dict[int, Any]:
        """Return the fields of a struct by number, up to that of the number ``until``."""
        fields: dict[int, Any] = {}
        number = 0
        while number < until and (head := self._byte()):
            step = head >> 4
            number = number + step if step else self._zigzag()
            kind = head & 0x0F
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):  # in a list, a byte of its own
            return self._byte() == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._take(8)
        if kind == 8:
            return self._take(self._varint())
        if kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 != 15 else self._varint()
            return [self._value(head & 0x0F) for _ in range(size)]
        if kind == 12:
            return self.struct()
        raise KeyError(kind)  # a map: there is none in these fields

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise IndexError
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
