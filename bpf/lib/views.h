/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Views: may this pod be told names of this owner?
 *
 * Most names belong to a service. A pod is told those of services that policy lets it
 * reach: policy/views.py has worked out which, one bit for each. Pods that see the same
 * share a view, whose bits stand in lines; a line that is not there is all zeros.
 */
#pragma once

#include "policy.h"

/* Endpoint id to view; 0 = nothing, fail closed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, __u32);
} view_of SEC(".maps");

/* host/views.py refuses what does not fit before it writes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct view_key);
	__type(value, struct view_line);
} views SEC(".maps");

enum sight { SIGHT_NONE = 0, SIGHT_SOME = 1, SIGHT_ALL = 2 };

/* What the pod behind an interface may know of an owner's names. SOME: of names that
 * have several owners, which the kernel does not tell apart. */
static __noinline int sight(__u32 ifindex, const struct name_records *name)
{
	const struct endpoint *endpoint;
	const struct view_line *line;
	struct view_key key;
	__u32 id, *view;

	if (!name->owner && !(name->flags & NAME_SHARED))
		return SIGHT_ALL;
	endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	if (!endpoint)
		return SIGHT_NONE;
	id = endpoint->id;
	view = bpf_map_lookup_elem(&view_of, &id);
	if (!view)
		return SIGHT_NONE;
	if (*view == VIEW_EVERYTHING)
		return SIGHT_ALL;
	if (name->flags & NAME_SHARED)
		return SIGHT_SOME;
	key.view = *view;
	key.line = name->owner / VIEW_LINE_BITS;
	line = bpf_map_lookup_elem(&views, &key);
	return line && line->bits[name->owner / 64 % 8] >> (name->owner & 63) & 1
		   ? SIGHT_ALL
		   : SIGHT_NONE;
}
