/* A connection from its first packet to its first answer: judged, written, answered. */
#ifndef WEFT_LIB_EMBRYO_H
#define WEFT_LIB_EMBRYO_H

#include "lib/cut.h"
#include "lib/trace.h"

INLINE int has_its_share(__u32 number)
{
	const __u32 *share = bpf_map_lookup_elem(&shares_v1, &number);

	/* Signed: less than nothing for a moment, where two CPUs count one flow off, is not more than everything. */
	return cfg_flow_share && number && share && (__s32)*share >= (__s32)cfg_flow_share;
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
	side = side_of(place, embryo->flags);
	protocol = pkt->tuple.protocol;
	type = pkt->tcp_flags;
	tell_packet(pkt, embryo, side);
	if (!may_write())
		return CONTINUE;
	if (protocol == IPPROTO_TCP && (type & TCP_RST) && !(pkt->flags & PACKET_LATER_FRAGMENT)) {
		/* Refused: the answer names what it answers (RFC 9293, 3.10.7.3). */
		if (side == 0 || (embryo->flags & FLOW_ADOPTED) || pkt->acknowledgement == embryo->sent[0])
			forget_flow(&place->key, embryo);
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
			if (cfg_flow_before)
				leave_flow(&place->key, flow);
			return CONTINUE;
		}
		if (place->is_guess)
			return NOT_SURE;
		if (failed == -17) { /* EEXIST: another CPU was first, perhaps with the other end's packet */
			other = bpf_map_lookup_elem(&flows_v1, &place->key);
			if (!other || (other->flags & FLOW_ANSWERED))
				return CONTINUE;
			return follow_embryo(skb, pkt, place, other);
		}
		/* Full: it may yet be one that nobody answers. */
		flow->flags &= ~FLOW_ESTABLISHED;
	}
	if (place->is_guess)
		return NOT_SURE;
	note_embryonic(flow->seen);
	/* FLOW_ESTABLISHED in `how`: there is an entry of a flow that is over. */
	failed = bpf_map_update_elem(&embryonic_v1, &place->key, flow, flags & FLOW_ESTABLISHED ? BPF_ANY : BPF_NOEXIST);
	if (failed == -17) {
		other = bpf_map_lookup_elem(&embryonic_v1, &place->key);
		if (other && !(other->flags & FLOW_ESTABLISHED) && !is_older(flow->seen, other->seen, other->timeout))
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
	if (embryo && place->is_guess)
		return NOT_SURE;
	if (embryo) {
		if (!(embryo->flags & FLOW_ESTABLISHED) && !is_older(now(skb), embryo->seen, embryo->timeout)) {
			/* As in track(): before anything is asked, or cut, on its behalf. */
			if (place->hook >= HOOK_NETDEV && (embryo->flags & FLOW_LOCAL))
				return drop(REASON_INVALID_IDENTITY);
			verdict = CONTINUE;
			if (FAULTY(10, 0, embryo->epoch != pkt->epoch))
				verdict = reassess(pkt, place, embryo);
			if (verdict == CONTINUE)
				return follow_embryo(skb, pkt, place, embryo);
			if (verdict != FORGOTTEN)
				return cut(skb, pkt, place, embryo, verdict);
		}
		flags |= FLOW_ESTABLISHED; /* the entry is another flow's, which is over */
	}
	if (place->hook == HOOK_HOST && !skb->ingress_ifindex)
		client = IDENTITY_HOST;
	if (place->hook == HOOK_OVERLAY)
		client = pkt->source_identity;
	j->tuple = pkt->tuple;
	ask(j, pkt, client, 0);
	verdict = judge(j, from, to);
	/* What is refused may be of a connection that is allowed. */
	if (verdict && place->is_guess)
		return NOT_SURE;
	/* What comes from outside is not this node's own, nor one of its pods'. */
	if (place->hook >= FAULTY(15, HOOK_OVERLAY, HOOK_NETDEV) &&
	    (j->client_identity == IDENTITY_HOST || bpf_map_lookup_elem(&endpoints_v2, &pkt->tuple.source) ||
	     (place->hook == HOOK_OVERLAY && identity_by_address(&pkt->tuple.source) == IDENTITY_HOST)))
		return place->is_guess ? NOT_SURE : drop(REASON_INVALID_IDENTITY);
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
			ask(back, pkt, 0, j->client_identity);
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
	if (verdict == CONTINUE)
		report(skb, pkt, REASON_FORWARDED,
		       place->hook == HOOK_CONTAINER ? DIRECTION_EGRESS : DIRECTION_INGRESS);
	return verdict;
}

#endif
