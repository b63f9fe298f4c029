/* The pods of this node, by address. Written before a pod's programs are attached, removed after its device is gone. */
#ifndef WEFT_MAPS_ENDPOINTS_H
#define WEFT_MAPS_ENDPOINTS_H

#include "abi/address.h"

#define ENDPOINTS_MAX 4096 /* 110 pods a node is usual; two addresses each, and room */

struct endpoint {
	__u32 ifindex;	/* host end of the veth pair */
	struct mac mac; /* of the pod's end */
	__u16 number;	/* 1 ... ENDPOINTS_MAX - 1, the pod's own: both of its addresses have it */
	__u32 identity;
	__u32 egress_set; /* 0: not isolated; SET_NOT_READY: nothing is allowed yet */
	__u32 ingress_set;
	__u32 since; /* epoch in which the pod got the address: flows from before were another's */
	__u32 owner; /* tells one sandbox with the address from the next */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ENDPOINTS_MAX);
	__type(key, struct address);
	__type(value, struct endpoint);
} endpoints_v2 SEC(".maps");

#endif
