import test from 'ava'
import { GatewayPlace } from './place.ts'
import { backend, listener, prefix, route, state, target } from './state.ts'

let place: GatewayPlace
test.before(async () => {
  place = await GatewayPlace.open()
  await Promise.all([place.backend('10.1.0.1', 8080), place.backend('10.1.0.2', 8080)])
})
test.after.always(async () => {
  await place[Symbol.asyncDispose]()
})

const a = backend('test/a:80', ['10.1.0.1:8080'])
const b = backend('test/b:80', ['10.1.0.2:8080'])

test.serial('a route leads to its backend, by address, port, hostname and path, in both families', async (t) => {
  const outcome = await place.engine.apply(
    state(
      [listener()],
      [
        route(
          'one',
          ['one.test'],
          [
            { matches: [prefix('/')], targets: [target(a.id)] },
            { matches: [prefix('/b')], targets: [target(b.id)] },
          ],
        ),
      ],
      [a, b],
    ),
  )
  t.deepEqual([...outcome.faults], [])
  t.is((await place.seen('http://one.test/')).backend, '10.1.0.1:8080')
  t.is((await place.seen('http://one.test/b/c', { address: 'fd00:9::1' })).backend, '10.1.0.2:8080')
  t.is((await place.seen('http://one.test/bc')).backend, '10.1.0.1:8080')
  t.is((await place.ask('http://two.test/')).code, 404)
  await t.throwsAsync(place.ask('http://one.test/', { port: 81 }), { message: /ECONNREFUSED/ })
})
