/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Translation of packets: one side's address and port become another's.
 *
 * All is written in place, and checksums are moved by the difference (RFC 1624): a
 * helper's call costs as much as a lookup. Later fragments have an address only; what
 * they borrowed of the first says nothing of their bytes.
 */
#pragma once

#include "packet.h"

#define BPF_F_PSEUDO_HDR     (1 << 4)
#define BPF_F_MARK_MANGLED_0 (1 << 5)
#define BPF_F_IPV6	  (1 << 7) /* of kernels that know it: skb->csum stays right */
#define CHECKSUM_COMPLETE 2	   /* linux/skbuff.h: the device summed the packet up */
#define CHECKSUM_PARTIAL  3 /* ... is to finish what is a sum of the pseudo header */
#define TRANSPORT_MAX	  0x7fff
#define TCP_CHECKSUM	  16
#define UDP_CHECKSUM	  6
#define ICMP_CHECKSUM	  2
#define IPV4_CHECKSUM	  10

enum side { SOURCE, DESTINATION };

struct place {
	union address address;
	__be16 port;
	__u8 pad[6];
};

/* The kernel's, as far as it is looked at; libbpf fits the offset in. */
struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

/* What the transport's checksum is, and who has looked at it. */
static __always_inline __u32 checksum_kind(struct __sk_buff *skb)
{
	const struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	const __u8 *at = (const void *)kernel;
	__u64 found;

	at += __builtin_preserve_field_info(kernel->ip_summed, 0 /* byte offset */);
	found = *at;
	found <<= __builtin_preserve_field_info(kernel->ip_summed, 4 /* left shift */);
	return found >>
	       __builtin_preserve_field_info(kernel->ip_summed, 5 /* right shift */);
}

static __always_inline __u16 fold_sum(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

static __always_inline __u64 difference(__u32 from, __u32 to)
{
	return (__u64)(__u32)~from + to;
}

/* What a change of address adds to a sum. */
static __always_inline __u64 address_difference(const struct packet *packet,
						const union address *from,
						const union address *to)
{
	__u64 sum = difference(from->word[3], to->word[3]);

	if (packet->family == 4)
		return sum;
	return sum + difference(from->word[0], to->word[0]) +
	       difference(from->word[1], to->word[1]) +
	       difference(from->word[2], to->word[2]);
}

static __always_inline int write_address(struct __sk_buff *skb,
					 const struct packet *packet, __u32 side,
					 const union address *to, __u64 change)
{
	struct iphdr *ip = packet_at(skb, packet->network);
	struct ipv6hdr *ipv6 = packet_at(skb, packet->network);

	if (packet->family == 4) {
		if ((void *)(ip + 1) > packet_end(skb))
			return 1;
		ip->check = ~fold_sum((__u16)~ip->check + change);
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

/* `addresses`, `ports`: what the change adds to a sum. */
static __always_inline void move_checksum(struct __sk_buff *skb,
					  const struct packet *packet, __u16 *checksum,
					  __u64 addresses, __u64 ports)
{
	__u32 kind = checksum_kind(skb);
	bool udp = packet->protocol == IPPROTO_UDP;

	if (unlikely(kind == CHECKSUM_PARTIAL)) {
		*checksum = fold_sum(*checksum + addresses);
		return;
	}
	if (udp && !*checksum)
		return; /* it has none */
	*checksum = ~fold_sum((__u16) ~*checksum + addresses + ports);
	if (udp && !*checksum)
		*checksum = 0xffff;
	/* In all of an IPv4 packet its own checksum outweighs the address, and this one
	 * the pseudo header; in IPv6 the two outweigh each other. */
	if (unlikely(kind == CHECKSUM_COMPLETE) && packet->family == 4)
		bpf_csum_update(skb, (__u16)~fold_sum(addresses));
}

/* Address and port of one side, which the packet says as they stand there. Not 0: it
 * failed. */
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *packet,
				   __u32 side, const union address *to, __be16 port)
{
	const union address *from =
	    side == SOURCE ? &packet->source : &packet->destination;
	__be16 from_port =
	    side == SOURCE ? packet->source_port : packet->destination_port;
	__u64 addresses = address_difference(packet, from, to);
	__u32 checksum = packet->protocol == IPPROTO_UDP ? UDP_CHECKSUM : TCP_CHECKSUM;
	__u32 at = packet->transport;
	__u8 *header;

	if (likely(packet->fragment != LATER_FRAGMENT)) {
		if (at > TRANSPORT_MAX)
			return 1;
		header = packet_at(skb, at);
		if (unlikely((void *)header + checksum + 2 > packet_end(skb))) {
			if (bpf_skb_pull_data(skb, at + checksum + 2))
				return 1;
			header = packet_at(skb, at);
			if ((void *)header + checksum + 2 > packet_end(skb))
				return 1;
		}
		move_checksum(skb, packet, (__u16 *)(header + checksum), addresses,
			      (__u16)~from_port + port);
		*(__be16 *)(header + (side == DESTINATION ? 2 : 0)) = port;
	}
	return write_address(skb, packet, side, to, addresses);
}

static __always_inline __u32 address_offset(const struct packet *packet, enum side side)
{
	__u32 second = packet->family == 4 ? 4 : 16,
	      first = packet->family == 4 ? 12 : 8;

	return packet->network + first + (side == DESTINATION ? second : 0);
}

/* Add a difference to a checksum that covers a pseudo header. */
static __always_inline int move_pseudo_checksum(struct __sk_buff *skb, __u32 offset,
						__s64 difference)
{
	int failed = bpf_l4_csum_replace(skb, offset, 0, difference,
					 BPF_F_PSEUDO_HDR | BPF_F_IPV6);

	if (failed == -EINVAL)
		failed =
		    bpf_l4_csum_replace(skb, offset, 0, difference, BPF_F_PSEUDO_HDR);
	return failed;
}

/* An ICMP error: one of its own addresses, and the other side of the packet that it
 * quotes, whose checksum is left: it is not looked at, and often cut. Who speaks is the
 * service in any case: a router would not take an error of its own back. */
static __noinline int rewrite_error(struct __sk_buff *skb, const struct packet *error,
				    const struct packet *quoted,
				    const struct place *from, const struct place *to)
{
	bool inwards =
	    quoted->source_port == from->port && equal(&quoted->source, &from->address);
	const union address *said = inwards ? &error->destination : &error->source;
	__u32 outer = address_offset(error, inwards ? DESTINATION : SOURCE);
	__u32 header = error->transport + 8,
	      checksum = error->transport + ICMP_CHECKSUM;
	__u32 inner = address_offset(error, inwards ? SOURCE : DESTINATION) -
		      error->network + header;
	__u32 port = quoted->transport + (inwards ? 0 : 2);
	__s64 difference;

	if (error->family == 4) {
		/* The quoted header's sum and its address outweigh each other. */
		if (bpf_l3_csum_replace(skb, error->network + IPV4_CHECKSUM,
					said->word[3], to->address.word[3], 4) ||
		    bpf_l3_csum_replace(skb, header + IPV4_CHECKSUM,
					from->address.word[3], to->address.word[3],
					4) ||
		    bpf_skb_store_bytes(skb, outer, &to->address.word[3], 4, 0) ||
		    bpf_skb_store_bytes(skb, inner, &to->address.word[3], 4, 0))
			return 1;
	} else {
		difference = bpf_csum_diff(said, 16, &to->address, 16, 0);
		if (move_pseudo_checksum(skb, checksum, difference))
			return 1;
		difference = bpf_csum_diff(&from->address, 16, &to->address, 16, 0);
		if (bpf_l4_csum_replace(skb, checksum, 0, difference, 0) ||
		    bpf_skb_store_bytes(skb, outer, &to->address, 16, 0) ||
		    bpf_skb_store_bytes(skb, inner, &to->address, 16, 0))
			return 1;
	}
	return bpf_l4_csum_replace(skb, checksum, from->port, to->port, 2) ||
	       bpf_skb_store_bytes(skb, port, &to->port, 2, 0);
}
