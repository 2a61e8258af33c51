"""Rules about identities: are certificates what they should be, and one workload's each?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from cryptography import x509

from sixfold.model.spiffe import workload_id
from sixfold.trust.audit_finding import Evidence, Finding, Object, SvidSeen
from sixfold.trust.svid import faults

LIFETIME_MAX_S = 24 * 3600.0
LEFT_MIN = 0.25  # of its lifetime: at half of it, it is renewed
GRACE_S = 30.0  # a renewal may be due for so long
WORKLOADS_SHOWN = 4


def lifetimes(evidence: Evidence) -> Iterator[Finding]:
    """Z11. What nobody follows is renewed when it is asked for, and may have run out."""
    assert evidence.live is not None
    for seen, certificate in _certificates(evidence):
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        lifetime_s = (ends - begins).total_seconds()
        left = (ends.timestamp() - evidence.live.now_s) / lifetime_s
        if lifetime_s > LIFETIME_MAX_S + 60:  # it is valid from a minute before
            yield Finding(
                "Z11",
                "high",
                _pod(seen),
                f"its certificate is valid for {lifetime_s / 3600:.0f} h",
                f"from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M}; 24 h are the most",
                "sixfold up --svid-ttl 1h, and restart the workload",
            )
        elif seen.followed and left < LEFT_MIN:
            yield Finding(
                "Z11",
                "high",
                _pod(seen),
                f"{max(0.0, left) * 100:.0f} % of its certificate's lifetime are left",
                f"it ends at {ends:%Y-%m-%d %H:%M:%S}, and was to be renewed at half of its life",
                "see why with sixfold status; the agent renews while it runs",
            )


def stalled(evidence: Evidence) -> Iterator[Finding]:
    """Z12."""
    assert evidence.live is not None
    for seen in evidence.live.svids:
        if seen.followed and seen.overdue_s > GRACE_S:
            yield Finding(
                "Z12",
                "high",
                _pod(seen),
                f"its next certificate is {seen.overdue_s:.0f} s late",
                "half of its life is over, its workload waits, and was given no other",
                "restart the agent: sixfold up --detach; running workloads are left alone",
            )


def malformed(evidence: Evidence) -> Iterator[Finding]:
    """Z13."""
    for seen, certificate in _certificates(evidence):
        for fault in faults(certificate):
            yield Finding(
                "Z13",
                "high",
                _pod(seen),
                f"its certificate is no X.509-SVID: {fault}",
                f"serial {certificate.serial_number:x}",
                "others may refuse it; report it, it was issued by this agent",
            )


def shared(evidence: Evidence) -> Iterator[Finding]:
    """Z14. Pods of one controller are alike; two controllers are not."""
    config = evidence.view.world.config
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for endpoint in evidence.view.world.endpoints.values():
        found[endpoint.namespace, endpoint.subject.service_account].add(endpoint.workload)
    for (namespace, account), workloads in sorted(found.items()):
        if len(workloads) < 2:
            continue
        names = sorted(workloads)
        more = f" and {len(names) - WORKLOADS_SHOWN} more" if len(names) > WORKLOADS_SHOWN else ""
        yield Finding(
            "Z14",
            "medium",
            Object("ServiceAccount", namespace, account),
            f"{len(names)} workloads have one identity, and none can be told from the others",
            f"{', '.join(names[:WORKLOADS_SHOWN])}{more} are "
            f"{workload_id(config.trust_domain, namespace, account)}",
            "give each its own: spec.serviceAccountName of its pods",
        )


def unattested(evidence: Evidence) -> Iterator[Finding]:
    """Z15. The control group says who a process is; the address that it sends from does not."""
    for name in sorted(evidence.view.world.on_host):
        namespace, _, workload = name.partition("/")
        if "/" in workload:
            kind, _, called = workload.partition("/")
            yield Finding(
                "Z15",
                "high",
                Object(kind, namespace, called),
                "it runs in the host's network, and nobody can tell it from the host",
                "spec.hostNetwork: true",
                "take hostNetwork out; give it a port by a Service instead",
                ("spec", "hostNetwork") if kind == "Pod" else (),
            )
    for seen in evidence.live.strays if evidence.live is not None else ():
        yield Finding(
            "Z15",
            "high",
            _object("Pod", seen.pod),
            f"{seen.process} is in its network, and no process of it",
            f"it lives in control group {seen.cgroup}, and sends under the workload's address",
            "end it, and enter the workload by sixfold exec, which attests who enters",
        )
    for one in evidence.live.unfit if evidence.live is not None else ():
        yield Finding(
            "Z15",
            "high",
            _object("Pod", one.pod),
            f"{one.process} runs in it, and is none of those that its identity is for",
            f"it is not {', '.join(one.lacks)}; the Workload API gives it nothing, and the mesh "
            "refuses its dials if that is its user or group, but not if it is its program",
            "end it, or name it in spec.workloadSelectorTemplates of a ClusterSPIFFEID",
        )


def _certificates(evidence: Evidence) -> Iterator[tuple[SvidSeen, x509.Certificate]]:
    assert evidence.live is not None
    for seen in evidence.live.svids:
        yield seen, x509.load_pem_x509_certificate(seen.certificate.encode())


def _pod(seen: SvidSeen) -> Object:
    return _object("Pod", seen.pod)


def _object(kind: str, key: str) -> Object:
    namespace, _, name = key.partition("/")
    return Object(kind, namespace, name)
