/* What a socket asked for before its destination was exchanged, so that it is told the same name back. */
#ifndef WEFT_MAPS_SOCKETS_H
#define WEFT_MAPS_SOCKETS_H

#include "abi/address.h"

/*
 * A connected socket: kept with the socket and gone with it. Without a backend's port: one that has asked for Services, and is
 * connected to none.
 */
struct translation {
	struct address frontend;
	struct address backend;
	__be16 frontend_port;
	__be16 backend_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct translation);
} connected_v1 SEC(".maps");

/* A datagram socket that talks to many: by socket and the peer that the kernel sees. */
struct datagram_key {
	__u64 cookie;
	struct address backend;
	__be16 backend_port;
	__u16 pad[3];
};

struct datagram {
	struct address frontend;
	__be16 frontend_port;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536); /* an evicted entry costs one answer that seems to come from the backend */
	__type(key, struct datagram_key);
	__type(value, struct datagram);
} datagrams_v1 SEC(".maps");

#endif
