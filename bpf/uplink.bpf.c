/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The host's uplinks: what comes in from the world, and what leaves for it.
 *
 * Not every packet here is ours to judge, and we are not alone on these devices: what
 * passes goes on to whoever is attached behind us (TCX_NEXT), never past them.
 *
 *   in   services of the node, as outside knows them; then the host's own policy
 *   out  the host's own policy; then what services of the node have to turn back
 */
#include "lib/conntrack.h"

#define TCX_NEXT -1

SEC("tc") int from_uplink(struct __sk_buff *skb)
{
	(void)skb;
	return TCX_NEXT;
}

SEC("tc") int to_uplink(struct __sk_buff *skb)
{
	(void)skb;
	return TCX_NEXT;
}

char LICENSE[] SEC("license") = "GPL";
