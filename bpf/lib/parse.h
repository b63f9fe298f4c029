/* Headers: what a packet is, checked once. */
#ifndef WEFT_LIB_PARSE_H
#define WEFT_LIB_PARSE_H

#include "lib/address.h"
#include "lib/verdict.h"

struct packet {
	struct address source;
	struct address destination;
	__be16 ethertype;
	__u8 hops; /* TTL or hop limit */
	__u8 protocol;
};

#define FIRST_HEADERS(skb, type, out)                                                                                  \
	({                                                                                                             \
		void *data = (void *)(long)(skb)->data;                                                                \
		void *data_end = (void *)(long)(skb)->data_end;                                                        \
		(out) = data + sizeof(struct ethhdr);                                                                  \
		(void *)((out) + 1) <= data_end;                                                                       \
	})

INLINE int parse4(struct __sk_buff *skb, struct packet *pkt)
{
	struct iphdr *ip;

	if (!FIRST_HEADERS(skb, struct iphdr, ip)) {
		if (bpf_skb_pull_data(skb, sizeof(struct ethhdr) + sizeof(*ip)) || !FIRST_HEADERS(skb, struct iphdr, ip))
			return drop(REASON_INVALID_PACKET);
	}
	if (ip->version != 4 || ip->ihl < 5)
		return drop(REASON_INVALID_PACKET);
	address_from4(&pkt->source, ip->saddr);
	address_from4(&pkt->destination, ip->daddr);
	pkt->hops = ip->ttl;
	pkt->protocol = ip->protocol;
	return CONTINUE;
}

INLINE int parse6(struct __sk_buff *skb, struct packet *pkt)
{
	struct ipv6hdr *ip;

	if (!FIRST_HEADERS(skb, struct ipv6hdr, ip)) {
		if (bpf_skb_pull_data(skb, sizeof(struct ethhdr) + sizeof(*ip)) || !FIRST_HEADERS(skb, struct ipv6hdr, ip))
			return drop(REASON_INVALID_PACKET);
	}
	if (ip->version != 6)
		return drop(REASON_INVALID_PACKET);
	address_from6(&pkt->source, &ip->saddr);
	address_from6(&pkt->destination, &ip->daddr);
	/* A mapped address never travels: it would pass for IPv4 in every map. */
	if (pkt->source.word[2] == V4_MAPPED && !pkt->source.word[0] && !pkt->source.word[1])
		return drop(REASON_INVALID_SOURCE);
	if (pkt->destination.word[2] == V4_MAPPED && !pkt->destination.word[0] && !pkt->destination.word[1])
		return drop(REASON_INVALID_PACKET);
	pkt->hops = ip->hop_limit;
	pkt->protocol = ip->nexthdr;
	return CONTINUE;
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
