"""Random cases in all policy languages at once; ``cases`` makes the pods and NetworkPolicies."""

import random

from tests.policy import cases
from tests.policy.cases import KEYS, VALUES, block, selector

ORDERED = ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
ACTIONS = {"ClusterNetworkPolicy": ("Accept", "Deny", "Pass")}
ENTITIES = ("all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "none")
GROUPS = ("partners", "pods")
NAMES = ("api.example.com", "www.example.com", "a.b.example.com", "example.com", "api.other.com")
PATTERNS = ("*.example.com", "**.example.com", "a*.example.com", "*", "api.*.com", "*w.*x*e.com")
ICMP_TYPES = {"ICMP": (8, 13), "ICMPv6": (128, 130)}


def case(seed, posture="kubernetes"):
    """A world of ``cases`` with one to four more policies, services, groups and names."""
    pick = random.Random(seed * 7919)
    found = cases.case(seed, posture)
    for pod in found["pods"]:
        pod["account"] = pick.choice(("default", "builder"))
    if pick.random() < 0.5:  # otherwise they isolate nearly everybody
        found["policies"] = found["policies"][: pick.randint(0, 1)]
    found["services"] = [service(pick, name) for name in ("red", "blue")]
    found["groups"] = {name: group(pick) for name in GROUPS}
    found["domains"] = {
        name: pick.sample(cases.OUTSIDE, pick.choice((0, 1, 1, 2))) for name in NAMES
    }
    found["policies"] += [policy(pick, at) for at in range(pick.randint(1, 4))]
    return unique(found)


def unique(found):
    """There is one BaselineAdminNetworkPolicy at most."""
    kinds = [raw["kind"] == "BaselineAdminNetworkPolicy" for raw in found["policies"]]
    first = kinds.index(True) if True in kinds else -1
    found["policies"] = [
        raw for at, raw in enumerate(found["policies"]) if at == first or not kinds[at]
    ]
    return found


def change(before, seed):
    """The same world with one thing changed; the rest are the same objects."""
    pick = random.Random(seed)
    after = cases.change(before, seed)
    match pick.choice(("policy", "policy", "service", "group", "name", "other")):
        case "policy":
            after["policies"].append(policy(pick, 100 + seed))
        case "service":
            after["services"] = [service(pick, "red"), *before["services"][1:]]
        case "group":
            after["groups"] = {**before["groups"], pick.choice(GROUPS): group(pick)}
        case "name":
            known = pick.sample(cases.OUTSIDE, 2)
            after["domains"] = {**before["domains"], pick.choice(NAMES): known}
    return unique(after)


def flows(case, pick, count):
    """Flows of ``cases``, and among them the host and the world, and ICMP: its port is the type of
    the request."""
    found = []
    for source, destination, protocol, port, version in cases.flows(case, pick, count):
        if pick.random() < 0.15:
            host, outside = cases.host(version), {"ip": pick.choice(cases.outside(version))}
            source, destination = pick.choice(((host, outside), (outside, host)))
        if pick.random() < 0.15:
            protocol = "ICMP" if version == 4 else "ICMPv6"
            port = pick.choice((*ICMP_TYPES[protocol], 15))
        found.append((source, destination, protocol, port, version))
    return found


def policy(pick, at):
    kind = pick.choice((*ORDERED, "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"))
    return ordered(pick, at, kind) if kind in ORDERED else cilium(pick, at, kind)


def service(pick, name):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": pick.choice("xyz"), "name": name, "labels": cases.labels(pick)},
        "spec": {"selector": cases.labels(pick), "ports": [{"port": 80}]},
    }


def group(pick):
    cidrs = [block(pick)["cidr"] for _ in range(pick.randint(1, 2))]
    return {"labels": cases.labels(pick), "cidrs": cidrs}


# --- ClusterNetworkPolicy and its forerunners ------------------------------------------------


def ordered(pick, at, kind):
    spec = {"subject": pods(pick)}
    if kind == "ClusterNetworkPolicy":
        spec["tier"] = pick.choice(("Admin", "Admin", "Baseline"))
    if kind != "BaselineAdminNetworkPolicy":
        spec["priority"] = pick.choice((0, 5, 5, 1000))
    for section, side in (("ingress", "from"), ("egress", "to")):
        if pick.random() < 0.8:
            spec[section] = [ordered_rule(pick, kind, side) for _ in range(pick.randint(0, 3))]
    name = "default" if kind == "BaselineAdminNetworkPolicy" else f"o{at}"
    older = kind != "ClusterNetworkPolicy"
    return {
        "kind": kind,
        "apiVersion": f"policy.networking.k8s.io/v1alpha{1 if older else 2}",
        "metadata": {"name": name},
        "spec": spec,
    }


def ordered_rule(pick, kind, side):
    actions = ACTIONS.get(kind, ("Allow", "Deny", "Pass"))
    action = pick.choice(actions[:2] if kind == "BaselineAdminNetworkPolicy" else actions)
    external = side == "to" and pick.random() < 0.4
    peer = networks if external else pods
    found = {"action": action, side: [peer(pick) for _ in range(pick.choice((1, 1, 2)))]}
    if external and action in ("Accept", "Allow") and pick.random() < 0.3:
        found[side].append({"domainNames": [pick.choice((*NAMES, "*.example.com"))]})
    if pick.random() < 0.6:
        new = kind == "ClusterNetworkPolicy"
        make = protocol if new else admin_port
        ports = [make(pick, named=not external) for _ in range(pick.choice((1, 1, 2)))]
        found["protocols" if new else "ports"] = ports
    return found


def pods(pick):
    if pick.random() < 0.4:
        return {"namespaces": selector(pick)}
    return {"pods": {"namespaceSelector": selector(pick), "podSelector": selector(pick)}}


def networks(pick):
    return {"networks": [block(pick)["cidr"] for _ in range(pick.choice((1, 1, 2)))]}


def protocol(pick, named):
    if named and pick.random() < 0.3:
        return {"destinationNamedPort": pick.choice(("web", "dns"))}
    inner = {}
    match pick.randint(0, 2):
        case 0:
            inner["destinationPort"] = {"number": pick.randint(80, 82)}
        case 1:
            start = pick.randint(78, 81)
            end = start + pick.randint(1, 3)
            inner["destinationPort"] = {"range": {"start": start, "end": end}}
    return {pick.choice(("tcp", "udp", "sctp")): inner}


def admin_port(pick, named):
    transport = pick.choice(cases.PROTOCOLS)
    match pick.randint(0 if named else 1, 2):
        case 0:
            return {"namedPort": pick.choice(("web", "dns"))}
        case 1:
            return {"portNumber": {"protocol": transport, "port": pick.randint(80, 82)}}
    start = pick.randint(78, 81)
    return {"portRange": {"protocol": transport, "start": start, "end": start + pick.randint(1, 3)}}


# --- Cilium ----------------------------------------------------------------------------------


def cilium(pick, at, kind):
    metadata = {"name": f"c{at}"}
    if kind == "CiliumNetworkPolicy":
        metadata["namespace"] = pick.choice("xyz")
    found = {"kind": kind, "apiVersion": "cilium.io/v2", "metadata": metadata}
    if pick.random() < 0.8:
        return {**found, "spec": cilium_spec(pick, kind)}
    return {**found, "specs": [cilium_spec(pick, kind) for _ in range(2)]}


def cilium_spec(pick, kind):
    if kind == "CiliumClusterwideNetworkPolicy" and pick.random() < 0.4:
        spec = {"nodeSelector": nodes(pick)}
    else:
        spec = {"endpointSelector": endpoints(pick)}
    for section, side in (
        ("ingress", "from"),
        ("ingressDeny", "from"),
        ("egress", "to"),
        ("egressDeny", "to"),
    ):
        if pick.random() < (0.3 if section.endswith("Deny") else 0.6):
            spec[section] = [cilium_rule(pick, side, section) for _ in range(pick.randint(0, 2))]
    if pick.random() < 0.3:
        wanted = {name: pick.choice((True, False)) for name in ("ingress", "egress")}
        spec["enableDefaultDeny"] = {k: v for k, v in wanted.items() if pick.random() < 0.7}
    return spec


def cilium_rule(pick, side, section):
    found = {}
    match pick.randint(0, 7):
        case 0 | 1:
            chosen = [endpoints(pick) for _ in range(pick.choice((0, 1, 1, 2)))]
            found[f"{side}Endpoints"] = chosen + [reserved(pick)] * (pick.random() < 0.2)
        case 2:
            found[f"{side}Entities"] = pick.sample(ENTITIES, pick.choice((1, 1, 2)))
        case 3:
            found[f"{side}CIDR"] = [block(pick)["cidr"], pick.choice(cases.OUTSIDE[:4])]
        case 4:
            found[f"{side}CIDRSet"] = [cidr_rule(pick) for _ in range(pick.choice((1, 1, 2)))]
        case 5 if side == "to":
            found["toServices"] = [to_service(pick)]
        case 6 if section == "egress":
            name, pattern = pick.choice(NAMES), pick.choice(PATTERNS)
            chosen = [{"matchName": name.title()}, {"matchPattern": f"{pattern}."}]
            found["toFQDNs"] = pick.sample(chosen, pick.choice((1, 1, 2)))
    match pick.randint(0, 5):
        case 0 | 1 | 2:
            ports = [cilium_port(pick) for _ in range(pick.choice((1, 1, 2)))]
            found["toPorts"] = [{"ports": ports}]
        case 3:
            found["icmps"] = [{"fields": [icmp(pick)]}]
    return found


def nodes(pick):
    """Mostly the host of the case, which has the labels of every node."""
    match pick.randint(0, 5):
        case 0:
            return {"matchLabels": {"kubernetes.io/hostname": "elsewhere"}}
        case 1:
            line = {"key": "zone", "operator": pick.choice(("Exists", "DoesNotExist"))}
            return {"matchExpressions": [line]}
        case 2:
            return {"matchLabels": {"k8s:kubernetes.io/os": "linux"}}
    return {}


def endpoints(pick):
    """A selector with the labels that only Cilium has."""
    found = selector(pick)
    labels = {
        pick.choice(("", "k8s:", "any:")) + key: value
        for key, value in found.get("matchLabels", {}).items()
    }
    match pick.randint(0, 7):
        case 0:
            labels["io.kubernetes.pod.namespace"] = pick.choice("xyz")
        case 1:
            labels["k8s:io.cilium.k8s.policy.serviceaccount"] = pick.choice(("default", "builder"))
        case 2:
            key = f"k8s:io.cilium.k8s.namespace.labels.{pick.choice(KEYS)}"
            labels[key] = pick.choice(VALUES)
        case 3:
            line = {"key": "k8s:io.kubernetes.pod.namespace", "operator": "In"}
            line = {**line, "values": pick.sample("xyz", 2)}
            found["matchExpressions"] = [*found.get("matchExpressions", ()), line]
        case 4:
            labels["io.cilium.k8s.policy.cluster"] = pick.choice(("default", "default", "far"))
    if labels:
        found["matchLabels"] = labels
    return found


def reserved(pick):
    """A selector for what is no pod."""
    name = pick.choice(("host", "world", "world-ipv6", "init"))
    key = f"{pick.choice(('', 'any:'))}reserved:{name}"
    found = {"matchLabels": {key: ""}} if pick.random() < 0.5 else {}
    found["matchExpressions"] = [] if found else [{"key": key, "operator": "Exists"}]
    if pick.random() < 0.3:
        found["matchExpressions"].append(
            {"key": pick.choice(KEYS), "operator": pick.choice(("Exists", "DoesNotExist"))}
        )
    return found


def cidr_rule(pick):
    match pick.randint(0, 3):
        case 0:
            return {"cidrGroupRef": pick.choice((*GROUPS, "missing"))}
        case 1:
            return {"cidrGroupSelector": selector(pick), "except": ["192.168.1.8/29"]}
    return block(pick)


def to_service(pick):
    if pick.random() < 0.5:
        named = {"serviceName": pick.choice(("red", "blue")), "namespace": pick.choice("xyz")}
        return {"k8sService": named}
    found = {"selector": selector(pick)}
    if pick.random() < 0.5:
        found["namespace"] = pick.choice("xyz")
    return {"k8sServiceSelector": found}


def cilium_port(pick):
    found = {}
    if pick.random() < 0.7:
        found["protocol"] = pick.choice((*cases.PROTOCOLS, "ANY"))
    match pick.randint(0, 4):
        case 0:
            found["port"] = "0"
        case 1:
            found["port"] = pick.choice(("web", "dns"))
        case 2:
            first = pick.randint(79, 81)
            found |= {"port": str(first), "endPort": first + pick.randint(0, 3)}
        case _:
            found["port"] = str(pick.randint(80, 82))
    return found


def icmp(pick):
    if pick.random() < 0.5:
        return {"type": pick.choice((8, 13, "EchoRequest"))}
    return {"family": "IPv6", "type": pick.choice((128, 130, "EchoRequest"))}
