/*
 * A refusal is said: TCP is reset, everything else gets an ICMP "administratively prohibited". Made in place of the packet and
 * sent back where it came from. So many a second for each pod; resets and ICMP errors are never answered.
 */
#ifndef WEFT_LIB_DENY_H
#define WEFT_LIB_DENY_H

#include "lib/clock.h"
#include "lib/packet.h"
#include "lib/rewrite.h"
#include "maps/flows.h"

#define ANSWERS_PER_SECOND 1000

/* On a packet that our own programs have made: it is not looked at again. A mark does not cross into another namespace. */
#define MARK_ANSWER 0x57656601

INLINE __u32 sum_words(__u32 sum, const void *words, __u32 bytes)
{
	return bpf_csum_diff(0, 0, (__be32 *)words, bytes, sum);
}

INLINE __u16 fold_sum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

struct pseudo4 {
	__be32 source;
	__be32 destination;
	__be16 protocol;
	__be16 length;
};

struct pseudo6 {
	struct address source;
	struct address destination;
	__be32 length;
	__be32 protocol;
};

/*
 * Makes the packet `size` bytes long, all of them writable, with no checksum left for the device to finish: a pod's packet
 * has one (CHECKSUM_PARTIAL), and it would be put where that packet's was. Taking bytes away in front, past where the sum
 * begins, makes the kernel forget it. What is in the packet afterwards is of no use.
 */
FUNCTION int blank_packet(struct __sk_buff *skb, __u32 size)
{
	if (bpf_skb_change_tail(skb, 234, 0) || bpf_skb_adjust_room(skb, -100, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_adjust_room(skb, -4, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_change_tail(skb, size, 0) ||
	    bpf_skb_pull_data(skb, size))
		return -1;
	return 0;
}

struct reply4 {
	struct ethhdr eth;
	struct iphdr ip;
} __attribute__((packed));

struct reply6 {
	struct ethhdr eth;
	struct ipv6hdr ip;
} __attribute__((packed));

/* What a made packet says of itself; addresses and ports as it shall have them. */
struct made {
	struct tuple tuple;
	__u8 destination_mac[6]; /* in the order of a frame's */
	__u8 source_mac[6];
	__u32 sequence;
	__u32 acknowledgement;
	__u32 flags; /* TCP's; of an ICMP error: nobody is there, rather than nobody may */
};

INLINE int write_headers4(struct __sk_buff *skb, const struct made *m, __u8 protocol, __u32 payload)
{
	struct reply4 *r = (void *)(long)skb->data;

	if ((void *)(r + 1) > (void *)(long)skb->data_end)
		return -1;
	__builtin_memcpy(r->eth.h_dest, m->destination_mac, 6);
	__builtin_memcpy(r->eth.h_source, m->source_mac, 6);
	r->eth.h_proto = bpf_htons(ETH_P_IP);
	__builtin_memset(&r->ip, 0, sizeof(r->ip));
	r->ip.version = 4;
	r->ip.ihl = 5;
	r->ip.tot_len = bpf_htons(sizeof(r->ip) + payload);
	r->ip.frag_off = bpf_htons(0x4000);
	r->ip.ttl = 64;
	r->ip.protocol = protocol;
	r->ip.saddr = m->tuple.source.word[3];
	r->ip.daddr = m->tuple.destination.word[3];
	r->ip.check = fold_sum(sum_words(0, &r->ip, sizeof(r->ip)));
	return 0;
}

INLINE int write_headers6(struct __sk_buff *skb, const struct made *m, __u8 protocol, __u32 payload)
{
	struct reply6 *r = (void *)(long)skb->data;

	if ((void *)(r + 1) > (void *)(long)skb->data_end)
		return -1;
	__builtin_memcpy(r->eth.h_dest, m->destination_mac, 6);
	__builtin_memcpy(r->eth.h_source, m->source_mac, 6);
	r->eth.h_proto = bpf_htons(ETH_P_IPV6);
	__builtin_memset(&r->ip, 0, sizeof(r->ip));
	r->ip.version = 6;
	r->ip.payload_len = bpf_htons(payload);
	r->ip.nexthdr = protocol;
	r->ip.hop_limit = 64;
	__builtin_memcpy(&r->ip.saddr, &m->tuple.source, 16);
	__builtin_memcpy(&r->ip.daddr, &m->tuple.destination, 16);
	return 0;
}

INLINE __u32 pseudo_sum(const struct made *m, int v4, __u8 protocol, __u32 length)
{
	struct pseudo6 p = {
		.source = m->tuple.source,
		.destination = m->tuple.destination,
		.length = bpf_htonl(length),
		.protocol = bpf_htonl(protocol),
	};

	if (v4) {
		/* The constant half of a mapped address would count, too. */
		p.source.word[2] = 0;
		p.destination.word[2] = 0;
	}
	return sum_words(0, &p, sizeof(p));
}

/* The packet becomes a TCP segment without anything in it. */
FUNCTION int make_segment(struct __sk_buff *skb, const struct made *m)
{
	struct tcphdr tcp = {};
	__u32 network, sum;
	int v4;

	if (!m)
		return -1;
	v4 = is_mapped(&m->tuple.source);
	network = v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	if (blank_packet(skb, sizeof(struct ethhdr) + network + sizeof(tcp)))
		return -1;
	if (v4 ? write_headers4(skb, m, IPPROTO_TCP, sizeof(tcp)) : write_headers6(skb, m, IPPROTO_TCP, sizeof(tcp)))
		return -1;
	tcp.source = m->tuple.source_port;
	tcp.dest = m->tuple.destination_port;
	tcp.seq = bpf_htonl(m->sequence);
	tcp.ack_seq = bpf_htonl(m->acknowledgement);
	tcp.doff = sizeof(tcp) / 4;
	tcp.rst = 1;
	tcp.ack = !!(m->flags & TCP_ACK);
	sum = pseudo_sum(m, v4, IPPROTO_TCP, sizeof(tcp));
	tcp.check = fold_sum(sum_words(sum, &tcp, sizeof(tcp)));
	return bpf_skb_store_bytes(skb, sizeof(struct ethhdr) + network, &tcp, sizeof(tcp), 0) ? -1 : 0;
}

/* As much of a packet as an error quotes: its network header and the eight bytes that have the ports. */
struct quote4 {
	struct icmp_header icmp;
	__u8 packet[28];
} __attribute__((packed, aligned(4)));

struct quote6 {
	struct icmp6hdr icmp;
	__u8 packet[48];
} __attribute__((packed, aligned(4)));

FUNCTION int make_error4(struct __sk_buff *skb, const struct made *m)
{
	struct quote4 q = {};

	if (!m || bpf_skb_load_bytes(skb, sizeof(struct ethhdr), q.packet, sizeof(q.packet)) ||
	    blank_packet(skb, sizeof(struct reply4) + sizeof(q)) || write_headers4(skb, m, IPPROTO_ICMP, sizeof(q)))
		return -1;
	q.icmp.type = 3;
	q.icmp.code = m->flags ? 3 : 13; /* port unreachable; communication administratively prohibited */
	q.icmp.checksum = fold_sum(sum_words(0, &q, sizeof(q)));
	return bpf_skb_store_bytes(skb, sizeof(struct reply4), &q, sizeof(q), 0) ? -1 : 0;
}

FUNCTION int make_error6(struct __sk_buff *skb, const struct made *m)
{
	struct quote6 q = {};

	if (!m || bpf_skb_load_bytes(skb, sizeof(struct ethhdr), q.packet, sizeof(q.packet)) ||
	    blank_packet(skb, sizeof(struct reply6) + sizeof(q)) || write_headers6(skb, m, IPPROTO_ICMPV6, sizeof(q)))
		return -1;
	q.icmp.icmp6_type = 1;
	q.icmp.icmp6_code = m->flags ? 4 : 1; /* port unreachable; communication administratively prohibited */
	q.icmp.icmp6_cksum = fold_sum(sum_words(pseudo_sum(m, 0, IPPROTO_ICMPV6, sizeof(q)), &q, sizeof(q)));
	return bpf_skb_store_bytes(skb, sizeof(struct reply6), &q, sizeof(q), 0) ? -1 : 0;
}

/* One more in this second? Not exact between CPUs, and need not be. */
INLINE int may_answer(const struct __sk_buff *skb, __u32 ifindex)
{
	__u64 second = now(skb) / SECOND;
	struct answers *known = bpf_map_lookup_elem(&answers_v1, &ifindex), first = { .second = second, .count = 1 };

	if (!known) {
		bpf_map_update_elem(&answers_v1, &ifindex, &first, BPF_ANY);
		return 1;
	}
	if (known->second != second) {
		known->second = second;
		known->count = 0;
	}
	return ++known->count <= ANSWERS_PER_SECOND;
}

/* Of the packet, as it says itself: a card fills up what is shorter than 60 bytes, and nobody must be told what with. */
INLINE __u32 own_length(const struct __sk_buff *skb, const struct packet *pkt)
{
	int v4 = pkt->ethertype == bpf_htons(ETH_P_IP);
	__be16 bytes;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + (v4 ? 2 : 4), &bytes, sizeof(bytes)))
		return 0;
	return bpf_ntohs(bytes) + (v4 ? 0 : sizeof(struct ipv6hdr));
}

/* Things that are never answered: they would be answered in turn, or have nobody who listens. */
INLINE int is_answerable(const struct __sk_buff *skb, const struct packet *pkt)
{
	if (pkt->flags & (PACKET_ICMP_ERROR | PACKET_LATER_FRAGMENT))
		return 0;
	if (pkt->tuple.protocol == IPPROTO_TCP)
		return !(pkt->tcp_flags & TCP_RST);
	/* What has not even the eight bytes that are quoted is not worth an answer, nor one of a second's number of them. */
	if (own_length(skb, pkt) < (pkt->ethertype == bpf_htons(ETH_P_IP) ? 28 : 48))
		return 0;
	/* A quotation with options would not have the ports where they are looked for. */
	return !(pkt->flags & PACKET_OPTIONS);
}

INLINE int take_macs(struct __sk_buff *skb, struct made *m)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return -1;
	__builtin_memcpy(m->destination_mac, eth->h_source, 6);
	__builtin_memcpy(m->source_mac, eth->h_dest, 6);
	return 0;
}

/* The packet becomes its sender's reset (RFC 9293, 3.10.7.1). */
INLINE int make_reset(struct __sk_buff *skb, const struct packet *pkt, struct made *m)
{
	if (pkt->tcp_flags & TCP_ACK) {
		m->sequence = pkt->acknowledgement;
		m->acknowledgement = 0;
		m->flags = 0;
	} else {
		m->sequence = 0;
		m->acknowledgement = pkt->sequence + pkt->length + FAULTY(31, 0, !!(pkt->tcp_flags & TCP_SYN)) +
				     !!(pkt->tcp_flags & TCP_FIN);
		m->flags = TCP_ACK;
	}
	return make_segment(skb, m);
}

/* From whom the sender thinks to hear: where a Service was asked, from the Service. */
INLINE int answer_from(struct __sk_buff *skb, const struct packet *pkt, struct made *m)
{
	m->tuple.source = pkt->tuple.destination;
	m->tuple.source_port = pkt->tuple.destination_port;
	if ((pkt->flags & PACKET_TRANSLATED) && pkt->asked_port) {
		m->tuple.source = pkt->asked;
		m->tuple.source_port = pkt->asked_port;
	}
	m->tuple.destination = pkt->tuple.source;
	m->tuple.destination_port = pkt->tuple.source_port;
	return take_macs(skb, m);
}

/* The packet becomes the refusal of itself: of a Service that has nobody to answer, as of a closed port. */
FUNCTION int make_refusal(struct __sk_buff *skb, struct packet *pkt, __u32 reason)
{
	struct made m = {};

	if (!pkt)
		return -1;
	/* It is told about the packet that it sent, not about what became of it here. */
	if ((pkt->flags & PACKET_TRANSLATED) && pkt->asked_port) {
		struct tuple asked = pkt->tuple;

		asked.destination = pkt->asked;
		asked.destination_port = pkt->asked_port;
		asked.source_port = pkt->asked_source;
		if (rewrite_by_calls(skb, pkt, &asked))
			return -1;
	}
	if (answer_from(skb, pkt, &m))
		return -1;
	if (pkt->tuple.protocol == IPPROTO_TCP)
		return make_reset(skb, pkt, &m);
	m.flags = reason == REASON_NO_SERVICE || reason == REASON_NO_BACKEND;
	return pkt->ethertype == bpf_htons(ETH_P_IP) ? make_error4(skb, &m) : make_error6(skb, &m);
}

#endif
