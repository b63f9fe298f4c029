/* Service address -> backend. The decision by itself, without a socket or a packet around it. */
#ifndef WEFT_LIB_LB_H
#define WEFT_LIB_LB_H

#include "config.h"
#include "lib/address.h"
#include "maps/services.h"

enum lb_result {
	LB_NO_SERVICE = 0, /* not a Service address */
	LB_CHOSEN = 1,
	LB_REFUSED = 2, /* a Service without endpoints, or a port that the Service does not have */
};

INLINE enum lb_result lb_choose(const struct frontend_key *key, const struct backend **chosen)
{
	const struct frontend *frontend = bpf_map_lookup_elem(&frontends_v1, key);
	const __u32 *backend;
	__u32 slot;

	if (!frontend) {
		if (network_contains(&cfg_service_network4, &key->address) ||
		    network_contains(&cfg_service_network6, &key->address))
			return LB_REFUSED;
		return LB_NO_SERVICE;
	}
	if (frontend->count == 0)
		return LB_REFUSED;
	slot = frontend->first + bpf_get_prandom_u32() % frontend->count;
	backend = bpf_map_lookup_elem(&slots_v1, &slot);
	if (!backend)
		return LB_REFUSED;
	*chosen = bpf_map_lookup_elem(&backends_v1, backend);
	return *chosen ? LB_CHOSEN : LB_REFUSED;
}

#endif
