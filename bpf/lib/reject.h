/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Who dials a service where nobody is left is told at once: TCP by a reset, UDP by the
 * error that a closed port gives, which quotes the headers of what was sent.
 *
 * A checksum that the hardware is to finish stays so, and what is quoted with it: then
 * the sum over the datagram's header is the complement of what stands there now.
 */
#pragma once

#include "reset.h"

#define BPF_ADJ_ROOM_MAC 1
#define DATAGRAM_HEADER	 8

struct port_unreachable {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 unused;
};

struct error_ipv4 {
	struct iphdr ip;
	struct port_unreachable icmp;
	struct iphdr quoted_ip;
	__u16 datagram[DATAGRAM_HEADER / 2];
};

struct error_ipv6 {
	struct ipv6hdr ip;
	struct port_unreachable icmp;
	struct ipv6hdr quoted_ip;
	__u16 datagram[DATAGRAM_HEADER / 2];
};

static __always_inline __u32 datagram_sum(const __u16 *datagram, bool partial)
{
	return partial ? (__u16)~datagram[UDP_CHECKSUM / 2]
		       : datagram[0] + datagram[1] + datagram[2] + datagram[3];
}

/* Room for the error's own headers, behind those of Ethernet, which are turned round.
 */
static __noinline int make_error(struct __sk_buff *skb, __u32 network, __u32 header)
{
	__u32 quoted = header + DATAGRAM_HEADER;

	return bpf_skb_change_tail(skb, network + quoted, 0) ||
	       bpf_skb_adjust_room(skb, header + sizeof(struct port_unreachable),
				   BPF_ADJ_ROOM_MAC, 0) ||
	       (network && swap_macs(skb));
}

static __noinline int unreachable_ipv4(struct __sk_buff *skb, __u32 network)
{
	bool partial = checksum_kind(skb) == CHECKSUM_PARTIAL;
	struct error_ipv4 error = {.icmp = {.type = 3, .code = 3}};

	if (bpf_skb_load_bytes(skb, network, &error.quoted_ip,
			       IPV4_LENGTH + DATAGRAM_HEADER))
		return 1;
	if (make_error(skb, network, IPV4_LENGTH))
		return 1;
	error.ip.version = 4;
	error.ip.ihl = IPV4_LENGTH / 4;
	error.ip.tot_len = htons(sizeof(error));
	error.ip.ttl = 64;
	error.ip.protocol = IPPROTO_ICMP;
	error.ip.saddr = error.quoted_ip.daddr;
	error.ip.daddr = error.quoted_ip.saddr;
	error.ip.check =
	    ~fold_sum((__u32)bpf_csum_diff(NULL, 0, (void *)&error.ip, IPV4_LENGTH, 0));
	error.icmp.checksum =
	    ~fold_sum((__u64)(__u32)bpf_csum_diff(NULL, 0, (void *)&error.icmp,
						  sizeof(error.icmp) + IPV4_LENGTH, 0) +
		      datagram_sum(error.datagram, partial));
	return bpf_skb_store_bytes(skb, network, &error, sizeof(error), 0);
}

static __noinline int unreachable_ipv6(struct __sk_buff *skb, __u32 network)
{
	__u32 length = sizeof(struct error_ipv6) - IPV6_LENGTH, pseudo;
	bool partial = checksum_kind(skb) == CHECKSUM_PARTIAL;
	struct error_ipv6 error = {.icmp = {.type = 1, .code = 4}};

	if (bpf_skb_load_bytes(skb, network, &error.quoted_ip,
			       IPV6_LENGTH + DATAGRAM_HEADER))
		return 1;
	if (make_error(skb, network, IPV6_LENGTH))
		return 1;
	error.ip.version = 6;
	error.ip.payload_len = htons(length);
	error.ip.nexthdr = PROTOCOL_ICMPV6;
	error.ip.hop_limit = 64;
	error.ip.saddr = error.quoted_ip.daddr;
	error.ip.daddr = error.quoted_ip.saddr;
	pseudo = bpf_csum_diff(NULL, 0, (void *)&error.ip.saddr, 32,
			       htonl(length) + htonl(PROTOCOL_ICMPV6));
	error.icmp.checksum = ~fold_sum(
	    (__u64)(__u32)bpf_csum_diff(NULL, 0, (void *)&error.icmp,
					sizeof(error.icmp) + IPV6_LENGTH, pseudo) +
	    datagram_sum(error.datagram, partial));
	return bpf_skb_store_bytes(skb, network, &error, sizeof(error), 0);
}

static __noinline int reject(struct __sk_buff *skb, const struct packet *packet)
{
	bool ipv4 = packet->family == 4;

	if (packet->protocol != IPPROTO_UDP)
		return reset(skb, packet);
	if (packet->fragment ||
	    packet->transport != packet->network + (ipv4 ? IPV4_LENGTH : IPV6_LENGTH))
		return TC_ACT_SHOT;
	if (ipv4 ? unreachable_ipv4(skb, packet->network)
		 : unreachable_ipv6(skb, packet->network))
		return TC_ACT_SHOT;
	statistic(STATISTIC_RESET);
	return bpf_redirect(skb->ifindex, 0);
}
