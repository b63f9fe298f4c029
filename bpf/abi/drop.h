/*
 * Why a packet went no further, and the counters' index. The words for people are in src/datapath/maps/counters.ts.
 * Numbers are part of the pinned map: add at the end, never renumber.
 */
#ifndef WEFT_ABI_DROP_H
#define WEFT_ABI_DROP_H

enum reason {
	REASON_FORWARDED = 0,		 /* not a drop: redirected, or handed to the node's own stack */
	REASON_INVALID_PACKET = 1,	 /* shorter than its headers say */
	REASON_UNSUPPORTED_PROTOCOL = 2, /* neither IPv4, IPv6 nor ARP */
	REASON_INVALID_SOURCE = 3,	 /* a pod sent from an address that is not its own */
	REASON_MULTICAST = 4,		 /* no multicast or link-local traffic between pods */
	REASON_NO_SERVICE = 5,		 /* to a Service address that no socket hook translated */
	REASON_WRITE_FAILED = 6,	 /* the kernel refused to change the packet */
	REASON_MAX = 16,		 /* room to grow without a new map */
};

/* As a pod sees it. */
enum direction {
	DIRECTION_EGRESS = 0,
	DIRECTION_INGRESS = 1,
	DIRECTION_MAX = 2,
};

#endif
