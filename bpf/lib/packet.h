/* A packet as the programs know it, and the names of what stands in headers. */
#ifndef WEFT_LIB_PACKET_H
#define WEFT_LIB_PACKET_H

#include <linux/icmpv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "abi/tuple.h"
#include "lib/address.h"
#include "lib/verdict.h"

/* Bits of struct packet's flags. */
enum packet_flag {
	PACKET_PORTS = 1 << 0,		/* the tuple's ports are ports: TCP, UDP, SCTP */
	PACKET_FIRST_FRAGMENT = 1 << 1, /* others follow, which have no ports of their own */
	PACKET_LATER_FRAGMENT = 1 << 2, /* its ports, if it has any, are the first one's */
	PACKET_ICMP_ERROR = 1 << 3,	/* about a packet that it quotes: lib/icmp.h */
	PACKET_OPTIONS = 1 << 4,	/* IPv4 options, IPv6 extension headers */
	PACKET_TRANSLATED = 1 << 5,	/* lb or nat has exchanged an address; `asked` was its destination */
	PACKET_ANSWER = 1 << 6,		/* set by track: from the server to the client */
	PACKET_EVENT = 1 << 7,		/* changes a connection's state: SYN, FIN, RST; any of SCTP */
	PACKET_REFUSED_INGRESS = 1 << 8, /* set by track: it is the receiver that does not take it */
	PACKET_NEIGHBOUR = 1 << 9,	/* ICMPv6 of the link's own affairs: never between pods */
	PACKET_RENAMED = 1 << 10,	/* set by nat_answer: it bears the name that was asked already */
};

struct packet {
	struct tuple tuple; /* as the packet has it now: who exchanges an address does so here too */
	__be16 ethertype;
	__u8 hops;	/* TTL or hop limit */
	__u8 tcp_flags; /* ICMP: its type; SCTP: its first chunk's */
	__u16 flags;
	__u16 l4; /* offset of the transport header in the frame; 0: there is none in this one */
	__u32 fragment; /* identification, of a fragment */
	__u32 sequence; /* TCP; SCTP: verification tag (sequence), initiate tag (acknowledgement) */
	__u32 acknowledgement;
	__u32 length; /* of the transport's payload after the first header: TCP's sequence grows by it */
	/* Set by lb: the Service address that was asked for. A refusal comes from there. */
	struct address asked;
	__be16 asked_port;
	__be16 asked_source; /* the port that its sender had */
	/* Set by track. */
	__u16 flow_flags;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 rule; /* that allowed it: of the server's set, else of the client's */
	__u32 set; /* that refused */
	__u32 cut; /* reason for which an existing connection was cut: the packet went on as its reset */
	__u32 choice; /* of a backend: for probes */
	__u32 epoch; /* read before everything that it stands for */
};

/* One packet at a time on each CPU: the stack, of which a chain of functions has 512 bytes, is for other things. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} scratch_packet SEC(".maps");

INLINE struct packet *new_packet(void)
{
	__u32 zero = 0;
	struct packet *pkt = bpf_map_lookup_elem(&scratch_packet, &zero);

	if (pkt)
		__builtin_memset(pkt, 0, sizeof(*pkt));
	return pkt;
}

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10

#define SCTP_INIT 1
#define SCTP_INIT_ACK 2
#define SCTP_ABORT 6
#define SCTP_SHUTDOWN 7
#define SCTP_SHUTDOWN_COMPLETE 14

#define ICMP4_REDIRECT 5
#define ICMP6_ND_FIRST 133 /* router solicitation … redirect: the link's own affair */
#define ICMP6_ND_LAST 137

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

/* linux/icmp.h drags the C library in. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be16 id;
	__be16 sequence;
};

/* As much of a transport header as is ever looked at. */
struct l4_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__be32 check_urgent;
};

/* IPv6 */
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

#define FIRST_HEADERS(skb, type, out)                                                                                  \
	({                                                                                                             \
		void *data = (void *)(long)(skb)->data;                                                                \
		void *data_end = (void *)(long)(skb)->data_end;                                                        \
		(out) = data + sizeof(struct ethhdr);                                                                  \
		(void *)((out) + 1) <= data_end;                                                                       \
	})

/*
 * A tag names another network on the same wire: nobody has given a pod a place there, and what is sent on keeps the tag. The
 * kernel has taken it out of the frame. Number 0 is no network's, only a priority.
 */
INLINE int is_tagged(const struct __sk_buff *skb)
{
	return (skb->vlan_tci & 0xfff) != 0;
}

#endif
