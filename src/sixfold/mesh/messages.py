"""Envoy's configuration as protobuf messages: type URLs, packing, and what the package lacks.

Pure. ``xds-protos`` has the messages of Envoy's API; two that this mesh needs are newer than it
and are declared here: numbers and types of fields are those of envoyproxy/envoy 1.40, ``api/``.
Importing this costs 26 MB, so nobody does who has no mesh.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.config.route.v3.scoped_route_pb2 import ScopedRouteConfiguration
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.runtime.v3.rtds_pb2 import Runtime
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

__all__ = ["Cluster", "Listener", "RouteConfiguration", "Secret"]

PREFIX = "type.googleapis.com/"
TLS = "envoy.extensions.transport_sockets.tls"


def type_url(message: type[Any]) -> str:
    return f"{PREFIX}{message.DESCRIPTOR.full_name}"


CLUSTER, LISTENER, ROUTE, SECRET = map(type_url, (Cluster, Listener, RouteConfiguration, Secret))
EXTENSION = type_url(extension_pb2.TypedExtensionConfig)
ENDPOINTS = type_url(ClusterLoadAssignment)
RUNTIME = type_url(Runtime)
SCOPE = type_url(ScopedRouteConfiguration)

ADS = {"ads": {}, "resource_api_version": "V3"}  # where a resource that is named is asked for
Name = tuple[str, str]  # type URL, name


class Resource(NamedTuple):
    """One named piece of configuration, packed; its version is what it says.

    on_demand  Envoy asks for it when it needs it before it was told
    """

    type_url: str
    name: str
    version: str
    body: any_pb2.Any
    on_demand: bool = False

    @property
    def key(self) -> Name:
        return self.type_url, self.name


def resource(name: str, message: Message, *, on_demand: bool = False) -> Resource:
    """A message under its name; the same content has the same version, whoever packs it."""
    body = packed(message)
    version = blake2b(body.value, digest_size=8).hexdigest()
    return Resource(body.type_url, name, version, body, on_demand)


def packed(message: Message) -> any_pb2.Any:
    return any_pb2.Any(
        type_url=type_url(type(message)), value=message.SerializeToString(deterministic=True)
    )


def extension(name: str, message: Message) -> dict[str, Any]:
    """A filter, transport socket or other extension: its name and its configuration."""
    return {"name": name, "typed_config": packed(message)}


def asleep(filter_: dict[str, Any]) -> dict[str, Any]:
    """A filter of HTTP that no stream has, until its route has a configuration for it."""
    return {**filter_, "disabled": True}


def _declare(package: str, fields: dict[str, tuple[int, type[Message] | type[str]]]) -> Any:
    """The class of message ``Config`` of a package; fields by name: number, type."""
    file = f"sixfold/{package}.proto"
    proto = descriptor_pb2.FileDescriptorProto(name=file, package=package, syntax="proto3")
    message = proto.message_type.add(name="Config")
    for name, (number, kind) in fields.items():
        field = message.field.add(
            name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        )
        if issubclass(kind, Message):
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f".{kind.DESCRIPTOR.full_name}"
            proto.dependency.append(kind.DESCRIPTOR.file.name)
        else:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(proto.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Config"))


OnDemandSecret = _declare(
    f"{TLS}.cert_selectors.on_demand_secret.v3",
    {
        "config_source": (1, config_source_pb2.ConfigSource),
        "certificate_mapper": (2, extension_pb2.TypedExtensionConfig),
    },
)
SecretOfFilterState = _declare(
    f"{TLS}.cert_mappers.filter_state_override.v3", {"default_value": (1, str)}
)
