import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { StatusError } from '#api/meta/status.ts'
import { Backoff, type BackoffOptions } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import type { Client, KubeList, ListOptions, WatchEvent } from './client.ts'
import { compareRevisions } from './key.ts'

/** What the user of a watch sees: everything once, then each change. `replace` may come again after a gap. */
export type Change<K extends KubeObject> =
  | { readonly type: 'replace'; readonly objects: readonly K[]; readonly revision: string }
  | { readonly type: 'changed' | 'deleted'; readonly object: K; readonly revision: string }
  /** No object changed; the copy is complete up to `revision`. */
  | { readonly type: 'progress'; readonly revision: string }
  /** The server is out of reach or refuses; the machine tries again by itself. */
  | { readonly type: 'trouble'; readonly error: unknown }

/** How the present objects are fetched: as the start of a watch (KEP-3157), or by lists where the server has no such thing. */
export type Source = 'stream' | 'list'

/**
 * The list/watch machine. Each state says what to ask the server for; `step` says what an answer means.
 * - `fetching`: the present objects are coming in, nothing has been shown yet
 * - `following`: a watch from `revision` is open, or about to be opened
 * - `waiting`: something failed; go to `next` after a pause
 */
export type State<K extends KubeObject> =
  | { readonly at: 'fetching'; readonly source: Source; readonly objects: readonly K[]; readonly continue?: string }
  | { readonly at: 'following'; readonly source: Source; readonly revision: string }
  | { readonly at: 'waiting'; readonly next: State<K> }

export type Input<K extends KubeObject> =
  | { readonly type: 'event'; readonly event: WatchEvent<K> }
  | { readonly type: 'page'; readonly page: KubeList<K> }
  /** The stream ended without an error. `early`: so soon that asking again at once would be a storm. */
  | { readonly type: 'ended'; readonly early: boolean }
  | { readonly type: 'failed'; readonly error: unknown }
  /** The initial events stopped coming and no bookmark closed them: a server that ignores the parameter. */
  | { readonly type: 'stalled' }
  | { readonly type: 'waited' }

export const initialState = <K extends KubeObject>(): State<K> => ({ at: 'fetching', source: 'stream', objects: [] })

export interface Step<K extends KubeObject> {
  readonly state: State<K>
  readonly change?: Change<K>
}

/** One step: the state and what happened give the next state and what the user is told. */
export function step<K extends KubeObject>(state: State<K>, input: Input<K>): Step<K> {
  if (state.at === 'waiting') return { state: state.next }
  const source = state.source
  switch (input.type) {
    case 'event':
      return state.at === 'fetching' ? stepInitialEvent(state, input.event) : stepEvent(state, input.event)
    case 'page': {
      if (state.at !== 'fetching') return { state }
      const objects = [...state.objects, ...input.page.items]
      const next = input.page.metadata.continue
      if (next) return { state: { ...state, objects, continue: next } }
      const revision = input.page.metadata.resourceVersion ?? ''
      return { state: { at: 'following', source, revision }, change: { type: 'replace', objects, revision } }
    }
    case 'ended': {
      const next: State<K> = state.at === 'fetching' ? { at: 'fetching', source, objects: [] } : state
      return { state: input.early ? { at: 'waiting', next } : next }
    }
    case 'stalled':
      return { state: state.at === 'fetching' ? { at: 'fetching', source: 'list', objects: [] } : state }
    case 'failed':
      return stepFailure(state, input.error)
    case 'waited':
      return { state }
    default:
      return input satisfies never
  }
}

function stepInitialEvent<K extends KubeObject>(state: State<K> & { at: 'fetching' }, event: WatchEvent<K>): Step<K> {
  switch (event.type) {
    case 'BOOKMARK': {
      if (!event.initialEventsEnd) return { state }
      const revision = event.resourceVersion
      const change: Change<K> = { type: 'replace', objects: state.objects, revision }
      return { state: { at: 'following', source: state.source, revision }, change }
    }
    case 'ADDED':
      // The array is this fetch's own: copying it for each of ten thousand events would be quadratic.
      ;(state.objects as K[]).push(event.object)
      return { state }
    case 'MODIFIED':
    case 'DELETED': {
      const others = state.objects.filter((o) => !sameObject(o, event.object))
      return { state: { ...state, objects: event.type === 'DELETED' ? others : [...others, event.object] } }
    }
    default:
      return event satisfies never
  }
}

function stepEvent<K extends KubeObject>(state: State<K> & { at: 'following' }, event: WatchEvent<K>): Step<K> {
  const revision = event.type === 'BOOKMARK' ? event.resourceVersion : event.object.metadata.resourceVersion
  // A resumed watch never goes back in time; a server that does so would make a copy flicker.
  if (compareRevisions(revision, state.revision) < 0) return { state }
  const next = { ...state, revision }
  switch (event.type) {
    case 'BOOKMARK':
      return { state: next, change: { type: 'progress', revision } }
    case 'ADDED':
    case 'MODIFIED':
      return { state: next, change: { type: 'changed', object: event.object, revision } }
    case 'DELETED':
      return { state: next, change: { type: 'deleted', object: event.object, revision } }
    default:
      return event satisfies never
  }
}

function stepFailure<K extends KubeObject>(state: Exclude<State<K>, { at: 'waiting' }>, error: unknown): Step<K> {
  const afresh = (source: Source): State<K> => ({ at: 'fetching', source, objects: [] })
  const code = error instanceof StatusError ? error.code : 0
  if (state.at === 'following') {
    // Our revision has been compacted away: what was missed can only be found by looking at everything.
    if (code === 410) return { state: afresh(state.source) }
    // The server has not come as far as we have: its store is another one now. What we hold may never have been.
    if (isAhead(error))
      return { state: { at: 'waiting', next: afresh(state.source) }, change: { type: 'trouble', error } }
    return { state: { at: 'waiting', next: state }, change: { type: 'trouble', error } }
  }
  // Old servers refuse the parameter of the streaming list in one of these ways.
  const refusedStream = state.source === 'stream' && (code === 400 || code === 405 || code === 422)
  if (refusedStream) return { state: afresh('list') }
  const next = afresh(state.source)
  // A page's token has expired: begin again, at once.
  if (code === 410 && state.continue !== undefined) return { state: next }
  return { state: { at: 'waiting', next }, change: { type: 'trouble', error } }
}

const isAhead = (error: unknown): boolean =>
  error instanceof StatusError &&
  (error.status.details?.causes ?? []).some((cause) => cause.reason === 'ResourceVersionTooLarge')

const sameObject = (a: KubeObject, b: KubeObject): boolean =>
  a.metadata.name === b.metadata.name && a.metadata.namespace === b.metadata.namespace

export interface FollowOptions extends Omit<ListOptions, 'limit' | 'continue' | 'resourceVersion'> {
  readonly signal: AbortSignal
  readonly clock?: Clock
  /**
   * Default: 200 ms doubling to 10 s, with jitter, from the start again whenever the server was heard. Shorter than
   * upstream's 800 ms to 30 s: a server of ours is back within a second or two, and nodes should be with it at once.
   */
  readonly backoff?: BackoffOptions
  readonly random?: () => number
}

/** Upstream's page size. */
const pageItems = 500
/** How long the initial events may be silent before the server is taken for one that ignores the parameter. */
const stallMs = 30_000
/** A watch that ends sooner than this without an event is treated as a failure. */
const earlyMs = 1_000

/** Drives the machine: every object once, then every change, for ever, until `signal` aborts (then it returns). */
export async function* follow<K extends KubeObject>(
  client: Client,
  resource: Resource<K>,
  options: FollowOptions,
): AsyncGenerator<Change<K>, void> {
  const { signal, clock = systemClock, random = Math.random, ...rest } = options
  const { backoff: backoffOptions, ...query } = rest
  const backoff = new Backoff({ firstMs: 200, maxMs: 10_000, jitter: 0.5, random, ...backoffOptions })
  let state = initialState<K>()
  while (!signal.aborted) {
    if (state.at === 'waiting') {
      try {
        await delay(backoff.next(), signal, clock)
      } catch {
        return
      }
      state = step(state, { type: 'waited' }).state
      continue
    }
    for await (const input of ask(client, resource, state, query, signal, clock)) {
      const result: Step<K> = step(state, input)
      state = result.state
      if (result.change && result.change.type !== 'trouble') backoff.reset()
      if (result.change) yield result.change
    }
  }
}

/** Asks the server for what the state needs. The last input is always one that ends the question. */
async function* ask<K extends KubeObject>(
  client: Client,
  resource: Resource<K>,
  state: Exclude<State<K>, { at: 'waiting' }>,
  query: Omit<ListOptions, 'limit' | 'continue'>,
  signal: AbortSignal,
  clock: Clock,
): AsyncGenerator<Input<K>, void> {
  try {
    if (state.at === 'fetching' && state.source === 'list') {
      const from = state.continue === undefined ? {} : { continue: state.continue }
      yield { type: 'page', page: await client.list(resource, { ...query, limit: pageItems, ...from, signal }) }
      return
    }
    const fetching = state.at === 'fetching'
    const stalled = new AbortController()
    const start = fetching ? { sendInitialEvents: true } : { resourceVersion: state.revision }
    const openedAt = clock.monotonic()
    let events = 0
    let cancelStall = () => {}
    const watchStall = () => {
      cancelStall()
      cancelStall = clock.schedule(stallMs, () => stalled.abort())
    }
    if (fetching) watchStall()
    try {
      const both = AbortSignal.any([signal, stalled.signal])
      for await (const event of client.watch(resource, { ...query, ...start, signal: both })) {
        events++
        if (fetching && event.type === 'BOOKMARK' && event.initialEventsEnd) {
          cancelStall()
        } else if (fetching && events % 100 === 1 && !stalled.signal.aborted) watchStall()
        yield { type: 'event', event }
      }
    } catch (error) {
      if (!stalled.signal.aborted) throw error
    } finally {
      cancelStall()
    }
    if (stalled.signal.aborted) yield { type: 'stalled' }
    else yield { type: 'ended', early: events === 0 && clock.monotonic() - openedAt < earlyMs }
  } catch (error) {
    if (!signal.aborted) yield { type: 'failed', error }
  }
}
