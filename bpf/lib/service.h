/*
 * Services, packet by packet: for what passed no socket hook (raw packets, processes of a foreign cgroup) and for what comes
 * from outside. And what pods say to the outside, under the node's address.
 */
#ifndef WEFT_LIB_SERVICE_H
#define WEFT_LIB_SERVICE_H

#include "lib/choose.h"
#include "lib/flow.h"
#include "lib/forward.h"

/* A pod that is its own backend hears itself under these, so that its answers come back here: 169.254.42.1, fd00:169:254:42::1. */
#define HAIRPIN4 bpf_htonl(0xa9fe2a01)
#define HAIRPIN6_0 bpf_htonl(0xfd000169)
#define HAIRPIN6_1 bpf_htonl(0x02540042)

INLINE void hairpin_address(struct address *out, int v4)
{
	out->word[0] = v4 ? 0 : HAIRPIN6_0;
	out->word[1] = v4 ? 0 : HAIRPIN6_1;
	out->word[2] = v4 ? V4_MAPPED : 0;
	out->word[3] = v4 ? HAIRPIN4 : bpf_htonl(1);
}

INLINE int is_hairpin(const struct address *a)
{
	struct address hairpin;

	hairpin_address(&hairpin, is_mapped(a));
	return address_equal(a, &hairpin);
}

INLINE void note_asked(struct packet *pkt)
{
	pkt->asked = pkt->tuple.destination;
	pkt->asked_port = pkt->tuple.destination_port;
	pkt->asked_source = pkt->tuple.source_port;
	pkt->flags |= PACKET_TRANSLATED;
}

INLINE int apply(struct __sk_buff *skb, struct packet *pkt, const struct tuple *to)
{
	return rewrite_packet(skb, pkt, to) ? drop(REASON_WRITE_FAILED) : CONTINUE;
}

/*
 * A service's packet of a connection that is known, or an error about one. FORGOTTEN where there is none. With REWRITE_ANSWER
 * in `*flags` answers do not count, but for a pod's to itself.
 */
FUNCTION int translate_known(struct __sk_buff *skb, struct packet *pkt, __u32 *flags)
{
	struct rewrite *r;
	int done;

	if (!pkt || !flags)
		return drop(REASON_MAP_WRITE_FAILED);
	if (pkt->flags & PACKET_ICMP_ERROR) {
		done = translate_error(skb, pkt, flags);
		if (done < 0)
			return drop(REASON_WRITE_FAILED);
		return done ? CONTINUE : FORGOTTEN;
	}
	r = find_rewrite(pkt, now(skb));
	if (!r || ((*flags & r->flags & REWRITE_ANSWER) && !(r->flags & REWRITE_HAIRPIN)))
		return FORGOTTEN;
	/* Under the node's address it goes last of all: policies are asked about the pod. */
	if (FAULTY(44, 0, (*flags & REWRITE_ANSWER) && (r->flags & REWRITE_MASQUERADE)))
		return FORGOTTEN;
	*flags = r->flags;
	if (!(r->flags & (REWRITE_ANSWER | REWRITE_MASQUERADE)))
		note_asked(pkt);
	pkt->choice = r->backend;
	return apply(skb, pkt, &r->to);
}

FUNCTION int begin_pair(struct __sk_buff *skb, struct packet *pkt, struct nat_work *w, __u32 how)
{
	int reason;

	if (!pkt || !w)
		return drop(REASON_MAP_WRITE_FAILED);
	w->asked = pkt->tuple;
	reason = write_pair(skb, w, how, bpf_get_prandom_u32());
	if (reason)
		return drop(reason);
	note_asked(pkt);
	return apply(skb, pkt, &w->question.to);
}

/* To a Service, or back to the pod itself. */
FUNCTION int serve_container(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *from)
{
	struct nat_work *w = nat_work();
	int in_network, hairpin, verdict;
	const struct rewrite *old;
	__u32 known, flags = 0;
	struct rewrite *r;

	if (!pkt || !from || !w)
		return drop(REASON_MAP_WRITE_FAILED);
	r = &w->question;
	in_network = in_service_network(&pkt->tuple.destination);
	hairpin = is_hairpin(&pkt->tuple.destination);
	known = in_network || hairpin ? 0 : address_flags(&pkt->tuple.destination);
	if (!in_network && !hairpin && !(known & (ADDRESS_NODE | ADDRESS_VIRTUAL | ADDRESS_EXTERNAL)))
		return CONTINUE;
	/* What a pod answers is of its flow first, and gets its name after that: nat_answer(). */
	flags = REWRITE_ANSWER;
	verdict = translate_known(skb, pkt, &flags);
	if (verdict == CONTINUE)
		return flags & REWRITE_HAIRPIN ? deliver(skb, pkt, from) : CONTINUE;
	if (verdict != FORGOTTEN)
		return verdict;
	if (hairpin)
		return drop(REASON_NO_NAT_MAPPING);
	verdict = asks_for_port(pkt) ? choose_backend(skb, pkt, r, LB_INSIDE, known) : FORGOTTEN;
	/* A Service's address that nobody answers at this port would otherwise leave by the default route. */
	if (verdict == FORGOTTEN)
		return in_network || (known & ADDRESS_VIRTUAL) ? drop(REASON_NO_SERVICE) : CONTINUE;
	if (verdict == TC_ACT_OK)
		return CONTINUE;
	if (verdict != CONTINUE)
		return verdict;
	if (address_equal(&r->to.destination, &pkt->tuple.source)) {
		hairpin_address(&r->to.source, is_mapped(&pkt->tuple.source));
		r->flags |= REWRITE_HAIRPIN;
	}
	/* What was outside until now is a Service's: another connection. */
	old = translation_of(&pkt->tuple);
	if (old && (old->flags & REWRITE_MASQUERADE) && may_write())
		forget_pair(&pkt->tuple, old);
	verdict = begin_pair(skb, pkt, w, PAIR_KEEP_PORT);
	/* A pod always reaches itself: nobody else is asked. */
	return verdict == CONTINUE && (r->flags & REWRITE_HAIRPIN) ? deliver(skb, pkt, from) : verdict;
}

/* Before track, in from_container. A packet from pod to pod costs two comparisons. */
INLINE int lb_from_container(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *from)
{
	if (in_pod_network(&pkt->tuple.destination))
		return CONTINUE;
	return serve_container(skb, pkt, from);
}

/* A connection from outside that nobody knows yet. */
FUNCTION int serve_outside(struct __sk_buff *skb, struct packet *pkt, __u32 known)
{
	struct nat_work *w = nat_work();
	struct rewrite *r;
	int verdict;

	if (!pkt || !w)
		return drop(REASON_MAP_WRITE_FAILED);
	r = &w->question;
	verdict = asks_for_port(pkt) ? choose_backend(skb, pkt, r, LB_OUTSIDE, known) : FORGOTTEN;
	/* From outside comes nothing of this node's own. */
	if (verdict == CONTINUE && (bpf_map_lookup_elem(&endpoints_v2, &pkt->tuple.source) ||
				    (address_flags(&pkt->tuple.source) & ADDRESS_OWN)))
		return drop(REASON_INVALID_IDENTITY);
	if (verdict == FORGOTTEN)
		return known & ADDRESS_VIRTUAL ? drop(REASON_NO_SERVICE) : TC_ACT_OK;
	if (verdict != CONTINUE)
		return verdict;
	if (bpf_map_lookup_elem(&endpoints_v2, &r->to.destination) || (address_flags(&r->to.destination) & ADDRESS_OWN))
		return begin_pair(skb, pkt, w, PAIR_KEEP_PORT);
	if (!node_address(&r->to.source, is_mapped(&pkt->tuple.source)))
		return drop(REASON_NO_NAT_PORT);
	r->flags |= REWRITE_OUT;
	verdict = begin_pair(skb, pkt, w, PAIR_NODE);
	return verdict == CONTINUE ? route(skb, pkt) : verdict;
}

/*
 * In from_netdev, for what is not a pod's as it comes: to Services, and answers to what left under the node's address. Sets
 * the packet's destination to a pod, sends it on to another node, or leaves it to the stack.
 */
INLINE int lb_from_netdev(struct __sk_buff *skb, struct packet *pkt)
{
	__u32 known = address_flags(&pkt->tuple.destination), flags = 0;
	int verdict;

	/* A cluster address would leave by the default route again, and come round until its hops are used up. */
	if (!(known & (ADDRESS_OWN | ADDRESS_VIRTUAL | ADDRESS_EXTERNAL)))
		return in_service_network(&pkt->tuple.destination) ? drop(REASON_NO_SERVICE) : TC_ACT_OK;
	verdict = translate_known(skb, pkt, &flags);
	/* What a pod says to itself nobody outside says: under its new name it would no longer look like a pod's. */
	if (verdict == CONTINUE && FAULTY(43, 0, flags & REWRITE_HAIRPIN))
		return drop(REASON_INVALID_IDENTITY);
	if (verdict == CONTINUE)
		return flags & REWRITE_OUT ? route(skb, pkt) : CONTINUE;
	return verdict == FORGOTTEN ? serve_outside(skb, pkt, known) : verdict;
}

FUNCTION int restore_answer(struct __sk_buff *skb, struct packet *pkt)
{
	struct rewrite *r;
	__u32 flags = 0;
	int done;

	if (!pkt)
		return drop(REASON_MAP_WRITE_FAILED);
	if (pkt->flags & PACKET_ICMP_ERROR) {
		done = translate_error(skb, pkt, &flags);
		if (done) {
			pkt->flags |= PACKET_RENAMED;
			return done < 0 ? drop(REASON_WRITE_FAILED) : CONTINUE;
		}
	} else {
		/* A question's entry is not for here: looking for it would end one that begins again. */
		r = translation_of(&pkt->tuple);
		if (r && (r->flags & REWRITE_ANSWER)) {
			if (may_write())
				note_use(r, pkt, now(skb));
			pkt->flags |= PACKET_RENAMED;
			return apply(skb, pkt, &r->to);
		}
	}
	/* It must not arrive under a name that the client never asked. */
	return pkt->flow_flags & FLOW_NATED ? drop(REASON_NO_NAT_MAPPING) : CONTINUE;
}

/* After track: an answer gets the name back that was asked. Also where the flow is gone and its last packets come again. */
INLINE int nat_answer(struct __sk_buff *skb, struct packet *pkt)
{
	if (pkt->flow_flags & FLOW_NATED) {
		if (!(pkt->flags & PACKET_ANSWER))
			return CONTINUE;
	} else if (!(pkt->flow_flags & FLOW_ADOPTED) || (pkt->flow_flags & FLOW_ANSWERED)) {
		return CONTINUE;
	}
	return restore_answer(skb, pkt);
}

INLINE int is_excluded(const struct address *destination)
{
	struct exclusion_key key = { .prefix = 128, .address = *destination };

	return bpf_map_lookup_elem(&exclusions_v1, &key) != 0;
}

/*
 * To an address of the node's own that nobody has told us of (another device's, a bridge's), or to where no route leads: that is
 * for the stack, and under the pod's name. From its own address it would take no packet, and answer none.
 */
FUNCTION int stays_here(struct __sk_buff *skb, const struct packet *pkt)
{
	struct bpf_fib_lookup fib;
	int said;

	if (!pkt)
		return 0;
	said = ask_routes(skb, pkt, &fib, WEFT_FIB_LOOKUP_SKIP_NEIGH);
	return said >= BPF_FIB_LKUP_RET_BLACKHOLE && said <= BPF_FIB_LKUP_RET_NOT_FWDED;
}

FUNCTION int leave_cluster(struct __sk_buff *skb, struct packet *pkt)
{
	struct nat_work *w = nat_work();
	const struct rewrite *known;
	struct rewrite *r;
	__u32 flags = REWRITE_MASQUERADE; /* of errors, too, only those */
	int verdict;

	if (!pkt || !w)
		return drop(REASON_MAP_WRITE_FAILED);
	r = &w->question;
	/* Without knowing where pods are nobody can say what is outside. */
	if (!(is_mapped(&pkt->tuple.source) ? cfg_pod_network4.mask.word[0] : cfg_pod_network6.mask.word[0]))
		return CONTINUE;
	if (address_flags(&pkt->tuple.destination) & (ADDRESS_NODE | ADDRESS_VIRTUAL | ADDRESS_RESOLVER))
		return CONTINUE;
	/* Of a Service that is no more: its packets must not begin something else under the same ports. */
	known = translation_of(&pkt->tuple);
	if (known && !(known->flags & REWRITE_MASQUERADE))
		return drop(REASON_NO_NAT_MAPPING);
	/* The stack says "time exceeded" about the packet that the pod sent, and to the pod. */
	if (pkt->hops < FAULTY(48, 0, 2))
		return TC_ACT_OK;
	verdict = translate_known(skb, pkt, &flags);
	if (verdict != FORGOTTEN)
		return verdict;
	/* An answer goes as it is, but for one that began under another name before and begins again. */
	if (((pkt->flags & PACKET_ANSWER) && !known) || is_excluded(&pkt->tuple.destination))
		return CONTINUE;
	if (stays_here(skb, pkt))
		return TC_ACT_OK;
	/* An error about nothing that is known tells nobody anything. */
	if (pkt->flags & PACKET_ICMP_ERROR)
		return drop(REASON_NO_NAT_MAPPING);
	if (is_icmp(pkt->tuple.protocol) && !pkt->tuple.source_port)
		return drop(REASON_UNSUPPORTED_NAT_PROTOCOL);
	if (!may_begin(pkt))
		return drop(REASON_NO_NAT_MAPPING);
	w->asked = pkt->tuple;
	r->to = pkt->tuple;
	if (!node_address(&r->to.source, is_mapped(&pkt->tuple.source)))
		return CONTINUE;
	r->service = 0;
	r->backend = 0;
	r->flags = REWRITE_MASQUERADE;
	r->seen = now(skb) / SECOND;
	note_beginning(r, pkt);
	verdict = write_pair(skb, w, PAIR_NODE, bpf_get_prandom_u32());
	if (verdict)
		return drop(verdict);
	if (FAULTY(32, 1, 0))
		r->to.source_port = w->asked.source_port;
	pkt->choice = bpf_ntohs(r->to.source_port);
	return apply(skb, pkt, &r->to);
}

/* After track, in from_container, for what goes to no pod of this node. */
INLINE int masquerade(struct __sk_buff *skb, struct packet *pkt)
{
	if (in_pod_network(&pkt->tuple.destination) || (pkt->flags & PACKET_RENAMED))
		return CONTINUE;
	/* The other end of what it was adopted from may be a pair that was written before. */
	if ((pkt->flags & PACKET_ANSWER) && !(pkt->flow_flags & FLOW_ADOPTED))
		return CONTINUE;
	return leave_cluster(skb, pkt);
}

#endif
