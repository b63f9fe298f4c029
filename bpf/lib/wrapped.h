/*
 * Out of the tunnel the short way: a packet of a connection that is known goes from the uplink to its pod, past the stack and the
 * tunnel's device.
 */
#ifndef WEFT_LIB_WRAPPED_H
#define WEFT_LIB_WRAPPED_H

#include "lib/express.h"
#include "lib/tunnel.h"

/* As many as are looked at, IPv6 and TCP being the longest. */
#define WRAPPED_HEADERS (sizeof(struct wrapping) + sizeof(struct ipv6hdr) + sizeof(struct tcphdr))

FUNCTION int express6_wrapped(struct __sk_buff *skb)
{
	struct packet pkt = { .ethertype = bpf_htons(ETH_P_IPV6) };

	return skim6(skb, &pkt, WRAPPING_BYTES) ? ride(skb, &pkt, HOOK_OVERLAY, WRAPPING_BYTES) : CONTINUE;
}

INLINE int express4_wrapped(struct __sk_buff *skb)
{
	struct packet pkt = { .ethertype = bpf_htons(ETH_P_IP) };

	return skim4(skb, &pkt, WRAPPING_BYTES) ? ride(skb, &pkt, HOOK_OVERLAY, WRAPPING_BYTES) : CONTINUE;
}

/*
 * Out of the tunnel to a pod, past the stack and the tunnel's device. Otherwise it is left to those: CONTINUE for its own sake,
 * TC_ACT_OK only because others are before it.
 */
FUNCTION int express_wrapped(struct __sk_buff *skb)
{
	const struct wrapping *w;
	void *data = (void *)(long)skb->data;
	int verdict = CONTINUE;
	__be16 ethertype;
	__u64 *left;

	/* Of what a device has received there may be no more than the outer headers in one piece. */
	if (data + WRAPPED_HEADERS > (void *)(long)skb->data_end &&
	    bpf_skb_pull_data(skb, skb->len < WRAPPED_HEADERS ? skb->len : WRAPPED_HEADERS))
		return CONTINUE;
	w = plain_wrapping(skb);
	if (!w)
		return CONTINUE;
	left = left_at(w->udp.source);
	if (!left || is_anybody_before(left))
		return TC_ACT_OK;
	ethertype = w->inner.h_proto;
	if (ethertype == bpf_htons(ETH_P_IP))
		verdict = express4_wrapped(skb);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		verdict = express6_wrapped(skb);
	return verdict;
}

/* The inner transport header, of what has no options: a beginning has nobody behind it that could get past it. */
INLINE int is_wrapped_beginning(struct __sk_buff *skb, __u32 header)
{
	const struct l4_header *h = (void *)(long)skb->data + sizeof(struct wrapping) + header;

	return (void *)h + sizeof(struct tcphdr) <= (void *)(long)skb->data_end && (h->flags & TCP_SYN);
}

/*
 * A packet of the tunnel is left to the stack: those behind it are as well, for a tick. And its receiver is remembered for the
 * next one, as the long way would: of what is wrapped that is another program's.
 */
FUNCTION int leave_wrapped(struct __sk_buff *skb)
{
	const struct wrapping *w = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	const struct policy_state *state = policy_state();
	struct address to;
	struct iphdr *ip4 = (void *)(w + 1);
	struct ipv6hdr *ip6 = (void *)(w + 1);
	int begins = 0;
	__u64 *left;

	if ((void *)(ip4 + 1) > end)
		return TC_ACT_OK;
	left = left_at(w->udp.source);
	if (w->inner.h_proto == bpf_htons(ETH_P_IP)) {
		address_from4(&to, ip4->daddr);
		begins = ip4->protocol == IPPROTO_TCP && is_wrapped_beginning(skb, sizeof(*ip4));
	} else if (w->inner.h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		address_from6(&to, &ip6->daddr);
		begins = ip6->nexthdr == IPPROTO_TCP && is_wrapped_beginning(skb, sizeof(*ip6));
	} else {
		return TC_ACT_OK;
	}
	if (left && !begins)
		*left = clock_ns();
	if (state)
		remember_receiver(&to, *(volatile __u32 *)&state->epoch);
	return TC_ACT_OK;
}

#endif
