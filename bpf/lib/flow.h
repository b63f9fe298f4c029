/*
 * A connection, once it is known: its key, its two sides, what its packets change, whether it may go on.
 * The states are those that policy and NAT need, not those of an end point: a flow is not there, unanswered (embryonic_v1),
 * established, closing (FIN both ways) or gone. Whoever is in doubt passes the packet on and leaves the state as it is.
 */
#ifndef WEFT_LIB_FLOW_H
#define WEFT_LIB_FLOW_H

#include "lib/before.h"
#include "lib/clock.h"
#include "lib/deny.h"
#include "lib/fault.h"
#include "lib/icmp.h"
#include "lib/life.h"
#include "lib/policy.h"
#include "lib/trace.h"
#include "lib/tuple.h"
#include "maps/flows.h"

/* ns; lib/life.h has their reasons. */
#define LIFE_UNANSWERED (SECONDS_UNANSWERED * SECOND)
#define LIFE_TCP (SECONDS_TCP * SECOND)
#define LIFE_CLOSING (SECONDS_CLOSING * SECOND)
#define LIFE_UDP (SECONDS_UDP * SECOND)
#define LIFE_ICMP (SECONDS_ICMP * SECOND)

#define FLOW_FIN_BOTH (FLOW_FIN_CLIENT | FLOW_FIN_SERVER)

/* Where a packet was met. */
enum hook {
	HOOK_CONTAINER = 0, /* from a pod of this node */
	HOOK_HOST = 1,	    /* from the node's stack, to a pod */
	HOOK_NETDEV = 2,    /* from the uplink, to a pod */
	HOOK_OVERLAY = 3,   /* from the tunnel, to a pod; pkt->source_identity is set */
};

/* A packet's place in its flow. */
struct place {
	struct tuple key;
	__u32 lower; /* the packet's sender is the key's source */
	enum hook hook;
	__u32 is_guess; /* nobody has looked whether there is a flow */
};

/* Too large for the stack, of which a chain of functions has 512 bytes. */
struct judging {
	struct judgement j;
	struct judgement back; /* the same question the other way round */
	struct flow flow;
	struct place place;
	struct made onward; /* of a cut: what goes on to the receiver */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct judging);
} scratch_judging SEC(".maps");

INLINE struct judging *judging(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch_judging, &zero);
}

INLINE void ask(struct judgement *j, const struct packet *pkt, __u32 client_identity, __u32 server_identity)
{
	j->epoch = pkt->epoch;
	j->client_identity = client_identity;
	j->server_identity = server_identity;
}

/* Numerically, address before port: the same for both directions. */
INLINE int source_is_lower(const struct tuple *t)
{
	int i;

#pragma unroll
	for (i = 0; i < 4; i++) {
		__u32 a = bpf_ntohl(t->source.word[i]), b = bpf_ntohl(t->destination.word[i]);

		if (a != b)
			return a < b;
	}
	return bpf_ntohs(t->source_port) <= bpf_ntohs(t->destination_port);
}

INLINE void find_place(const struct tuple *t, struct place *place)
{
	place->lower = source_is_lower(t);
	place->key.source = place->lower ? t->source : t->destination;
	place->key.destination = place->lower ? t->destination : t->source;
	place->key.source_port = place->lower ? t->source_port : t->destination_port;
	place->key.destination_port = place->lower ? t->destination_port : t->source_port;
	place->key.protocol = t->protocol;
	place->key.pad[0] = place->key.pad[1] = place->key.pad[2] = 0;
}

/* 1: the packet is the server's. */
INLINE __u32 side_of(const struct place *place, __u32 flow_flags)
{
	return (place->lower ^ flow_flags) & FLOW_CLIENT_LOWER;
}

INLINE __u64 answered_life(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_SCTP:
		return LIFE_TCP;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return LIFE_ICMP;
	default:
		return LIFE_UDP;
	}
}

INLINE void account(struct flow *flow, const struct __sk_buff *skb, __u32 side, __u64 time)
{
	flow->seen = time;
	flow->packets[side & 1]++;
	flow->bytes[side & 1] += skb->len;
}

/* The flow, or none: also as the version before this one had it. */
INLINE struct flow *find_flow(const struct tuple *key)
{
	struct flow *flow = bpf_map_lookup_elem(&flows_v1, key);

	if (flow || !cfg_flow_before || !may_write())
		return flow;
	take_flow(key);
	return bpf_map_lookup_elem(&flows_v1, key);
}

/* Sequence numbers compare modulo 2^32. */
INLINE int after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

/* `end`: behind the packet's last byte. */
INLINE void note_sequence(struct flow *flow, const struct packet *pkt, __u32 side, __u32 end)
{
	if (after(end, flow->sent[side & 1]))
		flow->sent[side & 1] = end;
	if ((pkt->tcp_flags & TCP_ACK) && after(pkt->acknowledgement, flow->acked[side & 1]))
		flow->acked[side & 1] = pkt->acknowledgement;
}

/* Between what the receiver has acknowledged and what the sender has sent (a window scaled down to what is used of it). */
INLINE int reset_is_valid(const struct flow *flow, const struct packet *pkt, __u32 side)
{
	__u32 acked = flow->acked[(side & 1) ^ 1], sent = flow->sent[side & 1];

	return FAULTY(7, 1, !after(acked, pkt->sequence) && !after(pkt->sequence, sent));
}

INLINE int all_acknowledged(const struct flow *flow)
{
	return !after(flow->sent[1], flow->acked[0]) && !after(flow->sent[0], flow->acked[1]);
}

INLINE void count_share(__u32 number, __s32 change)
{
	__u32 *share = bpf_map_lookup_elem(&shares_v1, &number);

	if (share)
		__sync_fetch_and_add(share, change);
}

/* What a flow counts to: its endpoint's share, or, unanswered, those that wait. */
INLINE __u32 counted_to(__u32 flags, __u32 number)
{
	return flags & FLOW_ANSWERED ? number : 0;
}

/* `counted`: as counted_to says; an answered flow of nobody is counted nowhere. Of several CPUs that do this, one counts. */
FUNCTION int remove_flow(const struct tuple *key, __u32 flags, __u32 number)
{
	if (key && may_write())
		forget_left_flow(key);
	if (key && may_write() && bpf_map_delete_elem(&flows_v1, key) == 0 && (number || !(flags & FLOW_ANSWERED)))
		count_share(counted_to(flags, number), FAULTY(14, 0, -1));
	return 0;
}

/* Answered or not, wherever it is. */
INLINE void forget_flow(const struct tuple *key, const struct flow *flow)
{
	if (flow->flags & FLOW_ESTABLISHED)
		remove_flow(key, flow->flags, flow->number);
	else if (may_write())
		bpf_map_delete_elem(&embryonic_v1, key);
}

INLINE void tell_packet(struct packet *pkt, const struct flow *flow, __u32 side)
{
	pkt->flow_flags = flow->flags;
	if (side)
		pkt->flags |= PACKET_ANSWER;
	if (cfg_probe) {
		pkt->source_identity = side ? flow->server_identity : flow->client_identity;
		pkt->destination_identity = side ? flow->client_identity : flow->server_identity;
		pkt->rule = flow->ingress_rule ? flow->ingress_rule : flow->egress_rule;
		if (cfg_probe == PROBE_WHY)
			pkt->set = flow->egress_rule;
	}
}

/* For drops and records: who it was between, and what was asked. */
INLINE void tell_judgement(struct packet *pkt, const struct judgement *j, int turned)
{
	pkt->source_identity = turned ? j->server_identity : j->client_identity;
	pkt->destination_identity = turned ? j->client_identity : j->server_identity;
	pkt->rule = j->ingress_rule ? j->ingress_rule : j->egress_rule;
	/* Who asks why wants to know both elements that allowed it. */
	pkt->set = cfg_probe == PROBE_WHY && !j->set ? j->egress_rule : j->set;
	if (j->refused_ingress)
		pkt->flags |= PACKET_REFUSED_INGRESS;
}

/* A packet of no connection that is known may yet be of one: by its looks it does not begin one. */
INLINE int is_beginning(const struct packet *pkt)
{
	if (pkt->flags & PACKET_LATER_FRAGMENT)
		return pkt->tuple.protocol != IPPROTO_TCP && pkt->tuple.protocol != IPPROTO_SCTP;
	switch (pkt->tuple.protocol) {
	case IPPROTO_TCP:
		return (pkt->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
	case IPPROTO_SCTP:
		return pkt->tcp_flags == SCTP_INIT;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return !pkt->tuple.destination_port; /* an answer's identifier is there */
	default:
		return 1;
	}
}

INLINE __u32 sequence_end(const struct packet *pkt)
{
	return pkt->sequence + pkt->length + !!(pkt->tcp_flags & TCP_SYN) +
	       FAULTY(18, 0, !!(pkt->tcp_flags & TCP_FIN));
}

/*
 * The policies have changed since the flow was judged: once more, in its own orientation. FORGOTTEN where one of its ends
 * has since become another pod's; refused, the connection is cut.
 */
FUNCTION int reassess(struct packet *pkt, const struct place *place, struct flow *flow)
{
	const struct endpoint *client, *server;
	struct judging *with = judging();
	struct judgement *j;
	int reason;

	if (!pkt || !place || !flow || !with)
		return FORGOTTEN;
	j = &with->j;
	if (flow->flags & FLOW_CLIENT_LOWER)
		j->tuple = place->key;
	else
		turn_round(&place->key, &j->tuple);
	ask(j, pkt, flow->flags & FLOW_HOST ? IDENTITY_HOST : 0, 0);
	client = bpf_map_lookup_elem(&endpoints_v2, &j->tuple.source);
	server = bpf_map_lookup_elem(&endpoints_v2, &j->tuple.destination);
	reason = judge(j, client, server);
	if (FAULTY(12, 0, (__s32)(flow->epoch - j->since) < 0))
		return FORGOTTEN;
	if (reason) {
		tell_judgement(pkt, j, side_of(place, flow->flags));
		return drop(reason);
	}
	if (may_write()) {
		flow->client_identity = j->client_identity;
		flow->server_identity = j->server_identity;
		flow->egress_rule = j->egress_rule;
		flow->ingress_rule = j->ingress_rule;
		flow->epoch = j->epoch;
	}
	return CONTINUE;
}

/* SYN, FIN, RST; SCTP's chunks. The flow is established. */
FUNCTION int follow_event(struct packet *pkt, const struct place *place, struct flow *flow)
{
	__u32 side;
	__u8 type;

	if (!pkt || !place || !flow)
		return FORGOTTEN;
	side = side_of(place, flow->flags);
	type = pkt->tcp_flags;
	if (pkt->tuple.protocol == IPPROTO_SCTP) {
		if (type == SCTP_INIT && (flow->flags & FLOW_CLOSED))
			return FORGOTTEN;
		/* The tag must be the receiver's (RFC 9260, 8.5); an end may also be told off by its own (bit T). */
		if ((type == SCTP_ABORT || type == SCTP_SHUTDOWN_COMPLETE) && may_write() &&
		    (pkt->sequence == flow->sent[0] || pkt->sequence == flow->sent[1] || (flow->flags & FLOW_ADOPTED))) {
			flow->flags |= FLOW_CLOSED;
			flow->timeout = LIFE_CLOSING;
		}
		return CONTINUE;
	}
	if ((type & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN)
		/* The tuple is used again before it was forgotten here: another connection. Otherwise the ends sort it out. */
		return FAULTY(13, 0, (flow->flags & FLOW_FIN_BOTH) == FLOW_FIN_BOTH) ? FORGOTTEN : CONTINUE;
	if (type & TCP_RST) {
		if (reset_is_valid(flow, pkt, side))
			remove_flow(&place->key, flow->flags, flow->number);
		return CONTINUE;
	}
	if (!may_write())
		return CONTINUE;
	note_sequence(flow, pkt, side, sequence_end(pkt));
	if (type & TCP_FIN) {
		__u16 fin = FAULTY(19, !side, side) ? FLOW_FIN_SERVER : FLOW_FIN_CLIENT;

		flow->flags |= fin;
		if ((flow->flags & FLOW_FIN_BOTH) == FLOW_FIN_BOTH)
			flow->timeout = FAULTY(9, LIFE_TCP, LIFE_CLOSING);
	}
	return CONTINUE;
}

#endif
