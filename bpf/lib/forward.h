/* Delivery: to a pod of this node, or out by the node's routes. */
#ifndef WEFT_LIB_FORWARD_H
#define WEFT_LIB_FORWARD_H

#include "lib/clock.h"
#include "lib/networks.h"
#include "lib/packet.h"
#include "maps/endpoints.h"
#include "maps/identities.h"

/* One hop less. The packet has at least two left. */
INLINE int use_hop(struct __sk_buff *skb, const struct packet *pkt)
{
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip;
		__u32 sum;

		if (!FIRST_HEADERS(skb, struct iphdr, ip))
			return drop(REASON_INVALID_PACKET);
		/* TTL is a high byte: one less there is 0x0100 more in the complement's sum (RFC 1624). */
		sum = ip->check + FAULTY(33, 0x0100, bpf_htons(0x0100));
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

/* On a packet that has its tunnel key already; what the node's own stack sends into the tunnel has none. */
#define MARK_WRAPPED 0x57656602

/* The other end, and who it is from: 24 bits of identity are the network's number (VNI). */
INLINE int wrap(struct __sk_buff *skb, __be32 remote, __u32 identity)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = identity,
		.remote_ipv4 = bpf_ntohl(remote),
		.tunnel_ttl = 64,
	};

	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return drop(REASON_WRITE_FAILED);
	/* The kernel shows a key to none but the device. */
	if (cfg_probe == PROBE_MODEL)
		skb->tstamp = (__u64)key.remote_ipv4 << 32 | key.tunnel_id;
	return CONTINUE;
}

/* Numbers of this node alone, and none, go as the node's: the receiver looks the sender up by its address. */
INLINE __u32 wire_identity(__u32 identity)
{
	return identity >= IDENTITY_FIRST && identity < IDENTITY_FIRST_CLASS ? identity : IDENTITY_REMOTE_NODE;
}

/* The ways that packets of this CPU went last, by their ends. Good for one tick of the kernel: routes change far less often. */
#define WAYS 64

struct way {
	struct address source;
	struct address destination;
	__u64 time; /* ns */
	__u32 from; /* device */
	__u32 to;
	__u32 length;  /* of a frame that fits */
	__be32 remote; /* the node that it goes to by the tunnel; 0: it does not */
	__u32 identity; /* by which it is sent there */
	struct bpf_redir_neigh next;
	struct mac next_mac; /* where `by_cable` */
	__u8 by_cable;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WAYS);
	__type(key, __u32);
	__type(value, struct way);
} scratch_way SEC(".maps");

INLINE __u32 place_of_way(const struct packet *pkt)
{
	__u32 ends = bpf_ntohl(pkt->tuple.destination.word[3]) + bpf_ntohl(pkt->tuple.source.word[3]);

	return (ends ^ ends >> 8) & (WAYS - 1);
}

INLINE int is_way_of(const struct way *way, const struct __sk_buff *skb, const struct packet *pkt)
{
	/* A probe asks what is so now. */
	return !cfg_probe && way->time == clock_ns() && way->from == skb->ifindex &&
	       (skb->len <= way->length || skb->gso_segs > 1) &&
	       address_equal(&way->destination, &pkt->tuple.destination) &&
	       address_equal(&way->source, &pkt->tuple.source);
}

/* Into the tunnel's device, which asks for the way of what is around the packet. Its hop is used. */
FUNCTION int send_wrapped(struct __sk_buff *skb, __be32 remote, __u32 identity)
{
	int verdict = wrap(skb, remote, wire_identity(FAULTY(40, identity >> 24, identity)));

	if (verdict != CONTINUE)
		return verdict;
	skb->mark = MARK_WRAPPED;
	return bpf_redirect(cfg_tunnel_ifindex, 0);
}

INLINE void remember_tunnel(const struct __sk_buff *skb, const struct packet *pkt, __be32 remote, __u32 mtu)
{
	__u32 place = place_of_way(pkt);
	struct way *way = bpf_map_lookup_elem(&scratch_way, &place);

	if (!way)
		return;
	way->source = pkt->tuple.source;
	way->destination = pkt->tuple.destination;
	way->from = skb->ifindex;
	way->length = mtu + sizeof(struct ethhdr);
	way->remote = remote;
	way->identity = pkt->source_identity;
	way->time = clock_ns();
}

/* To another node, wrapped; CONTINUE for what is no node's. pkt->source_identity is the sender's. */
FUNCTION int tunnel(struct __sk_buff *skb, struct packet *pkt)
{
	const struct identity *to;
	__u32 mtu = 0;
	int verdict;

	if (!pkt)
		return drop(REASON_NO_TUNNEL);
	to = bpf_map_lookup_elem(&identities_v1, &pkt->tuple.destination);
	if (!to || !to->tunnel)
		return to || !in_pod_network(&pkt->tuple.destination) ? CONTINUE : drop(REASON_NO_TUNNEL);
	/* The stack says "time exceeded" and "too big", where it may: it has routes into the tunnel, too. */
	if (pkt->hops < 2 || bpf_check_mtu(skb, cfg_tunnel_ifindex, &mtu, 0, 0))
		return TC_ACT_OK;
	if (!cfg_probe)
		remember_tunnel(skb, pkt, to->tunnel, mtu);
	verdict = use_hop(skb, pkt);
	return verdict == CONTINUE ? send_wrapped(skb, to->tunnel, pkt->source_identity) : verdict;
}

/*
 * Where the uplink is one end of a veth pair (nodes that are namespaces), the other end can be had without the queue between
 * the two, as a pod's. To other nodes only: their neighbour entries are kept true by what the nodes themselves say to each
 * other; a packet that goes around the neighbour's state machine does not have it checked.
 */
INLINE int may_go_by_cable(const struct packet *pkt)
{
	return cfg_cable_ifindex && FAULTY(55, 1, in_pod_network(&pkt->tuple.destination));
}

INLINE int ask_routes(struct __sk_buff *skb, const struct packet *pkt, struct bpf_fib_lookup *fib, __u32 flags)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = skb->ifindex;
	fib->l4_protocol = pkt->tuple.protocol;
	/* tot_len stays 0: the kernel then holds each segment of a large packet against the MTU, not their sum. */
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		fib->family = AF_INET;
		fib->ipv4_src = pkt->tuple.source.word[3];
		fib->ipv4_dst = pkt->tuple.destination.word[3];
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, pkt->tuple.source.word, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, pkt->tuple.destination.word, sizeof(fib->ipv6_dst));
	}
	return bpf_fib_lookup(skb, fib, sizeof(*fib), flags);
}

/* Asks the kernel, which takes two thirds of a packet's time. */
FUNCTION int find_way(struct __sk_buff *skb, const struct packet *pkt, struct way *way)
{
	struct bpf_fib_lookup fib;

	if (!pkt || !way)
		return -1;
	way->time = 0;
	way->by_cable = may_go_by_cable(pkt) && ask_routes(skb, pkt, &fib, 0) == BPF_FIB_LKUP_RET_SUCCESS &&
			fib.ifindex == cfg_cable_ifindex;
	if (way->by_cable)
		__builtin_memcpy(&way->next_mac, fib.dmac, sizeof(way->next_mac));
	else if (ask_routes(skb, pkt, &fib, WEFT_FIB_LOOKUP_SKIP_NEIGH) != BPF_FIB_LKUP_RET_SUCCESS)
		return -1;
	way->source = pkt->tuple.source;
	way->destination = pkt->tuple.destination;
	way->from = skb->ifindex;
	way->to = fib.ifindex;
	way->length = fib.mtu_result + sizeof(struct ethhdr);
	way->remote = 0;
	way->next.nh_family = fib.family;
	__builtin_memcpy(way->next.ipv6_nh, fib.ipv6_dst, sizeof(way->next.ipv6_nh));
	way->time = clock_ns();
	return 0;
}

/*
 * By the node's own routes: out and to the next hop, whose address the kernel finds (or asks for) on the way.
 * What is the node's own, and what needs an ICMP error, goes to its stack.
 */
INLINE int route(struct __sk_buff *skb, struct packet *pkt)
{
	struct way *way;
	__u32 place;
	int verdict;

	if (cfg_tunnel) {
		verdict = tunnel(skb, pkt);
		if (verdict != CONTINUE)
			return verdict;
	}
	place = place_of_way(pkt);
	way = bpf_map_lookup_elem(&scratch_way, &place);
	if (!way)
		return TC_ACT_OK;
	if (((way->remote || !is_way_of(way, skb, pkt)) && find_way(skb, pkt, way)) || pkt->hops < 2)
		return TC_ACT_OK;
	verdict = use_hop(skb, pkt);
	if (verdict != CONTINUE)
		return verdict;
	if (!way->by_cable)
		return bpf_redirect_neigh(way->to, &way->next, sizeof(way->next), 0);
	verdict = set_macs(skb, &way->next_mac, &cfg_uplink_mac);
	return verdict == CONTINUE ? bpf_redirect_peer(way->to, 0) : verdict;
}

#endif
