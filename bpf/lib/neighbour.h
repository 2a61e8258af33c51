/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Neighbours: a pod has one, the gateway, and it answers here, without the host's
 * stack.
 *
 * A pod may ask, in its own name only; whatever it asks for, the gateway is the answer.
 */
#pragma once

#include "event.h"

#define ARP_REQUEST	       1
#define ARP_REPLY	       2
#define ICMPV6_ROUTER_SOLICIT  133
#define ICMPV6_SOLICIT	       135
#define ICMPV6_ADVERT	       136
#define ADVERT_FLAGS	       0xe0 /* router, solicited, override */
#define OPTION_TARGET_LINK     2
#define NEIGHBOUR_MESSAGE_SIZE 32

/* model/config.py holds the same two; every veth has them, so redirects rewrite
 * nothing. */
#define HOST_MAC {0x02, 0x5f, 0, 0, 0, 0x01}
#define POD_MAC	 {0x02, 0x5f, 0, 0, 0, 0x02}

/* What to do with a packet that is no connection's. */
enum neighbour_verdict { NEIGHBOUR_IGNORE = 1, NEIGHBOUR_ANSWER, NEIGHBOUR_PASS };

/* Who answers, and whom. */
struct macs {
	__u8 ours[6];
	__u8 theirs[6];
};

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__be32 sender __attribute__((packed));
	__u8 target_mac[6];
	__be32 target __attribute__((packed));
} __attribute__((packed));

struct neighbour_message {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u8 flags;
	__u8 reserved[3];
	union address target;
	__u8 option;
	__u8 option_length; /* in units of 8 bytes */
	__u8 mac[6];
};

struct advert_frame {
	__u16
	    align; /* not sent: has the addresses, and so the sum, on word boundaries */
	struct ethhdr ethernet;
	__u8 version;
	__u8 traffic[3];
	__be16 length;
	__u8 next;
	__u8 hops;
	union address source;
	union address destination;
	struct neighbour_message message;
} __attribute__((packed, aligned(8)));

#define FRAME_SIZE(frame) (sizeof(frame) - sizeof(frame.align))

static __always_inline bool is_pod_mac(const __u8 *mac)
{
	const __be16 *half = (const __be16 *)mac;

	return half[0] == htons(0x025f) && !half[1] && half[2] == htons(0x0002);
}

/* Drop reason, or -enum neighbour_verdict. */
static __noinline int judge_arp(struct __sk_buff *skb, struct arp *arp)
{
	__u32 ifindex = skb->ifindex;
	const struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);

	if (!endpoint)
		return DROP_NO_ENDPOINT;
	if (bpf_skb_load_bytes(skb, ETH_LENGTH, arp, sizeof(*arp)))
		return DROP_INVALID_PACKET;
	if (arp->hardware != htons(1) || arp->protocol != htons(ETH_P_IP) ||
	    arp->hardware_length != 6 || arp->protocol_length != 4)
		return DROP_INVALID_PACKET;
	if (!is_pod_mac(arp->sender_mac))
		return DROP_ARP_STRANGER;
	if (arp->operation == htons(ARP_REQUEST) && !arp->sender)
		return -NEIGHBOUR_IGNORE; /* a probe: is my address taken? No. */
	if (!is_ipv4(&endpoint->ipv4) || arp->sender != endpoint->ipv4.word[3])
		return DROP_ARP_STRANGER;
	if (arp->operation == htons(ARP_REPLY))
		return -NEIGHBOUR_PASS;
	if (arp->operation != htons(ARP_REQUEST))
		return DROP_ARP_STRANGER;
	return arp->target == arp->sender ? -NEIGHBOUR_IGNORE : -NEIGHBOUR_ANSWER;
}

static __noinline int answer_arp(struct __sk_buff *skb, const struct arp *request,
				 const struct macs *macs)
{
	struct {
		struct ethhdr ethernet;
		struct arp arp;
	} __attribute__((packed)) frame = {
	    .ethernet = {.h_proto = htons(ETH_P_ARP)},
	    .arp = {.hardware = htons(1),
		    .protocol = htons(ETH_P_IP),
		    .hardware_length = 6,
		    .protocol_length = 4,
		    .operation = htons(ARP_REPLY)},
	};

	__builtin_memcpy(frame.ethernet.h_dest, macs->theirs, 6);
	__builtin_memcpy(frame.ethernet.h_source, macs->ours, 6);
	__builtin_memcpy(frame.arp.sender_mac, macs->ours, 6);
	__builtin_memcpy(frame.arp.target_mac, macs->theirs, 6);
	frame.arp.sender = request->target;
	frame.arp.target = request->sender;
	if (bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0))
		return TC_ACT_SHOT;
	statistic(STATISTIC_ANSWERED);
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline bool is_unspecified(const union address *address)
{
	return !address->half[0] && !address->half[1];
}

/* Drop reason, or -enum neighbour_verdict; for ICMPv6 types 133 to 137. */
static __noinline int judge_neighbour(struct __sk_buff *skb,
				      const struct packet *packet,
				      const struct endpoint *endpoint)
{
	union address target;

	if (packet->icmp_type == ICMPV6_ROUTER_SOLICIT)
		return -NEIGHBOUR_IGNORE;
	if (packet->icmp_type != ICMPV6_SOLICIT && packet->icmp_type != ICMPV6_ADVERT)
		return DROP_ARP_STRANGER; /* a pod is no router */
	if (packet->transport != ETH_LENGTH + IPV6_LENGTH ||
	    packet->end < packet->transport + 24 ||
	    bpf_skb_load_bytes(skb, packet->transport + 8, &target, sizeof(target)))
		return DROP_INVALID_PACKET;
	if (is_unspecified(&packet->source))
		return -NEIGHBOUR_IGNORE; /* duplicate address detection */
	if (!equal(&packet->source, &endpoint->ipv6) && !is_link_local(&packet->source))
		return DROP_ARP_STRANGER;
	if (packet->icmp_type == ICMPV6_SOLICIT)
		return equal(&target, &packet->source) ||
			       equal(&target, &endpoint->ipv6)
			   ? -NEIGHBOUR_IGNORE
			   : -NEIGHBOUR_ANSWER;
	if (!equal(&target, &endpoint->ipv6) && !equal(&target, &packet->source))
		return DROP_ARP_STRANGER;
	return packet->destination.word[0] == htonl(0xff020000) ? -NEIGHBOUR_IGNORE
								: -NEIGHBOUR_PASS;
}

/* Checksum over pseudo header and message; the addresses lie in front of the message.
 */
static __always_inline __u16 advert_checksum(const struct advert_frame *frame)
{
	__u32 seed = htonl(NEIGHBOUR_MESSAGE_SIZE) + htonl(PROTOCOL_ICMPV6);
	__u64 sum =
	    bpf_csum_diff(NULL, 0, &frame->source,
			  2 * sizeof(union address) + NEIGHBOUR_MESSAGE_SIZE, seed);

	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum += sum >> 16;
	return ~sum;
}

static __noinline int answer_neighbour(struct __sk_buff *skb,
				       const struct packet *packet,
				       const struct macs *macs)
{
	struct advert_frame frame = {
	    .ethernet = {.h_proto = htons(ETH_P_IPV6)},
	    .version = 0x60,
	    .length = htons(NEIGHBOUR_MESSAGE_SIZE),
	    .next = PROTOCOL_ICMPV6,
	    .hops = 255,
	    .message = {ICMPV6_ADVERT, .flags = ADVERT_FLAGS,
			.option = OPTION_TARGET_LINK, .option_length = 1},
	};

	if (bpf_skb_load_bytes(skb, packet->transport + 8, &frame.message.target, 16) ||
	    bpf_skb_change_tail(skb, FRAME_SIZE(frame), 0))
		return TC_ACT_SHOT;
	__builtin_memcpy(frame.ethernet.h_dest, macs->theirs, 6);
	__builtin_memcpy(frame.ethernet.h_source, macs->ours, 6);
	__builtin_memcpy(frame.message.mac, macs->ours, 6);
	frame.source = frame.message.target;
	frame.destination = packet->source;
	frame.message.checksum = advert_checksum(&frame);
	if (bpf_skb_store_bytes(skb, 0, &frame.ethernet, FRAME_SIZE(frame), 0))
		return TC_ACT_SHOT;
	statistic(STATISTIC_ANSWERED);
	return bpf_redirect(skb->ifindex, 0);
}
