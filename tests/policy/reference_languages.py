"""The reference for the languages beside NetworkPolicy: each by the letter, on raw YAML.

As in ``reference.py``: one flow at a time, no sets, no caches, no code of the engine. Three
questions are answered, each for one tier; ``None`` is "nothing said".
"""

from ipaddress import ip_address, ip_network

RESOLVERS = ("169.254.20.10", "fd00:5f::10")
TRANSPORTS = ("TCP", "UDP", "SCTP")
ICMP_NAMES = {("IPv4", "EchoRequest"): 8, ("IPv6", "EchoRequest"): 128}


# --- ordered tiers ---------------------------------------------------------------------------


def ordered_verdict(case, tier, subject, other, direction, protocol, port):
    """True, False or None: what the Admin or the Baseline tier says."""
    policies = [raw for raw in case["policies"] if tier_of(raw) == tier]
    policies.sort(key=lambda raw: (priority_of(raw), f"{raw['kind']} {raw['metadata']['name']}"))
    for policy in policies:
        if not chosen(case, policy["spec"]["subject"], subject):
            continue
        for rule in policy["spec"].get(direction.lower()) or []:
            peers = rule["from" if direction == "Ingress" else "to"]
            target = subject if direction == "Ingress" else other
            if not any(ordered_peer(case, peer, other) for peer in peers):
                continue
            if not ordered_ports(rule, target, protocol, port):
                continue
            if rule["action"] == "Pass":
                return None
            return rule["action"] in ("Accept", "Allow")
    return None


def tier_of(policy):
    if policy["kind"] == "ClusterNetworkPolicy":
        return policy["spec"]["tier"]
    return {"AdminNetworkPolicy": "Admin", "BaselineAdminNetworkPolicy": "Baseline"}.get(
        policy["kind"]
    )


def priority_of(policy):
    return policy["spec"].get("priority", 1000)


def chosen(case, wanted, pod):
    if "pod" not in pod:
        return False
    if "namespaces" in wanted:
        return selected(wanted["namespaces"], namespace_labels(case, pod))
    both = wanted["pods"]
    return selected(both["namespaceSelector"], namespace_labels(case, pod)) and selected(
        both["podSelector"], pod["labels"]
    )


def ordered_peer(case, peer, other):
    if "networks" in peer:
        if "pod" in other and not case.get("ipblock_matches_pods", True):
            return False
        return any(ip_address(other["ip"]) in ip_network(cidr) for cidr in peer["networks"])
    if "domainNames" in peer:
        wanted = [("*" + one if one.startswith("*") else one) for one in peer["domainNames"]]
        return is_world(other) and any(resolves(case, one, other) for one in wanted)
    return chosen(case, peer, other)


def ordered_ports(rule, target, protocol, port):
    if rule.get("protocols"):
        return any(protocol_matches(one, target, protocol, port) for one in rule["protocols"])
    if rule.get("ports"):
        return any(admin_port_matches(one, target, protocol, port) for one in rule["ports"])
    return True


def protocol_matches(one, target, protocol, port):
    if "destinationNamedPort" in one:
        return is_named(one["destinationNamedPort"], target, protocol, port)
    inner = one.get(protocol.lower())
    if inner is None:
        return False
    wanted = inner.get("destinationPort")
    if wanted is None:
        return True
    if "range" in wanted:
        return wanted["range"]["start"] <= port <= wanted["range"]["end"]
    return wanted["number"] == port


def admin_port_matches(one, target, protocol, port):
    if "namedPort" in one:
        return is_named(one["namedPort"], target, protocol, port)
    if "portNumber" in one:
        return one["portNumber"]["protocol"] == protocol and one["portNumber"]["port"] == port
    span = one["portRange"]
    return span["protocol"] == protocol and span["start"] <= port <= span["end"]


# --- names -----------------------------------------------------------------------------------


def resolves(case, pattern, other):
    return any(
        other["ip"] in addresses and means(pattern.lower().removesuffix("."), name)
        for name, addresses in case["domains"].items()
    )


def means(pattern, name):
    """By trying everything that a star could stand for, letter by letter."""
    if pattern == "*":
        return True
    if pattern.startswith("**."):
        ends = [at for at, letter in enumerate(name) if letter == "." and at > 0]
        return any(spells(pattern[3:], name[at + 1 :]) for at in ends)
    return spells(pattern, name)


def spells(pattern, name):
    if not pattern or not name:
        return pattern.strip("*") == "" and name == ""
    if pattern[0] == "*":
        return spells(pattern[1:], name) or (name[0] != "." and spells(pattern, name[1:]))
    return pattern[0] == name[0] and spells(pattern[1:], name[1:])


# --- Cilium ----------------------------------------------------------------------------------


def cilium_verdict(case, subject, other, direction, protocol, port):
    """(a deny matches, an allow matches, some policy isolates)."""
    denied = allowed = isolated = False
    for policy, spec in cilium_specs(case):
        if not cilium_subject(case, policy, spec, subject):
            continue
        name = direction.lower()
        allows, denies = spec.get(name) or [], spec.get(f"{name}Deny") or []
        wanted = (spec.get("enableDefaultDeny") or {}).get(name)
        isolated |= bool(allows or denies) if wanted is None else wanted
        target = subject if direction == "Ingress" else other
        for rule in denies:
            denied |= cilium_rule(case, policy, rule, other, target, protocol, port)
        for rule in allows:
            allowed |= cilium_rule(case, policy, rule, other, target, protocol, port)
    return denied, allowed, isolated


def cilium_specs(case):
    for policy in case["policies"]:
        if policy["kind"] in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
            specs = [policy["spec"]] if "spec" in policy else []
            for spec in specs + list(policy.get("specs", [])):
                yield policy, spec


def cilium_subject(case, policy, spec, pod):
    namespace = policy["metadata"].get("namespace")
    if "nodeSelector" in spec:
        return bool(pod.get("host")) and node_selected(spec["nodeSelector"])
    if "pod" not in pod:
        return False
    if namespace is None:
        return cilium_selected(case, spec["endpointSelector"], pod)
    if namespace_of(pod) != namespace:
        return False
    labels = {
        key: value
        for key, value in (spec["endpointSelector"].get("matchLabels") or {}).items()
        if strip(key) != "io.kubernetes.pod.namespace"
    }
    return cilium_selected(case, {**spec["endpointSelector"], "matchLabels": labels}, pod)


def node_selected(wanted):
    node = {
        "kubernetes.io/hostname": "localhost",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    pairs = (wanted.get("matchLabels") or {}).items()
    if any(node.get(strip(key)) != value for key, value in pairs):
        return False
    return all(
        (strip(line["key"]) in node) == (line["operator"] == "Exists")
        for line in wanted.get("matchExpressions") or []
    )


def cilium_rule(case, policy, rule, other, target, protocol, port):
    kinds = ("Endpoints", "Entities", "CIDR", "CIDRSet", "Services", "FQDNs")
    present = [
        (kind, rule[side + kind])
        for kind in kinds
        for side in ("from", "to")
        if side + kind in rule
    ]
    ported = bool(rule.get("toPorts") or rule.get("icmps"))
    if not present and not ported:
        return False
    if present and not any(
        cilium_peer(case, policy, kind, one, other) for kind, items in present for one in items
    ):
        return False
    return not ported or cilium_ports(rule, target, protocol, port)


def cilium_peer(case, policy, kind, one, other):
    namespace = policy["metadata"].get("namespace")
    if kind == "Endpoints":
        mentioned = [strip(key) for key in one.get("matchLabels") or {}]
        mentioned += [strip(line["key"]) for line in one.get("matchExpressions") or []]
        if any(key.startswith("reserved:") for key in mentioned) or "pod" not in other:
            return reserved_selected(one, mentioned, other)
        placed = any(
            key == "io.kubernetes.pod.namespace"
            or key.startswith("io.cilium.k8s.namespace.labels.")
            for key in mentioned
        )
        if namespace and not placed and namespace_of(other) != namespace:
            return False
        return cilium_selected(case, one, other)
    if kind == "Entities":
        return is_entity(one, other)
    if kind == "Services":
        return any(
            service_means(one, service, namespace) and backs(service, other)
            for service in case["services"]
        )
    if not is_world(other):
        return False
    if kind == "FQDNs":
        return resolves(case, one.get("matchName") or one["matchPattern"], other)
    if kind == "CIDR":
        return in_network(other, one)
    cidrs = [one["cidr"]] if "cidr" in one else []
    for name, group in case["groups"].items():
        if "cidrGroupRef" in one and one["cidrGroupRef"] == name:
            cidrs += group["cidrs"]
        if "cidrGroupSelector" in one and selected(one["cidrGroupSelector"], group["labels"]):
            cidrs += group["cidrs"]
    return any(
        in_network(other, cidr)
        and not any(
            in_network(other, hole) for hole in one.get("except") or [] if within(hole, cidr)
        )
        for cidr in cidrs
    )


def is_entity(name, other):
    pod, host = "pod" in other, bool(other.get("host"))
    version = ip_address(other["ip"]).version
    return {
        "all": True,
        "world": is_world(other),
        "world-ipv4": is_world(other) and version == 4,
        "world-ipv6": is_world(other) and version == 6,
        "cluster": pod or host,
        "host": host,
    }.get(name, False)


def service_means(wanted, service, namespace):
    meta = service["metadata"]
    if "k8sService" in wanted:
        named = wanted["k8sService"]
        where = named.get("namespace") or namespace or "default"
        return (where, named["serviceName"]) == (meta["namespace"], meta["name"])
    chosen_by = wanted["k8sServiceSelector"]
    if chosen_by.get("namespace") not in (None, meta["namespace"]):
        return False
    return selected(chosen_by["selector"], meta["labels"])


def backs(service, pod):
    wanted = service["spec"].get("selector")
    if not wanted or "pod" not in pod or namespace_of(pod) != service["metadata"]["namespace"]:
        return False
    return all(pod["labels"].get(key) == value for key, value in wanted.items())


def cilium_ports(rule, target, protocol, port):
    for each in rule.get("toPorts") or []:
        for one in each["ports"]:
            if cilium_port(one, target, protocol, port):
                return True
    for each in rule.get("icmps") or []:
        for field in each["fields"]:
            family = field.get("family", "IPv4")
            number = ICMP_NAMES.get((family, field["type"]), field["type"])
            if protocol == {"IPv4": "ICMP", "IPv6": "ICMPv6"}[family] and port == number:
                return True
    return False


def cilium_port(one, target, protocol, port):
    wanted = one.get("protocol") or "ANY"
    if wanted == "ANY" and one["port"] == "0":
        return True
    if protocol not in TRANSPORTS or wanted not in ("ANY", protocol):
        return False
    if one["port"] == "0":
        return True
    if not one["port"].isdigit():
        return is_named(one["port"], target, protocol, port)
    return int(one["port"]) <= port <= one.get("endPort", int(one["port"]))


def cilium_selected(case, wanted, pod):
    labels = dict(pod["labels"])
    labels["io.kubernetes.pod.namespace"] = namespace_of(pod)
    labels["io.cilium.k8s.policy.serviceaccount"] = pod.get("account", "default")
    labels["io.cilium.k8s.policy.cluster"] = "default"
    for key, value in namespace_labels(case, pod).items():
        labels[f"io.cilium.k8s.namespace.labels.{key}"] = value
    for key, value in (wanted.get("matchLabels") or {}).items():
        if labels.get(strip(key)) != value:
            return False
    lines = [{**line, "key": strip(line["key"])} for line in wanted.get("matchExpressions") or []]
    return selected({"matchExpressions": lines}, labels)


def reserved_selected(wanted, mentioned, other):
    """Only selectors with a reserved label mean what is no pod, and never a pod."""
    if "pod" in other or not any(key.startswith("reserved:") for key in mentioned):
        return False
    labels = {"reserved:host": ""} if other.get("host") else {}
    if is_world(other):
        labels = {"reserved:world": "", f"reserved:world-ipv{ip_address(other['ip']).version}": ""}
    items = {strip(key): value for key, value in (wanted.get("matchLabels") or {}).items()}
    lines = [{**line, "key": strip(line["key"])} for line in wanted.get("matchExpressions") or []]
    return selected({"matchLabels": items, "matchExpressions": lines}, labels)


def strip(key):
    for source in ("k8s:", "any:"):
        if key.startswith(source):
            return key[len(source) :]
    return key


# --- what they share -------------------------------------------------------------------------


def is_world(other):
    return "pod" not in other and not other.get("host") and other["ip"] not in RESOLVERS


def in_network(other, cidr):
    return ip_address(other["ip"]) in ip_network(cidr)


def within(inner, outer):
    one, two = ip_network(inner), ip_network(outer)
    return one.version == two.version and one.subnet_of(two)


def is_named(name, target, protocol, port):
    for one in target.get("ports", ()) if "pod" in target else ():
        if one["name"] == name and one["protocol"] == protocol and one["port"] == port:
            return True
    return False


def namespace_of(pod):
    return pod["pod"].split("/")[0]


def namespace_labels(case, pod):
    name = namespace_of(pod)
    return {**case["namespaces"].get(name, {}), "kubernetes.io/metadata.name": name}


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
