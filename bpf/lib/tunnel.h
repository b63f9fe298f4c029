/* What is around a frame in the tunnel: VXLAN (RFC 7348) over UDP and IPv4, without options. */
#ifndef WEFT_LIB_TUNNEL_H
#define WEFT_LIB_TUNNEL_H

#include <linux/udp.h>

#include "config.h"
#include "lib/clock.h"
#include "lib/networks.h"
#include "lib/policy.h"

#define VXLAN_FLAGS bpf_htonl(0x08000000) /* there is a number, and nothing else */

struct wrapping {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 flags;
	__be32 number; /* and eight bits that are zero */
	struct ethhdr inner;
} __attribute__((packed, aligned(2)));

/* What a frame in the tunnel is longer by. */
#define WRAPPING_BYTES (sizeof(struct wrapping) - sizeof(struct ethhdr))

/*
 * Who a packet of that number is from, 0 where its address says so, or a drop. Only nodes speak here, and none for this one. A
 * sender that has no number of the cluster's comes as its node: that node itself, or a pod that it has numbered on its own
 * for the moment.
 */
INLINE int sender_in_tunnel(__be32 remote, __u32 number)
{
	struct address node;

	address_from4(&node, remote);
	if (FAULTY(41, 0, identity_by_address(&node) != IDENTITY_REMOTE_NODE) ||
	    (number != IDENTITY_REMOTE_NODE && number < IDENTITY_FIRST))
		return drop(REASON_INVALID_IDENTITY);
	return number == IDENTITY_REMOTE_NODE ? IDENTITY_UNKNOWN : number;
}

/* For this node's end of the tunnel, whole. */
INLINE int is_wrapped(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct udphdr *udp = (void *)(ip + 1);

	return cfg_tunnel && skb->protocol == bpf_htons(ETH_P_IP) && (void *)(udp + 1) <= end &&
	       ip->protocol == IPPROTO_UDP && *(__u8 *)ip == 0x45 && !(ip->frag_off & bpf_htons(0x3fff)) &&
	       udp->dest == bpf_htons(TUNNEL_PORT) && ip->daddr == cfg_node_address4.word[3];
}

INLINE int is_header_whole(const struct wrapping *w)
{
	const __u16 *word = (const void *)w + sizeof(w->eth);
	__u32 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < 10; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)(sum + (sum >> 16)) == 0xffff;
}

/*
 * What may be taken out here instead of by the stack: one packet, not several in one (GSO), as weft sends them, from a node.
 * is_wrapped() holds.
 */
INLINE const struct wrapping *plain_wrapping(struct __sk_buff *skb)
{
	const struct wrapping *w = (void *)(long)skb->data;
	__u32 bytes;

	if (skb->gso_size || skb->pkt_type || skb->vlan_present || (void *)(w + 1) > (void *)(long)skb->data_end)
		return 0;
	bytes = bpf_ntohs(w->ip.tot_len);
	if (skb->len != bytes + sizeof(w->eth) || bpf_ntohs(w->udp.len) + sizeof(w->ip) != bytes || w->udp.check ||
	    /* That the way was congested its receiver has to be told, in the inner header (RFC 6040). */
	    (w->ip.tos & 3) == 3 || w->flags != VXLAN_FLAGS || (bpf_ntohl(w->number) & 0xff) || !is_header_whole(w))
		return 0;
	return sender_in_tunnel(w->ip.saddr, bpf_ntohl(w->number) >> 8) < 0 ? 0 : w;
}

/*
 * Packets that the stack takes out wait for their turn there. One of the same connection must not get past them: for the rest of
 * the tick all that come from that port (the sender's hash of the connection) go after them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64); /* ns: when one was left to the stack */
} scratch_left SEC(".maps");

INLINE __u64 *left_at(__be16 port)
{
	__u32 at = (port ^ port >> 8) & 255;

	return bpf_map_lookup_elem(&scratch_left, &at);
}

#define TICK_MAX 4000000 /* ns */

INLINE int is_anybody_before(const __u64 *left)
{
	return clock_ns() - *left < (cfg_tick_ns ? 1 : TICK_MAX);
}

/* 0, or it could not be done and nothing has been. */
INLINE int take_out(struct __sk_buff *skb, __be16 ethertype)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(skb, -(__s32)WRAPPING_BYTES, BPF_ADJ_ROOM_MAC,
				ethertype == bpf_htons(ETH_P_IP) ? WEFT_DECAP_IPV4 : WEFT_DECAP_IPV6))
		return -1;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) <= (void *)(long)skb->data_end)
		eth->h_proto = ethertype;
	return 0;
}

#endif
