/* Links: attached, looked at, exchanged, ended. By bpf(2) itself: libbpf 1.1 does not know tcx. */
#define _GNU_SOURCE
#include <string.h>

#include "bpf.h"
#include "netns.h"
#include "shim.h"

/* src/kernel/kernel.test.ts holds the same numbers against koffi's. */
_Static_assert(sizeof(struct weft_link_info) == 32, "weft_link_info");

/* The part of bpf_link_info that the headers of Debian 12 (Linux 6.1) do not have. */
struct link_info {
	uint32_t type;
	uint32_t id;
	uint32_t prog_id;
	uint32_t pad;
	union {
		struct {
			uint64_t cgroup_id;
			uint32_t attach_type;
		} cgroup;
		struct {
			uint32_t ifindex;
			uint32_t attach_type;
		} tcx;
		uint8_t room[128];
	};
};

enum { link_type_cgroup = 3, link_type_xdp = 6, link_type_tcx = 11 };

int weft_link_info(int fd, struct weft_link_info *out)
{
	struct link_info i = {};
	int error = bpf_info(fd, &i, sizeof(i));

	if (error)
		return error;
	memset(out, 0, sizeof(*out));
	out->id = i.id;
	out->type = i.type;
	out->program_id = i.prog_id;
	if (i.type == link_type_tcx) {
		out->ifindex = i.tcx.ifindex;
		out->attach_type = i.tcx.attach_type;
	} else if (i.type == link_type_xdp) {
		out->ifindex = i.tcx.ifindex; /* both begin with it */
	} else if (i.type == link_type_cgroup) {
		out->attach_type = i.cgroup.attach_type;
		out->cgroup_id = i.cgroup.cgroup_id;
	}
	return 0;
}

static int link_create(int program, uint32_t target, uint32_t attach_type)
{
	union bpf_attr a = {};

	a.link_create.prog_fd = program;
	a.link_create.target_ifindex = target; /* shares its place with target_fd */
	a.link_create.attach_type = attach_type & 0xffff;
	a.link_create.flags = attach_type >> 16;
	return bpf(BPF_LINK_CREATE, &a);
}

int weft_attach_device(int netns, uint32_t ifindex, int program, uint32_t attach_type)
{
	int home, link, error;

	/* The kernel looks the index up where the caller is: elsewhere it may be silently another device. */
	error = netns_go_in(netns, &home);
	if (error)
		return error;
	link = link_create(program, ifindex, attach_type);
	netns_come_back(home);
	return link;
}

/* BPF_PROG_QUERY as of Linux 6.6. */
struct query {
	uint32_t ifindex;
	uint32_t attach_type;
	uint32_t query_flags;
	uint32_t attach_flags;
	uint64_t programs;
	uint32_t count;
	uint32_t pad;
	uint64_t program_flags;
	uint64_t links;
	uint64_t link_flags;
	uint64_t revision;
};

int weft_query_device(int netns, uint32_t ifindex, uint32_t attach_type, uint32_t *programs, uint32_t *links,
		      uint32_t room)
{
	struct query q = {
		.ifindex = ifindex,
		.attach_type = attach_type & 0xffff,
		.programs = pointer(programs),
		.links = pointer(links),
		.count = room,
	};
	int home, failed, error;

	error = netns_go_in(netns, &home);
	if (error)
		return error;
	failed = syscall(__NR_bpf, BPF_PROG_QUERY, &q, sizeof(q)) < 0 ? -errno : 0;
	netns_come_back(home);
	return failed ? failed : (int)q.count;
}

int weft_attach_to(int target, int program, uint32_t attach_type)
{
	return link_create(program, target, attach_type);
}

int weft_link_update(int link, int program)
{
	union bpf_attr a = {};

	a.link_update.link_fd = link;
	a.link_update.new_prog_fd = program;
	return bpf(BPF_LINK_UPDATE, &a);
}

int weft_link_detach(int link)
{
	union bpf_attr a = {};

	a.link_detach.link_fd = link;
	return bpf(BPF_LINK_DETACH, &a);
}
