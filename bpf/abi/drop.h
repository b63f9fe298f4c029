/*
 * Why a packet went no further, and the counters' index. The words for people are in src/datapath/maps/counters.ts.
 * Numbers are part of the pinned map: add at the end, never renumber.
 */
#ifndef WEFT_ABI_DROP_H
#define WEFT_ABI_DROP_H

enum reason {
	REASON_FORWARDED = 0,		   /* not a drop: redirected, or handed to the node's own stack */
	REASON_INVALID_PACKET = 1,	   /* shorter than its headers say */
	REASON_UNSUPPORTED_PROTOCOL = 2,   /* neither IPv4, IPv6 nor ARP */
	REASON_INVALID_SOURCE = 3,	   /* a pod sent from an address that is not its own */
	REASON_MULTICAST = 4,		   /* no multicast or link-local traffic between pods */
	REASON_NO_SERVICE = 5,		   /* to a Service address or port that there is not */
	REASON_WRITE_FAILED = 6,	   /* the kernel refused to change the packet */
	REASON_POLICY_DENIED = 7,	   /* an isolated pod, and no rule allows it */
	REASON_UNKNOWN_SENDER = 8,	   /* as before; the other side is a pod address that nobody has told us of */
	REASON_FLOWS_FULL = 9,		   /* no room for another established flow */
	REASON_FLOWS_SHARE = 10,	   /* the pod holds its share of them */
	REASON_INVALID_FLOW = 11,	   /* middle of a connection that no policy allows either way; out of its window */
	REASON_TRUNCATED_L4 = 12,	   /* ends within the transport header */
	REASON_UNKNOWN_L4 = 13,		   /* a protocol that a rule for ports cannot be asked about */
	REASON_FRAGMENT_FIRST_MISSING = 14, /* a later fragment whose first one has not been seen */
	REASON_INVALID_EXTENSION_HEADER = 15, /* too many of IPv6's, or one that leads elsewhere */
	REASON_NO_BACKEND = 16,	  /* a Service without endpoints */
	REASON_SOURCE_RANGE = 17, /* a load balancer that is not for that source */
	REASON_NO_NAT_PORT = 18,  /* every source port to that place is in use, or the node has no address of the family */
	REASON_NO_NAT_MAPPING = 19, /* the middle of a connection whose translation is not known */
	REASON_NO_TUNNEL = 20,	  /* to a pod address of which nobody knows the node */
	/* Not given out: the node's stack says these three better (lib/forward.h). */
	REASON_FIB_FAILED = 21,
	REASON_FRAG_NEEDED = 22,
	REASON_TTL_EXCEEDED = 23,
	REASON_RATE_LIMITED = 24, /* denied, and the pod has had its answers for this second */
	REASON_NO_LOCAL_BACKEND = 25, /* only this node's backends would do, and it has none: silence */
	REASON_INVALID_IDENTITY = 26, /* from outside, by an address that is this node's or one of its pods' */
	REASON_UNSUPPORTED_NAT_PROTOCOL = 27,
	REASON_FORBIDDEN_ICMP = 28,
	REASON_HOST_NOT_READY = 29, /* the pod's sets are not known yet */
	REASON_MAP_WRITE_FAILED = 30,
	REASON_MAX = 96, /* room to grow without a new map */
};

/* As a pod sees it. */
enum direction {
	DIRECTION_EGRESS = 0,
	DIRECTION_INGRESS = 1,
	DIRECTION_MAX = 2,
};

#endif
