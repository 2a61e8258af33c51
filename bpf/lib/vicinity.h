/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Neighbours of the host on its uplinks: who has a load balancer's address? This host.
 *
 * No interface has such an address, so the stack would not answer. Everything else is
 * the stack's, as before.
 */
#pragma once

#include "neighbour.h"
#include "outside.h"
#include "reset.h"

/* Devices with Ethernet addresses of their own; kept by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex */
	__type(value, struct device);
} uplinks SEC(".maps");

/* Whom to answer, in whose name; false when this device is not known. */
static __always_inline bool answerers(struct __sk_buff *skb, struct macs *macs)
{
	__u32 ifindex = skb->ifindex;
	const struct device *uplink = bpf_map_lookup_elem(&uplinks, &ifindex);

	if (!uplink || bpf_skb_load_bytes(skb, 6, macs->theirs, 6))
		return false;
	__builtin_memcpy(macs->ours, uplink->mac, 6);
	return true;
}

static __noinline int asked_by_arp(struct __sk_buff *skb)
{
	union address target;
	struct macs macs;
	struct arp arp;

	if (bpf_skb_load_bytes(skb, ETH_LENGTH, &arp, sizeof(arp)) ||
	    arp.hardware != htons(1) || arp.protocol != htons(ETH_P_IP) ||
	    arp.operation != htons(ARP_REQUEST))
		return TCX_NEXT;
	set_ipv4(&target, arp.target);
	if (!is_announced(&target) || is_node(&target) || !answerers(skb, &macs))
		return TCX_NEXT;
	return answer_arp(skb, &arp, &macs);
}

static __noinline int asked_by_neighbour(struct __sk_buff *skb,
					 const struct packet *packet)
{
	union address target;
	struct macs macs;

	if (packet->icmp_type != ICMPV6_SOLICIT || is_unspecified(&packet->source) ||
	    packet->transport != ETH_LENGTH + IPV6_LENGTH ||
	    bpf_skb_load_bytes(skb, packet->transport + 8, &target, sizeof(target)) ||
	    !is_announced(&target) || is_node(&target) || !answerers(skb, &macs))
		return TCX_NEXT;
	return answer_neighbour(skb, packet, &macs);
}

/* A ping of such an address is answered by the node that has it. */
static __noinline int echo_arrives(struct __sk_buff *skb, const struct packet *packet)
{
	bool ipv4 = packet->family == 4;
	__u8 reply = ipv4 ? 0 : 129;
	__be16 before = htons(packet->icmp_type << 8), after = htons(reply << 8);

	if (packet->icmp_type != (ipv4 ? 8 : 128) || packet->fragment ||
	    packet->protocol != (ipv4 ? IPPROTO_ICMP : PROTOCOL_ICMPV6) ||
	    !is_announced(&packet->destination) || is_node(&packet->destination))
		return TCX_NEXT;
	if (bpf_l4_csum_replace(skb, packet->transport + ICMP_CHECKSUM, before, after,
				2) ||
	    bpf_skb_store_bytes(skb, packet->transport, &reply, 1, 0) ||
	    swap_ends(skb, packet))
		return TC_ACT_SHOT;
	statistic(STATISTIC_ANSWERED);
	return bpf_redirect(skb->ifindex, 0);
}
