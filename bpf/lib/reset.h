/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A packet becomes the reset of its own connection, and goes back where it came from:
 * so that a client outside knows at once that nobody is there (any more).
 */
#pragma once

#include "nat.h"

struct tcp_header {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledged;
	__u8 length; /* in units of 16 bytes */
	__u8 flags;
	__be16 window;
	__u16 checksum;
	__be16 urgent;
};

/* RFC 9293, 3.10.7.1: what the packet expects next, or what it just sent. */
static __always_inline void answer_with_reset(struct tcp_header *tcp, __u32 payload)
{
	bool acknowledges = tcp->flags & TCP_ACK;
	__be16 port = tcp->source;
	__u32 next = ntohl(tcp->sequence) + payload;

	next += !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
	tcp->source = tcp->destination;
	tcp->destination = port;
	tcp->sequence = acknowledges ? tcp->acknowledged : 0;
	tcp->acknowledged = acknowledges ? 0 : htonl(next);
	tcp->length = TCP_LENGTH << 2;
	tcp->flags = acknowledges ? TCP_RST : TCP_RST | TCP_ACK;
	tcp->window = tcp->urgent = 0;
	tcp->checksum = 0;
}

static __noinline int swap_macs(struct __sk_buff *skb)
{
	__u8 macs[12];

	return bpf_skb_load_bytes(skb, 0, macs + 6, 6) ||
	       bpf_skb_load_bytes(skb, 6, macs, 6) ||
	       bpf_skb_store_bytes(skb, 0, macs, 12, 0);
}

static __noinline int swap_ends(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 ends[32];
	__u32 at = packet->network + (packet->family == 4 ? 12 : 8);

	if (packet->network && swap_macs(skb))
		return 1;
	if (packet->family == 4)
		return bpf_skb_load_bytes(skb, at, ends + 4, 4) ||
		       bpf_skb_load_bytes(skb, at + 4, ends, 4) ||
		       bpf_skb_store_bytes(skb, at, ends, 8, 0);
	return bpf_skb_load_bytes(skb, at, ends + 16, 16) ||
	       bpf_skb_load_bytes(skb, at + 16, ends, 16) ||
	       bpf_skb_store_bytes(skb, at, ends, 32, 0);
}

/* The length that the network header says. */
static __noinline int set_length(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 at = packet->network + (packet->family == 4 ? 2 : 4);
	__be16 before,
	    after = htons(packet->family == 4 ? IPV4_LENGTH + TCP_LENGTH : TCP_LENGTH);

	if (bpf_skb_load_bytes(skb, at, &before, 2) ||
	    bpf_skb_store_bytes(skb, at, &after, 2, 0))
		return 1;
	return packet->family == 4 &&
	       bpf_l3_csum_replace(skb, packet->network + IPV4_CHECKSUM, before, after,
				   2);
}

static __noinline int reset(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 pseudo, at = packet->transport, ends = packet->family == 4 ? 4 : 16;
	struct tcp_header tcp;

	if (packet->protocol != IPPROTO_TCP || packet->tcp_flags & TCP_RST ||
	    packet->fragment ||
	    at != packet->network + (packet->family == 4 ? IPV4_LENGTH : IPV6_LENGTH) ||
	    bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return TC_ACT_SHOT;
	answer_with_reset(&tcp, packet->end - at - (tcp.length >> 4) * 4);
	if (bpf_skb_change_tail(skb, at + TCP_LENGTH, 0) || set_length(skb, packet) ||
	    swap_ends(skb, packet))
		return TC_ACT_SHOT;
	pseudo = htonl(IPPROTO_TCP) + htonl(TCP_LENGTH);
	pseudo =
	    bpf_csum_diff(NULL, 0,
			  packet->family == 4 ? (const void *)&packet->source.word[3]
					      : &packet->source,
			  ends, pseudo);
	pseudo = bpf_csum_diff(NULL, 0,
			       packet->family == 4
				   ? (const void *)&packet->destination.word[3]
				   : &packet->destination,
			       ends, pseudo);
	if (checksum_kind(skb) == CHECKSUM_PARTIAL)
		tcp.checksum = fold_sum(pseudo);
	else
		tcp.checksum =
		    ~fold_sum((__u32)bpf_csum_diff(NULL, 0, &tcp, sizeof(tcp), pseudo));
	if (bpf_skb_store_bytes(skb, at, &tcp, sizeof(tcp), 0))
		return TC_ACT_SHOT;
	statistic(STATISTIC_RESET);
	return bpf_redirect(skb->ifindex, 0);
}
