import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import koffi from 'koffi'

/**
 * The table of native/shim.h, and the only place that reads it. Results are as there: a number, negative for an errno.
 * Buffers are used during the call and not kept. Wrapped, with errors and owners, by the files beside this one.
 */
const path = resolve(import.meta.dirname, '../../native/build/libweft.so')
if (!existsSync(path)) throw new Error(`Cannot find ${path}: build it with make -C native`)
const library = koffi.load(path)

koffi.opaque('weft_object')
koffi.opaque('weft_names')
koffi.opaque('weft_ring')
const programInfo = koffi.struct('weft_program_info', {
  id: 'uint32_t',
  type: 'uint32_t',
  tag: koffi.array('uint8_t', 8),
  run_count: 'uint64_t',
  run_nanoseconds: 'uint64_t',
})
const linkInfo = koffi.struct('weft_link_info', {
  id: 'uint32_t',
  type: 'uint32_t',
  program_id: 'uint32_t',
  ifindex: 'uint32_t',
  attach_type: 'uint32_t',
  cgroup_id: 'uint64_t',
})
const mapInfo = koffi.struct('weft_map_info', {
  id: 'uint32_t',
  type: 'uint32_t',
  key_size: 'uint32_t',
  value_size: 'uint32_t',
  entries_max: 'uint32_t',
  flags: 'uint32_t',
  name: koffi.array('char', 16, 'String'),
})
const testRun = koffi.struct('weft_test_run', {
  program: 'int32_t',
  repeat: 'uint32_t',
  data_in: 'const void *',
  data_in_size: 'uint32_t',
  data_out_size: 'uint32_t',
  data_out: 'void *',
  context: 'void *',
  context_size: 'uint32_t',
  verdict: 'uint32_t',
  nanoseconds: 'uint32_t',
})

export interface ProgramInfoOut {
  id: number
  type: number
  tag: Uint8Array
  run_count: number
  run_nanoseconds: number
}
export interface LinkInfoOut {
  id: number
  type: number
  program_id: number
  ifindex: number
  attach_type: number
  /** koffi gives a bigint where a number would not hold it. */
  cgroup_id: number | bigint
}
export interface MapInfoOut {
  id: number
  type: number
  key_size: number
  value_size: number
  entries_max: number
  flags: number
  name: string
}
export interface TestRunInOut {
  program: number
  repeat: number
  data_in: Uint8Array | null
  data_in_size: number
  data_out_size: number
  data_out: Uint8Array | null
  context: Uint8Array | null
  context_size: number
  verdict: number
  nanoseconds: number
}
/** A `struct weft_object *`. */
export type ObjectPointer = { readonly brand: unique symbol }

/** A `struct weft_ring *`. */
export type RingPointer = { readonly ring: unique symbol }

/** A `struct weft_names *`. */
export type NamesPointer = { readonly names: unique symbol }

type Bytes = Uint8Array | null
// The C declaration and the TypeScript type of each function stand side by side here and nowhere else.
const bind = <F>(declaration: string): F => library.func(declaration) as unknown as F

export const objectOpen = bind<
  (elf: Uint8Array, size: number, name: string, pinDir: string | null, out: [ObjectPointer | null]) => number
>('int weft_object_open(const void *, uint32_t, const char *, const char *, _Out_ weft_object **)')
export const objectSet = bind<(object: ObjectPointer, global: string, value: Uint8Array, size: number) => number>(
  'int weft_object_set(weft_object *, const char *, const void *, uint32_t)',
)
export const objectResize = bind<(object: ObjectPointer, map: string, entriesMax: number) => number>(
  'int weft_object_resize(weft_object *, const char *, uint32_t)',
)
export const objectReuse = bind<(object: ObjectPointer, map: string, fd: number) => number>(
  'int weft_object_reuse(weft_object *, const char *, int)',
)
export const objectBtf = bind<(object: ObjectPointer, out: Bytes, room: number) => number>(
  'int weft_object_btf(weft_object *, void *, uint32_t)',
)
export const objectLoad = bind<(object: ObjectPointer) => number>('int weft_object_load(weft_object *)')
export const objectProgram = bind<(object: ObjectPointer, name: string) => number>(
  'int weft_object_program(weft_object *, const char *)',
)
export const objectMap = bind<(object: ObjectPointer, name: string) => number>(
  'int weft_object_map(weft_object *, const char *)',
)
export const objectClose = bind<(object: ObjectPointer) => void>('void weft_object_close(weft_object *)')
export const ringOpen = bind<(fd: number, size: number, out: [RingPointer | null]) => number>(
  'int weft_ring_open(int, uint32_t, _Out_ weft_ring **)',
)
export const ringDrain = bind<(ring: RingPointer, recordSize: number, records: Uint8Array, room: number) => number>(
  'int weft_ring_drain(weft_ring *, uint32_t, void *, uint32_t)',
)
export const ringClose = bind<(ring: RingPointer) => void>('void weft_ring_close(weft_ring *)')
export const objectLog = bind<(out: Uint8Array, size: number) => number>('int weft_object_log(void *, uint32_t)')

export const pin = bind<(fd: number, path: string) => number>('int weft_pin(int, const char *)')
export const openPin = bind<(path: string) => number>('int weft_open_pin(const char *)')
export const programInfoOf = bind<(fd: number, out: ProgramInfoOut) => number>(
  'int weft_program_info(int, _Out_ weft_program_info *)',
)
export const programMaps = bind<(fd: number, ids: Uint32Array, room: number) => number>(
  'int weft_program_maps(int, void *, uint32_t)',
)
export const programName = bind<(fd: number, out: Uint8Array) => number>('int weft_program_name(int, void *)')
export const programOpen = bind<(id: number) => number>('int weft_program_open(uint32_t)')
export const linkInfoOf = bind<(fd: number, out: LinkInfoOut) => number>(
  'int weft_link_info(int, _Out_ weft_link_info *)',
)
const deviceAttach = library.func('int weft_attach_device(int, uint32_t, int, uint32_t)')
/** In a thread of the pool: the kernel waits for a grace period here, some 10 ms. The C function comes back to where it was. */
export const attachDevice = (netns: number, ifindex: number, program: number, attachType: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const done = (error: Error | null, result: number) => (error === null ? resolve(result) : reject(error))
    deviceAttach.async(netns, ifindex, program, attachType, done)
  })
export const queryDevice = bind<
  (
    netns: number,
    ifindex: number,
    attachType: number,
    programs: Uint32Array,
    links: Uint32Array,
    room: number,
  ) => number
>('int weft_query_device(int, uint32_t, uint32_t, void *, void *, uint32_t)')
export const attachTo = bind<(target: number, program: number, attachType: number) => number>(
  'int weft_attach_to(int, int, uint32_t)',
)
export const linkUpdate = bind<(link: number, program: number) => number>('int weft_link_update(int, int)')
export const linkDetach = bind<(link: number) => number>('int weft_link_detach(int)')
export const programTestRun = bind<(run: TestRunInOut) => number>('int weft_test_run(_Inout_ weft_test_run *)')
export const tickNanoseconds = bind<() => number>('int weft_tick_nanoseconds()')
const syscallRun = library.func('int weft_run_syscall(int, void *, uint32_t)')
/** In a thread of the pool: a program may walk through a whole map. `context` is written by the time it resolves. */
export const runSyscall = (program: number, context: Buffer): Promise<number> =>
  new Promise((resolve, reject) => {
    const done = (error: Error | null, result: number) => (error === null ? resolve(result) : reject(error))
    syscallRun.async(program, context, context.length, done)
  })

/** At once, for maps that are known to be small. */
export const runSyscallNow = (program: number, context: Buffer): number =>
  syscallRun(program, context, context.length) as number

export const mapInfoOf = bind<(fd: number, out: MapInfoOut) => number>('int weft_map_info(int, _Out_ weft_map_info *)')
export const mapBtf = bind<(fd: number, ids: Uint32Array, out: Bytes, room: number) => number>(
  'int weft_map_btf(int, void *, void *, uint32_t)',
)
export const mapLookup = bind<(fd: number, key: Uint8Array, value: Uint8Array) => number>(
  'int weft_map_lookup(int, const void *, void *)',
)
export const mapUpdate = bind<(fd: number, key: Uint8Array, value: Uint8Array, flags: number) => number>(
  'int weft_map_update(int, const void *, const void *, uint64_t)',
)
export const mapDelete = bind<(fd: number, key: Uint8Array) => number>('int weft_map_delete(int, const void *)')
export const mapUpdateBatch = bind<(fd: number, keys: Uint8Array, values: Uint8Array, count: number) => number>(
  'int weft_map_update_batch(int, const void *, const void *, uint32_t)',
)
export const mapDeleteBatch = bind<(fd: number, keys: Uint8Array, count: number) => number>(
  'int weft_map_delete_batch(int, const void *, uint32_t)',
)
export const mapDump = bind<
  (fd: number, keySize: number, valueSize: number, keys: Bytes, values: Bytes, room: number) => number
>('int weft_map_dump(int, uint32_t, uint32_t, void *, void *, uint32_t)')
const count = library.func('int weft_map_count(int, uint32_t, uint32_t)')
/** In a thread of the pool: a large map takes its time. */
export const mapCount = (fd: number, keySize: number, limit: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const done = (error: Error | null, result: number) => (error === null ? resolve(result) : reject(error))
    count.async(fd, keySize, limit, done)
  })
export const possibleCpus = bind<() => number>('int weft_possible_cpus()')

export const netnsCreate = bind<(path: string) => number>('int weft_netns_create(const char *)')
export const netnsDelete = bind<(path: string) => number>('int weft_netns_delete(const char *)')
export const netnsOpen = bind<(path: string) => number>('int weft_netns_open(const char *)')
export const netnsEnter = bind<(netns: number) => number>('int weft_netns_enter(int)')
export const netnsId = bind<(netns: number, out: BigUint64Array) => number>('int weft_netns_id(int, void *)')
export const listenSocket = bind<
  (netns: number, address: Uint8Array, addressSize: number, port: number, type: number, backlog: number) => number
>('int weft_listen(int, const void *, uint32_t, uint16_t, int, int)')
export const socket = bind<(netns: number, domain: number, type: number, protocol: number) => number>(
  'int weft_socket(int, int, int, int)',
)
export const sysctlWrite = bind<(netns: number, path: string, value: string) => number>(
  'int weft_sysctl_write(int, const char *, const char *)',
)
export const sysctlRead = bind<(netns: number, path: string, out: Uint8Array, size: number) => number>(
  'int weft_sysctl_read(int, const char *, void *, uint32_t)',
)
export const ifindexOf = bind<(netns: number, name: string) => number>('int weft_ifindex(int, const char *)')
export const runLive = bind<(program: number, frame: Uint8Array, size: number, repeat: number) => number>(
  'int weft_run_live(int, const void *, uint32_t, uint32_t)',
)
const socketsDestroy = library.func('int weft_destroy_sockets(int, int, const void *, uint32_t)')
/** In a thread of the pool: all sockets of the machine are looked at. */
export const destroySockets = (netns: number, protocol: number, targets: Buffer, count: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const done = (error: Error | null, result: number) => (error === null ? resolve(result) : reject(error))
    socketsDestroy.async(netns, protocol, targets, count, done)
  })
export const sendFrame = bind<(netns: number, ifindex: number, frame: Uint8Array, size: number) => number>(
  'int weft_send_frame(int, uint32_t, const void *, uint32_t)',
)
export const netnsCookie = bind<(netns: number, out: BigUint64Array) => number>('int weft_netns_cookie(int, void *)')
export const offloads = bind<(netns: number, device: string, on: number) => number>(
  'int weft_offloads(int, const char *, int)',
)
export const probeTcx = bind<() => number>('int weft_probe_tcx()')
export const probeDevice = bind<(kind: string) => number>('int weft_probe_device(const char *)')
export const probeMap = bind<(type: number) => number>('int weft_probe_map(uint32_t)')

export const namesNew = bind<() => NamesPointer | null>('weft_names *weft_names_new()')
export const namesChange = bind<(names: NamesPointer, changes: Uint8Array, size: number) => number>(
  'int weft_names_change(weft_names *, const void *, uint32_t)',
)
export const namesDump = bind<(names: NamesPointer, out: Uint8Array, room: number) => number>(
  'int weft_names_dump(weft_names *, void *, uint32_t)',
)
export const namesAnswer = bind<
  (names: NamesPointer, query: Uint8Array, size: number, limit: number, out: Uint8Array, room: number) => number
>('int weft_names_answer(weft_names *, const void *, uint32_t, uint32_t, void *, uint32_t)')
export const namesServe = bind<(names: NamesPointer, fd: number) => number>('int weft_names_serve(weft_names *, int)')
export const namesBell = bind<(names: NamesPointer) => number>('int weft_names_bell(weft_names *)')
export const namesTake = bind<(names: NamesPointer, out: Uint8Array, room: number) => number>(
  'int weft_names_take(weft_names *, void *, uint32_t)',
)
export const namesSend = bind<
  (
    names: NamesPointer,
    socket: number,
    address: Uint8Array,
    addressSize: number,
    data: Uint8Array,
    size: number,
  ) => number
>('int weft_names_send(weft_names *, uint32_t, const void *, uint32_t, const void *, uint32_t)')
export const namesCounts = bind<(names: NamesPointer, out: BigUint64Array, room: number) => number>(
  'int weft_names_counts(weft_names *, void *, uint32_t)',
)
export const namesFree = bind<(names: NamesPointer) => void>('void weft_names_free(weft_names *)')

export const takeFd = bind<(pid: number, fd: number) => number>('int weft_take_fd(int, int)')
export const dup = bind<(fd: number) => number>('int weft_dup(int)')
export const close = bind<(fd: number) => number>('int weft_close(int)')

/** Sizes that koffi computed for the structs, for a test to hold against the C compiler's. */
export const structSizes = {
  weft_program_info: koffi.sizeof(programInfo),
  weft_link_info: koffi.sizeof(linkInfo),
  weft_map_info: koffi.sizeof(mapInfo),
  weft_test_run: koffi.sizeof(testRun),
}
