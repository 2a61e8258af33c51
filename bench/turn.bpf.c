/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The least that an answer in the kernel can be: a datagram goes back as it came, its ends
 * swapped, unread and unjudged. What remains is the client and the machine. For clients
 * that want an answer, one and the same is put behind whatever they ask: 10.96.0.1. */
#include "lib/packet.h"

#define FLAGS_AT   (ETH_LENGTH + IPV4_LENGTH + 8 + 2)
#define RECORD	   16
#define TTL_S	   5
#define DNS_ANSWER 0x8580 /* of somebody with authority, to who wants recursion */

static __always_inline bool swap_ends(struct __sk_buff *skb)
{
	struct iphdr *ip = packet_at(skb, ETH_LENGTH);
	__be16 *port = packet_at(skb, ETH_LENGTH + IPV4_LENGTH), kept_port;
	__be32 kept;

	if ((void *)(port + 2) > packet_end(skb) || ip->protocol != IPPROTO_UDP)
		return false;
	kept = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = kept;
	kept_port = port[0];
	port[0] = port[1];
	port[1] = kept_port;
	return true;
}

SEC("tc") int turn(struct __sk_buff *skb)
{
	return swap_ends(skb) ? bpf_redirect_peer(skb->ifindex, 0) : TCX_NEXT;
}

SEC("tc") int answer(struct __sk_buff *skb)
{
	const __u8 record[RECORD] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, TTL_S, 0, 4, 10, 96, 0, 1};
	const __be16 head[3] = {htons(DNS_ANSWER), htons(1), htons(1)};
	__u32 length = skb->len;
	__be16 lengths[2] = {htons(length + RECORD - ETH_LENGTH - IPV4_LENGTH), 0};
	__be16 before = htons(length - ETH_LENGTH), after = htons(length + RECORD - ETH_LENGTH);

	if (!swap_ends(skb))
		return TCX_NEXT;
	if (bpf_skb_change_tail(skb, length + RECORD, 0) ||
	    bpf_skb_store_bytes(skb, length, record, RECORD, 0) ||
	    bpf_skb_store_bytes(skb, FLAGS_AT, head, sizeof(head), 0) ||
	    bpf_skb_store_bytes(skb, FLAGS_AT - 6, lengths, sizeof(lengths), 0) ||
	    bpf_skb_store_bytes(skb, ETH_LENGTH + 2, &after, 2, 0) ||
	    bpf_l3_csum_replace(skb, ETH_LENGTH + 10, before, after, 2))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(skb->ifindex, 0);
}

char LICENSE[] SEC("license") = "GPL";
