/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Address and port of a bpf_sock_addr, whatever its family. */
#pragma once

#include "shared.h"

static __always_inline void get_address(struct bpf_sock_addr *ctx, bool ipv6,
					union address *address)
{
	if (!ipv6) {
		set_ipv4(address, ctx->user_ip4);
		return;
	}
	address->word[0] = ctx->user_ip6[0];
	address->word[1] = ctx->user_ip6[1];
	address->word[2] = ctx->user_ip6[2];
	address->word[3] = ctx->user_ip6[3];
}

static __always_inline void set_address(struct bpf_sock_addr *ctx, bool ipv6,
					const union address *address, __be16 port)
{
	if (!ipv6) {
		ctx->user_ip4 = address->word[3];
	} else {
		ctx->user_ip6[0] = address->word[0];
		ctx->user_ip6[1] = address->word[1];
		ctx->user_ip6[2] = address->word[2];
		ctx->user_ip6[3] = address->word[3];
	}
	ctx->user_port = port;
}
