/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Translation, as packets see it: which service did the sender dial to get here?
 *
 * The socket hooks translate and leave a note; a connection's first packet takes it
 * along. A note that is lost leaves the service out of the flow, never a wrong one in.
 */
#pragma once

#include "packet.h"

#define TRANSLATION_MAX_AGE 4 /* in units of 2^24 ns: 67 ms */

/* The service that a connected datagram socket dialled. */
static __always_inline void take_dialled(const struct packet *packet, __u32 endpoint,
					 struct conntrack *entry)
{
	struct dialled_key key = {.endpoint = endpoint, .protocol = packet->protocol};
	struct dialled_service *dialled;

	key.address = packet->destination;
	key.port = packet->destination_port;
	dialled = bpf_map_lookup_elem(&dialled_services, &key);
	if (dialled) {
		entry->service = dialled->service;
		entry->service_port = dialled->service_port;
		entry->dial = dialled->dial;
	}
}

/* The service that the sender dialled, if its socket was translated just now, here. */
static __noinline int take_translation(const struct packet *packet, __u32 endpoint,
				       struct conntrack *entry)
{
	struct translation *last = translation_slot();

	if (!entry)
		return 0;
	if (!last || !last->service || last->endpoint != endpoint ||
	    last->port != packet->destination_port ||
	    last->protocol != packet->protocol ||
	    !equal(&last->address, &packet->destination)) {
		if (packet->protocol == IPPROTO_UDP)
			take_dialled(packet, endpoint, entry);
		return 0;
	}
	if ((__u32)(bpf_ktime_get_coarse_ns() >> 24) - last->time <=
	    TRANSLATION_MAX_AGE) {
		entry->service = last->service;
		entry->service_port = last->service_port;
		entry->dial = last->dial;
	}
	last->service = 0;
	return 0;
}
