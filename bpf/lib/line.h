/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Lines: where the packets of a client outside went just now, found without a lookup.
 *
 * Most of what a packet costs at the uplink is the lookup of its arrival: a call, a
 * hash of 40 bytes, a list, a comparison. So what an arrival says for a tick of the
 * clock (arrival.h) stands in an array as well, in the line that its hash names. One
 * flow has a line; whoever shares it goes the long way. A line is written once a tick
 * at most, and is no answer once anything moved on: the tick, policy, the device, what
 * TCP says.
 *
 * Any CPU may read a line while another writes it. Who writes makes its version odd
 * first; who reads asks for the version before and behind, and drops a packet that was
 * aimed by two versions (TCP sends it again).
 */
#pragma once

#include "arrival.h"

#define LINE_BITS 14 /* of 16384 */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct arrival_line);
} arrival_lines SEC(".maps");

/* host/layout.py has the same. Every bit of a word reaches the highest of a product. */
static __always_inline struct arrival_line *line_of(const struct tuple *tuple)
{
	const __u64 *word = (const void *)tuple;
	__u64 sum = (word[0] + LINE_FACTOR_0) * (word[1] ^ LINE_FACTOR_1) +
		    (word[2] + LINE_FACTOR_2) * (word[3] ^ LINE_FACTOR_3) +
		    word[4] * LINE_FACTOR_4;
	__u32 index = sum >> (64 - LINE_BITS);

	return bpf_map_lookup_elem(&arrival_lines, &index);
}

static __always_inline bool is_in(const struct tuple *tuple,
				  const struct arrival_line *line)
{
	const __u64 *a = (const void *)tuple, *b = (const void *)&line->tuple;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) |
		 (a[4] ^ b[4]));
}

/* Its arrival is told what the line has counted, and the line says nothing any more. */
static __noinline int clear_line(struct arrival_line *line)
{
	struct arrival *arrival = bpf_map_lookup_elem(&arrivals, &line->tuple);

	if (arrival) {
		arrival->packets += line->packets;
		arrival->bytes += line->bytes;
	}
	line->packets = line->bytes = 0;
	line->client_ifindex = 0;
	return 0;
}

/* A connection is chosen or judged: what its line says is over. */
static __noinline int leave_line(const struct tuple *tuple)
{
	struct arrival_line *line = line_of(tuple);

	return line && is_in(tuple, line) ? clear_line(line) : 0;
}

/* What the arrival says holds for this tick: its line says the same, unless another
 * flow has it, or somebody is writing there. */
static __noinline int keep_line(const struct tuple *tuple,
				const struct arrival *arrival)
{
	struct arrival_line *line = line_of(tuple);
	__u32 version;

	if (!line || (line->client_ifindex && line->tick == arrival->tick &&
		      !is_in(tuple, line)))
		return 0;
	version = line->version;
	if (version & 1 || __sync_val_compare_and_swap(&line->version, version,
						       version + 1) != version)
		return 0;
	if (line->packets)
		clear_line(line);
	line->tuple = *tuple;
	line->backend = arrival->backend;
	line->port = arrival->port;
	line->tcp_flags = arrival->tcp_flags;
	line->revision = arrival->revision;
	line->tick = arrival->tick;
	line->ifindex = arrival->ifindex;
	line->client_ifindex = arrival->client_ifindex;
	asm volatile("" ::: "memory");
	line->version = version + 2;
	return 0;
}
