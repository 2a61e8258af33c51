"""What is wrong with names, labels and selectors of any object.

Source: apimachinery validation of ObjectMeta and LabelSelector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sixfold.manifest import names
from sixfold.manifest.announcing import announcing
from sixfold.manifest.balancing import balancing
from sixfold.manifest.fields import REFUSED
from sixfold.manifest.path import Finding, Path
from sixfold.model.acceleration import ACCELERATION, NONE, SOCKMAP
from sixfold.model.discovery import DISCOVERY, FALSE, OPEN, REACHABLE, REDIRECT, TRUE
from sixfold.model.enforcement import AUDIT, ENFORCE, ENFORCEMENT
from sixfold.model.kinds import Kind
from sixfold.model.meta import LabelSelector, Object, ObjectMeta
from sixfold.model.placement import NODE, PLACEMENT, WORKLOAD
from sixfold.model.policies import POLICY_KINDS

INT32_MAX = (1 << 31) - 1
_ANNOTATIONS_BYTES_MAX = 256 * 1024
_NAME_RULES: Mapping[str, Callable[[str], str | None]] = {
    "Namespace": names.dns_label,
    "Service": names.dns_label_1035,
}


def metadata(kind: Kind, meta: ObjectMeta) -> Iterator[Finding]:
    """Findings about the metadata of a top-level object."""
    path: Path = ("metadata",)
    if meta.name:
        yield from said((*path, "name"), _NAME_RULES.get(kind.name, names.dns_subdomain)(meta.name))
    elif meta.generate_name:
        message = "names are not made up here, apply must find the object again; give name"
        yield Finding((*path, "generateName"), message)
    else:
        yield Finding((*path, "name"), "is required; add it")
    if meta.namespace and not kind.namespaced:
        yield Finding((*path, "namespace"), f"a {kind.name} is in no namespace; remove it")
    elif meta.namespace:
        yield from said((*path, "namespace"), names.dns_label(meta.namespace))
    yield from _owners((*path, "ownerReferences"), meta)
    yield from labelled(path, meta)
    yield from balancing(kind.name, path, meta)
    yield from announcing(kind.name, path, meta)
    yield from asked_for(kind.name, path, meta)
    yield from _ours(kind, meta)


def asked_for(kind: str, path: Path, meta: ObjectMeta) -> Iterator[Finding]:
    """Findings about what pods may ask for; of a template, ``kind`` is Pod."""
    for annotation, values in _ASKED.items():
        value = meta.annotations.get(annotation)
        here = (*path, "annotations", annotation)
        if value is None:
            continue
        if kind not in ("Pod", "Namespace"):
            yield Finding(here, f"means nothing on a {kind}; give it to a Namespace or Pod")
        elif value not in values:
            yield Finding(here, f"{names.quoted(value)} is unknown; give {' or '.join(values)}")


_ASKED = {
    ACCELERATION: (SOCKMAP, NONE),
    REDIRECT: (TRUE, FALSE),
    PLACEMENT: (NODE, WORKLOAD),
}
_OURS: Mapping[str, tuple[tuple[str, ...], str, tuple[str, str]]] = {
    ENFORCEMENT: ((*POLICY_KINDS, "Namespace"), "a policy or Namespace", (AUDIT, ENFORCE)),
    DISCOVERY: (("Namespace",), "a Namespace", (OPEN, REACHABLE)),
}


def _ours(kind: Kind, meta: ObjectMeta) -> Iterator[Finding]:
    """A misspelt annotation would enforce what was meant to be looked at first, or not at all."""
    for annotation, (kinds, whose, values) in _OURS.items():
        value = meta.annotations.get(annotation)
        if value is None:
            continue
        here: Path = ("metadata", "annotations", annotation)
        if kind.name not in kinds:
            yield Finding(here, f"means nothing on a {kind.name}; give it to {whose}")
        elif value not in values:
            yield Finding(here, f"{names.quoted(value)} is unknown; give {' or '.join(values)}")


def _owners(path: Path, meta: ObjectMeta) -> Iterator[Finding]:
    controllers = 0
    for index, reference in enumerate(meta.owner_references):
        for name in ("kind", "name"):
            if not isinstance(reference.get(name), str) or not reference[name]:
                yield Finding((*path, index, name), "is required; add it")
        controllers += reference.get("controller") is True
        if controllers > 1:
            yield Finding((*path, index, "controller"), "a second controller; keep one")


def labelled(path: Path, meta: ObjectMeta) -> Iterator[Finding]:
    """Findings about labels and annotations, of an object or a pod template."""
    yield from labels((*path, "labels"), meta.labels)
    size = 0
    for key, value in meta.annotations.items():
        yield from said((*path, "annotations", key), names.label_key(key))
        size += len(key) + len(value)
    if size > _ANNOTATIONS_BYTES_MAX:
        message = f"{size} bytes of annotations; give at most {_ANNOTATIONS_BYTES_MAX}"
        yield Finding((*path, "annotations"), message)


def labels(path: Path, pairs: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about a map of labels."""
    for key, value in pairs.items():
        wrong = names.label_key(key) or names.label_value(value)
        yield from said((*path, key), wrong)


def selector(path: Path, wanted: LabelSelector) -> Iterator[Finding]:
    """Findings about a label selector; an empty one is valid."""
    yield from labels((*path, "matchLabels"), wanted.match_labels)
    for index, requirement in enumerate(wanted.match_expressions):
        here = (*path, "matchExpressions", index)
        yield from said((*here, "key"), names.label_key(requirement.key))
        needs_values = requirement.operator in ("In", "NotIn")
        if needs_values and not requirement.values:
            message = f"operator {requirement.operator} needs values; add at least one"
            yield Finding((*here, "values"), message, also=((*here, "operator"),))
        if requirement.values and not needs_values:
            message = f"operator {requirement.operator} takes no values; remove them"
            yield Finding((*here, "values"), message, also=((*here, "operator"),))
        for number, value in enumerate(requirement.values):
            yield from said((*here, "values", number), names.label_value(value))


def refused_values(path: Path, struct: Object, *, offline: bool) -> Iterator[Finding]:
    """Findings about typed fields whose value asks for what we do not do."""
    refused = REFUSED.get(type(struct), {})
    for name, field in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        refusal = refused.get(field)
        if refusal and not refusal.tolerates(getattr(struct, name), offline=offline):
            message = f"not supported: {refusal.why}; see docs/support.md"
            yield Finding((*path, field), message)


def between(path: Path, value: int | None, least: int, most: int = INT32_MAX) -> Iterator[Finding]:
    """A finding when a number is out of its bounds; both ends are in."""
    if value is not None and not least <= value <= most:
        shown = names.quoted(value)
        yield Finding(path, f"{shown} is out of range; give {least} to {most}")


def said(path: Path, wrong: str | None) -> Iterator[Finding]:
    """What a rule of ``names`` said, as a finding."""
    if wrong:
        yield Finding(path, wrong)
