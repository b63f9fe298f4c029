/* Who somebody is, as policies see it: 24 bits for all nodes, and above that classes of addresses of this node's own. */
#ifndef WEFT_ABI_IDENTITY_H
#define WEFT_ABI_IDENTITY_H

enum identity_number {
	IDENTITY_UNKNOWN = 0, /* in a rule: anyone */
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 3,
	IDENTITY_UNKNOWN_POD = 4, /* an address of the pods' networks without an entry */
	IDENTITY_FIRST = 256,
	IDENTITY_FIRST_CLASS = 1 << 24,
};

#endif
