/* Programs that are loaded: what they are, and one run of one. */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "bpf.h"
#include "shim.h"

/* src/kernel/kernel.test.ts holds the same numbers against koffi's. */
_Static_assert(sizeof(struct weft_program_info) == 32, "weft_program_info");
_Static_assert(sizeof(struct weft_test_run) == 56, "weft_test_run");

int weft_program_info(int fd, struct weft_program_info *out)
{
	struct bpf_prog_info i = {};
	int error = bpf_info(fd, &i, sizeof(i));

	if (error)
		return error;
	out->id = i.id;
	out->type = i.type;
	memcpy(out->tag, i.tag, sizeof(out->tag));
	out->run_count = i.run_cnt;
	out->run_nanoseconds = i.run_time_ns;
	return 0;
}

int weft_program_maps(int fd, uint32_t *ids, uint32_t room)
{
	struct bpf_prog_info i = { .nr_map_ids = room, .map_ids = pointer(ids) };
	int error = bpf_info(fd, &i, sizeof(i));

	return error ? error : (int)i.nr_map_ids;
}

int weft_program_name(int fd, char *out)
{
	struct bpf_prog_info i = {};
	int error = bpf_info(fd, &i, sizeof(i));

	if (!error)
		memcpy(out, i.name, sizeof(i.name));
	return error;
}

int weft_program_open(uint32_t id)
{
	union bpf_attr a = {};

	a.prog_id = id;
	return bpf(BPF_PROG_GET_FD_BY_ID, &a);
}

int weft_test_run(struct weft_test_run *run)
{
	union bpf_attr a = {};
	int error;

	a.test.prog_fd = run->program;
	a.test.repeat = run->repeat;
	a.test.data_in = pointer(run->data_in);
	a.test.data_size_in = run->data_in_size;
	a.test.data_out = pointer(run->data_out);
	a.test.data_size_out = run->data_out_size;
	a.test.ctx_in = pointer(run->context);
	a.test.ctx_size_in = run->context_size;
	a.test.ctx_out = pointer(run->context);
	a.test.ctx_size_out = run->context_size;
	error = bpf(BPF_PROG_TEST_RUN, &a);
	run->data_out_size = a.test.data_size_out;
	run->verdict = a.test.retval;
	run->nanoseconds = a.test.duration;
	return error;
}

/* The coarse clock is read at ticks: its resolution is theirs. */
int weft_tick_nanoseconds(void)
{
	struct timespec t;

	if (clock_getres(CLOCK_MONOTONIC_COARSE, &t))
		return -errno;
	return t.tv_nsec;
}

int weft_run_syscall(int program, void *context, uint32_t size)
{
	union bpf_attr a = {};
	int error;

	a.test.prog_fd = program;
	a.test.ctx_in = pointer(context);
	a.test.ctx_size_in = size;
	error = bpf(BPF_PROG_TEST_RUN, &a);
	return error < 0 ? error : (int)a.test.retval;
}

int weft_run_live(int program, const void *frame, uint32_t size, uint32_t repeat)
{
	uint32_t left = repeat, step;
	union bpf_attr a;
	int error;

	/* A signal ends a run early, and how far it came nobody says: in small steps that matters little. */
	for (; left; left -= step) {
		step = left < 65536 ? left : 65536;
		memset(&a, 0, sizeof(a));
		a.test.prog_fd = program;
		a.test.data_in = pointer(frame);
		a.test.data_size_in = size;
		a.test.repeat = step;
		a.test.flags = 1 << 1; /* BPF_F_TEST_XDP_LIVE_FRAMES */
		a.test.batch_size = 64;
		error = bpf(BPF_PROG_TEST_RUN, &a);
		if (error && error != -EINTR)
			return error;
	}
	return 0;
}
