/* Where the node's L7 engine listens: any address and port of a Gateway, to one of its few sockets. */
#ifndef WEFT_MAPS_LISTENERS_H
#define WEFT_MAPS_LISTENERS_H

#include "abi/address.h"

#define LISTENERS_MAX 16384
#define LISTENER_SOCKETS_MAX 256

struct listener {
	struct address address;
	__u16 port; /* host order, as the hook has it */
	__u16 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LISTENERS_MAX);
	__type(key, struct listener);
	__type(value, __u32); /* slot of listener_sockets */
} listeners_v1 SEC(".maps");

/* The agent's listening sockets. One that is closed leaves its slot by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, LISTENER_SOCKETS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} listener_sockets_v1 SEC(".maps");

#endif
