"""The reference: the tiers, and NetworkPolicy v1 by the letter, on raw YAML, one flow at a time.

No sets, no caches, no code of the engine: slow by design, so that bugs do not correlate.
A side is a pod of the case, or ``{"ip": …}`` (outside), or ``{"ip": …, "host": True}``.
"""

from ipaddress import ip_address, ip_network

from tests.policy.reference_languages import cilium_verdict, ordered_verdict

RESOLVERS = ("169.254.20.10", "fd00:5f::10")


def allowed(case, source, destination, protocol, port):
    """Whether a new connection may be made: both sides must agree."""
    if source is destination:
        return True
    return side_allows(case, source, destination, "Egress", protocol, port) and side_allows(
        case, destination, source, "Ingress", protocol, port
    )


def side_allows(case, subject, other, direction, protocol, port):
    if subject.get("host"):
        return host_allows(case, subject, other, direction, protocol, port)
    if "pod" not in subject:
        return True
    zero_trust = case.get("posture") == "zero-trust"
    if direction == "Egress" and is_dns(other, protocol, port):
        return True
    if direction == "Ingress" and is_probe(subject, other, zero_trust, protocol, port):
        return True
    flow = (subject, other, direction, protocol, port)
    admin = ordered_verdict(case, "Admin", *flow)
    if admin is not None:
        return admin
    denied, allowed_by_cilium, isolated_by_cilium = cilium_verdict(case, *flow)
    allowed_by_network_policy, isolated = network_policies(case, *flow)
    if denied:
        return False
    if allowed_by_cilium or allowed_by_network_policy:
        return True
    if isolated or isolated_by_cilium:
        return False
    baseline = ordered_verdict(case, "Baseline", *flow)
    return not zero_trust if baseline is None else baseline


def host_allows(case, host, other, direction, protocol, port):
    """No policy of the others' languages selects it; unselected it is open, in every posture."""
    if other.get("host") or other["ip"] in RESOLVERS:
        return True
    probed = [one for pod in case["pods"] for one in pod.get("probes", ())]
    if direction == "Egress" and "pod" in other and protocol == "TCP" and port in probed:
        return True
    denied, allowed, isolated = cilium_verdict(case, host, other, direction, protocol, port)
    return not denied and (allowed or not isolated)


def network_policies(case, subject, other, direction, protocol, port):
    """(a rule allows, a policy isolates)."""
    isolated = False
    for policy in case["policies"]:
        if policy["kind"] != "NetworkPolicy":
            continue
        namespace = policy["metadata"]["namespace"]
        spec = policy.get("spec", {})
        if namespace != namespace_of(subject):
            continue
        if direction not in types_of(spec):
            continue
        if not selected(spec.get("podSelector") or {}, subject["labels"]):
            continue
        isolated = True
        for rule in spec.get(direction.lower()) or []:
            peers = rule.get("from" if direction == "Ingress" else "to")
            target = subject if direction == "Ingress" else other
            if peers_match(case, peers, namespace, other) and ports_match(
                rule.get("ports"), target, protocol, port
            ):
                return True, True
    return False, isolated


def is_dns(other, protocol, port):
    return other.get("ip") in RESOLVERS and protocol in ("TCP", "UDP") and port == 53


def is_probe(subject, other, zero_trust, protocol, port):
    if not other.get("host"):
        return False
    return not zero_trust or (protocol == "TCP" and port in subject.get("probes", ()))


def types_of(spec):
    if spec.get("policyTypes"):
        return spec["policyTypes"]
    if spec.get("egress"):
        return ["Ingress", "Egress"]
    return ["Ingress"]


def peers_match(case, peers, namespace, other):
    if not peers:
        return True
    return any(peer_matches(case, peer, namespace, other) for peer in peers)


def peer_matches(case, peer, namespace, other):
    if peer.get("ipBlock") is not None:
        if "pod" in other and not case.get("ipblock_matches_pods", True):
            return False
        address = ip_address(other["ip"])
        block = peer["ipBlock"]
        if address not in ip_network(block["cidr"]):
            return False
        return all(address not in ip_network(one) for one in block.get("except") or [])
    if "pod" not in other:
        return False
    if peer.get("namespaceSelector") is not None:
        name = namespace_of(other)
        labels = dict(case["namespaces"].get(name, {}))
        labels["kubernetes.io/metadata.name"] = name
        if not selected(peer["namespaceSelector"], labels):
            return False
    elif namespace_of(other) != namespace:
        return False
    if peer.get("podSelector") is None:
        return True
    return selected(peer["podSelector"], other["labels"])


def ports_match(ports, target, protocol, port):
    if not ports:
        return True
    for one in ports:
        if one.get("protocol", "TCP") != protocol:
            continue
        wanted = one.get("port")
        if wanted is None:
            return True
        if isinstance(wanted, str):
            for named in target.get("ports", ()) if "pod" in target else ():
                same = named["name"] == wanted and named["protocol"] == protocol
                if same and named["port"] == port:
                    return True
        elif wanted <= port <= one.get("endPort", wanted):
            return True
    return False


def selected(selector, labels):
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for line in selector.get("matchExpressions") or []:
        key, operator, values = line["key"], line["operator"], line.get("values", [])
        if operator == "In" and not (key in labels and labels[key] in values):
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def namespace_of(pod):
    return pod["pod"].split("/")[0]
