/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Sockets of pods that begin and cease to listen, and connects that are refused. */
#pragma once

#include "captured.h"
#include "hearing.h"

/* A pod's listener came, or went; false: it is no pod's. */
static __always_inline bool listener_of(const struct sock *sk, struct deaf_key *key)
{
	__u64 namespace = sk->__sk_common.skc_net.net->net_cookie;
	__u32 *endpoint = bpf_map_lookup_elem(&namespaces, &namespace);

	key->endpoint = endpoint ? *endpoint : 0;
	key->port = htons(sk->__sk_common.skc_num);
	return key->endpoint;
}

static __always_inline void watch_listener(const struct sock *sk, int before, int state)
{
	struct deaf_key key = {};

	if (state == BPF_TCP_LISTEN && listener_of(sk, &key))
		bpf_map_delete_elem(&deaf, &key);
	else if (before == BPF_TCP_LISTEN && state == BPF_TCP_CLOSE &&
		 listener_of(sk, &key))
		mark_deaf(&key);
}

/* Refused by the backend itself: not by a policy, and not by the mesh's proxy. */
static __always_inline void watch_refusal(struct sock *sk,
					  const struct dialled *dialled)
{
	const struct capture *captured = bpf_sk_storage_get(&captures, sk, NULL, 0);
	struct deaf_key key;

	if (sk->sk_err != ECONNREFUSED || !dialled->counted ||
	    (captured && captured->state != CAPTURE_NONE))
		return;
	deaf_key(&dialled->backend_address, dialled->backend_port, &key);
	mark_deaf(&key);
}
