/* Headers: what a packet says of itself, checked once. */
#ifndef WEFT_LIB_PARSE_H
#define WEFT_LIB_PARSE_H

#include "lib/extension.h"

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
	if (is_mapped(&pkt->tuple.source))
		return drop(REASON_INVALID_SOURCE);
	if (is_mapped(&pkt->tuple.destination))
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
	if (is_tagged(skb))
		return drop(REASON_UNSUPPORTED_PROTOCOL);
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
