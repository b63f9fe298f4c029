/*
 * Who has an address: every pod of the cluster, every node, the resolver's addresses. Written before the pod's first
 * packet, removed after the pod is gone. A pod of this node is known by its endpoint, which says the same.
 */
#ifndef WEFT_MAPS_IDENTITIES_H
#define WEFT_MAPS_IDENTITIES_H

#include "abi/address.h"
#include "abi/identity.h"

struct identity {
	__u32 identity;
	__u32 node;    /* number of the node that has it; 0: this one */
	__be32 tunnel; /* IPv4 address of that node, where packets to it are wrapped; 0: not */
	__u32 since;   /* epoch in which its owner got the address: flows from before were another's */
	__u32 owner;   /* tells one pod with the address from the next: of its UID */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct identity);
} identities_v1 SEC(".maps");

#endif
