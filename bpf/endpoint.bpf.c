/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The host side of every pod's veth: what leaves a pod, and what the host's stack sends
 * it.
 *
 * Established connections take the fast path: one conntrack lookup. The entry names the
 * interface of each side, so that a spoofed source misses it. Everything else takes the
 * slow path: check the source, judge both sides' policy at once, remember, tell.
 *
 * Pod to pod never touches the host's stack: from_endpoint redirects into the other
 * pod, and to_endpoint sees only what comes from the host, the world and the resolver.
 */
#include "lib/neighbour.h"
#include "lib/pod.h"

static __always_inline int ignore(void)
{
	statistic(STATISTIC_IGNORED);
	return TC_ACT_SHOT;
}

/* May this packet be on this interface at all? */
static __always_inline int check_source(const struct packet *packet,
					const struct endpoint *endpoint,
					__u32 direction)
{
	const union address *own =
	    packet->family == 4 ? &endpoint->ipv4 : &endpoint->ipv6;

	if (direction == EGRESS)
		return equal(&packet->source, own) ? DROP_NONE : DROP_INVALID_SOURCE_IP;
	if (!equal(&packet->destination, own))
		return DROP_NO_ENDPOINT;
	/* A pod's address from outside: pods never come this way. */
	return bpf_map_lookup_elem(&addresses, &packet->source) ? DROP_INVALID_SOURCE_IP
								: DROP_NONE;
}

/* What every stack says unasked: group memberships, duplicate address detection. */
static __always_inline bool is_noise(const struct packet *packet)
{
	if (packet->protocol == PROTOCOL_ICMPV6 && is_unspecified(&packet->source))
		return true;
	return is_multicast(&packet->destination) &&
	       (packet->protocol == IPPROTO_IGMP ||
		(packet->protocol == PROTOCOL_ICMPV6 &&
		 !is_neighbour_discovery(packet)));
}

static __always_inline int from_neighbour(struct __sk_buff *skb,
					  const struct packet *packet,
					  const struct endpoint *endpoint)
{
	const struct macs gateway = {HOST_MAC, POD_MAC};
	int reason = judge_neighbour(skb, packet, endpoint);

	if (reason == -NEIGHBOUR_ANSWER)
		return answer_neighbour(skb, packet, &gateway);
	if (reason == -NEIGHBOUR_PASS)
		return TC_ACT_OK;
	return reason < 0 ? ignore() : refuse(skb, packet, EGRESS, reason);
}

__global int slow_path(struct __sk_buff *skb, struct packet *packet, __u32 direction)
{
	__u32 ifindex = skb->ifindex;
	const struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	int reason;

	if (!packet)
		return TC_ACT_SHOT;
	if (is_neighbour_discovery(packet) && direction == INGRESS)
		return TC_ACT_OK;
	if (is_noise(packet))
		return ignore();
	if (!endpoint)
		return refuse(skb, packet, direction, DROP_NO_ENDPOINT);
	if (is_neighbour_discovery(packet))
		return from_neighbour(skb, packet, endpoint);
	if (is_multicast(&packet->destination))
		return refuse(skb, packet, direction, DROP_MULTICAST);
	reason = check_source(packet, endpoint, direction);
	if (reason)
		return refuse(skb, packet, direction, reason);
	if (!is_icmp_error(packet))
		return connection(skb, packet, endpoint, direction, NULL);
	reason = related(skb, packet, direction, &ifindex);
	if (reason == -RELATED_OUTSIDE)
		return bpf_redirect_neigh(ifindex, NULL, 0, 0);
	if (reason)
		return refuse(skb, packet, direction, reason);
	return direction == EGRESS && ifindex ? bpf_redirect_peer(ifindex, 0)
					      : TC_ACT_OK;
}

static __noinline int from_arp(struct __sk_buff *skb, const struct packet *packet)
{
	const struct macs gateway = {HOST_MAC, POD_MAC};
	struct arp arp;
	int reason = judge_arp(skb, &arp);

	if (reason == -NEIGHBOUR_ANSWER)
		return answer_arp(skb, &arp, &gateway);
	if (reason == -NEIGHBOUR_PASS)
		return TC_ACT_OK;
	return reason < 0 ? ignore() : refuse(skb, packet, EGRESS, reason);
}

/* What connection() said is a question that policy lets through. Answered here it
 * leaves no trace in conntrack: nothing comes back that it would have to let in. */
static __noinline int resolve_name(struct __sk_buff *skb, struct packet *packet)
{
	__u32 length = skb->len, ifindex = skb->ifindex, zero = 0;
	const struct question *question = bpf_map_lookup_elem(&new_question, &zero);
	int answer = question ? answer_name(skb, packet, question->endpoint) : 0;

	if (answer < 0)
		return TC_ACT_SHOT;
	if (answer) {
		tell_answer(packet, answer, ifindex, length);
		return bpf_redirect_peer(ifindex, 0);
	}
	statistic(STATISTIC_NAMES_PASSED);
	packet->passed = true;
	return ASKED;
}

static __always_inline int classify(struct __sk_buff *skb, struct packet *packet,
				    __u32 direction)
{
	struct conntrack_key key;
	struct conntrack *entry;
	struct ethhdr *ethernet;
	__u32 side;
	int reason;

	pull_headers(skb);
	ethernet = packet_at(skb, 0);
	if ((void *)(ethernet + 1) > packet_end(skb))
		return refuse(skb, packet, direction, DROP_INVALID_PACKET);
	if (unlikely(skb->vlan_present))
		return refuse(skb, packet, direction, DROP_UNSUPPORTED_L2);
	if (direction == EGRESS && unlikely(!is_pod_mac(ethernet->h_source)))
		return refuse(skb, packet, direction, DROP_INVALID_SOURCE_MAC);
	if (unlikely(ethernet->h_proto == htons(ETH_P_ARP)))
		return direction == INGRESS ? TC_ACT_OK : from_arp(skb, packet);
	reason = parse(skb, packet, ethernet->h_proto);
	if (unlikely(reason))
		return refuse(skb, packet, direction, reason);
	if (direction == EGRESS && unlikely(asks_name(packet))) {
		reason = ask_again(skb, packet);
		if (reason != ASKED)
			return reason;
	}
	side = conntrack_key(packet, &key);
	entry = bpf_map_lookup_elem(&conntrack, &key);
	if (likely(entry) && likely(!opens(packet)) && entry->revision == revision()) {
		__u32 source = entry->ifindex[side & 1];
		__u32 destination = entry->ifindex[!(side & 1)];
		bool ours = direction == EGRESS
				? source == skb->ifindex
				: !source && destination == skb->ifindex;

		if (likely(ours) && conntrack_touch(entry, packet, side, skb->len)) {
			if (direction == INGRESS)
				return TC_ACT_OK;
			if (likely(destination))
				return bpf_redirect_peer(destination, 0);
			if (entry->client_ifindex)
				return depart(skb, packet, entry);
			return leave(skb, packet, entry->identity[!(side & 1)]);
		}
	}
	reason = slow_path(skb, packet, direction);
	if (direction == EGRESS && reason == DEPARTS)
		return depart_judged(skb, packet);
	if (direction == EGRESS && reason == ASKED) {
		reason = resolve_name(skb, packet);
		if (reason == ASKED) /* not from here: the stack is short */
			reason = slow_path(skb, packet, direction);
	}
	return reason;
}

SEC("tc") int from_endpoint(struct __sk_buff *skb)
{
	struct packet packet = {};

	return classify(skb, &packet, EGRESS);
}

SEC("tc") int to_endpoint(struct __sk_buff *skb)
{
	struct packet packet = {};

	return classify(skb, &packet, INGRESS);
}

char LICENSE[] SEC("license") = "GPL";
