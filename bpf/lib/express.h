/*
 * The short way, for nearly every packet: of a connection that is known, between ends that are known, with nothing in it
 * that changes anything. It reads few lines of memory and is few lines of code. It says the same as the long way, or leaves
 * the packet untouched for that: there is no drop, no refusal and no rewriting here.
 */
#ifndef WEFT_LIB_EXPRESS_H
#define WEFT_LIB_EXPRESS_H

#include "lib/flow.h"
#include "lib/forward.h"
#include "lib/leave.h"
#include "lib/resident.h"
#include "lib/tunnel.h"

/* TCP without SYN, FIN and RST, or UDP, directly behind a network header without options; whole and in one piece. */
INLINE int skim_l4(struct packet *pkt, const struct l4_header *h, void *end, __u32 bytes)
{
	__u32 header;

	if (pkt->tuple.protocol == IPPROTO_TCP) {
		if ((void *)h + sizeof(struct tcphdr) > end)
			return 0;
		header = (h->offset >> 4) * 4;
		if (header < sizeof(struct tcphdr) || header > bytes ||
		    (h->flags & FAULTY(45, TCP_SYN, TCP_FIN | TCP_SYN | TCP_RST)))
			return 0;
		pkt->tcp_flags = h->flags;
		pkt->sequence = bpf_ntohl(h->sequence);
		pkt->acknowledgement = bpf_ntohl(h->acknowledgement);
		pkt->length = bytes - header;
	} else if (pkt->tuple.protocol != IPPROTO_UDP || bytes < sizeof(struct udphdr) ||
		   (void *)h + sizeof(struct udphdr) > end) {
		return 0;
	}
	pkt->tuple.source_port = h->source_port;
	pkt->tuple.destination_port = h->destination_port;
	return 1;
}

/* `outer`: bytes around the packet, before its Ethernet header. */
INLINE int skim4(struct __sk_buff *skb, struct packet *pkt, __u32 outer)
{
	__u32 left = skb->len - outer - sizeof(struct ethhdr), total;
	void *end = (void *)(long)skb->data_end;
	struct iphdr *ip = (void *)(long)skb->data + outer + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return 0;
	total = bpf_ntohs(ip->tot_len);
	if (*(__u8 *)ip != 0x45 || (ip->frag_off & bpf_htons(0x3fff)) || total < sizeof(*ip) || total > left ||
	    ip->ttl < 2)
		return 0;
	address_from4(&pkt->tuple.source, ip->saddr);
	address_from4(&pkt->tuple.destination, ip->daddr);
	pkt->tuple.protocol = ip->protocol;
	return skim_l4(pkt, (void *)(ip + 1), end, total - sizeof(*ip));
}

INLINE int skim6(struct __sk_buff *skb, struct packet *pkt, __u32 outer)
{
	__u32 left = skb->len - outer - sizeof(struct ethhdr) - sizeof(struct ipv6hdr), bytes;
	void *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = (void *)(long)skb->data + outer + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return 0;
	bytes = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || bytes == 0 || bytes > left || ip->hop_limit < 2)
		return 0;
	address_from6(&pkt->tuple.source, &ip->saddr);
	address_from6(&pkt->tuple.destination, &ip->daddr);
	/* Mapped ones would pass for IPv4. */
	if (!pkt->tuple.source.word[0] || !pkt->tuple.destination.word[0])
		return 0;
	pkt->tuple.protocol = ip->nexthdr;
	return skim_l4(pkt, (void *)(ip + 1), end, bytes);
}

/* The flow, where its packet changes nothing but numbers. */
INLINE struct flow *plain_flow(const struct place *place, const struct packet *pkt, __u64 time)
{
	struct flow *flow = bpf_map_lookup_elem(&flows_v1, &place->key);

	if (!flow || FAULTY(46, 0, flow->epoch != pkt->epoch) ||
	    is_older(time, flow->seen, flow->timeout) ||
	    (flow->flags & (FLOW_ANSWERED | FAULTY(47, 0, FLOW_NATED) | FLOW_CLOSED | FLOW_FIN_BOTH)) !=
		    FLOW_ANSWERED ||
	    FAULTY(49, 0, place->hook >= HOOK_NETDEV && (flow->flags & FLOW_LOCAL)))
		return 0;
	return flow;
}

INLINE void tell_express(struct __sk_buff *skb, const struct packet *pkt)
{
	skb->cb[0] = (__u32)TC_ACT_REDIRECT << 16;
	skb->cb[1] = pkt->rule;
	skb->cb[2] = pkt->source_identity;
	skb->cb[3] = pkt->destination_identity;
	skb->cb[4] = cfg_probe == PROBE_WHY ? pkt->set : 0;
}

/* `pkt` has been skimmed. CONTINUE: nothing has been done. */
INLINE int ride(struct __sk_buff *skb, struct packet *pkt, enum hook hook, __u32 outer)
{
	const struct endpoint *from, *to;
	const struct way *way = 0;
	struct place place;
	struct flow *flow;
	__u32 side, at;
	int verdict;
	__u64 time;

	begin_epoch(pkt);
	if (!recall(pkt, &pkt->tuple.destination, RESIDENT_RECEIVER, &to))
		return CONTINUE;
	if (hook == HOOK_CONTAINER) {
		if (!recall(pkt, &pkt->tuple.source, RESIDENT_SENDER, &from) || !from ||
		    from->ifindex != skb->ifindex ||
		    !in_pod_network(&pkt->tuple.destination))
			return CONTINUE;
	}
	if (!to) {
		if (hook != HOOK_CONTAINER)
			return CONTINUE;
		at = place_of_way(pkt);
		way = bpf_map_lookup_elem(&scratch_way, &at);
		if (!way || !is_way_of(way, skb, pkt) || (cfg_tunnel && !way->remote))
			return CONTINUE;
	}
	time = now(skb);
	find_place(&pkt->tuple, &place);
	place.hook = hook;
	flow = plain_flow(&place, pkt, time);
	if (!flow)
		return CONTINUE;
	if (outer && take_out(skb, pkt->ethertype))
		return CONTINUE;
	side = side_of(&place, flow->flags);
	if (cfg_probe)
		tell_packet(pkt, flow, side);
	if (may_write()) {
		account(flow, skb, side, time);
		if (FAULTY(50, 0, pkt->tuple.protocol == IPPROTO_TCP))
			note_sequence(flow, pkt, side, pkt->sequence + pkt->length);
		count(skb, REASON_FORWARDED, hook == HOOK_CONTAINER ? DIRECTION_EGRESS : DIRECTION_INGRESS);
	}
	verdict = use_hop(skb, pkt);
	if (verdict != CONTINUE)
		return TC_ACT_SHOT;
	if (!to && cfg_tunnel) {
		verdict = send_wrapped(skb, way->remote, way->identity);
		return verdict < 0 ? TC_ACT_SHOT : verdict;
	}
	if (cfg_probe)
		tell_express(skb, pkt);
	if (!to && !way->by_cable)
		return bpf_redirect_neigh(way->to, (struct bpf_redir_neigh *)&way->next, sizeof(way->next), 0);
	verdict = to ? set_macs(skb, &to->mac, &cfg_gateway_mac) : set_macs(skb, &way->next_mac, &cfg_uplink_mac);
	if (verdict != CONTINUE)
		return TC_ACT_SHOT;
	return bpf_redirect_peer(to ? to->ifindex : way->to, 0);
}

/* By itself: its addresses would take a third of the stack. */
FUNCTION int express6(struct __sk_buff *skb, __u32 hook)
{
	struct packet pkt = { .ethertype = bpf_htons(ETH_P_IPV6) };

	return skim6(skb, &pkt, 0) ? ride(skb, &pkt, hook, 0) : CONTINUE;
}

/* TC_ACT_REDIRECT, or CONTINUE: the long way. */
INLINE int express(struct __sk_buff *skb, enum hook hook)
{
	struct packet pkt = { .ethertype = bpf_htons(ETH_P_IP) };

	if (is_tagged(skb))
		return CONTINUE;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return skim4(skb, &pkt, 0) ? ride(skb, &pkt, hook, 0) : CONTINUE;
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? express6(skb, hook) : CONTINUE;
}

#endif
