/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Packets: what do the headers say, and do they lie?
 *
 * The common headers are read in place; whatever is rare (extension headers, fragments,
 * data outside the linear part) through bpf_skb_load_bytes.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "shared.h"

#define ETH_LENGTH	    14
#define IPV4_LENGTH	    20
#define IPV6_LENGTH	    40
#define TCP_LENGTH	    20
#define EXTENSIONS_MAX	    6
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET	    0x1fff
#define TCP_FIN		    0x01
#define TCP_SYN		    0x02
#define TCP_RST		    0x04
#define TCP_ACK		    0x10
#define PROTOCOL_ICMPV6	    58

enum fragment_kind { WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT };

struct packet {
	union {
		struct tuple tuple;
		struct {
			union address source;
			union address destination;
			__be16 source_port; /* ICMP echo: the identifier, in both */
			__be16 destination_port;
			__u8 protocol;
			/* ICMP: the type; of a reply, that of its request */
			__u8 icmp_request;
			__u8 pad[2];
		};
		__u64 words[5];
	};
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 fragment; /* enum fragment_kind */
	__u8 fragment_overlaps;
	__u8 family;	 /* 4 or 6 */
	__u8 passed;	 /* a question that is for the resolver's process */
	__u8 network;	 /* offset; 0 where frames have no Ethernet header */
	__u32 transport; /* offset */
	__u32 end;	 /* offset; Ethernet may pad behind it */
	__u32 fragment_id;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

static __always_inline void *packet_at(struct __sk_buff *skb, __u32 offset)
{
	return (void *)(long)skb->data + offset;
}

static __always_inline void *packet_end(struct __sk_buff *skb)
{
	return (void *)(long)skb->data_end;
}

static __always_inline bool is_echo(const struct packet *packet)
{
	if (packet->protocol == IPPROTO_ICMP)
		return packet->icmp_type == 8 || packet->icmp_type == 0;
	return packet->icmp_type == 128 || packet->icmp_type == 129;
}

static __always_inline __u8 icmp_request(const struct packet *packet)
{
	if (packet->protocol == PROTOCOL_ICMPV6)
		return packet->icmp_type == 129 ? 128 : packet->icmp_type;
	if (packet->icmp_type == 14) /* timestamp */
		return 13;
	return packet->icmp_type ? packet->icmp_type : 8;
}

/* Destination unreachable, packet too big, time exceeded, parameter problem; and the
 * redirect, which quotes a packet too and is never believed. */
static __always_inline bool is_icmp_error(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	if (packet->protocol == IPPROTO_ICMP)
		return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
	return packet->protocol == PROTOCOL_ICMPV6 && type >= 1 && type <= 4;
}

static __always_inline bool is_neighbour_discovery(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_ICMPV6 && packet->icmp_type >= 133 &&
	       packet->icmp_type <= 137;
}

static __always_inline bool is_multicast(const union address *address)
{
	if (is_ipv4(address)) /* class D and E, the broadcast included */
		return (address->word[3] & htonl(0xe0000000)) == htonl(0xe0000000);
	return (address->word[0] & htonl(0xff000000)) == htonl(0xff000000);
}

/* Transport header by copy. `quoted`: inside an ICMP error only eight bytes are sure.
 */
static __noinline int load_transport(struct __sk_buff *skb, struct packet *packet,
				     bool quoted)
{
	__u8 header[TCP_LENGTH] = {};
	__u32 length;

	switch (packet->protocol) {
	case IPPROTO_TCP:
		length = quoted ? 8 : TCP_LENGTH;
		break;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_ICMP:
	case PROTOCOL_ICMPV6:
		length = 8;
		break;
	default:
		return DROP_NONE;
	}
	if (packet->transport + length > packet->end)
		return DROP_INVALID_PACKET;
	if (length == TCP_LENGTH) {
		if (bpf_skb_load_bytes(skb, packet->transport, header, TCP_LENGTH))
			return DROP_INVALID_PACKET;
		packet->tcp_flags = header[13];
	} else if (bpf_skb_load_bytes(skb, packet->transport, header, 8)) {
		return DROP_INVALID_PACKET;
	}
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == PROTOCOL_ICMPV6) {
		packet->icmp_type = header[0];
		packet->icmp_code = header[1];
		packet->icmp_request = icmp_request(packet);
		if (is_echo(packet)) {
			packet->source_port = *(__be16 *)(header + 4);
			packet->destination_port = packet->source_port;
		}
		return DROP_NONE;
	}
	packet->source_port = *(__be16 *)header;
	packet->destination_port = *(__be16 *)(header + 2);
	return DROP_NONE;
}

static __always_inline int parse_transport(struct __sk_buff *skb, struct packet *packet,
					   __u32 offset)
{
	__u8 *header = packet_at(skb, offset);
	__u8 *end = packet_end(skb);

	if (packet->protocol == IPPROTO_TCP && header + TCP_LENGTH <= end &&
	    packet->end >= offset + TCP_LENGTH)
		packet->tcp_flags = header[13];
	else if (packet->protocol != IPPROTO_UDP || header + 8 > end ||
		 packet->end < offset + 8)
		return load_transport(skb, packet, false);
	/* At once, as it is hashed: a load that needs two stores waits for both. */
	packet->words[4] = *(__u32 *)header | (__u64)packet->protocol << 32;
	return DROP_NONE;
}

/* A later fragment has no ports of its own: it borrows those of its first. */
static __noinline int fragment_ports(struct __sk_buff *skb, struct packet *packet)
{
	struct fragment_key key = {};
	struct fragment ports = {}, *first;
	int reason;

	key.source = packet->source;
	key.destination = packet->destination;
	key.id = packet->fragment_id;
	key.protocol = packet->protocol;
	if (packet->fragment == LATER_FRAGMENT) {
		/* No first fragment is that short: this one would rewrite its flags. */
		if (packet->fragment_overlaps)
			return DROP_INVALID_PACKET;
		first = bpf_map_lookup_elem(&fragments, &key);
		if (!first)
			return DROP_FRAGMENT_UNKNOWN;
		packet->source_port = first->source_port;
		packet->destination_port = first->destination_port;
		packet->icmp_request = first->icmp_request;
		return DROP_NONE;
	}
	reason = load_transport(skb, packet, false);
	if (reason)
		return reason;
	ports.source_port = packet->source_port;
	ports.destination_port = packet->destination_port;
	ports.icmp_request = packet->icmp_request;
	/* An error message quotes a packet and is never that long. */
	if (is_icmp_error(packet))
		return DROP_ICMP_UNRELATED;
	if (bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY))
		return DROP_FRAGMENT_UNKNOWN;
	return DROP_NONE;
}

static __always_inline int parse_ipv4_header(const struct iphdr *ip,
					     struct packet *packet, __u32 offset)
{
	__u8 first = *(const __u8 *)ip;
	__u16 total = ntohs(ip->tot_len);
	__u16 fragment = ntohs(ip->frag_off) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET);

	set_ipv4(&packet->source, ip->saddr);
	set_ipv4(&packet->destination, ip->daddr);
	packet->family = 4;
	packet->network = offset;
	packet->protocol = ip->protocol;
	if (unlikely(first != 0x45))
		return first >> 4 == 4 && (first & 15) > 5 ? DROP_IP_OPTIONS
							   : DROP_INVALID_PACKET;
	if (unlikely(total < IPV4_LENGTH))
		return DROP_INVALID_PACKET;
	packet->transport = offset + IPV4_LENGTH;
	packet->end = offset + total;
	if (unlikely(fragment)) {
		packet->fragment_id = ip->id;
		packet->fragment_overlaps = (fragment & IPV4_OFFSET) == 1;
		packet->fragment =
		    fragment & IPV4_OFFSET ? LATER_FRAGMENT : FIRST_FRAGMENT;
	}
	return DROP_NONE;
}

static __always_inline int parse_ipv4_at(struct __sk_buff *skb, struct packet *packet,
					 __u32 offset)
{
	const struct iphdr *ip = packet_at(skb, offset);
	int reason;

	if ((void *)(ip + 1) > packet_end(skb))
		return DROP_INVALID_PACKET;
	reason = parse_ipv4_header(ip, packet, offset);
	if (unlikely(reason))
		return reason;
	if (unlikely(packet->end > skb->len))
		return DROP_INVALID_PACKET;
	if (unlikely(packet->fragment))
		return fragment_ports(skb, packet);
	return parse_transport(skb, packet, offset + IPV4_LENGTH);
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	return parse_ipv4_at(skb, packet, ETH_LENGTH);
}

static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_AH;
}

/* Walk the extension headers. A routing header would let the sender choose the way,
 * past what policy saw: refused, as the malformed and the overlong chain. */
static __noinline int walk_extensions(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[8];
	__u16 offset;
	int i;

	for (i = 0; i < EXTENSIONS_MAX; i++) {
		__u8 protocol = packet->protocol;

		if (!is_extension(protocol))
			return DROP_NONE;
		if (protocol == IPPROTO_ROUTING ||
		    packet->transport + 8 > packet->end ||
		    bpf_skb_load_bytes(skb, packet->transport, header, 8))
			return DROP_EXTENSION_HEADERS;
		packet->protocol = header[0];
		if (protocol == IPPROTO_FRAGMENT) {
			packet->transport += 8;
			offset = ntohs(*(__be16 *)(header + 2));
			if (!(offset & 0xfff9))
				continue; /* RFC 6946: an atomic fragment is whole */
			packet->fragment_id = *(__u32 *)(header + 4);
			packet->fragment =
			    offset & 0xfff8 ? LATER_FRAGMENT : FIRST_FRAGMENT;
			if (packet->fragment == LATER_FRAGMENT)
				return is_extension(packet->protocol)
					   ? DROP_EXTENSION_HEADERS
					   : DROP_NONE;
		} else if (protocol == IPPROTO_AH) {
			packet->transport += (header[1] + 2) * 4;
		} else {
			packet->transport += (header[1] + 1) * 8;
		}
	}
	return is_extension(packet->protocol) ? DROP_EXTENSION_HEADERS : DROP_NONE;
}

static __always_inline int parse_ipv6_header(const struct ipv6hdr *ip,
					     struct packet *packet, __u32 offset)
{
	packet->source = *(const union address *)&ip->saddr;
	packet->destination = *(const union address *)&ip->daddr;
	/* ::ffff:a.b.c.d is how IPv4 looks in here: never believe it from the wire. */
	if (unlikely(*(const __u8 *)ip >> 4 != 6 || is_ipv4(&packet->source) ||
		     is_ipv4(&packet->destination)))
		return DROP_INVALID_PACKET;
	packet->family = 6;
	packet->network = offset;
	packet->protocol = ip->nexthdr;
	packet->transport = offset + IPV6_LENGTH;
	packet->end = offset + IPV6_LENGTH + ntohs(ip->payload_len);
	return DROP_NONE;
}

static __always_inline int parse_ipv6_at(struct __sk_buff *skb, struct packet *packet,
					 __u32 offset)
{
	const struct ipv6hdr *ip = packet_at(skb, offset);
	int reason;

	if ((void *)(ip + 1) > packet_end(skb))
		return DROP_INVALID_PACKET;
	reason = parse_ipv6_header(ip, packet, offset);
	if (unlikely(reason))
		return reason;
	if (unlikely(packet->end > skb->len))
		return DROP_INVALID_PACKET;
	if (likely(packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP))
		return parse_transport(skb, packet, offset + IPV6_LENGTH);
	reason = walk_extensions(skb, packet);
	if (reason)
		return reason;
	if (packet->fragment)
		return fragment_ports(skb, packet);
	return load_transport(skb, packet, false);
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	return parse_ipv6_at(skb, packet, ETH_LENGTH);
}

/* The packet that an ICMP error quotes, behind its eight bytes. */
static __noinline int parse_quoted(struct __sk_buff *skb, const struct packet *error,
				   struct packet *quoted)
{
	union {
		struct iphdr ipv4;
		struct ipv6hdr ipv6;
	} __attribute__((aligned(8))) ip;
	__u32 offset = error->transport + 8;
	int reason;

	if (error->family == 4) {
		if (bpf_skb_load_bytes(skb, offset, &ip.ipv4, IPV4_LENGTH))
			return DROP_INVALID_PACKET;
		reason = parse_ipv4_header(&ip.ipv4, quoted, offset);
	} else {
		if (bpf_skb_load_bytes(skb, offset, &ip.ipv6, IPV6_LENGTH))
			return DROP_INVALID_PACKET;
		reason = parse_ipv6_header(&ip.ipv6, quoted, offset);
	}
	if (reason)
		return reason;
	/* The quotation is cut, its length field is not. */
	quoted->end = error->end;
	if (quoted->family == 6) {
		reason = walk_extensions(skb, quoted);
		if (reason)
			return reason;
	}
	if (quoted->fragment == LATER_FRAGMENT)
		return DROP_ICMP_UNRELATED;
	return load_transport(skb, quoted, true);
}

/* The headers of the network layer must lie in the linear part to be read in place. */
static __always_inline bool pull_headers(struct __sk_buff *skb)
{
	__u32 wanted = ETH_LENGTH + IPV6_LENGTH;

	if (likely(packet_at(skb, wanted) <= packet_end(skb)))
		return true;
	if (skb->len < wanted)
		wanted = skb->len;
	return wanted >= ETH_LENGTH && !bpf_skb_pull_data(skb, wanted);
}
