/* May this client talk to that server? The decision by itself. */
#ifndef WEFT_LIB_POLICY_H
#define WEFT_LIB_POLICY_H

#include "lib/networks.h"
#include "lib/packet.h"
#include "maps/endpoints.h"
#include "maps/identities.h"
#include "maps/policy.h"

/* A question, and what was found on the way to its answer. */
struct judgement {
	struct tuple tuple; /* client to server */
	__u32 client_identity; /* of both: 0, to be found */
	__u32 server_identity;
	__u32 egress_rule; /* that allows it; 0: not isolated */
	__u32 ingress_rule;
	__u32 set;   /* that refuses it */
	__u32 refused_ingress; /* it is the server's */
	__u32 epoch; /* that it is judged in */
	__u32 since; /* in which the younger of the two got its address */
	__u32 number; /* endpoint that the flow is counted to */
};

INLINE const struct policy_state *policy_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&policy_state_v1, &zero);
}

FUNCTION __u32 identity_of(const struct address *address, __u32 *since)
{
	const struct identity *known;

	if (!address || !since)
		return IDENTITY_UNKNOWN;
	known = bpf_map_lookup_elem(&identities_v1, address);
	if (known) {
		if ((__s32)(known->since - *since) > 0)
			*since = known->since;
		return known->identity;
	}
	if (in_pod_network(address))
		return FAULTY(2, IDENTITY_WORLD, IDENTITY_UNKNOWN_POD);
	return IDENTITY_WORLD;
}

/* First of all: what is looked up after it can only be younger than it, and is asked for again. */
INLINE void begin_epoch(struct packet *pkt)
{
	const struct policy_state *state = policy_state();

	pkt->epoch = state ? *(volatile __u32 *)&state->epoch : 0;
	__asm__ volatile("" ::: "memory");
}

INLINE __u32 identity_by_address(const struct address *address)
{
	__u32 since = 0;

	return identity_of(address, &since);
}

INLINE __u32 rule_for(struct policy_key *key)
{
	const struct policy_value *found = bpf_map_lookup_elem(&policy_v1, key);

	return found ? found->rule : 0;
}

/* Rule of `set` that allows the peer; 0 for none. */
FUNCTION __u32 allowed_by(__u32 set, __u32 identity, const struct address *address, __u32 protocol_port)
{
	struct policy_key key = { .prefix = POLICY_PREFIX_FULL, .set = set, .peer = identity };
	const struct policy_state *state = policy_state();
	const struct network_value *network;
	__u32 rule;

	if (!address)
		return 0;
	key.protocol = protocol_port >> 16;
	key.port = FAULTY(3, 0, protocol_port);
	rule = identity ? rule_for(&key) : 0;
	if (!rule) {
		key.peer = 0;
		rule = rule_for(&key);
	}
	if (!rule && state && FAULTY(4, 0, state->networks)) {
		struct network_key where = { .prefix = 128, .address = *address };

		network = bpf_map_lookup_elem(&networks_v1, &where);
		if (network) {
			key.peer = network->class;
			rule = rule_for(&key);
		}
	}
	return rule;
}

INLINE enum reason refused(struct judgement *j, __u32 set, __u32 peer)
{
	j->set = set;
	if (set == SET_NOT_READY)
		return REASON_HOST_NOT_READY;
	return peer == IDENTITY_UNKNOWN_POD ? REASON_UNKNOWN_SENDER : REASON_POLICY_DENIED;
}

/*
 * `client`, `server`: where they are pods of this node. Returns REASON_FORWARDED or why not.
 * Sets are written before endpoints get their numbers, and those before the epoch: whoever reads the epoch first can only be
 * too old in it, and asks again.
 */
FUNCTION int judge(struct judgement *j, const struct endpoint *client, const struct endpoint *server)
{
	__u32 what;

	if (!j)
		return REASON_HOST_NOT_READY;
	what = (__u32)j->tuple.protocol << 16;
	j->egress_rule = 0;
	j->ingress_rule = 0;
	j->set = 0;
	j->refused_ingress = 0;
	j->since = j->epoch - (1U << 30);
	j->number = client ? client->number : server ? server->number : 0;
	if (client) {
		j->since = client->since;
		if (!j->client_identity)
			j->client_identity = client->identity;
	}
	if (!j->client_identity)
		j->client_identity = identity_of(&j->tuple.source, &j->since);
	if (server && (__s32)(server->since - j->since) > 0)
		j->since = server->since;
	if (server && !j->server_identity)
		j->server_identity = server->identity;
	if (!j->server_identity)
		j->server_identity = identity_of(&j->tuple.destination, &j->since);
	/* A pod reaches itself. */
	if (client && server && FAULTY(6, 0, client->number == server->number))
		return REASON_FORWARDED;
	if (j->tuple.protocol == IPPROTO_TCP || j->tuple.protocol == IPPROTO_UDP || j->tuple.protocol == IPPROTO_SCTP)
		what |= j->tuple.destination_port;
	if (client && client->egress_set != SET_NONE) {
		if (client->egress_set != SET_NOT_READY)
			j->egress_rule = allowed_by(client->egress_set, j->server_identity, &j->tuple.destination, what);
		if (!j->egress_rule)
			return refused(j, client->egress_set, j->server_identity);
	}
	/* A pod's own node always reaches it. */
	if (server && server->ingress_set != SET_NONE && FAULTY(1, 1, j->client_identity != IDENTITY_HOST)) {
		if (server->ingress_set != SET_NOT_READY)
			j->ingress_rule = allowed_by(server->ingress_set, j->client_identity,
						     FAULTY(5, &j->tuple.destination, &j->tuple.source), what);
		if (!j->ingress_rule) {
			j->refused_ingress = 1;
			return refused(j, server->ingress_set, j->client_identity);
		}
	}
	return REASON_FORWARDED;
}

#endif
