"""Pods from templates: names, labels, owner and the hash that tells revisions apart.

The hash covers the template without its defaults, so it survives an upgrade that adds fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from random import Random

import msgspec

from sixfold.model.meta import ObjectMeta
from sixfold.model.workload import Controller, Pod, PodSpec, PodTemplateSpec

# no vowels, no 0/1/3: Kubernetes' alphabet, so that no name spells a word
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
HASH_LENGTH = 10
SUFFIX_LENGTH = 5
BASE_MAX = 58  # 63 for a hostname, less the suffix

_encoder = msgspec.json.Encoder(order="sorted")


def template_hash(template: PodTemplateSpec) -> str:
    """Equal for equal templates, ten letters."""
    digest = hashlib.blake2b(_encoder.encode(template), digest_size=8).digest()
    return _letters(int.from_bytes(digest, "big"), HASH_LENGTH)


def _letters(number: int, length: int) -> str:
    out = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        out.append(ALPHABET[digit])
    return "".join(out)


def random_name(base: str, chance: Random, taken: Collection[str]) -> str:
    """``base`` and five random letters: none of ``taken``."""
    while True:
        name = base[:BASE_MAX] + "".join(chance.choices(ALPHABET, k=SUFFIX_LENGTH))
        if name not in taken:
            return name


def pod_of(
    controller: Controller,
    name: str,
    labels: Mapping[str, str],
    *,
    generate_name: str = "",
    spec: PodSpec | None = None,
) -> Pod:
    """A pod of this controller's template; ``labels`` come on top of the template's."""
    template = controller.spec.template
    meta = controller.metadata
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=meta.namespace,
            generate_name=generate_name,
            labels={**template.metadata.labels, **labels},
            annotations=dict(template.metadata.annotations),
            owner_references=[
                {
                    "apiVersion": controller.api_version,
                    "kind": controller.kind,
                    "name": meta.name,
                    "uid": meta.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        ),
        spec=spec or template.spec,
    )
