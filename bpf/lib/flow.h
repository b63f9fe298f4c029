/*
 * Connections: whose packet is this? One look-up for one that is established; everything else is out of line.
 * The states are those that policy and NAT need, not those of an end point: a flow is not there, unanswered (embryonic_v1),
 * established, closing (FIN both ways) or gone. Whoever is in doubt passes the packet on and leaves the state as it is.
 */
#ifndef WEFT_LIB_FLOW_H
#define WEFT_LIB_FLOW_H

#include "lib/clock.h"
#include "lib/deny.h"
#include "lib/fault.h"
#include "lib/icmp.h"
#include "lib/policy.h"
#include "lib/trace.h"
#include "maps/flows.h"

/* Without a packet for so long, a flow is over. */
#define LIFE_UNANSWERED (60 * SECOND)
#define LIFE_TCP (8000 * SECOND) /* RFC 5382: at least two hours and four minutes; half-closed is alive */
#define LIFE_CLOSING (10 * SECOND)
#define LIFE_UDP (180 * SECOND) /* RFC 4787: at least two minutes; and whatever else has no connections */
#define LIFE_ICMP (60 * SECOND) /* RFC 5508 */

#define FLOW_FIN_BOTH (FLOW_FIN_CLIENT | FLOW_FIN_SERVER)

/* A step's answer, never a program's: the flow that was found does not count, the packet begins one. */
#define FORGOTTEN (-1001)

/* Where a packet was met. */
enum hook {
	HOOK_CONTAINER = 0, /* from a pod of this node */
	HOOK_HOST = 1,	    /* from the node's stack, to a pod */
	HOOK_NETDEV = 2,    /* from the uplink, to a pod */
	HOOK_OVERLAY = 3,   /* from the tunnel, to a pod; pkt->source_identity is set */
};

/* Too large for the stack, of which a chain of functions has 512 bytes. */
struct judging {
	struct judgement j;
	struct judgement back; /* the same question the other way round */
	struct flow flow;
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

INLINE void ask(struct judgement *j, __u32 client_identity, __u32 server_identity)
{
	j->client_identity = client_identity;
	j->server_identity = server_identity;
}

/* A packet's place in its flow. */
struct place {
	struct tuple key;
	__u32 lower; /* the packet's sender is the key's source */
	enum hook hook;
};

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

INLINE void turn_round(const struct tuple *t, struct tuple *turned)
{
	turned->source = t->destination;
	turned->destination = t->source;
	turned->source_port = t->destination_port;
	turned->destination_port = t->source_port;
	turned->protocol = t->protocol;
	turned->pad[0] = turned->pad[1] = turned->pad[2] = 0;
}

INLINE void find_place(const struct tuple *t, struct place *place)
{
	place->lower = source_is_lower(t);
	if (place->lower)
		place->key = *t;
	else
		turn_round(t, &place->key);
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
	if (key && may_write() && bpf_map_delete_elem(&flows_v1, key) == 0 && (number || !(flags & FLOW_ANSWERED)))
		count_share(counted_to(flags, number), FAULTY(14, 0, -1));
	return 0;
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
	ask(j, flow->flags & FLOW_HOST ? IDENTITY_HOST : 0, 0);
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

INLINE int has_its_share(__u32 number)
{
	const __u32 *share = bpf_map_lookup_elem(&shares_v1, &number);

	return cfg_flow_share && number && share && *share >= cfg_flow_share;
}

/* The first answer to one that waits where it stays. Of two CPUs that see one, one counts. */
INLINE int stay(struct flow *flow)
{
	if (has_its_share(flow->number))
		return drop(REASON_FLOWS_SHARE);
	/* The flags are the lower half of their word. */
	if (__sync_fetch_and_or((__u32 *)&flow->flags, FLOW_ANSWERED) & FLOW_ANSWERED)
		return CONTINUE;
	count_share(0, -1);
	if (flow->number)
		count_share(flow->number, 1);
	return CONTINUE;
}

/* The first answer to one of a flood: from now on nothing pushes the flow out. */
FUNCTION int establish(const struct tuple *key, struct flow *embryo, struct flow *flow)
{
	long failed;

	if (!key || !embryo || !flow || !may_write())
		return CONTINUE;
	if (has_its_share(flow->number))
		return drop(REASON_FLOWS_SHARE);
	failed = bpf_map_update_elem(&flows_v1, key, flow, BPF_NOEXIST);
	if (failed == -17) /* EEXIST: another CPU had the same thought */
		return CONTINUE;
	if (failed)
		return drop(REASON_FLOWS_FULL);
	if (flow->number)
		count_share(flow->number, 1);
	embryo->flags |= FLOW_ESTABLISHED;
	return CONTINUE;
}

INLINE void note_embryonic(__u64 time)
{
	__u32 zero = 0;
	__u64 *used = bpf_map_lookup_elem(&embryonic_used_v1, &zero);

	if (used)
		*used = time;
}

/* A look at a bucket that is not in the cache is a quarter of what a new connection costs. */
INLINE struct flow *find_embryo(const struct tuple *key, __u64 time)
{
	__u32 zero = 0;
	const __u64 *used = bpf_map_lookup_elem(&embryonic_used_v1, &zero);

	/* Signed: a probe's clock may be behind. */
	if (!used || !*used || (__s64)(time - *used) > (__s64)LIFE_UNANSWERED)
		return 0;
	return bpf_map_lookup_elem(&embryonic_v1, key);
}

INLINE void forget_embryo(const struct tuple *key, const struct flow *embryo)
{
	if (embryo->flags & FLOW_ESTABLISHED)
		remove_flow(key, embryo->flags, embryo->number);
	else
		bpf_map_delete_elem(&embryonic_v1, key);
}

/* A packet of a flow that nobody has answered yet. */
FUNCTION int follow_embryo(struct __sk_buff *skb, struct packet *pkt, const struct place *place,
				    struct flow *embryo)
{
	struct judging *with = judging();
	__u8 protocol, type;
	struct flow *flow;
	int verdict;
	__u32 side;

	if (!pkt || !place || !embryo || !with)
		return CONTINUE;
	if (place->hook >= HOOK_NETDEV && (embryo->flags & FLOW_LOCAL))
		return drop(REASON_INVALID_IDENTITY);
	side = side_of(place, embryo->flags);
	protocol = pkt->tuple.protocol;
	type = pkt->tcp_flags;
	tell_packet(pkt, embryo, side);
	if (!may_write())
		return CONTINUE;
	if (protocol == IPPROTO_TCP && (type & TCP_RST) && !(pkt->flags & PACKET_LATER_FRAGMENT)) {
		/* Refused: the answer names what it answers (RFC 9293, 3.10.7.3). */
		if (side == 0 || (embryo->flags & FLOW_ADOPTED) || pkt->acknowledgement == embryo->sent[0])
			forget_embryo(&place->key, embryo);
		return CONTINUE;
	}
	/* Not an answer: once more whoever was heard before. */
	if (side == !!(embryo->flags & FLOW_TURNED)) {
		account(embryo, skb, side, now(skb));
		if (!(embryo->flags & FLOW_ESTABLISHED))
			note_embryonic(embryo->seen);
		if (protocol == IPPROTO_TCP) {
			if ((type & TCP_SYN) && !side && !(pkt->flags & PACKET_LATER_FRAGMENT))
				embryo->sent[0] = sequence_end(pkt);
			else if (!(pkt->flags & PACKET_LATER_FRAGMENT)) /* that has no numbers */
				note_sequence(embryo, pkt, side, sequence_end(pkt));
			if (type & TCP_FIN)
				embryo->flags |= side ? FLOW_FIN_SERVER : FLOW_FIN_CLIENT;
		} else if (protocol == IPPROTO_SCTP && type == SCTP_INIT) {
			embryo->sent[0] = pkt->acknowledgement;
		}
		return CONTINUE;
	}
	if (protocol == IPPROTO_TCP && !(embryo->flags & FLOW_ADOPTED)) {
		/* Only a SYN answers a SYN, be it with an acknowledgement or at the same moment. */
		if (!(type & TCP_SYN))
			return CONTINUE;
		if ((type & TCP_ACK) && embryo->sent[0] - pkt->acknowledgement > FAULTY(17, 0xffffffff, 0xffff))
			return CONTINUE;
	}
	if (protocol == IPPROTO_SCTP && !(embryo->flags & FLOW_ADOPTED)) {
		/* By the tag that the client asked for. */
		if ((type != SCTP_INIT_ACK && type != SCTP_INIT) || (type == SCTP_INIT_ACK && pkt->sequence != embryo->sent[0]))
			return CONTINUE;
	}
	if (embryo->flags & FLOW_ESTABLISHED) {
		verdict = stay(embryo);
		if (verdict != CONTINUE)
			return verdict;
		flow = embryo;
	} else {
		flow = &with->flow;
		*flow = *embryo;
		flow->flags |= FLOW_ANSWERED | FLOW_ESTABLISHED;
	}
	flow->timeout = answered_life(protocol);
	account(flow, skb, side, now(skb));
	if (protocol == IPPROTO_TCP) {
		if (flow->flags & FLOW_ADOPTED) {
			if (!(pkt->flags & PACKET_LATER_FRAGMENT))
				note_sequence(flow, pkt, side, sequence_end(pkt));
		} else {
			flow->sent[1] = sequence_end(pkt);
			flow->acked[1] = type & TCP_ACK ? pkt->acknowledgement : flow->sent[0] - 1;
			flow->acked[0] = pkt->sequence;
		}
		if (type & TCP_FIN)
			flow->flags |= side ? FLOW_FIN_SERVER : FLOW_FIN_CLIENT;
		if ((flow->flags & FLOW_FIN_BOTH) == FLOW_FIN_BOTH)
			flow->timeout = LIFE_CLOSING;
	} else if (protocol == IPPROTO_SCTP) {
		flow->sent[1] = pkt->acknowledgement;
	}
	return flow == embryo ? CONTINUE : establish(&place->key, embryo, flow);
}

/* What the first packet says of its sender, and one in the middle also of the other. Constants only: it is on the stack. */
INLINE void fill_side(struct flow *flow, const struct packet *pkt, __u32 bytes, __u32 side)
{
	__u32 end = sequence_end(pkt), acknowledged = pkt->tcp_flags & TCP_ACK ? pkt->acknowledgement : 0;

	if (side) {
		flow->packets[1] = 1;
		flow->bytes[1] = bytes;
	} else {
		flow->packets[0] = 1;
		flow->bytes[0] = bytes;
	}
	if (pkt->tuple.protocol == IPPROTO_TCP) {
		/* An adopted one's other end has sent what is acknowledged here, and acknowledged what this continues. */
		flow->sent[0] = side ? acknowledged : end;
		flow->sent[1] = side ? end : acknowledged;
		flow->acked[0] = side ? pkt->sequence : acknowledged;
		flow->acked[1] = side ? acknowledged : pkt->sequence;
		if (pkt->tcp_flags & TCP_FIN)
			flow->flags |= side ? FLOW_FIN_SERVER : FLOW_FIN_CLIENT;
	} else if (pkt->tuple.protocol == IPPROTO_SCTP && pkt->tcp_flags == SCTP_INIT) {
		flow->sent[0] = pkt->acknowledgement;
	}
}

/* The first packet, or one whose beginning was not seen: `turned`, by the server. */
FUNCTION int write_embryo(struct __sk_buff *skb, struct packet *pkt, const struct place *place,
				   const struct judgement *j, __u32 how)
{
	__u32 side = how & 1, flags = how >> 1;
	struct judging *with = judging();
	struct flow *flow, *other;
	__u32 zero = 0, *waiting;
	long failed;

	if (!pkt || !place || !j || !with)
		return drop(REASON_MAP_WRITE_FAILED);
	flow = &with->flow;
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->seen = now(skb);
	flow->born = flow->seen;
	flow->timeout = FAULTY(8, 3, 1) * LIFE_UNANSWERED;
	flow->epoch = j->epoch;
	flow->flags = (flags & ~FLOW_ESTABLISHED) | ((place->lower ^ side) & FLOW_CLIENT_LOWER);
	flow->number = j->number;
	flow->client_identity = j->client_identity;
	flow->server_identity = j->server_identity;
	flow->egress_rule = j->egress_rule;
	flow->ingress_rule = j->ingress_rule;
	fill_side(flow, pkt, skb->len, side);
	pkt->flow_flags = flow->flags;
	if (side)
		pkt->flags |= PACKET_ANSWER;
	if (!may_write())
		return CONTINUE;
	waiting = bpf_map_lookup_elem(&shares_v1, &zero);
	/* Signed: two CPUs that end and answer one flow at once may count it off twice. */
	if (waiting && (__s32)*waiting < (__s32)cfg_unanswered_max) {
		flow->flags |= FLOW_ESTABLISHED;
		failed = bpf_map_update_elem(&flows_v1, &place->key, flow, BPF_NOEXIST);
		if (!failed) {
			__sync_fetch_and_add(waiting, 1);
			return CONTINUE;
		}
		if (failed == -17) { /* EEXIST: another CPU was first, perhaps with the other end's packet */
			other = bpf_map_lookup_elem(&flows_v1, &place->key);
			if (!other || (other->flags & FLOW_ANSWERED))
				return CONTINUE;
			return follow_embryo(skb, pkt, place, other);
		}
		/* Full: it may yet be one that nobody answers. */
		flow->flags &= ~FLOW_ESTABLISHED;
	}
	note_embryonic(flow->seen);
	/* FLOW_ESTABLISHED in `how`: there is an entry of a flow that is over. */
	failed = bpf_map_update_elem(&embryonic_v1, &place->key, flow, flags & FLOW_ESTABLISHED ? BPF_ANY : BPF_NOEXIST);
	if (failed == -17) {
		other = bpf_map_lookup_elem(&embryonic_v1, &place->key);
		if (other && !(other->flags & FLOW_ESTABLISHED) && flow->seen - other->seen <= other->timeout)
			return follow_embryo(skb, pkt, place, other);
		/* Of a flow that is over, which find_embryo() did not look for. */
		failed = bpf_map_update_elem(&embryonic_v1, &place->key, flow, BPF_ANY);
	}
	return failed ? drop(REASON_MAP_WRITE_FAILED) : CONTINUE;
}

/* No established flow has the packet. */
FUNCTION int begin(struct __sk_buff *skb, struct packet *pkt, struct place *place,
			    const struct endpoint *from, const struct endpoint *to)
{
	const struct policy_state *state = policy_state();
	__u32 flags = 0, turned = 0;
	struct judging *with = judging();
	struct judgement *j, *back;
	struct flow *embryo;
	__u32 client = 0;
	int verdict;

	if (!pkt || !place || !with)
		return drop(REASON_MAP_WRITE_FAILED);
	j = &with->j;
	embryo = find_embryo(&place->key, now(skb));
	if (embryo) {
		if (!(embryo->flags & FLOW_ESTABLISHED) && now(skb) - embryo->seen <= embryo->timeout) {
			verdict = CONTINUE;
			if (state && FAULTY(10, 0, embryo->epoch != state->epoch))
				verdict = reassess(pkt, place, embryo);
			if (verdict == CONTINUE)
				return follow_embryo(skb, pkt, place, embryo);
			if (verdict != FORGOTTEN) {
				if (may_write())
					bpf_map_delete_elem(&embryonic_v1, &place->key);
				return verdict;
			}
		}
		flags |= FLOW_ESTABLISHED; /* the entry is another flow's, which is over */
	}
	if (place->hook == HOOK_HOST && !skb->ingress_ifindex)
		client = IDENTITY_HOST;
	if (place->hook == HOOK_OVERLAY)
		client = pkt->source_identity;
	j->tuple = pkt->tuple;
	ask(j, client, 0);
	verdict = judge(j, from, to);
	/* What comes from outside is not this node's own, nor one of its pods'. */
	if (place->hook >= FAULTY(15, HOOK_OVERLAY, HOOK_NETDEV) &&
	    (j->client_identity == IDENTITY_HOST || bpf_map_lookup_elem(&endpoints_v2, &pkt->tuple.source)))
		return drop(REASON_INVALID_IDENTITY);
	if (!is_beginning(pkt)) {
		flags |= FLOW_ADOPTED;
		/* What lb has just sent on to a Service is a question. */
		if (verdict && (pkt->flags & PACKET_TRANSLATED)) {
			tell_judgement(pkt, j, 0);
			return drop(REASON_INVALID_FLOW);
		}
		if (verdict) {
			back = &with->back;
			turn_round(&pkt->tuple, &back->tuple);
			ask(back, 0, j->client_identity);
			if (FAULTY(16, 0, judge(back, to, from))) {
				tell_judgement(pkt, j, 0);
				return drop(REASON_INVALID_FLOW);
			}
			j = back;
			turned = 1;
			verdict = REASON_FORWARDED;
		}
	}
	tell_judgement(pkt, j, turned);
	if (verdict)
		return drop(verdict);
	/* The end of what is not known leaves nothing behind. */
	if (pkt->tuple.protocol == IPPROTO_TCP && (pkt->tcp_flags & TCP_RST) && !(pkt->flags & PACKET_LATER_FRAGMENT)) {
		pkt->flow_flags = FLOW_ADOPTED;
		if (turned)
			pkt->flags |= PACKET_ANSWER;
		return CONTINUE;
	}
	if (place->hook == HOOK_HOST && !turned && j->client_identity == IDENTITY_HOST)
		flags |= FLOW_HOST;
	if (pkt->flags & PACKET_TRANSLATED)
		flags |= FAULTY(29, 0, FLOW_NATED);
	if ((from && to) || j->client_identity == IDENTITY_HOST || j->server_identity == IDENTITY_HOST)
		flags |= FLOW_LOCAL;
	if (turned)
		flags |= FLOW_TURNED;
	verdict = write_embryo(skb, pkt, place, j, flags << 1 | turned);
	if (verdict == CONTINUE) {
		struct sighting seen = {
			.tuple = &pkt->tuple,
			.frontend = pkt->flags & PACKET_TRANSLATED ? &pkt->asked : 0,
			.frontend_port = pkt->asked_port,
			.tcp_flags = pkt->tcp_flags,
			.is_reply = turned,
			.source_identity = pkt->source_identity,
			.destination_identity = pkt->destination_identity,
			.rule = pkt->rule,
			.direction = place->hook == HOOK_CONTAINER ? DIRECTION_EGRESS : DIRECTION_INGRESS,
		};

		report_flow(skb, &seen);
	}
	return verdict;
}

/*
 * An existing connection is no longer allowed. TCP: both ends are told, its sender by a copy, and the packet goes on as the
 * receiver's reset, through everything that translates it. What has no connections is refused as if it were new.
 */
FUNCTION int cut(struct __sk_buff *skb, struct packet *pkt, const struct place *place, __u32 number, int verdict)
{
	struct made onward = {};

	if (!pkt || !place)
		return verdict;
	onward.tuple = pkt->tuple;
	onward.flags = pkt->tcp_flags & TCP_ACK;
	remove_flow(&place->key, FLOW_ANSWERED, number);
	if (pkt->tuple.protocol != IPPROTO_TCP || !may_write() || !is_answerable(pkt) ||
	    bpf_skb_load_bytes(skb, 0, onward.destination_mac, 12))
		return verdict;
	onward.sequence = pkt->sequence;
	onward.acknowledgement = pkt->acknowledgement;
	if (make_refusal(skb, pkt, 0))
		return drop(REASON_WRITE_FAILED);
	skb->mark = MARK_ANSWER;
	/* A probe must not send. */
	if (!cfg_probe)
		bpf_clone_redirect(skb, skb->ifindex, place->hook == HOOK_HOST ? BPF_F_INGRESS : 0);
	if (make_segment(skb, &onward))
		return drop(REASON_WRITE_FAILED);
	skb->mark = 0;
	/* The refusal went back under the name that was asked; this goes on as it was going. */
	pkt->tuple = onward.tuple;
	pkt->tcp_flags = TCP_RST | onward.flags;
	pkt->flags |= PACKET_EVENT;
	pkt->cut = -verdict;
	pkt->flags &= ~PACKET_OPTIONS;
	pkt->hops = 64;
	pkt->l4 = sizeof(struct ethhdr) +
		  (pkt->ethertype == bpf_htons(ETH_P_IP) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	return CONTINUE;
}

/*
 * An ICMP error is its flow's, which it names by the packet that it quotes. It changes nothing there. One about a flow that
 * is not known passes where the flow would have been allowed, either way.
 */
FUNCTION int relate(struct __sk_buff *skb, struct packet *pkt, __u32 hook)
{
	const struct policy_state *state = policy_state();
	const struct endpoint *client, *server;
	struct judging *with = judging();
	struct place place = {};
	struct inner inner = {};
	struct flow *flow;
	int verdict;

	if (!pkt || !with || (pkt->flags & PACKET_NEIGHBOUR))
		return drop(REASON_FORBIDDEN_ICMP);
	verdict = parse_inner(skb, pkt, &inner);
	if (verdict != CONTINUE)
		return verdict;
	/* It goes to whoever sent what it quotes; and a pod is nobody's router: it speaks of what was sent to itself. */
	if (FAULTY(24, 0, !address_equal(&inner.tuple.source, &pkt->tuple.destination)) ||
	    (hook == HOOK_CONTAINER && !address_equal(&inner.tuple.destination, &pkt->tuple.source)))
		return drop(REASON_FORBIDDEN_ICMP);
	find_place(&inner.tuple, &place);
	flow = bpf_map_lookup_elem(&flows_v1, &place.key);
	if (!flow) {
		flow = find_embryo(&place.key, now(skb));
		if (flow && (flow->flags & FLOW_ESTABLISHED))
			flow = 0;
	}
	if (flow && now(skb) - flow->seen <= flow->timeout) {
		verdict = CONTINUE;
		if (state && flow->epoch != state->epoch)
			verdict = reassess(pkt, &place, flow);
		if (verdict == CONTINUE) {
			/* Against the direction of what it quotes. */
			tell_packet(pkt, flow, side_of(&place, flow->flags) ^ 1);
			return CONTINUE;
		}
	}
	with->j.tuple = inner.tuple;
	ask(&with->j, 0, 0);
	turn_round(&inner.tuple, &with->back.tuple);
	ask(&with->back, 0, 0);
	client = bpf_map_lookup_elem(&endpoints_v2, &inner.tuple.source);
	server = bpf_map_lookup_elem(&endpoints_v2, &inner.tuple.destination);
	if (judge(&with->j, client, server) == REASON_FORWARDED || judge(&with->back, server, client) == REASON_FORWARDED)
		return CONTINUE;
	tell_judgement(pkt, &with->j, 1);
	return drop(REASON_FORBIDDEN_ICMP);
}

/*
 * Finds the packet's flow, or judges whether it may begin one. `from`, `to`: where they are pods of this node.
 * CONTINUE, or a drop that leave() answers.
 */
INLINE int track(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *from, const struct endpoint *to,
		 enum hook hook)
{
	const struct policy_state *state = policy_state();
	struct place place;
	struct flow *flow;
	int verdict;
	__u32 side;
	__u64 time;

	if (pkt->flags & (PACKET_ICMP_ERROR | PACKET_NEIGHBOUR))
		return relate(skb, pkt, hook);
	find_place(&pkt->tuple, &place);
	place.hook = hook;
	flow = bpf_map_lookup_elem(&flows_v1, &place.key);
	if (!flow)
		return begin(skb, pkt, &place, from, to);
	/* Whoever wears an address of this node outside wears it in a known connection, too. */
	if (hook >= HOOK_NETDEV && (flow->flags & FLOW_LOCAL))
		return drop(REASON_INVALID_IDENTITY);
	time = now(skb);
	if (time - flow->seen > flow->timeout) {
		remove_flow(&place.key, flow->flags, flow->number);
		return begin(skb, pkt, &place, from, to);
	}
	verdict = CONTINUE;
	if (state && FAULTY(11, 0, flow->epoch != state->epoch)) {
		verdict = reassess(pkt, &place, flow);
		if (verdict != CONTINUE && verdict != FORGOTTEN) {
			if (!(flow->flags & FLOW_ANSWERED)) {
				remove_flow(&place.key, flow->flags, flow->number);
				return verdict;
			}
			/* The reset that it becomes is renamed like any packet of its flow. */
			pkt->flow_flags = flow->flags;
			if (side_of(&place, flow->flags))
				pkt->flags |= PACKET_ANSWER;
			return cut(skb, pkt, &place, flow->number, verdict);
		}
	}
	if (verdict == CONTINUE && !(flow->flags & FLOW_ANSWERED))
		return follow_embryo(skb, pkt, &place, flow);
	if (verdict == CONTINUE && (pkt->flags & PACKET_EVENT))
		verdict = follow_event(pkt, &place, flow);
	if (verdict == FORGOTTEN) {
		remove_flow(&place.key, flow->flags, flow->number);
		return begin(skb, pkt, &place, from, to);
	}
	side = side_of(&place, flow->flags);
	tell_packet(pkt, flow, side);
	if (!may_write())
		return CONTINUE;
	account(flow, skb, side, time);
	if (pkt->tuple.protocol == IPPROTO_TCP) {
		if (!(pkt->flags & (PACKET_EVENT | PACKET_LATER_FRAGMENT)))
			note_sequence(flow, pkt, side, pkt->sequence + pkt->length);
		if ((flow->flags & FLOW_FIN_BOTH) == FLOW_FIN_BOTH && all_acknowledged(flow))
			remove_flow(&place.key, flow->flags, flow->number);
	}
	return CONTINUE;
}

#endif
