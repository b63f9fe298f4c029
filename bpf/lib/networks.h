/* Whose network an address is of. */
#ifndef WEFT_LIB_NETWORKS_H
#define WEFT_LIB_NETWORKS_H

#include "config.h"
#include "lib/address.h"

INLINE int in_service_network(const struct address *a)
{
	return network_contains(&cfg_service_network4, a) || network_contains(&cfg_service_network6, a);
}

INLINE int in_pod_network(const struct address *a)
{
	return network_contains(&cfg_pod_network4, a) || network_contains(&cfg_pod_network6, a);
}

#endif
