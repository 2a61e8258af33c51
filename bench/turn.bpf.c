/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The least that an answer in the kernel can be: a datagram goes back as it came, its ends
 * swapped, unread and unjudged. What remains is the client and the machine. */
#include "lib/packet.h"

SEC("tc") int turn(struct __sk_buff *skb)
{
	struct iphdr *ip = packet_at(skb, ETH_LENGTH);
	__be16 *port = packet_at(skb, ETH_LENGTH + IPV4_LENGTH), kept_port;
	__be32 kept;

	if ((void *)(port + 2) > packet_end(skb) || ip->protocol != IPPROTO_UDP)
		return TCX_NEXT;
	kept = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = kept;
	kept_port = port[0];
	port[0] = port[1];
	port[1] = kept_port;
	return bpf_redirect_peer(skb->ifindex, 0);
}

char LICENSE[] SEC("license") = "GPL";
