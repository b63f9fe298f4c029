/* What an ICMP error is about: the packet that it quotes, of which eight bytes behind the network header are sure to be there. */
#ifndef WEFT_LIB_ICMP_H
#define WEFT_LIB_ICMP_H

#include "lib/fragment.h"

struct inner {
	struct tuple tuple; /* as the quoted packet has it: from whom the error goes to */
	__u16 network;	    /* offset of its network header in the frame */
	__u16 l4;	    /* of its transport header; 0: it is a later fragment, whose ports are remembered ones */
};

/* The ports of a quoted later fragment are its first one's. */
INLINE int inner_fragment(struct inner *inner, __u32 id)
{
	struct fragment_key key = {
		.source = inner->tuple.source,
		.destination = inner->tuple.destination,
		.id = id,
		.protocol = inner->tuple.protocol,
	};
	const struct fragment *first = bpf_map_lookup_elem(&fragments_v1, &key);

	if (!first)
		return drop(REASON_FRAGMENT_FIRST_MISSING);
	inner->tuple.source_port = first->source_port;
	inner->tuple.destination_port = first->destination_port;
	inner->l4 = 0;
	return CONTINUE;
}

INLINE int inner_ports(struct __sk_buff *skb, struct inner *inner)
{
	__u8 protocol = inner->tuple.protocol;
	struct icmp_header icmp;
	__be16 ports[2];

	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (bpf_skb_load_bytes(skb, inner->l4, ports, sizeof(ports)))
			return drop(REASON_TRUNCATED_L4);
		inner->tuple.source_port = ports[0];
		inner->tuple.destination_port = ports[1];
		return CONTINUE;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (bpf_skb_load_bytes(skb, inner->l4, &icmp, sizeof(icmp)))
			return drop(REASON_TRUNCATED_L4);
		if (icmp.type == 8 || icmp.type == 13 || icmp.type == 15 || icmp.type == 17 || icmp.type == 128)
			inner->tuple.source_port = icmp.id;
		else if (icmp.type == 0 || icmp.type == 14 || icmp.type == 16 || icmp.type == 18 || icmp.type == 129)
			inner->tuple.destination_port = icmp.id;
		else
			return drop(REASON_FORBIDDEN_ICMP); /* no errors about errors */
		return CONTINUE;
	default:
		return CONTINUE;
	}
}

FUNCTION int parse_inner(struct __sk_buff *skb, const struct packet *pkt, struct inner *inner)
{
	struct fragment_header fragment;
	struct ipv6hdr ip6;
	struct iphdr ip4;
	__u16 offset;

	/* A later fragment of an error quotes nothing that could be read. */
	if (!pkt || !inner || !pkt->l4)
		return drop(REASON_FORBIDDEN_ICMP);
	inner->network = pkt->l4 + sizeof(struct icmp_header);
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, inner->network, &ip4, sizeof(ip4)))
			return drop(REASON_TRUNCATED_L4);
		if (ip4.version != 4 || ip4.ihl < 5)
			return drop(REASON_FORBIDDEN_ICMP);
		address_from4(&inner->tuple.source, ip4.saddr);
		address_from4(&inner->tuple.destination, ip4.daddr);
		inner->tuple.protocol = ip4.protocol;
		inner->l4 = inner->network + ip4.ihl * 4;
		offset = ip4.frag_off & bpf_htons(0x1fff);
		return offset ? inner_fragment(inner, ip4.id) : inner_ports(skb, inner);
	}
	if (bpf_skb_load_bytes(skb, inner->network, &ip6, sizeof(ip6)))
		return drop(REASON_TRUNCATED_L4);
	if (ip6.version != 6)
		return drop(REASON_FORBIDDEN_ICMP);
	address_from6(&inner->tuple.source, &ip6.saddr);
	address_from6(&inner->tuple.destination, &ip6.daddr);
	inner->tuple.protocol = ip6.nexthdr;
	inner->l4 = inner->network + sizeof(ip6);
	if (ip6.nexthdr == IPPROTO_FRAGMENT) {
		if (bpf_skb_load_bytes(skb, inner->l4, &fragment, sizeof(fragment)))
			return drop(REASON_TRUNCATED_L4);
		inner->tuple.protocol = fragment.next;
		inner->l4 += sizeof(fragment);
		if (fragment.offset & bpf_htons(0xfff8))
			return inner_fragment(inner, fragment.id);
	}
	return inner_ports(skb, inner);
}

#endif
