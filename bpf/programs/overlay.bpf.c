/*
 * The tunnel to the other nodes. One VXLAN device a node, whose packets have their key each: the other node's address, and
 * the sender's identity as the network's number, so that the receiver need not look it up by an address.
 */
#include "config.h"
#include "lib/arrive.h"
#include "lib/express.h"
#include "lib/parse.h"
#include "lib/tunnel.h"

/* A test-run's packet came by no device, and has no key but the one that it is told. */
INLINE int read_key(struct __sk_buff *skb, struct bpf_tunnel_key *key)
{
	if (cfg_probe != PROBE_MODEL)
		return bpf_skb_get_tunnel_key(skb, key, sizeof(*key), 0);
	key->tunnel_id = skb->cb[0];
	key->remote_ipv4 = skb->cb[1];
	return 0;
}

FUNCTION int unwrap(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};

	if (read_key(skb, &key))
		return drop(REASON_NO_TUNNEL);
	return sender_in_tunnel(bpf_htonl(key.remote_ipv4), key.tunnel_id);
}

/* Out of the tunnel. */
SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet *pkt;
	int verdict, from;

	/* The frame in the tunnel is to whom its sender thinks the device is. */
	bpf_skb_change_type(skb, 0); /* PACKET_HOST */
	from = unwrap(skb);
	if (from >= 0) {
		verdict = express(skb, HOOK_OVERLAY);
		if (verdict != CONTINUE)
			return verdict;
	}
	pkt = new_packet();
	if (!pkt)
		return TC_ACT_SHOT;
	begin_epoch(pkt);
	if (from < 0)
		return leave(skb, pkt, from, DIRECTION_INGRESS, ANSWER_NONE, 0);
	verdict = parse_packet(skb, pkt);
	pkt->source_identity = FAULTY(42, 0, from);
	return arrive(skb, pkt, verdict, HOOK_OVERLAY);
}

/*
 * The packet that goes in, apart from the one that comes out: of a connection that is cut, a copy goes back to its sender through
 * the program below while the packet itself is still under way in the one above.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} scratch_outward SEC(".maps");

/* Into the tunnel: what the node's own stack sends by its routes gets a key; a pod's packet has one. */
SEC("tc")
int to_overlay(struct __sk_buff *skb)
{
	const struct identity *to;
	struct packet *pkt;
	__u32 zero = 0;
	int verdict;

	if (skb->mark == MARK_WRAPPED) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	pkt = bpf_map_lookup_elem(&scratch_outward, &zero);
	if (!pkt)
		return TC_ACT_SHOT;
	__builtin_memset(pkt, 0, sizeof(*pkt));
	verdict = parse_packet(skb, pkt);
	/* What the device says of itself to whoever is on its link is for nobody. */
	if (pkt->ethertype == bpf_htons(ETH_P_ARP) || (bpf_ntohl(pkt->tuple.destination.word[0]) >> 24) == 0xff)
		return TC_ACT_SHOT;
	if (verdict == CONTINUE) {
		/*
		 * The stack's frames are from the device to itself, and so is their answer. Where it arrives it would be that device's
		 * own echo, which VXLAN devices throw away.
		 */
		if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), (const void *)&cfg_gateway_mac, 6, 0))
			return leave(skb, pkt, drop(REASON_WRITE_FAILED), DIRECTION_EGRESS, ANSWER_NONE, 0);
		to = bpf_map_lookup_elem(&identities_v1, &pkt->tuple.destination);
		verdict = to && to->tunnel ? wrap(skb, to->tunnel, IDENTITY_REMOTE_NODE) : drop(REASON_NO_TUNNEL);
	}
	if (verdict == CONTINUE)
		return TC_ACT_OK;
	return leave(skb, pkt, verdict, DIRECTION_EGRESS, ANSWER_NONE, 0);
}
