/*
 * Services: frontend -> slots -> backends.
 * A frontend names a run of slots; each slot names a backend. A change writes new backends, then a new run of slots, then
 * the frontend's one value, so that a connection sees all of the old set or all of the new one. What went out of use is
 * not used again for a while (src/datapath/maps/services.ts), so no lookup that is under way can meet a stranger.
 */
#ifndef WEFT_MAPS_SERVICES_H
#define WEFT_MAPS_SERVICES_H

#include "abi/address.h"

struct frontend_key {
	struct address address;
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP */
	__u8 pad;
};

struct frontend {
	__u32 first; /* slot */
	__u32 count; /* 0: the Service is known and has no endpoint, connections are refused */
};

struct backend {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* 65,536 ready-made entries would be 7 MB on every node */
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, __u32); /* backend */
} slots_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct backend);
} backends_v1 SEC(".maps");

#endif
