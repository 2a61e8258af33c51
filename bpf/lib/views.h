/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Views: may this pod be told names of this owner?
 *
 * Most names belong to a service. A pod is told those of services that policy lets it
 * reach: policy/views.py has worked out which, one bit for each. Pods that see the same
 * share a view, whose bits stand in lines; a line that is not there is all zeros.
 */
#pragma once

#include "policy.h"
#include "question.h"

/* Endpoint id to view, perhaps with VIEW_LIMITED; 0 = nothing, fail closed. */
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

/* Of the pod that asks. False: policy says which names it may ask for, and only the
 * process reads that. */
static __always_inline bool find_view(__u32 endpoint, struct question *question)
{
	const __u32 *view = bpf_map_lookup_elem(&view_of, &endpoint);

	question->view = view ? *view : VIEW_NOTHING;
	return !(question->view & VIEW_LIMITED);
}

static __always_inline bool shows(__u32 view, __u32 owner)
{
	struct view_key key = {.view = view, .line = owner / VIEW_LINE_BITS};
	const struct view_line *line = bpf_map_lookup_elem(&views, &key);

	return line && line->bits[owner / 64 % 8] >> (owner & 63) & 1;
}

/* What a view shows of an owner's names. SOME: of a name that has several, each is to
 * be asked for. */
static __always_inline int sight(__u32 view, const struct name_records *name)
{
	if ((!name->owner && !(name->flags & NAME_SHARED)) || view == VIEW_EVERYTHING)
		return SIGHT_ALL;
	if (name->flags & NAME_SHARED)
		return SIGHT_SOME;
	return shows(view, name->owner) ? SIGHT_ALL : SIGHT_NONE;
}

/* Those of a name's owners that the pod may know of. SOME: not the kernel's to say. */
static __noinline int choose_owners(const struct name_answer *name,
				    struct question *question)
{
	const __u32 *owners = (const void *)name->records;
	__u32 count = name->head.answers, i;

	question->key.seen = 0;
	question->owners = 0;
	if (!(name->head.flags & NAME_SHARED) || !count || count > NAME_OWNERS)
		return SIGHT_SOME;
	asm volatile("" : "+r"(count)); /* the verifier wants both bounds below */
#pragma clang loop unroll(disable)
	for (i = 0; i < NAME_OWNERS && i < count; i++) {
		if (!shows(question->view, owners[i]))
			continue;
		question->key.seen |= 1 << i;
		question->owners = question->owners * OWNERS_FACTOR + owners[i];
	}
	if (!question->key.seen)
		return SIGHT_NONE;
	if (question->key.seen == (1 << count) - 1)
		question->key.seen = 0;
	return SIGHT_ALL;
}
