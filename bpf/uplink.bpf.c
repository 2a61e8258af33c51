/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The host's uplinks: what comes in from the world, and what leaves for it.
 *
 * Not every packet here is ours to judge, and we are not alone on these devices: what
 * passes goes on to whoever is attached behind us (TCX_NEXT), never past them.
 *
 *   in   services of the node, as outside knows them; then the host's own policy
 *   out  answers of backends that are no pods (lib/relay.h); the host's own policy
 *
 * A packet to a service is translated here and goes straight into the pod, under its
 * client's own address; the pod's answer is turned back where it leaves the pod
 * (from_endpoint), and goes straight to the device on which its client is.
 */
#include "lib/enter.h"
#include "lib/host.h"
#include "lib/vicinity.h"

#define PACKET_HOST 0

/* Whether any service is to be had from outside; if not, nothing of this runs. */
static __always_inline bool is_served(void)
{
	__u32 index = RUNTIME_OUTSIDE;
	__u32 *value = bpf_map_lookup_elem(&runtime, &index);

	return value && *value;
}

/* An error about what a backend has sent to a client outside. */
__global int error_arrives(struct __sk_buff *skb, const struct packet *error)
{
	struct place from = {}, to = {};
	const struct endpoint *endpoint;
	const struct arrival *arrival;
	struct packet quoted = {};
	struct tuple tuple = {};

	if (!error || (error->icmp_type == 5 && error->protocol == IPPROTO_ICMP) ||
	    parse_quoted(skb, error, &quoted) ||
	    !equal(&quoted.source, &error->destination))
		return TCX_NEXT;
	tuple.source = quoted.destination;
	tuple.destination = quoted.source;
	tuple.port[0] = quoted.destination_port;
	tuple.port[1] = quoted.source_port;
	tuple.protocol = quoted.protocol;
	arrival = bpf_map_lookup_elem(&arrivals, &tuple);
	endpoint = arrival ? bpf_map_lookup_elem(&addresses, &arrival->backend) : NULL;
	if (!arrival || (!endpoint && !(arrival->flags & ARRIVAL_RELAYED)))
		return TCX_NEXT;
	from.address = quoted.source;
	from.port = quoted.source_port;
	to.address = arrival->backend;
	to.port = arrival->port;
	if (rewrite_error(skb, error, &quoted, &from, &to))
		return TC_ACT_SHOT;
	return endpoint ? bpf_redirect_peer(endpoint->ifindex, 0) : TO_STACK;
}

static __noinline int malformed(struct __sk_buff *skb, const struct packet *packet,
				int reason)
{
	return packet->family && is_announced(&packet->destination)
		   ? refuse(skb, packet, INGRESS, reason)
		   : TCX_NEXT;
}

/* What is IP for us, and in one piece enough to be looked at. */
static __always_inline int receive(struct __sk_buff *skb, struct packet *packet,
				   __u32 offset)
{
	int verdict = skb->protocol == htons(ETH_P_IP)
			  ? parse_ipv4_at(skb, packet, offset)
			  : parse_ipv6_at(skb, packet, offset);

	if (unlikely(verdict))
		return malformed(skb, packet, verdict);
	if (unlikely(is_neighbour_discovery(packet)))
		return asked_by_neighbour(skb, packet);
	if (skb->pkt_type != PACKET_HOST)
		return TCX_NEXT;
	if (unlikely(packet->protocol != IPPROTO_TCP &&
		     packet->protocol != IPPROTO_UDP))
		return is_icmp_error(packet) ? error_arrives(skb, packet)
					     : echo_arrives(skb, packet);
	verdict = go_on(skb, packet);
	if (likely(verdict != NOT_OURS && verdict != UNSURE))
		return verdict;
	if (verdict == NOT_OURS && !dialled_frontend(packet))
		return TCX_NEXT;
	return arrive(skb, packet, verdict == UNSURE);
}

static __always_inline int to_services(struct __sk_buff *skb, struct packet *packet,
				       __u32 offset)
{
	const struct ethhdr *ethernet;

	if (!is_served() || skb->vlan_present)
		return TCX_NEXT;
	pull_headers(skb);
	ethernet = packet_at(skb, 0);
	if (offset && (void *)(ethernet + 1) > packet_end(skb))
		return TCX_NEXT;
	if (offset && unlikely(ethernet->h_proto == htons(ETH_P_ARP)))
		return asked_by_arp(skb);
	if (skb->protocol != htons(ETH_P_IP) && skb->protocol != htons(ETH_P_IPV6))
		return TCX_NEXT;
	return receive(skb, packet, offset);
}

/* Apart: the stack is short. */
static __noinline int to_host(struct __sk_buff *skb, struct packet *packet)
{
	return host_fast_path(skb, packet, INGRESS, ETH_LENGTH);
}

static __noinline int to_bare_host(struct __sk_buff *skb, struct packet *packet)
{
	return host_fast_path(skb, packet, INGRESS, 0);
}

static __always_inline int from(struct __sk_buff *skb, __u32 offset)
{
	struct packet packet = {};
	int verdict = to_services(skb, &packet, offset);

	if (verdict != TCX_NEXT)
		return verdict == TO_STACK ? TCX_NEXT : verdict;
	verdict = offset ? to_host(skb, &packet) : to_bare_host(skb, &packet);
	return verdict == TCX_NEXT ? TCX_NEXT
				   : host_slow_path(skb, &packet, INGRESS, verdict);
}

SEC("tc") int from_uplink(struct __sk_buff *skb)
{
	return from(skb, ETH_LENGTH);
}

/* Apart: the stack is short. */
static __noinline int from_host(struct __sk_buff *skb)
{
	return host_policy(skb, EGRESS, ETH_LENGTH);
}

static __noinline int from_bare_host(struct __sk_buff *skb)
{
	return host_policy(skb, EGRESS, 0);
}

static __always_inline int to(struct __sk_buff *skb, __u32 offset)
{
	int verdict = is_relaying() ? from_relay(skb, offset) : TCX_NEXT;

	if (verdict == TCX_NEXT)
		return offset ? from_host(skb) : from_bare_host(skb);
	return verdict == TO_STACK ? TCX_NEXT : verdict;
}

SEC("tc") int to_uplink(struct __sk_buff *skb)
{
	return to(skb, ETH_LENGTH);
}

/* The same where frames have no Ethernet header: tunnels. */
SEC("tc") int from_bare_uplink(struct __sk_buff *skb)
{
	return from(skb, 0);
}

SEC("tc") int to_bare_uplink(struct __sk_buff *skb)
{
	return to(skb, 0);
}

char LICENSE[] SEC("license") = "GPL";
