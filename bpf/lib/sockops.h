/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Both ends of a TCP socket, as struct bpf_sock_ops has them. */
#pragma once

#include "conntrack.h"

#define AF_INET_ 2
#define OK	 1

/* One field at a time: the kernel allows neither wider reads of its context nor
 * pointers into it. */
#define context_word(place) (*(volatile __u32 *)&(place))

static __always_inline void read_ends(struct bpf_sock_ops *ops, struct packet *packet)
{
	__u32 ipv4[2] = {context_word(ops->local_ip4), context_word(ops->remote_ip4)};

	packet->protocol = IPPROTO_TCP;
	if (ops->family == AF_INET_) {
		set_ipv4(&packet->source, ipv4[0]);
		set_ipv4(&packet->destination, ipv4[1]);
	} else {
		packet->source.word[0] = context_word(ops->local_ip6[0]);
		packet->source.word[1] = context_word(ops->local_ip6[1]);
		packet->source.word[2] = context_word(ops->local_ip6[2]);
		packet->source.word[3] = context_word(ops->local_ip6[3]);
		packet->destination.word[0] = context_word(ops->remote_ip6[0]);
		packet->destination.word[1] = context_word(ops->remote_ip6[1]);
		packet->destination.word[2] = context_word(ops->remote_ip6[2]);
		packet->destination.word[3] = context_word(ops->remote_ip6[3]);
	}
	packet->source_port = htons(ops->local_port);
	packet->destination_port = htons(__builtin_bswap32(ops->remote_port));
}

/* The key of its connection; returns the socket's side. */
static __always_inline __u32 end_of(struct bpf_sock_ops *ops, struct conntrack_key *key)
{
	struct packet packet = {};

	read_ends(ops, &packet);
	return conntrack_key(&packet, key);
}
