/*
 * The tunnel to the other nodes. One VXLAN device a node, whose packets have their key each: the other node's address, and
 * the sender's identity as the network's number, so that the receiver need not look it up by an address.
 */
#include "config.h"
#include "lib/arrive.h"

/* A test-run's packet came by no device, and has no key but the one that it is told. */
INLINE int read_key(struct __sk_buff *skb, struct bpf_tunnel_key *key)
{
	if (cfg_probe != PROBE_MODEL)
		return bpf_skb_get_tunnel_key(skb, key, sizeof(*key), 0);
	key->tunnel_id = skb->cb[0];
	key->remote_ipv4 = skb->cb[1];
	return 0;
}

/*
 * Who it is from, 0 where its address says so, or a drop. Only nodes speak here, and none for this one. A sender that has no
 * number of the cluster's comes as its node: that node itself, or a pod that it has numbered on its own for the moment.
 */
FUNCTION int unwrap(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	struct address node;

	if (read_key(skb, &key))
		return drop(REASON_NO_TUNNEL);
	address_from4(&node, bpf_htonl(key.remote_ipv4));
	if (FAULTY(41, 0, identity_by_address(&node) != IDENTITY_REMOTE_NODE) ||
	    (key.tunnel_id != IDENTITY_REMOTE_NODE && key.tunnel_id < IDENTITY_FIRST))
		return drop(REASON_INVALID_IDENTITY);
	return key.tunnel_id == IDENTITY_REMOTE_NODE ? IDENTITY_UNKNOWN : key.tunnel_id;
}

/* Out of the tunnel. */
SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet *pkt;
	int verdict, from;

	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	begin_epoch(pkt);
	/* The frame in the tunnel is to whom its sender thinks the device is. */
	bpf_skb_change_type(skb, 0); /* PACKET_HOST */
	from = unwrap(skb);
	if (from < 0)
		return leave(skb, pkt, from, DIRECTION_INGRESS, ANSWER_NONE, 0);
	verdict = parse_packet(skb, pkt);
	pkt->source_identity = FAULTY(42, 0, from);
	return arrive(skb, pkt, verdict, HOOK_OVERLAY);
}

/* Into the tunnel: what the node's own stack sends by its routes gets a key; a pod's packet has one. */
SEC("tc")
int to_overlay(struct __sk_buff *skb)
{
	const struct identity *to;
	struct packet *pkt;
	int verdict;

	if (skb->mark == MARK_WRAPPED) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	verdict = parse_packet(skb, pkt);
	/* What the device says of itself to whoever is on its link is for nobody. */
	if (pkt->ethertype == bpf_htons(ETH_P_ARP) || (bpf_ntohl(pkt->tuple.destination.word[0]) >> 24) == 0xff)
		return TC_ACT_SHOT;
	if (verdict == CONTINUE) {
		to = bpf_map_lookup_elem(&identities_v1, &pkt->tuple.destination);
		verdict = to && to->tunnel ? wrap(skb, to->tunnel, IDENTITY_REMOTE_NODE) : drop(REASON_NO_TUNNEL);
	}
	if (verdict == CONTINUE)
		return TC_ACT_OK;
	return leave(skb, pkt, verdict, DIRECTION_EGRESS, ANSWER_NONE, 0);
}
