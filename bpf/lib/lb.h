/* Service address -> backend. The decision by itself, without a socket or a packet around it. */
#ifndef WEFT_LIB_LB_H
#define WEFT_LIB_LB_H

#include "lib/clock.h"
#include "lib/networks.h"
#include "maps/services.h"

enum lb_result {
	LB_NO_SERVICE = 0, /* not a Service address */
	LB_CHOSEN = 1,
	LB_REFUSED = 2,	  /* a Service without endpoints, or a port that the Service does not have */
	LB_STACK = 3,	  /* the node's own stack answers */
	LB_SILENT = 4,	  /* only this node's backends would do, and there are none */
	LB_FORBIDDEN = 5, /* not from that source */
};

/* Where a connection comes from. */
enum lb_side {
	LB_INSIDE = 0,	/* a pod of this node, or the node itself */
	LB_OUTSIDE = 1, /* by the uplink */
};

struct lb_choice {
	const struct backend *backend;
	__u64 service;
	__u32 number; /* of the backend */
	__u32 random; /* what the choice was made by */
};

INLINE __u32 address_flags(const struct address *a)
{
	const __u32 *flags = bpf_map_lookup_elem(&addresses_v1, a);

	return flags ? *flags : 0;
}

/* The frontend of an address, or of "any node" where the address is a node's. */
INLINE const struct frontend *lb_frontend(struct frontend_key *key, __u32 flags)
{
	const struct frontend *found = bpf_map_lookup_elem(&frontends_v2, key);

	if (found || !(flags & ADDRESS_NODE))
		return found;
	/* 0.0.0.0 keeps its family: ::ffff:0.0.0.0. */
	key->address.word[3] = 0;
	if (key->address.word[2] != V4_MAPPED || key->address.word[0] || key->address.word[1]) {
		key->address.word[0] = 0;
		key->address.word[1] = 0;
		key->address.word[2] = 0;
	}
	return bpf_map_lookup_elem(&frontends_v2, key);
}

INLINE int lb_source_allowed(const struct frontend *frontend, const struct address *source)
{
	struct source_range_key key = { .prefix = 64 + 128, .address = *source };

	key.service[0] = frontend->service;
	key.service[1] = frontend->service >> 32;
	return bpf_map_lookup_elem(&source_ranges_v1, &key) != 0;
}

/* The backend that the client had, where it still is one and was asked for lately enough. */
INLINE const __u32 *lb_remembered(const struct frontend *frontend, const struct affinity_key *who, __u8 protocol,
				  enum lb_side side, __u64 now)
{
	struct affinity *known = bpf_map_lookup_elem(&affinity_v1, who);
	struct member_key key = { .service = who->service, .port = frontend->port, .protocol = protocol };

	if (!known || is_older(now, known->seen, FAULTY(27, 0, frontend->affinity) * SECOND))
		return 0;
	key.backend = known->backend;
	key.outside = side == LB_INSIDE && (frontend->flags & FRONTEND_INSIDE_LOCAL) ? 2 : side;
	return bpf_map_lookup_elem(&members_v1, &key);
}

/*
 * Of a frontend that was found: which backend. `client` is who asks, for affinity; `random` decides where nothing else does.
 * With `write` 0 nothing is remembered.
 */
INLINE enum lb_result lb_select(const struct frontend *frontend, const struct address *client, __u8 protocol,
				enum lb_side side, __u32 random, __u64 now, int write, struct lb_choice *choice)
{
	__u32 first = frontend->first, count = frontend->count, slot;
	struct affinity_key who = { .service = frontend->service };
	const __u32 *number = 0;

	if (frontend->flags & FRONTEND_STACK)
		return LB_STACK;
	if (side == LB_INSIDE && (frontend->flags & FRONTEND_OUTSIDE_ONLY))
		return LB_NO_SERVICE;
	if (side == LB_OUTSIDE) {
		if (!(frontend->flags & FRONTEND_OUTSIDE))
			return LB_NO_SERVICE;
		/* Before affinity and tracking: who may not ask leaves nothing behind. */
		if (FAULTY(26, 0, frontend->flags & FRONTEND_RANGES) && !lb_source_allowed(frontend, client))
			return LB_FORBIDDEN;
		first = FAULTY(25, frontend->first, frontend->outside_first);
		count = FAULTY(25, frontend->count, frontend->outside_count);
		if (count == 0 && (frontend->flags & FRONTEND_LOCAL))
			return LB_SILENT;
	}
	if (count == 0)
		return LB_REFUSED;
	choice->random = random;
	choice->service = frontend->service;
	if (frontend->affinity) {
		who.client = *client;
		number = lb_remembered(frontend, &who, protocol, side, now);
	}
	if (!number) {
		slot = first + random % count;
		number = bpf_map_lookup_elem(&slots_v1, &slot);
		if (!number)
			return LB_REFUSED;
	}
	choice->number = *number;
	choice->backend = bpf_map_lookup_elem(&backends_v1, number);
	if (!choice->backend)
		return LB_REFUSED;
	if (frontend->affinity && write) {
		struct affinity value = { .backend = choice->backend->address, .seen = now };

		bpf_map_update_elem(&affinity_v1, &who, &value, BPF_ANY);
	}
	return LB_CHOSEN;
}

/* For a socket: a cluster address without a frontend is refused, anything else is no Service. */
INLINE enum lb_result lb_choose(struct frontend_key *key, const struct address *client, struct lb_choice *choice)
{
	int in_network = in_service_network(&key->address);
	__u32 flags = in_network || in_pod_network(&key->address) ? 0 : address_flags(&key->address);
	const struct frontend *frontend = lb_frontend(key, flags);

	if (!frontend)
		return in_network || (flags & ADDRESS_VIRTUAL) ? LB_REFUSED : LB_NO_SERVICE;
	return lb_select(frontend, client, key->protocol, LB_INSIDE, bpf_get_prandom_u32(), clock_ns(), 1, choice);
}

#endif
