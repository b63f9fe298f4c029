/* Whose network an address is of. */
#ifndef WEFT_LIB_NETWORKS_H
#define WEFT_LIB_NETWORKS_H

#include "config.h"
#include "abi/tuple.h"
#include "lib/address.h"

INLINE int in_service_network(const struct address *a)
{
	return network_contains(&cfg_service_network4, a) || network_contains(&cfg_service_network6, a);
}

INLINE int in_pod_network(const struct address *a)
{
	return network_contains(&cfg_pod_network4, a) || network_contains(&cfg_pod_network6, a);
}

/* src/datapath/tunnel.ts makes the device with it. At the node's own address this port is the tunnel's and no Service's. */
#define TUNNEL_PORT 8472

INLINE int is_for_tunnel(const struct tuple *t)
{
	return cfg_tunnel && t->protocol == IPPROTO_UDP && t->destination_port == bpf_htons(TUNNEL_PORT) &&
	       t->destination.word[3] == cfg_node_address4.word[3] && t->destination.word[2] == V4_MAPPED &&
	       !t->destination.word[0];
}

#endif
