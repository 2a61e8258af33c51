/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The host's uplinks: what comes in from the world, and what leaves for it.
 *
 * Not every packet here is ours to judge, and we are not alone on these devices: what
 * passes goes on to whoever is attached behind us (TCX_NEXT), never past them.
 *
 *   in   services of the node, as outside knows them; then the host's own policy
 *   out  the host's own policy; then what services of the node have to turn back
 */
#include "lib/host.h"

SEC("tc") int from_uplink(struct __sk_buff *skb)
{
	return host_policy(skb, INGRESS, ETH_LENGTH);
}

SEC("tc") int to_uplink(struct __sk_buff *skb)
{
	return host_policy(skb, EGRESS, ETH_LENGTH);
}

/* The same where frames have no Ethernet header: tunnels. */
SEC("tc") int from_bare_uplink(struct __sk_buff *skb)
{
	return host_policy(skb, INGRESS, 0);
}

SEC("tc") int to_bare_uplink(struct __sk_buff *skb)
{
	return host_policy(skb, EGRESS, 0);
}

char LICENSE[] SEC("license") = "GPL";
