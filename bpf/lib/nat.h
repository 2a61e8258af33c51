/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Translation of packets: one side's address and port become another's.
 *
 * Checksums are moved by the difference, through the helpers: they know whether the one
 * that stands there is whole, or the hardware's to finish. Later fragments have an
 * address only; what they borrowed of the first says nothing of their bytes.
 */
#pragma once

#include "packet.h"

#define BPF_F_PSEUDO_HDR     (1 << 4)
#define BPF_F_MARK_MANGLED_0 (1 << 5)
#define BPF_F_IPV6    (1 << 7) /* of kernels that know it: skb->csum stays right */
#define TCP_CHECKSUM  16
#define UDP_CHECKSUM  6
#define ICMP_CHECKSUM 2
#define IPV4_CHECKSUM 10

enum side { SOURCE, DESTINATION };

struct place {
	union address address;
	__be16 port;
	__u8 pad[6];
};

/* Add a difference to a checksum that covers a pseudo header. */
static __always_inline int move_checksum(struct __sk_buff *skb, __u32 offset,
					 __s64 difference, __u64 flags)
{
	int failed = bpf_l4_csum_replace(skb, offset, 0, difference,
					 flags | BPF_F_PSEUDO_HDR | BPF_F_IPV6);

	if (failed == -EINVAL)
		failed = bpf_l4_csum_replace(skb, offset, 0, difference,
					     flags | BPF_F_PSEUDO_HDR);
	return failed;
}

static __always_inline __u32 address_offset(const struct packet *packet, enum side side)
{
	__u32 second = packet->family == 4 ? 4 : 16,
	      first = packet->family == 4 ? 12 : 8;

	return ETH_LENGTH + first + (side == DESTINATION ? second : 0);
}

static __always_inline __u64 halves(__u32 word)
{
	return (__u64)(word & 0xffff) + (word >> 16);
}

static __always_inline __u16 to_checksum(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* What a change of address adds to a sum (RFC 1624). */
static __always_inline __u32 address_difference(const union address *from,
						const union address *to)
{
	__u64 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < 4; i++)
		sum += (__u64)(__u32)~from->word[i] + to->word[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum + (sum >> 32);
}

/* The address in the network header, which is written in place: a helper's call costs
 * as much as a lookup. */
static __always_inline int write_address(struct __sk_buff *skb,
					 const struct packet *packet, __u32 side,
					 const union address *from,
					 const union address *to)
{
	struct iphdr *ip = packet_at(skb, ETH_LENGTH);
	struct ipv6hdr *ipv6 = packet_at(skb, ETH_LENGTH);

	if (packet->family == 4) {
		if ((void *)(ip + 1) > packet_end(skb))
			return 1;
		ip->check = to_checksum((__u16)~ip->check + halves(~from->word[3]) +
					halves(to->word[3]));
		if (side == SOURCE)
			ip->saddr = to->word[3];
		else
			ip->daddr = to->word[3];
		return 0;
	}
	if ((void *)(ipv6 + 1) > packet_end(skb))
		return 1;
	if (side == SOURCE)
		__builtin_memcpy(&ipv6->saddr, to, 16);
	else
		__builtin_memcpy(&ipv6->daddr, to, 16);
	return 0;
}

/* Address and port of one side, which the packet says as they stand there. Not 0: it
 * failed. */
static __noinline int rewrite(struct __sk_buff *skb, const struct packet *packet,
			      __u32 side, const struct place *to)
{
	const union address *from =
	    side == SOURCE ? &packet->source : &packet->destination;
	__be16 from_port =
	    side == SOURCE ? packet->source_port : packet->destination_port;
	bool udp = packet->protocol == IPPROTO_UDP;
	__u32 checksum = packet->transport + (udp ? UDP_CHECKSUM : TCP_CHECKSUM);
	__u32 port = packet->transport + (side == DESTINATION ? 2 : 0);
	__u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;
	bool has_ports = packet->fragment != LATER_FRAGMENT;

	if (has_ports && packet->family == 4 &&
	    bpf_l4_csum_replace(skb, checksum, from->word[3], to->address.word[3],
				flags | BPF_F_PSEUDO_HDR | 4))
		return 1;
	if (has_ports && packet->family == 6 &&
	    move_checksum(skb, checksum, address_difference(from, &to->address), flags))
		return 1;
	if (has_ports && from_port != to->port &&
	    (bpf_l4_csum_replace(skb, checksum, from_port, to->port, flags | 2) ||
	     bpf_skb_store_bytes(skb, port, &to->port, 2, 0)))
		return 1;
	return write_address(skb, packet, side, from, &to->address);
}

/* An ICMP error: one of its own addresses, and the other side of the packet that it
 * quotes, whose checksum is left: it is not looked at, and often cut. */
static __noinline int rewrite_error(struct __sk_buff *skb, const struct packet *error,
				    const struct packet *quoted,
				    const struct place *from, const struct place *to)
{
	bool inwards = equal(&error->destination, &from->address);
	__u32 outer = address_offset(error, inwards ? DESTINATION : SOURCE);
	__u32 header = error->transport + 8,
	      checksum = error->transport + ICMP_CHECKSUM;
	__u32 inner =
	    address_offset(error, inwards ? SOURCE : DESTINATION) - ETH_LENGTH + header;
	__u32 port = quoted->transport + (inwards ? 0 : 2);
	__s64 difference;

	if (error->family == 4) {
		/* The quoted header's sum and its address outweigh each other. */
		if (bpf_l3_csum_replace(skb, ETH_LENGTH + IPV4_CHECKSUM,
					from->address.word[3], to->address.word[3],
					4) ||
		    bpf_l3_csum_replace(skb, header + IPV4_CHECKSUM,
					from->address.word[3], to->address.word[3],
					4) ||
		    bpf_skb_store_bytes(skb, outer, &to->address.word[3], 4, 0) ||
		    bpf_skb_store_bytes(skb, inner, &to->address.word[3], 4, 0))
			return 1;
	} else {
		difference = bpf_csum_diff(&from->address, 16, &to->address, 16, 0);
		if (move_checksum(skb, checksum, difference, 0) ||
		    bpf_l4_csum_replace(skb, checksum, 0, difference, 0) ||
		    bpf_skb_store_bytes(skb, outer, &to->address, 16, 0) ||
		    bpf_skb_store_bytes(skb, inner, &to->address, 16, 0))
			return 1;
	}
	return bpf_l4_csum_replace(skb, checksum, from->port, to->port, 2) ||
	       bpf_skb_store_bytes(skb, port, &to->port, 2, 0);
}
