"""core/v1 Secret and ConfigMap: texts that other objects refer to. No pod is given any."""

from __future__ import annotations

from base64 import b64decode

from sixfold.model.meta import Object, ObjectMeta, written

TLS_TYPE = "kubernetes.io/tls"
CERTIFICATE, KEY = "tls.crt", "tls.key"


class Secret(Object):
    """``data`` is base64, ``string_data`` is not, and becomes ``data`` when it is stored."""

    metadata: ObjectMeta
    api_version: str = written("v1")
    kind: str = written("Secret")
    type: str = "Opaque"
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}
    immutable: bool = False

    def __repr__(self) -> str:  # in no log and no traceback
        return f"Secret({self.metadata.namespace}/{self.metadata.name})"

    def value(self, name: str) -> bytes:
        """Of one entry; empty when there is none."""
        if name in self.string_data:
            return self.string_data[name].encode()
        return b64decode(self.data.get(name, ""))


class ConfigMap(Object):
    metadata: ObjectMeta
    api_version: str = written("v1")
    kind: str = written("ConfigMap")
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}  # base64
    immutable: bool = False
