"""Random cases for the comparison with the reference, and the flows worth asking about."""

import random
from ipaddress import ip_network

KEYS, VALUES = ("app", "tier"), ("red", "green", "blue")
PROTOCOLS = ("TCP", "UDP", "SCTP")
OUTSIDE = ("192.0.2.1", "198.51.100.7", "192.168.1.9", "192.168.1.14", "169.254.20.10")
OUTSIDE6 = ("2001:db8:f::1", "2001:db8:1::9", "fd00:5f::10")


def case(seed, posture="kubernetes"):
    """One world: 3 namespaces, 3 pods each, 1 to 4 policies."""
    pick = random.Random(seed)
    pods = [pod(pick, n, p) for n in range(3) for p in range(3)]
    return {
        "posture": posture,
        "ipblock_matches_pods": pick.random() < 0.8,
        "namespaces": {name: labels(pick) for name in "xyz"},
        "pods": pods,
        "policies": [policy(pick, at) for at in range(pick.randint(1, 4))],
    }


def change(before, seed):
    """The same world with one thing changed; the rest are the same objects."""
    pick = random.Random(seed)
    after = {**before, "pods": list(before["pods"]), "policies": list(before["policies"])}
    match pick.choice(("pod", "no pod", "policy", "no policy", "namespace")):
        case "pod":
            at = pick.randrange(len(after["pods"]))
            after["pods"][at] = {**after["pods"][at], "labels": labels(pick)}
        case "no pod" if len(after["pods"]) > 4:
            after["pods"].pop(pick.randrange(len(after["pods"])))
        case "no policy" if len(after["policies"]) > 1:
            after["policies"].pop(pick.randrange(len(after["policies"])))
        case "namespace":
            after["namespaces"] = {**before["namespaces"], pick.choice("xyz"): labels(pick)}
        case _:
            after["policies"].append(policy(pick, 100 + seed))
    return after


def pod(pick, n, p):
    web = {"name": "web", "protocol": pick.choice(PROTOCOLS), "port": pick.randint(80, 82)}
    dns = {"name": "dns", "protocol": pick.choice(PROTOCOLS), "port": pick.randint(80, 82)}
    return {
        "pod": f"{'xyz'[n]}/{'abc'[p]}",
        "labels": labels(pick),
        "ip": f"192.168.{n + 1}.{p + 10}",
        "ip6": f"2001:db8:{n + 1}::{p + 10}",
        "ports": pick.choice(([web], [web, dns], [dns])),
        "probes": pick.choice(([], [80])),
    }


def labels(pick):
    return {key: pick.choice(VALUES) for key in KEYS if pick.random() < 0.8}


def policy(pick, at):
    spec = {"podSelector": selector(pick)}
    for section, peers in (("ingress", "from"), ("egress", "to")):
        if pick.random() < 0.7:
            spec[section] = [rule(pick, peers) for _ in range(pick.randint(0, 2))]
    if pick.random() < 0.6:
        spec["policyTypes"] = pick.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"], []))
    return {
        "kind": "NetworkPolicy",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"namespace": pick.choice("xyz"), "name": f"p{at}"},
        "spec": spec,
    }


def rule(pick, peers):
    found = {}
    if pick.random() < 0.8:
        found[peers] = [peer(pick) for _ in range(pick.choice((0, 1, 1, 2)))]
    if pick.random() < 0.8:
        found["ports"] = [port(pick) for _ in range(pick.choice((0, 1, 1, 2)))]
    return found


def peer(pick):
    match pick.randint(0, 4):
        case 0:
            return {"podSelector": selector(pick)}
        case 1:
            return {"namespaceSelector": selector(pick)}
        case 2:
            return {"namespaceSelector": selector(pick), "podSelector": selector(pick)}
        case _:
            return {"ipBlock": block(pick)}


def block(pick):
    """A network over pod addresses, or everything, with one or two holes."""
    text = pick.choice(
        (
            *(f"192.168.{n}.{start}/{length}" for n in (1, 2) for start, length in BLOCKS),
            "0.0.0.0/0",
            "192.168.0.0/16",
            "::/0",
            "2001:db8:1::/48",
            "2001:db8:1::8/126",
        )
    )
    network = ip_network(text)
    found = {"cidr": text}
    if pick.random() < 0.5:
        deeper = network.prefixlen + pick.choice((1, 2))
        if network.version == 4 and pick.random() < 0.7 and network.prefixlen <= 16:
            found["except"] = [f"192.168.{pick.randint(1, 3)}.8/{pick.choice((29, 30))}"]
        elif deeper <= network.max_prefixlen:
            found["except"] = [str(next(network.subnets(new_prefix=deeper)))]
    return found


BLOCKS = ((8, 29), (8, 30), (12, 30), (10, 31), (0, 24))


def selector(pick):
    found = {}
    if pick.random() < 0.5:
        found["matchLabels"] = {pick.choice(KEYS): pick.choice(VALUES)}
    if pick.random() < 0.4:
        operator = pick.choice(("In", "NotIn", "Exists", "DoesNotExist"))
        line = {"key": pick.choice(KEYS), "operator": operator}
        if operator in ("In", "NotIn"):
            line["values"] = pick.sample(VALUES, pick.randint(1, 2))
        found["matchExpressions"] = [line]
    return found


def port(pick):
    found = {}
    if pick.random() < 0.7:
        found["protocol"] = pick.choice(PROTOCOLS)
    match pick.randint(0, 4):
        case 0:
            pass
        case 1:
            found["port"] = pick.choice(("web", "dns"))
        case 2:
            found["port"] = pick.randint(79, 81)
            found["endPort"] = found["port"] + pick.randint(0, 3)
        case _:
            found["port"] = pick.randint(80, 82)
    return found


def flows(case, pick, count):
    """Random flows of a case as (source, destination, protocol, port, IP version)."""
    found = []
    for _ in range(count):
        version = pick.choice((4, 4, 6))
        sides = [side(pod, version) for pod in case["pods"]]
        strangers = [{"ip": ip} for ip in outside(version)] + [host(version)]
        source, destination = pick.choice(sides), pick.choice(sides)
        if pick.random() < 0.3:
            source = pick.choice(strangers)
        elif pick.random() < 0.3:
            destination = pick.choice(strangers)
        protocol, port = pick.choice(PROTOCOLS), pick.choice((1, 53, 79, 80, 81, 82, 83, 65535))
        found.append((source, destination, protocol, port, version))
    return found


def outside(version):
    """Addresses of the world; the last is the resolver's."""
    return OUTSIDE if version == 4 else OUTSIDE6


def host(version):
    return {"ip": "192.168.0.1" if version == 4 else "2001:db8::1", "host": True}


def side(pod, version):
    """A pod by its address of one family: the reference knows one address a side."""
    return pod if version == 4 else {**pod, "ip": pod["ip6"]}
