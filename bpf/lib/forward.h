/* Delivery: to a pod of this node, or out by the node's routes. */
#ifndef WEFT_LIB_FORWARD_H
#define WEFT_LIB_FORWARD_H

#include "config.h"
#include "lib/parse.h"
#include "maps/endpoints.h"

/* One hop less. The packet has at least two left. */
INLINE int use_hop(struct __sk_buff *skb, const struct packet *pkt)
{
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip;
		__u32 sum;

		if (!FIRST_HEADERS(skb, struct iphdr, ip))
			return drop(REASON_INVALID_PACKET);
		/* TTL is a high byte: one less there is 0x0100 more in the complement's sum (RFC 1624). */
		sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >= 0xffff);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip;
		__u32 change;

		if (!FIRST_HEADERS(skb, struct ipv6hdr, ip))
			return drop(REASON_INVALID_PACKET);
		/*
		 * No header checksum balances it, so a sum that the device made over the whole packet has to be told: minus the
		 * old word plus the new one is minus 0x0001. Without such a sum the helper does nothing.
		 */
		ip->hop_limit--;
		change = (__u16)~bpf_htons(1);
		bpf_csum_update(skb, change);
	}
	return CONTINUE;
}

INLINE int set_macs(struct __sk_buff *skb, const struct mac *destination, const volatile struct mac *source)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return drop(REASON_INVALID_PACKET);
	copy_mac(eth->h_dest, destination);
	copy_mac(eth->h_source, source);
	return CONTINUE;
}

/* Straight into the pod's namespace, past the host's stack and the queue between the two ends. */
INLINE int deliver(struct __sk_buff *skb, const struct packet *pkt, const struct endpoint *to)
{
	int verdict;

	/* The stack says "time exceeded", where it may. */
	if (pkt->hops < 2)
		return TC_ACT_OK;
	verdict = use_hop(skb, pkt);
	if (verdict == CONTINUE)
		verdict = set_macs(skb, &to->mac, &cfg_gateway_mac);
	if (verdict == CONTINUE)
		verdict = bpf_redirect_peer(to->ifindex, 0);
	return verdict;
}

/*
 * By the node's own routes: out and to the next hop, whose address the kernel finds (or asks for) on the way.
 * What is the node's own, and what needs an ICMP error, goes to its stack.
 */
INLINE int route(struct __sk_buff *skb, const struct packet *pkt)
{
	struct bpf_fib_lookup fib = {};
	struct bpf_redir_neigh next = {};
	int verdict;
	long found;

	fib.ifindex = skb->ifindex;
	fib.l4_protocol = pkt->tuple.protocol;
	/* tot_len stays 0: the kernel then holds each segment of a large packet against the MTU, not their sum. */
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		fib.family = AF_INET;
		fib.ipv4_src = pkt->tuple.source.word[3];
		fib.ipv4_dst = pkt->tuple.destination.word[3];
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, pkt->tuple.source.word, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, pkt->tuple.destination.word, sizeof(fib.ipv6_dst));
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), WEFT_FIB_LOOKUP_SKIP_NEIGH);
	if (found != BPF_FIB_LKUP_RET_SUCCESS || pkt->hops < 2)
		return TC_ACT_OK;
	verdict = use_hop(skb, pkt);
	if (verdict != CONTINUE)
		return verdict;
	next.nh_family = fib.family;
	__builtin_memcpy(next.ipv6_nh, fib.ipv6_dst, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(fib.ifindex, &next, sizeof(next), 0);
}

#endif
