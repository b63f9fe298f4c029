/* A packet's addresses and ports are exchanged, and every checksum that covers them with them. */
#ifndef WEFT_LIB_REWRITE_H
#define WEFT_LIB_REWRITE_H

#include <bpf/bpf_core_read.h>

#include "lib/packet.h"

/* Where the transport's checksum is, from its header on; 0: it has none that covers addresses or ports. */
INLINE __u32 checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 2;
	default:
		return 0;
	}
}

/* UDP over IPv4 may have none: zero stays zero, and what comes out as zero is written as its twin. */
INLINE __u64 checksum_flags(__u8 protocol)
{
	return FAULTY(30, 0, protocol == IPPROTO_UDP) ? BPF_F_MARK_MANGLED_0 : 0;
}

INLINE int is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* The identifier of an ICMP question is on the asker's side of the tuple, that of an answer on the other. */
INLINE __be16 icmp_identifier(const struct tuple *t)
{
	return t->source_port ? t->source_port : t->destination_port;
}

INLINE int rewrite_ports(struct __sk_buff *skb, const struct packet *pkt, const struct tuple *to)
{
	__u32 sum = pkt->l4 + checksum_offset(to->protocol);
	__be16 ports[2] = { to->source_port, to->destination_port };
	__u32 before, after;

	if (is_icmp(to->protocol)) {
		__be16 id = icmp_identifier(to), old = icmp_identifier(&pkt->tuple);

		if (id == old)
			return 0;
		return bpf_l4_csum_replace(skb, sum, old, id, sizeof(id)) ||
		       bpf_skb_store_bytes(skb, pkt->l4 + 4, &id, sizeof(id), 0);
	}
	__builtin_memcpy(&after, ports, sizeof(after));
	__builtin_memcpy(&before, &pkt->tuple.source_port, sizeof(before));
	if (before == after || !(pkt->flags & PACKET_PORTS))
		return 0;
	/* Over a whole SCTP packet runs a CRC32c, which nobody here makes again. */
	if (to->protocol == IPPROTO_SCTP)
		return -1;
	return bpf_l4_csum_replace(skb, sum, before, after, sizeof(after) | checksum_flags(to->protocol)) ||
	       bpf_skb_store_bytes(skb, pkt->l4, ports, sizeof(ports), 0);
}

/* A header checksum after a change of what it covers (RFC 1624), `change` as bpf_csum_diff has it. */
INLINE __sum16 updated_sum(__sum16 check, __u32 change)
{
	__u32 sum = (__u16)~check + (change & 0xffff) + (change >> 16);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Of the kernel's own structure, found by its BTF: what the packet's checksum is at this moment. */
struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym; /* Linux 6.2 */

enum checksum_state {
	SUM_NONE = 0,	     /* in the packet, and to be checked by whoever receives it */
	SUM_UNNECESSARY = 1, /* in the packet, checked */
	SUM_COMPLETE = 2,    /* and the device has summed up the whole packet */
	SUM_PARTIAL = 3,     /* to be finished by a device: only the pseudo header's is in the packet */
};

INLINE enum checksum_state checksum_state(struct __sk_buff *skb)
{
	struct sk_buff *kernels = bpf_cast_to_kern_ctx(skb);

	return BPF_CORE_READ_BITFIELD(kernels, ip_summed);
}

/* Old words out, new words in, as a sum that is not folded yet. */
INLINE __u64 exchanged(const struct address *old, const struct address *new, int v4)
{
	__u64 sum = (__u32)~old->word[3] + (__u64)new->word[3];

	if (FAULTY(54, 0, !v4)) {
		sum += (__u32)~old->word[0] + (__u64)new->word[0];
		sum += (__u32)~old->word[1] + (__u64)new->word[1];
		sum += (__u32)~old->word[2] + (__u64)new->word[2];
	}
	return sum;
}

INLINE __u32 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Nothing is kept in registers over this point: a chain of functions has only 512 bytes of stack to put it. */
#define READ_ANEW() __asm__ volatile("" : : : "memory")

INLINE void set_ends(struct packet *pkt, const struct tuple *to)
{
	pkt->tuple.source = to->source;
	pkt->tuple.destination = to->destination;
	pkt->tuple.source_port = to->source_port;
	pkt->tuple.destination_port = to->destination_port;
}

/*
 * The usual packet, in place: TCP or UDP directly after a header without options. A call of the kernel's for each sum and store
 * would be two thirds of a known connection's time. 0: done, 1: it takes the calls.
 */
FUNCTION int rewrite_directly(struct __sk_buff *skb, struct packet *pkt, const struct tuple *to)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *l4;
	enum checksum_state state = checksum_state(skb);
	__u32 ports, sum;
	__sum16 *check;
	__u64 change;
	int v4;

	if (!pkt || !to)
		return 1;
	v4 = pkt->ethertype == bpf_htons(ETH_P_IP);
	if (state == SUM_COMPLETE || !(pkt->flags & PACKET_PORTS) || !pkt->l4)
		return 1;
	l4 = data + sizeof(struct ethhdr) + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	if (pkt->l4 != (v4 ? sizeof(struct ethhdr) + sizeof(struct iphdr) : sizeof(struct ethhdr) + sizeof(struct ipv6hdr)))
		return 1;
	if (to->protocol == IPPROTO_TCP) {
		if (l4 + sizeof(struct tcphdr) > end)
			return 1;
		check = l4 + 16;
	} else if (to->protocol == IPPROTO_UDP) {
		if (l4 + sizeof(struct udphdr) > end)
			return 1;
		check = l4 + 6;
	} else {
		return 1;
	}
	change = exchanged(&pkt->tuple.source, &to->source, v4) + exchanged(&pkt->tuple.destination, &to->destination, v4);
	READ_ANEW();
	__builtin_memcpy(&ports, &to->source_port, sizeof(ports));
	if (v4) {
		struct iphdr *ip = data + sizeof(struct ethhdr);

		ip->check = ~folded((__u16)~ip->check + change);
		ip->saddr = to->source.word[3];
		ip->daddr = to->destination.word[3];
	} else {
		struct ipv6hdr *ip = data + sizeof(struct ethhdr);

		__builtin_memcpy(&ip->saddr, &to->source, 16);
		__builtin_memcpy(&ip->daddr, &to->destination, 16);
	}
	/* UDP over IPv4 may have none: zero stays zero, and what comes out as zero is written as its twin. */
	if (*check || FAULTY(30, 1, to->protocol != IPPROTO_UDP)) {
		if (state == SUM_PARTIAL) {
			sum = folded(*check + change);
		} else {
			change += FAULTY(53, 0, (__u32)~*(__u32 *)l4 + (__u64)ports);
			sum = ~folded((__u16)~*check + change) & 0xffff;
		}
		*check = !sum && FAULTY(30, 0, to->protocol == IPPROTO_UDP) ? 0xffff : sum;
	}
	*(__u32 *)l4 = ports;
	READ_ANEW();
	set_ends(pkt, to);
	return 0;
}

/* Any packet. A later fragment has only addresses. Returns 0, or -1 where the kernel refuses. */
FUNCTION int rewrite_by_calls(struct __sk_buff *skb, struct packet *pkt, const struct tuple *to)
{
	__u32 l4, sum;
	__s64 change;
	int v4;

	if (!pkt || !to)
		return -1;
	v4 = pkt->ethertype == bpf_htons(ETH_P_IP);
	l4 = pkt->l4;
	sum = checksum_offset(to->protocol);
	/* Source and destination lie side by side; what is constant in a mapped address adds nothing to the difference. */
	change = bpf_csum_diff((__be32 *)&pkt->tuple, 32, (__be32 *)to, 32, 0);
	if (l4 && sum && !(v4 && to->protocol == IPPROTO_ICMP)) {
		if (bpf_l4_csum_replace(skb, l4 + sum, 0, change, BPF_F_PSEUDO_HDR | checksum_flags(to->protocol)))
			return -1;
		/*
		 * A sum that the device made over the whole packet: without a header checksum the addresses and the transport's
		 * checksum cancel each other out, which the helper does not know of (until Linux 6.16).
		 */
		if (!v4)
			bpf_csum_update(skb, change);
	}
	if (v4) {
		struct iphdr *ip;

		if (!FIRST_HEADERS(skb, struct iphdr, ip))
			return -1;
		ip->check = updated_sum(ip->check, change);
		ip->saddr = to->source.word[3];
		ip->daddr = to->destination.word[3];
	} else {
		struct ipv6hdr *ip;

		if (!FIRST_HEADERS(skb, struct ipv6hdr, ip))
			return -1;
		__builtin_memcpy(&ip->saddr, &to->source, 16);
		__builtin_memcpy(&ip->daddr, &to->destination, 16);
	}
	if (l4 && rewrite_ports(skb, pkt, to))
		return -1;
	set_ends(pkt, to);
	return 0;
}

/* The packet gets the addresses and ports of `to`, and its tuple says so. Returns 0, or -1 where the kernel refuses. */
INLINE int rewrite_packet(struct __sk_buff *skb, struct packet *pkt, const struct tuple *to)
{
	return rewrite_directly(skb, pkt, to) ? rewrite_by_calls(skb, pkt, to) : 0;
}

#endif
