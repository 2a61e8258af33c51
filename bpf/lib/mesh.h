/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The mesh, as the kernel knows it: which ports want what comes from other pods to be
 * in a tunnel, and which connections are tunnels?
 *
 * src/sixfold/mesh/modes.py plans the modes; tests/twin/test_mesh.py holds the verdicts
 * equal. Without a pod in the mesh all this costs one look at `runtime`.
 */
#pragma once

#include "shared.h"

/* Full: apply() refuses before it writes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct port_mode_key);
	__type(value, struct port_mode);
} modes SEC(".maps");

/* Services whose clients' requests or connections are routed, and by what: enum
 * routed_by. Full: the rest is balanced, and told.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct frontend_key);
	__type(value, __u8);
} routed SEC(".maps");

/* Of pods whose identity is for some of their processes. Full: apply() refuses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* endpoint id */
	__type(value, struct speakers);
} speakers SEC(".maps");

static __always_inline bool mesh_in_use(void)
{
	__u32 index = RUNTIME_MESH;
	const __u32 *value = bpf_map_lookup_elem(&runtime, &index);

	return value && *value;
}

/* Of a port of a pod; NULL: the pod is not in the mesh. */
static __always_inline const struct port_mode *mode_of(__u32 endpoint, __be16 port)
{
	struct port_mode_key key = {.endpoint = endpoint, .port = port};
	const struct port_mode *found;

	if (!mesh_in_use())
		return NULL;
	found = bpf_map_lookup_elem(&modes, &key);
	if (found || !port)
		return found;
	key.port = 0;
	return bpf_map_lookup_elem(&modes, &key);
}
