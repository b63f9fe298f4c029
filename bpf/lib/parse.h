/* Headers: what a packet is, checked once. */
#ifndef WEFT_LIB_PARSE_H
#define WEFT_LIB_PARSE_H

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

#define FIRST_HEADERS(skb, type, out)                                                                                  \
	({                                                                                                             \
		void *data = (void *)(long)(skb)->data;                                                                \
		void *data_end = (void *)(long)(skb)->data_end;                                                        \
		(out) = data + sizeof(struct ethhdr);                                                                  \
		(void *)((out) + 1) <= data_end;                                                                       \
	})

/* `h` is there as far as its protocol needs it; `bytes` is what the network header says is left from it on. */
INLINE int take_l4(struct packet *pkt, const struct l4_header *h, __u32 bytes)
{
	__u32 header;

	switch (pkt->tuple.protocol) {
	case IPPROTO_TCP:
		header = (h->offset >> 4) * 4;
		if (header < sizeof(struct tcphdr) || header > bytes)
			return drop(REASON_TRUNCATED_L4);
		pkt->tcp_flags = h->flags;
		pkt->sequence = bpf_ntohl(h->sequence);
		pkt->acknowledgement = bpf_ntohl(h->acknowledgement);
		pkt->length = bytes - header;
		if (h->flags & (TCP_FIN | TCP_SYN | TCP_RST))
			pkt->flags |= PACKET_EVENT;
		break;
	case IPPROTO_UDP:
		break;
	case IPPROTO_SCTP: {
		/* Common header: ports, tag, checksum; then the first chunk: type, flags, length, and an INIT's tag. */
		const __u8 *chunk = (const __u8 *)h + 12;

		pkt->tcp_flags = chunk[0];
		pkt->sequence = bpf_ntohl(h->sequence);
		pkt->acknowledgement = bpf_ntohl(h->check_urgent);
		pkt->flags |= PACKET_EVENT;
		break;
	}
	}
	pkt->tuple.source_port = h->source_port;
	pkt->tuple.destination_port = h->destination_port;
	pkt->flags |= PACKET_PORTS;
	return CONTINUE;
}

/*
 * Echo and its kin have an identifier: the asker's port, as it were. So two who ask each other under one identifier are two
 * flows, and an answer is told from a question. Errors quote what they are about.
 */
INLINE int take_icmp(struct packet *pkt, const struct l4_header *h)
{
	__u8 type = (__u8)h->source_port; /* first byte on the wire */
	__be16 id = (__be16)h->sequence;  /* the two bytes after the checksum */

	pkt->tcp_flags = type;
	if (pkt->tuple.protocol == IPPROTO_ICMP) {
		switch (type) {
		case 8: /* echo; timestamp, information, address mask */
		case 13:
		case 15:
		case 17:
			pkt->tuple.source_port = id;
			break;
		case 0: /* and their answers */
		case 14:
		case 16:
		case 18:
			pkt->tuple.destination_port = id;
			break;
		case 3: /* unreachable, source quench, time exceeded, parameter problem */
		case 4:
		case 11:
		case 12:
			pkt->flags |= PACKET_ICMP_ERROR;
			break;
		case ICMP4_REDIRECT: /* nobody but its gateway tells a pod where to send */
			return drop(REASON_FORBIDDEN_ICMP);
		}
	} else if (type == 128) {
		pkt->tuple.source_port = id;
	} else if (type == 129) {
		pkt->tuple.destination_port = id;
	} else if (type < 128) {
		pkt->flags |= PACKET_ICMP_ERROR;
	} else if (type >= ICMP6_ND_FIRST && type <= ICMP6_ND_LAST) {
		pkt->flags |= PACKET_NEIGHBOUR;
	}
	return CONTINUE;
}

/* How much of the transport header has to be there. */
INLINE __u32 l4_bytes(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_SCTP:
		return 20;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 8;
	default:
		return 0;
	}
}

/* An SCTP packet may consist of the common header and one chunk without a value. */
#define SCTP_BYTES_MIN 16

FUNCTION int copy_l4(struct __sk_buff *skb, struct l4_header *h, __u32 place, __u32 bytes)
{
	__u32 offset = place & 0xffff, protocol = place >> 24;
	long failed;

	if (!h)
		return -1;
	if (protocol == IPPROTO_SCTP && bytes < 20) {
		if (bytes < SCTP_BYTES_MIN)
			return -1;
		failed = bpf_skb_load_bytes(skb, offset, h, SCTP_BYTES_MIN);
	} else if (protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP) {
		failed = bytes < 20 ? -1 : bpf_skb_load_bytes(skb, offset, h, 20);
	} else {
		failed = bytes < 8 ? -1 : bpf_skb_load_bytes(skb, offset, h, 8);
	}
	return failed ? -1 : 0;
}

/* `bytes`: from pkt->l4 to the end of what the network header says. `direct`: where it begins, if it follows at once. */
INLINE int parse_l4(struct __sk_buff *skb, struct packet *pkt, __u32 bytes, void *direct)
{
	const struct l4_header *h = direct;
	struct l4_header copy = {};
	/* Read anew: of an earlier reading the compiler would keep the lower half, which is no packet's end to the verifier. */
	void *end = (void *)(long)*(volatile __u32 *)&skb->data_end;
	__u8 protocol = pkt->tuple.protocol;

	if (!l4_bytes(protocol))
		return CONTINUE;
	if ((protocol == IPPROTO_ICMP && pkt->ethertype != bpf_htons(ETH_P_IP)) ||
	    (protocol == IPPROTO_ICMPV6 && pkt->ethertype != bpf_htons(ETH_P_IPV6)))
		return drop(REASON_UNKNOWN_L4);
	/* Copied, so that the compiler has one way to read it: two would be twice the verifier's work. */
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP) && direct && bytes >= 20 &&
	    (void *)(h + 1) <= end) {
		copy = *h;
	} else if (direct && bytes >= 8 && direct + 8 <= end && l4_bytes(protocol) == 8) {
		copy.source_port = h->source_port;
		copy.destination_port = h->destination_port;
		copy.sequence = h->sequence;
	} else if (copy_l4(skb, &copy, (__u32)protocol << 24 | pkt->l4, bytes)) {
		return drop(REASON_TRUNCATED_L4);
	}
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? take_icmp(pkt, &copy)
								       : take_l4(pkt, &copy, bytes);
}

INLINE int parse4(struct __sk_buff *skb, struct packet *pkt)
{
	__u32 total, header, left;
	struct iphdr *ip;
	__u16 offset;

	if (!FIRST_HEADERS(skb, struct iphdr, ip)) {
		if (bpf_skb_pull_data(skb, sizeof(struct ethhdr) + sizeof(*ip)) || !FIRST_HEADERS(skb, struct iphdr, ip))
			return drop(REASON_INVALID_PACKET);
	}
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return drop(REASON_INVALID_PACKET);
	left = skb->len - sizeof(struct ethhdr);
	total = bpf_ntohs(ip->tot_len);
	/* Larger than 64 KiB (BIG TCP), a packet says 0. */
	if (total == 0 && left > 0xffff)
		total = left;
	if (total < header || total > left)
		return drop(REASON_INVALID_PACKET);
	address_from4(&pkt->tuple.source, ip->saddr);
	address_from4(&pkt->tuple.destination, ip->daddr);
	pkt->hops = ip->ttl;
	pkt->tuple.protocol = ip->protocol;
	pkt->l4 = sizeof(struct ethhdr) + FAULTY(23, sizeof(*ip), header);
	if (header != sizeof(*ip))
		pkt->flags |= PACKET_OPTIONS;
	offset = bpf_ntohs(ip->frag_off) & 0x3fff; /* more fragments, and the offset in units of eight bytes */
	if (offset) {
		pkt->fragment = ip->id;
		if (offset & 0x1fff) {
			/* Eight bytes in: it would change the flags of the first one's header (RFC 1858). */
			if (ip->protocol == IPPROTO_TCP && (offset & 0x1fff) == FAULTY(22, 0, 1))
				return drop(REASON_INVALID_PACKET);
			pkt->flags |= PACKET_LATER_FRAGMENT;
			pkt->l4 = 0;
			return CONTINUE;
		}
		pkt->flags |= PACKET_FIRST_FRAGMENT;
	}
	return parse_l4(skb, pkt, total - header, header == sizeof(*ip) ? (void *)(ip + 1) : 0);
}

#define EXTENSIONS_MAX 8 /* headers that are looked at, the transport's included; RFC 8504 lets a node limit them */

struct extension {
	__u8 next;
	__u8 length; /* in units of eight bytes, without the first; authentication: of four, without two */
	__u8 type;   /* routing */
	__u8 segments;
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* Walks to the transport header. `bytes` is what is left from pkt->l4 on. Returns what is left there, or a drop. */
FUNCTION int skip_extensions(struct __sk_buff *skb, struct packet *pkt, __u32 bytes)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr), size, i;
	__u8 next;

	if (!pkt)
		return drop(REASON_INVALID_PACKET);
	next = pkt->tuple.protocol;
	pkt->flags |= PACKET_OPTIONS;
	for (i = 0; i < EXTENSIONS_MAX; i++) {
		struct extension extension;
		struct fragment_header fragment;

		switch (next) {
		case IPPROTO_HOPOPTS:
			/* Only directly after the first header (RFC 8200, 4.1). */
			if (i)
				return drop(REASON_INVALID_EXTENSION_HEADER);
			break;
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
			break;
		case IPPROTO_FRAGMENT:
			if (bytes < 8 || bpf_skb_load_bytes(skb, offset, &fragment, sizeof(fragment)))
				return drop(REASON_TRUNCATED_L4);
			offset += 8;
			bytes -= 8;
			next = fragment.next;
			if (fragment.offset & bpf_htons(0xfff8)) {
				/* As of IPv4: it would change the flags of the first one's header. */
				if (next == IPPROTO_TCP && (fragment.offset & bpf_htons(0xfff8)) == bpf_htons(8))
					return drop(REASON_INVALID_PACKET);
				pkt->flags |= PACKET_LATER_FRAGMENT;
				pkt->fragment = fragment.id;
				pkt->tuple.protocol = next;
				pkt->l4 = 0;
				return bytes;
			}
			/* Without a successor it is whole (RFC 6946). */
			if (fragment.offset & bpf_htons(1)) {
				pkt->flags |= PACKET_FIRST_FRAGMENT;
				pkt->fragment = fragment.id;
			}
			continue;
		default:
			pkt->tuple.protocol = next;
			pkt->l4 = offset;
			return bytes;
		}
		if (bytes < 8 || bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return drop(REASON_TRUNCATED_L4);
		/* Where it would really go is not where it says: no policy could be asked (RFC 5095). */
		if (next == IPPROTO_ROUTING && (FAULTY(21, 0, extension.segments) || extension.type == 0))
			return drop(REASON_INVALID_EXTENSION_HEADER);
		size = next == IPPROTO_AH ? (extension.length + 2) * 4 : (extension.length + 1) * 8;
		if (size > bytes)
			return drop(REASON_TRUNCATED_L4);
		offset += size;
		bytes -= size;
		next = extension.next;
	}
	return drop(REASON_INVALID_EXTENSION_HEADER);
}

INLINE int is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_AH;
}

INLINE int parse6(struct __sk_buff *skb, struct packet *pkt)
{
	__u32 bytes, left;
	struct ipv6hdr *ip;
	int rest;

	if (!FIRST_HEADERS(skb, struct ipv6hdr, ip)) {
		if (bpf_skb_pull_data(skb, sizeof(struct ethhdr) + sizeof(*ip)) || !FIRST_HEADERS(skb, struct ipv6hdr, ip))
			return drop(REASON_INVALID_PACKET);
	}
	if (ip->version != 6)
		return drop(REASON_INVALID_PACKET);
	left = skb->len - sizeof(struct ethhdr) - sizeof(*ip);
	bytes = bpf_ntohs(ip->payload_len);
	/* Larger than 64 KiB (BIG TCP), a packet says 0. */
	if (bytes == 0 && left > 0xffff)
		bytes = left;
	if (bytes > left)
		return drop(REASON_INVALID_PACKET);
	address_from6(&pkt->tuple.source, &ip->saddr);
	address_from6(&pkt->tuple.destination, &ip->daddr);
	/* A mapped address never travels: it would pass for IPv4 in every map. */
	if (pkt->tuple.source.word[2] == V4_MAPPED && !pkt->tuple.source.word[0] && !pkt->tuple.source.word[1])
		return drop(REASON_INVALID_SOURCE);
	if (pkt->tuple.destination.word[2] == V4_MAPPED && !pkt->tuple.destination.word[0] &&
	    !pkt->tuple.destination.word[1])
		return drop(REASON_INVALID_PACKET);
	pkt->hops = ip->hop_limit;
	pkt->tuple.protocol = ip->nexthdr;
	pkt->l4 = sizeof(struct ethhdr) + sizeof(*ip);
	if (is_extension(ip->nexthdr)) {
		rest = skip_extensions(skb, pkt, bytes);
		if (rest < 0)
			return rest;
		if (pkt->flags & PACKET_LATER_FRAGMENT)
			return CONTINUE;
		return parse_l4(skb, pkt, rest, 0);
	}
	return parse_l4(skb, pkt, bytes, (void *)(ip + 1));
}

INLINE int parse_packet(struct __sk_buff *skb, struct packet *pkt)
{
	pkt->ethertype = skb->protocol;
	switch (pkt->ethertype) {
	case bpf_htons(ETH_P_IP):
		return parse4(skb, pkt);
	case bpf_htons(ETH_P_IPV6):
		return parse6(skb, pkt);
	case bpf_htons(ETH_P_ARP):
		return CONTINUE;
	default:
		return drop(REASON_UNSUPPORTED_PROTOCOL);
	}
}

#endif
