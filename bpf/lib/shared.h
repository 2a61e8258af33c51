/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Maps that both the packet and the socket programs use. All maps are pinned by name,
 * so that both objects, and every later load, open the same ones.
 */
#pragma once

#include "bpf.h"
#include "sixfold.h"

/* Index: enum runtime_index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} runtime SEC(".maps");

/* Index: a drop reason, or enum statistic. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} statistics SEC(".maps");

/* Full: apply() refuses before it writes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct translation);
} last_translation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct dialled_key);
	__type(value, struct dialled_service);
} dialled_services SEC(".maps");

static __always_inline void statistic(__u32 index)
{
	__u64 *count = bpf_map_lookup_elem(&statistics, &index);

	if (count)
		*count += 1;
}

static __always_inline struct translation *translation_slot(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&last_translation, &zero);
}

static __always_inline bool equal(const union address *a, const union address *b)
{
	return a->half[0] == b->half[0] && a->half[1] == b->half[1];
}

static __always_inline bool is_ipv4(const union address *a)
{
	return !a->half[0] && a->word[2] == htonl(0xffff);
}

static __always_inline void set_ipv4(union address *a, __be32 ipv4)
{
	a->half[0] = 0;
	a->word[2] = htonl(0xffff);
	a->word[3] = ipv4;
}
