/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Events: one record per new connection and per drop, for the flow log.
 *
 * Nobody is woken: the agent polls. What finds the ring full is counted, never waited
 * for.
 */
#pragma once

#include "policy.h"

#define BPF_RB_NO_WAKEUP 1

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

/* How often each rule decided: what its events would say, had none been lost. Full:
 * what is not counted is, under STATISTIC_UNCOUNTED. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* rule */
	__type(value, __u64);
} rule_hits SEC(".maps");

static __noinline int count_hit(__u32 rule)
{
	__u64 one = 1, *hits;

	hits = bpf_map_lookup_elem(&rule_hits, &rule);
	if (hits)
		*hits += 1;
	else if (bpf_map_update_elem(&rule_hits, &rule, &one, BPF_ANY))
		statistic(STATISTIC_UNCOUNTED);
	return 0;
}

static __always_inline void count_rule(__u32 rule)
{
	if (rule)
		count_hit(rule);
}

/* What an event says beyond its packet. */
struct observation {
	__u8 type;
	__u8 reason;
	__u8 direction;
	__u8 is_reply : 4;
	__u8 transport : 4; /* enum transport */
	__u32 identity[2];  /* of the packet's source and destination */
	__u32 rule[2];
	__u32 service;
	__be16 service_port;
	__u8 answer; /* 1 + rcode of what DNS was answered here */
	__u8 dial;   /* enum dial */
};

/* Not inlined, so that BTF knows the struct: tests/twin/test_layout.py reads it there.
 */
static __noinline int fill(struct flow_event *event, const struct packet *packet,
			   const struct observation *seen)
{
	event->time_ns = bpf_ktime_get_ns();
	event->type = seen->type;
	event->reason = seen->reason;
	event->protocol = packet->protocol;
	event->direction = seen->direction;
	event->tcp_flags = packet->tcp_flags;
	event->icmp_type = packet->icmp_type;
	event->icmp_code = packet->icmp_code;
	event->is_reply = seen->is_reply;
	event->source = packet->source;
	event->destination = packet->destination;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->source_identity = seen->identity[0];
	event->destination_identity = seen->identity[1];
	event->rule[0] = seen->rule[0];
	event->rule[1] = seen->rule[1];
	event->service = seen->service;
	event->service_port = seen->service_port;
	event->answer = seen->answer;
	event->dial = seen->dial;
	event->transport = seen->transport;
	__builtin_memset(event->pad, 0, sizeof(event->pad));
	return 0;
}

static __noinline int tell(const struct packet *packet, const struct observation *seen,
			   __u32 ifindex, __u32 length)
{
	struct flow_event *event;

	count_rule(seen->rule[0]);
	count_rule(seen->rule[1]);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		statistic(STATISTIC_LOST);
		return 0;
	}
	fill(event, packet, seen);
	event->ifindex = ifindex;
	event->length = length;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void emit(struct __sk_buff *skb, const struct packet *packet,
				 const struct observation *seen)
{
	tell(packet, seen, skb->ifindex, skb->len);
}
