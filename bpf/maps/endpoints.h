/* The pods of this node, by address. Written before a pod's programs are attached, removed after its device is gone. */
#ifndef WEFT_MAPS_ENDPOINTS_H
#define WEFT_MAPS_ENDPOINTS_H

#include "abi/address.h"

struct endpoint {
	__u32 ifindex;	/* host end of the veth pair */
	struct mac mac; /* of the pod's end */
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096); /* 110 pods a node is usual; two addresses each, and room */
	__type(key, struct address);
	__type(value, struct endpoint);
} endpoints_v1 SEC(".maps");

#endif
