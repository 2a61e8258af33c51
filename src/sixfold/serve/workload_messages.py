"""Messages of the SPIFFE Workload API, declared here instead of compiled from a file.

Source: spiffe/spiffe, standards/workloadapi.proto: numbers and types of fields are its.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

FILE = "sixfold/workload.proto"  # not the name that clients use in the same process
STRING, BYTES = (
    descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
)
PACKAGE = "sixfold.workload"  # on the wire no message has a name
STRUCT = ".google.protobuf.Struct"

# Message: field: (number, type, repeated). A type in quotes is a message; "map": string to bytes.
Field = tuple[int, int | str, bool]
MESSAGES: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {
        "X509SVIDRequest": {},
        "X509SVID": {
            "spiffe_id": (1, STRING, False),
            "x509_svid": (2, BYTES, False),
            "x509_svid_key": (3, BYTES, False),
            "bundle": (4, BYTES, False),
            "hint": (5, STRING, False),
        },
        "X509SVIDResponse": {
            "svids": (1, "X509SVID", True),
            "crl": (2, BYTES, True),
            "federated_bundles": (3, "map", True),
        },
        "X509BundlesRequest": {},
        "X509BundlesResponse": {"crl": (1, BYTES, True), "bundles": (2, "map", True)},
        "JWTSVIDRequest": {"audience": (1, STRING, True), "spiffe_id": (2, STRING, False)},
        "JWTSVID": {
            "spiffe_id": (1, STRING, False),
            "svid": (2, STRING, False),
            "hint": (3, STRING, False),
        },
        "JWTSVIDResponse": {"svids": (1, "JWTSVID", True)},
        "JWTBundlesRequest": {},
        "JWTBundlesResponse": {"bundles": (1, "map", True)},
        "ValidateJWTSVIDRequest": {"audience": (1, STRING, False), "svid": (2, STRING, False)},
        "ValidateJWTSVIDResponse": {
            "spiffe_id": (1, STRING, False),
            "claims": (2, STRUCT, False),
        },
    }
)


def _declare() -> dict[str, Any]:
    """Message classes by name."""
    proto = descriptor_pb2.FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
    proto.dependency.append(struct_pb2.DESCRIPTOR.name)
    for name, fields in MESSAGES.items():
        message = proto.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            _add_field(message, field, number, kind, repeated=repeated)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(proto.SerializeToString())
    found = message_factory.GetMessageClassesForFiles([FILE], pool)
    return {name.removeprefix(f"{PACKAGE}."): class_ for name, class_ in found.items()}


def _add_field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: int | str,
    *,
    repeated: bool,
) -> None:
    label = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
    field = message.field.add(
        name=name, number=number, label=getattr(descriptor_pb2.FieldDescriptorProto, label)
    )
    if isinstance(kind, int):
        field.type = kind  # type: ignore[assignment]
        return
    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    if kind != "map":
        field.type_name = kind if kind.startswith(".") else f".{PACKAGE}.{kind}"
        return
    entry_name = f"{name.title().replace('_', '')}Entry"
    entry = message.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    _add_field(entry, "key", 1, STRING, repeated=False)
    _add_field(entry, "value", 2, BYTES, repeated=False)
    field.type_name = f".{PACKAGE}.{message.name}.{entry_name}"


CLASSES = _declare()
